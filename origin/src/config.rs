//! What an origin is told: every bound of every part, with its default.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use outport_core::access::Access;
use outport_core::config::process::{
    access, log, loopback, more_than_zero, name, positive, server, tls,
};
use outport_core::config::{ByteSize, Loaded, Problems, Section, Sources};
use outport_core::location::bucket::Limits;
use outport_core::location::engine::s3;
use outport_core::location::{self, LocationUrl};
use outport_core::net::serve;
use outport_core::net::tls::Tls;
use outport_core::process;
use outport_core::telemetry;
use outport_edge::config::PullThroughConfig;

use crate::metadata::sql::{DatabaseConfig, DatabaseUrl, ProbeConfig};
use crate::names::NamesConfig;
use crate::publish::MissingBlobs;
use crate::sweep::SweepConfig;

/// The configuration of an origin.
#[derive(Clone, Debug)]
pub struct Config {
    /// The region it is in.
    pub region: String,
    /// Where clients and edges connect.
    pub listen: SocketAddr,
    /// Where operators connect.
    pub admin_listen: SocketAddr,
    /// What the connections of clients and edges are under, if anything.
    pub tls: Option<Tls>,
    /// What finds out who clients and edges are, if anything.
    pub access: Option<Access>,
    /// Where the names are.
    pub database: DatabaseConfig,
    /// Where the bytes are.
    pub location: LocationUrl,
    /// How they are reached there.
    pub location_options: location::Options,
    /// How much of the names is kept in memory.
    pub names: NamesConfig,
    /// What manifests are taken.
    pub manifests: ManifestsConfig,
    /// The longest page of a list.
    pub page_limit: u32,
    /// When upload sessions are forgotten.
    pub sweep: SweepConfig,
    /// Whose registries are pulled through, and where their content is kept; none when there are none.
    pub upstreams: Option<PullThroughConfig>,
    /// The bounds of connections from clients.
    pub server: serve::Config,
    /// What is logged.
    pub log: telemetry::Config,
}

/// What manifests are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestsConfig {
    /// The largest, in bytes.
    pub max_bytes: u64,
    /// What becomes of one whose blobs are not there.
    pub missing_blobs: MissingBlobs,
}

/// The largest first part of a blob: the last can be so many times as large that stores would take no larger ones.
const PART_MAX: ByteSize = ByteSize::mib(320);

/// The smallest part of an object that is not its last, of bytes that come or are copied.
const PART_MIN: ByteSize = ByteSize::mib(5);

/// The largest object, or range of one, that stores copy by one request.
const COPY_MAX: ByteSize = ByteSize::gib(5);

// === impl Config ===

impl Config {
    /// Reads the file, if there is one, the environment and `key=value` settings, the later winning.
    pub fn load(file: Option<&Path>, set: &[String]) -> Result<Loaded<Self>, Problems> {
        let sources = Sources {
            file,
            env: &process::environment(),
            set,
            read_file: &|path| std::fs::read_to_string(path),
        };
        let Loaded { config, entries } = outport_core::config::read(sources, Self::read)?;
        match config {
            Some(config) => Ok(Loaded { config, entries }),
            // Every part that is none has reported its problem.
            None => Err(Problems::default()),
        }
    }

    /// Takes the keys of an origin.
    pub fn read(section: &mut Section<'_>) -> Option<Self> {
        let region = name(section, "region", "local");
        let listen = section.take("listen", loopback(5001));
        let admin_listen = section.take("admin_listen", loopback(5101));
        let tls = section.section("tls", tls);
        let access = access(section, tls.is_some());
        let database = section.section("database", database);
        let (location, location_options) = section.section("location", location);
        let names = section.section("names", |section| NamesConfig {
            memory: section.take("memory", ByteSize::mib(24)).as_u64(),
        });
        let manifests = section.section("manifests", manifests);
        let page_limit = section.section("lists", |section| positive(section, "page", 1000));
        let sweep = section.section("uploads", |section| SweepConfig {
            expiry: section.take("expiry", Duration::from_hours(24)),
            interval: more_than_zero(section, "sweep_interval", Duration::from_mins(10)),
        });
        let upstreams =
            PullThroughConfig::read_of_origin(section, format!("{region}-origin"), access.as_ref());
        let upstreams = Some(upstreams).filter(|config| !config.upstreams.definitions.is_empty());
        let server = section.section("server", server);
        let log = section.section("log", log);
        Some(Self {
            region,
            listen,
            admin_listen,
            tls,
            access,
            database: database?,
            location: location?,
            location_options,
            names,
            manifests,
            page_limit,
            sweep,
            upstreams,
            server,
            log,
        })
    }
}

fn database(section: &mut Section<'_>) -> Option<DatabaseConfig> {
    let url = parsed::<DatabaseUrl>(section, "url", "sqlite:data/origin.db");
    let connections = positive(section, "connections", 8);
    let acquire_timeout = section.take("acquire_timeout", Duration::from_secs(3));
    let operation_timeout = section.take("operation_timeout", Duration::from_secs(10));
    let probe = ProbeConfig {
        interval: more_than_zero(section, "probe_interval", Duration::from_secs(1)),
        timeout: more_than_zero(section, "probe_timeout", Duration::from_millis(800)),
    };
    Some(DatabaseConfig {
        max_connections: connections,
        acquire_timeout,
        operation_timeout,
        probe,
        ..DatabaseConfig::new(url?)
    })
}

fn location(section: &mut Section<'_>) -> (Option<LocationUrl>, location::Options) {
    let url = parsed::<LocationUrl>(section, "url", "file:data/blobs");
    let limits = limits(section);
    let s3 = section.section("s3", s3);
    (url, location::Options { s3, limits })
}

fn limits(section: &mut Section<'_>) -> Limits {
    let part = section.take("part", ByteSize::mib(5));
    if part < PART_MIN {
        section.problem("part", "expected at least 5MiB, which stores insist on");
    }
    if part > PART_MAX {
        section.problem(
            "part",
            "expected at most 320MiB: parts grow, and stores take none over 5GiB",
        );
    }
    let copy = section.take("copy", ByteSize::gib(1));
    if copy < PART_MIN {
        section.problem("copy", "expected at least 5MiB, which stores insist on");
    }
    if copy > COPY_MAX {
        section.problem("copy", "expected at most 5GiB: stores copy no more at once");
    }
    let count = |section: &mut Section<'_>, key, default| positive(section, key, default) as usize;
    Limits {
        part_bytes: part.as_usize(),
        parts_in_flight: count(section, "parts_of_an_upload", 4),
        parts_in_flight_total: count(section, "parts", 8),
        copy_bytes: copy.as_u64(),
        copies_in_flight: count(section, "copies", 8),
        answer_timeout: more_than_zero(section, "answer_timeout", Duration::from_millis(1500)),
        copy_now_bytes: section.take("copy_now", ByteSize::mib(16)).as_u64(),
        move_grace: section.take("move_grace", Duration::from_hours(1)),
    }
}

fn s3(section: &mut Section<'_>) -> s3::Options {
    let default = s3::Options::default();
    let id = section.take_opt::<String>("access_key_id");
    let secret = section.take_secret("secret_access_key");
    let token = section.take_secret("session_token");
    let credentials = match (id, secret) {
        (Some(id), Some(secret)) => s3::Credentials::Key { id, secret, token },
        (None, None) => s3::Credentials::Environment,
        (Some(_), None) => {
            section.problem("secret_access_key", "is missing beside access_key_id");
            s3::Credentials::Environment
        }
        (None, Some(_)) => {
            section.problem("access_key_id", "is missing beside secret_access_key");
            s3::Credentials::Environment
        }
    };
    let endpoint = section.take_opt::<String>("endpoint");
    let virtual_host = section
        .take_opt("virtual_host")
        .unwrap_or(endpoint.is_none());
    s3::Options {
        endpoint,
        region: section.take_opt("region"),
        credentials,
        style: if virtual_host {
            s3::Style::VirtualHost
        } else {
            s3::Style::Path
        },
        allow_http: section.take("allow_http", false),
        connect_timeout: section.take("connect_timeout", default.connect_timeout),
        request_timeout: section.take("request_timeout", default.request_timeout),
        retries_max: section.take("retries", default.retries_max),
        retry_timeout: section.take("retry_timeout", default.retry_timeout),
    }
}

fn manifests(section: &mut Section<'_>) -> ManifestsConfig {
    let missing_blobs = match section.take("missing_blobs", "accept".to_owned()).as_str() {
        "accept" => MissingBlobs::Accept,
        "refuse" => MissingBlobs::Refuse,
        _ => {
            section.problem("missing_blobs", "expected \"accept\" or \"refuse\"");
            MissingBlobs::default()
        }
    };
    ManifestsConfig {
        max_bytes: section.take("max", ByteSize::mib(4)).as_u64(),
        missing_blobs,
    }
}

/// Takes a text that has a grammar of its own.
fn parsed<T>(section: &mut Section<'_>, key: &str, default: &str) -> Option<T>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text: String = section.take(key, default.to_owned());
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            section.problem(key, error.to_string());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/origin.toml");

    #[test]
    fn the_documented_defaults_are_the_true_ones() {
        let loaded = Config::load(Some(Path::new(FILE)), &[]).unwrap();
        assert_eq!(loaded.untrue_defaults(), Vec::<&str>::new());
        let text = std::fs::read_to_string(FILE).unwrap();
        for entry in loaded
            .entries
            .iter()
            .filter(|entry| entry.default.is_none())
        {
            let key = entry.key.rsplit('.').next().unwrap();
            assert!(
                text.contains(&format!("# {key} =")),
                "{} is not documented",
                entry.key
            );
        }
    }

    #[test]
    fn parts_do_not_grow_too_large_for_stores() {
        assert_eq!(PART_MAX.as_usize() * Limits::GROWTH_MAX, 5 << 30);
        let load = |part: &str| Config::load(None, &[format!("location.part={part}")]);
        assert!(load("320MiB").is_ok());
        assert!(load("321MiB").is_err());
    }

    #[test]
    fn ranges_are_no_smaller_than_stores_take_them() {
        let load = |copy: &str| Config::load(None, &[format!("location.copy={copy}")]);
        assert!(load("5MiB").is_ok());
        assert!(load("4MiB").is_err());
    }

    #[test]
    fn all_problems_come_at_once() {
        let set = [
            "database.url=mongodb://x",
            "location.url=ftp://x",
            "location.part=1MiB",
            "location.copy=6GiB",
            "location.s3.access_key_id=id",
            "manifests.missing_blobs=maybe",
            "lists.page=0",
            "uploads.sweep_interval=0s",
            "database.probe_timeout=0s",
            "unheard.of=1",
        ];
        let set: Vec<_> = set.map(str::to_owned).into();
        let problems = Config::load(None, &set).unwrap_err();
        assert_eq!(problems.iter().count(), set.len(), "{problems}");
    }
}
