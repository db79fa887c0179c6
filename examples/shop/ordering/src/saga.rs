//! The checkout: from a basket to a parcel, or back to where it began.
//!
//! Params, then the table, then the steps. What must be undone (stock, money) is
//! orchestrated here; what only follows (the parcel, the mail) listens to the events.

use std::time::Duration;

use chassis::data::{Db, Tx};
use chassis::messaging::Outbox;
use chassis::messaging::saga::{Failure, SagaDefinition, SagaRunner, Sagas, StepInfo};
use chassis::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::Ordering;
use crate::callees::Callees;
use crate::config::Config;
use crate::domain::{Line, Money, Order};
use crate::ordering;

/// The event that the saga waits for after the pivot.
pub const PARCEL_SHIPPED: &str = "parcel-shipped";

/// The sagas of this service.
pub type CheckoutSagas = Sagas<Checkout, Steps>;

/// What a checkout knows. It is kept as JSON: add fields with a default, rename none.
///
/// No `Debug`: it holds a card token, which belongs in no log.
#[derive(Clone, Serialize, Deserialize)]
pub struct Checkout {
    order_id: String,
    /// The token of the card; empty once nobody will need it any more.
    card: String,
    lines: Vec<(String, i64)>,
    /// Amount in minor units and currency, once it is fixed.
    #[serde(default)]
    total: Option<(i64, String)>,
}

/// What the steps need.
#[derive(Clone)]
pub struct Steps {
    /// Whom they call.
    pub callees: Callees,
    /// Where they tell of it.
    pub outbox: Outbox,
}

/// The table.
fn definition(parcel_within: Duration) -> SagaDefinition<Checkout, Steps> {
    SagaDefinition::new("checkout", 1)
        .private(&["card"])
        .action("price", price)
        .step("reserve-stock", reserve, release)
        .step("charge", charge, refund)
        .pivot("confirm", confirm)
        .wait_for(PARCEL_SHIPPED, parcel_within)
        .local("ship", ship)
        .on_cancelled(cancel)
}

/// The checkouts in `db`.
#[must_use]
pub fn sagas(db: &Db, steps: Steps, config: &Config) -> CheckoutSagas {
    Sagas::new(db, definition(config.parcel_within), steps).with_config(config.saga.clone())
}

/// Carries the checkouts on.
pub fn runner(ordering: &Ordering) -> SagaRunner<Checkout, Steps> {
    ordering.sagas.runner()
}

async fn price(steps: Steps, checkout: Checkout, _: StepInfo) -> Result<Checkout> {
    let Money { minor, currency } = steps.callees.price(&checkout.lines()).await?;
    Ok(Checkout { total: Some((minor, currency)), ..checkout })
}

async fn reserve(steps: Steps, checkout: Checkout, _: StepInfo) -> Result<Checkout> {
    steps.callees.reserve(&checkout.order_id, &checkout.lines()).await?;
    Ok(checkout)
}

async fn release(steps: Steps, checkout: Checkout, _: StepInfo) -> Result<Checkout> {
    steps.callees.release(&checkout.order_id).await?;
    Ok(checkout.without_card())
}

async fn charge(steps: Steps, checkout: Checkout, step: StepInfo) -> Result<Checkout> {
    let (key, total) = (step.idempotency_key(), checkout.total()?);
    steps.callees.charge(key, &checkout.order_id, &checkout.card, &total).await?;
    Ok(checkout.without_card())
}

async fn refund(steps: Steps, checkout: Checkout, step: StepInfo) -> Result<Checkout> {
    steps.callees.refund(step.idempotency_key(), &checkout.order_id).await?;
    Ok(checkout.without_card())
}

async fn confirm(steps: Steps, tx: &mut Tx, checkout: Checkout) -> Result<Checkout> {
    ordering::confirm(tx, &steps.outbox, &checkout.order_id, checkout.total()?).await?;
    Ok(checkout)
}

async fn ship(_: Steps, tx: &mut Tx, checkout: Checkout) -> Result<Checkout> {
    ordering::ship(tx, &checkout.order_id).await?;
    Ok(checkout)
}

async fn cancel(steps: Steps, tx: &mut Tx, checkout: Checkout, why: Failure) -> Result<()> {
    ordering::cancel(tx, &steps.outbox, &checkout.order_id, &why.reason).await
}

impl Checkout {
    /// The checkout of a new order.
    #[must_use]
    pub fn of(order: &Order, card: &str) -> Checkout {
        Checkout {
            order_id: order.id.clone(),
            card: card.to_owned(),
            lines: order.lines.iter().map(|line| (line.sku.clone(), line.quantity)).collect(),
            total: None,
        }
    }

    fn without_card(self) -> Checkout {
        Checkout { card: String::new(), ..self }
    }

    fn lines(&self) -> Vec<Line> {
        self.lines
            .iter()
            .map(|(sku, quantity)| Line { sku: sku.clone(), quantity: *quantity })
            .collect()
    }

    fn total(&self) -> Result<Money> {
        match &self.total {
            Some((minor, currency)) => Ok(Money { minor: *minor, currency: currency.clone() }),
            None => Err(Error::internal("the checkout has no price yet")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_valid() {
        definition(Duration::from_secs(1)).validate().unwrap();
    }

    #[test]
    fn a_checkout_of_an_earlier_build_is_read() {
        // As it lies in databases; a field that is added later must have a default.
        let kept = r#"{"order_id":"o-1","card":"tok","lines":[["cup",2]]}"#;
        let checkout: Checkout = serde_json::from_str(kept).unwrap();
        assert_eq!(checkout.lines(), [Line { sku: "cup".to_owned(), quantity: 2 }]);
        assert!(checkout.total().is_err(), "there is no price yet");
        assert!(checkout.without_card().card.is_empty());
    }
}
