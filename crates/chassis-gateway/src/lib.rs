//! The edge of a system: what comes in from outside is checked, routed and forwarded, or
//! answered from several services at once.
//!
//! A gateway is not a place for decisions of the business. It knows paths, methods and
//! headers. Two things make it more than a reverse proxy: it speaks to services by name with
//! the chassis' client, so balancing, breakers and deadlines hold at the edge too; and it can
//! put one answer together from parts, in which an optional part that is missing is marked
//! instead of failing the whole.
//!
//! ```no_run
//! # use std::time::Duration;
//! use chassis_gateway::{Compose, Gateway, Part, Route, get_json};
//! use chassis_http::Client;
//! use http::Method;
//!
//! # fn router(items: Client, reviews: Client) -> axum::Router {
//! Gateway::new()
//!     .route(Route::prefix("/api/items").methods([Method::GET]).to(items.clone()).strip_prefix("/api"))
//!     .compose(
//!         "/api/items/{id}/page",
//!         Compose::new()
//!             .part("item", Part::required(get_json(items, "/items/{id}")))
//!             .part(
//!                 "reviews",
//!                 Part::optional(get_json(reviews, "/reviews?item={id}"))
//!                     .within(Duration::from_millis(300)),
//!             ),
//!     )
//!     .into_router()
//! # }
//! ```
//!
//! Read in this order:
//!
//! 1. [`gateway`]: routes and compositions become a router.
//! 2. [`route`], `path`, `headers`, `forwarded`: one request, forwarded.
//! 3. [`compose`]: one answer out of several.
//!
//! What it does not do: TLS (an ingress ends it), upgrades such as web sockets, caching.

pub mod compose;
mod forwarded;
pub mod gateway;
mod headers;
mod path;
pub mod route;

pub use compose::{Compose, Part, PartRequest, get_json};
pub use forwarded::Forwarding;
pub use gateway::Gateway;
pub use route::Route;
