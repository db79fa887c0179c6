//! `shop.catalog.v1.Catalog`.

use chassis::grpc::{IntoStatus, Services};
use shop_contracts::catalog::v1 as wire;
use shop_contracts::catalog::v1::catalog_server::{self, CatalogServer};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::to_wire;
use crate::catalog::Catalog;

/// The gRPC services of this context.
pub fn routes(catalog: &Catalog) -> Services {
    Services::new(Routes::new(CatalogServer::new(Api { catalog: catalog.clone() })))
        .reflection(wire::FILE_DESCRIPTOR_SET)
}

struct Api {
    catalog: Catalog,
}

#[tonic::async_trait]
impl catalog_server::Catalog for Api {
    async fn get_product(
        &self,
        request: Request<wire::GetProductRequest>,
    ) -> Result<Response<wire::Product>, Status> {
        let sku = request.into_inner().sku;
        let product = self.catalog.product(&sku).await.map_err(IntoStatus::into_status)?;
        Ok(Response::new(to_wire(product)))
    }

    async fn list_products(
        &self,
        _request: Request<wire::ListProductsRequest>,
    ) -> Result<Response<wire::ListProductsResponse>, Status> {
        let products = self.catalog.products().await.map_err(IntoStatus::into_status)?;
        let products = products.into_iter().map(to_wire).collect();
        Ok(Response::new(wire::ListProductsResponse { products }))
    }
}
