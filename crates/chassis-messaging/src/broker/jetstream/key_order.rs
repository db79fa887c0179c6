//! The brain that keeps order within a key among the messages of one puller.
//!
//! JetStream hands out what is due, in any order once something is redelivered.
//! Here the messages of a key stand in a line by their number in the stream. One may
//! go if all before it in the line are in hand, no more than `per_key` (one, as a
//! rule), and none behind it. A message that was given back keeps its place until it
//! returns, or until it should have: another process of the group may have got it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;

/// Says which handing-out an answer belongs to.
pub(super) type Ticket = u64;

enum Place<T> {
    /// Behind another of its key.
    Parked(T),
    /// Among `ready`.
    Ready,
    /// In hand.
    Out(Ticket),
    /// Given back; it should return before this.
    Expected(Instant),
}

pub(super) struct KeyOrder<T> {
    ready: BTreeMap<u64, (Option<Arc<str>>, T)>,
    lines: HashMap<Arc<str>, BTreeMap<u64, Place<T>>>,
    /// What those that wait weigh together.
    parked: usize,
    weight: fn(&T) -> usize,
    tickets: Ticket,
    per_key: usize,
    /// No wait for a return ends before this. It may be too early, never too late: all lines
    /// are gone through only when it has come, not for each message.
    earliest: Option<Instant>,
}

impl<T> KeyOrder<T> {
    /// `weight` says what a message that waits here costs.
    pub(super) fn new(per_key: usize, weight: fn(&T) -> usize) -> KeyOrder<T> {
        KeyOrder {
            ready: BTreeMap::new(),
            lines: HashMap::new(),
            parked: 0,
            weight,
            tickets: 0,
            per_key,
            earliest: None,
        }
    }

    /// The place of a message that should return before `until`.
    fn awaited(earliest: &mut Option<Instant>, until: Instant) -> Place<T> {
        *earliest = Some(earliest.map_or(until, |earliest| earliest.min(until)));
        Place::Expected(until)
    }

    /// A message came in. If it must wait and those that do weigh `most` or more, it is
    /// given back to the caller, and expected again before `until`.
    pub(super) fn arrive(
        &mut self,
        seq: u64,
        key: Option<Arc<str>>,
        item: T,
        most: usize,
        until: Instant,
    ) -> Option<T> {
        let Some(key) = key else {
            self.ready.insert(seq, (None, item));
            return None;
        };
        let line = self.lines.entry(key.clone()).or_default();
        let known = line.contains_key(&seq);
        if let Some(Place::Ready) = line.get(&seq) {
            self.ready.insert(seq, (Some(key), item));
            return None;
        }
        let mut ahead = 0;
        let may_go = line.iter().all(|(&s, place)| match s.cmp(&seq) {
            Ordering::Less => {
                ahead += 1;
                ahead < self.per_key && place.goes()
            }
            Ordering::Equal => true,
            Ordering::Greater => !place.is_out(),
        });
        if may_go {
            if let Some(Place::Parked(old)) = line.insert(seq, Place::Ready) {
                self.parked -= (self.weight)(&old);
            }
            self.ready.insert(seq, (Some(key.clone()), item));
            // Some that were to go have it before them now; others may go with it.
            self.hold_back(&key, seq, self.per_key.saturating_sub(ahead + 1));
            self.release(&key);
            return None;
        }
        if matches!(line.get(&seq), Some(Place::Out(_))) {
            // The hand that has it will answer; another copy would have to wait, and that
            // answer would be void then, though others of the key wait for it.
            return None;
        }
        if self.parked >= most && !matches!(line.get(&seq), Some(Place::Parked(_))) {
            if !known {
                line.insert(seq, Self::awaited(&mut self.earliest, until));
                self.hold_back(&key, seq, 0);
            }
            return Some(item);
        }
        self.parked += (self.weight)(&item);
        if let Some(Place::Parked(old)) = line.insert(seq, Place::Parked(item)) {
            self.parked -= (self.weight)(&old);
        }
        self.hold_back(&key, seq, 0);
        None
    }

    /// The next message that may go, with the ticket for its answer.
    pub(super) fn next(&mut self) -> Option<(T, Ticket)> {
        let (seq, (key, item)) = self.ready.pop_first()?;
        self.tickets += 1;
        if let Some(line) = key.and_then(|key| self.lines.get_mut(&*key)) {
            line.insert(seq, Place::Out(self.tickets));
        }
        Some((item, self.tickets))
    }

    /// A message was answered for good.
    pub(super) fn finished(&mut self, seq: u64, key: Option<&str>, ticket: Ticket) {
        self.answered(seq, key, ticket, None);
    }

    /// A message was given back and should return before `until`.
    pub(super) fn given_back(
        &mut self,
        seq: u64,
        key: Option<&str>,
        ticket: Ticket,
        until: Instant,
    ) {
        self.answered(seq, key, ticket, Some(until));
    }

    fn answered(&mut self, seq: u64, key: Option<&str>, ticket: Ticket, until: Option<Instant>) {
        let Some(key) = key else { return };
        let Some(line) = self.lines.get_mut(key) else { return };
        // It may have come again meanwhile: then the new one decides.
        if !matches!(line.get(&seq), Some(Place::Out(current)) if *current == ticket) {
            return;
        }
        match until {
            Some(until) => {
                line.insert(seq, Self::awaited(&mut self.earliest, until));
                // Those behind it that were to go with it must wait.
                self.hold_back(key, seq, 0);
            }
            None => {
                line.remove(&seq);
            }
        }
        self.release(key);
    }

    /// Takes out all that is in nobody's hand; it should return before `until`.
    pub(super) fn give_back(&mut self, until: Instant) -> Vec<T> {
        let ready = std::mem::take(&mut self.ready);
        let mut given = Vec::with_capacity(ready.len());
        for (seq, (key, item)) in ready {
            if let Some(line) = key.and_then(|key| self.lines.get_mut(&*key)) {
                line.insert(seq, Self::awaited(&mut self.earliest, until));
            }
            given.push(item);
        }
        for place in self.lines.values_mut().flat_map(BTreeMap::values_mut) {
            if matches!(place, Place::Parked(_)) {
                let expected = Self::awaited(&mut self.earliest, until);
                if let Place::Parked(item) = std::mem::replace(place, expected) {
                    given.push(item);
                }
            }
        }
        self.parked = 0;
        given
    }

    /// Stops waiting for what should have returned by now.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return;
        }
        let overdue: Vec<Arc<str>> = self
            .lines
            .iter()
            .filter(|(_, line)| line.values().any(|place| place.is_overdue(now)))
            .map(|(key, _)| key.clone())
            .collect();
        for key in overdue {
            if let Some(line) = self.lines.get_mut(&*key) {
                line.retain(|_, place| !place.is_overdue(now));
            }
            self.release(&key);
        }
        let places = self.lines.values().flat_map(BTreeMap::values);
        self.earliest = places.filter_map(Place::until).min();
    }

    /// When to [`advance`](KeyOrder::advance) at the latest.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.earliest
    }

    /// Messages that could go if a hand were free.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// All that is here and in nobody's hand.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &T> {
        let parked =
            self.lines.values().flat_map(BTreeMap::values).filter_map(|place| match place {
                Place::Parked(item) => Some(item),
                _ => None,
            });
        self.ready.values().map(|(_, item)| item).chain(parked)
    }

    /// Of those behind a message and about to go only the first go with it, at most so many.
    fn hold_back(&mut self, key: &str, seq: u64, mut most: usize) {
        let Some(line) = self.lines.get_mut(key) else { return };
        for (behind, place) in line.range_mut((Bound::Excluded(seq), Bound::Unbounded)) {
            if most > 0 && place.goes() {
                most -= 1;
                continue;
            }
            most = 0;
            if matches!(place, Place::Ready)
                && let Some((_, item)) = self.ready.remove(behind)
            {
                self.parked += (self.weight)(&item);
                *place = Place::Parked(item);
            }
        }
    }

    fn release(&mut self, key: &str) {
        let Some(line) = self.lines.get_mut(key) else { return };
        if line.is_empty() {
            self.lines.remove(key);
            return;
        }
        // One that comes late waits for those behind it that are in hand.
        let last_out = line.iter().rfind(|(_, place)| place.is_out()).map(|(&seq, _)| seq);
        for (&seq, place) in line.iter_mut().take(self.per_key) {
            if matches!(place, Place::Parked(_)) {
                if last_out.is_some_and(|out| seq < out) {
                    return;
                }
                if let Place::Parked(item) = std::mem::replace(place, Place::Ready) {
                    self.parked -= (self.weight)(&item);
                    self.ready.insert(seq, (Some(Arc::from(key)), item));
                }
            }
            if !place.goes() {
                return;
            }
        }
    }
}

impl<T> Place<T> {
    fn is_out(&self) -> bool {
        matches!(self, Place::Out(_))
    }

    /// In hand, or about to be.
    fn goes(&self) -> bool {
        matches!(self, Place::Out(_) | Place::Ready)
    }

    fn until(&self) -> Option<Instant> {
        match self {
            Place::Expected(until) => Some(*until),
            _ => None,
        }
    }

    fn is_overdue(&self, now: Instant) -> bool {
        self.until().is_some_and(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        *START + Duration::from_secs(seconds)
    }

    fn arrive(lines: &mut KeyOrder<u64>, seq: u64, key: &str) -> Option<u64> {
        lines.arrive(seq, Some(key.into()), seq, 2, at(5))
    }

    #[test]
    fn a_line_goes_one_after_the_other() {
        let mut lines = KeyOrder::new(1, |_| 1);
        for (seq, key) in [(1, "a"), (2, "a"), (3, "b")] {
            assert_eq!(arrive(&mut lines, seq, key), None);
        }
        let (first, ticket) = lines.next().unwrap();
        assert_eq!(first, 1);
        assert_eq!(lines.next().map(|(seq, _)| seq), Some(3));
        assert!(lines.next().is_none());
        lines.finished(1, Some("a"), ticket);
        assert_eq!(lines.next().map(|(seq, _)| seq), Some(2));
    }

    #[test]
    fn a_message_given_back_keeps_its_place_until_it_returns() {
        let mut lines = KeyOrder::new(1, |_| 1);
        arrive(&mut lines, 1, "a");
        arrive(&mut lines, 2, "a");
        let (_, ticket) = lines.next().unwrap();
        lines.given_back(1, Some("a"), ticket, at(10));
        assert!(lines.next().is_none());
        assert_eq!(lines.next_timer(), Some(at(10)));
        arrive(&mut lines, 1, "a");
        assert_eq!(lines.next().map(|(seq, _)| seq), Some(1));
        assert!(lines.next().is_none());
    }

    #[test]
    fn a_message_that_does_not_return_is_not_waited_for_for_ever() {
        let mut lines = KeyOrder::new(1, |_| 1);
        arrive(&mut lines, 1, "a");
        arrive(&mut lines, 2, "a");
        let (_, ticket) = lines.next().unwrap();
        lines.given_back(1, Some("a"), ticket, at(10));
        lines.advance(at(9));
        assert!(lines.next().is_none());
        lines.advance(at(10));
        assert_eq!(lines.next().map(|(seq, _)| seq), Some(2));
    }

    #[test]
    fn a_redelivery_of_what_is_in_hand_goes_out_again_and_the_old_answer_is_void() {
        let mut lines = KeyOrder::new(1, |_| 1);
        arrive(&mut lines, 1, "a");
        arrive(&mut lines, 2, "a");
        let (_, old) = lines.next().unwrap();
        arrive(&mut lines, 1, "a");
        let (seq, new) = lines.next().unwrap();
        assert_eq!(seq, 1);
        lines.finished(1, Some("a"), old);
        assert!(lines.next().is_none());
        lines.finished(1, Some("a"), new);
        assert_eq!(lines.next().map(|(seq, _)| seq), Some(2));
    }

    #[test]
    fn an_earlier_message_that_comes_late_waits_for_the_one_in_hand() {
        let mut lines = KeyOrder::new(1, |_| 1);
        arrive(&mut lines, 5, "a");
        let (_, ticket) = lines.next().unwrap();
        arrive(&mut lines, 3, "a");
        assert!(lines.next().is_none());
        lines.finished(5, Some("a"), ticket);
        assert_eq!(lines.next().map(|(seq, _)| seq), Some(3));
    }

    #[test]
    fn an_earlier_message_that_comes_before_the_later_one_went_out_goes_alone() {
        let mut lines = KeyOrder::new(1, |_| 1);
        arrive(&mut lines, 5, "a");
        arrive(&mut lines, 3, "a");
        let (first, ticket) = lines.next().unwrap();
        assert_eq!(first, 3);
        assert!(lines.next().is_none(), "two of a key in hand");
        assert_eq!(lines.waiting().count(), 1);
        lines.finished(3, Some("a"), ticket);
        assert_eq!(lines.next().map(|(seq, _)| seq), Some(5));
        assert_eq!(lines.parked, 0);
    }

    #[test]
    fn of_several_of_a_key_the_first_go_together_whenever_they_came() {
        let mut lines = KeyOrder::new(2, |_| 1);
        for seq in [5, 6, 3] {
            assert_eq!(lines.arrive(seq, Some("a".into()), seq, 9, at(5)), None);
        }
        let out: Vec<_> = std::iter::from_fn(|| lines.next()).collect();
        assert_eq!(out.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [3, 5]);
        lines.finished(3, Some("a"), out[0].1);
        assert_eq!(lines.next().map(|(seq, _)| seq), Some(6));
    }

    #[test]
    fn what_is_about_to_go_waits_for_an_earlier_one_that_came_late() {
        let mut lines = KeyOrder::new(3, |_| 1);
        lines.arrive(5, Some("a".into()), 5, 9, at(5));
        let (_, ticket) = lines.next().unwrap();
        // Number 6 could go with 5, but then 1 and what comes before 6 would go behind it.
        for seq in [6, 1, 2, 3] {
            lines.arrive(seq, Some("a".into()), seq, 9, at(5));
        }
        assert!(lines.next().is_none());
        lines.finished(5, Some("a"), ticket);
        let went: Vec<_> = std::iter::from_fn(|| lines.next()).map(|(seq, _)| seq).collect();
        assert_eq!(went, [1, 2, 3]);
    }

    #[test]
    fn only_so_many_may_wait_and_the_rest_keeps_its_place() {
        let mut lines = KeyOrder::new(1, |_| 1);
        for seq in 1..=3 {
            assert_eq!(arrive(&mut lines, seq, "a"), None);
        }
        assert_eq!(arrive(&mut lines, 4, "a"), Some(4));
        assert_eq!(lines.waiting().count(), 3);
        // Number 5 comes while there is room again, but 4 goes first.
        for expected in 1..=3 {
            let (seq, ticket) = lines.next().unwrap();
            assert_eq!(seq, expected);
            lines.finished(seq, Some("a"), ticket);
        }
        assert_eq!(arrive(&mut lines, 5, "a"), None);
        assert!(lines.next().is_none());
        assert_eq!(arrive(&mut lines, 4, "a"), None);
        assert_eq!(lines.next().map(|(seq, _)| seq), Some(4));
    }

    #[test]
    fn several_of_a_key_go_together_in_their_order() {
        let mut lines = KeyOrder::new(3, |_| 1);
        for seq in 1..=2 {
            assert_eq!(lines.arrive(seq, Some("a".into()), seq, 9, at(5)), None);
        }
        let (first, one) = lines.next().unwrap();
        assert_eq!(first, 1);
        for seq in 3..=4 {
            assert_eq!(lines.arrive(seq, Some("a".into()), seq, 9, at(5)), None);
        }
        let (second, two) = lines.next().unwrap();
        assert_eq!(second, 2);
        // Number 3 is ready, then the first comes back: it has to wait.
        lines.given_back(1, Some("a"), one, at(10));
        assert!(lines.next().is_none());
        lines.given_back(2, Some("a"), two, at(10));
        lines.arrive(2, Some("a".into()), 2, 9, at(5));
        assert!(lines.next().is_none());
        lines.arrive(1, Some("a".into()), 1, 9, at(5));
        let key_order: Vec<_> = std::iter::from_fn(|| lines.next()).map(|(seq, _)| seq).collect();
        assert_eq!(key_order, [1, 2, 3]);
    }

    #[test]
    fn what_waits_is_given_back_and_keeps_its_place() {
        let mut lines = KeyOrder::new(1, |_| 1);
        arrive(&mut lines, 1, "a");
        let (_, ticket) = lines.next().unwrap();
        arrive(&mut lines, 2, "a");
        lines.arrive(3, None, 3, 2, at(5));
        assert_eq!(lines.give_back(at(9)), [3, 2]);
        lines.finished(1, Some("a"), ticket);
        arrive(&mut lines, 4, "a");
        assert!(lines.next().is_none());
        lines.arrive(2, Some("a".into()), 2, 2, at(9));
        assert_eq!(lines.next().map(|(seq, _)| seq), Some(2));
    }

    #[test]
    fn a_redelivery_of_what_is_in_hand_does_not_stop_its_key_for_ever() {
        let mut lines = KeyOrder::new(1, |_| 1);
        arrive(&mut lines, 2, "a");
        let (_, ticket) = lines.next().unwrap();
        // Late, so it waits for the one in hand; then that one comes again.
        arrive(&mut lines, 1, "a");
        arrive(&mut lines, 2, "a");
        assert!(lines.next().is_none());
        lines.finished(2, Some("a"), ticket);
        assert_eq!(lines.next().map(|(seq, _)| seq), Some(1));
    }

    /// Whatever comes, in whatever order and however often: once all that is in hand is
    /// answered and nothing is expected any more, nothing waits.
    #[test]
    fn nothing_waits_for_what_nobody_holds() {
        for seed in 0..3000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let per_key = rng.usize(1..=3);
            let mut lines = KeyOrder::new(per_key, |_| 1);
            // What was handed out and not answered, also where a newer copy went out.
            let mut out: Vec<(u64, Ticket)> = Vec::new();
            let mut now = 0;
            for _ in 0..rng.usize(1..60) {
                match rng.u8(..10) {
                    0..4 => {
                        let seq = rng.u64(1..=6);
                        lines.arrive(seq, Some("a".into()), seq, 3, at(now + 5));
                    }
                    4..7 => out.extend(lines.next()),
                    7..9 if !out.is_empty() => {
                        let (seq, ticket) = out.swap_remove(rng.usize(..out.len()));
                        if rng.bool() {
                            lines.finished(seq, Some("a"), ticket);
                        } else {
                            lines.given_back(seq, Some("a"), ticket, at(now + 5));
                        }
                    }
                    _ => {
                        now += rng.u64(..4);
                        lines.advance(at(now));
                    }
                }
                let places = lines.lines.values().flat_map(BTreeMap::values);
                let going = places.filter(|place| place.goes()).count();
                assert!(going <= per_key, "seed {seed}: {going} of a key");
            }
            lines.advance(at(now + 100));
            loop {
                for (seq, ticket) in out.drain(..) {
                    lines.finished(seq, Some("a"), ticket);
                }
                out.extend(std::iter::from_fn(|| lines.next()));
                if out.is_empty() {
                    break;
                }
            }
            assert_eq!(lines.waiting().count(), 0, "seed {seed}");
            assert!(lines.lines.is_empty() && lines.parked == 0, "seed {seed}");
        }
    }

    #[test]
    fn giving_back_asks_for_room_by_number_and_not_by_weight() {
        let mut lines = KeyOrder::new(1, |_| 1 << 30);
        for seq in 1..=2 {
            assert_eq!(lines.arrive(seq, Some("a".into()), seq, usize::MAX, at(5)), None);
        }
        let given = lines.give_back(at(9));
        assert_eq!(given, [1, 2]);
        assert!(given.capacity() < 100, "room for {}", given.capacity());
    }

    #[test]
    fn nothing_is_kept_of_what_is_done() {
        let mut lines = KeyOrder::new(1, |_| 1);
        arrive(&mut lines, 1, "a");
        lines.arrive(2, None, 2, 2, at(5));
        while let Some((seq, ticket)) = lines.next() {
            lines.finished(seq, (seq == 1).then_some("a"), ticket);
        }
        assert!(lines.lines.is_empty());
        assert_eq!((lines.ready(), lines.parked), (0, 0));
    }
}
