//! `cargo run -p shop`: the whole shop in one process; `cargo run -p shop -- smoke`: its journey.
#![allow(clippy::print_stdout, clippy::print_stderr)]
// A command talks to the person who typed it.

use chassis::Exit;
use shop::{cli, cli::Command, smoke, up};

fn main() -> Exit {
    let outcome = match cli::parse(std::env::args().skip(1)) {
        Ok(Command::Help) => {
            print!("{}", cli::HELP);
            return Exit::Success;
        }
        Ok(Command::Up(options)) => up::main(options),
        Ok(Command::Smoke(options)) => smoke::main(&options),
        Err(problem) => {
            eprintln!("shop: {problem}");
            return Exit::Usage;
        }
    };
    match outcome {
        Ok(()) => Exit::Success,
        Err(error) => {
            eprintln!("shop: {}", error.chain());
            Exit::Failure
        }
    }
}
