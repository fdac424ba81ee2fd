//! The one binary: either role, both together, and the operators' commands.

mod config;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use outport_core::config::EXIT_BAD_CONFIG;
use outport_core::heap;
use outport_core::process::end;
use outport_core::telemetry::causes;

/// A geo-distributed container registry.
#[derive(Debug, Parser)]
#[command(name = "outport", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs an origin and an edge in one process; what happens without a command.
    Up(Settings),
    /// Runs an origin.
    Origin(Settings),
    /// Runs an edge.
    Edge(Settings),
    /// Validates a configuration, prints every problem, and ends.
    Check {
        /// Whose configuration it is.
        #[command(subcommand)]
        role: Role,
    },
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Of `outport up`.
    Up(Settings),
    /// Of an origin.
    Origin(Settings),
    /// Of an edge.
    Edge(Settings),
}

/// Where a configuration comes from, beside the environment.
#[derive(Args, Clone, Debug, Default)]
struct Settings {
    /// The configuration; without one, every key has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets one key, over the file and the environment.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

fn main() -> ExitCode {
    heap::keep_some();
    let command = Arguments::parse()
        .command
        .unwrap_or_else(|| Command::Up(Settings::default()));
    let outcome = match command {
        Command::Up(settings) => config::up(&settings).map(run::up),
        Command::Origin(settings) => config::origin(&settings).map(run::origin),
        Command::Edge(settings) => config::edge(&settings).map(run::edge),
        Command::Check { role } => match role {
            Role::Up(settings) => config::up(&settings).map(|_valid| Ok(())),
            Role::Origin(settings) => config::origin(&settings).map(|_valid| Ok(())),
            Role::Edge(settings) => config::edge(&settings).map(|_valid| Ok(())),
        },
    };
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => end(1, causes(&*error)),
        Err(problems) => end(EXIT_BAD_CONFIG, problems),
    }
}
