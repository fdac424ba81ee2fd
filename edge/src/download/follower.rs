//! A reader of a blob that is still coming in, as the body of a response.
//!
//! Invariants: bytes come from before the landing's watermark only; the body ends cleanly only after its last byte. Failure: a
//! broken landing breaks the body off; when the disk gave out, the reader goes on by itself, straight from the source.
//! Cancellation: dropping the body stops this reader and nothing else.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use outport_core::body::{Body, BodyStream};
use tokio::sync::watch;

use super::landing::{Landing, Position, Progress, State};
use crate::source::through::Through;

/// Returns the bytes of `range` as they come in; `through` is the way past the landing when it has to be given up.
pub fn follow(landing: Landing, through: Through, range: Range<u64>) -> Body {
    let length = range.end - range.start;
    let follower = Follower {
        progress: landing.progress(),
        landing,
        through,
        range,
        piece: None,
        is_alone: false,
    };
    let pieces = stream::try_unfold(follower, async |mut follower: Follower| {
        let bytes = follower.next().await?;
        Ok(bytes.map(|bytes| (bytes, follower)))
    });
    Body::stream(pieces).with_exact_len(length)
}

struct Follower {
    landing: Landing,
    progress: watch::Receiver<Progress>,
    through: Through,
    /// What is still to be given.
    range: Range<u64>,
    /// What is being read: a piece of the file, or all of the rest.
    piece: Option<BodyStream>,
    /// Whether the piece is all of the rest, straight from the source.
    is_alone: bool,
}

// === impl Follower ===

impl Follower {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.range.is_empty() {
            if let Some(bytes) = self.read_piece().await? {
                return Ok(Some(self.advance(bytes)));
            }
            let progress = self.progress.borrow_and_update().clone();
            if progress.released > self.range.start {
                if let Some(bytes) = self.landing.recent(self.range.start) {
                    let released = progress.released.min(self.range.end) - self.range.start;
                    return Ok(Some(self.advance(head(bytes, released))));
                }
                let end = progress.released.min(self.range.end);
                self.read_file(self.range.start..end);
                continue;
            }
            match progress.state {
                State::Abandoned(position) => self.leave(*position).await?,
                State::Broken => return Err(broken()),
                // A writer that vanished without a word has broken off too.
                State::Filling | State::Complete => {
                    self.progress.changed().await.or(Err(broken()))?;
                }
            }
        }
        Ok(None)
    }

    async fn read_piece(&mut self) -> io::Result<Option<Bytes>> {
        let Some(piece) = &mut self.piece else {
            return Ok(None);
        };
        let bytes = piece.try_next().await?;
        if bytes.is_none() {
            self.piece = None;
            if self.is_alone {
                return Err(broken());
            }
        }
        Ok(bytes)
    }

    fn read_file(&mut self, range: Range<u64>) {
        self.piece = Some(Body::file(Arc::clone(self.landing.file()), range).into_stream());
    }

    /// Gives the landing up and goes on from where it stands.
    async fn leave(&mut self, position: Position) -> io::Result<()> {
        let written_to = position.offset.clamp(self.range.start, self.range.end);
        let before = Body::file(
            Arc::clone(self.landing.file()),
            self.range.start..written_to,
        );
        let rest = self
            .through
            .resume(before, position, self.range.clone())
            .await?;
        self.piece = Some(rest.into_stream());
        self.is_alone = true;
        Ok(())
    }

    fn advance(&mut self, bytes: Bytes) -> Bytes {
        self.range.start += bytes.len() as u64;
        bytes
    }
}

fn head(bytes: Bytes, length: u64) -> Bytes {
    match usize::try_from(length) {
        Ok(length) if length < bytes.len() => bytes.slice(..length),
        _ => bytes,
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the download broke off")
}
