//! Debian's `docker-registry` as a process.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tokio::time::Instant;

use crate::load::Target;

/// A running `docker-registry`, with nothing between it and its disk but its own cache.
#[derive(Debug)]
pub(crate) struct DockerRegistry {
    child: Child,
    address: SocketAddr,
}

const START_DEADLINE: Duration = Duration::from_secs(10);

impl DockerRegistry {
    /// Starts one below `directory`, and waits until it listens.
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_with(directory, "docker-registry", "")
    }

    /// Starts one that has nothing but what it gets from `upstream`.
    pub(crate) fn start_proxy(directory: &Path, upstream: SocketAddr) -> Self {
        let more = format!("proxy: {{remoteurl: 'http://{upstream}'}}\n");
        Self::start_with(directory, "docker-registry-proxy", &more)
    }

    fn start_with(directory: &Path, name: &str, more: &str) -> Self {
        // Somebody else could take the port in between; then the registry says so and ends.
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let root = directory.join(name);
        let config = directory.join(format!("{name}.yml"));
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  \
             cache: {{blobdescriptor: inmemory}}\n  filesystem: {{rootdirectory: {}}}\n\
             http: {{addr: '{address}'}}\n{more}",
            root.display()
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve".as_ref(), config.as_os_str()])
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("docker-registry is installed: tests/bench/run sees to it");
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(
                begin.elapsed() < START_DEADLINE,
                "docker-registry does not listen"
            );
            sleep(Duration::from_millis(20));
        }
        Self { child, address }
    }

    /// Returns where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what is asked for.
    pub(crate) fn target<'a>(&self, path: &'a str) -> Target<'a> {
        Target {
            scheme: "http",
            address: self.address,
            path,
            server: self.child.id(),
        }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
