//! Owns: nothing
//! Offers: HTTP `/api/products`, `/api/orders`, `/api/customers/{id}/notifications`
//! Publishes: nothing
//! Consumes: nothing
//! Calls: catalog, ordering, notification (HTTP); catalog, inventory, payment (gRPC)
//!
//! The edge: it knows paths and methods and decides nothing. One product is answered with
//! its stock and one order with its products and its payment, from several services at once;
//! what is missing is marked, and only the product or the order itself must be there.

pub mod config;
pub mod edge;
pub mod parts;

pub use config::Config;
pub use edge::Edge;

chassis::service! {
    name:   "gateway",
    config: Config,
    state:  Edge::connect,
    http:   edge::router,
}
