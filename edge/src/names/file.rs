//! The file in which names survive a restart: an embedded B-tree (redb).
//!
//! Invariants: rows are keyed so that the links of one digest lie side by side, and so that the key order of either table is
//! that of a hash: when there are too many rows the first ones go, which is as good as random ones. Commits are not synced
//! one by one; [`NamesFile::flush`] makes all so far durable.
//!
//! Failure: redb panics over a damaged page, also over one that it reads long after it opened the file. That is taken for
//! the error that it is: a file that is found damaged when it is opened is replaced, and one that turns out to be damaged later
//! is spoilt. From then on it is as if it were empty, and a mark beside it has the next start replace it. After an error of the
//! disk redb does nothing more until the file was opened again ([`NamesFile::reopen`]), and what was not durable is gone then.

use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use outport_core::oci::digest::{Algorithm, Digest};
use outport_core::oci::reference::{RepoName, Tag};
use parking_lot::RwLock;
use redb::{Database, Durability, ReadableTableMetadata as _};
use tokio::sync::{Notify, watch};

use super::database::{
    LINKS, LISTS, OpenError, Opened, Rows, TAGS, TableOf, UNHOSTED, guarded, is_damage, mark,
};
use super::{Link, LinkKey, LinkKind, Listed, NamesConfig};

/// Something to write down.
#[derive(Debug)]
pub(super) enum Change {
    PutLink(LinkKey, Link),
    DropLink(LinkKey),
    /// Drops all links to these.
    Forget(Vec<Digest>),
    PutTag(RepoName, Tag, Digest, SystemTime),
    DropTag(RepoName, Tag),
    PutList(String, Listed),
    PutUnhosted(RepoName, SystemTime),
    DropUnhosted(RepoName),
}

#[derive(Debug)]
pub(super) struct NamesFile {
    path: PathBuf,
    config: NamesConfig,
    /// Locked for as long as it is opened again.
    opened: RwLock<Opened>,
    is_spoilt: AtomicBool,
    /// Told when it could not be read.
    unread: Notify,
    /// Goes last, when the file is closed.
    open: watch::Sender<()>,
}

/// When a table is full, one in so many rows goes at once.
const PRUNED_SHARE: u64 = 64;

// === impl NamesFile ===

impl NamesFile {
    pub(super) fn open(path: &Path, config: NamesConfig) -> Result<Self, OpenError> {
        Ok(Self {
            path: path.to_owned(),
            config,
            opened: RwLock::new(Opened::open(path, config)?),
            is_spoilt: AtomicBool::new(false),
            unread: Notify::new(),
            open: watch::Sender::new(()),
        })
    }

    /// Opens the file again, after an error of the disk; what was not durable is not in it. Blocks.
    pub(super) fn reopen(&self) -> Result<(), OpenError> {
        let mut opened = self.opened.write();
        if let Err(error) = mem::take(&mut *opened).close() {
            self.note_damage(&error);
        }
        *opened = Opened::open(&self.path, self.config)?;
        Ok(())
    }

    /// Completes when the file could not be read, which it cannot be until it is opened again.
    pub(super) async fn unread(&self) {
        self.unread.notified().await;
    }

    pub(super) fn link(&self, key: &LinkKey) -> Option<Link> {
        self.read(LINKS, &link_row(key), |value| {
            let (size, content_type) = value.split_first_chunk()?;
            Some(Link {
                content_type: HeaderValue::from_bytes(content_type).ok()?,
                size: u64::from_be_bytes(*size),
            })
        })
    }

    /// Returns where a tag pointed, and when it was asked for.
    pub(super) fn tag(&self, repo: &RepoName, tag: &Tag) -> Option<(Digest, SystemTime)> {
        self.read(TAGS, &tag_row(repo, tag), |value| {
            let (asked, digest) = split_time(value)?;
            Some((str::from_utf8(digest).ok()?.parse().ok()?, asked))
        })
    }

    /// Returns a list, by the path and query that it was asked for with.
    pub(super) fn list(&self, path: &str) -> Option<Listed> {
        self.read(LISTS, &hashed(path), parse_list)
    }

    /// Returns when the origin said that it does not know a repository.
    pub(super) fn unhosted(&self, repo: &RepoName) -> Option<SystemTime> {
        self.read(UNHOSTED, &hashed(repo.as_str()), |value| {
            split_time(value).map(|(asked, _)| asked)
        })
    }

    /// Applies changes in their order; what is read afterwards shows them. Returns the links that were forgotten.
    pub(super) fn apply(&self, changes: &[Change]) -> Result<Vec<LinkKey>, redb::Error> {
        self.work(|opened| self.apply_to(opened.to_write()?, changes))
    }

    /// Completes when nobody holds the file any more, and it is closed.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut open = self.open.subscribe();
        async move { while open.changed().await.is_ok() {} }
    }

    /// Makes all changes so far durable.
    pub(super) fn flush(&self) -> Result<(), redb::Error> {
        self.work(|opened| Ok(opened.to_write()?.begin_write()?.commit()?))
    }

    fn apply_to(
        &self,
        database: &Database,
        changes: &[Change],
    ) -> Result<Vec<LinkKey>, redb::Error> {
        let mut forgotten = Vec::new();
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::None)?;
        {
            let mut links = transaction.open_table(LINKS)?;
            let mut tags = transaction.open_table(TAGS)?;
            let mut lists = transaction.open_table(LISTS)?;
            let mut unhosted = transaction.open_table(UNHOSTED)?;
            for change in changes {
                let others = [&mut tags, &mut lists, &mut unhosted];
                apply(change, &mut links, others, &mut forgotten)?;
            }
            for rows in [&mut links, &mut tags, &mut lists, &mut unhosted] {
                self.prune(rows)?;
            }
        }
        transaction.commit()?;
        Ok(forgotten)
    }

    fn prune(&self, rows: &mut Rows<'_>) -> Result<(), redb::Error> {
        if rows.len()? <= self.config.rows_max {
            return Ok(());
        }
        let rows_max = self.config.rows_max;
        let target = rows_max - rows_max / PRUNED_SHARE;
        while rows.len()? > target && rows.pop_first()?.is_some() {}
        Ok(())
    }

    fn read<T>(
        &self,
        table: TableOf,
        row: &[u8],
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let value = self.work(|opened| opened.row(table, row));
        let value = value.unwrap_or_else(|error| {
            // What follows from an error was said of that.
            if !matches!(error, redb::Error::PreviousIo) {
                tracing::warn!(error = %error, "names of the cache not read");
            }
            self.unread.notify_one();
            None
        });
        parse(&value?)
    }

    /// Does what it is told with the database; nothing once it is spoilt, as if it were empty and took everything.
    fn work<T: Default>(
        &self,
        work: impl FnOnce(&Opened) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        if self.is_spoilt.load(Ordering::Relaxed) {
            return Ok(T::default());
        }
        let opened = self.opened.read();
        match guarded(|| work(&opened)) {
            Err(error) if is_damage(&error) => {
                self.spoil(&error);
                Ok(T::default())
            }
            outcome => outcome,
        }
    }

    /// Works with the file no more, and has the next start replace it.
    fn spoil(&self, error: &redb::Error) {
        if !self.is_spoilt.swap(true, Ordering::Relaxed) {
            self.note_damage(error);
        }
    }

    /// Has the file replaced when it is opened next.
    fn note_damage(&self, error: &redb::Error) {
        let path = self.path.display();
        tracing::warn!(%path, %error, "names of the cache are damaged, going on without");
        if let Err(error) = std::fs::write(mark(&self.path), b"") {
            tracing::warn!(%path, %error, "damaged names of the cache not marked");
        }
    }
}

impl Drop for NamesFile {
    fn drop(&mut self) {
        // Closing reads and writes pages too.
        if let Err(error) = mem::take(self.opened.get_mut()).close() {
            self.spoil(&error);
        }
    }
}

fn apply(
    change: &Change,
    links: &mut Rows<'_>,
    [tags, lists, unhosted]: [&mut Rows<'_>; 3],
    forgotten: &mut Vec<LinkKey>,
) -> Result<(), redb::Error> {
    match change {
        Change::PutLink(key, link) => {
            let mut value = link.size.to_be_bytes().to_vec();
            value.extend_from_slice(link.content_type.as_bytes());
            links.insert(&*link_row(key), &*value)?;
        }
        Change::DropLink(key) => {
            links.remove(&*link_row(key))?;
        }
        Change::Forget(digests) => {
            for digest in digests {
                let first = digest_prefix(digest);
                let mut last = first.clone();
                last.push(u8::MAX);
                links.retain_in(&*first..&*last, |row, _| {
                    forgotten.extend(linked_by(digest, &row[first.len()..]));
                    false
                })?;
            }
        }
        Change::PutTag(repo, tag, digest, asked) => {
            let mut value = seconds(*asked).to_vec();
            value.extend_from_slice(digest.to_string().as_bytes());
            tags.insert(&*tag_row(repo, tag), &*value)?;
        }
        Change::DropTag(repo, tag) => {
            tags.remove(&*tag_row(repo, tag))?;
        }
        Change::PutList(path, listed) => {
            lists.insert(&*hashed(path), &*list_value(listed))?;
        }
        Change::PutUnhosted(repo, asked) => {
            unhosted.insert(&*hashed(repo.as_str()), &seconds(*asked)[..])?;
        }
        Change::DropUnhosted(repo) => {
            unhosted.remove(&*hashed(repo.as_str()))?;
        }
    }
    Ok(())
}

/// Returns a time as it is written: in seconds.
fn seconds(time: SystemTime) -> [u8; 8] {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().to_be_bytes()
}

/// Returns the time that a value begins with, and the rest.
fn split_time(value: &[u8]) -> Option<(SystemTime, &[u8])> {
    let (seconds, rest) = value.split_first_chunk()?;
    let seconds = Duration::from_secs(u64::from_be_bytes(*seconds));
    Some((UNIX_EPOCH.checked_add(seconds)?, rest))
}

/// Returns a list as it is written: its time, then a line for each of the others.
fn list_value(listed: &Listed) -> Vec<u8> {
    let content = listed.content.map(|digest| digest.to_string());
    let lines = [
        content.as_ref(),
        listed.next.as_ref(),
        listed.filters.as_ref(),
    ];
    let lines = lines.map(|line| line.map_or("", String::as_str)).join("\n");
    [&seconds(listed.asked)[..], lines.as_bytes()].concat()
}

fn parse_list(value: &[u8]) -> Option<Listed> {
    let (asked, lines) = split_time(value)?;
    let lines: Vec<_> = str::from_utf8(lines).ok()?.split('\n').collect();
    let [content, next, filters] = lines.try_into().ok()?;
    let given = |line: &str| (!line.is_empty()).then(|| line.to_owned());
    Some(Listed {
        asked,
        content: match content {
            "" => None,
            content => Some(content.parse().ok()?),
        },
        next: given(next),
        filters: given(filters),
    })
}

fn digest_prefix(digest: &Digest) -> Vec<u8> {
    let algorithm = match digest.algorithm() {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    };
    // The algorithm stands behind the output, so that the order is that of a hash, and no digest is another's prefix.
    [digest.output(), &[algorithm]].concat()
}

fn link_row(key: &LinkKey) -> Vec<u8> {
    let kind = match key.kind {
        LinkKind::Blob => b'b',
        LinkKind::Manifest => b'm',
        LinkKind::Possession => b'p',
    };
    let mut row = digest_prefix(&key.digest);
    row.push(kind);
    row.extend_from_slice(key.repo.as_str().as_bytes());
    row
}

/// Whether a row is of a link to a blob; so may one in 65,536 be that is not, of a SHA-512.
pub(super) fn is_of_blob(row: &[u8]) -> bool {
    row.get(32..34) == Some(&[1, b'b']) || row.get(64..66) == Some(&[2, b'b'])
}

/// Returns the link to a digest whose row goes on so.
fn linked_by(digest: &Digest, rest: &[u8]) -> Option<LinkKey> {
    let (kind, repo) = rest.split_first()?;
    Some(LinkKey {
        repo: str::from_utf8(repo).ok()?.parse().ok()?,
        digest: *digest,
        kind: match kind {
            b'b' => LinkKind::Blob,
            b'm' => LinkKind::Manifest,
            b'p' => LinkKind::Possession,
            _ => return None,
        },
    })
}

fn tag_row(repo: &RepoName, tag: &Tag) -> Vec<u8> {
    // Neither can hold a colon.
    hashed(&format!("{repo}:{tag}"))
}

fn hashed(text: &str) -> Vec<u8> {
    Algorithm::Sha256.digest(text.as_bytes()).output().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::database::{FORMAT, VERSION_OF_WRONG_LINKS};

    const CONFIG: NamesConfig = NamesConfig {
        entries_in_memory: 0,
        rows_max: 1_000,
        // As good as nothing, so that pages are read when they are needed.
        page_cache_bytes: 0,
    };

    const ROWS: u16 = 600;

    const PAGE_BYTES: usize = 4096;

    fn key(number: u16) -> LinkKey {
        LinkKey {
            repo: "a/b".parse().unwrap(),
            digest: Algorithm::Sha256.digest(&number.to_be_bytes()),
            kind: LinkKind::Blob,
        }
    }

    fn put(number: u16) -> Change {
        let link = Link {
            content_type: HeaderValue::from_static("application/octet-stream"),
            size: number.into(),
        };
        Change::PutLink(key(number), link)
    }

    /// Returns what is in a sound file.
    fn sound(path: &Path) -> Vec<u8> {
        let file = NamesFile::open(path, CONFIG).unwrap();
        file.apply(&(0..ROWS).map(put).collect::<Vec<_>>()).unwrap();
        file.flush().unwrap();
        drop(file);
        std::fs::read(path).unwrap()
    }

    /// Returns a file of which one page is damaged: it has nothing, or a bit of it is another.
    fn damaged(sound: &[u8], page: usize, bit: Option<usize>) -> Vec<u8> {
        let mut bytes = sound.to_vec();
        let page = &mut bytes[page * PAGE_BYTES..][..PAGE_BYTES];
        match bit {
            None => page.fill(0),
            Some(bit) => page[bit / 8] ^= 1 << (bit % 8),
        }
        bytes
    }

    #[test]
    fn no_damaged_page_keeps_it_from_starting() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names");
        let sound = sound(&path);
        let bits = [
            None,
            Some(0),
            Some(3),
            Some(17),
            Some(37),
            Some(60),
            Some(500),
        ];
        let mut spoilt = 0;
        for page in 0..sound.len() / PAGE_BYTES {
            for bit in bits {
                std::fs::write(&path, damaged(&sound, page, bit)).unwrap();
                let file = NamesFile::open(&path, CONFIG).expect("not replaced");
                (0..ROWS).for_each(|number| drop(file.link(&key(number))));
                file.apply(&[put(0), Change::Forget(vec![key(9).digest])])
                    .unwrap();
                file.flush().unwrap();
                drop(file);
                let was_spoilt = mark(&path).try_exists().unwrap();
                spoilt += usize::from(was_spoilt);

                let file = NamesFile::open(&path, CONFIG).expect("not replaced");
                assert!(!mark(&path).try_exists().unwrap());
                if was_spoilt {
                    assert_eq!(file.link(&key(1)), None, "page {page}, bit {bit:?}");
                    file.apply(&[put(1)]).unwrap();
                    assert_eq!(file.link(&key(1)).unwrap().size, 1);
                }
            }
        }
        // Of the pages of rows, at least those that have nothing.
        assert!(spoilt > 5, "{spoilt}");
    }

    #[test]
    fn a_spoilt_file_keeps_others_out_and_takes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names");
        let sound = sound(&path);
        let file = NamesFile::open(&path, CONFIG).unwrap();
        file.work::<()>(|_| panic!("on purpose")).unwrap();
        assert_eq!(file.link(&key(1)), None);
        file.apply(&[Change::DropLink(key(1))]).unwrap();
        let other = NamesFile::open(&path, CONFIG);
        assert!(matches!(other, Err(OpenError::InUse { .. })));
        drop(file);
        assert!(mark(&path).try_exists().unwrap());
        // Also one that can be read.
        std::fs::write(&path, sound).unwrap();
        let file = NamesFile::open(&path, CONFIG).unwrap();
        assert_eq!(file.link(&key(1)), None);
    }

    #[test]
    fn links_to_blobs_of_the_version_before_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names");
        let blobs = [Algorithm::Sha256, Algorithm::Sha512].map(|algorithm| LinkKey {
            digest: algorithm.digest(b"a"),
            ..key(0)
        });
        let manifest = LinkKey {
            kind: LinkKind::Manifest,
            ..key(0)
        };
        let link = Link {
            content_type: HeaderValue::from_static("a/b"),
            size: 1,
        };
        let keys = || blobs.iter().chain([&manifest]);
        let put_all = |file: &NamesFile| {
            let put = |key: &LinkKey| Change::PutLink(key.clone(), link.clone());
            file.apply(&keys().map(put).collect::<Vec<_>>()).unwrap();
            file.flush().unwrap();
        };
        let file = NamesFile::open(&path, CONFIG).unwrap();
        put_all(&file);
        let older = |opened: &Opened| {
            let transaction = opened.to_write()?.begin_write()?;
            transaction
                .open_table(FORMAT)?
                .insert((), VERSION_OF_WRONG_LINKS)?;
            Ok(transaction.commit()?)
        };
        file.work(older).unwrap();
        drop(file);
        let file = NamesFile::open(&path, CONFIG).unwrap();
        let found: Vec<_> = keys().map(|key| file.link(key)).collect();
        assert_eq!(found, [None, None, Some(link.clone())]);
        // What is written from now on stays.
        put_all(&file);
        drop(file);
        let file = NamesFile::open(&path, CONFIG).unwrap();
        assert!(keys().all(|key| file.link(key).is_some()));
    }
}
