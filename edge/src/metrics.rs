//! What the edge counts, one struct per part.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::served::Served;

/// What the whole edge counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Of requests.
    pub requests: RequestMetrics,
    /// Of the cache.
    pub cache: CacheMetrics,
    /// Of the origin.
    pub origin: OriginMetrics,
    /// Of upstreams.
    pub upstreams: UpstreamMetrics,
    /// Of downloads.
    pub downloads: DownloadMetrics,
}

/// What is counted of requests.
#[derive(Clone, Debug, Default)]
pub struct RequestMetrics {
    /// Requests, by how they were served.
    pub served: Family<ServedLabel, Counter>,
    /// Bytes of content in responses, by how they were served.
    pub bytes: Family<ServedLabel, Counter>,
}

/// What is counted of the cache.
#[derive(Clone, Debug, Default)]
pub struct CacheMetrics {
    /// Bytes on disk.
    pub bytes: Gauge,
    /// What they are kept under.
    pub capacity_bytes: Gauge,
    /// Blobs and manifests on disk.
    pub blobs: Gauge,
    /// Those that had to go for others.
    pub evictions: Counter,
    /// Those that were found damaged.
    pub damaged: Counter,
    /// How often the disk did not take a blob.
    pub disk_failures: Counter,
}

/// What is counted of the origin, or of another that is asked.
#[derive(Clone, Debug, Default)]
pub struct OriginMetrics {
    /// 1 while it answers.
    pub up: Gauge,
    /// Questions sent.
    pub questions: Counter,
    /// Those that got no answer, or only that there cannot be one.
    pub failures: Counter,
    /// Content that did not hash to its digest.
    pub mismatches: Counter,
    /// How many pulls its quota has; 0 when it says nothing of one.
    pub quota_limit: Gauge,
    /// How many of them are left.
    pub quota_remaining: Gauge,
}

/// What is counted of each upstream.
#[derive(Clone, Debug, Default)]
pub struct UpstreamMetrics {
    /// 1 while it answers.
    pub up: Family<UpstreamLabel, Gauge>,
    /// Questions sent.
    pub questions: Family<UpstreamLabel, Counter>,
    /// Those that got no answer, or only that there cannot be one.
    pub failures: Family<UpstreamLabel, Counter>,
    /// How many pulls its quota has.
    pub quota_limit: Family<UpstreamLabel, Gauge>,
    /// How many of them are left.
    pub quota_remaining: Family<UpstreamLabel, Gauge>,
}

/// Which upstream: one of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpstreamLabel {
    /// Its name.
    pub upstream: String,
}

/// What is counted of downloads.
#[derive(Clone, Debug, Default)]
pub struct DownloadMetrics {
    /// Those under way.
    pub running: Gauge,
    /// Those that ended, by how.
    pub finished: Family<OutcomeLabel, Counter>,
    /// Bytes that came in.
    pub bytes: Counter,
    /// How often a source that died was asked for the rest.
    pub resumes: Counter,
    /// Answers that bytes came with, by who gave them.
    pub answers: Family<SourceLabel, Counter>,
}

/// How a request was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ServedLabel {
    /// How.
    pub served: Served,
}

/// Who gave an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabel {
    /// Who.
    pub source: SourceKind,
}

/// A kind of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// The cache disk itself: what is there is hashed again.
    Disk,
    /// Another node of the region.
    Sibling,
    /// The origin.
    Origin,
    /// Somebody else's registry.
    Upstream,
}

/// How a download ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// How.
    pub outcome: Outcome,
}

/// How a download ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Verified, and kept or here already.
    Kept,
    /// Verified, and not kept because the disk failed at the end.
    NotKept,
    /// The bytes did not hash to the digest.
    Mismatch,
    /// The source said no, or could not be asked.
    Refused,
    /// The source died and did not come back.
    Broken,
    /// The disk failed on the way.
    Disk,
    /// Nobody waited for it any more.
    Deserted,
    /// The edge went down.
    Ended,
}

// === impl Metrics ===

impl Metrics {
    /// Registers everything but what is of an origin where this is one.
    pub fn register(&self, registry: &mut Registry, is_of_origin: bool) {
        self.requests.register(registry);
        self.cache.register(registry);
        if !is_of_origin {
            self.origin.register(registry);
        }
        self.upstreams.register(registry);
        self.downloads.register(registry);
    }

    /// Returns those of an upstream.
    pub fn of_upstream(&self, name: &str) -> OriginMetrics {
        let label = UpstreamLabel {
            upstream: name.to_owned(),
        };
        let all = &self.upstreams;
        OriginMetrics {
            up: all.up.get_or_create(&label).clone(),
            questions: all.questions.get_or_create(&label).clone(),
            failures: all.failures.get_or_create(&label).clone(),
            mismatches: self.origin.mismatches.clone(),
            quota_limit: all.quota_limit.get_or_create(&label).clone(),
            quota_remaining: all.quota_remaining.get_or_create(&label).clone(),
        }
    }
}

// === impl RequestMetrics ===

impl RequestMetrics {
    fn register(&self, registry: &mut Registry) {
        let Self { served, bytes } = self.clone();
        registry.register("requests", "Requests, by how they were served", served);
        let help = "Bytes of content promised in answers, by how they were served";
        registry.register("served_bytes", help, bytes);
    }
}

// === impl CacheMetrics ===

impl CacheMetrics {
    fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("cache");
        let all = self.clone();
        registry.register("bytes", "Bytes on the cache disk", all.bytes);
        let help = "What the bytes on the cache disk are kept under";
        registry.register("capacity_bytes", help, all.capacity_bytes);
        registry.register("blobs", "Blobs and manifests on the cache disk", all.blobs);
        let help = "Blobs and manifests that had to go for others";
        registry.register("evictions", help, all.evictions);
        registry.register("damaged", "Blobs and manifests found damaged", all.damaged);
        let help = "Times that the cache disk did not take a blob";
        registry.register("disk_failures", help, all.disk_failures);
    }
}

// === impl OriginMetrics ===

impl OriginMetrics {
    /// Returns those of a sibling: what is wrong is counted together, what is up is not.
    #[must_use]
    pub fn of_sibling(&self) -> Self {
        Self {
            mismatches: self.mismatches.clone(),
            ..Self::default()
        }
    }

    fn register(&self, registry: &mut Registry) {
        let Self {
            up,
            questions,
            failures,
            mismatches,
            ..
        } = self.clone();
        registry.register("origin_up", "1 while the origin answers", up);
        registry.register(
            "origin_questions",
            "Questions sent to the origin",
            questions,
        );
        let help = "Questions to the origin without an answer";
        registry.register("origin_failures", help, failures);
        let help = "Content from a source that did not hash to its digest";
        registry.register("digest_mismatches", help, mismatches);
    }
}

// === impl UpstreamMetrics ===

impl UpstreamMetrics {
    fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("upstream");
        let all = self.clone();
        registry.register("up", "1 while the upstream answers", all.up);
        registry.register("questions", "Questions sent to the upstream", all.questions);
        let help = "Questions to the upstream without an answer";
        registry.register("failures", help, all.failures);
        let help = "How many pulls the quota of the upstream has; 0 when it has told none";
        registry.register("quota_limit", help, all.quota_limit);
        let help = "How many pulls are left of the quota of the upstream";
        registry.register("quota_remaining", help, all.quota_remaining);
    }
}

// === impl DownloadMetrics ===

impl DownloadMetrics {
    fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("downloads");
        let all = self.clone();
        registry.register("running", "Downloads under way", all.running);
        registry.register("finished", "Downloads that ended, by how", all.finished);
        registry.register("received_bytes", "Bytes that came in", all.bytes);
        let help = "Times that a source that died was asked for the rest";
        registry.register("resumes", help, all.resumes);
        let help = "Answers of sources that bytes came with, by source";
        registry.register("answers", help, all.answers);
    }
}

// === impl SourceKind ===

impl SourceKind {
    /// Returns the word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Sibling => "sibling",
            Self::Origin => "origin",
            Self::Upstream => "upstream",
        }
    }
}

impl EncodeLabelValue for SourceKind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

// === impl Outcome ===

impl Outcome {
    /// Returns the word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::NotKept => "not_kept",
            Self::Mismatch => "mismatch",
            Self::Refused => "refused",
            Self::Broken => "broken",
            Self::Disk => "disk",
            Self::Deserted => "deserted",
            Self::Ended => "ended",
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}
