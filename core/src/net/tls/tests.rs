use std::path::Path;
use std::process::{Command, Stdio};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::sleep;

use super::*;

/// The files of a pair.
pub(in crate::net) struct Made {
    directory: TempDir,
}

// === impl Made ===

impl Made {
    /// Makes a pair that says of itself that it is `name`, by OpenSSL.
    pub(in crate::net) fn new(name: &str) -> Self {
        let made = Self {
            directory: TempDir::new().unwrap(),
        };
        made.renew(name);
        made
    }

    /// Makes another one in its place.
    fn renew(&self, name: &str) {
        let files = self.files();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-subj", &format!("/CN={name}")])
            .args(["-addext", &format!("subjectAltName=DNS:{name}")])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&files.key)
            .arg("-out")
            .arg(&files.certificate)
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("openssl is installed").success());
    }

    fn files(&self) -> Files {
        let path = |name| self.directory.path().join(name);
        Files {
            certificate: path("tls.crt"),
            key: path("tls.key"),
            interval: Duration::from_secs(10),
        }
    }

    pub(in crate::net) fn tls(&self) -> Tls {
        let files = self.files();
        let texts = files.read().unwrap();
        Tls::new(files, texts).unwrap()
    }

    /// Returns it as what a client trusts.
    pub(in crate::net) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(self.files().certificate);
        roots.add(certificate.unwrap()).unwrap();
        roots
    }

    /// Returns what a client that trusts it speaks.
    pub(in crate::net) fn client(&self, protocols: &[&str]) -> ClientConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        client.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        client
    }
}

/// Makes a handshake in memory; returns whether the client took the server for `name`.
fn is_taken_for(tls: &Tls, client: ClientConfig, name: &'static str) -> bool {
    let name = ServerName::try_from(name).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(tls.server()).unwrap();
    let mut wire = Vec::new();
    while client.is_handshaking() {
        wire.clear();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        if client.process_new_packets().is_err() {
            return false;
        }
    }
    true
}

#[track_caller]
fn check(texts: &Texts, expected: &str) {
    let problem = Tls::new(Made::new("unused").files(), texts.clone()).unwrap_err();
    assert!(chain(&problem).contains(expected), "{problem:?}");
    let written = format!("{problem:?} {}", chain(&problem));
    let is_secret = |line: &&str| line.len() > 40;
    let leaked = texts
        .key
        .lines()
        .filter(is_secret)
        .find(|line| written.contains(*line));
    assert_eq!(leaked, None);
}

#[test]
fn a_pair_that_is_none_is_refused() {
    let [one, other] = ["one", "other"].map(|name| Made::new(name).files().read().unwrap());
    let with_key = |key: &str| Texts {
        key: key.to_owned(),
        ..one.clone()
    };
    check(&with_key(&other.key), "make no pair");
    check(&with_key(""), "no private key");
    check(&with_key(&one.certificate), "no private key");
    check(
        &with_key(&one.key.replace("-----END", "END")),
        "no private key",
    );
    let with_certificate = |certificate: &str| Texts {
        certificate: certificate.to_owned(),
        ..one.clone()
    };
    check(&with_certificate(""), "no certificate");
    check(
        &with_certificate("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
        "no PEM",
    );
    let neither = Texts {
        certificate: String::new(),
        key: String::new(),
    };
    assert_eq!(neither.problems().count(), 2);
}

/// What minds a pair, and what it is told by.
struct Minded {
    tls: Tls,
    tasks: Tasks,
    hangups: watch::Sender<()>,
}

impl Minded {
    fn new(made: &Made) -> Self {
        let (hangups, receiver) = watch::channel(());
        let (tls, tasks) = (made.tls(), Tasks::new());
        let minding = tls.clone().mind(Hangups::of(receiver), tasks.clone());
        drop(tasks.spawn("certificate", minding));
        Self {
            tls,
            tasks,
            hangups,
        }
    }

    /// Waits until a client takes the server for `name`.
    async fn is_renewed(&self, made: &Made, name: &'static str) {
        while !is_taken_for(&self.tls, made.client(&[]), name) {
            tokio::task::yield_now().await;
        }
    }

    async fn end(self) {
        self.tasks.cancel();
        self.tasks.drain(Duration::from_secs(9)).await.unwrap();
    }
}

#[tokio::test]
async fn a_hangup_brings_a_new_pair_into_force() {
    let made = Made::new("old");
    let minded = Minded::new(&made);
    let old = made.client(&[]);
    assert!(is_taken_for(&minded.tls, old.clone(), "old"));
    assert!(!is_taken_for(&minded.tls, old.clone(), "new"));
    made.renew("new");
    minded.hangups.send_replace(());
    minded.is_renewed(&made, "new").await;
    assert!(!is_taken_for(&minded.tls, old, "old"));
    minded.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_found_without_being_asked() {
    let made = Made::new("old");
    let minded = Minded::new(&made);
    made.renew("new");
    while !is_taken_for(&minded.tls, made.client(&[]), "new") {
        sleep(Duration::from_secs(1)).await;
    }
    minded.end().await;
}

#[tokio::test]
async fn a_bad_new_pair_leaves_the_old_one_in_force() {
    let made = Made::new("old");
    let minded = Minded::new(&made);
    let old = made.client(&[]);
    let key: &Path = &made.files().key;
    std::fs::write(key, "nonsense").unwrap();
    minded.tls.take(made.files().read());
    assert!(is_taken_for(&minded.tls, old.clone(), "old"));
    std::fs::remove_file(key).unwrap();
    minded.tls.take(made.files().read());
    assert!(is_taken_for(&minded.tls, old, "old"));
    minded.end().await;
}
