//! An origin that does as it is told, and remembers what it was asked.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, IF_NONE_MATCH, RANGE,
};
use http::{Method, Request, Response, StatusCode};
use outport_core::body::Body;
use outport_core::net::respond::error_response;
use outport_core::net::serve::{self, Server};
use outport_core::oci::digest::{Algorithm, Digest};
use outport_core::oci::error::ErrorCode;
use outport_core::oci::range::{Selection, content_range, select_ranges};
use outport_core::tasks::Tasks;
use outport_core::telemetry::Metrics;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// What tests run beside the edge.
pub(super) static TASKS: LazyLock<Tasks> = LazyLock::new(Tasks::new);

/// An origin that does as it is told.
pub(super) struct ScriptedOrigin {
    pub(super) address: SocketAddr,
    state: Mutex<State>,
    /// How many bytes of blobs may go out, counted in each answer.
    allowed: watch::Sender<u64>,
    down: CancellationToken,
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Bytes>,
    manifests: HashMap<String, Bytes>,
    /// What goes wrong with the next blobs that are fetched.
    faults: VecDeque<Fault>,
    /// What goes wrong with everything that is asked for afterwards: a status, or silence.
    always: Option<Fault>,
    /// What pushes are answered with, when they are not taken.
    push_status: Option<u16>,
    /// The requests that are answered only when told to.
    held: Vec<(Method, String, Holder)>,
    seen: Vec<Seen>,
}

/// The origin's end of an answer that is held back.
struct Holder {
    ready: oneshot::Sender<()>,
    release: oneshot::Receiver<()>,
}

/// An answer that is held back until this is released.
pub(super) struct Held {
    ready: oneshot::Receiver<()>,
    release: oneshot::Sender<()>,
}

/// What goes wrong with one answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The connection breaks after so many bytes.
    DieAt(usize),
    /// The bit of one byte is flipped.
    FlipAt(usize),
    /// The bit of the first byte is flipped, and the connection breaks after so many.
    FlipAndDieAt(usize),
    /// So many bytes are left out at the end, and not promised.
    Truncate(usize),
    /// So many bytes are added, and promised.
    Extend(usize),
    /// An answer of this status instead.
    Status(u16),
    /// A page that says sorry, with a 200.
    Sorry,
    /// No answer at all.
    Silence,
    /// All of it, whatever range is asked for.
    Whole,
    /// So many bytes more are promised than there are.
    Promise(usize),
}

/// A request that came in.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) range: Option<String>,
    pub(super) headers: http::HeaderMap,
}

pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

impl State {
    /// Whether there is anything in a repository, by its path.
    fn knows(&self, repo: &str) -> bool {
        let mut paths = self.manifests.keys().chain(self.blobs.keys());
        paths.any(|path| path.starts_with(&format!("{repo}/")))
    }
}

impl ScriptedOrigin {
    pub(super) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            state: Mutex::default(),
            allowed: watch::Sender::new(u64::MAX),
            down: CancellationToken::new(),
        });
        let config = serve::Config {
            drain_timeout: std::time::Duration::ZERO,
            ..serve::Config::default()
        };
        let server = Server::new("origin", config, &Metrics::new());
        let (service, down) = (Arc::clone(&origin), origin.down.clone());
        drop(TASKS.spawn("origin", async move {
            let call = move |request| {
                let origin = Arc::clone(&service);
                async move { origin.answer(request).await }
            };
            server.run(listener, call, down).await;
        }));
        origin
    }

    /// Goes away.
    pub(super) fn stop(&self) {
        self.down.cancel();
    }

    pub(super) fn put_blob(&self, repo: &str, content: &Bytes) {
        let path = super::blob_path(repo, content);
        self.state.lock().blobs.insert(path, content.clone());
    }

    /// Puts a manifest under a tag and its digest.
    pub(super) fn put_manifest(&self, repo: &str, tag: &str, content: &Bytes) {
        let mut state = self.state.lock();
        for reference in [tag.to_owned(), super::sha256(content).to_string()] {
            let path = format!("/v2/{repo}/manifests/{reference}");
            state.manifests.insert(path, content.clone());
        }
    }

    pub(super) fn fail_next(&self, fault: Fault) {
        self.state.lock().faults.push_back(fault);
    }

    /// Has all questions go wrong once the next faults have been seen to.
    pub(super) fn fail_always(&self, fault: Fault) {
        self.state.lock().always = Some(fault);
    }

    /// Returns what goes wrong with everything now.
    fn fails_always(&self) -> Option<Fault> {
        let state = self.state.lock();
        state.always.filter(|_| state.faults.is_empty())
    }

    pub(super) fn fail_pushes(&self, status: u16) {
        self.state.lock().push_status = Some(status);
    }

    /// Holds back the answer to the next such request, which is from the moment in which the request came.
    pub(super) fn hold(&self, method: Method, path: &str) -> Held {
        let (ready_tx, ready) = oneshot::channel();
        let (release, release_rx) = oneshot::channel();
        let holder = Holder {
            ready: ready_tx,
            release: release_rx,
        };
        let mut state = self.state.lock();
        state.held.push((method, path.to_owned(), holder));
        Held { ready, release }
    }

    fn holder(&self, method: &Method, path: &str) -> Option<Holder> {
        let held = &mut self.state.lock().held;
        let is_meant = |(held_method, held_path, _): &(Method, String, Holder)| {
            held_method == method && held_path == path
        };
        let index = held.iter().position(is_meant)?;
        Some(held.remove(index).2)
    }

    fn is_to_be_silent(&self) -> bool {
        let faults = &mut self.state.lock().faults;
        let is_silent = matches!(faults.front(), Some(Fault::Silence));
        if is_silent {
            faults.pop_front();
        }
        is_silent
    }

    /// Lets no more than so many bytes of each blob out, until told otherwise.
    pub(super) fn allow(&self, bytes: u64) {
        self.allowed.send_replace(bytes);
    }

    /// Returns the requests with this method whose path has `part` in it.
    pub(super) fn seen(&self, method: &Method, part: &str) -> Vec<Seen> {
        let state = self.state.lock();
        let is_meant = |seen: &&Seen| seen.method == method && seen.path.contains(part);
        state.seen.iter().filter(is_meant).cloned().collect()
    }

    pub(super) fn seen_all(&self) -> usize {
        self.state.lock().seen.len()
    }

    async fn answer(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let holder = self.holder(request.method(), request.uri().path());
        let response = self.answer_at_once(request).await;
        if let Some(Holder { ready, release }) = holder {
            ready.send(()).ok();
            release.await.ok();
        }
        response
    }

    async fn answer_at_once(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let header = |name| Some(head.headers.get(name)?.to_str().unwrap().to_owned());
        let (range, none_match) = (header(RANGE), header(IF_NONE_MATCH));
        self.state.lock().seen.push(Seen {
            method: head.method.clone(),
            path: path.clone(),
            range: range.clone(),
            headers: head.headers.clone(),
        });
        match (head.method.clone(), self.fails_always()) {
            (Method::GET | Method::HEAD, Some(Fault::Silence)) => std::future::pending().await,
            (Method::GET | Method::HEAD, Some(Fault::Status(status))) => status_answer(status),
            (Method::GET | Method::HEAD, _) => {
                let is_get = head.method == Method::GET;
                if is_get && self.is_to_be_silent() {
                    std::future::pending::<()>().await;
                }
                self.fetch(&path, is_get, range, none_match.as_deref())
            }
            (Method::PUT | Method::POST | Method::PATCH, _) => {
                let status = self.state.lock().push_status;
                if let Some(status) = status {
                    return status_answer(status);
                }
                let body = body.collect_limited(1 << 30).await.unwrap();
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::CREATED;
                let digest = Algorithm::Sha256.digest(&body).to_string();
                let headers = response.headers_mut();
                headers.insert("docker-content-digest", digest.parse().unwrap());
                for tag in query
                    .split('&')
                    .filter_map(|pair| pair.strip_prefix("tag="))
                {
                    headers.append("oci-tag", tag.parse().unwrap());
                }
                if path.contains("/manifests/") {
                    self.state.lock().manifests.insert(path, body);
                }
                headers.insert(
                    "location",
                    HeaderValue::from_static("/v2/a/blobs/uploads/x?y=z"),
                );
                response
            }
            _ => {
                let mut state = self.state.lock();
                state.manifests.remove(&path);
                state.blobs.remove(&path);
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::ACCEPTED;
                response
            }
        }
    }

    fn fetch(
        self: Arc<Self>,
        path: &str,
        is_get: bool,
        range: Option<String>,
        none_match: Option<&str>,
    ) -> Response<Body> {
        let mut state = self.state.lock();
        if let Some(repo) = path.strip_suffix("/tags/list") {
            return if state.knows(repo) {
                Response::new(Body::from("{\"tags\": []}"))
            } else {
                error_response(&ErrorCode::NameUnknown.into())
            };
        }
        if let Some(manifest) = state.manifests.get(path) {
            return manifest_answer(manifest, none_match);
        }
        let Some(blob) = state.blobs.get(path).cloned() else {
            let repo = ["/manifests/", "/blobs/"]
                .iter()
                .find_map(|kind| path.split_once(kind));
            let code = match repo {
                Some((repo, _)) if state.knows(repo) => ErrorCode::ManifestUnknown,
                _ => ErrorCode::NameUnknown,
            };
            return error_response(&code.into());
        };
        let fault = if is_get {
            state.faults.pop_front()
        } else {
            None
        };
        drop(state);
        let (blob, die_at) = match fault {
            // Silence was kept before.
            None | Some(Fault::Silence) => (blob, None),
            Some(Fault::Whole) => return self.blob_answer(&blob, None, is_get, None),
            Some(Fault::Promise(bytes)) => {
                let length = blob.len();
                let long = [&blob[..], &vec![0; bytes]].concat();
                (long.into(), Some(length))
            }
            Some(Fault::DieAt(at)) => (blob, Some(at)),
            Some(Fault::FlipAt(at)) => (flipped(&blob, at), None),
            Some(Fault::FlipAndDieAt(at)) => (flipped(&blob, 0), Some(at)),
            Some(Fault::Truncate(bytes)) => (blob.slice(..blob.len() - bytes), None),
            Some(Fault::Extend(bytes)) => {
                let long = [&blob[..], &vec![0; bytes]].concat();
                (long.into(), None)
            }
            Some(Fault::Status(status)) => return status_answer(status),
            Some(Fault::Sorry) => (Bytes::from_static(b"<html>sorry</html>"), None),
        };
        self.blob_answer(&blob, die_at, is_get, range)
    }

    fn blob_answer(
        self: Arc<Self>,
        blob: &Bytes,
        die_at: Option<usize>,
        is_get: bool,
        range: Option<String>,
    ) -> Response<Body> {
        let size = blob.len() as u64;
        let mut response = Response::new(Body::empty());
        let mut wanted = 0..size;
        if let Some(Selection::Part(part)) = range.map(|range| select_ranges(&range, size)) {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let place = content_range(&part, size).parse().unwrap();
            response.headers_mut().insert(CONTENT_RANGE, place);
            wanted = part;
        }
        let length = HeaderValue::from(wanted.end - wanted.start);
        response.headers_mut().insert(CONTENT_LENGTH, length);
        if is_get {
            let end = usize::try_from(wanted.end).unwrap();
            let piece = blob.slice(usize::try_from(wanted.start).unwrap()..end);
            *response.body_mut() = Body::stream(self.pieces(piece, die_at));
        }
        response
    }

    /// Gives bytes as they are allowed.
    fn pieces(
        self: Arc<Self>,
        rest: Bytes,
        die_at: Option<usize>,
    ) -> impl Stream<Item = io::Result<Bytes>> {
        let allowed = self.allowed.subscribe();
        stream::try_unfold(
            (rest, 0, allowed),
            move |(mut rest, sent, mut allowed)| async move {
                if rest.is_empty() {
                    return Ok(None);
                }
                if die_at.is_some_and(|at| sent >= at) {
                    // Lets the server send what it has.
                    tokio::task::yield_now().await;
                    return Err(io::Error::other("told to die"));
                }
                let mut length = rest.len().min(64 << 10);
                if let Some(at) = die_at {
                    length = length.min(at - sent);
                }
                let until = *allowed
                    .wait_for(|allowed| *allowed > sent as u64)
                    .await
                    .unwrap();
                length = length.min(usize::try_from(until - sent as u64).unwrap_or(usize::MAX));
                let piece = rest.split_to(length);
                Ok(Some((piece, (rest, sent + length, allowed))))
            },
        )
    }
}

impl Held {
    /// Waits until the origin has the answer, and nobody else does.
    pub(super) async fn ready(&mut self) {
        let ready = tokio::time::timeout(super::PATIENCE, &mut self.ready);
        ready.await.unwrap().unwrap();
    }

    /// Lets the answer go.
    pub(super) fn release(self) {
        self.release.send(()).unwrap();
    }
}

impl Drop for ScriptedOrigin {
    fn drop(&mut self) {
        self.stop();
    }
}

fn flipped(blob: &[u8], at: usize) -> Bytes {
    let mut wrong = blob.to_vec();
    wrong[at] ^= 1;
    wrong.into()
}

fn status_answer(status: u16) -> Response<Body> {
    let mut response = error_response(&ErrorCode::Unavailable.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn manifest_answer(content: &Bytes, none_match: Option<&str>) -> Response<Body> {
    let digest: Digest = super::sha256(content);
    let mut response = Response::new(Body::empty());
    if none_match == Some(&format!("\"{digest}\"")) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    *response.body_mut() = content.clone().into();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MANIFEST_TYPE));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
    headers.insert("docker-content-digest", digest.to_string().parse().unwrap());
    response
}
