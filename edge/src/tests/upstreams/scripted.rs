//! An upstream that behaves as it is told, and remembers what it was asked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LINK, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Method, Request, Response, StatusCode};
use outport_core::body::Body;
use outport_core::net::serve::{self, Server};
use outport_core::telemetry::Metrics;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::tests::origin::{MANIFEST_TYPE, TASKS};
use crate::tests::sha256;

/// A registry of somebody else.
pub(in crate::tests) struct ScriptedUpstream {
    pub(in crate::tests) address: SocketAddr,
    shared: Arc<Mutex<State>>,
    down: CancellationToken,
}

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tests) enum Behaviour {
    /// As it should.
    Well,
    /// With this, whatever is asked.
    Status(u16),
    /// With a page that says sorry.
    Sorry,
    /// Not at all.
    Silent,
    /// By breaking the connection off.
    Reset,
    /// By asking for a token, which its endpoint then does not give.
    NoToken(u16),
}

/// What something is answered with, by its method.
type Script = Arc<dyn Fn(&Method) -> Response<Body> + Send + Sync>;

#[derive(Default)]
struct State {
    /// What is asked for with this in its path is answered so.
    scripts: Vec<(String, Script)>,
    /// What is asked for with this in its path is answered so late.
    delays: Vec<(String, Duration)>,
    behaviour: Option<Behaviour>,
    /// By path: type, content, and where it goes on.
    content: HashMap<String, (&'static str, Bytes, Option<String>)>,
    /// Where tokens are to be had, if they are asked for.
    realm: Option<String>,
    redirect: Option<String>,
    /// What is said of the quota: how many pulls it has, and how many are left.
    quota: Option<(u64, u64)>,
    /// What HEAD is answered with.
    head: Option<u16>,
    /// Tells that a request is in, and waits for its answer's turn.
    hold: Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>,
    seen: Vec<Seen>,
}

/// A request that came in.
#[derive(Clone, Debug)]
pub(in crate::tests) struct Seen {
    method: String,
    pub(in crate::tests) target: String,
    pub(in crate::tests) authorization: Option<String>,
    /// Whether it got what it asked for.
    is_let_in: bool,
}

const TOKEN: &str = "Bearer t0ken";

impl State {
    /// Returns how late, and with what, something is answered.
    fn told(&self, target: &str) -> (Option<Duration>, Option<Script>) {
        let mut delays = self.delays.iter();
        let mut scripts = self.scripts.iter();
        let delay = delays.find(|(part, _)| target.contains(part));
        let script = scripts.find(|(part, _)| target.contains(part));
        (
            delay.map(|(_, delay)| *delay),
            script.map(|(_, script)| Arc::clone(script)),
        )
    }
}

impl Behaviour {
    /// All but the good one.
    pub(in crate::tests) const BAD: [Self; 13] = [
        Self::Silent,
        Self::Reset,
        Self::Sorry,
        Self::Status(401),
        Self::Status(403),
        Self::Status(429),
        Self::Status(500),
        Self::Status(502),
        Self::Status(503),
        Self::Status(504),
        Self::NoToken(401),
        Self::NoToken(500),
        Self::NoToken(0),
    ];

    /// Whether it is a no, and not nothing.
    pub(in crate::tests) const fn is_no(self) -> bool {
        matches!(self, Self::Status(401 | 403) | Self::NoToken(401))
    }
}

impl ScriptedUpstream {
    pub(in crate::tests) async fn start() -> Self {
        Self::start_at("127.0.0.1").await
    }

    pub(in crate::tests) async fn start_at(host: &str) -> Self {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(State::default()));
        let down = CancellationToken::new();
        let config = serve::Config {
            drain_timeout: Duration::ZERO,
            ..serve::Config::default()
        };
        let server = Server::new("upstream", config, &Metrics::new());
        let (state, end) = (Arc::clone(&shared), down.clone());
        drop(TASKS.spawn("upstream", async move {
            let call = move |request| answer(Arc::clone(&state), request);
            server.run(listener, call, end).await;
        }));
        Self {
            address,
            shared,
            down,
        }
    }

    pub(in crate::tests) fn behave(&self, behaviour: Behaviour) {
        self.shared.lock().behaviour = Some(behaviour);
    }

    /// Lets nobody in without a token, to be had at `realm`, or else here.
    pub(in crate::tests) fn ask_for_tokens(&self, realm: Option<&str>) {
        let own = format!("http://{}/token", self.address);
        self.shared.lock().realm = Some(realm.map_or(own, str::to_owned));
    }

    /// Answers what has `part` in its path so from now on.
    pub(in crate::tests) fn script(
        &self,
        part: &str,
        answer: impl Fn(&Method) -> Response<Body> + Send + Sync + 'static,
    ) {
        let script = (part.to_owned(), Arc::new(answer) as Script);
        self.shared.lock().scripts.insert(0, script);
    }

    /// Answers what has `part` in its path so late.
    pub(in crate::tests) fn delay(&self, part: &str, time: Duration) {
        self.shared.lock().delays.push((part.to_owned(), time));
    }

    pub(in crate::tests) fn redirect_blobs(&self, target: &str) {
        self.shared.lock().redirect = Some(target.to_owned());
    }

    /// Answers HEAD so, whatever is asked.
    pub(in crate::tests) fn refuse_heads(&self, status: u16) {
        self.shared.lock().head = Some(status);
    }

    /// Holds the answer to the next request, which is made when it comes in; returns what tells that it is in, and what lets
    /// the answer go.
    pub(in crate::tests) fn hold_next(&self) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let ((in_sender, is_in), (go, going)) = (oneshot::channel(), oneshot::channel());
        self.shared.lock().hold = Some((in_sender, going));
        (is_in, go)
    }

    /// Says with each answer how many pulls there are, and how many are left.
    pub(in crate::tests) fn tell_quota(&self, limit: u64, remaining: u64) {
        self.shared.lock().quota = Some((limit, remaining));
    }

    pub(in crate::tests) fn put_manifest(&self, repo: &str, tag: &str, content: &Bytes) {
        for reference in [tag.to_owned(), sha256(content).to_string()] {
            let path = format!("/v2/{repo}/manifests/{reference}");
            self.put(path, MANIFEST_TYPE, content, None);
        }
    }

    pub(in crate::tests) fn put_blob(&self, repo: &str, content: &Bytes) {
        let path = format!("/v2/{repo}/blobs/{}", sha256(content));
        self.put(path, "application/octet-stream", content, None);
    }

    pub(in crate::tests) fn put_list(&self, path: &str, content: &Bytes, link: &str) {
        self.put(path.to_owned(), "application/json", content, Some(link));
    }

    fn put(&self, path: String, ty: &'static str, content: &Bytes, link: Option<&str>) {
        let entry = (ty, content.clone(), link.map(str::to_owned));
        self.shared.lock().content.insert(path, entry);
    }

    /// Returns the requests that have `part` in them.
    pub(in crate::tests) fn seen(&self, part: &str) -> Vec<Seen> {
        let state = self.shared.lock();
        let seen = state.seen.iter();
        seen.filter(|seen| seen.target.contains(part))
            .cloned()
            .collect()
    }

    pub(in crate::tests) fn count(&self, method: &str, part: &str) -> usize {
        let seen = self.seen(part).into_iter();
        seen.filter(|seen| seen.method == method).count()
    }

    /// Returns how many requests got what they asked for.
    pub(in crate::tests) fn counted_let_in(&self, part: &str) -> usize {
        let seen = self.seen(part).into_iter();
        seen.filter(|seen| seen.is_let_in).count()
    }
}

impl Drop for ScriptedUpstream {
    fn drop(&mut self) {
        self.down.cancel();
    }
}

fn status(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Body>) -> Response<Body> {
    let target = request.uri().to_string();
    let authorization = request.headers().get(AUTHORIZATION);
    let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
    let (behaviour, realm) = {
        let state = state.lock();
        (
            state.behaviour.unwrap_or(Behaviour::Well),
            state.realm.clone(),
        )
    };
    let is_token = target.starts_with("/token");
    let needs_token = realm.is_some() && !is_token && authorization.as_deref() != Some(TOKEN);
    let is_let_in = behaviour == Behaviour::Well && !needs_token;
    state.lock().seen.push(Seen {
        method: request.method().to_string(),
        target: target.clone(),
        authorization,
        is_let_in,
    });
    if behaviour != Behaviour::Well {
        return badly(behaviour, is_token, realm.as_deref()).await;
    }
    if is_token {
        return Response::new(Body::from(r#"{"token": "t0ken", "expires_in": 300}"#));
    }
    let (delay, script) = state.lock().told(&target);
    if let Some(delay) = delay {
        tokio::time::sleep(delay).await;
    }
    if let Some(script) = script {
        return script(request.method());
    }
    let head = state.lock().head;
    if let Some(code) = head
        && request.method() == Method::HEAD
    {
        return status(code);
    }
    let answer = match realm {
        Some(realm) if needs_token => challenge(&realm),
        _ => content(&state.lock(), request.uri().path()),
    };
    let hold = state.lock().hold.take();
    if let Some((is_in, going)) = hold {
        is_in.send(()).unwrap();
        going.await.ok();
    }
    answer
}

/// Answers as it should not.
async fn badly(behaviour: Behaviour, is_token: bool, realm: Option<&str>) -> Response<Body> {
    match behaviour {
        Behaviour::NoToken(0) if is_token => std::future::pending().await,
        Behaviour::NoToken(code) if is_token => status(code),
        Behaviour::NoToken(_) => challenge(realm.unwrap_or_default()),
        Behaviour::Reset => {
            let broken = futures_util::stream::iter([Err(std::io::Error::other("told to"))]);
            Response::new(Body::stream(broken))
        }
        Behaviour::Status(code) => {
            let mut response = status(code);
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, "7".parse().unwrap());
            response
        }
        Behaviour::Sorry => {
            let mut response = Response::new(Body::from("<html>sorry</html>"));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, "text/html".parse().unwrap());
            headers.insert(CONTENT_LENGTH, 18.into());
            response
        }
        Behaviour::Silent | Behaviour::Well => std::future::pending().await,
    }
}

fn challenge(realm: &str) -> Response<Body> {
    let mut response = status(401);
    let asked = format!("Bearer realm=\"{realm}\",service=\"registry\"");
    let headers = response.headers_mut();
    headers.insert(WWW_AUTHENTICATE, asked.parse().unwrap());
    response
}

fn content(state: &State, path: &str) -> Response<Body> {
    if let Some(target) = &state.redirect
        && path.contains("/blobs/")
    {
        let mut response = status(307);
        let target = target.parse().unwrap();
        response.headers_mut().insert(LOCATION, target);
        return response;
    }
    let Some((ty, content, link)) = state.content.get(path) else {
        return status(404);
    };
    let mut response = Response::new(Body::from(content.clone()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, ty.parse().unwrap());
    headers.insert(CONTENT_LENGTH, content.len().into());
    let digest = sha256(content).to_string();
    headers.insert("docker-content-digest", digest.parse().unwrap());
    if let Some((limit, remaining)) = state.quota {
        for (name, pulls) in [
            ("ratelimit-limit", limit),
            ("ratelimit-remaining", remaining),
        ] {
            headers.insert(name, format!("{pulls};w=21600").parse().unwrap());
        }
    }
    if let Some(link) = link {
        headers.insert(LINK, link.parse().unwrap());
    }
    response
}
