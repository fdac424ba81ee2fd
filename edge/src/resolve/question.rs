//! The question for a manifest, and what becomes of its answer.

use outport_core::net::client::Progress;
use outport_core::oci::reference::{Reference, RepoName, Tag};
use tokio::time::Instant;

use super::absent::Name;
use super::{Resolved, Resolver};
use crate::names::{Asked, Moment, Pointed};
use crate::served::Served;
use crate::source::freshness::{Good, Policy};
use crate::source::{Manifest, ManifestAnswer, OriginError, Standing};

/// A tag that is asked for, and what was known of it before.
#[derive(Clone, Copy)]
struct AskedTag<'a> {
    tag: &'a Tag,
    policy: Policy,
    moment: Moment,
    /// Where it pointed.
    known: Option<Pointed>,
}

impl Resolver {
    pub(super) async fn ask_manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        progress: &Progress,
    ) -> Result<Resolved, OriginError> {
        let policy = self.asked_tag(repo, reference);
        // The question before this one may have been answered since this was asked.
        if let Some(resolved) = self.fresh(repo, reference, policy).await {
            return Ok(resolved);
        }
        if let Some((tag, policy)) = policy
            && policy.good == Good::Forever
            && let Some(pointed) = self.names.tag(repo, tag).await
            && let Some(answer) = self.where_it_was(repo, pointed, progress).await
        {
            return answer;
        }
        let (since, links) = (Instant::now(), self.names.moment_of_links(repo));
        let asked = self.known_of(repo, policy).await;
        let held = match asked.and_then(|asked| asked.known) {
            Some(known) => self.local(repo, &known.digest).await,
            None => None,
        };
        let registry = self.registries.of(repo);
        // An origin does not keep waiting, for anything else, who shows what it may still answer with.
        let is_shown = !registry.is_through() || asked.and_then(AskedTag::last).is_some();
        let held_digest = held.as_ref().filter(|_| is_shown).map(|held| held.digest);
        let answer = registry
            .manifest(repo, reference, held_digest.as_ref(), progress)
            .await;
        let (manifest, served, standing) = match (answer, held) {
            (Ok((ManifestAnswer::Manifest(manifest), standing)), _) => {
                self.learn_manifest(repo, &manifest, links).await;
                (manifest, Served::Miss, standing)
            }
            (Ok((ManifestAnswer::Unchanged, standing)), Some(manifest)) => {
                (manifest, Served::Revalidated, standing)
            }
            (Ok((ManifestAnswer::Unchanged, _)), None) => {
                return Err(OriginError::Nonsense("unchanged, and nothing was known"));
            }
            (Err(error), held) => {
                return self.instead(repo, reference, (asked, held), error).await;
            }
        };
        // Of two origins the one that is asked now may have asked the upstream before the other.
        if standing.is_stale
            && let Some(asked) = asked
            && let Some(last) = asked.last()
            && last.age() <= standing.age
            && let Some(manifest) = self.local(repo, &last.digest).await
        {
            let standing = Standing {
                age: last.age(),
                is_stale: true,
            };
            self.learn_tag(repo, asked, (&manifest, standing), Instant::now());
            return Ok(Resolved::at(manifest, Served::Stale, last));
        }
        if let Some(asked) = asked {
            if let Some(known) = self.frozen_since(repo, asked, &manifest) {
                let kept = self.local(repo, &known.digest).await;
                let kept = kept.ok_or(OriginError::Nonsense("a tag that was frozen has moved"))?;
                return Ok(Resolved::at(kept, Served::Hit, known));
            }
            self.learn_tag(repo, asked, (&manifest, standing), since);
        }
        Ok(Resolved::standing(manifest, served, standing))
    }

    /// Returns what is known of a tag before it is asked for.
    async fn known_of<'a>(
        &self,
        repo: &RepoName,
        tag: Option<(&'a Tag, Policy)>,
    ) -> Option<AskedTag<'a>> {
        let (tag, policy) = tag?;
        Some(AskedTag {
            tag,
            policy,
            moment: self.names.moment_of_tag(repo, tag),
            known: self.names.tag(repo, tag).await,
        })
    }

    /// Returns where a tag pointed that was frozen since it was asked for, if it has moved.
    fn frozen_since(
        &self,
        repo: &RepoName,
        asked: AskedTag<'_>,
        manifest: &Manifest,
    ) -> Option<Pointed> {
        let is_frozen =
            self.registries.frozen().is_set() && self.registries.upstream(repo).is_some();
        let known = asked.known?;
        (is_frozen && known.digest != manifest.digest).then_some(known)
    }

    /// Returns the manifest that a tag points at for good, which is not here, by its digest: where else the tag points now is
    /// nobody's matter. None when it has gone there too, and nobody has said that the tag must stay where it is.
    async fn where_it_was(
        &self,
        repo: &RepoName,
        pointed: Pointed,
        progress: &Progress,
    ) -> Option<Result<Resolved, OriginError>> {
        let by_digest = Reference::Digest(pointed.digest);
        match Box::pin(self.ask_manifest(repo, &by_digest, progress)).await {
            Ok(resolved) => Some(Ok(Resolved::at(resolved.manifest, Served::Miss, pointed))),
            Err(error) if error.is_not_found() && !self.registries.frozen().is_set() => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Remembers where a tag points that was asked for at `since`.
    fn learn_tag(
        &self,
        repo: &RepoName,
        asked: AskedTag<'_>,
        (manifest, standing): (&Manifest, Standing),
        since: Instant,
    ) {
        let pointed = Pointed {
            digest: manifest.digest,
            // What is stale is so for others too, who need not ask for that again at once.
            asked: Asked::At(since),
            age_then: standing.age,
            is_stale: standing.is_stale,
        };
        self.names.put_tag(repo, asked.tag, pointed, asked.moment);
    }

    /// Returns what a client gets when there was no answer, or none to go by.
    async fn instead(
        &self,
        repo: &RepoName,
        reference: &Reference,
        (asked, held): (Option<AskedTag<'_>>, Option<Manifest>),
        error: OriginError,
    ) -> Result<Resolved, OriginError> {
        if error.is_silence()
            && let Some(manifest) = held
            && let Some(last) = asked.and_then(AskedTag::last)
        {
            if error.is_refusal() && self.registries.upstream(repo).is_some() {
                self.refused.put(repo, Name::Manifest(reference.clone()));
            }
            tracing::debug!(repo = %repo, reference = %reference, error = %error, "answering from the last known tag");
            return Ok(Resolved::at(manifest, Served::Stale, last));
        }
        // Who purged it meanwhile wants another answer.
        let is_news = asked.is_none_or(|asked| self.names.has_kept_tag_since(asked.moment));
        if error.is_not_found() && is_news {
            self.forget_manifest(repo, reference).await;
            if self.registries.upstream(repo).is_some() {
                self.absent.put(repo, Name::Manifest(reference.clone()));
            }
        }
        Err(error)
    }
}

// === impl AskedTag ===

impl AskedTag<'_> {
    /// Returns where it pointed, if that may still be answered with.
    fn last(self) -> Option<Pointed> {
        let known = self.known?;
        self.policy.if_error.is_after(known.age()).then_some(known)
    }
}

// === impl Resolved ===

impl Resolved {
    /// Returns a manifest that was asked for, as old as whoever was asked says.
    fn standing(manifest: Manifest, served: Served, standing: Standing) -> Self {
        let is_fresh = standing == Standing::default();
        Self {
            manifest,
            served: if standing.is_stale {
                Served::Stale
            } else {
                served
            },
            age: (!is_fresh).then_some(standing.age),
        }
    }
}
