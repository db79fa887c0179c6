//! The calls of one connection, as hyper asks for them, and which requests are calls where HTTP
//! is served too.

use std::convert::Infallible;

use chassis_core::BoxFuture;
use chassis_net::Peer;
use http::{Request, Response, Version, header::CONTENT_TYPE};
use hyper::body::Incoming;
use tonic::body::Body;

use super::call::{Calls, CallsFactory};

/// What answers on one connection.
pub(super) struct PerConnection(Calls);

impl PerConnection {
    pub(super) fn new(calls: &CallsFactory, peer: &Peer) -> PerConnection {
        PerConnection(calls.clone().connection(peer.address(), peer.local_address()))
    }

    /// Answers a call on a port that is shared with HTTP, where it may come from a browser.
    pub(super) fn shared(&self, request: Request<Incoming>) -> BoxFuture<'static, Response<Body>> {
        #[cfg(feature = "web")]
        if super::web::is_web(&request) {
            return super::web::call(self.0.clone(), request);
        }
        let answer = self.0.call(request);
        Box::pin(async {
            match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    }
}

/// Whether a request is a call: gRPC needs HTTP/2, and says what it is.
pub(super) fn is_grpc(request: &Request<Incoming>) -> bool {
    #[cfg(feature = "web")]
    if super::web::is_web(request) {
        return true;
    }
    let kind = request.headers().get(CONTENT_TYPE);
    request.version() == Version::HTTP_2 && kind.is_some_and(|kind| is_grpc_kind(kind.as_bytes()))
}

/// `application/grpc`, or that with a format behind it.
fn is_grpc_kind(kind: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let Some((begin, rest)) = kind.split_at_checked(GRPC.len()) else { return false };
    begin.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';'))
}

impl hyper::service::Service<Request<Incoming>> for PerConnection {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.0.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_says_so() {
        for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC;x=1"] {
            assert!(is_grpc_kind(kind.as_bytes()), "{kind}");
        }
        for kind in ["application/json", "application/grpcx", "application/grpc-web", ""] {
            assert!(!is_grpc_kind(kind.as_bytes()), "{kind}");
        }
    }
}
