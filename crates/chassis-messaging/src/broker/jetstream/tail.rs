//! Looking at the end of a stream: before its first use over a connection, and
//! whenever it is asked for.
//!
//! A server that was killed comes back with what had reached its disk. Its durable
//! consumers may then be ahead of their stream: one of 2.9 keeps its position, and
//! skips as many new messages as were lost (seen on 2.9.10; 2.15 turns them back by
//! itself). So before anything is published, consumers that are ahead are made again
//! where the stream ends, or where their oldest unanswered message is.
//!
//! What a client had in its buffer when the connection broke is published before anybody can
//! look, though. With it the stream may have grown past its consumers, which then took it for
//! what they had. So where a loss is found, they are made again where the stream is known to be
//! what it was.
//!
//! A server that deletes a stream says that it is gone before its files are. One of 2.9
//! that is told in between to make it again builds on those files, and then removes them:
//! what is published meanwhile is refused, or is gone at its next start. So a stream that was
//! there is not made again at once.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{self, DeliverPolicy, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use chassis_core::{BoxFuture, Result};
use futures_util::TryStreamExt;
use tokio::time::sleep;

use super::{JetStream, Shared, headers, streams, unavailable};
use crate::broker::tail::{Found, Ledger, StreamTail, Tails, Witness};

/// How long a server gets for removing the files of a stream that it has deleted. Less than
/// a publish may take.
const REMOVED_WITHIN: Duration = Duration::from_secs(1);

impl Shared {
    /// Looks at the end of a stream, unless it was seen over this connection.
    pub(super) async fn look_once(&self, tail: &StreamTail) -> Result<()> {
        let connection = self.connection();
        if tail.is_seen(connection) {
            return Ok(());
        }
        let _looking = tail.looking.lock().await;
        if !tail.is_seen(connection) {
            let mut stream = self.look_at(tail).await?;
            if stream.is_none() && tail.was_there() {
                sleep(REMOVED_WITHIN).await;
                stream = find(&self.context, tail.stream()).await?;
            }
            match stream {
                Some(stream) => {
                    streams::check(&stream, &self.config);
                    turn_back(&self.context, &stream, None).await?;
                }
                None => streams::create(&self.context, tail.stream(), &self.config).await?,
            }
            tail.seen(connection);
        }
        Ok(())
    }

    async fn look_at(&self, tail: &StreamTail) -> Result<Option<Stream>> {
        // The witness first: one that is noted while the server answers is newer than what the
        // server says, and would pass for lost.
        let witness = tail.witness();
        let stream = find(&self.context, tail.stream()).await?;
        tail.found(stream.is_some());
        if let Some(witness) = witness {
            let found = at(stream.as_ref(), witness.position).await?;
            // It may have changed since; then the next look will tell.
            if !witness.survives(&found) && tail.witness().as_ref() == Some(&witness) {
                self.ledger.report(tail);
            }
        }
        Ok(stream)
    }
}

impl Tails for JetStream {
    fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.ledger
    }

    fn holds<'a>(&'a self, stream: &'a str, witness: &'a Witness) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let stream = find(&self.shared.context, stream).await?;
            let found = at(stream.as_ref(), witness.position).await?;
            Ok(witness.survives(&found))
        })
    }

    fn look(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            for tail in self.shared.ledger.all() {
                if tail.witness().is_some() && !tail.is_lost() {
                    let _looking = tail.looking.lock().await;
                    self.shared.look_at(&tail).await?;
                }
            }
            Ok(())
        })
    }

    fn give_again<'a>(&'a self, stream: &'a str, behind: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let tail = self.shared.ledger.of(stream);
            let _looking = tail.looking.lock().await;
            match find(&self.shared.context, stream).await? {
                Some(stream) => turn_back(&self.shared.context, &stream, Some(behind)).await,
                None => Ok(()),
            }
        })
    }
}

/// The stream as it is now; `None` where there is none.
async fn find(context: &Context, stream: &str) -> Result<Option<Stream>> {
    if stream.is_empty() {
        // Of another broker, which this one replaced.
        return Ok(None);
    }
    match context.get_stream(stream).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(cause)
                if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            _ => Err(unavailable("JetStream does not answer").with_source(error)),
        },
    }
}

async fn at(stream: Option<&Stream>, position: u64) -> Result<Found> {
    let Some(stream) = stream else { return Ok(Found::NoStream) };
    let last = stream.cached_info().state.last_sequence;
    if last < position {
        return Ok(Found::Nothing { last });
    }
    match stream.get_raw_message(position).await {
        Ok(message) => Ok(Found::Message { id: headers::known_by(&message.headers) }),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(Found::Nothing { last }),
            RawMessageErrorKind::JetStream(cause)
                if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(Found::NoStream)
            }
            _ => Err(unavailable("NATS cannot be read").with_source(error)),
        },
    }
}

/// Makes those durable consumers again that are ahead of the stream, or of what it is known to
/// have kept.
async fn turn_back(context: &Context, stream: &Stream, kept: Option<u64>) -> Result<()> {
    let failed = |source: async_nats::Error| {
        unavailable("the consumers of a stream cannot be turned back").with_source(source)
    };
    let mut consumers = stream.consumers();
    let mut ahead = Vec::new();
    let mut last = kept.unwrap_or(stream.cached_info().state.last_sequence);
    while let Some(found) = consumers.try_next().await.map_err(|error| failed(error.into()))? {
        if is_ahead(&found, last) {
            ahead.push(found);
        }
    }
    if kept.is_none() && !ahead.is_empty() {
        // The stream may have grown meanwhile.
        last = stream.get_info().await.map_err(|error| failed(error.into()))?.state.last_sequence;
    }
    let stream_name = &stream.cached_info().config.name;
    for found in ahead.into_iter().filter(|found| is_ahead(found, last)) {
        let name = found.name.clone();
        let from = found.ack_floor.stream_sequence.min(last) + 1;
        tracing::warn!(
            stream = %stream_name,
            consumer = %name,
            position = found.delivered.stream_sequence,
            last,
            from,
            "a consumer may be ahead of its stream, which lost its end; made again"
        );
        let Ok(config) = consumer::FromConsumer::try_from_consumer_config(found.config) else {
            // Not one of ours: we make pull consumers only.
            continue;
        };
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
            ..config
        };
        stream.delete_consumer(&name).await.map_err(|error| failed(error.into()))?;
        let made = context.create_consumer_on_stream(config, stream_name.clone()).await;
        if let Err(error) = made {
            // Its subscriber was faster: it begins with the oldest message.
            tracing::debug!(%error, "the consumer was made by another");
        }
    }
    Ok(())
}

fn is_ahead(found: &consumer::Info, last: u64) -> bool {
    found.config.durable_name.is_some() && found.delivered.stream_sequence > last
}
