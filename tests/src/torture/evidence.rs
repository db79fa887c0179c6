//! What the auditor knows: rows of the service's database and messages of the broker, as
//! they are.

/// A row of `torture_sent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The id of the message.
    pub id: String,
    /// What should become of it: `handled`, `buried` or `parked`.
    pub fate: String,
    /// Where it goes.
    pub topic: String,
    /// What it is about.
    pub item: String,
    /// The version of that, where it has one.
    pub version: Option<i64>,
}

/// A message as the broker has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the stream.
    pub seq: i64,
    /// The id of the message.
    pub id: String,
    /// Where it went.
    pub topic: String,
    /// The message that will not come, where this one says only that.
    pub given_up: Option<String>,
}

/// A row of `torture_effect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Who handled it.
    pub handler: String,
    /// The id of the message.
    pub id: String,
    /// What it was about.
    pub item: String,
    /// The version of that.
    pub version: Option<i64>,
    /// How many effects of this handler on this item there were then.
    pub nth: i64,
}

/// A row that the outbox gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The id of the message.
    pub id: String,
    /// Why, as it stands there.
    pub reason: Option<String>,
}

/// A row of `torture_claim`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `stock` or `money`.
    pub book: String,
    /// Whose it is.
    pub purchase: String,
    /// How much.
    pub amount: i64,
    /// `taken`, `refused` or `undone`.
    pub state: String,
}

/// Which handlers hear a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The topic.
    pub topic: &'static str,
    /// Its handlers.
    pub handlers: &'static [&'static str],
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What was sent.
    pub sent: Vec<Sent>,
    /// What the broker has, in its order.
    pub stored: Vec<Stored>,
    /// The dead letters.
    pub buried: Vec<Stored>,
    /// What the outbox gave up.
    pub parked: Vec<Parked>,
    /// What took effect.
    pub effects: Vec<Effect>,
    /// Purchases that were begun.
    pub started: Vec<String>,
    /// Purchases that ended, and how.
    pub ended: Vec<(String, String)>,
    /// What purchases took.
    pub claims: Vec<Claim>,
    /// What each book holds, and what it held at the beginning.
    pub books: Vec<(String, i64, i64)>,
}
