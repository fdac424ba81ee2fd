//! A whole table in a file.
//!
//! Layout: what wrote it, its generation, whether the process ended well after it, the clock, about how many entries there
//! are; then records, each after a byte that says what it is; at the end the SHA-256 of all before. A table is written in
//! pieces, so that it can be used meanwhile: what changes is in the journal, and an entry may be there twice.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _};

use outport_core::oci::digest::{Algorithm, Digest, Hasher};
use parking_lot::Mutex;

use super::record::{
    invalid, read_array, read_blob_pin, read_entry, read_ghost, read_pins, read_u64, write_entry,
    write_ghost, write_pins,
};
use crate::cache::table::Table;

/// How the process that wrote an index ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Well: everything is written down, and nothing has changed since.
    Clean,
    /// It was killed, or the power went, or it is not known.
    Unclean,
}

/// What this version writes first.
const FORMAT: &[u8; 16] = b"outport index 1\n";

/// How many records are written between two looks at the table, and read at a time.
const PIECE: usize = 4_096;
const BUFFER_BYTES: usize = 1 << 20;

/// The most entries for which memory is set aside because a file says so.
const RESERVED_MAX: u64 = 4_000_000;

const END: u8 = 0;
const ENTRY: u8 = 1;
const GHOST: u8 = 2;
/// A pin of a blob for no image, as they were written once.
const BLOB_PIN: u8 = 3;
const LEARNT: u8 = 4;
const PINS: u8 = 5;

/// A file that is hashed while it is written.
struct Hashed {
    file: BufWriter<File>,
    hasher: Hasher,
}

/// Writes a table to a file and makes it durable.
pub(super) fn write(
    table: &Mutex<Table>,
    file: File,
    generation: u64,
    ending: Ending,
) -> io::Result<()> {
    let mut out = Hashed {
        file: BufWriter::with_capacity(BUFFER_BYTES, file),
        hasher: Hasher::new(Algorithm::Sha256),
    };
    let mut piece = FORMAT.to_vec();
    let ghosts = {
        let table = table.lock();
        piece.extend_from_slice(&generation.to_le_bytes());
        piece.push(u8::from(ending == Ending::Clean));
        piece.extend_from_slice(&table.clock().to_le_bytes());
        piece.extend_from_slice(&(table.len() as u64).to_le_bytes());
        for learnt in table.learnt() {
            piece.push(LEARNT);
            piece.extend_from_slice(&learnt.to_le_bytes());
        }
        for (image, digests) in table.pins().images() {
            piece.push(PINS);
            write_pins(image, digests, &mut piece);
        }
        table.ghost_count()
    };
    out.write(&mut piece)?;
    for begin in (0..ghosts).step_by(PIECE) {
        let table = table.lock();
        for ghost in (begin..begin + PIECE).filter_map(|index| table.ghost(index)) {
            piece.push(GHOST);
            write_ghost(&ghost, &mut piece);
        }
        drop(table);
        out.write(&mut piece)?;
    }
    write_entries(table, &mut out)?;
    piece.push(END);
    out.write(&mut piece)?;
    let Hashed { mut file, hasher } = out;
    file.write_all(hasher.finish().output())?;
    file.into_inner()?.sync_data()
}

/// Writes from the last entry to the first: one that is moved into the place of another has been written then.
fn write_entries(table: &Mutex<Table>, out: &mut Hashed) -> io::Result<()> {
    let mut piece = Vec::new();
    let mut end = table.lock().len();
    while end > 0 {
        let table = table.lock();
        let entries = table.entries();
        end = end.min(entries.len());
        let begin = end.saturating_sub(PIECE);
        for entry in &entries[begin..end] {
            piece.push(ENTRY);
            write_entry(entry, &mut piece);
        }
        drop(table);
        out.write(&mut piece)?;
        end = begin;
    }
    Ok(())
}

/// Reads a table, which may hold more than its capacity.
pub(super) fn read(mut file: File, generation: u64, capacity: u64) -> io::Result<(Table, Ending)> {
    check(&mut file)?;
    let mut from = BufReader::with_capacity(BUFFER_BYTES, file);
    if read_array::<16>(&mut from)? != *FORMAT {
        return Err(invalid("another version wrote it"));
    }
    if read_u64(&mut from)? != generation {
        return Err(invalid("the generation is another one"));
    }
    let ending = match read_array(&mut from)? {
        [1] => Ending::Clean,
        _ => Ending::Unclean,
    };
    let mut table = Table::new(capacity);
    table.restore_clock(read_u64(&mut from)?);
    let count = read_u64(&mut from)?.min(RESERVED_MAX);
    table.reserve(usize::try_from(count).unwrap_or(0));
    let mut learnt = Vec::new();
    loop {
        match read_array(&mut from)? {
            [END] => break,
            [ENTRY] => table.restore(read_entry(&mut from)?),
            [GHOST] => table.restore_ghost(read_ghost(&mut from)?),
            [LEARNT] => learnt.push(f32::from_le_bytes(read_array(&mut from)?)),
            [PINS] => restore_pins(&mut table, read_pins(&mut from)?),
            [BLOB_PIN] => restore_pins(&mut table, read_blob_pin(&mut from)?),
            _ => return Err(invalid("no such record")),
        }
    }
    table.restore_learnt(learnt);
    Ok((table, ending))
}

/// Takes back what an image pins; more than there may be are of no use to anybody.
fn restore_pins(table: &mut Table, (image, digests): (String, BTreeSet<Digest>)) {
    table.pin(image, digests).unwrap_or_default();
}

/// Says whether a file is as it was written, and goes back to its front: only then is anything in it believed.
fn check(file: &mut File) -> io::Result<()> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let sum_bytes = Algorithm::Sha256.output_len() as u64;
    let mut left = file.metadata()?.len().saturating_sub(sum_bytes);
    let mut buffer = vec![0; BUFFER_BYTES];
    while left > 0 {
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(BUFFER_BYTES);
        let count = file.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(&buffer[..count]);
        left -= count as u64;
    }
    if hasher.finish().output() != read_array::<32>(file)? {
        return Err(invalid("the index is damaged"));
    }
    file.rewind()
}

// === impl Hashed ===

impl Hashed {
    /// Writes a piece, and empties it.
    fn write(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        self.hasher.update(piece);
        self.file.write_all(piece)?;
        piece.clear();
        Ok(())
    }
}
