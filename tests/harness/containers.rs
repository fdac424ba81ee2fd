//! podman, buildah and skopeo, with storage and settings of their own.
//!
//! They share code and settings, so they share a sandbox. Registries in it are plain HTTP only where that was said.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::sandbox::{Sandbox, refusal, run};

/// podman, buildah and skopeo.
#[derive(Debug)]
pub struct Containers {
    sandbox: Sandbox,
}

// === impl Containers ===

impl Containers {
    /// Returns them with nothing in their storage, and some registries to be spoken to by plain HTTP.
    pub fn new(registries: &[SocketAddr]) -> Self {
        Self::new_in(Sandbox::new(), registries)
    }

    /// Returns them with nothing in their storage, which is in a sandbox.
    pub fn new_in(sandbox: Sandbox, registries: &[SocketAddr]) -> Self {
        for name in ["xdg", "registries.d", "registries.conf.d", "hooks", "netns"] {
            fs::create_dir(sandbox.join(name)).unwrap();
        }
        fs::set_permissions(sandbox.join("xdg"), fs::Permissions::from_mode(0o700)).unwrap();
        let mut text = "unqualified-search-registries = []\n".to_owned();
        for registry in registries {
            write!(
                text,
                "[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n"
            )
            .unwrap();
        }
        sandbox.write("registries.conf", text);
        sandbox.write("auth.json", r#"{"auths": {}}"#);
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        sandbox.write("policy.json", policy);
        let directory = sandbox.path().display();
        let driver = driver(&sandbox);
        let storage = format!(
            "[storage]\ndriver = \"{driver}\"\ngraphroot = \"{directory}/storage\"\nrunroot = \"{directory}/run/storage\"\n"
        );
        sandbox.write("storage.conf", storage);
        sandbox.write("containers.conf", settings(&sandbox));
        Self { sandbox }
    }

    /// Makes `mirror` the place to ask for what a registry of some name has.
    pub fn mirror(&self, registry: &str, mirror: SocketAddr) {
        let path = self.sandbox.join("registries.conf");
        let mut text = fs::read_to_string(&path).unwrap();
        write!(
            text,
            "[[registry]]\nprefix = \"{registry}\"\nlocation = \"{registry}\"\n\
             [[registry.mirror]]\nlocation = \"{mirror}/{registry}\"\ninsecure = true\n"
        )
        .unwrap();
        fs::write(path, text).unwrap();
    }

    /// Runs `podman ARGS` over a storage of some name.
    #[track_caller]
    pub fn podman(&self, storage: &str, args: &[&str]) -> String {
        run(&mut self.podman_command(storage, args))
    }

    /// Runs `podman ARGS`, which must fail; returns what it said.
    #[track_caller]
    pub fn podman_refusal(&self, storage: &str, args: &[&str]) -> String {
        refusal(&mut self.podman_command(storage, args))
    }

    /// Pulls an image and returns its id, the hex digits of its config's digest.
    #[track_caller]
    pub fn podman_pull(&self, storage: &str, image: &str) -> String {
        self.podman(storage, &["pull", "--quiet", image])
    }

    /// Runs `buildah ARGS`.
    #[track_caller]
    pub fn buildah(&self, args: &[&str]) -> String {
        let mut command = self.command("buildah");
        command
            .args(["--root", &self.sandbox.text("buildah")])
            .args(["--runroot", &self.sandbox.text("run/buildah")])
            .args(["--storage-driver", driver(&self.sandbox)]);
        run(command.args(args))
    }

    /// Runs `skopeo ARGS`.
    #[track_caller]
    pub fn skopeo(&self, args: &[&str]) -> String {
        run(&mut self.skopeo_command(args))
    }

    /// Runs `skopeo ARGS`, which must fail; returns what it said.
    #[track_caller]
    pub fn skopeo_refusal(&self, args: &[&str]) -> String {
        refusal(&mut self.skopeo_command(args))
    }

    /// Copies an image from somewhere to somewhere with all that belongs to it, byte by byte.
    #[track_caller]
    pub fn copy(&self, from: &str, to: &str) {
        let args = ["copy", "--quiet", "--all", "--preserve-digests"];
        let plain_tar = "--dest-oci-accept-uncompressed-layers";
        run(self.skopeo_command(&args).args([plain_tar, from, to]));
    }

    /// Returns the exact bytes of an image's manifest or index in a registry.
    #[track_caller]
    pub fn raw(&self, image: &str) -> Vec<u8> {
        let from = format!("docker://{image}");
        let mut command = self.skopeo_command(&["inspect", "--raw", &from]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        output.stdout
    }

    /// Forgets what blobs were seen in which registry; else they are mounted rather than made again.
    pub fn forget_blobs(&self) {
        fs::remove_dir_all(self.sandbox.join("lib/containers")).unwrap();
    }

    /// Returns where their files are.
    pub const fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn podman_command(&self, storage: &str, args: &[&str]) -> Command {
        let mut command = self.command("podman");
        command
            .args(["--root", &self.sandbox.text(&format!("podman-{storage}"))])
            .args(["--runroot", &self.sandbox.text(&format!("run/{storage}"))])
            .args(["--tmpdir", &self.sandbox.text(&format!("tmp/{storage}"))])
            .args(["--storage-driver", driver(&self.sandbox)])
            .args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"])
            .args(args);
        command
    }

    fn skopeo_command(&self, args: &[&str]) -> Command {
        let mut command = self.command("skopeo");
        // It does not know the variable for the first.
        command
            .args(["--registries-conf", &self.sandbox.text("registries.conf")])
            .args(["--registries.d", &self.sandbox.text("registries.d")])
            .args(["--policy", &self.sandbox.text("policy.json")])
            .args(["--tmpdir", &self.sandbox.text("tmp")])
            .args(args);
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.sandbox.command(program);
        for (variable, name) in [
            ("CONTAINERS_CONF", "containers.conf"),
            ("CONTAINERS_STORAGE_CONF", "storage.conf"),
            ("CONTAINERS_REGISTRIES_CONF", "registries.conf"),
            ("CONTAINERS_REGISTRIES_CONF_DIR", "registries.conf.d"),
            ("REGISTRY_AUTH_FILE", "auth.json"),
            ("XDG_RUNTIME_DIR", "xdg"),
        ] {
            command.env(variable, self.sandbox.join(name));
        }
        command
    }
}

const fn driver(sandbox: &Sandbox) -> &'static str {
    if sandbox.has_overlay() {
        "overlay"
    } else {
        "vfs"
    }
}

fn settings(sandbox: &Sandbox) -> String {
    let directory = sandbox.path().display();
    format!(
        r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "none"
log_driver = "k8s-file"
[network]
network_config_dir = "{directory}/netns"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
volume_path = "{directory}/volumes"
hooks_dir = ["{directory}/hooks"]
image_copy_tmp_dir = "{directory}/tmp"
"#
    )
}
