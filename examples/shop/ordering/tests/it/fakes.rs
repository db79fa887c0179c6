//! The services that a checkout calls: real servers with a simple mind, and faults on demand.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use chassis::core::{Component, Env, Error, Ready, Shutdown, ShutdownTrigger};
use chassis::grpc::{IntoStatus, Server, ServerConfig};
use chassis_test::FaultProxy;
use parking_lot::Mutex;
use shop_contracts::catalog::v1::catalog_server::{Catalog, CatalogServer};
use shop_contracts::catalog::v1::{
    GetProductRequest, ListProductsRequest, ListProductsResponse, Product,
};
use shop_contracts::inventory::v1::inventory_server::{Inventory, InventoryServer};
use shop_contracts::inventory::v1::{
    GetStockRequest, ReleaseRequest, ReleaseResponse, ReserveRequest, ReserveResponse, Stock,
};
use shop_contracts::payment::v1::payment_server::{Payment, PaymentServer};
use shop_contracts::payment::v1::{
    ChargeRequest, ChargeResponse, GetPaymentRequest, PaymentDetails, RefundRequest, RefundResponse,
};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// The card that the bank refuses.
pub(crate) const BAD_CARD: &str = "tok_declined";

/// What becomes of one call.
#[derive(Clone)]
pub(crate) enum Fault {
    /// It is refused at once: `UNAVAILABLE`.
    Refuse,
    /// It does nothing and never answers.
    Hang,
    /// It does its work and never answers.
    LoseAnswer,
    /// It waits for a sign before it begins.
    Wait(watch::Receiver<bool>),
}

/// All fakes share this: what they were asked, what they hold, what goes wrong next.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    faults: HashMap<&'static str, VecDeque<Fault>>,
    /// Method and key of every call that came, in that order.
    calls: Vec<(&'static str, String)>,
    stock: HashMap<&'static str, i64>,
    /// Lines by reservation; none once it is released.
    reservations: HashMap<String, Option<Vec<(String, i64)>>>,
    /// Amounts by order; none once it is given back.
    charges: HashMap<String, Option<i64>>,
}

impl World {
    /// What the next calls of a method meet, one after the other.
    pub(crate) fn fail(&self, method: &'static str, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().faults.entry(method).or_default().extend(faults);
    }

    /// The next call of a method waits until the sender says true.
    pub(crate) fn hold(&self, method: &'static str) -> watch::Sender<bool> {
        let (sender, receiver) = watch::channel(false);
        self.fail(method, [Fault::Wait(receiver)]);
        sender
    }

    /// The keys that a method was called with.
    pub(crate) fn calls(&self, method: &str) -> Vec<String> {
        let state = self.0.lock();
        let own = state.calls.iter().filter(|(called, _)| *called == method);
        own.map(|(_, key)| key.clone()).collect()
    }

    /// The pieces that are kept for an order.
    pub(crate) fn reserved(&self, order: &str) -> i64 {
        let state = self.0.lock();
        let lines = state.reservations.get(order).and_then(Option::as_ref);
        lines.into_iter().flatten().map(|(_, quantity)| quantity).sum()
    }

    /// The pieces that can still be kept.
    pub(crate) fn available(&self, sku: &str) -> i64 {
        self.0.lock().available(sku)
    }

    /// What was taken for an order and not given back, in minor units.
    pub(crate) fn charged(&self, order: &str) -> i64 {
        self.0.lock().charges.get(order).copied().flatten().unwrap_or_default()
    }

    /// Notes the call and meets its fault, if there is one. True: the answer is to be lost.
    async fn called(&self, method: &'static str, key: &str) -> Result<bool, Status> {
        let fault = {
            let mut state = self.0.lock();
            state.calls.push((method, key.to_owned()));
            state.faults.get_mut(method).and_then(VecDeque::pop_front)
        };
        match fault {
            None => Ok(false),
            Some(Fault::Refuse) => Err(Error::unavailable("FAKE", "not now").into_status()),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::LoseAnswer) => Ok(true),
            Some(Fault::Wait(mut sign)) => {
                let _ = sign.wait_for(|go| *go).await;
                Ok(false)
            }
        }
    }
}

impl State {
    fn available(&self, sku: &str) -> i64 {
        let kept = self.reservations.values().flatten().flatten();
        let kept: i64 = kept.filter(|line| line.0 == sku).map(|line| line.1).sum();
        self.stock.get(sku).copied().unwrap_or_default() - kept
    }
}

/// The answer, unless it is to be lost.
async fn answer<T>(lost: bool, outcome: Result<T, Error>) -> Result<Response<T>, Status> {
    if lost {
        std::future::pending::<()>().await;
    }
    outcome.map(Response::new).map_err(IntoStatus::into_status)
}

/// The fakes, served.
pub(crate) struct Others {
    pub(crate) world: World,
    /// Where each is called.
    pub(crate) addresses: HashMap<&'static str, SocketAddr>,
    /// The network before inventory.
    pub(crate) inventory: FaultProxy,
    _servers: Vec<ShutdownTrigger>,
}

impl Others {
    pub(crate) async fn start() -> Others {
        let world = World::default();
        world.0.lock().stock = HashMap::from([("cup", 100), ("pot", 1), ("gem", 100), ("mug", 0)]);
        let catalog = serve("catalog", Routes::new(CatalogServer::new(world.clone()))).await;
        let inventory = serve("inventory", Routes::new(InventoryServer::new(world.clone()))).await;
        let payment = serve("payment", Routes::new(PaymentServer::new(world.clone()))).await;
        let proxy = FaultProxy::start(inventory.0.to_string()).await;
        Others {
            world,
            addresses: HashMap::from([
                ("catalog", catalog.0),
                ("inventory", proxy.address()),
                ("payment", payment.0),
            ]),
            inventory: proxy,
            _servers: vec![catalog.1, inventory.1, payment.1],
        }
    }
}

async fn serve(name: &'static str, routes: Routes) -> (SocketAddr, ShutdownTrigger) {
    let env = Env::test(name);
    let (trigger, shutdown) = Shutdown::new();
    let (ready, is_ready) = Ready::channel();
    let config = ServerConfig { port: 0, ..ServerConfig::default() };
    let server = Box::new(Server::new(&config, routes));
    tokio::spawn(env.scope(server.run(env.clone(), ready, shutdown)));
    is_ready.await.unwrap();
    (env.listeners()[0].address, trigger)
}

fn product(sku: &str) -> Option<Product> {
    let price_minor = match sku {
        "cup" => 1_200,
        "pot" => 3_490,
        "mug" => 990,
        "gem" => i64::MAX / 10,
        _ => return None,
    };
    let (sku, currency) = (sku.to_owned(), "EUR".to_owned());
    Some(Product { sku, price_minor, currency, ..Product::default() })
}

#[tonic::async_trait]
impl Catalog for World {
    async fn get_product(
        &self,
        request: Request<GetProductRequest>,
    ) -> Result<Response<Product>, Status> {
        let sku = request.into_inner().sku;
        let lost = self.called("get-product", &sku).await?;
        let found = product(&sku)
            .ok_or_else(|| Error::not_found("PRODUCT_NOT_FOUND", "no such product"))
            .map_err(|error| error.with_detail("sku", &*sku));
        answer(lost, found).await
    }

    async fn list_products(
        &self,
        _: Request<ListProductsRequest>,
    ) -> Result<Response<ListProductsResponse>, Status> {
        Err(Status::unimplemented("a checkout does not ask for this"))
    }
}

#[tonic::async_trait]
impl Inventory for World {
    async fn reserve(
        &self,
        request: Request<ReserveRequest>,
    ) -> Result<Response<ReserveResponse>, Status> {
        let ReserveRequest { reservation_id: id, lines } = request.into_inner();
        let lost = self.called("reserve", &id).await?;
        let lines: Vec<_> = lines.into_iter().map(|line| (line.sku, line.quantity)).collect();
        let outcome = {
            let mut state = self.0.lock();
            match state.reservations.get(&id) {
                Some(Some(_)) => Ok(()),
                Some(None) => Err(Error::failed_precondition("RESERVATION_RELEASED", "too late")),
                None if lines.iter().any(|(sku, n)| state.available(sku) < *n) => {
                    Err(Error::failed_precondition("OUT_OF_STOCK", "too few pieces"))
                }
                None => {
                    state.reservations.insert(id, Some(lines));
                    Ok(())
                }
            }
        };
        answer(lost, outcome.map(|()| ReserveResponse {})).await
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        let id = request.into_inner().reservation_id;
        let lost = self.called("release", &id).await?;
        self.0.lock().reservations.insert(id, None);
        answer(lost, Ok(ReleaseResponse {})).await
    }

    async fn get_stock(&self, _: Request<GetStockRequest>) -> Result<Response<Stock>, Status> {
        Err(Status::unimplemented("a checkout does not ask for this"))
    }
}

#[tonic::async_trait]
impl Payment for World {
    async fn charge(
        &self,
        request: Request<ChargeRequest>,
    ) -> Result<Response<ChargeResponse>, Status> {
        let request = request.into_inner();
        let lost = self.called("charge", &request.idempotency_key).await?;
        let outcome = {
            let mut state = self.0.lock();
            match state.charges.get(&request.order_id) {
                _ if request.card_token == BAD_CARD => {
                    Err(Error::failed_precondition("CARD_DECLINED", "the card was declined"))
                }
                Some(None) => Err(Error::failed_precondition("ORDER_REFUNDED", "too late")),
                Some(Some(_)) => Ok(()),
                None => {
                    state.charges.insert(request.order_id, Some(request.amount_minor));
                    Ok(())
                }
            }
        };
        let payment_id = "payment".to_owned();
        answer(lost, outcome.map(|()| ChargeResponse { payment_id })).await
    }

    async fn refund(
        &self,
        request: Request<RefundRequest>,
    ) -> Result<Response<RefundResponse>, Status> {
        let request = request.into_inner();
        let lost = self.called("refund", &request.idempotency_key).await?;
        self.0.lock().charges.insert(request.order_id, None);
        answer(lost, Ok(RefundResponse {})).await
    }

    async fn get_payment(
        &self,
        _: Request<GetPaymentRequest>,
    ) -> Result<Response<PaymentDetails>, Status> {
        Err(Status::unimplemented("a checkout does not ask for this"))
    }
}
