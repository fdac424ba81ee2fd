//! Content on its way into a bucket.
//!
//! What: frames are hashed as they come and gathered into a part; full parts are put while the next ones are gathered.

use std::mem;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use object_store::ObjectStoreExt as _;
use object_store::multipart::PartId;
use object_store::path::Path;
use uuid::Uuid;

use crate::location::key::Key;
use crate::oci::digest::{Digest, Hasher};
use crate::store::{AppendError, Appended, Content, Staged, StoreError};

use super::Bucket;
use super::error::append_error;
use super::gathered::Gathered;
use super::state::{PARTS_MAX, State, part_bytes};

/// Takes all of `content`.
pub(super) async fn append(
    bucket: &Bucket,
    staged: Staged,
    mut content: Content<'_>,
    destination: Option<&Digest>,
) -> Appended {
    let mut writer = match Writer::new(bucket, &staged, destination) {
        Ok(writer) => writer,
        Err(error) => {
            return Appended {
                staged,
                outcome: Err(error.into()),
            };
        }
    };
    let outcome = writer.run(&mut content).await;
    let Writer {
        state,
        durable,
        received,
        frame,
        ..
    } = writer;
    if matches!(outcome, Err(AppendError::Gone)) {
        let staged = staged.advanced(received.size, received.hasher);
        let rest = stream::iter([Ok(frame)]).chain(content);
        return Appended::gone(staged, Box::pin(rest), destination).await;
    }
    match state.into_value() {
        Ok(engine) => Appended {
            staged: staged
                .advanced(durable.size, durable.hasher)
                .with_engine(engine),
            outcome,
        },
        Err(error) => Appended {
            staged,
            outcome: Err(error.into()),
        },
    }
}

/// How far bytes have come.
#[derive(Clone)]
struct Position {
    size: u64,
    hasher: Hasher,
}

/// A part that was put.
struct Put {
    id: PartId,
    bytes: usize,
    units: usize,
    reaches: Position,
}

struct Writer<'a> {
    bucket: &'a Bucket,
    id: Uuid,
    /// The blob that this append is to end as, when its bytes can be put under its key.
    destination: Option<&'a Digest>,
    /// What is durable, and the value that accounts for it.
    state: State,
    durable: Position,
    /// What was received.
    received: Position,
    /// What came last, without what of it is received.
    frame: Bytes,
    /// Received, and not yet in a part under way.
    gathered: Gathered,
    /// The index of the part that is being gathered.
    index: usize,
    /// Parts under way, in order, and how many units they are.
    under_way: FuturesOrdered<BoxFuture<'a, Result<Put, AppendError>>>,
    units_under_way: usize,
}

// === impl Writer ===

impl<'a> Writer<'a> {
    fn new(
        bucket: &'a Bucket,
        staged: &Staged,
        destination: Option<&'a Digest>,
    ) -> Result<Self, StoreError> {
        let position = Position {
            size: staged.size(),
            hasher: staged.hasher().clone(),
        };
        let state = State::of(staged)?;
        Ok(Self {
            bucket,
            id: staged.id(),
            // A name by another algorithm than the one computed cannot be told right before it is complete.
            destination: destination.filter(|digest| digest.algorithm() == staged.algorithm()),
            index: state.parts.len(),
            state,
            durable: position.clone(),
            received: position,
            frame: Bytes::new(),
            gathered: Gathered::default(),
            under_way: FuturesOrdered::new(),
            units_under_way: 0,
        })
    }

    async fn run(&mut self, content: &mut Content<'_>) -> Result<(), AppendError> {
        if !self.next_frame(content).await? {
            return Ok(());
        }
        if self.state.ended || self.state.published {
            return Err(AppendError::Gone);
        }
        self.forget_replaced().await;
        self.fetch_tail().await?;
        match self.take(content).await {
            Ok(()) => {
                self.settle().await?;
                self.put_end().await
            }
            Err(AppendError::Content(error)) => {
                self.settle().await?;
                self.put_tail().await?;
                Err(AppendError::Content(error))
            }
            Err(error) => Err(error),
        }
    }

    async fn take(&mut self, content: &mut Content<'_>) -> Result<(), AppendError> {
        loop {
            while !self.frame.is_empty() {
                self.gather().await?;
            }
            if !self.next_frame(content).await? {
                return Ok(());
            }
        }
    }

    /// Waits for the next bytes, and sees to the parts under way meanwhile; returns whether there are any.
    async fn next_frame(&mut self, content: &mut Content<'_>) -> Result<bool, AppendError> {
        loop {
            tokio::select! {
                biased;
                Some(put) = self.under_way.next() => self.account(put?),
                frame = content.next() => match frame {
                    Some(Ok(frame)) if frame.is_empty() => {}
                    Some(Ok(frame)) => {
                        self.frame = frame;
                        return Ok(true);
                    }
                    Some(Err(error)) => return Err(AppendError::Content(error)),
                    None => return Ok(false),
                },
            }
        }
    }

    /// Takes as much of the frame as the part has room for.
    async fn gather(&mut self) -> Result<(), AppendError> {
        if self.index >= PARTS_MAX {
            return Err(AppendError::TooLarge);
        }
        let part_bytes = part_bytes(self.bucket.0.limits.part_bytes, self.index);
        // A tail from a time of larger parts may be larger than a part is now.
        let room = part_bytes.saturating_sub(self.gathered.len());
        let bytes = self.frame.split_to(room.min(self.frame.len()));
        self.received.hasher.update(&bytes);
        self.received.size += bytes.len() as u64;
        self.gathered.push(&bytes, part_bytes)?;
        if self.gathered.len() >= part_bytes {
            self.start_part().await?;
        }
        Ok(())
    }

    /// Begins to put what is gathered as a part, once there is room for one more under way.
    async fn start_part(&mut self) -> Result<(), AppendError> {
        let multipart = self.multipart().await?;
        let (units, permits) = self.bucket.0.limits.units(self.gathered.len());
        let room = self.bucket.0.limits.parts_in_flight;
        while !self.under_way.is_empty() && self.units_under_way + units > room {
            self.settle_one().await?;
        }
        let permit = loop {
            tokio::select! {
                biased;
                Some(put) = self.under_way.next() => self.account(put?),
                permit = self.bucket.0.parts.acquire_many(permits) => break permit,
            }
        };
        self.units_under_way += units;
        let path = self.bucket.multipart_path(&self.state, self.id);
        let (bytes, reaches) = (self.gathered.len(), self.received.clone());
        let (payload, index) = (self.gathered.take().into(), self.index);
        let store = self.bucket.0.engine.multipart();
        let put = async move {
            let id = store.put_part(&path, &multipart, index, payload).await;
            drop(permit);
            let id = id.map_err(append_error)?;
            Ok(Put {
                id,
                bytes,
                units,
                reaches,
            })
        };
        self.under_way.push_back(put.boxed());
        self.index += 1;
        Ok(())
    }

    /// Returns the store's id of the multipart upload, which is created for the first part.
    async fn multipart(&mut self) -> Result<String, AppendError> {
        if let Some(multipart) = &self.state.multipart {
            return Ok(multipart.clone());
        }
        self.state.destination = self.destination.map(ToString::to_string);
        self.state.upload = self.destination.is_none().then(Uuid::now_v7);
        let path = self.bucket.multipart_path(&self.state, self.id);
        let multipart = self.bucket.create(&path).await?;
        self.state.multipart = Some(multipart.clone());
        Ok(multipart)
    }

    async fn settle(&mut self) -> Result<(), AppendError> {
        while !self.under_way.is_empty() {
            self.settle_one().await?;
        }
        Ok(())
    }

    async fn settle_one(&mut self) -> Result<(), AppendError> {
        if let Some(put) = self.under_way.next().await {
            self.account(put?);
        }
        Ok(())
    }

    fn account(&mut self, put: Put) {
        self.state.add_part(put.id.content_id, put.bytes as u64);
        self.units_under_way -= put.units;
        self.durable = put.reaches;
    }

    /// Puts what is gathered when all of the content is here.
    async fn put_end(&mut self) -> Result<(), AppendError> {
        let (Some(digest), true) = (self.destination, self.gathered.len() > 0) else {
            return self.put_tail().await;
        };
        if self.state.multipart.is_some() && self.state.is_for(digest) {
            self.start_part().await?;
            self.settle().await?;
            self.state.ended = true;
            return Ok(());
        }
        let whole = self.state.parts.is_empty();
        if whole && self.received.hasher.clone().finish() == *digest {
            let path = self.bucket.path(Key::Blob(digest));
            self.put(&path).await?;
            self.state.publish(digest);
            return Ok(());
        }
        self.put_tail().await
    }

    /// Keeps what is gathered as an object of its own.
    async fn put_tail(&mut self) -> Result<(), AppendError> {
        if self.gathered.len() == 0 {
            return Ok(());
        }
        let append = Uuid::now_v7();
        let path = self.bucket.path(Key::UploadTail(self.id, append));
        self.put(&path).await?;
        self.state.replace_tail(append);
        Ok(())
    }

    async fn put(&mut self, path: &Path) -> Result<(), StoreError> {
        let payload = self.gathered.take().into();
        self.bucket.put(path, payload).await?;
        self.durable = self.received.clone();
        Ok(())
    }

    /// Gathers what the append before left.
    async fn fetch_tail(&mut self) -> Result<(), AppendError> {
        let bytes = match self.state.tail {
            None => Bytes::new(),
            Some(append) => {
                let path = self.bucket.path(Key::UploadTail(self.id, append));
                let get = self.bucket.0.engine.objects().get(&path);
                let object = self.bucket.0.prompt.ask(get).await.map_err(append_error)?;
                object.bytes().await.map_err(append_error)?
            }
        };
        if self.state.parts_bytes + bytes.len() as u64 != self.received.size {
            return Err(AppendError::Gone);
        }
        let part_bytes = part_bytes(self.bucket.0.limits.part_bytes, self.index);
        self.gathered.push(&bytes, part_bytes.max(bytes.len()))?;
        Ok(())
    }

    /// Deletes what nobody can go back to any more; what is not deleted now is deleted with the session.
    async fn forget_replaced(&mut self) {
        for append in mem::take(&mut self.state.replaced) {
            let path = self.bucket.path(Key::UploadTail(self.id, append));
            if let Err(error) = self.bucket.remove(&path).await {
                tracing::debug!(%path, error = &error as &dyn std::error::Error, "delete a replaced tail");
            }
        }
    }
}
