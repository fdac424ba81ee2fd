//! Origins and edges, each with a directory of its own, that can be killed and started again where they were.
//!
//! Invariant: whatever a test does to a node, a file that has a digest for a name in its store hashes to it.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use outport_core::oci::digest::{Algorithm, Digest};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::layout::hash_file;
use crate::process::{Ended, Process};
use crate::s3::{self, S3Server};

/// What both kinds of node are made of.
#[derive(Debug)]
struct Node {
    role: &'static str,
    /// What the config says beside the addresses.
    config: String,
    sets: Vec<String>,
    /// Where it listens, once it did.
    addresses: Option<[SocketAddr; 2]>,
    directory: Arc<TempDir>,
    /// Where its blobs are, below the directory.
    blobs: &'static str,
    process: Option<Process>,
}

/// An origin.
#[derive(Debug)]
pub struct Origin(Node);

/// An origin to be started.
#[derive(Debug, Default)]
pub struct OriginBuilder {
    directory: Option<Arc<TempDir>>,
    database_url: Option<String>,
    location_url: Option<String>,
    sets: Vec<String>,
}

/// An edge.
#[derive(Debug)]
pub struct Edge(Node);

/// Counts the configs, so that none is written over that of a running node.
static STARTED: AtomicUsize = AtomicUsize::new(0);

// === impl Node ===

impl Node {
    async fn start(&mut self) {
        let [api, admin] = self
            .addresses
            .unwrap_or([SocketAddr::from(([127, 0, 0, 1], 0)); 2]);
        let config = format!(
            "listen = \"{api}\"\nadmin_listen = \"{admin}\"\n{}",
            self.config
        );
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let path = self
            .directory
            .path()
            .join(format!("{}-{number}.toml", self.role));
        fs::write(&path, config).unwrap();
        let mut args = vec!["--config".to_owned(), path.to_str().unwrap().to_owned()];
        for set in &self.sets {
            args.extend(["--set".to_owned(), set.clone()]);
        }
        let process = Process::start(self.role, &args, self.directory.path()).await;
        self.addresses = Some([process.address("api"), process.address("admin")]);
        self.process = Some(process);
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("the node runs")
    }

    fn client(&self) -> Client {
        Client::new(self.addresses.unwrap()[0])
    }

    fn end(&mut self, how: impl FnOnce(&mut Process)) {
        let mut process = self.process.take().expect("the node runs");
        how(&mut process);
    }

    fn blobs(&self) -> PathBuf {
        self.directory.path().join(self.blobs)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.take());
        if !std::thread::panicking() {
            let wrong = wrongly_named(&self.blobs());
            assert!(
                wrong.is_empty(),
                "these do not hash to their names: {wrong:?}"
            );
        }
    }
}

/// Returns the files below `<directory>/<algorithm>/` that do not hash to their names.
fn wrongly_named(directory: &Path) -> Vec<PathBuf> {
    let mut wrong = Vec::new();
    for algorithm in Algorithm::ALL {
        let Ok(folders) = fs::read_dir(directory.join(algorithm.as_str())) else {
            continue;
        };
        for folder in folders {
            for file in fs::read_dir(folder.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                let (digest, _) = hash_file(algorithm, &path);
                if path.file_name().unwrap().to_str() != Some(digest.hex().as_str()) {
                    wrong.push(path);
                }
            }
        }
    }
    wrong
}

// === impl Origin ===

impl Origin {
    /// Starts an origin with its defaults: `SQLite` and a directory.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Starts another origin over the same database and location.
    pub async fn start_beside(&self) -> Self {
        let mut node = Node {
            role: self.0.role,
            config: self.0.config.clone(),
            sets: self.0.sets.clone(),
            addresses: None,
            directory: Arc::clone(&self.0.directory),
            blobs: self.0.blobs,
            process: None,
        };
        node.start().await;
        Self(node)
    }

    /// Returns an origin to be started in another way than by default.
    pub fn builder() -> OriginBuilder {
        OriginBuilder::default()
    }

    /// Returns a client of its API.
    pub fn client(&self) -> Client {
        self.0.client()
    }

    /// Returns what `/readyz` says: its status, and why.
    pub async fn readiness(&self) -> (StatusCode, Value) {
        let admin = Client::new(self.0.addresses.unwrap()[1]);
        let mut open = admin.get("/readyz").open().await;
        let mut body = Vec::new();
        while let Some(piece) = open.next().await.unwrap() {
            body.extend_from_slice(&piece);
        }
        (open.head.status, serde_json::from_slice(&body).unwrap())
    }

    /// Returns where its API listens, also while it is away.
    pub fn address(&self) -> SocketAddr {
        self.0.addresses.unwrap()[0]
    }

    /// Returns the process.
    pub fn process(&self) -> &Process {
        self.0.process()
    }

    /// Returns where its files are.
    pub fn directory(&self) -> &Path {
        self.0.directory.path()
    }

    /// Returns the file of its database, by default.
    pub fn database(&self) -> PathBuf {
        self.directory().join("origin.db")
    }

    /// Returns where it keeps a blob, by default.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let folder = self.0.blobs().join(digest.algorithm().as_str());
        folder.join(&hex[..2]).join(&hex)
    }

    /// Ends it on the spot (`kill -9`).
    pub fn kill(&mut self) {
        self.0.end(Process::kill);
    }

    /// Stops it cleanly.
    pub fn stop(&mut self) {
        self.0.end(Process::stop);
    }

    /// Waits until it has ended, as it was asked to before.
    pub fn ended(&mut self) -> Ended {
        self.0.process.take().expect("the node runs").ended()
    }

    /// Starts it again, over the same files and at the same addresses.
    pub async fn start_again(&mut self) {
        self.0.start().await;
    }
}

// === impl OriginBuilder ===

impl OriginBuilder {
    /// Sets the database.
    #[must_use]
    pub fn database(mut self, url: impl Into<String>) -> Self {
        self.database_url = Some(url.into());
        self
    }

    /// Sets the location.
    #[must_use]
    pub fn location(mut self, url: impl Into<String>) -> Self {
        self.location_url = Some(url.into());
        self
    }

    /// Sets the location to a bucket.
    #[must_use]
    pub fn bucket(self, server: &S3Server, name: &str) -> Self {
        let settings = server.settings(s3::SECRET).into_iter();
        settings.fold(self.location(format!("s3://{name}/eu")), Self::set)
    }

    /// Sets a key on the command line, `key=value`.
    #[must_use]
    pub fn set(mut self, set: impl Into<String>) -> Self {
        self.sets.push(set.into());
        self
    }

    /// Starts it.
    pub async fn start(self) -> Origin {
        let Self {
            directory,
            database_url,
            location_url,
            sets,
        } = self;
        let directory = directory.unwrap_or_else(|| Arc::new(TempDir::new().unwrap()));
        let path = directory.path().display();
        let database_url = database_url.unwrap_or_else(|| format!("sqlite:{path}/origin.db"));
        let location_url = location_url.unwrap_or_else(|| format!("file:{path}/location"));
        let mut config = String::new();
        write!(
            config,
            "[database]\nurl = \"{database_url}\"\n[location]\nurl = \"{location_url}\"\n\
             [cache]\npath = \"{path}/upstreams\"\n[upstreams]\npublic = []\n"
        )
        .unwrap();
        let mut node = Node {
            role: "origin",
            config,
            sets,
            addresses: None,
            directory,
            blobs: "location/blobs",
            process: None,
        };
        node.start().await;
        Origin(node)
    }
}

// === impl Edge ===

impl Edge {
    /// Starts an edge in front of an origin.
    pub async fn start(origin: &Origin) -> Self {
        Self::start_at(origin.address()).await
    }

    /// Starts an edge that finds its origin at an address.
    pub async fn start_at(origin: SocketAddr) -> Self {
        Self::start_in(Arc::new(TempDir::new().unwrap()), origin, &[]).await
    }

    /// Starts an edge in a directory, with more settings, `key=value`.
    pub async fn start_in(directory: Arc<TempDir>, origin: SocketAddr, sets: &[&str]) -> Self {
        let sets: Vec<_> = sets.iter().map(|&set| set.to_owned()).collect();
        Self::start_all(directory, &format!("http://{origin}"), &sets).await
    }

    /// Starts an edge in front of the origin at a URL, with more keys set on the command line, `key=value`.
    pub async fn start_with(origin: &str, sets: &[String]) -> Self {
        Self::start_all(Arc::new(TempDir::new().unwrap()), origin, sets).await
    }

    async fn start_all(directory: Arc<TempDir>, origin: &str, sets: &[String]) -> Self {
        let path = directory.path().display();
        let config = format!(
            "name = \"eu-1\"\n[cache]\npath = \"{path}/cache\"\n[origin]\nurls = [\"{origin}\"]\n"
        );
        let mut node = Node {
            role: "edge",
            config,
            sets: sets.to_vec(),
            addresses: None,
            directory,
            blobs: "cache/blobs",
            process: None,
        };
        node.start().await;
        Self(node)
    }

    /// Returns a client of its API.
    pub fn client(&self) -> Client {
        self.0.client()
    }

    /// Returns where its API listens, also while it is away.
    pub fn address(&self) -> SocketAddr {
        self.0.addresses.unwrap()[0]
    }

    /// Returns the process.
    pub fn process(&self) -> &Process {
        self.0.process()
    }

    /// Returns where its files are.
    pub fn directory(&self) -> &Path {
        self.0.directory.path()
    }

    /// Ends it on the spot (`kill -9`).
    pub fn kill(&mut self) {
        self.0.end(Process::kill);
    }

    /// Stops it cleanly.
    pub fn stop(&mut self) {
        self.0.end(Process::stop);
    }

    /// Waits until it has ended, as was seen to.
    pub fn ended(&mut self) -> Ended {
        self.0.process.take().expect("the node runs").ended()
    }

    /// Starts it again, over the same files and at the same addresses.
    pub async fn start_again(&mut self) {
        self.0.start().await;
    }
}
