//! Which fault comes next, and when: numbers from the seed, without I/O.
//!
//! Faults come out of a deck that is shuffled, so that each kind comes once in a good
//! minute, and not only when chance wants it. In a run of some minutes there are long ones
//! beside them.

use std::collections::VecDeque;
use std::time::Duration;

use chassis::messaging::failpoint::POINTS;
use chassis_tests::torture::troubles::{REPLIES, STEPS, Trouble};
use fastrand::Rng;

use crate::options::Options;

/// Connections of a copy's pool.
const POOL: usize = 20;
/// From this length on a run has long faults.
const LONG_RUN: f64 = 5.0;
/// When the first one begins, and how long after the beginning of one the next one does.
const FIRST_LONG: Duration = Duration::from_secs(60);
const LONG_EVERY: Duration = Duration::from_secs(180);
/// How long the broker is gone then, and how long everything else lasts.
const BROKER_GONE: Duration = Duration::from_secs(120);
const A_MINUTE: Duration = Duration::from_secs(60);

/// Something that goes wrong, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// A copy is killed, and started again later.
    Kill { copy: usize, down: Duration },
    /// A copy dies, fails or stands still when it reaches a point.
    AtPoint { copy: usize, point: &'static str, how: String, down: Duration },
    /// A copy stands still.
    Pause { copy: usize, lasts: Duration },
    /// So many transactions of a copy stay open.
    Hold { copy: usize, count: usize, lasts: Duration },
    /// A step of the sagas, or a reply to them, has a trouble in all copies.
    Trouble { place: &'static str, trouble: Trouble, lasts: Duration },
    /// PostgreSQL is stopped as by a crash.
    Database { down: Duration },
    /// PostgreSQL stands still.
    DatabasePause { lasts: Duration },
    /// The broker is killed.
    Broker { down: Duration },
    /// The broker is killed and comes back without this share of its newest messages.
    TailLost { share: f64, down: Duration },
    /// The stream is deleted.
    StreamDeleted,
    /// Messages come again, after the broker has forgotten their ids.
    Again { messages: usize },
    /// The newest messages come again, all of them, so often and in disorder.
    Shuffled { messages: usize, times: usize },
}

/// What a fault is drawn by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Card {
    Kill,
    AtPoint,
    Pause,
    Open,
    PoolDry,
    Trouble,
    Database,
    DatabaseLoop,
    DatabasePause,
    Broker,
    BrokerAway,
    BrokerLoop,
    TailLost,
    StreamDeleted,
    Again,
    Shuffled,
}

/// What there is in one process, and how often in a deck.
const COPIES: &[(Card, usize)] = &[
    (Card::Kill, 7),
    (Card::AtPoint, 11),
    (Card::Pause, 4),
    (Card::Open, 2),
    (Card::PoolDry, 1),
    (Card::Trouble, 8),
];

/// What there is with servers.
const SERVERS: &[(Card, usize)] = &[
    (Card::Database, 2),
    (Card::DatabaseLoop, 1),
    (Card::DatabasePause, 1),
    (Card::Broker, 2),
    (Card::BrokerAway, 1),
    (Card::BrokerLoop, 1),
    (Card::TailLost, 1),
    (Card::StreamDeleted, 1),
    (Card::Again, 2),
    (Card::Shuffled, 1),
];

/// What a long fault needs for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alone {
    Database,
    Broker,
}

impl Card {
    /// Whether it would end a long fault.
    fn disturbs(self, alone: Alone) -> bool {
        use Card::{Broker, BrokerAway, BrokerLoop, StreamDeleted, TailLost};
        match alone {
            Alone::Database => {
                matches!(self, Card::Database | Card::DatabaseLoop | Card::DatabasePause)
            }
            Alone::Broker => {
                matches!(self, Broker | BrokerAway | BrokerLoop | StreamDeleted | TailLost)
            }
        }
    }
}

pub(crate) struct Plan {
    rng: Rng,
    copies: usize,
    servers: bool,
    deck: Vec<Card>,
    /// What was drawn and comes next.
    next: VecDeque<(Duration, Fault)>,
    /// When the fault that was given last begins.
    at: Duration,
    /// When the next long fault begins, and how many there were.
    long_at: Option<Duration>,
    longs: usize,
    alone: Option<(Alone, Duration)>,
    /// Nothing else happens for so long.
    rest: Duration,
}

impl Plan {
    pub(crate) fn new(options: &Options) -> Plan {
        Plan {
            rng: Rng::with_seed(options.seed),
            copies: options.copies,
            servers: !options.sqlite,
            deck: Vec::new(),
            next: VecDeque::new(),
            at: Duration::ZERO,
            long_at: (options.minutes >= LONG_RUN).then_some(FIRST_LONG),
            longs: usize::try_from(options.seed % 4).unwrap_or(0),
            alone: None,
            rest: Duration::ZERO,
        }
    }

    /// The next fault, and how long after the one before it begins.
    pub(crate) fn next(&mut self) -> (Duration, Fault) {
        if self.next.is_empty() {
            let pause = self.millis(300, 2500) + std::mem::take(&mut self.rest);
            let at = self.at + pause;
            if self.long_at.is_some_and(|long_at| long_at <= at) {
                self.long_at = Some(at + LONG_EVERY);
                self.draw_long(at, pause);
            } else {
                let card = self.card(at);
                self.draw(card, pause);
            }
        }
        // The lines above put at least one there.
        let next = self.next.pop_front();
        let (pause, fault) = next.unwrap_or((Duration::ZERO, Fault::Again { messages: 0 }));
        self.at += pause;
        (pause, fault)
    }

    /// The next card that disturbs no long fault.
    fn card(&mut self, at: Duration) -> Card {
        let alone = self.alone.filter(|(_, until)| at < *until).map(|(alone, _)| alone);
        loop {
            if self.deck.is_empty() {
                let more = if self.servers { SERVERS } else { &[] };
                let cards = COPIES.iter().chain(more);
                self.deck = cards.flat_map(|&(card, times)| vec![card; times]).collect();
                self.rng.shuffle(&mut self.deck);
            }
            match self.deck.pop() {
                Some(card) if alone.is_none_or(|alone| !card.disturbs(alone)) => return card,
                _ => {}
            }
        }
    }

    fn draw(&mut self, card: Card, pause: Duration) {
        let copy = self.rng.usize(..self.copies);
        let (times, fault): (usize, fn(&mut Plan, usize) -> Fault) = match card {
            Card::Kill => (1, |plan, copy| Fault::Kill { copy, down: plan.millis(0, 2000) }),
            Card::AtPoint => (1, Plan::at_point),
            Card::Pause => (1, |plan, copy| Fault::Pause { copy, lasts: plan.millis(2500, 6000) }),
            Card::Open => (1, |plan, copy| plan.hold(copy, 1)),
            Card::PoolDry => (1, |plan, copy| plan.hold(copy, POOL)),
            Card::Trouble => (1, |plan, _| plan.trouble()),
            Card::Database => (1, |plan, _| Fault::Database { down: plan.millis(0, 3000) }),
            Card::DatabaseLoop => (4, |plan, _| Fault::Database { down: plan.millis(0, 500) }),
            Card::DatabasePause => {
                (1, |plan, _| Fault::DatabasePause { lasts: plan.millis(2000, 8000) })
            }
            Card::Broker => (1, |plan, _| Fault::Broker { down: plan.millis(0, 2000) }),
            // Longer than any lease, window or patience.
            Card::BrokerAway => (1, |plan, _| Fault::Broker { down: plan.millis(6000, 12_000) }),
            Card::BrokerLoop => (4, |plan, _| Fault::Broker { down: plan.millis(0, 500) }),
            Card::TailLost => (1, |plan, _| {
                let share = 0.01 + 0.14 * plan.rng.f64();
                Fault::TailLost { share, down: plan.millis(0, 1000) }
            }),
            Card::StreamDeleted => (1, |_, _| Fault::StreamDeleted),
            Card::Again => (1, |plan, _| Fault::Again { messages: plan.rng.usize(1..50) }),
            Card::Shuffled => {
                (1, |plan, _| Fault::Shuffled { messages: plan.rng.usize(100..400), times: 3 })
            }
        };
        for number in 0..times {
            let pause = if number == 0 { pause } else { self.millis(1500, 3500) };
            let fault = fault(self, copy);
            self.next.push_back((pause, fault));
        }
    }

    fn at_point(&mut self, copy: usize) -> Fault {
        let point = POINTS[self.rng.usize(..POINTS.len())];
        let how = ["abort", "abort", "abort", "stop", "error"][self.rng.usize(..5)];
        let how = format!("{how}@{}", self.rng.u32(1..20));
        Fault::AtPoint { copy, point, how, down: self.millis(3000, 6000) }
    }

    fn hold(&mut self, copy: usize, count: usize) -> Fault {
        // SQLite has one writer, so there they are open one after the other.
        let parts = if self.servers { 1 } else { u32::try_from(count).unwrap_or(u32::MAX) };
        Fault::Hold { copy, count, lasts: self.millis(1000, 8000) / parts }
    }

    fn trouble(&mut self) -> Fault {
        let place = self.rng.usize(..STEPS.len() + REPLIES.len());
        let (place, trouble) = match STEPS.get(place) {
            Some(step) => (*step, Trouble::OF_STEPS[self.rng.usize(..Trouble::OF_STEPS.len())]),
            None => (REPLIES[place - STEPS.len()], Trouble::Late),
        };
        Fault::Trouble { place, trouble, lasts: self.millis(2000, 6000) }
    }

    /// The next long fault; they take turns.
    fn draw_long(&mut self, at: Duration, pause: Duration) {
        self.longs += 1;
        match self.longs % 4 {
            0 if self.servers => {
                self.alone = Some((Alone::Database, at + A_MINUTE));
                self.next.push_back((pause, Fault::DatabasePause { lasts: A_MINUTE }));
            }
            1 if self.servers => {
                self.alone = Some((Alone::Broker, at + BROKER_GONE));
                self.next.push_back((pause, Fault::Broker { down: BROKER_GONE }));
            }
            turn => {
                // In each copy, since one may be about to die; and nothing else meanwhile,
                // which could end them.
                let count = if turn == 2 { 1 } else { POOL };
                for copy in 0..self.copies {
                    let pause = if copy == 0 { pause } else { Duration::ZERO };
                    let parts = if self.servers { 1 } else { u32::try_from(count).unwrap_or(1) };
                    let lasts = A_MINUTE / parts;
                    self.next.push_back((pause, Fault::Hold { copy, count, lasts }));
                }
                self.rest = A_MINUTE;
            }
        }
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.u64(least..most))
    }
}
