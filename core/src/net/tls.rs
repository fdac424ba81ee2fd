//! TLS of a listener: a certificate and its key from two files, which are read again when they change.
//!
//! What: [`Tls`] is what handshakes are made with: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN. [`Tls::mind`] looks at the
//! files from time to time, and whenever the process is sent SIGHUP.
//!
//! Invariants: a pair comes into force as a whole and only if the key is the certificate's; connections that are open keep
//! the one they began with. Nothing of a key is in a message.
//!
//! Failure: a bad pair is a problem of the configuration at the start; later it is logged, once, and the old one stays in
//! force.

mod pair;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer};

use crate::net::respond::chain;
use crate::process::Hangups;
use crate::reread::reread;
use crate::tasks::Tasks;

use pair::InForce;
pub use pair::{BadPair, Pair, Texts};

/// What a listener's handshakes are made with; cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

/// Where a listener's certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, with those between it and its authority behind it (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// How often they are looked at.
    pub interval: Duration,
}

/// A listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum BadTls {
    /// The protocol cannot be set up.
    #[error("set up TLS")]
    Protocol(#[from] rustls::Error),
    /// The pair is no good.
    #[error(transparent)]
    Pair(#[from] BadPair),
}

struct Inner {
    files: Files,
    /// What the pair in force at the start was made of.
    texts: Texts,
    in_force: Arc<InForce>,
    server: Arc<ServerConfig>,
    /// The same, with HTTP/1.1 only.
    http1_server: Arc<ServerConfig>,
}

/// The protocols by ALPN (RFC 7301, and IANA's registry).
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

// === impl Tls ===

impl Tls {
    /// Makes handshakes with what was read from `files`.
    pub fn new(files: Files, texts: Texts) -> Result<Self, BadTls> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let in_force = Arc::new(InForce::new(Pair::parse(&texts, &provider)?));
        let resolver = Arc::clone(&in_force);
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        // Clients come back in seconds, and not always to the same node: nothing is remembered of them here.
        server.ticketer = Ticketer::new()?;
        server.alpn_protocols = vec![HTTP1.to_vec()];
        let http1_server = server.clone();
        server.alpn_protocols.insert(0, HTTP2.to_vec());
        Ok(Self(Arc::new(Inner {
            files,
            texts,
            in_force,
            server: Arc::new(server),
            http1_server: Arc::new(http1_server),
        })))
    }

    /// Returns what a handshake is made with now.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.server)
    }

    /// Returns the same, with HTTP/1.1 only.
    pub(super) fn http1_server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.http1_server)
    }

    /// Looks at the files until told to end; to be run as a task.
    pub async fn mind(self, hangups: Hangups, tasks: Tasks) {
        let Inner { files, texts, .. } = &*self.0;
        let (own, interval) = (files.clone(), files.interval);
        let read = move || own.read();
        let take = |read| self.take(read);
        reread(texts.clone(), read, interval, (hangups, tasks), take).await;
    }

    /// Brings a pair into force, or says why not.
    fn take(&self, read: io::Result<Texts>) {
        let provider: &CryptoProvider = self.0.server.crypto_provider();
        let pair = read
            .map_err(BadPair::Unread)
            .and_then(|texts| Pair::parse(&texts, provider));
        let certificate = self.0.files.certificate.display();
        match pair {
            Ok(pair) => {
                self.0.in_force.replace(pair);
                tracing::info!(%certificate, "certificate in force");
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!(%certificate, error, "new certificate refused, the old one stays in force");
            }
        }
    }
}

impl fmt::Debug for Tls {
    /// Says nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.0.files)
            .finish_non_exhaustive()
    }
}

// === impl Files ===

impl Files {
    fn read(&self) -> io::Result<Texts> {
        Ok(Texts {
            certificate: std::fs::read_to_string(&self.certificate)?,
            key: std::fs::read_to_string(&self.key)?,
        })
    }
}

#[cfg(test)]
pub(in crate::net) use tests::Made;

#[cfg(test)]
mod tests;
