//! Whether a broker still has what it acknowledged.
//!
//! Brokers acknowledge before they sync to disk, and operators remove streams. So a
//! publisher remembers, for each stream, the newest message that was acknowledged to
//! it: its *witness*. A stream only ever loses its end, so while the witness is in its
//! place, nothing is lost; if its place is empty, or another message stands there, the
//! end of the stream is gone.
//!
//! A loss is found in three ways: the witness is looked for on each new connection and
//! now and then; a publish that was sent after position S was acknowledged, and is
//! itself stored at S or below, proves one by itself; and what an earlier process
//! wrote down is looked for before the first publish, and [remembered](Ledger::remember).
//!
//! While a loss is not [settled](Watch::settle), publishing to the stream is refused,
//! where somebody [watches](Ledger::watch) who can settle it: what is published now
//! would stand before what is about to be published again, and turn the order within
//! a key around. Where nobody watches, a loss is logged and publishing goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chassis_core::{BoxFuture, Error, Result};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;

/// Of so many streams the end is watched; each further one is not.
const MAX_STREAMS: usize = 1024;

/// A message that a broker acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Its position in the stream, from 1.
    pub position: u64,
    /// What the broker knows it by.
    pub id: String,
}

/// The end of a stream as this process knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The stream: the first segment of its topics, or empty where one stream holds
    /// all topics.
    pub stream: String,
    /// The newest message that was acknowledged here.
    pub witness: Witness,
    /// How long ago it was handed to the broker.
    pub age: Duration,
    /// The whole stream was found missing: nothing of it is left, whatever stands under its
    /// name by now.
    pub gone: bool,
}

/// A broker that can be asked whether it still has what it acknowledged.
pub trait Tails: Send + Sync + 'static {
    /// What is known of its streams in this process.
    fn ledger(&self) -> &Arc<Ledger>;

    /// Whether the message is still in its place. `true` also where it was removed one
    /// by one, by age, or by purging the stream: somebody wanted that.
    ///
    /// Dropping the future ends the question.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` where the broker does not answer.
    fn holds<'a>(&'a self, stream: &'a str, witness: &'a Witness) -> BoxFuture<'a, Result<bool>>;

    /// Looks for the witnesses of all streams.
    ///
    /// Dropping the future ends the looking.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` where the broker does not answer.
    fn look(&self) -> BoxFuture<'_, Result<()>>;

    /// Gives all groups once more what stands behind a position, the last one that a stream
    /// which lost its end is known to have kept. A broker that counts what a group had by
    /// position takes what stands there now for what was lost, and would skip it. Nothing to
    /// do for other brokers.
    ///
    /// Dropping the future leaves open which groups it was done for.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` where the broker does not answer.
    fn give_again<'a>(&'a self, _stream: &'a str, _behind: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What stands at the position of a witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is no such stream.
    NoStream,
    /// No message. The stream ends at `last`.
    Nothing { last: u64 },
    /// A message that the broker knows by this.
    Message { id: String },
}

impl Witness {
    /// Whether the stream still has its end, by what was found in the witness's place.
    pub(super) fn survives(&self, found: &Found) -> bool {
        match found {
            Found::NoStream => false,
            Found::Nothing { last } => *last >= self.position,
            Found::Message { id } => *id == self.id,
        }
    }
}

/// The ends of all streams of a broker, as this process knows them.
#[derive(Debug, Default)]
pub struct Ledger {
    streams: RwLock<BTreeMap<String, Arc<StreamTail>>>,
    /// Who is told of losses, by number.
    watchers: Mutex<BTreeSet<u64>>,
    numbers: AtomicU64,
    losses: watch::Sender<u64>,
}

/// Somebody who sees to losses. While it lives, a loss stops publishing to its stream
/// until it is settled, by each watcher that there was; dropping it settles.
#[derive(Debug)]
pub struct Watch {
    number: u64,
    ledger: Arc<Ledger>,
    losses: watch::Receiver<u64>,
}

/// The end of one stream.
#[derive(Debug)]
pub(super) struct StreamTail {
    stream: String,
    /// The position of the witness, changed with it: what stands there or before is noted.
    highest: AtomicU64,
    state: Mutex<State>,
    /// Under which connection the stream was last looked at.
    seen: AtomicU64,
    /// It was looked at and found.
    there: AtomicBool,
    /// Held by whoever looks.
    pub(super) looking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// With the time at which it was handed over.
    witness: Option<(Witness, Instant)>,
    /// When it began without a witness.
    begun: Instant,
    /// Who has not settled its loss yet; not empty while it is lost.
    unsettled: BTreeSet<u64>,
    /// The stream itself was missing.
    gone: bool,
    /// Counts settled losses: what was sent before one says nothing after it.
    round: u64,
}

/// Noted when a message is handed to the broker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    at: Instant,
    before: u64,
    round: u64,
}

/// No connection has this number.
const NEVER: u64 = u64::MAX;

impl Ledger {
    /// The end of a stream; one that is not kept where there are too many.
    pub(super) fn of(&self, stream: &str) -> Arc<StreamTail> {
        if let Some(tail) = self.streams.read().get(stream) {
            return tail.clone();
        }
        let mut streams = self.streams.write();
        let full = streams.len() >= MAX_STREAMS;
        let fresh = || Arc::new(StreamTail::new(stream));
        if full && !streams.contains_key(stream) {
            return fresh();
        }
        streams.entry(stream.to_owned()).or_insert_with(fresh).clone()
    }

    pub(super) fn all(&self) -> Vec<Arc<StreamTail>> {
        self.streams.read().values().cloned().collect()
    }

    /// The ends of all streams that were published to and are not lost.
    #[must_use]
    pub fn tails(&self) -> Vec<Tail> {
        self.all().iter().filter_map(|tail| tail.tail(State::is_whole)).collect()
    }

    /// Takes over what another process knew, where nothing newer is known.
    pub fn remember(&self, tail: Tail) {
        self.of(&tail.stream).remember(tail.witness, tail.age);
    }

    /// The same; where it is news, nothing is published to the stream before it was looked
    /// for: what comes next may have to follow what is lost.
    pub fn recall(&self, tail: Tail) {
        let known = self.of(&tail.stream);
        if known.remember(tail.witness, tail.age) {
            known.forget();
        }
    }

    /// Begins to see to losses.
    #[must_use]
    pub fn watch(self: &Arc<Self>) -> Watch {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.watchers.lock().insert(number);
        Watch { number, ledger: self.clone(), losses: self.losses() }
    }

    /// Changes with each loss.
    pub(super) fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }

    /// Notes a loss. Where nobody will settle it, it is settled by saying so.
    pub(super) fn report(&self, tail: &StreamTail) {
        let watchers = self.watchers.lock().clone();
        let watched = !watchers.is_empty();
        if !tail.mark_lost(watchers) {
            return;
        }
        let stream = tail.stream();
        tracing::error!(stream, watched, "the broker lost messages that it had acknowledged");
        self.losses.send_modify(|losses| *losses += 1);
    }
}

impl Watch {
    /// Waits for a loss. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        if self.losses.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The ends of streams that were lost and not settled by this watcher.
    #[must_use]
    pub fn lost(&self) -> Vec<Tail> {
        let mine = |state: &State| state.unsettled.contains(&self.number);
        self.ledger.all().iter().filter_map(|tail| tail.tail(mine)).collect()
    }

    /// The loss is dealt with. When all watchers say so, publishing goes on.
    pub fn settle(&self, stream: &str) {
        self.ledger.of(stream).settle(self.number);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ledger.watchers.lock().remove(&self.number);
        self.ledger.all().iter().for_each(|tail| tail.settle(self.number));
    }
}

impl State {
    fn begin(round: u64) -> State {
        let unsettled = BTreeSet::new();
        State { witness: None, begun: Instant::now(), unsettled, gone: false, round }
    }

    fn knows(&self, position: u64) -> bool {
        self.witness.as_ref().is_some_and(|(known, _)| known.position >= position)
    }

    fn is_whole(&self) -> bool {
        self.unsettled.is_empty()
    }
}

impl StreamTail {
    fn new(stream: &str) -> StreamTail {
        StreamTail {
            stream: stream.to_owned(),
            highest: AtomicU64::new(0),
            state: Mutex::new(State::begin(0)),
            seen: AtomicU64::new(NEVER),
            there: AtomicBool::new(false),
            looking: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn stream(&self) -> &str {
        &self.stream
    }

    /// To be called before a message is handed over.
    pub(super) fn sent(&self) -> Sent {
        let round = self.state.lock().round;
        Sent { at: Instant::now(), before: self.highest.load(Ordering::Acquire), round }
    }

    /// Notes that a message, no repetition, was stored. `false`: its position proves
    /// that the stream lost its end.
    pub(super) fn stored(&self, sent: Sent, position: u64, id: impl FnOnce() -> String) -> bool {
        if position > sent.before && position <= self.highest.load(Ordering::Acquire) {
            // Others were faster.
            return true;
        }
        let mut state = self.state.lock();
        if !state.is_whole() || state.round != sent.round {
            return true;
        }
        if position <= sent.before {
            return false;
        }
        self.note(&mut state, Witness { position, id: id() }, sent.at);
        true
    }

    /// Notes that a message was a repetition of one that stands here. What is behind that one
    /// may have been handed over long ago, but not before the witness that was known.
    pub(super) fn repeated(&self, sent: Sent, position: u64, id: impl FnOnce() -> String) {
        let mut state = self.state.lock();
        if state.round == sent.round {
            let at = state.witness.as_ref().map_or(state.begun, |(_, at)| *at);
            self.note(&mut state, Witness { position, id: id() }, at);
        }
    }

    /// Whether that is news.
    fn remember(&self, witness: Witness, age: Duration) -> bool {
        let now = Instant::now();
        self.note(&mut self.state.lock(), witness, now.checked_sub(age).unwrap_or(now))
    }

    fn note(&self, state: &mut State, witness: Witness, at: Instant) -> bool {
        let news = state.is_whole() && !state.knows(witness.position);
        if news {
            let position = witness.position;
            state.witness = Some((witness, at));
            self.highest.store(position, Ordering::Release);
        }
        news
    }

    pub(super) fn witness(&self) -> Option<Witness> {
        self.state.lock().witness.as_ref().map(|(witness, _)| witness.clone())
    }

    /// Whether the stream need not be looked at under this connection.
    pub(super) fn is_seen(&self, connection: u64) -> bool {
        self.seen.load(Ordering::Acquire) == connection
    }

    pub(super) fn seen(&self, connection: u64) {
        self.there.store(true, Ordering::Release);
        self.seen.store(connection, Ordering::Release);
    }

    /// Look at it again before the next use.
    pub(super) fn forget(&self) {
        self.seen.store(NEVER, Ordering::Release);
    }

    /// Whether the stream was there when this process looked or published.
    pub(super) fn was_there(&self) -> bool {
        self.there.load(Ordering::Acquire)
    }

    /// Whether there is such a stream; to be told before a loss is reported. Until that is
    /// settled, one that was gone stays so.
    pub(super) fn found(&self, found: bool) {
        let mut state = self.state.lock();
        state.gone = !found || (state.gone && !state.is_whole());
    }

    pub(super) fn is_lost(&self) -> bool {
        !self.state.lock().is_whole()
    }

    fn tail(&self, which: impl Fn(&State) -> bool) -> Option<Tail> {
        let state = self.state.lock();
        let (witness, at) = state.witness.clone().filter(|_| which(&state))?;
        let (stream, gone) = (self.stream.clone(), state.gone);
        Some(Tail { stream, witness, age: at.elapsed(), gone })
    }

    /// `false`: that was known, or there is nothing that could be lost.
    fn mark_lost(&self, watchers: BTreeSet<u64>) -> bool {
        let mut state = self.state.lock();
        let news = state.is_whole() && state.witness.is_some();
        if news {
            state.unsettled = watchers;
            if state.is_whole() {
                self.begin_again(&mut state);
            }
        }
        self.forget();
        news
    }

    fn settle(&self, watcher: u64) {
        let mut state = self.state.lock();
        if state.unsettled.remove(&watcher) && state.is_whole() {
            self.begin_again(&mut state);
        }
    }

    fn begin_again(&self, state: &mut State) {
        *state = State::begin(state.round + 1);
        self.highest.store(0, Ordering::Release);
        self.forget();
    }
}

/// What a publish is answered while a loss is not settled.
pub(super) fn lost_error(stream: &str) -> Error {
    let message = format!("the stream {stream} lost messages; they are published again first");
    Error::unavailable("STREAM_LOST", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(position: u64) -> Witness {
        Witness { position, id: format!("id-{position}") }
    }

    #[test]
    fn a_witness_survives_in_its_place_or_where_it_was_removed_on_purpose() {
        for (found, survives) in [
            (Found::NoStream, false),
            (Found::Nothing { last: 0 }, false),
            (Found::Nothing { last: 9 }, false),
            (Found::Nothing { last: 10 }, true),
            (Found::Message { id: "id-10".into() }, true),
            (Found::Message { id: "other".into() }, false),
        ] {
            assert_eq!(witness(10).survives(&found), survives, "{found:?}");
        }
    }

    /// A message is handed over and stored.
    fn store(tail: &StreamTail, position: u64) -> bool {
        tail.stored(tail.sent(), position, || format!("id-{position}"))
    }

    #[tokio::test]
    async fn a_position_that_was_acknowledged_before_proves_a_loss() {
        let tail = StreamTail::new("notes");
        let first = tail.sent();
        assert!(tail.stored(first, 10, String::new));
        // Sent before 10 was acknowledged: says nothing.
        assert!(tail.stored(first, 9, String::new));
        let later = tail.sent();
        assert!(tail.stored(later, 12, || "c".into()));
        assert!(tail.stored(later, 11, String::new), "acknowledgements overtake each other");
        assert!(!tail.stored(later, 10, String::new));
        assert_eq!(tail.witness(), Some(Witness { position: 12, id: "c".into() }));
    }

    #[tokio::test]
    async fn what_was_sent_before_a_loss_was_settled_says_nothing_after_it() {
        let ledger = Arc::new(Ledger::default());
        let watch = ledger.watch();
        let tail = ledger.of("notes");
        assert!(store(&tail, 10));
        let old = tail.sent();
        ledger.report(&tail);
        ledger.report(&tail);
        assert_eq!((watch.lost().len(), *watch.losses.borrow()), (1, 1), "told once");
        assert!(tail.is_lost() && ledger.tails().is_empty());
        watch.settle("notes");
        assert!(tail.stored(old, 30, String::new), "of the time before");
        assert_eq!(tail.witness(), None);
        assert!(store(&tail, 4));
        assert_eq!(ledger.tails()[0].witness, witness(4));
    }

    #[tokio::test]
    async fn a_loss_is_settled_by_all_who_watched() {
        let ledger = Arc::new(Ledger::default());
        let (one, two, three) = (ledger.watch(), ledger.watch(), ledger.watch());
        let tail = ledger.of("notes");
        assert!(store(&tail, 10));
        ledger.report(&tail);
        one.settle("notes");
        assert!(one.lost().is_empty() && two.lost().len() == 1 && tail.is_lost());
        two.settle("notes");
        assert!(tail.is_lost());
        drop(three);
        assert!(!tail.is_lost());
    }

    #[tokio::test]
    async fn where_nobody_watches_publishing_goes_on() {
        let ledger = Arc::new(Ledger::default());
        let tail = ledger.of("notes");
        tail.remember(witness(10), Duration::from_secs(5));
        tail.remember(witness(9), Duration::ZERO);
        assert_eq!(tail.witness(), Some(witness(10)), "the newest counts");
        ledger.report(&tail);
        assert!(!tail.is_lost() && tail.witness().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_repetition_is_a_witness_that_is_as_old_as_the_one_before() {
        let ledger = Ledger::default();
        let tail = ledger.of("notes");
        assert!(store(&tail, 3));
        tokio::time::advance(Duration::from_secs(9)).await;
        tail.repeated(tail.sent(), 7, || "id-7".into());
        tail.repeated(tail.sent(), 5, || "id-5".into());
        let known = &ledger.tails()[0];
        assert_eq!((&known.witness, known.age), (&witness(7), Duration::from_secs(9)));
        assert!(!store(&tail, 6), "behind it, something was stored before");
    }

    #[tokio::test]
    async fn what_others_knew_is_looked_for_before_the_next_publish() {
        let ledger = Ledger::default();
        let tail = ledger.of("notes");
        tail.seen(1);
        let known = |position| Tail {
            stream: "notes".into(),
            witness: witness(position),
            age: Duration::ZERO,
            gone: false,
        };
        assert!(store(&tail, 10));
        ledger.recall(known(10));
        assert!(tail.is_seen(1), "that is no news");
        ledger.recall(known(11));
        assert!(!tail.is_seen(1) && tail.witness() == Some(witness(11)));
    }

    #[tokio::test]
    async fn only_so_many_streams_are_watched() {
        let ledger = Ledger::default();
        for n in 0..MAX_STREAMS + 5 {
            store(&ledger.of(&n.to_string()), 1);
        }
        assert_eq!(ledger.tails().len(), MAX_STREAMS);
    }
}
