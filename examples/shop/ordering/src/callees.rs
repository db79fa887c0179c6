//! The services that this one calls, in its own words.

use chassis::core::App;
use chassis::discovery::Discovery;
use chassis::grpc::{Channel, from_status};
use chassis::{Error, Result};
use shop_contracts::catalog::v1::catalog_client::CatalogClient;
use shop_contracts::catalog::v1::{GetProductRequest, Product};
use shop_contracts::inventory::v1::inventory_client::InventoryClient;
use shop_contracts::inventory::v1::{self as inventory, ReleaseRequest, ReserveRequest};
use shop_contracts::payment::v1::payment_client::PaymentClient;
use shop_contracts::payment::v1::{ChargeRequest, RefundRequest};

use crate::config::Config;
use crate::domain::{Line, Money};

/// Clients of the services that a checkout needs. Cheap to clone.
#[derive(Clone)]
pub struct Callees {
    catalog: CatalogClient<Channel>,
    inventory: InventoryClient<Channel>,
    payment: PaymentClient<Channel>,
}

impl Callees {
    /// Clients by service name; nobody is called yet.
    ///
    /// # Errors
    /// Client settings that cannot work.
    pub fn new(app: &App, config: &Config, discovery: &Discovery) -> Result<Callees> {
        let chaos = config.chaos.chaos(app.env().operations());
        // Every call that a checkout makes may be repeated: the contracts say so.
        let channel = |service: &str, client| {
            Channel::builder(service, discovery)
                .config(client)
                .idempotent(true)
                .chaos(&chaos)
                .metrics(app.metrics())
                .build()
        };
        Ok(Callees {
            catalog: CatalogClient::new(channel("catalog", &config.catalog)?),
            inventory: InventoryClient::new(channel("inventory", &config.inventory)?),
            payment: PaymentClient::new(channel("payment", &config.payment)?),
        })
    }

    /// What one product costs. Dropping the future is harmless.
    ///
    /// # Errors
    /// `PRODUCT_NOT_FOUND`, and those of the call.
    pub async fn product(&self, sku: &str) -> Result<Product> {
        let request = GetProductRequest { sku: sku.to_owned() };
        let product = self.catalog.clone().get_product(request).await.map_err(from_status)?;
        Ok(product.into_inner())
    }

    /// What these lines cost together. Dropping the future is harmless.
    ///
    /// # Errors
    /// `PRODUCT_NOT_FOUND`, `AMOUNT_TOO_LARGE`, and those of the calls.
    pub async fn price(&self, lines: &[Line]) -> Result<Money> {
        let mut total: Option<Money> = None;
        for line in lines {
            let product = self.product(&line.sku).await?;
            let minor = product
                .price_minor
                .checked_mul(line.quantity)
                .and_then(|amount| amount.checked_add(total.as_ref().map_or(0, |sum| sum.minor)))
                .ok_or_else(|| {
                    Error::invalid_argument("AMOUNT_TOO_LARGE", "the order's amount is too large")
                })?;
            if total.as_ref().is_some_and(|total| total.currency != product.currency) {
                return Err(Error::failed_precondition(
                    "CURRENCIES_DIFFER",
                    "the products are not all sold in one currency",
                ));
            }
            total = Some(Money { minor, currency: product.currency });
        }
        total.ok_or_else(|| Error::internal("an order without lines"))
    }

    /// Keeps the pieces under the order's id. Dropping the future leaves open whether they
    /// are kept: repeat the call.
    ///
    /// # Errors
    /// `OUT_OF_STOCK`, and those of the call.
    pub async fn reserve(&self, order_id: &str, lines: &[Line]) -> Result<()> {
        let lines = lines
            .iter()
            .map(|line| inventory::Line { sku: line.sku.clone(), quantity: line.quantity })
            .collect();
        let request = ReserveRequest { reservation_id: order_id.to_owned(), lines };
        self.inventory.clone().reserve(request).await.map_err(from_status)?;
        Ok(())
    }

    /// Gives the pieces back. Dropping the future: repeat the call.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn release(&self, order_id: &str) -> Result<()> {
        let request = ReleaseRequest { reservation_id: order_id.to_owned() };
        self.inventory.clone().release(request).await.map_err(from_status)?;
        Ok(())
    }

    /// Charges the card once for each key. Dropping the future leaves open whether it is
    /// charged: repeat the call with the same key.
    ///
    /// # Errors
    /// `CARD_DECLINED`, and those of the call.
    pub async fn charge(
        &self,
        key: String,
        order_id: &str,
        card: &str,
        total: &Money,
    ) -> Result<()> {
        let request = ChargeRequest {
            idempotency_key: key,
            order_id: order_id.to_owned(),
            amount_minor: total.minor,
            currency: total.currency.clone(),
            card_token: card.to_owned(),
        };
        self.payment.clone().charge(request).await.map_err(from_status)?;
        Ok(())
    }

    /// Gives the money back. Dropping the future: repeat the call.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn refund(&self, key: String, order_id: &str) -> Result<()> {
        let request = RefundRequest { idempotency_key: key, order_id: order_id.to_owned() };
        self.payment.clone().refund(request).await.map_err(from_status)?;
        Ok(())
    }
}
