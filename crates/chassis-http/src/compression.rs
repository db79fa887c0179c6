//! gzip, both ways, by tower-http: off unless the settings say so.
//!
//! A compressed body is a small one that can become very large, so that the limit of a body holds
//! before and after it is decompressed.

use axum::Router;
use chassis_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Whether bodies are compressed. Needs the feature `compression`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct CompressionConfig {
    /// Whether answers are compressed for callers that accept gzip. Not where one answer holds
    /// both a secret and what a caller has sent: its length would tell of the secret.
    pub answers: bool,
    /// Smallest answer that is compressed, in bytes. 1 to 65535.
    pub min_bytes: u16,
    /// Whether requests may come compressed; `body_limit` holds before and after.
    pub requests: bool,
}

impl Default for CompressionConfig {
    fn default() -> CompressionConfig {
        // A smaller answer fits into a packet either way.
        CompressionConfig { answers: false, min_bytes: 1024, requests: false }
    }
}

impl CompressionConfig {
    pub(crate) fn validate(&self, path: &str) -> Result<()> {
        let wrong = if self.min_bytes == 0 {
            "min_bytes is 0, allowed is 1 to 65535"
        } else if (self.answers || self.requests) && cfg!(not(feature = "compression")) {
            "this program was built without it: enable the feature `compression`"
        } else {
            return Ok(());
        };
        Err(Error::invalid_argument("INVALID_CONFIG", format!("{path}: {wrong}")))
    }

    #[cfg(not(feature = "compression"))]
    pub(crate) fn around(&self, router: Router, _: u64) -> Router {
        router
    }

    /// Inside of the edge, which sees what goes over the wire.
    #[cfg(feature = "compression")]
    pub(crate) fn around(&self, mut router: Router, body_limit: u64) -> Router {
        use axum::middleware::from_fn_with_state;
        use tower_http::{
            compression::{
                CompressionLayer, Predicate as _,
                predicate::{NotForContentType, SizeAbove},
            },
            decompression::RequestDecompressionLayer,
        };

        if self.requests {
            // The second is around the first.
            router = router
                .layer(from_fn_with_state(body_limit, bounded))
                .layer(RequestDecompressionLayer::new());
        }
        if self.answers {
            let worth_it = SizeAbove::new(self.min_bytes.into())
                .and(NotForContentType::IMAGES)
                .and(NotForContentType::SSE)
                .and(NotForContentType::GRPC);
            router = router.layer(CompressionLayer::new().compress_when(worth_it));
        }
        router
    }
}

/// Bounds what a compressed body becomes.
#[cfg(feature = "compression")]
async fn bounded(
    axum::extract::State(limit): axum::extract::State<u64>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    use axum::{body::Body, response::IntoResponse as _};

    use crate::{
        edge::body_over,
        limit::{Limited, Tripped},
    };

    let tripped = Tripped::default();
    let body = |body| Body::new(Limited::new(body, limit, tripped.clone()));
    let response = next.run(request.map(body)).await;
    match tripped.by() {
        Some(limit) if !response.status().is_success() => body_over(limit).into_response(),
        _ => response,
    }
}
