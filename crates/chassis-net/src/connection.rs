//! The life of one connection: first bytes, requests, age, drain, end.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use ::http::{Request, Response, Version};
use http_body::Body;
use hyper::{body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Limits,
    first_bytes::Sniffed,
    heads::{self, Answer, Came, Heads, Sent},
    meters::{Broken, Meters},
    stream::{Stream, Wire},
    tls::Tls,
    upgraded::tie,
};

/// How long one that has connected and sent nothing is waited for when a drain begins: who
/// connects is about to send, and would not know whether it was heard.
const FIRST_BYTES_IN_DRAIN: Duration = Duration::from_secs(1);

/// What is known of the other side of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    address: Option<SocketAddr>,
    local: Option<SocketAddr>,
    leaving: Arc<AtomicBool>,
}

impl Peer {
    pub(crate) fn new(
        address: Option<SocketAddr>,
        local: Option<SocketAddr>,
        leaving: Arc<AtomicBool>,
    ) -> Peer {
        Peer { address, local, leaving }
    }

    /// Where it comes from; `None` for who comes over a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The address of ours that it came to.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Whether it is to leave, for who looks at that when an answer is there.
    #[must_use]
    pub fn leaving(&self) -> Leaving {
        Leaving(self.leaving.clone())
    }
}

/// Whether the service is about to end, and answers should end their connections: clients
/// leave one after the other with an answer in hand, and a close finds nobody who has just
/// sent a request.
#[derive(Clone, Debug)]
pub struct Leaving(Arc<AtomicBool>);

impl Leaving {
    /// Whether it is.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// A connection that was accepted, and what answers on it.
pub(crate) struct Connection<S> {
    pub(crate) http: Arc<auto::Builder<TokioExecutor>>,
    pub(crate) service: S,
    pub(crate) peer: Peer,
    pub(crate) limits: Arc<Limits>,
    pub(crate) meters: Meters,
    pub(crate) drain: CancellationToken,
    pub(crate) abort: CancellationToken,
}

impl<S, B> Connection<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(crate) async fn plain(self, stream: Wire) {
        stream.no_delay();
        self.serve(Stream::Plain(stream)).await;
    }

    /// The same after a handshake, which has a time of its own.
    pub(crate) async fn with_tls(self, stream: Wire, tls: Tls) {
        stream.no_delay();
        let drained = async {
            self.drain.cancelled().await;
            sleep(FIRST_BYTES_IN_DRAIN).await;
        };
        let shaken = tokio::select! {
            shaken = timeout(self.limits.first_bytes, tls.accept(stream)) => shaken,
            () = drained => return,
            () = self.abort.cancelled() => return,
        };
        let peer = tracing::field::debug(self.peer.address);
        match shaken {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => {
                self.meters.handshakes.inc();
                tracing::debug!(%error, peer, "TLS handshake failed");
            }
            Err(_) => {
                self.meters.handshakes.inc();
                tracing::debug!(peer, "TLS handshake took too long");
            }
        }
    }

    /// Serves until either side ends it, the drain is over, or it is cut.
    async fn serve(self, stream: Stream) {
        let Connection { http, service, peer, limits, meters, drain, abort } = self;
        let (tie, tied) = tie();
        let heads = Heads::new(limits.head);
        let (stream, is_known) = Sniffed::new(stream, limits.send, tied, heads.clone());
        let service = Counted { service, requests: Arc::default(), heads: heads.clone() };
        let ages = Ages::new(&limits, is_known.clone(), service.requests.clone());
        let broken = meters.broken;
        let life = Life { peer, broken, ages, heads, is_known, drain, abort: abort.clone() };
        let io = TokioIo::new(stream);
        // What can be upgraded takes no heed of "only HTTP/2", and HTTP/2 has no upgrades.
        if http.is_http1_available() {
            life.live(http.serve_connection_with_upgrades(io, service)).await;
            tie.released(&abort).await;
        } else {
            life.live(http.serve_connection(io, service)).await;
        }
    }
}

/// A connection of either kind that hyper serves.
trait Served: Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> {
    /// Asks it to end with what is under way.
    fn end(self: Pin<&mut Self>);
}

macro_rules! served {
    ($kind:ident) => {
        impl<S, B> Served for auto::$kind<'_, TokioIo<Sniffed>, Counted<S>, TokioExecutor>
        where
            S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
                + Send
                + 'static,
            S::Future: Send + 'static,
            B: Body + Send + 'static,
            B::Data: Send,
            B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        {
            fn end(self: Pin<&mut Self>) {
                self.graceful_shutdown();
            }
        }
    };
}

served!(Connection);
served!(UpgradeableConnection);

/// What a connection lives by.
struct Life {
    peer: Peer,
    broken: Broken,
    ages: Ages,
    heads: Heads,
    is_known: Arc<AtomicBool>,
    drain: CancellationToken,
    abort: CancellationToken,
}

impl Life {
    async fn live(self, connection: impl Served) {
        let Life { peer, broken, mut ages, heads, is_known, drain, abort } = self;
        let mut connection = pin!(connection);
        let mut timer = pin!(sleep_until(ages.next));
        let mut drained = pin!(drain.cancelled());
        let mut aborted = pin!(abort.cancelled());
        let (mut is_ending, mut is_draining) = (false, false);
        // What is below is polled with each request. Who knows whom to wake need not be polled
        // again before there is something to say.
        let (mut is_set, mut is_heard) = (false, false);
        loop {
            // Only the connection's own poll, which is before it, changes what this looks at.
            let known = poll_fn(|_| match is_known.load(Relaxed) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            });
            // So does what this one looks at. A head is due after those before it: the timer is set
            // for the first, and again only when it is due.
            let alarm = poll_fn(|cx| {
                if let Some(due) = heads.due()
                    && due < timer.deadline()
                {
                    timer.as_mut().reset(due);
                    is_set = false;
                }
                if is_set && !timer.is_elapsed() {
                    return Poll::Pending;
                }
                is_set = true;
                timer.as_mut().poll(cx)
            });
            let drained = poll_fn(|cx| {
                if is_heard && !drain.is_cancelled() {
                    return Poll::Pending;
                }
                is_heard = true;
                drained.as_mut().poll(cx)
            });
            tokio::select! {
                biased;
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        broken.count(&*error);
                        // The client's doing: not worth more than a debug line.
                        tracing::debug!(%error, peer = ?peer.address, "connection ended");
                    }
                    return;
                }
                // What aborts drains too.
                () = aborted.as_mut(), if is_draining => return,
                () = drained, if !is_draining => {
                    is_draining = true;
                    // hyper-util would cut off one whose first bytes are on their way.
                    ages.hurry(Instant::now());
                    timer.as_mut().reset(ages.next);
                    is_set = false;
                }
                () = known, if is_draining && !is_ending => {
                    is_ending = true;
                    connection.as_mut().end();
                }
                () = alarm => {
                    let now = Instant::now();
                    match heads.look(now) {
                        heads::Look::Fine => {}
                        heads::Look::Slow => {
                            broken.slow.inc();
                            tracing::debug!(peer = ?peer.address, "connection closed: a slow head");
                            return;
                        }
                        heads::Look::Idle => return,
                    }
                    match ages.look(now) {
                        Look::Fine => {}
                        Look::Silent => {
                            broken.silent.inc();
                            tracing::debug!(peer = ?peer.address, "connection closed: nothing came");
                            return;
                        }
                        Look::Old => {
                            if !is_ending {
                                is_ending = true;
                                connection.as_mut().end();
                            }
                        }
                    }
                    timer.as_mut().reset(ages.next);
                    is_set = false;
                }
            }
        }
    }
}

/// Counts requests as they begin, and notes where their answers end.
struct Counted<S> {
    service: S,
    requests: Arc<AtomicU64>,
    heads: Heads,
}

impl<S, B> Service<Request<Incoming>> for Counted<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<Sent<B>>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Answer<S::Future> {
        self.requests.fetch_add(1, Relaxed);
        let is_alone = request.version() < Version::HTTP_2;
        let came = if is_alone { self.heads.came() } else { Came::unwatched() };
        Answer::new(self.service.call(request), came)
    }
}

/// What becomes of a connection whose timer is due.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Fine,
    /// Nothing came that must have: it is closed.
    Silent,
    /// It is asked to end.
    Old,
}

/// The times of a connection, of which one timer looks at the next.
struct Ages {
    is_known: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    first_bytes: Option<Instant>,
    first_request: Option<Instant>,
    /// The next look at whether it is idle, and the requests up to the last one.
    idle: Option<(Instant, u64)>,
    every: Duration,
    old: Option<Instant>,
    next: Instant,
}

/// Further than any connection lives.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

impl Ages {
    fn new(limits: &Limits, is_known: Arc<AtomicBool>, requests: Arc<AtomicU64>) -> Ages {
        let now = Instant::now();
        let mut ages = Ages {
            is_known,
            requests,
            first_bytes: Some(now + limits.first_bytes),
            first_request: limits.first_request.map(|time| now + time),
            idle: limits.idle.map(|time| (now + time, 0)),
            every: limits.idle.unwrap_or(NEVER),
            old: limits.max_age.map(|age| now + age.mul_f64(1.0 + fastrand::f64() / 10.0)),
            next: now,
        };
        ages.next = ages.soonest(now);
        ages
    }

    /// A drain has begun: first bytes that are not here soon will not come.
    fn hurry(&mut self, now: Instant) {
        let soon = now + FIRST_BYTES_IN_DRAIN;
        self.first_bytes = self.first_bytes.map(|at| at.min(soon));
        self.next = self.soonest(now);
    }

    fn soonest(&self, now: Instant) -> Instant {
        let idle = self.idle.map(|(at, _)| at);
        let times = [self.first_bytes, self.first_request, idle, self.old];
        times.into_iter().flatten().min().unwrap_or(now + NEVER)
    }

    fn look(&mut self, now: Instant) -> Look {
        let requests = self.requests.load(Relaxed);
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let mut look = Look::Fine;
        if is_due(self.first_bytes) {
            self.first_bytes = None;
            if !self.is_known.load(Relaxed) {
                look = Look::Silent;
            }
        }
        if is_due(self.first_request) {
            self.first_request = None;
            if requests == 0 {
                look = Look::Silent;
            }
        }
        if let Some((_, before)) = self.idle.filter(|&(at, _)| at <= now) {
            let is_idle = requests == before;
            self.idle = (!is_idle).then_some((now + self.every, requests));
            if is_idle && look == Look::Fine {
                look = Look::Old;
            }
        }
        if is_due(self.old) {
            self.old = None;
            if look == Look::Fine {
                look = Look::Old;
            }
        }
        self.next = self.soonest(now);
        look
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn limits() -> Limits {
        Limits {
            max_connections: 1,
            max_per_address: None,
            first_bytes: seconds(10),
            head: seconds(10),
            first_request: None,
            send: None,
            idle: None,
            max_age: None,
        }
    }

    /// What is said at the end of so many seconds, if it is looked at whenever it is due.
    fn live(limits: &Limits, events: &[(u64, &str)], end: u64) -> Vec<(u64, Look)> {
        let (known, requests) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let start = Instant::now();
        let mut ages = Ages::new(limits, known.clone(), requests.clone());
        let mut said = Vec::new();
        for second in 0..=end {
            for (_, event) in events.iter().filter(|(at, _)| *at == second) {
                match *event {
                    "bytes" => known.store(true, Relaxed),
                    _ => drop(requests.fetch_add(1, Relaxed)),
                }
            }
            let now = start + seconds(second) + Duration::from_millis(500);
            if ages.next <= now {
                match ages.look(now) {
                    Look::Fine => {}
                    look => said.push((second, look)),
                }
            }
        }
        said
    }

    #[tokio::test]
    async fn who_says_nothing_is_closed() {
        assert_eq!(live(&limits(), &[], 30), [(10, Look::Silent)]);
        assert_eq!(live(&limits(), &[(9, "bytes")], 30), []);
    }

    #[tokio::test]
    async fn who_never_calls_is_closed() {
        let limits = Limits { first_request: Some(seconds(20)), ..limits() };
        assert_eq!(live(&limits, &[(1, "bytes")], 60), [(20, Look::Silent)]);
        assert_eq!(live(&limits, &[(1, "bytes"), (19, "request")], 60), []);
    }

    #[tokio::test]
    async fn who_has_nothing_more_to_ask_is_asked_to_end() {
        let limits = Limits { idle: Some(seconds(60)), ..limits() };
        let events = [(1, "bytes"), (1, "request"), (70, "request"), (130, "request")];
        assert_eq!(live(&limits, &events, 400), [(240, Look::Old)]);
    }

    #[tokio::test]
    async fn who_is_old_is_asked_to_end_once() {
        let limits = Limits { max_age: Some(seconds(100)), idle: Some(seconds(60)), ..limits() };
        let events: Vec<(u64, &str)> =
            [(1, "bytes")].into_iter().chain((1..300).map(|second| (second, "request"))).collect();
        let said = live(&limits, &events, 299);
        assert!(matches!(said[..], [(100..=110, Look::Old)]), "{said:?}");
    }
}
