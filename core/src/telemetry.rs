//! What a process says about itself: log lines and metrics.
//!
//! What: JSON lines on standard error, one per event whatever is in them, and a registry of metrics in the text format of
//! Prometheus. There are no statics: a component registers its metrics in the registry that it is given.
//!
//! Invariant: label values come from enums or literals, never from input.

use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

use crate::net::respond::chain;

/// What is logged.
#[derive(Clone, Debug)]
pub struct Config {
    filter: String,
}

/// A filter that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("not a log filter")]
pub struct BadFilter(#[source] tracing_subscriber::filter::ParseError);

/// Logging was set up already.
#[derive(Debug, thiserror::Error)]
#[error("set up logging")]
pub struct AlreadySetUp(#[source] tracing_subscriber::util::TryInitError);

/// The metrics of a process; a clone is the same metrics.
#[derive(Clone)]
pub struct Metrics(Arc<RwLock<Registry>>);

// === impl Config ===

impl Config {
    /// Takes a filter such as `info` or `info,outport::access=debug`.
    pub fn new(filter: impl Into<String>) -> Result<Self, BadFilter> {
        let filter = filter.into();
        EnvFilter::builder().parse(&filter).map_err(BadFilter)?;
        Ok(Self { filter })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
        }
    }
}

/// Sends log lines to standard error from now on, those of panics included.
pub fn init(config: &Config) -> Result<(), AlreadySetUp> {
    use tracing_subscriber::util::SubscriberInitExt;

    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_env_filter(EnvFilter::builder().parse_lossy(&config.filter))
        .with_writer(io::stderr)
        .finish()
        .try_init()
        .map_err(AlreadySetUp)?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(
            place = place.as_deref(),
            message = panic.payload_as_str(),
            "panic"
        );
    }));
    Ok(())
}

/// Writes out an error and what caused it, for a log field.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error)
}

// === impl Metrics ===

impl Metrics {
    /// Returns metrics whose names begin with `outport_`.
    pub fn new() -> Self {
        Self(Arc::new(RwLock::new(Registry::with_prefix("outport"))))
    }

    /// Lets a component register its metrics.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.0.write())
    }

    /// Returns the text that Prometheus reads.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0.read())?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn a_bad_filter_is_found_out() {
        assert!(Config::new("info,outport::access=debug").is_ok());
        assert!(Config::new("info,=,=nonsense=").is_err());
    }

    #[test]
    fn metrics_carry_the_prefix() {
        let metrics = Metrics::new();
        metrics.register(|registry| {
            let counter: Counter = Counter::default();
            counter.inc();
            registry.register("things", "Things", counter);
        });
        assert!(metrics.encode().unwrap().contains("outport_things_total 1"));
    }
}
