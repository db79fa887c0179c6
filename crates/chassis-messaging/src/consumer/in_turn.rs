//! Messages in their turn: how long one waits for the one before it, and what then.
//!
//! Most of the time the one before is in the hands of another process and done within
//! milliseconds, so a message that is too early is kept in hand for a moment. Then it goes
//! back to the broker, for a growing while; a hand is not held for longer, since the one
//! before may need it. How often it was sent back stands in the database, for all processes
//! of the group: the broker counts those deliveries, the consumer must not.
//!
//! A wait is as long as the delays that were asked for, not as the clock says: while broker
//! or database are away the one before cannot come either, and patience must not run out.

use std::time::Duration;

use chassis_core::{Error, Result};
use chassis_data::{Backend, Tx};

use super::config::{InTurnConfig, Late, Overdue};
use super::handling::{Handling, InHand, Outcome};
use super::verdict::Verdict;
use tokio::time::sleep;

use crate::broker::Delivery;
use crate::inbox::Turn;
use crate::message::Message;

/// How often a message in hand is looked at before it goes back, and the first pause
/// between two looks, which doubles.
const LOOKS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// How long a message stays away when it goes back for the first time, at most at first,
/// and when it has settled that it has to wait. After an outage the messages of a key lie
/// with several processes, and each of them waits for the one before: short, since these
/// waits add up.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const DELAY: Duration = Duration::from_millis(300);
const SETTLED_DELAY: Duration = Duration::from_secs(2);

/// What to do with a message that is too early.
pub(super) enum Next {
    /// Look again after this pause.
    Look(Duration),
    /// Handle it.
    GoOn,
    /// It is done with for now.
    Leave(Outcome),
}

/// How long a wait is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Not long enough to give up: back to the broker for this long.
    Short(Duration),
    /// Over where nothing can come any more; else as `Short`.
    Settled(Duration),
    /// Over.
    Over,
}

/// `times` counts how often a message was sent back, this time included.
fn judge(times: u32, config: &InTurnConfig) -> Wait {
    let mut waited = Duration::ZERO;
    let mut delay = FIRST_DELAY;
    for _ in 1..times {
        waited += delay;
        // Which also bounds the loop.
        if waited >= config.patience {
            return Wait::Over;
        }
        delay = if waited < config.settle { DELAY.min(delay * 2) } else { SETTLED_DELAY };
    }
    if waited >= config.patience {
        Wait::Over
    } else if waited >= config.settle {
        Wait::Settled(delay)
    } else {
        Wait::Short(delay)
    }
}

impl<S, B> Handling<S, B>
where
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    /// Whether the turn of this message is looked at. What somebody sent again out of the
    /// dead letters had its turn.
    pub(super) fn waits(&self, message: &Message) -> bool {
        self.in_turn && message.has_turn() && message.edition().is_none()
    }

    /// Notes those whose turn it is.
    pub(super) async fn turns(
        &self,
        tx: &mut Tx<B>,
        messages: &[&Message],
        patient: bool,
    ) -> Result<Vec<Turn>> {
        let (inbox, name) = (&self.inbox, &self.inbox_name);
        let [one] = messages else {
            if messages.iter().all(|message| !self.waits(message)) {
                let ids: Vec<&str> = messages.iter().map(|one| one.id.as_str()).collect();
                let first = inbox.first_times(tx, name, &ids).await?;
                return Ok(first.into_iter().map(noted).collect());
            }
            let mut turns = inbox.turns(tx, name, messages).await?;
            for (message, turn) in messages.iter().zip(&mut turns) {
                // One that was sent again is alone in a batch no longer than it needs to be.
                if *turn == Turn::Late && self.config.in_turn.late == Late::Handle {
                    *turn = self.note_late(tx, message).await?;
                }
            }
            return Ok(turns);
        };
        if !self.waits(one) {
            return Ok(vec![noted(inbox.first_time(tx, name, &one.id).await?)]);
        }
        let turn = match inbox.turn(tx, name, one).await? {
            Turn::Late if self.config.in_turn.late == Late::Handle => {
                self.note_late(tx, one).await?
            }
            Turn::Early if !patient => {
                if let Some(previous) = one.previous() {
                    inbox.go_on_without(tx, name, previous.id).await?;
                }
                noted(inbox.first_time(tx, name, &one.id).await?)
            }
            turn => turn,
        };
        Ok(vec![turn])
    }

    async fn note_late(&self, tx: &mut Tx<B>, message: &Message) -> Result<Turn> {
        let turn = noted(self.inbox.first_time(tx, &self.inbox_name, &message.id).await?);
        if turn == Turn::Noted {
            self.meters.late_handled.inc();
        }
        Ok(turn)
    }

    /// A message came before its predecessor was handled, and was looked at `looks` times.
    pub(super) async fn too_early(&self, delivery: &Delivery, looks: u32) -> Next {
        // One that comes again has waited already.
        if looks < LOOKS && delivery.attempt == 1 {
            return Next::Look(FIRST_PAUSE * (1 << looks));
        }
        match self.wait(&delivery.message.id).await {
            Wait::Short(delay) => Next::Leave(Outcome::Early(delay)),
            Wait::Settled(delay) => match delivery.is_oldest().await {
                Ok(true) => self.give_up(&delivery.message, "nothing before it is unanswered"),
                Ok(false) => Next::Leave(Outcome::Early(delay)),
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "the broker was asked in vain");
                    Next::Leave(Outcome::Early(delay))
                }
            },
            Wait::Over => self.give_up(&delivery.message, "the patience is over"),
        }
    }

    /// One that is behind another one of its key goes back.
    pub(super) async fn too_soon(&self, held: InHand) {
        let (Wait::Short(delay) | Wait::Settled(delay)) =
            self.wait(&held.delivery.message.id).await
        else {
            // It is tried again soon, and then goes on.
            return self.release(held).await;
        };
        self.answer(held, Outcome::Early(delay)).await;
    }

    async fn wait(&self, id: &str) -> Wait {
        match self.inbox.waits(&self.inbox_name, id).await {
            Ok(times) => judge(times, &self.config.in_turn),
            Err(error) => {
                tracing::debug!(error = %error.chain(), "a wait was not written down");
                Wait::Short(SETTLED_DELAY)
            }
        }
    }

    fn give_up(&self, message: &Message, why: &'static str) -> Next {
        let Message { topic, id, key, .. } = message;
        let missing = message.previous().map(|previous| previous.id).unwrap_or_default();
        let key = key.as_deref().unwrap_or_default();
        match self.config.in_turn.overdue {
            Overdue::GoOn => {
                self.meters.gone_on.inc();
                tracing::error!(
                    %topic, message_id = %id, key, missing, why,
                    "the message before this one does not come, its key goes on without it"
                );
                Next::GoOn
            }
            Overdue::DeadLetter => {
                self.meters.gaps_dead.inc();
                let text = format!("the message before it, {missing:?}, was not handled");
                let error = Error::failed_precondition("PREDECESSOR_MISSING", text);
                Next::Leave(Outcome::Failed(error, Verdict::Dead))
            }
        }
    }

    /// The outbox gave a message up: nobody is to wait for it. But they are to wait for what
    /// came before it, so this too has a turn.
    pub(super) async fn given_up(&self, delivery: &Delivery, id: &str) -> Outcome {
        if !self.in_turn {
            return Outcome::Ignored;
        }
        if let Some(early) = self.until_turn(delivery).await {
            return early;
        }
        match self.inbox.pass(&self.inbox_name, id).await {
            Ok(()) => Outcome::Ignored,
            Err(error) => Outcome::Failed(error, Verdict::Later(SETTLED_DELAY)),
        }
    }

    /// Waits for the turn of a message that no handler gets: whoever waits for it must not
    /// go on before those that come before it. `Some` where it goes back to wait.
    pub(super) async fn until_turn(&self, delivery: &Delivery) -> Option<Outcome> {
        let mut looks = 0;
        while self.waits(&delivery.message) {
            match self.is_early(&delivery.message).await {
                Ok(false) => break,
                Ok(true) => {}
                Err(error) => return Some(Outcome::Failed(error, Verdict::Later(SETTLED_DELAY))),
            }
            looks += 1;
            match self.too_early(delivery, looks).await {
                Next::Look(pause) => sleep(pause).await,
                Next::GoOn => break,
                Next::Leave(outcome) => return Some(outcome),
            }
        }
        None
    }

    /// Looks without a trace: a message that no handler gets leaves no note of its own.
    async fn is_early(&self, message: &Message) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        let turn = self.inbox.turn(&mut tx, &self.inbox_name, message).await;
        tx.rollback().await;
        Ok(turn? == Turn::Early)
    }

    /// Nobody is to wait for a message that leaves no note.
    pub(super) async fn pass(&self, message: &Message) {
        if !self.waits(message) {
            return;
        }
        if let Err(error) = self.inbox.pass(&self.inbox_name, &message.id).await {
            // Those behind it find out by themselves, and later.
            tracing::warn!(error = %error.chain(), "a message is waited for in vain");
        }
    }

    /// Which attempt a delivery is, without those that came too early.
    pub(super) async fn attempt(&self, delivery: &Delivery) -> u32 {
        if delivery.attempt == 1 || !self.waits(&delivery.message) {
            return delivery.attempt;
        }
        match self.inbox.sent_back(&self.inbox_name, &delivery.message.id).await {
            Ok(times) => delivery.attempt.saturating_sub(times).max(1),
            // Without the database nothing is tried anyway.
            Err(_) => 1,
        }
    }
}

fn noted(first: bool) -> Turn {
    if first { Turn::Noted } else { Turn::Repeated }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_waits() {
        let config = InTurnConfig::default();
        let ms = Duration::from_millis;
        for (times, expected) in [
            (1, Wait::Short(ms(50))),
            (2, Wait::Short(ms(100))),
            (3, Wait::Short(ms(200))),
            (4, Wait::Short(ms(300))),
            (36, Wait::Short(ms(300))),
            // 0.35 seconds in the first three, then 33 times 0.3, then two each.
            (37, Wait::Settled(ms(2000))),
            (481, Wait::Settled(ms(2000))),
            (482, Wait::Over),
            (u32::MAX, Wait::Over),
        ] {
            assert_eq!(judge(times, &config), expected, "{times}");
        }
    }
}
