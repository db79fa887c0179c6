//! Looking into a stream: by its leader, one message at a time.
//!
//! A direct get may come from a replica that has not heard of a removal yet, and asks
//! for a stream that allows it; the leader answers with any stream.
//!
//! Messages are asked for by number and by what comes next in the whole stream, never
//! by what comes next in one topic. For that the server looks into its index of
//! subjects, which 2.9 does not keep right when the last message of a subject is
//! removed: it then misses one that is there.

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{
    DeleteMessageErrorKind, RawMessageError, RawMessageErrorKind, Stream,
};
use async_nats::jetstream::{Context, ErrorCode};
use chassis_core::{Error, Result};

use super::{headers, unavailable};
use crate::broker::browse::{MAX_PAGE, PAGE_BYTES};
use crate::broker::{Page, Stored, Topics};
use crate::topic::segment;

/// How many messages a page looks at, to find those of its topics.
const LOOK_AT: usize = 2000;

pub(super) async fn page(
    context: &Context,
    topics: &Topics,
    from: u64,
    limit: usize,
) -> Result<Page> {
    let stream = stream(context, topics).await?;
    // Streams count from 1.
    let mut page = Page { messages: Vec::new(), next: Some(from.max(1)) };
    let mut bytes = 0;
    for _ in 0..LOOK_AT {
        let Some(at) = page.next else { break };
        if page.messages.len() >= limit.clamp(1, MAX_PAGE) || bytes >= PAGE_BYTES {
            break;
        }
        let found = found(stream.get_first_raw_message_by_subject(">", at).await)?;
        page.next = found.as_ref().map(|stored| stored.position + 1);
        if let Some(stored) = found.filter(|stored| topics.contain(&stored.message.topic)) {
            bytes += stored.message.size();
            page.messages.push(stored);
        }
    }
    Ok(page)
}

pub(super) async fn read(
    context: &Context,
    topics: &Topics,
    position: u64,
) -> Result<Option<Stored>> {
    let found = found(stream(context, topics).await?.get_raw_message(position.max(1)).await)?;
    Ok(found.filter(|stored| topics.contain(&stored.message.topic)))
}

pub(super) async fn delete(context: &Context, topic: &Topics, position: u64) -> Result<bool> {
    // A position is of the whole stream, so the topic has to be looked at.
    if read(context, topic, position).await?.is_none() {
        return Ok(false);
    }
    let deleted = stream(context, topic).await?.delete_message(position).await;
    match deleted {
        Ok(deleted) => Ok(deleted),
        // Which error says that somebody was faster differs between servers.
        Err(error) if matches!(error.kind(), DeleteMessageErrorKind::JetStream(_)) => {
            match read(context, topic, position).await? {
                Some(_) => Err(not_removed().with_source(error)),
                None => Ok(false),
            }
        }
        Err(error) => Err(not_removed().with_source(error)),
    }
}

fn not_removed() -> Error {
    unavailable("NATS did not remove the message")
}

async fn stream(context: &Context, topics: &Topics) -> Result<Stream<()>> {
    let found = context.get_stream_no_info(segment(topics.name())).await;
    found.map_err(|source| unavailable("the stream has no valid name").with_source(source))
}

fn found(answer: std::result::Result<StreamMessage, RawMessageError>) -> Result<Option<Stored>> {
    match answer {
        Ok(message) => Ok(Some(stored(message))),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            // Nothing was ever stored.
            RawMessageErrorKind::JetStream(cause)
                if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            _ => Err(unavailable("NATS cannot be read").with_source(error)),
        },
    }
}

fn stored(message: StreamMessage) -> Stored {
    let position = message.sequence;
    let message = async_nats::Message {
        subject: message.subject,
        reply: None,
        payload: message.payload,
        headers: Some(message.headers),
        status: None,
        description: None,
        length: 0,
    };
    Stored { position, message: headers::decode(&message, format!("seq-{position}")) }
}
