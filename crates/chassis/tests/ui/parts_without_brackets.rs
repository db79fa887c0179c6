//! `parts` is a list.

mod service {
    chassis::service! { parts: relay }
}

fn main() {}
