//! `cargo run -p chassis-http --example web --all-features`: what a server for browsers needs, on
//! port 8080.
//!
//! Static files with ranges, a resource with an ETag, pages of another origin, events, a WebSocket
//! that repeats what it hears, and a form with a file. Compression is a setting and needs no code.

use std::{convert::Infallible, path::Path, time::Duration};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use chassis_http::{
    Json, Problem,
    conditional::ETag,
    cors::{AllowOrigin, CorsLayer},
    events::{Event, sse},
    files::ServeDir,
    multipart::Multipart,
    security_headers,
    websocket::{Socket, WebSocketUpgrade, WebSockets},
};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, header};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A note that can be read and replaced.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Note {
    /// What it says.
    pub text: String,
}

/// The note, and how often it was changed.
pub type Notes = Arc<Mutex<(Note, u64)>>;

async fn read(State(notes): State<Notes>, headers: HeaderMap) -> Response {
    let (note, version) = notes.lock().clone();
    ETag::version(version).answer(&headers, Json(note))
}

/// Only over the state that the caller has seen.
async fn replace(
    State(notes): State<Notes>,
    headers: HeaderMap,
    Json(new): Json<Note>,
) -> Result<Response, Problem> {
    let mut notes = notes.lock();
    ETag::version(notes.1).check(&headers)?;
    *notes = (new, notes.1 + 1);
    Ok(ETag::version(notes.1).answer(&HeaderMap::new(), Json(notes.0.clone())))
}

/// A number each second, until the caller leaves or the service does.
async fn numbers() -> impl IntoResponse {
    sse(stream::unfold(0, |number| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let event = Event::default().id(format!("{number}")).data(format!("{number}"));
        Some((Ok::<_, Infallible>(event), number + 1))
    }))
}

/// Repeats what it hears.
async fn echo(State(sockets): State<WebSockets>, upgrade: WebSocketUpgrade) -> Response {
    sockets.accept(upgrade, |mut socket: Socket| async move {
        while let Some(message) = socket.recv().await {
            if socket.send(message).await.is_err() {
                break;
            }
        }
    })
}

/// The sizes of what was sent: small fields in memory, files piece by piece.
async fn upload(mut form: Multipart) -> Result<Json<Vec<(String, usize)>>, Problem> {
    let mut sizes = Vec::new();
    while let Some(mut field) = form.next().await? {
        let name = field.name().unwrap_or_default().to_owned();
        let size = if field.file_name().is_some() {
            let mut size = 0;
            while let Some(piece) = field.chunk().await? {
                size += piece.len();
            }
            size
        } else {
            field.bytes(1024).await?.len()
        };
        sizes.push((name, size));
    }
    Ok(Json(sizes))
}

/// All of it; `folder` has the files.
pub fn router(folder: &Path, sockets: WebSockets) -> Router {
    let friend = AllowOrigin::exact(HeaderValue::from_static("https://app.example"));
    let cors = CorsLayer::new()
        .allow_origin(friend)
        .allow_methods([Method::GET, Method::PUT])
        .allow_headers([header::CONTENT_TYPE, header::IF_MATCH])
        .expose_headers([header::ETAG]);
    let notes = Router::new()
        .route("/note", get(read).put(replace))
        .with_state(Notes::default())
        .layer(cors);
    let router = Router::new()
        .merge(notes)
        .route("/numbers", get(numbers))
        .route("/echo", get(echo).with_state(sockets))
        .route("/upload", axum::routing::post(upload))
        .nest_service("/files", ServeDir::new(folder));
    security_headers(router)
}

#[allow(dead_code, reason = "a test takes the router alone")]
#[tokio::main]
async fn main() -> chassis_core::Result<()> {
    let env = chassis_core::Env::new(chassis_core::service_info!("web"));
    let config = chassis_http::ServerConfig::default();
    let router = router(Path::new("."), WebSockets::default());
    let (_trigger, shutdown) = chassis_core::Shutdown::new();
    let server = chassis_http::Server::new(&config, router);
    chassis_core::App::new(env).with(server).run(shutdown).await
}
