//! One request, forwarded.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, Method, StatusCode},
    response::IntoResponse,
    routing::any,
};
use chassis_gateway::{Forwarding, Gateway, Route};
use chassis_http::Json;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Running, System};

/// Tells what arrived.
fn mirror() -> Router {
    async fn tell(request: Request) -> impl IntoResponse {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let mut headers = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in &parts.headers {
            let value = value.to_str().unwrap().to_owned();
            headers.entry(name.to_string()).or_default().push(value);
        }
        let answer = Json(json!({
            "method": parts.method.as_str(),
            "target": parts.uri.to_string(),
            "headers": headers,
            "body": String::from_utf8_lossy(&body),
        }));
        let extra = [("connection", "x-internal"), ("x-internal", "1"), ("x-kept", "1")];
        let cookies = axum::response::AppendHeaders([("set-cookie", "a=1"), ("set-cookie", "b=2")]);
        (extra, cookies, answer)
    }
    Router::new().fallback(tell)
}

async fn before_mirror(system: &mut System) -> Running {
    let client = system.service("mirror", mirror()).await;
    let gateway = Gateway::new()
        .route(Route::prefix("/api").to(client.clone()).strip_prefix("/api"))
        .route(Route::path("/old/{id}/{*rest}").to(client.clone()).rewrite("/new/{rest}/of/{id}"))
        .route(Route::path("/items").methods([Method::GET, Method::POST]).to(client));
    system.gateway(gateway).await
}

#[tokio::test]
async fn method_path_query_body_and_cookies_arrive_as_they_were() {
    let mut system = System::default();
    let gateway = before_mirror(&mut system).await;
    let rest = "cookie: a=b; c=\"d e\"\r\nidempotency-key: k\r\ncontent-length: 5\r\n\r\nhello";
    let answer = gateway
        .raw(&format!(
            "PATCH /api/items/a%2Fb?x=1&x=%20&y HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{rest}"
        ))
        .await;
    assert_eq!(answer.status, 200);
    let arrived = answer.json();
    assert_eq!(arrived["method"], "PATCH");
    assert_eq!(arrived["target"], "/items/a%2Fb?x=1&x=%20&y");
    assert_eq!(arrived["body"], "hello");
    assert_eq!(arrived["headers"]["cookie"], json!(["a=b; c=\"d e\""]));
    assert_eq!(arrived["headers"]["host"], json!(["mirror"]));
    assert_eq!(arrived["headers"]["content-length"], json!(["5"]));
    assert_eq!(answer.head.matches("set-cookie: ").count(), 2);
}

#[tokio::test]
async fn a_rewrite_takes_the_captures() {
    let mut system = System::default();
    let gateway = before_mirror(&mut system).await;
    let answer = gateway.get("/old/7/x/y%20z?q=1").await;
    assert_eq!(answer.json()["target"], "/new/x/y%20z/of/7?q=1");
    for path in ["/api", "/api/"] {
        assert_eq!(gateway.get(path).await.json()["target"], "/");
    }
}

#[tokio::test]
async fn headers_of_the_hop_end_here_in_both_directions() {
    let mut system = System::default();
    let gateway = before_mirror(&mut system).await;
    let answer = gateway
        .raw(
            "GET /api/x HTTP/1.1\r\nhost: edge.example\r\n\
             connection: close, X-Secret, x-forwarded-for\r\nx-secret: 1\r\n\
             te: trailers\r\nupgrade: h2c\r\nproxy-authorization: Basic AA\r\n\
             keep-alive: timeout=9\r\nx-kept: 1\r\n\r\n",
        )
        .await;
    let arrived = answer.json();
    let names: Vec<&str> =
        arrived["headers"].as_object().unwrap().keys().map(String::as_str).collect();
    for gone in ["x-secret", "te", "upgrade", "proxy-authorization", "keep-alive", "connection"] {
        assert!(!names.contains(&gone), "{gone} in {names:?}");
    }
    assert!(names.contains(&"x-kept"));
    // Listing it in `Connection` does not make us forget to say it.
    assert_eq!(arrived["headers"]["x-forwarded-for"], json!(["127.0.0.1"]));
    assert_eq!(answer.header("x-internal"), None);
    assert_eq!(answer.header("x-kept"), Some("1"));
}

#[tokio::test]
async fn claims_about_the_origin_are_replaced_or_continued() {
    let mut system = System::default();
    let client = system.service("mirror", mirror()).await;
    let claims = "x-forwarded-for: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\n";
    for (forwarding, expected) in
        [(Forwarding::Replace, "127.0.0.1"), (Forwarding::Append, "6.6.6.6, 127.0.0.1")]
    {
        let gateway = Gateway::new()
            .route(Route::prefix("/").to(client.clone()))
            .forwarding(forwarding)
            .behind_tls();
        let gateway = system.gateway(gateway).await;
        let arrived = gateway.send("GET", "/x", claims).await.json();
        assert_eq!(arrived["headers"]["x-forwarded-for"], json!([expected]));
        assert_eq!(arrived["headers"]["x-forwarded-proto"], json!(["https"]));
        assert_eq!(arrived["headers"]["x-forwarded-host"], json!(["edge.example"]));
        assert_eq!(arrived["headers"]["forwarded"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn two_readers_cannot_disagree_about_the_end_of_a_body() {
    let mut system = System::default();
    let gateway = before_mirror(&mut system).await;
    let smuggled = "GET /api/smuggled HTTP/1.1\r\nhost: h\r\n\r\n";
    // Both lengths: the chunks count, and nothing behind them reaches the service as a request.
    let both = format!(
        "POST /api/x HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {}\r\n\
         transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{smuggled}",
        13 + smuggled.len()
    );
    let answer = gateway.raw(&both).await;
    assert_eq!(answer.status, 200);
    let arrived = answer.json();
    assert_eq!(arrived["body"], "abc");
    assert_eq!(arrived["headers"].get("content-length"), None);
    assert_eq!(answer.body.matches("smuggled").count(), 0);
    for (what, head) in [
        ("two lengths", "content-length: 3\r\ncontent-length: 4"),
        ("a strange coding", "transfer-encoding: xchunked"),
        ("a broken length", "content-length: +3"),
    ] {
        let request =
            format!("POST /api/x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{head}\r\n\r\nabcd");
        assert_eq!(gateway.raw(&request).await.status, 400, "{what}");
    }
    let large = format!("x-large: {}\r\n", "x".repeat(80 * 1024));
    assert_eq!(gateway.send("GET", "/api/x", &large).await.status, 431);
}

#[tokio::test]
async fn paths_that_climb_are_refused() {
    let mut system = System::default();
    let gateway = before_mirror(&mut system).await;
    for path in ["/api/../admin", "/api/%2e%2e/admin", "/api/x/..%2fadmin", "/api/."] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.json()["reason"], "INVALID_PATH");
    }
}

#[tokio::test]
async fn another_method_is_answered_with_what_is_allowed() {
    let mut system = System::default();
    let gateway = before_mirror(&mut system).await;
    assert_eq!(gateway.get("/items").await.status, 200);
    let answer = gateway.send("DELETE", "/items", "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("get,head,post")));
    assert_eq!(answer.json()["reason"], "METHOD_NOT_ALLOWED");
    let head = gateway.send("HEAD", "/items", "").await;
    assert_eq!((head.status, &*head.body), (200, ""));
}

#[tokio::test]
async fn a_service_that_gives_no_answer_is_502_503_or_504() {
    let mut system = System::default();
    let dead = system.dead("dead").await;
    let absent = system.client("absent");
    let gateway = Gateway::new()
        .route(Route::path("/dead").to(dead))
        .route(Route::path("/absent").to(absent));
    let gateway = system.gateway(gateway).await;
    for (path, status, reason) in
        [("/dead", 502, "CONNECT_FAILED"), ("/absent", 503, "NO_ENDPOINTS")]
    {
        let answer = gateway.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json()["reason"], reason);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_is_a_504() {
    let hang = || async { std::future::pending::<&'static str>().await };
    let mut system = System::default();
    let client = system.service("slow", Router::new().fallback(hang)).await;
    let gateway = system.gateway(Gateway::new().route(Route::prefix("/").to(client))).await;
    let answer = gateway.send("POST", "/x", "").await;
    assert_eq!((answer.status, &answer.json()["reason"]), (504, &json!("ATTEMPT_TIMEOUT")));
}

#[tokio::test]
async fn the_answer_of_a_service_is_passed_on_whatever_it_is() {
    let teapot = || async { (StatusCode::IM_A_TEAPOT, [("x-tea", "green")], "no coffee") };
    let mut system = System::default();
    let client = system.service("pot", Router::new().route("/brew", any(teapot))).await;
    let gateway = system.gateway(Gateway::new().route(Route::prefix("/").to(client))).await;
    let answer = gateway.get("/brew").await;
    assert_eq!((answer.status, &*answer.body), (418, "no coffee"));
    assert_eq!(answer.header("x-tea"), Some("green"));
    assert_eq!(gateway.get("/nothing").await.json()["reason"], "ROUTE_NOT_FOUND");
}

#[tokio::test]
async fn bodies_stream_in_both_directions() {
    // The service answers each chunk when it gets it: neither side may wait for the end.
    let echo = |_: HeaderMap, body: Body| async { Body::from_stream(body.into_data_stream()) };
    let mut system = System::default();
    let client = system.service("echo", Router::new().route("/echo", any(echo))).await;
    let gateway = system.gateway(Gateway::new().route(Route::prefix("/").to(client))).await;

    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head = "POST /echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    for word in ["first", "second", "third"] {
        let chunk = format!("{:x}\r\n{word}\r\n", word.len());
        stream.write_all(chunk.as_bytes()).await.unwrap();
        let read = async {
            while !seen.contains(word) {
                let count = stream.read(&mut buffer).await.unwrap();
                assert_ne!(count, 0, "{seen}");
                seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(5), read).await.unwrap();
    }
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let count = |body: Body| async move {
        let total =
            body.into_data_stream().fold(0, async |n, c: Result<Bytes, _>| n + c.unwrap().len());
        total.await.to_string()
    };
    let mut system = System::default();
    let client = system.service("count", Router::new().route("/count", any(count))).await;
    let gateway = system.gateway(Gateway::new().route(Route::prefix("/").to(client))).await;
    let body = "x".repeat(1_500_000);
    let answer = gateway
        .send("PUT", "/count", &format!("content-length: {}\r\n\r\n{body}", body.len()))
        .await;
    assert_eq!((answer.status, &*answer.body), (200, "1500000"));
    assert_eq!(answer.header("connection"), Some("close"));
    let value: Value = answer.body.parse().unwrap();
    assert!(value.is_number());
}

#[tokio::test]
async fn the_trace_goes_through_the_gateway() {
    let mut system = System::default();
    let gateway = before_mirror(&mut system).await;
    let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let arrived = gateway.send("GET", "/api/x", parent).await.json();
    let onward = arrived["headers"]["traceparent"][0].as_str().unwrap();
    assert!(onward.starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
    assert!(!onward.contains("b7ad6b7169203331"));
    assert_eq!(gateway.env.captured_spans().len(), 2);
}
