//! A service without any part has nothing to run.

chassis::service! { name: "idle" }

