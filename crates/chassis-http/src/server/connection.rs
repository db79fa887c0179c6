//! What answers on one connection: the router, and the guest of the server if it has one.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{body::Body, extract::ConnectInfo, response::Response};
use chassis_core::{BoxFuture, Env, Result, Shutdown};
use chassis_net::{
    Guest, Leaving, Peer,
    guest::{Calls, Connect, Opened},
};
use http::{Extensions, HeaderValue, Request, StatusCode, Version, header::CONNECTION};
use hyper::body::Incoming;
use tower::Service as _;

use crate::edge::Edged;

/// A guest of any kind, before it is opened.
pub(super) trait AnyGuest: Send {
    fn describe(&self) -> String;
    fn protocol(&self) -> &'static str;
    fn validate(&self) -> Result<()>;
    fn open(self: Box<Self>, env: &Env, shutdown: Shutdown) -> Result<Opened<Body>>;
}

impl<G: Guest> AnyGuest for G {
    fn describe(&self) -> String {
        Guest::describe(self)
    }

    fn protocol(&self) -> &'static str {
        Guest::protocol(self)
    }

    fn validate(&self) -> Result<()> {
        Guest::validate(self)
    }

    fn open(self: Box<Self>, env: &Env, shutdown: Shutdown) -> Result<Opened<Body>> {
        let Opened { is_for, connection, work } = Guest::open(*self, env, shutdown)?;
        let connection = move |peer: &Peer| -> Calls<Body> {
            let calls = connection(peer);
            Box::new(move |request| {
                let answer = calls(request);
                Box::pin(async { answer.await.map(Body::new) })
            })
        };
        Ok(Opened { is_for, connection: Box::new(connection), work })
    }
}

/// Whether a request is for the guest.
type IsFor = fn(&Request<Incoming>) -> bool;

/// What of a guest is asked for each connection.
pub(super) struct Shared {
    pub(super) is_for: IsFor,
    pub(super) connection: Connect<Body>,
}

/// The router with what is known of one connection.
pub(crate) struct PerConnection {
    router: Edged,
    guest: Option<(IsFor, Calls<Body>)>,
    peer: Peer,
    /// What each request carries of it.
    known: Extensions,
}

/// Takes a place in a table.
#[derive(Clone)]
struct Place<const N: usize>;

/// The address in a table with room for what axum adds: else the table is made twice, once for
/// each request.
fn known(peer: &Peer) -> Extensions {
    let mut known = Extensions::new();
    let Some(address) = peer.address() else { return known };
    known.insert(ConnectInfo(address));
    known.insert(Place::<0>);
    known.insert(Place::<1>);
    known.insert(Place::<2>);
    known.remove::<Place<0>>();
    known.remove::<Place<1>>();
    known.remove::<Place<2>>();
    known
}

impl PerConnection {
    pub(crate) fn new(router: &Edged, peer: &Peer) -> PerConnection {
        PerConnection {
            router: router.clone(),
            guest: None,
            peer: peer.clone(),
            known: known(peer),
        }
    }

    pub(super) fn beside(mut self, guest: Option<&Shared>) -> PerConnection {
        self.guest = guest.map(|guest| (guest.is_for, (guest.connection)(&self.peer)));
        self
    }
}

impl hyper::service::Service<Request<Incoming>> for PerConnection {
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let leaving = (request.version() < Version::HTTP_2).then(|| self.peer.leaving());
        if let Some((is_for, calls)) = &self.guest
            && is_for(&request)
        {
            return Answer { answering: Answering::Guest(calls(request)), leaving };
        }
        // Takes the whole table if there is none yet.
        request.extensions_mut().extend(self.known.clone());
        // A router is always ready, and its clone is one counter.
        let answer = match &self.router {
            Edged::Whole(edge) => edge.answer(request.map(Body::new)),
            Edged::Each(router) => Box::pin(router.clone().call(request)),
        };
        Answer { answering: Answering::Router(answer), leaving }
    }
}

/// In a box, whoever answers: it is moved about, and what it is made of is large.
enum Answering {
    Router(BoxFuture<'static, std::result::Result<Response, Infallible>>),
    Guest(BoxFuture<'static, Response>),
}

/// The answer, and with HTTP/1 the last one if the service is leaving. HTTP/2 has GOAWAY for
/// that, which loses nothing.
pub(crate) struct Answer {
    answering: Answering,
    leaving: Option<Leaving>,
}

impl Future for Answer {
    type Output = std::result::Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = ready!(match &mut self.answering {
            Answering::Router(answer) => answer.as_mut().poll(cx),
            Answering::Guest(answer) => answer.as_mut().poll(cx).map(Ok),
        });
        if let (Ok(answer), Some(leaving)) = (&mut answer, &self.leaving)
            && leaving.is_asked()
            // What was upgraded is HTTP no more, and the header says what it is.
            && answer.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(answer)
    }
}
