//! What an upstream lets requests in with.
//!
//! What: [`Tokens::grant`] answers a challenge: with the credentials themselves, or with a token that is fetched for them, or
//! for nobody. What was granted is kept for as long as it is good, one for each scope.
//!
//! Invariants: however many ask, one token of a scope is fetched at a time. Credentials go to the upstream itself and to hosts
//! that the configuration names, over TLS unless the upstream is plain by configuration; a realm elsewhere gets none, and
//! when there are some it is not asked at all. Nothing of a token endpoint's answer is unbounded.
//!
//! Failure: [`TokenError`], which tells a no from a silence. A refusal is not remembered.
//!
//! Why GET first, and POST when that is not there: GET is what every token endpoint has; some refuse POST with a 400 or 401,
//! which then looks like a wrong password.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::Serializer;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use moka::Expiry;
use moka::future::Cache;
use serde::Deserialize;

use super::challenge::Challenge;
use super::{Credentials, Definition};
use crate::body::Body;
use crate::config::Secret;
use crate::net::client::{BaseUrl, Client, ClientError};

/// What requests are let in with, by scope.
#[derive(Debug)]
pub(super) struct Tokens {
    definition: Arc<Definition>,
    granted: Cache<String, Grant>,
}

/// What a request is sent with.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// The `Authorization`, marked as what is never shown.
    pub(super) header: HeaderValue,
    pub(super) good_for: Duration,
}

/// Why nothing was granted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The registry asks for what there is nothing for.
    #[error("the upstream asks for credentials, and there are none")]
    NoCredentials,
    /// It asks in a way that is not known here.
    #[error("the upstream asks for something that is not known here")]
    NoChallenge,
    /// The token is to be had where credentials must not go.
    #[error("the token endpoint {0} is not the upstream's by configuration")]
    Untrusted(String),
    /// The token endpoint's address is none.
    #[error("the token endpoint {0:?} is no url that may be asked")]
    BadRealm(String),
    /// The token endpoint could not be asked.
    #[error("ask the token endpoint")]
    Unreachable(#[source] Arc<ClientError>),
    /// It said no.
    #[error("the token endpoint answered {0}")]
    Refused(StatusCode),
    /// It cannot answer.
    #[error("the token endpoint answered {0}")]
    Sick(StatusCode),
    /// What it said is no token.
    #[error("the token endpoint's answer is no token")]
    Nonsense,
}

/// What a token endpoint answers, of which both names are in use.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    /// A number of seconds, which some write as a fraction or as text.
    expires_in: Option<serde_json::Value>,
}

/// Grants expire by themselves.
struct WhenTheySay;

/// How many scopes are remembered.
const SCOPES_MAX: u64 = 10_000;

/// The largest answer of a token endpoint that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// How long a token is good when it does not say (distribution's token specification).
const GOOD_FOR: Duration = Duration::from_mins(1);

/// How long one is used at most, and credentials before it is looked whether they are still asked for.
const GOOD_FOR_MAX: Duration = Duration::from_hours(1);

/// How much sooner than it says a token is given up, so that it does not expire on its way: a tenth, and no more than this.
const SPARE_MAX: Duration = Duration::from_secs(30);

/// Who we say we are.
const CLIENT_ID: &str = "outport";

// === impl TokenError ===

impl TokenError {
    /// Whether there was an answer, and it was no.
    pub const fn is_no(&self) -> bool {
        match self {
            Self::NoCredentials
            | Self::NoChallenge
            | Self::Untrusted(_)
            | Self::BadRealm(_)
            | Self::Refused(_) => true,
            Self::Unreachable(_) | Self::Sick(_) | Self::Nonsense => false,
        }
    }
}

// === impl Tokens ===

impl Tokens {
    pub(super) fn new(definition: Arc<Definition>) -> Self {
        let granted = Cache::builder()
            .max_capacity(SCOPES_MAX)
            .expire_after(WhenTheySay)
            .build();
        Self {
            definition,
            granted,
        }
    }

    /// Returns what a scope was granted, if it is still good.
    pub(super) async fn granted(&self, scope: &str) -> Option<Grant> {
        self.granted.get(scope).await
    }

    /// Forgets what a scope was granted: it did not help. Not what it was granted since.
    pub(super) async fn forget(&self, scope: &str, refused: &Grant) {
        let kept = self.granted.get(scope).await;
        if kept.is_some_and(|kept| kept.header == refused.header) {
            self.granted.invalidate(scope).await;
        }
    }

    /// Answers a challenge, or waits for the answer that another request is getting.
    pub(super) async fn grant(
        &self,
        client: &Client,
        scope: &str,
        headers: &HeaderMap,
    ) -> Result<Grant, Arc<TokenError>> {
        let challenges = Challenge::of(headers);
        let granting = self.answer(client, scope, challenges);
        self.granted.try_get_with_by_ref(scope, granting).await
    }

    async fn answer(
        &self,
        client: &Client,
        scope: &str,
        challenges: Vec<Challenge>,
    ) -> Result<Grant, TokenError> {
        let challenge = challenges
            .into_iter()
            .next()
            .ok_or(TokenError::NoChallenge)?;
        match challenge {
            Challenge::Basic => {
                let credentials = self.definition.credentials.as_ref();
                let credentials = credentials.ok_or(TokenError::NoCredentials)?;
                Ok(Grant {
                    header: basic(credentials).ok_or(TokenError::NoCredentials)?,
                    good_for: GOOD_FOR_MAX,
                })
            }
            Challenge::Bearer {
                realm,
                service,
                scope: asked,
            } => {
                let scope = asked.as_deref().unwrap_or(scope);
                self.fetch(client, &realm, &service, scope).await
            }
        }
    }

    /// Fetches a token.
    async fn fetch(
        &self,
        client: &Client,
        realm: &str,
        service: &str,
        scope: &str,
    ) -> Result<Grant, TokenError> {
        let (url, path) = self.endpoint(realm)?;
        let credentials = self.definition.credentials.as_ref();
        let request = match &self.definition.identity_token {
            Some(token) => refresh(&path, service, scope, token),
            None => get(&path, service, scope, credentials),
        };
        let request = request.ok_or(TokenError::Nonsense)?;
        let mut response = self.ask(client, &url, request).await?;
        if matches!(
            response.status(),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        ) && let Some(credentials) = credentials
        {
            let request = post(&path, service, scope, credentials).ok_or(TokenError::Nonsense)?;
            response = self.ask(client, &url, request).await?;
        }
        let status = response.status();
        if status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
            )
        {
            return Err(TokenError::Sick(status));
        }
        if !status.is_success() {
            return Err(TokenError::Refused(status));
        }
        let body = response.into_body().collect_limited(ANSWER_BYTES_MAX).await;
        let body = body.or(Err(TokenError::Nonsense))?;
        let answer: Answer = serde_json::from_slice(&body).or(Err(TokenError::Nonsense))?;
        answer.grant().ok_or(TokenError::Nonsense)
    }

    /// Returns where a realm is, and its path, if it may be asked.
    fn endpoint(&self, realm: &str) -> Result<(BaseUrl, String), TokenError> {
        let bad = || TokenError::BadRealm(realm.chars().take(256).collect());
        let uri: Uri = realm.parse().or(Err(bad()))?;
        let url = BaseUrl::of(&uri).or(Err(bad()))?;
        // Else who is on the way to a plain realm reads tokens that TLS was to keep from them.
        if !url.is_https() && self.definition.url.is_https() {
            return Err(bad());
        }
        let is_own = self.definition.is_own(&url);
        let is_anonymous =
            self.definition.credentials.is_none() && self.definition.identity_token.is_none();
        if !is_anonymous && !is_own {
            return Err(TokenError::Untrusted(url.to_string()));
        }
        let path = uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        Ok((url, path.to_owned()))
    }

    async fn ask(
        &self,
        client: &Client,
        url: &BaseUrl,
        request: Request<Body>,
    ) -> Result<Response<Body>, TokenError> {
        let sent = client.send_to(url, request).await;
        sent.map_err(|error| TokenError::Unreachable(Arc::new(error)))
    }
}

/// Returns the request for a token, with the credentials beside it.
fn get(
    path: &str,
    service: &str,
    scope: &str,
    credentials: Option<&Credentials>,
) -> Option<Request<Body>> {
    let mut query = Serializer::new(String::new());
    if !service.is_empty() {
        query.append_pair("service", service);
    }
    for scope in scope.split(' ') {
        query.append_pair("scope", scope);
    }
    if let Some(credentials) = credentials {
        query.append_pair("account", &credentials.username);
    }
    query.append_pair("client_id", CLIENT_ID);
    let separator = if path.contains('?') { '&' } else { '?' };
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = format!("{path}{separator}{}", query.finish())
        .parse()
        .ok()?;
    if let Some(credentials) = credentials {
        request
            .headers_mut()
            .insert(AUTHORIZATION, basic(credentials)?);
    }
    Some(request)
}

/// Returns the request for a token, with the credentials in it.
fn post(
    path: &str,
    service: &str,
    scope: &str,
    credentials: &Credentials,
) -> Option<Request<Body>> {
    let who = [
        ("username", credentials.username.as_str()),
        ("password", credentials.password.expose()),
    ];
    grant(path, ("password", &who), service, scope)
}

/// Returns the request for a token in place of an identity token (RFC 6749 section 6).
fn refresh(path: &str, service: &str, scope: &str, token: &Secret) -> Option<Request<Body>> {
    let who = [("refresh_token", token.expose())];
    grant(path, ("refresh_token", &who), service, scope)
}

fn grant(
    path: &str,
    (kind, who): (&str, &[(&str, &str)]),
    service: &str,
    scope: &str,
) -> Option<Request<Body>> {
    let form = Serializer::new(String::new())
        .append_pair("grant_type", kind)
        .append_pair("service", service)
        .append_pair("scope", scope)
        .append_pair("client_id", CLIENT_ID)
        .extend_pairs(who)
        .finish();
    let mut request = Request::new(Body::from(form.into_bytes()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse().ok()?;
    request.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    Some(request)
}

fn basic(credentials: &Credentials) -> Option<HeaderValue> {
    let pair = format!("{}:{}", credentials.username, credentials.password.expose());
    secret(format!("Basic {}", STANDARD.encode(pair)))
}

/// Returns a header's value that logs leave out.
fn secret(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

// === impl Answer ===

impl Answer {
    fn grant(self) -> Option<Grant> {
        let token = self.token.or(self.access_token);
        let token = token.filter(|token| !token.is_empty())?;
        let said = self.expires_in.as_ref().and_then(seconds);
        let good_for = said.unwrap_or(GOOD_FOR);
        let good_for = good_for.min(GOOD_FOR_MAX);
        Some(Grant {
            header: secret(format!("Bearer {token}"))?,
            good_for: good_for.saturating_sub((good_for / 10).min(SPARE_MAX)),
        })
    }
}

/// Returns a time that is one.
fn seconds(said: &serde_json::Value) -> Option<Duration> {
    let text = said.as_str().map(|text| text.trim().parse::<f64>());
    let seconds = text.map_or_else(|| said.as_f64(), Result::ok)?;
    let time = Duration::try_from_secs_f64(seconds.trunc()).ok()?;
    (!time.is_zero()).then_some(time)
}

// === impl WhenTheySay ===

impl Expiry<String, Grant> for WhenTheySay {
    #[expect(clippy::disallowed_types, reason = "the trait's own")]
    fn expire_after_create(
        &self,
        _: &String,
        grant: &Grant,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(grant.good_for)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: &str, expected: Option<(&str, u64)>) {
        let answer: Answer = serde_json::from_str(answer).unwrap();
        let grant = answer.grant();
        let read = grant.as_ref().map(|grant| {
            assert!(grant.header.is_sensitive());
            (grant.header.to_str().unwrap(), grant.good_for.as_secs())
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn a_token_is_used_for_less_than_it_says() {
        check(
            r#"{"token": "a", "expires_in": 300}"#,
            Some(("Bearer a", 270)),
        );
        check(r#"{"access_token": "a"}"#, Some(("Bearer a", 54)));
        check(
            r#"{"token": "a", "access_token": "b", "expires_in": 0}"#,
            Some(("Bearer a", 54)),
        );
        check(
            r#"{"token": "a", "expires_in": 99999999999}"#,
            Some(("Bearer a", 3570)),
        );
        for said in ["300.0", "\"300\"", "\"300.5\""] {
            let answer = format!(r#"{{"token": "a", "expires_in": {said}}}"#);
            check(&answer, Some(("Bearer a", 270)));
        }
        for said in ["-1", "null", "\"soon\"", "1e300", "{}"] {
            let answer = format!(r#"{{"token": "a", "expires_in": {said}}}"#);
            check(&answer, Some(("Bearer a", 54)));
        }
        check(r#"{"token": ""}"#, None);
        check(r#"{"token": "a\nb"}"#, None);
        check("{}", None);
    }
}
