//! One answer out of several services.
//!
//! A page needs an item, its reviews and its price. Asking one after the other adds up their
//! times; failing the page because reviews are down hurts more than a page without reviews.
//! So the parts are asked at once, each within its own time, and each is said to be needed or
//! not: a required part that fails is the answer, an optional one is `null` and named under
//! `missing` with the reason.
//!
//! ```json
//! { "item": { "id": 7 }, "reviews": null, "missing": [{ "part": "reviews", "reason": "NO_ENDPOINTS" }] }
//! ```
//!
//! A part may come after others and use their values; it begins as soon as they are there.

mod part;
mod run;

use std::sync::Arc;

use axum::{
    extract::{RawPathParams, RawQuery},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use chassis_http::{Json, Problem};
use http::HeaderMap;

pub use self::part::{Part, PartRequest, get_json};

/// The member of the answer that names what is missing.
const MISSING: &str = "missing";

/// A composed answer in the making: its parts by name, in the order of the answer.
#[derive(Debug, Default)]
pub struct Compose {
    parts: Vec<(&'static str, Part)>,
}

impl Compose {
    /// An answer without parts.
    #[must_use]
    pub fn new() -> Compose {
        Compose::default()
    }

    /// Adds a part under this name.
    ///
    /// # Panics
    /// At start, if the name is taken, or if the part comes after one that was not added
    /// before it, or if it is required and comes after an optional one.
    #[must_use]
    pub fn part(mut self, name: &'static str, part: Part) -> Compose {
        assert!(
            name != MISSING && self.parts.iter().all(|(known, _)| *known != name),
            "the name {name} of a part is taken"
        );
        for before in &part.after {
            match self.parts.iter().find(|(known, _)| known == before) {
                None => panic!("the part {name} comes after {before}, which must be added first"),
                Some((_, known)) => assert!(
                    known.required || !part.required,
                    "the required part {name} comes after {before}, which may be missing"
                ),
            }
        }
        self.parts.push((name, part));
        self
    }

    pub(crate) fn into_axum(self) -> MethodRouter {
        let compose = Arc::new(self);
        get(move |params: RawPathParams, query: RawQuery, headers: HeaderMap| {
            let compose = compose.clone();
            async move { compose.answer(params, query, headers).await }
        })
    }

    async fn answer(
        &self,
        params: RawPathParams,
        RawQuery(query): RawQuery,
        headers: HeaderMap,
    ) -> Response {
        let request = PartRequest::new(&params, query.as_deref().unwrap_or_default(), headers);
        match run::run(&self.parts, request).await {
            Ok(answer) => Json(answer).into_response(),
            Err(error) => Problem::from(error).into_response(),
        }
    }
}
