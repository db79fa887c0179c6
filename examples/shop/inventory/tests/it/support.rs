//! A service on a temporary database, and words for what tests do with it.

use chassis::core::{App, Code, Env, Error};
use chassis::data::DatabaseConfig;
use shop_contracts::inventory::v1::inventory_client::InventoryClient;
use shop_contracts::inventory::v1::{GetStockRequest, Line, ReleaseRequest, ReserveRequest, Stock};
use shop_inventory::{Config, Inventory, api};
use tempfile::TempDir;
use tonic::service::Routes;

/// The service; the folder is removed with it.
pub(crate) struct Shop {
    folder: TempDir,
    client: InventoryClient<Routes>,
}

impl Shop {
    /// A new one, with the first pieces in.
    pub(crate) async fn open() -> Shop {
        Shop::open_in(tempfile::tempdir().unwrap()).await
    }

    async fn open_in(folder: TempDir) -> Shop {
        let file = folder.path().join("inventory.db");
        let config = Config {
            database: DatabaseConfig::url(format!("sqlite://{}?mode=rwc", file.display())),
            ..Config::default()
        };
        let app = App::new(Env::test("inventory"));
        let inventory = Inventory::connect(&app, &config).await.unwrap();
        let client = InventoryClient::new(api::grpc::routes(&inventory).into_routes());
        Shop { folder, client }
    }

    /// The same database, opened again.
    pub(crate) async fn reopen(self) -> Shop {
        drop(self.client);
        Shop::open_in(self.folder).await
    }

    pub(crate) async fn reserve(&self, id: &str, lines: &[(&str, i64)]) -> Result<(), Error> {
        let lines = lines
            .iter()
            .map(|(sku, quantity)| Line { sku: (*sku).to_owned(), quantity: *quantity });
        let request = ReserveRequest { reservation_id: id.to_owned(), lines: lines.collect() };
        let answer = self.client.clone().reserve(request).await;
        answer.map(drop).map_err(chassis::grpc::from_status)
    }

    pub(crate) async fn release(&self, id: &str) -> Result<(), Error> {
        let request = ReleaseRequest { reservation_id: id.to_owned() };
        let answer = self.client.clone().release(request).await;
        answer.map(drop).map_err(chassis::grpc::from_status)
    }

    pub(crate) async fn stock(&self, sku: &str) -> Result<Stock, Error> {
        let request = GetStockRequest { sku: sku.to_owned() };
        let answer = self.client.clone().get_stock(request).await;
        answer.map(tonic::Response::into_inner).map_err(chassis::grpc::from_status)
    }

    pub(crate) async fn reserved(&self, sku: &str) -> i64 {
        self.stock(sku).await.unwrap().reserved
    }
}

/// Asserts on an error's code and reason.
pub(crate) fn assert_refused<T: std::fmt::Debug>(
    answer: Result<T, Error>,
    code: Code,
    reason: &str,
) -> Error {
    let error = answer.unwrap_err();
    assert_eq!((error.code(), error.reason()), (code, reason), "{error:?}");
    error
}
