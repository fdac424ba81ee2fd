//! Who gives a download its bytes, and who is to blame when they are wrong.
//!
//! What: each answer says which source gave it, and through which repository it was asked: a download begins with its own, and
//! may have others asked that were offered to it. Only that repository was shown to link the blob by the answer.
//!
//! Invariant: for wrong bytes of a download to which several registries gave some, none of them is left alone: else whoever lies
//! would cut off those who do not. But they have nothing to do with each other for a while: none is offered to a download, nor
//! its own downloads joined, by others.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use moka::sync::Cache;
use outport_core::net::client::Answerer;
use outport_core::oci::reference::RepoName;
use outport_core::short_memory::short_memory;
use tokio::time::sleep;

use super::fill::Fill;
use crate::metrics::{SourceKind, SourceLabel};
use crate::names::Moment;
use crate::source::sources::{Patience, Question, Reach};
use crate::source::{IncomingBlob, OriginError, Span};

/// Who gives bytes.
#[derive(Clone, Debug)]
pub struct Giver {
    /// What kind of source.
    pub kind: SourceKind,
    /// The repository that it was asked through.
    pub repo: RepoName,
    /// When it was.
    pub(super) moment: Moment,
    /// Which of several nodes it was.
    pub(super) answerer: Option<Answerer>,
}

/// The registries of which wrong bytes came, maybe; by their names, and the origin's has none.
#[derive(Debug)]
pub(super) struct Liars(Option<Cache<String, ()>>);

/// How many of them are remembered, and for how long.
const LIARS_MAX: u64 = 1000;
const LIARS_TIME: Duration = Duration::from_mins(10);

// === impl Giver ===

impl Giver {
    /// Whether its answer showed that a repository links the blob.
    pub fn shows_link_of(&self, repo: &RepoName) -> bool {
        self.kind != SourceKind::Disk && self.repo == *repo
    }
}

// === impl Liars ===

impl Liars {
    pub(super) fn new() -> Self {
        Self(short_memory(LIARS_MAX, LIARS_TIME))
    }

    pub(super) fn put(&self, registry: Option<String>) {
        if let Some(known) = &self.0 {
            known.insert(registry.unwrap_or_default(), ());
        }
    }

    pub(super) fn has(&self, registry: Option<String>) -> bool {
        let name = registry.unwrap_or_default();
        let known = self.0.as_ref();
        known.is_some_and(|known| known.contains_key(&name))
    }
}

// === impl Fill ===

impl Fill<'_> {
    /// Asks for bytes, from whoever is nearest.
    pub(super) async fn ask(
        &self,
        span: Span,
        patience: Patience,
    ) -> Result<(IncomingBlob, Giver), OriginError> {
        if let Some(other) = self.offers.current() {
            let answer = self.ask_through(&other, span.clone(), patience).await;
            if answer.is_ok() {
                return answer;
            }
            self.offers.give_up();
        }
        self.ask_through(self.repo, span, patience).await
    }

    /// Asks for the first bytes to come, and once more beside when clients have been told to come back and one has: what was
    /// asked first may be lost. An upstream is taken to be slow.
    pub(super) async fn ask_first(&self, from: u64) -> Result<(IncomingBlob, Giver), OriginError> {
        let ask = || self.ask(Span::From(from), Patience::Client);
        let registries = self.parts.resolver.registries();
        if registries.upstream(self.repo).is_some() {
            return ask().await;
        }
        let half = registries.of_blobs(self.repo).answer_timeout() / 2;
        let anew = async {
            sleep(half).await;
            let before = self.attendance.ever();
            sleep(half).await;
            self.attendance.more_than(before).await;
        };
        let mut first = pin!(ask());
        tokio::select! {
            answer = &mut first => answer,
            () = anew => tokio::select! {
                answer = &mut first => answer,
                answer = ask() => match answer {
                    Err(error) if error.is_silence() => first.await,
                    answer => answer,
                },
            },
        }
    }

    async fn ask_through(
        &self,
        repo: &RepoName,
        span: Span,
        patience: Patience,
    ) -> Result<(IncomingBlob, Giver), OriginError> {
        let moment = self.parts.resolver.moment_of_links(repo);
        let question = Question {
            repo,
            digest: self.digest,
            span,
            reach: self.reach,
            patience,
        };
        let sources = &self.parts.sources;
        let (blob, kind) = if self.has_sick_sibling.load(Ordering::Relaxed) {
            // One that breaks off again and again must not keep those who do not from being asked.
            let alone = Question {
                reach: Reach::Origin,
                ..question.clone()
            };
            match sources.blob(alone).await {
                Err(error) if error.is_silence() => sources.blob(question).await?,
                answer => answer?,
            }
        } else {
            sources.blob(question).await?
        };
        let answers = &self.parts.metrics.answers;
        answers.get_or_create(&SourceLabel { source: kind }).inc();
        let giver = Giver {
            kind,
            repo: repo.clone(),
            moment,
            answerer: blob.answerer.clone(),
        };
        Ok((blob, giver))
    }

    /// Takes note of who gave bytes.
    pub(super) fn gave(&self, giver: &Giver) {
        let mut gave = self.gave.lock();
        let is_known = |known: &Giver| (known.kind, &known.repo) == (giver.kind, &giver.repo);
        if !gave.iter().any(is_known) {
            gave.push(giver.clone());
        }
    }

    /// Whether a sibling gave bytes, and may be asked for more.
    pub(super) fn has_from_siblings(&self) -> bool {
        let gave = self.gave.lock();
        let is_sibling = |giver: &Giver| giver.kind == SourceKind::Sibling;
        !self.has_sick_sibling.load(Ordering::Relaxed) && gave.iter().any(is_sibling)
    }

    /// Has the siblings asked last from now on, or first again.
    pub(super) fn leave_siblings(&self, is_left: bool) {
        self.has_sick_sibling.store(is_left, Ordering::Relaxed);
    }

    /// Takes note that a source broke off in the middle.
    pub(super) fn broke_off(&self, giver: &Giver) {
        if giver.kind == SourceKind::Sibling {
            self.has_sick_sibling.store(true, Ordering::Relaxed);
        }
    }

    /// Blames those who gave wrong bytes.
    pub(super) fn blame(&self) {
        let sources = &self.parts.sources;
        let gave = std::mem::take(&mut *self.gave.lock());
        let mut registries = gave.iter().map(|giver| sources.upstream(&giver.repo));
        let first = registries.next();
        let are_mixed = registries.any(|other| Some(&other) != first.as_ref());
        for giver in gave {
            if are_mixed || giver.kind == SourceKind::Upstream {
                self.parts.liars.put(sources.upstream(&giver.repo));
            }
            // Each of them asked alone, it comes out which of them it is.
            if are_mixed {
                sources.count_mismatch(&giver.repo);
                continue;
            }
            sources.distrust(giver.kind, &giver.repo, self.digest);
            // Of several that gave bytes the first; were it another, that one is found out when it gives all of them.
            if let Some(answerer) = &giver.answerer {
                answerer.is_wrong();
            }
        }
    }
}
