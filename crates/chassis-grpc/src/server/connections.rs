//! Accepting, serving and ending connections.
//!
//! Bounded at every step: connections, calls on each, the time that one may idle
//! before its first call, and the time that a drain may take. HTTP/2 only, as
//! gRPC is.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis_core::{BoxFuture, Shutdown};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::call::CallsFactory;

/// How often a silent peer is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long it has to answer.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// The pause after a failed accept. Out of file descriptors, say: they will not
/// come back sooner by asking faster.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of a server's connections.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) streams: u32,
    pub(super) first_call: Duration,
}

/// Serves until the shutdown is requested, then drains until its deadline, then
/// aborts what is left.
pub(super) async fn serve(
    listener: TcpListener,
    calls: CallsFactory,
    limits: Limits,
    shutdown: Shutdown,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let drain = CancellationToken::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            accepted = accept(&listener, &slots) => {
                if let Some((stream, slot)) = accepted {
                    let connection = serve_one(stream, calls.clone(), limits, drain.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(slot);
                    });
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
    // Whoever connects from now on is refused at once instead of left waiting.
    drop(listener);
    drain.cancel();
    let all_done = async { while connections.join_next().await.is_some() {} };
    if shutdown.drain_deadline().run(all_done).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "calls did not end before the drain deadline, they are cut off"
        );
        connections.shutdown().await;
    }
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            // Small answers must not wait for an acknowledgement. A socket that
            // refuses this is dead, and says so when it is used.
            let _ = stream.set_nodelay(true);
            Some((stream, slot))
        }
        Err(error) => {
            tracing::warn!(%error, "a gRPC connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve_one(
    stream: TcpStream,
    calls: CallsFactory,
    limits: Limits,
    drain: CancellationToken,
) {
    let peer = stream.peer_addr().ok();
    let calls = calls.connection(peer, stream.local_addr().ok());
    let called = Arc::new(AtomicBool::new(false));
    let service = hyper::service::service_fn({
        let called = Arc::clone(&called);
        move |request: http::Request<hyper::body::Incoming>| {
            called.store(true, Ordering::Relaxed);
            let answer: BoxFuture<'static, Result<http::Response<Body>, Infallible>> =
                calls.call(request);
            answer
        }
    });
    let mut builder = Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut first_call = pin!(tokio::time::sleep(limits.first_call));
    let (mut waiting, mut draining) = (true, false);
    loop {
        tokio::select! {
            end = connection.as_mut() => {
                if let Err(error) = end {
                    tracing::debug!(error, ?peer, "gRPC connection failed");
                }
                return;
            }
            () = drain.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = first_call.as_mut(), if waiting => {
                waiting = false;
                if !called.load(Ordering::Relaxed) {
                    tracing::debug!(?peer, "gRPC connection closed: no call came");
                    return;
                }
            }
        }
    }
}
