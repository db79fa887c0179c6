//! The service as a process of its own.

fn main() -> chassis::Exit {
    {{crate_name}}::main()
}
