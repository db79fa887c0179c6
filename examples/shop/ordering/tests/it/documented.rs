//! The OpenAPI document that the admin port shows.

use chassis_test::assert_openapi_equals_routes;
use serde_json::{Value, json};
use shop_ordering::api;

use crate::support::Shop;

#[tokio::test]
async fn each_route_is_in_the_document_that_is_shown_and_nothing_else() {
    let shop = Shop::open().await;
    let document = shop.env().operations().run("openapi/http", Value::Null, false).await.unwrap();
    let (router, _) = api::http::router(&shop.beside().await);
    assert_openapi_equals_routes(&document, router, &[]).await;

    // What the server added is OpenAPI too.
    serde_json::from_value::<utoipa::openapi::OpenApi>(document.clone()).unwrap();
    assert_eq!(document["info"]["title"], "ordering");
    let place = &document["paths"]["/orders"]["post"];
    let body = &place["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(*body, "#/components/schemas/NewOrder");
    assert_eq!(place["parameters"][0]["name"], "idempotency-key");
    let parameters = |path: &str| {
        let found = &document["paths"][path]["get"]["parameters"][0];
        (found["name"].clone(), found["in"].clone(), found["required"].clone())
    };
    assert_eq!(parameters("/orders"), (json!("customer_id"), json!("query"), json!(true)));
    assert_eq!(parameters("/orders/{id}"), (json!("id"), json!("path"), json!(true)));
}
