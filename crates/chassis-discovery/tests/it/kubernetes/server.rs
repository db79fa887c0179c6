//! The part of a Kubernetes API server that EndpointSlices need, in the test:
//! list with pages, watch with bookmarks, 410 Gone for what is too old. Beside it
//! a registrar that stands for the platform: it writes slices as the controller
//! does, a few endpoints each.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/>.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis_core::{BoxFuture, Result};
use chassis_discovery::{Endpoint, Lease, Registrar, Target};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Few, so that a test has several slices.
const PER_SLICE: usize = 7;
/// Fewer than the client asks for: a server may do so.
const PAGE: usize = 3;

#[derive(Clone)]
pub(super) struct Cluster {
    state: Arc<Mutex<State_>>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct State_ {
    /// By service and place in it: the slices in sequence.
    slices: BTreeMap<(String, usize), Slice>,
    /// What happened, oldest first: version, service, event.
    log: Vec<(u64, String, Value)>,
    /// What is older is forgotten.
    oldest: u64,
    /// Ends every watch that is open when it changes.
    cut: u64,
    token: Option<String>,
    seen: Seen,
}

#[derive(Default)]
struct Slice {
    endpoints: Vec<(u64, Endpoint)>,
    version: u64,
}

/// What clients did.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) lists: u64,
    pub(super) watches: u64,
    pub(super) gone: u64,
    /// The version that the last watch began at.
    pub(super) from: u64,
    /// The version up to which a watch was told everything.
    pub(super) told: u64,
}

impl Cluster {
    pub(super) async fn start() -> (Cluster, SocketAddr) {
        let cluster = Cluster { state: Arc::default(), version: watch::Sender::new(100) };
        let path = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices";
        let router = Router::new().route(path, get(slices)).with_state(cluster.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (cluster, address)
    }

    pub(super) fn seen(&self) -> Seen {
        self.state.lock().seen
    }

    pub(super) fn set_token(&self, token: &str) {
        self.state.lock().token = Some(token.to_owned());
    }

    /// Forgets what happened so far.
    pub(super) fn compact(&self) {
        let mut state = self.state.lock();
        state.log.clear();
        state.oldest = *self.version.borrow();
    }

    /// Ends every open watch.
    pub(super) fn end_watches(&self) {
        self.state.lock().cut += 1;
        self.version.send_modify(|_| {});
    }

    /// Something else in the cluster changes, and all watches are told how far
    /// they are.
    pub(super) fn bookmark(&self) -> u64 {
        let mut state = self.state.lock();
        let version = *self.version.borrow() + 50;
        let object = json!({ "kind": "EndpointSlice",
            "metadata": { "resourceVersion": version.to_string() } });
        state.log.push((version, String::new(), json!({ "type": "BOOKMARK", "object": object })));
        self.version.send_replace(version);
        version
    }

    fn change(
        &self,
        target: &Target,
        change: impl FnOnce(&mut BTreeMap<(String, usize), Slice>) -> usize,
    ) {
        let service = service(target);
        let mut state = self.state.lock();
        let place = change(&mut state.slices);
        let version = *self.version.borrow() + 1;
        let key = (service.clone(), place);
        let slice = state.slices.entry(key.clone()).or_default();
        let kind = if slice.version == 0 { "ADDED" } else { "MODIFIED" };
        slice.version = version;
        let event = if slice.endpoints.is_empty() {
            let object = object(&key, slice);
            state.slices.remove(&key);
            json!({ "type": "DELETED", "object": object })
        } else {
            json!({ "type": kind, "object": object(&key, slice) })
        };
        state.log.push((version, service, event));
        self.version.send_replace(version);
    }
}

/// A Service for each protocol, so that the name of the target is kept apart.
fn service(target: &Target) -> String {
    format!("{}--{}", target.service, target.protocol)
}

fn object(key: &(String, usize), slice: &Slice) -> Value {
    let endpoints: Vec<Value> = slice
        .endpoints
        .iter()
        .map(|(_, endpoint)| {
            let mut said = json!({
                "addresses": [endpoint.address.ip().to_string()],
                "conditions": { "ready": true, "serving": true, "terminating": false },
            });
            if let Some(zone) = &endpoint.zone {
                said["zone"] = zone.as_str().into();
            }
            said
        })
        .collect();
    json!({
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-{}", key.0, key.1),
            "resourceVersion": slice.version.to_string(),
            "labels": { "kubernetes.io/service-name": key.0 },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "web", "port": 8080 }],
        "endpoints": endpoints,
    })
}

impl Registrar for Cluster {
    fn register(&self, target: Target, endpoint: Endpoint) -> BoxFuture<'_, Result<Lease>> {
        let id = fastrand::u64(..);
        let name = service(&target);
        self.change(&target, |slices| {
            let full = |place: &usize| {
                slices
                    .get(&(name.clone(), *place))
                    .is_some_and(|slice| slice.endpoints.len() >= PER_SLICE)
            };
            let place = (0..).find(|place| !full(place)).unwrap();
            let slice = slices.entry((name.clone(), place)).or_default();
            slice.endpoints.push((id, endpoint));
            place
        });
        let cluster = self.clone();
        let lease = Lease::new(move || {
            let name = service(&target);
            cluster.change(&target, |slices| {
                let of_service = slices.iter_mut().filter(|(key, _)| key.0 == name);
                for ((_, place), slice) in of_service {
                    let before = slice.endpoints.len();
                    slice.endpoints.retain(|(other, _)| *other != id);
                    if slice.endpoints.len() != before {
                        return *place;
                    }
                }
                panic!("the endpoint is not there");
            });
        });
        Box::pin(std::future::ready(Ok(lease)))
    }
}

fn gone() -> Value {
    json!({ "kind": "Status", "code": 410, "reason": "Expired", "message": "too old" })
}

async fn slices(
    State(cluster): State<Cluster>,
    headers: HeaderMap,
    Path(namespace): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    assert_eq!(namespace, "prod");
    let mut state = cluster.state.lock();
    if let Some(token) = &state.token {
        let given = headers.get("authorization").map(|given| given.to_str().unwrap());
        if given != Some(&format!("Bearer {token}")) {
            return (StatusCode::UNAUTHORIZED, "who are you").into_response();
        }
    }
    let name = query["labelSelector"].strip_prefix("kubernetes.io/service-name=").unwrap();
    if query.contains_key("watch") {
        let from: u64 = query["resourceVersion"].parse().unwrap();
        assert_eq!(query["allowWatchBookmarks"], "true");
        state.seen.watches += 1;
        state.seen.from = from;
        if from < state.oldest {
            state.seen.gone += 1;
            // Once the head is sent, a server can only say so in the stream.
            let event = json!({ "type": "ERROR", "object": gone() });
            return format!("{event}\n").into_response();
        }
        let watch = Watch { at: from, cut: state.cut, name: name.to_owned() };
        drop(state);
        return Body::from_stream(watch.stream(cluster)).into_response();
    }
    state.seen.lists += 1;
    let begin: usize = query.get("continue").map_or(0, |place| place.parse().unwrap());
    let all: Vec<Value> = state
        .slices
        .iter()
        .filter(|(key, _)| key.0 == name)
        .map(|(key, slice)| object(key, slice))
        .collect();
    let items: Vec<&Value> = all.iter().skip(begin).take(PAGE).collect();
    let mut metadata = json!({ "resourceVersion": cluster.version.borrow().to_string() });
    if begin + PAGE < all.len() {
        metadata["continue"] = (begin + PAGE).to_string().into();
    }
    axum::Json(json!({ "kind": "EndpointSliceList", "metadata": metadata, "items": items }))
        .into_response()
}

struct Watch {
    at: u64,
    cut: u64,
    name: String,
}

impl Watch {
    fn stream(
        self,
        cluster: Cluster,
    ) -> impl futures_util::Stream<Item = Result<String, Infallible>> {
        let versions = cluster.version.subscribe();
        futures_util::stream::unfold(
            (self, cluster, versions),
            |(mut watch, cluster, mut versions)| async move {
                loop {
                    versions.mark_unchanged();
                    let lines: String = {
                        let mut state = cluster.state.lock();
                        if state.cut != watch.cut {
                            return None;
                        }
                        let news = state.log.iter().filter(|(version, name, _)| {
                            *version > watch.at && (name.is_empty() || *name == watch.name)
                        });
                        let lines = news.map(|(_, _, event)| format!("{event}\n")).collect();
                        watch.at = *cluster.version.borrow();
                        state.seen.told = watch.at;
                        lines
                    };
                    if !lines.is_empty() {
                        return Some((Ok(lines), (watch, cluster, versions)));
                    }
                    versions.changed().await.ok()?;
                }
            },
        )
    }
}
