//! The OpenAPI document of the routes.

use chassis::core::{App, Env};
use chassis_test::assert_openapi_equals_routes;
use shop_notification::{Notification, api};

use crate::support::config;

#[tokio::test]
async fn each_route_is_documented_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::new(Env::test("notification"));
    let notification = Notification::connect(&app, &config(&folder)).await.unwrap();
    let (router, document) = api::http::router(&notification);
    assert_openapi_equals_routes(&document, router, &[]).await;
}
