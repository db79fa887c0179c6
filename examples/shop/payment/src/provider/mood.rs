//! The moods of the provider: how a call goes wrong, drawn by lot.
//!
//! Seeded, so that a run can be repeated; apart from the calls, so that the
//! shares can be counted in a test.

use fastrand::Rng;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It is answered.
    Good,
    /// It is answered late.
    Slow,
    /// It fails before anything was done.
    Fails,
    /// It is done, but the answer is lost on the way: the mood for which
    /// idempotency keys exist.
    Forgets,
}

/// Draws one mood for each call.
#[derive(Debug)]
pub struct Moods {
    lots: Rng,
    fail_share: f64,
    slow_share: f64,
}

impl Moods {
    /// The moods that follow from `seed`. Shares are of one: of all calls,
    /// `fail_share` fail (every second of them after the work was done) and
    /// `slow_share` are slow.
    pub fn new(seed: u64, fail_share: f64, slow_share: f64) -> Moods {
        Moods { lots: Rng::with_seed(seed), fail_share, slow_share }
    }

    /// The mood of the next call.
    pub fn draw(&mut self) -> Mood {
        let lot = self.lots.f64();
        if lot < self.fail_share / 2.0 {
            Mood::Fails
        } else if lot < self.fail_share {
            Mood::Forgets
        } else if lot < self.fail_share + self.slow_share {
            Mood::Slow
        } else {
            Mood::Good
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(moods: &[Mood], of: Mood) -> f64 {
        moods.iter().filter(|mood| **mood == of).count() as f64 / moods.len() as f64
    }

    #[test]
    fn each_mood_has_its_share() {
        let mut moods = Moods::new(7, 0.2, 0.3);
        let drawn: Vec<Mood> = (0..20_000).map(|_| moods.draw()).collect();
        let expected =
            [(Mood::Fails, 0.1), (Mood::Forgets, 0.1), (Mood::Slow, 0.3), (Mood::Good, 0.5)];
        for (mood, expected) in expected {
            let got = share(&drawn, mood);
            assert!((got - expected).abs() < 0.02, "{mood:?}: {got}");
        }
    }

    #[test]
    fn a_seed_repeats_its_moods_and_the_ends_are_reached() {
        let draw = |seed, fail, slow| {
            let mut moods = Moods::new(seed, fail, slow);
            (0..200).map(|_| moods.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 0.3, 0.3), draw(1, 0.3, 0.3));
        assert_ne!(draw(1, 0.3, 0.3), draw(2, 0.3, 0.3));
        assert!(draw(1, 0.0, 0.0).iter().all(|mood| *mood == Mood::Good));
        assert!(draw(1, 0.0, 1.0).iter().all(|mood| *mood == Mood::Slow));
        let failing = draw(1, 1.0, 0.0);
        assert!(failing.contains(&Mood::Fails) && failing.contains(&Mood::Forgets));
        assert!(!failing.contains(&Mood::Good));
    }
}
