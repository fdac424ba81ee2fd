//! Finds what rotted on the cache disk, before a client does.
//!
//! What: one task that walks over the cached blobs, again and again, hashes each, and puts aside what does not hash to its
//! name; that is fetched again when it is next asked for.
//!
//! Invariant: no more bytes are read in a second than the bound says. Cancellation: between two pieces. A process does not
//! remember where the last one was: it begins wherever its first second falls, so that those that live short do not all look
//! at the same blobs.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, SystemTime};

use outport_core::clock;
use outport_core::oci::digest::{Algorithm, Digest, Hasher};
use outport_core::store::disk::BlobFile;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Cache;

/// How much is read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// How long a round takes at least, however little is cached.
const ROUND_MIN: Duration = Duration::from_secs(10);

/// How many folders blobs are in, for each algorithm.
const FOLDERS: u64 = 256;

/// Hashes what is cached, `bytes_per_second` of it, until `ending`; not at all when that is zero.
pub async fn run(cache: Cache, bytes_per_second: u64, ending: CancellationToken) {
    if bytes_per_second == 0 {
        return;
    }
    let scrub = Scrub {
        cache,
        bytes_per_second,
    };
    ending.run_until_cancelled(scrub.rounds()).await;
}

struct Scrub {
    cache: Cache,
    bytes_per_second: u64,
}

// === impl Scrub ===

impl Scrub {
    async fn rounds(&self) {
        let since = clock::now().duration_since(SystemTime::UNIX_EPOCH);
        let first = since.unwrap_or_default().as_secs();
        loop {
            for folder in 0..FOLDERS {
                let byte = u8::try_from((first + folder) % FOLDERS).unwrap_or_default();
                for algorithm in Algorithm::ALL {
                    self.folder(algorithm, byte).await;
                }
            }
            sleep(ROUND_MIN).await;
        }
    }

    async fn folder(&self, algorithm: Algorithm, byte: u8) {
        let disk = self.cache.0.disk.clone();
        let listing = spawn_blocking(move || {
            let entries = disk.entries_of(algorithm, byte).flatten();
            entries.map(|entry| entry.digest).collect::<Vec<_>>()
        });
        for digest in listing.await.unwrap_or_default() {
            match self.blob(&digest).await {
                Ok(()) => {}
                Err(error) => tracing::warn!(%digest, %error, "cached file not scrubbed"),
            }
        }
    }

    /// Hashes a blob, and puts it aside when it is damaged.
    async fn blob(&self, digest: &Digest) -> io::Result<()> {
        let (disk, owned) = (self.cache.0.disk.clone(), *digest);
        let Some(blob) = blocking(move || disk.open_blob(&owned)).await? else {
            return Ok(());
        };
        let is_sound = match self.hash(&blob, digest.algorithm()).await {
            Ok(actual) => actual == *digest,
            Err(error) => {
                tracing::warn!(%digest, %error, "cached file not read");
                false
            }
        };
        if !is_sound {
            let (cache, owned) = (self.cache.clone(), *digest);
            // Hashing takes a while, in which it may have been evicted, or condemned by a reader, and come again.
            blocking(move || {
                cache.condemn_file(&owned, &blob);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn hash(&self, blob: &BlobFile, algorithm: Algorithm) -> io::Result<Digest> {
        let mut hasher = Hasher::new(algorithm);
        let mut offset = 0;
        while offset < blob.size {
            let read;
            (hasher, read) = self.piece(blob, hasher, offset).await?;
            offset += read;
            let pause = Duration::from_secs(read).div_f64(self.bytes_per_second_f64());
            sleep(pause).await;
        }
        Ok(hasher.finish())
    }

    async fn piece(
        &self,
        blob: &BlobFile,
        mut hasher: Hasher,
        offset: u64,
    ) -> io::Result<(Hasher, u64)> {
        let blob = blob.clone();
        blocking(move || {
            let wanted = usize::try_from(blob.size - offset).unwrap_or(usize::MAX);
            let mut piece = vec![0; wanted.min(PIECE_BYTES)];
            blob.file.read_exact_at(&mut piece, offset)?;
            hasher.update(&piece);
            Ok((hasher, piece.len() as u64))
        })
        .await
    }

    #[expect(clippy::cast_precision_loss, reason = "a pace")]
    const fn bytes_per_second_f64(&self) -> f64 {
        self.bytes_per_second as f64
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::pin::pin;

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;
    use crate::cache::table::Home;
    use crate::cache::tests::{lose, open};
    use outport_core::location::key::Lane;

    const SIZE: usize = PIECE_BYTES + 1;

    fn content() -> Vec<u8> {
        vec![7; SIZE]
    }

    fn digest() -> Digest {
        Algorithm::Sha256.digest(&content())
    }

    fn publish(cache: &Cache) {
        let partial = cache.partial(&digest(), Lane::default()).unwrap();
        partial.write_at(&content(), 0).unwrap();
        cache.publish(&partial, SIZE as u64, Home::Here).unwrap();
    }

    /// Damages the end of the cached file, which is hashed last.
    fn damage(root: &TempDir) {
        let hex = digest().hex();
        let path = root.path().join("blobs/sha256").join(&hex[..2]).join(hex);
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(b"x", SIZE as u64 - 1).unwrap();
    }

    fn slow(cache: &Cache) -> Scrub {
        Scrub {
            cache: cache.clone(),
            bytes_per_second: 1,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_damaged_file_is_put_aside() {
        let root = TempDir::new().unwrap();
        let cache = open(&root, 1 << 30);
        publish(&cache);
        slow(&cache).blob(&digest()).await.unwrap();
        assert!(cache.has(&digest()));
        damage(&root);
        slow(&cache).blob(&digest()).await.unwrap();
        assert!(!cache.has(&digest()));
        assert_eq!(cache.put_aside().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_replaced_a_damaged_file_meanwhile_stays() {
        let root = TempDir::new().unwrap();
        let cache = open(&root, 1 << 30);
        publish(&cache);
        damage(&root);
        let (scrub, digest) = (slow(&cache), digest());
        let mut hashing = pin!(scrub.blob(&digest));
        // It rests after the first piece, for as many seconds as that has bytes.
        let begun = timeout(Duration::from_secs(1), &mut hashing).await;
        assert!(begun.is_err());
        lose(&cache, &digest);
        publish(&cache);
        hashing.await.unwrap();
        assert!(cache.has(&digest));
        assert_eq!(cache.put_aside(), []);
        let blob = cache.0.disk.open_blob(&digest).unwrap().unwrap();
        assert!(blob.verify(&digest).unwrap());
    }
}
