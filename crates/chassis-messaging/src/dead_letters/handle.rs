//! The dead letters of one group: look, edit, send again, throw away.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chassis_core::{Code, Error, Result, unix_ms};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::letter::{DeadLetter, Filter, Letters, Opened, edited, redriven};
use crate::broker::{Broker, Browse, MAX_PAGE, Stored, Topics};
use crate::consumer::dead_letter_topic;
use crate::topic::{DEAD_LETTERS, validate_group};

/// The most dead letters of one list or one sweep.
pub const MAX_LETTERS: usize = 1000;

/// How many pages a list turns, at most, to find those that fit.
const MAX_PAGES: usize = 40;

/// The fastest rate, in messages per second.
const MAX_RATE: u32 = 1000;

/// The dead letters of one group. Clones take turns with their changes.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    broker: Broker,
    group: String,
    /// Held for one change, so that two do not meet at one letter.
    turn: Arc<Mutex<()>>,
}

/// How much and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How many dead letters at most; never more than [`MAX_LETTERS`].
    pub limit: usize,
    /// How many in a second, from 1 to 1000: what killed them may still be weak.
    pub per_second: u32,
    /// When to stop, done or not.
    pub within: Duration,
}

impl Default for Pace {
    /// 100 dead letters, 10 in a second, within 45 seconds: less than a person or a
    /// proxy waits for an answer.
    fn default() -> Pace {
        Pace { limit: 100, per_second: 10, within: Duration::from_secs(45) }
    }
}

/// What came of a change to several dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// For how many it was done.
    pub done: usize,
    /// How many somebody else had taken meanwhile.
    pub gone: usize,
    /// How many could not be done; they stay.
    pub failed: usize,
    /// Why the last of these could not.
    pub problem: Option<String>,
    /// Whether there may be more that fit.
    pub more: bool,
}

enum Change {
    Redrive,
    Discard,
}

impl DeadLetters {
    /// The dead letters of a group.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` for a bad group.
    pub fn new(broker: &Broker, group: impl Into<String>) -> Result<DeadLetters> {
        let group = group.into();
        validate_group(&group)?;
        Ok(DeadLetters { broker: broker.clone(), group, turn: Arc::default() })
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Lists dead letters from a position on, the oldest first, at most `limit` and at
    /// most [`MAX_LETTERS`]. It turns a bounded number of pages and may then have found
    /// fewer, though there are more: only [`Letters::next`] tells where the end is.
    ///
    /// Dropping the future ends the reading.
    ///
    /// # Errors
    ///
    /// `FAILED_PRECONDITION` where this broker cannot look at its messages;
    /// `UNAVAILABLE` where it does not answer.
    pub async fn list(&self, filter: &Filter, from: u64, limit: usize) -> Result<Letters> {
        let limit = limit.clamp(1, MAX_LETTERS);
        let topics = match &filter.topic {
            Some(topic) => Topics::One(dead_letter_topic(&self.group, topic)),
            None => self.all(),
        };
        // Without more to fit, no letter is read in vain.
        let all_fit = filter.reason.is_none() && filter.id.is_none();
        let page = if all_fit { limit.min(MAX_PAGE) } else { MAX_PAGE };
        let mut letters = Vec::new();
        let mut next = Some(from);
        for _ in 0..MAX_PAGES {
            let Some(from) = next.filter(|_| letters.len() < limit) else { break };
            let page = self.browse()?.page(topics.clone(), from, page).await?;
            next = page.next;
            for stored in &page.messages {
                let letter = DeadLetter::of(stored, &self.group);
                if !filter.fits(&letter) {
                    continue;
                }
                if letters.len() == limit {
                    next = Some(letter.position);
                    break;
                }
                letters.push(letter);
            }
        }
        Ok(Letters { letters, next })
    }

    /// Shows a dead letter with headers and payload.
    ///
    /// Dropping the future ends the reading.
    ///
    /// # Errors
    ///
    /// `NOT_FOUND` with the reason `DEAD_LETTER_NOT_FOUND`, and as
    /// [`list`](DeadLetters::list).
    pub async fn show(&self, position: u64) -> Result<Opened> {
        Ok(Opened::of(self.read(position).await?, &self.group))
    }

    /// Replaces the payload. The dead letter gets another position and a count of its
    /// edits; it is given as it is now, unless somebody has taken it already or it is too far behind the old one.
    ///
    /// Dropping the future may leave both the old and the new dead letter.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` for a payload that is no JSON, where the message says that it
    /// is some, or is too large; `ABORTED` where another process changed the dead letter at
    /// the same time; and as [`show`](DeadLetters::show).
    pub async fn edit(&self, position: u64, payload: Bytes) -> Result<Option<DeadLetter>> {
        let _turn = self.turn.lock().await;
        let Stored { message, .. } = self.read(position).await?;
        let letter = edited(message, payload, unix_ms())?;
        let (topic, edition) = (letter.topic.clone(), letter.edition());
        let id = letter.id.clone();
        self.broker.publish(letter).await?;
        if !self.browse()?.delete(topic.clone(), position).await? {
            return Err(Error::aborted(
                "DEAD_LETTER_CHANGED",
                "somebody else changed this dead letter at the same time; look again",
            ));
        }
        self.log("edited", position, &id);
        let mut next = Some(position);
        for _ in 0..MAX_PAGES {
            let Some(from) = next else { break };
            let page = self.browse()?.page(Topics::One(topic.clone()), from, MAX_PAGE).await?;
            let is_it = |at: &&Stored| at.message.id == id && at.message.edition() == edition;
            if let Some(stored) = page.messages.iter().find(is_it) {
                return Ok(Some(DeadLetter::of(stored, &self.group)));
            }
            next = page.next;
        }
        Ok(None)
    }

    /// Sends a dead letter back to its topic, for this group, and removes it.
    ///
    /// Dropping the future may leave the dead letter though it was sent; redriving it
    /// again does no harm.
    ///
    /// # Errors
    ///
    /// Those of publishing, and as [`show`](DeadLetters::show).
    pub async fn redrive(&self, position: u64) -> Result<()> {
        let _turn = self.turn.lock().await;
        let Stored { message, .. } = self.read(position).await?;
        let (topic, id) = (message.topic.clone(), message.id.clone());
        self.broker.publish(redriven(message, &self.group)).await?;
        // If it is gone, somebody has sent the same edition, which was stored once.
        self.browse()?.delete(topic, position).await?;
        self.log("redriven", position, &id);
        Ok(())
    }

    /// Redrives those that fit, as [`redrive`](DeadLetters::redrive) does, the oldest
    /// first. One that dies again meanwhile is left for the next time.
    ///
    /// Dropping the future stops where it stands.
    ///
    /// # Errors
    ///
    /// As [`list`](DeadLetters::list), before anything is changed; later failures are in
    /// the answer.
    pub async fn redrive_all(&self, filter: &Filter, pace: Pace) -> Result<Swept> {
        self.sweep(filter, pace, Change::Redrive).await
    }

    /// Throws a dead letter away.
    ///
    /// Dropping the future leaves open whether it is gone.
    ///
    /// # Errors
    ///
    /// As [`show`](DeadLetters::show).
    pub async fn discard(&self, position: u64) -> Result<()> {
        let _turn = self.turn.lock().await;
        let Stored { message, .. } = self.read(position).await?;
        if !self.browse()?.delete(message.topic, position).await? {
            return Err(not_found());
        }
        self.log("discarded", position, &message.id);
        Ok(())
    }

    /// Throws away those that fit, the oldest first.
    ///
    /// Dropping the future stops where it stands.
    ///
    /// # Errors
    ///
    /// As [`redrive_all`](DeadLetters::redrive_all).
    pub async fn discard_all(&self, filter: &Filter, pace: Pace) -> Result<Swept> {
        self.sweep(filter, pace, Change::Discard).await
    }

    async fn sweep(&self, filter: &Filter, pace: Pace, change: Change) -> Result<Swept> {
        let until = Instant::now() + pace.within;
        // Chosen first: one that dies again gets a new position, and is not chosen twice.
        let Letters { letters, next } = self.list(filter, 0, pace.limit).await?;
        let mut swept = Swept { more: next.is_some(), ..Swept::default() };
        let every = Duration::from_secs(1) / pace.per_second.clamp(1, MAX_RATE);
        let mut turns = interval(every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for letter in letters {
            turns.tick().await;
            if Instant::now() >= until {
                swept.more = true;
                break;
            }
            let changed = match change {
                Change::Redrive => self.redrive(letter.position).await,
                Change::Discard => self.discard(letter.position).await,
            };
            match changed {
                Ok(()) => swept.done += 1,
                Err(error) if error.reason() == NOT_FOUND => swept.gone += 1,
                Err(error) => {
                    tracing::warn!(
                        position = letter.position, error = %error.chain(),
                        "a dead letter stays"
                    );
                    swept.failed += 1;
                    swept.problem = Some(error.to_string());
                    if matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded) {
                        swept.more = true;
                        break;
                    }
                }
            }
        }
        Ok(swept)
    }

    async fn read(&self, position: u64) -> Result<Stored> {
        self.browse()?.read(self.all(), position).await?.ok_or_else(not_found)
    }

    fn all(&self) -> Topics {
        Topics::Below(format!("{DEAD_LETTERS}.{}", self.group))
    }

    fn browse(&self) -> Result<&dyn Browse> {
        self.broker.browse().ok_or_else(|| {
            Error::failed_precondition(
                "BROKER_CANNOT_BROWSE",
                "this broker cannot look at the messages that it holds",
            )
        })
    }

    fn log(&self, what: &'static str, position: u64, id: &str) {
        tracing::info!(group = %self.group, position, message_id = id, "dead letter {what}");
    }
}

const NOT_FOUND: &str = "DEAD_LETTER_NOT_FOUND";

fn not_found() -> Error {
    let message = "there is no such dead letter; it may have been redriven, edited or discarded";
    Error::not_found(NOT_FOUND, message)
}
