//! The whole edge over real sockets, in front of an origin that does as it is told.

mod abandoned;
mod changes;
mod default_upstream;
mod downloads;
mod eviction;
mod failover;
mod faults;
mod fresh;
mod kept_tags;
mod names;
mod odd_upstreams;
mod operations;
mod origin;
mod pulls;
mod readers;
mod registries;
mod rot;
mod siblings;
mod through_origin;
mod unreachable;
mod upstreams;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::RANGE;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use outport_core::breaker::BreakerConfig;
use outport_core::config::Sources;
use outport_core::oci::digest::{Algorithm, Digest};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::config::Config;
use crate::source::freshness::Policy;
use crate::source::{OriginConfig, TagConfig};
use crate::{Edge, Listeners, Seams};
use origin::ScriptedOrigin;

/// An edge that runs.
struct RunningEdge {
    address: SocketAddr,
    /// Where operators connect.
    admin: SocketAddr,
    seams: Seams,
    cache: Cache,
    shutdown: CancellationToken,
    run: JoinHandle<()>,
}

/// An answer that was read to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// The body, or none when it broke off.
    body: Option<Bytes>,
}

/// An answer whose body has not been read.
struct Begun {
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    connection: JoinHandle<()>,
}

/// Returns how somebody is asked who is not given up.
pub(crate) const fn questions() -> OriginConfig {
    OriginConfig {
        answer_timeout: Duration::from_secs(9),
        manifest_bytes_max: 1 << 20,
        answers_bytes_max: 32 << 20,
        breaker: BreakerConfig {
            failures: 99,
            min_rest: Duration::ZERO,
            max_rest: Duration::ZERO,
        },
        tags: TagConfig {
            policy: Policy::good_for(Duration::ZERO),
            stale_after: Duration::from_secs(9),
            question_timeout: Duration::from_secs(9),
        },
    }
}

/// How long a test waits for what should happen at once.
const PATIENCE: Duration = Duration::from_mins(1);

impl RunningEdge {
    /// Starts an edge in front of `origin`, with more settings.
    async fn start(cache: &Path, origin: SocketAddr, set: &[&str]) -> Self {
        let public = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(public, cache, origin, set).await
    }

    /// As [`Self::start`], with the listener for clients.
    async fn start_on(public: TcpListener, cache: &Path, origin: SocketAddr, set: &[&str]) -> Self {
        let mut all = vec![
            format!("cache.path={}", cache.display()),
            format!("origin.urls=http://{origin}"),
            "downloads.retry_pause=1ms".to_owned(),
            // So that what the origin is asked does not depend on the time that a test takes.
            "origin.tags_fresh_for=0s".to_owned(),
            "server.drain_timeout=1s".to_owned(),
        ];
        all.extend(set.iter().map(|&set| set.to_owned()));
        let sources = Sources {
            file: None,
            env: &[],
            set: &all,
            read_file: &|path| std::fs::read_to_string(path),
        };
        let config = outport_core::config::read(sources, Config::read)
            .unwrap()
            .config;
        let seams = Seams::default();
        let edge = Edge::build(config, seams.clone()).await.unwrap();
        let cache = edge.pulls.cache().clone();
        let address = public.local_addr().unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin_address = admin.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let run = edge.run(Listeners { public, admin }, shutdown.clone());
        // Not one of its own tasks, for which it waits.
        let run = origin::TASKS.spawn("edge", run);
        Self {
            address,
            admin: admin_address,
            seams,
            cache,
            shutdown,
            run,
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        // It ends when nobody holds that any more.
        drop(self.cache);
        tokio::time::timeout(PATIENCE, self.run)
            .await
            .unwrap()
            .unwrap();
    }

    async fn begin(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Begun {
        self.try_begin(method, path, headers).await.unwrap()
    }

    /// Sends a request; fails when the connection breaks before there is an answer.
    async fn try_begin(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> hyper::Result<Begun> {
        self.try_send(method, path, headers, Bytes::new()).await
    }

    async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> hyper::Result<Begun> {
        self.try_send_to(self.address, method, path, (headers, body))
            .await
    }

    /// Asks as an operator does.
    async fn operate(&self, method: Method, path: &str) -> Answer {
        let nothing = (&[][..], Bytes::new());
        let sent = self.try_send_to(self.admin, method, path, nothing);
        sent.await.unwrap().finish().await
    }

    async fn try_send_to(
        &self,
        address: SocketAddr,
        method: Method,
        path: &str,
        (headers, body): (&[(&str, &str)], Bytes),
    ) -> hyper::Result<Begun> {
        let stream = TcpStream::connect(address).await.unwrap();
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let connection = origin::TASKS.spawn("client", async {
            connection.await.ok();
        });
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "edge");
        }
        let request = request.body(Full::new(body));
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request.unwrap()))
            .await
            .unwrap()?;
        let (head, body) = response.into_parts();
        Ok(Begun {
            status: head.status,
            headers: head.headers,
            body,
            connection,
        })
    }

    async fn get(&self, path: &str) -> Answer {
        self.begin(Method::GET, path, &[]).await.finish().await
    }

    /// Pushes a manifest.
    async fn put(&self, path: &str, content_type: &str, content: &Bytes) -> Begun {
        let headers = [("content-type", content_type)];
        let sent = self.try_send(Method::PUT, path, &headers, content.clone());
        sent.await.unwrap()
    }

    async fn delete(&self, path: &str) {
        let deleted = self.begin(Method::DELETE, path, &[]).await;
        assert_eq!(deleted.finish().await.status, 202);
    }

    async fn head(&self, path: &str) -> Answer {
        self.begin(Method::HEAD, path, &[]).await.finish().await
    }

    async fn get_range(&self, path: &str, range: &str) -> Answer {
        let headers = [(RANGE.as_str(), range)];
        self.begin(Method::GET, path, &headers).await.finish().await
    }

    /// Waits until all downloads have ended, so that what they kept can be seen.
    async fn settle(&self) {
        let ended = async {
            while self.metric("outport_edge_downloads_running") != Some(0.0) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.unwrap();
    }

    /// Returns the value of a metric, by its name and labels.
    fn metric(&self, name: &str) -> Option<f64> {
        let text = self.seams.metrics.encode().unwrap();
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

impl Begun {
    /// Reads some bytes, and no more.
    async fn some(&mut self) -> Bytes {
        let frame = tokio::time::timeout(PATIENCE, self.body.frame());
        let frame = frame.await.unwrap().unwrap().unwrap();
        frame.into_data().unwrap()
    }

    async fn finish(self) -> Answer {
        let body = tokio::time::timeout(PATIENCE, self.body.collect()).await;
        Answer {
            status: self.status,
            headers: self.headers,
            body: body.unwrap().ok().map(http_body_util::Collected::to_bytes),
        }
    }

    /// Hangs up.
    fn leave(self) {
        drop(self.body);
        self.connection.abort();
    }
}

impl Answer {
    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    #[track_caller]
    fn is(&self, status: u16, body: &[u8], served: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let found = self.body.as_ref().expect("the body broke off");
        assert!(found == body, "{} bytes of {}", found.len(), body.len());
        let cache_status = format!("outport-edge-1; {served}");
        assert_eq!(self.header("cache-status"), cache_status);
    }
}

/// Returns bytes that differ everywhere.
fn content(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

fn sha256(content: &[u8]) -> Digest {
    Algorithm::Sha256.digest(content)
}

fn blob_path(repo: &str, content: &[u8]) -> String {
    format!("/v2/{repo}/blobs/{}", sha256(content))
}

/// An origin, and an edge in front of it with an empty cache.
struct Rig {
    origin: Arc<ScriptedOrigin>,
    edge: RunningEdge,
    cache: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(set: &[&str]) -> Self {
        let origin = ScriptedOrigin::start().await;
        let cache = tempfile::tempdir().unwrap();
        let edge = RunningEdge::start(cache.path(), origin.address, set).await;
        Self {
            origin,
            edge,
            cache,
        }
    }

    /// Returns where a blob is on the disk, if it is cached.
    fn cached_file(&self, blob: &[u8]) -> PathBuf {
        let hex = sha256(blob).hex();
        let folder = self.cache.path().join("blobs/sha256").join(&hex[..2]);
        folder.join(hex)
    }
}
