//! The events of the shop: facts, in the past tense, as JSON.
//!
//! Each event names its topic and its versioned type here and nowhere else, so
//! that a publisher and its consumers cannot disagree. All of them are keyed
//! by order: what happened to one order is read in the order in which it
//! happened.

use chassis::messaging::Event;
use serde::{Deserialize, Serialize};

/// A number of pieces of one product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The product's key.
    pub sku: String,
    /// Pieces; at least one.
    pub quantity: i64,
}

/// An order is paid and its pieces are kept: it will be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderConfirmed {
    /// The order's key.
    pub order_id: String,
    /// Who ordered.
    pub customer_id: String,
    /// What was ordered.
    pub lines: Vec<Line>,
    /// What was paid, in minor units (cents).
    pub total_minor: i64,
    /// ISO 4217 code of the amount, for example "EUR".
    pub currency: String,
}

impl Event for OrderConfirmed {
    const TOPIC: &'static str = "ordering.order-confirmed";
    const TYPE: &'static str = "order-confirmed.v1";

    fn key(&self) -> Option<String> {
        Some(self.order_id.clone())
    }
}

/// An order ended without being sent; what it had taken was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCancelled {
    /// The order's key.
    pub order_id: String,
    /// Who ordered.
    pub customer_id: String,
    /// A stable reason, for example "CARD_DECLINED" or "OUT_OF_STOCK".
    pub reason: String,
}

impl Event for OrderCancelled {
    const TOPIC: &'static str = "ordering.order-cancelled";
    const TYPE: &'static str = "order-cancelled.v1";

    fn key(&self) -> Option<String> {
        Some(self.order_id.clone())
    }
}

/// A parcel with an order's pieces left the house.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParcelShipped {
    /// The parcel's key.
    pub parcel_id: String,
    /// The order whose pieces it holds.
    pub order_id: String,
    /// Who gets it.
    pub customer_id: String,
    /// The carrier's name for the parcel.
    pub tracking: String,
}

impl Event for ParcelShipped {
    const TOPIC: &'static str = "shipping.parcel-shipped";
    const TYPE: &'static str = "parcel-shipped.v1";

    fn key(&self) -> Option<String> {
        Some(self.order_id.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde_json::{Value, json};

    use super::*;

    /// The JSON of an event is what other versions of other services read: it
    /// stands here as it is on the wire.
    fn holds<E: Event + Debug + PartialEq>(event: E, wire: Value) {
        assert_eq!(serde_json::to_value(&event).unwrap(), wire);
        assert_eq!(event.key().as_deref(), Some("o-1"));
        let read: E = serde_json::from_value(with_unknown_field(wire)).unwrap();
        assert_eq!(read, event);
    }

    /// A newer publisher may add a field; an older reader must not mind.
    fn with_unknown_field(mut wire: Value) -> Value {
        wire["added_later"] = json!(true);
        wire
    }

    #[test]
    fn an_order_confirmed_is_written_as_agreed() {
        let event = OrderConfirmed {
            order_id: "o-1".to_owned(),
            customer_id: "c-1".to_owned(),
            lines: vec![Line { sku: "tea-bowl".to_owned(), quantity: 2 }],
            total_minor: 3_600,
            currency: "EUR".to_owned(),
        };
        holds(
            event,
            json!({
                "order_id": "o-1",
                "customer_id": "c-1",
                "lines": [{ "sku": "tea-bowl", "quantity": 2 }],
                "total_minor": 3_600,
                "currency": "EUR",
            }),
        );
    }

    #[test]
    fn an_order_cancelled_is_written_as_agreed() {
        let event = OrderCancelled {
            order_id: "o-1".to_owned(),
            customer_id: "c-1".to_owned(),
            reason: "CARD_DECLINED".to_owned(),
        };
        let wire = json!({ "order_id": "o-1", "customer_id": "c-1", "reason": "CARD_DECLINED" });
        holds(event, wire);
    }

    #[test]
    fn a_parcel_shipped_is_written_as_agreed() {
        let event = ParcelShipped {
            parcel_id: "p-1".to_owned(),
            order_id: "o-1".to_owned(),
            customer_id: "c-1".to_owned(),
            tracking: "T-1".to_owned(),
        };
        let wire = json!({
            "parcel_id": "p-1",
            "order_id": "o-1",
            "customer_id": "c-1",
            "tracking": "T-1",
        });
        holds(event, wire);
    }

    #[test]
    fn every_event_has_its_own_topic_and_type() {
        let names = [
            (OrderConfirmed::TOPIC, OrderConfirmed::TYPE),
            (OrderCancelled::TOPIC, OrderCancelled::TYPE),
            (ParcelShipped::TOPIC, ParcelShipped::TYPE),
        ];
        assert_eq!(
            names,
            [
                ("ordering.order-confirmed", "order-confirmed.v1"),
                ("ordering.order-cancelled", "order-cancelled.v1"),
                ("shipping.parcel-shipped", "parcel-shipped.v1"),
            ]
        );
    }
}
