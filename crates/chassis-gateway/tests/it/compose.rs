//! One answer out of several services.

use std::time::Duration;

use axum::{Router, extract::Path, routing::get};
use chassis_core::Error;
use chassis_gateway::{Compose, Gateway, Part, PartRequest, get_json};
use chassis_http::{Json, Problem};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Running, System};

fn items() -> Router {
    Router::new().route(
        "/items/{id}",
        get(|Path(id): Path<String>| async move {
            match id.as_str() {
                "0" => Err(Problem::from(Error::not_found("ITEM_NOT_FOUND", "no such item"))),
                _ => Ok(Json(json!({ "id": id, "maker": "acme" }))),
            }
        }),
    )
}

fn value(value: Value) -> impl Fn(PartRequest) -> std::future::Ready<chassis_core::Result<Value>> {
    move |_| std::future::ready(Ok(value.clone()))
}

async fn hang(_: PartRequest) -> chassis_core::Result<Value> {
    std::future::pending().await
}

async fn gateway(system: &mut System, compose: Compose) -> Running {
    system.gateway(Gateway::new().compose("/page/{id}", compose)).await
}

#[tokio::test]
async fn all_parts_make_one_answer() {
    let mut system = System::default();
    let items = system.service("items", items()).await;
    let compose = Compose::new().part("item", Part::required(get_json(items, "/items/{id}"))).part(
        "asked",
        Part::optional(async |request: PartRequest| {
            Ok(json!({ "lang": request.query("lang"), "id": request.param("id") }))
        }),
    );
    let gateway = gateway(&mut system, compose).await;
    let answer = gateway.get("/page/7%2F8?lang=d%20e").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({
            "item": { "id": "7/8", "maker": "acme" },
            "asked": { "lang": "d e", "id": "7/8" },
            "missing": [],
        })
    );
}

#[tokio::test]
async fn an_optional_part_that_fails_is_marked() {
    let mut system = System::default();
    let items = system.service("items", items()).await;
    let reviews = system.client("reviews");
    let compose = Compose::new()
        .part("item", Part::required(get_json(items, "/items/{id}")))
        .part("reviews", Part::optional(get_json(reviews, "/reviews?item={id}")))
        .part("score", Part::optional(value(json!(1))).after(["reviews"]));
    let gateway = gateway(&mut system, compose).await;
    let answer = gateway.get("/page/7").await;
    assert_eq!(answer.status, 200);
    let page = answer.json();
    assert_eq!((&page["item"]["id"], &page["reviews"]), (&json!("7"), &Value::Null));
    assert_eq!(
        page["missing"],
        json!([
            { "part": "reviews", "reason": "NO_ENDPOINTS" },
            { "part": "score", "reason": "NEEDS_MISSING_PART" },
        ])
    );
    let metrics = gateway.env.metrics().encode();
    assert!(metrics.contains(r#"gateway_missing_parts_total{part="reviews"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_required_part_that_fails_is_the_answer() {
    let mut system = System::default();
    let items = system.service("items", items()).await;
    let compose = Compose::new()
        .part("slow", Part::optional(hang))
        .part("item", Part::required(get_json(items, "/items/{id}")));
    let gateway = gateway(&mut system, compose).await;
    let answer = gateway.get("/page/0").await;
    assert_eq!((answer.status, &answer.json()["reason"]), (404, &json!("ITEM_NOT_FOUND")));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
}

#[tokio::test(start_paused = true)]
async fn a_part_that_hangs_costs_its_own_time_only() {
    let mut system = System::default();
    let compose = Compose::new()
        .part("fast", Part::required(value(json!("here"))))
        .part("slow", Part::optional(hang).within(Duration::from_millis(300)))
        .part("slower", Part::optional(hang).within(Duration::from_millis(400)));
    let gateway = gateway(&mut system, compose).await;
    let begun = Instant::now();
    let page = gateway.get("/page/1").await.json();
    assert_eq!(begun.elapsed().as_millis(), 400, "the parts run at once");
    assert_eq!(page["fast"], "here");
    assert_eq!(page["missing"][0], json!({ "part": "slow", "reason": "PART_TIMEOUT" }));
    assert_eq!(page["missing"][1]["part"], "slower");
}

#[tokio::test(start_paused = true)]
async fn the_callers_deadline_still_gets_a_partial_answer() {
    let mut system = System::default();
    let compose = Compose::new()
        .part("fast", Part::required(value(json!("here"))))
        .part("slow", Part::optional(hang).within(Duration::from_secs(10)));
    let gateway = gateway(&mut system, compose).await;
    let begun = Instant::now();
    let answer = gateway.send("GET", "/page/1", "x-request-timeout-ms: 1000\r\n").await;
    assert_eq!((answer.status, &answer.json()["fast"]), (200, &json!("here")));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_part_may_use_what_came_before() {
    let mut system = System::default();
    let items = system.service("items", items()).await;
    let compose = Compose::new().part("item", Part::required(get_json(items, "/items/{id}"))).part(
        "maker",
        Part::required(async |request: PartRequest| {
            Ok(json!(format!("made by {}", request.value("item")["maker"])))
        })
        .after(["item"]),
    );
    let gateway = gateway(&mut system, compose).await;
    assert_eq!(gateway.get("/page/7").await.json()["maker"], "made by \"acme\"");
}

#[tokio::test]
async fn a_parameter_without_a_value_is_the_callers_mistake() {
    let mut system = System::default();
    let items = system.service("items", items()).await;
    let compose = Compose::new().part("item", Part::required(get_json(items, "/items/{q}")));
    let gateway = gateway(&mut system, compose).await;
    let answer = gateway.get("/page/7").await;
    assert_eq!((answer.status, &answer.json()["reason"]), (400, &json!("MISSING_PARAMETER")));
    assert_eq!(gateway.get("/page/7?q=3").await.json()["item"]["id"], "3");
}

#[test]
#[should_panic(expected = "which may be missing")]
fn a_required_part_after_an_optional_one_is_refused_at_start() {
    let _ = Compose::new()
        .part("a", Part::optional(value(json!(1))))
        .part("b", Part::required(value(json!(2))).after(["a"]));
}

#[test]
#[should_panic(expected = "must be added first")]
fn a_circle_is_refused_at_start() {
    let _ = Compose::new().part("a", Part::required(value(json!(1))).after(["b"]));
}
