//! What to ask next: the brain of the blocking query.
//!
//! Consul's rules for who blocks: an index below one is a mistake and asks
//! without waiting; one that went back means that the servers were restored or
//! replaced, so what is known of time is void; and whoever is answered at once
//! again and again must hold himself back.
//!
//! Source: `api-docs/features/blocking`, "Implementation Details".

use std::time::Duration;

/// The least time between two questions whose answers came at once.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause of who is answered at once all the time.
const LONGEST: Duration = Duration::from_secs(2);
/// An answer within this time came at once.
const AT_ONCE: Duration = Duration::from_millis(50);
/// So many changes may come one after the other before it is noise.
const BURST: u32 = 5;

/// The index to block on.
#[derive(Debug, Default)]
pub(super) struct Index {
    known: Option<u64>,
    at_once: u32,
}

impl Index {
    /// What to ask with; none asks for the set as it is.
    pub(super) fn known(&self) -> Option<u64> {
        self.known
    }

    /// Takes the index of an answer that took `took`; gives the pause before the
    /// next question.
    pub(super) fn answered(&mut self, index: u64, took: Duration) -> Duration {
        self.known = match self.known {
            _ if index == 0 => None,
            Some(known) if index < known => None,
            _ => Some(index),
        };
        if took > AT_ONCE {
            self.at_once = 0;
            return Duration::ZERO;
        }
        self.at_once = self.at_once.saturating_add(1);
        match self.at_once.checked_sub(BURST) {
            None if self.known.is_some() => Duration::ZERO,
            None => PAUSE,
            Some(over) => LONGEST.min(PAUSE * 2u32.saturating_pow(over.min(8))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1);

    #[test]
    fn an_index_that_goes_back_or_is_zero_asks_without_waiting() {
        let mut index = Index::default();
        assert_eq!(index.known(), None);
        for (given, expected) in
            [(7, Some(7)), (9, Some(9)), (9, Some(9)), (3, None), (3, Some(3)), (0, None)]
        {
            index.answered(given, LONG);
            assert_eq!(index.known(), expected, "after {given}");
        }
    }

    #[test]
    fn who_is_always_answered_at_once_slows_down() {
        let mut index = Index::default();
        let pauses: Vec<u128> =
            (1..20).map(|n| index.answered(n, Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses[..6], [0, 0, 0, 0, 100, 200]);
        assert_eq!(pauses[18], 2_000);
        assert_eq!(index.answered(100, LONG), Duration::ZERO);
        assert_eq!(index.answered(101, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_server_without_an_index_is_not_asked_in_a_loop() {
        let mut index = Index::default();
        assert_eq!(index.answered(0, Duration::ZERO), PAUSE);
    }
}
