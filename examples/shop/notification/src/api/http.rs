//! `GET /customers/{id}/notifications`, of all orders or of `?order_id=`.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use chassis::http::{Json, Path, Problem, Query};
use serde::{Deserialize, Serialize};

use crate::Notification;

/// The HTTP routes of this context.
pub fn router(notification: &Notification) -> Router {
    Router::new().route("/customers/{id}/notifications", get(list)).with_state(notification.clone())
}

#[derive(Deserialize)]
struct Which {
    order_id: Option<String>,
}

#[derive(Serialize)]
struct Notifications {
    notifications: Vec<One>,
}

#[derive(Serialize)]
struct One {
    kind: String,
    text: String,
    order_id: String,
    /// Unix ms.
    time: i64,
}

async fn list(
    State(notification): State<Notification>,
    Path(customer): Path<String>,
    Query(Which { order_id }): Query<Which>,
) -> Result<Json<Notifications>, Problem> {
    let notifications = notification
        .news(&customer, order_id.as_deref())
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
