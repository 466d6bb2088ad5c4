//! Which addresses a connection may reach. A table and its lookup: resolves nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::exchange::{Reach, Route};
use crate::egress::{Failure, FailureKind};

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Reachable by anybody.
    Public,
    /// This machine.
    Loopback,
    /// A network of an organisation's own.
    Private,
    /// Never reached, whatever is granted.
    Never(&'static str),
}

/// Whether every one of `addresses` may be reached on `route`. One that may not refuses all: a name
/// with a public and a private address is how rebinding begins.
pub fn admit(route: &Route, addresses: &[IpAddr]) -> Result<(), Failure> {
    if addresses.is_empty() {
        let message = format!("`{}` has no address", route.host);
        return Err(Failure::unsent(FailureKind::Unavailable, message));
    }
    addresses.iter().try_for_each(|address| admit_one(route, range(*address)))
}

/// The range of an address. One that carries another inside is what it carries.
pub fn range(address: IpAddr) -> Range {
    match address {
        IpAddr::V4(address) => range_v4(address),
        IpAddr::V6(address) => range_v6(address),
    }
}

fn admit_one(route: &Route, range: Range) -> Result<(), Failure> {
    let refuse = |what: &str, advice: &str| {
        let message = format!("`{}` is {what}{advice}", route.host);
        Err(Failure::unsent(FailureKind::InvalidConfig, message))
    };
    match range {
        Range::Public | Range::Private if !route.tls => {
            refuse("not this machine", ", and plain HTTP goes nowhere else: use `https`")
        }
        Range::Public => Ok(()),
        Range::Loopback if route.reach.contains(&Reach::Loopback) => Ok(()),
        Range::Loopback => {
            refuse("this machine", ": the operator can grant it with `reach = [\"loopback\"]`")
        }
        Range::Private if route.reach.contains(&Reach::Private) => Ok(()),
        Range::Private => refuse(
            "in a private network",
            ": the operator can grant it with `reach = [\"private\"]`",
        ),
        Range::Never(what) => refuse(what, ", which no connection reaches"),
    }
}

fn range_v4(address: Ipv4Addr) -> Range {
    let bits = address.to_bits();
    let hit = V4.iter().find(|(network, length, _)| {
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        bits & mask == network.to_bits()
    });
    hit.map_or(Range::Public, |(_, _, range)| *range)
}

fn range_v6(address: Ipv6Addr) -> Range {
    let bits = address.to_bits();
    if address.is_loopback() {
        return Range::Loopback;
    }
    // Only the prefixes whose last 32 bits are an IPv4 address that the machine may really send to.
    if in_v6(bits, (V4_MAPPED, 96)) || in_v6(bits, (NAT64, 96)) {
        let [.., a, b, c, d] = address.octets();
        return range_v4(Ipv4Addr::new(a, b, c, d));
    }
    let hit = V6.iter().find(|(network, length, _)| in_v6(bits, (*network, *length)));
    hit.map_or(Range::Never("in a range that is not in use"), |(_, _, range)| *range)
}

fn in_v6(bits: u128, (network, length): (Ipv6Addr, u32)) -> bool {
    let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    bits & mask == network.to_bits()
}

const METADATA: Range = Range::Never("a metadata service");
const LINK: Range = Range::Never("a link-local address");
const MULTICAST: Range = Range::Never("a multicast address");
const RESERVED: Range = Range::Never("a reserved address");
const TUNNEL: Range = Range::Never("the address of a tunnel");

/// ::ffff:0:0/96 (RFC 4291).
const V4_MAPPED: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);

/// 64:ff9b::/96 (RFC 6052).
const NAT64: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

/// IANA's registry of special addresses and the clouds' metadata services. The first hit counts,
/// so a narrow range stands before a wide one.
const V4: [(Ipv4Addr, u32, Range); 20] = [
    (Ipv4Addr::new(169, 254, 169, 254), 32, METADATA),
    (Ipv4Addr::new(100, 100, 100, 200), 32, METADATA),
    (Ipv4Addr::new(168, 63, 129, 16), 32, METADATA),
    (Ipv4Addr::new(192, 0, 0, 192), 32, METADATA),
    (Ipv4Addr::new(0, 0, 0, 0), 8, RESERVED),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Range::Private),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Range::Private),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Range::Loopback),
    (Ipv4Addr::new(169, 254, 0, 0), 16, LINK),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Range::Private),
    (Ipv4Addr::new(192, 0, 0, 0), 24, RESERVED),
    (Ipv4Addr::new(192, 0, 2, 0), 24, RESERVED),
    (Ipv4Addr::new(192, 88, 99, 0), 24, TUNNEL),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Range::Private),
    (Ipv4Addr::new(198, 18, 0, 0), 15, RESERVED),
    (Ipv4Addr::new(198, 51, 100, 0), 24, RESERVED),
    (Ipv4Addr::new(203, 0, 113, 0), 24, RESERVED),
    (Ipv4Addr::new(224, 0, 0, 0), 4, MULTICAST),
    (Ipv4Addr::new(255, 255, 255, 255), 32, RESERVED),
    (Ipv4Addr::new(240, 0, 0, 0), 4, RESERVED),
];

/// As above. What no line names is not in use.
const V6: [(Ipv6Addr, u32, Range); 13] = [
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32, METADATA),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, METADATA),
    (Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe), 128, METADATA),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Range::Private),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, LINK),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, MULTICAST),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, TUNNEL),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, TUNNEL),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, TUNNEL),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, RESERVED),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, RESERVED),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, RESERVED),
    (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3, Range::Public),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn every_address_has_its_range() {
        for (expect, addresses) in [
            (
                Range::Public,
                "8.8.8.8 1.1.1.1 100.63.255.255 100.128.0.1 172.32.0.1 2a00::1 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::8.8.8.8",
            ),
            (Range::Loopback, "127.0.0.1 127.255.255.254 ::1 ::ffff:127.0.0.1 64:ff9b::127.0.0.1"),
            (
                Range::Private,
                "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.255.255 fc00::1 fd12::1 ::ffff:10.0.0.1 64:ff9b::192.168.0.1",
            ),
            (
                METADATA,
                "169.254.169.254 100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254 fd20:ce::254 fd00:c1::a9fe:a9fe ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe",
            ),
            (LINK, "169.254.0.1 169.254.170.2 fe80::1 febf::1 ::ffff:169.254.1.1"),
            (MULTICAST, "224.0.0.1 239.255.255.255 ff02::1"),
            (TUNNEL, "192.88.99.1 2002:7f00:1:: 2002:a9fe:a9fe:: 2001:0:1::1 64:ff9b:1::1"),
            (
                RESERVED,
                "0.0.0.0 0.1.2.3 192.0.0.8 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 240.0.0.1 255.255.255.255 2001:db8::1 2001:20::1 3fff::1",
            ),
            (
                Range::Never("in a range that is not in use"),
                ":: ::2 ::127.0.0.1 ::ffff:0:127.0.0.1 100::1 4000::1 5f00::1 fec0::1 fb00::1",
            ),
        ] {
            for address in addresses.split(' ') {
                assert_eq!(range(address.parse().unwrap()), expect, "{address}");
            }
        }
    }

    #[test]
    fn a_reach_opens_its_own_range_only() {
        let check = |tls, reach: &[Reach], addresses: &str, sentence: &str| {
            let reach = reach.to_vec();
            let route = Route { tls, host: "api".to_owned(), port: 443, reach };
            let addresses: Vec<_> = addresses.split(' ').map(|a| a.parse().unwrap()).collect();
            match admit(&route, &addresses) {
                Ok(()) => assert!(sentence.is_empty(), "{addresses:?}"),
                Err(failure) => {
                    assert!(!sentence.is_empty(), "{addresses:?}: {}", failure.message);
                    assert!(failure.message.contains(sentence), "{}", failure.message);
                    assert!(!failure.request_sent);
                }
            }
        };
        let all = [Reach::Loopback, Reach::Private];
        check(true, &[], "8.8.8.8 2a00::1", "");
        check(true, &[], "127.0.0.1", "reach = [\"loopback\"]");
        check(true, &[], "8.8.8.8 10.0.0.1", "reach = [\"private\"]");
        check(true, &[Reach::Private], "127.0.0.1", "reach = [\"loopback\"]");
        check(true, &[Reach::Loopback], "10.0.0.1", "reach = [\"private\"]");
        check(true, &all, "10.0.0.1 ::1 ::ffff:192.168.0.1", "");
        check(true, &all, "169.254.169.254", "which no connection reaches");
        check(true, &all, "10.0.0.1 fd00:ec2::254", "which no connection reaches");
        check(true, &all, "fe80::1", "link-local");
        check(false, &all, "127.0.0.1 ::1", "");
        check(false, &all, "10.0.0.1", "plain HTTP goes nowhere else");
        check(false, &all, "127.0.0.1 8.8.8.8", "plain HTTP goes nowhere else");
        check(false, &[], "127.0.0.1", "reach = [\"loopback\"]");
    }

    #[test]
    fn a_name_without_an_address_is_refused() {
        let route = Route { tls: true, host: "api".to_owned(), port: 443, reach: Vec::new() };
        assert!(admit(&route, &[]).is_err());
    }
}
