//! Core NATS messages, under subjects that no stream of topics takes in.
//!
//! A topic may not contain `$`, so neither may the subjects of a stream made here: what
//! is sent below this prefix is never stored by accident. A server that has nobody to
//! give a request to says so at once, with a status message to the reply address.

use async_nats::{StatusCode, Subscriber};
use chassis_core::{BoxFuture, Result};
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{JetStream, closed, headers, unavailable};
use crate::broker::Topics;
use crate::broker::transient::{
    ERROR_CODE, ERROR_MESSAGE, ERROR_REASON, NO_RESPONDER, Parcel, Parcels, Transient,
};
use crate::message::Message;
use crate::topic::{validate_group, validate_topic};

const PREFIX: &str = "$CHASSIS.";

impl Transient for JetStream {
    fn send(&self, parcel: Parcel) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.shared.closing.is_cancelled() {
                return Err(closed().not_sent());
            }
            let Parcel { to, reply_to, message } = parcel;
            validate_topic(&to)?;
            reply_to.as_deref().map_or(Ok(()), validate_topic)?;
            message.validate(self.shared.config.max_message_bytes)?;
            let client = self.shared.context.client();
            let (subject, headers) = (subject(&to), headers::encode(&message)?);
            let sent = match reply_to {
                Some(reply_to) => {
                    let reply = self::subject(&reply_to);
                    let publish = client.publish_with_reply_and_headers(
                        subject,
                        reply,
                        headers,
                        message.payload,
                    );
                    publish.await
                }
                None => client.publish_with_headers(subject, headers, message.payload).await,
            };
            sent.map_err(|source| unavailable("NATS takes no message").with_source(source))
        })
    }

    fn listen(
        &self,
        addresses: Topics,
        group: Option<String>,
    ) -> BoxFuture<'_, Result<Box<dyn Parcels>>> {
        Box::pin(async move {
            addresses.validate()?;
            group.as_deref().map_or(Ok(()), validate_group)?;
            if self.shared.closing.is_cancelled() {
                return Err(closed());
            }
            let subject = match &addresses {
                Topics::One(topic) => subject(topic),
                Topics::Below(topic) => subject(&format!("{topic}.>")),
            };
            let client = self.shared.context.client();
            let refused = |source| unavailable("NATS takes no subscription").with_source(source);
            let subscriber = match group {
                Some(group) => client.queue_subscribe(subject, group).await.map_err(refused)?,
                None => client.subscribe(subject).await.map_err(refused)?,
            };
            // The server must know of it before anybody is told where to reply.
            let flushed = client.flush().await;
            flushed.map_err(|source| unavailable("NATS does not answer").with_source(source))?;
            let closing = self.shared.closing.clone();
            Ok(Box::new(Heard { subscriber, closing }) as Box<dyn Parcels>)
        })
    }
}

fn subject(address: &str) -> String {
    format!("{PREFIX}{address}")
}

struct Heard {
    subscriber: Subscriber,
    closing: CancellationToken,
}

impl Parcels for Heard {
    fn next(&mut self) -> BoxFuture<'_, Option<Parcel>> {
        Box::pin(async {
            loop {
                let message = tokio::select! {
                    message = self.subscriber.next() => message?,
                    () = self.closing.cancelled() => return None,
                };
                if let Some(parcel) = read(&message) {
                    return Some(parcel);
                }
            }
        })
    }
}

/// `None` for a status that says nothing to us.
fn read(received: &async_nats::Message) -> Option<Parcel> {
    let to = received.subject.strip_prefix(PREFIX)?.to_owned();
    let message = match received.status {
        Some(StatusCode::NO_RESPONDERS) => no_responder(&to),
        Some(_) => return None,
        None => {
            let mut message = headers::decode(received, "unknown".to_owned());
            message.topic.clone_from(&to);
            message
        }
    };
    let reply_to = received.reply.as_ref();
    let reply_to = reply_to.and_then(|reply| Some(reply.strip_prefix(PREFIX)?.to_owned()));
    Some(Parcel { to, reply_to, message })
}

fn no_responder(to: &str) -> Message {
    let (code, reason, message) = NO_RESPONDER;
    Message::new(to, "error", "")
        .with_header(ERROR_CODE, code.as_str())
        .with_header(ERROR_REASON, reason)
        .with_header(ERROR_MESSAGE, message)
}
