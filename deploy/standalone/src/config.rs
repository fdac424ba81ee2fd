//! The configurations of the commands.
//!
//! That of `outport up` is those of both roles, each in a section of its own: `--set edge.cache.capacity=1GiB`.

use outport_core::config::process::log;
use outport_core::config::{self, Loaded, Problems, Sources};
use outport_core::process::environment;
use outport_core::telemetry;

use crate::Settings;

/// The configuration of both roles in one process.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) origin: outport_origin::config::Config,
    pub(crate) edge: outport_edge::config::Config,
    /// What is logged, of both.
    pub(crate) log: telemetry::Config,
}

/// Reads the configuration of both roles.
pub(crate) fn up(settings: &Settings) -> Result<Up, Problems> {
    let sources = Sources {
        file: settings.config.as_deref(),
        env: &environment(),
        set: &settings.set,
        read_file: &|path| std::fs::read_to_string(path),
    };
    let Loaded { config, .. } = config::read(sources, |section| {
        let origin = section.section("origin", outport_origin::config::Config::read);
        let edge = section.section("edge", outport_edge::config::Config::read_beside_origin);
        let log = section.section("log", log);
        if edge.pulls.origin.urls.is_empty()
            && origin.as_ref().is_some_and(|origin| origin.tls.is_some())
        {
            // The name that its certificate is for is known to nobody here.
            section.problem(
                "edge.origin.urls",
                "is missing: the origin's URL, as it has TLS",
            );
        }
        Some(Up {
            origin: origin?,
            edge,
            log,
        })
    })?;
    // What is none has reported its problem.
    config.ok_or_else(Problems::default)
}

/// Reads the configuration of an origin.
pub(crate) fn origin(settings: &Settings) -> Result<outport_origin::config::Config, Problems> {
    let file = settings.config.as_deref();
    Ok(outport_origin::config::Config::load(file, &settings.set)?.config)
}

/// Reads the configuration of an edge.
pub(crate) fn edge(settings: &Settings) -> Result<outport_edge::config::Config, Problems> {
    let file = settings.config.as_deref();
    Ok(outport_edge::config::Config::load(file, &settings.set)?.config)
}
