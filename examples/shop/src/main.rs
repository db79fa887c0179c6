//! `cargo run -p shop`: the whole shop in one process; `cargo run -p shop -- smoke`: its journey.

use chassis::{Code, Exit};
use shop::{
    cli,
    cli::Command,
    smoke,
    terminal::{complain, say},
    up,
};

fn main() -> Exit {
    let outcome = match cli::parse(std::env::args().skip(1)) {
        Ok(Command::Help) => {
            say(cli::HELP.trim_end());
            return Exit::Success;
        }
        Ok(Command::Up(options)) => up::main(options),
        Ok(Command::Smoke(options)) => smoke::main(&options),
        Err(problem) => {
            complain(format_args!("shop: {problem}"));
            return Exit::Usage;
        }
    };
    match outcome {
        Ok(()) => Exit::Success,
        Err(error) => {
            complain(format_args!("shop: {}", error.chain()));
            // Wrong settings are put right by the caller.
            if error.code() == Code::InvalidArgument { Exit::Usage } else { Exit::Failure }
        }
    }
}
