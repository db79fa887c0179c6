//! `cargo run -p shop`: the whole shop in one process; `cargo run -p shop -- smoke`: its journey;
//! `cargo run -p shop -- ops`, `… saga` and `… dlq`: what an operator asks of it.

use chassis::{Code, Exit};
use shop::{
    cli,
    cli::Command,
    load, operate, smoke,
    terminal::{complain, say},
    up,
};

fn main() -> Exit {
    let outcome =
        match cli::parse(std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()))
        {
            Ok(Command::Help(text)) => {
                say(text.trim_end());
                return Exit::Success;
            }
            Ok(Command::Up(options)) => up::main(options),
            Ok(Command::Smoke(options)) => smoke::main(&options),
            Ok(Command::Visit(gateway)) => smoke::visit(&gateway),
            Ok(Command::Load(load)) => load::main(&load),
            Ok(Command::Operate(request)) => operate::main(&request),
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
