//! What a relay does with its database, each as a job beside the publishing.
//!
//! A job begins from what the worker knows at that moment and ends in
//! [`Worker::done`]; what changed meanwhile is sorted out there. So a read says
//! under which tokens it began, and rows of a partition that was lost since are
//! left out.

use std::time::Duration;

use chassis_core::Result;
use chassis_data::{Backend, Dialect};
use tokio::time::Instant;

use super::checkpoints::{self, Checkpoint};
use super::clock::millis;
use super::lanes::Offered;
use super::lease::{self, Lease};
use super::parts::Parts;
use super::ping;
use super::table::{Backlog, Cleaned, Found, Tokens, Want};
use super::worker::Worker;
use crate::failpoint;

/// Rows marked by one statement, where the stream does not pause before.
const MARK_BATCH: usize = 1000;
/// How long a mark may wait for company.
pub(super) const MARK_DELAY: Duration = Duration::from_millis(20);
/// Counting the rows that wait takes at most one part in so many of the time.
const COUNT_SHARE: u32 = 100;
/// Time between two steps of a clean-up that has more to do.
const CLEAN_PAUSE: Duration = Duration::from_millis(20);

/// The end of a job.
pub(super) enum Done {
    Read { parts: Parts, tokens: Tokens, found: Result<Found> },
    Marked(Result<bool>),
    Seen { before: Instant, seen: Result<Seen> },
    Leased { before: Instant, tokens: Result<Tokens> },
    Cleaned(Result<Cleaned>),
    Pinged(Result<()>),
}

/// The leases as a beat found them.
pub(super) struct Seen {
    now: i64,
    leases: Vec<Lease>,
    live: usize,
    /// With the time that counting took; `None`: not counted this time.
    backlog: Option<(Backlog, Duration)>,
}

impl<B: Backend> Worker<B> {
    /// Takes the first leases. A database that is away comes back; a missing table
    /// does not.
    pub(super) async fn begin(&mut self) -> Result<()> {
        self.beat();
        while self.beating {
            let Some(done) = futures_util::StreamExt::next(&mut self.jobs).await else { break };
            match done {
                Done::Seen { seen: Err(error), .. } if !error.code().is_retryable() => {
                    return Err(error);
                }
                done => self.done(done),
            }
        }
        Ok(())
    }

    /// Begins what is due.
    pub(super) fn send_out(&mut self, stopping: bool) {
        let now = Instant::now();
        if now < self.database_at {
            return;
        }
        if now >= self.beat_at && !self.beating {
            self.beat();
        }
        let unwritten = self.lanes.unwritten();
        let mark = self.mark_at.is_some_and(|at| now >= at)
            || unwritten >= MARK_BATCH
            || self.lanes.has_failures()
            || stopping;
        if unwritten > 0 && mark && !self.lanes.is_writing() {
            self.mark();
        }
        self.read();
        if now >= self.clean_at && !stopping && !self.cleaning && self.tokens[0].is_some() {
            self.clean();
        }
        if now >= self.ping_at && !self.pinging && !self.unpinged.is_empty() {
            self.ping();
        }
    }

    pub(super) fn done(&mut self, done: Done) {
        let result = match done {
            Done::Read { parts, tokens, found } => self.found(parts, &tokens, found),
            Done::Marked(marked) => self.marked(marked),
            Done::Seen { before, seen } => self.seen(before, seen),
            Done::Leased { before, tokens } => self.leased(before, tokens),
            Done::Cleaned(cleaned) => self.cleaned(cleaned),
            Done::Pinged(pinged) => {
                self.pinging = false;
                if let Err(error) = pinged {
                    tracing::debug!(error = %error.chain(), "relays elsewhere were not woken");
                }
                Ok(())
            }
        };
        if let Err(error) = result {
            self.database_failed(&error);
        }
    }

    /// Reads what is due and not being read. A partition in which one key has a
    /// long backlog is read apart: walking past that backlog takes time, which the
    /// others should not wait for.
    fn read(&mut self) {
        let free = self.due.without(self.reading);
        // Seldom and much: a read walks over the rows that are held as well.
        let enough = |all: usize| all - all * 3 / 8;
        let room = self.lanes.room() >= enough(self.config.window)
            && self.lanes.room_bytes() >= self.config.window_bytes / 4
            && !(self.crowded && self.lanes.held() > 0);
        let paused = self.pause.is_asked();
        if free.is_empty()
            || paused
            || !room
            || self.lanes.paused_until(self.time.estimate()).is_some()
        {
            return;
        }
        let hot = self.lanes.parts_with_full_keys();
        for parts in [free.without(hot), free.and(hot)] {
            // One read of each kind at a time: what comes meanwhile goes together.
            let same_kind = if parts.and(hot).is_empty() {
                self.reading.without(hot)
            } else {
                self.reading.and(hot)
            };
            if parts.is_empty() || !same_kind.is_empty() {
                continue;
            }
            self.due = self.due.without(parts);
            self.reading = self.reading.or(parts);
            let (held, full) = self.lanes.begin_read(parts);
            let want = Want {
                parts,
                held,
                full,
                per_part: (self.lanes.room() / parts.len()).max(1),
                bytes: self.lanes.room_bytes(),
            };
            let (table, now, tokens) = (self.table.clone(), self.time.estimate(), self.tokens);
            let work = async move { table.read(&want, now).await };
            self.job(work, move |found| Done::Read { parts, tokens, found });
        }
    }

    fn found(&mut self, parts: Parts, tokens: &Tokens, found: Result<Found>) -> Result<()> {
        self.reading = self.reading.without(parts);
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.due = self.due.or(parts);
                return Err(error);
            }
        };
        self.due = self.due.or(found.more);
        let mine: Parts = (0..)
            .zip(tokens.iter().zip(&self.tokens))
            .filter(|(_, (then, now))| now.is_some() && then == now)
            .map(|(part, _)| part)
            .collect();
        for row in found.rows.into_iter().filter(|row| mine.contains(row.part)) {
            if self.lanes.offer(row) == Offered::NoRoom {
                self.crowded = true;
                self.due = self.due.or(parts);
                break;
            }
        }
        Ok(())
    }

    fn mark(&mut self) {
        let flush = self.lanes.flush();
        let (table, tokens, now) = (self.table.clone(), self.tokens, self.time.estimate());
        let ends = self.ends(now);
        self.mark_at = None;
        let write = async move {
            failpoint::reach("relay.before_mark").await?;
            table.write(&flush, &tokens, now, &ends).await
        };
        self.job(write, Done::Marked);
    }

    /// The ends of the streams, as far as they changed since the last mark. To be asked
    /// after the marks were gathered: then each of those is at the end or before it.
    pub(super) fn ends(&mut self, now: i64) -> Vec<Checkpoint> {
        let Some(ledger) = &self.ledger else { return Vec::new() };
        let mut tails = ledger.tails();
        tails.retain(|tail| self.noted.get(&tail.stream) != Some(&tail.witness));
        self.noting = tails.iter().map(|t| (t.stream.clone(), t.witness.clone())).collect();
        tails.into_iter().map(|tail| Checkpoint::of(tail, now)).collect()
    }

    fn marked(&mut self, marked: Result<bool>) -> Result<()> {
        match marked {
            Ok(complete) => {
                self.lanes.written();
                self.noted.extend(std::mem::take(&mut self.noting));
                if !complete {
                    // Somebody else has a partition by now: find out which one.
                    self.beat_at = Instant::now();
                    tracing::warn!("the outbox relay lost a lease; its marks were dropped");
                }
                self.adopt();
                Ok(())
            }
            Err(error) => {
                self.lanes.not_written();
                self.mark_at = Some(Instant::now());
                self.adopt();
                Err(error)
            }
        }
    }

    /// Shows that this relay is alive, and looks who holds what.
    fn beat(&mut self) {
        self.beating = true;
        let before = Instant::now();
        self.beat_at = before + self.config.lease / 3;
        let (table, time, me) = (self.table.clone(), self.time.clone(), self.me.clone());
        let lease = millis(self.config.lease);
        let count = before >= self.count_at;
        let look = async move {
            let now = time.read().await?;
            let (leases, live) = table.beat(&me, now, now.saturating_add(lease)).await?;
            let backlog = if count {
                let start = Instant::now();
                Some((table.backlog().await?, start.elapsed()))
            } else {
                None
            };
            Ok(Seen { now, leases, live, backlog })
        };
        self.job(look, move |seen| Done::Seen { before, seen });
    }

    /// Renews the leases, takes what is free, gives back what is too much.
    fn seen(&mut self, before: Instant, seen: Result<Seen>) -> Result<()> {
        let Seen { now, leases, live, backlog } = seen.inspect_err(|_| self.beating = false)?;
        if let Some((backlog, took)) = backlog {
            self.metrics.backlog(backlog, now);
            self.count_at = before + took * COUNT_SHARE;
        }
        let lanes = &self.lanes;
        let plan = lease::plan(&self.me, now, &leases, live, |part| lanes.is_open(part));
        for &part in &plan.give {
            // From now on nothing of it is sent, so nothing is open when the next
            // owner begins.
            self.lose(part);
            self.lanes.drop_part(part);
        }
        let (table, me) = (self.table.clone(), self.me.clone());
        let until = now.saturating_add(millis(self.config.lease));
        let (db, ledger, held) = (self.db.clone(), self.ledger.clone(), self.tokens);
        let take = async move {
            let tokens = table.lease(&me, &plan, &leases, now, until).await?;
            let fresh = tokens.iter().zip(&held).any(|(new, old)| new.is_some() && new != old);
            if let Some(ledger) = ledger.filter(|_| fresh) {
                // What others had marked is published before what comes after it.
                checkpoints::recall(&db, &ledger, now).await?;
            }
            Ok(tokens)
        };
        self.job(take, move |tokens| Done::Leased { before, tokens });
        Ok(())
    }

    fn leased(&mut self, before: Instant, tokens: Result<Tokens>) -> Result<()> {
        self.beating = false;
        let tokens = tokens?;
        self.held_until = before + self.config.lease;
        self.next_tokens = Some(tokens);
        self.adopt();
        Ok(())
    }

    /// Takes new tokens over. What was lost is not sent from now on; the rest waits
    /// for the mark that is under way, which was made under the old ones.
    fn adopt(&mut self) {
        let Some(next) = self.next_tokens else { return };
        let changed: Parts = (0..)
            .zip(self.tokens.iter().zip(&next))
            .filter(|(_, (old, new))| old != new)
            .map(|(part, _)| part)
            .collect();
        if self.lanes.is_writing() {
            let lost = changed.and(self.held());
            lost.iter().for_each(|part| self.lose(part));
            // Noted, so that they are dropped once the mark has landed.
            self.lost = self.lost.or(lost);
            return;
        }
        for part in changed.or(self.lost).iter() {
            self.lanes.drop_part(part);
        }
        self.lost = Parts::NONE;
        self.due = self.due.or(changed);
        self.tokens = next;
        self.next_tokens = None;
        self.metrics.partitions.set(i64::try_from(self.held().len()).unwrap_or(i64::MAX));
    }

    fn lose(&mut self, part: i64) {
        if let Some(token) = usize::try_from(part).ok().and_then(|part| self.tokens.get_mut(part)) {
            *token = None;
        }
    }

    fn clean(&mut self) {
        self.cleaning = true;
        let before = self.time.estimate().saturating_sub(millis(self.config.grace));
        let (table, from, batch) = (self.table.clone(), self.clean_from, self.config.clean_batch);
        self.job(async move { table.clean(from, before, batch).await }, Done::Cleaned);
    }

    fn cleaned(&mut self, cleaned: Result<Cleaned>) -> Result<()> {
        self.cleaning = false;
        let (from, pause) = match &cleaned {
            Ok(Cleaned { next: Some(next) }) => (*next, CLEAN_PAUSE),
            Ok(Cleaned { next: None }) | Err(_) => (i64::MIN, self.config.clean_every),
        };
        self.clean_from = from;
        self.clean_at = Instant::now() + pause;
        cleaned.map(drop)
    }

    fn ping(&mut self) {
        let parts = std::mem::take(&mut self.unpinged);
        self.ping_at = Instant::now() + self.config.ping;
        if self.db.dialect() == Dialect::Sqlite || self.config.ping.is_zero() {
            return;
        }
        self.pinging = true;
        let (db, me) = (self.db.clone(), self.me.clone());
        self.job(async move { ping::send(&db, &me, parts).await }, Done::Pinged);
    }
}
