//! A service without any part has nothing to run.

mod service {
    chassis::service! { name: "idle" }
}

fn main() {}
