//! The simulated provider: the bank's books behind a mood.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use chassis::resilience::BoxError;
use parking_lot::Mutex;
use tower::Service;

use super::Ask;
use super::bank::Bank;
use super::mood::{Mood, Moods};
use crate::domain::Verdict;

/// The provider gave no answer. Whether it did the work is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer;

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the provider gave no answer")
    }
}

impl std::error::Error for NoAnswer {}

/// A provider with moods. Clones share them.
#[derive(Clone)]
pub struct MoodyProvider {
    bank: Bank,
    moods: Arc<Mutex<Moods>>,
    slow_for: Duration,
}

impl MoodyProvider {
    /// A provider with these books; a slow call takes `slow_for` more.
    pub fn new(bank: Bank, moods: Moods, slow_for: Duration) -> MoodyProvider {
        MoodyProvider { bank, moods: Arc::new(Mutex::new(moods)), slow_for }
    }
}

impl Service<Ask> for MoodyProvider {
    type Response = Verdict;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Verdict, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, ask: Ask) -> Self::Future {
        let mood = self.moods.lock().draw();
        let (bank, slow_for) = (self.bank.clone(), self.slow_for);
        Box::pin(async move {
            match mood {
                Mood::Good => {}
                Mood::Slow => tokio::time::sleep(slow_for).await,
                Mood::Fails => return Err(NoAnswer.into()),
                Mood::Forgets => {
                    answer(&bank, ask).await?;
                    return Err(NoAnswer.into());
                }
            }
            answer(&bank, ask).await
        })
    }
}

async fn answer(bank: &Bank, ask: Ask) -> Result<Verdict, BoxError> {
    match ask {
        Ask::Charge(charge) => Ok(bank.charge(&charge).await?),
        Ask::GiveBack { key } => {
            bank.give_back(&key).await?;
            Ok(Verdict::Closed)
        }
    }
}
