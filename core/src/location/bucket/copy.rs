//! The bytes of one object, as those of another, within the store.

use std::ops::Range;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::Result;
use object_store::multipart::PartId;
use object_store::path::Path;

use crate::location::engine::CopyPart;

use super::Bucket;
use super::state::PARTS_MAX;

/// An object to be copied in ranges.
pub(super) struct Copy<'a> {
    pub(super) from: &'a Path,
    pub(super) size: u64,
    pub(super) to: &'a Path,
    /// The store's id of a multipart upload for `to`, which has no parts yet.
    pub(super) multipart: &'a str,
}

// === impl Copy ===

impl Copy<'_> {
    /// Copies all ranges; what remains is to complete the multipart upload.
    pub(super) async fn parts(&self, bucket: &Bucket) -> Result<Vec<PartId>> {
        let limits = &bucket.0.limits;
        let ranges = ranges(self.size, limits.copy_bytes);
        let copies = ranges.enumerate().map(|(index, range)| {
            bucket.0.engine.copy_part(CopyPart {
                from: self.from,
                range,
                to: self.to,
                multipart: self.multipart,
                index,
            })
        });
        stream::iter(copies)
            .buffered(limits.copies_in_flight.max(1))
            .try_collect()
            .await
    }
}

/// Cuts an object into ranges of about `bytes`, or larger ones when there would be too many.
fn ranges(size: u64, bytes: u64) -> impl Iterator<Item = Range<u64>> + Send {
    let bytes = bytes.max(size.div_ceil(PARTS_MAX as u64)).max(1);
    (0..size.div_ceil(bytes)).map(move |index| index * bytes..size.min((index + 1) * bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_the_object() {
        #[track_caller]
        fn check(size: u64, bytes: u64, count: usize) {
            let ranges: Vec<_> = ranges(size, bytes).collect();
            assert_eq!(ranges.len(), count);
            assert_eq!(ranges.first().map(|range| range.start), Some(0));
            assert_eq!(ranges.last().map(|range| range.end), Some(size));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(ranges.iter().all(|range| !range.is_empty()));
        }
        check(1, 5, 1);
        check(10, 5, 2);
        check(11, 5, 3);
        check(1_000_000, 5, 10_000);
    }
}
