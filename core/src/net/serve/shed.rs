//! Telling a client that there are too many already.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::net::respond::hand_written_error;
use crate::oci::error::{ApiError, ErrorCode};

/// How long a client is asked to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a refusal may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers the first request of a connection with a 503 and closes it; under TLS after the handshake, because nobody would
/// understand it before.
pub(super) async fn refuse(stream: TcpStream, tls: Option<Arc<ServerConfig>>) {
    let refusal = async {
        match tls {
            None => tell(stream).await,
            Some(server) => tell(TlsAcceptor::from(server).accept(stream).await?).await,
        }
    };
    // Whoever does not want to hear it is closed.
    drop(timeout(PATIENCE, refusal).await);
}

/// The answer waits for the request: some clients take one that comes sooner for noise. What they still send is read,
/// because closing with unread bytes would reset the connection before the answer is read.
async fn tell(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut scratch = [0; 4096];
    if stream.read(&mut scratch).await? == 0 {
        return Ok(());
    }
    let error = ApiError::new(ErrorCode::Unavailable)
        .with_message("too many connections")
        .with_retry_after(RETRY_AFTER);
    stream.write_all(&hand_written_error(&error)).await?;
    stream.shutdown().await?;
    while stream.read(&mut scratch).await? > 0 {}
    Ok(())
}
