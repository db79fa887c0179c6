//! What is known about one endpoint, shared by its place in the pool and the calls under way.
//!
//! Apart from the pool, because a call can outlast the endpoint's place in it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chassis_resilience::breaker::{CircuitBreaker, Permit, State};
use chassis_resilience::{Class, Settle, Verdict};
use tokio::sync::watch;
use tokio::time::Instant;

use super::health::{Health, Mode, Standing};
use super::load::Load;
use super::metrics::Shown;
use super::pick::Look;
use super::reach;
use super::settings::BalanceSettings;
use crate::sync::{AtomicU8, AtomicUsize, Mutex, Ordering};

/// The health of a pool's endpoints together, with its mode where a pick can read it.
pub(crate) struct Together {
    health: Mutex<Health>,
    mode: AtomicU8,
    in_flight: AtomicUsize,
    /// Changes when one that was away is back.
    back: watch::Sender<()>,
    refresh: Box<dyn Fn() + Send + Sync>,
    pub(crate) shown: Shown,
}

impl Together {
    /// `refresh`: what to call when the set seems to be out of date.
    pub(crate) fn new(health: Health, refresh: impl Fn() + Send + Sync + 'static) -> Together {
        Together {
            mode: AtomicU8::new(health.mode() as u8),
            health: Mutex::new(health),
            in_flight: AtomicUsize::new(0),
            back: watch::Sender::new(()),
            refresh: Box::new(refresh),
            shown: Shown::default(),
        }
    }

    /// Calls under way to all of them.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Sees each return of one that was away, from now on.
    pub(crate) fn returns(&self) -> watch::Receiver<()> {
        self.back.subscribe()
    }

    /// Asks for a newer set.
    pub(crate) fn refresh(&self) {
        (self.refresh)();
    }

    pub(crate) fn mode(&self) -> Mode {
        let mode = self.mode.load(Ordering::Relaxed);
        [Mode::Normal, Mode::Panic, Mode::Trials]
            .into_iter()
            .find(|known| *known as u8 == mode)
            .unwrap_or(Mode::Normal)
    }

    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Health) -> R) -> R {
        let mut health = self.health.lock();
        let result = change(&mut health);
        self.mode.store(health.mode() as u8, Ordering::Relaxed);
        self.shown.ejected(health.ejected());
        self.shown.unreachable(health.away());
        result
    }
}

/// One endpoint.
pub(crate) struct Node {
    address: SocketAddr,
    connect_timeout: Duration,
    load: Mutex<Load>,
    in_flight: AtomicUsize,
    standing: AtomicU8,
    breaker: CircuitBreaker,
    together: Arc<Together>,
}

impl Node {
    pub(crate) fn new(
        name: String,
        address: SocketAddr,
        settings: &BalanceSettings,
        together: Arc<Together>,
        now: Instant,
    ) -> Arc<Node> {
        let node = Arc::new(Node {
            address,
            connect_timeout: settings.connect_timeout,
            load: Mutex::new(Load::new(now)),
            in_flight: AtomicUsize::new(0),
            standing: AtomicU8::new(Standing::In as u8),
            breaker: CircuitBreaker::new(name, settings.breaker),
            together,
        });
        let weak = Arc::downgrade(&node);
        node.breaker.on_transition(move |transition| {
            if let Some(node) = weak.upgrade() {
                node.together.shown.transition(transition.to);
                node.judge();
            }
        });
        node
    }

    /// Asks the breaker and takes its standing from that. Under the lock of all, and by what
    /// the state is then, so that the last of two changes wins.
    pub(crate) fn judge(&self) {
        self.together.change(|health| {
            self.set_standing(health.judge(self.standing(), self.is_closed()));
        });
    }

    fn is_closed(&self) -> bool {
        !matches!(self.breaker.state(), State::Open | State::HalfOpen | State::ForcedOpen)
    }

    /// No connection to it could be made: it gets no calls until one can, which a task of its
    /// own tries; and the set is asked for anew.
    pub(crate) fn lose(self: &Arc<Node>, now: Instant) {
        let before = self.together.change(|health| {
            let before = self.standing();
            self.set_standing(health.lose(before, now));
            before
        });
        self.together.refresh();
        if !matches!(before, Standing::Away | Standing::Gone) {
            reach::follow(self);
        }
    }

    /// A connection to it can be made again. What was known of it is of another time.
    pub(crate) fn regain(&self, now: Instant) {
        *self.load.lock() = Load::new(now);
        self.together.change(|health| {
            self.set_standing(health.regain(self.standing(), self.is_closed()));
        });
        self.together.back.send_replace(());
    }

    /// Asks for a newer set.
    pub(crate) fn refresh(&self) {
        self.together.refresh();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// It has left the set: what its last calls bring changes nothing any more.
    pub(crate) fn leave(&self) {
        self.together.change(|health| {
            health.forget(self.standing());
            // Under the lock, or a circuit that opens meanwhile would be counted for good.
            self.set_standing(Standing::Gone);
        });
    }

    fn set_standing(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::Relaxed);
    }

    pub(crate) fn standing(&self) -> Standing {
        let standing = self.standing.load(Ordering::Relaxed);
        [Standing::In, Standing::Ejected, Standing::Kept, Standing::Away]
            .into_iter()
            .find(|known| *known as u8 == standing)
            .unwrap_or(Standing::Gone)
    }

    /// Whether its circuit lets a trial call through although it is not closed.
    pub(crate) fn has_trial(&self, now: Instant) -> bool {
        self.breaker.would_permit(now)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Its load, for an endpoint of weight 1: calls under way with the next one, times what
    /// one takes, in seconds. It is due for a trial only while no call is under way.
    pub(crate) fn look(&self, pick: u64, endpoints: usize, now: Instant) -> Look {
        let in_flight = self.in_flight();
        let idle = in_flight == 0;
        let (cost, starved) = {
            let load = self.load.lock();
            (load.cost(now), idle && load.is_due(pick, endpoints, now))
        };
        let due = match self.standing() {
            Standing::In => starved,
            // The breaker knows when: its open time grows with each trial that fails.
            _ => idle && self.has_trial(now),
        };
        Look { load: cost * (in_flight + 1) as f64, due }
    }

    /// Begins a call as the pool's pick of this number. `anyway`: also if the circuit says no.
    ///
    /// # Errors
    /// When the circuit lets a trial call through.
    pub(crate) fn begin(
        self: &Arc<Node>,
        pick: u64,
        trial: bool,
        anyway: bool,
        now: Instant,
    ) -> Result<Call, Duration> {
        let permit = match self.breaker.try_acquire(now) {
            Ok(permit) => Some(permit),
            Err(_) if anyway => None,
            Err(open) => return Err(open.retry_in),
        };
        self.load.lock().picked(pick, now);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.together.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Call { node: Arc::clone(self), permit, trial, begun: now, ended: false })
    }
}

/// A call under way. It ends once: by what is said about it, or by being dropped.
pub(crate) struct Call {
    node: Arc<Node>,
    /// None for a call that goes out although the circuit is open.
    permit: Option<Permit>,
    trial: bool,
    begun: Instant,
    ended: bool,
}

impl Call {
    /// It was answered. `retry_after`: for how long the endpoint asks to be left alone.
    pub(crate) fn end(mut self, class: Class, retry_after: Option<Duration>, now: Instant) {
        self.ended = true;
        let latency = now.saturating_duration_since(self.begun);
        let trial = self.trial;
        {
            let mut load = self.node.load.lock();
            match class {
                Class::Success if trial => load.proved(latency, now),
                Class::Success => load.success(latency, now),
                Class::Failure | Class::Overloaded => load.failure(latency, now),
                Class::Refused | Class::Ignore | Class::Unreachable => {}
            }
        }
        // That it is not there is known for sure, and when it is back too: no circuit is
        // needed to guess it.
        let class = if class == Class::Unreachable {
            self.node.lose(now);
            Class::Ignore
        } else {
            class
        };
        if let Some(permit) = self.permit.take() {
            permit.settle(Verdict { class, latency, retry_after });
        }
    }

    /// Nobody waits for it any more. `hung`: after so long that it is the endpoint's fault.
    pub(crate) fn give_up(mut self, hung: impl FnOnce(Duration) -> bool, now: Instant) {
        self.ended = true;
        self.abandon(hung, now);
    }

    fn abandon(&mut self, hung: impl FnOnce(Duration) -> bool, now: Instant) {
        let elapsed = now.saturating_duration_since(self.begun);
        if hung(elapsed) {
            self.node.load.lock().failure(elapsed, now);
            if let Some(permit) = self.permit.take() {
                permit.failure(elapsed);
            }
        } else {
            self.node.load.lock().given_up(elapsed, now);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.node.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.node.together.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.ended {
            self.abandon(|_| false, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::super::health::Shares;
    use super::*;

    /// It was once forgotten under the lock and said to be gone after it: a circuit that opened
    /// between the two was counted as ejected for good.
    #[test]
    fn who_leaves_while_its_circuit_opens_is_not_counted_for_ever() {
        const ROUNDS: usize = 5_000;
        let mut health = Health::new(Shares { max_ejected: 1.0, panic_below: 0.0 });
        health.resize(2);
        let together = Arc::new(Together::new(health, || {}));
        let settings = BalanceSettings::default();
        let nodes: Vec<_> = (0..ROUNDS)
            .map(|_| {
                let address = ([127, 0, 0, 1], 1).into();
                let all = Arc::clone(&together);
                Node::new("greeter".to_owned(), address, &settings, all, Instant::now())
            })
            .collect();
        let both = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for node in &nodes {
                    both.wait();
                    while node.standing() != Standing::Gone {
                        node.breaker.force_open();
                        node.breaker.reset();
                    }
                }
            });
            scope.spawn(|| {
                for node in &nodes {
                    both.wait();
                    node.leave();
                }
            });
        });
        assert!(nodes.iter().all(|node| node.standing() == Standing::Gone));
        assert_eq!(together.change(|health| health.ejected()), 0);
    }
}
