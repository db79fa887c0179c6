//! One business transaction each: what it changes and what it says, committed together.

use chassis::data::{Db, Tx, params};
use chassis::messaging::outbox::Outbox;
use chassis::messaging::{Event, Message};
use chassis::{Error, Result};

use super::events::{Changed, Poison};

/// What should become of a message: the `fate` in `torture_sent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Each of its handlers handles it once.
    Handled,
    /// It ends among the dead letters.
    Buried,
    /// No broker takes it: it is parked in the outbox.
    Parked,
}

impl Fate {
    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fate::Handled => "handled",
            Fate::Buried => "buried",
            Fate::Parked => "parked",
        }
    }
}

/// Which poison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Venom {
    /// Its handler panics.
    Panics,
    /// Its handler says that it never will.
    Fails,
    /// Its payload is not what its type says.
    WrongSchema,
    /// A version that nobody knows.
    UnknownVersion,
}

/// What the business code needs. Cheap to clone.
#[derive(Clone)]
pub struct Work {
    /// The service's database.
    pub db: Db,
    /// Its outbox.
    pub outbox: Outbox,
    /// A payload that is larger than the broker takes.
    pub too_large: usize,
}

impl Work {
    /// Changes an item: its next version and the event that says so. Gives the version.
    ///
    /// Dropping the future leaves the transaction as a failed statement does: roll it back.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn change(&self, tx: &mut Tx, item: &str) -> Result<i64> {
        // The row lock puts those who change one item in line.
        const NEXT: &str = "INSERT INTO torture_item (item, version) VALUES ($1, 1)
            ON CONFLICT (item) DO UPDATE SET version = torture_item.version + 1
            RETURNING version";
        let row = tx.fetch_optional(NEXT, params![item]).await?;
        let row = row.ok_or_else(|| Error::internal("the version was not returned"))?;
        let version = row.int(0)?;
        let event = Changed { id: new_id(), item: item.to_owned(), version };
        self.say(tx, &event.id, &event, item, Some(version)).await?;
        Ok(version)
    }

    /// Sends an event and writes down that it was sent.
    ///
    /// Dropping the future leaves the transaction as a failed statement does: roll it back.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn say<E: Event + Sync>(
        &self,
        tx: &mut Tx,
        id: &str,
        event: &E,
        item: &str,
        version: Option<i64>,
    ) -> Result<()> {
        let message = Message::event("torture", event)?.with_id(id);
        self.send(tx, message, Fate::Handled, item, version).await
    }

    /// Sends something that no handler can handle.
    ///
    /// Dropping the future leaves the transaction as a failed statement does: roll it back.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn poison(&self, tx: &mut Tx, venom: Venom) -> Result<()> {
        let id = new_id();
        let event = Poison { id: id.clone(), panics: venom == Venom::Panics };
        let mut message = Message::event("torture", &event)?.with_id(&id);
        match venom {
            Venom::Panics | Venom::Fails => {}
            Venom::WrongSchema => message.payload = "{\"id\":7".into(),
            Venom::UnknownVersion => message.kind = "torture-poison.v9".to_owned(),
        }
        self.send(tx, message, Fate::Buried, &id, None).await
    }

    /// Sends something that no broker takes, under the key of an item and in its turn: its
    /// other messages must wait for it no longer than needed.
    ///
    /// Dropping the future leaves the transaction as a failed statement does: roll it back.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn oversize(&self, tx: &mut Tx, item: &str) -> Result<()> {
        let message = Message::new(Changed::TOPIC, Changed::TYPE, vec![b'x'; self.too_large]);
        self.send(tx, message.with_key(item).in_turn(), Fate::Parked, item, None).await
    }

    async fn send(
        &self,
        tx: &mut Tx,
        message: Message,
        fate: Fate,
        item: &str,
        version: Option<i64>,
    ) -> Result<()> {
        const SENT: &str = "INSERT INTO torture_sent (message_id, fate, topic, item, version)
            VALUES ($1, $2, $3, $4, $5)";
        let sent = params![&message.id, fate.name(), &message.topic, item, version];
        tx.execute(SENT, sent).await?;
        self.outbox.append_message(tx, message).await.map(drop)
    }
}

/// An id that no other message has.
#[must_use]
pub fn new_id() -> String {
    Message::new("", "", "").id
}
