//! Which endpoints of a large set this client uses.
//!
//! A thousand endpoints with a thousand clients would be a million connections, most of them
//! idle. Each client takes the endpoints with the highest score of the hash of its own seed
//! and the endpoint ("rendezvous", Thaler and Ravishankar 1998), as gRFC A68 does. When one
//! endpoint comes or goes, at most one of the subset changes; and since seeds differ, all
//! endpoints are used by about as many clients.

use super::hash;
use crate::Endpoint;

/// The endpoints of the highest scores, at most `size` of them, in the sequence given.
pub(crate) fn subset<'a>(
    endpoints: impl Iterator<Item = &'a Endpoint>,
    size: usize,
    seed: u64,
) -> Vec<&'a Endpoint> {
    let mut scored: Vec<(u64, &Endpoint)> = endpoints
        .map(|endpoint| (hash::pair(seed, hash::of_address(endpoint.address)), endpoint))
        .collect();
    if scored.len() > size {
        scored.select_nth_unstable_by(size, |(left, _), (right, _)| right.cmp(left));
        scored.truncate(size);
        scored.sort_unstable_by_key(|(_, endpoint)| endpoint.address);
    }
    scored.into_iter().map(|(_, endpoint)| endpoint).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn endpoints(ports: impl IntoIterator<Item = u16>) -> Vec<Endpoint> {
        ports.into_iter().map(|port| Endpoint::new(([10, 0, 0, 1], port).into())).collect()
    }

    fn ports(endpoints: &[Endpoint], size: usize, seed: u64) -> BTreeSet<u16> {
        let chosen = subset(endpoints.iter(), size, seed);
        chosen.into_iter().map(|endpoint| endpoint.address.port()).collect()
    }

    #[test]
    fn all_endpoints_have_about_as_many_clients() {
        let set = endpoints(0..100);
        let mut clients = BTreeMap::new();
        for seed in 0..1_000 {
            for port in ports(&set, 10, seed) {
                *clients.entry(port).or_insert(0) += 1;
            }
        }
        assert_eq!(clients.len(), 100);
        // 100 each is expected, with a standard deviation of 9.5.
        assert!(clients.values().all(|count| (60..140).contains(count)), "{clients:?}");
    }

    proptest! {
        #[test]
        fn one_change_of_the_set_changes_one_of_the_subset(
            size in 1usize..20, seed in any::<u64>(), gone in 0u16..100,
        ) {
            let before = ports(&endpoints(0..100), size, seed);
            let after = ports(&endpoints((0..100).filter(|port| *port != gone)), size, seed);
            prop_assert_eq!(before.len(), size);
            let kept = before.intersection(&after).count();
            prop_assert_eq!(kept, size - usize::from(before.contains(&gone)));
        }
    }
}
