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
