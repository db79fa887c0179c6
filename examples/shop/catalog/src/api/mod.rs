//! The edge: parse, call, map. No decisions.

pub mod etag;
pub mod grpc;
pub mod http;

use shop_contracts::catalog::v1 as wire;

use crate::domain::Product;

/// One shape for both transports.
fn to_wire(product: Product) -> wire::Product {
    wire::Product {
        sku: product.sku.as_str().to_owned(),
        name: product.name,
        description: product.description,
        price_minor: product.price.minor(),
        currency: product.price.currency().to_owned(),
    }
}
