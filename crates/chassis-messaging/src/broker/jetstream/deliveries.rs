//! What a subscriber of JetStream holds, and how its answers go out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, Subject};
use bytes::Bytes;
use chassis_core::{BoxFuture, Result};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::key_order::Ticket;
use super::streams::{self, MAX_ACK_PENDING};
use super::uncounted::Uncounted;
use super::{Shared, unavailable};
use crate::broker::{Acknowledge, Answer, Deliveries, Delivery};
use crate::message::Message;

/// How long the server gets to say how far a consumer is.
const ASK_PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct JetStreamDeliveries {
    deliveries: mpsc::Receiver<Delivery>,
    /// Tells the puller whether anybody waits for messages.
    wanted: watch::Sender<bool>,
}

impl JetStreamDeliveries {
    pub(super) fn new(
        deliveries: mpsc::Receiver<Delivery>,
        wanted: watch::Sender<bool>,
    ) -> JetStreamDeliveries {
        JetStreamDeliveries { deliveries, wanted }
    }

    fn want(&self, wanted: bool) {
        self.wanted.send_if_modified(|was| std::mem::replace(was, wanted) != wanted);
    }
}

impl Deliveries for JetStreamDeliveries {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Delivery>>> {
        self.want(true);
        Box::pin(async { Ok(self.deliveries.recv().await) })
    }

    fn pause(&mut self) -> BoxFuture<'_, ()> {
        self.want(false);
        Box::pin(async {
            while let Ok(delivery) = self.deliveries.try_recv() {
                release(delivery).await;
            }
        })
    }
}

impl Drop for JetStreamDeliveries {
    fn drop(&mut self) {
        self.deliveries.close();
        let rest: Vec<_> = std::iter::from_fn(|| self.deliveries.try_recv().ok()).collect();
        if rest.is_empty() {
            return;
        }
        // Without a runtime they come again after their ack wait.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                for delivery in rest {
                    release(delivery).await;
                }
            });
        }
    }
}

async fn release(delivery: Delivery) {
    if let Err(error) = delivery.release().await {
        tracing::debug!(error = %error.chain(), "a message was not given back");
    }
}

/// A message as it came from the server.
pub(super) struct Pulled {
    pub(super) seq: u64,
    pub(super) attempt: u32,
    pub(super) message: Message,
    /// The key that it stands in line for.
    pub(super) line: Option<Arc<str>>,
    reply: Subject,
}

impl Pulled {
    /// Reads a message of a stream; `None` if it is none.
    pub(super) fn read(
        message: async_nats::Message,
        decode: impl FnOnce(&async_nats::Message, String) -> Message,
    ) -> Option<Pulled> {
        let reply = message.reply.clone()?;
        let (seq, attempt) = parse_reply(&reply)?;
        let mut message = decode(&message, String::new());
        if message.id.is_empty() {
            message.id = format!("seq-{seq}");
        }
        let line = message.line().map(Arc::from);
        Some(Pulled { seq, attempt, message, line, reply })
    }

    /// Sends an answer; a lost one brings the message again.
    pub(super) async fn send(&self, client: &Client, answer: Answer) {
        if let Err(error) = client.publish(self.reply.clone(), payload(answer)).await {
            tracing::debug!(%error, "NATS takes no answer");
        }
    }

    pub(super) async fn in_progress(&self, client: &Client) {
        if let Err(error) = client.publish(self.reply.clone(), IN_PROGRESS).await {
            tracing::debug!(%error, "NATS takes no answer");
        }
    }
}

/// What the puller hears about a delivery.
pub(super) struct Answered {
    pub(super) seq: u64,
    pub(super) line: Option<Arc<str>>,
    pub(super) ticket: Ticket,
    pub(super) attempt: u32,
    pub(super) answer: Answer,
}

/// Whose deliveries they are: what all of a subscription share.
pub(super) struct Owner {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Client,
    pub(super) group: String,
    pub(super) topic: String,
    /// Tells the puller.
    pub(super) answers: mpsc::Sender<Answered>,
    /// Deliveries of this consumer that were in nobody's hands.
    pub(super) uncounted: Arc<Mutex<Uncounted>>,
    /// Counts how often the numbers of the stream began to stand for other messages. The
    /// server tells messages in an answer by nothing else: an answer to one that was taken
    /// before would be taken for one to whatever has its number now.
    pub(super) numbering: AtomicU64,
}

impl Owner {
    /// Whether the consumer has the answers to all before this number in the stream.
    ///
    /// The server moves the floor only over what is answered, so it is never too high.
    async fn is_oldest(&self, seq: u64) -> Result<bool> {
        let asked = streams::find_consumer(&self.shared.context, &self.group, &self.topic);
        let found = timeout(ASK_PATIENCE, asked).await;
        let found = found.map_err(|_| unavailable("NATS does not answer"))??;
        Ok(found.is_some_and(|info| info.ack_floor.stream_sequence + 1 >= seq))
    }
}

pub(super) struct Held {
    owner: Arc<Owner>,
    /// Whose number it has.
    numbering: u64,
    reply: Subject,
    /// Taken by the answer.
    answered: Option<Answered>,
}

impl Held {
    /// A message to hand out.
    pub(super) fn delivery(owner: Arc<Owner>, pulled: Pulled, ticket: Ticket) -> Delivery {
        let Pulled { seq, attempt, message, line, reply } = pulled;
        let answer = Answer::Nak(Duration::ZERO);
        let answered = Some(Answered { seq, line, ticket, attempt, answer });
        let numbering = owner.numbering.load(Ordering::Acquire);
        let held = Held { owner, numbering, reply, answered };
        Delivery::new(message, attempt, Box::new(held))
    }

    /// Whether the server would know which message is meant.
    fn is_known(&self) -> bool {
        self.numbering == self.owner.numbering.load(Ordering::Acquire)
    }

    /// Sends an answer, unless it would be to another message.
    async fn send(&self, payload: Bytes) -> Result<()> {
        if !self.is_known() {
            return Err(unavailable("the stream lost the message, which comes again"));
        }
        let sent = self.owner.client.publish(self.reply.clone(), payload).await;
        sent.map_err(|source| unavailable("NATS takes no answer").with_source(source))
    }

    fn tell(&mut self, answer: Answer) {
        if let Some(mut answered) = self.answered.take() {
            answered.answer = answer;
            // The puller may be gone; nobody counts hands then.
            let _ = self.owner.answers.try_send(answered);
        }
    }
}

impl Acknowledge for Held {
    fn answer(mut self: Box<Self>, answer: Answer) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            if let (Answer::Release, Some(answered)) = (answer, &self.answered) {
                // Before it is sent: the message may be back at once.
                self.owner.uncounted.lock().add(answered.seq, MAX_ACK_PENDING);
            }
            let sent = self.send(payload(answer)).await;
            self.tell(answer);
            sent
        })
    }

    fn in_progress(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.send(IN_PROGRESS))
    }

    fn is_oldest(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async {
            match &self.answered {
                Some(answered) => self.owner.is_oldest(answered.seq).await,
                None => Ok(false),
            }
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.answered.is_none() {
            return;
        }
        let answer = Answer::Nak(Duration::ZERO);
        self.tell(answer);
        if !self.is_known() {
            return;
        }
        // Without a runtime the message comes again after its ack wait.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (owner, reply) = (self.owner.clone(), self.reply.clone());
            runtime.spawn(async move { owner.client.publish(reply, payload(answer)).await });
        }
    }
}

const IN_PROGRESS: Bytes = Bytes::from_static(b"+WPI");

fn payload(answer: Answer) -> Bytes {
    match answer {
        Answer::Ack => Bytes::from_static(b"+ACK"),
        // 2.9 compares the whole payload: no reason may follow.
        Answer::Term => Bytes::from_static(b"+TERM"),
        Answer::Release | Answer::Nak(Duration::ZERO) => Bytes::from_static(b"-NAK"),
        Answer::Nak(delay) | Answer::Defer(delay) => {
            Bytes::from(format!(r#"-NAK {{"delay":{}}}"#, delay.as_nanos()))
        }
    }
}

/// Number in the stream and count of deliveries, out of the address for the
/// answer (ADR-15): `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.…`, with
/// domain and account before the stream on newer servers.
fn parse_reply(reply: &str) -> Option<(u64, u32)> {
    // By the byte: this is done for each message, and takes a third of what `str` takes.
    let mut tokens = [&[][..]; 6];
    let mut count = 0;
    for token in reply.as_bytes().strip_prefix(b"$JS.ACK.")?.split(|&byte| byte == b'.') {
        if let Some(place) = tokens.get_mut(count) {
            *place = token;
        }
        count += 1;
    }
    let (delivered, seq) = match (count, tokens) {
        (7, [_, _, delivered, seq, ..]) | (9.., [_, _, _, _, delivered, seq]) => (delivered, seq),
        _ => return None,
    };
    let delivered = std::str::from_utf8(delivered).ok()?.parse().ok()?;
    let seq = std::str::from_utf8(seq).ok()?.parse().ok()?;
    Some((seq, delivered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_reply_address_are_read() {
        for (reply, expected) in [
            ("$JS.ACK.stream.consumer.3.42.7.1700000000000000000.0", Some((42, 3))),
            ("$JS.ACK._.hash.stream.consumer.3.42.7.1700000000000000000.0.token", Some((42, 3))),
            ("$JS.ACK.stream.consumer.3", None),
            ("_INBOX.abc", None),
            ("$JS.ACK.stream.consumer.x.42.7.1.0", None),
        ] {
            assert_eq!(parse_reply(reply), expected, "{reply}");
        }
    }

    #[test]
    fn answers_are_spelled_as_the_server_reads_them() {
        assert_eq!(payload(Answer::Term), "+TERM");
        assert_eq!(payload(Answer::Nak(Duration::ZERO)), "-NAK");
        let delayed = Answer::Nak(Duration::from_millis(250));
        assert_eq!(payload(delayed), r#"-NAK {"delay":250000000}"#);
    }
}
