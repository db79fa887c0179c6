//! gRPC: one product, all products, and one that does not exist.

use chassis::core::Code;
use shop_catalog::api;
use shop_contracts::catalog::v1::catalog_client::CatalogClient;
use shop_contracts::catalog::v1::{GetProductRequest, ListProductsRequest};

use crate::support::open;

#[tokio::test]
async fn a_product_is_read_twice_alike() {
    let (_folder, catalog) = open().await;
    let mut client = CatalogClient::new(api::grpc::routes(&catalog).into_routes());
    let ask = GetProductRequest { sku: "espresso-cup".to_owned() };
    // The second answer comes from the cache.
    for _ in 0..2 {
        let product = client.get_product(ask.clone()).await.unwrap().into_inner();
        assert_eq!(product.sku, "espresso-cup");
        assert_eq!(product.name, "Espresso cup");
        assert_eq!((product.price_minor, product.currency.as_str()), (1_200, "EUR"));
    }
}

#[tokio::test]
async fn the_list_is_ordered_by_sku() {
    let (_folder, catalog) = open().await;
    let mut client = CatalogClient::new(api::grpc::routes(&catalog).into_routes());
    let list = client.list_products(ListProductsRequest {}).await.unwrap().into_inner();
    let skus: Vec<&str> = list.products.iter().map(|product| product.sku.as_str()).collect();
    let expected = [
        "espresso-cup",
        "latte-glass",
        "moka-pot",
        "paper-filter",
        "rare-teapot",
        "sold-out-mug",
        "tea-bowl",
    ];
    assert_eq!(skus, expected);
}

#[tokio::test]
async fn an_unknown_product_is_not_found() {
    let (_folder, catalog) = open().await;
    let mut client = CatalogClient::new(api::grpc::routes(&catalog).into_routes());
    for sku in ["no-such-thing", "", "Not A Sku"] {
        let ask = GetProductRequest { sku: sku.to_owned() };
        let error = chassis::grpc::from_status(client.get_product(ask).await.unwrap_err());
        assert_eq!((error.code(), error.reason()), (Code::NotFound, "PRODUCT_NOT_FOUND"));
        assert_eq!(error.details()["sku"], sku);
    }
}
