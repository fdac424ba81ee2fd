//! Whether the origin hosts a repository that a client calls by its bare name, or the default upstream stands for it.
//!
//! Invariants: a repository is the upstream's only when the origin said that it does not know it: for as long as its word on
//! a tag counts; and, when it cannot be asked, for as long as a tag of the upstream may be stale, but then nobody is asked for
//! it, since it may have been pushed since. What the origin hosts it goes on hosting until it says otherwise.

use std::time::Duration;

use http::Request;
use outport_core::body::Body;
use outport_core::net::client::Progress;
use outport_core::oci::reference::{Reference, RepoName};
use outport_core::oci::route::Route;
use tokio::time::{Instant, timeout};

use super::{Resolved, Resolver, manifest_key};
use crate::names::Said;
use crate::source::{About, Origin, OriginError, Part};

/// Whose a repository is.
#[derive(Clone, Debug)]
pub enum Whose {
    /// The origin's.
    Hosted,
    /// The default upstream's.
    Upstream,
    /// The default upstream's when the origin could last be asked, which it cannot now.
    UpstreamLately(OriginError),
    /// The same, but the origin only takes its time.
    UpstreamSoFar,
    /// Nobody knows.
    Unknown(OriginError),
}

/// The largest answer to the question that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

impl Resolver {
    /// Whether the origin is known to host a repository, without asking it: it said so, or where this tag points.
    pub async fn is_known_hosted(&self, route: &Route) -> bool {
        let Some(repo) = route.repository() else {
            return false;
        };
        match (self.names.said(repo).await, route) {
            (Some(Said::Hosted(_)), _) => true,
            (
                None,
                Route::FetchManifest {
                    reference: Reference::Tag(tag),
                    ..
                },
            ) => self.names.tag(repo, tag).await.is_some(),
            _ => self.is_here(route).await,
        }
    }

    /// Whether the origin hosts a repository after all, that it did not know a moment ago.
    pub async fn is_hosted_by_now(&self, repo: &RepoName) -> Result<bool, OriginError> {
        self.question(repo).await
    }

    /// Finds out whose a repository is, when `upstream` stands for what the origin does not know, and waits for the origin no
    /// longer than is said, if it said so before.
    pub async fn whose(
        &self,
        repo: &RepoName,
        upstream: &Origin,
        patience: Option<Duration>,
    ) -> Whose {
        let tags = upstream.tags();
        let lately = match self.names.said(repo).await {
            Some(Said::Hosted(_)) => return Whose::Hosted,
            Some(Said::Unhosted(asked)) => {
                let good = self.origin().tags().policy.good;
                if asked
                    .elapsed_since_start()
                    .is_some_and(|age| good.is_after(age))
                {
                    return Whose::Upstream;
                }
                tags.policy.if_error.is_after(asked.elapsed())
            }
            None => false,
        };
        let patience = patience.filter(|_| lately).unwrap_or(Duration::MAX);
        match timeout(patience, Box::pin(self.question(repo))).await {
            Ok(Ok(true)) => Whose::Hosted,
            Ok(Ok(false)) => Whose::Upstream,
            Ok(Err(error)) if lately => Whose::UpstreamLately(error),
            Ok(Err(error)) => Whose::Unknown(error),
            Err(_elapsed) => Whose::UpstreamSoFar,
        }
    }

    /// Has what is called `key` asked for by `ask` when the origin has said that it is of the default upstream.
    pub fn refresh<F>(&self, hosted: &RepoName, key: String, ask: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // It goes on by itself from here.
        drop(self.refreshes.join(key, |_| {
            let (resolver, hosted, asked) = (self.clone(), hosted.clone(), ask());
            async move {
                if matches!(resolver.question(&hosted).await, Ok(false)) {
                    asked.await;
                }
            }
        }));
    }

    /// Asks the origin whether it knows a repository, together with all who ask.
    async fn question(&self, repo: &RepoName) -> Result<bool, OriginError> {
        let question = || {
            let (resolver, repo) = (self.clone(), repo.clone());
            async move { resolver.ask_whether_hosted(&repo).await }
        };
        let (answer, _) = self.hosted.ask(repo.clone(), question).await;
        answer.unwrap_or(Err(OriginError::Ending))
    }

    /// Takes note of what the origin said of a repository by the way.
    pub fn note_hosted(&self, repo: &RepoName) {
        self.names.put_hosted(repo);
    }

    /// Takes note that the origin, asked at a time, did not know a repository.
    pub fn note_unhosted(&self, repo: &RepoName, asked: Instant) {
        self.names.put_unhosted(repo, asked);
    }

    async fn ask_whether_hosted(&self, repo: &RepoName) -> Result<bool, OriginError> {
        let asked = Instant::now();
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = format!("/v2/{repo}/tags/list?n=1")
            .parse()
            .or(Err(OriginError::Nonsense("a path that cannot be written")))?;
        let about = About::new(repo.clone(), Part::Tags);
        let question = (request, &Progress::new());
        let list = self.origin().list(&about, question, ANSWER_BYTES_MAX).await;
        match list {
            Ok(_) => {
                self.names.put_hosted(repo);
                Ok(true)
            }
            Err(OriginError::Refused(refusal)) => {
                let is_hosted = !refusal.is_of_unknown_name();
                if !is_hosted {
                    self.names.put_unhosted(repo, asked);
                }
                Ok(is_hosted)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether content that a route asks for by its digest is here, and known to be of the repository.
    pub async fn is_here(&self, route: &Route) -> bool {
        match route {
            Route::FetchBlob {
                repository, digest, ..
            } => self.cache.has(digest) && self.known_blob(repository, digest).await.is_some(),
            Route::FetchManifest {
                repository,
                reference: Reference::Digest(digest),
                ..
            } => {
                let key = manifest_key(repository, digest);
                self.cache.has(digest) && self.names.link(&key).await.is_some()
            }
            _ => false,
        }
    }

    /// Returns a manifest that is here, without asking anybody.
    pub async fn kept_manifest(&self, repo: &RepoName, reference: &Reference) -> Option<Resolved> {
        let asked = self.asked_tag(repo, reference);
        if let Some(fresh) = self.fresh(repo, reference, asked).await {
            return Some(fresh);
        }
        let (tag, policy) = asked?;
        self.last(repo, tag, policy).await
    }
}
