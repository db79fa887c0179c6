//! Owns: charges and refunds, one payment for each order
//! Offers: gRPC `shop.payment.v1.Payment` (charge, refund, read)
//! Publishes: nothing
//! Consumes: nothing
//! Calls: the payment provider (simulated, and moody)
//!
//! A service whose dependency belongs to someone else: slow at times, failing
//! at times, and at times silent about work that it has done. The provider
//! stands behind retry, bulkhead, breaker and timeouts; a crash between its
//! answer and our commit is bridged by writing the intent down first.

chassis::service! {
    name:   "payment",
    config: Config,
    state:  Payments::connect,
    probes: {
        "payment-db" => Payments::db_probe,
        "payment-provider" => Payments::provider_probe,
    },
    parts:  [Payments::settler],
    grpc:   api::grpc::routes,
    register: Payments::registration,
}

pub mod domain;

pub mod payment;

pub mod provider;

pub mod settler;

pub mod store;

pub mod api;

pub mod config;

pub use config::Config;
pub use payment::Payments;
