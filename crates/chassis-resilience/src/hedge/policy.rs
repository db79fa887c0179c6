//! Who decides which requests may be sent twice, and which answer ends the race.
//!
//! Only the protocol knows both, as with [`RetryPolicy`](crate::retry::RetryPolicy).

/// Decides about copies of one kind of request.
pub trait HedgePolicy<Req, Res, E>: Clone {
    /// A copy for a second attempt at the same time; `None` if the request cannot be copied or
    /// is not safe to do twice. Then it is sent once.
    fn clone_request(&self, request: &Req) -> Option<Req>;

    /// Whether this answer ends the race. One that does not, while the other attempt is under
    /// way, gives way to the other's.
    fn settles(&self, result: Result<&Res, &E>) -> bool {
        result.is_ok()
    }
}
