//! A bounded buffer between the calls and a slow standard output.
//!
//! A thread writes what has gathered on a tick of 50 ms, or as soon as 64 KiB wait; it is
//! never woken for a single line, which would cost about 5 µs each. When 4 MiB wait, further
//! lines are dropped and counted: a full disk or a stuck pipe must not stop the service.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use super::LineSink;

const TICK: Duration = Duration::from_millis(50);
const HIGH_WATER: usize = 64 * 1024;
const LIMIT: usize = 4 * 1024 * 1024;
/// How long a flush may wait for the thread.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Writer {
    state: Mutex<State>,
    /// Lines wait for the thread.
    work: Condvar,
    /// The thread has written what it took.
    idle: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    writing: bool,
    flush: bool,
}

impl Writer {
    pub(super) fn stdout() -> Arc<Writer> {
        Writer::spawn(std::io::stdout())
    }

    fn spawn(output: impl Write + Send + 'static) -> Arc<Writer> {
        let writer = Arc::new(Writer {
            state: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
            dropped: AtomicU64::new(0),
        });
        let thread = {
            let writer = Arc::downgrade(&writer);
            move || {
                let mut output = output;
                let mut taken = Vec::new();
                while let Some(writer) = writer.upgrade() {
                    writer.write_once(&mut output, &mut taken);
                }
            }
        };
        // Without the thread the lines gather up to the limit and are then counted as dropped.
        let _ = std::thread::Builder::new().name("log-writer".to_owned()).spawn(thread);
        writer
    }

    /// One tick: waits, takes what is there, writes it without holding the lock.
    fn write_once(&self, output: &mut impl Write, taken: &mut Vec<u8>) {
        {
            let mut state = self.state.lock();
            if !state.flush && state.buffer.len() < HIGH_WATER {
                self.work.wait_for(&mut state, TICK);
            }
            std::mem::swap(&mut state.buffer, taken);
            state.flush = false;
            state.writing = true;
        }
        if !taken.is_empty() && output.write_all(taken).and_then(|()| output.flush()).is_err() {
            let lines = taken.iter().filter(|byte| **byte == b'\n').count();
            self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
        }
        taken.clear();
        let mut state = self.state.lock();
        state.writing = false;
        self.idle.notify_all();
    }

    /// Waits until everything written so far has left, for two seconds at most.
    pub(super) fn flush(&self) {
        let mut state = self.state.lock();
        while state.writing || !state.buffer.is_empty() {
            state.flush = true;
            self.work.notify_one();
            if self.idle.wait_for(&mut state, FLUSH_TIMEOUT).timed_out() {
                return;
            }
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl LineSink for Writer {
    fn write_line(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.buffer.len() + line.len() > LIMIT {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.buffer.extend_from_slice(line);
        if state.buffer.len() >= HIGH_WATER {
            self.work.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output that takes nothing until it is released.
    #[derive(Clone, Default)]
    struct Gate(Arc<Inner>);

    #[derive(Default)]
    struct Inner {
        open: Mutex<bool>,
        opened: Condvar,
        written: Mutex<usize>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.opened.wait_while(&mut self.0.open.lock(), |open| !*open);
            *self.0.written.lock() += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_output_drops_and_counts_instead_of_blocking() {
        let gate = Gate::default();
        let writer = Writer::spawn(gate.clone());
        let line = vec![b'x'; 1024];
        for _ in 0..3 * LIMIT / 1024 {
            writer.write_line(&line);
        }
        assert!(writer.dropped() >= (LIMIT / 1024) as u64, "{}", writer.dropped());
        *gate.0.open.lock() = true;
        gate.0.opened.notify_all();
        writer.flush();
        let written = *gate.0.written.lock() / 1024;
        assert_eq!(written as u64 + writer.dropped(), (3 * LIMIT / 1024) as u64);
    }
}
