//! `POST /orders`, `GET /orders/{id}`, `GET /orders?customer_id=`.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chassis::Secret;
use chassis::http::{Json, Path, Problem, Query};
use serde::{Deserialize, Serialize};
use utoipa::openapi::OpenApi;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Ordering;
use crate::domain;
use crate::ordering::PlaceOrder;
use crate::store::Stored;

/// The HTTP routes of this context, and their document.
pub fn router(ordering: &Ordering) -> (Router, OpenApi) {
    OpenApiRouter::default()
        .routes(routes!(list, place))
        .routes(routes!(show))
        .with_state(ordering.clone())
        .split_for_parts()
}

#[derive(Deserialize, ToSchema)]
struct NewOrder {
    customer_id: String,
    card_token: String,
    lines: Vec<Line>,
}

#[derive(Deserialize, Serialize, ToSchema)]
struct Line {
    sku: String,
    quantity: i64,
}

#[derive(Serialize, ToSchema)]
struct Order {
    id: String,
    customer_id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    lines: Vec<Line>,
    total_minor: Option<i64>,
    currency: Option<String>,
    trace_id: String,
}

#[derive(Serialize, ToSchema)]
struct Orders {
    orders: Vec<Order>,
}

#[derive(Deserialize, IntoParams)]
struct OfCustomer {
    customer_id: String,
}

/// Places an order; what becomes of it is shown at its `Location`.
#[utoipa::path(post, path = "/orders", params(
    ("idempotency-key" = Option<String>, Header, description = "The same key, the same order."),
), responses(
    (status = 202, description = "Written down; its checkout goes on.", body = Order),
    (status = 409, description = "IDEMPOTENCY_KEY_REUSED: the key came with another order."),
))]
async fn place(
    State(ordering): State<Ordering>,
    headers: HeaderMap,
    Json(order): Json<NewOrder>,
) -> Result<Response, Problem> {
    // A key that is not text is refused as an empty one is.
    let key = headers.get("idempotency-key").map(|key| key.to_str().unwrap_or_default());
    let request = PlaceOrder {
        customer: order.customer_id,
        card: Secret::new(order.card_token),
        lines: order
            .lines
            .into_iter()
            .map(|line| domain::Line { sku: line.sku, quantity: line.quantity })
            .collect(),
    };
    let placed = ordering.place(request, key).await?;
    let location = HeaderValue::from_str(&format!("/orders/{}", placed.order.id))
        .map_err(chassis::Error::internal)?;
    let headers = [(header::LOCATION, location)];
    Ok((StatusCode::ACCEPTED, headers, Json(to_wire(placed))).into_response())
}

/// One order.
#[utoipa::path(get, path = "/orders/{id}", responses(
    (status = 200, description = "The order.", body = Order),
    (status = 404, description = "ORDER_NOT_FOUND"),
))]
async fn show(
    State(ordering): State<Ordering>,
    Path(id): Path<String>,
) -> Result<Json<Order>, Problem> {
    Ok(Json(to_wire(ordering.find(&id).await?)))
}

/// The orders of a customer.
#[utoipa::path(get, path = "/orders", params(OfCustomer), responses(
    (status = 200, description = "The newest first.", body = Orders),
))]
async fn list(
    State(ordering): State<Ordering>,
    Query(query): Query<OfCustomer>,
) -> Result<Json<Orders>, Problem> {
    let orders = ordering.of_customer(&query.customer_id).await?;
    Ok(Json(Orders { orders: orders.into_iter().map(to_wire).collect() }))
}

fn to_wire(Stored { order, trace_id }: Stored) -> Order {
    let (total_minor, currency) = match order.total {
        Some(total) => (Some(total.minor), Some(total.currency)),
        None => (None, None),
    };
    Order {
        id: order.id,
        customer_id: order.customer,
        status: order.status.as_str(),
        reason: order.reason,
        lines: order
            .lines
            .into_iter()
            .map(|line| Line { sku: line.sku, quantity: line.quantity })
            .collect(),
        total_minor,
        currency,
        trace_id,
    }
}
