//! The numbers of a client, the same for HTTP and gRPC.
//!
//! They are one struct because a caller thinks of one dependency at a time: how
//! long may it take, how often may it be tried, how much of me may it occupy.

mod balance;
mod breaker;
mod cache;
mod grpc;
mod hedge;
mod limits;
mod profile;

use std::time::Duration;

use chassis_core::Result;
use chassis_core::config::duration;
use chassis_resilience::retry::{Backoff, BudgetSettings, RetryBudget, RetrySettings};
use chassis_resilience::{Bulkhead, BulkheadLayer, BulkheadSettings, Profile};
use serde::{Deserialize, Serialize};

pub use self::balance::BalanceConfig;
pub use self::breaker::BreakerConfig;
pub use self::cache::CacheConfig;
pub use self::grpc::GrpcClientConfig;
pub use self::hedge::HedgeConfig;
pub use self::limits::{AdaptiveConfig, CallRateConfig, ThrottleConfig};
use crate::limits::within;
use crate::{BalanceSettings, Discovery};

const SHORTEST: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(600);
/// Of the longest time of an attempt, from where on a call that nobody waits for any more is
/// the endpoint's fault.
const HUNG: f64 = 0.9;

/// Settings of a client for one service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientConfig {
    /// How much the caller depends on the callee: `critical`, `standard` or `best_effort`. It
    /// gives the other numbers their defaults.
    #[serde(with = "profile")]
    pub profile: Profile,
    /// The whole call with all attempts and pauses. 1ms to 10m. The caller's own
    /// deadline holds too, if it is shorter.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// One attempt. 1ms up to `timeout`.
    #[serde(with = "duration")]
    pub attempt_timeout: Duration,
    /// Making a connection. 1ms to 1m; never longer than half of `attempt_timeout`, so
    /// that there is time for an attempt elsewhere.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// Attempts, the first one included. 1 (never retry) to 10.
    pub max_attempts: u32,
    /// Retries and hedges as a share of calls, beyond `retry_reserve`. 0.0 to 1.0.
    pub retry_budget: f64,
    /// Retries a second that are allowed however few calls there are. 0 to 1000.
    pub retry_reserve: u32,
    /// The pause before the first retry at most; it doubles with each one. 0s to 1m.
    #[serde(with = "duration")]
    pub backoff: Duration,
    /// The longest pause between two attempts. `backoff` to 10m.
    #[serde(with = "duration")]
    pub backoff_max: Duration,
    /// The largest request body, in bytes, that is kept for another attempt. 0 to 16777216.
    pub max_replay: usize,
    /// Calls that may be under way at a time. 1 to 100000.
    pub max_concurrent: usize,
    /// Calls that may wait for their turn when that many are under way. 0 (none waits) to
    /// 100000.
    pub max_waiting: usize,
    /// How long each of them waits. 0s (not at all) to 1m.
    #[serde(with = "duration")]
    pub max_wait: Duration,
    /// How often this client calls at most.
    pub rate_limit: CallRateConfig,
    /// Sending less to a callee that refuses a part of the calls.
    pub throttle: ThrottleConfig,
    /// A limit on calls under way that is measured.
    pub adaptive: AdaptiveConfig,
    /// Answers that are kept.
    pub cache: CacheConfig,
    /// Messages of gRPC.
    pub grpc: GrpcClientConfig,
    /// Asking a second time when the answer is late.
    pub hedge: HedgeConfig,
    /// Which endpoint gets a call.
    pub balance: BalanceConfig,
    /// The circuit breaker of each endpoint.
    pub breaker: BreakerConfig,
}

impl Default for ClientConfig {
    /// That of [`Profile::Standard`].
    fn default() -> ClientConfig {
        ClientConfig::of(Profile::Standard)
    }
}

impl ClientConfig {
    /// The numbers of a profile; a service whose configuration begins with another profile
    /// than the standard one says so in its defaults.
    ///
    /// To change the field [`profile`](ClientConfig::profile) alone changes no number. A
    /// configuration that names it does: the [loader](chassis_core::config::preset) then moves
    /// all numbers that nothing else sets.
    pub fn of(profile: Profile) -> ClientConfig {
        let numbers = profile.settings();
        ClientConfig {
            profile,
            timeout: numbers.timeout,
            attempt_timeout: numbers.attempt_timeout,
            // A handshake takes 0.3 s around half of the world, and 1 s where its first packet is
            // lost, since that is when Linux sends it again. Whoever has not answered before is
            // not worth waiting for: a container that is gone swallows packets, and the call is
            // sooner elsewhere.
            connect_timeout: Duration::from_millis(500).min(numbers.attempt_timeout),
            max_attempts: numbers.retry.max_attempts,
            retry_budget: numbers.budget.ratio,
            retry_reserve: numbers.budget.min_per_second,
            backoff: numbers.retry.backoff.base,
            backoff_max: numbers.retry.backoff.cap,
            // Above it a repetition costs the network more than it is likely to gain.
            max_replay: 1024 * 1024,
            max_concurrent: numbers.bulkhead.max_concurrent,
            max_waiting: numbers.bulkhead.max_waiting,
            max_wait: numbers.bulkhead.max_wait,
            rate_limit: CallRateConfig::default(),
            throttle: ThrottleConfig::from(numbers.throttle),
            adaptive: AdaptiveConfig::from(numbers.adaptive),
            cache: CacheConfig::default(),
            grpc: GrpcClientConfig::default(),
            hedge: HedgeConfig::from(numbers.hedge),
            balance: BalanceConfig::default(),
            breaker: BreakerConfig::from(numbers.breaker),
        }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// `INVALID_CONFIG`; the message names the key behind `path`, such as
    /// `clients.greeter`, the value and the allowed range.
    pub fn validate(&self, path: &str) -> Result<()> {
        let key = |name: &str| format!("{path}.{name}");
        within(&key("timeout"), self.timeout, SHORTEST..=LONGEST)?;
        within(&key("attempt_timeout"), self.attempt_timeout, SHORTEST..=self.timeout)?;
        within(&key("connect_timeout"), self.connect_timeout, SHORTEST..=MINUTE)?;
        within(&key("max_attempts"), self.max_attempts, 1..=10)?;
        within(&key("retry_budget"), self.retry_budget, 0.0..=1.0)?;
        within(&key("retry_reserve"), self.retry_reserve, 0..=1000)?;
        within(&key("backoff"), self.backoff, Duration::ZERO..=MINUTE)?;
        within(&key("backoff_max"), self.backoff_max, self.backoff..=LONGEST)?;
        within(&key("max_replay"), self.max_replay, 0..=16 * 1024 * 1024)?;
        within(&key("max_concurrent"), self.max_concurrent, 1..=100_000)?;
        within(&key("max_waiting"), self.max_waiting, 0..=100_000)?;
        within(&key("max_wait"), self.max_wait, Duration::ZERO..=MINUTE)?;
        self.rate_limit.validate(&key("rate_limit"))?;
        self.throttle.validate(&key("throttle"))?;
        self.adaptive.validate(&key("adaptive"))?;
        self.cache.validate(&key("cache"))?;
        self.grpc.validate(&key("grpc"))?;
        self.hedge.validate(&key("hedge"))?;
        self.balance.validate(&key("balance"))?;
        self.breaker.validate(&key("breaker"))
    }

    /// The settings of the retry layer.
    pub fn retry_settings(&self) -> RetrySettings {
        RetrySettings {
            max_attempts: self.max_attempts,
            backoff: Backoff { base: self.backoff, cap: self.backoff_max, factor: 2.0 },
            // Nobody waits longer than this, so neither does a server's wish.
            max_retry_after: self.timeout,
        }
    }

    /// A new retry budget; clones of it share one balance.
    pub fn retry_budget(&self) -> RetryBudget {
        RetryBudget::new(BudgetSettings {
            ratio: self.retry_budget,
            min_per_second: self.retry_reserve,
            ..BudgetSettings::default()
        })
    }

    /// A new bulkhead; services that the layer makes share it.
    pub fn bulkhead(&self) -> BulkheadLayer {
        BulkheadLayer::with(Bulkhead::new(BulkheadSettings {
            max_concurrent: self.max_concurrent,
            max_waiting: self.max_waiting,
            max_wait: self.max_wait,
        }))
    }

    /// How long a connection may take: never so long that a whole attempt goes by.
    pub fn connect_timeout(&self) -> Duration {
        // What is left after half of an attempt is enough for one elsewhere.
        self.connect_timeout.min(self.attempt_timeout / 2)
    }

    /// The settings of the balancer. The zone, if none is set, is the one that this process
    /// registers with.
    pub fn balance_settings(&self, discovery: &Discovery) -> BalanceSettings {
        let settings = self.balance.settings();
        BalanceSettings {
            zone: settings.zone.or_else(|| discovery.zone().map(str::to_owned)),
            breaker: self.breaker.settings(),
            // Shorter than the time of an attempt, so that an endpoint that hangs is blamed
            // for it when the time-out drops the call.
            hung_after: self.attempt_timeout.mul_f64(HUNG),
            connect_timeout: self.connect_timeout(),
            ..settings
        }
    }
}

#[cfg(test)]
mod tests {
    use chassis_core::config::Loader;
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_defaults_of_every_profile_are_valid() {
        for profile in Profile::ALL {
            let config = ClientConfig::of(profile);
            config.validate("client").unwrap();
            config.breaker.settings().validate().unwrap();
            assert_eq!(config.breaker.settings(), profile.settings().breaker);
            assert_eq!(*config.bulkhead().handle().settings(), profile.settings().bulkhead);
        }
    }

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Calls {
        greeter: ClientConfig,
        others: std::collections::BTreeMap<String, ClientConfig>,
    }

    fn load(set: &[(&str, &str)]) -> Result<Calls, String> {
        let loaded = Loader::new().env(set.iter().copied()).load::<Calls>();
        loaded.map(|loaded| loaded.settings).map_err(|error| error.to_string())
    }

    fn json(config: &ClientConfig) -> Value {
        serde_json::to_value(config).unwrap()
    }

    #[test]
    fn a_profile_gives_the_defaults_and_single_settings_override_them() {
        for profile in Profile::ALL {
            let name = profile.as_str();
            let calls = load(&[
                ("GREETER__PROFILE", name),
                ("GREETER__MAX_ATTEMPTS", "7"),
                // What the standard has is a setting too.
                ("GREETER__BREAKER__OPEN_FOR", "5s"),
                ("OTHERS__MAIL__PROFILE", name),
                ("OTHERS__MAIL__MAX_ATTEMPTS", "7"),
                ("OTHERS__MAIL__BREAKER__OPEN_FOR", "5s"),
            ])
            .unwrap();
            let mut expected = ClientConfig { max_attempts: 7, ..ClientConfig::of(profile) };
            expected.breaker.open_for = Duration::from_secs(5);
            assert_eq!(json(&calls.greeter), json(&expected));
            assert_eq!(json(&calls.others["mail"]), json(&expected));
        }
    }

    #[test]
    fn a_name_that_is_no_profile_is_refused_with_those_that_are() {
        let error = load(&[("GREETER__PROFILE", "high")]).unwrap_err();
        let expected = "setting `greeter.profile` is wrong (environment variable \
                        GREETER__PROFILE): `high` is no profile, allowed is critical, standard, \
                        best_effort";
        assert_eq!(error, expected);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        type Change = fn(&mut ClientConfig);
        let cases: [(&str, Change); 17] = [
            ("timeout", |c| c.timeout = Duration::ZERO),
            ("attempt_timeout", |c| {
                c.attempt_timeout = c.timeout + Duration::from_secs(1);
            }),
            ("max_attempts", |c| c.max_attempts = 0),
            ("retry_budget", |c| c.retry_budget = 1.5),
            ("retry_budget", |c| c.retry_budget = f64::NAN),
            ("max_concurrent", |c| c.max_concurrent = 0),
            ("max_wait", |c| c.max_wait = Duration::from_secs(3600)),
            ("connect_timeout", |c| c.connect_timeout = Duration::ZERO),
            ("retry_reserve", |c| c.retry_reserve = 1001),
            ("max_replay", |c| c.max_replay = usize::MAX),
            ("hedge.quantile", |c| c.hedge.quantile = 1.0),
            ("balance.max_ejected", |c| c.balance.max_ejected = 1.1),
            ("balance.panic_below", |c| c.balance.panic_below = f64::NAN),
            ("balance.zone_spill", |c| c.balance.zone_spill = 0.5),
            ("breaker.slow_rate", |c| c.breaker.slow_rate = 2.0),
            ("breaker.failure_rate", |c| c.breaker.failure_rate = 0.0),
            ("breaker.open_for", |c| {
                c.breaker.open_for = c.breaker.open_max * 2;
            }),
        ];
        for (name, change) in cases {
            let mut config = ClientConfig::default();
            change(&mut config);
            let error = config.validate("clients.greeter").unwrap_err();
            let message = error.message();
            assert!(message.starts_with(&format!("clients.greeter.{name} is ")), "{message}");
            assert!(message.contains("allowed is"), "{message}");
        }
    }

    /// Puts a value in place of the one at this path.
    fn with(path: &str, value: Value) -> Result<ClientConfig, String> {
        let mut all = serde_json::to_value(ClientConfig::default()).unwrap();
        *all.pointer_mut(&format!("/{}", path.replace('.', "/"))).unwrap() = value;
        serde_json::from_value(all).map_err(|error| error.to_string())
    }

    fn leaves(value: &Value, path: &str, into: &mut Vec<(String, Value)>) {
        let Value::Object(fields) = value else {
            return into.push((path.to_owned(), value.clone()));
        };
        for (name, value) in fields {
            let dot = if path.is_empty() { "" } else { "." };
            leaves(value, &format!("{path}{dot}{name}"), into);
        }
    }

    /// Over all settings that there are, so that none is added without a range.
    #[test]
    fn no_setting_takes_any_value() {
        let mut settings = Vec::new();
        let defaults = serde_json::to_value(ClientConfig::default()).unwrap();
        leaves(&defaults, "", &mut settings);
        assert!(settings.len() > 30, "{settings:?}");
        for (path, default) in settings {
            let wrong: &[Value] = match &default {
                Value::Bool(_) => continue,
                // Any name is a zone.
                Value::String(_) if path == "balance.zone" => continue,
                // Refused where it is read, with the names that are allowed.
                Value::String(_) if path == "profile" => {
                    let error = with(&path, "high".into()).unwrap_err();
                    assert!(error.contains("critical, standard, best_effort"), "{error}");
                    continue;
                }
                Value::String(_) => &["9000h".into(), "7".into(), "-1s".into()],
                Value::Number(number) if number.is_f64() => &[1e9.into(), (-0.1).into()],
                Value::Number(_) => &[4_000_000_000_u64.into(), (-1).into()],
                other => panic!("{path} is {other}"),
            };
            for value in wrong {
                // What is no number of its type is refused where it is read, with its key.
                let Ok(config) = with(&path, value.clone()) else { continue };
                let error = config.validate("clients.greeter").unwrap_err();
                let (reason, message) = (error.reason(), error.message());
                assert_eq!(reason, "INVALID_CONFIG");
                let named = format!("clients.greeter.{path} is ");
                assert!(message.starts_with(&named), "{path} = {value}: {message}");
                assert!(message.contains(", allowed is "), "{message}");
            }
        }
    }

    #[test]
    fn a_window_of_calls_can_be_asked_for() {
        let mut config = ClientConfig::default();
        assert_eq!(config.breaker.settings().window_calls, None);
        config.breaker.window_calls = 50;
        config.validate("clients.greeter").unwrap();
        let settings = config.breaker.settings();
        assert_eq!(settings.window_calls, Some(50));
        settings.validate().unwrap();
        config.breaker.window_calls = 19;
        let error = config.validate("clients.greeter").unwrap_err();
        let expected = "clients.greeter.breaker.min_calls is 20, allowed is 1 to 19";
        assert_eq!(error.message(), expected);
    }
}
