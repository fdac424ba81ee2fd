//! What an edge is told: every bound of every part, with its default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use outport_core::net::client::{self, BaseUrl};
use outport_core::net::serve;

use crate::cache::CacheConfig;
use crate::download::DownloadConfig;
use crate::names::NamesConfig;
use crate::source::OriginConfig;
use crate::source::breaker::BreakerConfig;

/// The configuration of an edge.
#[derive(Clone, Debug)]
pub struct Config {
    /// The region it serves.
    pub region: String,
    /// Its own name, which `Cache-Status` carries.
    pub name: String,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where operators connect.
    pub admin_listen: SocketAddr,
    /// The directory of the cache.
    pub cache_path: PathBuf,
    /// How much is cached.
    pub cache: CacheConfig,
    /// How many names are remembered.
    pub names: NamesConfig,
    /// Where the origin is; with none, only what is here is served.
    pub origin: Option<OriginSite>,
    /// How the origin is asked.
    pub questions: OriginConfig,
    /// The bounds of downloads.
    pub downloads: DownloadConfig,
    /// The bounds of connections from clients.
    pub server: serve::Config,
}

/// Where the origin is, and how connections to it are made.
#[derive(Clone, Debug)]
pub struct OriginSite {
    /// Its URLs, in the order in which they are tried.
    pub urls: Vec<BaseUrl>,
    /// The bounds of connections to it.
    pub client: client::Config,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            region: "local".to_owned(),
            name: "edge-1".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 5000)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 5100)),
            cache_path: "data/edge".into(),
            cache: CacheConfig {
                capacity_bytes: 100 << 30,
                memory_bytes: 16 << 20,
                open_files: 128,
                disk_rest: Duration::from_secs(10),
            },
            names: NamesConfig {
                entries_in_memory: 20_000,
                rows_max: 1_000_000,
                page_cache_bytes: 4 << 20,
            },
            origin: None,
            questions: OriginConfig {
                answer_timeout: Duration::from_millis(1500),
                manifest_bytes_max: 4 << 20,
                breaker: BreakerConfig {
                    failures: 3,
                    min_rest: Duration::from_millis(500),
                    max_rest: Duration::from_secs(10),
                },
            },
            downloads: DownloadConfig {
                concurrent_max: 64,
                turn_timeout: Duration::from_secs(1),
                retries: 6,
                retry_pause: Duration::from_millis(100),
                retry_pause_max: Duration::from_secs(5),
            },
            server: serve::Config::default(),
        }
    }
}
