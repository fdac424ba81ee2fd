//! A containerd of one's own, with its client `ctr`.
//!
//! Its namespaces share nothing, so that whoever pulls into a new one has nothing yet.

use std::net::SocketAddr;
use std::process::Command;

use crate::sandbox::{Daemon, Sandbox, refusal, run};

/// A containerd.
#[derive(Debug)]
pub struct Containerd {
    // Stops before its files go.
    _daemon: Daemon,
    sandbox: Sandbox,
}

/// An image as `ctr` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its media type.
    pub media_type: String,
    /// The digest of its manifest or index.
    pub digest: String,
}

// === impl Containerd ===

impl Containerd {
    /// Starts one that holds nothing.
    pub fn start() -> Self {
        Self::start_in(Sandbox::new())
    }

    /// Starts one that holds nothing in a sandbox.
    pub fn start_in(sandbox: Sandbox) -> Self {
        let directory = sandbox.path().display();
        let config = format!(
            r#"version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{directory}/containerd.sock"
[ttrpc]
address = "{directory}/ttrpc.sock"
[debug]
address = ""
[plugins."io.containerd.internal.v1.opt"]
path = "{directory}/opt"
[plugins."io.containerd.metadata.v1.bolt"]
content_sharing_policy = "isolated"
"#
        );
        let config = sandbox.write("config.toml", config);
        let daemon = sandbox.daemon(
            "containerd",
            ["--config".as_ref(), config.as_os_str()],
            "containerd successfully booted",
        );
        Self {
            _daemon: daemon,
            sandbox,
        }
    }

    /// Runs `ctr ARGS` in a namespace.
    #[track_caller]
    pub fn run(&self, namespace: &str, args: &[&str]) -> String {
        run(&mut self.command(namespace, args))
    }

    /// Runs `ctr ARGS` in a namespace, which must fail; returns what it said.
    #[track_caller]
    pub fn refusal(&self, namespace: &str, args: &[&str]) -> String {
        refusal(&mut self.command(namespace, args))
    }

    /// Pulls an image, all its platforms, and returns what it is.
    #[track_caller]
    pub fn pull(&self, namespace: &str, image: &str) -> Listed {
        let args = ["images", "pull", "--plain-http", "--all-platforms", image];
        self.run(namespace, &args);
        self.listed(namespace, image)
    }

    /// Pushes an image that it holds.
    #[track_caller]
    pub fn push(&self, namespace: &str, image: &str) {
        self.run(namespace, &["images", "push", "--plain-http", image]);
    }

    /// Returns what an image is.
    #[track_caller]
    pub fn listed(&self, namespace: &str, image: &str) -> Listed {
        let list = self.run(namespace, &["images", "ls", &format!("name=={image}")]);
        let line = list.lines().nth(1).unwrap_or_else(|| panic!("no {image}"));
        let mut columns = line.split_whitespace().skip(1);
        Listed {
            media_type: columns.next().unwrap().to_owned(),
            digest: columns.next().unwrap().to_owned(),
        }
    }

    /// Returns the digests of all content in a namespace.
    #[track_caller]
    pub fn content(&self, namespace: &str) -> Vec<String> {
        let list = self.run(namespace, &["content", "ls", "--quiet"]);
        list.lines().map(ToOwned::to_owned).collect()
    }

    /// Makes `mirror` the place to ask for what a registry of some name has; returns the arguments that say so.
    #[track_caller]
    pub fn mirror(&self, registry: &str, mirror: SocketAddr) -> [String; 2] {
        let hosts = self.sandbox.join("hosts");
        std::fs::create_dir_all(hosts.join(registry)).unwrap();
        let text = format!("[host.\"http://{mirror}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
        self.sandbox
            .write(&format!("hosts/{registry}/hosts.toml"), text);
        ["--hosts-dir".to_owned(), hosts.to_str().unwrap().to_owned()]
    }

    fn command(&self, namespace: &str, args: &[&str]) -> Command {
        let snapshotter = if self.sandbox.has_overlay() {
            "overlayfs"
        } else {
            "native"
        };
        let mut command = self.sandbox.command("ctr");
        command
            .env("CONTAINERD_SNAPSHOTTER", snapshotter)
            .arg("--address")
            .arg(self.sandbox.join("containerd.sock"))
            .args(["--namespace", namespace])
            .args(args);
        command
    }
}
