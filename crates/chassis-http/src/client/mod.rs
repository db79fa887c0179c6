//! Calls to another service, by its name, with the stack on.
//!
//! ```no_run
//! # async fn call(discovery: &chassis_discovery::Discovery) -> chassis_core::Result<()> {
//! let greeter = chassis_http::Client::new("greeter", discovery);
//! let answer = greeter.get("/greetings/7").send().await?.error_for_status().await?;
//! let greeting: serde_json::Value = answer.json().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A call inherits the ambient [`Context`]: it is a child span in the same trace, carries the
//! request id, and gives up at the caller's deadline. What may be repeated safely is retried
//! within a budget; an endpoint that keeps failing is walked past.
//!
//! Read in this order: `stack` (the column of layers), `policy` (what is retried), `payload`
//! (what can be sent twice), `transport` (the wire), `error`, `cache` and `fallback` (above the stack), then `request` and `response`.

mod cache;
mod deadline;
mod error;
mod fallback;
mod metrics;
mod payload;
mod policy;
mod request;
mod response;
mod stack;
mod transport;

use std::{
    sync::Arc,
    task::{Context as Poller, Poll},
};

use axum::body::Body;
use chassis_core::{
    BoxFuture, Context, Deadline, Error, Metrics, Result, Span, SpanKind, propagation,
};
use chassis_discovery::{ClientConfig, Discovery, Target};
use chassis_net::propagate;
use chassis_resilience::chaos::Chaos;
use http::{HeaderValue, Method, Request, header};
use tower::ServiceExt;

use self::{
    cache::Answers,
    metrics::{ClientMetrics, Outcome},
    payload::Payload,
    stack::Stack,
};
pub use self::{request::RequestBuilder, response::Response};
use crate::edge::method_label;
pub use chassis_discovery::CacheConfig;

/// Largest answer that is read into memory, unless [`ClientBuilder::max_response_bytes`] says
/// another: 4 MiB.
pub const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024;

/// A client of one service. Cheap to clone; clones share connections, breakers and budget.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    service: Arc<str>,
    target: Arc<str>,
    host: Option<HeaderValue>,
    stack: Stack,
    config: ClientConfig,
    max_response_bytes: usize,
    metrics: Option<ClientMetrics>,
    answers: Option<Answers>,
}

/// A client in the making.
pub struct ClientBuilder {
    service: String,
    discovery: Discovery,
    config: ClientConfig,
    max_response_bytes: usize,
    metrics: Option<Metrics>,
    chaos: Chaos,
    cache: Option<CacheConfig>,
}

impl ClientBuilder {
    /// Sets time-outs, retries, concurrency and breakers.
    #[must_use]
    pub fn config(mut self, config: &ClientConfig) -> ClientBuilder {
        self.config = config.clone();
        self
    }

    /// Shows the calls and the balancer in these metrics.
    #[must_use]
    pub fn metrics(mut self, metrics: &Metrics) -> ClientBuilder {
        self.metrics = Some(metrics.clone());
        self
    }

    /// Lets faults be injected into the calls, as the process's configuration allows
    /// ([`ChaosConfig`](chassis_discovery::ChaosConfig)). The target is `<service>/http`, or
    /// the paths of it that begin so: `<service>/http/items`.
    #[must_use]
    pub fn chaos(mut self, chaos: &Chaos) -> ClientBuilder {
        self.chaos = chaos.clone();
        self
    }

    /// Sets the largest answer, in bytes, that [`Response`] reads into memory.
    #[must_use]
    pub fn max_response_bytes(mut self, limit: usize) -> ClientBuilder {
        self.max_response_bytes = limit;
        self
    }

    /// Keeps answers to GETs that are sent by a [`RequestBuilder`], if nothing in them is for
    /// one caller alone: no `Authorization`, no cookie, no `Cache-Control: private`. What many
    /// ask for at a time is fetched once; an old answer is given while it is fetched anew, and
    /// for longer if the callee fails, which [`Response::degraded`] then says. Off unless it is
    /// asked for, here or by `cache.enabled` in the [`config`](ClientBuilder::config); what is
    /// given here is used whatever its `enabled` says.
    #[must_use]
    pub fn cache(mut self, config: &CacheConfig) -> ClientBuilder {
        self.cache = Some(config.clone());
        self
    }

    /// Builds the client. Must be called inside a tokio runtime; nothing is connected yet.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the setting, under `clients.<service>`.
    pub fn build(self) -> Result<Client> {
        self.config.validate(&format!("clients.{}", self.service))?;
        if let Some(cache) = &self.cache {
            cache.validate(&format!("clients.{}.cache", self.service))?;
        }
        Ok(self.assemble())
    }

    fn assemble(self) -> Client {
        let target = Target::new(self.service.as_str(), "http");
        let name = target.to_string().into();
        let stack =
            stack::build(target, &self.discovery, &self.config, self.metrics.as_ref(), self.chaos);
        let service: Arc<str> = self.service.into();
        let configured = Some(&self.config.cache).filter(|cache| cache.enabled);
        let answers = self.cache.as_ref().or(configured).map(|cache| {
            let metrics = self.metrics.as_ref().map(|metrics| (metrics, &*service));
            // A fetch is a call, and takes its time and its place.
            Answers::new(cache, self.config.timeout, self.config.max_concurrent, metrics)
        });
        Client(Arc::new(Inner {
            metrics: self.metrics.map(|metrics| ClientMetrics::new(metrics, service.clone())),
            target: name,
            host: HeaderValue::from_str(&service).ok(),
            service,
            stack,
            config: self.config,
            max_response_bytes: self.max_response_bytes,
            answers,
        }))
    }
}

impl Client {
    /// A client of this service with the default settings and no metrics.
    ///
    /// Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(service: impl Into<String>, discovery: &Discovery) -> Client {
        // The defaults are valid: a test of the discovery crate holds that.
        Client::builder(service, discovery).assemble()
    }

    /// A client of this service with settings of one's own.
    #[must_use]
    pub fn builder(service: impl Into<String>, discovery: &Discovery) -> ClientBuilder {
        ClientBuilder {
            service: service.into(),
            discovery: discovery.clone(),
            config: ClientConfig::default(),
            max_response_bytes: MAX_RESPONSE_BYTES,
            metrics: None,
            chaos: Chaos::disabled(),
            cache: None,
        }
    }

    /// The service that it calls.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.0.service
    }

    /// A GET of this path, which begins with `/` and may have a query.
    pub fn get(&self, path: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// A POST to this path.
    pub fn post(&self, path: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// A PUT to this path.
    pub fn put(&self, path: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::PUT, path)
    }

    /// A DELETE of this path.
    pub fn delete(&self, path: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::DELETE, path)
    }

    /// A request of any method.
    pub fn request(&self, method: Method, path: impl AsRef<str>) -> RequestBuilder {
        RequestBuilder::new(self.clone(), method, path.as_ref())
    }

    /// Forwards a request and gives the answer as it comes, whatever its status; both bodies
    /// stream. Of the target only path and query are used.
    ///
    /// A request with a body is retried only if nothing of it was sent. Dropping the future
    /// cancels the call.
    ///
    /// # Errors
    /// Any failure to get an answer: `NO_ENDPOINTS`, `CIRCUIT_OPEN`, `TOO_MANY_CALLS`,
    /// `CONNECT_FAILED`, `CONNECTION_LOST`, `ATTEMPT_TIMEOUT`, `DEADLINE_EXCEEDED`.
    pub async fn call(&self, request: Request<Body>) -> Result<http::Response<Body>> {
        let own = request.extensions().get::<Deadline>().copied();
        let mut request = request.map(|body| Payload::from_body(body, self.0.config.max_replay));
        request.body_mut().set_deadline(own);
        let (response, _) = self.send(request).await?;
        Ok(response)
    }

    /// Asks the callee, whatever is kept.
    async fn fetch(&self, request: Request<Payload>) -> Result<Response> {
        let (response, deadline) = self.send(request).await?;
        Ok(Response::new(response, deadline, self.0.max_response_bytes))
    }

    /// Sends through the stack; the deadline is the one that holds for the answer's body too.
    async fn send(
        &self,
        mut request: Request<Payload>,
    ) -> Result<(http::Response<Body>, Deadline)> {
        let inner = &*self.0;
        let started = tokio::time::Instant::now();
        let limit = Deadline::after(inner.config.timeout);
        let context = Context::current().child_until(limit);
        let deadline = context.deadline().unwrap_or(limit);
        let deadline = request.body().deadline().map_or(deadline, |own| deadline.min(own));
        request.body_mut().set_deadline(Some(deadline));
        request.body_mut().set_target(&inner.target);
        // A forwarded one belongs to the trace parent that it came with.
        request.headers_mut().remove(propagation::TRACESTATE);
        propagate(&context, request.headers_mut());
        // The callee is known by its name; the address is the balancer's business.
        if let Some(host) = &inner.host {
            request.headers_mut().entry(header::HOST).or_insert_with(|| host.clone());
        }

        let method = method_label(request.method());
        let mut span = Span::start(&context, SpanKind::Client, method);
        if span.is_recording() {
            span.set("http.request.method", method);
            span.set("server.address", inner.service.to_string());
            span.set("url.path", request.uri().path());
        }
        let trace = context.trace().clone();
        let result = context
            .scope(inner.stack.clone().oneshot(request))
            .await
            .map_err(|error| error::from_stack(error, &inner.service));
        if inner.metrics.is_none() && !span.is_recording() {
            return Ok((result?.map(Body::new), deadline));
        }
        let outcome = match &result {
            Ok(response) => Outcome::Answered(response.status()),
            Err(error) => Outcome::Failed(error.reason().to_owned()),
        };
        if let Some(metrics) = &inner.metrics {
            metrics.observe(method, &outcome, started.elapsed().as_secs_f64(), &trace);
        }
        if span.is_recording() {
            let text = outcome.text().into_owned();
            match &result {
                Ok(response) => {
                    span.set("http.response.status_code", text.clone());
                    if response.status().is_client_error() || response.status().is_server_error() {
                        span.fail(text);
                    }
                }
                Err(error) => {
                    span.set("error.type", text);
                    span.fail(error.chain());
                }
            }
        }
        Ok((result?.map(Body::new), deadline))
    }
}

impl tower::Service<Request<Body>> for Client {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<http::Response<Body>>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = self.clone();
        Box::pin(async move { Client::call(&client, request).await })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.0.service).finish()
    }
}
