//! The services behind the edge: real servers with fixed answers.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::get;
use chassis::core::{Component, Env, Error, Ready, Shutdown, ShutdownTrigger};
use chassis::grpc::IntoStatus;
use chassis::http::{Json, Problem};
use serde_json::{Value, json};
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
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// The payment of this order is never told.
pub(crate) const SLOW: &str = "o-slow";

/// A server that runs.
pub(crate) struct Served {
    pub(crate) name: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) address: SocketAddr,
    trigger: ShutdownTrigger,
    task: JoinHandle<chassis::Result<()>>,
}

impl Served {
    async fn start(name: &'static str, component: impl Component) -> Served {
        let env = Env::test(name);
        let (trigger, shutdown) = Shutdown::new();
        let (ready, is_ready) = Ready::channel();
        let serving = Box::new(component).run(env.clone(), ready, shutdown);
        let task = tokio::spawn(env.scope(serving));
        is_ready.await.unwrap();
        let listener = env.listeners().remove(0);
        Served { name, protocol: listener.protocol, address: listener.address, trigger, task }
    }

    /// Nobody listens there any more.
    pub(crate) async fn stop(self) {
        self.trigger.shutdown(std::time::Duration::ZERO);
        self.task.await.unwrap().unwrap();
    }
}

async fn http(name: &'static str, router: Router) -> Served {
    let config = chassis::http::ServerConfig { port: 0, ..Default::default() };
    Served::start(name, chassis::http::Server::new(&config, router)).await
}

async fn grpc(name: &'static str, routes: Routes) -> Served {
    let config = chassis::grpc::ServerConfig { port: 0, ..Default::default() };
    Served::start(name, chassis::grpc::Server::new(&config, routes)).await
}

/// Everything that the edge calls.
pub(crate) async fn start() -> Vec<Served> {
    vec![
        http("catalog", catalog()).await,
        http("ordering", ordering()).await,
        http("notification", notification()).await,
        grpc("catalog", Routes::new(CatalogServer::new(Fake))).await,
        grpc("inventory", Routes::new(InventoryServer::new(Fake))).await,
        grpc("payment", Routes::new(PaymentServer::new(Fake))).await,
    ]
}

fn catalog() -> Router {
    let one = |Path(sku): Path<String>| async move {
        if sku == "cup" {
            return Ok(Json(json!({ "sku": "cup", "price_minor": 1_200 })));
        }
        Err(Problem::from(Error::not_found("PRODUCT_NOT_FOUND", "there is no such product")))
    };
    Router::new()
        .route("/products", get(|| async { Json(json!({ "products": ["cup"] })) }))
        .route("/products/{sku}", get(one))
}

fn ordering() -> Router {
    let list = |RawQuery(query): RawQuery| async move { Json(json!({ "asked": query })) };
    let one = |Path(id): Path<String>| async move {
        match id.as_str() {
            "nothing" => {
                Err(Problem::from(Error::not_found("ORDER_NOT_FOUND", "there is no such order")))
            }
            _ => {
                let skus = if id == "o-odd" { ["cup", "gone"] } else { ["cup", "pot"] };
                let lines = skus.map(|sku| json!({ "sku": sku, "quantity": 1 }));
                Ok(Json(json!({ "id": id, "status": "confirmed", "lines": lines })))
            }
        }
    };
    Router::new().route("/orders", get(list).post(place)).route("/orders/{id}", get(one))
}

/// Accepts any order and tells what came.
async fn place(headers: HeaderMap, Json(body): Json<Value>) -> HttpResponse {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    if key == Some("reused") {
        let error = Error::already_exists("IDEMPOTENCY_KEY_REUSED", "another request had it");
        return Problem::from(error).into_response();
    }
    let trace = headers.get("traceparent").and_then(|trace| trace.to_str().ok());
    let answer = json!({ "id": "o-1", "body": body, "key": key, "traceparent": trace });
    (StatusCode::ACCEPTED, [("location", "/orders/o-1")], Json(answer)).into_response()
}

fn notification() -> Router {
    let news = |Path(id): Path<String>| async move { Json(json!({ "notifications": [id] })) };
    Router::new().route("/customers/{id}/notifications", get(news))
}

struct Fake;

#[tonic::async_trait]
impl Catalog for Fake {
    async fn get_product(
        &self,
        request: Request<GetProductRequest>,
    ) -> Result<Response<Product>, Status> {
        let sku = request.into_inner().sku;
        if sku == "gone" {
            return Err(Error::not_found("PRODUCT_NOT_FOUND", "no such product").into_status());
        }
        let name = format!("The {sku}");
        Ok(Response::new(Product { sku, name, ..Product::default() }))
    }

    async fn list_products(
        &self,
        _: Request<ListProductsRequest>,
    ) -> Result<Response<ListProductsResponse>, Status> {
        Err(Status::unimplemented("the edge does not ask for this"))
    }
}

#[tonic::async_trait]
impl Inventory for Fake {
    async fn get_stock(
        &self,
        request: Request<GetStockRequest>,
    ) -> Result<Response<Stock>, Status> {
        let sku = request.into_inner().sku;
        Ok(Response::new(Stock { sku, on_hand: 10, reserved: 3, available: 7 }))
    }

    async fn reserve(
        &self,
        _: Request<ReserveRequest>,
    ) -> Result<Response<ReserveResponse>, Status> {
        Err(Status::unimplemented("the edge changes nothing"))
    }

    async fn release(
        &self,
        _: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        Err(Status::unimplemented("the edge changes nothing"))
    }
}

#[tonic::async_trait]
impl Payment for Fake {
    async fn get_payment(
        &self,
        request: Request<GetPaymentRequest>,
    ) -> Result<Response<PaymentDetails>, Status> {
        if request.into_inner().order_id == SLOW {
            std::future::pending::<()>().await;
        }
        let (payment_id, status) = ("p-1".to_owned(), "charged".to_owned());
        let details =
            PaymentDetails { payment_id, status, amount_minor: 4_690, currency: "EUR".to_owned() };
        Ok(Response::new(details))
    }

    async fn charge(&self, _: Request<ChargeRequest>) -> Result<Response<ChargeResponse>, Status> {
        Err(Status::unimplemented("the edge changes nothing"))
    }

    async fn refund(&self, _: Request<RefundRequest>) -> Result<Response<RefundResponse>, Status> {
        Err(Status::unimplemented("the edge changes nothing"))
    }
}
