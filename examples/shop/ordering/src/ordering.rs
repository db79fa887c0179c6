//! The use cases: each change is one transaction of state, outbox and saga.

use std::collections::BTreeSet;
use std::sync::Arc;

use chassis::core::{App, Probe, unix_ms};
use chassis::data::{Db, Tx};
use chassis::discovery::{Discovery, Registration};
use chassis::messaging::{Broker, ConsumerConfig, Inbox, Outbox, Relay};
use chassis::{Context, Error, Result, Secret};
use sha2::{Digest, Sha256};

use crate::callees::Callees;
use crate::config::Config;
use crate::domain::{Change, Forbidden, Invalid, Line, Money, Order};
use crate::events;
use crate::saga::{self, Checkout, CheckoutSagas};
use crate::store::{self, Request, Stored};

/// Longest idempotency key that is taken, in bytes.
const MAX_KEY: usize = 128;
/// Longest card token that is taken, in bytes.
const MAX_CARD: usize = 256;

/// Orders and their checkout. Cheap to clone.
#[derive(Clone)]
pub struct Ordering {
    pub(crate) db: Db,
    pub(crate) broker: Broker,
    pub(crate) consumer: ConsumerConfig,
    pub(crate) sagas: Arc<CheckoutSagas>,
    outbox: Outbox,
    callees: Callees,
    discovery: Discovery,
}

/// What a customer asks for.
#[derive(Clone, Debug)]
pub struct PlaceOrder {
    /// Who orders.
    pub customer: String,
    /// The token of the card to charge.
    pub card: Secret,
    /// What is ordered.
    pub lines: Vec<Line>,
}

impl Ordering {
    /// Opens database and broker, and brings the tables up to date.
    ///
    /// # Errors
    /// Settings that cannot work, and those of database and broker.
    pub async fn connect(app: &App, config: &Config) -> Result<Ordering> {
        let discovery = Discovery::new(&config.discovery)?;
        let callees = Callees::new(app, config, &discovery)?;
        let db = Db::connect(&config.database).await?;
        let pool = db.clone();
        app.on_close("ordering-db", move || async move { pool.close().await });
        let broker = Broker::connect(&config.broker).await?;
        let outbox = Outbox::new(&db, "ordering").with_config(config.outbox.clone());
        let steps = saga::Steps { callees: callees.clone(), outbox: outbox.clone() };
        let sagas = Arc::new(saga::sagas(&db, steps, config));
        let tables = [
            outbox.migrations(),
            Inbox::new(&db).migrations(),
            sagas.migrations(),
            store::migrations(),
        ];
        for migrations in tables {
            db.migrate(&migrations).await?;
        }
        let consumer = config.consumer.clone();
        Ok(Ordering { db, broker, consumer, sagas, outbox, callees, discovery })
    }

    /// Asks the database whether it answers.
    pub fn db_probe(&self) -> impl Probe + use<> {
        self.db.probe()
    }

    /// Asks the broker whether it answers.
    pub fn broker_probe(&self) -> impl Probe + use<> {
        self.broker.probe()
    }

    /// Publishes what the transactions appended.
    pub fn outbox_relay(&self) -> Relay {
        self.outbox.relay(&self.broker)
    }

    /// Makes this service known to the others.
    pub fn registration(&self) -> Registration {
        self.discovery.registration()
    }

    /// Places an order and starts its checkout, in one transaction. The same request with
    /// the same key gives the same order.
    ///
    /// Dropping the future leaves open whether the order is placed: repeat the call with
    /// the same key.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with the fields, `PRODUCT_NOT_FOUND`, `IDEMPOTENCY_KEY_REUSED`, and
    /// those of the catalog and the database.
    pub async fn place(&self, request: PlaceOrder, key: Option<&str>) -> Result<Stored> {
        let order = checked(&request, key)?;
        let fingerprint = fingerprint(&request)?;
        if let Some(key) = key
            && let Some(earlier) = store::find_request(&self.db, &order.customer, key).await?
        {
            // Told again whatever has become of the products in the meantime.
            return self.find(&same(earlier, &fingerprint)?).await;
        }
        // An unknown product is told at once. The price that counts is the one that the
        // saga fixes.
        for sku in order.lines.iter().map(|line| &line.sku).collect::<BTreeSet<_>>() {
            self.callees.product(sku).await?;
        }

        let placement = Placement {
            key: key.map(str::to_owned),
            request: Request { fingerprint, order_id: order.id.clone() },
            checkout: Checkout::of(&order, request.card.expose()),
            trace_id: Context::current().trace().trace_id.to_string(),
            order,
        };
        let sagas = self.sagas.clone();
        let id =
            self.db.transaction(async move |tx| place_in(tx, &sagas, &placement).await).await?;
        self.find(&id).await
    }

    /// One order. Dropping the future is harmless.
    ///
    /// # Errors
    /// `ORDER_NOT_FOUND`, and those of the database.
    pub async fn find(&self, id: &str) -> Result<Stored> {
        store::find(&self.db, id).await?.ok_or_else(|| not_found(id))
    }

    /// The newest orders of a customer. Dropping the future is harmless.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn of_customer(&self, customer: &str) -> Result<Vec<Stored>> {
        store::of_customer(&self.db, customer).await
    }

    /// A parcel with the order's pieces has left: its saga goes on.
    ///
    /// Dropping the future leaves the transaction to the caller.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn parcel_shipped(&self, tx: &mut Tx, order_id: &str) -> Result<()> {
        let payload = serde_json::Value::Null;
        self.sagas.signal(tx, order_id, saga::PARCEL_SHIPPED, payload).await
    }
}

struct Placement {
    order: Order,
    checkout: Checkout,
    trace_id: String,
    key: Option<String>,
    request: Request,
}

/// Writes all that belongs to a new order. Two requests with one key may come here side by
/// side: the second waits for the first one's transaction and then finds its order.
async fn place_in(tx: &mut Tx, sagas: &CheckoutSagas, placement: &Placement) -> Result<String> {
    let Placement { order, checkout, trace_id, key, request } = placement;
    if let Some(key) = key
        && let Some(earlier) =
            store::claim_request(tx, &order.customer, key, request, unix_ms()).await?
    {
        return same(earlier, &request.fingerprint);
    }
    store::insert(tx, order, trace_id, unix_ms()).await?;
    sagas.start(tx, &order.id, checkout.clone()).await?;
    Ok(order.id.clone())
}

/// The order of a request, or every field that is wrong with it.
fn checked(request: &PlaceOrder, key: Option<&str>) -> Result<Order> {
    let id = uuid::Uuid::now_v7().to_string();
    let placed = Order::place(id, request.customer.clone(), request.lines.clone());
    let mut wrong = placed.as_ref().err().cloned().unwrap_or_default();
    let mut length = |field: &str, text: &str, most: usize| {
        if !(1..=most).contains(&text.len()) {
            let problem = format!("must have 1 to {most} bytes");
            wrong.push(Invalid { field: field.to_owned(), problem });
        }
    };
    length("card_token", request.card.expose(), MAX_CARD);
    if let Some(key) = key {
        length("idempotency-key", key, MAX_KEY);
    }
    match placed {
        Ok(order) if wrong.is_empty() => Ok(order),
        _ => {
            let refusal = Error::invalid_argument("INVALID_REQUEST", "the request is not valid");
            let add = |error: Error, Invalid { field, problem }| error.with_field(field, problem);
            Err(wrong.into_iter().fold(refusal, add))
        }
    }
}

/// The same for the same request. A digest, so that no card token lies beside the key.
fn fingerprint(request: &PlaceOrder) -> Result<String> {
    let lines: Vec<_> = request.lines.iter().map(|line| (&line.sku, line.quantity)).collect();
    let text = serde_json::to_vec(&(&request.customer, request.card.expose(), lines))
        .map_err(Error::internal)?;
    Ok(format!("{:x}", Sha256::digest(text)))
}

/// The order of an earlier request, if that was the same.
fn same(earlier: Request, fingerprint: &str) -> Result<String> {
    if earlier.fingerprint == fingerprint {
        return Ok(earlier.order_id);
    }
    Err(Error::already_exists(
        "IDEMPOTENCY_KEY_REUSED",
        "this idempotency key was used for another request",
    ))
}

/// Confirms an order and tells of it.
pub(crate) async fn confirm(tx: &mut Tx, outbox: &Outbox, id: &str, total: Money) -> Result<()> {
    let mut order = locked(tx, id).await?;
    if order.confirm(total).map_err(forbidden)? == Change::Done {
        store::save(tx, &order, unix_ms()).await?;
        outbox.append(tx, &events::confirmed(&order)?).await?;
    }
    Ok(())
}

/// Marks an order as sent.
pub(crate) async fn ship(tx: &mut Tx, id: &str) -> Result<()> {
    let mut order = locked(tx, id).await?;
    if order.ship().map_err(forbidden)? == Change::Done {
        store::save(tx, &order, unix_ms()).await?;
    }
    Ok(())
}

/// Cancels an order and tells of it.
pub(crate) async fn cancel(tx: &mut Tx, outbox: &Outbox, id: &str, reason: &str) -> Result<()> {
    let mut order = locked(tx, id).await?;
    if order.cancel(reason).map_err(forbidden)? == Change::Done {
        store::save(tx, &order, unix_ms()).await?;
        outbox.append(tx, &events::cancelled(&order)).await?;
    }
    Ok(())
}

async fn locked(tx: &mut Tx, id: &str) -> Result<Order> {
    store::lock(tx, id).await?.ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> Error {
    Error::not_found("ORDER_NOT_FOUND", "there is no such order").with_detail("id", id)
}

fn forbidden(Forbidden { from, to }: Forbidden) -> Error {
    Error::failed_precondition(
        "ORDER_STATUS",
        format!("an order that is {} cannot become {}", from.as_str(), to.as_str()),
    )
}
