//! `parts` is a list.

chassis::service! { parts: relay }
