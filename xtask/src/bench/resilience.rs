//! `bench resilience`: the figures of `crates/chassis-resilience/examples/bench.rs`.

use std::process::Command;

use super::Options;
use crate::test::servers::Servers;

pub(super) fn command(options: &Options, _: Option<&Servers>) -> Command {
    let program = ["-p", "chassis-resilience", "--features", "bench", "--example", "bench"];
    super::cargo(&program, options)
}
