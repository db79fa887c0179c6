//! Layers that a user puts around services, as tonic's routes take them.
//!
//! Inside of our own layer, which sees what they answer as it sees any answer. They may fail, as
//! most layers do; what they fail with becomes a status here, since nobody behind us could.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use chassis_core::{BoxError, BoxFuture, Error};
use chassis_resilience::{Elapsed, is_local_rejection, retry_in};
use http::{Request, Response};
use http_body::Body as HttpBody;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Service, ServiceExt};

use crate::IntoStatus;

/// The routes with a layer around them, as routes again.
pub(super) fn routes<S, B>(layered: S) -> Routes
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let router = Routes::default().into_axum_router();
    router.fallback_service(Layered(layered)).into()
}

#[derive(Clone)]
struct Layered<S>(S);

impl<S, A, B> Service<Request<A>> for Layered<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    A: HttpBody<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Waiting is done inside of the call, where the deadline sees it.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let answer = self.0.clone().oneshot(request.map(Body::new));
        Box::pin(async {
            Ok(match answer.await {
                Ok(response) => response.map(Body::new),
                Err(error) => status(error.into()).into_http(),
            })
        })
    }
}

/// What the failure of a layer means to the caller.
fn status(error: BoxError) -> Status {
    let error = match error.downcast::<Status>() {
        Ok(status) => return *status,
        Err(error) => error,
    };
    let error = match error.downcast::<Error>() {
        Ok(error) => return error.into_status(),
        Err(error) => error,
    };
    if is_local_rejection(&*error) {
        let pause = retry_in(&*error);
        let error = Error::resource_exhausted(
            "METHOD_OVERLOADED",
            "this method is asked more than it can do",
        )
        .with_source(error);
        return match pause {
            Some(pause) => error.with_retry_after(pause).into_status(),
            None => error.into_status(),
        };
    }
    if error.is::<Elapsed>() {
        return Error::deadline_exceeded("METHOD_TIMEOUT", "this method has had its time")
            .with_source(error)
            .into_status();
    }
    Error::internal(error).into_status()
}
