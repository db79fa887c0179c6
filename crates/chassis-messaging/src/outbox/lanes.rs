//! Which row may be published next: strict order within a key, many keys at once.
//!
//! A row that was accepted by the broker cannot be taken back. If row n of a
//! key fails after row n+1 was accepted, publishing n again turns the order
//! round. So a key is a lane with at most one unacknowledged row, and the
//! speed comes from many lanes in flight together. A lane that fails is
//! forgotten here and left to its `next_at` in the table; the others go on.
//!
//! No I/O and no clock: the relay passes `now` (unix milliseconds) and a random
//! number in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chassis_resilience::retry::Backoff;

/// A row as the lanes see it; `item` is what gets published.
#[derive(Debug)]
pub(crate) struct Entry<M> {
    pub(crate) seq: i64,
    pub(crate) part: i64,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) attempts: u32,
    pub(crate) item: M,
}

/// How much may be held and how often a row is tried.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Rows being published at the same time.
    pub(crate) max_in_flight: usize,
    /// Rows held in memory, published ones that are not yet marked included.
    pub(crate) window: usize,
    /// Refusals after which a row is parked.
    pub(crate) max_attempts: u32,
    /// Delay between two tries of a refused row.
    pub(crate) row: Backoff,
    /// Delay between two tries of a broker that does not answer.
    pub(crate) outage: Backoff,
}

/// Why a publish failed, as far as the relay cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The broker answered and said no: the row's own fault.
    Refused,
    /// No answer: nothing is known about the row, so no attempt is counted.
    Unreachable,
}

/// What becomes of a row that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try again at this time; until then the row's key waits.
    Retry { attempts: u32, at: i64 },
    /// Give up on the row; its key goes on.
    Park { attempts: u32 },
    /// The broker is away: nothing is written, everything waits.
    Hold,
}

/// A failure to be written to the table.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) seq: i64,
    pub(crate) part: i64,
    pub(crate) verdict: Verdict,
    pub(crate) reason: String,
}

/// What is to be written to the table in one transaction.
#[derive(Debug, Default)]
pub(crate) struct Flush {
    pub(crate) published: Vec<i64>,
    pub(crate) failed: Vec<Failed>,
}

impl Flush {
    pub(crate) fn is_empty(&self) -> bool {
        self.published.is_empty() && self.failed.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum LaneId {
    Key(Arc<str>),
    /// A row without a key has no order to keep: a lane of its own.
    Row(i64),
}

#[derive(Debug)]
struct Lane<M> {
    part: i64,
    queue: BTreeMap<i64, Entry<M>>,
    /// The row that is in flight, or whose failure is not yet written.
    busy: Option<i64>,
}

#[derive(Debug)]
struct Flight {
    lane: LaneId,
    part: i64,
    attempts: u32,
    /// Value of `acks` when it took off.
    acks: u64,
}

/// The rows in hand, by key.
#[derive(Debug)]
pub(crate) struct Lanes<M> {
    limits: Limits,
    lanes: HashMap<LaneId, Lane<M>>,
    /// First row of each lane that is free to send.
    ready: BTreeMap<i64, LaneId>,
    flying: HashMap<i64, Flight>,
    known: HashSet<i64>,
    published: Vec<i64>,
    failed: Vec<(LaneId, Failed)>,
    acks: u64,
    outage: u32,
    paused_until: i64,
}

impl<M> Lanes<M> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            ready: BTreeMap::new(),
            flying: HashMap::new(),
            known: HashSet::new(),
            published: Vec::new(),
            failed: Vec::new(),
            acks: 0,
            outage: 0,
            paused_until: i64::MIN,
        }
    }

    /// Rows that are held, in whatever state.
    pub(crate) fn held(&self) -> usize {
        self.known.len()
    }

    /// Rows that may still be taken in.
    pub(crate) fn room(&self) -> usize {
        self.limits.window.saturating_sub(self.known.len())
    }

    /// Rows whose fate is known but not yet written.
    pub(crate) fn unwritten(&self) -> usize {
        self.published.len() + self.failed.len()
    }

    pub(crate) fn has_failures(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Nothing is published before this time; `None`: the broker is well.
    pub(crate) fn paused_until(&self, now: i64) -> Option<i64> {
        (now < self.paused_until).then_some(self.paused_until)
    }

    /// Takes a row in; a row that is already held changes nothing.
    pub(crate) fn offer(&mut self, entry: Entry<M>) {
        if self.room() == 0 || !self.known.insert(entry.seq) {
            return;
        }
        let id = match &entry.key {
            Some(key) => LaneId::Key(key.clone()),
            None => LaneId::Row(entry.seq),
        };
        let lane = self.lanes.entry(id.clone()).or_insert_with(|| Lane {
            part: entry.part,
            queue: BTreeMap::new(),
            busy: None,
        });
        if lane.busy.is_none() {
            // A row that committed late may come before the head.
            if let Some((&head, _)) = lane.queue.first_key_value() {
                self.ready.remove(&head);
            }
            let head = lane.queue.first_key_value().map_or(entry.seq, |(&h, _)| h.min(entry.seq));
            self.ready.insert(head, id);
        }
        lane.queue.insert(entry.seq, entry);
    }

    /// The next row to publish, oldest first, or `None` if there is none or the
    /// bound is reached. `allowed` says whether the lease of a partition holds.
    pub(crate) fn next(&mut self, now: i64, allowed: impl Fn(i64) -> bool) -> Option<Entry<M>> {
        // After an outage one row goes ahead to try the water.
        let bound = if self.outage > 0 { 1 } else { self.limits.max_in_flight };
        if now < self.paused_until || self.flying.len() >= bound {
            return None;
        }
        let lanes = &self.lanes;
        let (&seq, _) = self
            .ready
            .iter()
            .find(|(_, id)| lanes.get(id).is_some_and(|lane| allowed(lane.part)))?;
        let id = self.ready.remove(&seq)?;
        let lane = self.lanes.get_mut(&id)?;
        let entry = lane.queue.remove(&seq)?;
        lane.busy = Some(seq);
        let flight =
            Flight { lane: id, part: entry.part, attempts: entry.attempts, acks: self.acks };
        self.flying.insert(seq, flight);
        Some(entry)
    }

    /// The broker has the row: its lane goes on at once, the mark follows.
    pub(crate) fn published(&mut self, seq: i64) {
        let Some(flight) = self.flying.remove(&seq) else { return };
        self.acks += 1;
        self.outage = 0;
        self.paused_until = i64::MIN;
        self.published.push(seq);
        self.free(&flight.lane);
    }

    /// The publish failed. The lane stays blocked until the verdict is written.
    pub(crate) fn failed(
        &mut self,
        seq: i64,
        cause: Cause,
        reason: String,
        now: i64,
        random: f64,
    ) -> Option<Verdict> {
        let flight = self.flying.remove(&seq)?;
        let verdict = match cause {
            Cause::Refused => {
                let attempts = flight.attempts.saturating_add(1);
                if attempts >= self.limits.max_attempts {
                    Verdict::Park { attempts }
                } else {
                    let delay = self.limits.row.delay(attempts, random);
                    Verdict::Retry { attempts, at: after(now, delay) }
                }
            }
            // Others were accepted since this row took off: the broker is
            // there, only this row gets no answer. It alone waits.
            Cause::Unreachable if self.acks > flight.acks => {
                let delay = self.limits.outage.delay(3, random);
                Verdict::Retry { attempts: flight.attempts, at: after(now, delay) }
            }
            Cause::Unreachable => {
                if now >= self.paused_until {
                    self.outage = self.outage.saturating_add(1);
                    let delay = self.limits.outage.delay(self.outage, random);
                    self.paused_until = after(now, delay);
                }
                Verdict::Hold
            }
        };
        if verdict == Verdict::Hold {
            // Read again from the table once the pause is over.
            self.known.remove(&seq);
            self.forget(&flight.lane);
        } else {
            let failed = Failed { seq, part: flight.part, verdict: verdict.clone(), reason };
            self.failed.push((flight.lane, failed));
        }
        Some(verdict)
    }

    /// What is to be written now. Follow with [`Lanes::written`], or with
    /// [`Lanes::not_written`] if the table could not be reached.
    pub(crate) fn flush(&self) -> Flush {
        Flush {
            published: self.published.clone(),
            failed: self.failed.iter().map(|(_, failed)| failed.clone()).collect(),
        }
    }

    /// `flush` is in the table.
    pub(crate) fn written(&mut self, flush: &Flush) {
        for seq in &flush.published {
            self.known.remove(seq);
        }
        let marked: HashSet<i64> = flush.published.iter().copied().collect();
        self.published.retain(|seq| !marked.contains(seq));
        let settled: HashSet<i64> = flush.failed.iter().map(|failed| failed.seq).collect();
        let (done, open): (Vec<_>, Vec<_>) = std::mem::take(&mut self.failed)
            .into_iter()
            .partition(|(_, failed)| settled.contains(&failed.seq));
        self.failed = open;
        for (lane, failed) in done {
            self.known.remove(&failed.seq);
            match failed.verdict {
                Verdict::Park { .. } => self.free(&lane),
                Verdict::Retry { .. } | Verdict::Hold => self.forget(&lane),
            }
        }
    }

    /// The lease of a partition is gone: nothing of it may be sent any more.
    /// Rows in flight are no longer ours to mark.
    pub(crate) fn drop_part(&mut self, part: i64) {
        let gone: Vec<LaneId> =
            self.lanes.iter().filter(|(_, l)| l.part == part).map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.forget(id);
        }
        let known = &mut self.known;
        self.flying.retain(|seq, flight| {
            let keep = flight.part != part;
            if !keep {
                known.remove(seq);
            }
            keep
        });
        self.failed.retain(|(_, failed)| {
            let keep = failed.part != part;
            if !keep {
                known.remove(&failed.seq);
            }
            keep
        });
    }

    /// Is a row of this partition in flight?
    pub(crate) fn is_flying(&self, part: i64) -> bool {
        self.flying.values().any(|flight| flight.part == part)
    }

    fn free(&mut self, id: &LaneId) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        lane.busy = None;
        match lane.queue.first_key_value() {
            Some((&head, _)) => {
                self.ready.insert(head, id.clone());
            }
            None => {
                self.lanes.remove(id);
            }
        }
    }

    fn forget(&mut self, id: &LaneId) {
        let Some(lane) = self.lanes.remove(id) else { return };
        for seq in lane.queue.keys() {
            self.known.remove(seq);
            self.ready.remove(seq);
        }
    }
}

fn after(now: i64, delay: Duration) -> i64 {
    now.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lanes(max_in_flight: usize, max_attempts: u32) -> Lanes<()> {
        let backoff = |ms| Backoff {
            base: Duration::from_millis(ms),
            cap: Duration::from_millis(ms * 8),
            factor: 2.0,
        };
        Lanes::new(Limits {
            max_in_flight,
            window: 64,
            max_attempts,
            row: backoff(10),
            outage: backoff(100),
        })
    }

    fn entry(seq: i64, key: Option<&str>) -> Entry<()> {
        Entry { seq, part: 0, key: key.map(Into::into), attempts: 0, item: () }
    }

    fn all(lanes: &mut Lanes<()>, now: i64) -> Vec<i64> {
        std::iter::from_fn(|| lanes.next(now, |_| true)).map(|entry| entry.seq).collect()
    }

    fn write(lanes: &mut Lanes<()>) -> Flush {
        let flush = lanes.flush();
        lanes.written(&flush);
        flush
    }

    #[test]
    fn one_row_per_key_and_all_keys_at_once() {
        let mut lanes = lanes(10, 3);
        for (seq, key) in [(1, Some("a")), (2, Some("a")), (3, Some("b")), (4, None), (5, None)] {
            lanes.offer(entry(seq, key));
        }
        assert_eq!(all(&mut lanes, 0), [1, 3, 4, 5]);
        lanes.published(1);
        assert_eq!(all(&mut lanes, 0), [2]);
    }

    #[test]
    fn the_bound_holds_and_a_row_is_taken_once() {
        let mut lanes = lanes(2, 3);
        for seq in 1..=4 {
            lanes.offer(entry(seq, None));
            lanes.offer(entry(seq, None));
        }
        assert_eq!(all(&mut lanes, 0), [1, 2]);
        lanes.published(2);
        lanes.offer(entry(2, None));
        assert_eq!(all(&mut lanes, 0), [3], "2 is published, only its mark is missing");
    }

    #[test]
    fn a_late_row_of_a_key_goes_before_the_later_ones() {
        let mut lanes = lanes(10, 3);
        lanes.offer(entry(5, Some("a")));
        lanes.offer(entry(7, Some("a")));
        assert_eq!(all(&mut lanes, 0), [5]);
        lanes.offer(entry(6, Some("a")));
        lanes.published(5);
        assert_eq!(all(&mut lanes, 0), [6]);
    }

    #[test]
    fn a_refused_row_blocks_its_key_until_it_is_written() {
        let mut lanes = lanes(10, 3);
        for (seq, key) in [(1, "a"), (2, "a"), (3, "b")] {
            lanes.offer(entry(seq, Some(key)));
        }
        all(&mut lanes, 0);
        let verdict = lanes.failed(1, Cause::Refused, "no".into(), 1000, 1.0);
        assert_eq!(verdict, Some(Verdict::Retry { attempts: 1, at: 1010 }));
        lanes.published(3);
        assert_eq!(all(&mut lanes, 0), [0; 0]);
        let flush = write(&mut lanes);
        assert_eq!((flush.published, flush.failed.len()), (vec![3], 1));
        assert_eq!(lanes.held(), 0, "the key is left to the table");
    }

    #[test]
    fn the_last_attempt_parks_and_the_key_goes_on() {
        let mut lanes = lanes(10, 1);
        lanes.offer(entry(1, Some("a")));
        lanes.offer(entry(2, Some("a")));
        all(&mut lanes, 0);
        let verdict = lanes.failed(1, Cause::Refused, "no".into(), 0, 1.0);
        assert_eq!(verdict, Some(Verdict::Park { attempts: 1 }));
        assert_eq!(all(&mut lanes, 0), [0; 0], "not before it is written");
        write(&mut lanes);
        assert_eq!(all(&mut lanes, 0), [2]);
    }

    #[test]
    fn a_broker_that_is_away_costs_no_attempt_and_is_tried_with_one_row() {
        let mut lanes = lanes(10, 1);
        for seq in 1..=3 {
            lanes.offer(entry(seq, None));
        }
        all(&mut lanes, 0);
        for seq in 1..=3 {
            let verdict = lanes.failed(seq, Cause::Unreachable, "away".into(), 0, 1.0);
            assert_eq!(verdict, Some(Verdict::Hold));
        }
        assert!(write(&mut lanes).is_empty());
        assert_eq!(lanes.paused_until(0), Some(100), "one outage, not three");
        for seq in 1..=3 {
            lanes.offer(entry(seq, None));
        }
        assert_eq!(all(&mut lanes, 99), [0; 0]);
        assert_eq!(all(&mut lanes, 100), [1]);
        lanes.published(1);
        assert_eq!(all(&mut lanes, 100), [2, 3]);
    }

    #[test]
    fn a_row_without_answer_waits_alone_if_others_get_through() {
        let mut lanes = lanes(10, 1);
        lanes.offer(entry(1, Some("a")));
        lanes.offer(entry(2, Some("b")));
        all(&mut lanes, 0);
        lanes.published(2);
        let verdict = lanes.failed(1, Cause::Unreachable, "slow".into(), 0, 1.0);
        assert_eq!(verdict, Some(Verdict::Retry { attempts: 0, at: 400 }));
        assert_eq!(lanes.paused_until(0), None);
    }

    #[test]
    fn nothing_of_a_lost_partition_is_sent_or_marked() {
        let mut lanes = lanes(10, 3);
        lanes.offer(entry(1, Some("a")));
        lanes.offer(entry(2, Some("a")));
        lanes.offer(Entry { part: 1, ..entry(3, Some("b")) });
        assert_eq!(all(&mut lanes, 0), [1, 3]);
        lanes.drop_part(0);
        lanes.published(1);
        lanes.published(3);
        assert_eq!(write(&mut lanes).published, [3]);
        assert_eq!((lanes.held(), lanes.flying.len()), (0, 0));
    }

    #[test]
    fn without_a_lease_nothing_goes() {
        let mut lanes = lanes(10, 3);
        lanes.offer(entry(1, None));
        lanes.offer(Entry { part: 1, ..entry(2, None) });
        assert_eq!(lanes.next(0, |part| part == 1).map(|e| e.seq), Some(2));
        assert!(lanes.next(0, |part| part == 1).is_none());
    }

    #[derive(Clone, Debug)]
    struct Stored {
        key: Option<String>,
        visible_at: i64,
        state: &'static str,
        attempts: u32,
        next_at: i64,
    }

    /// The rows that the relay's query would give.
    fn pending(table: &BTreeMap<i64, Stored>, now: i64) -> Vec<Entry<()>> {
        let open = |row: &&Stored| row.state == "pending" && row.visible_at <= now;
        let waits: HashSet<&String> = table
            .values()
            .filter(open)
            .filter(|row| row.next_at > now)
            .filter_map(|row| row.key.as_ref())
            .collect();
        table
            .iter()
            .filter(|(_, row)| open(row) && row.next_at <= now)
            .filter(|(_, row)| row.key.as_ref().is_none_or(|key| !waits.contains(key)))
            .map(|(&seq, row)| Entry { attempts: row.attempts, ..entry(seq, row.key.as_deref()) })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// Whatever fails, each row ends published or parked, and a row is never
        /// sent before an earlier one of its key that was there to be sent.
        #[test]
        fn nothing_is_lost_and_no_key_is_out_of_order(
            seed in any::<u64>(),
            rows in 1i64..60,
            keys in 1u32..8,
            refuse in 0.0..0.5f64,
            away in 0.0..0.5f64,
        ) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut table: BTreeMap<i64, Stored> = (1..=rows)
                .map(|seq| {
                    let key = rng.bool().then(|| format!("k{}", rng.u32(..keys)));
                    let visible_at = rng.i64(0..200);
                    (seq, Stored { key, visible_at, state: "pending", attempts: 0, next_at: 0 })
                })
                .collect();
            let mut lanes = lanes(rng.usize(1..8), 4);
            let mut air: Vec<i64> = Vec::new();
            let mut offered = HashSet::new();
            for round in 0..20_000i64 {
                // Time stands still now and then, so that much happens at once.
                let now = round / 4;
                match rng.u8(..4) {
                    0 => {
                        let flush = write(&mut lanes);
                        for seq in flush.published {
                            table.get_mut(&seq).unwrap().state = "published";
                        }
                        for failed in flush.failed {
                            let row = table.get_mut(&failed.seq).unwrap();
                            match failed.verdict {
                                Verdict::Retry { attempts, at } => {
                                    (row.attempts, row.next_at) = (attempts, at);
                                }
                                Verdict::Park { .. } => row.state = "parked",
                                Verdict::Hold => prop_assert!(false, "a hold is never written"),
                            }
                        }
                    }
                    1 if lanes.paused_until(now).is_none() && lanes.unwritten() == 0 => {
                        for entry in pending(&table, now) {
                            offered.insert(entry.seq);
                            lanes.offer(entry);
                        }
                    }
                    2 => {
                        if let Some(entry) = lanes.next(now, |_| true) {
                            if let Some(key) = &entry.key {
                                let same = |seq: &&i64| table[seq].key.as_deref() == Some(&**key);
                                prop_assert!(!air.iter().any(|seq| same(&seq)), "two of a key");
                                let earlier = table.range(..entry.seq).map(|(seq, _)| seq);
                                let skipped = earlier.filter(same).find(|&seq| {
                                    table[seq].state == "pending"
                                        && offered.contains(seq)
                                        && !lanes.published.contains(seq)
                                });
                                prop_assert_eq!(skipped, None, "{} went first", entry.seq);
                            }
                            air.push(entry.seq);
                        }
                    }
                    _ if !air.is_empty() => {
                        let seq = air.swap_remove(rng.usize(..air.len()));
                        // The trouble ends, so that everything can.
                        let dice = if round < 10_000 { rng.f64() } else { 1.0 };
                        let jitter = rng.f64();
                        if dice < refuse {
                            lanes.failed(seq, Cause::Refused, String::new(), now, jitter);
                        } else if dice < refuse + away {
                            lanes.failed(seq, Cause::Unreachable, String::new(), now, jitter);
                        } else {
                            lanes.published(seq);
                        }
                    }
                    _ => {}
                }
                prop_assert!(lanes.held() <= 64);
                if table.values().all(|row| row.state != "pending") {
                    prop_assert_eq!((lanes.held(), lanes.flying.len()), (0, 0));
                    return Ok(());
                }
            }
            prop_assert!(false, "rows were left over: {table:?}");
        }
    }
}
