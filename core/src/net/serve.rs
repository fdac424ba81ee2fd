//! The loop that serves HTTP, the same for every listener of both binaries.

use std::time::Duration;

use http::{Request, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::telemetry::Metrics;

/// The bounds of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many connections are served at a time.
    pub max_connections: usize,
    /// How long a drain may take before what is left is reset.
    pub drain_timeout: Duration,
}

/// A server, to be run on a listener.
#[derive(Clone, Debug)]
pub struct Server {
    config: Config,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// How many connections had to be reset.
    pub reset: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl Server {
    /// Returns a server whose metrics are labelled with `name`.
    #[expect(unused_variables, reason = "first slice")]
    pub fn new(name: &'static str, config: Config, metrics: &Metrics) -> Self {
        Self { config }
    }

    /// Serves until `shutdown`, then drains.
    #[expect(clippy::unused_async, unused_variables, reason = "first slice")]
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
        Drained {
            reset: self.config.max_connections,
        }
    }
}
