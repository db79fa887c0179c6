//! What this service publishes and reacts to: contracts on one side, domain words on the other.

use chassis::data::Tx;
use chassis::messaging::Consumer;
use chassis::{Error, Result};
use shop_contracts::events::{self as wire, OrderCancelled, OrderConfirmed, ParcelShipped};

use crate::Ordering;
use crate::domain::Order;

/// The event of a confirmed order.
pub(crate) fn confirmed(order: &Order) -> Result<OrderConfirmed> {
    let total = order.total.as_ref().ok_or_else(|| Error::internal("confirmed without a price"))?;
    Ok(OrderConfirmed {
        order_id: order.id.clone(),
        customer_id: order.customer.clone(),
        lines: order
            .lines
            .iter()
            .map(|line| wire::Line { sku: line.sku.clone(), quantity: line.quantity })
            .collect(),
        total_minor: total.minor,
        currency: total.currency.clone(),
    })
}

/// The event of a cancelled order.
pub(crate) fn cancelled(order: &Order) -> OrderCancelled {
    OrderCancelled {
        order_id: order.id.clone(),
        customer_id: order.customer.clone(),
        reason: order.reason.clone().unwrap_or_default(),
    }
}

/// Hears that a parcel has left.
pub fn consumer(ordering: &Ordering) -> Consumer<Ordering> {
    Consumer::new(&ordering.broker, &ordering.db, "ordering", ordering.clone())
        .with_config(ordering.consumer.clone())
        .on::<ParcelShipped>(parcel_shipped)
}

async fn parcel_shipped(ordering: Ordering, tx: &mut Tx, event: ParcelShipped) -> Result<()> {
    ordering.parcel_shipped(tx, &event.order_id).await
}
