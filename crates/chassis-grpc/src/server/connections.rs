//! The calls of one connection, as hyper asks for them.

use std::convert::Infallible;

use chassis_core::BoxFuture;
use chassis_net::Peer;
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;

use super::call::{Calls, CallsFactory};

/// What answers on one connection.
pub(super) struct PerConnection(Calls);

impl PerConnection {
    pub(super) fn new(calls: &CallsFactory, peer: &Peer) -> PerConnection {
        PerConnection(calls.clone().connection(Some(peer.address()), peer.local_address()))
    }
}

impl hyper::service::Service<Request<Incoming>> for PerConnection {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.0.call(request)
    }
}
