//! The edge as a process of its own: reads its configuration, opens its cache, then its ports, and serves until it is told
//! to end.

use std::error::Error;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use outport_core::config::EXIT_BAD_CONFIG;
use outport_core::telemetry;
use outport_edge::config::Config;
use outport_edge::{Edge, Listeners, Seams};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Serves pulls from the nearest bytes.
#[derive(Debug, Parser)]
#[command(name = "outport-edge", version)]
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
    let arguments = Arguments::parse();
    let config = match Config::load(arguments.config.as_deref(), &arguments.set) {
        Ok(loaded) => loaded.config,
        Err(problems) => return end(EXIT_BAD_CONFIG, &problems.to_string()),
    };
    if let Some(Command::Check) = arguments.command {
        return ExitCode::SUCCESS;
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => end(1, &telemetry::causes(&*error)),
    }
}

fn run(config: Config) -> Result<(), Box<dyn Error>> {
    telemetry::init(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (listen, admin_listen) = (config.listen, config.admin_listen);
    let edge = Edge::build(config, Seams::default()).await?;
    let listeners = Listeners {
        public: TcpListener::bind(listen).await?,
        admin: TcpListener::bind(admin_listen).await?,
    };
    let shutdown = CancellationToken::new();
    let told_to_end = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    };
    tokio::join!(edge.run(listeners, shutdown.clone()), told_to_end);
    Ok(())
}

fn end(code: u8, message: &str) -> ExitCode {
    // There is nobody to tell when this fails.
    writeln!(io::stderr(), "{message}").ok();
    ExitCode::from(code)
}
