//! What every binary does around its role: the environment, the ports, the signals, the way it ends.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::tasks::Tasks;

/// A port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Tells when the process is asked, by SIGHUP, to read again what it has read; by default it never is.
#[derive(Clone, Debug)]
pub struct Hangups(watch::Receiver<()>);

/// Opens the port of `role`'s `listener`, and logs the address: the one to use when the port was left to the system.
pub async fn bind(
    role: &'static str,
    listener: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, BindError> {
    let failed = |source| BindError { address, source };
    let bound = TcpListener::bind(address).await.map_err(failed)?;
    let address = bound.local_addr().map_err(failed)?;
    tracing::info!(role, listener, address = %address, "listening");
    Ok(bound)
}

/// Returns a token that is cancelled when the process is told to end, by SIGTERM or SIGINT.
pub fn termination(tasks: &Tasks) -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let (told, ended) = (token.clone(), tasks.token());
    drop(tasks.spawn("signals", async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = ended.cancelled() => {}
        }
        told.cancel();
    }));
    Ok(token)
}

/// Returns what tells of SIGHUP, which then no longer ends the process.
pub fn hangups(tasks: &Tasks) -> io::Result<Hangups> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (sender, receiver) = watch::channel(());
    let ended = tasks.token();
    drop(tasks.spawn("hangups", async move {
        while let Some(Some(())) = ended.run_until_cancelled(hangup.recv()).await {
            sender.send_replace(());
        }
    }));
    Ok(Hangups::of(receiver))
}

/// Returns the environment as far as it is text.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Says on standard error why the process ends.
pub fn end(code: u8, message: impl Display) -> ExitCode {
    // There is nobody to tell when this fails.
    writeln!(io::stderr(), "{message}").ok();
    ExitCode::from(code)
}

// === impl Hangups ===

impl Hangups {
    /// Returns what tells of the changes of a channel.
    pub const fn of(changes: watch::Receiver<()>) -> Self {
        Self(changes)
    }

    /// Waits for the next one; those that came since the last are one.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Default for Hangups {
    fn default() -> Self {
        Self::of(watch::channel(()).1)
    }
}
