//! The client of another registry: of the origin for an edge, of an upstream.
//!
//! What: requests to one of several base URLs that are the same registry, tried in their order; those that were just
//! found unreachable come last. Bodies stream both ways and always as they are: no encoding is asked for or undone, and no
//! redirect is followed.
//!
//! Failure: [`ClientError`] tells apart what never reached the registry, what took too long and what broke off. A request
//! moves on to the next URL when nothing of it was sent, or when it is safe to repeat and its body is untouched.
//! Cancellation: dropping the future drops the request. A response's body that stalls or breaks ends with an error.

mod base_url;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http::{Request, Response};

pub use base_url::{BadBaseUrl, BaseUrl};

use crate::body::Body;

/// The bounds of a client.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a connection may take to be made, TLS included.
    pub connect_timeout: Duration,
    /// How long the head of a response may take once the request's body has been sent.
    pub header_timeout: Duration,
    /// How long a response's body, or the taking of a request's, may stand still.
    pub stall_timeout: Duration,
    /// How long an idle connection is kept; shorter than the server keeps it.
    pub idle_timeout: Duration,
    /// How many idle connections are kept to each host.
    pub max_idle_per_host: usize,
    /// How long a URL that was found unreachable is tried last.
    pub avoid_for: Duration,
    /// A file of certificates (PEM) to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// A client of a registry; a clone shares its connections.
#[derive(Clone, Debug)]
pub struct Client;

/// The registry could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection came about: nothing was sent.
    #[error("connect to {url}")]
    Unreachable {
        /// Whom.
        url: BaseUrl,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It did not answer in time.
    #[error("{url} did not answer within {after:?}")]
    Timeout {
        /// Who.
        url: BaseUrl,
        /// The bound.
        after: Duration,
    },
    /// The connection broke before the head of the response was in.
    #[error("{url} broke off")]
    Broken {
        /// Who.
        url: BaseUrl,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The request's own body broke off.
    #[error("read the request's body")]
    RequestBody(#[source] io::Error),
}

/// A client could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BadClient {
    /// It has no URL.
    #[error("no url to send requests to")]
    NoUrls,
    /// The file of certificates cannot be used.
    #[error("read certificates from {}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// TLS cannot be set up.
    #[error("set up tls")]
    Tls(#[source] rustls::Error),
}

// === impl Client ===

impl Client {
    /// Returns a client of the registry that all of `urls` are.
    #[expect(
        clippy::needless_pass_by_value,
        unused_variables,
        reason = "first slice"
    )]
    pub fn new(urls: Vec<BaseUrl>, config: Config) -> Result<Self, BadClient> {
        Err(BadClient::NoUrls)
    }

    /// Sends a request, whose URI is only path and query (`/v2/...`), and returns the response once its head is in.
    #[expect(unused_variables, clippy::unused_async, reason = "first slice")]
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, ClientError> {
        Err(ClientError::RequestBody(io::ErrorKind::Unsupported.into()))
    }
}

// === impl ClientError ===

impl ClientError {
    /// Whether trying again may help.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Broken { .. } => true,
            Self::RequestBody(_) => false,
        }
    }
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            max_idle_per_host: 64,
            avoid_for: Duration::from_secs(5),
            ca_file: None,
        }
    }
}
