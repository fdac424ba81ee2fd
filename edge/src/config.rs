//! What an edge is told: every bound of every part, with its default.
//!
//! The only place of the edge that reads its file and the environment. `config/edge.toml` says what each key is for.

mod upstreams;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use outport_core::access::Access;
use outport_core::breaker::BreakerConfig;
use outport_core::config::process::{access, log, loopback, name, positive, server, tls};
use outport_core::config::{ByteSize, Loaded, Problems, Section, Sources};
use outport_core::net::client::{self, BadBaseUrl, BaseUrl};
use outport_core::net::serve;
use outport_core::net::tls::Tls;
use outport_core::process;
use outport_core::telemetry;
use outport_core::upstream::Definition;

use crate::cache::CacheConfig;
use crate::download::DownloadConfig;
use crate::download::leftovers::LeftoverConfig;
use crate::names::NamesConfig;
use crate::source::freshness::{Policy, Rules};
use crate::source::registries::Asked;
use crate::source::sources::SiblingSite;
use crate::source::{OriginConfig, TagConfig};

/// The configuration of an edge.
#[derive(Clone, Debug)]
pub struct Config {
    /// The region it serves.
    pub region: String,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where operators connect.
    pub admin_listen: SocketAddr,
    /// What clients' connections are under, if anything.
    pub tls: Option<Tls>,
    /// What finds out who clients are, if anything.
    pub access: Option<Access>,
    /// What it serves them from.
    pub pulls: PullThroughConfig,
    /// The bounds of connections from clients.
    pub server: serve::Config,
    /// What is logged.
    pub log: telemetry::Config,
}

/// The configuration of what an edge is without its ports.
#[derive(Clone, Debug)]
pub struct PullThroughConfig {
    /// Its own name, which `Cache-Status` carries.
    pub name: String,
    /// Whether this is an origin's own, for the upstreams that it asks for all regions.
    pub is_of_origin: bool,
    /// The directory of the cache.
    pub cache_path: PathBuf,
    /// How much is cached.
    pub cache: CacheConfig,
    /// How many names are remembered.
    pub names: NamesConfig,
    /// Where the origin is.
    pub origin: OriginSite,
    /// How the origin is asked.
    pub questions: OriginConfig,
    /// Whose registries are pulled through.
    pub upstreams: Upstreams,
    /// The other nodes of the region.
    pub siblings: Siblings,
    /// How other nodes are shown that this is one.
    pub access: Option<Access>,
    /// The bounds of downloads.
    pub downloads: DownloadConfig,
}

/// The other nodes of the region, and how they are asked.
#[derive(Clone, Debug)]
pub struct Siblings {
    /// Who they are.
    pub sites: Vec<SiblingSite>,
    /// The bounds of connections to each.
    pub client: client::Config,
    /// How each is asked.
    pub questions: OriginConfig,
    /// How long one may take before the origin is asked beside it.
    pub overtake_after: Duration,
}

/// Whose registries are pulled through, and how they are asked.
#[derive(Clone, Debug)]
pub struct Upstreams {
    /// Which they are.
    pub definitions: Vec<Definition>,
    /// The one that is meant when a client names none.
    pub default: Option<String>,
    /// Who is asked for their manifests and lists.
    pub names_from: Asked,
    /// Who is asked for their blobs.
    pub blobs_from: Asked,
    /// How some of their tags are kept.
    pub rules: Rules,
    /// How long what they do not have is not asked for again.
    pub absent_for: Duration,
    /// The bounds of connections to each.
    pub client: client::Config,
    /// How each is asked.
    pub questions: OriginConfig,
}

/// Where the origin is, and how connections to it are made.
#[derive(Clone, Debug)]
pub struct OriginSite {
    /// Its URLs, in the order in which they are tried; with none, only what is here is served.
    pub urls: Vec<BaseUrl>,
    /// What clients call its registry when they take this edge for a mirror of it.
    pub names: Vec<String>,
    /// The bounds of connections to it.
    pub client: client::Config,
}

// === impl Config ===

impl Config {
    /// Reads the file, if there is one, the environment and `key=value` settings, the later winning.
    pub fn load(file: Option<&Path>, set: &[String]) -> Result<Loaded<Self>, Problems> {
        let env = process::environment();
        let sources = Sources {
            file,
            env: &env,
            set,
            read_file: &|path| std::fs::read_to_string(path),
        };
        outport_core::config::read(sources, Self::read)
    }

    /// Takes the keys of an edge.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self::read_all(section, false)
    }

    /// Takes the keys of an edge that has an origin beside it in its process.
    pub fn read_beside_origin(section: &mut Section<'_>) -> Self {
        Self::read_all(section, true)
    }

    fn read_all(section: &mut Section<'_>, is_beside_origin: bool) -> Self {
        let region = name(section, "region", "local");
        let name = name(section, "name", "edge-1");
        let listen = section.take("listen", loopback(5000));
        let admin_listen = section.take("admin_listen", loopback(5100));
        let tls = section.section("tls", tls);
        let access = access(section, tls.is_some());
        let pulls = PullThroughConfig::read(section, name, is_beside_origin, access.clone());
        let server = section.section("server", server);
        let log = section.section("log", log);
        Self {
            region,
            listen,
            admin_listen,
            tls,
            access,
            pulls,
            server,
            log,
        }
    }
}

// === impl PullThroughConfig ===

impl PullThroughConfig {
    /// Takes the keys of an edge called `name`.
    fn read(
        section: &mut Section<'_>,
        name: String,
        is_beside_origin: bool,
        access: Option<Access>,
    ) -> Self {
        let (origin, questions) =
            section.section("origin", |section| (origin(section), questions(section)));
        let siblings = siblings(section, &name, (&origin.client, questions));
        let origin_is = match (origin.urls.is_empty(), is_beside_origin) {
            (false, _) => upstreams::OriginIs::Elsewhere,
            (true, true) => upstreams::OriginIs::Beside,
            (true, false) => upstreams::OriginIs::Nowhere,
        };
        let (cache_path, cache, names) = disk(section, "data/edge");
        let upstreams = upstreams::read(section, Some(origin_is));
        upstreams::check_names(section, &upstreams, &origin.names);
        let deals = upstreams::Deals {
            with_users: true,
            with_origin: origin_is != upstreams::OriginIs::Nowhere,
            with_nodes: !siblings.sites.is_empty()
                || [upstreams.names_from, upstreams.blobs_from].contains(&Asked::Origin),
        };
        upstreams::check_access(section, &upstreams, access.as_ref(), deals);
        Self {
            name,
            is_of_origin: false,
            cache_path,
            cache,
            names,
            upstreams,
            downloads: section.section("downloads", downloads),
            origin,
            questions,
            siblings,
            access,
        }
    }

    /// Takes the keys of an origin, which asks upstreams for all regions.
    pub fn read_of_origin(
        section: &mut Section<'_>,
        name: String,
        access: Option<&Access>,
    ) -> Self {
        let (cache_path, cache, names) = disk(section, "data/upstreams");
        let upstreams = upstreams::read(section, None);
        let deals = upstreams::Deals::default();
        upstreams::check_access(section, &upstreams, access, deals);
        let nobody = client::Config::default();
        Self {
            name,
            is_of_origin: true,
            cache_path,
            cache,
            names,
            downloads: section.section("downloads", downloads),
            origin: OriginSite {
                urls: Vec::new(),
                names: Vec::new(),
                client: nobody.clone(),
            },
            questions: upstreams.questions,
            siblings: Siblings {
                sites: Vec::new(),
                client: nobody,
                questions: upstreams.questions,
                overtake_after: Duration::ZERO,
            },
            access: None,
            upstreams,
        }
    }
}

/// Takes where the cache is, and how much it and its names take.
fn disk(section: &mut Section<'_>, path: &str) -> (PathBuf, CacheConfig, NamesConfig) {
    section.section("cache", |section| {
        let path = section.take("path", PathBuf::from(path));
        (path, cache(section), names(section))
    })
}

fn cache(section: &mut Section<'_>) -> CacheConfig {
    let size =
        |section: &mut Section<'_>, key, default: ByteSize| section.take(key, default).as_u64();
    CacheConfig {
        capacity_bytes: size(section, "capacity", ByteSize::gib(100)),
        memory_bytes: size(section, "memory", ByteSize::mib(32)),
        open_files: section.take("open_files", 128),
        disk_rest: section.take("disk_rest", Duration::from_secs(10)),
        scrub_bytes_per_second: size(section, "scrub", ByteSize::mib(4)),
        checks_per_second: positive(section, "checks_per_second", 10_000).into(),
    }
}

fn names(section: &mut Section<'_>) -> NamesConfig {
    NamesConfig {
        entries_in_memory: section.take("names_in_memory", 20_000),
        rows_max: section.take("names", 1_000_000),
        page_cache_bytes: section
            .take("names_page_cache", ByteSize::mib(4))
            .as_usize(),
    }
}

fn origin(section: &mut Section<'_>) -> OriginSite {
    let mut urls = Vec::new();
    for url in section.take("urls", Vec::<Uri>::new()) {
        match url.to_string().parse::<BaseUrl>() {
            Ok(url) => urls.push(url),
            Err(error) => section.problem("urls", error.to_string()),
        }
    }
    let client = client(section, Duration::from_secs(1));
    let client = client::Config {
        ca_file: section.take_opt("ca_file"),
        overtake_after: section.take("overtake_after", client.overtake_after),
        ..client
    };
    let names = section.take("names", Vec::new());
    OriginSite {
        urls,
        names,
        client,
    }
}

/// Takes the bounds of connections.
fn client(section: &mut Section<'_>, connect_timeout: Duration) -> client::Config {
    client::Config {
        connect_timeout: section.take("connect_timeout", connect_timeout),
        header_timeout: section.take("header_timeout", Duration::from_secs(30)),
        stall_timeout: section.take("stall_timeout", Duration::from_secs(30)),
        idle_timeout: section.take("idle_timeout", Duration::from_secs(30)),
        max_idle_per_host: section.take("idle_connections", 64),
        max_requests: section.take("requests", 1024),
        avoid_for: section.take("avoid_for", Duration::from_secs(5)),
        ..client::Config::default()
    }
}

/// Takes when nobody waits any more.
fn breaker(section: &mut Section<'_>) -> BreakerConfig {
    BreakerConfig {
        failures: positive(section, "failures", 3),
        min_rest: section.take("min_rest", Duration::from_millis(500)),
        max_rest: section.take("max_rest", Duration::from_secs(10)),
    }
}

/// Takes the siblings; in what they have no key for they are asked as the origin is.
fn siblings(
    section: &mut Section<'_>,
    own_name: &str,
    (client, questions): (&client::Config, OriginConfig),
) -> Siblings {
    let mut sites = Vec::<SiblingSite>::new();
    for site in section.list("sibling", sibling) {
        if site.name == own_name || sites.iter().any(|other| other.name == site.name) {
            let message = format!("two nodes are called {}", site.name);
            section.problem("sibling", message);
        }
        sites.push(site);
    }
    section.section("siblings", |section| {
        let answer_timeout = section.take("answer_timeout", Duration::from_millis(1500));
        Siblings {
            sites,
            client: client::Config {
                connect_timeout: section.take("connect_timeout", Duration::from_millis(300)),
                stall_timeout: section.take("stall_timeout", Duration::from_secs(5)),
                ..client.clone()
            },
            questions: OriginConfig {
                answer_timeout,
                tags: TagConfig {
                    question_timeout: answer_timeout,
                    ..questions.tags
                },
                ..questions
            },
            overtake_after: section.take("overtake_after", Duration::from_millis(500)),
        }
    })
}

fn sibling(section: &mut Section<'_>) -> Option<SiblingSite> {
    let name = section.require("name");
    let url = section.require::<Uri>("url")?;
    match url.to_string().parse() {
        Ok(url) => Some(SiblingSite { name: name?, url }),
        Err(error) => {
            let error: BadBaseUrl = error;
            section.problem("url", error.to_string());
            None
        }
    }
}

fn questions(section: &mut Section<'_>) -> OriginConfig {
    let answer_timeout = section.take("answer_timeout", Duration::from_millis(1500));
    OriginConfig {
        answer_timeout,
        manifest_bytes_max: section.take("manifest_max", ByteSize::mib(4)).as_u64(),
        answers_bytes_max: section.take("answers_memory", ByteSize::mib(32)).as_u64(),
        breaker: breaker(section),
        tags: TagConfig {
            policy: Policy::good_for(section.take("tags_fresh_for", Duration::from_secs(1))),
            stale_after: section.take("stale_after", Duration::from_millis(300)),
            question_timeout: answer_timeout,
        },
    }
}

fn downloads(section: &mut Section<'_>) -> DownloadConfig {
    let concurrent_max = positive(section, "concurrent", 64);
    DownloadConfig {
        concurrent_max: usize::try_from(concurrent_max).unwrap_or(usize::MAX),
        turn_timeout: section.take("turn_timeout", Duration::from_secs(1)),
        retries: section.take("retries", 6),
        retry_pause: section.take("retry_pause", Duration::from_millis(100)),
        retry_pause_max: section.take("retry_pause_max", Duration::from_secs(5)),
        connections_max: section.take("connections", 8_usize).max(1),
        grace: section.take("grace", Duration::from_secs(30)),
        finish_percent: section.take("finish_percent", 50),
        popular_min: section.take("popular", 3),
        leftovers: LeftoverConfig {
            bytes_max: section.take("leftovers", ByteSize::gib(10)).as_u64(),
            age_max: section.take("leftovers_age", Duration::from_hours(24)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: Option<&Path>, set: &[&str]) -> Result<Loaded<Config>, Problems> {
        let set: Vec<_> = set.iter().map(|&set| set.to_owned()).collect();
        let sources = Sources {
            file,
            env: &[],
            set: &set,
            read_file: &|path| std::fs::read_to_string(path),
        };
        outport_core::config::read(sources, Config::read)
    }

    #[test]
    fn the_documented_defaults_are_the_true_ones() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/edge.toml"));
        let loaded = load(Some(path), &[]).unwrap();
        assert_eq!(loaded.untrue_defaults(), Vec::<&str>::new());
        let text = std::fs::read_to_string(path).unwrap();
        for entry in &loaded.entries {
            let key = entry.key.rsplit('.').next().unwrap();
            assert!(
                text.contains(&format!("{key} = ")),
                "{key} is not documented"
            );
        }
    }

    #[test]
    fn readers_have_to_be_known() {
        let closed = ["upstream.0.name=ghcr.io", "upstream.0.readers=[\"alice\"]"];
        let users = tempfile::NamedTempFile::new().unwrap();
        let users = format!("access.users={}", users.path().display());
        let keys = |more: &[&str]| -> Vec<String> {
            let loaded = load(None, &[&closed, more].concat());
            let problems = loaded.err().unwrap_or_default();
            problems.iter().map(|problem| problem.key.clone()).collect()
        };
        assert_eq!(keys(&[]), ["access.users"]);
        assert_eq!(keys(&[&users]), [""; 0]);
        let asks = "origin.urls=https://origin.example";
        assert_eq!(keys(&[&users, asks]), ["access.key"]);
        assert_eq!(keys(&[&users, asks, "access.key=short"]), ["access.key"]);
        let key = format!("access.key={}", "k".repeat(32));
        assert_eq!(keys(&[&users, asks, &key]), [""; 0]);
        // Of an edge that knows nodes only nobody would be let in.
        assert_eq!(keys(&[&key]), ["access.users"]);
        // Also when all that an origin is asked for is open to everybody.
        let open = [users.as_str(), asks];
        let problems = load(None, &open).unwrap_err();
        assert_eq!(problems.iter().next().unwrap().key, "access.key");
        assert!(load(None, &open[..1]).is_ok());
        assert!(load(None, &[&open[..], &[&key]].concat()).is_ok());
    }

    #[test]
    fn a_name_is_that_of_one_registry() {
        let upstreams = |more: &[&'static str]| {
            let two = [
                "upstream.0.name=a.corp",
                "upstream.0.url=https://a.corp",
                "upstream.0.aliases=[\"a\"]",
                "upstream.0.hostnames=[\"mirror.corp\"]",
                "upstream.1.name=b.corp",
                "upstream.1.url=https://b.corp",
                "origin.urls=https://origin.example",
            ];
            let problems = load(None, &[&two[..], more].concat()).err();
            let problems = problems.unwrap_or_default();
            let keys = problems.iter().map(|problem| problem.key.clone());
            keys.collect::<Vec<_>>()
        };
        assert_eq!(upstreams(&["origin.names=[\"own.corp\"]"]), [""; 0]);
        for (more, key) in [
            ("upstream.1.aliases=[\"A.corp\"]", "upstream"),
            ("upstream.1.aliases=[\"b\", \"A\"]", "upstream"),
            ("upstream.1.hostnames=[\"Mirror.corp\"]", "upstream"),
            ("origin.names=[\"own.corp\", \"a\"]", "origin.names"),
            ("origin.names=[\"docker.io\"]", "origin.names"),
        ] {
            assert_eq!(upstreams(&[more]), [key], "{more}");
        }
    }

    #[test]
    fn all_problems_are_found_at_once() {
        let set = [
            "name=A B",
            "cache.capacity=much",
            "origin.urls=ftp://origin",
            "downloads.concurrent=0",
            "tls.key=k",
        ];
        let problems = load(None, &set).unwrap_err();
        let keys: Vec<_> = problems
            .iter()
            .map(|problem| problem.key.as_str())
            .collect();
        for set in set {
            let key = set.split('=').next().unwrap();
            let section = key.split('.').next().unwrap();
            assert!(
                keys.contains(&key) || keys.contains(&section),
                "{key}: {problems}"
            );
        }
    }
}
