//! The origin as a process of its own: reads its configuration, opens its database and its location, then its ports, and
//! serves until it is told to end.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use outport_core::config::EXIT_BAD_CONFIG;
use outport_core::heap;
use outport_core::process::end;
use outport_core::telemetry;
use outport_origin::config::Config;

/// Owns the names of a container registry.
#[derive(Debug, Parser)]
#[command(name = "outport-origin", version)]
struct Arguments {
    /// The configuration; without one, every key has its default.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Sets one key, over the file and the environment.
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Validates the configuration, prints every problem, and ends.
    Check,
}

fn main() -> ExitCode {
    heap::keep_some();
    let arguments = Arguments::parse();
    let config = match Config::load(arguments.config.as_deref(), &arguments.set) {
        Ok(loaded) => loaded.config,
        Err(problems) => return end(EXIT_BAD_CONFIG, problems),
    };
    if let Some(Command::Check) = arguments.command {
        return ExitCode::SUCCESS;
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => end(1, telemetry::causes(&*error)),
    }
}

fn run(config: Config) -> Result<(), Box<dyn Error>> {
    telemetry::init(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(outport_origin::serve(config))
}
