//! A bounded table that drops what was not asked for longest, nearly.
//!
//! When it is full, of a few entries picked by chance the one that was used longest ago goes:
//! Redis's approximation of LRU. It needs no list through all entries, each call costs the
//! same, and what it drops is among the oldest with great probability.

use std::{collections::HashMap, hash::Hash};

/// Entries that are compared for one that goes; Redis's default is 5.
const SAMPLES: usize = 8;

#[derive(Debug)]
pub(super) struct Table<K, V> {
    max_entries: usize,
    places: HashMap<K, usize>,
    slots: Vec<Slot<K, V>>,
    clock: u64,
}

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    used: u64,
}

impl<K: Clone + Eq + Hash, V> Table<K, V> {
    pub(super) fn new(max_entries: usize) -> Self {
        let max_entries = max_entries.max(1);
        Table { max_entries, places: HashMap::new(), slots: Vec::new(), clock: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The value of a key, which counts as used.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        self.clock += 1;
        let slot = &mut self.slots[*self.places.get(key)?];
        slot.used = self.clock;
        Some(&slot.value)
    }

    /// Keeps a value; tells whether another had to go.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        self.clock += 1;
        let used = self.clock;
        if let Some(place) = self.places.get(&key) {
            self.slots[*place] = Slot { key, value, used };
            return false;
        }
        let full = self.slots.len() >= self.max_entries;
        if full {
            let oldest = (0..SAMPLES)
                .map(|_| fastrand::usize(..self.slots.len()))
                .min_by_key(|place| self.slots[*place].used);
            if let Some(oldest) = oldest {
                self.take(oldest);
            }
        }
        self.places.insert(key.clone(), self.slots.len());
        self.slots.push(Slot { key, value, used });
        full
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some(place) = self.places.get(key) {
            self.take(*place);
        }
    }

    fn take(&mut self, place: usize) {
        let gone = self.slots.swap_remove(place);
        self.places.remove(&gone.key);
        if let Some(moved) = self.slots.get(place) {
            self.places.insert(moved.key.clone(), place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut table = Table::new(100);
        for key in 0..10_000 {
            table.insert(key, key);
            // Ten keys are wanted all the time.
            for wanted in 0..10 {
                if table.get(&wanted).is_none() {
                    table.insert(wanted, wanted);
                }
            }
        }
        assert_eq!(table.len(), 100);
        let kept = (0..10).filter(|wanted| table.get(wanted).is_some()).count();
        assert!(kept >= 9, "{kept}");
    }

    proptest! {
        #[test]
        fn it_is_a_map_that_forgets_and_never_invents(
            steps in prop::collection::vec((0u8..3, 0u16..50), 1..500),
        ) {
            let mut table = Table::new(10);
            let mut truth = HashMap::new();
            for (n, (kind, key)) in steps.into_iter().enumerate() {
                match kind {
                    0 => {
                        table.insert(key, n);
                        truth.insert(key, n);
                        prop_assert_eq!(table.get(&key), Some(&n));
                    }
                    1 => {
                        table.remove(&key);
                        truth.remove(&key);
                        prop_assert_eq!(table.get(&key), None);
                    }
                    _ => {
                        if let Some(found) = table.get(&key) {
                            prop_assert_eq!(Some(found), truth.get(&key));
                        }
                    }
                }
                prop_assert!(table.len() <= 10);
                prop_assert_eq!(table.places.len(), table.slots.len());
            }
        }
    }
}
