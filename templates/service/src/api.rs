//! `POST /items`, `GET /items/{id}`: parse, call, map; no decisions.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use chassis::http::{Json, Path, Problem};
use serde::{Deserialize, Serialize};

use crate::items::{self, Items};

/// The HTTP routes.
pub fn router(items: &Items) -> Router {
    Router::new()
        .route("/items", post(add))
        .route("/items/{id}", get(show))
        .with_state(items.clone())
}

#[derive(Deserialize)]
struct NewItem {
    name: String,
}

#[derive(Serialize)]
struct Item {
    id: String,
    name: String,
}

impl From<items::Item> for Item {
    fn from(items::Item { id, name }: items::Item) -> Item {
        Item { id, name }
    }
}

async fn add(
    State(items): State<Items>,
    Json(new): Json<NewItem>,
) -> Result<(StatusCode, Json<Item>), Problem> {
    Ok((StatusCode::CREATED, Json(items.add(new.name).await?.into())))
}

async fn show(State(items): State<Items>, Path(id): Path<String>) -> Result<Json<Item>, Problem> {
    Ok(Json(items.find(&id).await?.into()))
}
