//! Owns: stock and reservations
//! Offers: gRPC `shop.inventory.v1.Inventory` (reserve, release, stock)
//! Publishes: nothing
//! Consumes: nothing
//! Calls: nobody
//!
//! A compensation target: the checkout reserves pieces here and, where it ends
//! badly, releases them. Both calls are idempotent in the database transaction
//! that does the work, and a release that overtakes its reserve wins.

chassis::service! {
    name:   "inventory",
    config: Config,
    state:  Inventory::connect,
    probes: { "inventory-db" => Inventory::db_probe },
    parts:  [],
    grpc:   api::grpc::routes,
    register: Inventory::registration,
}

pub mod domain;

pub mod inventory;

pub mod store;

pub mod seed;

pub mod api;

pub mod config;

pub use config::Config;
pub use inventory::Inventory;
