//! How many connections each address has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;

/// A count for each address that has a connection: as many entries as connections, at most.
#[derive(Clone)]
pub(crate) struct Addresses {
    most: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Addresses {
    pub(crate) fn new(most: usize) -> Addresses {
        Addresses { most, counts: Arc::default() }
    }

    /// A place for one more of this address until it is dropped; `None` if it has them all.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut counts = self.counts.lock();
        let count = counts.entry(address).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { address, counts: self.counts.clone() })
    }
}

pub(crate) struct Place {
    address: IpAddr,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// What one customer of a network has: an address of IPv4, 64 bits of IPv6 (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_places_and_nothing_is_kept_of_who_left() {
        let addresses = Addresses::new(2);
        let one = addresses.enter(address("10.0.0.1")).unwrap();
        let two = addresses.enter(address("::ffff:10.0.0.1")).unwrap();
        assert!(addresses.enter(address("10.0.0.1")).is_none());
        let other = addresses.enter(address("10.0.0.2")).unwrap();
        drop(one);
        let again = addresses.enter(address("10.0.0.1"));
        assert!(again.is_some());
        drop((two, other, again));
        assert!(addresses.counts.lock().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let addresses = Addresses::new(1);
        let first = addresses.enter(address("2001:db8:0:1::1"));
        assert!(first.is_some());
        assert!(addresses.enter(address("2001:db8:0:1:ffff::2")).is_none());
        assert!(addresses.enter(address("2001:db8:0:2::1")).is_some());
    }
}
