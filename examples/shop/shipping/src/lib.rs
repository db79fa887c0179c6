//! Owns: parcels
//! Offers: nothing; a worker is a service too
//! Publishes: `shipping.parcel-shipped`
//! Consumes: `ordering.order-confirmed`
//! Calls: nobody
//!
//! Choreography: nobody tells this service what to do. It hears that an order is confirmed,
//! packs a parcel, and says so, all in one transaction with the inbox and the outbox, so
//! that a message that comes twice packs one parcel.

pub mod config;
pub mod domain;
pub mod events;
pub mod shipping;
pub mod store;

pub use config::Config;
pub use shipping::Shipping;

chassis::service! {
    name:   "shipping",
    config: Config,
    state:  Shipping::connect,
    probes: { "shipping-db" => Shipping::db_probe, "broker" => Shipping::broker_probe },
    parts:  [Shipping::outbox_relay, events::consumer],
}
