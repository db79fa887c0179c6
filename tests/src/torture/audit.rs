//! What follows from the evidence: the invariants, one after the other, without I/O.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use super::evidence::{Effect, Evidence, Expected, Sent};

/// One message in so many may be on its way while the broker loses something.
const ON_THEIR_WAY: usize = 100;
/// Violations of one kind that are printed.
const SHOWN: usize = 10;

/// Something that must not be. The fields are the evidence, named as in its rows.
#[expect(missing_docs, reason = "the variants say it, and the evidence names its rows")]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// A committed row whose message the broker does not have.
    Lost { id: String, topic: String, item: String, version: Option<i64> },
    /// A message that the broker has and nobody committed.
    Ghost { id: String, topic: String, seq: i64 },
    /// A committed row that a handler never handled.
    Unhandled { handler: String, id: String, item: String, version: Option<i64> },
    /// An effect of a message that nobody committed.
    GhostEffect { handler: String, id: String },
    /// An effect that happened more than once.
    Twice { handler: String, id: String, times: usize },
    /// An item's version came to the broker out of turn.
    PublishedOutOfOrder { item: String, expected: i64, found: i64, seq: i64 },
    /// An item's version took effect out of turn.
    HandledOutOfOrder { handler: String, item: String, expected: i64, found: i64, nth: i64 },
    /// A message that could be handled is among the dead letters.
    Buried { id: String, topic: String },
    /// A message that nobody can handle is not among the dead letters.
    NotBuried { id: String },
    /// A message that nobody can handle took effect.
    PoisonTookEffect { handler: String, id: String },
    /// A row that cannot be published is not parked.
    NotParked { id: String },
    /// A row that was parked without a word.
    ParkedWithoutReason { id: String },
    /// A row that could be published is parked.
    Parked { id: String, reason: String },
    /// A message whose row cannot be published came to the broker.
    PublishedAllTheSame { id: String, seq: i64 },
    /// The broker lost what it had acknowledged, and nobody was told.
    LossUnnoticed { what: String },
    /// Two sagas of one business key were begun.
    StartedTwice { purchase: String, times: usize },
    /// A saga that has not ended.
    NotEnded { purchase: String },
    /// A saga that ended more than once, or without a beginning.
    EndedWrongly { purchase: String, ended: usize, started: usize },
    /// A saga's claims are not what its end says.
    ClaimsDiffer { purchase: String, outcome: String, book: String, state: String },
    /// Money or stock came from nowhere, or went there.
    BooksDiffer { book: String, opening: i64, holds: i64, taken: i64 },
}

impl Violation {
    /// Whether it may mend itself: the work is not done yet.
    #[must_use]
    pub fn is_backlog(&self) -> bool {
        use Violation::{ClaimsDiffer, Lost, NotBuried, NotEnded, NotParked, Unhandled};
        matches!(
            self,
            Lost { .. }
                | Unhandled { .. }
                | NotBuried { .. }
                | NotParked { .. }
                | NotEnded { .. }
                | ClaimsDiffer { .. }
        )
    }

    /// The name of its kind.
    #[must_use]
    pub fn kind(&self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '{']).next().unwrap_or_default().to_owned()
    }
}

/// How much of what there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that were to be handled.
    pub sent: usize,
    /// Rows that nobody can handle.
    pub poison: usize,
    /// Rows that no broker takes, or that are damaged.
    pub unfit: usize,
    /// Messages that the broker has.
    pub stored: usize,
    /// Of them, such as it had before.
    pub repeated: usize,
    /// Messages out of order, where the broker lost something.
    pub disordered: usize,
    /// Dead letters.
    pub buried: usize,
    /// Effects.
    pub effects: usize,
    /// Effects out of turn, where no order is promised between processes.
    pub overtaken: usize,
    /// Sagas that ended well.
    pub confirmed: usize,
    /// Sagas that were undone.
    pub cancelled: usize,
}

/// The verdict with its reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How much there was.
    pub counts: Counts,
    /// What must not be.
    pub violations: Vec<Violation>,
}

impl Report {
    /// How much has still to happen.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.violations.iter().filter(|violation| violation.is_backlog()).count()
    }

    /// The violations of each kind.
    #[must_use]
    pub fn kinds(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for violation in &self.violations {
            *kinds.entry(violation.kind()).or_default() += 1;
        }
        kinds
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            sent,
            poison,
            unfit,
            stored,
            repeated,
            disordered,
            buried,
            effects,
            overtaken,
            confirmed,
            cancelled,
        } = self.counts;
        writeln!(f, "sent {sent}, poison {poison}, too large or damaged {unfit}")?;
        writeln!(
            f,
            "stored {stored} (repeated {repeated}, out of order {disordered}), dead letters {buried}"
        )?;
        writeln!(
            f,
            "effects {effects} (overtaken {overtaken}), sagas confirmed {confirmed}, cancelled {cancelled}"
        )?;
        for (kind, count) in self.kinds() {
            writeln!(f, "VIOLATION {kind}: {count}")?;
            for one in self.violations.iter().filter(|v| v.kind() == kind).take(SHOWN) {
                writeln!(f, "  {one:?}")?;
            }
        }
        Ok(())
    }
}

/// Compares what was committed with what the broker has and what took effect.
#[must_use]
pub fn audit(evidence: &Evidence, expected: &[Expected]) -> Report {
    let mut found = Vec::new();
    let sent: HashMap<&str, &Sent> =
        evidence.sent.iter().map(|sent| (sent.id.as_str(), sent)).collect();
    messages(evidence, &sent, &mut found);
    effects(evidence, &sent, expected, &mut found);
    buried(evidence, &sent, &mut found);
    parked(evidence, &sent, &mut found);
    sagas(evidence, &mut found);
    found.sort();
    Report { counts: counts(evidence), violations: found }
}

impl Report {
    /// Counts what came to the broker out of order instead of calling it violations, where it
    /// is little: for a broker that lost something. What was on its way then may stand before
    /// what is published again; handlers that take their messages in turn see nothing of it.
    #[must_use]
    pub fn may_be_disordered(mut self) -> Report {
        let out =
            |violation: &Violation| matches!(violation, Violation::PublishedOutOfOrder { .. });
        let count = self.violations.iter().filter(|violation| out(violation)).count();
        if count <= self.counts.stored / ON_THEIR_WAY {
            self.violations.retain(|violation| !out(violation));
            self.counts.disordered = count;
        }
        self
    }

    /// Counts what these handlers did out of turn instead of calling it violations: for a
    /// broker that keeps the order of a key within one process only.
    #[must_use]
    pub fn may_be_overtaken(mut self, handlers: &[&str]) -> Report {
        let may = |violation: &Violation| match violation {
            Violation::HandledOutOfOrder { handler, .. } => handlers.contains(&handler.as_str()),
            _ => false,
        };
        let before = self.violations.len();
        self.violations.retain(|violation| !may(violation));
        self.counts.overtaken = before - self.violations.len();
        self
    }
}

fn counts(evidence: &Evidence) -> Counts {
    let fate = |fate: &str| evidence.sent.iter().filter(|sent| sent.fate == fate).count();
    let outcome = |name: &str| evidence.ended.iter().filter(|(_, ended)| ended == name).count();
    let ids: HashSet<&str> = evidence.stored.iter().map(|stored| stored.id.as_str()).collect();
    Counts {
        sent: fate("handled"),
        poison: fate("buried"),
        unfit: fate("parked"),
        stored: evidence.stored.len(),
        repeated: evidence.stored.len().saturating_sub(ids.len()),
        disordered: 0,
        buried: evidence.buried.len(),
        effects: evidence.effects.len(),
        overtaken: 0,
        confirmed: outcome("confirmed"),
        cancelled: outcome("cancelled"),
    }
}

/// Nothing lost, no ghost, and the order in which the broker got them.
fn messages(evidence: &Evidence, sent: &HashMap<&str, &Sent>, found: &mut Vec<Violation>) {
    let mut seen = HashSet::new();
    let mut lines: BTreeMap<(&str, &str), Vec<(i64, i64)>> = BTreeMap::new();
    for stored in &evidence.stored {
        if let Some(parked) = &stored.given_up
            && sent.get(parked.as_str()).is_some_and(|row| row.fate == "parked")
        {
            continue;
        }
        let Some(row) = sent.get(stored.id.as_str()) else {
            let (id, topic) = (stored.id.clone(), stored.topic.clone());
            found.push(Violation::Ghost { id, topic, seq: stored.seq });
            continue;
        };
        if row.fate == "parked" {
            found.push(Violation::PublishedAllTheSame { id: row.id.clone(), seq: stored.seq });
            continue;
        }
        // A message may come to the broker again; its order is that of the first time.
        if !seen.insert(row.id.as_str()) {
            continue;
        }
        let Some(version) = row.version else { continue };
        lines.entry((&row.topic, &row.item)).or_default().push((stored.seq, version));
    }
    for ((_, item), line) in lines {
        let mut turn = 0;
        for (seq, version) in line {
            if version != turn + 1 {
                let (item, expected) = (item.to_owned(), turn + 1);
                let out = Violation::PublishedOutOfOrder { item, expected, found: version, seq };
                found.push(out);
            }
            turn = version;
        }
    }
    for row in &evidence.sent {
        if row.fate != "parked" && !seen.contains(row.id.as_str()) {
            found.push(Violation::Lost {
                id: row.id.clone(),
                topic: row.topic.clone(),
                item: row.item.clone(),
                version: row.version,
            });
        }
    }
}

/// Each effect once, and in turn.
fn effects(
    evidence: &Evidence,
    sent: &HashMap<&str, &Sent>,
    expected: &[Expected],
    found: &mut Vec<Violation>,
) {
    let mut times: HashMap<(&str, &str), usize> = HashMap::new();
    for effect in &evidence.effects {
        *times.entry((&effect.handler, &effect.id)).or_default() += 1;
    }
    for (&(handler, id), &times) in &times {
        let (handler, id) = (handler.to_owned(), id.to_owned());
        match sent.get(id.as_str()).map(|row| row.fate.as_str()) {
            None => found.push(Violation::GhostEffect { handler, id }),
            Some("handled") if times > 1 => found.push(Violation::Twice { handler, id, times }),
            Some("handled") => {}
            Some(_) => found.push(Violation::PoisonTookEffect { handler, id }),
        }
    }
    for row in evidence.sent.iter().filter(|row| row.fate == "handled") {
        let hear = expected.iter().filter(|expected| expected.topic == row.topic);
        for handler in hear.flat_map(|expected| expected.handlers) {
            if !times.contains_key(&(*handler, row.id.as_str())) {
                found.push(Violation::Unhandled {
                    handler: (*handler).to_owned(),
                    id: row.id.clone(),
                    item: row.item.clone(),
                    version: row.version,
                });
            }
        }
    }
    turns(evidence, found);
}

fn turns(evidence: &Evidence, found: &mut Vec<Violation>) {
    let mut lines: BTreeMap<(&str, &str), Vec<(&Effect, i64)>> = BTreeMap::new();
    for effect in &evidence.effects {
        if let Some(version) = effect.version {
            lines.entry((&effect.handler, &effect.item)).or_default().push((effect, version));
        }
    }
    for ((handler, item), mut line) in lines {
        line.sort_by_key(|(effect, _)| effect.nth);
        let mut seen = HashSet::new();
        // A second time is a violation of its own and has no turn.
        line.retain(|(effect, _)| seen.insert(effect.id.as_str()));
        let mut turn = 0;
        for (effect, version) in line {
            if version != turn + 1 {
                found.push(Violation::HandledOutOfOrder {
                    handler: handler.to_owned(),
                    item: item.to_owned(),
                    expected: turn + 1,
                    found: version,
                    nth: effect.nth,
                });
            }
            turn = version;
        }
    }
}

/// What nobody can handle is among the dead letters, and nothing else.
fn buried(evidence: &Evidence, sent: &HashMap<&str, &Sent>, found: &mut Vec<Violation>) {
    let ids: HashSet<&str> = evidence.buried.iter().map(|stored| stored.id.as_str()).collect();
    for stored in &evidence.buried {
        let (id, topic) = (stored.id.clone(), stored.topic.clone());
        match sent.get(stored.id.as_str()).map(|row| row.fate.as_str()) {
            Some("buried") => {}
            Some(_) => found.push(Violation::Buried { id, topic }),
            None => found.push(Violation::Ghost { id, topic, seq: stored.seq }),
        }
    }
    for row in evidence.sent.iter().filter(|row| row.fate == "buried") {
        if !ids.contains(row.id.as_str()) {
            found.push(Violation::NotBuried { id: row.id.clone() });
        }
    }
}

/// What cannot be published is parked, with a reason, and nothing else is.
fn parked(evidence: &Evidence, sent: &HashMap<&str, &Sent>, found: &mut Vec<Violation>) {
    let mut ids = HashSet::new();
    for parked in &evidence.parked {
        let (id, reason) = (parked.id.clone(), parked.reason.clone().unwrap_or_default());
        ids.insert(parked.id.as_str());
        match sent.get(parked.id.as_str()).map(|row| row.fate.as_str()) {
            Some("parked") if reason.is_empty() => {
                found.push(Violation::ParkedWithoutReason { id });
            }
            Some("parked") => {}
            _ => found.push(Violation::Parked { id, reason }),
        }
    }
    for row in evidence.sent.iter().filter(|row| row.fate == "parked") {
        if !ids.contains(row.id.as_str()) {
            found.push(Violation::NotParked { id: row.id.clone() });
        }
    }
}

/// Each saga ends once, its claims are what its end says, and the books are balanced.
fn sagas(evidence: &Evidence, found: &mut Vec<Violation>) {
    let mut counts: BTreeMap<&str, (usize, Vec<&str>)> = BTreeMap::new();
    for purchase in &evidence.started {
        counts.entry(purchase).or_default().0 += 1;
    }
    for (purchase, outcome) in &evidence.ended {
        counts.entry(purchase).or_default().1.push(outcome);
    }
    let claims: HashMap<(&str, &str), &str> = (evidence.claims.iter())
        .map(|claim| ((claim.purchase.as_str(), claim.book.as_str()), claim.state.as_str()))
        .collect();
    for (&key, (started, ended)) in &counts {
        let purchase = key.to_owned();
        if *started > 1 {
            found.push(Violation::StartedTwice { purchase: purchase.clone(), times: *started });
        }
        match ended.as_slice() {
            [] => found.push(Violation::NotEnded { purchase }),
            [outcome] if *started > 0 => {
                for book in ["stock", "money"] {
                    let state = claims.get(&(key, book)).copied().unwrap_or("absent");
                    if (*outcome == "confirmed") != (state == "taken") {
                        found.push(Violation::ClaimsDiffer {
                            purchase: purchase.clone(),
                            outcome: (*outcome).to_owned(),
                            book: book.to_owned(),
                            state: state.to_owned(),
                        });
                    }
                }
            }
            ended => {
                let (ended, started) = (ended.len(), *started);
                found.push(Violation::EndedWrongly { purchase, ended, started });
            }
        }
    }
    for (book, holds, opening) in &evidence.books {
        let of_book = evidence.claims.iter().filter(|c| c.book == *book && c.state == "taken");
        let taken = of_book.map(|claim| claim.amount).sum();
        if holds + taken != *opening {
            let (book, holds, opening) = (book.clone(), *holds, *opening);
            found.push(Violation::BooksDiffer { book, opening, holds, taken });
        }
    }
}
