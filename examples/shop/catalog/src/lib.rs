//! Owns: products and their prices
//! Offers: HTTP `/products`, `/products/{sku}`; gRPC `shop.catalog.v1.Catalog`
//! Publishes: nothing
//! Consumes: nothing
//! Calls: nobody
//!
//! The plain service: it reads one table, remembers for a few seconds what it
//! read, and answers in two protocols from one use case.

chassis::service! {
    name:   "catalog",
    config: Config,
    state:  Catalog::connect,
    probes: { "catalog-db" => Catalog::db_probe },
    parts:  [],
    grpc:   api::grpc::routes,
    http:   api::http::router,
    register: Catalog::registration,
}

pub mod domain;

pub mod catalog;

pub mod cache;

pub mod store;

pub mod seed;

pub mod api;

pub mod config;

pub use catalog::Catalog;
pub use config::Config;
