//! Owns: items
//! Offers: HTTP `/items`, `/items/{id}`
//! Publishes: `items.item-added`
//! Consumes: nothing
//! Calls: nobody
//!
//! An item is stored and told of in one transaction.

pub mod api;
pub mod config;
pub mod events;
pub mod items;

pub use config::Config;
pub use items::Items;

chassis::service! {
    name:   "{{project-name}}",
    config: Config,
    state:  Items::connect,
    probes: { "db" => Items::db_probe, "broker" => Items::broker_probe },
    parts:  [Items::outbox_relay],
    http:   api::router,
}
