//! Connecting: TCP, and TLS where the URL says so, within one bound.
//!
//! Certificates are checked against those that the system trusts, which is where an operator puts the ones of a private
//! authority, and against a file beside them. A system without any is no obstacle to plain HTTP.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::Service;

use super::guard::{Guard, GuardedResolver};
use super::{BadClient, Config};

const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    https: HttpsConnector<HttpConnector<GuardedResolver>>,
    connect_timeout: Duration,
    guard: Guard,
}

// === impl Connector ===

impl Connector {
    pub(super) fn new(config: &Config) -> Result<Self, BadClient> {
        let resolver = GuardedResolver::new(config.guard.clone());
        let mut http = HttpConnector::new_with_resolver(resolver);
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(TCP_KEEPALIVE));
        // Shared out among the addresses of a host, so that a dead one does not take the time of the others.
        http.set_connect_timeout(Some(config.connect_timeout));
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(BadClient::Tls)?
            .with_root_certificates(roots(config.ca_file.as_deref())?)
            .with_no_client_auth();
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(http);
        Ok(Self {
            https,
            connect_timeout: config.connect_timeout,
            guard: config.guard.clone(),
        })
    }
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, BadClient> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "read the system's certificates");
    }
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca_file {
        let bad = |source: BoxError| BadClient::CaFile {
            path: path.to_owned(),
            source,
        };
        let certificates =
            CertificateDer::pem_file_iter(path).map_err(|error| bad(error.into()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| bad(error.into()))?;
            roots.add(certificate).map_err(|error| bad(error.into()))?;
        }
    }
    Ok(roots)
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Service::<Uri>::poll_ready(&mut self.https, cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connect_timeout = self.connect_timeout;
        let checked = self.guard.check_literal(uri.host().unwrap_or_default());
        let connecting = self.https.call(uri);
        Box::pin(async move {
            checked?;
            match timeout(connect_timeout, connecting).await {
                Ok(connected) => connected,
                Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed).into()),
            }
        })
    }
}
