//! The access log: one line a request, and the sources of a failure in it.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, routing::get};
use chassis_core::{Env, Error};
use chassis_http::{Path, Problem, Server};
use tower::ServiceExt as _;

use crate::support::{config, serve};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn of_access(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .filter(|line| line.contains(" access: ") && line.contains(" /logged/"))
            .map(str::to_owned)
            .collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn one_line_a_request_with_the_sources_of_a_failure() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    // For the whole binary: a subscriber of one thread is not asked about a line that
    // another thread met first. So the lines of this test are told by their path.
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let router = Router::new()
        .route("/logged/fine", get(|| async { "fine" }))
        .route("/logged/panic", get(|| async { panic!("out of luck") as &'static str }))
        .route(
            "/logged/broken",
            get(|| async {
                Err::<(), _>(Problem::from(Error::internal(std::io::Error::other("disk on fire"))))
            }),
        );
    let server = serve("greeter", router).await;
    for path in ["/logged/fine?token=secret", "/logged/nothing", "/logged/broken", "/logged/panic"]
    {
        server.get(path, "").await;
    }

    // Without a socket, so that the clock can be paused: the handler is slow by no time at all.
    tokio::time::pause();
    let slow = Router::new().route(
        "/logged/slow/{millis}",
        get(|Path(millis): Path<u64>| tokio::time::sleep(Duration::from_millis(millis))),
    );
    let slow = Server::new(&config(), slow).into_router(&Env::test("greeter")).unwrap();
    for millis in [400, 500] {
        let request = Request::get(format!("/logged/slow/{millis}"))
            .header("host", "items")
            .body(Body::empty())
            .unwrap();
        slow.clone().oneshot(request).await.unwrap();
    }

    let lines = lines.of_access();
    assert_eq!(lines.len(), 6, "{lines:#?}");
    let expected: [(&str, &[&str]); 6] = [
        (" INFO ", &["GET /logged/fine 200", "duration_ms", "client.address"]),
        (" INFO ", &["GET /logged/nothing 404", "ROUTE_NOT_FOUND"]),
        ("ERROR ", &["GET /logged/broken 500", "internal error: disk on fire"]),
        ("ERROR ", &["GET /logged/panic 500", "out of luck", "log.rs"]),
        (" INFO ", &["GET /logged/slow/400 200"]),
        (" WARN ", &["GET /logged/slow/500 200", "slow=true"]),
    ];
    for (line, (level, parts)) in lines.iter().zip(expected) {
        assert!(line.contains(level), "{line}");
        for part in parts {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("secret"), "{line}");
    }
}
