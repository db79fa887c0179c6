//! Owns: orders, and the saga that carries one from the basket to the parcel
//! Offers: HTTP `/orders`, `/orders/{id}`; gRPC `shop.ordering.v1.Ordering`
//! Publishes: `ordering.order-confirmed`, `ordering.order-cancelled`
//! Consumes: `shipping.parcel-shipped`
//! Calls: catalog, inventory, payment (gRPC)
//!
//! The full set: an order is placed in one transaction with the start of its checkout, the
//! saga calls the others and undoes what it did where one refuses, and what the others
//! should know leaves by the outbox.

pub mod api;
pub mod callees;
pub mod config;
pub mod domain;
pub mod events;
pub mod ordering;
pub mod saga;
pub mod store;

pub use config::Config;
pub use ordering::Ordering;

chassis::service! {
    name:     "ordering",
    config:   Config,
    state:    Ordering::connect,
    probes:   { "ordering-db" => Ordering::db_probe, "broker" => Ordering::broker_probe },
    parts:    [Ordering::outbox_relay, saga::runner, events::consumer],
    grpc:     api::grpc::routes,
    http:     api::http::router,
    register: Ordering::registration,
}
