//! Messages through memory: who listens, and a bounded queue for each.

use std::sync::Arc;

use chassis_core::{BoxFuture, Error, Result};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Embedded, closed};
use crate::broker::Topics;
use crate::broker::transient::{NO_RESPONDER, Parcel, Parcels, Transient};
use crate::topic::{validate_group, validate_topic};

/// How many messages wait for one listener; what comes then is lost, as on a network.
const QUEUE: usize = 1024;

#[derive(Default)]
pub(super) struct Listeners(Mutex<Table>);

#[derive(Default)]
struct Table {
    listeners: Vec<Listener>,
    /// Whose turn it is within a group.
    turn: usize,
}

struct Listener {
    addresses: Topics,
    group: Option<String>,
    queue: mpsc::Sender<Parcel>,
}

impl Listeners {
    /// Hands a message to those who listen; `false` where nobody does.
    fn send(&self, parcel: &Parcel) -> bool {
        let mut table = self.0.lock();
        table.listeners.retain(|listener| !listener.queue.is_closed());
        table.turn = table.turn.wrapping_add(1);
        let hear: Vec<&Listener> = table
            .listeners
            .iter()
            .filter(|listener| listener.addresses.contain(&parcel.to))
            .collect();
        let start = table.turn.checked_rem(hear.len()).unwrap_or(0);
        let mut groups = Vec::new();
        for listener in hear.iter().cycle().skip(start).take(hear.len()) {
            if let Some(group) = &listener.group {
                if groups.contains(&group) {
                    continue;
                }
                groups.push(group);
            }
            if listener.queue.try_send(parcel.clone()).is_err() {
                tracing::warn!(to = %parcel.to, "a slow listener missed a message");
            }
        }
        !hear.is_empty()
    }
}

impl Transient for Embedded {
    fn send(&self, parcel: Parcel) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let core = &self.shared.core;
            if core.closing.is_cancelled() {
                return Err(closed().not_sent());
            }
            validate_topic(&parcel.to)?;
            parcel.message.validate(core.max_message_bytes)?;
            if core.listeners.send(&parcel) {
                return Ok(());
            }
            let (code, reason, message) = NO_RESPONDER;
            Err(Error::new(code, reason, message).not_sent())
        })
    }

    fn listen(
        &self,
        addresses: Topics,
        group: Option<String>,
    ) -> BoxFuture<'_, Result<Box<dyn Parcels>>> {
        Box::pin(async move {
            addresses.validate()?;
            group.as_deref().map_or(Ok(()), validate_group)?;
            let core = &self.shared.core;
            if core.closing.is_cancelled() {
                return Err(closed());
            }
            let (queue, parcels) = mpsc::channel(QUEUE);
            core.listeners.0.lock().listeners.push(Listener { addresses, group, queue });
            let heard = Heard { core: Arc::clone(core), closing: core.closing.clone(), parcels };
            Ok(Box::new(heard) as Box<dyn Parcels>)
        })
    }
}

struct Heard {
    core: Arc<super::Core>,
    closing: CancellationToken,
    parcels: mpsc::Receiver<Parcel>,
}

impl Parcels for Heard {
    fn next(&mut self) -> BoxFuture<'_, Option<Parcel>> {
        Box::pin(async {
            tokio::select! {
                parcel = self.parcels.recv() => parcel,
                () = self.closing.cancelled() => None,
            }
        })
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.parcels.close();
        let mut table = self.core.listeners.0.lock();
        table.listeners.retain(|listener| !listener.queue.is_closed());
    }
}
