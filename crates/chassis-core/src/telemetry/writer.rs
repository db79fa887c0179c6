//! A bounded buffer between the calls and a slow standard output.
//!
//! A thread writes what has gathered on a tick of 50 ms, or as soon as 64 KiB wait; it is
//! never woken for a single line, which would cost about 5 µs each. When 4 MiB wait, further
//! lines are dropped and counted: a full disk or a stuck pipe must not stop the service.

use std::{io::Write, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};

use super::LineSink;
use crate::Counter;

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
    dropped: Counter,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    /// Bytes that were ever put into the buffer, and those of them that have left.
    accepted: u64,
    left: u64,
    /// Somebody waits: do not wait for the tick.
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
            dropped: Counter::default(),
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
        let taken_up_to = {
            let mut state = self.state.lock();
            if !state.flush && state.buffer.len() < HIGH_WATER {
                self.work.wait_for(&mut state, TICK);
            }
            std::mem::swap(&mut state.buffer, taken);
            state.flush = false;
            state.accepted
        };
        if !taken.is_empty() && output.write_all(taken).and_then(|()| output.flush()).is_err() {
            let lines = taken.iter().filter(|byte| **byte == b'\n').count();
            self.dropped.add(lines as u64);
        }
        taken.clear();
        self.state.lock().left = taken_up_to;
        self.idle.notify_all();
    }

    /// Waits until everything that was written before this call has left, for two seconds at
    /// most; lines that others go on writing do not prolong it.
    pub(super) fn flush(&self) {
        let mut state = self.state.lock();
        let wanted = state.accepted;
        if state.left < wanted {
            state.flush = true;
            self.work.notify_one();
            self.idle.wait_while_for(&mut state, |state| state.left < wanted, FLUSH_TIMEOUT);
        }
    }

    pub(super) fn dropped(&self) -> &Counter {
        &self.dropped
    }
}

impl LineSink for Writer {
    fn write_line(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.buffer.len() + line.len() > LIMIT {
            self.dropped.inc();
            return;
        }
        state.buffer.extend_from_slice(line);
        state.accepted += line.len() as u64;
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
        assert!(writer.dropped().get() >= (LIMIT / 1024) as u64, "{}", writer.dropped().get());
        *gate.0.open.lock() = true;
        gate.0.opened.notify_all();
        writer.flush();
        let written = *gate.0.written.lock() / 1024;
        assert_eq!(written as u64 + writer.dropped().get(), (3 * LIMIT / 1024) as u64);
    }

    #[test]
    fn a_flush_ends_while_others_go_on_writing() {
        let gate = Gate::default();
        *gate.0.open.lock() = true;
        let writer = Writer::spawn(gate.clone());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    writer.write_line(b"busy\n");
                }
            });
            for _ in 0..20 {
                let wanted = writer.state.lock().accepted;
                writer.flush();
                assert!(writer.state.lock().left >= wanted);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn a_stuck_output_holds_up_a_flush_for_a_bounded_time() {
        let gate = Gate::default();
        let writer = Writer::spawn(gate.clone());
        writer.write_line(b"stuck\n");
        writer.flush(); // gives up
        assert_eq!(*gate.0.written.lock(), 0);
        *gate.0.open.lock() = true;
        gate.0.opened.notify_all();
        writer.flush();
        assert_eq!(*gate.0.written.lock(), 6);
    }
}
