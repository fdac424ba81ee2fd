//! Memory for bodies of which nothing is of use before they are whole.
//!
//! Invariant: what is read into a [`Room`] takes no more than it has, and as much again while it grows, and one body beside,
//! however many come in; those that find it full wait. Somebody always goes on: a body that says how long it is has room for
//! all of it before its first byte is read, and of those that do not say, one at a time needs no room for the rest.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use http_body::Body as _;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::{Body, CollectError};

/// Memory that bodies share while they come in; cheap to clone.
#[derive(Clone, Debug)]
pub struct Room {
    units: Arc<Semaphore>,
    size: usize,
    /// Held by a body that goes on although the room is full.
    beside: Arc<Mutex<()>>,
}

/// What the room is counted in.
const UNIT_BYTES: u64 = 1024;

/// How much a body takes at a time that does not say how long it is.
const STEP_BYTES: u64 = 64 * 1024;

// === impl Room ===

impl Room {
    /// Returns one of so many bytes. A body that is larger than it has it for itself.
    pub fn new(bytes: u64) -> Self {
        let size = usize::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(usize::MAX);
        let size = size.clamp(1, u32::MAX as usize);
        Self {
            units: Arc::new(Semaphore::new(size)),
            size,
            beside: Arc::default(),
        }
    }

    /// Reads a whole body when there is room for it; it may be no longer than `limit_bytes`.
    pub async fn collect(&self, body: Body, limit_bytes: u64) -> Result<Bytes, CollectError> {
        let too_large = CollectError::TooLarge { limit_bytes };
        if let Some(length) = body.size_hint().exact() {
            if length > limit_bytes {
                return Err(too_large);
            }
            let _held = self.take(self.units(length)).await?;
            return body.collect_limited(limit_bytes).await;
        }
        let mut held = self.take(0).await?;
        let mut beside = None;
        let mut collected = BytesMut::new();
        let mut stream = body.into_stream();
        while let Some(bytes) = stream.try_next().await.map_err(CollectError::Broken)? {
            let length = collected.len() as u64 + bytes.len() as u64;
            if length > limit_bytes {
                return Err(too_large);
            }
            let wanted = self.units(length.next_multiple_of(STEP_BYTES));
            let more = wanted.saturating_sub(held.num_permits());
            if beside.is_none() && more > 0 {
                match self.take_now(more) {
                    Some(taken) => held.merge(taken),
                    // Nobody waits for what it holds.
                    None if held.num_permits() == 0 => held.merge(self.take(more).await?),
                    None => tokio::select! {
                        biased;
                        guard = self.beside.lock() => beside = Some(guard),
                        taken = self.take(more) => held.merge(taken?),
                    },
                }
            }
            collected.extend_from_slice(&bytes);
        }
        Ok(collected.freeze())
    }

    async fn take(&self, units: usize) -> Result<OwnedSemaphorePermit, CollectError> {
        let taking =
            Arc::clone(&self.units).acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX));
        // Nobody closes it.
        taking
            .await
            .map_err(|closed| CollectError::Broken(io::Error::other(closed)))
    }

    fn take_now(&self, units: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        Arc::clone(&self.units).try_acquire_many_owned(units).ok()
    }

    /// Returns how much of the room so many bytes take.
    fn units(&self, bytes: u64) -> usize {
        let units = usize::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(usize::MAX);
        units.min(self.size)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::{FutureExt as _, stream};
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    const KIB: u64 = 1024;

    /// How long a test waits for what should happen at once.
    const PATIENCE: std::time::Duration = std::time::Duration::from_mins(1);

    fn dripping() -> (mpsc::Sender<io::Result<Bytes>>, Body) {
        let (sender, receiver) = mpsc::channel(8);
        let pieces = stream::unfold(receiver, |mut receiver: mpsc::Receiver<_>| async {
            let piece = receiver.recv().await?;
            Some((piece, receiver))
        });
        (sender, Body::stream(pieces))
    }

    #[tokio::test]
    async fn who_finds_it_full_waits() {
        let room = Room::new(100 * KIB);
        let (sender, slow) = dripping();
        let mut first = pin!(room.collect(slow, 1 << 20));
        sender.send(Ok(vec![1; 1000].into())).await.unwrap();
        assert!(first.as_mut().now_or_never().is_none());
        let small = Body::from(vec![2; 30_000]);
        assert_eq!(room.collect(small, 1 << 20).await.unwrap().len(), 30_000);
        let mut second = pin!(room.collect(Body::from(vec![2; 40_000]), 1 << 20));
        assert!(second.as_mut().now_or_never().is_none());
        drop(sender);
        assert_eq!(first.await.unwrap(), vec![1; 1000]);
        assert_eq!(second.await.unwrap().len(), 40_000);
    }

    #[tokio::test]
    async fn who_does_not_say_how_long_it_is_waits_for_none_that_waits_for_it() {
        let room = Room::new(128 * KIB);
        let (mut senders, mut reading) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let (sender, body) = dripping();
            sender.send(Ok(vec![1; 60_000].into())).await.unwrap();
            let room = &room;
            let mut read = Box::pin(async move { room.collect(body, 1 << 20).await });
            assert!(read.as_mut().now_or_never().is_none());
            senders.push(sender);
            reading.push(read);
        }
        for sender in senders {
            sender.send(Ok(vec![1; 60_000].into())).await.unwrap();
        }
        let all = futures_util::future::join_all(reading);
        for read in timeout(PATIENCE, all).await.unwrap() {
            assert_eq!(read.unwrap().len(), 120_000);
        }
        assert_eq!(room.units.available_permits(), 128);
    }

    #[tokio::test]
    async fn who_goes_on_beside_keeps_nobody_from_what_becomes_free() {
        let room = Room::new(192 * KIB);
        let (mut senders, mut reading) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (sender, body) = dripping();
            sender.send(Ok(vec![1; 60_000].into())).await.unwrap();
            let mut read = Box::pin(room.collect(body, 1 << 20));
            assert!(read.as_mut().now_or_never().is_none());
            senders.push(sender);
            reading.push(read);
        }
        // The first of them goes on beside, and stays there.
        for (sender, read) in senders.iter().zip(&mut reading).take(2) {
            sender.send(Ok(vec![1; 60_000].into())).await.unwrap();
            assert!(read.as_mut().now_or_never().is_none());
        }
        drop(reading.remove(2));
        drop(senders.remove(1));
        let second = timeout(PATIENCE, reading.remove(1)).await.unwrap();
        assert_eq!(second.unwrap().len(), 120_000);
    }

    #[tokio::test]
    async fn who_is_too_large_for_it_has_it_for_itself() {
        let room = Room::new(10 * KIB);
        let known = Body::from(vec![1; 100_000]);
        assert_eq!(room.collect(known, 1 << 20).await.unwrap().len(), 100_000);
        let pieces = (0..10).map(|_| Ok(Bytes::from(vec![1; 10_000])));
        let unknown = Body::stream(stream::iter(pieces.collect::<Vec<_>>()));
        assert_eq!(room.collect(unknown, 1 << 20).await.unwrap().len(), 100_000);
        assert_eq!(room.units.available_permits(), 10);
    }

    #[tokio::test]
    async fn what_is_too_long_or_breaks_is_refused() {
        let room = Room::new(10 * KIB);
        let known = room.collect(Body::from(vec![1; 3000]), 2000).await;
        assert!(matches!(known, Err(CollectError::TooLarge { .. })));
        let pieces = vec![Ok(Bytes::from(vec![1; 1500])), Ok(vec![1; 1500].into())];
        let unknown = room.collect(Body::stream(stream::iter(pieces)), 2000).await;
        assert!(matches!(unknown, Err(CollectError::TooLarge { .. })));
        let broken = vec![Ok(Bytes::from(vec![1])), Err(io::Error::other("broken"))];
        let broken = room.collect(Body::stream(stream::iter(broken)), 2000).await;
        assert!(matches!(broken, Err(CollectError::Broken(_))));
        assert_eq!(room.units.available_permits(), 10);
    }
}
