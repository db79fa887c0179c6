//! A few networks, to tell who is one of us.
//!
//! `address/bits` as everybody writes it; an address alone is a network of one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks of either version.
#[derive(Clone, Debug, Default)]
pub(crate) struct Networks(Vec<(u128, u32)>);

impl Networks {
    /// Reads them; the error is the text that is none.
    pub(crate) fn parse(texts: &[String]) -> Result<Networks, &str> {
        texts
            .iter()
            .map(|text| parse(text.trim()).ok_or(text.as_str()))
            .collect::<Result<_, _>>()
            .map(Networks)
    }

    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        let address = bits(address);
        self.0.iter().any(|(network, length)| cut(address, *length) == *network)
    }
}

/// The network of a caller: its address, or of IPv6 the first half, which one customer has.
pub(crate) fn caller(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(cut(address.to_bits(), 64).into()),
    }
}

fn parse(text: &str) -> Option<(u128, u32)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    // Of IPv4 the 96 bits before it count too: it is kept as IPv6 maps it.
    let (least, most) = if address.is_ipv4() { (96, 32) } else { (0, 128) };
    let length = length.unwrap_or(most);
    (length <= most).then(|| (cut(bits(address), least + length), least + length))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => mapped(address).to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mapped(address: Ipv4Addr) -> Ipv6Addr {
    address.to_ipv6_mapped()
}

/// The first bits of an address.
fn cut(address: u128, length: u32) -> u128 {
    let rest = 128 - length.min(128);
    address.checked_shr(rest).and_then(|kept| kept.checked_shl(rest)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Networks::parse(&texts).unwrap()
    }

    #[test]
    fn addresses_are_found_in_their_networks() {
        let ours = networks(&["10.0.0.0/8", " 192.168.1.7", "fd00::/8", "::1"]);
        for (address, is_in) in [
            ("10.255.0.1", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("192.168.1.7", true),
            ("192.168.1.8", false),
            ("fd12::1", true),
            ("fe80::1", false),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(ours.contain(address.parse().unwrap()), is_in, "{address}");
        }
        let all = networks(&["0.0.0.0/0"]);
        assert!(all.contain([1, 2, 3, 4].into()) && !all.contain("fd00::1".parse().unwrap()));
        assert!(networks(&["::/0"]).contain([1, 2, 3, 4].into()));
        assert!(!networks(&[]).contain([127, 0, 0, 1].into()));
    }

    #[test]
    fn what_is_no_network_is_told() {
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "localhost", "10.0.0.0/", "1.2.3.4/-1"]
        {
            assert_eq!(Networks::parse(&[bad.to_owned()]).unwrap_err(), bad);
        }
    }

    #[test]
    fn a_caller_of_ipv6_is_its_half() {
        let same = |a: &str, b: &str| caller(a.parse().unwrap()) == caller(b.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::2:3:4:5"));
        assert!(!same("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(same("::ffff:1.2.3.4", "1.2.3.4"));
        assert!(!same("1.2.3.4", "1.2.3.5"));
    }
}
