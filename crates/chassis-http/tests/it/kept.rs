//! Answers that are kept, and what stands in for an answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::any};
use bytes::Bytes;
use chassis_core::Env;
use chassis_discovery::ClientConfig;
use chassis_http::{CacheConfig, Client};
use chassis_resilience::{
    Degraded,
    fallback::{Later, Otherwise},
};
use http::Request;

use crate::support::{Running, discovery, serve};

/// A callee that says how often it was asked, with a status that the test sets.
#[derive(Clone, Default)]
struct Callee {
    asked: Arc<AtomicUsize>,
    status: Arc<AtomicU16>,
}

impl Callee {
    fn router(&self) -> Router {
        async fn handler(State(callee): State<Callee>) -> (StatusCode, String) {
            let number = callee.asked.fetch_add(1, Ordering::SeqCst) + 1;
            let status = StatusCode::from_u16(callee.status.load(Ordering::SeqCst));
            (status.unwrap_or(StatusCode::OK), number.to_string())
        }
        Router::new().fallback(any(handler)).with_state(self.clone())
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

struct World {
    callee: Callee,
    env: Env,
    client: Client,
    _server: Running,
    _leases: Vec<chassis_discovery::Lease>,
}

impl World {
    async fn new() -> World {
        let callee = Callee::default();
        let server = serve("greeter", callee.router()).await;
        let (discovery, leases) = discovery("greeter", &[server.address]).await;
        let env = Env::test("caller");
        let client = Client::builder("greeter", &discovery)
            .metrics(env.metrics())
            .cache(&CacheConfig::default())
            .build()
            .unwrap();
        World { callee, env, client, _server: server, _leases: leases }
    }

    /// Body, age and what it is less.
    async fn get(&self, path: &str) -> (String, Option<String>, Option<Degraded>) {
        let answer = self.client.get(path).send().await.unwrap();
        let age = answer.headers().get("age").map(|age| age.to_str().unwrap().to_owned());
        let degraded = answer.degraded();
        let body = answer.bytes().await.unwrap();
        (String::from_utf8(body.to_vec()).unwrap(), age, degraded)
    }
}

#[tokio::test]
async fn what_many_ask_for_is_fetched_once_and_then_given_from_memory() {
    let world = World::new().await;
    let all = futures_util::future::join_all((0..20).map(|_| world.get("/a"))).await;
    assert!(all.iter().all(|(body, ..)| body == "1"), "{all:?}");
    assert_eq!(world.get("/a").await.0, "1");
    assert_eq!(world.get("/a?page=2").await.0, "2", "another question");
    assert_eq!(world.callee.asked(), 2);
    for (_, count) in [("POST", 3), ("GET with a caller", 4)] {
        let request = match count {
            3 => world.client.post("/a"),
            _ => world.client.get("/a").header("authorization", "Bearer x"),
        };
        request.send().await.unwrap();
        assert_eq!(world.callee.asked(), count, "never from memory");
    }
    let metrics = world.env.metrics().encode();
    assert!(metrics.contains(r#"client_cache_entries{service="greeter"} 2"#), "{metrics}");
}

#[tokio::test]
async fn answers_are_kept_where_the_settings_of_the_client_say_so() {
    let callee = Callee::default();
    let server = serve("greeter", callee.router()).await;
    let (discovery, _leases) = discovery("greeter", &[server.address]).await;
    let client = |enabled| {
        let cache = CacheConfig { enabled, max_entry_bytes: 1, ..CacheConfig::default() };
        let config = ClientConfig { cache, ..ClientConfig::default() };
        Client::builder("greeter", &discovery).config(&config).build().unwrap()
    };
    for (enabled, path, asked) in [(false, "/a", 2), (true, "/a", 3)] {
        let client = client(enabled);
        for _ in 0..2 {
            client.get(path).send().await.unwrap();
        }
        assert_eq!(callee.asked(), asked, "enabled = {enabled}");
    }

    let mut config = ClientConfig::default();
    config.cache.max_entries = 0;
    let error = Client::builder("greeter", &discovery).config(&config).build().unwrap_err();
    let expected = "clients.greeter.cache.max_entries is 0, allowed is 1 to 1000000";
    assert_eq!((error.reason(), error.message()), ("INVALID_CONFIG", expected));
    let cache = config.cache;
    let error = Client::builder("greeter", &discovery).cache(&cache).build().unwrap_err();
    assert_eq!(error.message(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_is_given_while_it_is_fetched_anew_and_with_its_age() {
    let world = World::new().await;
    world.get("/a").await;
    tokio::time::advance(Duration::from_secs(61)).await;
    let (body, age, degraded) = world.get("/a").await;
    assert_eq!((&*body, age.as_deref(), degraded), ("1", Some("61"), None));
    let newer = async {
        while world.get("/a").await.0 != "2" {
            // What comes from memory waits for nothing.
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), newer).await.expect("it was fetched anew");
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_stands_in_for_a_callee_that_fails_and_says_so() {
    let world = World::new().await;
    world.get("/a").await;
    world.callee.answers(500);
    let age = Duration::from_secs(120);
    tokio::time::advance(age).await;
    let (body, shown, degraded) = world.get("/a").await;
    assert_eq!((&*body, shown.as_deref()), ("1", Some("120")));
    let Some(Degraded::Cached { age: said }) = degraded else { panic!("{degraded:?}") };
    assert_eq!(said.as_secs(), 120);
    let never_seen = world.client.get("/b").send().await.unwrap();
    assert_eq!(never_seen.status(), 500, "nothing stands in for it");

    world.callee.answers(404);
    assert_eq!(world.client.get("/a").send().await.unwrap().status(), 404);
    world.callee.answers(500);
    let gone = world.client.get("/a").send().await.unwrap();
    assert_eq!(gone.status(), 500, "what is not there any more does not come back");
}

#[tokio::test]
async fn a_default_stands_in_where_nothing_else_does() {
    let world = World::new().await;
    let none = || Otherwise::new(|| http::Response::new(Bytes::from_static(b"[]")));
    let answer = world.client.post("/a").send_or(none()).await.unwrap();
    assert_eq!(answer.degraded(), None);
    assert_eq!(answer.bytes().await.unwrap(), "1");
    world.callee.answers(404);
    assert_eq!(world.client.post("/a").send_or(none()).await.unwrap().status(), 404);
    world.callee.answers(500);
    let answer = world.client.post("/a").send_or(none()).await.unwrap();
    assert_eq!(answer.degraded(), Some(Degraded::Default));
    assert_eq!(answer.bytes().await.unwrap(), "[]");
    let counted =
        r#"client_degraded_answers_total{kind="default",protocol="http",service="greeter"} 1"#;
    assert!(world.env.metrics().encode().contains(counted), "{}", world.env.metrics().encode());
}

#[tokio::test]
async fn what_cannot_be_done_now_is_written_down_for_later() {
    let (discovery, _leases) = discovery("greeter", &[]).await;
    let client = Client::new("greeter", &discovery);
    let written = Arc::new(std::sync::Mutex::new(Vec::new()));
    let queue = Arc::clone(&written);
    let later = Later::new(
        |request: &Request<Bytes>| Some((request.uri().to_string(), request.body().clone())),
        move |kept| {
            let queue = Arc::clone(&queue);
            async move {
                queue.lock().unwrap().push(kept);
                let mut accepted = http::Response::new(Bytes::new());
                *accepted.status_mut() = StatusCode::ACCEPTED;
                Ok(accepted)
            }
        },
    );
    let answer = client.post("/letters").body("hello").send_or(later).await.unwrap();
    assert_eq!(
        (answer.status(), answer.degraded()),
        (StatusCode::ACCEPTED, Some(Degraded::Queued))
    );
    assert_eq!(*written.lock().unwrap(), [("/letters".to_owned(), Bytes::from("hello"))]);
}
