//! Which addresses a client may connect to.
//!
//! What: a client of somebody else's registry follows names that others choose: redirects, token endpoints. None of them may
//! lead into the network that the node itself is in (server-side request forgery), so only public addresses are dialled, but
//! for hosts that the configuration names.
//!
//! Invariant: what is checked is the address that is connected to: names are resolved here, and only what passes is handed on.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

/// Which addresses may be connected to.
#[derive(Clone, Debug, Default)]
pub enum Guard {
    /// All: the operator chose every one of them.
    #[default]
    Open,
    /// Public ones, and those of hosts that the configuration names.
    Public {
        /// The hosts, without ports.
        named: Arc<[String]>,
    },
}

/// Resolves names, to addresses that may be connected to.
#[derive(Clone, Debug)]
pub(super) struct GuardedResolver {
    resolver: GaiResolver,
    guard: Guard,
}

/// An address may not be connected to.
#[derive(Debug, thiserror::Error)]
#[error("{host} is at {address}, which is not public, and the configuration does not name it")]
pub struct NotPublic {
    host: String,
    address: IpAddr,
}

// === impl Guard ===

impl Guard {
    /// Returns the addresses of a host that may be connected to, or why there is none.
    fn admit(&self, host: &str, addresses: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
        let Self::Public { named } = self else {
            return Ok(addresses);
        };
        if named.iter().any(|name| name.eq_ignore_ascii_case(host)) {
            return Ok(addresses);
        }
        let refused = addresses.iter().find(|address| !is_public(address.ip()));
        let refused = refused.map(SocketAddr::ip);
        let admitted: Vec<_> = addresses
            .into_iter()
            .filter(|address| is_public(address.ip()))
            .collect();
        match refused {
            Some(address) if admitted.is_empty() => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                NotPublic {
                    host: host.to_owned(),
                    address,
                },
            )),
            _ => Ok(admitted),
        }
    }

    /// Checks a host that may be an address itself, which nobody resolves.
    pub(super) fn check_literal(&self, host: &str) -> io::Result<()> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) => self
                .admit(host, vec![SocketAddr::new(address, 0)])
                .map(drop),
            Err(_) => Ok(()),
        }
    }
}

/// Whether an address is one that anybody on the internet could mean (RFC 6890 and its registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        // Shared by carriers, for protocols, for benchmarks, and reserved.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(embedded) = embedded_v4(address) {
        return is_public_v4(embedded);
    }
    let [a, b, ..] = address.segments();
    // Global unicast, but for documentation and what is for protocols.
    a & 0xe000 == 0x2000 && !(a == 0x2001 && (b == 0x0db8 || b < 0x0200)) && a != 0x3fff
}

/// Returns the address behind one that is translated: mapped, NAT64 (RFC 6052) or 6to4 (RFC 3056).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

// === impl GuardedResolver ===

impl GuardedResolver {
    pub(super) fn new(guard: Guard) -> Self {
        Self {
            resolver: GaiResolver::new(),
            guard,
        }
    }
}

impl Service<Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.resolver.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (guard, host) = (self.guard.clone(), name.as_str().to_owned());
        let resolving = self.resolver.call(name);
        Box::pin(async move {
            let addresses = resolving.await?.collect();
            guard.admit(&host, addresses).map(Vec::into_iter)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_named_host_may_be_anywhere() {
        let guard = Guard::Public {
            named: ["registry.corp".to_owned()].into(),
        };
        let private = vec![SocketAddr::from(([10, 0, 0, 1], 443))];
        let public = SocketAddr::from(([1, 1, 1, 1], 443));
        assert_eq!(
            guard.admit("Registry.corp", private.clone()).unwrap(),
            private
        );
        assert!(guard.admit("elsewhere", private.clone()).is_err());
        let both = [private, vec![public]].concat();
        assert_eq!(guard.admit("elsewhere", both).unwrap(), [public]);
        assert!(guard.check_literal("127.0.0.1").is_err());
        assert!(guard.check_literal("[::1]").is_err());
        assert!(guard.check_literal("localhost").is_ok());
        assert!(Guard::Open.check_literal("127.0.0.1").is_ok());
    }
}
