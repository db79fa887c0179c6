//! Calls of browsers (gRPC-Web), made calls of gRPC before anything else looks at them.
//!
//! tonic's own translation, but outside of our layer and not inside: a browser gets the status in
//! the body, where metrics and log would not find it.

use std::convert::Infallible;

use bytes::Bytes;
use chassis_core::{BoxError, BoxFuture};
use http::{Method, Request, Response, header::CONTENT_TYPE};
use http_body::Body as HttpBody;
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::{Layer, Service, service_fn};

use super::call::Calls;

/// The media types of gRPC-Web, plain and in base 64.
const KINDS: [&str; 4] = [
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
];

pub(super) fn is_web<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    request.method() == Method::POST && kind.is_some_and(|kind| KINDS.contains(&kind))
}

/// Answers such a call.
pub(super) fn call<B>(calls: Calls, request: Request<B>) -> BoxFuture<'static, Response<Body>>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + std::fmt::Display,
{
    let calls = service_fn(move |request: Request<Body>| calls.call(request));
    let answer = GrpcWebLayer::new().layer(calls).call(request);
    Box::pin(async {
        match answer.await {
            Ok(response) => response,
            Err(never) => never_happens(never),
        }
    })
}

fn never_happens(never: Infallible) -> ! {
    match never {}
}
