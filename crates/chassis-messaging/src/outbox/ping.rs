//! Wakes relays in other processes, outside the business transaction.
//!
//! A `NOTIFY` takes a lock of the whole database until its commit is on the disk,
//! so in business transactions it puts all commits in one line. Here a task of its
//! own sends at most one in each interval, for all that was committed meanwhile,
//! and its commit does not wait for the disk. A ping that is lost costs the time
//! of a poll, nothing else.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxFuture, Component, Env, Ready, Result, Shutdown};
use chassis_data::{Backend, Db, Dialect, params};
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgListener;
use tokio::time::{Instant, sleep, sleep_until};

use super::handle::Outbox;
use super::parts::Parts;
use super::wake::Wake;

const CHANNEL: &str = "chassis_outbox";
/// How long to wait before listening is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// Tells relays in other processes that there are rows in `parts`.
///
/// Dropping the future leaves open whether it happened.
pub(crate) async fn send<B: Backend>(db: &Db<B>, me: &str, parts: Parts) -> Result<()> {
    const SQL: &str = "SELECT set_config('synchronous_commit', 'off', true),
        CAST(pg_notify($1, $2) AS TEXT)";
    let text = format!("{me} {}", parts.bits());
    db.execute(SQL, params![CHANNEL, text]).await.map(drop)
}

/// Hears what others send, until it is dropped. `me` is not heard.
pub(crate) async fn hear<B: Backend>(db: Db<B>, me: String, wake: Arc<Wake>) {
    let url = db.pool().connect_options().to_url_lossy();
    loop {
        if let Err(error) = listen(url.as_str(), &me, &wake).await {
            tracing::debug!(%error, "cannot listen for other processes; the poll has to do");
        }
        sleep(LISTEN_AGAIN).await;
    }
}

async fn listen(url: &str, me: &str, wake: &Wake) -> sqlx::Result<()> {
    let mut listener = PgListener::connect(url).await?;
    listener.listen(CHANNEL).await?;
    // Whatever was sent before this moment was not heard.
    wake.wake(Parts::ALL);
    loop {
        // `None`: the connection was lost and is made again.
        let parts = match listener.try_recv().await? {
            Some(heard) => match heard.payload().split_once(' ') {
                Some((sender, _)) if sender == me => continue,
                Some((_, bits)) => bits.parse().map_or(Parts::ALL, Parts::from_bits),
                None => Parts::ALL,
            },
            None => Parts::ALL,
        };
        wake.wake(parts);
    }
}

/// Wakes the relays of other processes for a process that appends and has no
/// relay: the component `outbox-pinger`. See [`Outbox::pinger`].
pub struct Pinger<B: Backend = sqlx::Any>(pub(super) Outbox<B>);

impl<B: Backend> Component for Pinger<B> {
    fn name(&self) -> Cow<'static, str> {
        "outbox-pinger".into()
    }

    fn describe(&self) -> String {
        format!("at most every {:?}", self.0.config.ping)
    }

    fn run(
        self: Box<Self>,
        _env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let Outbox { db, config, wake, .. } = self.0;
            let mut woken = wake.listen();
            ready.ready();
            if db.dialect() == Dialect::Sqlite || config.ping.is_zero() {
                shutdown.requested().await;
                return Ok(());
            }
            let mut next = Instant::now();
            loop {
                tokio::select! {
                    () = woken.changed() => {}
                    () = shutdown.requested() => return Ok(()),
                }
                // Even when the shutdown is requested meanwhile: this was committed.
                sleep_until(next).await;
                let parts = woken.take();
                if let Err(error) = send(&db, "-", parts).await {
                    tracing::debug!(error = %error.chain(), "relays elsewhere were not woken");
                }
                next = Instant::now() + config.ping;
            }
        })
    }
}
