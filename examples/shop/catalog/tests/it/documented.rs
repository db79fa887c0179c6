//! The OpenAPI document of the routes.

use chassis_test::assert_openapi_equals_routes;
use shop_catalog::api;

use crate::support::open;

#[tokio::test]
async fn each_route_is_documented_and_nothing_else() {
    let (_folder, catalog) = open().await;
    let (router, document) = api::http::router(&catalog);
    assert_openapi_equals_routes(&document, router, &[]).await;
}
