//! Certificates, as an operator makes them with OpenSSL.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate for what listens on loopback, its key, and what clients are to trust: the certificate itself.
#[derive(Debug)]
pub struct Certificate {
    directory: TempDir,
}

// === impl Certificate ===

impl Certificate {
    /// Makes one whose subject is called `name`.
    pub fn new(name: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let certificate = Self { directory };
        certificate.renew(name);
        certificate
    }

    /// Makes another one, with a key of its own, in its place; the key comes first, as a careless operator has it.
    pub fn renew(&self, name: &str) {
        let new = self.directory.path().join("new");
        fs::create_dir(&new).unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-subj", &format!("/CN={name}")])
            .args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(new.join("tls.key"))
            .arg("-out")
            .arg(new.join("ca.crt"))
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("openssl is installed").success());
        for file in ["tls.key", "ca.crt"] {
            fs::rename(new.join(file), self.directory.path().join(file)).unwrap();
        }
        fs::remove_dir(new).unwrap();
    }

    /// Returns the certificate's file.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// Returns the key's file.
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("tls.key")
    }

    /// Returns the settings of a node that serves by it.
    pub fn sets(&self) -> [String; 2] {
        [
            format!("tls.certificate={}", self.certificate().display()),
            format!("tls.key={}", self.key().display()),
        ]
    }

    /// Returns a directory of what to trust, in the form that clients of registries want one for a host.
    pub fn trusted(&self) -> TempDir {
        let trusted = TempDir::new().unwrap();
        fs::copy(self.certificate(), trusted.path().join("ca.crt")).unwrap();
        trusted
    }
}

/// Connects to a node under TLS, trusting one certificate.
pub async fn connect(address: SocketAddr, certificate: &Path) -> TlsStream<TcpStream> {
    let mut trusted = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    trusted.add(certificate).unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::from(address.ip());
    connector.connect(name, stream).await.unwrap()
}

/// What curl was answered with.
#[derive(Debug)]
pub struct Fetched {
    /// The status.
    pub status: u16,
    /// The version of HTTP, as curl writes it.
    pub version: String,
    /// The head, as it came, names in lower case.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Fetches a URL with curl, which trusts `certificate`; none when it does not come to an answer.
pub fn curl(certificate: &Path, args: &[&str], url: &str) -> Option<Fetched> {
    let directory = TempDir::new().unwrap();
    let [head, body] = ["head", "body"].map(|name| directory.path().join(name));
    fs::write(&body, "").unwrap();
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "60", "--cacert"])
        .arg(certificate)
        .args(["--write-out", "%{http_code} %{http_version}"])
        .arg("--dump-header")
        .arg(&head)
        .arg("--output")
        .arg(&body)
        .args(args)
        .arg(url)
        .output()
        .expect("curl is installed");
    if !output.status.success() {
        return None;
    }
    let written = String::from_utf8(output.stdout).unwrap();
    let (status, version) = written.split_once(' ').unwrap();
    Some(Fetched {
        status: status.parse().unwrap(),
        version: version.to_owned(),
        head: fs::read_to_string(head).unwrap().to_lowercase(),
        body: fs::read(body).unwrap(),
    })
}
