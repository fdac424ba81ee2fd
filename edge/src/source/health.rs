//! Whether somebody who is asked answers, and what is counted of it.

use outport_core::breaker::{Breaker, BreakerConfig, Permit};
use outport_core::upstream::Quota;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::OriginError;
use crate::metrics::OriginMetrics;

/// How somebody fares.
#[derive(Debug)]
pub(super) struct Health {
    breaker: Mutex<Breaker>,
    metrics: OriginMetrics,
}

// === impl Health ===

impl Health {
    pub(super) fn new(config: BreakerConfig, is_there: bool, metrics: OriginMetrics) -> Self {
        metrics.up.set(i64::from(is_there));
        Self {
            breaker: Mutex::new(Breaker::new(config)),
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
