//! How often a request allocates memory beside what the router and the handler do: each costs
//! some 50 ns and a place in the cache, and one more is easily added and never seen again.

use std::sync::Arc;

use axum::{Router, body::Body, extract::Request, routing::get};
use chassis_core::{
    Env, ServiceInfo, propagation,
    telemetry::{LineSink, LogLayer},
};
use chassis_http::Server;
use http::Uri;
use tower::ServiceExt as _;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::support::config;

/// Takes lines as the writer of the log does: into memory that is there already.
struct Taken;

impl LineSink for Taken {
    fn write_line(&self, _: &[u8]) {}
}

/// Allocations of one request, once everything is bound that the first ones bind.
fn allocations(router: &Router, header: Option<(&'static str, &'static str)>) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // As from hyper: its text is shared already, which costs an allocation once.
    let uri = Uri::from_static("/items/7");
    let once = || {
        let mut request = Request::get(uri.clone()).header("host", "items");
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let (router, request) = (router.clone(), request.body(Body::empty()).unwrap());
        let measured = allocation_counter::measure(|| {
            let answer = runtime.block_on(router.oneshot(request)).unwrap();
            assert_eq!(answer.status(), 200);
            // The exchange has ended with its head: a buffered answer is as good as sent.
            drop(answer);
        });
        measured.count_total
    };
    (0..10).map(|_| once()).min().unwrap()
}

#[test]
fn an_unsampled_request_costs_a_fixed_number_of_allocations() {
    let log = tracing_subscriber::registry().with(LogLayer::json(Arc::new(Taken)));
    let _guard = tracing::subscriber::set_default(log);
    let bare = Router::new().route("/items/{id}", get(|| async { "an item" })).with_state(());
    let env = Env::new(ServiceInfo::new("items", "1.0.0"));
    let ours = Server::new(&config(), bare.clone()).into_router(&env).unwrap();
    // Called without a connection, ours stands in a router of its own.
    let bare = Router::new().fallback_service(bare);

    // The context, the future around the handler and the request id of the answer.
    let added = |header| allocations(&ours, header) - allocations(&bare, header);
    assert_eq!(added(None), 3, "of a request that says nothing");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    assert_eq!(added(Some((propagation::TRACEPARENT, parent))), 3, "with a parent");
    // Which has to be kept.
    assert_eq!(added(Some((propagation::REQUEST_ID, "r-1"))), 4, "with a request id");
}
