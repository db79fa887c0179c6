//! Publishes and their acknowledgements, thousands at a time.
//!
//! async-nats makes two timers, several boxes and a parse in two steps for each publish.
//! Here all acknowledgements come to one subscription, a number in their subject says
//! whose they are, and one timer looks for those that do not come.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::jetstream::ErrorCode;
use async_nats::{Client, HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use chassis_core::{Code, Error, Result};
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{timed_out, unavailable};

/// How many publishes may wait for their acknowledgement; more wait at the door.
const MAX_UNACKNOWLEDGED: usize = 4096;
/// Of a number in a subject.
const MAX_DIGITS: usize = 20;
/// In this many parts of its patience a late acknowledgement is missed.
const LOOKS: u32 = 8;

/// What the server says of a message that it has.
#[derive(Debug)]
pub(super) struct Acknowledged {
    /// Its place in the stream.
    pub(super) sequence: u64,
    /// It was there before.
    pub(super) duplicate: bool,
}

/// Why a message is not known to be stored.
#[derive(Debug)]
pub(super) enum Unstored {
    NoStream,
    TooLarge,
    /// The stream, or the server, has no room.
    Full(Refusal),
    TimedOut,
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl From<Unstored> for Error {
    fn from(unstored: Unstored) -> Error {
        match unstored {
            Unstored::NoStream => unavailable("the stream of the topic does not exist"),
            Unstored::TimedOut => timed_out(),
            Unstored::TooLarge => Error::new(
                Code::InvalidArgument,
                "MESSAGE_TOO_LARGE",
                "the message is larger than the NATS server takes",
            ),
            Unstored::Full(refusal) => {
                unavailable("NATS has no room for the message").with_source(refusal)
            }
            Unstored::Other(source) => {
                unavailable("NATS did not store the message").with_source(source)
            }
        }
    }
}

/// The publishes of one connection.
pub(super) struct Acks {
    client: Client,
    waiting: Arc<Waiting>,
    /// Where acknowledgements go, but for the number.
    inbox: String,
    patience: Duration,
    door: Semaphore,
    _listener: AbortOnDropHandle<()>,
}

/// Who waits for which number.
#[derive(Default)]
struct Waiting(Mutex<Numbers>);

#[derive(Default)]
struct Numbers {
    last: u64,
    /// In the order of their numbers, which is that of their ends too.
    open: BTreeMap<u64, (Instant, oneshot::Sender<Answered>)>,
}

type Answered = Result<Acknowledged, Unstored>;

impl Acks {
    /// Listens. A publish that has no answer after `patience` is given up.
    pub(super) async fn listen(client: Client, patience: Duration) -> Result<Acks> {
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await;
        let answers = answers.map_err(|error| unavailable("NATS is away").with_source(error))?;
        let waiting = Arc::new(Waiting::default());
        let listener = tokio::spawn(hear(answers, waiting.clone(), patience / LOOKS));
        Ok(Acks {
            client,
            waiting,
            inbox,
            patience,
            door: Semaphore::new(MAX_UNACKNOWLEDGED),
            _listener: AbortOnDropHandle::new(listener),
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Publishes, and waits until the server says that it has the message.
    ///
    /// Dropping the future leaves open whether it has.
    pub(super) async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Acknowledged, Unstored> {
        let limit = self.patience;
        let _place = match self.door.try_acquire() {
            Ok(place) => place,
            Err(_) => match Box::pin(timeout(limit, self.door.acquire())).await {
                Ok(Ok(place)) => place,
                Ok(Err(closed)) => return Err(Unstored::Other(closed.into())),
                Err(_) => return Err(Unstored::TimedOut),
            },
        };
        let (mut ticket, answer) = self.waiting.ticket(limit);
        let mut reply = String::with_capacity(self.inbox.len() + 1 + MAX_DIGITS);
        // Writing to a string does not fail.
        let _ = write!(reply, "{}.{}", self.inbox, ticket.number);
        let publish = self.client.publish_with_reply_and_headers(subject, reply, headers, payload);
        // In a box, which is gone when the message is sent: while it waits for its answer it
        // takes up little room.
        match soon(Box::pin(publish), limit).await {
            Some(Ok(())) => {}
            Some(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                return Err(Unstored::TooLarge);
            }
            Some(Err(error)) => return Err(Unstored::Other(error.into())),
            None => return Err(Unstored::TimedOut),
        }
        let answer = answer.await;
        // Who answered, or gave it up, has taken it out.
        ticket.open = false;
        answer.unwrap_or(Err(Unstored::TimedOut))
    }
}

impl Waiting {
    fn ticket(&self, limit: Duration) -> (Ticket<'_>, oneshot::Receiver<Answered>) {
        let (sender, answer) = oneshot::channel();
        let mut numbers = self.0.lock();
        numbers.last += 1;
        let number = numbers.last;
        numbers.open.insert(number, (Instant::now() + limit, sender));
        (Ticket { waiting: self, number, open: true }, answer)
    }

    fn answered(&self, answer: &Message) {
        let number = answer.subject.rsplit('.').next().and_then(|number| number.parse().ok());
        let waiting = number.and_then(|number: u64| self.0.lock().open.remove(&number));
        if let Some((_, waiting)) = waiting {
            // Whoever waited may have gone.
            let _ = waiting.send(read(answer));
        }
    }

    /// Gives up what has waited too long.
    fn look(&self, now: Instant) {
        let mut numbers = self.0.lock();
        while let Some(first) = numbers.open.first_entry()
            && first.get().0 <= now
        {
            first.remove();
        }
    }
}

/// A place among those who wait, until it is dropped.
struct Ticket<'a> {
    waiting: &'a Waiting,
    number: u64,
    open: bool,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.open {
            self.waiting.0.lock().open.remove(&self.number);
        }
    }
}

async fn hear(mut answers: Subscriber, waiting: Arc<Waiting>, every: Duration) {
    let mut look = interval(every.max(Duration::from_millis(10)));
    loop {
        tokio::select! {
            answer = answers.next() => match answer {
                Some(answer) => {
                    waiting.answered(&answer);
                    // Take along all that is there.
                    while let Some(Some(answer)) = answers.next().now_or_never() {
                        waiting.answered(&answer);
                    }
                }
                None => return,
            },
            now = look.tick() => waiting.look(now),
        }
    }
}

/// Awaits what is nearly always ready, without a timer where it is. `None`: not in time.
async fn soon<T>(mut work: impl Future<Output = T> + Unpin, limit: Duration) -> Option<T> {
    let ready =
        std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut work).poll(context))).await;
    match ready {
        Poll::Ready(done) => Some(done),
        Poll::Pending => Box::pin(timeout(limit, work)).await.ok(),
    }
}

fn read(answer: &Message) -> Result<Acknowledged, Unstored> {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(Unstored::NoStream);
    }
    match serde_json::from_slice::<Answer>(&answer.payload) {
        Ok(Answer { error: Some(refusal), .. }) if refusal.is_full() => {
            Err(Unstored::Full(refusal))
        }
        Ok(Answer { error: Some(refusal), .. }) => Err(Unstored::Other(refusal.into())),
        Ok(Answer { seq, duplicate, .. }) => Ok(Acknowledged { sequence: seq, duplicate }),
        Err(error) => Err(Unstored::Other(error.into())),
    }
}

/// An acknowledgement as the server writes it.
#[derive(Deserialize)]
struct Answer {
    error: Option<Refusal>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

/// Why the server did not store a message, in its own words.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Refusal {
    /// The stream, the account or the server has no room.
    fn is_full(&self) -> bool {
        match ErrorCode(self.err_code) {
            ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED => true,
            ErrorCode::STREAM_STORE_FAILED => self.description.contains("maximum bytes"),
            _ => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.description, self.err_code)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(subject: &str, payload: &'static str, status: Option<StatusCode>) -> Message {
        Message {
            subject: subject.into(),
            reply: None,
            payload: Bytes::from_static(payload.as_bytes()),
            headers: None,
            status,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn answers_are_read() {
        let read = |payload| read(&answer("a", payload, None));
        let stored = read(r#"{"stream":"A", "seq":22}"#).unwrap();
        assert_eq!((stored.sequence, stored.duplicate), (22, false));
        assert!(
            read(r#"{"stream":"A","domain":"d","seq":7,"duplicate": true}"#).unwrap().duplicate
        );
        // It may hold the fields of a success too.
        let full = r#"{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"stream":"A","seq":0}"#;
        assert!(
            matches!(read(full), Err(Unstored::Full(why)) if why.to_string().contains("bytes"))
        );
        let other = r#"{"error":{"code":400,"err_code":10070,"description":"wrong last sequence"},"seq":0}"#;
        assert!(matches!(read(other), Err(Unstored::Other(_))));
        assert!(matches!(read("no JSON"), Err(Unstored::Other(_))));
        let nobody = super::read(&answer("a", "", Some(StatusCode::NO_RESPONDERS)));
        assert!(matches!(nobody, Err(Unstored::NoStream)));
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_finds_who_waits_and_none_waits_for_ever() {
        let waiting = Waiting::default();
        let limit = Duration::from_secs(5);
        let (_one, first) = waiting.ticket(limit);
        let (two, second) = waiting.ticket(limit);
        waiting.answered(&answer("_INBOX.x.2", r#"{"stream":"A","seq":22}"#, None));
        waiting.answered(&answer("_INBOX.x.2", "again", None));
        waiting.answered(&answer("_INBOX.x.nobody", "", None));
        assert_eq!(second.await.unwrap().unwrap().sequence, 22);
        drop(two);
        waiting.look(Instant::now());
        assert_eq!(waiting.0.lock().open.len(), 1);
        waiting.look(Instant::now() + limit);
        assert!(first.await.is_err(), "given up");
        let (gone, _) = waiting.ticket(limit);
        drop(gone);
        assert!(waiting.0.lock().open.is_empty(), "who goes leaves nothing behind");
    }
}
