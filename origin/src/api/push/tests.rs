use bytes::Bytes;
use futures_util::stream;
use outport_core::store::disk::Disk;
use tempfile::TempDir;

use super::*;
use crate::metadata::sql::{DatabaseConfig, DatabaseUrl, Sql};
use crate::names::NamesConfig;

/// What pushes go to, in a directory of its own.
struct Rig {
    directory: TempDir,
    push: Push,
}

impl Rig {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::sqlite(directory.path().join("origin.db"));
        let metadata = Arc::new(Sql::open(&DatabaseConfig::new(url)).await.unwrap());
        let tasks = Tasks::new();
        let shared: Arc<dyn Metadata> = Arc::<Sql>::clone(&metadata);
        let names = Names::new(shared, NamesConfig { memory: 1 << 20 }, &tasks);
        let push = Push {
            metadata,
            names,
            store: Arc::new(Disk::open(directory.path().join("blobs")).unwrap()),
            location: "here".into(),
            tasks,
            touch_interval: Duration::from_mins(1),
        };
        Self { directory, push }
    }

    fn staged_files(&self) -> usize {
        let uploads = self.directory.path().join("blobs/uploads");
        std::fs::read_dir(uploads).unwrap().count()
    }

    /// Puts content into the store only: as far as an origin comes that is killed before the link.
    async fn publish(&self, staged: Staged, content: &'static [u8], digest: &Digest) {
        let content = stream::iter([Ok(Bytes::from_static(content))]);
        let store = &self.push.store;
        let appended = store.append(staged, Box::pin(content), Some(digest)).await;
        appended.outcome.unwrap();
        store.commit(appended.staged, digest).await.unwrap();
    }

    /// Pushes `content` as a chunk of a new session, and returns the session.
    async fn staged(&self, content: &'static [u8]) -> Upload {
        let staged = Staged::new(Uuid::now_v7(), Algorithm::Sha256);
        let metadata = &self.push.metadata;
        let repository = repository();
        let created = metadata.create_upload(&repository, &staged, clock::now());
        created.await.unwrap();
        let (id, chunk) = (staged.id(), Chunk::default());
        let accepted = self
            .push
            .chunk(repository.clone(), id, &chunk)
            .await
            .unwrap();
        let body = Bytes::from_static(content).into();
        self.push.take(accepted, body).await.unwrap();
        metadata.upload(&repository, id).await.unwrap().unwrap()
    }

    async fn put(&self, id: Uuid, digest: Digest) -> Result<StatusCode, ErrorCode> {
        self.put_with(id, digest, b"").await
    }

    /// Ends a session with a last chunk.
    async fn put_with(
        &self,
        id: Uuid,
        digest: Digest,
        content: &'static [u8],
    ) -> Result<StatusCode, ErrorCode> {
        let chunk = Chunk::default();
        let body = Bytes::from_static(content).into();
        let reply = match self.push.finish(repository(), id, digest, &chunk).await {
            Ok(Finish::Accepted(accepted)) => self.push.take(*accepted, body).await,
            Ok(Finish::Already(reply)) => Ok(reply),
            Err(error) => Err(error),
        };
        reply
            .map(|reply| reply.into_response().status())
            .map_err(|error| error.code())
    }
}

fn repository() -> RepoName {
    "a/b".parse().unwrap()
}

#[tokio::test]
async fn a_put_is_repeated_after_an_end_between_publishing_and_linking() {
    let rig = Rig::new().await;
    let digest = Algorithm::Sha256.digest(b"layer");
    let upload = rig.staged(b"layer").await;
    let id = upload.staged.id();
    // As far as an origin came that then was killed, or had lost its database.
    rig.push.store.commit(upload.staged, &digest).await.unwrap();
    let other = Algorithm::Sha256.digest(b"other");
    for (digest, expected) in [
        (digest, Ok(StatusCode::CREATED)),
        (digest, Ok(StatusCode::CREATED)),
        (other, Err(ErrorCode::BlobUploadUnknown)),
    ] {
        assert_eq!(rig.put(id, digest).await, expected, "{digest}");
    }
    let linked = rig.push.metadata.blob(&repository(), &digest).await;
    assert_eq!(linked.unwrap().map(|blob| blob.size), Some(5));
}

#[tokio::test]
async fn a_put_with_the_last_chunk_is_repeated_after_an_end_between_publishing_and_linking() {
    let rig = Rig::new().await;
    let digest = Algorithm::Sha256.digest(b"layer");
    let upload = rig.staged(b"lay").await;
    let id = upload.staged.id();
    rig.publish(upload.staged.clone(), b"er", &digest).await;
    for expected in [Ok(StatusCode::CREATED), Ok(StatusCode::CREATED)] {
        assert_eq!(rig.put_with(id, digest, b"er").await, expected);
    }
    let linked = rig.push.metadata.blob(&repository(), &digest).await;
    assert_eq!(linked.unwrap().map(|blob| blob.size), Some(5));
    let session = rig.push.metadata.upload(&repository(), id).await;
    assert!(session.unwrap().is_none());
}

#[tokio::test]
async fn a_repeated_put_with_another_chunk_names_nothing() {
    for chunk in [&b"el"[..], b"", b"e"] {
        let rig = Rig::new().await;
        let digest = Algorithm::Sha256.digest(b"layer");
        let upload = rig.staged(b"lay").await;
        let id = upload.staged.id();
        rig.publish(upload.staged, b"er", &digest).await;
        let put = rig.put_with(id, digest, chunk).await;
        assert_eq!(put, Err(ErrorCode::BlobUploadUnknown), "{chunk:?}");
        let linked = rig.push.metadata.blob(&repository(), &digest).await;
        assert_eq!(linked.unwrap(), None);
    }
}

#[tokio::test]
async fn a_put_of_bytes_that_are_gone_names_nothing() {
    let rig = Rig::new().await;
    let upload = rig.staged(b"layer").await;
    let id = upload.staged.id();
    // Somebody else's blob: knowing its digest is not having it.
    let secret = Algorithm::Sha256.digest(b"secret");
    let staged = Staged::new(Uuid::now_v7(), Algorithm::Sha256);
    rig.publish(staged, b"secret", &secret).await;
    rig.push.store.discard(upload.staged).await.unwrap();
    assert_eq!(rig.put(id, secret).await, Err(ErrorCode::BlobUploadUnknown));
    let linked = rig.push.metadata.blob(&repository(), &secret).await;
    assert_eq!(linked.unwrap(), None);
}

#[tokio::test]
async fn a_broken_push_in_one_request_leaves_nothing_behind() {
    let rig = Rig::new().await;
    let digest = Algorithm::Sha256.digest(b"layer");
    let pieces = [
        Ok(Bytes::from_static(b"lay")),
        Err(std::io::ErrorKind::UnexpectedEof.into()),
    ];
    let accepted = Accepted::whole(repository(), digest);
    let body = Body::stream(stream::iter(pieces));
    let error = rig.push.take(accepted, body).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::BlobUploadInvalid);
    assert_eq!(rig.staged_files(), 0);

    // What a session took is kept: its client can go on.
    rig.staged(b"lay").await;
    assert_eq!(rig.staged_files(), 1);
}
