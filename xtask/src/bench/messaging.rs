//! `bench messaging`: the figures of `crates/chassis-messaging/examples/bench`.

use std::process::Command;

use super::Options;
use crate::test::servers::Servers;

pub(super) fn commands(options: &Options, servers: Option<&Servers>) -> Vec<Command> {
    let mut command = super::cargo(&["-p", "chassis-messaging", "--example", "bench"], options);
    if let Some(servers) = servers {
        command.env("DATABASE_URL", &servers.database).env("NATS_URL", &servers.broker);
        // Servers that were given may be anywhere; the CPU time of ours can be read.
        if let [_, _, ..] = servers.pids[..] {
            let pids: Vec<String> = servers.pids.iter().map(u32::to_string).collect();
            command.env("CHASSIS_BENCH_PIDS", pids.join(","));
        }
    }
    vec![command]
}
