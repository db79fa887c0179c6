//! The edge: routes, forwarding and aggregated answers.
