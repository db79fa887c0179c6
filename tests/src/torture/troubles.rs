//! What goes wrong in the steps of the sagas and in the replies to them, as the runner asks
//! for it.
//!
//! Where a process dies is what fail points are for. Here is what a step does that lives:
//! it fails before it did anything, or after; it says that it never will, before or after;
//! it takes longer than it may; or its reply comes when nobody waits for it any more. Each
//! lasts for a while and is over then. An undo must go on until it succeeds, whatever it says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chassis::{Error, Result};
use tokio::time::{Instant, sleep};

/// The steps of a purchase, and their undo.
pub const STEPS: [&str; 6] =
    ["reserve", "charge", "reserve/undo", "charge/undo", "confirm", "cancelled"];

/// The replies that a purchase waits for.
pub const REPLIES: [&str; 2] = ["stock", "money"];

/// Longer than a step may take.
const TOO_LONG: Duration = Duration::from_secs(60);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It fails before anything happened; it may be tried again.
    Fails,
    /// It fails when it was done; it may be tried again.
    FailsAfter,
    /// It is refused for good, and nothing happened.
    Refuses,
    /// It breaks for good when it was done.
    Breaks,
    /// It takes longer than it may.
    Hangs,
    /// The reply comes later than it is waited for.
    Late,
}

impl Trouble {
    /// Each of them that a step can have.
    pub const OF_STEPS: [Trouble; 5] =
        [Trouble::Fails, Trouble::FailsAfter, Trouble::Refuses, Trouble::Breaks, Trouble::Hangs];

    /// Its name, as the runner says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Trouble::Fails => "fails",
            Trouble::FailsAfter => "fails-after",
            Trouble::Refuses => "refuses",
            Trouble::Breaks => "breaks",
            Trouble::Hangs => "hangs",
            Trouble::Late => "late",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Trouble> {
        let all = Trouble::OF_STEPS.into_iter().chain([Trouble::Late]);
        all.into_iter().find(|trouble| trouble.name() == name)
    }
}

/// The troubles of one process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Troubles(Arc<Mutex<HashMap<String, (Trouble, Instant)>>>);

impl Troubles {
    /// From now on, for this long, this place has this trouble.
    pub fn begin(&self, place: &str, trouble: Trouble, lasts: Duration) {
        self.places().insert(place.to_owned(), (trouble, Instant::now() + lasts));
    }

    /// No more troubles.
    pub fn clear(&self) {
        self.places().clear();
    }

    /// The trouble of a place now.
    #[must_use]
    pub fn at(&self, place: &str) -> Option<Trouble> {
        let now = Instant::now();
        self.places().get(place).filter(|(_, until)| now < *until).map(|(trouble, _)| *trouble)
    }

    /// What happens before a step does anything.
    ///
    /// Dropping the future ends the wait.
    ///
    /// # Errors
    ///
    /// The one that was asked for.
    pub async fn before(&self, place: &str) -> Result<()> {
        match self.at(place) {
            Some(Trouble::Fails) => Err(Error::unavailable("TROUBLE", "it was asked to fail")),
            Some(Trouble::Refuses) => {
                Err(Error::failed_precondition("TROUBLE", "it was asked to refuse"))
            }
            Some(Trouble::Hangs) => {
                sleep(TOO_LONG).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What happens after a step did its work.
    ///
    /// # Errors
    ///
    /// The one that was asked for.
    pub fn after(&self, place: &str) -> Result<()> {
        match self.at(place) {
            Some(Trouble::FailsAfter) => {
                Err(Error::unavailable("TROUBLE", "it was asked to fail when it was done"))
            }
            Some(Trouble::Breaks) => Err(Error::internal("it was asked to break")),
            _ => Ok(()),
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, (Trouble, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
