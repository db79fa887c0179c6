//! The shop: payment.
