//! How a request was served: one word for the log, the metric label and `Cache-Status`.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// How a request was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Served {
    /// From local memory or disk, without asking anybody.
    Hit,
    /// From local memory or disk, after the origin said that it may be or that it is current.
    Revalidated,
    /// From local memory or disk, while the upstream is asked whether it is current.
    Revalidating,
    /// By a download that this request started.
    Miss,
    /// By a download that this request started, from another node of the region.
    Sibling,
    /// By a download, or a question to the origin, that another request started.
    Collapsed,
    /// From local memory or disk although the origin could not be asked whether it is current.
    Stale,
    /// By the origin, streamed through without being kept.
    Passed,
    /// By this edge alone, and not from the cache: an error, or the ping.
    Local,
}

// === impl Served ===

impl Served {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Hit,
        Self::Revalidated,
        Self::Revalidating,
        Self::Miss,
        Self::Sibling,
        Self::Collapsed,
        Self::Stale,
        Self::Passed,
        Self::Local,
    ];

    /// Returns the word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Revalidated => "revalidated",
            Self::Revalidating => "revalidating",
            Self::Miss => "miss",
            Self::Sibling => "sibling",
            Self::Collapsed => "collapsed",
            Self::Stale => "stale",
            Self::Passed => "passed",
            Self::Local => "local",
        }
    }

    /// Returns the parameters of this cache's member of `Cache-Status` (RFC 9211), or none when there is nothing to say.
    pub const fn cache_status(self) -> Option<&'static str> {
        match self {
            Self::Hit => Some("hit"),
            Self::Revalidated => Some("hit; detail=revalidated"),
            Self::Revalidating => Some("hit; detail=revalidating"),
            Self::Miss => Some("fwd=miss"),
            Self::Sibling => Some("fwd=miss; detail=sibling"),
            Self::Collapsed => Some("fwd=miss; collapsed"),
            Self::Stale => Some("fwd=stale; detail=origin-unreachable"),
            Self::Passed => Some("fwd=bypass"),
            Self::Local => None,
        }
    }
}

impl Served {
    /// Returns what `Server-Timing` says of the time that the answer's head took: spent in the cache, or waiting for others.
    pub fn timing(self, took: Duration) -> Option<HeaderValue> {
        let whose = match self {
            Self::Hit | Self::Revalidating => "cache",
            Self::Local => return None,
            _ => "fetch",
        };
        let (ms, us) = (took.as_millis(), took.subsec_micros() % 1000);
        HeaderValue::try_from(format!("{whose};dur={ms}.{us:03}")).ok()
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl EncodeLabelValue for Served {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}
