//! The shop's contracts: what its services say to each other.
//!
//! Wire types only, versioned by package and by event type, and no logic: a
//! service translates them into its own words at its edge, so that its domain
//! does not change when a message does. No service names another service's
//! crate; all of them name this one.
//!
//! - gRPC: one module for each context, made from `proto/`. The comments in
//!   the protos are the reference: errors by code and reason, and which calls
//!   may be repeated.
//! - [`events`]: what services publish, as JSON.
//!
//! A field is added, never renamed or given another meaning; a change that
//! breaks a reader is a new package or a new event type.

pub mod events;

/// Products and prices.
pub mod catalog {
    /// The first version of the contract.
    #[allow(missing_docs)]
    pub mod v1 {
        tonic::include_proto!("shop.catalog.v1");
        /// The compiled proto, for server reflection.
        pub const FILE_DESCRIPTOR_SET: &[u8] =
            include_bytes!(concat!(env!("OUT_DIR"), "/catalog_v1.bin"));
    }
}

/// Stock and reservations.
pub mod inventory {
    /// The first version of the contract.
    #[allow(missing_docs)]
    pub mod v1 {
        tonic::include_proto!("shop.inventory.v1");
        /// The compiled proto, for server reflection.
        pub const FILE_DESCRIPTOR_SET: &[u8] =
            include_bytes!(concat!(env!("OUT_DIR"), "/inventory_v1.bin"));
    }
}

/// Charges and refunds.
pub mod payment {
    /// The first version of the contract.
    #[allow(missing_docs)]
    pub mod v1 {
        tonic::include_proto!("shop.payment.v1");
        /// The compiled proto, for server reflection.
        pub const FILE_DESCRIPTOR_SET: &[u8] =
            include_bytes!(concat!(env!("OUT_DIR"), "/payment_v1.bin"));
    }
}

/// Orders, as other services may read them.
pub mod ordering {
    /// The first version of the contract.
    #[allow(missing_docs)]
    pub mod v1 {
        tonic::include_proto!("shop.ordering.v1");
        /// The compiled proto, for server reflection.
        pub const FILE_DESCRIPTOR_SET: &[u8] =
            include_bytes!(concat!(env!("OUT_DIR"), "/ordering_v1.bin"));
    }
}
