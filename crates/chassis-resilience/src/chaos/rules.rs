//! The brain: which faults hit a call.
//!
//! The dice are an argument, so that a test can throw them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::ChaosRefused;

/// So many rules may be set; nobody can tell more of them apart.
const MOST_RULES: usize = 64;
/// The longest name of a rule or a target, in bytes.
const LONGEST_NAME: usize = 128;
/// No injected delay is longer, also of several rules together.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A forgotten rule ends after this at the latest.
const LONGEST_LIFE: Duration = Duration::from_secs(3_600);

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is delayed by a time between the two, evenly spread. At most a minute.
    Latency {
        /// The shortest delay.
        least: Duration,
        /// The longest delay.
        most: Duration,
    },
    /// It fails and is never sent.
    Error,
    /// It is never sent and gets no answer; after a minute it fails.
    Drop,
    /// It is sent twice at the same time, if it can be copied; the first copy's answer counts.
    Duplicate,
}

/// A fault for a share of the calls to a target.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The target, with all that lies below it behind a `/`; `*` is every target, and a `*` at
    /// the end every one that begins so.
    pub target: String,
    /// The share of calls that are hit, above 0 up to 1.
    pub share: f64,
    /// What happens to them.
    pub fault: Fault,
    /// After this time the rule is gone. At most an hour.
    pub lasts: Duration,
}

/// A rule as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedRule {
    /// The name under which it was set.
    pub name: String,
    /// The rule.
    pub rule: Rule,
    /// How long it has left.
    pub remaining: Duration,
    /// How many calls it has hit.
    pub hits: u64,
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Strike {
    pub(super) delay: Duration,
    pub(super) fault: Option<Blow>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    Error,
    Drop,
    Duplicate,
}

#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: BTreeMap<String, Active>,
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    until: Instant,
    hits: u64,
}

impl Rule {
    fn check(&self, name: &str) -> Result<(), ChaosRefused> {
        let named = |name: &str| !name.is_empty() && name.len() <= LONGEST_NAME;
        let delay = match self.fault {
            Fault::Latency { least, most } => least <= most && most <= LONGEST_DELAY,
            Fault::Error | Fault::Drop | Fault::Duplicate => true,
        };
        let life = !self.lasts.is_zero() && self.lasts <= LONGEST_LIFE;
        let checks = [
            (named(name), "name", "from 1 to 128 bytes long"),
            (named(&self.target), "target", "from 1 to 128 bytes long"),
            (self.share > 0.0 && self.share <= 1.0, "share", "above 0 and at most 1"),
            (delay, "latency", "from least to most, at most 60 s"),
            (life, "lasts", "longer than zero and at most an hour"),
        ];
        match checks.into_iter().find(|(holds, ..)| !holds) {
            Some((_, setting, expected)) => Err(ChaosRefused::OutOfRange { setting, expected }),
            None => Ok(()),
        }
    }

    fn hits(&self, target: &str) -> bool {
        match self.target.strip_suffix('*') {
            Some(begins) => target.starts_with(begins),
            None => target
                .strip_prefix(self.target.as_str())
                .is_some_and(|below| below.is_empty() || below.starts_with('/')),
        }
    }
}

impl Rules {
    pub(super) fn set(
        &mut self,
        name: String,
        rule: Rule,
        now: Instant,
    ) -> Result<(), ChaosRefused> {
        rule.check(&name)?;
        self.expire(now);
        if self.rules.len() >= MOST_RULES && !self.rules.contains_key(&name) {
            return Err(ChaosRefused::TooMany { limit: MOST_RULES });
        }
        let until = now.checked_add(rule.lasts).unwrap_or(now);
        self.rules.insert(name, Active { rule, until, hits: 0 });
        Ok(())
    }

    pub(super) fn clear(&mut self, name: &str) -> bool {
        self.rules.remove(name).is_some()
    }

    pub(super) fn clear_all(&mut self) {
        self.rules.clear();
    }

    pub(super) fn list(&mut self, now: Instant) -> Vec<ListedRule> {
        self.expire(now);
        let listed = |(name, active): (&String, &Active)| ListedRule {
            name: name.clone(),
            rule: active.rule.clone(),
            remaining: active.until.saturating_duration_since(now),
            hits: active.hits,
        };
        self.rules.iter().map(listed).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What happens to one call. `dice` gives numbers from 0 up to 1. Delays of several rules
    /// add up; of several other faults the first by name counts.
    pub(super) fn strike(
        &mut self,
        target: &str,
        now: Instant,
        mut dice: impl FnMut() -> f64,
    ) -> Strike {
        self.expire(now);
        let mut strike = Strike::default();
        for active in self.rules.values_mut().filter(|active| active.rule.hits(target)) {
            if dice() >= active.rule.share {
                continue;
            }
            active.hits += 1;
            let blow = match active.rule.fault {
                Fault::Latency { least, most } => {
                    let delay = least + (most - least).mul_f64(dice());
                    strike.delay = (strike.delay + delay).min(LONGEST_DELAY);
                    continue;
                }
                Fault::Error => Blow::Error,
                Fault::Drop => Blow::Drop,
                Fault::Duplicate => Blow::Duplicate,
            };
            strike.fault = strike.fault.or(Some(blow));
        }
        strike
    }

    fn expire(&mut self, now: Instant) {
        self.rules.retain(|_, active| active.until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rule(target: &str, fault: Fault) -> Rule {
        Rule { target: target.into(), share: 1.0, fault, lasts: 60 * SECOND }
    }

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn rules_hit_their_target_for_their_time() {
        let now = start();
        let mut rules = Rules::default();
        rules.set("a".into(), rule("inventory", Fault::Error), now).unwrap();
        rules.set("b".into(), rule("pay*", Fault::Drop), now).unwrap();
        let mut fault = |target, at| rules.strike(target, at, || 0.0).fault;
        for (target, at, expected) in [
            ("inventory", now, Some(Blow::Error)),
            ("inventory/items/7", now, Some(Blow::Error)),
            ("inventory2", now, None),
            ("payment", now + 59 * SECOND, Some(Blow::Drop)),
            ("shipping", now, None),
            ("inventory", now + 60 * SECOND, None),
        ] {
            assert_eq!(fault(target, at), expected, "{target}");
        }
        assert!(rules.is_empty());
    }

    #[test]
    fn delays_add_up_to_a_limit_and_shares_are_kept() {
        let now = start();
        let mut rules = Rules::default();
        let slow = |seconds| Fault::Latency { least: seconds * SECOND, most: seconds * SECOND };
        rules.set("a".into(), rule("*", slow(2)), now).unwrap();
        rules.set("b".into(), Rule { share: 0.5, ..rule("*", slow(3)) }, now).unwrap();
        assert_eq!(rules.strike("x", now, || 0.4).delay, 5 * SECOND);
        assert_eq!(rules.strike("x", now, || 0.6).delay, 2 * SECOND);
        rules.set("c".into(), rule("*", slow(60)), now).unwrap();
        assert_eq!(rules.strike("x", now, || 0.4).delay, LONGEST_DELAY);
        let hits: Vec<_> = rules.list(now).iter().map(|listed| listed.hits).collect();
        assert_eq!(hits, [3, 2, 1]);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let now = start();
        let mut rules = Rules::default();
        let good = rule("x", Fault::Error);
        let backwards = Fault::Latency { least: 2 * SECOND, most: SECOND };
        for (setting, rule) in [
            ("target", Rule { target: String::new(), ..good.clone() }),
            ("share", Rule { share: 0.0, ..good.clone() }),
            ("share", Rule { share: f64::NAN, ..good.clone() }),
            ("latency", Rule { fault: backwards, ..good.clone() }),
            ("lasts", Rule { lasts: 2 * LONGEST_LIFE, ..good.clone() }),
        ] {
            let Err(ChaosRefused::OutOfRange { setting: named, .. }) =
                rules.set("r".into(), rule, now)
            else {
                panic!("{setting} is out of range");
            };
            assert_eq!(named, setting);
        }
        for n in 0..MOST_RULES {
            rules.set(n.to_string(), good.clone(), now).unwrap();
        }
        let refused = rules.set("more".into(), good.clone(), now);
        assert_eq!(refused, Err(ChaosRefused::TooMany { limit: MOST_RULES }));
        rules.set("0".into(), good, now).unwrap();
    }
}
