//! The loop that serves HTTP, the same for every listener of both binaries.
//!
//! What: accepts connections up to a bound, sheds those beyond it, serves HTTP/1.1 and HTTP/2 on the rest, plain or under
//! TLS, and drains when told to stop. What a client speaks is told by what it sends first, whatever ALPN came to.
//!
//! Invariants: every wait for a client has a bound: for its handshake and first byte, for the head of a request, between requests, for
//! the rest of a body, for taking what it asked for. A body that breaks never ends cleanly: its connection is reset. Every
//! response, those that hyper makes up by itself included, is one of a registry. A client that is answered while it sends
//! reads the answer: what it still sends is read and thrown away, within bounds, before its connection is closed.
//!
//! Failure: accepting never ends for an error; a handler that panics costs its own request a 500. Cancellation: `shutdown`
//! stops accepting and lets requests finish; those that outlive the drain are reset, so that clients resume them.
//!
//! Why connections beyond the bound are accepted at all: a client whose connection hangs waits for its own timeout, one
//! that reads a 503 goes elsewhere at once. So a few at a time are told; past those few, the kernel's queue has to do.

mod accept;
mod activity;
mod connection;
mod exchange;
mod metrics;
mod offenders;
mod rest;
mod round_trip;
mod shed;
mod socket;
mod stream;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use exchange::{Peer, RequestId};

use crate::body::Body;
use crate::net::tls::Tls;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use accept::{Accept, Acceptor};
use connection::Connection;
use metrics::ServerMetrics;
use offenders::Offenders;

/// How many connections beyond the bound are told so at a time.
const SHED_CONNECTIONS: usize = 256;

/// The bounds of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many connections are served at a time.
    pub max_connections: usize,
    /// How long the first byte of a connection (the TLS handshake included), and the head of a request from its first byte on,
    /// may take.
    pub header_timeout: Duration,
    /// How long a connection may idle between requests; longer than clients keep theirs (30 s), so that they close first.
    pub idle_timeout: Duration,
    /// How long an HTTP/1 connection waits for its next request before no more is kept of it than the socket.
    pub park_after: Duration,
    /// How long a client may send nothing while we wait for the rest of its body.
    pub body_stall_timeout: Duration,
    /// How long a client may take nothing while we wait to send.
    pub send_stall_timeout: Duration,
    /// How long a client that was answered may go on sending the body that it was not asked for.
    pub linger_timeout: Duration,
    /// How much of it is read and thrown away.
    pub linger_bytes: u64,
    /// How long a drain may take before what is left is reset.
    pub drain_timeout: Duration,
    /// How large the head of a request may be.
    pub max_header_bytes: usize,
    /// How many lines the head of a request may have.
    pub max_headers: usize,
    /// How many requests an HTTP/2 connection may have open.
    pub max_streams: u32,
    /// How much the kernel holds of what a client has not been sent yet, for each connection.
    pub unsent_bytes: u32,
    /// How long an address that abused HTTP/2 is offered HTTP/1.1 only.
    pub http1_only_for: Duration,
}

/// A server, to be run on a listener.
#[derive(Clone, Debug)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    tls: Option<Tls>,
    offenders: Offenders,
    metrics: ServerMetrics,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// How many connections had to be reset.
    pub reset: usize,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(90),
            park_after: Duration::from_millis(200),
            body_stall_timeout: Duration::from_mins(1),
            send_stall_timeout: Duration::from_mins(1),
            linger_timeout: Duration::from_secs(30),
            linger_bytes: 256 << 20,
            drain_timeout: Duration::from_secs(30),
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            max_streams: 128,
            unsent_bytes: 256 * 1024,
            http1_only_for: Duration::from_mins(1),
        }
    }
}

// === impl Server ===

impl Server {
    /// Returns a server whose metrics are labelled with `name`.
    pub fn new(name: &'static str, config: Config, metrics: &Metrics) -> Self {
        let metrics = metrics.register(|registry| {
            let label = ("server".into(), name.into());
            ServerMetrics::register(registry.sub_registry_with_label(label))
        });
        Self(Arc::new(Inner {
            offenders: Offenders::new(config.http1_only_for),
            config,
            tls: None,
            metrics,
        }))
    }

    /// Returns it with its connections under TLS, if there is any.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        let (config, metrics) = (self.0.config.clone(), self.0.metrics.clone());
        Self(Arc::new(Inner {
            offenders: Offenders::new(config.http1_only_for),
            config,
            tls,
            metrics,
        }))
    }

    /// Serves until `shutdown`, then drains.
    pub async fn run<S, F>(
        self,
        listener: TcpListener,
        service: S,
        shutdown: CancellationToken,
    ) -> Drained
    where
        S: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        self.run_on(listener, service, shutdown).await
    }

    async fn run_on<A, S, F>(self, listener: A, service: S, shutdown: CancellationToken) -> Drained
    where
        A: Accept,
        S: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let Inner {
            config,
            tls,
            metrics,
            ..
        } = &*self.0;
        let served = Arc::new(Semaphore::new(config.max_connections));
        let shed = Arc::new(Semaphore::new(SHED_CONNECTIONS));
        let mut acceptor = Acceptor::new(listener, config.unsent_bytes);
        // Told apart from the caller's: hyper's own tasks (one for each HTTP/2 stream) belong to the connections.
        let tasks = Tasks::new();
        let reset = CancellationToken::new();
        while let Some((stream, peer)) = shutdown.run_until_cancelled(acceptor.next()).await {
            if let Ok(permit) = Arc::clone(&served).try_acquire_owned() {
                let connection = Connection {
                    permit,
                    server: self.clone(),
                    peer,
                    tasks: tasks.clone(),
                    shutdown: shutdown.clone(),
                    reset: reset.clone(),
                };
                let serving = connection.serve(stream, service.clone());
                drop(tasks.spawn("connection", serving));
                continue;
            }
            metrics.connections_shed.inc();
            let permit = Arc::clone(&shed).acquire_owned();
            let Some(permit) = shutdown.run_until_cancelled(permit).await else {
                break;
            };
            let tls = tls.as_ref().map(Tls::server);
            drop(tasks.spawn("shed", async move {
                let _permit = permit;
                shed::refuse(stream, tls).await;
            }));
        }
        drop(acceptor);
        self.drain(&tasks, &reset).await
    }

    async fn drain(&self, tasks: &Tasks, reset: &CancellationToken) -> Drained {
        let drain_timeout = self.0.config.drain_timeout;
        let Err(still_in) = tasks.drain(drain_timeout).await else {
            return Drained { reset: 0 };
        };
        let drained = Drained { reset: tasks.len() };
        tracing::warn!(%still_in, "resetting what has not been drained in {drain_timeout:?}");
        reset.cancel();
        // Resetting waits for nobody; the bound is for a handler that blocks its thread.
        if let Err(still_in) = tasks.drain(Duration::from_secs(1)).await {
            tracing::error!(%still_in, "connections cannot be reset");
        }
        drained
    }
}

#[cfg(test)]
mod tests;
