//! A runtime whose sockets are looked at although a task blocks.
//!
//! One worker of the runtime waits for the sockets for all of them, and runs a task when it has
//! found one. If that task blocks its thread, the other workers sleep on and nobody looks at the
//! sockets: one wrong handler holds up a process with idle threads. Any work wakes one of them,
//! which then waits for the sockets. tokio has an option for it
//! (`enable_eager_driver_handoff`), but not in its stable part.

use std::{
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use tokio::runtime::Handle;

/// The longest that a task which blocks holds up the others. Ten wake-ups in a second cost nothing
/// that can be measured.
const EVERY: Duration = Duration::from_millis(100);

/// Ends with this.
pub(crate) struct Pulse {
    _alive: Sender<()>,
}

impl Pulse {
    /// Wakes a worker of the runtime now and then.
    pub(crate) fn start(runtime: Handle) -> Pulse {
        let (alive, ended) = mpsc::channel();
        let beat = move || {
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                runtime.spawn(async {});
            }
        };
        // Without the thread all is well until a task blocks.
        if let Err(error) = thread::Builder::new().name("pulse".to_owned()).spawn(beat) {
            tracing::warn!(%error, "no thread that wakes the runtime");
        }
        Pulse { _alive: alive }
    }
}
