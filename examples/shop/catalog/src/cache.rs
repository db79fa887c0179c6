//! A small cache with an age limit: fewer reads, and never older than said.
//!
//! The brain only: no lock and no clock. A price may be changed by someone else
//! (another instance, an operator), so an entry is forgotten after its time
//! whatever happens to it; and there is a limit to how many there are, because
//! keys come from callers.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Values by key, each for a time.
#[derive(Debug)]
pub struct Cache<K, V> {
    entries: HashMap<K, (Instant, V)>,
    capacity: usize,
    max_age: Duration,
}

impl<K: Clone + Eq + Hash, V: Clone> Cache<K, V> {
    /// At most `capacity` values, none of them older than `max_age`. With
    /// either at zero nothing is ever found.
    pub fn new(capacity: usize, max_age: Duration) -> Cache<K, V> {
        Cache { entries: HashMap::new(), capacity, max_age }
    }

    /// The value for `key`, if it is there and young enough at `now`.
    pub fn get(&self, key: &K, now: Instant) -> Option<V> {
        let (since, value) = self.entries.get(key)?;
        self.is_young(*since, now).then(|| value.clone())
    }

    /// Keeps `value`, which was read at `now`. Where there is no place the old
    /// ones go, and if there are none, the oldest.
    pub fn put(&mut self, key: K, value: V, now: Instant) {
        if self.capacity == 0 {
            return;
        }
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            self.make_place(now);
        }
        self.entries.insert(key, (now, value));
    }

    fn make_place(&mut self, now: Instant) {
        let max_age = self.max_age;
        self.entries.retain(|_, (since, _)| now.saturating_duration_since(*since) < max_age);
        if self.entries.len() < self.capacity {
            return;
        }
        let oldest = self.entries.iter().min_by_key(|(_, (since, _))| *since);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.entries.remove(&key);
        }
    }

    fn is_young(&self, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) < self.max_age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn a_value_is_found_until_it_is_too_old() {
        let now = start();
        let mut cache = Cache::new(8, 5 * SECOND);
        cache.put("a", 1, now);
        assert_eq!(cache.get(&"a", now + 4 * SECOND), Some(1));
        assert_eq!(cache.get(&"a", now + 5 * SECOND), None);
        assert_eq!(cache.get(&"b", now), None);
        cache.put("a", 2, now + 5 * SECOND);
        assert_eq!(cache.get(&"a", now + 6 * SECOND), Some(2));
    }

    #[test]
    fn it_never_holds_more_than_it_may() {
        let now = start();
        let mut cache = Cache::new(2, 100 * SECOND);
        for (age, key) in ["a", "b", "c"].into_iter().enumerate() {
            cache.put(key, age, now + SECOND * age as u32);
        }
        let now = now + 3 * SECOND;
        assert_eq!(cache.entries.len(), 2);
        assert_eq!(cache.get(&"a", now), None, "the oldest went");
        assert_eq!(cache.get(&"c", now), Some(2));
        cache.put("c", 9, now);
        assert_eq!(cache.get(&"b", now), Some(1), "a known key needs no place");
    }

    #[test]
    fn the_too_old_ones_go_before_the_oldest_young_one() {
        let now = start();
        let mut cache = Cache::new(2, 5 * SECOND);
        cache.put("old", 1, now);
        cache.put("young", 2, now + 4 * SECOND);
        cache.put("new", 3, now + 6 * SECOND);
        assert_eq!(cache.get(&"young", now + 6 * SECOND), Some(2));
        assert_eq!(cache.get(&"new", now + 6 * SECOND), Some(3));
    }

    #[test]
    fn without_room_or_time_nothing_is_kept() {
        let now = start();
        for mut cache in [Cache::new(0, SECOND), Cache::new(4, Duration::ZERO)] {
            cache.put("a", 1, now);
            assert_eq!(cache.get(&"a", now), None);
        }
    }
}
