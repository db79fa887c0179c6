//! A Consul agent in the test, written from its published API: registration with
//! a TTL check, health with blocking queries. It can be made to fail, to answer
//! with a stale or a replaced index, and to forget everything.
//!
//! Source: <https://developer.hashicorp.com/consul/api-docs>: `agent/service`,
//! `agent/check`, `health`, `features/blocking`, `features/consistency`.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

#[derive(Clone)]
pub(super) struct Agent {
    state: Arc<Mutex<Catalogue>>,
    index: watch::Sender<u64>,
}

#[derive(Default)]
struct Catalogue {
    services: BTreeMap<String, Registered>,
    /// Whether every request fails with 500.
    failing: bool,
    /// What a server without a leader says.
    leaderless: bool,
    /// The token that is asked for.
    token: Option<String>,
    queries: u64,
}

struct Registered {
    body: Value,
    ttl: Duration,
    passed: Instant,
}

impl Registered {
    fn is_passing(&self) -> bool {
        self.passed.elapsed() < self.ttl
    }
}

impl Agent {
    pub(super) async fn start() -> (Agent, SocketAddr) {
        let agent = Agent { state: Arc::default(), index: watch::Sender::new(10) };
        let router = Router::new()
            .route("/v1/agent/service/register", put(register))
            .route("/v1/agent/service/deregister/{id}", put(deregister))
            .route("/v1/agent/check/pass/{id}", put(pass))
            .route("/v1/health/service/{name}", get(health))
            .with_state(agent.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        tokio::spawn(agent.clone().check());
        (agent, address)
    }

    pub(super) fn set_failing(&self, failing: bool) {
        self.state.lock().failing = failing;
    }

    pub(super) fn set_leaderless(&self, leaderless: bool) {
        self.state.lock().leaderless = leaderless;
    }

    pub(super) fn set_token(&self, token: &str) {
        self.state.lock().token = Some(token.to_owned());
    }

    /// As a new agent in its place: nothing is known, and time begins anew.
    pub(super) fn forget(&self) {
        self.state.lock().services.clear();
        self.index.send_replace(1);
    }

    pub(super) fn queries(&self) -> u64 {
        self.state.lock().queries
    }

    pub(super) fn index(&self) -> u64 {
        *self.index.borrow()
    }

    /// Changes that have nothing to do with anybody's service.
    pub(super) fn tick(&self) {
        self.index.send_modify(|index| *index += 1);
    }

    /// Counts a change of the health of those whose time is up.
    async fn check(self) {
        let mut passing = 0;
        loop {
            let now = self.state.lock().services.values().filter(|s| s.is_passing()).count();
            if std::mem::replace(&mut passing, now) > now {
                self.tick();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let state = self.state.lock();
        if state.failing {
            return Some((StatusCode::INTERNAL_SERVER_ERROR, "No cluster leader").into_response());
        }
        let given = headers.get("x-consul-token").map(|token| token.to_str().unwrap().to_owned());
        if state.token.is_some() && given != state.token {
            return Some((StatusCode::FORBIDDEN, "Permission denied").into_response());
        }
        None
    }
}

async fn register(
    State(agent): State<Agent>,
    headers: HeaderMap,
    axum::Json(body): axum::Json<Value>,
) -> Response {
    if let Some(refusal) = agent.refusal(&headers) {
        return refusal;
    }
    let check = &body["Check"];
    assert_eq!(check["DeregisterCriticalServiceAfter"], "60s");
    let ttl = check["TTL"].as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap();
    let id = body["ID"].as_str().unwrap().to_owned();
    let passed = Instant::now();
    let registered = Registered { body, ttl: Duration::from_secs(ttl), passed };
    agent.state.lock().services.insert(id, registered);
    agent.tick();
    StatusCode::OK.into_response()
}

async fn deregister(
    State(agent): State<Agent>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    if let Some(refusal) = agent.refusal(&headers) {
        return refusal;
    }
    let known = agent.state.lock().services.remove(&id).is_some();
    agent.tick();
    if known { StatusCode::OK } else { StatusCode::NOT_FOUND }.into_response()
}

async fn pass(State(agent): State<Agent>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    if let Some(refusal) = agent.refusal(&headers) {
        return refusal;
    }
    let was_passing = match agent.state.lock().services.get_mut(&id) {
        None => return (StatusCode::NOT_FOUND, "Unknown check ID").into_response(),
        Some(service) => {
            let was_passing = service.is_passing();
            service.passed = Instant::now();
            was_passing
        }
    };
    if !was_passing {
        agent.tick();
    }
    StatusCode::OK.into_response()
}

async fn health(
    State(agent): State<Agent>,
    headers: HeaderMap,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refusal) = agent.refusal(&headers) {
        return refusal;
    }
    agent.state.lock().queries += 1;
    assert!(query.contains_key("passing"));
    // "If the index is not equal, it returns at once."
    if let Some(known) = query.get("index").map(|index| index.parse::<u64>().unwrap()) {
        assert!(known > 0, "an index below one is a mistake of the client");
        let wait = query["wait"].strip_suffix("ms").unwrap().parse().unwrap();
        let mut index = agent.index.subscribe();
        let changed = index.wait_for(|index| *index != known);
        // Its end without a change is an answer too.
        let _ = tokio::time::timeout(Duration::from_millis(wait), changed).await;
    }
    if let Some(refusal) = agent.refusal(&headers) {
        return refusal;
    }
    let state = agent.state.lock();
    let instances: Vec<Value> = state
        .services
        .values()
        .filter(|service| service.body["Name"] == name && service.is_passing())
        .map(|Registered { body, .. }| {
            json!({
                "Node": { "Node": "test", "Address": "127.0.0.1" },
                "Service": {
                    "ID": body["ID"], "Service": body["Name"], "Address": body["Address"],
                    "Port": body["Port"], "Meta": body["Meta"], "Weights": body["Weights"],
                },
                "Checks": [],
            })
        })
        .collect();
    let leader = if state.leaderless { "false" } else { "true" };
    let head = [
        ("x-consul-index", agent.index().to_string()),
        ("x-consul-knownleader", leader.to_owned()),
        ("x-consul-lastcontact", "0".to_owned()),
    ];
    (head, axum::Json(instances)).into_response()
}
