//! Debian's `docker-registry` as somebody else's registry: under TLS by a private authority, and for one user only.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::tls::Certificate;

/// A running registry; it stops when this is dropped.
#[derive(Debug)]
pub struct ForeignRegistry {
    child: Child,
    address: SocketAddr,
    certificate: Certificate,
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
    /// Starts one with nothing in it.
    pub fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let certificate = Certificate::new("foreign");
        // Somebody else could take the port in between; then the registry says so and ends.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let root = directory.path().display();
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {root}/data}}\n\
             auth: {{htpasswd: {{realm: foreign, path: {root}/htpasswd}}}}\n\
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
        vec![
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

    /// Stops it; nobody listens there any more.
    pub fn stop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for ForeignRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}
