//! What a server counts.

use std::fmt::Write as _;

use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::activity::Cut;

/// The metrics of a server.
#[derive(Clone, Debug)]
pub(super) struct ServerMetrics {
    pub(super) connections: Gauge,
    pub(super) connections_accepted: Counter,
    pub(super) connections_shed: Counter,
    pub(super) connections_parked: Counter,
    pub(super) connections_unopened: Counter,
    pub(super) connections_cut: Family<CutLabels, Counter>,
    pub(super) requests_in_flight: Gauge,
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) responses_unfinished: Family<UnfinishedLabels, Counter>,
    pub(super) sent_bytes: Counter,
    pub(super) head_seconds: Histogram,
}

/// Why a connection was cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CutLabels {
    pub(super) reason: Cut,
}

/// What was asked for and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) route: &'static str,
    pub(super) status: StatusClass,
}

/// Why a response was not sent to its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct UnfinishedLabels {
    pub(super) outcome: Outcome,
}

/// What kind of status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum StatusClass {
    Success,
    Redirection,
    ClientError,
    ServerError,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// All of it was handed over.
    Finished,
    /// The client left.
    Left,
    /// Its body broke off.
    Broken,
    /// The client took nothing of it, while it was busy with others.
    Stalled,
}

// === impl ServerMetrics ===

impl ServerMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            connections: Gauge::default(),
            connections_accepted: Counter::default(),
            connections_shed: Counter::default(),
            connections_parked: Counter::default(),
            connections_unopened: Counter::default(),
            connections_cut: Family::default(),
            requests_in_flight: Gauge::default(),
            requests: Family::default(),
            responses_unfinished: Family::default(),
            sent_bytes: Counter::default(),
            head_seconds: Histogram::new([
                0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            ]),
        };
        metrics.register_connections(registry);
        let Self {
            requests_in_flight,
            requests,
            responses_unfinished,
            sent_bytes,
            head_seconds,
            ..
        } = metrics.clone();
        registry.register(
            "requests_in_flight",
            "Requests being answered",
            requests_in_flight,
        );
        registry.register("requests", "Requests answered", requests);
        registry.register(
            "responses_unfinished",
            "Responses not sent to their end",
            responses_unfinished,
        );
        registry.register_with_unit("response_body", "Bodies sent", Unit::Bytes, sent_bytes);
        registry.register_with_unit(
            "response_head",
            "Time to a response's head",
            Unit::Seconds,
            head_seconds,
        );
        metrics
    }

    fn register_connections(&self, registry: &mut Registry) {
        let Self {
            connections,
            connections_accepted,
            connections_shed,
            connections_parked,
            connections_unopened,
            connections_cut,
            ..
        } = self.clone();
        registry.register("connections", "Open connections", connections);
        registry.register(
            "connections_accepted",
            "Connections served",
            connections_accepted,
        );
        registry.register(
            "connections_shed",
            "Connections refused, too many being open",
            connections_shed,
        );
        registry.register(
            "connections_parked",
            "How often only the socket of an idle connection was kept",
            connections_parked,
        );
        registry.register(
            "connections_unopened",
            "Connections that broke off before it was known what they speak, as by a bad handshake",
            connections_unopened,
        );
        registry.register(
            "connections_cut",
            "Connections cut for being slow or idle, or for HTTP/2 from an address that abused it",
            connections_cut,
        );
    }
}

// === impl StatusClass ===

impl From<StatusCode> for StatusClass {
    fn from(status: StatusCode) -> Self {
        match status.as_u16() {
            ..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }
}

impl StatusClass {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

impl EncodeLabelValue for StatusClass {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.as_str())
    }
}

// === impl Outcome ===

impl Outcome {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Left => "left",
            Self::Broken => "broken",
            Self::Stalled => "stalled",
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.as_str())
    }
}

// === impl Cut ===

impl Cut {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::SlowHead => "slow_head",
            Self::Idle => "idle",
            Self::SendStall => "send_stall",
            Self::Linger => "linger",
            Self::Offender => "offender",
        }
    }
}

impl EncodeLabelValue for Cut {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.as_str())
    }
}
