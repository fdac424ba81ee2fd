//! What a crash leaves of a download: which bytes of its file have arrived.
//!
//! What: a block behind the blob's own bytes, written again after each batch and cut off before the file is published. A
//! process that was killed has lost nothing of what the kernel took, so what the block says is true for as long as the
//! machine runs; after a boot nobody knows, and the download begins anew. All bytes are hashed before anybody gets the end
//! of them in any case.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use outport_core::store::disk::Partial;

use super::spans::Spans;

/// Writes down what has arrived.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    /// The size of the blob in bytes.
    size: u64,
    boot: String,
}

/// What an earlier process left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// The size of the blob in bytes, as the source told it.
    pub(super) size: u64,
    /// What had arrived.
    pub(super) here: Spans,
}

/// How long the block is, and what its place is a multiple of.
const BLOCK_BYTES: usize = 4096;

/// How a block of this version begins.
const MAGIC: &str = "outport partial 1";

/// Another one whenever the machine starts.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

// === impl Journal ===

impl Journal {
    /// Returns the journal of a blob of `size` bytes, or none where it would be worth nothing. Blocks.
    pub(super) fn new(size: u64) -> Option<Self> {
        let boot = boot()?;
        Some(Self { size, boot })
    }

    /// Writes down that `spans` have arrived. Blocks.
    pub(super) fn record(&self, file: &File, spans: &Spans) -> io::Result<()> {
        let mut text = format!("{MAGIC}\n{}\n{}\n", self.boot, self.size);
        for Range { start, end } in spans.ranges() {
            let line = format!("{start} {end}\n");
            // What does not fit comes again after a crash.
            if text.len() + line.len() > BLOCK_BYTES {
                break;
            }
            text.push_str(&line);
        }
        let mut block = text.into_bytes();
        block.resize(BLOCK_BYTES, 0);
        let at = place(self.size).ok_or(io::ErrorKind::InvalidInput)?;
        file.write_all_at(&block, at)
    }

    /// Reads what an earlier process left in a partial, or none when that is of no use. Blocks.
    pub(super) fn read(partial: &Partial) -> Option<Left> {
        let length = partial.size().ok()?;
        let at = length.checked_sub(BLOCK_BYTES as u64)?;
        let mut block = vec![0; BLOCK_BYTES];
        partial.file().read_exact_at(&mut block, at).ok()?;
        let left = parse(&block, &boot()?)?;
        (place(left.size)? == at).then_some(left)
    }
}

/// Returns where the block of a blob of `size` bytes is.
const fn place(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK_BYTES as u64)
}

fn boot() -> Option<String> {
    let boot = std::fs::read_to_string(BOOT_ID).ok()?;
    Some(boot.trim().to_owned())
}

fn parse(block: &[u8], boot: &str) -> Option<Left> {
    let text = block.split(|&byte| byte == 0).next()?;
    let mut lines = str::from_utf8(text).ok()?.lines();
    if lines.next()? != MAGIC || lines.next()? != boot {
        return None;
    }
    let size = lines.next()?.parse().ok()?;
    let mut here = Spans::default();
    for line in lines {
        let (start, end) = line.split_once(' ')?;
        let range: Range<u64> = start.parse().ok()?..end.parse().ok()?;
        if range.end > size {
            return None;
        }
        here.insert(range);
    }
    Some(Left { size, here })
}

#[cfg(test)]
mod tests {
    use super::*;
    use outport_core::oci::digest::Algorithm;
    use outport_core::store::disk::Disk;
    use proptest::prelude::*;

    fn partial(directory: &tempfile::TempDir) -> Partial {
        let disk = Disk::open(directory.path()).unwrap();
        disk.partial(&Algorithm::Sha256.digest(b"x")).unwrap()
    }

    #[test]
    fn the_last_word_counts() {
        let directory = tempfile::tempdir().unwrap();
        let partial = partial(&directory);
        assert_eq!(Journal::read(&partial), None);
        let journal = Journal::new(10_000).unwrap();
        partial.write_at(&[7; 5000], 0).unwrap();
        let mut here = Spans::default();
        for more in [0..100, 100..5000, 9000..10_000] {
            here.insert(more);
            journal.record(partial.file(), &here).unwrap();
            let left = Journal::read(&partial);
            let here = here.clone();
            assert_eq!(left, Some(Left { size: 10_000, here }));
        }
    }

    #[test]
    fn a_file_without_one_is_worth_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let partial = partial(&directory);
        partial.write_at(&[b'1'; 8192], 0).unwrap();
        assert_eq!(Journal::read(&partial), None);
        // The block of a blob of another length.
        let journal = Journal::new(100).unwrap();
        let here: Spans = std::iter::once(0..100).collect();
        journal.record(partial.file(), &here).unwrap();
        assert_eq!(Journal::read(&partial), Some(Left { size: 100, here }));
        partial.truncate(9000).unwrap();
        assert_eq!(Journal::read(&partial), None);
    }

    #[test]
    fn another_boot_and_nonsense_are_refused() {
        let good = format!("{MAGIC}\nb\n10\n0 5\n\0");
        assert!(parse(good.as_bytes(), "b").is_some());
        assert_eq!(parse(good.as_bytes(), "c"), None);
        for bad in [
            "",
            MAGIC,
            &good.replace("0 5", "0 11"),
            &good.replace("0 5", "05"),
        ] {
            assert_eq!(parse(bad.as_bytes(), "b"), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(block: Vec<u8>) {
            parse(&block, "b");
        }
    }
}
