//! The brain of the embedded broker: one group of one topic.
//!
//! It knows which messages are in hand, which wait and which are answered, and
//! nothing about storage, tasks or clocks: `now` is an argument, in milliseconds
//! since 1970. It holds a bounded window of the topic, from the oldest
//! unanswered message on; what lies behind the window stays on disk.
//!
//! Order within a key is a line: a message may be handed out if all before it in
//! its line are in the same hands, and no more than `per_key` of them, which is one
//! as a rule. So a delayed or unanswered one holds back those behind it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::message::Message;

/// The number of a message: unique and rising over all topics of a broker.
pub(super) type Seq = u64;

/// What a window may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// What is stored about one message beyond the group's floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) attempts: u32,
    pub(super) not_before: i64,
    pub(super) done: bool,
}

/// A message handed out.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) seq: Seq,
    pub(super) attempt: u32,
    pub(super) message: Arc<Message>,
}

/// What has to be stored so that a restart goes on from here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The new floor: every message up to it is answered.
    pub(super) floor: Option<Seq>,
    pub(super) progress: Vec<(Seq, Progress)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Delayed(i64),
    /// In the hands of a subscriber, until it must have answered.
    Out {
        until: i64,
        by: u64,
    },
}

struct Entry {
    message: Arc<Message>,
    attempts: u32,
    state: State,
}

pub(super) struct Group {
    limits: Limits,
    max_deliver: Option<u32>,
    /// Messages of a line that may be in hand.
    per_key: usize,
    /// The newest message of the topic, in the window or not.
    head: Seq,
    /// The window was read up to here.
    cursor: Seq,
    /// Unanswered messages of the window.
    entries: BTreeMap<Seq, Entry>,
    bytes: usize,
    /// Answered messages above the floor.
    done: BTreeSet<Seq>,
    /// Stored progress of messages that were not read in since the start.
    remembered: HashMap<Seq, Progress>,
    /// Unanswered messages by key, in order.
    lines: HashMap<String, BTreeSet<Seq>>,
    ready: BTreeSet<Seq>,
    timers: BTreeSet<(i64, Seq)>,
    dirty: BTreeSet<Seq>,
    saved_floor: Seq,
    exhausted: Vec<String>,
}

impl Group {
    /// A group as it was stored; `head` is the newest message of its topic.
    pub(super) fn new(
        limits: Limits,
        floor: Seq,
        head: Seq,
        stored: impl IntoIterator<Item = (Seq, Progress)>,
    ) -> Group {
        let mut group = Group {
            limits,
            max_deliver: None,
            per_key: 1,
            head: head.max(floor),
            cursor: floor,
            entries: BTreeMap::new(),
            bytes: 0,
            done: BTreeSet::new(),
            remembered: HashMap::new(),
            lines: HashMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            dirty: BTreeSet::new(),
            saved_floor: floor,
            exhausted: Vec::new(),
        };
        for (seq, progress) in stored {
            if progress.done {
                group.done.insert(seq);
            } else {
                group.remembered.insert(seq, progress);
            }
        }
        group
    }

    /// The wishes of the subscriber that came last; all of a group should have the same.
    pub(super) fn set_wishes(&mut self, max_deliver: Option<u32>, per_key: usize) {
        self.max_deliver = max_deliver;
        self.per_key = per_key;
    }

    /// Takes a message that was just stored, if the window ends right before it
    /// and has room. Otherwise it is read from disk when its turn comes.
    pub(super) fn offer(&mut self, seq: Seq, message: &Arc<Message>) {
        let read_all = self.cursor >= self.head;
        self.head = self.head.max(seq);
        if read_all && self.has_room() && seq > self.cursor {
            self.cursor = seq;
            self.insert(seq, message.clone());
        }
    }

    /// Where the window wants to go on reading, if it does.
    pub(super) fn wants(&self) -> Option<Seq> {
        (self.cursor < self.head && self.has_room()).then_some(self.cursor)
    }

    pub(super) fn head(&self) -> Seq {
        self.head
    }

    /// Takes what was read after the cursor; `complete_to` is the number up to
    /// which the reading left nothing out.
    pub(super) fn fill(&mut self, rows: Vec<(Seq, Arc<Message>)>, complete_to: Seq) {
        for (seq, message) in rows {
            if seq > self.cursor {
                self.cursor = seq;
                self.insert(seq, message);
            }
        }
        self.cursor = self.cursor.max(complete_to);
        self.head = self.head.max(self.cursor);
    }

    /// Hands out the next message, if one may go, to the subscriber `by`, and expects
    /// an answer until `until`.
    pub(super) fn take(&mut self, now: i64, until: i64, by: u64) -> Option<Taken> {
        self.advance(now);
        let seq = self.ready.iter().copied().find(|&seq| self.may_take(seq, by))?;
        self.ready.remove(&seq);
        let entry = self.entries.get_mut(&seq)?;
        entry.attempts += 1;
        entry.state = State::Out { until, by };
        let message = entry.message.clone();
        let taken = Taken { seq, attempt: entry.attempts, message };
        self.timers.insert((until, seq));
        self.dirty.insert(seq);
        if self.per_key > 1
            && let Some(key) = taken.message.line()
        {
            self.settle_line(key);
        }
        Some(taken)
    }

    /// The message is answered for good. A late answer counts too.
    pub(super) fn finish(&mut self, seq: Seq) {
        let Some(entry) = self.entries.remove(&seq) else { return };
        self.cancel_timer(seq, entry.state);
        self.ready.remove(&seq);
        self.bytes -= entry.message.size();
        self.done.insert(seq);
        self.dirty.insert(seq);
        if let Some(key) = entry.message.line() {
            if let Some(line) = self.lines.get_mut(key) {
                line.remove(&seq);
                if line.is_empty() {
                    self.lines.remove(key);
                }
            }
            self.settle_line(key);
        }
    }

    /// The message comes back and may go out again at `not_before`. Nothing
    /// happens if this delivery is no longer the current one.
    pub(super) fn give_back(&mut self, seq: Seq, attempt: u32, not_before: i64) {
        let Some(entry) = self.entries.get(&seq) else { return };
        if entry.attempts == attempt && entry.is_out() {
            self.put_back(seq, not_before);
        }
    }

    /// The message comes back as if it had not gone out.
    pub(super) fn release(&mut self, seq: Seq, attempt: u32) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        if entry.attempts == attempt && entry.is_out() {
            entry.attempts -= 1;
            self.put_back(seq, 0);
        }
    }

    /// Whether nothing of its key is unanswered before it.
    pub(super) fn is_oldest(&self, seq: Seq) -> bool {
        let key = self.entries.get(&seq).and_then(|entry| entry.message.line());
        let line = key.and_then(|key| self.lines.get(key));
        line.and_then(|line| line.first()).is_none_or(|&first| first == seq)
    }

    /// The holder asks for time until `until`.
    pub(super) fn extend(&mut self, seq: Seq, attempt: u32, until: i64) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        let State::Out { until: old, by } = entry.state else { return };
        if entry.attempts == attempt {
            entry.state = State::Out { until, by };
            self.timers.remove(&(old, seq));
            self.timers.insert((until, seq));
        }
    }

    /// How many messages of the window went out and are not answered, and how many did
    /// not go out; and up to where the window goes.
    pub(super) fn backlog(&self) -> (u64, u64, Seq) {
        let unanswered = self.entries.values().filter(|entry| entry.attempts > 0).count() as u64;
        (unanswered, self.entries.len() as u64 - unanswered, self.cursor)
    }

    /// When a delay or a wait for an answer ends next.
    pub(super) fn next_timer(&self) -> Option<i64> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// Ids of messages that went out as often as allowed, since the last call.
    pub(super) fn take_exhausted(&mut self) -> Vec<String> {
        std::mem::take(&mut self.exhausted)
    }

    /// What changed since the last call, to be stored.
    pub(super) fn changes(&mut self) -> Changes {
        let floor = self.floor();
        self.done = self.done.split_off(&(floor + 1));
        let mut changes = Changes::default();
        if floor > self.saved_floor {
            self.saved_floor = floor;
            changes.floor = Some(floor);
        }
        for seq in std::mem::take(&mut self.dirty) {
            if seq > floor {
                changes.progress.push((seq, self.progress(seq)));
            }
        }
        changes
    }

    /// Storing `changes` failed: they are due again.
    pub(super) fn not_stored(&mut self, changes: &Changes, saved_floor: Seq) {
        self.saved_floor = saved_floor;
        self.dirty.extend(changes.progress.iter().map(|&(seq, _)| seq));
    }

    pub(super) fn saved_floor(&self) -> Seq {
        self.saved_floor
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    fn floor(&self) -> Seq {
        match self.entries.keys().next() {
            Some(&oldest) => oldest - 1,
            None => self.cursor,
        }
    }

    fn progress(&self, seq: Seq) -> Progress {
        match self.entries.get(&seq) {
            None => Progress { attempts: 0, not_before: 0, done: true },
            Some(entry) => Progress {
                attempts: entry.attempts,
                // What was in hand when the process died is in nobody's hand.
                not_before: if let State::Delayed(until) = entry.state { until } else { 0 },
                done: false,
            },
        }
    }

    fn has_room(&self) -> bool {
        self.entries.len() < self.limits.messages && self.bytes < self.limits.bytes
    }

    fn insert(&mut self, seq: Seq, message: Arc<Message>) {
        if self.done.contains(&seq) {
            return;
        }
        let stored = self.remembered.remove(&seq);
        let attempts = stored.map_or(0, |progress| progress.attempts);
        let state = match stored.map(|progress| progress.not_before) {
            Some(until) if until > 0 => State::Delayed(until),
            _ => State::Waiting,
        };
        if let State::Delayed(until) = state {
            self.timers.insert((until, seq));
        }
        if let Some(key) = message.line() {
            self.lines.entry(key.to_owned()).or_default().insert(seq);
        }
        self.bytes += message.size();
        self.entries.insert(seq, Entry { message, attempts, state });
        self.settle(seq);
    }

    fn advance(&mut self, now: i64) {
        while let Some(&(at, seq)) = self.timers.first() {
            if at > now {
                break;
            }
            self.put_back(seq, 0);
        }
    }

    fn put_back(&mut self, seq: Seq, not_before: i64) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        let old = entry.state;
        let was_out = matches!(old, State::Out { .. });
        entry.state = if not_before > 0 { State::Delayed(not_before) } else { State::Waiting };
        let spent = was_out && self.max_deliver.is_some_and(|most| entry.attempts >= most);
        let id = spent.then(|| entry.message.id.clone());
        self.cancel_timer(seq, old);
        self.dirty.insert(seq);
        if let Some(id) = id {
            self.exhausted.push(id);
            self.finish(seq);
            return;
        }
        if not_before > 0 {
            self.timers.insert((not_before, seq));
        }
        self.settle(seq);
        // Those behind it that could have gone with it must wait again.
        let key = self.entries.get(&seq).and_then(|entry| entry.message.line().map(str::to_owned));
        if let Some(key) = key.filter(|_| self.per_key > 1) {
            self.settle_line(&key);
        }
    }

    fn cancel_timer(&mut self, seq: Seq, state: State) {
        if let State::Delayed(at) | State::Out { until: at, .. } = state {
            self.timers.remove(&(at, seq));
        }
    }

    /// Looks again at those of a line that may be in hand.
    fn settle_line(&mut self, key: &str) {
        let Some(line) = self.lines.get(key) else { return };
        let front: Vec<Seq> = line.iter().copied().take(self.per_key).collect();
        for seq in front {
            self.settle(seq);
        }
    }

    /// Lets a message go if it waits and all before it in its line are in hand.
    fn settle(&mut self, seq: Seq) {
        let Some(entry) = self.entries.get(&seq) else { return };
        if entry.state == State::Waiting
            && self.ahead(seq).is_some_and(|mut all| all.all(|by| by.is_some()))
        {
            self.ready.insert(seq);
        } else {
            self.ready.remove(&seq);
        }
    }

    /// Whether a message that may go may go to this subscriber: who has those before
    /// it in its line keeps their order.
    fn may_take(&self, seq: Seq, by: u64) -> bool {
        self.per_key == 1 || self.ahead(seq).is_some_and(|mut all| all.all(|one| one == Some(by)))
    }

    /// In whose hands those before it in its line are; `None` where they are too many.
    fn ahead(&self, seq: Seq) -> Option<impl Iterator<Item = Option<u64>>> {
        let key = self.entries.get(&seq).and_then(|entry| entry.message.line());
        let line = key.and_then(|key| self.lines.get(key));
        let ahead = line.into_iter().flat_map(move |line| line.range(..seq));
        if ahead.clone().nth(self.per_key - 1).is_some() {
            return None;
        }
        Some(ahead.map(|seq| match self.entries.get(seq)?.state {
            State::Out { by, .. } => Some(by),
            _ => None,
        }))
    }
}

impl Entry {
    fn is_out(&self) -> bool {
        matches!(self.state, State::Out { .. })
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
