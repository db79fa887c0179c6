//! Tokens of a rate limit that all instances of a service share, in a NATS key-value bucket.
//!
//! One entry for a key holds the instant at which the next call would come if all kept the pace:
//! the same single instant as in memory
//! ([`Gcra`](chassis_resilience::rate_limit::Gcra)). It is read, moved and written back on the
//! condition that nobody was faster, so takers at the same time cannot get more together.
//!
//! NATS decides nothing, so the instant is moved here, by the server's clock: it writes its time
//! on each entry, and one that was just written tells how far ours is off. The estimate is never
//! ahead of the server, and behind it by a round trip at most, so no instance gives more than
//! the limit because its clock is wrong.
//!
//! The bucket is in the server's memory: a server that starts again has forgotten what was
//! taken, and every key begins with its burst. While it does not answer,
//! [`OnStoreDown`](chassis_resilience::rate_limit::shared::OnStoreDown) says what holds.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::{Client, ConnectOptions, ServerAddr, jetstream};
use chassis_core::{Error, Result};
use chassis_resilience::rate_limit::shared::{BoxFuture, Grant, TokenStore};
use chassis_resilience::{BoxError, RateLimit};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The entry that is written to learn the server's time. No key is written like it.
const CLOCK: &str = "clock";
/// How long an estimate of the server's time is used: quartz drifts by a millisecond in it.
const CLOCK_FOR: Duration = Duration::from_secs(60);
/// Takers of one process wait for each other instead of colliding at the server.
const STRIPES: usize = 64;
/// Longest key, in bytes: it becomes part of a subject.
const MAX_KEY: usize = 1_000;
/// So often another instance may be faster before this one gives up.
const MAX_TRIES: u32 = 100;
/// The longest pause after somebody else was faster.
const PAUSE: Duration = Duration::from_millis(4);
/// The longest time that is told apart, in microseconds: sums of it stay in range.
const MOST: u64 = 1 << 60;

/// The numbers of a [`NatsTokenStore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// The bucket; made where it is missing. Instances that share a limit share it.
    pub bucket: String,
    /// Servers that each keep the bucket, 1 to 5.
    pub replicas: usize,
    /// So many keys are kept, at least 1; of more, those that were idle for the longest go.
    pub max_keys: u32,
    /// An entry that is not used is kept for so long. A limit that takes longer to refill is
    /// refused.
    pub remember: Duration,
    /// How long connecting and each request may take.
    pub timeout: Duration,
}

impl Default for TokenSettings {
    /// A million keys of some 200 bytes. A week, because no limit by the day should be forgotten
    /// over a weekend.
    fn default() -> TokenSettings {
        TokenSettings {
            bucket: "chassis_tokens".to_owned(),
            replicas: 1,
            max_keys: 1_000_000,
            remember: Duration::from_secs(7 * 86_400),
            timeout: Duration::from_secs(2),
        }
    }
}

/// A [`TokenStore`] in a NATS key-value bucket. It connects when it is first asked, and again by
/// itself when the server was away.
///
/// Intervals are kept in microseconds: a limit above a million calls a second counts as a
/// million.
pub struct NatsTokenStore {
    servers: Vec<ServerAddr>,
    settings: TokenSettings,
    client: Mutex<Option<Client>>,
    bucket: parking_lot::Mutex<Option<Bucket>>,
    /// One at a time looks for the bucket.
    looking: Mutex<()>,
    stripes: [Mutex<()>; STRIPES],
    hasher: RandomState,
}

#[derive(Clone)]
struct Bucket {
    store: Store,
    clock: Clock,
}

/// Dropped, it forgets the bucket: the next one looks for it anew.
struct Doubt<'a>(&'a parking_lot::Mutex<Option<Bucket>>);

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.0.lock().take();
    }
}

/// The server's time when it was last heard of.
#[derive(Clone, Copy)]
struct Clock {
    micros: u64,
    at: Instant,
}

impl NatsTokenStore {
    /// A store on these servers, `nats://host:port` with commas between them.
    ///
    /// # Errors
    /// `INVALID_CONFIG` for a URL that cannot be read.
    pub fn new(url: &str, settings: TokenSettings) -> Result<NatsTokenStore> {
        let servers = url
            .split(',')
            // The text may hold a password, so it is not repeated.
            .map(|url| url.trim().parse().map_err(|_| unreadable()))
            .collect::<Result<_>>()?;
        Ok(NatsTokenStore {
            servers,
            settings,
            client: Mutex::default(),
            bucket: parking_lot::Mutex::default(),
            looking: Mutex::default(),
            stripes: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        })
    }

    async fn take(&self, key: &str, limit: RateLimit, want: u32) -> Result<Grant, BoxError> {
        if limit.refill() > self.settings.remember {
            return Err("this store forgets sooner than the limit refills".into());
        }
        let name = name(key)?;
        let stripe = self.hasher.hash_one(key) as usize % STRIPES;
        let _turn = match self.stripes.get(stripe) {
            Some(stripe) => Some(stripe.lock().await),
            None => None,
        };
        for _ in 0..MAX_TRIES {
            let Bucket { store, clock } = self.bucket().await?;
            // Also where nobody waits any longer, the bucket may be gone with its server.
            let doubt = Doubt(&self.bucket);
            let taken = try_take(&store, clock, &name, limit, want).await?;
            std::mem::forget(doubt);
            match taken {
                Some(grant) => return Ok(grant),
                None => tokio::time::sleep(PAUSE.mul_f64(fastrand::f64())).await,
            }
        }
        Err("other instances were faster each time".into())
    }

    /// The bucket with a clock that is good. Dropping the future leaves what was there.
    async fn bucket(&self) -> Result<Bucket, BoxError> {
        let known = || {
            let bucket = self.bucket.lock();
            bucket.clone().filter(|bucket| bucket.clock.at.elapsed() < CLOCK_FOR)
        };
        if let Some(known) = known() {
            return Ok(known);
        }
        let _turn = self.looking.lock().await;
        if let Some(known) = known() {
            return Ok(known);
        }
        let context = jetstream::new(self.client().await?);
        let store = match context.get_key_value(&self.settings.bucket).await {
            Ok(store) => store,
            Err(_) => {
                context.create_stream(self.stream()).await?;
                context.get_key_value(&self.settings.bucket).await?
            }
        };
        store.put(CLOCK, Vec::new().into()).await?;
        // The latest that the entry can have been written.
        let at = Instant::now();
        let entry = store.entry(CLOCK).await?.ok_or("the bucket keeps nothing")?;
        let micros = entry.created.unix_timestamp_nanos() / 1_000;
        let clock = Clock { micros: u64::try_from(micros)?, at };
        Ok(self.bucket.lock().insert(Bucket { store, clock }).clone())
    }

    async fn client(&self) -> Result<Client, BoxError> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let options = ConnectOptions::new()
            .name("chassis-tokens")
            .connection_timeout(self.settings.timeout)
            .request_timeout(Some(self.settings.timeout))
            .max_reconnects(None);
        let made = options.connect(self.servers.clone()).await?;
        Ok(client.insert(made).clone())
    }

    /// The stream that a bucket is. Not `create_key_value`: it asks for the account first, in a
    /// form that a server of 2.9 does not answer in.
    ///
    /// Source: ADR-8, "JetStream based Key-Value Stores".
    fn stream(&self) -> Config {
        let TokenSettings { bucket, replicas, max_keys, remember, .. } = &self.settings;
        Config {
            name: format!("KV_{bucket}"),
            description: Some("tokens of rate limits".to_owned()),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: 1,
            // One more is the clock.
            max_messages: i64::from((*max_keys).max(1)) + 1,
            max_age: *remember,
            num_replicas: *replicas,
            discard: DiscardPolicy::Old,
            storage: StorageType::Memory,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..Config::default()
        }
    }
}

impl TokenStore for NatsTokenStore {
    fn take<'a>(
        &'a self,
        key: &'a str,
        limit: RateLimit,
        want: u32,
    ) -> BoxFuture<'a, Result<Grant, BoxError>> {
        Box::pin(self.take(key, limit, want))
    }
}

/// Reads, decides and writes; `None` if somebody else has written in between.
async fn try_take(
    store: &Store,
    clock: Clock,
    name: &str,
    limit: RateLimit,
    want: u32,
) -> Result<Option<Grant>, BoxError> {
    let entry = store.entry(name).await?;
    let revision = entry.as_ref().map_or(0, |entry| entry.revision);
    let arrival = match entry.filter(|entry| entry.operation == Operation::Put) {
        Some(entry) => std::str::from_utf8(&entry.value)?.parse()?,
        None => 0,
    };
    let now = clock.micros.saturating_add(micros(clock.at.elapsed()));
    let (tokens, arrival) = match decide(arrival, now, limit, want) {
        Ok(taken) => taken,
        Err(wait) => return Ok(Some(Grant::Wait(wait))),
    };
    match store.update(name, arrival.to_string().into(), revision).await {
        Ok(_) => Ok(Some(Grant::Tokens(tokens))),
        Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// How many tokens there are and the next arrival, or how long until there is one. All times
/// are in microseconds.
fn decide(arrival: u64, now: u64, limit: RateLimit, want: u32) -> Result<(u32, u64), Duration> {
    let interval = micros(limit.interval()).max(1);
    let tolerance = interval.saturating_mul(u64::from(limit.burst_size().max(1) - 1)).min(MOST);
    let arrival = arrival.max(now);
    let early = arrival - now;
    let Some(room) = tolerance.checked_sub(early) else {
        return Err(Duration::from_micros(early - tolerance));
    };
    let fits = u32::try_from(room / interval + 1).unwrap_or(u32::MAX);
    let taken = want.max(1).min(fits);
    Ok((taken, arrival.saturating_add(interval.saturating_mul(taken.into()).min(MOST))))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(MOST).min(MOST)
}

/// Any text as one token of a subject: its bytes in hexadecimal, behind a letter that none of
/// the other entries begins with.
fn name(key: &str) -> Result<String, BoxError> {
    use std::fmt::Write as _;

    if key.len() > MAX_KEY {
        return Err(format!("a key of {} bytes is longer than {MAX_KEY}", key.len()).into());
    }
    let mut name = String::with_capacity(1 + 2 * key.len());
    name.push('k');
    for byte in key.bytes() {
        write!(name, "{byte:02x}")?;
    }
    Ok(name)
}

fn unreadable() -> Error {
    Error::invalid_argument(
        "INVALID_CONFIG",
        "the URL of the tokens is not a list of nats://host:port",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant as StdInstant;

    use chassis_resilience::Gcra;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_text_has_a_name_of_its_own() {
        assert_eq!(name("").unwrap(), "k");
        assert_eq!(name("a b").unwrap(), "k612062");
        assert_ne!(name(CLOCK).unwrap(), CLOCK);
        assert!(name(&"x".repeat(MAX_KEY + 1)).is_err());
    }

    #[test]
    fn a_url_that_is_none_is_not_repeated() {
        let error = NatsTokenStore::new("nats://me:secret@[", TokenSettings::default());
        let error = error.err().unwrap();
        assert_eq!(error.reason(), "INVALID_CONFIG");
        assert!(!error.chain().contains("secret"));
    }

    #[test]
    fn extremes_do_not_overflow() {
        for limit in [
            RateLimit::new(0, Duration::ZERO).burst(0),
            RateLimit::new(1, Duration::MAX).burst(u32::MAX),
            RateLimit::per_second(u32::MAX).burst(u32::MAX),
        ] {
            for (arrival, now) in [(0, 0), (u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX)] {
                let _ = decide(arrival, now, limit, u32::MAX);
            }
        }
    }

    proptest! {
        #[test]
        fn it_decides_as_the_limiter_in_memory_does(
            burst in 1u32..20,
            per_second in 1u32..1_000,
            calls in prop::collection::vec((0u64..200_000, 1u32..10), 1..200),
        ) {
            let limit = RateLimit::new(1, Duration::from_micros(1_000_000 / u64::from(per_second)))
                .burst(burst);
            let start: StdInstant = tokio::time::Instant::now().into_std();
            let (mut gcra, mut arrival, mut now) = (Gcra::default(), 0, 1_000_000);
            for (pause, want) in calls {
                now += pause;
                let there = gcra.take(&limit, start + Duration::from_micros(now), want);
                let here = decide(arrival, now, limit, want).map(|(tokens, next)| {
                    arrival = next;
                    tokens
                });
                prop_assert_eq!(here, there);
            }
        }
    }
}
