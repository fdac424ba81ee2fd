//! A certificate and its key.

use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// What the two files say.
#[derive(Clone, PartialEq, Eq)]
pub struct Texts {
    /// The certificate, with those between it and its authority behind it (PEM).
    pub certificate: String,
    /// Its private key (PEM).
    pub key: String,
}

/// A certificate and its key, which belong together.
#[derive(Debug)]
pub struct Pair(Arc<CertifiedKey>);

/// The pair that new handshakes are made with.
#[derive(Debug)]
pub(super) struct InForce(RwLock<Arc<CertifiedKey>>);

/// A certificate and a key make no pair.
#[derive(Debug, thiserror::Error)]
pub enum BadPair {
    /// One of the files cannot be read.
    #[error("read the certificate and its key")]
    Unread(#[source] io::Error),
    /// The certificate's file is no PEM.
    #[error("the certificate is no PEM")]
    Certificate(#[source] pem::Error),
    /// There is no certificate in its file.
    #[error("there is no certificate (PEM) in the file")]
    NoCertificate,
    /// There is no key in its file; what is there instead is not said.
    #[error("there is no private key (PEM) in the file")]
    Key,
    /// The key is of a kind that is not known, or not that of the certificate.
    #[error("the certificate and the key make no pair")]
    Mismatch(#[source] rustls::Error),
}

// === impl Texts ===

impl Texts {
    /// Returns what is wrong with each of them by itself.
    pub fn problems(&self) -> impl Iterator<Item = BadPair> {
        let problems = [self.certificates().err(), self.private_key().err()];
        problems.into_iter().flatten()
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, BadPair> {
        let certificates = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(BadPair::Certificate)?;
        if certificates.is_empty() {
            return Err(BadPair::NoCertificate);
        }
        Ok(certificates)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, BadPair> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).or(Err(BadPair::Key))
    }
}

impl fmt::Debug for Texts {
    /// Says nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Texts").finish_non_exhaustive()
    }
}

// === impl Pair ===

impl Pair {
    /// Parses a pair and holds it to belonging together.
    pub fn parse(texts: &Texts, provider: &CryptoProvider) -> Result<Self, BadPair> {
        let (certificates, key) = (texts.certificates()?, texts.private_key()?);
        let pair = CertifiedKey::from_der(certificates, key, provider);
        Ok(Self(Arc::new(pair.map_err(BadPair::Mismatch)?)))
    }
}

// === impl InForce ===

impl InForce {
    pub(super) fn new(pair: Pair) -> Self {
        Self(RwLock::new(pair.0))
    }

    pub(super) fn replace(&self, pair: Pair) {
        *self.0.write() = pair.0;
    }
}

impl ResolvesServerCert for InForce {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}
