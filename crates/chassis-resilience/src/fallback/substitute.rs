//! Where an answer comes from when the callee gives none.
//!
//! A call consumes its request, so a source first takes from it what it would need.

use std::future::Future;

use super::Degraded;

/// Something that can stand in for answers.
pub trait Substitute<Req, Res>: Clone + Send + Sync + 'static {
    /// What must be known of a request later.
    type Kept: Send + 'static;

    /// Takes from a request what is needed if it fails. Called once per call.
    fn keep(&self, request: &Req) -> Self::Kept;

    /// The callee answered well.
    fn answered(&self, _kept: &Self::Kept, _response: &Res) {}

    /// What is given instead; `None` if there is nothing, and the failure stands. Dropping the
    /// future gives up what it has not done yet.
    fn substitute(
        &self,
        kept: Self::Kept,
    ) -> impl Future<Output = Option<(Res, Degraded)>> + Send + 'static;

    /// Asks `other` where this has nothing.
    fn or<B>(self, other: B) -> Or<Self, B>
    where
        B: Substitute<Req, Res>,
    {
        Or { first: self, second: other }
    }
}

/// Two sources, the second asked where the first has nothing.
#[derive(Clone, Debug)]
pub struct Or<A, B> {
    first: A,
    second: B,
}

impl<A, B, Req, Res> Substitute<Req, Res> for Or<A, B>
where
    A: Substitute<Req, Res>,
    B: Substitute<Req, Res>,
    Res: Send + 'static,
{
    type Kept = (A::Kept, B::Kept);

    fn keep(&self, request: &Req) -> Self::Kept {
        (self.first.keep(request), self.second.keep(request))
    }

    fn answered(&self, kept: &Self::Kept, response: &Res) {
        self.first.answered(&kept.0, response);
        self.second.answered(&kept.1, response);
    }

    fn substitute(
        &self,
        (first, second): Self::Kept,
    ) -> impl Future<Output = Option<(Res, Degraded)>> + Send + 'static {
        let both = self.clone();
        async move {
            if let Some(found) = both.first.substitute(first).await {
                return Some(found);
            }
            both.second.substitute(second).await
        }
    }
}
