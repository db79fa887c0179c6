//! One business transaction each: what it changes and what it says, committed together.

use std::time::Duration;

use chassis::data::{Db, Tx, params};
use chassis::messaging::outbox::Outbox;
use chassis::messaging::{Event, Message};
use chassis::{Error, Result};

use super::events::{Changed, Poison};
use super::troubles::Troubles;

/// What should become of a message: the `fate` in `torture_sent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Each of its handlers handles it once.
    Handled,
    /// It ends among the dead letters.
    Buried,
    /// No broker takes it, or it cannot be read: it is parked in the outbox.
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

/// What the disk, or a hand, did to a row of the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The last of its headers is missing.
    HeadersCut,
    /// Its headers are something else.
    HeadersGone,
    /// Its payload is something else, which only its handlers can see.
    Payload,
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
    /// What goes wrong in the steps of sagas.
    pub troubles: Troubles,
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

    /// Sends something whose row is damaged when it is committed, under the key of an item
    /// and in its turn.
    ///
    /// Dropping the future leaves the transaction as a failed statement does: roll it back.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn damaged(&self, tx: &mut Tx, item: &str, damage: Damage) -> Result<()> {
        const CUT: &str = "UPDATE chassis_outbox
            SET headers = SUBSTR(headers, 1, LENGTH(headers) - 1) WHERE id = $1";
        const GONE: &str = "UPDATE chassis_outbox SET headers = 'not json' WHERE id = $1";
        const PAYLOAD: &str = "UPDATE chassis_outbox SET payload = $2 WHERE id = $1";
        let id = new_id();
        // Such a version is nobody's turn: if it took effect, that would be seen.
        let event = Changed { id: id.clone(), item: item.to_owned(), version: -1 };
        let message = Message::event("torture", &event)?.with_id(&id);
        let fate = if damage == Damage::Payload { Fate::Buried } else { Fate::Parked };
        self.send(tx, message, fate, item, None).await?;
        let changed = match damage {
            Damage::HeadersCut => tx.execute(CUT, params![&id]).await?,
            Damage::HeadersGone => tx.execute(GONE, params![&id]).await?,
            Damage::Payload => tx.execute(PAYLOAD, params![&id, vec![0xff_u8; 20]]).await?,
        };
        if changed == 1 { Ok(()) } else { Err(Error::internal("there is no row to damage")) }
    }

    /// Sends an event that is published when a time has passed.
    ///
    /// Dropping the future leaves the transaction as a failed statement does: roll it back.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn say_later<E: Event + Sync>(
        &self,
        tx: &mut Tx,
        id: &str,
        event: &E,
        item: &str,
        delay: Duration,
    ) -> Result<()> {
        let message = Message::event("torture", event)?.with_id(id);
        sent(tx, &message, Fate::Handled, item, None).await?;
        let at = message.time.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
        self.outbox.append_message_at(tx, at, message).await.map(drop)
    }

    async fn send(
        &self,
        tx: &mut Tx,
        message: Message,
        fate: Fate,
        item: &str,
        version: Option<i64>,
    ) -> Result<()> {
        sent(tx, &message, fate, item, version).await?;
        self.outbox.append_message(tx, message).await.map(drop)
    }
}

/// Writes down that it is sent.
async fn sent(
    tx: &mut Tx,
    message: &Message,
    fate: Fate,
    item: &str,
    version: Option<i64>,
) -> Result<()> {
    const SENT: &str = "INSERT INTO torture_sent (message_id, fate, topic, item, version)
        VALUES ($1, $2, $3, $4, $5)";
    let values = params![&message.id, fate.name(), &message.topic, item, version];
    tx.execute(SENT, values).await.map(drop)
}

/// An id that no other message has.
#[must_use]
pub fn new_id() -> String {
    Message::new("", "", "").id
}
