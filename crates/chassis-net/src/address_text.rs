//! An address as text, without memory of its own.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
};

/// The longest text of an address: of IPv6 with IPv4 at its end.
const LONGEST: usize = 45;

/// An IP address as text, for the line that each call leaves in the log.
#[derive(Clone, Copy, Debug)]
pub struct AddressText {
    text: [u8; LONGEST],
    length: usize,
}

impl AddressText {
    /// The text of an address.
    #[must_use]
    pub fn new(address: IpAddr) -> AddressText {
        let mut text = [0; LONGEST];
        let length = match address {
            IpAddr::V4(address) => v4(address, &mut text),
            IpAddr::V6(address) => {
                let mut rest = &mut text[..];
                // It has room for all of them.
                let _ = write!(rest, "{address}");
                LONGEST - rest.len()
            }
        };
        AddressText { text, length }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).unwrap_or_default()
    }
}

/// By hand, because the formatter of the standard library takes ten times as long.
fn v4(address: Ipv4Addr, text: &mut [u8; LONGEST]) -> usize {
    let mut length = 0;
    let mut push = |byte| {
        text[length] = byte;
        length += 1;
    };
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            push(b'.');
        }
        if octet >= 100 {
            push(b'0' + octet / 100);
        }
        if octet >= 10 {
            push(b'0' + octet / 10 % 10);
        }
        push(b'0' + octet % 10);
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_standard_library_writes() {
        let octets = [0, 1, 9, 10, 99, 100, 101, 255];
        for octet in octets {
            let address = IpAddr::from([octet, 0, 10, octet]);
            assert_eq!(AddressText::new(address).as_str(), address.to_string());
        }
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        for text in ["::1", "::ffff:192.168.100.200", "2001:db8::7", longest] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(AddressText::new(address).as_str(), address.to_string());
        }
    }
}
