//! One copy of the workload as a process: `cargo xtask torture` runs several.

use chassis_tests::torture::service::{Config, Service};

fn main() -> chassis::Exit {
    chassis::run(chassis::service_info!("torture"), |app, config: Config| async move {
        Ok(Service::connect(&config).await?.app(app))
    })
}
