//! One route: which requests, to which service, under which path.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, any, on},
};
use chassis_core::Error;
use chassis_http::{Client, Problem};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, uri::PathAndQuery};

use crate::{
    forwarded,
    gateway::Edge,
    headers::{strip_hop_by_hop, strip_request},
    path::{Rewrite, has_dot_segment, names},
};

/// A route in the making; [`to`](Route::to) says where it leads.
#[derive(Clone, Debug)]
pub struct Route {
    patterns: Vec<String>,
    methods: Vec<Method>,
}

impl Route {
    /// A route of the requests whose path fits this pattern, in axum's notation:
    /// `/items/{id}`, `/files/{*path}`.
    #[must_use]
    pub fn path(pattern: impl Into<String>) -> Route {
        Route { patterns: vec![pattern.into()], methods: Vec::new() }
    }

    /// A route of this path and everything below it.
    #[must_use]
    pub fn prefix(prefix: impl AsRef<str>) -> Route {
        let prefix = prefix.as_ref().trim_end_matches('/');
        // The wildcard does not fit an empty rest, so the path itself is named twice.
        let own = if prefix.is_empty() { None } else { Some(prefix.to_owned()) };
        let below = [format!("{prefix}/"), format!("{prefix}/{{*rest}}")];
        Route { patterns: own.into_iter().chain(below).collect(), methods: Vec::new() }
    }

    /// Only these methods; any other is answered with 405 and `Allow`. GET stands for HEAD too.
    ///
    /// # Panics
    /// At start, if a method is none of HTTP's own.
    #[must_use]
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Route {
        self.methods.extend(methods);
        self
    }

    /// The service that answers.
    #[must_use]
    pub fn to(self, client: Client) -> Forward {
        Forward { route: self, client, rewrite: None }
    }
}

/// A route with its destination.
#[derive(Clone, Debug)]
pub struct Forward {
    route: Route,
    client: Client,
    rewrite: Option<NewPath>,
}

#[derive(Clone, Debug)]
enum NewPath {
    Strip(String),
    Template(String),
}

impl Forward {
    /// Cuts this prefix off the path.
    ///
    /// # Panics
    /// At start, if a pattern of the route does not begin with it.
    #[must_use]
    pub fn strip_prefix(mut self, prefix: impl Into<String>) -> Forward {
        let prefix = prefix.into();
        for pattern in &self.route.patterns {
            let fits = Rewrite::Strip(prefix.clone()).apply(pattern).is_some();
            assert!(fits, "the route {pattern} does not begin with the prefix {prefix}");
        }
        self.rewrite = Some(NewPath::Strip(prefix));
        self
    }

    /// Makes the path from a template such as `/v2/items/{id}`, filled with the route's
    /// captures as they came.
    ///
    /// # Panics
    /// At start, if the template names a capture that the route does not have.
    #[must_use]
    pub fn rewrite(mut self, template: impl Into<String>) -> Forward {
        let template = template.into();
        for pattern in &self.route.patterns {
            let known = names(pattern);
            for name in names(&template) {
                assert!(
                    known.contains(&name),
                    "the rewrite {template} names {{{name}}}, which the route {pattern} has not"
                );
            }
        }
        self.rewrite = Some(NewPath::Template(template));
        self
    }

    /// The routes as axum has them.
    pub(crate) fn into_axum(self, edge: Arc<Edge>) -> Vec<(String, MethodRouter)> {
        let Forward { route, client, rewrite } = self;
        let methods = &route.methods;
        let make = |pattern: String| {
            let rewrite = match &rewrite {
                None => Rewrite::Keep,
                Some(NewPath::Strip(prefix)) => Rewrite::Strip(prefix.clone()),
                Some(NewPath::Template(template)) => {
                    Rewrite::Template { pattern: pattern.clone(), template: template.clone() }
                }
            };
            let target = Arc::new(Target { client: client.clone(), rewrite, edge: edge.clone() });
            let handler = move |request: Request| {
                let target = target.clone();
                async move { target.forward(request).await }
            };
            let router = match filter(methods) {
                Some(filter) => on(filter, handler),
                None => any(handler),
            };
            (pattern, router)
        };
        route.patterns.into_iter().map(make).collect()
    }
}

fn filter(methods: &[Method]) -> Option<MethodFilter> {
    let filters = methods.iter().map(|method| match MethodFilter::try_from(method.clone()) {
        Ok(filter) => filter,
        Err(_) => panic!("a route cannot be limited to the method {method}"),
    });
    filters.reduce(MethodFilter::or)
}

/// Where the requests of one pattern go.
struct Target {
    client: Client,
    rewrite: Rewrite,
    edge: Arc<Edge>,
}

impl Target {
    async fn forward(&self, request: Request) -> Response {
        match self.outgoing(request) {
            Ok(request) => match self.client.call(request).await {
                Ok(mut response) => {
                    strip_hop_by_hop(response.headers_mut());
                    self.restore_location(response.headers_mut());
                    response
                }
                Err(error) => no_answer(error).into_response(),
            },
            Err(problem) => problem.into_response(),
        }
    }

    /// A path that the service names is its own: the caller needs it as the gateway has it.
    fn restore_location(&self, headers: &mut HeaderMap) {
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let restored = headers
                .get(&name)
                .and_then(|value| value.to_str().ok())
                .and_then(|path| self.rewrite.restore(path))
                .and_then(|path| HeaderValue::try_from(path).ok());
            if let Some(restored) = restored {
                headers.insert(name, restored);
            }
        }
    }

    fn outgoing(&self, request: Request) -> Result<http::Request<Body>, Problem> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path();
        if has_dot_segment(path) {
            return Err(invalid_path());
        }
        let path = self.rewrite.apply(path).ok_or_else(invalid_path)?;
        let target = match parts.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let target = PathAndQuery::try_from(target).map_err(|_| invalid_path())?;
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let authority = parts.uri.authority().map(|authority| authority.as_str());
        // In this order: a client may list `x-forwarded-for` in `Connection`, and what we say
        // must not be struck by that.
        let host = parts.headers.get(header::HOST).cloned();
        strip_request(&mut parts.headers);
        if let Some(host) = host {
            parts.headers.insert(header::HOST, host);
        }
        let Edge { forwarding, scheme } = *self.edge;
        forwarded::apply(&mut parts.headers, forwarding, peer, scheme, authority);
        parts.headers.remove(header::HOST);

        let mut outgoing = http::Request::new(body);
        *outgoing.method_mut() = parts.method;
        *outgoing.uri_mut() = Uri::from(target);
        *outgoing.headers_mut() = parts.headers;
        Ok(outgoing)
    }
}

fn invalid_path() -> Problem {
    Error::invalid_argument("INVALID_PATH", "the path is not one that is forwarded").into()
}

/// The answer of a gateway that got none: 502, 503 or 504 (RFC 9110, 15.6).
fn no_answer(error: Error) -> Problem {
    let status = match error.reason() {
        "CONNECT_FAILED" | "CONNECTION_LOST" => Some(StatusCode::BAD_GATEWAY),
        // Not sent, or no time left: the code has the status already, 503 and 504.
        _ => None,
    };
    let problem = Problem::new(error);
    match status {
        Some(status) => problem.with_status(status),
        None => problem,
    }
}
