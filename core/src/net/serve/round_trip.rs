//! How long the way to a client is, as the kernel found out when it connected.
//!
//! Why `unsafe`: the kernel's own measurement is to be had by one call only, which no crate here wraps.

#![expect(unsafe_code, reason = "one call that fills a plain structure")]

use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::time::Duration;

use tokio::net::TcpStream;

/// Returns the round trip to the other side, or none when nobody knows it.
pub(super) fn of(stream: &TcpStream) -> Option<Duration> {
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: a structure of integers, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open as long as `stream` is borrowed; the kernel writes at most `length` bytes, which is the
    // size of `info`, and an older one writes fewer, which leaves zeroes.
    let outcome = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    let is_known = outcome == 0 && info.tcpi_rtt > 0;
    is_known.then(|| Duration::from_micros(info.tcpi_rtt.into()))
}
