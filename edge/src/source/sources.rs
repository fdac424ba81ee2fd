//! From whom a blob comes: the siblings of the region in their order, then the origin, or the upstream that the repository is of.
//!
//! What: [`Sources::blob`] asks the digest's owner in the region, the next one when that is away, and the origin when this
//! node is the owner itself or no sibling helps.
//!
//! Invariants: a request that a sibling sent goes to the origin only, so no request goes in a circle; a sibling's no means
//! only that it does not help. It is told of which upstream a repository is, and whether that is for some here, so that what it
//! gives is what is meant, and to be given on: without that it gives what is hosted, and nothing else. Failure: what the
//! origin says counts, in the end. A sibling that is slow is overtaken: the origin is asked beside it, and the first to answer
//! is the source.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use moka::sync::Cache;
use outport_core::net::client::BaseUrl;
use outport_core::oci::digest::Digest;
use outport_core::oci::reference::RepoName;
use outport_core::short_memory::short_memory;
use tokio::time::timeout;

use super::registries::{Registries, Remote};
use super::ring::Ring;
use super::{IncomingBlob, OUTPORT_HOPS, OUTPORT_UPSTREAM, Origin, OriginError, Span};
use crate::cache::table::Home;
use crate::metrics::SourceKind;

/// Where blobs come from; cheap to clone.
#[derive(Clone, Debug)]
pub struct Sources(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registries: Registries,
    ring: Ring,
    siblings: Vec<Origin>,
    overtake_after: Duration,
    /// Blobs that came wrong when a sibling that gave some of them had broken off: it may have given wrong bytes, or not.
    suspected: Option<Cache<Digest, ()>>,
}

/// Another node of the region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiblingSite {
    /// Its name, by which all nodes of the region know it.
    pub name: String,
    /// Where it serves clients.
    pub url: BaseUrl,
}

/// A question for a blob.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The repository that links it.
    pub repo: &'a RepoName,
    /// Which.
    pub digest: &'a Digest,
    /// Which bytes.
    pub span: Span,
    /// Who may be asked.
    pub reach: Reach,
    /// How long the answer may take.
    pub patience: Patience,
}

/// Who may be asked for a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The region first.
    Region,
    /// The origin only: a sibling asks.
    Origin,
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// A client waits for its status, or did.
    Client,
    /// Clients have their status, and some bytes.
    Download,
}

/// How many nodes a request for a blob has gone through when it comes to a sibling, and to the origin.
const HOPS_TO_SIBLING: HeaderValue = HeaderValue::from_static("1");
const HOPS_TO_ORIGIN: HeaderValue = HeaderValue::from_static("2");

/// How many blobs are asked for without the siblings because one of them may have given wrong bytes, and for how long.
const SUSPECTED_MAX: u64 = 10_000;
const SUSPECTED_TIME: Duration = Duration::from_mins(10);

// === impl Sources ===

impl Sources {
    /// Returns the sources of a node in `ring`, whose `siblings` are in the ring's order.
    pub fn new(
        registries: Registries,
        ring: Ring,
        siblings: Vec<Origin>,
        overtake_after: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            registries,
            ring,
            siblings,
            overtake_after,
            suspected: short_memory(SUSPECTED_MAX, SUSPECTED_TIME),
        }))
    }

    /// Returns the name of the upstream that a repository is of, if it is of one.
    pub fn upstream(&self, repo: &RepoName) -> Option<String> {
        let upstream = self.0.registries.upstream(repo)?;
        Some(upstream.definition.name.clone())
    }

    /// Returns which node keeps a blob for the region.
    pub fn home(&self, digest: &Digest) -> Home {
        if self.0.ring.before_own(digest).is_empty() {
            Home::Here
        } else {
            Home::Sibling
        }
    }

    /// Fetches bytes of a blob; returns when the head of the answer is in.
    pub async fn blob(
        &self,
        question: Question<'_>,
    ) -> Result<(IncomingBlob, SourceKind), OriginError> {
        let siblings = match question.reach {
            Reach::Region if !self.is_suspected(question.digest) => {
                self.0.ring.before_own(question.digest)
            }
            Reach::Region | Reach::Origin => Vec::new(),
        };
        for index in siblings {
            let mut asking = pin!(self.ask_sibling(&self.0.siblings[index], &question));
            let Ok(answer) = timeout(self.0.overtake_after, &mut asking).await else {
                return self.race(asking, &question).await;
            };
            match answer {
                Ok(blob) => return Ok((blob, SourceKind::Sibling)),
                Err(error) => {
                    tracing::debug!(digest = %question.digest, error = %error, "sibling does not help");
                }
            }
        }
        self.ask_origin(&question).await
    }

    /// Asks the origin beside a sibling that takes its time.
    async fn race(
        &self,
        sibling: impl Future<Output = Result<IncomingBlob, OriginError>>,
        question: &Question<'_>,
    ) -> Result<(IncomingBlob, SourceKind), OriginError> {
        let mut sibling = pin!(sibling);
        let mut origin = pin!(self.ask_origin(question));
        tokio::select! {
            answer = &mut origin => match answer {
                Ok(answer) => Ok(answer),
                Err(error) if error.is_silence() => {
                    // The origin's word counts, when the sibling does not help either.
                    let blob = sibling.await.or(Err(error))?;
                    Ok((blob, SourceKind::Sibling))
                }
                Err(error) => Err(error),
            },
            answer = &mut sibling => match answer {
                Ok(blob) => Ok((blob, SourceKind::Sibling)),
                Err(_) => origin.await,
            },
        }
    }

    /// Takes note that a source sent wrong bytes of what a repository links.
    pub fn distrust(&self, kind: SourceKind, repo: &RepoName, digest: &Digest) {
        match kind {
            SourceKind::Origin => self.0.registries.of_blobs(repo).count_mismatch(),
            SourceKind::Upstream => self.0.registries.of_blobs(repo).distrust_for(repo),
            // That is put aside.
            SourceKind::Disk => {}
            // Whoever it was of them: the download of this digest asks the first.
            SourceKind::Sibling => {
                for index in self.0.ring.before_own(digest) {
                    self.0.siblings[index].distrust();
                }
            }
        }
    }

    /// Takes note that a blob came wrong of which a sibling that broke off gave some bytes. One that has found out itself breaks
    /// off too, and never gives the end of what is wrong. So the blob is asked for without them, and then it is known.
    pub fn suspect_siblings(&self, digest: &Digest) {
        if let Some(suspected) = &self.0.suspected {
            suspected.insert(*digest, ());
        }
    }

    /// Takes note that a blob came right: without a sibling, if one was suspected, which is known now to have given wrong bytes.
    pub fn note_right(&self, repo: &RepoName, digest: &Digest) {
        if self.is_suspected(digest) {
            self.distrust(SourceKind::Sibling, repo, digest);
        }
        if let Some(suspected) = &self.0.suspected {
            suspected.invalidate(digest);
        }
    }

    fn is_suspected(&self, digest: &Digest) -> bool {
        let suspected = self.0.suspected.as_ref();
        suspected.is_some_and(|suspected| suspected.contains_key(digest))
    }

    /// Takes note of wrong bytes of what a repository links, whoever gave them.
    pub fn count_mismatch(&self, repo: &RepoName) {
        self.0.registries.of_blobs(repo).count_mismatch();
    }

    async fn ask_sibling(
        &self,
        sibling: &Origin,
        question: &Question<'_>,
    ) -> Result<IncomingBlob, OriginError> {
        let mut told = hops(HOPS_TO_SIBLING);
        if let Some(Remote { definition, .. }) = self.0.registries.upstream(question.repo) {
            let upstream = HeaderValue::try_from(definition.question());
            let upstream = upstream.or(Err(OriginError::Nonsense("a name that cannot be said")))?;
            told.insert(OUTPORT_UPSTREAM, upstream);
        }
        ask(sibling, question, told).await
    }

    async fn ask_origin(
        &self,
        question: &Question<'_>,
    ) -> Result<(IncomingBlob, SourceKind), OriginError> {
        let registry = self.0.registries.of_blobs(question.repo);
        let blob = ask(registry, question, hops(HOPS_TO_ORIGIN)).await?;
        let kind = if registry.definition().is_some() {
            SourceKind::Upstream
        } else {
            SourceKind::Origin
        };
        Ok((blob, kind))
    }
}

fn hops(gone: HeaderValue) -> HeaderMap {
    HeaderMap::from_iter([(OUTPORT_HOPS, gone)])
}

async fn ask(
    source: &Origin,
    question: &Question<'_>,
    told: HeaderMap,
) -> Result<IncomingBlob, OriginError> {
    let wanted = (question.span.clone(), question.patience);
    let asking = source.blob(question.repo, question.digest, wanted, told);
    Box::pin(asking).await
}
