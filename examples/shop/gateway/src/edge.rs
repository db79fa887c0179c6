//! The table of routes: what is forwarded to whom, and what is put together.

use std::time::Duration;

use axum::Router;
use axum::http::Method;
use chassis::Result;
use chassis::core::App;
use chassis::discovery::{ClientConfig, Discovery};
use chassis::gateway::{Compose, Gateway, Part, Route, get_json};
use chassis::grpc::Channel;
use chassis::http::Client;

use crate::config::Config;
use crate::parts::{payment_of_order, products_of_order, stock_of_product};

/// Clients of the services behind the edge. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    catalog: Client,
    ordering: Client,
    notification: Client,
    catalog_grpc: Channel,
    inventory_grpc: Channel,
    payment_grpc: Channel,
    optional_part_within: Duration,
}

impl Edge {
    /// Clients by service name; nobody is called yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub async fn connect(app: &App, config: &Config) -> Result<Edge> {
        let discovery = Discovery::new(&config.discovery)?;
        // It registers nowhere, so nothing else would show whom it finds.
        discovery.show(app.env());
        let http = |service: &str| {
            Client::builder(service, &discovery)
                .config(&config.client)
                .metrics(app.metrics())
                .build()
        };
        // The edge only asks by gRPC, and a question may be repeated.
        let grpc = |service: &str, config: &ClientConfig| {
            Channel::builder(service, &discovery)
                .config(config)
                .idempotent(true)
                .metrics(app.metrics())
                .build()
        };
        Ok(Edge {
            catalog: http("catalog")?,
            ordering: http("ordering")?,
            notification: http("notification")?,
            catalog_grpc: grpc("catalog", &config.client)?,
            inventory_grpc: grpc("inventory", &config.client)?,
            payment_grpc: grpc("payment", &config.client)?,
            optional_part_within: config.optional_part_within,
        })
    }
}

/// The HTTP routes of the edge.
pub fn router(edge: &Edge) -> Router {
    let optional = |part: Part| part.within(edge.optional_part_within);
    // Before the part is left out there must be time to show what was known.
    let limit = edge.optional_part_within.mul_f64(0.8);
    let stock = Part::optional(stock_of_product(edge.inventory_grpc.clone(), limit));
    let products = Part::optional(products_of_order(edge.catalog_grpc.clone())).after(["order"]);
    let payment = Part::optional(payment_of_order(edge.payment_grpc.clone()));
    Gateway::new()
        .route(
            Route::path("/api/products")
                .methods([Method::GET])
                .to(edge.catalog.clone())
                .strip_prefix("/api"),
        )
        .compose(
            "/api/products/{sku}",
            Compose::new()
                .part("product", Part::required(get_json(edge.catalog.clone(), "/products/{sku}")))
                .part("stock", optional(stock)),
        )
        .route(
            Route::path("/api/orders")
                .methods([Method::GET, Method::POST])
                .to(edge.ordering.clone())
                .strip_prefix("/api"),
        )
        .compose(
            "/api/orders/{id}",
            Compose::new()
                .part("order", Part::required(get_json(edge.ordering.clone(), "/orders/{id}")))
                .part("products", optional(products))
                .part("payment", optional(payment)),
        )
        .route(
            Route::path("/api/customers/{id}/notifications")
                .methods([Method::GET])
                .to(edge.notification.clone())
                .strip_prefix("/api"),
        )
        .into_router()
}
