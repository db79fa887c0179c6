//! Deliveries that never were in anybody's hands, so that they are not counted.
//!
//! The server counts each delivery, also one that found no place here and went straight
//! back. A consumer gives a message up after so many; it must count only those that it
//! could try. This is remembered in the process, for as many messages as a consumer of
//! the server may have unanswered.
//!
//! Other processes of the group, and this one after a restart, know only the server's
//! count, which is then too high. Two things make that harmless: messages are given back
//! untried only where they do not fit into memory or nobody takes any, and a consumer does
//! not give up by the count alone what it has not tried.

use std::collections::BTreeMap;

/// By number in the stream.
#[derive(Debug, Default)]
pub(super) struct Uncounted(BTreeMap<u64, u32>);

impl Uncounted {
    /// A delivery of this message is not to be counted.
    pub(super) fn add(&mut self, seq: u64, most: usize) {
        let count = self.0.entry(seq).or_insert(0);
        *count = count.saturating_add(1);
        while self.0.len() > most {
            self.0.pop_first();
        }
    }

    /// How many deliveries of this message are not counted.
    pub(super) fn count(&self, seq: u64) -> u32 {
        self.0.get(&seq).copied().unwrap_or(0)
    }

    /// The attempt that the server's count stands for.
    pub(super) fn attempt(&self, seq: u64, delivered: u32) -> u32 {
        delivered.saturating_sub(self.count(seq)).max(1)
    }

    /// The message is answered for good.
    pub(super) fn forget(&mut self, seq: u64) {
        self.0.remove(&seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_tried_is_not_counted_and_not_kept_for_ever() {
        let mut uncounted = Uncounted::default();
        assert_eq!(uncounted.attempt(7, 3), 3);
        uncounted.add(7, 2);
        uncounted.add(7, 2);
        assert_eq!((uncounted.count(7), uncounted.attempt(7, 3)), (2, 1));
        // Another process gave it back too, and forgot it: still a first attempt.
        assert_eq!(uncounted.attempt(7, 1), 1);
        uncounted.add(8, 2);
        uncounted.add(9, 2);
        assert_eq!((uncounted.attempt(7, 3), uncounted.attempt(9, 3)), (3, 2));
        uncounted.forget(9);
        assert_eq!(uncounted.attempt(9, 3), 3);
    }
}
