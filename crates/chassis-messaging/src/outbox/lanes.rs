//! Which row may be published next: strict order within a key, many keys at once.
//!
//! A row that was accepted by the broker cannot be taken back. If row n of a
//! key fails after row n+1 was accepted, publishing n again turns the order
//! round. So a key is a lane with at most one unacknowledged row, and the
//! speed comes from many lanes in flight together. A lane that fails is
//! forgotten here and left to its `next_at` in the table; the others go on.
//!
//! Reading, publishing and marking go on at the same time. A read shows the table
//! as it was when the read began, so what came of it is taken in only for lanes
//! that were not forgotten since: their earlier rows would be missing. A lane
//! takes in a bounded number of rows, so that the backlog of one key leaves room
//! for the others.
//!
//! No I/O and no clock: the relay passes `now` (unix milliseconds) and a random
//! number in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

use chassis_resilience::retry::Backoff;

use super::parts::{PARTITIONS, Parts};

/// A row as the lanes see it; `item` is what gets published.
#[derive(Debug)]
pub(crate) struct Entry<M> {
    pub(crate) seq: i64,
    pub(crate) part: i64,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) attempts: u32,
    /// What it takes up in memory.
    pub(crate) bytes: usize,
    pub(crate) item: M,
}

/// How much may be held and how often a row is tried.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Rows being published at the same time.
    pub(crate) max_in_flight: usize,
    /// Rows held in memory, published ones that are not yet marked included.
    pub(crate) window: usize,
    /// Bytes held in memory; a single row may be larger.
    pub(crate) window_bytes: usize,
    /// Rows of one key held in memory.
    pub(crate) per_key: usize,
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
#[derive(Clone, Debug, Default)]
pub(crate) struct Flush {
    pub(crate) published: Vec<i64>,
    pub(crate) failed: Vec<Failed>,
    /// Partition of each published row.
    parts: Vec<i64>,
    /// Lane of each failed row.
    lanes: Vec<LaneId>,
}

/// What became of a row that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is held, now or since before, or it is left to a later read.
    Settled,
    /// There is no room: nothing that follows may be offered.
    NoRoom,
}

impl Flush {
    pub(crate) fn is_empty(&self) -> bool {
        self.published.is_empty() && self.failed.is_empty()
    }

    /// The partitions of the rows that were published.
    pub(crate) fn marked(&self) -> Parts {
        self.parts.iter().copied().collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum LaneId {
    Key(i64, Arc<str>),
    /// A row without a key has no order to keep: a lane of its own.
    Row(i64, i64),
}

impl LaneId {
    fn part(&self) -> i64 {
        match self {
            LaneId::Key(part, _) | LaneId::Row(part, _) => *part,
        }
    }
}

/// Hashes a `seq`: Fibonacci hashing (Knuth, The Art of Computer Programming, 6.4), the
/// halves folded. The numbers come from the database, so nobody can choose bad ones.
#[derive(Debug, Default)]
struct SeqHasher(u64);

type BySeq = BuildHasherDefault<SeqHasher>;

impl Hasher for SeqHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number.cast_unsigned());
    }
}

#[derive(Debug)]
struct Lane<M> {
    part: i64,
    queue: BTreeMap<i64, Entry<M>>,
    /// The row that is in flight, or whose failure is not yet written.
    busy: Option<i64>,
    /// There may be more rows in the table than were taken in.
    capped: bool,
}

#[derive(Debug)]
struct Flight {
    lane: LaneId,
    part: i64,
    attempts: u32,
    bytes: usize,
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
    flying: HashMap<i64, Flight, BySeq>,
    known: HashSet<i64, BySeq>,
    bytes: usize,
    unwritten: Flush,
    /// What is being written.
    writing: Option<Flush>,
    /// Rows per partition that are in flight or whose mark is not yet written.
    open: [usize; PARTITIONS],
    /// Lanes forgotten since the read of their partition began.
    stale: HashSet<LaneId>,
    /// Partitions with rows that were left in the table for want of room.
    hungry: Parts,
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
            flying: HashMap::default(),
            known: HashSet::default(),
            bytes: 0,
            unwritten: Flush::default(),
            writing: None,
            open: [0; PARTITIONS],
            stale: HashSet::new(),
            hungry: Parts::NONE,
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

    /// Bytes that may still be taken in.
    pub(crate) fn room_bytes(&self) -> usize {
        self.limits.window_bytes.saturating_sub(self.bytes)
    }

    /// Rows whose fate is known and that nobody is writing yet.
    pub(crate) fn unwritten(&self) -> usize {
        self.unwritten.published.len() + self.unwritten.failed.len()
    }

    pub(crate) fn has_failures(&self) -> bool {
        !self.unwritten.failed.is_empty()
    }

    /// Nothing is published before this time; `None`: the broker is well.
    pub(crate) fn paused_until(&self, now: i64) -> Option<i64> {
        (now < self.paused_until).then_some(self.paused_until)
    }

    /// A read of these partitions begins. Gives the rows that it need not bring
    /// and the keys of which enough is held.
    pub(crate) fn begin_read(&mut self, parts: Parts) -> (Vec<i64>, Vec<Arc<str>>) {
        self.stale.retain(|id| !parts.contains(id.part()));
        let half = self.limits.per_key.div_ceil(2);
        let mut full = Vec::new();
        for (id, lane) in &mut self.lanes {
            if let LaneId::Key(_, key) = id
                && parts.contains(lane.part)
                && lane.queue.len() >= half
            {
                lane.capped = true;
                full.push(key.clone());
            }
        }
        (self.known.iter().copied().collect(), full)
    }

    /// Partitions of which one key has as much as it may.
    pub(crate) fn parts_with_full_keys(&self) -> Parts {
        let half = self.limits.per_key.div_ceil(2);
        self.lanes.values().filter(|lane| lane.queue.len() >= half).map(|lane| lane.part).collect()
    }

    /// Partitions of which more should be read since there is room again.
    pub(crate) fn take_hungry(&mut self) -> Parts {
        std::mem::take(&mut self.hungry)
    }

    /// Takes a row in that a read brought. The rows of a partition must come in
    /// their order.
    pub(crate) fn offer(&mut self, entry: Entry<M>) -> Offered {
        if self.known.contains(&entry.seq) {
            return Offered::Settled;
        }
        let id = match &entry.key {
            Some(key) => LaneId::Key(entry.part, key.clone()),
            None => LaneId::Row(entry.part, entry.seq),
        };
        if self.stale.contains(&id) {
            // An earlier row of the lane may be missing.
            self.hungry.insert(entry.part);
            return Offered::Settled;
        }
        if self.room() == 0 || (self.bytes > 0 && entry.bytes > self.room_bytes()) {
            return Offered::NoRoom;
        }
        let lane = self.lanes.entry(id.clone()).or_insert_with(|| Lane {
            part: entry.part,
            queue: BTreeMap::new(),
            busy: None,
            capped: false,
        });
        let head = lane.queue.first_key_value().map(|(&head, _)| head);
        if lane.queue.len() >= self.limits.per_key && head.is_some_and(|head| head < entry.seq) {
            lane.capped = true;
            return Offered::Settled;
        }
        self.known.insert(entry.seq);
        self.bytes += entry.bytes;
        if lane.busy.is_none() {
            // A row that committed late may come before the head.
            if let Some(head) = head {
                self.ready.remove(&head);
            }
            self.ready.insert(head.map_or(entry.seq, |head| head.min(entry.seq)), id);
        }
        lane.queue.insert(entry.seq, entry);
        Offered::Settled
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
        let half = self.limits.per_key.div_ceil(2);
        if lane.capped && lane.queue.len() < half {
            lane.capped = false;
            self.hungry.insert(entry.part);
        }
        let flight = Flight {
            lane: id,
            part: entry.part,
            attempts: entry.attempts,
            bytes: entry.bytes,
            acks: self.acks,
        };
        self.flying.insert(seq, flight);
        self.count_open(entry.part, 1);
        Some(entry)
    }

    /// The broker has the row: its lane goes on at once, the mark follows.
    pub(crate) fn published(&mut self, seq: i64) {
        let Some(flight) = self.flying.remove(&seq) else { return };
        self.acks += 1;
        self.outage = 0;
        self.paused_until = i64::MIN;
        self.bytes = self.bytes.saturating_sub(flight.bytes);
        self.unwritten.published.push(seq);
        self.unwritten.parts.push(flight.part);
        self.free(&flight.lane, seq);
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
        self.bytes = self.bytes.saturating_sub(flight.bytes);
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
            self.count_open(flight.part, -1);
            self.forget(&flight.lane);
        } else {
            let failed = Failed { seq, part: flight.part, verdict: verdict.clone(), reason };
            self.unwritten.failed.push(failed);
            self.unwritten.lanes.push(flight.lane);
        }
        Some(verdict)
    }

    /// What is to be written now. [`Lanes::written`] or [`Lanes::not_written`]
    /// follows before the next, and before a partition is dropped.
    pub(crate) fn flush(&mut self) -> Flush {
        let mut flush = std::mem::take(&mut self.unwritten);
        // Neighbours in the table are written together.
        let mut published: Vec<_> = flush.published.iter().zip(&flush.parts).collect();
        published.sort_unstable();
        (flush.published, flush.parts) = published.into_iter().unzip();
        self.writing = Some(flush.clone());
        flush
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// The last flush is in the table.
    pub(crate) fn written(&mut self) {
        let Some(flush) = self.writing.take() else { return };
        for (seq, part) in flush.published.iter().zip(flush.parts) {
            self.known.remove(seq);
            self.count_open(part, -1);
        }
        for (failed, lane) in flush.failed.iter().zip(&flush.lanes) {
            self.known.remove(&failed.seq);
            self.count_open(failed.part, -1);
            match failed.verdict {
                Verdict::Park { .. } => self.free(lane, failed.seq),
                Verdict::Retry { .. } | Verdict::Hold => self.forget(lane),
            }
        }
    }

    /// The last flush is not in the table, so it is still to be written.
    pub(crate) fn not_written(&mut self) {
        let Some(flush) = self.writing.take() else { return };
        self.unwritten.published.extend(flush.published);
        self.unwritten.parts.extend(flush.parts);
        self.unwritten.failed.extend(flush.failed);
        self.unwritten.lanes.extend(flush.lanes);
    }

    /// The lease of a partition is gone: nothing of it may be sent any more.
    /// Rows in flight are no longer ours to mark.
    pub(crate) fn drop_part(&mut self, part: i64) {
        let gone: Vec<LaneId> =
            self.lanes.iter().filter(|(_, l)| l.part == part).map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.forget(id);
        }
        let (known, bytes) = (&mut self.known, &mut self.bytes);
        self.flying.retain(|seq, flight| {
            let keep = flight.part != part;
            if !keep {
                known.remove(seq);
                *bytes = bytes.saturating_sub(flight.bytes);
            }
            keep
        });
        // Published rows are marked all the same, if the fencing token lets them.
        let failed = std::mem::take(&mut self.unwritten.failed);
        let lanes = std::mem::take(&mut self.unwritten.lanes);
        for (failed, lane) in failed.into_iter().zip(lanes) {
            if failed.part == part {
                self.known.remove(&failed.seq);
            } else {
                self.unwritten.failed.push(failed);
                self.unwritten.lanes.push(lane);
            }
        }
        self.hungry.remove(part);
        self.stale.retain(|id| id.part() != part);
        let published = self.unwritten.parts.iter().filter(|&&p| p == part).count();
        if let Some(open) = usize::try_from(part).ok().and_then(|part| self.open.get_mut(part)) {
            *open = published;
        }
    }

    /// Is a row of this partition in flight, or published and not yet marked?
    pub(crate) fn is_open(&self, part: i64) -> bool {
        usize::try_from(part).is_ok_and(|part| self.open.get(part).is_some_and(|&open| open > 0))
    }

    fn count_open(&mut self, part: i64, change: isize) {
        if let Some(open) = usize::try_from(part).ok().and_then(|part| self.open.get_mut(part)) {
            *open = open.saturating_add_signed(change);
        }
    }

    /// Row `seq` of the lane is done with.
    fn free(&mut self, id: &LaneId, seq: i64) {
        let Some(lane) = self.lanes.get_mut(id).filter(|lane| lane.busy == Some(seq)) else {
            return;
        };
        lane.busy = None;
        match lane.queue.first_key_value() {
            Some((&head, _)) => {
                self.ready.insert(head, id.clone());
            }
            None => {
                if lane.capped {
                    self.hungry.insert(lane.part);
                }
                self.lanes.remove(id);
            }
        }
    }

    fn forget(&mut self, id: &LaneId) {
        self.stale.insert(id.clone());
        let Some(lane) = self.lanes.remove(id) else { return };
        for (seq, entry) in &lane.queue {
            self.known.remove(seq);
            self.ready.remove(seq);
            self.bytes = self.bytes.saturating_sub(entry.bytes);
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
            window_bytes: 1000,
            per_key: 16,
            max_attempts,
            row: backoff(10),
            outage: backoff(100),
        })
    }

    fn entry(seq: i64, key: Option<&str>) -> Entry<()> {
        Entry { seq, part: 0, key: key.map(Into::into), attempts: 0, bytes: 1, item: () }
    }

    fn all(lanes: &mut Lanes<()>, now: i64) -> Vec<i64> {
        std::iter::from_fn(|| lanes.next(now, |_| true)).map(|entry| entry.seq).collect()
    }

    /// Writes what is to be written and says what that was.
    fn write(lanes: &mut Lanes<()>) -> (Vec<i64>, Vec<Failed>) {
        let flush = lanes.flush();
        lanes.written();
        (flush.published, flush.failed)
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
        let (published, failed) = write(&mut lanes);
        assert_eq!((published, failed.len()), (vec![3], 1));
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
        assert!(lanes.flush().is_empty());
        assert_eq!(lanes.paused_until(0), Some(100), "one outage, not three");
        lanes.begin_read(Parts::ALL);
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
        assert_eq!(write(&mut lanes).0, [3]);
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

    #[test]
    fn a_key_takes_no_more_than_its_share_and_asks_for_the_rest() {
        let mut lanes = lanes(10, 3);
        for seq in 1..=20 {
            assert_eq!(lanes.offer(entry(seq, Some("hot"))), Offered::Settled);
        }
        assert_eq!(lanes.held(), 16, "per_key");
        lanes.offer(entry(21, Some("calm")));
        assert_eq!(all(&mut lanes, 0), [1, 21]);
        assert_eq!(lanes.begin_read(Parts::ALL).1, ["hot".into()]);
        for seq in 1..=8 {
            assert!(lanes.take_hungry().is_empty(), "{seq}: half of it is still there");
            lanes.published(seq);
            all(&mut lanes, 0);
        }
        assert!(lanes.take_hungry().contains(0), "there is room for more");
        assert!(lanes.begin_read(Parts::ALL).1.is_empty());
    }

    #[test]
    fn the_window_is_bounded_in_bytes_and_lets_one_large_row_through() {
        let mut lanes = lanes(10, 3);
        let of = |seq, bytes| Entry { bytes, ..entry(seq, None) };
        assert_eq!(lanes.offer(of(1, 5000)), Offered::Settled, "alone it must get through");
        assert_eq!(lanes.offer(of(2, 1)), Offered::NoRoom);
        all(&mut lanes, 0);
        lanes.published(1);
        assert_eq!(lanes.offer(of(2, 600)), Offered::Settled);
        assert_eq!(lanes.offer(of(3, 600)), Offered::NoRoom);
        assert_eq!(lanes.room_bytes(), 400);
    }

    #[test]
    fn a_read_that_began_before_a_lane_was_forgotten_brings_nothing_of_it() {
        let mut lanes = lanes(10, 3);
        lanes.offer(entry(1, Some("a")));
        all(&mut lanes, 0);
        lanes.begin_read(Parts::ALL);
        lanes.failed(1, Cause::Refused, "no".into(), 0, 1.0);
        write(&mut lanes);
        // The read saw row 2, and row 1 only as one that is held.
        lanes.offer(entry(2, Some("a")));
        lanes.offer(entry(3, Some("b")));
        assert_eq!(all(&mut lanes, 0), [3]);
        assert!(lanes.take_hungry().contains(0), "it is to be read again");
        lanes.begin_read(Parts::ALL);
        lanes.offer(entry(2, Some("a")));
        assert_eq!(all(&mut lanes, 0), [2]);
    }

    #[test]
    fn a_partition_is_open_until_its_rows_are_marked() {
        let mut lanes = lanes(10, 3);
        lanes.offer(entry(1, None));
        assert!(!lanes.is_open(0));
        all(&mut lanes, 0);
        assert!(lanes.is_open(0));
        lanes.published(1);
        lanes.flush();
        assert!(lanes.is_open(0), "its mark is under way");
        lanes.not_written();
        assert_eq!((lanes.unwritten(), lanes.is_open(0)), (1, true));
        write(&mut lanes);
        assert!(!lanes.is_open(0));
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
        /// sent before an earlier one of its key that was committed before it.
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
            // A read and a write take their time: they begin in one round and land in another.
            let mut reading: Option<Vec<Entry<()>>> = None;
            let mut writing: Option<Flush> = None;
            for round in 0..40_000i64 {
                // Time stands still now and then, so that much happens at once.
                let now = round / 4;
                match rng.u8(..4) {
                    0 => match writing.take() {
                        None => writing = Some(lanes.flush()),
                        Some(flush) if rng.u8(..4) == 0 => {
                            drop(flush);
                            lanes.not_written();
                        }
                        Some(flush) => {
                            for seq in &flush.published {
                                table.get_mut(seq).unwrap().state = "published";
                            }
                            for failed in &flush.failed {
                                let row = table.get_mut(&failed.seq).unwrap();
                                match failed.verdict {
                                    Verdict::Retry { attempts, at } => {
                                        (row.attempts, row.next_at) = (attempts, at);
                                    }
                                    Verdict::Park { .. } => row.state = "parked",
                                    Verdict::Hold => prop_assert!(false, "a hold is not written"),
                                }
                            }
                            lanes.written();
                        }
                    },
                    1 => match reading.take() {
                        None if lanes.paused_until(now).is_none() => {
                            let (held, full) = lanes.begin_read(Parts::ALL);
                            let mut rows = pending(&table, now);
                            rows.retain(|row| !held.contains(&row.seq));
                            rows.retain(|row| row.key.as_ref().is_none_or(|k| !full.contains(k)));
                            reading = Some(rows);
                        }
                        None => {}
                        Some(rows) => {
                            for entry in rows {
                                if lanes.offer(entry) == Offered::NoRoom {
                                    break;
                                }
                            }
                        }
                    },
                    2 => {
                        if let Some(entry) = lanes.next(now, |_| true) {
                            if let Some(key) = &entry.key {
                                let same = |seq: &&i64| table[seq].key.as_deref() == Some(&**key);
                                prop_assert!(!air.iter().any(|seq| same(&seq)), "two of a key");
                                let earlier = table.range(..entry.seq).map(|(seq, _)| seq);
                                let skipped = earlier.filter(same).find(|&seq| {
                                    table[seq].state == "pending"
                                        && table[seq].visible_at <= table[&entry.seq].visible_at
                                        && !lanes.unwritten.published.contains(seq)
                                        && !writing.iter().any(|w| w.published.contains(seq))
                                });
                                prop_assert_eq!(skipped, None, "{} went first", entry.seq);
                            }
                            air.push(entry.seq);
                        }
                    }
                    _ if !air.is_empty() => {
                        let seq = air.swap_remove(rng.usize(..air.len()));
                        // The trouble ends, so that everything can.
                        let dice = if round < 20_000 { rng.f64() } else { 1.0 };
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
                if writing.is_none() && table.values().all(|row| row.state != "pending") {
                    prop_assert_eq!((lanes.held(), lanes.flying.len()), (0, 0));
                    return Ok(());
                }
            }
            prop_assert!(false, "rows were left over: {table:?}");
        }
    }
}
