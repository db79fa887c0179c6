//! `bench servers`: the figures of `tests/src/bin/bench_servers`.

use std::process::Command;

use super::Options;
use crate::test::servers::Servers;

pub(super) fn commands(options: &Options, _: Option<&Servers>) -> Vec<Command> {
    let program = ["-p", "chassis-tests", "--features", "bench-servers", "--bin", "bench_servers"];
    vec![super::cargo(&program, options)]
}
