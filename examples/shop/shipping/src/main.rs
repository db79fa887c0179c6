//! The shipping service as a process of its own.

fn main() -> chassis::Exit {
    shop_shipping::main()
}
