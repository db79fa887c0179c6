//! The use cases on a temporary database and an embedded broker.

use std::time::Duration;

use chassis::Code;
use chassis::core::{App, Env, Shutdown};
use chassis::data::DatabaseConfig;
use chassis::messaging::{BrokerConfig, Subscription};
use {{crate_name}}::events::ItemAdded;
use {{crate_name}}::{Config, Items};

/// How long anything may take that should happen soon.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_item_is_stored_and_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let config = Config {
        database: DatabaseConfig::url(format!("sqlite://{}?mode=rwc", path("items.db"))),
        broker: BrokerConfig::at(format!("embedded:{}", path("broker"))),
        ..Config::default()
    };

    let app = App::new(Env::test("items"));
    let items = Items::connect(&app, &config).await.unwrap();
    let mut told = items
        .broker()
        .subscribe(Subscription::new("test", "items.item-added"))
        .await
        .unwrap();
    let (stop, shutdown) = Shutdown::new();
    let running = tokio::spawn(app.with(items.outbox_relay()).run(shutdown));

    let added = items.add("lamp".to_owned()).await.unwrap();
    assert_eq!(items.find(&added.id).await.unwrap().name, "lamp");
    let again = items.add("lamp".to_owned()).await.unwrap_err();
    assert_eq!((again.code(), again.reason()), (Code::AlreadyExists, "NAME_TAKEN"));
    let nameless = items.add(String::new()).await.unwrap_err();
    assert_eq!(nameless.reason(), "INVALID_ITEM");

    let delivery = tokio::time::timeout(SOON, told.next()).await.unwrap().unwrap().unwrap();
    let event: ItemAdded = delivery.message.to_event().unwrap();
    assert_eq!(event, ItemAdded { id: added.id, name: "lamp".to_owned() });
    delivery.ack().await.unwrap();

    drop(told);
    stop.shutdown(SOON);
    running.await.unwrap().unwrap();
}
