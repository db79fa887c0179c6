//! The admin port.

use axum::{Router, routing::get};
use chassis_core::{AdminConfig, Env};
use chassis_http::Admin;

use crate::support::start;

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
