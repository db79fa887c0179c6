//! Whatever is refused is refused as problem+json, before it costs anything.

use axum::{
    Router,
    body::{Body, Bytes},
    routing::{get, post},
};
use chassis_http::{Json, Path, Problem, ServerConfig};
use serde_json::json;

use crate::support::{Answer, config, serve, serve_with};

fn router() -> Router {
    Router::new()
        .route("/items/{id}", get(|Path(id): Path<u64>| async move { id.to_string() }))
        .route("/bytes", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/json", post(|Json(value): Json<serde_json::Value>| async move { Json(value) }))
        .route(
            "/stream",
            post(|body: Body| async move {
                axum::body::to_bytes(body, usize::MAX)
                    .await
                    .map(|bytes| bytes.len().to_string())
                    .map_err(|_| http::StatusCode::BAD_REQUEST)
            }),
        )
        .route(
            "/gone",
            get(|| async {
                Err::<(), _>(Problem::from(
                    chassis_core::Error::not_found("ITEM_NOT_FOUND", "there is no such item")
                        .with_detail("id", "7"),
                ))
            }),
        )
}

fn post_of(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json\r\n{body}"
    )
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_with_and_without_its_length() {
    let server = serve_with("greeter", &ServerConfig { body_limit: 8, ..config() }, router()).await;
    let declared = "content-length: 9\r\n\r\n123456789";
    let chunked = "transfer-encoding: chunked\r\n\r\n5\r\n12345\r\n4\r\n6789\r\n0\r\n\r\n";
    for path in ["/bytes", "/json", "/stream"] {
        for body in [declared, chunked] {
            let answer = Answer::parse(&server.raw(&post_of(path, body)).await);
            assert_eq!(answer.status, 413, "{path} {body}");
            assert_eq!(answer.problem()["reason"], "BODY_TOO_LARGE");
        }
        let fits = "transfer-encoding: chunked\r\n\r\n8\r\n12345678\r\n0\r\n\r\n";
        assert_eq!(Answer::parse(&server.raw(&post_of(path, fits)).await).status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_limit_above_axums_own_holds() {
    let server =
        serve_with("greeter", &ServerConfig { body_limit: 4 << 20, ..config() }, router()).await;
    let body = format!("content-length: {}\r\n\r\n{}", 3 << 20, "x".repeat(3 << 20));
    let answer = Answer::parse(&server.raw(&post_of("/bytes", &body)).await);
    assert_eq!((answer.status, answer.body), (200, (3 << 20).to_string()));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let server = serve("greeter", router()).await;
    let answer = server.get("/nowhere", "x-request-id: r-1\r\n").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.problem()["reason"], "ROUTE_NOT_FOUND");
    assert_eq!(answer.problem()["request_id"], "r-1");

    let answer = server.get("/json", "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("post")));
    assert_eq!(answer.problem()["reason"], "METHOD_NOT_ALLOWED");
    assert_eq!(answer.problem()["status"], 405);
}

#[tokio::test]
async fn a_wrong_capture_names_its_field() {
    let server = serve("greeter", router()).await;
    let answer = server.get("/items/seven", "").await;
    assert_eq!(answer.status, 400);
    let errors = json!([{ "field": "id", "problem": "`seven` is not a valid u64" }]);
    assert_eq!(answer.problem()["errors"], errors);
}

#[tokio::test]
async fn an_error_of_a_handler_keeps_code_reason_and_details() {
    let server = serve("greeter", router()).await;
    let answer = server.get("/gone", "x-request-id: r-2\r\n").await;
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.problem(),
        json!({
            "type": "about:blank", "title": "Not Found", "status": 404,
            "detail": "there is no such item", "code": "NOT_FOUND",
            "reason": "ITEM_NOT_FOUND", "request_id": "r-2", "details": { "id": "7" },
        })
    );
}

#[tokio::test]
async fn a_request_without_one_host_is_refused() {
    let server = serve("greeter", router()).await;
    for hosts in ["", "host: a\r\nhost: b\r\n", "host: a b\r\n"] {
        let request = format!("GET /items/1 HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        let answer = Answer::parse(&server.raw(&request).await);
        assert_eq!((answer.status, &answer.problem()["reason"]), (400, &json!("INVALID_HOST")));
    }
}
