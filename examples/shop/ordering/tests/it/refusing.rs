//! What is refused: as problem+json with a status, a reason and the wrong fields.

use axum::http::Method;
use serde_json::{Value, json};

use crate::fakes::Fault;
use crate::support::{Answer, Shop, order};

#[tokio::test]
async fn every_wrong_field_is_named() {
    let shop = Shop::open().await;
    let line = |sku: &str, quantity: i64| json!({ "sku": sku, "quantity": quantity });
    let long = "x".repeat(300);
    let of = |customer: &str, card: &str, lines: Vec<Value>| json!({ "customer_id": customer, "card_token": card, "lines": lines });
    for (body, fields) in [
        (of("ada", "tok_visa", vec![]), vec!["lines"]),
        (of("ada", "tok_visa", vec![line("cup", 1); 101]), vec!["lines"]),
        (of("ada", "tok_visa", vec![line("cup", 1), line("cup", 0)]), vec!["lines[1].quantity"]),
        (of("ada", "tok_visa", vec![line("cup", -1)]), vec!["lines[0].quantity"]),
        (of("ada", "tok_visa", vec![line("cup", 1_001)]), vec!["lines[0].quantity"]),
        (of("ada", "tok_visa", vec![line(&long, 1)]), vec!["lines[0].sku"]),
        (of("ada", "", vec![line("cup", 1)]), vec!["card_token"]),
        (of("ada", &long, vec![line("cup", 1)]), vec!["card_token"]),
        (
            of(" ", "", vec![line("", 0)]),
            vec!["customer_id", "lines[0].sku", "lines[0].quantity", "card_token"],
        ),
    ] {
        let answer = shop.post(&body).await;
        answer.assert_problem(400, "INVALID_REQUEST");
        let errors = answer.body["errors"].as_array().unwrap();
        let named: Vec<_> = errors.iter().map(|error| error["field"].as_str().unwrap()).collect();
        assert_eq!(named, fields);
    }
    for key in ["", &long] {
        let answer = shop.post_with_key(key, &order("tok_visa", "cup", 1)).await;
        answer.assert_problem(400, "INVALID_REQUEST");
        assert_eq!(answer.body["errors"][0]["field"], "idempotency-key");
    }
    assert!(shop.world.calls("get-product").is_empty(), "nobody was asked");
}

#[tokio::test]
async fn an_unknown_product_is_told_at_once() {
    let shop = Shop::open().await;
    let lines = json!([{ "sku": "cup", "quantity": 1 }, { "sku": "nothing", "quantity": 1 }]);
    let body = json!({ "customer_id": "ada", "card_token": "tok_visa", "lines": lines });
    shop.post_with_key("k", &body).await.assert_problem(404, "PRODUCT_NOT_FOUND");
    let all = shop.get("/orders?customer_id=ada").await;
    assert_eq!(all.body, json!({ "orders": [] }));

    // The key was not used up.
    assert_eq!(shop.post_with_key("k", &order("tok_visa", "cup", 1)).await.status, 202);
}

#[tokio::test]
async fn without_the_catalog_nothing_is_placed() {
    let shop = Shop::open().await;
    shop.world.fail("get-product", vec![Fault::Refuse; 3]);
    let answer = shop.post(&order("tok_visa", "cup", 1)).await;
    answer.assert_problem(503, "FAKE");
    let all = shop.get("/orders?customer_id=ada").await;
    assert_eq!(all.body, json!({ "orders": [] }));
}

#[tokio::test]
async fn what_is_no_request_is_a_problem_too() {
    let shop = Shop::open().await;
    let send = async |method: Method, path: &str, body: &str| {
        let request =
            shop.client().request(method, path).header("content-type", "application/json");
        Answer::of(request.body(body.to_owned()).send().await.unwrap()).await
    };
    for (method, path, body, status) in [
        (Method::POST, "/orders", r#"{"customer_id": "#, 400),
        (Method::POST, "/orders", r#"{"customer_id": "ada"}"#, 400),
        (Method::POST, "/orders", r#"[]"#, 400),
        (Method::GET, "/orders", "", 400),
        (Method::GET, "/orders/nothing", "", 404),
        (Method::GET, "/nothing", "", 404),
        (Method::DELETE, "/orders", "", 405),
    ] {
        let answer = send(method.clone(), path, body).await;
        let kind = answer.headers.get("content-type");
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
        assert_eq!(kind.unwrap(), "application/problem+json", "{answer:?}");
        assert!(!answer.body["reason"].as_str().unwrap().is_empty());
    }
    let text = shop.client().post("/orders").header("content-type", "text/plain").body("x");
    assert_eq!(Answer::of(text.send().await.unwrap()).await.status, 415);
    shop.get("/orders/nothing").await.assert_problem(404, "ORDER_NOT_FOUND");
}
