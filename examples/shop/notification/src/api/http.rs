//! `GET /customers/{id}/notifications`, of all orders or of `?order_id=`.

use axum::Router;
use axum::extract::State;
use chassis::http::{Json, Path, Problem, Query};
use serde::{Deserialize, Serialize};
use utoipa::openapi::OpenApi;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Notification;

/// The HTTP routes of this context, and their document.
pub fn router(notification: &Notification) -> (Router, OpenApi) {
    OpenApiRouter::default()
        .routes(routes!(list))
        .with_state(notification.clone())
        .split_for_parts()
}

#[derive(Deserialize, IntoParams)]
struct Which {
    /// Of this order only.
    order_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Notifications {
    notifications: Vec<One>,
}

#[derive(Serialize, ToSchema)]
struct One {
    kind: String,
    text: String,
    order_id: String,
    /// Unix ms.
    time: i64,
}

/// What a customer was told.
#[utoipa::path(get, path = "/customers/{id}/notifications", params(Which), responses(
    (status = 200, description = "The newest first.", body = Notifications),
))]
async fn list(
    State(notification): State<Notification>,
    Path(id): Path<String>,
    Query(Which { order_id }): Query<Which>,
) -> Result<Json<Notifications>, Problem> {
    let notifications = notification
        .news(&id, order_id.as_deref())
        .await?
        .into_iter()
        .map(|news| One {
            kind: news.kind,
            text: news.text,
            order_id: news.order,
            time: news.told_at,
        })
        .collect();
    Ok(Json(Notifications { notifications }))
}
