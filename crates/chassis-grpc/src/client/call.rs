//! One call as its caller sees it: context, deadline, span and metrics.

use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxError, Context, Deadline, Error, SpanKind, propagation};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tower::ServiceExt;

use super::LongLived;
use super::answer::Answer;
use super::channel::Column;
use super::error::explain;
use super::fallback::Counted;
use super::replay::Replay;
use crate::IntoStatus;
use crate::call::body::Watched;
use crate::call::method::Methods;
use crate::call::outcome::Outcome;
use crate::call::record::{Record, Side, begin_span};
use crate::timeout;

/// What all calls of a channel share.
pub(super) struct Shared {
    pub(super) timeout: Duration,
    pub(super) methods: Arc<Methods>,
    pub(super) max_replay: usize,
    pub(super) target: Arc<str>,
    pub(super) counted: Counted,
}

/// Makes one call. Dropping the future cancels it.
pub(super) async fn call(
    column: Column,
    shared: Arc<Shared>,
    mut request: Request<Body>,
) -> Result<Response<Body>, Status> {
    shared.counted.note();
    let deadline = deadline(&request, shared.timeout);
    let ctx = Context::current();
    let ctx = deadline.map_or_else(|| ctx.child(), |deadline| ctx.child_until(deadline));
    let path = request.uri().path();
    let name = path.strip_prefix('/').unwrap_or(path).to_owned();
    let span = begin_span(&ctx, SpanKind::Client, &name);
    propagate(&ctx, request.headers_mut());
    if let Some(deadline) = ctx.deadline() {
        request.extensions_mut().insert(deadline);
    }
    let methods = Arc::clone(&shared.methods);
    let mut record = Record::begin(ctx.clone(), span, methods, name, Side::Client);

    let deadline = ctx.deadline();
    let replay = |body| Replay::read(body, shared.max_replay).with_target(&shared.target);
    match send(column, request.map(replay), deadline).await {
        Ok(response) => Ok(match Outcome::of_head(&response) {
            Some(outcome) => {
                record.end(&outcome);
                response.map(Body::new)
            }
            None => response.map(|body| Body::new(Watched::until(deadline, body, record))),
        }),
        Err(error) => {
            record.end(&Outcome::of_error(&error));
            Err(error.into_status())
        }
    }
}

async fn send(
    column: Column,
    request: Request<Replay>,
    deadline: Option<Deadline>,
) -> Result<Response<Answer<Incoming>>, Error> {
    // A call with no time left is not sent.
    deadline.map_or(Ok(()), Deadline::check)?;
    let answer = column.oneshot(request);
    let answer: Result<Response<Answer<Incoming>>, BoxError> = match deadline {
        Some(deadline) => deadline.run(answer).await?,
        None => answer.await,
    };
    answer.map_err(explain)
}

/// The earliest of the client's timeout, the request's own and the context's;
/// the last is joined by [`Context::with_deadline`].
fn deadline(request: &Request<Body>, limit: Duration) -> Option<Deadline> {
    let asked = request
        .headers()
        .get(timeout::HEADER)
        .and_then(|value| timeout::parse(value.to_str().ok()?));
    let limit = match request.extensions().get::<LongLived>() {
        Some(LongLived) => asked,
        None => Some(asked.map_or(limit, |asked| asked.min(limit))),
    };
    limit.map(Deadline::after)
}

fn propagate(ctx: &Context, headers: &mut HeaderMap) {
    propagation::inject(ctx, |name, value| {
        // What does not fit a header is not worth failing a call.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    });
}
