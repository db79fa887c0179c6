//! The accept loop, and the drain that ends it.
//!
//! The loop never ends because of a client: a connection that broke before it was accepted
//! is skipped, and when the process has no file descriptor left it waits and tries again,
//! since the connections it has will end and give theirs back.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use ::http::{Request, Response};
use chassis_core::{BoxFuture, Env, Health, Result, Shutdown, Status, config::SocketConfig};
use http_body::Body;
use hyper::{body::Incoming, service::Service};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Http, Limits,
    addresses::{Addresses, Place},
    connection::{Connection, Peer},
    listener::{Arrived, Listener},
    meters::{Meters, Open},
    stream::Wire,
    tls::Tls,
};

/// Most connections that are taken from the system's queue when a drain begins: as many as it
/// holds by default.
const QUEUE: usize = 4096;
/// First pause after an accept error that is the process's own fault.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A socket that is bound and not yet served.
pub struct Listening {
    listener: Listener,
    limits: Limits,
    tls: Option<Tls>,
    meters: Meters,
    health: Health,
}

impl Listening {
    /// Binds the address, or what `socket` has in its place. `server` is its label in metrics and
    /// where its settings stand: `http`, `grpc` or `admin`.
    ///
    /// Dropping the future binds nothing.
    ///
    /// # Errors
    /// `ADDRESS_IN_USE`, `ADDRESS_FORBIDDEN`, `ADDRESS_NOT_HERE`, `SOCKET_NOT_HANDED_OVER` or
    /// `BIND_FAILED`; the message says what to do.
    pub async fn bind(
        server: &str,
        address: SocketAddr,
        socket: &SocketConfig,
        limits: Limits,
        tls: Option<Tls>,
        env: &Env,
    ) -> Result<Listening> {
        let listener = Listener::open(server, address, socket).await?;
        let meters = Meters::new(env.metrics(), server);
        Ok(Listening { listener, limits, tls, meters, health: env.health().clone() })
    }

    /// Where it listens, with the real port; `None` for a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.address()
    }

    /// Tells the process where it listens, and what is spoken there: `http`, `grpc` or `admin`.
    pub fn announce(&self, protocol: &'static str, env: &Env) {
        self.listener.announce(protocol, env);
    }

    /// Serves until a shutdown is requested, then drains until its deadline and cuts the rest.
    /// `service` makes what answers on a connection.
    ///
    /// Dropping the future closes the socket and cuts every connection.
    pub async fn serve<S, B>(
        self,
        http: &Http,
        service: impl Fn(&Peer) -> S + Sync,
        shutdown: Shutdown,
    ) where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let http = Arc::new(http.builder());
        let begin = |accepted: Accepted| -> BoxFuture<'static, ()> {
            let Accepted { stream, peer, limits, tls, meters, drain, abort } = accepted;
            let service = service(&peer);
            let http = http.clone();
            let connection = Connection { http, service, peer, limits, meters, drain, abort };
            Box::pin(async move {
                match tls {
                    None => connection.plain(stream).await,
                    Some(tls) => connection.with_tls(stream, tls).await,
                }
            })
        };
        let tls = self.tls.clone();
        tokio::select! {
            () = accept_all(self, &begin, shutdown) => {}
            () = Tls::watch(tls) => {}
        }
    }
}

/// A connection that was accepted and not yet served.
struct Accepted {
    stream: Wire,
    peer: Peer,
    limits: Arc<Limits>,
    tls: Option<Tls>,
    meters: Meters,
    drain: CancellationToken,
    abort: CancellationToken,
}

/// What a connection gives back when it ends.
type Held = (OwnedSemaphorePermit, Open, Option<Place>);

/// Not generic over what is served, so that it is compiled once.
async fn accept_all(
    listening: Listening,
    begin: &(dyn Fn(Accepted) -> BoxFuture<'static, ()> + Sync),
    shutdown: Shutdown,
) {
    let Listening { listener, limits, tls, meters, health, .. } = listening;
    let limits = Arc::new(limits);
    let connections = TaskTracker::new();
    let (drain, abort) = (CancellationToken::new(), CancellationToken::new());
    // A connection looks whether it is cut once it drains.
    let _ended_on_drop = (abort.clone().drop_guard(), drain.clone().drop_guard());
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let addresses = limits.max_per_address.map(Addresses::new);
    let leaving = Arc::new(AtomicBool::new(false));
    // Begins to serve, unless the address has all its places.
    let take_in = |(stream, address): Arrived, permit: OwnedSemaphorePermit| {
        let place = addresses.as_ref().zip(address).map(|(all, address)| all.enter(address.ip()));
        if matches!(place, Some(None)) {
            meters.crowded.inc();
            tracing::debug!(peer = ?address, "too many connections of one address");
            return;
        }
        let held: Held = (permit, meters.enter(), place.flatten());
        let connection = begin(Accepted {
            peer: Peer::new(address, stream.local_address(), leaving.clone()),
            stream,
            limits: limits.clone(),
            tls: tls.clone(),
            meters: meters.clone(),
            drain: drain.child_token(),
            abort: abort.child_token(),
        });
        connections.spawn(async move {
            connection.await;
            drop(held);
        });
    };
    let mut draining = pin!(draining(&health));
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
            Ok((arrived, permit)) => {
                pause.reset();
                take_in(arrived, permit);
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

    // Whoever connects from now on is refused at once instead of left waiting.
    leaving.store(true, Relaxed);
    for arrived in listener.close(QUEUE) {
        // Without a place it is refused as the next one will be.
        if let Ok(permit) = permits.clone().try_acquire_owned() {
            take_in(arrived, permit);
        }
    }
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
    listener: &Listener,
    permits: &Arc<Semaphore>,
) -> io::Result<(Arrived, OwnedSemaphorePermit)> {
    // The permit first: a connection over the limit stays in the system's queue.
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?, permit))
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
