//! `shop.inventory.v1.Inventory`.

use chassis::core::Error;
use chassis::grpc::{IntoStatus, Services};
use shop_contracts::inventory::v1 as wire;
use shop_contracts::inventory::v1::inventory_server::{self, InventoryServer};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::domain::{InvalidLines, Lines, MAX_LINES, MAX_QUANTITY};
use crate::inventory::Inventory;

/// The longest id that is taken, in bytes.
const MAX_ID: usize = 128;

/// The gRPC services of this context.
pub fn routes(inventory: &Inventory) -> Services {
    Services::new(Routes::new(InventoryServer::new(Api { inventory: inventory.clone() })))
        .reflection(wire::FILE_DESCRIPTOR_SET)
}

struct Api {
    inventory: Inventory,
}

#[tonic::async_trait]
impl inventory_server::Inventory for Api {
    async fn reserve(
        &self,
        request: Request<wire::ReserveRequest>,
    ) -> Result<Response<wire::ReserveResponse>, Status> {
        let wire::ReserveRequest { reservation_id, lines } = request.into_inner();
        let id = checked_id(&reservation_id).map_err(IntoStatus::into_status)?;
        let lines = Lines::new(lines.into_iter().map(|line| (line.sku, line.quantity)))
            .map_err(|wrong| invalid_lines(&wrong).into_status())?;
        self.inventory.reserve(id, &lines).await.map_err(IntoStatus::into_status)?;
        Ok(Response::new(wire::ReserveResponse {}))
    }

    async fn release(
        &self,
        request: Request<wire::ReleaseRequest>,
    ) -> Result<Response<wire::ReleaseResponse>, Status> {
        let wire::ReleaseRequest { reservation_id } = request.into_inner();
        let id = checked_id(&reservation_id).map_err(IntoStatus::into_status)?;
        self.inventory.release(id).await.map_err(IntoStatus::into_status)?;
        Ok(Response::new(wire::ReleaseResponse {}))
    }

    async fn get_stock(
        &self,
        request: Request<wire::GetStockRequest>,
    ) -> Result<Response<wire::Stock>, Status> {
        let wire::GetStockRequest { sku } = request.into_inner();
        let stock = self.inventory.stock(&sku).await.map_err(IntoStatus::into_status)?;
        Ok(Response::new(wire::Stock {
            sku,
            on_hand: stock.on_hand(),
            reserved: stock.reserved(),
            available: stock.available(),
        }))
    }
}

fn checked_id(id: &str) -> Result<&str, Error> {
    if (1..=MAX_ID).contains(&id.len()) {
        Ok(id)
    } else {
        Err(invalid("reservation_id", format!("must have 1 to {MAX_ID} bytes")))
    }
}

fn invalid_lines(wrong: &InvalidLines) -> Error {
    match wrong {
        InvalidLines::Empty => invalid("lines", "must not be empty"),
        InvalidLines::TooMany => invalid("lines", format!("must be at most {MAX_LINES}")),
        InvalidLines::NoSku(place) => invalid(format!("lines[{place}].sku"), "must not be empty"),
        InvalidLines::Quantity(place) => invalid(
            format!("lines[{place}].quantity"),
            format!("must be from 1 to {MAX_QUANTITY}, in sum for each sku"),
        ),
    }
}

fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::invalid_argument("INVALID_REQUEST", "the request is not valid")
        .with_field(field, problem)
}
