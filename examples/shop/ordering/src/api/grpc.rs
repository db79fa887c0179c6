//! `shop.ordering.v1.Ordering`.

use chassis::grpc::{IntoStatus, Services};
use shop_contracts::ordering::v1 as wire;
use shop_contracts::ordering::v1::ordering_server::{self, OrderingServer};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::Ordering;

/// The gRPC services of this context.
pub fn routes(ordering: &Ordering) -> Services {
    Services::new(Routes::new(OrderingServer::new(Api { ordering: ordering.clone() })))
        .reflection(wire::FILE_DESCRIPTOR_SET)
}

struct Api {
    ordering: Ordering,
}

#[tonic::async_trait]
impl ordering_server::Ordering for Api {
    async fn get_order(
        &self,
        request: Request<wire::GetOrderRequest>,
    ) -> Result<Response<wire::Order>, Status> {
        let id = request.into_inner().id;
        let stored = self.ordering.find(&id).await.map_err(IntoStatus::into_status)?;
        let order = stored.order;
        let total = order.total;
        Ok(Response::new(wire::Order {
            id: order.id,
            customer_id: order.customer,
            status: order.status.as_str().to_owned(),
            reason: order.reason,
            lines: order
                .lines
                .into_iter()
                .map(|line| wire::Line { sku: line.sku, quantity: line.quantity })
                .collect(),
            total_minor: total.as_ref().map_or(0, |total| total.minor),
            currency: total.map_or_else(String::new, |total| total.currency),
            trace_id: stored.trace_id,
        }))
    }
}
