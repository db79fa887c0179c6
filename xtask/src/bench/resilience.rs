//! `bench resilience`: figures of several crates, each measured by an example of its own.

use std::process::Command;

use super::Options;
use crate::test::servers::Servers;

/// What is measured where: figures, package, example.
const PROGRAMS: [(&[&str], &str, &str); 4] = [
    (
        &[
            "breaker_call_1",
            "breaker_call_8",
            "breaker_call_64",
            "breaker_opens_after_100k_successes",
            "rate_limit_1m_keys",
            "rate_limit_1m_keys_memory",
        ],
        "chassis-resilience",
        "bench",
    ),
    (&["balance_1000", "balance_1000_by_key"], "chassis-discovery", "balance"),
    (&["http_client_stack"], "chassis-http", "client_stack"),
    (&["grpc_client_stack"], "chassis-grpc", "channel_stack"),
];

pub(super) fn commands(options: &Options, _: Option<&Servers>) -> Vec<Command> {
    let wanted = PROGRAMS.iter().filter(|(figures, ..)| options.wants(figures));
    let command = |(_, package, example): &(_, &str, &str)| {
        let features: &[&str] =
            if *package == "chassis-resilience" { &["--features", "bench"] } else { &[] };
        let program = [&["-p", package, "--example", example], features].concat();
        super::cargo(&program, options)
    };
    wanted.map(command).collect()
}
