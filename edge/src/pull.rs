//! The read path: a manifest or blob from the nearest bytes.
//!
//! What: resolve (does this repository link this digest?), then the cache, or a download that is joined or started.
//!
//! What only a miss needs is in a box of its own, so that a hit does not carry it about.
//!
//! Invariant: a cached blob is given for a repository only if that repository is known, or was just found, to link it.
//! Failure: [`OriginError`]. Cancellation: a client that leaves ends its own read only.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::header::{AGE, HeaderValue, RANGE};
use http::{HeaderMap, Response};
use outport_core::body::Body;
use outport_core::net::content::Content;
use outport_core::oci::digest::Digest;
use outport_core::oci::media::OCTET_STREAM;
use outport_core::oci::reference::{Reference, RepoName};
use outport_core::oci::route::Fetch;
use tokio::time::{Instant, timeout};

use crate::cache::Found;
use crate::coalesce::Role;
use crate::download::follower::follow;
use crate::download::landing::Landing;
use crate::download::{Download, Downloads, Head};
use crate::metrics::SourceKind;
use crate::resolve::{Resolved, Resolver, Waiting};
use crate::served::Served;
use crate::source::OriginError;
use crate::source::sources::Reach;
use crate::source::through::Through;

/// Serves pulls; cheap to clone.
#[derive(Clone, Debug)]
pub struct Pull {
    resolver: Resolver,
    downloads: Downloads,
}

/// A blob that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The repository.
    pub repo: &'a RepoName,
    /// The blob.
    pub digest: &'a Digest,
    /// How much of it.
    pub fetch: Fetch,
    /// Conditions and ranges.
    pub headers: &'a HeaderMap,
    /// Who may be asked for it.
    pub reach: Reach,
}

/// An answer, with how it came about.
pub type Answer = Result<(Response<Body>, Served), OriginError>;

/// How many parts of a blob are fetched one by one for a reader that is on its own.
const PARTS_MAX: usize = 8;

/// How often a request joins a download that then turns out to be of no use to it.
const ATTEMPTS_MAX: usize = 4;

// === impl Pull ===

impl Pull {
    /// Returns the read path over its parts.
    pub const fn new(resolver: Resolver, downloads: Downloads) -> Self {
        Self {
            resolver,
            downloads,
        }
    }

    /// Answers a request for a manifest.
    pub async fn manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        (fetch, headers): (Fetch, &HeaderMap),
        waiting: Waiting,
    ) -> Answer {
        let resolved = self.resolver.manifest(repo, reference, waiting).await?;
        Ok(self.resolved(resolved, fetch, headers))
    }

    /// Answers with a manifest.
    pub fn resolved(
        &self,
        resolved: Resolved,
        fetch: Fetch,
        headers: &HeaderMap,
    ) -> (Response<Body>, Served) {
        let Resolved {
            manifest,
            served,
            age,
        } = resolved;
        let bytes = manifest.content;
        let content = Content {
            digest: manifest.digest,
            size: bytes.len() as u64,
            content_type: manifest.content_type,
        };
        let mut response = content.answer(headers, fetch, |range| part(&bytes, range));
        if let Some(age) = age {
            let age = HeaderValue::from(age.as_secs());
            response.headers_mut().insert(AGE, age);
        }
        (response, served)
    }

    /// Answers a request for a blob.
    pub async fn blob(&self, wanted: Wanted<'_>) -> Answer {
        if let Some(answer) = self.cached_blob(wanted).await {
            return answer;
        }
        match wanted.fetch {
            Fetch::Head => Box::pin(self.missing_blob_head(wanted)).await,
            Fetch::Get => Box::pin(self.missing_blob(wanted)).await,
        }
    }

    async fn cached_blob(&self, wanted: Wanted<'_>) -> Option<Answer> {
        let Wanted { repo, digest, .. } = wanted;
        let found = self.resolver.cache().blob(digest).await?;
        if self.needs_more_than_a_link(repo, digest).await {
            return None;
        }
        let (link, served) = match self.resolver.known_blob(repo, digest).await {
            Some(link) => (link, Served::Hit),
            None => match Box::pin(self.resolver.blob_link(repo, digest)).await {
                Ok((link, _)) => (link, Served::Revalidated),
                Err(error) => return Some(Err(error)),
            },
        };
        match found {
            Found::Held(bytes) => {
                let read = |range| part(&bytes, range);
                Some(Ok((wanted.answer(bytes.len() as u64, read), served)))
            }
            Found::Sound(blob) => {
                let read = |range| {
                    let (cache, digest) = (self.resolver.cache().clone(), *digest);
                    Body::file(Arc::clone(&blob.file), range)
                        .as_long_as(blob.seal)
                        .on_failure(move || cache.doubt(&digest))
                };
                Some(Ok((wanted.answer(blob.size, read), served)))
            }
            Found::Doubtful(blob) if wanted.fetch == Fetch::Head && blob.size == link.size => {
                Some(Ok((wanted.answer(blob.size, |_| Body::empty()), served)))
            }
            // It is read as one that comes in, and its end held back until it has been hashed; whose word on its size is right is
            // known then.
            Found::Doubtful(_) => None,
        }
    }

    /// Asks, even when the link is known: a client that is told that the blob is there does not push it.
    async fn missing_blob_head(&self, wanted: Wanted<'_>) -> Answer {
        let (link, role) = self.resolver.blob_link(wanted.repo, wanted.digest).await?;
        let response = wanted.answer(link.size, |_| Body::empty());
        Ok((response, served(role)))
    }

    async fn missing_blob(&self, wanted: Wanted<'_>) -> Answer {
        let Wanted { repo, digest, .. } = wanted;
        if self.resolver.is_absent_blob(repo, digest) {
            return Err(OriginError::not_found());
        }
        let registry = self.resolver.registries().of_blobs(repo);
        let deadline = Instant::now() + registry.answer_timeout();
        let mut may_ask_anew = true;
        for _ in 0..ATTEMPTS_MAX {
            if self.must_pass(wanted).await {
                return self.pass(wanted).await;
            }
            let (mut download, role) = self.downloads.follow(digest, repo, wanted.reach);
            let is_own = download.is_of(repo, &self.resolver);
            let mut size = None;
            if !is_own {
                size = Some(self.linked_size(repo, digest).await?);
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            match download.head(rest).await {
                Head::Landing(landing, kind) => {
                    let begun = (&landing, kind, size);
                    if !self.may_follow(wanted, begun, deadline).await? {
                        return self.pass(wanted).await;
                    }
                    let response = self.following(wanted, &landing, &download);
                    let served = match (role, kind) {
                        (_, SourceKind::Disk) => Served::Hit,
                        (Role::Asked, SourceKind::Sibling) => Served::Sibling,
                        (role, _) => served(role),
                    };
                    return Ok((response, served));
                }
                Head::Passing => return self.pass(wanted).await,
                // Another repository's refusal says nothing about this one.
                Head::Failed(OriginError::Refused(_)) if !is_own => {}
                // That question was asked before this request came.
                Head::Failed(error)
                    if role == Role::Joined
                        && error.is_silence()
                        && Instant::now() < deadline
                        && std::mem::take(&mut may_ask_anew) => {}
                Head::Failed(error) => {
                    if error.is_not_found() {
                        self.resolver.note_absent_blob(repo, digest);
                    }
                    return Err(error);
                }
                Head::Here | Head::Waiting | Head::Asking => {
                    if let Some(answer) = self.cached_blob(wanted).await {
                        return answer;
                    }
                }
            }
        }
        Err(OriginError::Busy)
    }

    /// Whether a blob has to go past the cache: it would have to come in, and the disk takes none now.
    async fn must_pass(&self, wanted: Wanted<'_>) -> bool {
        let Wanted { repo, digest, .. } = wanted;
        let cache = self.resolver.cache();
        let is_to_come = !cache.has(digest) || self.needs_more_than_a_link(repo, digest).await;
        is_to_come && !self.downloads.is_running(digest, repo) && !cache.may_fill()
    }

    /// Whether a blob that comes in is what is wanted; `size` is what the repository links, if it is not the one that was asked
    /// for it.
    async fn may_follow(
        &self,
        wanted: Wanted<'_>,
        (landing, kind, size): (&Landing, SourceKind, Option<u64>),
        deadline: Instant,
    ) -> Result<bool, OriginError> {
        let Wanted { repo, digest, .. } = wanted;
        let size = match size {
            Some(size) => size,
            // Its answer showed the link.
            None if kind != SourceKind::Disk => return Ok(true),
            None => {
                let rest = deadline.saturating_duration_since(Instant::now());
                let linked = timeout(rest, self.linked_size(repo, digest)).await;
                linked.unwrap_or(Err(OriginError::Slow(rest)))?
            }
        };
        // What another repository says of it is wrong, or its own word is: not to be found out by who asks here.
        Ok(size == landing.size())
    }

    /// Whether a blob that is here is given for a repository only after its registry has brought it too.
    async fn needs_more_than_a_link(&self, repo: &RepoName, digest: &Digest) -> bool {
        self.resolver.registries().need_proof(repo)
            && !Box::pin(self.resolver.may_give(repo, digest)).await
    }

    /// Returns how large a blob is that the repository is known, or now found, to link.
    async fn linked_size(&self, repo: &RepoName, digest: &Digest) -> Result<u64, OriginError> {
        match self.resolver.known_blob(repo, digest).await {
            Some(link) => Ok(link.size),
            None => Ok(self.resolver.blob_link(repo, digest).await?.0.size),
        }
    }

    /// Answers with a blob that is coming in.
    fn following(
        &self,
        wanted: Wanted<'_>,
        landing: &Landing,
        download: &Download,
    ) -> Response<Body> {
        let through = Arc::new(self.through(wanted, landing.size()));
        let parts = AtomicUsize::new(0);
        let read = |range: Range<u64>| {
            // Should the disk fail, each costs a request of its own from there on.
            let may_go_alone = parts.fetch_add(1, Ordering::Relaxed) < PARTS_MAX;
            let (landing, through) = (landing.clone(), Arc::clone(&through));
            let attendee = download.attendee();
            let length = range.end - range.start;
            // Of many parts, those whose turn has not come take next to nothing.
            Body::later(length, move || {
                let through = may_go_alone.then(|| Through::clone(&through));
                follow(landing, through, range, attendee)
            })
        };
        wanted.answer(landing.size(), read)
    }

    /// Streams a blob past the cache.
    async fn pass(&self, wanted: Wanted<'_>) -> Answer {
        let (link, _) = self.resolver.blob_link(wanted.repo, wanted.digest).await?;
        let through = self.through(wanted, link.size);
        let mut headers = wanted.headers.clone();
        // Each part costs a request of its own; who gets all of it is as well served.
        if wanted.parts(link.size) > PARTS_MAX {
            headers.remove(RANGE);
        }
        let wanted = Wanted {
            headers: &headers,
            ..wanted
        };
        let response = wanted.answer(link.size, |range| self.proving(&through, range));
        Ok((response, Served::Passed))
    }

    /// Returns bytes past the cache; their end comes when all before it hash to the digest, which is to be remembered.
    fn proving(&self, through: &Through, range: Range<u64>) -> Body {
        let Through {
            repo, digest, size, ..
        } = through;
        let (size, length) = (*size, range.end - range.start);
        let is_to_end = range.end == size;
        let body = through.clone().body(range);
        if !is_to_end || !self.resolver.registries().need_proof(repo) {
            return body;
        }
        let (resolver, repo, digest) = (self.resolver.clone(), repo.clone(), *digest);
        let mut left = length;
        let watched = body.into_stream().inspect_ok(move |bytes| {
            left = left.saturating_sub(bytes.len() as u64);
            if left == 0 {
                resolver.learn_possession(&repo, &digest, size);
            }
        });
        Body::stream(watched).with_exact_len(length)
    }

    fn through(&self, wanted: Wanted<'_>, size: u64) -> Through {
        Through {
            sources: self.downloads.sources().clone(),
            reach: wanted.reach,
            repo: wanted.repo.clone(),
            digest: *wanted.digest,
            size,
        }
    }
}

// === impl Wanted ===

impl Wanted<'_> {
    /// Returns how many ranges are asked for.
    fn parts(&self, size: u64) -> usize {
        self.content(size)
            .plan(self.headers, self.fetch)
            .ranges()
            .len()
    }

    fn answer(&self, size: u64, read: impl Fn(Range<u64>) -> Body) -> Response<Body> {
        self.content(size).answer(self.headers, self.fetch, read)
    }

    const fn content(&self, size: u64) -> Content {
        Content {
            digest: *self.digest,
            size,
            content_type: HeaderValue::from_static(OCTET_STREAM),
        }
    }
}

/// Returns a range of bytes that lies within them.
fn part(bytes: &Bytes, range: Range<u64>) -> Body {
    let [start, end] =
        [range.start, range.end].map(|at| usize::try_from(at).unwrap_or(bytes.len()));
    bytes.slice(start..end).into()
}

const fn served(role: Role) -> Served {
    match role {
        Role::Asked => Served::Miss,
        Role::Joined => Served::Collapsed,
    }
}
