//! The endpoints of one target and the pick among them.
//!
//! No async and no clock: `now` is an argument. What a pick costs does not grow with the
//! number of endpoints: it looks at two, or a few more where circuits are open. Only a change
//! of the set looks at all of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chassis_resilience::CircuitOpen;
use tokio::sync::watch;
use tokio::time::Instant;

use super::affinity::Affinity;
use super::error::{AllOpen, NoEndpoints, Unreachable};
use super::hash;
use super::health::{Health, Mode, Shares, Standing};
use super::node::{Call, Node, Together};
use super::pick::{Candidates, Choice, Look, pick_near};
use super::ring::{Ring, capacity};
use super::settings::BalanceSettings;
use super::subset::subset;
use crate::{Endpoint, Target, Updates};

struct Member<S> {
    endpoint: Endpoint,
    service: S,
    node: Arc<Node>,
}

/// A place for a call: the service to call and where to report.
pub(crate) struct Picked<S> {
    pub(crate) service: S,
    pub(crate) call: Call,
}

/// Why there is no place.
pub(crate) enum Refused {
    /// The first set of endpoints is not known yet.
    Unknown,
    NoEndpoints(NoEndpoints),
    AllOpen(AllOpen),
    Unreachable(Unreachable, Box<Dark>),
}

/// What to wait for while no endpoint can be connected to.
pub(crate) struct Dark {
    /// Changes when one is back.
    pub(crate) returns: watch::Receiver<()>,
    /// Changes when there are others.
    pub(crate) updates: Updates,
    /// A call that has no place by then is not worth the wait.
    pub(crate) until: Instant,
}

pub(crate) struct Pool<S> {
    target: Target,
    updates: Updates,
    make: Box<dyn Fn(&Endpoint) -> S + Send>,
    settings: BalanceSettings,
    /// Those of the own zone first.
    members: Vec<Member<S>>,
    /// How many of them are of the own zone.
    near: usize,
    /// Made by the first call with a key after a change.
    ring: Option<Ring>,
    /// Picks so far.
    picks: u64,
    /// No circuit lets a call through before.
    shut_until: Option<Instant>,
    // Shared with the hooks of the breakers, which outlive a borrow of the pool.
    together: Arc<Together>,
}

impl<S: Clone> Pool<S> {
    pub(crate) fn new(
        target: Target,
        mut updates: Updates,
        make: Box<dyn Fn(&Endpoint) -> S + Send>,
        settings: BalanceSettings,
    ) -> Pool<S> {
        updates.mark_unseen();
        let refresh = updates.refresher();
        let shares =
            Shares { max_ejected: settings.max_ejected, panic_below: settings.panic_below };
        Pool {
            target,
            updates,
            make,
            settings,
            members: Vec::new(),
            near: 0,
            ring: None,
            picks: 0,
            shut_until: None,
            together: Arc::new(Together::new(Health::new(shares), refresh)),
        }
    }

    pub(crate) fn bind(&mut self, metrics: &chassis_core::Metrics) {
        self.together.shown.bind(metrics, &self.target);
        self.together.shown.endpoints(self.members.len());
    }

    pub(crate) fn updates(&self) -> Updates {
        self.updates.clone()
    }

    /// Picks a place for one call, the one of its key if it has one.
    pub(crate) fn pick(
        &mut self,
        affinity: Option<Affinity>,
        now: Instant,
    ) -> Result<Picked<S>, Refused> {
        if let Some(endpoints) = self.updates.take_change() {
            self.reconcile(&endpoints, now);
        }
        if self.members.is_empty() {
            return Err(self.no_endpoints());
        }
        let mode = self.together.mode();
        if let Some(until) = self.shut_until {
            if mode == Mode::Trials && now < until {
                return Err(self.all_open(until.saturating_duration_since(now)));
            }
            self.shut_until = None;
        }
        self.picks += 1;
        let choice = affinity.and_then(|affinity| self.by_key(affinity, mode, now)).or_else(|| {
            let (near, len, spill) = (self.near, self.members.len(), self.settings.zone_spill);
            let view = self.view(mode, now);
            pick_near(&view, near, len, spill, &mut |n| fastrand::usize(..n))
        });
        if let Some(choice) = choice
            && let Ok(picked) = self.begin(choice.index, choice.look.due, mode, now)
        {
            return Ok(picked);
        }
        self.anyone(mode, now)
    }

    fn begin(
        &self,
        index: usize,
        trial: bool,
        mode: Mode,
        now: Instant,
    ) -> Result<Picked<S>, Duration> {
        let member = &self.members[index];
        let anyway = is_open_to_all(mode, member.node.standing());
        let call = member.node.begin(self.picks, trial, anyway, now)?;
        let shown = &self.together.shown;
        if trial {
            shown.trial();
        }
        if mode == Mode::Panic {
            shown.panic();
        }
        Ok(Picked { service: member.service.clone(), call })
    }

    /// Nobody seemed to have a place, or another call was quicker. Asking each one for real
    /// also gives the time until the first circuit lets a trial call through; until then
    /// nobody has to ask again.
    fn anyone(&mut self, mode: Mode, now: Instant) -> Result<Picked<S>, Refused> {
        let (mut retry_in, mut away) = (Duration::MAX, 0);
        // Before the look, so that no return is missed after it.
        let returns = self.together.returns();
        for index in 0..self.members.len() {
            if self.members[index].node.standing() == Standing::Away {
                away += 1;
                continue;
            }
            match self.begin(index, true, mode, now) {
                Ok(picked) => return Ok(picked),
                Err(wait) => retry_in = retry_in.min(wait),
            }
        }
        if away == self.members.len() {
            return Err(self.dark(returns, now));
        }
        // Who is away may be back before, with a circuit that opens sooner.
        self.shut_until = if away == 0 { now.checked_add(retry_in) } else { None };
        Err(self.all_open(retry_in))
    }

    fn dark(&self, returns: watch::Receiver<()>, now: Instant) -> Refused {
        // None: one of them has come back in this moment, which the wait will see.
        let since = self.together.change(|health| health.dark_since()).unwrap_or(now);
        let error = Unreachable { target: self.target.clone(), endpoints: self.members.len() };
        let until = since + self.settings.connect_timeout;
        if until <= now {
            self.together.shown.dark();
        }
        let dark = Dark { returns, updates: self.updates(), until };
        Refused::Unreachable(error, Box::new(dark))
    }

    fn all_open(&self, retry_in: Duration) -> Refused {
        self.together.shown.all_open();
        Refused::AllOpen(AllOpen { target: self.target.clone(), circuit: CircuitOpen { retry_in } })
    }

    /// The endpoint that a key belongs to, or the next one that can take it.
    fn by_key(&mut self, affinity: Affinity, mode: Mode, now: Instant) -> Option<Choice> {
        let ring = self.ring.take().unwrap_or_else(|| {
            let owners = self
                .members
                .iter()
                .map(|member| (hash::of_address(member.endpoint.address), member.endpoint.weight));
            Ring::new(owners)
        });
        let view = self.view(mode, now);
        let (total, size) = (self.together.in_flight() + 1, self.members.len());
        let most = capacity(total, size);
        let index = ring.find(affinity.0, |index| {
            view.usable(index) && self.members[index].node.in_flight() < most
        });
        let choice = index.map(|index| Choice { index, look: view.look(index) });
        self.ring = Some(ring);
        choice
    }

    fn view(&self, mode: Mode, now: Instant) -> View<'_, S> {
        View { members: &self.members, picks: self.picks, mode, now }
    }

    fn no_endpoints(&self) -> Refused {
        if !self.updates.is_known() {
            return Refused::Unknown;
        }
        self.together.shown.no_endpoints();
        Refused::NoEndpoints(NoEndpoints { target: self.target.clone() })
    }

    /// Makes the members those of the given set. Who stays keeps all that is known.
    fn reconcile(&mut self, endpoints: &[Endpoint], now: Instant) {
        let mut old: HashMap<SocketAddr, Member<S>> = std::mem::take(&mut self.members)
            .into_iter()
            .map(|member| (member.endpoint.address, member))
            .collect();
        let zone = self.settings.zone.as_ref();
        let is_near = |e: &&Endpoint| zone.is_none() || e.zone.as_ref() == zone;
        let most = if self.settings.subset == 0 { usize::MAX } else { self.settings.subset };
        let seed = self.settings.seed;
        let near = subset(endpoints.iter().filter(is_near), most, seed);
        let far = subset(endpoints.iter().filter(|e| !is_near(e)), most, seed);
        self.near = near.len();
        let chosen: Vec<&Endpoint> = near.into_iter().chain(far).collect();
        self.together.change(|health| health.resize(chosen.len()));
        self.members = chosen
            .into_iter()
            .map(|endpoint| match old.remove(&endpoint.address) {
                Some(member) => Member { endpoint: endpoint.clone(), ..member },
                None => self.member(endpoint, now),
            })
            .collect();
        for member in old.values() {
            member.node.leave();
        }
        // The quota of the new set may be another.
        for member in &self.members {
            if member.node.standing() != Standing::In {
                member.node.judge();
            }
        }
        self.ring = None;
        self.shut_until = None;
        self.together.shown.endpoints(self.members.len());
    }

    fn member(&self, endpoint: &Endpoint, now: Instant) -> Member<S> {
        let name = format!("{}@{}", self.target, endpoint.address);
        Member {
            service: (self.make)(endpoint),
            node: Node::new(
                name,
                endpoint.address,
                &self.settings,
                Arc::clone(&self.together),
                now,
            ),
            endpoint: endpoint.clone(),
        }
    }
}

struct View<'a, S> {
    members: &'a [Member<S>],
    picks: u64,
    mode: Mode,
    now: Instant,
}

impl<S> Candidates for View<'_, S> {
    fn usable(&self, index: usize) -> bool {
        let node = &self.members[index].node;
        let standing = node.standing();
        standing != Standing::Away
            && (is_open_to_all(self.mode, standing) || node.has_trial(self.now))
    }

    fn look(&self, index: usize) -> Look {
        let member = &self.members[index];
        let look = member.node.look(self.picks, self.members.len(), self.now);
        Look { load: look.load / f64::from(member.endpoint.weight.max(1)), ..look }
    }
}

/// Whether calls may go there whatever its circuit says.
fn is_open_to_all(mode: Mode, standing: Standing) -> bool {
    match standing {
        Standing::In => true,
        Standing::Kept => mode != Mode::Trials,
        Standing::Ejected | Standing::Gone => mode == Mode::Panic,
        Standing::Away => false,
    }
}

#[cfg(test)]
mod tests;
