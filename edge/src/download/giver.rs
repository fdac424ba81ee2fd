//! Who gives a download its bytes, and who is to blame when they are wrong.
//!
//! Invariant: all are of the one registry that the download is of: its siblings' copies, the origin, or the upstream. So whoever
//! gives wrong bytes spoils them for nobody who asks another registry for the same.

use std::pin::pin;
use std::sync::atomic::Ordering;

use outport_core::net::client::Answerer;
use tokio::time::sleep;

use super::fill::Fill;
use crate::metrics::{SourceKind, SourceLabel};
use crate::source::sources::{Patience, Question, Reach};
use crate::source::{IncomingBlob, OriginError, Span};

/// Who gives bytes.
#[derive(Clone, Debug)]
pub(super) struct Giver {
    /// What kind of source.
    pub(super) kind: SourceKind,
    /// Which of several nodes it is.
    answerer: Option<Answerer>,
    /// Whether it has broken off in the middle.
    has_broken_off: bool,
}

// === impl Fill ===

impl Fill<'_> {
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

    /// Asks for bytes, from whoever is nearest.
    pub(super) async fn ask(
        &self,
        span: Span,
        patience: Patience,
    ) -> Result<(IncomingBlob, Giver), OriginError> {
        let question = Question {
            repo: self.repo,
            digest: &self.key.digest,
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
            answerer: blob.answerer.clone(),
            has_broken_off: false,
        };
        Ok((blob, giver))
    }

    /// Takes note of who gave bytes.
    pub(super) fn gave(&self, giver: &Giver) {
        let mut gave = self.gave.lock();
        if !gave.iter().any(|known| known.kind == giver.kind) {
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
        let mut gave = self.gave.lock();
        for known in gave.iter_mut().filter(|known| known.kind == giver.kind) {
            known.has_broken_off = true;
        }
        if giver.kind == SourceKind::Sibling {
            self.has_sick_sibling.store(true, Ordering::Relaxed);
        }
    }

    /// Blames those who gave wrong bytes.
    pub(super) fn blame(&self) {
        let sources = &self.parts.sources;
        let gave = std::mem::take(&mut *self.gave.lock());
        for giver in gave {
            let Giver { kind, answerer, .. } = giver;
            if kind == SourceKind::Sibling && giver.has_broken_off {
                sources.suspect_siblings(&self.key.digest);
                sources.count_mismatch(self.repo);
                continue;
            }
            sources.distrust(kind, self.repo, &self.key.digest);
            // Of several that gave bytes the first; were it another, that one is found out when it gives all of them.
            if let Some(answerer) = answerer {
                answerer.is_wrong();
            }
        }
    }
}
