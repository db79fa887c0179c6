//! The router with what is known of one connection.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{Router, extract::ConnectInfo, routing::future::RouteFuture};
use chassis_net::Peer;
use http::{HeaderValue, Request, Version, header::CONNECTION};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower::Service as _;

/// The router with what is known of one connection.
pub(crate) struct PerConnection {
    router: Router,
    peer: Peer,
}

impl PerConnection {
    pub(crate) fn new(router: &Router, peer: &Peer) -> PerConnection {
        PerConnection { router: router.clone(), peer: peer.clone() }
    }
}

impl hyper::service::Service<Request<Incoming>> for PerConnection {
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.peer.address()));
        let leaving = (request.version() < Version::HTTP_2).then(|| self.peer.clone());
        // A router is always ready, and its clone is one counter.
        Answer { route: self.router.clone().call(request), leaving }
    }
}

pin_project! {
    /// The router's answer, and with HTTP/1 the last one if the service is leaving. HTTP/2 has
    /// GOAWAY for that, which loses nothing.
    pub(crate) struct Answer {
        #[pin]
        route: RouteFuture<Infallible>,
        leaving: Option<Peer>,
    }
}

impl Future for Answer {
    type Output = Result<axum::response::Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.route.poll(cx));
        if let (Ok(answer), Some(peer)) = (&mut answer, this.leaving)
            && peer.is_to_leave()
        {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(answer)
    }
}
