//! What the workload says. Each event carries its own message id, so that a handler can
//! write down what it handled.

use chassis::messaging::Event;
use serde::{Deserialize, Serialize};

/// A new version of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The id of the message.
    pub id: String,
    /// What was changed.
    pub item: String,
    /// Its version: 1, 2, 3, …
    pub version: i64,
}

impl Event for Changed {
    const TOPIC: &'static str = "torture.changed";
    const TYPE: &'static str = "torture-changed.v1";
    const IN_TURN: bool = true;

    fn key(&self) -> Option<String> {
        Some(self.item.clone())
    }
}

/// Something that no handler can handle, among what they can: a topic with nothing else
/// would be left alone, and its messages take long to become dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poison {
    /// The id of the message.
    pub id: String,
    /// Whether its handler panics; else it fails for good.
    pub panics: bool,
}

impl Event for Poison {
    const TOPIC: &'static str = Changed::TOPIC;
    const TYPE: &'static str = "torture-poison.v1";

    fn key(&self) -> Option<String> {
        None
    }
}

/// Which of its two books a purchase is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Book {
    /// What is on the shelf.
    Stock,
    /// What is in the account.
    Money,
}

impl Book {
    /// Its name in the tables and in signals.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Book::Stock => "stock",
            Book::Money => "money",
        }
    }
}

/// A command of a saga: take something out of a book, or put it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The id of the message.
    pub id: String,
    /// The business key of the saga that asks.
    pub purchase: String,
    /// The book.
    pub book: Book,
    /// Which line of it.
    pub line: String,
    /// How much.
    pub amount: i64,
    /// Put it back.
    pub undo: bool,
}

impl Event for Asked {
    const TOPIC: &'static str = "torture.asked";
    const TYPE: &'static str = "torture-asked.v1";

    fn key(&self) -> Option<String> {
        Some(self.purchase.clone())
    }
}

/// The reply to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The id of the message.
    pub id: String,
    /// The business key of the saga that asked.
    pub purchase: String,
    /// The book.
    pub book: Book,
    /// It was not taken out.
    pub refused: bool,
}

impl Event for Answered {
    const TOPIC: &'static str = "torture.answered";
    const TYPE: &'static str = "torture-answered.v1";

    fn key(&self) -> Option<String> {
        Some(self.purchase.clone())
    }
}
