//! The roles as processes.

use std::error::Error;
use std::io::{self, Write as _};
use std::net::SocketAddr;

use outport_core::process::{bind, hangups, termination};
use outport_core::telemetry::{self, Metrics};
use outport_core::{admin::Readiness, tasks::Tasks};
use outport_edge::Edge;
use outport_edge::source::registries::Asked;
use outport_origin::Origin;
use tokio_util::sync::CancellationToken;

use crate::config::Up;

type Outcome = Result<(), Box<dyn Error>>;

/// Runs an origin and an edge in front of it.
pub(crate) fn up(config: Up) -> Outcome {
    block_on(&config.log.clone(), serve_up(config))
}

/// Runs an origin.
pub(crate) fn origin(config: outport_origin::config::Config) -> Outcome {
    block_on(&config.log.clone(), outport_origin::serve(config))
}

/// Runs an edge.
pub(crate) fn edge(config: outport_edge::config::Config) -> Outcome {
    block_on(&config.log.clone(), outport_edge::serve(config))
}

fn block_on(log: &telemetry::Config, role: impl Future<Output = Outcome>) -> Outcome {
    telemetry::init(log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(role)
}

async fn serve_up(
    Up {
        mut origin,
        mut edge,
        ..
    }: Up,
) -> Outcome {
    let tasks = Tasks::new();
    let told = termination(&tasks)?;
    let hangups = hangups(&tasks)?;
    let metrics = Metrics::default();

    let origin_listeners = outport_origin::Listeners {
        public: bind("origin", "api", origin.listen).await?,
        admin: bind("origin", "admin", origin.admin_listen).await?,
    };
    let origin_address = origin_listeners.public.local_addr()?;
    // Upstreams are asked by whoever keeps what they give: here one cache does.
    let upstreams = &edge.pulls.upstreams;
    if ![upstreams.names_from, upstreams.blobs_from].contains(&Asked::Origin) {
        origin.upstreams = None;
    }
    let origin = Origin::build(
        origin,
        outport_origin::Seams {
            metrics: metrics.clone(),
            readiness: Readiness::new(),
            tasks: tasks.child(),
            hangups: hangups.clone(),
        },
    )
    .await?;

    if edge.pulls.origin.urls.is_empty() {
        edge.pulls
            .origin
            .urls
            .push(format!("http://{origin_address}").parse()?);
    }
    let edge_listeners = outport_edge::Listeners {
        public: bind("edge", "api", edge.listen).await?,
        admin: bind("edge", "admin", edge.admin_listen).await?,
    };
    let edge_address = edge_listeners.public.local_addr()?;
    let edge = Edge::build(
        edge,
        outport_edge::Seams {
            metrics,
            readiness: Readiness::new(),
            tasks: tasks.child(),
            hangups: hangups.clone(),
        },
    )
    .await?;

    greet(edge_address, origin_address);
    // The edge goes first: what it forwards must find the origin up.
    let edge_is_down = CancellationToken::new();
    let serve_edge = async {
        edge.run(edge_listeners, told).await;
        edge_is_down.cancel();
    };
    tokio::join!(
        serve_edge,
        origin.run(origin_listeners, edge_is_down.clone())
    );
    tasks.cancel();
    Ok(())
}

/// Prints what to type next.
fn greet(edge: SocketAddr, origin: SocketAddr) {
    let text = format!(
        "\nOutport is up: edge on {edge}, origin on {origin}.\n\
         \n    docker tag IMAGE {edge}/team/app:1\
         \n    docker push {edge}/team/app:1\
         \n    docker pull {edge}/team/app:1\
         \n\nCtrl-C ends it. What is kept where, and every other setting: config/origin.toml, config/edge.toml.\n\n"
    );
    // Nobody is there to read it when this fails.
    io::stdout().write_all(text.as_bytes()).ok();
}
