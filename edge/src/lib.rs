//! The edge: answers pulls from the nearest bytes.
//!
//! [`Edge::build`] puts its ports in front of a [`pull_through::PullThrough`], where all parts come together; [`Edge::run`]
//! serves until told to end. A request goes through the modules in the order in which they are declared.
//!
//! Invariants: the edge holds nothing that cannot be fetched again. It starts, is ready and serves what it holds whether or
//! not the origin answers.

pub mod config;
pub mod pull_through;
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

use outport_core::access;
use outport_core::admin::{self as core_admin, Readiness};
use outport_core::net::serve::Server;
use outport_core::process::{self, Hangups};
use outport_core::tasks::Tasks;
use outport_core::telemetry::Metrics;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use config::Config;
use pull_through::{BuildError, PullThrough};

/// An edge, ready to be run.
#[derive(Debug)]
pub struct Edge {
    config: Config,
    seams: Seams,
    pulls: PullThrough,
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

/// How long tasks may take to end when all clients are gone.
const TASKS_DRAIN: Duration = Duration::from_secs(5);

// === impl Edge ===

impl Edge {
    /// Builds an edge; opens its cache, and no port.
    pub async fn build(config: Config, seams: Seams) -> Result<Self, BuildError> {
        let metrics = (&seams.metrics, "edge");
        let pulls = PullThrough::build(&config.pulls, metrics, &seams.tasks).await?;
        Ok(Self {
            config,
            seams,
            pulls,
        })
    }

    /// Serves until `shutdown`, then drains: clients first, then tasks.
    pub async fn run(self, listeners: Listeners, shutdown: CancellationToken) {
        let Self {
            config,
            seams,
            pulls,
        } = self;
        let name = config.pulls.name;
        tracing::info!(name, region = config.region, "edge is up");
        if let Some(tls) = config.tls.clone() {
            let minding = tls.mind(seams.hangups.clone(), seams.tasks.clone());
            drop(seams.tasks.spawn("certificate", minding));
        }
        if let Some(access) = config.access.clone() {
            let minding = access.mind(seams.hangups.clone(), seams.tasks.clone());
            drop(seams.tasks.spawn("users", minding));
        }
        let gone = pulls.gone();
        let ended = CancellationToken::new();
        let server =
            Server::new("edge", config.server.clone(), &seams.metrics).with_tls(config.tls);
        let [service, operations] = [pulls.clone(), pulls.clone()];
        let public = server.run(
            listeners.public,
            move |request| {
                let service = service.clone();
                access::serve(config.access.clone(), request, move |request| {
                    service.call(request)
                })
            },
            shutdown.clone(),
        );
        let admin = Server::new("edge_admin", config.server, &seams.metrics).run(
            listeners.admin,
            core_admin::service(
                seams.metrics.clone(),
                seams.readiness.clone(),
                move |request| operations.clone().operate(request),
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
            pulls.close().await;
            ended.cancel();
        };
        tokio::join!(admin, clients);
        if timeout(TASKS_DRAIN, gone).await.is_err() {
            tracing::warn!("the cache of the edge is still in use");
        }
        tracing::info!(name, "edge is down");
    }
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
