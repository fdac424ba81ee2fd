//! A token server, as registries have one (distribution's token specification): it lets one user in, and signs what
//! `docker-registry` believes.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, Response, StatusCode};
use outport_core::body::Body;
use outport_core::net::serve::{Config, Server};
use outport_core::net::tls::{Files, Texts, Tls};
use outport_core::telemetry::Metrics;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::registry::{PASSWORD, USER};
use crate::tls::Certificate;

/// A running token server, under TLS by the certificate that it signs with; it stops when this is dropped.
#[derive(Debug)]
pub struct TokenServer {
    address: SocketAddr,
    granted: Arc<Mutex<Vec<String>>>,
    down: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// Who says what is in a token, and to whom.
pub const ISSUER: &str = "tokens";
/// See [`ISSUER`].
pub const SERVICE: &str = "foreign";

/// What tokens are signed with.
struct Signer {
    certificate: Arc<Certificate>,
    /// The certificate, as a token's header has it.
    der: String,
}

// === impl TokenServer ===

impl TokenServer {
    /// Starts one on a thread of its own: tests wait for clients without letting others run.
    pub fn start(certificate: &Arc<Certificate>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (granted, down) = (Arc::new(Mutex::default()), CancellationToken::new());
        let signer = Arc::new(Signer::new(Arc::clone(certificate)));
        let (grants, end) = (Arc::clone(&granted), down.clone());
        let tls = tls(certificate);
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let config = Config {
                    drain_timeout: Duration::ZERO,
                    ..Config::default()
                };
                let server = Server::new("tokens", config, &Metrics::new()).with_tls(Some(tls));
                let answer = move |request| {
                    let answer = answer(&signer, &grants, &request);
                    async move { answer }
                };
                server.run(listener, answer, end).await;
            });
        });
        Self {
            address,
            granted,
            down,
            thread: Some(thread),
        }
    }

    /// Returns where tokens are to be had.
    pub fn realm(&self) -> String {
        format!("https://{}/token", self.address)
    }

    /// Returns how many tokens were granted for a scope.
    pub fn granted(&self, scope: &str) -> usize {
        let granted = self.granted.lock();
        granted.iter().filter(|granted| *granted == scope).count()
    }

    /// Stops it; nobody listens there any more.
    pub fn stop(&mut self) {
        self.down.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn tls(certificate: &Certificate) -> Tls {
    let files = Files {
        certificate: certificate.certificate(),
        key: certificate.key(),
        interval: Duration::MAX,
    };
    let texts = Texts {
        certificate: std::fs::read_to_string(&files.certificate).unwrap(),
        key: std::fs::read_to_string(&files.key).unwrap(),
    };
    Tls::new(files, texts).unwrap()
}

fn answer(
    signer: &Signer,
    granted: &Mutex<Vec<String>>,
    request: &Request<Body>,
) -> Response<Body> {
    let expected = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let told = request.headers().get(AUTHORIZATION);
    let mut response = Response::new(Body::empty());
    if told.is_none_or(|told| told != &expected) {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        return response;
    }
    let query = request.uri().query().unwrap_or_default();
    let scopes: Vec<String> = form_urlencoded::parse(query.as_bytes())
        .filter(|(key, _)| key == "scope")
        .map(|(_, scope)| scope.into_owned())
        .collect();
    let token = signer.token(&scopes);
    granted.lock().extend(scopes);
    let body = json!({"token": token, "expires_in": 300}).to_string();
    *response.body_mut() = body.into_bytes().into();
    let json = "application/json".parse().unwrap();
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

// === impl Signer ===

impl Signer {
    fn new(certificate: Arc<Certificate>) -> Self {
        let pem = std::fs::read_to_string(certificate.certificate()).unwrap();
        let lines = pem.lines().filter(|line| !line.starts_with('-'));
        Self {
            der: lines.collect(),
            certificate,
        }
    }

    /// Returns a token (RFC 7519) for the scopes.
    fn token(&self, scopes: &[String]) -> String {
        let access: Vec<_> = scopes
            .iter()
            .filter_map(|scope| {
                let (kind, rest) = scope.split_once(':')?;
                let (name, actions) = rest.rsplit_once(':')?;
                let actions: Vec<_> = actions.split(',').collect();
                Some(json!({"type": kind, "name": name, "actions": actions}))
            })
            .collect();
        #[expect(
            clippy::disallowed_methods,
            reason = "what the registry compares it with"
        )]
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [self.der]});
        let claims = json!({
            "iss": ISSUER, "sub": USER, "aud": SERVICE, "jti": "1",
            "iat": now, "nbf": now - 60, "exp": now + 300, "access": access,
        });
        let part = |part: serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(&signed));
        format!("{signed}.{signature}")
    }

    fn sign(&self, text: &str) -> Vec<u8> {
        let mut signing = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(self.certificate.key())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        let mut stdin = signing.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        raw(&signing.wait_with_output().unwrap().stdout)
    }
}

/// Returns the two numbers of a signature (RFC 3279, section 2.2.3), each of 32 bytes, as tokens have them (RFC 7518, section
/// 3.4).
fn raw(der: &[u8]) -> Vec<u8> {
    let (mut rest, mut raw) = (&der[2..], Vec::new());
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let digits: Vec<u8> = number
            .iter()
            .copied()
            .skip_while(|&byte| byte == 0)
            .collect();
        raw.resize(raw.len() + 32 - digits.len(), 0);
        raw.extend(digits);
        rest = after;
    }
    raw
}
