//! Whether an OpenAPI document and the routes of a router are the same.
//!
//! A route whose document was forgotten works, so that nobody notices. An axum router says
//! nowhere what its routes are; but it prints their paths, and it names the methods of a path to
//! whoever comes with another one. So the paths are read from its `Debug` text, and each is
//! called with a method that nobody has: no handler runs, and the answer is a 405 whose `Allow`
//! lists the methods. A text that reads otherwise than expected is a panic, not an empty list.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, Uri, header::ALLOW};
use serde::Serialize;
use serde_json::Value;
use tower::ServiceExt as _;

/// A method that no handler has.
const NOBODYS: &[u8] = b"CHASSIS-TEST";
/// What stands for each capture of a path.
const CAPTURED: &str = "chassis-test";

/// The operations that may stand in a document, by path and method.
type Operations = BTreeSet<(String, String)>;

/// Panics unless each route of the router is in the OpenAPI document, and each operation of the
/// document is a route; the message names method and path of each difference. Handlers are not
/// called.
///
/// `besides` are paths that the document does not speak of, with all that is below them: those
/// of a service that answers to every method, such as static files, and those that are not for
/// its readers. HEAD belongs to GET. The fallback of a router is no route.
///
/// A layer that answers before the routes, such as a check of who calls, hides their methods:
/// hand in the router without it.
///
/// Cancellation: dropping the future ends the check; nothing is left behind.
pub async fn assert_openapi_equals_routes(
    document: &impl Serialize,
    router: Router,
    besides: &[&str],
) {
    let document = serde_json::to_value(document).unwrap_or_else(|error| {
        panic!("the OpenAPI document is not JSON: {error}");
    });
    let found = differences(&document, &router, besides).await;
    assert!(found.is_empty(), "the OpenAPI document and the routes differ:\n{found}");
}

async fn differences(document: &Value, router: &Router, besides: &[&str]) -> String {
    let is_besides = |path: &str| besides.iter().any(|besides| is_below(path, besides));
    let mut text = String::new();
    let documented = documented(document);
    let mut routed = Operations::new();
    let paths = paths(router);
    for path in paths.iter().filter(|path| !is_besides(path)) {
        match methods(router, path).await {
            Ok(methods) => routed.extend(methods.into_iter().map(|one| (plain(path), one))),
            Err(status) => {
                let _ = writeln!(
                    text,
                    "  {path} answers to every method ({status} to one that nobody has), so that \
                     it cannot be compared: name the path in `besides`, or hand in the router \
                     without the layer that answers"
                );
            }
        }
    }
    for (path, method) in routed.difference(&documented) {
        let _ = writeln!(
            text,
            "  {method} {path} is routed and not documented: annotate its handler and add it with \
             `routes!`, or name the path in `besides`"
        );
    }
    for (path, method) in documented.difference(&routed) {
        let _ = writeln!(text, "  {method} {path} is documented and not routed");
    }
    for one in besides.iter().filter(|one| !paths.iter().any(|path| is_below(path, one))) {
        let _ = writeln!(text, "  {one} of `besides` is no path of the router");
    }
    text
}

/// Whether a path is the other one, or below it.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path as a document writes it: there, a capture of the rest is one as all others.
fn plain(path: &str) -> String {
    path.replace("{*", "{")
}

fn documented(document: &Value) -> Operations {
    let methods = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
    let paths = document["paths"].as_object();
    let paths = paths.unwrap_or_else(|| panic!("the OpenAPI document has no `paths`"));
    let mut found = Operations::new();
    for (path, item) in paths {
        for method in methods.iter().filter(|method| item.get(method).is_some()) {
            // Where there is GET, axum answers to HEAD.
            if *method != "head" || item.get("get").is_none() {
                found.insert((plain(path), method.to_uppercase()));
            }
        }
    }
    found
}

/// The methods of a path, or what was answered if it does not say.
async fn methods(router: &Router, path: &str) -> Result<BTreeSet<String>, StatusCode> {
    let uri: Uri = filled(path).parse().unwrap_or_else(|error| {
        panic!("the route {path} cannot be called: {error}");
    });
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    *request.method_mut() = Method::from_bytes(NOBODYS).unwrap_or_default();
    let Ok(answer) = router.clone().oneshot(request).await;
    let allowed = answer.headers().get(ALLOW).and_then(|value| value.to_str().ok());
    match (answer.status(), allowed) {
        (StatusCode::METHOD_NOT_ALLOWED, Some(allowed)) => {
            let methods = allowed.split(',').map(|one| one.trim().to_owned());
            let mut methods: BTreeSet<_> = methods.filter(|one| !one.is_empty()).collect();
            if methods.contains("GET") {
                methods.remove("HEAD");
            }
            Ok(methods)
        }
        (status, _) => Err(status),
    }
}

/// The path with something in place of each capture.
fn filled(path: &str) -> String {
    let mut parts = path.split('{');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(CAPTURED);
        text.push_str(part.split_once('}').map_or("", |(_, rest)| rest));
    }
    text
}

/// The paths of a router, from what it prints:
///
/// ```text
/// Router { path_router: PathRouter { routes: {RouteId(1): …}, node: Node { paths:
/// {RouteId(1): "/orders"} } }, fallback_router: …
/// ```
fn paths(router: &Router) -> Vec<String> {
    let text = format!("{router:?}");
    read(&text).unwrap_or_else(|| {
        panic!(
            "this version of axum prints a router otherwise than chassis-test can read, so that \
             its routes are not known: {text}"
        )
    })
}

fn read(text: &str) -> Option<Vec<String>> {
    let text = text.strip_prefix("Router { path_router: PathRouter { routes: {")?;
    let (own, _) = text.split_once(" }, fallback_router: ")?;
    let (routes, paths) = own.split_once("}, node: Node { paths: {")?;
    let paths = paths.strip_suffix("} }")?;
    let read: Option<BTreeMap<u32, String>> = paths
        .split("RouteId(")
        .skip(1)
        .map(|entry| {
            let (id, path) = entry.trim_end_matches(", ").split_once("): ")?;
            let path: String = path.strip_prefix('"')?.strip_suffix('"')?.to_owned();
            // Of what is escaped, nothing may stand in a path.
            let is_plain = path.starts_with('/') && !path.contains(['\\', '"']);
            is_plain.then_some((id.parse().ok()?, path))
        })
        .collect();
    let read = read?;
    (routes.matches("RouteId(").count() == read.len()).then(|| read.into_values().collect())
}

#[cfg(test)]
mod tests {
    use axum::routing::{MethodFilter, MethodRouter};
    use axum::routing::{any, get, head, on, post, put};
    use serde_json::json;

    use super::*;

    async fn never() {
        panic!("a handler was called");
    }

    fn documents(operations: &[(&str, &[&str])]) -> Value {
        let item = |methods: &[&str]| -> Value {
            methods.iter().map(|method| ((*method).to_owned(), json!({}))).collect()
        };
        let paths: Value =
            operations.iter().map(|(path, methods)| ((*path).to_owned(), item(methods))).collect();
        json!({ "openapi": "3.1.0", "paths": paths })
    }

    fn router() -> Router {
        let inner = Router::new()
            .route("/", get(never))
            .route("/{id}", put(never).delete(never))
            .route("/{id}/log", head(never))
            .with_state(());
        Router::new()
            .route("/orders", get(never).post(never))
            .route("/orders/{id}", get(never))
            .route("/orders/{id}", on(MethodFilter::PATCH, never))
            .nest("/products", inner)
            .merge(Router::new().route("/files/{*path}", post(never)))
            .fallback(never)
    }

    fn all() -> Value {
        documents(&[
            ("/orders", &["get", "post"]),
            ("/orders/{id}", &["get", "patch", "head"]),
            ("/products", &["get"]),
            ("/products/{id}", &["put", "delete"]),
            ("/products/{id}/log", &["head"]),
            ("/files/{path}", &["post"]),
        ])
    }

    #[tokio::test]
    async fn what_is_equal_is_equal_however_the_routes_were_put_together() {
        assert_openapi_equals_routes(&all(), router(), &[]).await;
        // With layers and a handler for other methods it is the same.
        let around = tower::layer::util::Identity::new();
        let router = router()
            .method_not_allowed_fallback(|| async { StatusCode::METHOD_NOT_ALLOWED })
            .layer(around);
        assert_openapi_equals_routes(&all(), router, &[]).await;
        assert_openapi_equals_routes(&documents(&[]), Router::new(), &[]).await;
    }

    #[tokio::test]
    #[should_panic(expected = "DELETE /products/{id} is routed and not documented")]
    async fn a_forgotten_route_fails_with_its_method_and_path() {
        let mut document = all();
        document["paths"]["/products/{id}"].as_object_mut().unwrap().remove("delete");
        assert_openapi_equals_routes(&document, router(), &[]).await;
    }

    #[tokio::test]
    async fn each_difference_is_named() {
        let mut document = all();
        let paths = document["paths"].as_object_mut().unwrap();
        paths.remove("/files/{path}");
        paths["/orders"] = json!({ "get": {}, "put": {} });
        paths.insert("/gone".to_owned(), json!({ "get": {}, "parameters": [] }));
        let item = paths.remove("/orders/{id}").unwrap();
        paths.insert("/orders/{number}".to_owned(), item);
        let text = differences(&document, &router(), &[]).await;
        let found: Vec<_> = text.lines().map(|line| line.split(':').next().unwrap()).collect();
        let expected = [
            "  POST /files/{path} is routed and not documented",
            "  POST /orders is routed and not documented",
            "  GET /orders/{id} is routed and not documented",
            "  PATCH /orders/{id} is routed and not documented",
            "  GET /gone is documented and not routed",
            "  PUT /orders is documented and not routed",
            "  GET /orders/{number} is documented and not routed",
            "  PATCH /orders/{number} is documented and not routed",
        ];
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn what_answers_to_every_method_has_to_be_named() {
        let says = |text: &'static str| any(move || async move { text });
        let files =
            tower::service_fn(|_| async { Ok(axum::response::Response::new(Body::empty())) });
        let router = router()
            .route("/any", says("hello"))
            .route("/some", get(never).fallback(|| async { "all others" }))
            .nest_service("/static", files);
        let text = differences(&all(), &router, &[]).await;
        for path in ["/any", "/some", "/static", "/static/"] {
            assert!(text.contains(&format!("  {path} answers to every method (200 OK")), "{text}");
        }
        assert_openapi_equals_routes(&all(), router.clone(), &["/any", "/some", "/static"]).await;
        let text = differences(&all(), &router, &["/any", "/some", "/static/", "/stat"]).await;
        assert_eq!(text, "  /stat of `besides` is no path of the router\n");
        // Who is refused before the routes learns nothing of them.
        let closed =
            Router::new().route("/closed", get(never)).layer(axum::middleware::map_response(
                |_: axum::response::Response| async { StatusCode::UNAUTHORIZED },
            ));
        let text = differences(&documents(&[("/closed", &["get"])]), &closed, &[]).await;
        assert!(text.starts_with("  /closed answers to every method (401 Unauthorized"), "{text}");
        let none = Router::new().route("/none", MethodRouter::new());
        assert_eq!(differences(&documents(&[]), &none, &[]).await, "");
    }

    #[test]
    fn a_text_that_reads_otherwise_is_no_empty_list() {
        let text = format!("{:?}", router());
        assert_eq!(read(&text).unwrap().len(), 6, "{text}");
        for wrong in [
            String::new(),
            "Router { .. }".to_owned(),
            text.replace("Node { paths", "Node { templates"),
            text.replacen("RouteId(1): \"", "RouteId(x): \"", 1),
            text.replacen("\"/orders\"", "/orders", 1),
            text.replacen("\"/orders\"", r#""/or\u{7f}ders""#, 1),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }
}
