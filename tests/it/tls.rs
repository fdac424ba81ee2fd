//! Nodes under TLS, by clients that insist on it.

use std::net::SocketAddr;
use std::path::Path;

use harness::client::Client;
use harness::containers::Containers;
use harness::content::Content;
use harness::images::{Images, MULTI, ZSTD};
use harness::layout::Layout;
use harness::node::{Edge, Origin};
use harness::process::{Process, refusal};
use harness::repository::Repository;
use harness::tls::{Certificate, curl};
use outport_core::oci::digest::Digest;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// An origin and an edge, the edge under TLS.
struct Secured {
    certificate: Certificate,
    edge: Edge,
    origin: Origin,
}

// === impl Secured ===

impl Secured {
    async fn start() -> Self {
        let certificate = Certificate::new("first");
        let origin = Origin::start().await;
        let url = format!("http://{}", origin.address());
        let edge = Edge::start_with(&url, &certificate.sets()).await;
        Self {
            certificate,
            edge,
            origin,
        }
    }

    fn repository(&self) -> Repository {
        Repository::new(self.origin.client(), "team/app")
    }

    fn blob_url(&self, digest: &Digest) -> String {
        let edge = self.edge.address();
        format!("https://{edge}/v2/team/app/blobs/{digest}")
    }

    /// Whether a client that trusts a certificate takes the edge for what it is.
    fn is_trusted_by(&self, certificate: &Path) -> bool {
        let url = format!("https://{}/v2/", self.edge.address());
        curl(certificate, &[], &url).is_some()
    }
}

#[tokio::test]
async fn every_version_and_protocol_gets_what_is_asked_for() {
    let secured = Secured::start().await;
    let content = Content::new(1, 5 * MIB);
    let digest = secured.repository().push_content(content).await;
    let (url, trusted) = (secured.blob_url(&digest), secured.certificate.certificate());
    for tls in ["1.2", "1.3"] {
        for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let ask = |args: &[&str]| {
                let always = [option, "--tls-max", tls];
                let fetched = curl(&trusted, &[&always, args].concat(), &url);
                let fetched = fetched.unwrap_or_else(|| panic!("{tls} {version} {args:?}"));
                assert_eq!(fetched.version, version);
                fetched
            };
            let whole = ask(&[]);
            assert_eq!((whole.status, whole.body.len() as u64), (200, 5 * MIB));
            assert!(whole.body == content.bytes(), "{tls} {version}");

            let part = ask(&["--range", "1000-1999"]);
            assert_eq!(part.status, 206);
            assert!(part.body == content.slice(1000..2000));
            assert!(part.head.contains("content-range: bytes 1000-1999/5242880"));

            let parts = ask(&["--range", "0-9,4000000-4000009"]);
            assert_eq!(parts.status, 206);
            assert!(parts.head.contains("content-type: multipart/byteranges"));
            let second = content.slice(4_000_000..4_000_010);
            assert!(parts.body.windows(10).any(|window| window == second));

            let head = ask(&["--head"]);
            assert_eq!(head.status, 200);
            assert!(head.head.contains("content-length: 5242880"));

            let same = format!("If-None-Match: \"{digest}\"");
            assert_eq!(ask(&["--header", &same]).status, 304);
            let beyond = ask(&["--range", "5242880-"]);
            assert_eq!(beyond.status, 416);
        }
    }
}

#[tokio::test]
async fn skopeo_pushes_and_pulls() {
    let secured = Secured::start().await;
    let (images, tools) = (Images::shared(), Containers::new(&[]));
    let trusted = secured.certificate.trusted();
    let trusted = trusted.path().to_str().unwrap();
    for image in [ZSTD, MULTI] {
        let at_edge = format!("docker://{}/t/app:{image}", secured.edge.address());
        let source = images.source(image);
        let copy = ["copy", "--quiet", "--all", "--preserve-digests"];
        let push = [&copy[..], &["--dest-cert-dir", trusted, &source, &at_edge]];
        tools.skopeo(&push.concat());
        let path = tools.sandbox().join(image);
        let to = format!("oci:{}:{image}", path.display());
        let pull = [&copy[..], &["--src-cert-dir", trusted, &at_edge, &to]];
        tools.skopeo(&pull.concat());
        let layout = Layout::open(&path);
        let pulled = layout.tagged(image);
        assert_eq!(pulled["digest"], images.digest(image));
        assert_eq!(layout.parts(&pulled), images.parts(image));
    }
}

#[tokio::test]
async fn a_new_certificate_is_taken_on_sighup_and_a_bad_one_is_not() {
    let secured = Secured::start().await;
    let certificate = &secured.certificate;
    let first = certificate.trusted();
    let first = first.path().join("ca.crt");
    assert!(secured.is_trusted_by(&first));
    let process = secured.edge.process();

    let key = std::fs::read(certificate.key()).unwrap();
    std::fs::write(certificate.key(), "nonsense").unwrap();
    process.signal(Signal::HUP);
    process.says(&["new certificate refused"]).await;
    assert!(secured.is_trusted_by(&first));
    std::fs::write(certificate.key(), key).unwrap();

    certificate.renew("second");
    assert!(!secured.is_trusted_by(&certificate.certificate()));
    process.signal(Signal::HUP);
    process.says(&["certificate in force"]).await;
    assert!(secured.is_trusted_by(&certificate.certificate()));
    assert!(!secured.is_trusted_by(&first));
}

#[tokio::test]
async fn a_changed_file_is_found_without_being_told() {
    let certificate = Certificate::new("first");
    let [set_certificate, set_key] = certificate.sets();
    let sets = [
        set_certificate,
        set_key,
        "tls.reload_interval=50ms".to_owned(),
    ];
    let edge = Edge::start_with("http://127.0.0.1:1", &sets).await;
    certificate.renew("second");
    edge.process().says(&["certificate in force"]).await;
    let url = format!("https://{}/v2/", edge.address());
    assert!(curl(&certificate.certificate(), &[], &url).is_some());
}

#[tokio::test]
async fn an_edge_reaches_an_origin_under_tls() {
    let certificate = Certificate::new("origin");
    let [set_certificate, set_key] = certificate.sets();
    let builder = Origin::builder().set(set_certificate).set(set_key);
    let origin = builder.start().await;
    let url = format!("https://{}", origin.address());
    let trust = format!("origin.ca_file={}", certificate.certificate().display());
    let edge = Edge::start_with(&url, &[trust]).await;
    let repository = Repository::new(edge.client(), "team/app");
    let content = Content::new(2, 3 * MIB);
    let digest = repository.push_content(content).await;
    let mut open = edge
        .client()
        .get(&repository.path(&format!("blobs/{digest}")))
        .open()
        .await;
    assert_eq!(open.read_content(content, 0).await.unwrap(), 3 * MIB);
}

#[tokio::test]
async fn a_bad_pair_is_found_before_a_port_opens() {
    let directory = TempDir::new().unwrap();
    let [one, other] = ["one", "other"].map(Certificate::new);
    let bad = |certificate: &Path, key: &Path| {
        let sets = [
            format!("tls.certificate={}", certificate.display()),
            format!("tls.key={}", key.display()),
            "name=A B".to_owned(),
        ];
        let args: Vec<_> = sets
            .into_iter()
            .flat_map(|set| ["--set".to_owned(), set])
            .collect();
        let (status, said) = refusal("edge", &args, directory.path());
        assert_eq!(status, 78, "{said}");
        assert!(!said.contains("listening"), "{said}");
        assert!(said.contains("name"), "{said}");
        said
    };
    let said = bad(&one.certificate(), &other.key());
    assert!(said.contains("make no pair"), "{said}");
    let said = bad(Path::new("/nowhere"), Path::new("/neither"));
    assert!(
        said.contains("/nowhere") && said.contains("/neither"),
        "{said}"
    );
    let said = bad(&one.key(), &one.certificate());
    assert!(
        said.contains("no certificate") && said.contains("no private key"),
        "{said}"
    );
}

#[tokio::test]
async fn both_roles_in_one_process() {
    let certificate = Certificate::new("up");
    let directory = TempDir::new().unwrap();
    let mut args = Vec::new();
    let mut set = |text: String| args.extend(["--set".to_owned(), text]);
    for text in certificate.sets() {
        set(format!("edge.{text}"));
    }
    for listener in ["listen", "admin_listen"] {
        set(format!("edge.{listener}=127.0.0.1:0"));
        set(format!("origin.{listener}=127.0.0.1:0"));
    }
    let mut process = Process::start("up", &args, directory.path()).await;
    process.says(&["edge is up"]).await;
    let [origin, edge] = ["origin", "edge"].map(|role| listener(&process.log(), role));
    let repository = Repository::new(Client::new(origin), "team/app");
    let digest = repository.push("hello").await;
    let url = format!("https://{edge}/v2/team/app/blobs/{digest}");
    let fetched = curl(&certificate.certificate(), &[], &url).unwrap();
    assert_eq!((fetched.status, &fetched.body[..]), (200, &b"hello"[..]));
    process.stop();

    let mut args = Vec::new();
    for text in certificate.sets() {
        args.extend(["--set".to_owned(), format!("origin.{text}")]);
    }
    let (status, said) = refusal("up", &args, directory.path());
    assert_eq!(status, 78, "{said}");
    assert!(said.contains("edge.origin.urls"), "{said}");
}

/// Returns where a role's clients connect.
fn listener(log: &[String], role: &str) -> SocketAddr {
    let events = log
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut listening = events.filter(|event| event["message"] == "listening");
    let listening = listening.find(|event| event["role"] == role && event["listener"] == "api");
    let listening = listening.expect(role);
    listening["address"].as_str().unwrap().parse().unwrap()
}
