//! A third-party registry, asked as its own clients ask it.
//!
//! What: [`Upstream::send`] sends a question to an upstream, answers its challenge, and follows where it sends for the content.
//!
//! Invariants: credentials and tokens go to the upstream's own URL and to token hosts that the configuration names, to nobody
//! else, whatever a redirect or a realm says. No address that is not public is connected to unless the configuration names
//! its host. A redirect is followed for one answer and not remembered: who goes on later asks the upstream again, because
//! where it sends is signed for minutes.
//!
//! Failure: [`UpstreamError`] tells a no from a silence. Cancellation: dropping the future drops the request; a token that
//! another request waits for goes on being fetched for that.

mod challenge;
mod definition;
mod pattern;
mod quota;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, LOCATION};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use url::Url;

pub use self::definition::{Credentials, Definition};
pub use self::pattern::{BadPattern, Pattern};
pub use self::quota::Quota;
pub use self::tokens::TokenError;
use self::tokens::{Grant, Tokens};
use crate::body::Body;
use crate::net::client::{self, BadClient, BaseUrl, Client, ClientError, Guard, Progress};
use crate::oci::reference::RepoName;

/// An upstream; cheap to clone.
#[derive(Clone, Debug)]
pub struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    definition: Arc<Definition>,
    client: Client,
    tokens: Tokens,
    quota: Mutex<Option<Quota>>,
}

/// An upstream gave no answer to go by.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// It could not be asked.
    #[error("ask the upstream")]
    Client(#[from] ClientError),
    /// Where it sent could not be asked, which says nothing of itself.
    #[error("ask where the upstream sent")]
    Elsewhere(#[source] ClientError),
    /// It lets nobody in without what could not be had.
    #[error("be let in by the upstream")]
    Token(#[source] Arc<TokenError>),
    /// It sent on and on.
    #[error("the upstream redirected more than {REDIRECTS_MAX} times")]
    TooManyRedirects,
    /// It sent to what is no URL that may be asked.
    #[error("the upstream redirected to no url that may be asked")]
    BadRedirect,
}

/// Among the extensions of an answer that came from where the upstream sent, and not from itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirected;

/// How often in a row is followed.
const REDIRECTS_MAX: usize = 5;

/// How much of the body of an answer that is none is read, and how long that may take, so that its connection can be used
/// again.
const DRAINED_BYTES_MAX: u64 = 64 << 10;
const DRAIN_TIME_MAX: Duration = Duration::from_millis(100);

// === impl Upstream ===

impl Upstream {
    /// Returns an upstream that is asked within the bounds of `config`.
    pub fn new(definition: Definition, config: client::Config) -> Result<Self, BadClient> {
        let config = client::Config {
            ca_file: definition.ca_file.clone().or(config.ca_file),
            guard: Guard::Public {
                named: definition.named_hosts().into(),
            },
            ..config
        };
        let definition = Arc::new(definition);
        Ok(Self(Arc::new(Inner {
            client: Client::new(vec![definition.url.clone()], config)?,
            tokens: Tokens::new(Arc::clone(&definition)),
            quota: Mutex::default(),
            definition,
        })))
    }

    /// Returns what it was configured as.
    pub fn definition(&self) -> &Definition {
        &self.0.definition
    }

    /// Returns what it said of its quota, if anything.
    pub fn quota(&self) -> Option<Quota> {
        *self.0.quota.lock()
    }

    /// Returns how many times as long as usual is to be waited before it is asked again.
    pub fn stretch(&self) -> u32 {
        self.quota()
            .map_or(1, |quota| quota.stretch(Instant::now()))
    }

    /// Asks a question about a repository, named as it is there, and returns the answer, whatever its status; `progress` tells
    /// how far it has come.
    ///
    /// The request has no body, and a URI of path and query only.
    pub async fn send(
        &self,
        repo: &RepoName,
        request: Request<Body>,
        progress: &Progress,
    ) -> Result<Response<Body>, UpstreamError> {
        let Inner { client, tokens, .. } = &*self.0;
        let client = &client.noting(progress);
        let (asked, _) = request.into_parts();
        let scope = format!("repository:{repo}:pull");
        let mut granted = tokens.granted(&scope).await;
        let mut response = client.send(repeated(&asked, granted.as_ref())).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            if let Some(refused) = &granted {
                tokens.forget(&scope, refused).await;
            }
            let challenge = done_with(response).await;
            let granting = tokens.grant(client, &scope, &challenge);
            granted = Some(granting.await.map_err(UpstreamError::Token)?);
            response = client.send(repeated(&asked, granted.as_ref())).await?;
            if response.status() == StatusCode::UNAUTHORIZED {
                // The next request finds out whether that has changed.
                if let Some(refused) = &granted {
                    tokens.forget(&scope, refused).await;
                }
            }
        }
        if let Some(told) = Quota::told(response.headers(), Instant::now()) {
            *self.0.quota.lock() = Some(told);
        }
        self.follow(client, &asked, (granted.as_ref(), response))
            .await
    }

    /// Follows redirects; what the upstream alone is to see goes along only where it sends to itself.
    async fn follow(
        &self,
        client: &Client,
        asked: &Parts,
        (granted, mut response): (Option<&Grant>, Response<Body>),
    ) -> Result<Response<Body>, UpstreamError> {
        let own = &self.0.definition.url;
        let path = asked.uri.path_and_query().map(|path| own.join(path));
        let mut from = path
            .and_then(Result::ok)
            .ok_or(UpstreamError::BadRedirect)?;
        for _ in 0..REDIRECTS_MAX {
            let Some(target) = redirect(&from, &response)? else {
                return Ok(response);
            };
            // Its connection is not to be waited for by what comes next.
            done_with(response).await;
            let at = BaseUrl::of(&target).or(Err(UpstreamError::BadRedirect))?;
            let is_own = at.is_same_site(own);
            let mut next = repeated(asked, granted.filter(|_| is_own));
            let path = target.path_and_query().cloned();
            *next.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
            if own.is_https() && !at.is_https() {
                return Err(UpstreamError::BadRedirect);
            }
            let sent = client.send_to(&at, next).await;
            response = sent.map_err(|error| match error {
                ClientError::Busy { .. } => UpstreamError::Client(error),
                error => UpstreamError::Elsewhere(error),
            })?;
            response.extensions_mut().insert(Redirected);
            from = target;
        }
        match redirect(&from, &response)? {
            None => Ok(response),
            Some(_) => Err(UpstreamError::TooManyRedirects),
        }
    }
}

/// Returns the request that asks so.
fn repeated(asked: &Parts, grant: Option<&Grant>) -> Request<Body> {
    debug_assert!(
        [Method::GET, Method::HEAD].contains(&asked.method),
        "only questions are asked"
    );
    let mut request = Request::new(Body::empty());
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = asked.uri.clone();
    request.headers_mut().clone_from(&asked.headers);
    request.headers_mut().remove(AUTHORIZATION);
    if let Some(grant) = grant {
        let header = grant.header.clone();
        request.headers_mut().insert(AUTHORIZATION, header);
    }
    request
}

/// Lets an answer go of which only the headers are of use, and returns those.
async fn done_with(response: Response<Body>) -> HeaderMap {
    let (head, body) = response.into_parts();
    let reading = body.collect_limited(DRAINED_BYTES_MAX);
    timeout(DRAIN_TIME_MAX, reading).await.ok();
    head.headers
}

/// Returns where an answer from `from` sends, if it does.
fn redirect(from: &Uri, response: &Response<Body>) -> Result<Option<Uri>, UpstreamError> {
    let is_redirect = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if !is_redirect {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION);
    let location = location.and_then(|location| location.to_str().ok());
    let location = location.ok_or(UpstreamError::BadRedirect)?;
    // The fragment is the client's own.
    let location = location.split('#').next().unwrap_or_default();
    if location.is_empty() {
        return Err(UpstreamError::BadRedirect);
    }
    // As it is written: another spelling may not be what was signed.
    if let Ok(absolute) = location.parse::<Uri>()
        && absolute.scheme().is_some()
    {
        return Ok(Some(absolute));
    }
    let base: Option<Url> = from.to_string().parse().ok();
    let target = base.and_then(|base| base.join(location).ok());
    let target = target.and_then(|target| target.as_str().parse().ok());
    target.map(Some).ok_or(UpstreamError::BadRedirect)
}

#[cfg(test)]
mod tests;
