//! Whether somebody who is asked answers, and what is counted of it.
//!
//! What: a breaker for all questions, and for each repository of an upstream that gave trouble its own, lists apart: that one
//! image cannot be had says nothing of the others, and that nobody knows what refers to it says nothing of the image.
//!
//! Invariants: a repository that is in trouble already speaks for itself only: it neither opens the breaker of all, nor is what
//! finds out whether that may close again, but an answer about it closes both. What may be the fault of the repository that
//! was asked about opens the breaker of all only when that many repositories in a row have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use outport_core::breaker::{Breaker, BreakerConfig, Permit};
use outport_core::net::client::Progress;
use outport_core::oci::reference::RepoName;
use outport_core::short_memory::short_memory;
use outport_core::upstream::Quota;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::OriginError;
use crate::metrics::OriginMetrics;

/// How somebody fares.
#[derive(Debug)]
pub(super) struct Health {
    config: BreakerConfig,
    general: Mutex<General>,
    /// About which parts somebody has waited for it in vain, since it last answered.
    overdue: [AtomicBool; PARTS],
    /// About what there was no answer lately, which says nothing of others.
    silent: Option<Cache<About, ()>>,
    /// The parts of repositories about which questions that were answered took their time lately.
    slow: Option<Cache<Part, ()>>,
    /// What gave trouble.
    troubled: Option<Cache<About, Arc<Mutex<Breaker>>>>,
    metrics: OriginMetrics,
}

/// What a question is about, as it is called where it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct About {
    pub(super) repo: RepoName,
    pub(super) part: Part,
}

/// A question under way.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) about: About,
    pub(super) progress: Progress,
}

/// What of a repository a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Its manifests and blobs.
    Content,
    /// Which tags it has.
    Tags,
    /// What refers to its manifests: not every registry knows how to say that.
    Referrers,
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An answer.
    Answer,
    /// The answer that it cannot be answered, or where it was sent it was not.
    Trouble,
    /// The answer that nobody can answer now: whether that is so in general, others will tell.
    Unavailable,
    /// Nothing, which others will tell too.
    Silence,
    /// Nobody is there.
    Away,
}

/// Whether questions go in general.
#[derive(Debug)]
struct General {
    breaker: Breaker,
    /// Repositories that were met with silence since there was an answer.
    silent: Vec<RepoName>,
}

/// How much that gave trouble is remembered, and for how long after it last did.
const TROUBLED_MAX: u64 = 10_000;
const TROUBLED_TIME: Duration = Duration::from_mins(10);

/// For how long an answer that took its time says that others will: longer than it is between two pulls of what is pulled now and
/// then, as those need a new connection and a token, and are the slow ones.
const SLOW_TIME: Duration = Duration::from_hours(7 * 24);

/// How many parts there are to a repository.
const PARTS: usize = Part::Referrers as usize + 1;

// === impl Health ===

impl Health {
    pub(super) fn new(config: BreakerConfig, is_there: bool, metrics: OriginMetrics) -> Self {
        metrics.up.set(i64::from(is_there));
        Self {
            general: Mutex::new(General {
                breaker: Breaker::new(config),
                silent: Vec::new(),
            }),
            overdue: Default::default(),
            silent: short_memory(TROUBLED_MAX, TROUBLED_TIME),
            slow: short_memory(PARTS as u64, SLOW_TIME),
            troubled: short_memory(TROUBLED_MAX, TROUBLED_TIME),
            config,
            metrics,
        }
    }

    /// Whether a question may go; one that may must be reported back.
    pub(super) fn permit(&self) -> Result<(), OriginError> {
        let permit = self.general.lock().breaker.ask(Instant::now());
        self.granted(permit)
    }

    /// Whether a question about something may go; one that may must be reported back.
    pub(super) fn permit_for(&self, about: &About) -> Result<(), OriginError> {
        let now = Instant::now();
        let of_its_own = |breaker: Arc<Mutex<Breaker>>| {
            let mut breaker = breaker.lock();
            (!breaker.is_closed()).then(|| breaker.ask(now))
        };
        let told = self.general.lock().breaker.told_rest(now);
        if let Some(rest) = told {
            return self.granted(Permit::Rest(rest));
        }
        match self.of(about).and_then(of_its_own) {
            Some(permit) => self.granted(permit),
            None => self.permit(),
        }
    }

    fn granted(&self, permit: Permit) -> Result<(), OriginError> {
        match permit {
            Permit::Go => {
                self.metrics.questions.inc();
                Ok(())
            }
            Permit::Rest(rest) => Err(OriginError::Resting(rest)),
        }
    }

    /// Takes note of what came of a question about something.
    pub(super) fn report_for(&self, about: &About, outcome: Outcome) {
        if outcome == Outcome::Answer {
            // A good word about what gave no trouble is not worth remembering.
            if let Some(breaker) = self.of(about) {
                breaker.lock().succeeded();
            }
            self.report(true);
            return;
        }
        let was_in_trouble = self.of(about).is_some_and(|own| !own.lock().is_closed());
        if outcome != Outcome::Away || was_in_trouble {
            self.fail(about);
        }
        match outcome {
            _ if was_in_trouble => {}
            Outcome::Answer | Outcome::Trouble => self.report(true),
            Outcome::Away => self.report(false),
            // That lists cannot be had is no sign that content cannot.
            Outcome::Unavailable | Outcome::Silence if about.part != Part::Content => {}
            Outcome::Unavailable => self.report_silence(about, Breaker::failed_alone),
            Outcome::Silence => self.report_silence(about, Breaker::failed),
        }
    }

    /// Takes note that a repository was met with silence, which counts as is said.
    fn report_silence(&self, about: &About, count: impl FnOnce(&mut Breaker, Instant)) {
        let (is_closed, silent) = {
            let mut general = self.general.lock();
            let is_first = !general.silent.contains(&about.repo);
            let was_closed = general.breaker.is_closed();
            if is_first {
                general.silent.push(about.repo.clone());
            }
            if is_first || !was_closed {
                count(&mut general.breaker, Instant::now());
            }
            let is_closed = general.breaker.is_closed();
            let silent = if is_closed {
                Vec::new()
            } else {
                std::mem::take(&mut general.silent)
            };
            (is_closed, silent)
        };
        self.metrics.up.set(i64::from(is_closed));
        // From here on they speak for themselves, and others find out whether it was them alone.
        for repo in silent {
            if let Some(breaker) = self.troubled(&About::content(repo)) {
                breaker.lock().open(Instant::now());
            }
        }
    }

    /// Takes note that something cannot be had.
    fn fail(&self, about: &About) {
        self.metrics.failures.inc();
        if let Some(breaker) = self.troubled(about) {
            breaker.lock().failed(Instant::now());
        }
    }

    /// Has something left alone for a while.
    pub(super) fn trip_for(&self, about: &About) {
        if let Some(breaker) = self.troubled(about) {
            breaker.lock().trip(Instant::now());
        }
    }

    fn of(&self, about: &About) -> Option<Arc<Mutex<Breaker>>> {
        self.troubled.as_ref()?.get(about)
    }

    fn troubled(&self, about: &About) -> Option<Arc<Mutex<Breaker>>> {
        let new = || Arc::new(Mutex::new(Breaker::new(self.config)));
        let breaker = self.of(about).unwrap_or_else(new);
        // Anew, as it is remembered from its last trouble on.
        self.troubled
            .as_ref()?
            .insert(about.clone(), Arc::clone(&breaker));
        Some(breaker)
    }

    /// Whether no question about something may go now.
    pub(super) fn is_resting_for(&self, about: &About) -> bool {
        let now = Instant::now();
        let of_its_own = |breaker: Arc<Mutex<Breaker>>| {
            let breaker = breaker.lock();
            (!breaker.is_closed()).then(|| breaker.is_resting(now))
        };
        let own = self.of(about).and_then(of_its_own);
        let general = self.general.lock();
        let is_told = general.breaker.told_rest(now).is_some();
        is_told || own.unwrap_or_else(|| general.breaker.is_resting(now))
    }

    /// Whether nothing has failed in general, nor about something, since there was an answer.
    pub(super) fn is_well_for(&self, about: &About) -> bool {
        let has_failed = |own: Arc<Mutex<Breaker>>| own.lock().has_failed();
        !self.overdue[about.part as usize].load(Ordering::Relaxed)
            && !self.is_silent(about)
            && !self.general.lock().has_failed()
            && !self.of(about).is_some_and(has_failed)
    }

    /// Takes note that somebody has waited in vain for an answer about something, which may come yet; that there may be none because
    /// of who is asked by way of it is known already.
    pub(super) fn note_overdue(&self, about: &About) {
        if !self.is_silent(about) {
            self.overdue[about.part as usize].store(true, Ordering::Relaxed);
        }
    }

    /// Takes note of whether there was a whole answer about something, if only that says nothing of others.
    pub(super) fn note_silent(&self, about: &About, is_silent: bool) {
        match &self.silent {
            Some(silent) if is_silent => silent.insert(about.clone(), ()),
            Some(silent) => silent.invalidate(about),
            None => {}
        }
    }

    fn is_silent(&self, about: &About) -> bool {
        let silent = self.silent.as_ref();
        silent.is_some_and(|silent| silent.contains_key(about))
    }

    /// Takes note that an answer about such a part took its time.
    pub(super) fn note_slow(&self, part: Part) {
        if let Some(slow) = &self.slow {
            slow.insert(part, ());
        }
    }

    /// Whether an answer about such a part took its time lately, or one about content, which is asked for in the same steps.
    pub(super) fn is_slow(&self, part: Part) -> bool {
        let slow = self.slow.as_ref();
        slow.is_some_and(|slow| slow.contains_key(&part) || slow.contains_key(&Part::Content))
    }

    /// Whether none may go now.
    pub(super) fn is_resting(&self) -> bool {
        self.general.lock().breaker.is_resting(Instant::now())
    }

    /// Takes note of whether there was an answer.
    pub(super) fn report(&self, is_well: bool) {
        let is_up = {
            let mut general = self.general.lock();
            if is_well {
                for overdue in &self.overdue {
                    overdue.store(false, Ordering::Relaxed);
                }
                general.silent.clear();
                general.breaker.succeeded();
            } else {
                self.metrics.failures.inc();
                general.breaker.failed(Instant::now());
            }
            general.breaker.is_closed()
        };
        self.metrics.up.set(i64::from(is_up));
    }

    /// Has it left alone for a while.
    pub(super) fn trip(&self) {
        self.general.lock().breaker.trip(Instant::now());
    }

    /// Has it left alone for as long as it says.
    pub(super) fn rest(&self, time: Duration) {
        self.general.lock().breaker.rest(Instant::now(), time);
    }

    /// Counts content that did not hash to its digest.
    pub(super) fn count_mismatch(&self) {
        self.metrics.mismatches.inc();
    }

    /// Shows what is left of a quota.
    pub(super) fn show(&self, quota: Quota) {
        let gauge = |pulls| i64::try_from(pulls).unwrap_or(i64::MAX);
        self.metrics.quota_limit.set(gauge(quota.limit));
        self.metrics.quota_remaining.set(gauge(quota.remaining));
    }
}

// === impl General ===

impl General {
    /// Whether there was a failure since the last answer that may be of more than one repository: silence about one is not, until
    /// enough others are silent too.
    const fn has_failed(&self) -> bool {
        self.breaker.has_failed() && (self.silent.is_empty() || !self.breaker.is_closed())
    }
}

// === impl About ===

impl About {
    /// Returns what a list of a repository is about.
    pub const fn new(repo: RepoName, part: Part) -> Self {
        Self { repo, part }
    }

    /// Returns what of the repository it is about.
    pub const fn part(&self) -> Part {
        self.part
    }

    pub(super) fn asked(self) -> Errand {
        Errand {
            about: self,
            progress: Progress::new(),
        }
    }

    pub(super) const fn content(repo: RepoName) -> Self {
        Self::new(repo, Part::Content)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MIN_REST: Duration = Duration::from_secs(1);

    fn health() -> Health {
        let config = BreakerConfig {
            failures: 3,
            min_rest: MIN_REST,
            max_rest: Duration::from_secs(100),
        };
        Health::new(config, true, OriginMetrics::default())
    }

    fn about(number: usize) -> About {
        About::content(format!("repo-{number}").parse().unwrap())
    }

    /// Asks about repositories that were never asked for, each as soon as one may be, and returns how long it took.
    async fn asked_one_by_one(health: &Health, outcome: Outcome) -> Duration {
        let began = Instant::now();
        for number in 0..10 {
            let about = about(number);
            while let Err(OriginError::Resting(rest)) = health.permit_for(&about) {
                advance(rest).await;
            }
            health.report_for(&about, outcome);
        }
        began.elapsed()
    }

    #[test]
    fn one_that_is_silent_behind_it_says_nothing_of_others() {
        let health = health();
        let (silent, other) = (about(0), about(1));
        // Until the origin says why, it may be the origin.
        health.note_overdue(&silent);
        assert!(!health.is_well_for(&other));
        health.report(true);
        health.note_silent(&silent, true);
        assert!(health.is_well_for(&other) && !health.is_well_for(&silent));
        health.note_overdue(&silent);
        assert!(health.is_well_for(&other));
        health.note_silent(&silent, false);
        assert!(health.is_well_for(&silent));
    }

    #[test]
    fn a_list_that_is_overdue_says_nothing_of_content() {
        let health = health();
        let tags = About::new(about(0).repo, Part::Tags);
        health.note_overdue(&tags);
        assert!(health.is_well_for(&about(0)) && !health.is_well_for(&tags));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_repository_says_nothing_of_others_until_more_are() {
        let health = health();
        for number in 0..3 {
            assert!(health.is_well_for(&about(9)), "{number}");
            health.report_for(&about(number), Outcome::Silence);
            assert!(!health.is_well_for(&about(number)));
        }
        assert!(!health.is_well_for(&about(9)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_in_trouble_speaks_for_itself_only() {
        let health = health();
        let troubled = about(0);
        for number in 0..3 {
            health.permit_for(&about(number)).unwrap();
            health.report_for(&about(number), Outcome::Silence);
        }
        advance(MIN_REST).await;
        // One of the others is to find out whether all can be asked again.
        health.permit_for(&about(3)).unwrap();
        for outcome in [Outcome::Silence, Outcome::Trouble] {
            health.report_for(&troubled, outcome);
            let told = health.permit_for(&about(4));
            assert!(
                matches!(told, Err(OriginError::Resting(MIN_REST))),
                "{outcome:?} {told:?}"
            );
        }
        // That it can be had after all is news of all.
        health.report_for(&troubled, Outcome::Answer);
        health.permit_for(&about(4)).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn repositories_that_cannot_be_had_keep_nobody_from_others_for_long() {
        let took = asked_one_by_one(&health(), Outcome::Unavailable).await;
        assert_eq!(took, 7 * MIN_REST);
        // Who says nothing keeps those waiting who ask.
        let took = asked_one_by_one(&health(), Outcome::Silence).await;
        assert_eq!(took, (1 + 2 + 4 + 8 + 16 + 32 + 64) * MIN_REST);
    }
}
