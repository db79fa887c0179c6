//! The routes of a router, known before it is asked.
//!
//! What stands around a request wants its route before the handler runs: the name of the span,
//! the priority, the metrics. A layer inside of the router is told by axum, but stands around
//! each route as one more boxed service around one that is boxed already, which costs some 900
//! instructions a request; around the router it has to find the route itself. axum shows the
//! paths of a router in its `Debug` form and nowhere else, so they are read from there, once, at
//! start. Nothing rests on that form: what was read is [proven](leads_to_all) by asking the
//! router, and where it does not hold, the layer goes inside.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, body::Body, response::Response, routing::Route};
use futures_util::FutureExt as _;
use http::{Method, Request, Uri};
use tower::{Service as _, layer::layer_fn, service_fn};

use super::metrics::{EdgeMetrics, RouteMetrics};

/// Before the paths in the `Debug` form of a router: of its routes, and then of its fallbacks.
const PATHS: &str = "node: Node { paths: {";
/// Before each path, the number of its route.
const NUMBER: &str = "RouteId(";
/// What the captures of axum itself begin with. Such a route has no template: see
/// [`MatchedPath`](axum::extract::MatchedPath).
const OWN_CAPTURE: &str = "{*__private__";
/// What stands for a capture when the router is asked; no route should be called so.
const CAPTURED: &str = "chassis~captured";

/// What is known of each route of a router, by its path.
pub(super) struct Table(matchit::Router<Arc<RouteMetrics>>);

impl Table {
    /// `None` if the routes cannot be found out.
    pub(super) fn of(router: &Router, metrics: &EdgeMetrics) -> Option<Table> {
        let paths = paths(&format!("{router:?}"))?;
        if !leads_to_all(router, &paths) {
            return None;
        }
        let mut table = matchit::Router::new();
        for path in paths {
            let template = Some(path.as_str()).filter(|path| !path.contains(OWN_CAPTURE));
            table.insert(&path, metrics.route(template)).ok()?;
        }
        Some(Table(table))
    }

    /// The route that the router will take for this path, if there is one.
    pub(super) fn route(&self, path: &str) -> Option<&Arc<RouteMetrics>> {
        Some(self.0.at(path).ok()?.value)
    }
}

/// The paths in the `Debug` form of a router.
fn paths(text: &str) -> Option<Vec<String>> {
    let (_, mut rest) = text.split_once(PATHS)?;
    let mut paths = Vec::new();
    while let Some(numbered) = rest.strip_prefix(NUMBER) {
        let (path, behind) = numbered.split_once("): \"")?.1.split_once('"')?;
        // Not written as it is: whoever has such a path shall have the layer inside.
        if path.contains('\\') {
            return None;
        }
        paths.push(path.to_owned());
        rest = behind.strip_prefix(", ").unwrap_or(behind);
    }
    rest.starts_with('}').then_some(paths)
}

/// Whether these are all paths of the router: each of its endpoints gets a number that it answers
/// with, and at these paths, with one method and another, all of the numbers come up.
fn leads_to_all(router: &Router, paths: &[String]) -> bool {
    if paths.is_empty() {
        return !router.has_routes();
    }
    #[derive(Clone)]
    struct Endpoint(usize);

    let endpoints = Arc::new(AtomicUsize::new(0));
    let count = endpoints.clone();
    let mut numbered = router.clone().route_layer(layer_fn(move |_: Route| {
        let endpoint = Endpoint(count.fetch_add(1, Ordering::Relaxed));
        service_fn(move |_: Request<Body>| {
            let mut answer = Response::new(Body::empty());
            answer.extensions_mut().insert(endpoint.clone());
            std::future::ready(Ok::<_, std::convert::Infallible>(answer))
        })
    }));
    let mut missing: HashSet<usize> = (0..endpoints.load(Ordering::Relaxed)).collect();
    for path in paths {
        let Ok(uri) = example(path).parse::<Uri>() else { return false };
        for method in methods() {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = uri.clone();
            *request.method_mut() = method;
            let answer = numbered.call(request).now_or_never();
            let answer = answer.and_then(Result::ok);
            if let Some(Endpoint(number)) = answer.and_then(|mut a| a.extensions_mut().remove()) {
                missing.remove(&number);
            }
        }
    }
    missing.is_empty()
}

/// A path that this template stands for.
fn example(template: &str) -> String {
    let mut example = String::new();
    let mut rest = template;
    while let Some((before, capture)) = rest.split_once('{') {
        example.push_str(before);
        example.push_str(CAPTURED);
        rest = capture.split_once('}').map_or("", |(_, behind)| behind);
    }
    example + rest
}

/// Those that a route can have a handler of its own for, and one more, for what answers to all
/// others.
fn methods() -> impl Iterator<Item = Method> {
    let other = Method::from_bytes(b"CHASSIS").ok();
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ];
    known.into_iter().chain(other)
}

#[cfg(test)]
mod tests {
    use axum::routing::{any, get, post};
    use chassis_admission::{AdmissionConfig, Door};
    use chassis_core::{Code, Env};

    use super::*;

    async fn nothing() {}

    fn table(router: Router) -> Option<Table> {
        let env = Env::test("t");
        let config = AdmissionConfig::default();
        let door = Door::new(&config, &env, "http", Code::Unavailable, None).unwrap();
        Table::of(&router, &EdgeMetrics::bind(env.metrics(), door))
    }

    fn everything() -> Router {
        let nested = Router::new()
            .route("/", get(nothing))
            .route("/{id}", get(nothing).post(nothing).fallback(nothing))
            .fallback(nothing);
        let service = service_fn(|_: Request<Body>| {
            std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(Body::empty())))
        });
        Router::new()
            .route("/", get(nothing))
            .route("/orders", post(nothing).connect(nothing))
            .route("/orders/{id}", get(nothing).head(nothing).delete(nothing))
            .route("/orders/special", any(nothing))
            .route("/orders/{id}/lines/{*rest}", get(nothing))
            .route("/v{version}/items", get(nothing))
            .nest("/api", nested)
            .nest_service("/files", service)
            .route_service("/service", service)
            .layer(tower::layer::layer_fn(|route: Route| route))
            .fallback(nothing)
    }

    /// What axum calls the route of a request.
    fn asked(router: &Router, path: &str) -> Option<String> {
        use axum::extract::MatchedPath;
        let mut router = router.clone().layer(layer_fn(|_: Route| {
            service_fn(|request: Request<Body>| {
                let matched = request.extensions().get::<MatchedPath>();
                let text = matched.map(|path| path.as_str().to_owned()).unwrap_or_default();
                let answer = Response::new(Body::from(text));
                std::future::ready(Ok::<_, std::convert::Infallible>(answer))
            })
        }));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router.call(request).now_or_never().unwrap().unwrap();
        let body = axum::body::to_bytes(answer.into_body(), 1000).now_or_never().unwrap().unwrap();
        Some(String::from_utf8(body.to_vec()).unwrap()).filter(|text| !text.is_empty())
    }

    #[test]
    fn the_table_says_what_axum_says() {
        let router = everything();
        let table = table(router.clone()).expect("axum shows its routes otherwise now");
        for path in [
            "/",
            "/orders",
            "/orders/",
            "/orders/7",
            "/orders/special",
            "/orders/7/lines",
            "/orders/7/lines/a/b",
            "/v1/items",
            "/v/items",
            "/api",
            "/api/",
            "/api/9",
            "/api/9/9",
            "/files",
            "/files/",
            "/files/a/b.txt",
            "/service",
            "/service/",
            "/nowhere",
            "/orders/%20",
            "//",
        ] {
            let found = table.route(path).and_then(|route| route.template().map(str::to_owned));
            assert_eq!(found, asked(&router, path), "{path}");
        }
    }

    #[test]
    fn without_routes_nothing_has_one() {
        assert!(table(Router::new()).unwrap().route("/").is_none());
        assert!(table(Router::new().fallback(nothing)).unwrap().route("/a").is_none());
    }

    #[test]
    fn what_is_not_all_is_not_believed() {
        let router = Router::new().route("/a", get(nothing)).route("/b/{id}", post(nothing));
        let all = ["/a".to_owned(), "/b/{id}".to_owned()];
        assert!(leads_to_all(&router, &all));
        assert!(!leads_to_all(&router, &all[..1]));
        assert!(!leads_to_all(&router, &all[1..]));
        assert!(!leads_to_all(&router, &[]));
    }

    #[test]
    fn text_that_is_not_understood_is_none() {
        let form =
            |paths: &str| format!("Router {{ routes: {{}}, node: Node {{ paths: {{{paths}}} }}");
        assert_eq!(paths(&form("")), Some(Vec::new()));
        let two = r#"RouteId(1): "/a/{id}", RouteId(2): "/""#;
        assert_eq!(paths(&form(two)), Some(vec!["/a/{id}".to_owned(), "/".to_owned()]));
        for text in [
            "Router",
            &form(r#"RouteId(1): "/a\"b""#),
            &form(r#""/a": RouteId(1)"#),
            &form(r#"RouteId(1): "/a"; RouteId(2): "/b""#),
        ] {
            assert_eq!(paths(text), None, "{text}");
        }
    }
}
