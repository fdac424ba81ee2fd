//! Debian's `docker-registry` as somebody else's registry: under TLS by a private authority, and for one user only.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::tls::Certificate;
use crate::tokens::{ISSUER, SERVICE, TokenServer};

/// A running registry; it stops when this is dropped.
#[derive(Debug)]
pub struct ForeignRegistry {
    child: Child,
    address: SocketAddr,
    certificate: Arc<Certificate>,
    tokens: Option<TokenServer>,
    _directory: TempDir,
}

/// Who is let in.
pub const USER: &str = "user";
/// By what.
pub const PASSWORD: &str = "secret";

/// What `htpasswd` makes of it.
const HTPASSWD: &str = "user:$2b$04$DNmxNoT5JRr8uOiU7Ph66e9zBOvI4IkdbIGcksESUqKaRsfJRobuq\n";

const START_DEADLINE: Duration = Duration::from_secs(20);

// === impl ForeignRegistry ===

impl ForeignRegistry {
    /// Starts one with nothing in it, which wants the password with each request.
    pub fn start() -> Self {
        Self::start_all(false)
    }

    /// Starts one with nothing in it, which wants tokens.
    pub fn start_with_tokens() -> Self {
        Self::start_all(true)
    }

    fn start_all(with_tokens: bool) -> Self {
        let directory = TempDir::new().unwrap();
        let certificate = Arc::new(Certificate::new("foreign"));
        let tokens = with_tokens.then(|| TokenServer::start(&certificate));
        // Somebody else could take the port in between; then the registry says so and ends.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let root = directory.path().display();
        let auth = match &tokens {
            None => format!("htpasswd: {{realm: foreign, path: {root}/htpasswd}}"),
            Some(tokens) => format!(
                "token: {{realm: '{}', service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {}}}",
                tokens.realm(),
                certificate.certificate().display(),
            ),
        };
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {root}/data}}\n\
             auth: {{{auth}}}\n\
             http:\n  addr: '{address}'\n  tls: {{certificate: {}, key: {}}}\n",
            certificate.certificate().display(),
            certificate.key().display(),
        );
        std::fs::write(directory.path().join("htpasswd"), HTPASSWD).unwrap();
        let config = directory.path().join("config.yml");
        std::fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve".as_ref(), config.as_os_str()])
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed: tests/run sees to it");
        let registry = Self {
            child,
            address,
            certificate,
            tokens,
            _directory: directory,
        };
        registry.wait();
        registry
    }

    fn wait(&self) {
        let begin = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            assert!(
                begin.elapsed() < START_DEADLINE,
                "docker-registry does not listen"
            );
            sleep(Duration::from_millis(20));
        }
    }

    /// Returns where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the settings of an edge that pulls through it, as the upstream `name`.
    pub fn sets(&self, name: &str) -> Vec<String> {
        let realm = self.tokens.iter().map(TokenServer::realm);
        let hosts = realm.filter_map(|realm| Some(realm.split('/').nth(2)?.to_owned()));
        vec![
            format!("upstream.0.token_hosts={:?}", hosts.collect::<Vec<_>>()),
            format!("upstream.0.name={name}"),
            format!("upstream.0.url=https://{}", self.address),
            format!("upstream.0.username={USER}"),
            format!("upstream.0.password={PASSWORD}"),
            format!(
                "upstream.0.ca_file={}",
                self.certificate.certificate().display()
            ),
        ]
    }

    /// Returns how many tokens were granted for a scope.
    pub fn granted(&self, scope: &str) -> usize {
        let tokens = self.tokens.as_ref().expect("it wants tokens");
        tokens.granted(scope)
    }

    /// Stops it, and its token server; nobody listens there any more.
    pub fn stop(&mut self) {
        if let Some(tokens) = &mut self.tokens {
            tokens.stop();
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for ForeignRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}
