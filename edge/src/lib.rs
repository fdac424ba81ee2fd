//! The edge: answers pulls from the nearest bytes.
//!
//! [`Edge::build`] is the composition root, the only place that sees all parts; [`Edge::run`] serves until told to end. A
//! request goes through the modules in the order in which they are declared.
//!
//! Invariants: the edge holds nothing that cannot be fetched again. It starts, is ready and serves what it holds whether or
//! not the origin answers.

pub mod config;
pub mod server;

pub mod pull;
pub mod resolve;

pub mod cache;
pub mod names;

pub mod download;

pub mod coalesce;
pub mod forward;
pub mod source;

pub mod admin;
pub mod frozen;

pub mod metrics;
pub mod respond;
pub mod served;

#[cfg(test)]
mod tests;

use std::time::Duration;

use outport_core::admin::{self as core_admin, Readiness};
use outport_core::clock;
use outport_core::net::client::{BadClient, Client};
use outport_core::net::serve::Server;
use outport_core::process::{self, Hangups};
use outport_core::tasks::Tasks;
use outport_core::telemetry::Metrics;
use outport_core::upstream::Upstream;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use admin::Operations;
use cache::{Cache, scrub};
use config::Config;
use download::Downloads;
use frozen::Frozen;
use names::Names;
use pull::Pull;
use resolve::Resolver;
use server::Service;
use source::Origin;
use source::registries::Registries;
use source::ring::Ring;
use source::sources::Sources;

/// An edge, ready to be run.
#[derive(Debug)]
pub struct Edge {
    config: Config,
    seams: Seams,
    service: Service,
    operations: Operations,
    cache: Cache,
}

/// What an edge shares with the process around it.
#[derive(Clone, Debug, Default)]
pub struct Seams {
    /// Where its metrics are registered.
    pub metrics: Metrics,
    /// Where it says whether it would serve.
    pub readiness: Readiness,
    /// What its tasks run on.
    pub tasks: Tasks,
    /// When it is to read again what it has read.
    pub hangups: Hangups,
}

/// Where an edge listens.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub public: TcpListener,
    /// For operators.
    pub admin: TcpListener,
}

/// An edge could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The cache directory cannot be used.
    #[error("open the cache")]
    Cache(#[from] outport_core::store::disk::OpenError),
    /// The names beside it cannot be used.
    #[error("open the names of the cache")]
    Names(#[from] names::OpenError),
    /// The client of the origin cannot be set up.
    #[error("set up the client of the origin")]
    Client(#[from] BadClient),
    /// The runtime ends already.
    #[error("shutting down")]
    Ending,
}

/// How long tasks may take to end when all clients are gone.
const TASKS_DRAIN: Duration = Duration::from_secs(5);

// === impl Edge ===

impl Edge {
    /// Builds an edge; opens its cache, and no port.
    pub async fn build(config: Config, seams: Seams) -> Result<Self, BuildError> {
        let metrics = metrics::Metrics::default();
        seams
            .metrics
            .register(|registry| metrics.register(registry));
        let site = &config.origin;
        let client = match site.urls.as_slice() {
            [] => None,
            urls => Some(Client::new(urls.to_vec(), site.client.clone())?),
        };
        let origin = Origin::new(client, config.questions, metrics.origin.clone());
        let (cache, names, frozen) =
            open_cache(&config, &seams.tasks, metrics.cache.clone()).await?;
        let registries = Registries::new(
            (origin, config.origin.names.clone()),
            upstreams(&config, &metrics)?,
            (
                config.upstreams.default.clone(),
                config.upstreams.rules.clone(),
            ),
            frozen,
        );
        let resolver = Resolver::new(
            registries,
            cache.clone(),
            names,
            &seams.tasks,
            config.questions.manifest_bytes_max,
        );
        let downloads = Downloads::new(
            sources(&config, &metrics, resolver.registries().clone())?,
            resolver.clone(),
            seams.tasks.clone(),
            config.downloads,
            metrics.downloads.clone(),
        );
        let rate = config.cache.scrub_bytes_per_second;
        let scrub = scrub::run(resolver.cache().clone(), rate, seams.tasks.token());
        drop(seams.tasks.spawn("scrub", scrub));
        drop(
            seams
                .tasks
                .spawn("leftovers", downloads.clone().mind_leftovers()),
        );
        let pull = Pull::new(resolver.clone(), downloads);
        let operations = Operations::new(resolver.clone());
        let service = Service::new(&config.name, pull, resolver, metrics.requests);
        Ok(Self {
            config,
            seams,
            service,
            operations,
            cache,
        })
    }

    /// Serves until `shutdown`, then drains: clients first, then tasks.
    pub async fn run(self, listeners: Listeners, shutdown: CancellationToken) {
        let Self {
            config,
            seams,
            service,
            operations,
            cache,
        } = self;
        tracing::info!(name = config.name, region = config.region, "edge is up");
        if let Some(tls) = config.tls.clone() {
            let minding = tls.mind(seams.hangups.clone(), seams.tasks.clone());
            drop(seams.tasks.spawn("certificate", minding));
        }
        let ended = CancellationToken::new();
        let server =
            Server::new("edge", config.server.clone(), &seams.metrics).with_tls(config.tls);
        let public = server.run(
            listeners.public,
            move |request| service.clone().call(request),
            shutdown.clone(),
        );
        let admin = Server::new("edge_admin", config.server, &seams.metrics).run(
            listeners.admin,
            core_admin::service(
                seams.metrics.clone(),
                seams.readiness.clone(),
                move |request| operations.clone().call(request),
            ),
            ended.clone(),
        );
        let draining = async {
            shutdown.cancelled().await;
            seams.readiness.block("edge", "draining");
        };
        let clients = async {
            let (_drained, ()) = tokio::join!(public, draining);
            seams.tasks.cancel();
            if let Err(still_in) = seams.tasks.drain(TASKS_DRAIN).await {
                tracing::warn!(error = %still_in, "tasks of the edge did not end in time");
            }
            cache.close().await;
            ended.cancel();
        };
        tokio::join!(admin, clients);
        tracing::info!(name = config.name, "edge is down");
    }
}

/// Returns the registries that are pulled through.
fn upstreams(config: &Config, metrics: &metrics::Metrics) -> Result<Vec<Origin>, BadClient> {
    let config::Upstreams {
        definitions,
        client,
        questions,
        ..
    } = &config.upstreams;
    let definitions = definitions.iter().cloned();
    definitions
        .map(|definition| {
            let upstream = Upstream::new(definition, client.clone())?;
            let metrics = metrics.origin.of_sibling();
            Ok(Origin::upstream(upstream, *questions, metrics))
        })
        .collect()
}

/// Returns where blobs come from.
fn sources(
    config: &Config,
    metrics: &metrics::Metrics,
    registries: Registries,
) -> Result<Sources, BadClient> {
    let config::Siblings {
        sites,
        client,
        questions,
        overtake_after,
    } = &config.siblings;
    let mut siblings = Vec::new();
    for site in sites {
        let client = Client::new(vec![site.url.clone()], client.clone())?;
        let metrics = metrics.origin.of_sibling();
        siblings.push(Origin::new(Some(client), *questions, metrics));
    }
    let names = sites.iter().map(|site| site.name.clone()).collect();
    let ring = Ring::new(config.name.clone(), names);
    Ok(Sources::new(registries, ring, siblings, *overtake_after))
}

/// Runs an edge as this process, on the ports of its configuration, until the process is told to end.
pub async fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let tasks = Tasks::new();
    let seams = Seams {
        hangups: process::hangups(&tasks)?,
        tasks,
        ..Seams::default()
    };
    let shutdown = process::termination(&seams.tasks)?;
    let (listen, admin_listen) = (config.listen, config.admin_listen);
    let edge = Edge::build(config, seams).await?;
    let listeners = Listeners {
        public: process::bind("edge", "api", listen).await?,
        admin: process::bind("edge", "admin", admin_listen).await?,
    };
    edge.run(listeners, shutdown).await;
    Ok(())
}

async fn open_cache(
    config: &Config,
    tasks: &Tasks,
    metrics: metrics::CacheMetrics,
) -> Result<(Cache, Names, Frozen), BuildError> {
    let (path, names, cache) = (config.cache_path.clone(), config.names, config.cache);
    let opened = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&path).map_err(|source| {
            outport_core::store::disk::OpenError::Io {
                path: path.clone(),
                source,
            }
        })?;
        // First: it also keeps a second edge out of the directory.
        let (names, writer) = Names::open(&path.join(NAMES_FILE), names)?;
        let cache = Cache::open(&path, cache, names.clone(), metrics)?;
        let frozen =
            Frozen::open(&path).map_err(|source| outport_core::store::disk::OpenError::Io {
                path: path.clone(),
                source,
            })?;
        Ok::<_, BuildError>((cache, names, frozen, writer))
    });
    let (cache, names, frozen, writer) = opened.await.or(Err(BuildError::Ending))??;
    drop(tasks.spawn("names", writer.run(tasks.clone())));
    let tending = cache.clone().tend(clock::now(), tasks.token());
    drop(tasks.spawn("cache", tending));
    Ok((cache, names, frozen))
}

/// The file, in the cache's directory, that remembers links and tags.
const NAMES_FILE: &str = "names.redb";
