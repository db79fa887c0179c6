//! The shop: notification.
