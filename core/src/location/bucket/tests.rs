use std::future::{Ready, ready};

use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::{MultipartId, ObjectStore, PutPayload, PutResult, Result};

use super::*;
use crate::location::engine::CopyPart;
use crate::store::conformance::Instances;

/// Parts so small that moderate content has many, and copies in ranges.
const LIMITS: Limits = Limits {
    part_bytes: 64 << 10,
    parts_in_flight: 3,
    parts_in_flight_total: 4,
    copy_bytes: 300_000,
    copies_in_flight: 2,
};

fn instances() -> Ready<(Instances, ())> {
    let engine = Arc::new(MemoryEngine(InMemory::new()));
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

mod conformance {
    crate::content_store_tests!(super::instances);
}

/// An engine without a server, which says that an upload is not there as servers do.
#[derive(Debug)]
struct MemoryEngine(InMemory);

#[async_trait]
impl Engine for MemoryEngine {
    fn objects(&self) -> &dyn ObjectStore {
        &self.0
    }

    fn multipart(&self) -> &dyn MultipartStore {
        self
    }

    async fn copy_part(&self, copy: CopyPart<'_>) -> Result<PartId> {
        let options = GetOptions {
            range: Some(copy.range.into()),
            ..GetOptions::default()
        };
        let bytes = self.0.get_opts(copy.from, options).await?.bytes().await?;
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
        self.0.create_multipart(path).await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        index: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        let put = self.0.put_part(path, id, index, data).await;
        put.map_err(as_servers_say_it)
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        let put = self.0.complete_multipart(path, id, parts).await;
        put.map_err(as_servers_say_it)
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let aborted = self.0.abort_multipart(path, id).await;
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
    let staged = Staged::new(uuid::Uuid::now_v7(), crate::oci::digest::Algorithm::Sha256);
    let content = crate::store::conformance::frames(b"content", 7);
    match bucket.append(staged, content, None).await.outcome {
        Err(crate::store::AppendError::Store(error)) => error,
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
