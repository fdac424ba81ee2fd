//! The origin, each sibling and each upstream, as the edge asks it.
//!
//! What: [`Origin`] sends requests and tells the answers apart: an answer, a refusal that is the client's to see, and no answer. A
//! breaker keeps requests from waiting for an origin that was just found dead. An upstream is asked by the names that its
//! repositories have there; what it says to us about credentials and quotas is not for clients.
//!
//! Invariant: what is not an answer is never turned into one: only the origin's own 404, or an upstream's, says that something
//! does not exist.
//!
//! Failure: [`OriginError`]; it can be cloned, because many requests wait for one answer. Cancellation: dropping a future
//! drops its request.

mod answer;
mod asking;
mod blobs;
mod error;
pub mod freshness;
mod health;
pub mod registries;
pub mod ring;
pub mod sources;
pub mod through;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, Request, StatusCode};
use outport_core::access::Access;
use outport_core::body::Body;
use outport_core::body::room::Room;
use outport_core::net::client::{Client, Progress, Steps};
use outport_core::oci::digest::Digest;
use outport_core::oci::range::etag;
use outport_core::oci::reference::{Reference, RepoName};
use outport_core::oci::route::Fetch;
use outport_core::upstream::{Definition, Redirected, Upstream};
use tokio::time::{Instant, timeout};

pub use self::answer::{IncomingBlob, Manifest, ManifestAnswer, Span, Standing};
pub use self::error::{OriginError, Refusal};
use self::freshness::Policy;
pub use self::health::{About, Part};
use self::health::{Errand, Health, Outcome};
use self::wire::{header, is_object, is_page, manifest_request, told_digest};
use crate::metrics::OriginMetrics;
use outport_core::breaker::BreakerConfig;

/// The origin; cheap to clone.
#[derive(Clone, Debug)]
pub struct Origin(Arc<Inner>);

/// How an origin is asked.
#[derive(Clone, Copy, Debug)]
pub struct OriginConfig {
    /// How long a question that a client waits for may take.
    pub answer_timeout: Duration,
    /// The largest manifest that is taken, in bytes.
    pub manifest_bytes_max: u64,
    /// How much memory manifests and lists may take together while they come in, in bytes.
    pub answers_bytes_max: u64,
    /// When to stop asking.
    pub breaker: BreakerConfig,
    /// How tags are kept.
    pub tags: TagConfig,
}

/// How tags are kept, and asked for.
#[derive(Clone, Copy, Debug)]
pub struct TagConfig {
    /// How they are kept.
    pub policy: Policy,
    /// After so long a client that waits for a step towards the answer gets the last one, if there is any.
    pub stale_after: Duration,
    /// How long a question goes on although the client that asked it has been answered otherwise.
    pub question_timeout: Duration,
}

#[derive(Debug)]
struct Inner {
    peer: Peer,
    config: OriginConfig,
    health: Health,
    /// Where manifests and lists come in.
    room: Room,
}

/// A node of this registry.
#[derive(Clone, Debug)]
pub struct Node {
    /// How it is reached.
    pub client: Client,
    /// How it is shown that a node asks, if it is.
    pub access: Option<Access>,
}

/// Who is asked.
#[derive(Debug)]
enum Peer {
    /// Nobody.
    Absent,
    /// A node of this registry.
    Node(Node),
    /// The origin, for an upstream, by this question.
    Through(Node, HeaderValue),
    /// Somebody else's.
    Upstream(Upstream),
}

/// How many nodes a request has gone through.
pub const OUTPORT_HOPS: HeaderName = HeaderName::from_static("outport-hops");

/// For which upstream the origin, or a sibling, is asked, and that an answer of the origin's is its.
pub const OUTPORT_UPSTREAM: HeaderName = HeaderName::from_static("outport-upstream");

/// The most that a request may have gone through.
pub const HOPS_MAX: u32 = 2;

/// The digest of what an answer brings or is about.
pub const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

// === impl Origin ===

impl Origin {
    /// Returns an origin, or a sibling; with none, whatever is not here cannot be had.
    pub fn new(node: Option<Node>, config: OriginConfig, metrics: OriginMetrics) -> Self {
        let peer = node.map_or(Peer::Absent, Peer::Node);
        Self::of_peer(peer, config, metrics)
    }

    /// Returns an upstream.
    pub fn upstream(upstream: Upstream, config: OriginConfig, metrics: OriginMetrics) -> Self {
        Self::of_peer(Peer::Upstream(upstream), config, metrics)
    }

    /// Returns an origin, as who asks an upstream when it is asked by `question`.
    pub fn through(
        (node, question): (Node, HeaderValue),
        config: OriginConfig,
        metrics: OriginMetrics,
    ) -> Self {
        Self::of_peer(Peer::Through(node, question), config, metrics)
    }

    fn of_peer(peer: Peer, config: OriginConfig, metrics: OriginMetrics) -> Self {
        let is_there = !matches!(peer, Peer::Absent);
        Self(Arc::new(Inner {
            health: Health::new(config.breaker, is_there, metrics),
            peer,
            room: Room::new(config.answers_bytes_max),
            config,
        }))
    }

    /// Returns what the upstream was configured as, if it is one.
    pub fn definition(&self) -> Option<&Definition> {
        match &self.0.peer {
            Peer::Upstream(upstream) => Some(upstream.definition()),
            Peer::Absent | Peer::Node(_) | Peer::Through(..) => None,
        }
    }

    /// Whether there is anybody to ask.
    pub fn is_there(&self) -> bool {
        !matches!(self.0.peer, Peer::Absent)
    }

    /// Returns how tags are kept.
    pub fn tags(&self) -> TagConfig {
        self.0.config.tags
    }

    /// Returns how long a client waits.
    pub fn answer_timeout(&self) -> Duration {
        self.0.config.answer_timeout
    }

    /// Whether it was found dead a moment ago, or unable to answer for a repository, and is not asked.
    pub fn is_resting_for(&self, repo: &RepoName) -> bool {
        let remote = self.remote(repo);
        remote.map_or_else(
            |_| self.0.health.is_resting(),
            |remote| self.0.health.is_resting_for(&About::content(remote)),
        )
    }

    /// Returns how long a client that can be answered with what was said before waits for each step towards an answer about a
    /// part of a repository, and for all of them; none: as long as the question goes on.
    ///
    /// Only who is well and has taken its time lately is waited for longer than for one step, while each comes soon: or a tag that
    /// is seldom pulled, for which a token is needed first, would always be what it was before at an upstream that is far away.
    /// An origin that is, or asks who is, for as long as a question may take: it says soon that an upstream does not answer, to
    /// who asks for what has changed.
    pub fn patience(&self, repo: &RepoName, part: Part) -> Option<[Duration; 2]> {
        let TagConfig { stale_after, .. } = self.0.config.tags;
        let limit = self.0.config.answer_timeout;
        let about = self.remote(repo).map(|remote| About::new(remote, part));
        let is_well = about.is_ok_and(|about| self.0.health.is_well_for(&about));
        let is_slow = self.0.health.is_slow(part);
        match &self.0.peer {
            _ if !is_well => Some([stale_after; 2]),
            Peer::Absent | Peer::Node(_) => None,
            Peer::Upstream(_) if is_slow => Some([stale_after, limit]),
            Peer::Upstream(_) => Some([stale_after; 2]),
            Peer::Through(..) if is_slow => Some([limit; 2]),
            // So that the origin can say for whom it waits before it is taken for the one that does not answer.
            Peer::Through(..) => Some([stale_after * 5 / 4; 2]),
        }
    }

    /// Takes note that a client has waited in vain for an answer about a part of a repository, which has come so far.
    pub fn note_overdue(&self, repo: &RepoName, part: Part, steps: Steps) {
        let Ok(remote) = self.remote(repo) else {
            return;
        };
        let about = About::new(remote, part);
        match &self.0.peer {
            Peer::Absent | Peer::Node(_) => {}
            // It has answered, and the rest is on its way.
            Peer::Through(..) if steps.heads > 0 => {}
            Peer::Through(..) => self.0.health.note_overdue(&about),
            Peer::Upstream(_) => self.0.health.note_silent(&about, true),
        }
    }

    /// Takes note of what became of a question that was asked at a time, and of how old the answer is.
    fn note_answer(
        &self,
        Errand { about, progress }: &Errand,
        asked: Instant,
        answer: Result<Standing, &OriginError>,
    ) {
        let health = &self.0.health;
        let is_well = match answer {
            Ok(standing) => !standing.is_stale,
            Err(error) if error.is_not_found() => true,
            Err(error) if error.is_refusal() => return,
            Err(OriginError::Later(_) | OriginError::Sick(_)) if self.is_through() => false,
            Err(_) => return,
        };
        health.note_silent(about, !is_well);
        let is_slow = asked.elapsed() > self.0.config.tags.stale_after;
        // What waits for others of our own says nothing of who is asked.
        if is_well && is_slow && !progress.steps().was_queued {
            health.note_slow(about.part);
        }
    }

    /// Whether the origin is asked, for an upstream.
    pub fn is_through(&self) -> bool {
        matches!(self.0.peer, Peer::Through(..))
    }

    /// Returns how many times as long as usual its tags are good, because its quota is running out.
    pub fn stretch(&self) -> u32 {
        match &self.0.peer {
            Peer::Upstream(upstream) => upstream.stretch(),
            Peer::Absent | Peer::Node(_) | Peer::Through(..) => 1,
        }
    }

    /// Returns the name that a repository has there, if it may be asked for.
    pub fn remote(&self, repo: &RepoName) -> Result<RepoName, OriginError> {
        let Some(definition) = self.definition() else {
            return Ok(repo.clone());
        };
        let remote = definition.remote(repo).ok_or(OriginError::Forbidden)?;
        if definition.may_pull(&remote) {
            Ok(remote)
        } else {
            Err(OriginError::Forbidden)
        }
    }

    /// Counts content that did not hash to its digest.
    pub fn count_mismatch(&self) {
        self.0.health.count_mismatch();
    }

    /// Counts content of a repository that did not hash to its digest, and asks no more about that for a while.
    pub fn distrust_for(&self, repo: &RepoName) {
        self.count_mismatch();
        if let Ok(remote) = self.remote(repo) {
            self.0.health.trip_for(&About::content(remote));
        }
    }

    /// Counts content that did not hash to its digest, and asks no more for a while.
    pub fn distrust(&self) {
        self.count_mismatch();
        self.0.health.trip();
    }

    /// Asks for a manifest, unless its digest is `known` still.
    pub async fn manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        known: Option<&Digest>,
        progress: &Progress,
    ) -> Result<(ManifestAnswer, Standing), OriginError> {
        let errand = Errand {
            about: About::content(self.remote(repo)?),
            progress: progress.clone(),
        };
        let asked = Instant::now();
        let answer = self.in_question_time(&errand, async {
            let remote = &errand.about.repo;
            if let (Some(known), Some(_)) = (known, self.definition())
                && self.is_unchanged(&errand, reference, known).await?
            {
                return Ok((ManifestAnswer::Unchanged, Standing::default()));
            }
            let mut request = manifest_request(remote, reference, Fetch::Get)?;
            if let (Some(known), None) = (known, self.definition()) {
                request
                    .headers_mut()
                    .insert(IF_NONE_MATCH, header(etag(known))?);
            }
            let response = self.answer(&errand, request).await?;
            let standing = match &self.0.peer {
                Peer::Through(..) => Standing::of(response.headers()),
                Peer::Absent | Peer::Node(_) | Peer::Upstream(_) => Standing::default(),
            };
            if response.status() == StatusCode::NOT_MODIFIED && known.is_some() {
                return Ok((ManifestAnswer::Unchanged, standing));
            }
            let manifest = self.read_manifest(response, reference).await?;
            Ok((ManifestAnswer::Manifest(manifest), standing))
        });
        let answer = answer.await;
        let outcome = answer.as_ref().map(|(_, standing)| *standing);
        self.note_answer(&errand, asked, outcome);
        answer
    }

    /// Asks an upstream whether a tag still points where it did, by HEAD: that is what quotas do not count.
    async fn is_unchanged(
        &self,
        errand: &Errand,
        reference: &Reference,
        known: &Digest,
    ) -> Result<bool, OriginError> {
        let request = manifest_request(&errand.about.repo, reference, Fetch::Head)?;
        match self.answer(errand, request).await {
            Ok(response) => Ok(told_digest(response.headers()).as_ref() == Some(known)),
            // Some answer HEAD otherwise than GET, which is to say it then.
            Err(error) if error.is_not_found() => Ok(false),
            Err(OriginError::Sick(status)) if status.is_client_error() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks an upstream for a list, and returns its headers and the list.
    pub async fn list(
        &self,
        about: &About,
        (request, progress): (Request<Body>, &Progress),
        bytes_max: u64,
    ) -> Result<(HeaderMap, Bytes), OriginError> {
        let errand = &Errand {
            about: about.clone(),
            progress: progress.clone(),
        };
        let asked = Instant::now();
        let answer = self.in_question_time(errand, async {
            let response = self.answer(errand, request).await?;
            let is_redirected = response.extensions().get::<Redirected>().is_some();
            if is_page(response.headers()) {
                // ghcr.io sends on to a page that says that there is nothing.
                return Err(if is_redirected {
                    OriginError::not_found()
                } else {
                    OriginError::Nonsense("a page instead of a list")
                });
            }
            let (head, body) = response.into_parts();
            let list = self.0.room.collect(body, bytes_max).await;
            let list = list.or(Err(OriginError::Nonsense(
                "a list that breaks off or is too long",
            )))?;
            if !is_object(&list) {
                return Err(OriginError::Nonsense("something that is no list"));
            }
            Ok((head.headers, list))
        });
        let answer = answer.await;
        let standing = answer.as_ref().map(|(headers, _)| Standing::of(headers));
        self.note_answer(errand, asked, standing);
        answer
    }

    /// Bounds how long a question goes on.
    async fn in_question_time<T>(
        &self,
        errand: &Errand,
        question: impl Future<Output = Result<T, OriginError>>,
    ) -> Result<T, OriginError> {
        self.within(self.0.config.tags.question_timeout, errand, question)
            .await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        errand: &Errand,
        question: impl Future<Output = Result<T, OriginError>>,
    ) -> Result<T, OriginError> {
        if let Ok(answer) = timeout(limit, question).await {
            return answer;
        }
        let steps = errand.progress.steps();
        if steps.is_queued {
            return Err(OriginError::Busy);
        }
        match self.0.peer {
            Peer::Absent => {}
            // An origin says sooner that it has no answer of an upstream; what comes behind the head of one is the upstream's.
            Peer::Through(..) if steps.heads > 0 => {}
            Peer::Through(..) | Peer::Node(_) => self.0.health.report(false),
            Peer::Upstream(_) => self.0.health.report_for(&errand.about, Outcome::Silence),
        }
        Err(OriginError::Slow(limit))
    }

    /// Bounds how long a client waits for an answer, to a question that goes on whether it does or not.
    pub async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, OriginError> {
        let limit = self.0.config.answer_timeout;
        timeout(limit, answer)
            .await
            .or(Err(OriginError::Slow(limit)))
    }
}
