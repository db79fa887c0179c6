//! Owns: what each customer was told
//! Offers: HTTP `/customers/{id}/notifications`
//! Publishes: nothing
//! Consumes: `ordering.order-confirmed`, `ordering.order-cancelled`, `shipping.parcel-shipped`
//! Calls: nobody
//!
//! Fan-out and a read model: it hears everything that a customer should know, keeps it in
//! the words that the customer reads, and never asks another service for more.

pub mod api;
pub mod config;
pub mod domain;
pub mod events;
pub mod notification;
pub mod store;

pub use config::Config;
pub use notification::Notification;

chassis::service! {
    name:     "notification",
    config:   Config,
    state:    Notification::connect,
    probes:   { "notification-db" => Notification::db_probe, "broker" => Notification::broker_probe },
    parts:    [events::consumer],
    http:     api::http::router,
    register: Notification::registration,
}
