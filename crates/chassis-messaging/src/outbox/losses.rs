//! What a relay does about a broker that lost what it had acknowledged.
//!
//! Beside the publishing, the [`Guard`] writes the ends of the streams down, looks
//! whether the broker still has them, and where it has not, says so (a log line, a
//! metric, degraded health) and has everything published again since the newest
//! checkpoint that is still in its place. The ids are the same: what was not lost is
//! dropped by the broker, what was handled by the inbox.
//!
//! Until then the relay is stopped: what it holds would overtake what was lost. Before
//! the first publish of a process the same is asked of the checkpoints of the last one, and
//! before that from a partition which another relay had, of what that one had marked.
//!
//! There are two passes. A relay marks rows as published a moment after their
//! acknowledgement, and the first pass sees only those that are marked. The relay of
//! this process writes its marks before it stops; those of others, which find the loss
//! by themselves, come a little later. The second pass, after two leases, gets these:
//! by then they are written, or the lease is lost. Within two passes the broker drops
//! the repetitions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Env, Error, Gauge, Result};
use chassis_data::Backend;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::checkpoints::{self, Checkpoint, Loss};
use super::clock::{DbTime, millis};
use super::handle::Outbox;
use super::pause::Pause;
use super::replay::replay;
use super::settings::OnLoss;
use crate::broker::{Publisher, Tails, Watch, Witness};

/// Time between two checkpoints.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// So many checkpoints apart the broker is asked whether it has everything.
const LOOK_EVERY: u32 = 5;
/// What clocks may differ by, in milliseconds: a replay begins earlier by it.
const SLACK: i64 = 1000;
/// How long the relay may take until it has stopped: somewhat longer than a publish.
const STOPS: Duration = Duration::from_secs(12);
/// How long another relay may take for the first pass.
const PATIENCE: i64 = 10_000;
/// Pause after a failure.
const AGAIN: Duration = Duration::from_millis(500);

/// Sees to losses, until it is dropped.
pub(super) struct Guard<B: Backend> {
    outbox: Outbox<B>,
    publisher: Arc<dyn Publisher>,
    time: DbTime<B>,
    pause: Arc<Pause>,
    losses: Losses,
    written: BTreeMap<String, Witness>,
}

/// How losses are shown.
struct Losses {
    env: Env,
    lost: Gauge,
    /// What the health probe says; empty where all is well.
    problem: Arc<Mutex<String>>,
}

/// Begins to see to losses; gives what the relay must obey.
pub(super) fn guard<B: Backend>(
    outbox: &Outbox<B>,
    publisher: &Arc<dyn Publisher>,
    env: &Env,
) -> (Arc<Pause>, Option<AbortOnDropHandle<()>>) {
    let can_tell = publisher.tails().is_some();
    let pause = Arc::new(Pause::new(can_tell));
    if !can_tell {
        return (pause, None);
    }
    let guard = Guard {
        outbox: outbox.clone(),
        publisher: publisher.clone(),
        time: DbTime::new(outbox.db.clone(), outbox.clock.clone()),
        pause: pause.clone(),
        losses: Losses::new(env),
        written: BTreeMap::new(),
    };
    (pause, Some(AbortOnDropHandle::new(env.spawn(guard.run()))))
}

impl<B: Backend> Guard<B> {
    async fn run(mut self) {
        let publisher = self.publisher.clone();
        let Some(tails) = publisher.tails() else { return };
        let mut watch = tails.ledger().watch();
        while let Err(error) = self.begin(tails).await {
            tracing::debug!(error = %error.chain(), "the ends of streams cannot be looked at yet");
            sleep(AGAIN).await;
        }
        self.pause.end(&self.outbox.wake);
        let mut tick = interval(CHECKPOINT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        loop {
            tokio::select! {
                () = watch.changed() => {}
                _ = tick.tick() => ticks = ticks.wrapping_add(1),
            }
            if let Err(error) = self.turn(tails, &watch, ticks).await {
                tracing::warn!(error = %error.chain(), "the ends of streams cannot be looked at");
                sleep(AGAIN).await;
            }
        }
    }

    /// Asks for what an earlier process knew.
    async fn begin(&mut self, tails: &dyn Tails) -> Result<()> {
        let now = self.time.read().await?;
        for known in checkpoints::highest(&self.outbox.db).await? {
            if tails.holds(&known.stream, &known.witness).await? {
                tails.ledger().remember(known.tail(now));
            } else {
                self.lost(tails, &known.stream, known.at, false).await?;
            }
        }
        self.go_on(tails).await
    }

    async fn turn(&mut self, tails: &dyn Tails, watch: &Watch, ticks: u32) -> Result<()> {
        if ticks.is_multiple_of(LOOK_EVERY) {
            // Others may have died with what only they had seen acknowledged.
            let now = self.time.read().await?;
            checkpoints::recall(&self.outbox.db, tails.ledger(), now).await?;
            // A broker that is away is not news here.
            let _ = tails.look().await;
        }
        let lost = watch.lost();
        for tail in &lost {
            let at = self.time.read().await?.saturating_sub(millis(tail.age));
            self.lost(tails, &tail.stream, at, tail.gone).await?;
            self.written.remove(&tail.stream);
            watch.settle(&tail.stream);
        }
        if !lost.is_empty() {
            self.pause.end(&self.outbox.wake);
        }
        for tail in tails.ledger().tails() {
            if self.written.get(&tail.stream) == Some(&tail.witness) {
                continue;
            }
            let checkpoint = Checkpoint::of(tail, self.time.read().await?);
            checkpoints::write(&self.outbox.db, &checkpoint).await?;
            self.written.insert(checkpoint.stream, checkpoint.witness);
        }
        self.go_on(tails).await
    }

    /// A stream lost a message that was handed over at `at`, or all where it is `gone`.
    /// Returns when what is published next may follow.
    async fn lost(&self, tails: &dyn Tails, stream: &str, at: i64, gone: bool) -> Result<()> {
        self.pause.begin(&self.outbox.wake, STOPS).await;
        if self.by_another(stream, at).await? {
            return Ok(());
        }
        let (mut since, mut last) = (0, 0);
        // What stands under the name of a stream that was gone proves nothing.
        let kept = if gone { Vec::new() } else { checkpoints::of(&self.outbox.db, stream).await? };
        for kept in kept {
            if tails.holds(stream, &kept.witness).await? {
                (since, last) = (kept.at.saturating_sub(SLACK), kept.witness.position);
                break;
            }
        }
        let now = self.time.read().await?;
        if !checkpoints::lose(&self.outbox.db, stream, (since, last), now, at).await? {
            // Another relay was faster by a moment.
            self.by_another(stream, at).await?;
            return Ok(());
        }
        self.losses.found(stream, since, self.outbox.config.on_loss);
        for loss in self.losses_of(stream).await? {
            if self.outbox.config.on_loss == OnLoss::Replay {
                self.first_pass(tails, &loss).await?;
            } else {
                self.give_again(tails, &loss).await?;
            }
        }
        Ok(())
    }

    /// Whether another relay has found the same loss, which it did if that was after
    /// the message was handed over; waits for its first pass then. Both are times of the
    /// database, and the second is never too early: at worst there is one replay more.
    async fn by_another(&self, stream: &str, at: i64) -> Result<bool> {
        loop {
            let found = self.losses_of(stream).await?.into_iter().next();
            let Some(loss) = found.filter(|loss| loss.found_at > at) else {
                return Ok(false);
            };
            if loss.passes > 0 || self.outbox.config.on_loss == OnLoss::Alert {
                checkpoints::forget(&self.outbox.db, &loss).await?;
                return Ok(true);
            }
            if self.time.read().await? > loss.found_at.saturating_add(PATIENCE) {
                return Ok(false);
            }
            sleep(AGAIN).await;
        }
    }

    async fn losses_of(&self, stream: &str) -> Result<Vec<Loss>> {
        let mut losses = checkpoints::losses(&self.outbox.db).await?;
        losses.retain(|loss| loss.stream == stream);
        Ok(losses)
    }

    async fn first_pass(&self, tails: &dyn Tails, loss: &Loss) -> Result<()> {
        self.give_again(tails, loss).await?;
        self.pass(loss, i64::MAX).await
    }

    /// What was published since the loss may stand where groups think that they were.
    async fn give_again(&self, tails: &dyn Tails, loss: &Loss) -> Result<()> {
        let kept = checkpoints::kept(&self.outbox.db, loss).await?;
        tails.give_again(&loss.stream, kept).await
    }

    async fn pass(&self, loss: &Loss, upto: i64) -> Result<()> {
        let passes = loss.passes + 1;
        let replayed = replay(&self.outbox, &loss.stream, loss.since, upto).await?;
        let stream = &loss.stream;
        tracing::warn!(stream, rows = replayed.rows, passes, "published again after a loss");
        checkpoints::replayed(&self.outbox.db, loss, passes, replayed.last).await
    }

    /// Takes losses on, also those that a relay died over, until they are healed.
    async fn go_on(&self, tails: &dyn Tails) -> Result<()> {
        let mut losses = checkpoints::losses(&self.outbox.db).await?;
        if !losses.is_empty() {
            let now = self.time.read().await?;
            let replays = self.outbox.config.on_loss == OnLoss::Replay;
            let two_leases = millis(self.outbox.config.lease).saturating_mul(2);
            let mut open = Vec::new();
            for loss in losses {
                let age = now.saturating_sub(loss.found_at);
                match loss.passes {
                    0 if replays && age > PATIENCE => self.first_pass(tails, &loss).await?,
                    1 if age > two_leases => self.pass(&loss, loss.replayed_to).await?,
                    2 if checkpoints::heal(&self.outbox.db, &loss).await? => {
                        tracing::info!(stream = %loss.stream, "the loss of a stream is healed");
                        continue;
                    }
                    _ => {}
                }
                open.push(loss);
            }
            losses = open;
        }
        self.losses.show(&losses);
        Ok(())
    }
}

impl Losses {
    fn new(env: &Env) -> Losses {
        let help = "Streams that lost messages and do not have them again.";
        let lost = env.metrics().gauge("outbox_streams_lost", help, &[]);
        let problem = Arc::new(Mutex::new(String::new()));
        let seen = problem.clone();
        env.health().add("outbox-streams", false, move || {
            let problem = seen.lock().clone();
            async move {
                let lost = |problem| Err(Error::unavailable("STREAM_LOST", problem));
                if problem.is_empty() { Ok(()) } else { lost(problem) }
            }
        });
        Losses { env: env.clone(), lost, problem }
    }

    fn found(&self, stream: &str, since: i64, on_loss: OnLoss) {
        let help = "Times that a broker was found to have lost what it had acknowledged.";
        let labels = [("stream", stream)];
        self.env.metrics().counter("outbox_stream_losses", help, &labels).inc();
        tracing::error!(
            stream,
            since,
            ?on_loss,
            "the broker lost messages of a stream; what was published since then is published \
             again, or is to be by `outbox/replay` with this `since`"
        );
    }

    fn show(&self, losses: &[Loss]) {
        self.lost.set(i64::try_from(losses.len()).unwrap_or(i64::MAX));
        let lines = losses.iter().map(|loss| {
            let Loss { stream, since, passes, .. } = loss;
            let state = if *passes == 0 { "not yet published again" } else { "being published" };
            format!("the stream `{stream}` lost what was published since {since}: {state}")
        });
        *self.problem.lock() = lines.collect::<Vec<_>>().join("; ");
    }
}
