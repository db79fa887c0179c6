//! The accept loop, and the drain that ends it.
//!
//! The loop never ends because of a client: a connection that broke before it was accepted
//! is skipped, and when the process has no file descriptor left it waits and tries again,
//! since the connections it has will end and give theirs back.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::Router;
use chassis_core::{Gauge, Health, Shutdown, Status};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::connection::{Connection, Limits};

/// First pause after an accept error that is the process's own fault.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts and serves until a shutdown is requested, then drains until its deadline.
///
/// Dropping it closes the listener and cuts every connection.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Arc<Limits>,
    open: Gauge,
    health: &Health,
    shutdown: Shutdown,
) {
    // Everything that can be decided before the first request is.
    let router = router.with_state(());
    let connections = TaskTracker::new();
    let drain = CancellationToken::new();
    let abort = CancellationToken::new();
    let _abort_on_drop = abort.clone().drop_guard();
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let leaving = Arc::new(AtomicBool::new(false));
    let mut draining = pin!(draining(health));
    let mut pause = AcceptPause::default();

    loop {
        let next = tokio::select! {
            biased;
            () = shutdown.requested() => break,
            () = draining.as_mut(), if !leaving.load(Relaxed) => {
                leaving.store(true, Relaxed);
                continue;
            }
            next = accept(&listener, &permits) => next,
        };
        match next {
            Ok((stream, peer, permit)) => {
                pause.reset();
                let connection = Connection {
                    stream,
                    peer,
                    router: router.clone(),
                    limits: limits.clone(),
                    leaving: leaving.clone(),
                    drain: drain.child_token(),
                    abort: abort.child_token(),
                };
                let open = Open::new(&open);
                connections.spawn(async move {
                    connection.serve().await;
                    drop((open, permit));
                });
            }
            Err(error) => {
                if let Some(pause) = pause.after(&error) {
                    tracing::warn!(%error, ?pause, "cannot accept connections");
                    tokio::select! {
                        () = shutdown.requested() => break,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    drop(listener);
    drain.cancel();
    connections.close();
    if shutdown.drain_deadline().run(connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "the drain took too long; cutting what is left"
        );
        abort.cancel();
        connections.wait().await;
    }
}

/// Waits until the service takes itself out of traffic, which a drain delay before the end.
async fn draining(health: &Health) {
    let mut status = health.watch();
    if status.wait_for(|status| *status == Status::Draining).await.is_err() {
        std::future::pending().await
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, std::net::SocketAddr, OwnedSemaphorePermit)> {
    // The permit first: a connection over the limit stays in the system's queue.
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

/// Counts a connection until it is dropped, also by a panic of a body that streams.
struct Open(Gauge);

impl Open {
    fn new(open: &Gauge) -> Open {
        open.inc();
        Open(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// How long to wait after an accept error.
#[derive(Default)]
struct AcceptPause(Option<Duration>);

impl AcceptPause {
    fn reset(&mut self) {
        self.0 = None;
    }

    /// None where only that one connection is lost; else a pause that doubles.
    fn after(&mut self, error: &io::Error) -> Option<Duration> {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if matches!(
            error.kind(),
            ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
        ) {
            return None;
        }
        let pause = self.0.map_or(FIRST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
        self.0 = Some(pause);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_descriptors_left_is_waited_out() {
        let out_of_files = io::Error::from_raw_os_error(24);
        let mut pause = AcceptPause::default();
        assert_eq!(pause.after(&out_of_files), Some(FIRST_PAUSE));
        assert_eq!(pause.after(&out_of_files), Some(FIRST_PAUSE * 2));
        for _ in 0..20 {
            pause.after(&out_of_files);
        }
        assert_eq!(pause.after(&out_of_files), Some(LONGEST_PAUSE));
        pause.reset();
        assert_eq!(pause.after(&out_of_files), Some(FIRST_PAUSE));
    }

    #[test]
    fn a_connection_lost_in_the_queue_costs_no_pause() {
        let mut pause = AcceptPause::default();
        assert_eq!(pause.after(&io::ErrorKind::ConnectionAborted.into()), None);
    }
}
