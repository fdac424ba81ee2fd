//! Who may come in: stands in front of a node's API and finds out who asks.
//!
//! What: [`Access`] knows users by a file of names and hashes ([`Users`]), and other nodes by the key that they share. A user
//! shows a password, or the token that this node, or another with the same key, gave for it: the token flow of docker's
//! registries, for which [`serve`] answers at [`TOKEN_PATH`] and tells clients so in a challenge. Who asks is then among the
//! request's extensions ([`Caller`]); to whom something is open ([`Readers`]) is for whoever answers to say.
//!
//! Invariants: who shows something wrong gets a 401, whatever was asked; who shows nothing is anybody, and gets what is open
//! to everybody. A user that was taken out of the file is none from then on, tokens or not. Nothing shown is logged.
//!
//! Failure: when too many passwords are to be checked at once, a 503; they are made to be slow. Cancellation: a client that
//! leaves does not stop a check, which counts until it is done.
//!
//! Distribution specification, "Token Authentication"; RFC 6749 section 4.3 for its POST.

mod readers;
mod shown;
mod tokens;
mod users;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use http::header::{CACHE_CONTROL, HOST, HeaderValue, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use moka::sync::Cache;
use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::body::Body;
use crate::clock;
use crate::config::Secret;
use crate::net::client::BaseUrl;
use crate::net::respond::{Note, chain, error_response, small, with_allow, with_challenge};
use crate::oci::error::{ApiError, ErrorCode};
use crate::oci::media::JSON;
use crate::oci::route::Route;
use crate::process::Hangups;
use crate::reread::reread;
use crate::short_memory::short_memory;
use crate::tasks::Tasks;

pub use self::readers::{Caller, Readers};
use self::shown::{NotUnderstood, Shown};
use self::tokens::Signer;
pub use self::users::{BadUsers, Users};

/// Where tokens are given.
pub const TOKEN_PATH: &str = "/token";

/// Finds out who asks; cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

/// How who asks is found out.
#[derive(Clone, Debug)]
pub struct Config {
    /// The users, if there are any.
    pub users: Option<UsersFile>,
    /// How often it is looked at.
    pub reload_interval: Duration,
    /// What tokens are signed with: the same for nodes that are to believe each other's. Without it, one that nobody else has.
    pub key: Option<Secret>,
    /// How long a token is good for.
    pub tokens_for: Duration,
    /// How many passwords are checked at a time.
    pub password_checks: usize,
    /// Where clients reach this node, if not by the name that they say.
    pub public_url: Option<BaseUrl>,
    /// Whether its own connections are under TLS.
    pub is_tls: bool,
}

/// A file of users.
#[derive(Clone)]
pub struct UsersFile {
    /// Where it is.
    pub path: PathBuf,
    /// What was read from it.
    pub text: String,
}

struct Inner {
    config: Config,
    users: RwLock<Arc<Users>>,
    signer: Signer,
    checks: Arc<Semaphore>,
    /// Passwords that were right a moment ago, mixed with `salt`: clients that know no tokens send theirs with every request.
    checked: Option<Cache<[u8; 32], ()>>,
    salt: [u8; KEY_LEN],
}

/// It cannot be found out who asks.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BadAccess {
    /// The file of users is none.
    #[error(transparent)]
    Users(#[from] BadUsers),
    /// There is nothing to make a key of.
    #[error("the system gives no random numbers")]
    NoRandom,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// What is shown is wrong.
    Wrong,
    /// It could not be checked.
    Busy,
}

/// How we are called by a client.
struct Site {
    url: String,
    host: String,
}

/// How long a key is at least, in bytes: as the hash of HMAC-SHA-256 (RFC 7518 section 3.2).
pub const KEY_LEN: usize = 32;

/// How long what a node shows to another is good for.
const NODE_TOKEN_FOR: Duration = Duration::from_mins(1);

/// How many passwords that were right are remembered, and for how long.
const CHECKED_MAX: u64 = 10_000;
const CHECKED_FOR: Duration = Duration::from_mins(1);

/// How long a password waits for its turn.
const CHECK_WAIT: Duration = Duration::from_secs(2);

/// The largest form that is read, in bytes.
const FORM_BYTES_MAX: u64 = 16 * 1024;

/// Answers a request by `service`, which finds out from its extensions who sent it; with no access, that is anybody.
pub fn serve<F>(
    access: Option<Access>,
    request: Request<Body>,
    service: impl FnOnce(Request<Body>) -> F + Send + 'static,
) -> impl Future<Output = Response<Body>> + Send
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    match access {
        None => Either::Left(service(request)),
        Some(access) => Either::Right(Box::pin(access.admit(request, service))),
    }
}

// === impl Access ===

impl Access {
    /// Returns what finds out who asks.
    pub fn new(config: Config) -> Result<Self, BadAccess> {
        let random = aws_lc_rs::default_provider().secure_random;
        let [mut salt, mut key] = [[0; KEY_LEN]; 2];
        for bytes in [&mut salt, &mut key] {
            random.fill(bytes).or(Err(BadAccess::NoRandom))?;
        }
        let key = config
            .key
            .as_ref()
            .map_or(&key[..], |key| key.expose().as_bytes());
        let users = config.users.as_ref().map_or("", |file| &file.text);
        Ok(Self(Arc::new(Inner {
            users: RwLock::new(Arc::new(users.parse()?)),
            signer: Signer::new(key),
            checks: Arc::new(Semaphore::new(config.password_checks)),
            checked: short_memory(CHECKED_MAX, CHECKED_FOR),
            salt,
            config,
        })))
    }

    /// Returns what shows another node with the same key that we are one; none when there is no key.
    pub fn as_node(&self) -> Option<HeaderValue> {
        self.0.config.key.as_ref()?;
        let token = self
            .0
            .signer
            .sign(&Caller::Node, clock::now(), NODE_TOKEN_FOR)?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Whether there is a file of users.
    pub fn has_users(&self) -> bool {
        self.0.config.users.is_some()
    }

    /// Returns those of some names that are no user's; none of them when there is no file of users.
    pub fn strangers<'a>(&self, names: &'a [String]) -> Vec<&'a String> {
        let users = self.users();
        let is_stranger = |name: &&String| self.has_users() && !users.has(name);
        names.iter().filter(is_stranger).collect()
    }

    /// Whether other nodes can tell that we are one.
    pub fn has_key(&self) -> bool {
        self.0.config.key.is_some()
    }

    /// Looks at the file of users until told to end; to be run as a task.
    pub async fn mind(self, hangups: Hangups, tasks: Tasks) {
        let Config {
            users,
            reload_interval,
            ..
        } = &self.0.config;
        let Some(UsersFile { path, text }) = users.clone() else {
            return;
        };
        let read = move || std::fs::read_to_string(&path);
        let take = |read| self.take(read);
        reread(text, read, *reload_interval, (hangups, tasks), take).await;
    }

    /// Brings users into force, or says why not.
    fn take(&self, read: io::Result<String>) {
        let users = read.map_err(|error| chain(&error)).and_then(|text| {
            // As one is for a moment that is written in its place.
            if text.trim().is_empty() {
                return Err("the file is empty".to_owned());
            }
            text.parse::<Users>().map_err(|error| error.to_string())
        });
        match users {
            Ok(users) => {
                *self.0.users.write() = Arc::new(users);
                tracing::info!("users in force");
            }
            Err(error) => {
                tracing::error!(error, "new users refused, the old ones stay in force");
            }
        }
    }

    async fn admit<F>(
        self,
        mut request: Request<Body>,
        service: impl FnOnce(Request<Body>) -> F,
    ) -> Response<Body>
    where
        F: Future<Output = Response<Body>>,
    {
        let site = self.site(&request);
        if request.uri().path() == TOKEN_PATH {
            let mut response = self.give_token(request, &site).await;
            response.extensions_mut().insert(Note {
                route: "token",
                served: "local",
            });
            return response;
        }
        let route = Route::parse(request.method(), request.uri()).ok();
        let route = route.map(|routed| routed.route);
        let shown = Shown::read(request.headers());
        let is_shown = shown != Ok(Shown::Nothing);
        let scope = scope(route.as_ref(), request.method());
        let (response, error) = match self.caller(shown).await {
            Err(refused) => (refused.response(), "invalid_token"),
            // Where clients learn how to show who they are.
            Ok(_) if !is_shown && route == Some(Route::Ping) => (Refused::Wrong.response(), ""),
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                (service(request).await, "insufficient_scope")
            }
        };
        let is_told = response.headers().contains_key(WWW_AUTHENTICATE);
        if response.status() != StatusCode::UNAUTHORIZED || is_told {
            return response;
        }
        let error = if is_shown { error } else { "" };
        match site.challenge(scope.as_deref(), error) {
            Some(challenge) => with_challenge(response, challenge),
            None => response,
        }
    }

    async fn caller(&self, shown: Result<Shown, NotUnderstood>) -> Result<Caller, Refused> {
        match shown.or(Err(Refused::Wrong))? {
            Shown::Nothing => Ok(Caller::Anybody),
            Shown::Password(name, password) => self.user(&name, password).await,
            Shown::Token(token) => {
                let caller = self.0.signer.verify(&token).or(Err(Refused::Wrong))?;
                match &caller {
                    Caller::User(name) if !self.users().has(name) => Err(Refused::Wrong),
                    _ => Ok(caller),
                }
            }
        }
    }

    /// Returns the user of this name and password.
    async fn user(&self, name: &str, password: String) -> Result<Caller, Refused> {
        let (user, Some(hash)) = self.users().hash(name) else {
            return Err(Refused::Wrong);
        };
        let mixed = self.mixed([name, &hash, &password]);
        let is_known = |checked: &Cache<_, ()>| user.is_some() && checked.contains_key(&mixed);
        if !self.0.checked.as_ref().is_some_and(is_known) {
            let turn = timeout(CHECK_WAIT, Arc::clone(&self.0.checks).acquire_owned()).await;
            let turn = turn.or(Err(Refused::Busy))?.or(Err(Refused::Busy))?;
            let checking = spawn_blocking(move || {
                let _turn = turn;
                bcrypt::verify(password, &hash).unwrap_or(false)
            });
            if !checking.await.or(Err(Refused::Busy))? {
                return Err(Refused::Wrong);
            }
        }
        let user = user.ok_or(Refused::Wrong)?;
        if let Some(checked) = &self.0.checked {
            checked.insert(mixed, ());
        }
        Ok(Caller::User(user))
    }

    fn users(&self) -> Arc<Users> {
        Arc::clone(&self.0.users.read())
    }

    /// Returns what stands for a password that is right, as long as it is.
    fn mixed(&self, parts: [&str; 3]) -> [u8; 32] {
        let mut hasher = Sha256::new_with_prefix(self.0.salt);
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    /// Answers who asks for a token.
    async fn give_token(&self, request: Request<Body>, site: &Site) -> Response<Body> {
        let (head, body) = request.into_parts();
        let shown = match head.method {
            Method::GET => Shown::read(&head.headers),
            Method::POST => form(&head.headers, body).await,
            _ => {
                let refusal = error_response(&ErrorCode::MethodNotAllowed.into());
                return with_allow(refusal, &[Method::GET, Method::POST]);
            }
        };
        let caller = match shown {
            // It stands for itself.
            Ok(Shown::Token(_)) => Err(Refused::Wrong),
            shown => self.caller(shown).await,
        };
        let caller = match caller {
            Ok(caller) => caller,
            Err(refused) => {
                let response = refused.response();
                let challenge = HeaderValue::try_from(format!("Basic realm=\"{}\"", site.host));
                return match (refused, challenge) {
                    (Refused::Wrong, Ok(challenge)) => with_challenge(response, challenge),
                    _ => response,
                };
            }
        };
        let time = self.0.config.tokens_for;
        let Some(token) = self.0.signer.sign(&caller, clock::now(), time) else {
            return error_response(&ErrorCode::Internal.into());
        };
        let body = serde_json::json!({
            "token": token,
            "access_token": token,
            "expires_in": time.as_secs(),
        });
        let mut response = small(HeaderValue::from_static(JSON), body.to_string());
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// Returns how a client calls us.
    fn site(&self, request: &Request<Body>) -> Site {
        if let Some(url) = &self.0.config.public_url {
            return Site {
                url: url.to_string(),
                host: url.authority().to_string(),
            };
        }
        let host = request.headers().get(HOST);
        let host = host.and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        let host = request.uri().authority().cloned().or(host);
        let host = host.map_or_else(|| "localhost".to_owned(), |host| host.to_string());
        let scheme = if self.0.config.is_tls {
            "https"
        } else {
            "http"
        };
        Site {
            url: format!("{scheme}://{host}"),
            host,
        }
    }
}

impl fmt::Debug for UsersFile {
    /// Says nothing of hashes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl fmt::Debug for Access {
    /// Says nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

/// Reads who asks for a token by a form.
async fn form(headers: &HeaderMap, body: Body) -> Result<Shown, NotUnderstood> {
    let body = body.collect_limited(FORM_BYTES_MAX).await;
    let body = body.or(Err(NotUnderstood))?;
    let fields: Vec<_> = form_urlencoded::parse(&body).collect();
    let field = |key: &str| {
        let mut fields = fields.iter().filter(|(name, _)| name == key);
        fields.next().map(|(_, value)| value.to_string())
    };
    match (
        field("grant_type").as_deref(),
        field("username"),
        field("password"),
    ) {
        (Some("password"), Some(name), Some(password)) => Ok(Shown::Password(name, password)),
        (Some("password"), None, None) => Shown::read(headers),
        _ => Err(NotUnderstood),
    }
}

/// Returns what a client has to ask for to be let do this, in the words of the token flow.
fn scope(route: Option<&Route>, method: &Method) -> Option<String> {
    let repo = route?.repository()?;
    let actions = match *method {
        Method::GET | Method::HEAD => "pull",
        _ => "pull,push",
    };
    Some(format!("repository:{repo}:{actions}"))
}

// === impl Refused ===

impl Refused {
    fn response(self) -> Response<Body> {
        let error = match self {
            Self::Wrong => ErrorCode::Unauthorized.into(),
            Self::Busy => ApiError::new(ErrorCode::Unavailable)
                .with_message("too many passwords are being checked")
                .with_retry_after(Duration::from_secs(1)),
        };
        error_response(&error)
    }
}

// === impl Site ===

impl Site {
    fn challenge(&self, scope: Option<&str>, error: &str) -> Option<HeaderValue> {
        let Self { url, host } = self;
        let mut parameters = vec![
            ("realm", format!("{url}{TOKEN_PATH}")),
            ("service", host.clone()),
            ("scope", scope.unwrap_or_default().to_owned()),
            ("error", error.to_owned()),
        ];
        parameters.retain(|(_, value)| !value.is_empty());
        let parameters = parameters
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""));
        let text = format!("Bearer {}", parameters.collect::<Vec<_>>().join(","));
        HeaderValue::try_from(text).ok()
    }
}

#[cfg(test)]
mod tests;
