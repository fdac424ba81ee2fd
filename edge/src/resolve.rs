//! From a name to a manifest, and from a repository and a digest to whether it links it.
//!
//! What: the freshness rules. By digest: what is known to be linked and is here is served without asking. By tag: what the
//! origin said is good for a short time from when it was asked; then it is asked again, and when it cannot be, the last known
//! answer is served and called stale.
//!
//! Invariants: a tag that was moved elsewhere is seen to within that time and one question, and never goes back. Content is
//! returned for a repository only if the origin said, now or before, that this repository links it. Many who ask the same
//! share one question; a push or delete that went through here is never followed by an answer from before it, be it
//! remembered or under way. Why not only answers from after a request came in: a crowd would then cost two questions, and the
//! moment between them cannot be told from a slower network.
//!
//! Failure: silence of the origin is never taken for a no. Cancellation: a question outlives who asked it.

mod absent;
pub mod hosted;
pub mod lists;
mod possession;
mod question;

use std::time::Duration;

use outport_core::oci::digest::Digest;
use outport_core::oci::reference::{Reference, RepoName, Tag};
use outport_core::tasks::Tasks;
use tokio::time::{Instant, timeout_at};

use crate::cache::Cache;
use crate::coalesce::{Asking, Coalesce, Role};
use crate::names::{Asked, Link, LinkKey, LinkKind, Moment, Names, Pointed};
use crate::served::Served;
use crate::source::freshness::{Good, Policy};
use crate::source::registries::Registries;
use crate::source::{Manifest, Origin, OriginError, Part};
use absent::{Absent, Name};
use lists::List;

/// Resolves names; cheap to clone.
#[derive(Clone, Debug)]
pub struct Resolver {
    registries: Registries,
    cache: Cache,
    names: Names,
    manifests: Coalesce<(RepoName, Reference), Result<Resolved, OriginError>>,
    links: Coalesce<LinkKey, Result<Link, OriginError>>,
    lists: Coalesce<String, Result<Option<List>, OriginError>>,
    hosted: Coalesce<RepoName, Result<bool, OriginError>>,
    refreshes: Coalesce<String, ()>,
    absent: Absent,
    /// Tags that could not be asked for a moment ago, because they are refused.
    refused: Absent,
    /// How long what could not be answered is not asked for again.
    absent_for: Duration,
    /// The largest manifest that is kept, in bytes.
    manifest_bytes_max: u64,
}

/// A manifest, and how it came about.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The manifest.
    pub manifest: Manifest,
    /// How it was found.
    pub served: Served,
    /// How long ago the origin said that it is what was asked for; none when it was asked for this, or it does not matter.
    pub age: Option<Duration>,
}

/// A client that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Since when.
    pub since: Instant,
    /// Whether it has something to go on with, so that it need not be kept waiting when nothing can be had soon.
    pub has_another: bool,
}

/// A push on its way.
#[derive(Debug)]
pub struct Pushing {
    repo: RepoName,
    since: Instant,
    links: Moment,
    tags: Vec<(Tag, Moment)>,
}

// === impl Resolver ===

impl Resolver {
    /// Returns a resolver whose questions run on `tasks`.
    pub fn new(
        registries: Registries,
        cache: Cache,
        names: Names,
        tasks: &Tasks,
        (manifest_bytes_max, absent_for): (u64, Duration),
    ) -> Self {
        Self {
            registries,
            cache,
            names,
            manifests: Coalesce::new(tasks.clone()),
            links: Coalesce::new(tasks.clone()),
            lists: Coalesce::new(tasks.clone()),
            hosted: Coalesce::new(tasks.clone()),
            refreshes: Coalesce::new(tasks.clone()),
            absent: Absent::new(absent_for),
            refused: Absent::new(absent_for),
            absent_for,
            manifest_bytes_max,
        }
    }

    /// Returns the origin that is asked.
    pub fn origin(&self) -> &Origin {
        self.registries.origin()
    }

    /// Returns who is asked about which repository.
    pub const fn registries(&self) -> &Registries {
        &self.registries
    }

    /// Returns the largest manifest that is kept, in bytes.
    pub const fn manifest_bytes_max(&self) -> u64 {
        self.manifest_bytes_max
    }

    /// Returns the cache that is looked into.
    pub const fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Returns the manifest that a repository knows by `reference`.
    pub async fn manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        waiting: Waiting,
    ) -> Result<Resolved, OriginError> {
        let tag = self.asked_tag(repo, reference);
        match self.fresh(repo, reference, tag).await {
            Some(resolved) => Ok(resolved),
            // Not within every answer from what is here.
            None => Box::pin(self.manifest_not_fresh(repo, (reference, tag), waiting)).await,
        }
    }

    /// Returns the tag that is asked for, if it is one, and how it is kept.
    fn asked_tag<'a>(
        &self,
        repo: &RepoName,
        reference: &'a Reference,
    ) -> Option<(&'a Tag, Policy)> {
        match reference {
            Reference::Tag(tag) => Some((tag, self.registries.policy(repo, tag))),
            Reference::Digest(_) => None,
        }
    }

    async fn manifest_not_fresh(
        &self,
        repo: &RepoName,
        (reference, tag): (&Reference, Option<(&Tag, Policy)>),
        waiting: Waiting,
    ) -> Result<Resolved, OriginError> {
        let registry = self.registries.of(repo);
        if let Some((tag, policy)) = tag
            && (registry.is_resting_for(repo)
                || self.refused.has(repo, Name::Manifest(reference.clone())))
            && let Some(resolved) = self.last(repo, tag, policy).await
        {
            return Ok(resolved);
        }
        if self.absent.has(repo, Name::Manifest(reference.clone())) {
            return Err(OriginError::not_found());
        }
        let key = (repo.clone(), reference.clone());
        let question = |progress| {
            let (resolver, key) = (self.clone(), key.clone());
            async move { resolver.ask_manifest(&key.0, &key.1, &progress).await }
        };
        // It goes on by itself from here, whoever waits for it.
        let asking = self.manifests.join(key.clone(), question);
        if let Some((tag, policy)) = tag
            && !policy.while_revalidate.is_zero()
            && let Some(pointed) = self.names.tag(repo, tag).await
            && policy.is_of_use(pointed.age())
            && let Some(manifest) = self.local(repo, &pointed.digest).await
        {
            return Ok(Resolved::at(manifest, Served::Revalidating, pointed));
        }
        let answered = self.within_patience(repo, tag, (asking, waiting)).await;
        let (answer, role) = match answered {
            Ok(answered) => answered,
            Err(instead) => return instead,
        };
        let mut resolved = answer.unwrap_or(Err(OriginError::Ending))?;
        if (resolved.served, role) == (Served::Miss, Role::Joined) {
            resolved.served = Served::Collapsed;
        }
        Ok(resolved)
    }

    /// Waits for an answer, or else returns what a client gets in its place: the last one, if there is any, or that it is to
    /// come back. The question goes on meanwhile.
    async fn within_patience<T: Clone>(
        &self,
        repo: &RepoName,
        tag: Option<(&Tag, Policy)>,
        (mut asking, waiting): (Asking<T>, Waiting),
    ) -> Result<(Option<T>, Role), Result<Resolved, OriginError>> {
        let registry = self.registries.of(repo);
        let Some(patience) = registry.patience(repo, Part::Content) else {
            return Ok(asking.answer().await);
        };
        let limit = registry.answer_timeout();
        if let Some(answered) = asking.answer_in_steps(waiting.since, patience).await {
            return Ok(answered);
        }
        registry.note_overdue(repo, Part::Content, asking.steps());
        if let Some((tag, policy)) = tag
            && let Some(resolved) = self.last(repo, tag, policy).await
        {
            return Err(Ok(resolved));
        }
        timeout_at(waiting.until(limit), asking.answer())
            .await
            .map_err(|_elapsed| Err(OriginError::Slow(limit)))
    }

    /// Returns what can be answered with without asking.
    async fn fresh(
        &self,
        repo: &RepoName,
        reference: &Reference,
        tag: Option<(&Tag, Policy)>,
    ) -> Option<Resolved> {
        let (pointed, is_stale) = match (reference, tag) {
            (Reference::Digest(digest), _) => {
                return Some(Resolved {
                    manifest: self.local(repo, digest).await?,
                    served: Served::Hit,
                    age: None,
                });
            }
            (Reference::Tag(_), None) => return None,
            (Reference::Tag(_), Some((tag, policy))) => match policy.good {
                Good::Forever => (self.names.tag(repo, tag).await?, false),
                Good::For(_) => {
                    let pointed = self.names.tag_in_memory(repo, tag)?;
                    let since = pointed.asked.elapsed_since_start()?;
                    let is_kept = !pointed.is_stale || since < self.absent_for;
                    if !policy.good.is_after(since) || !is_kept {
                        return None;
                    }
                    (pointed, pointed.is_stale)
                }
            },
        };
        let manifest = self.local(repo, &pointed.digest).await?;
        let served = if is_stale { Served::Stale } else { Served::Hit };
        Some(Resolved::at(manifest, served, pointed))
    }

    /// Returns where a tag pointed last, unless that was too long ago to be answered with.
    async fn last(&self, repo: &RepoName, tag: &Tag, policy: Policy) -> Option<Resolved> {
        let pointed = self.names.tag(repo, tag).await?;
        if !policy.if_error.is_after(pointed.age()) {
            return None;
        }
        let manifest = self.local(repo, &pointed.digest).await?;
        Some(Resolved::at(manifest, Served::Stale, pointed))
    }

    /// Returns what the origin says now about a repository's link to a blob.
    pub async fn blob_link(
        &self,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<(Link, Role), OriginError> {
        if self.is_absent_blob(repo, digest) {
            return Err(OriginError::not_found());
        }
        let key = blob_key(repo, digest);
        let question = || {
            let (resolver, key) = (self.clone(), key.clone());
            async move { resolver.ask_blob(key).await }
        };
        let asking = self.links.ask(key.clone(), question);
        let (answer, role) = self.registries.of_blobs(repo).in_time(asking).await?;
        Ok((answer.unwrap_or(Err(OriginError::Ending))?, role))
    }

    /// Returns what is known about a repository's link to a blob, without asking.
    pub async fn known_blob(&self, repo: &RepoName, digest: &Digest) -> Option<Link> {
        self.names.link(&blob_key(repo, digest)).await
    }

    /// Returns what the answer to a question about the repository's links is to be remembered by; to be taken before asking.
    pub fn moment_of_links(&self, repo: &RepoName) -> Moment {
        self.names.moment_of_links(repo)
    }

    /// Whether an answer from `moment` is as good as one from now, as far as changes went through here.
    pub fn has_kept_links_since(&self, moment: Moment) -> bool {
        self.names.has_kept_links_since(moment)
    }

    /// Remembers a blob that a repository was found to link when asked at `moment`.
    pub fn learn_blob(&self, repo: &RepoName, digest: &Digest, size: u64, moment: Moment) -> Link {
        let link = Link {
            content_type: http::HeaderValue::from_static(outport_core::oci::media::OCTET_STREAM),
            size,
        };
        // One that may be older than a delete is good for who asked, and for nobody later.
        self.names
            .put_link(blob_key(repo, digest), link.clone(), moment);
        link
    }

    /// Keeps and remembers a manifest that a repository was found to link when asked at `moment`.
    async fn learn_manifest(&self, repo: &RepoName, manifest: &Manifest, moment: Moment) -> bool {
        let link = Link {
            content_type: manifest.content_type.clone(),
            size: manifest.content.len() as u64,
        };
        self.cache
            .put_content(manifest.digest, manifest.content.clone())
            .await;
        let key = manifest_key(repo, &manifest.digest);
        self.names.put_link(key, link, moment)
    }

    /// Returns what a push is to be remembered by; to be taken before it is passed on.
    pub fn pushing(&self, repo: &RepoName, tags: Vec<Tag>) -> Pushing {
        let moment = |tag: Tag| {
            let moment = self.names.moment_of_tag(repo, &tag);
            (tag, moment)
        };
        Pushing {
            repo: repo.clone(),
            since: Instant::now(),
            links: self.names.moment_of_links(repo),
            tags: tags.into_iter().map(moment).collect(),
        }
    }

    /// Keeps and remembers a manifest that was just pushed, and the tags that now point at it.
    ///
    /// What was changed by somebody else meanwhile is forgotten.
    pub async fn manifest_pushed(&self, pushing: Pushing, manifest: &Manifest) {
        let Pushing {
            repo,
            since,
            links,
            tags,
        } = pushing;
        let pointed = Pointed {
            digest: manifest.digest,
            asked: Asked::At(since),
            age_then: Duration::ZERO,
            is_stale: false,
        };
        let by_digest = Reference::Digest(manifest.digest);
        if self.learn_manifest(&repo, manifest, links).await {
            self.manifests.supersede(&(repo.clone(), by_digest));
        } else {
            self.forget_manifest(&repo, &by_digest).await;
        }
        for (tag, moment) in tags {
            if self.names.move_tag(&repo, &tag, pointed, moment) {
                self.manifests
                    .supersede(&(repo.clone(), Reference::Tag(tag)));
            } else {
                self.forget_manifest(&repo, &Reference::Tag(tag)).await;
            }
        }
    }

    /// Forgets a tag, or a repository's link to a manifest, that was just deleted or may have changed.
    pub async fn forget_manifest(&self, repo: &RepoName, reference: &Reference) {
        match reference {
            Reference::Tag(tag) => self.names.drop_tag(repo, tag).await,
            Reference::Digest(digest) => self.names.drop_link(manifest_key(repo, digest)).await,
        }
        self.manifests.supersede(&(repo.clone(), reference.clone()));
        let name = Name::Manifest(reference.clone());
        self.absent.drop(repo, name.clone());
        self.refused.drop(repo, name);
    }

    /// Forgets a tag, or a link to a manifest, so that it is asked for anew, also after a crash.
    pub async fn purge_manifest(&self, repo: &RepoName, reference: &Reference) {
        self.forget_manifest(repo, reference).await;
        self.names.make_durable().await;
    }

    /// Takes note that a repository does not have a blob, if that is an upstream's word.
    pub fn note_absent_blob(&self, repo: &RepoName, digest: &Digest) {
        if self.registries.upstream(repo).is_some() {
            self.absent.put(repo, Name::Blob(*digest));
        }
    }

    /// Whether a repository was found not to have a blob a moment ago.
    pub fn is_absent_blob(&self, repo: &RepoName, digest: &Digest) -> bool {
        self.absent.has(repo, Name::Blob(*digest))
    }

    /// Forgets a repository's link to a blob that was just deleted.
    pub async fn forget_blob(&self, repo: &RepoName, digest: &Digest) {
        let key = blob_key(repo, digest);
        self.names.drop_link(key.clone()).await;
        self.links.supersede(&key);
    }

    /// Returns a manifest that is here and that the repository is known to link.
    async fn local(&self, repo: &RepoName, digest: &Digest) -> Option<Manifest> {
        let link = self.names.link(&manifest_key(repo, digest)).await?;
        let content = self.cache.content(digest, self.manifest_bytes_max).await?;
        Some(Manifest {
            digest: *digest,
            content_type: link.content_type,
            content,
        })
    }

    async fn ask_blob(&self, key: LinkKey) -> Result<Link, OriginError> {
        let moment = self.names.moment_of_links(&key.repo);
        let registry = self.registries.of_blobs(&key.repo);
        match registry.blob_size(&key.repo, &key.digest).await {
            Ok(size) => Ok(self.learn_blob(&key.repo, &key.digest, size, moment)),
            Err(error) => {
                if error.is_not_found() {
                    self.note_absent_blob(&key.repo, &key.digest);
                    self.names.drop_link(key).await;
                }
                Err(error)
            }
        }
    }
}

// === impl Waiting ===

impl Waiting {
    /// Returns one that begins to wait now.
    pub fn now() -> Self {
        Self {
            since: Instant::now(),
            has_another: false,
        }
    }

    /// Returns until when it waits for what is not here, if it would wait for so long.
    pub fn until(self, limit: Duration) -> Instant {
        if self.has_another {
            Instant::now()
        } else {
            self.since + limit
        }
    }
}

// === impl Resolved ===

impl Resolved {
    /// Returns a manifest that a tag points at, as far as is known.
    fn at(manifest: Manifest, served: Served, pointed: Pointed) -> Self {
        Self {
            manifest,
            served,
            age: Some(pointed.age()),
        }
    }
}

fn blob_key(repo: &RepoName, digest: &Digest) -> LinkKey {
    LinkKey {
        repo: repo.clone(),
        digest: *digest,
        kind: LinkKind::Blob,
    }
}

fn manifest_key(repo: &RepoName, digest: &Digest) -> LinkKey {
    LinkKey {
        repo: repo.clone(),
        digest: *digest,
        kind: LinkKind::Manifest,
    }
}
