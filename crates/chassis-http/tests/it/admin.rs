//! The admin port.

use axum::{Router, routing::get};
use chassis_core::{AdminConfig, Component, Env, Ready, Shutdown};
use chassis_http::{Admin, Server};
use serde_json::{Value, json};

use crate::support::{config, start};

#[tokio::test]
async fn the_admin_port_shows_the_process() {
    let env = Env::test("greeter");
    let more = Router::new().route("/loglevel", get(|| async { "info" }));
    let admin = Admin::new(&AdminConfig { port: 0, ..AdminConfig::default() }).merge(more);
    let admin = start(env.clone(), admin).await;

    assert_eq!(admin.get("/livez", "").await.status, 200);
    for path in ["/readyz", "/startupz"] {
        let answer = admin.get(path, "").await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.body.starts_with('{'), "{answer:?}");
    }
    env.health().set_started();
    assert_eq!(admin.get("/readyz", "").await.status, 200);
    assert_eq!(admin.get("/startupz", "").await.status, 200);

    env.metrics().counter("greetings", "Greetings said.", &[]).inc();
    let metrics = admin.get("/metrics", "").await;
    assert!(metrics.header("content-type").unwrap().contains("openmetrics-text"));
    assert!(metrics.body.contains("greetings_total{} 1"), "{metrics:?}");
    assert!(metrics.body.trim_end().ends_with("# EOF"));

    assert!(admin.get("/info", "").await.body.contains(r#""name":"greeter""#));
    assert!(admin.get("/info", "").await.body.contains(&admin.address.to_string()));
    let _work = env.in_flight().enter("handlers");
    assert!(admin.get("/drain", "").await.body.contains(r#""handlers":1"#));
    assert_eq!(admin.get("/plan", "").await.status, 200);
    assert_eq!(admin.get("/loglevel", "").await.body, "info");
    assert_eq!(admin.get("/secrets", "").await.problem()["status"], 404);

    env.health().set_draining();
    assert_eq!(admin.get("/readyz", "").await.status, 503);
    assert_eq!(admin.get("/livez", "").await.status, 200);
}

#[tokio::test]
async fn operations_are_listed_asked_and_ordered() {
    let env = Env::test("greeter");
    env.operations().read(
        "greetings/show",
        "Shows a greeting: name.",
        |args| async move { Ok(args) },
    );
    env.operations().write(
        "greetings/drop",
        "Drops all greetings.",
        |args| async move { Ok(args) },
    );
    let admin = Admin::new(&AdminConfig { port: 0, ..AdminConfig::default() });
    let admin = start(env, admin).await;

    assert!(admin.get("/ops", "").await.body.contains(r#""name":"greetings/drop""#));
    let shown = admin.get("/ops/greetings/show?name=a%20b", "").await;
    assert_eq!((shown.status, shown.body.as_str()), (200, r#"{"name":"a b"}"#));
    let refused = admin.get("/ops/greetings/drop", "").await;
    assert_eq!(refused.problem()["reason"], "OPERATION_WRITES");
    assert_eq!(admin.get("/ops/other", "").await.problem()["status"], 404);

    let post = |kind: &str| {
        format!(
            "POST /ops/greetings/drop HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
             content-type: {kind}\r\ncontent-length: 9\r\n\r\n{{\"all\":1}}"
        )
    };
    assert!(admin.raw(&post("application/json")).await.ends_with(r#"{"all":1}"#));
    assert_eq!(
        admin
            .raw("DELETE /info HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
            .await
            .lines()
            .next(),
        Some("HTTP/1.1 405 Method Not Allowed")
    );
    let large = format!(
        "POST /ops/greetings/drop HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: 400000\r\n\r\n{}",
        " ".repeat(400_000)
    );
    assert!(admin.raw(&large).await.starts_with("HTTP/1.1 413"));
    // What a form on a web page could send is refused.
    assert!(admin.raw(&post("text/plain")).await.starts_with("HTTP/1.1 415"));
}

#[tokio::test]
async fn the_documents_of_http_servers_are_shown_by_name() {
    let env = Env::test("greeter");
    let admin = Admin::new(&AdminConfig { port: 0, ..AdminConfig::default() });
    let admin = start(env.clone(), admin).await;
    let missing = admin.get("/openapi.json", "").await.problem();
    assert_eq!(missing["reason"], "OPENAPI_NOT_FOUND");
    assert!(missing["detail"].as_str().unwrap().contains("(Router, OpenApi)"), "{missing}");

    let plain = Server::new(&config(), Router::new());
    let _plain = start(env.clone(), plain).await;
    let with = |path: &str| {
        let router = Router::new().route(path, get(|| async { "hello" }));
        let document = json!({
            "openapi": "3.1.0",
            "info": { "title": "", "version": "" },
            "paths": { path: { "get": { "responses": { "200": { "description": "Hello." } } } } },
        });
        Server::new(&config(), (router, document))
    };
    let public = start(env.clone(), with("/hello")).await;
    assert_eq!(public.get("/hello", "").await.body, "hello");
    let shown = admin.get("/openapi.json", "").await;
    assert_eq!(shown.header("content-type"), Some("application/json"));
    let document: Value = serde_json::from_str(&shown.body).unwrap();
    assert_eq!(document["info"], json!({ "title": "greeter", "version": "0.0.0" }));
    let answers = &document["paths"]["/hello"]["get"]["responses"];
    assert_eq!(answers["default"]["$ref"], "#/components/responses/Problem");
    assert!(document["components"]["schemas"]["Problem"].is_object());

    // A second one needs a name of its own, and then each is asked for by name.
    let (_trigger, shutdown) = Shutdown::new();
    let (ready, _) = Ready::channel();
    let same = Box::new(with("/inside")).run(env.clone(), ready, shutdown).await;
    assert_eq!(same.unwrap_err().reason(), "OPENAPI_NAME_TAKEN");
    let inside = with("/inside").named("inside");
    assert_eq!(inside.name(), "inside");
    let _inside = start(env, inside).await;
    for (path, detail) in [
        ("/openapi.json", "say which: ?server=http, ?server=inside"),
        ("/openapi.json?server=other", "called `other`; there is ?server=http, ?server=inside"),
    ] {
        let problem = admin.get(path, "").await.problem();
        assert_eq!(
            (&problem["status"], &problem["reason"]),
            (&json!(404), &json!("OPENAPI_NOT_FOUND"))
        );
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
    let shown = admin.get("/openapi.json?server=inside", "").await;
    assert!(shown.body.contains("/inside") && !shown.body.contains("/hello"), "{shown:?}");
}

#[test]
fn what_is_no_openapi_document_is_refused_before_the_start() {
    let wrong = Server::new(&config(), (Router::new(), json!({ "swagger": "2.0" })));
    assert_eq!(wrong.validate().unwrap_err().reason(), "INVALID_OPENAPI");
}
