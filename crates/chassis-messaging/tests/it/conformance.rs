//! The embedded broker keeps the contract of a broker.

use chassis_messaging::broker::conformance::{SCENARIOS, run_all};
use chassis_messaging::{Broker, BrokerConfig};

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_broker_passes_all_scenarios() {
    let folder = tempfile::tempdir().unwrap();
    let config = BrokerConfig::at(format!("embedded:{}", folder.path().display()));
    let passed = run_all(move || {
        let config = config.clone();
        async move { Broker::connect(&config).await }
    });
    assert_eq!(passed.await, Ok(SCENARIOS.len()));
}
