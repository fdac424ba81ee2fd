//! A Docker daemon of one's own, with its command line client.
//!
//! It has no bridge and touches no firewall: it is here to pull and push. What listens on loopback is plain HTTP to it.

use std::net::SocketAddr;
use std::process::Command;

use crate::sandbox::{Daemon, Sandbox, refusal, run};

/// A Docker daemon.
#[derive(Debug)]
pub struct Docker {
    // Stops before its files go.
    _daemon: Daemon,
    sandbox: Sandbox,
}

// === impl Docker ===

impl Docker {
    /// Starts one that holds nothing.
    pub fn start() -> Self {
        Self::start_in(Sandbox::new())
    }

    /// Starts one that holds nothing in a sandbox.
    pub fn start_in(sandbox: Sandbox) -> Self {
        Self::configured(sandbox, "")
    }

    /// Starts one that asks `mirror` for what Docker Hub has.
    pub fn start_with_mirror(mirror: SocketAddr) -> Self {
        let more = format!(r#", "registry-mirrors": ["http://{mirror}"]"#);
        Self::configured(Sandbox::new(), &more)
    }

    fn configured(sandbox: Sandbox, more: &str) -> Self {
        let config = format!(
            r#"{{"deprecated-key-path": "{}"{more}}}"#,
            sandbox.text("key.json")
        );
        sandbox.write("daemon.json", config);
        let at = |name| sandbox.text(name);
        let driver = if sandbox.has_overlay() {
            "overlay2"
        } else {
            "vfs"
        };
        let daemon = sandbox.daemon(
            "dockerd",
            [
                format!("--config-file={}", at("daemon.json")),
                format!("--host=unix://{}", at("docker.sock")),
                format!("--data-root={}", at("root")),
                format!("--exec-root={}", at("exec")),
                format!("--pidfile={}", at("docker.pid")),
                format!("--storage-driver={driver}"),
                "--group=root".to_owned(),
                "--bridge=none".to_owned(),
                "--iptables=false".to_owned(),
                "--ip6tables=false".to_owned(),
                "--ip-forward=false".to_owned(),
                "--ip-masq=false".to_owned(),
                "--exec-opt=native.cgroupdriver=cgroupfs".to_owned(),
                "--shutdown-timeout=5".to_owned(),
            ],
            "API listen on",
        );
        Self {
            _daemon: daemon,
            sandbox,
        }
    }

    /// Runs `docker ARGS`.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        run(&mut self.command(args))
    }

    /// Runs `docker ARGS`, which must fail; returns what it said.
    #[track_caller]
    pub fn refusal(&self, args: &[&str]) -> String {
        refusal(&mut self.command(args))
    }

    /// Pulls an image and returns its id, the digest of its config.
    #[track_caller]
    pub fn pull(&self, image: &str) -> String {
        self.run(&["pull", "--quiet", image]);
        self.run(&["image", "inspect", "--format", "{{.Id}}", image])
    }

    /// Pushes an image and returns the digest of its manifest.
    #[track_caller]
    pub fn push(&self, image: &str) -> String {
        let said = self.run(&["push", image]);
        let (_, digest) = said.split_once("digest: ").expect("a digest");
        digest.split(' ').next().unwrap().to_owned()
    }

    /// Forgets every image.
    #[track_caller]
    pub fn forget(&self) {
        let images = self.run(&["images", "--quiet", "--no-trunc"]);
        let mut images: Vec<&str> = images.lines().collect();
        images.sort_unstable();
        images.dedup();
        for image in images {
            self.run(&["image", "rm", "--force", image]);
        }
        assert_eq!(self.run(&["images", "--all", "--quiet"]), "");
    }

    /// Returns where its files are.
    pub const fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.command("docker");
        command
            .env("DOCKER_CONFIG", self.sandbox.join("config"))
            .arg("--host")
            .arg(format!("unix://{}", self.sandbox.text("docker.sock")))
            .args(args);
        command
    }
}
