//! The origin: a full registry that owns the database master.
//!
//! [`Origin::build`] is the composition root, the only place that sees all parts; [`Origin::run`] serves until told to end.
//! A request goes through the modules in the order in which they are declared.
//!
//! Invariant: an origin keeps nothing of its own. Any number of them over one database and one location are one registry.

pub mod config;

mod api;
mod upload;

pub mod publish;

pub mod names;

pub mod metadata;

pub mod sweep;

mod respond;

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use outport_core::access;
use outport_core::admin::{self, Readiness};
use outport_core::body::Body;
use outport_core::location::{self, Location};
use outport_core::net::respond::chain;
use outport_core::net::serve::Server;
use outport_core::process::{self, Hangups};
use outport_core::store::StoreError;
use outport_core::tasks::Tasks;
use outport_core::telemetry::Metrics;
use outport_edge::pull_through::{self, PullThrough};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::api::blobs::Blobs;
use crate::api::lists::Lists;
use crate::api::manifests::Manifests;
use crate::api::push::Push;
use crate::config::Config;
use crate::metadata::sql::Sql;
use crate::metadata::{Metadata, MetadataError};
use crate::names::Names;
use crate::sweep::Sweep;

/// An origin, ready to be run.
#[derive(Debug)]
pub struct Origin {
    config: Config,
    seams: Seams,
    api: Api,
    sweep: Sweep,
    database: Sql,
    upstreams: Option<PullThrough>,
}

/// What an origin shares with the process around it.
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

/// Where an origin listens.
#[derive(Debug)]
pub struct Listeners {
    /// For clients and edges.
    pub public: TcpListener,
    /// For operators.
    pub admin: TcpListener,
}

/// An origin could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The database cannot be used.
    #[error("open the database")]
    Database(#[from] MetadataError),
    /// The location cannot be used.
    #[error("open the location")]
    Location(#[from] location::OpenError),
    /// The location refuses us.
    #[error("use the location {0}")]
    Refused(String, #[source] StoreError),
    /// What is kept of upstreams cannot be used: without it, what is theirs could not be told from what does not exist.
    #[error("open what is kept of upstreams")]
    Upstreams(#[from] pull_through::BuildError),
    /// The runtime ends already.
    #[error("shutting down")]
    Ending,
}

/// How long tasks may take to end when all clients are gone.
const TASKS_DRAIN: Duration = Duration::from_secs(5);

/// How long a location may take to answer when an origin starts.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

// === impl Origin ===

impl Origin {
    /// Builds an origin; opens its database and its location, and no port.
    pub async fn build(config: Config, seams: Seams) -> Result<Self, BuildError> {
        let (url, options) = (config.location.clone(), config.location_options.clone());
        let location = tokio::task::spawn_blocking(move || Location::open(url, &options));
        let location = location.await.or(Err(BuildError::Ending))??;
        let store = Arc::clone(location.store());
        check(&location).await?;
        let database = Sql::open(&config.database).await?;
        watch(&database, &seams);
        let metadata: Arc<dyn Metadata> = Arc::new(database.clone());
        let names = Names::new(Arc::clone(&metadata), config.names, &seams.tasks);
        let upstreams = match &config.upstreams {
            Some(upstreams) => {
                let metrics = (&seams.metrics, "origin_upstreams");
                Some(PullThrough::build(upstreams, metrics, &seams.tasks).await?)
            }
            None => None,
        };

        let api = Api {
            blobs: Blobs {
                metadata: Arc::clone(&metadata),
                names: names.clone(),
            },
            lists: Lists {
                metadata: Arc::clone(&metadata),
                page_limit: config.page_limit,
            },
            manifests: Manifests {
                metadata: Arc::clone(&metadata),
                names: names.clone(),
                missing_blobs: config.manifests.missing_blobs,
            },
            push: Push {
                metadata: Arc::clone(&metadata),
                names,
                store: Arc::clone(&store),
                location: location.name().into(),
                tasks: seams.tasks.clone(),
                touch_interval: config.sweep.touch_interval(),
            },
            store: Arc::clone(&store),
            max_manifest: config.manifests.max_bytes,
            upstreams: upstreams.clone(),
        };
        let sweep = Sweep {
            metadata,
            store,
            config: config.sweep,
        };
        Ok(Self {
            config,
            seams,
            api,
            sweep,
            database,
            upstreams,
        })
    }

    /// Serves until `shutdown`, then drains: clients first, then tasks.
    pub async fn run(self, listeners: Listeners, shutdown: CancellationToken) {
        let Self {
            config,
            seams,
            api,
            sweep,
            database,
            upstreams,
        } = self;
        sweep.spawn(&seams.tasks);
        tracing::info!(region = config.region, "origin is up");
        if let Some(tls) = config.tls.clone() {
            let minding = tls.mind(seams.hangups.clone(), seams.tasks.clone());
            drop(seams.tasks.spawn("certificate", minding));
        }
        if let Some(access) = config.access.clone() {
            if access.has_users() && !access.has_key() {
                tracing::warn!("there are users and no access.key: no edge is known here as one");
            }
            let minding = access.mind(seams.hangups.clone(), seams.tasks.clone());
            drop(seams.tasks.spawn("users", minding));
        }
        let ended = CancellationToken::new();
        let api = Arc::new(api);
        let server =
            Server::new("origin", config.server.clone(), &seams.metrics).with_tls(config.tls);
        let public = server.run(
            listeners.public,
            move |request| {
                let api = Arc::clone(&api);
                access::serve(config.access.clone(), request, |request| async move {
                    api.handle(request).await
                })
            },
            shutdown.clone(),
        );
        let operations = upstreams.clone();
        let admin = Server::new("origin_admin", config.server, &seams.metrics).run(
            listeners.admin,
            admin::service(
                seams.metrics.clone(),
                seams.readiness.clone(),
                move |request| operate(operations.clone(), request),
            ),
            ended.clone(),
        );
        let draining = async {
            shutdown.cancelled().await;
            seams.readiness.block("origin", "draining");
        };
        let clients = async {
            let (_drained, ()) = tokio::join!(public, draining);
            seams.tasks.cancel();
            if let Err(still_in) = seams.tasks.drain(TASKS_DRAIN).await {
                tracing::warn!(error = %still_in, "tasks of the origin did not end in time");
            }
            if let Some(upstreams) = upstreams {
                upstreams.close().await;
            }
            ended.cancel();
        };
        tokio::join!(admin, clients);
        database.close().await;
        tracing::info!(region = config.region, "origin is down");
    }
}

/// Answers an operator: about what is kept of upstreams.
async fn operate(upstreams: Option<PullThrough>, request: Request<Body>) -> Response<Body> {
    match upstreams {
        Some(upstreams) => upstreams.operate(request).await,
        None => admin::nothing(request).await,
    }
}

/// Tells a location that will not have us, which nobody but an operator can change, from one that is away for now: an origin
/// starts without that, and answers from its database meanwhile.
async fn check(location: &Location) -> Result<(), BuildError> {
    let checked = tokio::time::timeout(CHECK_TIMEOUT, location.check()).await;
    match checked {
        Ok(Err(error)) if !error.is_transient() => {
            return Err(BuildError::Refused(location.name(), error));
        }
        Ok(Err(error)) => {
            tracing::warn!(
                location = location.name(),
                error = chain(&error),
                "location is away"
            );
        }
        Err(_elapsed) => tracing::warn!(location = location.name(), "location does not answer"),
        Ok(Ok(())) => {}
    }
    Ok(())
}

/// Lets the readiness follow whether the database can be read.
///
/// Without it nothing is answered, whatever is in memory: a name may have changed since. An origin that can only not write
/// stays ready, since pulls are most of what it is for, and another origin over the same database could not write either.
/// The location has no say: names and manifests are served without it, and it is away for every origin or none.
fn watch(database: &Sql, seams: &Seams) {
    let readiness = seams.readiness.clone();
    database.watch(&seams.tasks, move |is_away| {
        if is_away {
            readiness.block("database", "the database does not answer");
        } else {
            readiness.clear("database");
        }
    });
}

/// Runs an origin as this process, on the ports of its configuration, until the process is told to end.
pub async fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let tasks = Tasks::new();
    let seams = Seams {
        hangups: process::hangups(&tasks)?,
        tasks,
        ..Seams::default()
    };
    let shutdown = process::termination(&seams.tasks)?;
    let (listen, admin_listen) = (config.listen, config.admin_listen);
    let origin = Origin::build(config, seams).await?;
    let listeners = Listeners {
        public: process::bind("origin", "api", listen).await?,
        admin: process::bind("origin", "admin", admin_listen).await?,
    };
    origin.run(listeners, shutdown).await;
    Ok(())
}
