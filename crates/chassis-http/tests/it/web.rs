//! What a server for browsers needs, through our server: the example `web` with its limits.

use std::{io::Write as _, time::Duration};

use axum::body::Bytes;
use chassis_http::{CompressionConfig, Json, ServerConfig, websocket::WebSockets};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;

use crate::support::{Answer, Running, config, serve_with, until};

#[path = "../../examples/web.rs"]
#[allow(unreachable_pub, dead_code, missing_docs, reason = "it is a program of its own")]
pub(crate) mod example;

pub(crate) struct Web {
    pub(crate) server: Running,
    _folder: TempDir,
}

pub(crate) async fn web(config: &ServerConfig, sockets: WebSockets) -> Web {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("ten.txt"), "0123456789").unwrap();
    let server = serve_with("web", config, example::router(folder.path(), sockets)).await;
    Web { server, _folder: folder }
}

async fn usual() -> Web {
    web(&config(), WebSockets::default()).await
}

#[tokio::test]
async fn what_the_caller_has_is_not_sent_again_and_what_has_changed_is_not_overwritten() {
    let web = usual().await;
    let server = &web.server;
    let first = server.get("/note", "").await;
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!((first.status, &*first.body), (200, r#"{"text":""}"#));
    let again = server.get("/note", &format!("if-none-match: {tag}\r\n")).await;
    assert_eq!((again.status, &*again.body, again.header("etag")), (304, "", Some(&*tag)));

    let put = async |text: &str, tag: &str| {
        let body = format!(r#"{{"text":"{text}"}}"#);
        let head = "PUT /note HTTP/1.1\r\nhost: test\r\nconnection: close\r\n";
        let kind = "content-type: application/json\r\n";
        let request =
            format!("{head}{kind}if-match: {tag}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        Answer::parse(&server.raw(&request).await)
    };
    assert_eq!(put("mine", &tag).await.status, 200);
    let refused = put("yours", &tag).await;
    assert_eq!((refused.status, &refused.problem()["reason"]), (412, &"STATE_CHANGED".into()));
    let now = server.get("/note", &format!("if-none-match: {tag}\r\n")).await;
    assert_eq!((now.status, &*now.body), (200, r#"{"text":"mine"}"#));
}

#[tokio::test]
async fn files_are_sent_in_parts_and_none_outside_of_their_folder() {
    let web = usual().await;
    let server = &web.server;
    let whole = server.get("/files/ten.txt", "").await;
    assert_eq!((whole.status, &*whole.body), (200, "0123456789"));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    for (range, status, body) in [
        ("bytes=0-3", 206, "0123"),
        ("bytes=8-", 206, "89"),
        ("bytes=-2", 206, "89"),
        ("bytes=10-", 416, ""),
    ] {
        let part = server.get("/files/ten.txt", &format!("range: {range}\r\n")).await;
        assert_eq!(part.status, status, "{range}");
        if status == 206 {
            assert_eq!(part.body, body, "{range}");
        }
    }
    let date = whole.header("last-modified").unwrap();
    // `header` is in lower case, and a date is not.
    let date = httpdate::fmt_http_date(httpdate_of(date));
    let again = server.get("/files/ten.txt", &format!("if-modified-since: {date}\r\n")).await;
    assert_eq!((again.status, &*again.body), (304, ""));
    for path in ["/files/none.txt", "/files/../Cargo.toml", "/files/%2e%2e/%2e%2e/etc/passwd"] {
        let answer = server.get(path, "").await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.problem()["status"], 404, "{path}");
    }
}

fn httpdate_of(lower: &str) -> std::time::SystemTime {
    let mut text = String::new();
    let mut upper = true;
    for letter in lower.chars() {
        text.push(if upper { letter.to_ascii_uppercase() } else { letter });
        upper = letter == ' ';
    }
    httpdate::parse_http_date(&text.replace("Gmt", "GMT")).unwrap()
}

#[tokio::test]
async fn pages_of_the_named_origin_alone_may_read_an_answer() {
    let web = usual().await;
    let server = &web.server;
    let asked = "access-control-request-method: PUT\r\n";
    let preflight = async |origin: &str| {
        let head = "OPTIONS /note HTTP/1.1\r\nhost: test\r\nconnection: close\r\n";
        let request = format!("{head}origin: {origin}\r\n{asked}\r\n");
        Answer::parse(&server.raw(&request).await)
    };
    let friend = preflight("https://app.example").await;
    assert_eq!(friend.status, 200);
    assert_eq!(friend.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(friend.header("access-control-allow-methods").unwrap().contains("put"));
    // It is always the same name, which is not the stranger's.
    let stranger = preflight("https://evil.example").await;
    assert_ne!(stranger.header("access-control-allow-origin"), Some("https://evil.example"));
    let answer = server.get("/note", "origin: https://app.example\r\n").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    // What is not for other origins says nothing of them.
    let other = server.get("/files/ten.txt", "origin: https://app.example\r\n").await;
    assert_eq!(other.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn each_answer_of_a_route_tells_the_browser_to_be_careful() {
    let web = usual().await;
    let server = &web.server;
    for path in ["/note", "/files/ten.txt", "/files/none", "/nowhere"] {
        let answer = server.get(path, "").await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("deny"), "{path}");
        assert!(answer.header("content-security-policy").is_some(), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn events_come_as_they_happen_and_end_whole_with_the_drain() {
    let web = usual().await;
    let server = &web.server;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(server.connect().await)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/numbers").header("host", "test");
    let answer = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await;
    let mut answer: Response<_> = answer.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut said = String::new();
    while !said.contains("data: 3\n") {
        let frame = answer.body_mut().frame().await.unwrap().unwrap();
        said.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    assert!(said.contains("id: 0\ndata: 0\n\n") || said.contains("data: 0\n"), "{said}");

    server.env.health().set_draining();
    let rest = tokio::time::timeout(Duration::from_secs(10), answer.into_body().collect()).await;
    // An answer that was cut is an error here.
    rest.expect("the events end").unwrap();
    web.server.stop(Duration::from_secs(30)).await.unwrap();
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A server that compresses, with a route that says how much it has read.
async fn compressing() -> Running {
    let compression = CompressionConfig { answers: true, min_bytes: 1_000, requests: true };
    let config = ServerConfig { compression, body_limit: 100_000, ..config() };
    let router = axum::Router::new()
        .route("/bytes", axum::routing::post(|body: Bytes| async move { body.len().to_string() }))
        .route(
            "/json",
            axum::routing::post(|Json(text): Json<String>| async move { text.len().to_string() }),
        )
        .route(
            "/many/{count}",
            axum::routing::get(
                |axum::extract::Path(count): axum::extract::Path<usize>| async move {
                    "x".repeat(count)
                },
            ),
        );
    serve_with("web", &config, router).await
}

async fn exchange(
    server: &Running,
    request: http::Request<Full<Bytes>>,
) -> (http::response::Parts, Bytes) {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(server.connect().await)).await.unwrap();
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    (head, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn answers_are_compressed_for_who_accepts_it_where_it_is_worth_it() {
    let server = compressing().await;
    for (count, accepts, is_compressed) in [
        (999, "gzip", false),
        (1_000, "gzip", true),
        (5_000, "gzip, br", true),
        (5_000, "br", false),
    ] {
        let request = http::Request::get(format!("/many/{count}"))
            .header("host", "test")
            .header("accept-encoding", accepts);
        let (head, body) = exchange(&server, request.body(Full::default()).unwrap()).await;
        let encoding = head.headers.get("content-encoding");
        assert_eq!(encoding.is_some_and(|e| e == "gzip"), is_compressed, "{count} {accepts}");
        let mut text = String::new();
        if is_compressed {
            assert!(body.len() < 200, "{count}: {}", body.len());
            std::io::Read::read_to_string(&mut GzDecoder::new(&*body), &mut text).unwrap();
        } else {
            text = String::from_utf8(body.to_vec()).unwrap();
        }
        assert_eq!(text, "x".repeat(count));
    }
    // It ends with its last byte, compressed or not.
    until("all have ended", || server.env.in_flight().counts()["http"] == 0).await;
}

#[tokio::test]
async fn a_request_may_be_small_on_the_wire_and_not_large_behind_it() {
    let server = compressing().await;
    let post = async |path: &str, encoding: &str, body: Vec<u8>| {
        let request = http::Request::post(path)
            .header("host", "test")
            .header("content-type", "application/json")
            .header("content-encoding", encoding);
        let (head, body) = exchange(&server, request.body(Full::from(body)).unwrap()).await;
        (head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    };
    let fits = compressed(&vec![b'x'; 100_000]);
    assert_eq!(post("/bytes", "gzip", fits).await, (200, "100000".to_owned()));
    // One byte more, and ten thousand times what was sent.
    for size in [100_001, 50_000_000] {
        let bomb = compressed(&vec![b'x'; size]);
        assert!(bomb.len() < 100_000);
        let json = [b"\"".as_slice(), &vec![b'x'; size], b"\""].concat();
        for (path, bomb) in [("/bytes", bomb), ("/json", compressed(&json))] {
            let (status, body) = post(path, "gzip", bomb).await;
            assert_eq!(status, 413, "{path}: {body}");
            assert!(body.contains("BODY_TOO_LARGE"), "{path}: {body}");
        }
    }
    // What is no gzip, and what is not understood.
    assert_eq!(post("/json", "gzip", b"\"plain\"".to_vec()).await.0, 400);
    assert_eq!(post("/json", "br", b"\"plain\"".to_vec()).await.0, 415);
    // Off, a body is what it is.
    let server = crate::support::serve(
        "web",
        axum::Router::new()
            .route("/json", axum::routing::post(|Json(text): Json<String>| async move { text })),
    )
    .await;
    let request = http::Request::post("/json")
        .header("host", "test")
        .header("content-type", "application/json")
        .header("content-encoding", "gzip");
    let body = Full::from(compressed(b"\"text\""));
    let (head, body) = exchange(&server, request.body(body).unwrap()).await;
    assert_eq!(head.status, 400, "{body:?}");
}

/// A form with these fields: name, file name if it is a file, size.
fn form(fields: &[(&str, Option<&str>, usize)]) -> String {
    let mut body = String::new();
    for (name, file, size) in fields {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body += &format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body += &"x".repeat(*size);
        body += "\r\n";
    }
    body + "--edge--\r\n"
}

#[tokio::test]
async fn a_form_has_so_many_fields_and_bytes_and_no_more() {
    let web = web(&ServerConfig { body_limit: 50_000, ..config() }, WebSockets::default()).await;
    let kind = "multipart/form-data; boundary=edge";
    let post = async |kind: &str, body: &str| {
        let head = "POST /upload HTTP/1.1\r\nhost: test\r\nconnection: close\r\n";
        let length = body.len();
        let request =
            format!("{head}content-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}");
        Answer::parse(&web.server.raw(&request).await)
    };
    let good = post(kind, &form(&[("name", None, 1024), ("file", Some("../a.bin"), 40_000)])).await;
    assert_eq!((good.status, &*good.body), (200, r#"[["name",1024],["file",40000]]"#));
    let many = |count: usize| vec![("a", None, 1); count];
    assert_eq!(post(kind, &form(&many(64))).await.status, 200);
    for (body, status, reason) in [
        (form(&many(65)), 400, "TOO_MANY_FIELDS"),
        (form(&[("name", None, 1025)]), 413, "FIELD_TOO_LARGE"),
        (form(&[("file", Some("a"), 50_000)]), 413, "BODY_TOO_LARGE"),
        ("--edge\r\nno form".to_owned(), 400, "MALFORMED_FORM"),
        (String::new(), 400, "MALFORMED_FORM"),
    ] {
        let answer = post(kind, &body).await;
        assert_eq!((answer.status, &answer.problem()["reason"]), (status, &reason.into()));
    }
    let answer = post("application/json", "{}").await;
    let reason = "UNSUPPORTED_MEDIA_TYPE";
    assert_eq!((answer.status, &answer.problem()["reason"]), (415, &reason.into()));
}
