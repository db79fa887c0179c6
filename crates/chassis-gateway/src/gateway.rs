//! Routes and compositions become one router.

use std::sync::Arc;

use axum::Router;

use crate::{Compose, Forwarding, route::Forward};

/// A gateway in the making.
#[derive(Debug, Default)]
pub struct Gateway {
    routes: Vec<Forward>,
    compositions: Vec<(String, Compose)>,
    forwarding: Forwarding,
    scheme: Scheme,
}

/// What the services behind are told of the outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edge {
    pub(crate) forwarding: Forwarding,
    pub(crate) scheme: &'static str,
}

#[derive(Clone, Copy, Debug, Default)]
enum Scheme {
    #[default]
    Http,
    Https,
}

impl Gateway {
    /// A gateway without routes.
    #[must_use]
    pub fn new() -> Gateway {
        Gateway::default()
    }

    /// Adds a route. The same path may be routed by method to different services.
    #[must_use]
    pub fn route(mut self, route: Forward) -> Gateway {
        self.routes.push(route);
        self
    }

    /// Adds an answer put together from parts, to a GET of this path.
    #[must_use]
    pub fn compose(mut self, path: impl Into<String>, compose: Compose) -> Gateway {
        self.compositions.push((path.into(), compose));
        self
    }

    /// Sets what happens to claims about the origin of a request; by default they are replaced.
    #[must_use]
    pub fn forwarding(mut self, forwarding: Forwarding) -> Gateway {
        self.forwarding = forwarding;
        self
    }

    /// Says that callers come by `https`: something in front ends TLS.
    #[must_use]
    pub fn behind_tls(mut self) -> Gateway {
        self.scheme = Scheme::Https;
        self
    }

    /// The router, for [`chassis_http::Server`].
    ///
    /// # Panics
    /// At start, if a path is not a valid pattern, or two routes are for the same path and
    /// method: as [`Router::route`].
    pub fn into_router(self) -> Router {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let edge = Arc::new(Edge { forwarding: self.forwarding, scheme });
        let mut router = Router::new();
        for route in self.routes {
            for (pattern, methods) in route.into_axum(edge.clone()) {
                router = router.route(&pattern, methods);
            }
        }
        for (path, compose) in self.compositions {
            router = router.route(&path, compose.into_axum());
        }
        router
    }
}
