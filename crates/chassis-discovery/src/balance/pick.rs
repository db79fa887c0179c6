//! Power of two choices, with a way around closed doors.
//!
//! Pure: who may be picked, how loaded it is and what chance says are arguments.

/// How many pairs are drawn before every candidate is looked at (Finagle's
/// `maxEffort`).
const EFFORT: usize = 5;

/// What the pick asks about a candidate by its index.
pub(crate) trait Candidates {
    /// How many there are.
    fn len(&self) -> usize;
    /// Whether a call may go there now.
    fn usable(&self, index: usize) -> bool;
    /// Its load; less is better.
    fn load(&self, index: usize) -> f64;
    /// Whether it had no call for so long that it is due for one.
    fn starved(&self, index: usize) -> bool;
}

/// The index to call, or `None` if none is usable. `below(n)` draws from `0..n`.
pub(crate) fn pick(
    candidates: &impl Candidates,
    mut below: impl FnMut(usize) -> usize,
) -> Option<usize> {
    let len = candidates.len();
    if len == 0 {
        return None;
    }
    for _ in 0..EFFORT.min(len) {
        let first = below(len);
        // The second is another one, each of the rest with the same chance.
        let second = (first + 1 + if len > 2 { below(len - 1) } else { 0 }) % len;
        let chosen = match (candidates.usable(first), candidates.usable(second)) {
            (true, true) => better(candidates, first, second),
            (true, false) => first,
            (false, true) => second,
            (false, false) => continue,
        };
        return Some(chosen);
    }
    let start = below(len);
    (0..len).map(|step| (start + step) % len).find(|index| candidates.usable(*index))
}

fn better(candidates: &impl Candidates, first: usize, second: usize) -> usize {
    let (less, more) = if candidates.load(first) <= candidates.load(second) {
        (first, second)
    } else {
        (second, first)
    };
    if candidates.starved(more) { more } else { less }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Table(Vec<(bool, f64, bool)>);

    impl Candidates for Table {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn usable(&self, index: usize) -> bool {
            self.0[index].0
        }
        fn load(&self, index: usize) -> f64 {
            self.0[index].1
        }
        fn starved(&self, index: usize) -> bool {
            self.0[index].2
        }
    }

    fn shares(table: &Table, rounds: usize) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut counts = vec![0; table.len()];
        for _ in 0..rounds {
            if let Some(index) = pick(table, |n| rng.usize(..n)) {
                counts[index] += 1;
            }
        }
        counts
    }

    #[test]
    fn of_two_the_less_loaded_is_taken() {
        let table = Table(vec![(true, 2.0, false), (true, 1.0, false)]);
        assert_eq!(shares(&table, 100), [0, 100]);
    }

    #[test]
    fn of_many_the_most_loaded_is_never_taken_and_equals_share() {
        let mut rows = vec![(true, 1.0, false); 9];
        rows.push((true, 9.0, false));
        let counts = shares(&Table(rows), 9_000);
        assert_eq!(counts[9], 0);
        for share in &counts[..9] {
            assert!((700..1300).contains(share), "{counts:?}");
        }
    }

    #[test]
    fn a_starved_one_is_taken_though_it_is_loaded() {
        let table = Table(vec![(true, 2.0, true), (true, 1.0, false)]);
        assert_eq!(shares(&table, 10), [10, 0]);
    }

    proptest! {
        #[test]
        fn a_usable_one_is_always_found_and_no_other(
            rows in proptest::collection::vec((any::<bool>(), 0.0f64..9.0, any::<bool>()), 0..40),
            seed in any::<u64>(),
        ) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let table = Table(rows);
            let picked = pick(&table, |n| rng.usize(..n));
            match picked {
                Some(index) => prop_assert!(table.usable(index)),
                None => prop_assert!((0..table.len()).all(|index| !table.usable(index))),
            }
        }
    }
}
