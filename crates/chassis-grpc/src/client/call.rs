//! One call as its caller sees it: context, deadline, span and metrics.

use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxFuture, Context, Deadline, Error, SpanKind};
use chassis_net::propagate;
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower::ServiceExt;

use super::LongLived;
use super::answer::Answer;
use super::channel::Column;
use super::error::explain;
use super::fallback::Counted;
use super::replay::{OwnFailure, Replay};
use crate::call::body::Watched;
use crate::call::compression::{self, Compression};
use crate::call::framing::Limit;
use crate::call::method::Methods;
use crate::call::outcome::Outcome;
use crate::call::record::{Record, Side, begin_span};
use crate::{IntoStatus, from_status, timeout};

/// What all calls of a channel share.
pub(super) struct Shared {
    pub(super) timeout: Duration,
    pub(super) methods: Arc<Methods>,
    pub(super) max_replay: usize,
    pub(super) receive: Limit,
    pub(super) send: Limit,
    pub(super) compression: Compression,
    pub(super) target: Arc<str>,
    pub(super) counted: Counted,
}

/// Makes one call. Dropping the future cancels it.
pub(super) fn call(
    column: Column,
    shared: &Arc<Shared>,
    mut request: Request<Body>,
) -> BoxFuture<'static, Result<Response<Body>, Status>> {
    shared.counted.note();
    let deadline = deadline(&request, shared.timeout);
    let ctx = Context::current();
    let ctx = deadline.map_or_else(|| ctx.child(), |deadline| ctx.child_until(deadline));
    let path = request.uri().path();
    let name = path.strip_prefix('/').unwrap_or(path).to_owned();
    let span = begin_span(&ctx, SpanKind::Client, &name);
    propagate(&ctx, request.headers_mut());
    let deadline = ctx.deadline();
    let methods = Arc::clone(&shared.methods);
    let record = Record::begin(ctx, span, methods, name, Side::Client, Instant::now());
    let mut rest =
        Rest { deadline, receive: shared.receive, own_failure: None, inflates: false, record };

    // A call with no time left is not sent.
    if let Some(Err(late)) = deadline.map(Deadline::check) {
        return Box::pin(std::future::ready(rest.end(Err(late))));
    }
    let (mut head, mut body) = request.into_parts();
    let Compression { sends_from, reads } = shared.compression;
    if let Some(from) = sends_from.filter(|_| compression::say(&mut head.headers)) {
        body = compression::deflate(body, from, shared.send, false);
    }
    rest.inflates = reads && compression::accept(&mut head.headers);
    let replay = match Replay::read(body, shared.max_replay, shared.send) {
        Ok(replay) => replay.with_target(&shared.target).until(deadline),
        Err(status) => return Box::pin(std::future::ready(rest.end(Err(from_status(status))))),
    };
    rest.own_failure = replay.own_failure();
    let answer = column.oneshot(Request::from_parts(head, replay));
    // No async blocks, which would have room for the call twice.
    match deadline {
        Some(until) => Box::pin(
            until
                .run(answer)
                .map(move |answer| rest.end(answer.and_then(|answer| answer.map_err(explain)))),
        ),
        None => Box::pin(answer.map(move |answer| rest.end(answer.map_err(explain)))),
    }
}

/// What is needed when the head of the answer has come.
struct Rest {
    deadline: Option<Deadline>,
    receive: Limit,
    own_failure: Option<OwnFailure>,
    inflates: bool,
    record: Record,
}

impl Rest {
    fn end(
        self,
        answer: Result<Response<Answer<Incoming>>, Error>,
    ) -> Result<Response<Body>, Status> {
        let Rest { deadline, receive, own_failure, inflates, mut record } = self;
        let answer = answer.map_err(|error| match own_failure.as_ref().and_then(|it| it.get()) {
            Some(status) => from_status(status.clone()),
            None => error,
        });
        match answer {
            Ok(mut response) => Ok(match Outcome::of_head(&response) {
                Some(outcome) => {
                    record.end(&outcome);
                    response.map(Body::new)
                }
                None => {
                    let inflates = inflates && compression::take(response.headers_mut());
                    response.map(|body| {
                        let body = body.or(own_failure);
                        if inflates {
                            let body = compression::inflate(body, receive);
                            return Body::new(Watched::until(deadline, body, receive, record));
                        }
                        Body::new(Watched::until(deadline, body, receive, record))
                    })
                }
            }),
            Err(error) => {
                record.end(&Outcome::of_error(&error));
                Err(error.into_status())
            }
        }
    }
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
