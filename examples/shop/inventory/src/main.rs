//! The inventory service as a process of its own.

fn main() -> chassis::Exit {
    shop_inventory::main()
}
