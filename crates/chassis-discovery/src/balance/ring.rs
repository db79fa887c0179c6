//! Consistent hashing with bounded loads.
//!
//! Each endpoint owns points on a ring, and a key belongs to the next point after its hash:
//! when an endpoint leaves, only its own keys move. A key that everybody asks for would
//! overload its endpoint, so one that has a quarter more calls under way than the average is
//! passed by (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016).
//! Finding a key takes a binary search, not a look at each endpoint.

use super::hash;

/// Points that all endpoints share; more even out what they own, and cost memory.
const POINTS: usize = 8_192;
/// Fewest and most points of an endpoint of weight 1.
const PER_ENDPOINT: (usize, usize) = (16, 128);
/// Most points of one endpoint, whatever its weight.
const MOST: usize = 1_024;
/// How much more than the average an endpoint may have under way.
const SLACK: f64 = 1.25;
/// How many points are looked at for one call.
const EFFORT: usize = 64;

/// The points of all endpoints.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    /// A point and the index of who owns it, in the order of points.
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// The ring of endpoints given by a hash of each and its weight.
    pub(crate) fn new(endpoints: impl ExactSizeIterator<Item = (u64, u32)>) -> Ring {
        let each = (POINTS / endpoints.len().max(1)).clamp(PER_ENDPOINT.0, PER_ENDPOINT.1);
        let mut points = Vec::with_capacity(each * endpoints.len());
        for (index, (name, weight)) in endpoints.enumerate() {
            let own = each.saturating_mul(weight.max(1) as usize).min(MOST);
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            points.extend((0..own).map(|n| (hash::pair(name, n as u64), index)));
        }
        points.sort_unstable();
        Ring { points }
    }

    /// The first endpoint from the key on that `takes` says yes to.
    pub(crate) fn find(&self, key: u64, mut takes: impl FnMut(usize) -> bool) -> Option<usize> {
        let start = self.points.partition_point(|(point, _)| *point < key);
        let around = self.points[start..].iter().chain(&self.points[..start]);
        let mut last = None;
        for (_, index) in around.take(EFFORT) {
            let index = *index as usize;
            if last != Some(index) && takes(index) {
                return Some(index);
            }
            last = Some(index);
        }
        None
    }
}

/// How many calls one of `endpoints` may have under way when `total` are, the new one
/// included.
pub(crate) fn capacity(total: usize, endpoints: usize) -> usize {
    (SLACK * total as f64 / endpoints.max(1) as f64).ceil() as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(names: &[u64]) -> Ring {
        Ring::new(names.iter().map(|name| (*name, 1)))
    }

    fn owner(ring: &Ring, key: u64) -> usize {
        ring.find(key, |_| true).unwrap()
    }

    fn key(n: u64) -> u64 {
        hash::of_bytes(&n.to_le_bytes())
    }

    #[test]
    fn each_owns_its_share_by_weight() {
        let weighted = Ring::new([(10, 1), (20, 1), (30, 2)].into_iter());
        let mut owned = [0; 3];
        for n in 0..40_000 {
            owned[owner(&weighted, key(n))] += 1;
        }
        for (count, expected) in owned.into_iter().zip([10_000.0, 10_000.0, 20_000.0]) {
            let off = (f64::from(count) - expected).abs() / expected;
            assert!(off < 0.25, "{owned:?}");
        }
    }

    #[test]
    fn only_the_keys_of_who_leaves_move() {
        let (before, after) = (ring(&[1, 2, 3, 4, 5]), ring(&[1, 2, 4, 5]));
        let names = ([1, 2, 3, 4, 5], [1, 2, 4, 5]);
        for n in 0..10_000 {
            let (was, is) = (names.0[owner(&before, key(n))], names.1[owner(&after, key(n))]);
            assert!(was == is || was == 3, "{was} to {is}");
        }
    }

    proptest! {
        /// A single key that all ask for: nobody gets more than the bound, and nothing is lost.
        #[test]
        fn nobody_gets_more_than_its_bound(size in 1usize..40, calls in 1usize..400, key in any::<u64>()) {
            let names: Vec<u64> = (0..size as u64).collect();
            let ring = ring(&names);
            let mut under_way = vec![0usize; size];
            for n in 0..calls {
                let most = capacity(n + 1, size);
                if let Some(index) = ring.find(key, |index| under_way[index] < most) {
                    under_way[index] += 1;
                }
                prop_assert!(under_way.iter().all(|count| *count <= most));
            }
        }
    }
}
