//! Whether somebody who is asked answers, and what is counted of it.
//!
//! What: a breaker for all questions, and for each repository of an upstream that gave trouble one of its own: that one image
//! cannot be had says nothing of the others.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use outport_core::breaker::{Breaker, BreakerConfig, Permit};
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
    breaker: Mutex<Breaker>,
    /// Of repositories that gave trouble.
    repos: Option<Cache<RepoName, Arc<Mutex<Breaker>>>>,
    metrics: OriginMetrics,
}

/// How many repositories that gave trouble are remembered, and for how long after they last did.
const REPOS_MAX: u64 = 10_000;
const REPO_TIME: Duration = Duration::from_mins(10);

// === impl Health ===

impl Health {
    pub(super) fn new(config: BreakerConfig, is_there: bool, metrics: OriginMetrics) -> Self {
        metrics.up.set(i64::from(is_there));
        Self {
            breaker: Mutex::new(Breaker::new(config)),
            repos: short_memory(REPOS_MAX, REPO_TIME),
            config,
            metrics,
        }
    }

    /// Whether a question may go; one that may must be reported back.
    pub(super) fn permit(&self) -> Result<(), OriginError> {
        let permit = self.breaker.lock().ask(Instant::now());
        match permit {
            Permit::Go => {
                self.metrics.questions.inc();
                Ok(())
            }
            Permit::Rest(rest) => Err(OriginError::Resting(rest)),
        }
    }

    /// Whether a question about a repository may go; one that may must be reported back, as may all.
    pub(super) fn permit_for(&self, repo: &RepoName) -> Result<(), OriginError> {
        if let Some(breaker) = self.of_repo(repo)
            && let Permit::Rest(rest) = breaker.lock().ask(Instant::now())
        {
            return Err(OriginError::Resting(rest));
        }
        self.permit()
    }

    /// Takes note of whether a repository could be asked about, by who answers in general.
    pub(super) fn report_for(&self, repo: &RepoName, is_well: bool) {
        if is_well {
            // A good word about what gave no trouble is not worth remembering.
            if let Some(breaker) = self.of_repo(repo) {
                breaker.lock().succeeded();
            }
            return;
        }
        self.metrics.failures.inc();
        if let Some(breaker) = self.troubled(repo) {
            breaker.lock().failed(Instant::now());
        }
    }

    /// Has a repository left alone for a while.
    pub(super) fn trip_for(&self, repo: &RepoName) {
        if let Some(breaker) = self.troubled(repo) {
            breaker.lock().trip(Instant::now());
        }
    }

    fn of_repo(&self, repo: &RepoName) -> Option<Arc<Mutex<Breaker>>> {
        self.repos.as_ref()?.get(repo)
    }

    fn troubled(&self, repo: &RepoName) -> Option<Arc<Mutex<Breaker>>> {
        let new = || Arc::new(Mutex::new(Breaker::new(self.config)));
        let breaker = self.of_repo(repo).unwrap_or_else(new);
        // Anew, as it is remembered from its last trouble on.
        self.repos
            .as_ref()?
            .insert(repo.clone(), Arc::clone(&breaker));
        Some(breaker)
    }

    /// Whether no question about a repository may go now.
    pub(super) fn is_resting_for(&self, repo: &RepoName) -> bool {
        let rests = |breaker: Arc<Mutex<Breaker>>| breaker.lock().is_resting(Instant::now());
        self.is_resting() || self.of_repo(repo).is_some_and(rests)
    }

    /// Whether none may go now.
    pub(super) fn is_resting(&self) -> bool {
        self.breaker.lock().is_resting(Instant::now())
    }

    /// Takes note of whether there was an answer.
    pub(super) fn report(&self, is_well: bool) {
        let is_up = {
            let mut breaker = self.breaker.lock();
            if is_well {
                breaker.succeeded();
            } else {
                self.metrics.failures.inc();
                breaker.failed(Instant::now());
            }
            breaker.is_closed()
        };
        self.metrics.up.set(i64::from(is_up));
    }

    /// Has it left alone for a while.
    pub(super) fn trip(&self) {
        self.breaker.lock().trip(Instant::now());
    }

    /// Has it left alone for as long as it says.
    pub(super) fn rest(&self, time: Duration) {
        self.breaker.lock().rest(Instant::now(), time);
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
