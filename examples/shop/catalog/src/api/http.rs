//! `GET /products` and `GET /products/{sku}`.

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chassis::http::{Path, Problem};
use shop_contracts::catalog::v1::{ListProductsResponse, Product};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::etag::tagged;
use super::to_wire;
use crate::catalog::Catalog;

/// The HTTP routes of this context, and their document.
pub fn router(catalog: &Catalog) -> (Router, OpenApi) {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(one))
        .with_state(catalog.clone())
        .split_for_parts()
}

/// Every product, ordered by sku.
#[utoipa::path(get, path = "/products", responses(
    (status = 200, description = "All products, with an ETag.", body = ListProductsResponse),
    (status = 304, description = "The client has this answer."),
))]
async fn list(State(catalog): State<Catalog>, headers: HeaderMap) -> Result<Response, Problem> {
    let products = catalog.products().await?.into_iter().map(to_wire).collect();
    Ok(tagged(&headers, &ListProductsResponse { products })?)
}

/// One product.
#[utoipa::path(get, path = "/products/{sku}", responses(
    (status = 200, description = "The product, with an ETag.", body = Product),
    (status = 304, description = "The client has this answer."),
    (status = 404, description = "PRODUCT_NOT_FOUND"),
))]
async fn one(
    State(catalog): State<Catalog>,
    Path(sku): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let product = catalog.product(&sku).await?;
    Ok(tagged(&headers, &to_wire(product))?)
}
