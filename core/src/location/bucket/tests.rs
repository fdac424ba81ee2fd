use std::collections::HashMap;
use std::future::{Ready, ready};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;

use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::{MultipartId, ObjectStore, PutPayload, PutResult, Result};
use parking_lot::Mutex;
use tokio::sync::RwLock;

use super::*;
use crate::location::engine::CopyPart;
use crate::oci::digest::Algorithm;
use crate::store::AppendError;
use crate::store::conformance::{Instances, frames, fresh};

/// Parts so small that moderate content has many, and copies in ranges.
const LIMITS: Limits = Limits {
    part_bytes: 64 << 10,
    parts_in_flight: 3,
    parts_in_flight_total: 4,
    copy_bytes: 300_000,
    copies_in_flight: 2,
    answer_timeout: Duration::from_secs(5),
    copy_now_bytes: 200_000,
    move_grace: Duration::from_hours(1),
};

fn instances() -> Ready<(Instances, ())> {
    let engine = Arc::new(MemoryEngine::default());
    let bucket = || {
        let engine = Arc::<MemoryEngine>::clone(&engine);
        Arc::new(Bucket::new(engine, "some/prefix", LIMITS))
    };
    let instances = Instances {
        one: bucket(),
        other: bucket(),
        large_bytes: 1_000_001,
    };
    ready((instances, ()))
}

mod moves;

mod conformance {
    crate::content_store_tests!(super::instances);
}

/// An engine without a server, which says that an upload is not there, and that a part has been written over, as servers do.
#[derive(Debug, Default)]
struct MemoryEngine {
    store: InMemory,
    /// How many bytes of parts are being put, and the most that ever were.
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    /// The digest of each part, by its multipart upload and its place.
    parts: Mutex<HashMap<(MultipartId, usize), String>>,
    /// How many bytes have been copied; who holds the lock to write stops copies that begin.
    copied: AtomicUsize,
    copying: RwLock<()>,
}

#[async_trait]
impl Engine for MemoryEngine {
    fn objects(&self) -> &dyn ObjectStore {
        &self.store
    }

    fn multipart(&self) -> &dyn MultipartStore {
        self
    }

    async fn copy_part(&self, copy: CopyPart<'_>) -> Result<PartId> {
        let options = GetOptions {
            range: Some(copy.range.into()),
            ..GetOptions::default()
        };
        let bytes = self
            .store
            .get_opts(copy.from, options)
            .await?
            .bytes()
            .await?;
        self.copied.fetch_add(bytes.len(), Ordering::Relaxed);
        let _copying = self.copying.read().await;
        self.put_part(
            copy.to,
            &copy.multipart.to_owned(),
            copy.index,
            bytes.into(),
        )
        .await
    }
}

#[async_trait]
impl MultipartStore for MemoryEngine {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.store.create_multipart(path).await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        index: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        let bytes = data.content_length();
        let under_way = bytes + self.under_way.fetch_add(bytes, Ordering::Relaxed);
        self.most_under_way.fetch_max(under_way, Ordering::Relaxed);
        // As servers do, it lets others go on meanwhile.
        tokio::task::yield_now().await;
        let content: Vec<u8> = data.iter().flatten().copied().collect();
        let put = self.store.put_part(path, id, index, data).await;
        self.under_way.fetch_sub(bytes, Ordering::Relaxed);
        put.map_err(as_servers_say_it)?;
        let content_id = Algorithm::Sha256.digest(&content).hex();
        let place = (id.clone(), index);
        self.parts.lock().insert(place, content_id.clone());
        Ok(PartId { content_id })
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        for (index, part) in parts.iter().enumerate() {
            let is_so = self.parts.lock().get(&(id.clone(), index)) == Some(&part.content_id);
            if !is_so {
                return Err(Error::Generic {
                    store: "memory",
                    source: "InvalidPart".into(),
                });
            }
        }
        let put = self.store.complete_multipart(path, id, parts).await;
        put.map_err(as_servers_say_it)
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let aborted = self.store.abort_multipart(path, id).await;
        aborted.map_err(as_servers_say_it)
    }
}

fn as_servers_say_it(error: Error) -> Error {
    match error {
        Error::Generic { store, source } if source.to_string().contains("not found") => {
            Error::NotFound {
                path: store.to_owned(),
                source,
            }
        }
        error => error,
    }
}

/// The first part of a bucket in which little is as large as can be, and what all of its parts hold.
const TINY: usize = 16;
const TINY_MAX: usize = TINY * (1_000 * (1 + 2 + 4 + 8) + 6_000 * 16);

fn tiny(engine: &Arc<MemoryEngine>) -> Bucket {
    let limits = Limits {
        part_bytes: TINY,
        ..LIMITS
    };
    Bucket::new(Arc::<MemoryEngine>::clone(engine), "", limits)
}

fn staged() -> Staged {
    Staged::new(Uuid::now_v7(), Algorithm::Sha256)
}

#[tokio::test]
async fn the_largest_blob_is_taken_in_as_many_parts_as_there_can_be() {
    let bucket = tiny(&Arc::new(MemoryEngine::default()));
    let content = fresh(TINY_MAX);
    let digest = Algorithm::Sha256.digest(&content);
    for (destination, first) in [(Some(&digest), 0), (None, 0), (None, TINY_MAX - 1)] {
        let (head, tail) = (content.slice(..first), content.slice(first..));
        let appended = bucket.append(staged(), frames(&head, 50_000), None).await;
        appended.outcome.unwrap();
        let content = frames(&tail, 50_000);
        let appended = bucket.append(appended.staged, content, destination).await;
        appended.outcome.unwrap();
        bucket.commit(appended.staged, &digest).await.unwrap();
        assert_eq!(bucket.size(&digest).await.unwrap(), Some(TINY_MAX as u64));
        let read = bucket.read(&digest, 0..TINY_MAX as u64).await.unwrap();
        let read = read.unwrap().collect_limited(u64::MAX).await.unwrap();
        assert_eq!(Algorithm::Sha256.digest(&read), digest);
        bucket.delete(&digest).await.unwrap();
    }
}

#[tokio::test]
async fn a_larger_blob_is_refused() {
    let bucket = tiny(&Arc::new(MemoryEngine::default()));
    let content = fresh(TINY_MAX + 1);
    let digest = Algorithm::Sha256.digest(&content);
    for destination in [Some(&digest), None] {
        let appended = bucket.append(staged(), frames(&content, 50_000), destination);
        let Appended { staged, outcome } = appended.await;
        assert!(matches!(outcome, Err(AppendError::TooLarge)), "{outcome:?}");
        assert_eq!(bucket.size(&digest).await.unwrap(), None);
        bucket.discard(staged).await.unwrap();
    }
    // Also byte by byte, when all that there was room for is there.
    let appended = bucket
        .append(staged(), frames(&content.slice(..TINY_MAX), 50_000), None)
        .await;
    appended.outcome.unwrap();
    let appended = bucket
        .append(appended.staged, frames(b"x", 1), Some(&digest))
        .await;
    assert!(matches!(appended.outcome, Err(AppendError::TooLarge)));
    assert_eq!(appended.staged.size(), TINY_MAX as u64);
}

/// Parts that have grown take the place of as many that have not.
#[tokio::test]
async fn parts_under_way_are_bounded_in_bytes() {
    let engine = Arc::new(MemoryEngine::default());
    let bucket = tiny(&engine);
    let most = || engine.most_under_way.swap(0, Ordering::Relaxed);
    let append = async |content: Bytes| {
        let appended = bucket.append(staged(), frames(&content, 50_000), None);
        appended.await.outcome.unwrap();
    };
    append(fresh(1_000 * TINY)).await;
    assert_eq!(most(), LIMITS.parts_in_flight * TINY);
    append(fresh(3_000 * TINY)).await;
    assert!(most() <= LIMITS.parts_in_flight * TINY);
    join_all((0..4).map(|_| append(fresh(3_000 * TINY)))).await;
    assert_eq!(most(), LIMITS.parts_in_flight_total * TINY);
    // A part that is larger than that is alone.
    join_all((0..2).map(|_| append(fresh(20_000 * TINY)))).await;
    assert_eq!(most(), 16 * TINY);
}

/// Answers every request in the same way, on a port of its own.
fn answering(status: &str, body: &str) -> std::net::SocketAddr {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut request = [0; 16 << 10];
            let _read = socket.read(&mut request);
            let _written = socket.write_all(answer.as_bytes());
        }
    });
    address
}

async fn put_at(address: std::net::SocketAddr) -> StoreError {
    use crate::location::engine::s3::{Credentials, Options, S3, Style};
    let options = Options {
        endpoint: Some(format!("http://{address}")),
        credentials: Credentials::Anonymous,
        style: Style::Path,
        allow_http: true,
        retries_max: 0,
        ..Options::default()
    };
    let engine = Arc::new(S3::new("bucket", &options).unwrap());
    let bucket = Bucket::new(engine, "", LIMITS);
    let content = frames(b"content", 7);
    match bucket.append(staged(), content, None).await.outcome {
        Err(AppendError::Store(error)) => error,
        outcome => panic!("{outcome:?}"),
    }
}

#[tokio::test]
async fn errors_are_told_apart() {
    let check = async |status: &str, code: &str, expected: &str| {
        let body = format!("<Error><Code>{code}</Code></Error>");
        let error = put_at(answering(status, &body)).await;
        let kind = match error {
            StoreError::Full(_) => "full",
            StoreError::Unavailable(_) => "unavailable",
            StoreError::Failed(_) => "failed",
        };
        assert_eq!(kind, expected, "{status} {code}: {error:?}");
    };
    check("503 x", "SlowDown", "unavailable").await;
    check("503 x", "", "unavailable").await;
    check("500 x", "InternalError", "unavailable").await;
    check("429 x", "TooManyRequests", "unavailable").await;
    check("403 x", "AccessDenied", "failed").await;
    check("403 x", "QuotaExceeded", "full").await;
    check("400 x", "InvalidRequest", "failed").await;
    check("404 x", "NoSuchBucket", "failed").await;
    check("507 x", "XMinioStorageFull", "full").await;
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert!(matches!(put_at(address).await, StoreError::Unavailable(_)));
}
