//! Everything around one call, in one future.
//!
//! On the way in: the caller's context, the deadline, the count of what is in
//! flight, a span if the trace is sampled. On the way out: a timeout or a panic
//! becomes a status, and the end, which for gRPC is in the trailers, is written
//! down once as metric, span and log line.

use std::any::Any;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::error::panic_text;
use chassis_core::propagation::{self, REQUEST_ID};
use chassis_core::{BoxFuture, Context, Deadline, Env, Error, SpanKind};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tower::Service;

use crate::IntoStatus;
use crate::call::body::Watched;
use crate::call::method::{Family, Methods};
use crate::call::outcome::Outcome;
use crate::call::record::{Record, Side, begin_span};
use crate::timeout;

/// Longest method name that is written down, in bytes.
const MAX_NAME: usize = 256;

/// Makes the [`Calls`] of each connection.
#[derive(Clone)]
pub(super) struct CallsFactory {
    routes: Routes,
    env: Env,
    methods: Arc<Methods>,
    request_timeout: Duration,
}

/// The calls of one connection.
pub(super) struct Calls {
    factory: CallsFactory,
    connect_info: TcpConnectInfo,
}

impl CallsFactory {
    pub(super) fn new(routes: Routes, env: &Env, request_timeout: Duration) -> CallsFactory {
        let family = Family {
            name: "rpc_server_call_duration_seconds",
            help: "Time that calls took, from the first byte to the status.",
            labels: Vec::new(),
        };
        CallsFactory {
            routes,
            env: env.clone(),
            methods: Arc::new(Methods::new(env.metrics(), family)),
            request_timeout,
        }
    }

    pub(super) fn connection(
        self,
        remote_addr: Option<SocketAddr>,
        local_addr: Option<SocketAddr>,
    ) -> Calls {
        Calls { factory: self, connect_info: TcpConnectInfo { local_addr, remote_addr } }
    }
}

impl Calls {
    /// Serves one call. Dropping the future cancels it.
    pub(super) fn call(
        &self,
        mut request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
        let CallsFactory { env, methods, .. } = &self.factory;
        let deadline = self.deadline(request.headers());
        let ctx =
            propagation::extract(env, |name| text(request.headers(), name)).with_deadline(deadline);
        let name = method_name(request.uri().path());
        let span = begin_span(&ctx, SpanKind::Server, &name);
        let side = Side::Server {
            peer: self.connect_info.remote_addr,
            _in_flight: env.in_flight().enter("grpc"),
        };
        let record = Record::begin(ctx.clone(), span, Arc::clone(methods), name, side);

        request.extensions_mut().insert(self.connect_info.clone());
        // Routes are always ready: they wait inside of the call.
        let answer = self.factory.routes.clone().call(request);
        Box::pin(ctx.scope(respond(answer, deadline, record)))
    }

    /// What the caller gives, but never more than the server's own limit.
    fn deadline(&self, headers: &HeaderMap) -> Deadline {
        let limit = self.factory.request_timeout;
        let asked = text(headers, timeout::HEADER).and_then(timeout::parse);
        Deadline::after(asked.map_or(limit, |asked| asked.min(limit)))
    }
}

async fn respond(
    answer: impl Future<Output = Result<Response<Body>, Infallible>>,
    deadline: Deadline,
    mut record: Record,
) -> Result<Response<Body>, Infallible> {
    let answer = deadline.run(AssertUnwindSafe(answer).catch_unwind()).await;
    let mut response = match answer {
        Ok(Ok(answer)) => answer?,
        Ok(Err(panic)) => panicked(&record.ctx, &*panic).into_status().into_http(),
        Err(late) => late.into_status().into_http(),
    };
    if let Ok(id) = HeaderValue::from_str(record.ctx.request_id()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(match Outcome::of_head(&response) {
        Some(outcome) => {
            record.end(&outcome);
            response
        }
        None => response.map(|body| Body::new(Watched::new(body, record))),
    })
}

/// The caller learns the id under which the log knows more, and no more.
fn panicked(ctx: &Context, panic: &(dyn Any + Send)) -> Error {
    Error::internal(format!("the handler panicked: {}", panic_text(panic)))
        .with_detail("request_id", ctx.request_id())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// `/package.Service/Method` without its slash, within bounds.
fn method_name(path: &str) -> String {
    let name = path.strip_prefix('/').unwrap_or(path);
    name.chars().take(MAX_NAME).collect()
}
