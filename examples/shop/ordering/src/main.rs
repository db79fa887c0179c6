//! The ordering service as a process of its own.

fn main() -> chassis::Exit {
    shop_ordering::main()
}
