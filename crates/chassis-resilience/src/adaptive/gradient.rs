//! The brain: the limit that follows the gradient of the latency.
//!
//! Every interval, `limit = gradient * limit + sqrt(gradient * limit)`, where the gradient is
//! the least latency, with a margin, over the median of the interval. At the right limit the
//! two terms cancel a little above the least latency; the square root is the headroom that
//! lets the limit grow at all. The least latency is measured anew now and then with few calls
//! under way, because a callee that became slower would otherwise look overloaded for ever.

use std::time::{Duration, Instant};

use crate::histogram::Histogram;

/// The gradient moves the limit by no more than this in one step: down to half of it. Up goes
/// the headroom alone (Netflix); a limit that doubles while the calls that it let in are still
/// under way swings.
const STEEPEST: (f64, f64) = (0.5, 1.0);
/// A measurement of the least latency ends after this time, also with few calls: a callee
/// that takes a second for a call should not be held at the least limit for long.
const PROBE_AT_MOST: Duration = Duration::from_secs(1);
/// A least latency that is older than a day says nothing.
const LONGEST_PAUSE: Duration = Duration::from_secs(86_400);

/// The numbers of an [`AdaptiveLimit`](super::AdaptiveLimit).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveSettings {
    /// The limit never falls below this, at least 1. It is also what is let through while the
    /// least latency is measured.
    pub min_limit: u32,
    /// The limit at the start.
    pub initial_limit: u32,
    /// The limit never rises above this.
    pub max_limit: u32,
    /// How often the limit moves, or as often as calls take where that is longer.
    pub interval: Duration,
    /// An interval with fewer answers goes on.
    pub min_samples: u32,
    /// How often the least latency is measured, at most a day; up to 15 % later, so that instances take turns.
    pub probe_every: Duration,
    /// So many answers are a measurement.
    pub probe_calls: u32,
    /// By which part the latency may rise without the limit falling, from 0.
    pub margin: f64,
}

impl Default for AdaptiveSettings {
    /// At least 3, at most 1000, moved every 100 ms, measured every minute with 50 calls, 25 %
    /// margin: Envoy's. It begins at 20, as Netflix's does: Envoy's three would refuse the
    /// first burst after a start. 10 answers make a median that means something.
    fn default() -> Self {
        AdaptiveSettings {
            min_limit: 3,
            initial_limit: 20,
            max_limit: 1_000,
            interval: Duration::from_millis(100),
            min_samples: 10,
            probe_every: Duration::from_secs(60),
            probe_calls: 50,
            margin: 0.25,
        }
    }
}

/// The limit and what it follows.
#[derive(Debug)]
pub(super) struct Gradient {
    settings: AdaptiveSettings,
    limit: f64,
    least: Option<Duration>,
    window: Histogram,
    began: Option<Instant>,
    busiest: u32,
    probing: Option<Probe>,
    next_probe: Option<Instant>,
    random: fastrand::Rng,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    began: Instant,
}

impl Gradient {
    /// The seed decides the jitter of the measurements.
    pub(super) fn new(settings: AdaptiveSettings, seed: u64) -> Self {
        let min_limit = settings.min_limit.max(1);
        let max_limit = settings.max_limit.max(min_limit);
        let initial_limit = settings.initial_limit.clamp(min_limit, max_limit);
        let margin = if settings.margin > 0.0 { settings.margin } else { 0.0 };
        let probe_every = settings.probe_every.min(LONGEST_PAUSE);
        Gradient {
            settings: AdaptiveSettings {
                min_limit,
                initial_limit,
                max_limit,
                probe_every,
                margin,
                ..settings
            },
            limit: f64::from(initial_limit),
            least: None,
            window: Histogram::default(),
            began: None,
            busiest: 0,
            probing: None,
            next_probe: None,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// How many calls may be under way at `now`.
    pub(super) fn limit(&mut self, now: Instant) -> u32 {
        self.turn(now);
        // The first measurement is made at the initial limit: nothing is known to be better.
        if self.probing.is_some() && self.least.is_some() {
            return self.settings.min_limit;
        }
        self.limit as u32
    }

    /// The least latency, once it is known.
    pub(super) fn least(&self) -> Option<Duration> {
        self.least
    }

    /// Takes in one answer to a call that began at `started`, when `in_flight` calls were
    /// under way.
    pub(super) fn answered(&mut self, now: Instant, started: Instant, in_flight: u32) {
        self.turn(now);
        // A limit is judged by the calls that it let in: those from before were slowed, or not
        // yet slowed, by others. Where calls take longer than the interval, it waits for them.
        if self.began.is_some_and(|began| started < began) {
            return;
        }
        self.busiest = self.busiest.max(in_flight);
        self.window.record(now.saturating_duration_since(started));
        self.turn(now);
    }

    /// Takes in a call that failed or was given up: only that it was slow says something.
    pub(super) fn lost(&mut self, now: Instant, started: Instant, in_flight: u32) {
        let held = now.saturating_duration_since(started);
        if self.least.is_some_and(|least| held > least) {
            self.answered(now, started, in_flight);
        }
    }

    fn turn(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let next_probe = *self.next_probe.get_or_insert(now);
        match self.probing {
            None if now >= next_probe => {
                self.probing = Some(Probe { began: now });
                self.restart(now);
            }
            None => {
                let over = now.saturating_duration_since(began) >= self.settings.interval;
                if over && self.window.len() >= u64::from(self.settings.min_samples.max(1)) {
                    self.step();
                    self.restart(now);
                }
            }
            Some(probe) => {
                let enough = self.window.len() >= u64::from(self.settings.probe_calls.max(1));
                let too_long = now.saturating_duration_since(probe.began) >= PROBE_AT_MOST;
                // Without any answer there is nothing to go on with.
                if enough || (too_long && (self.window.len() > 0 || self.least.is_some())) {
                    self.least = self.window.quantile(0.5).or(self.least);
                    self.probing = None;
                    let jitter = 1.0 + 0.15 * self.random.f64();
                    self.next_probe = now.checked_add(self.settings.probe_every.mul_f64(jitter));
                    self.restart(now);
                }
            }
        }
    }

    /// Moves the limit by what the interval has shown.
    fn step(&mut self) {
        let (Some(median), Some(least)) = (self.window.quantile(0.5), self.least) else {
            return;
        };
        // Never slower than what was seen since: the measurement may have been unlucky.
        let least = least.min(median);
        self.least = Some(least);
        let wanted = least.as_secs_f64() * (1.0 + self.settings.margin);
        let median = median.as_secs_f64();
        let ratio = if median > 0.0 { wanted / median } else { STEEPEST.1 };
        let scaled = ratio.clamp(STEEPEST.0, STEEPEST.1) * self.limit;
        let next = scaled + scaled.sqrt();
        // A limit that nobody reaches is not shown to be too low (Netflix).
        if next > self.limit && f64::from(self.busiest) < self.limit / 2.0 {
            return;
        }
        self.limit =
            next.clamp(f64::from(self.settings.min_limit), f64::from(self.settings.max_limit));
    }

    fn restart(&mut self, now: Instant) {
        self.window.clear();
        self.began = Some(now);
        self.busiest = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// Serves `load` callers for a time; the callee has `room` for calls of `base` at a time,
    /// and those above wait. Gives the limit at the end.
    fn serve(
        gradient: &mut Gradient,
        from: Instant,
        time: Duration,
        load: u32,
        (room, base): (f64, Duration),
    ) -> u32 {
        let mut now = from;
        while now < from + time {
            let under_way = load.min(gradient.limit(now)).max(1);
            let took = base.mul_f64((f64::from(under_way) / room).max(1.0));
            let started = now;
            now += took;
            for _ in 0..under_way {
                gradient.answered(now, started, under_way);
            }
        }
        gradient.limit(now)
    }

    fn default() -> Gradient {
        Gradient::new(AdaptiveSettings::default(), 7)
    }

    #[test]
    fn finds_the_room_that_there_is() {
        for room in [5.0, 20.0, 80.0, 400.0] {
            let mut gradient = default();
            // A quiet while first, so that the least latency is measured.
            let now = start();
            serve(&mut gradient, now, 2_000 * MS, 2, (room, 10 * MS));
            let limit = serve(&mut gradient, now + 2_000 * MS, 20_000 * MS, 2_000, (room, 10 * MS));
            let limit = f64::from(limit);
            assert!(limit >= room && limit <= 2.2 * room + 5.0, "{limit} for {room}");
        }
    }

    #[test]
    fn measures_anew_with_few_calls_and_accepts_a_slower_callee() {
        let mut gradient = default();
        let now = start();
        serve(&mut gradient, now, 10_000 * MS, 100, (50.0, 10 * MS));
        // Ten times slower: at first that looks like a crowd.
        let soon = serve(&mut gradient, now + 10_000 * MS, 20_000 * MS, 100, (50.0, 100 * MS));
        assert!(soon <= 10, "{soon}");
        let later = serve(&mut gradient, now + 30_000 * MS, 120_000 * MS, 100, (50.0, 100 * MS));
        assert!(later >= 50, "{later}");
    }

    #[test]
    fn a_limit_that_nobody_reaches_does_not_grow() {
        let mut gradient = default();
        let limit = serve(&mut gradient, start(), 60_000 * MS, 5, (1_000.0, 10 * MS));
        assert_eq!(limit, 20);
    }

    #[test]
    fn fast_failures_do_not_look_like_a_fast_callee() {
        let mut gradient = default();
        let now = start();
        let limit = serve(&mut gradient, now, 10_000 * MS, 100, (20.0, 10 * MS));
        let mut at = now + 10_000 * MS;
        for _ in 0..10_000 {
            at += MS;
            gradient.lost(at, at, 20);
        }
        assert_eq!(gradient.limit(at), limit);
        assert!(gradient.least().unwrap() >= 10 * MS);
        // Those that time out do look like a slow one.
        for _ in 0..5_000 {
            at += MS;
            gradient.lost(at, at - 2_000 * MS, 20);
        }
        assert!(gradient.limit(at) < limit);
    }

    /// A crowd that comes at once, at a callee with a queue: the feedback is as late as the calls
    /// are slow, and the limit must not swing with it.
    #[test]
    fn a_crowd_that_comes_at_once_does_not_make_the_limit_swing() {
        const ROOM: usize = 8;
        let base = 200 * MS;
        let mut gradient = default();
        let mut now = start();
        now += 10 * MS;
        serve(&mut gradient, now, 3_000 * MS, ROOM as u32, (ROOM as f64, base));
        now += 3_000 * MS;
        let crowd = now;
        // Each place ends its call at this time; the queue is by arrival.
        let mut places = [now; ROOM];
        let mut under_way: Vec<(Instant, Instant)> = Vec::new();
        let (mut limits, mut most) = (Vec::new(), Duration::ZERO);
        while now < crowd + 20_000 * MS {
            now += 8 * MS;
            under_way.sort();
            while let Some((ends, started)) = under_way.first().copied().filter(|(e, _)| *e <= now)
            {
                gradient.answered(ends, started, under_way.len() as u32);
                under_way.remove(0);
                if ends > crowd + 3_000 * MS {
                    most = most.max(ends - started);
                }
            }
            let limit = gradient.limit(now);
            if now > crowd + 3_000 * MS {
                limits.push(limit);
            }
            if (under_way.len() as u32) < limit {
                let place = places.iter_mut().min().unwrap();
                *place = (*place).max(now) + base;
                under_way.push((*place, now));
            }
        }
        let (least, greatest) = (limits.iter().min().unwrap(), limits.iter().max().unwrap());
        assert!(*least >= ROOM as u32, "{least} to {greatest}");
        assert!(*greatest <= 3 * ROOM as u32, "{least} to {greatest}");
        assert!(most <= 3 * base, "{most:?}");
    }

    #[test]
    fn absurd_settings_do_not_break_it() {
        let settings = AdaptiveSettings {
            min_limit: 0,
            initial_limit: 0,
            max_limit: 0,
            interval: Duration::ZERO,
            min_samples: 0,
            probe_every: Duration::MAX,
            probe_calls: 0,
            margin: f64::NAN,
        };
        let mut gradient = Gradient::new(settings, 0);
        assert_eq!(serve(&mut gradient, start(), 100 * MS, 10, (1.0, MS)), 1);
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds(
            calls in prop::collection::vec((0u64..200, 0u64..500, 0u32..2_000, any::<bool>()), 1..500),
            seed in any::<u64>(),
        ) {
            let settings = AdaptiveSettings::default();
            let mut gradient = Gradient::new(settings, seed);
            let mut now = start() + Duration::from_secs(1_000);
            for (pause, took, in_flight, lost) in calls {
                now += pause as u32 * MS;
                let started = now - took as u32 * MS;
                if lost {
                    gradient.lost(now, started, in_flight);
                } else {
                    gradient.answered(now, started, in_flight);
                }
                let limit = gradient.limit(now);
                prop_assert!((settings.min_limit..=settings.max_limit).contains(&limit));
            }
        }
    }
}
