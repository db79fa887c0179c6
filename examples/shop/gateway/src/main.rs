//! The gateway service as a process of its own.

fn main() -> chassis::Exit {
    shop_gateway::main()
}
