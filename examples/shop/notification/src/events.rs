//! What this service hears: contracts on one side, domain words on the other.

use chassis::Result;
use chassis::data::Tx;
use chassis::messaging::Consumer;
use shop_contracts::events::{OrderCancelled, OrderConfirmed, ParcelShipped};

use crate::Notification;
use crate::domain::Happened;

/// Hears everything that a customer should know.
pub fn consumer(notification: &Notification) -> Consumer<Notification> {
    Consumer::new(&notification.broker, &notification.db, "notification", notification.clone())
        .with_config(notification.consumer.clone())
        .on::<OrderConfirmed>(order_confirmed)
        .on::<OrderCancelled>(order_cancelled)
        .on::<ParcelShipped>(parcel_shipped)
}

async fn order_confirmed(state: Notification, tx: &mut Tx, event: OrderConfirmed) -> Result<()> {
    let OrderConfirmed { total_minor, currency, .. } = event;
    let happened = Happened::OrderConfirmed { total_minor, currency };
    state.tell(tx, &event.customer_id, &event.order_id, &happened).await
}

async fn order_cancelled(state: Notification, tx: &mut Tx, event: OrderCancelled) -> Result<()> {
    let happened = Happened::OrderCancelled { reason: event.reason };
    state.tell(tx, &event.customer_id, &event.order_id, &happened).await
}

async fn parcel_shipped(state: Notification, tx: &mut Tx, event: ParcelShipped) -> Result<()> {
    let happened = Happened::ParcelShipped { tracking: event.tracking };
    state.tell(tx, &event.customer_id, &event.order_id, &happened).await
}
