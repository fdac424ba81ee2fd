//! Addresses whose HTTP/2 connections had to be ended for what was sent on them.
//!
//! What: an address that did so [`OFFENCES`] times is offered HTTP/1.1 only, for a while: by ALPN, and by a GOAWAY to those
//! that speak HTTP/2 all the same. To set an HTTP/2 connection up is the dearest thing that one can be made to do for
//! nothing, and every client of a registry does with HTTP/1.1: so those who share the address with an attacker, or with a
//! load balancer, lose next to nothing.
//!
//! Bounds: addresses are remembered up to a number, those of a host's IPv6 network as one.

use std::error::Error as _;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use moka::sync::Cache;

use crate::short_memory::short_memory;

/// Remembers addresses.
#[derive(Debug)]
pub(super) struct Offenders(Option<Cache<IpAddr, u32>>);

/// So often an address may make a mistake.
const OFFENCES: u32 = 5;

/// How many addresses are remembered.
const ADDRESSES_MAX: u64 = 10_000;

/// What an offender that speaks HTTP/2 is told: empty settings, and a GOAWAY with `HTTP_1_1_REQUIRED` (RFC 9113 sections 3.4,
/// 6.8 and 7).
pub(super) const REFUSAL: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0d";

// === impl Offenders ===

impl Offenders {
    /// Remembers an address for so long after its last offence; nobody when that is no time.
    pub(super) fn new(remember_for: Duration) -> Self {
        Self(short_memory(ADDRESSES_MAX, remember_for))
    }

    /// Whether an address is offered HTTP/1.1 only.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let offences = self
            .0
            .as_ref()
            .and_then(|offences| offences.get(&network(address)));
        offences.is_some_and(|offences| offences >= OFFENCES)
    }

    /// Takes note of how an HTTP/2 connection ended.
    pub(super) fn note(&self, address: IpAddr, error: &hyper::Error) {
        let Some(offences) = self.0.as_ref().filter(|_| is_offence(error)) else {
            return;
        };
        let entry = offences.entry(network(address));
        entry.and_upsert_with(|offences| {
            let before = offences.map_or(0, moka::Entry::into_value);
            before.saturating_add(1)
        });
    }
}

/// Whether we ended a connection for what the client sent.
fn is_offence(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &h2::Error| cause.is_go_away() && cause.is_library())
}

/// Returns what stands for an address: a host's network has 2^64 of them in IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_one_address() {
        let same = |a: &str, b: &str| network(a.parse().unwrap()) == network(b.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
