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

const PAUSE: Duration = Duration::from_millis(100);
const LOG_INTERVAL: Duration = Duration::from_secs(10);

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
                Ok((stream, peer)) => match self.tune(&stream) {
                    Ok(()) => return (stream, peer),
                    // It was gone before it could be tuned.
                    Err(error) => tracing::debug!(%error, "tune connection"),
                },
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

    /// Bounds what the kernel holds unsent, not what is in flight: a fixed send buffer would hold down every long link
    /// (256 KiB in 100 ms are 2.6 MB/s), while the cache is as well served by not filling a larger one ahead of time.
    fn tune(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        SockRef::from(stream).set_tcp_notsent_lowat(self.unsent_bytes)
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

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
