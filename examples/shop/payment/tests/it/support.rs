//! A service on a temporary database, and words for what tests do with it.

use std::path::Path;

use chassis::core::{App, Code, Env, Error};
use chassis::data::{DatabaseConfig, Db};
use shop_contracts::payment::v1::payment_client::PaymentClient;
use shop_contracts::payment::v1::{
    ChargeRequest, GetPaymentRequest, PaymentDetails, RefundRequest,
};
use shop_payment::config::ProviderConfig;
use shop_payment::provider::bank::Bank;
use shop_payment::{Config, Payments, api};
use tempfile::TempDir;
use tonic::service::Routes;

/// The service; the folder is removed with it.
pub(crate) struct Shop {
    folder: TempDir,
    pub(crate) payments: Payments,
    client: PaymentClient<Routes>,
}

/// A provider that answers every call at once.
pub(crate) fn good() -> ProviderConfig {
    ProviderConfig { fail_share: 0.0, slow_share: 0.0, ..ProviderConfig::default() }
}

/// A provider of which no call gets an answer; with this seed the first calls
/// do their work and lose the answer.
pub(crate) fn forgetful() -> ProviderConfig {
    use shop_payment::provider::mood::{Mood, Moods};
    let mut config = ProviderConfig { fail_share: 1.0, slow_share: 0.0, ..good() };
    config.client.max_attempts = 1;
    let forgets_first = |seed: &u64| {
        let mut moods = Moods::new(*seed, 1.0, 0.0);
        (0..3).all(|_| moods.draw() == Mood::Forgets)
    };
    config.seed = (0..).find(forgets_first).unwrap();
    config
}

impl Shop {
    pub(crate) async fn open(provider: ProviderConfig) -> Shop {
        Shop::open_in(tempfile::tempdir().unwrap(), provider).await
    }

    async fn open_in(folder: TempDir, provider: ProviderConfig) -> Shop {
        let config = Config { database: database(folder.path()), provider, ..Config::default() };
        let app = App::new(Env::test("payment"));
        let payments = Payments::connect(&app, &config).await.unwrap();
        let client = PaymentClient::new(api::grpc::routes(&payments).into_routes());
        Shop { folder, payments, client }
    }

    /// The same database, opened again with another provider in front.
    pub(crate) async fn reopen(self, provider: ProviderConfig) -> Shop {
        let Shop { folder, payments, client } = self;
        drop((payments, client));
        Shop::open_in(folder, provider).await
    }

    pub(crate) async fn charge(&self, request: ChargeRequest) -> Result<String, Error> {
        let answer = self.client.clone().charge(request).await;
        answer.map(|answer| answer.into_inner().payment_id).map_err(chassis::grpc::from_status)
    }

    pub(crate) async fn refund(&self, order_id: &str) -> Result<(), Error> {
        let request = RefundRequest {
            idempotency_key: format!("refund-{order_id}"),
            order_id: order_id.to_owned(),
        };
        self.client.clone().refund(request).await.map(drop).map_err(chassis::grpc::from_status)
    }

    pub(crate) async fn payment(&self, order_id: &str) -> Result<PaymentDetails, Error> {
        let request = GetPaymentRequest { order_id: order_id.to_owned() };
        let answer = self.client.clone().get_payment(request).await;
        answer.map(tonic::Response::into_inner).map_err(chassis::grpc::from_status)
    }

    pub(crate) async fn status(&self, order_id: &str) -> String {
        self.payment(order_id).await.unwrap().status
    }

    /// What the provider has taken and not given back, read from its books with
    /// a connection of our own.
    pub(crate) async fn kept_by_the_bank(&self) -> i64 {
        let db = Db::connect(&database(self.folder.path())).await.unwrap();
        Bank::new(db).kept().await.unwrap()
    }
}

fn database(folder: &Path) -> DatabaseConfig {
    DatabaseConfig::url(format!("sqlite://{}?mode=rwc", folder.join("payment.db").display()))
}

/// Asks for 5 EUR of a good card.
pub(crate) fn five_euros(order_id: &str) -> ChargeRequest {
    ChargeRequest {
        idempotency_key: format!("charge-{order_id}"),
        order_id: order_id.to_owned(),
        amount_minor: 500,
        currency: "EUR".to_owned(),
        card_token: "tok_visa".to_owned(),
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
