//! Log lines on their way to a slow standard output.
//!
//! When 4 MiB wait, further lines are dropped and counted: a full disk or a stuck pipe must
//! not stop the service.

use std::{io::Write, sync::Arc, time::Duration};

use super::{
    LineSink,
    batch::{Batch, Limits},
};
use crate::Counter;

/// In bytes.
const LIMITS: Limits =
    Limits { tick: Duration::from_millis(50), high_water: 64 * 1024, most: 4 * 1024 * 1024 };
/// How long a flush may wait for the thread.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Writer {
    bytes: Batch<u8>,
    dropped: Counter,
}

impl Writer {
    pub(super) fn stdout() -> Arc<Writer> {
        Writer::spawn(std::io::stdout())
    }

    fn spawn(output: impl Write + Send + 'static) -> Arc<Writer> {
        let writer = Arc::new(Writer { bytes: Batch::new(LIMITS), dropped: Counter::default() });
        let thread = {
            let writer = Arc::downgrade(&writer);
            move || {
                let mut output = output;
                let mut taken = Vec::new();
                while let Some(writer) = writer.upgrade() {
                    writer.bytes.turn(&mut taken, |bytes| writer.write(&mut output, bytes));
                }
            }
        };
        // Without the thread the lines gather up to the limit and are then counted as dropped.
        let _ = std::thread::Builder::new().name("log-writer".to_owned()).spawn(thread);
        writer
    }

    fn write(&self, output: &mut impl Write, bytes: &[u8]) {
        if output.write_all(bytes).and_then(|()| output.flush()).is_err() {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
            self.dropped.add(lines as u64);
        }
    }

    /// Waits until everything that was written before this call has left, for two seconds at
    /// most.
    pub(super) fn flush(&self) {
        self.bytes.flush(FLUSH_TIMEOUT);
    }

    pub(super) fn dropped(&self) -> &Counter {
        &self.dropped
    }
}

impl LineSink for Writer {
    fn write_line(&self, line: &[u8]) {
        if !self.bytes.add(line.len(), |bytes| bytes.extend_from_slice(line)) {
            self.dropped.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::{Condvar, Mutex};

    use super::*;

    const LIMIT: usize = LIMITS.most;

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
                assert!(writer.bytes.flush(FLUSH_TIMEOUT));
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
