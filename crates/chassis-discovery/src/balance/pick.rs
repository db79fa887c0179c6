//! Power of two choices, with a way around closed doors.
//!
//! Pure: who may be picked, how loaded it is and what chance says are arguments.

use std::ops::Range;

/// How often a usable one is drawn for before every candidate is looked at (Finagle's
/// `maxEffort`). With half of them unusable that is one call in 32; the balancer's panic rule
/// sees to it that it cannot be far more.
const EFFORT: usize = 5;

/// What the pick asks about a candidate by its index.
pub(crate) trait Candidates {
    /// Whether a call may go there now.
    fn usable(&self, index: usize) -> bool;
    /// How it is.
    fn look(&self, index: usize) -> Look;
}

/// How a candidate is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Look {
    /// Its load; less is better.
    pub(crate) load: f64,
    /// Whether it is due for a trial call, although another may be less loaded.
    pub(crate) due: bool,
}

/// Who was picked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) index: usize,
    pub(crate) look: Look,
}

/// Who to call of a range, or `None` if none is usable. `below(n)` draws from `0..n`.
pub(crate) fn pick(
    candidates: &impl Candidates,
    range: Range<usize>,
    below: &mut impl FnMut(usize) -> usize,
) -> Option<Choice> {
    let (start, len) = (range.start, range.len());
    if len == 0 {
        return None;
    }
    let mut draw = |from: usize, count: usize| {
        (0..EFFORT)
            .map(|_| start + (from + below(count)) % len)
            .find(|index| candidates.usable(*index))
    };
    let only = |index| Choice { index, look: candidates.look(index) };
    let Some(first) = draw(0, len) else {
        let from = below(len);
        return (0..len)
            .map(|step| start + (from + step) % len)
            .find(|index| candidates.usable(*index))
            .map(only);
    };
    if len == 1 {
        return Some(only(first));
    }
    // Another one, each of the rest with the same chance.
    let second = draw(first - start + 1, len - 1);
    let first = only(first);
    Some(second.map_or(first, |second| better(first, only(second))))
}

/// Who to call when the first `near` of `len` candidates are preferred: one of them, unless
/// it is loaded `spill` times more than one of the others.
pub(crate) fn pick_near(
    candidates: &impl Candidates,
    near: usize,
    len: usize,
    spill: f64,
    below: &mut impl FnMut(usize) -> usize,
) -> Option<Choice> {
    let here = pick(candidates, 0..near, below);
    if near == len {
        return here;
    }
    let there = pick(candidates, near..len, below);
    match (here, there) {
        (Some(here), Some(there)) => {
            let full = here.look.load > spill * there.look.load;
            Some(if full && !here.look.due { there } else { here })
        }
        (here, there) => here.or(there),
    }
}

fn better(first: Choice, second: Choice) -> Choice {
    match (first.look.due, second.look.due) {
        (true, false) => first,
        (false, true) => second,
        _ if first.look.load <= second.look.load => first,
        _ => second,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Table(Vec<(bool, f64, bool)>);

    impl Candidates for Table {
        fn usable(&self, index: usize) -> bool {
            self.0[index].0
        }
        fn look(&self, index: usize) -> Look {
            Look { load: self.0[index].1, due: self.0[index].2 }
        }
    }

    fn shares(table: &Table, near: usize, rounds: usize) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(7);
        let len = table.0.len();
        let mut counts = vec![0; len];
        for _ in 0..rounds {
            let choice = pick_near(table, near, len, 2.0, &mut |n| rng.usize(..n));
            if let Some(choice) = choice {
                counts[choice.index] += 1;
            }
        }
        counts
    }

    #[test]
    fn of_two_the_less_loaded_is_taken() {
        let table = Table(vec![(true, 2.0, false), (true, 1.0, false)]);
        assert_eq!(shares(&table, 2, 100), [0, 100]);
    }

    #[test]
    fn of_many_the_most_loaded_is_never_taken_and_equals_share() {
        let mut rows = vec![(true, 1.0, false); 9];
        rows.push((true, 9.0, false));
        let counts = shares(&Table(rows), 10, 9_000);
        assert_eq!(counts[9], 0);
        for share in &counts[..9] {
            assert!((700..1300).contains(share), "{counts:?}");
        }
    }

    #[test]
    fn who_is_unusable_leaves_a_choice_among_the_others() {
        // The loaded one is as good as never taken, though two thirds of all pairs hold the
        // unusable one.
        let table = Table(vec![(false, 0.0, false), (true, 1.0, false), (true, 9.0, false)]);
        let counts = shares(&table, 3, 10_000);
        assert_eq!(counts[0], 0);
        assert!(counts[2] < 200, "{counts:?}");
    }

    #[test]
    fn who_is_due_is_taken_though_it_is_loaded() {
        let table = Table(vec![(true, 2.0, true), (true, 1.0, false)]);
        assert_eq!(shares(&table, 2, 10), [10, 0]);
    }

    #[test]
    fn calls_stay_near_until_it_is_full() {
        let row = |load| (true, load, false);
        let rows = |near| Table(vec![row(near), row(near), row(1.0), row(1.0)]);
        assert_eq!(shares(&rows(1.9), 2, 100)[2..], [0, 0]);
        assert_eq!(shares(&rows(2.1), 2, 100)[..2], [0, 0]);
        let gone = Table(vec![(false, 0.1, false), row(5.0)]);
        assert_eq!(shares(&gone, 1, 100), [0, 100]);
    }

    proptest! {
        #[test]
        fn a_usable_one_is_always_found_and_no_other(
            rows in proptest::collection::vec((any::<bool>(), 0.0f64..9.0, any::<bool>()), 0..40),
            near in 0usize..40,
            seed in any::<u64>(),
        ) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let table = Table(rows);
            let len = table.0.len();
            match pick_near(&table, near.min(len), len, 2.0, &mut |n| rng.usize(..n)) {
                Some(choice) => prop_assert!(table.usable(choice.index)),
                None => prop_assert!((0..len).all(|index| !table.usable(index))),
            }
        }
    }
}
