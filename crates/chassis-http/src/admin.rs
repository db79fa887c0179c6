//! The port for operators and orchestrators: probes, metrics, who this is, what it waits for.
//!
//! It is a port of its own, on loopback unless told otherwise, so that nothing of it can be
//! reached through the public one. It starts first and stops last, and none of its answers
//! does I/O, but for the operations that a person asks for: health and metrics are read from
//! memory. It is not part of the access log, which a probe every second would drown.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use chassis_core::{
    AdminConfig, BoxFuture, Code, Component, Deadline, Env, Error, Ready, Result, Shutdown,
};
use chassis_net::{Http, KeepAlive, Limits, Listening};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    edge::Edged,
    extract::{Json, Path, Query},
    limit::{Limited, Tripped},
    openapi,
    problem::Problem,
    server::PerConnection,
};

/// The largest body of an operation, in bytes.
const MAX_BODY: u64 = 256 * 1024;
/// How long an operation may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The media type of the metrics, with the version that Prometheus asks for.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The admin port as a component of an app; it belongs at the head of the list.
///
/// | path | answer |
/// |---|---|
/// | `/livez` | 200 as long as the process can answer |
/// | `/readyz` | 200 if it should get traffic, else 503; each dependency in the body |
/// | `/startupz` | 200 once all components have started, else 503 |
/// | `/metrics` | OpenMetrics text |
/// | `/info` | name, version, instance and listeners |
/// | `/plan` | components and probes, in order |
/// | `/drain` | work in flight, by kind |
/// | `/openapi.json` | the OpenAPI document of the HTTP server; of several, of the one called NAME with `?server=NAME` |
/// | `/ops` | what an operator may ask for; see [`chassis_core::operations`] |
/// | `/ops/NAME` | GET asks, with arguments in the query; POST changes, with a JSON object |
pub struct Admin {
    config: AdminConfig,
    more: Router,
}

impl Admin {
    /// The admin port with the paths above. Nothing is bound before the app runs.
    #[must_use]
    pub fn new(config: &AdminConfig) -> Admin {
        Admin { config: config.clone(), more: Router::new() }
    }

    /// Adds paths of one's own. They must not be any of the paths above.
    #[must_use]
    pub fn merge(mut self, more: Router) -> Admin {
        self.more = self.more.merge(more);
        self
    }

    async fn serve(self, env: Env, ready: Ready, shutdown: Shutdown) -> Result<()> {
        let address = (self.config.host, self.config.port).into();
        let socket = &self.config.socket;
        let listening = Listening::bind("admin", address, socket, limits(), None, &env).await?;
        let router = router(&env).merge(self.more).layer(from_fn(bounded)).with_state(());
        let router = Edged::Each(router);
        listening.announce("admin", &env);
        ready.ready();
        let service = |peer: &_| PerConnection::new(&router, peer);
        listening.serve(&http(), service, shutdown).await;
        Ok(())
    }
}

impl Component for Admin {
    fn name(&self) -> Cow<'static, str> {
        "admin".into()
    }

    fn describe(&self) -> String {
        self.config.socket.describe((self.config.host, self.config.port).into())
    }

    fn validate(&self) -> Result<()> {
        self.config.socket.validate("admin.socket")
    }

    fn run(
        self: Box<Self>,
        env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin((*self).serve(env, ready, shutdown))
    }
}

/// A scraper, an orchestrator and a few people: more is a mistake.
fn limits() -> Limits {
    Limits {
        max_connections: 64,
        max_per_address: None,
        first_bytes: Duration::from_secs(10),
        head: Duration::from_secs(10),
        first_request: None,
        send: Some(Duration::from_secs(30)),
        idle: Some(Duration::from_secs(300)),
        max_age: None,
    }
}

fn http() -> Http {
    Http {
        only_http2: false,
        max_header_bytes: 16 * 1024,
        max_headers: 100,
        max_concurrent_streams: 16,
        keep_alive: KeepAlive::default(),
    }
}

fn router(env: &Env) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/metrics", get(metrics))
        .route("/info", get(info))
        .route("/plan", get(plan))
        .route("/drain", get(drain))
        .route("/openapi.json", get(document))
        .route("/ops", get(operations))
        .route("/ops/{*name}", get(ask).post(change))
        .fallback(nothing_here)
        .method_not_allowed_fallback(another_method)
        .with_state(env.clone())
}

async fn livez(State(env): State<Env>) -> Response {
    let live = env.health().is_live();
    (code(live), Json(json!({ "live": live }))).into_response()
}

async fn readyz(State(env): State<Env>) -> Response {
    (code(env.health().is_ready()), Json(env.health().report())).into_response()
}

async fn startupz(State(env): State<Env>) -> Response {
    let started = env.health().is_started();
    (code(started), Json(json!({ "started": started }))).into_response()
}

async fn metrics(State(env): State<Env>) -> Response {
    let kind = HeaderValue::from_static(OPENMETRICS);
    ([(header::CONTENT_TYPE, kind)], env.metrics().encode()).into_response()
}

async fn info(State(env): State<Env>) -> Response {
    let info = env.info();
    let unix = env.unix_listeners();
    let unix = unix.iter().map(|l| (l.protocol, format!("unix:{}", l.path.display())));
    let listeners: Vec<_> = env
        .listeners()
        .iter()
        .map(|l| (l.protocol, l.address.to_string()))
        .chain(unix)
        .map(|(protocol, address)| json!({ "protocol": protocol, "address": address }))
        .collect();
    Json(json!({
        "name": info.name,
        "version": info.version,
        "instance": info.instance,
        "listeners": listeners,
    }))
    .into_response()
}

async fn plan(State(env): State<Env>) -> String {
    env.plan().to_string()
}

async fn drain(State(env): State<Env>) -> Response {
    let status = env.health().status();
    Json(json!({ "status": status, "in_flight": env.in_flight().counts() })).into_response()
}

#[derive(Deserialize)]
struct Which {
    server: Option<String>,
}

async fn document(
    State(env): State<Env>,
    Query(which): Query<Which>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(env.scope(async { openapi::shown(&env, which.server.as_deref()).await }).await?))
}

async fn operations(State(env): State<Env>) -> Response {
    Json(env.operations().list()).into_response()
}

async fn ask(
    State(env): State<Env>,
    Path(name): Path<String>,
    Query(args): Query<BTreeMap<String, String>>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(env.scope(env.operations().run(&name, json!(args), false)).await?))
}

/// The body must say that it is JSON: a page in a browser cannot do that to another origin
/// without being asked first.
async fn change(
    State(env): State<Env>,
    Path(name): Path<String>,
    Json(args): Json<Value>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(env.scope(env.operations().run(&name, args, true)).await?))
}

/// Neither a large body nor an operation that hangs may hold on to the process.
async fn bounded(request: Request, next: Next) -> Response {
    let request = request.map(|body| Body::new(Limited::new(body, MAX_BODY, Tripped::default())));
    match Deadline::after(PATIENCE).run(next.run(request)).await {
        Ok(response) => response,
        Err(late) => Problem::from(late).into_response(),
    }
}

async fn another_method() -> Problem {
    let message = "this path of the admin port does not answer to this method";
    Problem::new(Error::new(Code::Unimplemented, "METHOD_NOT_ALLOWED", message))
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
}

async fn nothing_here() -> Problem {
    Error::not_found("ROUTE_NOT_FOUND", "there is nothing at this path of the admin port").into()
}

fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
