//! A message in hand, and the five answers to it.
//!
//! The answer consumes the delivery, so that a second answer does not compile. A
//! delivery that is dropped counts as given back without delay: a handler that
//! panics or is aborted does not hold its key for a whole `ack_wait`.

use std::time::Duration;

use chassis_core::{BoxFuture, Result};

use crate::message::Message;

/// What a subscriber says about a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done: do not deliver it to this group again.
    Ack,
    /// Not done: deliver it again, not before this time has passed.
    Nak(Duration),
    /// Given up: do not deliver it again, though it is not done.
    Term,
    /// Not begun: deliver it again, and do not count this delivery.
    Release,
    /// Not its turn: deliver it again, not before this time has passed, and keep others
    /// of its key waiting no longer than that.
    Defer(Duration),
}

/// How a broker takes the answer to one delivery. Dropped without an answer, it
/// gives the message back.
pub trait Acknowledge: Send + Sync {
    /// Passes the answer on. An answer may be lost with the connection; the
    /// message then comes again after its `ack_wait`.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` where the broker cannot be told.
    fn answer(self: Box<Self>, answer: Answer) -> BoxFuture<'static, Result<()>>;

    /// Asks for another `ack_wait` from now.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` where the broker cannot be told.
    fn in_progress(&self) -> BoxFuture<'_, Result<()>>;

    /// Whether the group has answered all that it was to get of this key before this
    /// message, so that nothing of that can come any more. `false` where the broker cannot
    /// say.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` where the broker cannot be asked.
    fn is_oldest(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(std::future::ready(Ok(false)))
    }
}

/// A message in hand.
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Which delivery to this group this is: 1 for the first. Those that were
    /// [released](Delivery::release) do not count, as far as the broker remembers them:
    /// JetStream counts by itself, so there the connection remembers which to leave out,
    /// and after a restart, or in another process, they count after all.
    pub attempt: u32,
    acknowledge: Box<dyn Acknowledge>,
}

impl Delivery {
    /// A delivery that answers through `acknowledge`.
    #[must_use]
    pub fn new(message: Message, attempt: u32, acknowledge: Box<dyn Acknowledge>) -> Delivery {
        Delivery { message, attempt, acknowledge }
    }

    /// Done: the group does not get this message again.
    ///
    /// Dropping the future may lose the answer: the message comes again.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE`: the message comes again after its `ack_wait`.
    pub async fn ack(self) -> Result<()> {
        self.acknowledge.answer(Answer::Ack).await
    }

    /// Not done: deliver it again, not before `delay` has passed.
    ///
    /// Dropping the future may lose the delay: the message comes again.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE`: the message comes again after its `ack_wait`.
    pub async fn nak(self, delay: Duration) -> Result<()> {
        self.acknowledge.answer(Answer::Nak(delay)).await
    }

    /// Given up: the group does not get this message again.
    ///
    /// Dropping the future may lose the answer: the message comes again.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE`: the message comes again after its `ack_wait`.
    pub async fn term(self) -> Result<()> {
        self.acknowledge.answer(Answer::Term).await
    }

    /// Not begun: deliver it again soon, and do not count this delivery.
    ///
    /// For what was taken and then cannot be tried: nobody should run out of attempts
    /// without one. Dropping the future may lose the answer: the message comes again.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE`: the message comes again after its `ack_wait`, and counts.
    pub async fn release(self) -> Result<()> {
        self.acknowledge.answer(Answer::Release).await
    }

    /// Not its turn yet: deliver it again, not before `delay` has passed.
    ///
    /// It counts as a delivery, so who defers keeps count. Unlike a message that was
    /// [given back](Delivery::nak), of which a broker must believe that it comes first when
    /// it comes again, it holds back others of its key no longer than `delay`. Dropping
    /// the future may lose the delay: the message comes again.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE`: the message comes again after its `ack_wait`.
    pub async fn defer(self, delay: Duration) -> Result<()> {
        self.acknowledge.answer(Answer::Defer(delay)).await
    }

    /// Whether the group has answered all that it was to get of this key before this
    /// message: nothing of that can come any more, but for what is published again.
    /// `false` where the broker cannot say.
    ///
    /// It may ask the broker. Dropping the future ends the question.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` where the broker does not answer.
    pub async fn is_oldest(&self) -> Result<bool> {
        self.acknowledge.is_oldest().await
    }

    /// Still at it: the broker waits another `ack_wait` from now.
    ///
    /// Dropping the future may lose the request.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE`: the message may come again while it is being handled.
    pub async fn in_progress(&self) -> Result<()> {
        self.acknowledge.in_progress().await
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.message.id)
            .field("topic", &self.message.topic)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
