//! What an edge is without its ports: the cache, and everything that fills it and answers from it.
//!
//! [`PullThrough::build`] is the composition root, the only place that sees all parts. An edge serves clients with it; an
//! origin has one for the upstreams that it asks for all regions, whose content so never mixes with what is hosted: it lies
//! on the cache's own disk, and makes room for nothing but itself.
//!
//! Invariant: it holds nothing that cannot be fetched again.

use std::sync::Arc;

use http::{HeaderValue, Request, Response};
use outport_core::access::{Caller, Readers};
use outport_core::body::Body;
use outport_core::clock;
use outport_core::net::client::{BadClient, Client};
use outport_core::oci::route::{Route, Routed};
use outport_core::store::disk;
use outport_core::tasks::Tasks;
use outport_core::telemetry::Metrics as Registry;
use outport_core::upstream::{Definition, Upstream};
use tokio::task::JoinError;

use crate::admin::Operations;
use crate::cache::lock::Locked;
use crate::cache::{Cache, scrub};
use crate::config::{PullThroughConfig, Siblings};
use crate::download::Downloads;
use crate::frozen::Frozen;
use crate::metrics::{CacheMetrics, Metrics};
use crate::names::{self, Names};
use crate::pull::Pull;
use crate::resolve::Resolver;
use crate::server::Service;
use crate::source::registries::{Asked, Hosted, Registries, Remote, Say};
use crate::source::ring::Ring;
use crate::source::sources::Sources;
use crate::source::{Node, Origin};

/// A cache that brings in what it lacks; cheap to clone.
#[derive(Clone, Debug)]
pub struct PullThrough(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: Service,
    operations: Operations,
    cache: Cache,
    names: Names,
}

/// A cache could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The cache directory cannot be used.
    #[error("open the cache")]
    Cache(#[from] disk::OpenError),
    /// The names beside it cannot be used.
    #[error("open the names of the cache")]
    Names(#[from] names::OpenError),
    /// The client of the origin cannot be set up.
    #[error("set up the client of the origin")]
    Client(#[from] BadClient),
    /// Opening the cache panicked, which it should not do whatever is on the disk.
    #[error("open the cache")]
    Panicked(#[source] JoinError),
    /// The runtime ends already.
    #[error("shutting down")]
    Ending,
}

/// The file, in the cache's directory, that remembers links and tags.
const NAMES_FILE: &str = "names.redb";

// === impl BuildError ===

impl BuildError {
    fn unopened(error: JoinError) -> Self {
        if error.is_panic() {
            Self::Panicked(error)
        } else {
            Self::Ending
        }
    }
}

// === impl PullThrough ===

impl PullThrough {
    /// Opens the cache. Its tasks run on `tasks`, and its metrics begin with `prefix`.
    pub async fn build(
        config: &PullThroughConfig,
        (registry, prefix): (&Registry, &'static str),
        tasks: &Tasks,
    ) -> Result<Self, BuildError> {
        let metrics = Metrics::default();
        registry.register(|registry| {
            let registry = registry.sub_registry_with_prefix(prefix);
            metrics.register(registry, config.is_of_origin);
        });
        let (cache, names, frozen) = open_cache(config, tasks, metrics.cache.clone()).await?;
        let registries = registries(config, &metrics, frozen)?;
        let resolver = Resolver::new(
            registries.clone(),
            cache.clone(),
            names.clone(),
            tasks,
            (
                config.questions.manifest_bytes_max,
                config.upstreams.absent_for,
            ),
        );
        let downloads = Downloads::new(
            sources(config, &metrics, registries)?,
            resolver.clone(),
            tasks.clone(),
            config.downloads,
            metrics.downloads.clone(),
        );
        let rate = config.cache.scrub_bytes_per_second;
        let scrub = scrub::run(cache.clone(), rate, tasks.token());
        drop(tasks.spawn("scrub", scrub));
        drop(tasks.spawn("leftovers", downloads.clone().mind_leftovers()));
        let pull = Pull::new(resolver.clone(), downloads);
        Ok(Self(Arc::new(Inner {
            operations: Operations::new(resolver.clone()),
            service: Service::new(&config.name, pull, resolver, &metrics.requests),
            cache,
            names,
        })))
    }

    /// Returns who has the say about what a request asks.
    pub fn say(&self, routed: &Routed, request: &Request<Body>) -> Say {
        self.0.service.say(routed, request)
    }

    /// Whether an edge that asks so for an upstream means that of the repository that a route is about, and may.
    pub fn asks(&self, question: &HeaderValue, route: &Route, caller: &Caller) -> bool {
        self.0.service.asks(question, route, caller)
    }

    /// Answers a client.
    pub fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + use<> {
        self.0.service.clone().call(request, false)
    }

    /// Answers an edge that asks for an upstream: one that shows what it has, by `If-None-Match`, is not kept waiting.
    pub fn call_for_edge(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Response<Body>> + use<> {
        self.0.service.clone().call(request, true)
    }

    /// Answers an operator.
    pub async fn operate(self, request: Request<Body>) -> Response<Body> {
        self.0.operations.call(request).await
    }

    #[cfg(test)]
    pub(crate) fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// Completes when all of it has gone, and another may have its directory.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.names.closed()
    }

    /// Writes down what the cache is to remember; after its tasks have ended.
    pub async fn close(self) {
        self.0.cache.clone().close().await;
    }
}

/// Returns who has the say about which repository.
fn registries(
    config: &PullThroughConfig,
    metrics: &Metrics,
    frozen: Frozen,
) -> Result<Registries, BadClient> {
    let site = &config.origin;
    let node = match site.urls.as_slice() {
        [] => None,
        urls => Some(Node {
            client: Client::new(urls.to_vec(), site.client.clone())?,
            access: config.access.clone(),
        }),
    };
    let origin = Origin::new(node.clone(), config.questions, metrics.origin.clone());
    let upstreams = &config.upstreams;
    let mut remotes = Vec::new();
    for definition in &upstreams.definitions {
        remotes.push(remote(definition, node.as_ref(), config, metrics)?);
    }
    let hosted = Hosted {
        origin,
        names: site.names.clone(),
        is_here: config.is_of_origin,
    };
    Ok(Registries::new(
        hosted,
        remotes,
        (upstreams.default.clone(), upstreams.rules.clone()),
        frozen,
    ))
}

/// Returns how an upstream is asked: itself, or by way of the origin.
fn remote(
    definition: &Definition,
    node: Option<&Node>,
    config: &PullThroughConfig,
    metrics: &Metrics,
) -> Result<Remote, BadClient> {
    let upstreams = &config.upstreams;
    let metrics = metrics.of_upstream(&definition.name);
    // With a breaker of its own: that an upstream is away does not make the origin so.
    let question = HeaderValue::try_from(definition.question()).ok();
    let by_origin = node.cloned().zip(question);
    let by_origin =
        by_origin.map(|asked| Origin::through(asked, upstreams.questions, metrics.clone()));
    let is_asked_itself = [upstreams.names_from, upstreams.blobs_from].contains(&Asked::Upstream);
    if is_asked_itself && definition.is_let_in() && definition.readers.are_everybody() {
        let upstream = &definition.name;
        tracing::warn!(
            upstream,
            "everybody who reaches this node may pull what its credentials may: give it readers"
        );
    }
    let strangers = match (&config.access, &definition.readers) {
        (Some(access), Readers::These(names)) => access.strangers(names),
        _ => Vec::new(),
    };
    if !strangers.is_empty() {
        let upstream = &definition.name;
        tracing::warn!(upstream, ?strangers, "it has readers that are no users");
    }
    let upstream = Upstream::new(definition.clone(), upstreams.client.clone())?;
    let itself = Origin::upstream(upstream, upstreams.questions, metrics);
    let of = |asked| match (asked, &by_origin) {
        (Asked::Origin, Some(by_origin)) => by_origin.clone(),
        _ => itself.clone(),
    };
    Ok(Remote {
        definition: definition.clone(),
        names: of(upstreams.names_from),
        blobs: of(upstreams.blobs_from),
    })
}

/// Returns where blobs come from.
fn sources(
    config: &PullThroughConfig,
    metrics: &Metrics,
    registries: Registries,
) -> Result<Sources, BadClient> {
    let Siblings {
        sites,
        client,
        questions,
        overtake_after,
    } = &config.siblings;
    let mut siblings = Vec::new();
    for site in sites {
        let node = Node {
            client: Client::new(vec![site.url.clone()], client.clone())?,
            access: config.access.clone(),
        };
        let metrics = metrics.origin.of_sibling();
        siblings.push(Origin::new(Some(node), *questions, metrics));
    }
    let names = sites.iter().map(|site| site.name.clone()).collect();
    let ring = Ring::new(config.name.clone(), names);
    Ok(Sources::new(registries, ring, siblings, *overtake_after))
}

async fn open_cache(
    config: &PullThroughConfig,
    tasks: &Tasks,
    metrics: CacheMetrics,
) -> Result<(Cache, Names, Frozen), BuildError> {
    let (path, names, cache) = (config.cache_path.clone(), config.names, config.cache);
    let opened = tokio::task::spawn_blocking(move || {
        let failed = |source| disk::OpenError::Io {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(&path).map_err(failed)?;
        let locked = Locked::take(&path)?;
        let (names, writer) = Names::open(&path.join(NAMES_FILE), names)?;
        let cache = Cache::open(locked, cache, names.clone(), metrics)?;
        let frozen = Frozen::open(&path).map_err(failed)?;
        Ok::<_, BuildError>((cache, names, frozen, writer))
    });
    let (cache, names, frozen, writer) = opened.await.map_err(BuildError::unopened)??;
    drop(tasks.spawn("names", writer.run(tasks.clone())));
    let tending = cache.clone().tend(clock::now(), tasks.token());
    drop(tasks.spawn("cache", tending));
    Ok((cache, names, frozen))
}
