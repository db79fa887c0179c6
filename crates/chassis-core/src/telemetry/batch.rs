//! A bounded buffer between the calls and something slow: a disk, a collector.
//!
//! A thread takes what has gathered on a tick, or as soon as enough of it waits; it is never
//! woken for a single piece, which would cost about 5 µs each. What finds no room is refused,
//! and whoever offered it counts: a stuck output must not stop the service.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// When the thread works, and how much may wait for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long a piece waits at most before the thread takes it.
    pub(super) tick: Duration,
    /// How many items make the thread work before the tick.
    pub(super) high_water: usize,
    /// How many may wait.
    pub(super) most: usize,
}

pub(super) struct Batch<T> {
    limits: Limits,
    state: Mutex<State<T>>,
    /// Items wait for the thread.
    work: Condvar,
    /// The thread is done with what it took.
    idle: Condvar,
}

struct State<T> {
    items: Vec<T>,
    /// Items that ever found room, and those of them that the thread is done with.
    accepted: u64,
    done: u64,
    /// Somebody waits: do not wait for the tick.
    flush: bool,
}

impl<T> Batch<T> {
    pub(super) fn new(limits: Limits) -> Batch<T> {
        let state = State { items: Vec::new(), accepted: 0, done: 0, flush: false };
        Batch { limits, state: Mutex::new(state), work: Condvar::new(), idle: Condvar::new() }
    }

    /// Lets `put` add exactly `count` items, if there is room for them.
    pub(super) fn add(&self, count: usize, put: impl FnOnce(&mut Vec<T>)) -> bool {
        let mut state = self.state.lock();
        if state.items.len() + count > self.limits.most {
            return false;
        }
        put(&mut state.items);
        state.accepted += count as u64;
        if state.items.len() >= self.limits.high_water {
            self.work.notify_one();
        }
        true
    }

    /// One turn of the thread: waits for the tick, the high-water mark or a flush, and lets
    /// `work` have what is there, without holding the lock. `taken` is kept between turns for
    /// its memory.
    pub(super) fn turn(&self, taken: &mut Vec<T>, work: impl FnOnce(&mut Vec<T>)) {
        let up_to = {
            let mut state = self.state.lock();
            if !state.flush && state.items.len() < self.limits.high_water {
                self.work.wait_for(&mut state, self.limits.tick);
            }
            std::mem::swap(&mut state.items, taken);
            state.flush = false;
            state.accepted
        };
        if !taken.is_empty() {
            work(taken);
            taken.clear();
        }
        self.state.lock().done = up_to;
        self.idle.notify_all();
    }

    /// Blocks until the thread is done with everything that was added before this call, or
    /// the time is up; what others go on adding does not prolong it. Says whether it is done.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let mut state = self.state.lock();
        let wanted = state.accepted;
        if state.done >= wanted {
            return true;
        }
        state.flush = true;
        self.work.notify_one();
        !self.idle.wait_while_for(&mut state, |state| state.done < wanted, timeout).timed_out()
    }
}
