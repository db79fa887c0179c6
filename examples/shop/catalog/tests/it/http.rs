//! HTTP: JSON, tags, and problems.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use shop_catalog::{Catalog, api};
use tower::ServiceExt;

use crate::support::open;

async fn get(catalog: &Catalog, path: &str, known: Option<&str>) -> Response<Body> {
    let mut request = Request::get(path);
    if let Some(tag) = known {
        request = request.header(IF_NONE_MATCH, tag);
    }
    let request = request.body(Body::empty()).unwrap();
    api::http::router(catalog).0.oneshot(request).await.unwrap()
}

async fn body(response: Response<Body>) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

async fn json(response: Response<Body>) -> Value {
    serde_json::from_slice(&body(response).await).unwrap()
}

#[tokio::test]
async fn a_product_is_shown() {
    let (_folder, catalog) = open().await;
    let response = get(&catalog, "/products/rare-teapot", None).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    let expected = json!({
        "sku": "rare-teapot",
        "name": "Rare teapot",
        "description": "Cast iron, signed. There is only one.",
        "price_minor": 24_900,
        "currency": "EUR",
    });
    assert_eq!(json(response).await, expected);
}

#[tokio::test]
async fn all_products_are_listed() {
    let (_folder, catalog) = open().await;
    let list = json(get(&catalog, "/products", None).await).await;
    let products = list["products"].as_array().unwrap();
    assert_eq!(products.len(), 7);
    assert_eq!(products[0]["sku"], "espresso-cup");
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let (_folder, catalog) = open().await;
    for path in ["/products", "/products/tea-bowl"] {
        let first = get(&catalog, path, None).await;
        let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
        assert_eq!(first.headers()[CACHE_CONTROL], "no-cache");

        let again = get(&catalog, path, Some(&tag)).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()[ETAG].to_str().unwrap(), tag);
        assert!(body(again).await.is_empty());

        let other = get(&catalog, path, Some("\"0000000000000000\"")).await;
        assert_eq!(other.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn an_unknown_product_is_a_problem() {
    let (_folder, catalog) = open().await;
    for path in ["/products/no-such-thing", "/products/Not%20A%20Sku"] {
        let response = get(&catalog, path, None).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(json(response).await["reason"], "PRODUCT_NOT_FOUND");
    }
}
