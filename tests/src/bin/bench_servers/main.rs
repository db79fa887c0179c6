//! What a request costs a server, beside the bare framework and the usual stack in one run.
//!
//! `cargo xtask bench servers [--json] [NAME…]`, or
//! `cargo run --release -p chassis-tests --features bench-servers --bin bench_servers`.
//!
//! Each server is this program in another process, pinned to the first core; the load comes
//! from the second. The figure is CPU time of the server for a request, user and system, the
//! median of slices in which the candidates alternate, so that a busy machine slows all
//! alike. Instructions are counted by callgrind, user space only, and are the same in each
//! run. One JSON line for each figure; `ratio` is `value` by `anchor_value`. Lines of the log
//! go to /dev/null.
#![allow(clippy::print_stdout, reason = "the figures are the output")]

mod child;
mod collector;
mod figures;
mod hello;
mod load;
mod serve;
mod usual;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("serve") => {
            serve::serve(args.get(1).map_or("", String::as_str), args.get(2).map(String::as_str))
        }
        Some("load") => load::run(&args[1..]),
        _ => figures::measure(args),
    }
}
