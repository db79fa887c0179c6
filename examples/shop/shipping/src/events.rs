//! What this service hears and says: contracts on one side, domain words on the other.

use chassis::Result;
use chassis::data::Tx;
use chassis::messaging::Consumer;
use shop_contracts::events::{OrderConfirmed, ParcelShipped};

use crate::Shipping;
use crate::domain::Parcel;

/// The event of a parcel that has left.
pub(crate) fn shipped(parcel: &Parcel) -> ParcelShipped {
    ParcelShipped {
        parcel_id: parcel.id.clone(),
        order_id: parcel.order.clone(),
        customer_id: parcel.customer.clone(),
        tracking: parcel.tracking.clone(),
    }
}

/// Hears that an order is confirmed.
pub fn consumer(shipping: &Shipping) -> Consumer<Shipping> {
    Consumer::new(&shipping.broker, &shipping.db, "shipping", shipping.clone())
        .with_config(shipping.consumer.clone())
        .on::<OrderConfirmed>(order_confirmed)
}

async fn order_confirmed(shipping: Shipping, tx: &mut Tx, event: OrderConfirmed) -> Result<()> {
    let pieces: Vec<i64> = event.lines.iter().map(|line| line.quantity).collect();
    let id = uuid::Uuid::now_v7().to_string();
    let parcel = Parcel::pack(id, event.order_id, event.customer_id, &pieces);
    shipping.ship(tx, &parcel).await
}
