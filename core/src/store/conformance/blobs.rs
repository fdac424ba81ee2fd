//! What becomes of blobs: they are read, settled and deleted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future;

use super::{Instances, fresh, index, put, read};
use crate::clock;
use crate::oci::digest::Algorithm;
use crate::store::ContentStore;

/// When blobs are settled: now, and when everything that is put off is due.
const NOW: fn() -> SystemTime = clock::now;
const LATER: fn() -> SystemTime = || clock::now() + Duration::from_hours(24);

/// Any range that lies within a blob can be read.
pub async fn ranges(stores: &Instances) {
    let content = fresh(700_000);
    let digest = put(stores, &content).await;
    for range in [
        0..1,
        0..700_000,
        699_999..700_000,
        1..2,
        262_143..262_145,
        300_000..700_000,
        5..5,
        0..0,
    ] {
        let expected = content.slice(index(&range));
        assert_eq!(read(stores, &digest, range).await, expected);
    }
}

/// A blob that is not here is absent, not an error.
pub async fn missing(stores: &Instances) {
    for algorithm in Algorithm::ALL {
        let digest = algorithm.digest(&fresh(10));
        assert_eq!(stores.one.size(&digest).await.unwrap(), None);
        assert!(stores.one.read(&digest, 0..1).await.unwrap().is_none());
        assert!(stores.one.read(&digest, 0..0).await.unwrap().is_none());
    }
}

/// A deleted blob is gone, can be deleted again, and can come back.
pub async fn delete(stores: &Instances) {
    let content = fresh(1_000);
    let digest = put(stores, &content).await;
    for _ in 0..2 {
        stores.other.delete(&digest).await.unwrap();
        assert_eq!(stores.one.size(&digest).await.unwrap(), None);
    }
    assert_eq!(put(stores, &content).await, digest);
}

/// Nothing is to be seen of what a commit has put off, whoever does it and when, and in the end nothing is left of it.
pub async fn settle(stores: &Instances) {
    for size in [1_000, stores.large_bytes] {
        let content = fresh(size);
        let digest = put(stores, &content).await;
        for now in [NOW, NOW, LATER] {
            for store in [&stores.one, &stores.other] {
                assert_eq!(store.size(&digest).await.unwrap(), Some(size as u64));
                assert!(read(stores, &digest, 0..size as u64).await == content);
                store.settle(&digest, now()).await.unwrap();
            }
        }
        assert!(read(stores, &digest, 0..size as u64).await == content);
        let unsettled = stores.one.unsettled().await.unwrap();
        assert!(!unsettled.contains(&digest));
    }
}

/// A deleted blob does not come back, and can be brought back.
pub async fn settle_after_delete(stores: &Instances) {
    let content = fresh(stores.large_bytes);
    for is_settled in [false, true, false] {
        let digest = put(stores, &content).await;
        if is_settled {
            stores.one.settle(&digest, NOW()).await.unwrap();
        }
        stores.other.delete(&digest).await.unwrap();
        for now in [NOW, LATER] {
            stores.one.settle(&digest, now()).await.unwrap();
            assert_eq!(stores.one.size(&digest).await.unwrap(), None);
            assert!(stores.one.read(&digest, 0..9).await.unwrap().is_none());
        }
    }
}

/// Several settle the same blob while it is read.
pub async fn settle_at_once(stores: &Instances) {
    let content = fresh(stores.large_bytes);
    let size = content.len() as u64;
    let digest = put(stores, &content).await;
    let settle = async |store: &Arc<dyn ContentStore>| {
        store.settle(&digest, NOW()).await.unwrap();
    };
    let reads = future::join_all((0..4).map(|_| read(stores, &digest, 0..size)));
    let settled = future::join3(
        settle(&stores.one),
        settle(&stores.other),
        settle(&stores.one),
    );
    let (read_meanwhile, _) = future::join(reads, settled).await;
    for bytes in read_meanwhile {
        assert!(bytes == content);
    }
    stores.one.settle(&digest, LATER()).await.unwrap();
    assert!(read(stores, &digest, 0..size).await == content);
}
