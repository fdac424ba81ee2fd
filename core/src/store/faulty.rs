//! A store that fails when it is told to, for tests.
//!
//! What: [`Faulty`] decorates another store. Faults are set per operation and used up in order: `fail(Operation::Commit, 1,
//! ..)` lets one commit through and fails the next.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

use crate::body::Body;
use crate::oci::digest::Digest;
use crate::store::{
    AppendError, Appended, CommitError, Committed, Content, ContentStore, Staged, StoreError,
};

/// A store that fails when it is told to.
#[derive(Clone, Debug)]
pub struct Faulty {
    store: Arc<dyn ContentStore>,
    faults: Arc<Mutex<HashMap<Operation, Vec<Planned>>>>,
}

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`ContentStore::size`].
    Size,
    /// [`ContentStore::read`].
    Read,
    /// [`ContentStore::delete`].
    Delete,
    /// [`ContentStore::append`].
    Append,
    /// [`ContentStore::commit`].
    Commit,
    /// [`ContentStore::discard`].
    Discard,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no room; nothing is done.
    Full,
    /// The store is away; nothing is done.
    Unavailable,
    /// The store is broken; nothing is done.
    Failed,
    /// It is done, and the answer is lost.
    AnswerLost,
    /// A read ends with an error after so many bytes; an append takes only so many, and then there is no room.
    Short(u64),
    /// The byte at this offset of what is read is another one.
    Flip(u64),
}

#[derive(Debug)]
struct Planned {
    /// How many calls come before.
    after: usize,
    fault: Fault,
}

/// A body that goes wrong.
#[derive(Debug)]
struct FaultyBody {
    body: Body,
    offset: u64,
    fault: Fault,
}

// === impl Faulty ===

impl Faulty {
    /// Decorates a store, which works until [`Self::fail`] is called.
    pub fn new(store: Arc<dyn ContentStore>) -> Self {
        Self {
            store,
            faults: Arc::default(),
        }
    }

    /// Makes the operation fail once, after `after` more calls of it that do not.
    pub fn fail(&self, operation: Operation, after: usize, fault: Fault) {
        let mut faults = self.faults.lock();
        faults
            .entry(operation)
            .or_default()
            .push(Planned { after, fault });
    }

    /// Returns whether every fault that was planned has happened.
    pub fn is_done(&self) -> bool {
        self.faults.lock().values().all(Vec::is_empty)
    }

    /// Counts a call and returns the fault that is planned for it.
    fn next(&self, operation: Operation) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let planned = faults.get_mut(&operation)?;
        let due = planned.iter().position(|planned| planned.after == 0);
        let fault = due.map(|index| planned.remove(index).fault);
        for planned in planned {
            planned.after = planned.after.saturating_sub(1);
        }
        fault
    }

    /// Does what the fault leaves to be done, and fails as it says.
    async fn with<T, E: From<StoreError>>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match self.next(operation) {
            None => work.await,
            Some(Fault::AnswerLost) => {
                work.await?;
                Err(unavailable().into())
            }
            Some(fault) => Err(error(fault).into()),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContentStore for Faulty {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        self.with(Operation::Size, self.store.size(digest)).await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Body>, StoreError> {
        match self.next(Operation::Read) {
            None => self.store.read(digest, range).await,
            Some(fault @ (Fault::Short(_) | Fault::Flip(_))) => {
                let body = self.store.read(digest, range).await?;
                Ok(body.map(|body| {
                    Body::boxed(FaultyBody {
                        body,
                        offset: 0,
                        fault,
                    })
                }))
            }
            Some(fault) => Err(error(fault)),
        }
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.with(Operation::Delete, self.store.delete(digest))
            .await
    }

    async fn append(
        &self,
        staged: Staged,
        content: Content<'_>,
        destination: Option<&Digest>,
    ) -> Appended {
        let fault = self.next(Operation::Append);
        match fault {
            None => self.store.append(staged, content, destination).await,
            Some(Fault::AnswerLost) => {
                let old = staged.clone();
                let _lost = self.store.append(staged, content, destination).await;
                Appended {
                    staged: old,
                    outcome: Err(unavailable().into()),
                }
            }
            Some(Fault::Short(bytes)) => {
                let short = Box::pin(ShortContent {
                    content,
                    left: bytes,
                });
                // What is not all there is not going to be committed with this append.
                let appended = self.store.append(staged, short, None).await;
                Appended {
                    outcome: Err(error(Fault::Full).into()),
                    ..appended
                }
            }
            Some(fault) => Appended {
                staged,
                outcome: Err(AppendError::Store(error(fault))),
            },
        }
    }

    async fn commit(&self, staged: Staged, digest: &Digest) -> Result<Committed, CommitError> {
        self.with(Operation::Commit, self.store.commit(staged, digest))
            .await
    }

    async fn discard(&self, staged: Staged) -> Result<(), StoreError> {
        self.with(Operation::Discard, self.store.discard(staged))
            .await
    }

    async fn settle(&self, digest: &Digest, now: SystemTime) -> Result<(), StoreError> {
        self.store.settle(digest, now).await
    }

    async fn unsettled(&self) -> Result<Vec<Digest>, StoreError> {
        self.store.unsettled().await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.store.check().await
    }

    async fn sweep(&self, before: SystemTime) -> Result<u64, StoreError> {
        self.store.sweep(before).await
    }

    fn min_chunk_size(&self) -> u64 {
        self.store.min_chunk_size()
    }
}

fn unavailable() -> StoreError {
    error(Fault::Unavailable)
}

fn error(fault: Fault) -> StoreError {
    let source = io::Error::other("a planned fault").into();
    match fault {
        Fault::Full => StoreError::Full(source),
        Fault::Failed => StoreError::Failed(source),
        Fault::Unavailable | Fault::AnswerLost | Fault::Short(_) | Fault::Flip(_) => {
            StoreError::Unavailable(source)
        }
    }
}

/// Content of which only the beginning is taken.
struct ShortContent<'a> {
    content: Content<'a>,
    left: u64,
}

impl futures_util::Stream for ShortContent<'_> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(self.content.as_mut().poll_next(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|mut frame| {
                frame.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= frame.len() as u64;
                frame
            })
        }))
    }
}

// === impl FaultyBody ===

impl FaultyBody {
    fn spoil(&mut self, bytes: Bytes) -> Bytes {
        let start = self.offset;
        self.offset += bytes.len() as u64;
        match self.fault {
            Fault::Flip(at) if (start..self.offset).contains(&at) => {
                let mut bytes = BytesMut::from(bytes);
                if let Ok(index) = usize::try_from(at - start) {
                    bytes[index] ^= 1;
                }
                bytes.freeze()
            }
            Fault::Short(length) if self.offset > length => {
                let kept = length.saturating_sub(start);
                bytes.slice(..usize::try_from(kept).unwrap_or(bytes.len()))
            }
            _ => bytes,
        }
    }
}

impl HttpBody for FaultyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if matches!(self.fault, Fault::Short(length) if self.offset >= length) {
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| self.spoil(bytes)))))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::oci::digest::Algorithm;
    use crate::store::conformance::{Instances, frames, fresh, put};
    use crate::store::memory::Memory;

    fn faulty() -> (Faulty, Instances) {
        let faulty = Faulty::new(Arc::new(Memory::default()));
        let instances = Instances {
            one: Arc::new(faulty.clone()),
            other: Arc::new(faulty.clone()),
            large_bytes: 200_000,
        };
        (faulty, instances)
    }

    fn instances() -> Ready<(Instances, ())> {
        ready((faulty().1, ()))
    }

    mod without_faults {
        crate::content_store_tests!(super::instances);
    }

    #[tokio::test]
    async fn fails_the_call_that_was_planned() {
        let (faulty, stores) = faulty();
        let digest = put(&stores, &fresh(10)).await;
        faulty.fail(Operation::Size, 1, Fault::Unavailable);
        faulty.fail(Operation::Size, 2, Fault::Failed);
        assert_eq!(faulty.size(&digest).await.unwrap(), Some(10));
        assert!(matches!(
            faulty.size(&digest).await,
            Err(StoreError::Unavailable(_))
        ));
        assert!(!faulty.is_done());
        assert!(matches!(
            faulty.size(&digest).await,
            Err(StoreError::Failed(_))
        ));
        assert!(faulty.is_done());
        assert_eq!(faulty.size(&digest).await.unwrap(), Some(10));
    }

    #[tokio::test]
    async fn reads_go_wrong() {
        let (faulty, stores) = faulty();
        let content = fresh(1_000);
        let digest = put(&stores, &content).await;
        faulty.fail(Operation::Read, 0, Fault::Flip(17));
        let body = faulty.read(&digest, 0..1_000).await.unwrap().unwrap();
        let bytes = body.collect().await.unwrap().to_bytes();
        let wrong: Vec<_> = (0..1_000).filter(|at| bytes[*at] != content[*at]).collect();
        assert_eq!(wrong, [17]);
        faulty.fail(Operation::Read, 0, Fault::Short(300));
        let mut body = faulty.read(&digest, 0..1_000).await.unwrap().unwrap();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, content.slice(..300));
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn an_append_runs_out_of_room() {
        let (faulty, _stores) = faulty();
        let content = fresh(1_000);
        let digest = Algorithm::Sha256.digest(&content);
        faulty.fail(Operation::Append, 0, Fault::Short(600));
        faulty.fail(Operation::Commit, 0, Fault::AnswerLost);
        let staged = Staged::new(uuid::Uuid::now_v7(), Algorithm::Sha256);
        let appended = faulty.append(staged, frames(&content, 100), None).await;
        assert!(matches!(
            appended.outcome,
            Err(AppendError::Store(StoreError::Full(_)))
        ));
        assert_eq!(appended.staged.size(), 600);
        let rest = frames(&content[600..], 100);
        let staged = faulty.append(appended.staged, rest, None).await.staged;
        assert!(faulty.commit(staged.clone(), &digest).await.is_err());
        assert!(faulty.commit(staged, &digest).await.is_ok());
    }
}
