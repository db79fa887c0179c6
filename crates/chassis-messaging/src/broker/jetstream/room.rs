//! A stream that is full.
//!
//! Streams are made to refuse what does not fit (`discard: new`): one that drops its
//! oldest messages would lose what some group has not had yet. But it keeps also what
//! all groups have had, until that is old enough. So a full stream is first rid of the
//! messages that each durable consumer of their topic has acknowledged; only what is
//! left makes it full. Topics without a consumer, as those of dead letters, stay whole.
//!
//! The last message of a topic stays, whoever has had it. Where a purge leaves none of a topic, a
//! server of 2.9 takes the consumers of that topic behind the end of the stream, and what was
//! stored since the purge is there already: no group ever gets it. For the same reason nobody
//! deletes that message by itself: two processes may be here at the same time.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind};
use chassis_core::{Code, Error, Result};
use futures_util::TryStreamExt;

use super::{Shared, unavailable};
use crate::broker::tail::StreamTail;

/// How often a stream that stays full is looked through.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

pub(super) fn full(stream: &str) -> Error {
    let message = format!(
        "the stream {stream} is full of messages that some group has not had yet; \
         let the groups catch up, or raise the stream's max_bytes"
    );
    Error::new(Code::ResourceExhausted, "BROKER_FULL", message)
}

impl Shared {
    /// Removes what all groups have had; `false` where there is nothing of the kind.
    pub(super) async fn make_room(&self, tail: &StreamTail) -> Result<bool> {
        // One at a time; who waited finds it done.
        let before = self.rooms_made.load(Ordering::Acquire);
        let mut last_try = self.room_making.lock().await;
        if self.rooms_made.load(Ordering::Acquire) != before {
            return Ok(true);
        }
        let key = tail.stream().to_owned();
        if last_try.get(&key).is_some_and(|at| at.elapsed() < AGAIN_AFTER) {
            return Ok(false);
        }
        let made = self.remove_answered(tail.stream()).await;
        if matches!(made, Ok(true)) {
            self.rooms_made.fetch_add(1, Ordering::Release);
        } else {
            last_try.retain(|_, at| at.elapsed() < AGAIN_AFTER);
            last_try.insert(key, tokio::time::Instant::now());
        }
        made
    }

    async fn remove_answered(&self, stream: &str) -> Result<bool> {
        let failed = |source: async_nats::Error| {
            unavailable("a full stream cannot be looked through").with_source(source)
        };
        let stream = self.context.get_stream(stream).await.map_err(|error| failed(error.into()))?;
        let mut floors: BTreeMap<String, u64> = BTreeMap::new();
        let mut consumers = stream.consumers();
        while let Some(found) = consumers.try_next().await.map_err(|error| failed(error.into()))? {
            let topic = found.config.filter_subject;
            if topic.is_empty() || topic.contains(['*', '>']) {
                // Not ours: what it wants of which topic cannot be told.
                return Ok(false);
            }
            let floor = floors.entry(topic).or_insert(u64::MAX);
            *floor = (*floor).min(found.ack_floor.stream_sequence);
        }
        let mut removed = 0;
        for (topic, floor) in floors {
            let last = match stream.get_last_raw_message_by_subject(&topic).await {
                Ok(last) => last.sequence,
                Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => {
                    continue;
                }
                Err(error) => return Err(failed(error.into())),
            };
            let purge = stream.purge().filter(topic).sequence(last.min(floor + 1)).await;
            removed += purge.map_err(|error| failed(error.into()))?.purged;
        }
        tracing::info!(
            stream = %stream.cached_info().config.name,
            removed,
            "a full stream was rid of what all groups have had"
        );
        Ok(removed > 0)
    }

    /// Whether there is a message at a position. The server drops repetitions also of
    /// what was purged since.
    pub(super) async fn has(&self, stream: &str, position: u64) -> Result<bool> {
        let failed = || unavailable("NATS cannot be read");
        let stream = self.context.get_stream_no_info(stream).await;
        let stream = stream.map_err(|source| failed().with_source(source))?;
        match stream.get_raw_message(position).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(false),
            Err(error) => Err(failed().with_source(error)),
        }
    }
}
