//! One answer out of several services; what is missing is named.

use serde_json::json;
use tokio::time::Instant;

use crate::fakes::SLOW;
use crate::support::Edge;

#[tokio::test]
async fn a_product_is_shown_with_its_stock() {
    let edge = Edge::open().await;
    let answer = edge.get("/api/products/cup").await;
    let expected = json!({
        "product": { "sku": "cup", "price_minor": 1_200 },
        "stock": { "sku": "cup", "on_hand": 10, "reserved": 3, "available": 7 },
        "missing": [],
    });
    assert_eq!((answer.status, answer.body), (200, expected));
}

#[tokio::test]
async fn while_the_inventory_is_gone_the_last_known_stock_is_shown_with_its_age() {
    let mut edge = Edge::open().await;
    assert_eq!(edge.get("/api/products/cup").await.body["stock"]["available"], 7);
    edge.stop("inventory", "grpc").await;
    let answer = edge.get("/api/products/cup").await;
    assert_eq!((answer.status, answer.missing()), (200, vec![]));
    let stock = &answer.body["stock"];
    assert_eq!(stock["available"], 7);
    assert!(stock["as_of_seconds_ago"].is_u64(), "{stock}");
}

#[tokio::test]
async fn an_order_is_shown_with_its_products_and_its_payment() {
    let edge = Edge::open().await;
    let answer = edge.get("/api/orders/o-1").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["order"]["id"], "o-1");
    let products = answer.body["products"].as_array().unwrap();
    let names: Vec<_> = products.iter().map(|product| &product["name"]).collect();
    assert_eq!(names, ["The cup", "The pot"], "in the order of the lines");
    assert_eq!(answer.body["payment"]["status"], "charged");
    assert!(answer.missing().is_empty());
}

#[tokio::test]
async fn a_part_that_is_gone_is_named_and_the_rest_is_shown() {
    let mut edge = Edge::open().await;
    edge.stop("payment", "grpc").await;
    let answer = edge.get("/api/orders/o-1").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.missing(), ["payment"]);
    assert!(answer.body["payment"].is_null());
    assert_eq!(answer.body["order"]["id"], "o-1");
    assert_eq!(answer.body["products"].as_array().unwrap().len(), 2);

    edge.stop("catalog", "grpc").await;
    let answer = edge.get("/api/orders/o-1").await;
    assert_eq!((answer.status, answer.missing()), (200, vec!["products", "payment"]));

    edge.stop("inventory", "grpc").await;
    let answer = edge.get("/api/products/cup").await;
    assert_eq!((answer.status, answer.missing()), (200, vec!["stock"]));
    assert_eq!(answer.body["product"]["sku"], "cup");
}

#[tokio::test]
async fn a_part_that_takes_too_long_is_left_out() {
    let edge = Edge::open().await;
    let started = Instant::now();
    let answer = edge.get(&format!("/api/orders/{SLOW}")).await;
    assert_eq!((answer.status, answer.missing()), (200, vec!["payment"]));
    // It never comes: what was waited for is the limit of a part, not that of a call.
    assert!(started.elapsed() < std::time::Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_product_that_is_sold_no_more_leaves_its_part_out() {
    let edge = Edge::open().await;
    let answer = edge.get("/api/orders/o-odd").await;
    assert_eq!((answer.status, answer.missing()), (200, vec!["products"]));
}

#[tokio::test]
async fn without_the_thing_itself_there_is_no_answer() {
    let mut edge = Edge::open().await;
    edge.get("/api/orders/nothing").await.assert_problem(404, "ORDER_NOT_FOUND");
    edge.get("/api/products/nothing").await.assert_problem(404, "PRODUCT_NOT_FOUND");

    edge.stop("ordering", "http").await;
    edge.stop("catalog", "http").await;
    for path in ["/api/orders/o-1", "/api/products/cup"] {
        let answer = edge.get(path).await;
        assert!([502, 503].contains(&answer.status), "{answer:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
}
