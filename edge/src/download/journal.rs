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
    /// The upstream that it comes from, if it is one.
    of: Option<String>,
    boot: String,
}

/// What an earlier process left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// The size of the blob in bytes, as the source told it.
    pub(super) size: u64,
    /// What had arrived.
    pub(super) here: Spans,
    /// The upstream that it came from, if it was one.
    pub(super) of: Option<String>,
}

/// How long the block is, and what its place is a multiple of.
const BLOCK_BYTES: usize = 4096;

/// How a block of this version begins.
const MAGIC: &str = "outport partial 2";

/// What stands before the name of an upstream; nothing is behind it if there is none.
const OF: &str = "of ";

/// Another one whenever the machine starts.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

// === impl Journal ===

impl Journal {
    /// Returns the journal of a blob of `size` bytes from an upstream, if it is from one, or none where it would be worth
    /// nothing. Blocks.
    pub(super) fn new(size: u64, of: Option<String>) -> Option<Self> {
        let boot = boot()?;
        Some(Self { size, of, boot })
    }

    /// Writes down that `spans` have arrived. Blocks.
    pub(super) fn record(&self, file: &File, spans: &Spans) -> io::Result<()> {
        let Self { size, of, boot } = self;
        let of = of.as_deref().unwrap_or_default();
        let mut text = format!("{MAGIC}\n{boot}\n{size}\n{OF}{of}\n");
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
        let at = place(*size).ok_or(io::ErrorKind::InvalidInput)?;
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
    let of = lines.next()?.strip_prefix(OF)?;
    let of = (!of.is_empty()).then(|| of.to_owned());
    let mut here = Spans::default();
    for line in lines {
        let (start, end) = line.split_once(' ')?;
        let range: Range<u64> = start.parse().ok()?..end.parse().ok()?;
        if range.end > size {
            return None;
        }
        here.insert(range);
    }
    Some(Left { size, here, of })
}

#[cfg(test)]
mod tests {
    use super::*;
    use outport_core::location::key::Lane;
    use outport_core::oci::digest::Algorithm;
    use outport_core::store::disk::Disk;
    use proptest::prelude::*;

    fn partial(directory: &tempfile::TempDir) -> Partial {
        let disk = Disk::open(directory.path()).unwrap();
        disk.partial(&Algorithm::Sha256.digest(b"x"), Lane::default())
            .unwrap()
    }

    #[test]
    fn the_last_word_counts() {
        let directory = tempfile::tempdir().unwrap();
        let partial = partial(&directory);
        assert_eq!(Journal::read(&partial), None);
        let journal = Journal::new(10_000, Some("hub".to_owned())).unwrap();
        partial.write_at(&[7; 5000], 0).unwrap();
        let mut here = Spans::default();
        for more in [0..100, 100..5000, 9000..10_000] {
            here.insert(more);
            journal.record(partial.file(), &here).unwrap();
            let left = Journal::read(&partial);
            let (size, here, of) = (10_000, here.clone(), Some("hub".to_owned()));
            assert_eq!(left, Some(Left { size, here, of }));
        }
    }

    #[test]
    fn a_file_without_one_is_worth_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let partial = partial(&directory);
        partial.write_at(&[b'1'; 8192], 0).unwrap();
        assert_eq!(Journal::read(&partial), None);
        // The block of a blob of another length.
        let journal = Journal::new(100, None).unwrap();
        let here: Spans = std::iter::once(0..100).collect();
        journal.record(partial.file(), &here).unwrap();
        let (size, of) = (100, None);
        assert_eq!(Journal::read(&partial), Some(Left { size, here, of }));
        partial.truncate(9000).unwrap();
        assert_eq!(Journal::read(&partial), None);
    }

    #[test]
    fn another_boot_and_nonsense_are_refused() {
        let good = format!("{MAGIC}\nb\n10\nof hub\n0 5\n\0");
        assert!(parse(good.as_bytes(), "b").is_some());
        assert_eq!(parse(good.as_bytes(), "c"), None);
        for bad in [
            "",
            MAGIC,
            &good.replace("0 5", "0 11"),
            &good.replace("0 5", "05"),
            &good.replace("of hub\n", ""),
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
