//! `Valid`: a value that was read and found right by its own rules.
//!
//! Serde says whether a request has the right shape; whether a count is positive or a name
//! too long is a rule of the type. The rules are written with [garde](garde::Validate) on the
//! type, and a refusal names every field that breaks one, as any other refusal does.
//!
//! ```
//! use chassis_http::{Json, Valid};
//! use garde::Validate;
//!
//! #[derive(serde::Deserialize, Validate)]
//! struct NewItem {
//!     #[garde(length(min = 1, max = 64))]
//!     name: String,
//!     #[garde(range(min = 1, max = 100))]
//!     count: u32,
//! }
//!
//! async fn add(Valid(Json(item)): Valid<Json<NewItem>>) -> String {
//!     format!("{} of {}", item.count, item.name)
//! }
//! # let _: axum::Router = axum::Router::new().route("/items", axum::routing::post(add));
//! ```

use axum::extract::{FromRequest, FromRequestParts, Request};
use chassis_core::Error;
use garde::Validate;
use http::request::Parts;

use crate::{
    extract::{Json, Path, Query},
    problem::Problem,
};

/// Fields that one refusal names; a request may break a rule in each of a million lines.
const MAX_FIELDS: usize = 32;

/// An extractor whose value keeps the rules of its type.
#[derive(Clone, Copy, Debug, Default)]
pub struct Valid<E>(pub E);

/// An extractor that holds a value; see [`Valid`].
pub trait Holds {
    /// What it holds.
    type Value;

    /// Lends it.
    fn held(&self) -> &Self::Value;
}

macro_rules! holds {
    ($($extractor:ident),*) => {$(
        impl<T> Holds for $extractor<T> {
            type Value = T;

            fn held(&self) -> &T {
                &self.0
            }
        }
    )*};
}

holds!(Json, Path, Query);

// By name, not for any extractor of a body: those of the head are extractors of a request too,
// and one type cannot be both.
impl<T, S> FromRequest<S> for Valid<Json<T>>
where
    Json<T>: FromRequest<S, Rejection = Problem>,
    T: Validate<Context: Default>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        checked(Json::from_request(request, state).await?)
    }
}

impl<E, S> FromRequestParts<S> for Valid<E>
where
    E: FromRequestParts<S, Rejection = Problem> + Holds<Value: Validate<Context: Default>>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        checked(E::from_request_parts(parts, state).await?)
    }
}

fn checked<E>(extracted: E) -> Result<Valid<E>, Problem>
where
    E: Holds<Value: Validate<Context: Default>>,
{
    let report = match extracted.held().validate() {
        Ok(()) => return Ok(Valid(extracted)),
        Err(report) => report,
    };
    let mut broken = report.iter().map(|(path, error)| (path.to_string(), error.to_string()));
    let message = match broken.next() {
        Some((path, error)) if !path.is_empty() => {
            format!("the request breaks a rule: {path}: {error}")
        }
        Some((_, error)) => format!("the request breaks a rule: {error}"),
        None => "the request breaks a rule".to_owned(),
    };
    let error = Error::invalid_argument("INVALID_REQUEST", message);
    let fields = report.iter().take(MAX_FIELDS);
    Err(fields
        .fold(error, |error, (path, problem)| {
            error.with_field(path.to_string(), problem.to_string())
        })
        .into())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{StatusCode, header};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, Validate)]
    struct NewItem {
        #[garde(length(min = 1, max = 8))]
        name: String,
        #[garde(dive, length(max = 50))]
        lines: Vec<Line>,
    }

    #[derive(Debug, Deserialize, Validate)]
    struct Line {
        #[garde(range(min = 1))]
        count: u32,
    }

    async fn read(body: String) -> Result<Valid<Json<NewItem>>, Problem> {
        let request = Request::builder().header(header::CONTENT_TYPE, "application/json");
        Valid::<Json<_>>::from_request(request.body(Body::from(body)).unwrap(), &()).await
    }

    #[tokio::test]
    async fn every_field_that_breaks_a_rule_is_named() {
        let good = r#"{"name":"ada","lines":[{"count":1}]}"#;
        assert_eq!(read(good.to_owned()).await.unwrap().0.0.lines[0].count, 1);
        let bad = r#"{"name":"","lines":[{"count":1},{"count":0}]}"#;
        let problem = read(bad.to_owned()).await.unwrap_err();
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
        assert_eq!(problem.error().reason(), "INVALID_REQUEST");
        let fields = problem.error().fields().iter().map(|f| &*f.field);
        let fields: std::collections::BTreeSet<&str> = fields.collect();
        assert_eq!(fields, ["lines[1].count", "name"].into());
    }

    #[tokio::test]
    async fn a_wrong_shape_is_refused_before_any_rule() {
        let problem = read(r#"{"name":7}"#.to_owned()).await.unwrap_err();
        assert_eq!(problem.error().fields()[0].field, "name");
    }

    #[tokio::test]
    async fn a_refusal_names_so_many_fields_and_no_more() {
        let lines = vec![r#"{"count":0}"#; 50].join(",");
        let body = format!(r#"{{"name":"ada","lines":[{lines}]}}"#);
        assert_eq!(read(body).await.unwrap_err().error().fields().len(), MAX_FIELDS);
    }

    #[tokio::test]
    async fn a_query_keeps_rules_too() {
        let mut parts = Request::builder().uri("/?count=0").body(()).unwrap().into_parts().0;
        let problem = Valid::<Query<Line>>::from_request_parts(&mut parts, &()).await.unwrap_err();
        assert_eq!(problem.error().fields()[0].field, "count");
    }
}
