//! Accepting connections, whatever comes in between.
//!
//! Invariant: no error ends accepting. One of a single connection is skipped; one of the process (no more descriptors, no
//! memory) pauses, because the same connection would fail again at once, and is logged once in a while.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::round_trip;

const PAUSE: Duration = Duration::from_millis(100);
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The longest round trip of which a send buffer as large as what may be unsent is no bound: 256 KiB in 500 µs are 500 MB/s,
/// more than such links carry.
const SHORT_ROUND_TRIP: Duration = Duration::from_micros(500);

/// Something that connections come from.
pub(super) trait Accept: Send {
    /// Waits for the next connection; dropping the future loses none.
    fn accept(&mut self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

/// Accepts until it is dropped.
#[derive(Debug)]
pub(super) struct Acceptor<A> {
    listener: A,
    unsent_bytes: u32,
    errors: u64,
    logged: Option<Instant>,
}

// === impl Acceptor ===

impl<A: Accept> Acceptor<A> {
    pub(super) const fn new(listener: A, unsent_bytes: u32) -> Self {
        Self {
            listener,
            unsent_bytes,
            errors: 0,
            logged: None,
        }
    }

    /// Waits for the next connection.
    pub(super) async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    match tune(&stream, self.unsent_bytes, round_trip::of(&stream)) {
                        Ok(()) => return (stream, peer),
                        // It was gone before it could be tuned.
                        Err(error) => tracing::debug!(%error, "tune connection"),
                    }
                }
                Err(error) if is_of_one_connection(&error) => {
                    tracing::debug!(%error, "accept connection");
                }
                Err(error) => {
                    self.log(&error);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn log(&mut self, error: &io::Error) {
        self.errors += 1;
        let now = Instant::now();
        if self
            .logged
            .is_none_or(|logged| now - logged >= LOG_INTERVAL)
        {
            tracing::error!(%error, errors = self.errors, "cannot accept connections");
            self.logged = Some(now);
            self.errors = 0;
        }
    }
}

impl Accept for TcpListener {
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        Self::accept(self).await
    }
}

/// Bounds what the kernel holds for a client that takes its time.
///
/// On a short link all of it, which keeps it in the processor's cache from one side to the other: that is worth half as much
/// throughput again. On a long one only what is unsent, because what is in flight is what fills the link: a send buffer of
/// 256 KiB would hold one of 100 ms down to some MB/s.
fn tune(stream: &TcpStream, unsent_bytes: u32, round_trip: Option<Duration>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_notsent_lowat(unsent_bytes)?;
    if round_trip.is_some_and(|round_trip| round_trip <= SHORT_ROUND_TRIP) {
        let bytes = usize::try_from(unsent_bytes).unwrap_or(usize::MAX);
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSENT_BYTES: u32 = 64 * 1024;

    async fn send_buffer(round_trip: Option<Duration>) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (stream, _) = listener.accept().await.unwrap();
        tune(&stream, UNSENT_BYTES, round_trip).unwrap();
        SockRef::from(&stream).send_buffer_size().unwrap()
    }

    #[tokio::test]
    async fn only_short_links_have_a_bounded_send_buffer() {
        let bounded = send_buffer(Some(SHORT_ROUND_TRIP)).await;
        // The kernel doubles it, for its own needs.
        assert_eq!(bounded, 2 * 64 * 1024);
        for round_trip in [None, Some(SHORT_ROUND_TRIP * 2)] {
            assert!(send_buffer(round_trip).await > bounded, "{round_trip:?}");
        }
    }

    #[tokio::test]
    async fn the_round_trip_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (stream, _) = listener.accept().await.unwrap();
        let round_trip = round_trip::of(&stream).unwrap();
        assert!(round_trip < Duration::from_secs(1), "{round_trip:?}");
    }
}
