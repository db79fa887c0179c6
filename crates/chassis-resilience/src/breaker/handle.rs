//! The breaker as callers hold it.
//!
//! A cheap clone around one lock. Everything that others may hang on to it
//! (hooks, watchers) runs outside that lock, so that a slow hook delays its own
//! call and nobody else's.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

use super::{
    BreakerEvent, BreakerSettings, CircuitOpen, InvalidSettings, Permit, State, Stats, Transition,
    gate::{Gate, Mode, Outcome, Ticket},
};
use crate::{
    Guard,
    sync::{AtomicU64, Mutex, Ordering, RwLock},
};

type Hooks<T> = RwLock<Arc<[Arc<dyn Fn(T) + Send + Sync>]>>;

/// So many events wait for a slow listener before it loses the oldest.
const EVENTS: usize = 64;

/// A circuit breaker for one callee. Clones are the same breaker.
#[derive(Clone)]
pub struct CircuitBreaker {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    gate: Mutex<Gate>,
    // The ticket that needs no question to the gate, as long as it is closed. A call that takes
    // it while the gate changes has an old one, whose outcome counts as late.
    open_door: Apart<AtomicU64>,
    transitions: AtomicU64,
    on_transition: Hooks<Transition>,
    on_rejection: Hooks<CircuitOpen>,
    watch: watch::Sender<State>,
    publishing: Mutex<()>,
    // Made when somebody listens: there is a breaker for each endpoint, and few are watched.
    events: OnceLock<broadcast::Sender<BreakerEvent>>,
}

/// Away from its neighbours, so that who only reads it does not wait for who changes those.
#[repr(align(128))]
struct Apart<T>(T);

impl CircuitBreaker {
    /// A closed breaker. The name appears in transitions and logs.
    ///
    /// Settings that are out of range are moved to the nearest valid value; call
    /// [`BreakerSettings::validate`] before, to refuse them instead.
    pub fn new(name: impl Into<Arc<str>>, settings: BreakerSettings) -> Self {
        let gate = Gate::new(settings.clamped(), fastrand::u64(..));
        CircuitBreaker {
            inner: Arc::new(Inner {
                name: name.into(),
                open_door: Apart(AtomicU64::new(Ticket::to_bits(gate.open_door()))),
                gate: Mutex::new(gate),
                transitions: AtomicU64::new(0),
                on_transition: RwLock::new(Arc::default()),
                on_rejection: RwLock::new(Arc::default()),
                watch: watch::Sender::new(State::Closed),
                publishing: Mutex::new(()),
                events: OnceLock::new(),
            }),
        }
    }

    /// The name that it was made with.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The settings in force.
    pub fn settings(&self) -> BreakerSettings {
        self.inner.gate.lock().settings()
    }

    /// Changes the settings, from the next call on. An open time that has begun
    /// stays; a window of another length begins empty.
    ///
    /// # Errors
    /// Names the first setting that is out of its range; then nothing changes.
    pub fn update(&self, settings: BreakerSettings) -> Result<(), InvalidSettings> {
        settings.validate()?;
        self.inner.gate.lock().update(settings);
        Ok(())
    }

    /// Asks to make a call at `now`. The permit must say how the call ended.
    ///
    /// # Errors
    /// [`CircuitOpen`] if the call must not be made.
    pub fn try_acquire(&self, now: Instant) -> Result<Permit, CircuitOpen> {
        if let Some(ticket) = self.open_door() {
            return Ok(Permit::new(self.clone(), ticket, now));
        }
        match self.change(|gate| gate.admit(now.into_std())) {
            Ok(ticket) => Ok(Permit::new(self.clone(), ticket, now)),
            Err(retry_in) => Err(self.rejected(CircuitOpen { retry_in })),
        }
    }

    fn open_door(&self) -> Option<Ticket> {
        Ticket::from_bits(self.inner.open_door.0.load(Ordering::Acquire))
    }

    fn rejected(&self, open: CircuitOpen) -> CircuitOpen {
        call_all(&self.inner.on_rejection, open);
        self.send(BreakerEvent::Rejected(open));
        open
    }

    /// Whether [`CircuitBreaker::try_acquire`] would give a permit now. For a
    /// balancer that looks for an endpoint: it takes nothing and counts nothing.
    pub fn would_permit(&self, now: Instant) -> bool {
        self.open_door().is_some() || self.inner.gate.lock().would_admit(now.into_std())
    }

    /// The state. `Open` lasts until a call comes after the open time.
    pub fn state(&self) -> State {
        self.inner.gate.lock().state()
    }

    /// A snapshot of the window and the counts.
    pub fn stats(&self) -> Stats {
        let mut stats = self.inner.gate.lock().stats(Instant::now().into_std());
        stats.transitions = self.inner.transitions.load(Ordering::Relaxed);
        stats
    }

    /// Refuses every call until [`CircuitBreaker::reset`].
    pub fn force_open(&self) {
        self.change(|gate| gate.set_mode(Mode::ForcedOpen));
    }

    /// Lets every call through and judges none, until [`CircuitBreaker::reset`].
    pub fn disable(&self) {
        self.change(|gate| gate.set_mode(Mode::Disabled));
    }

    /// Lets every call through and measures the rates, until
    /// [`CircuitBreaker::reset`]. For trying settings on live traffic.
    pub fn metrics_only(&self) {
        self.change(|gate| gate.set_mode(Mode::MetricsOnly));
    }

    /// Back to automatic: closed, with an empty window.
    pub fn reset(&self) {
        self.change(Gate::reset);
    }

    /// Follows the state. A receiver sees the newest state, not every one.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.inner.watch.subscribe()
    }

    /// Follows all that happens: transitions and rejections. At most 64 events
    /// wait for a receiver; one that is slower is told how many it has missed.
    pub fn events(&self) -> broadcast::Receiver<BreakerEvent> {
        self.inner.events.get_or_init(|| broadcast::Sender::new(EVENTS)).subscribe()
    }

    /// Calls `hook` on each change of state, on the task that caused it. Hooks
    /// live as long as the breaker; they should be quick.
    ///
    /// Two changes at nearly the same time may reach a hook in either order; use
    /// [`CircuitBreaker::subscribe`] for the state, and hooks for counting.
    pub fn on_transition(&self, hook: impl Fn(Transition) + Send + Sync + 'static) {
        add(&self.inner.on_transition, hook);
    }

    /// Calls `hook` on each refused call, on the task of the caller.
    pub fn on_rejection(&self, hook: impl Fn(CircuitOpen) + Send + Sync + 'static) {
        add(&self.inner.on_rejection, hook);
    }

    pub(super) fn settle(
        &self,
        ticket: Ticket,
        now: Instant,
        outcome: Outcome,
        retry_after: Option<Duration>,
    ) {
        let now = now.into_std();
        self.change(|gate| {
            if let Some(retry_after) = retry_after {
                gate.hint(ticket, now, retry_after);
            }
            gate.settle(ticket, now, outcome);
        });
    }

    /// Runs `change` under the lock and publishes the transition, if it made one.
    fn change<R>(&self, change: impl FnOnce(&mut Gate) -> R) -> R {
        let (from, result, to) = {
            let mut gate = self.inner.gate.lock();
            let (from, generation) = (gate.state(), gate.generation());
            let result = change(&mut gate);
            // Each transition is a new generation, and most calls make none.
            if gate.generation() == generation {
                return result;
            }
            self.inner.open_door.0.store(Ticket::to_bits(gate.open_door()), Ordering::Release);
            (from, result, gate.state())
        };
        if from != to {
            self.publish(from, to);
        }
        result
    }

    fn publish(&self, from: State, to: State) {
        self.inner.transitions.fetch_add(1, Ordering::Relaxed);
        {
            // One at a time, and read again: of two changes the later state must win.
            let _turn = self.inner.publishing.lock();
            let state = self.state();
            self.inner.watch.send_if_modified(|seen| std::mem::replace(seen, state) != state);
        }
        let transition = Transition { breaker: self.inner.name.clone(), from, to };
        self.send(BreakerEvent::Transition(transition.clone()));
        call_all(&self.inner.on_transition, transition);
    }

    fn send(&self, event: BreakerEvent) {
        if let Some(events) = self.inner.events.get() {
            // An error means that nobody listens any more.
            let _ = events.send(event);
        }
    }
}

impl<Req> Guard<Req> for CircuitBreaker {
    type Account = Permit;
    type Refused = CircuitOpen;

    fn enter(&self, _: &Req, now: Instant) -> Result<Permit, CircuitOpen> {
        self.try_acquire(now)
    }

    fn failed_unasked(&self) {
        if let Ok(permit) = self.try_acquire(Instant::now()) {
            permit.failure(Duration::ZERO);
        }
    }
}

fn add<T>(hooks: &Hooks<T>, hook: impl Fn(T) + Send + Sync + 'static) {
    let mut hooks = hooks.write();
    let more = hooks.iter().cloned().chain([Arc::new(hook) as Arc<_>]).collect();
    *hooks = more;
}

fn call_all<T: Clone>(hooks: &Hooks<T>, with: T) {
    // Copied out, so that a hook may use this breaker.
    let hooks = hooks.read().clone();
    for hook in hooks.iter() {
        hook(with.clone());
    }
}

impl std::fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("name", &self.inner.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
