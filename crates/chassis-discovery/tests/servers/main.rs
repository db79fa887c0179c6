//! Behaviour of registries on real servers. Run by `cargo xtask test`, or with
//! `--features servers` where etcd and nats-server are installed.

#[cfg(test)]
mod etcd;
#[cfg(test)]
mod nats;

use std::time::Duration;

use chassis_discovery::RegistryConfig;

/// Short enough for a test, with room for a busy machine.
#[cfg(test)]
fn registry() -> RegistryConfig {
    RegistryConfig {
        lease: Duration::from_secs(3),
        grace: Duration::from_secs(8),
        resync: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
    }
}
