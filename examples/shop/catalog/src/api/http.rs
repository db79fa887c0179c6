//! `GET /products` and `GET /products/{sku}`.

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use chassis::http::{Path, Problem};
use shop_contracts::catalog::v1::ListProductsResponse;

use super::etag::tagged;
use super::to_wire;
use crate::catalog::Catalog;

/// The HTTP routes of this context.
pub fn router(catalog: &Catalog) -> Router {
    Router::new()
        .route("/products", get(list))
        .route("/products/{sku}", get(one))
        .with_state(catalog.clone())
}

async fn list(State(catalog): State<Catalog>, headers: HeaderMap) -> Result<Response, Problem> {
    let products = catalog.products().await?.into_iter().map(to_wire).collect();
    Ok(tagged(&headers, &ListProductsResponse { products })?)
}

async fn one(
    State(catalog): State<Catalog>,
    Path(sku): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let product = catalog.product(&sku).await?;
    Ok(tagged(&headers, &to_wire(product))?)
}
