//! "The same key goes to the same endpoint", where a caller asks for it.
//!
//! For a callee that keeps something warm for a customer or a document. It is a wish, not a
//! promise: a key moves when its endpoint leaves, fails or has more than its share of calls.

use super::hash;

/// Put into a request's extensions, it asks for the endpoint that its key belongs to.
///
/// All clients with the same set of endpoints agree on it; clients that each use another
/// subset do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity(pub(crate) u64);

impl Affinity {
    /// The affinity of this key, for example a customer's number.
    pub fn of(key: impl AsRef<[u8]>) -> Affinity {
        Affinity(hash::of_bytes(key.as_ref()))
    }
}
