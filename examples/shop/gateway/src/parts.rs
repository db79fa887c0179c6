//! Parts of an answer that are asked by gRPC and shown as JSON.

use std::future::Future;
use std::time::Duration;

use chassis::gateway::PartRequest;
use chassis::grpc::{Channel, from_status, or_last_good};
use chassis::resilience::{Cache, CacheSettings, Degraded};
use chassis::{Error, Result};
use serde_json::Value;
use shop_contracts::catalog::v1::GetProductRequest;
use shop_contracts::catalog::v1::catalog_client::CatalogClient;
use shop_contracts::inventory::v1::GetStockRequest;
use shop_contracts::inventory::v1::inventory_client::InventoryClient;
use shop_contracts::payment::v1::GetPaymentRequest;
use shop_contracts::payment::v1::payment_client::PaymentClient;
use tonic::Request;

/// Products whose stock is kept for when the inventory fails.
const MAX_KEPT: usize = 10_000;

/// The stock of the product in the path; while the inventory fails, the last that it said, with
/// `as_of_seconds_ago`: a customer who looks is better served by that than by nothing, and
/// whoever orders is served by the inventory itself. It has to answer within `limit`.
pub(crate) fn stock_of_product(
    channel: Channel,
    limit: Duration,
) -> impl Fn(PartRequest) -> AnswerFuture + Send + Sync + 'static {
    let client = InventoryClient::new(channel);
    let kept = Cache::new(CacheSettings { max_entries: MAX_KEPT, ..CacheSettings::default() });
    move |request| {
        let (mut client, kept) = (client.clone(), kept.clone());
        answer(async move {
            let sku = request.param("sku").to_owned();
            let mut request = Request::new(GetStockRequest { sku: sku.clone() });
            request.set_timeout(limit);
            let stock =
                or_last_good(&kept, sku, client.get_stock(request)).await.map_err(from_status)?;
            let mut shown = to_json(&stock.value)?;
            if let Some(Degraded::Cached { age }) = stock.degraded {
                shown["as_of_seconds_ago"] = age.as_secs().into();
            }
            Ok(shown)
        })
    }
}

/// The products of the order that was fetched before, in the order of its lines.
pub(crate) fn products_of_order(
    channel: Channel,
) -> impl Fn(PartRequest) -> AnswerFuture + Send + Sync + 'static {
    let client = CatalogClient::new(channel);
    move |request| {
        let mut client = client.clone();
        answer(async move {
            let mut products = Vec::new();
            for line in request.value("order")["lines"].as_array().into_iter().flatten() {
                let sku = line["sku"].as_str().unwrap_or_default().to_owned();
                let product = client.get_product(GetProductRequest { sku }).await;
                products.push(to_json(&product.map_err(from_status)?.into_inner())?);
            }
            Ok(Value::Array(products))
        })
    }
}

/// The payment of the order in the path.
pub(crate) fn payment_of_order(
    channel: Channel,
) -> impl Fn(PartRequest) -> AnswerFuture + Send + Sync + 'static {
    let client = PaymentClient::new(channel);
    move |request| {
        let mut client = client.clone();
        answer(async move {
            let request = GetPaymentRequest { order_id: request.param("id").to_owned() };
            let payment = client.get_payment(request).await.map_err(from_status)?;
            to_json(&payment.into_inner())
        })
    }
}

/// What a part's function gives.
pub(crate) type AnswerFuture = chassis::BoxFuture<'static, Result<Value>>;

fn answer(future: impl Future<Output = Result<Value>> + Send + 'static) -> AnswerFuture {
    Box::pin(future)
}

fn to_json(message: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(message).map_err(Error::internal)
}
