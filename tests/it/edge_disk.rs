//! An edge whose disk is full, fails, or is left behind by a process that was killed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use harness::content::Content;
use harness::eventually::eventually;
use harness::node::{Edge, Origin};
use harness::process::Ended;
use harness::repository::Repository;
use harness::strace::Strace;
use harness::tmpfs::Tmpfs;
use http::Method;
use outport_core::oci::digest::Digest;
use tempfile::TempDir;

const LAYER: u64 = 6 << 20;

struct Rig {
    origin: Origin,
    edge: Edge,
    /// How many layers there are.
    layers: u64,
}

impl Rig {
    async fn new(sets: &[&str]) -> Self {
        Self::within(Arc::new(TempDir::new().unwrap()), sets).await
    }

    async fn within(directory: Arc<TempDir>, sets: &[&str]) -> Self {
        let origin = Origin::start().await;
        let edge = Edge::start_in(directory, origin.address(), sets).await;
        Self {
            origin,
            edge,
            layers: 0,
        }
    }

    fn repository(&self) -> Repository {
        Repository::new(self.edge.client(), "team/app")
    }

    /// Puts a layer at the origin that nobody has seen.
    async fn new_layer(&mut self) -> (Content, Digest) {
        self.layers += 1;
        let content = Content::new(self.layers, LAYER);
        let repository = self.repository().behind(self.origin.client());
        (content, repository.push_content(content).await)
    }

    /// Pulls a layer, which has to come whole, and returns how the edge says that it had it.
    async fn pull(&self, content: Content, digest: &Digest) -> String {
        let mut open = self.repository().blob(Method::GET, digest).open().await;
        assert_eq!(open.head.status, 200, "{}", open.head);
        assert_eq!(open.read_content(content, 0).await.unwrap(), LAYER);
        let status = open.head.header("cache-status");
        status.split_once("; ").unwrap().1.to_owned()
    }

    /// Pulls a layer until it is there.
    async fn until_hit(&self, content: Content, digest: &Digest) {
        eventually("the layer in the cache", async || {
            (self.pull(content, digest).await == "hit").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_disk_smaller_than_the_capacity_goes_on_caching() {
    let directory = Arc::new(TempDir::new().unwrap());
    let disk = Tmpfs::mount(&directory.path().join("cache"), 40);
    let mut rig = Rig::within(directory, &[]).await;
    for _ in 0..12 {
        let (content, digest) = rig.new_layer().await;
        rig.pull(content, &digest).await;
        rig.until_hit(content, &digest).await;
    }
    let Rig {
        origin, mut edge, ..
    } = rig;
    edge.stop();
    drop((origin, disk));
}

#[tokio::test]
async fn a_disk_that_fails_costs_no_client_its_bytes() {
    let mut rig = Rig::new(&["cache.disk_rest=10ms"]).await;
    for (syscall, fault) in [
        ("pwritev", "error=EIO"),
        ("pwritev", "error=ENOSPC:when=3+"),
        ("pwrite64", "error=EIO:when=2+"),
        ("fdatasync", "error=EIO"),
        ("rename", "error=EIO"),
        ("ftruncate", "error=EIO"),
        ("utimensat", "error=EPERM"),
        ("openat", "error=EMFILE:when=1..3"),
    ] {
        let (content, digest) = rig.new_layer().await;
        let strace = Strace::inject(rig.edge.process(), syscall, fault);
        for _ in 0..2 {
            rig.pull(content, &digest).await;
        }
        drop(strace);
        rig.until_hit(content, &digest).await;
    }
}

/// Pulls layers from what an edge has whose origin is away.
async fn are_served_alone(rig: &mut Rig, layers: &[(Content, Digest)]) {
    rig.edge.start_again().await;
    for (content, digest) in layers {
        assert_eq!(rig.pull(*content, digest).await, "hit");
    }
}

#[tokio::test]
async fn links_are_written_down_when_the_disk_takes_them_again() {
    let mut rig = Rig::new(&["cache.disk_rest=10ms"]).await;
    let mut layers = Vec::new();
    for (count, syscall) in ["fdatasync", "pwrite64"].into_iter().enumerate() {
        let (content, digest) = rig.new_layer().await;
        rig.until_hit(content, &digest).await;
        layers.push((content, digest));
        let strace = Strace::inject(rig.edge.process(), syscall, "error=EIO");
        let (content, digest) = rig.new_layer().await;
        rig.pull(content, &digest).await;
        eventually("an error of the names' file", async || {
            let log = rig.edge.process().log();
            let said = "names of the cache not written down";
            let failed = log.iter().filter(|line| line.contains(said));
            (failed.count() > count).then_some(())
        })
        .await;
        drop(strace);
        rig.until_hit(content, &digest).await;
        layers.push((content, digest));
    }
    rig.edge.stop();
    rig.origin.kill();
    are_served_alone(&mut rig, &layers).await;
}

#[tokio::test]
async fn a_start_on_a_full_disk_keeps_what_is_here() {
    let directory = Arc::new(TempDir::new().unwrap());
    let cache = directory.path().join("cache");
    let disk = Tmpfs::mount(&cache, 40);
    let mut rig = Rig::within(directory, &[]).await;
    let mut layers = Vec::new();
    for _ in 0..2 {
        let (content, digest) = rig.new_layer().await;
        rig.until_hit(content, &digest).await;
        layers.push((content, digest));
    }
    rig.edge.stop();
    rig.origin.kill();
    let filler = cache.join("filler");
    // As much as there is room for.
    fs::write(&filler, vec![1; 40 << 20]).unwrap_err();
    are_served_alone(&mut rig, &layers).await;
    rig.edge.stop();
    fs::remove_file(filler).unwrap();
    are_served_alone(&mut rig, &layers).await;
    let Rig {
        origin, mut edge, ..
    } = rig;
    edge.stop();
    drop((origin, disk));
}

#[tokio::test]
async fn a_cached_file_that_cannot_be_read_costs_one_request() {
    let mut rig = Rig::new(&["cache.scrub=0B"]).await;
    let (content, digest) = rig.new_layer().await;
    rig.until_hit(content, &digest).await;
    // Where it is warm, and where it is hashed again.
    let strace = Strace::inject(rig.edge.process(), "preadv2,pread64", "error=EIO");
    let open = rig.repository().blob(Method::GET, &digest).try_open().await;
    if let Ok(mut open) = open {
        assert!(open.read_content(content, 0).await.is_err());
    }
    // Found to be unreadable, it is put aside; what comes in then is not read from the disk while it is new.
    eventually("another one", async || {
        let open = rig.repository().blob(Method::GET, &digest).try_open().await;
        let mut open = open.ok()?;
        let status = open.head.header("cache-status").to_owned();
        open.read_content(content, 0).await.ok();
        status.ends_with("fwd=miss").then_some(())
    })
    .await;
    drop(strace);
    rig.until_hit(content, &digest).await;
}

#[tokio::test]
async fn a_process_that_is_killed_at_any_system_call_leaves_nothing_wrong() {
    let mut rig = Rig::new(&[]).await;
    let mut killed = 0;
    for (syscall, whens) in [
        ("flock", &[1][..]),
        ("pwritev", &[1, 3, 6]),
        ("pwrite64", &[1, 2, 4]),
        ("ftruncate", &[1]),
        ("fdatasync", &[1]),
        ("utimensat", &[1]),
        ("rename", &[1]),
        ("fsync", &[1]),
        ("openat", &[1, 2]),
    ] {
        for when in whens {
            let (content, digest) = rig.new_layer().await;
            let fault = format!("signal=KILL:when={when}");
            let strace = Strace::inject(rig.edge.process(), syscall, &fault);
            let open = rig.repository().blob(Method::GET, &digest).try_open().await;
            if let Ok(mut open) = open
                && open.head.status == 200
            {
                // It may break off, and must not be wrong.
                open.read_content(content, 0).await.ok();
            }
            let is_dead = eventually("the end of the process or of the download", async || {
                if rig.edge.process().has_ended() {
                    return Some(true);
                }
                let head = rig
                    .repository()
                    .blob(Method::HEAD, &digest)
                    .try_open()
                    .await;
                let head = head.ok()?.head;
                let is_hit = head.status == 200 && head.header("cache-status").ends_with("; hit");
                is_hit.then_some(false)
            })
            .await;
            drop(strace);
            if is_dead {
                killed += 1;
                assert_eq!(rig.edge.ended(), Ended::Badly);
            } else {
                rig.edge.kill();
            }
            rig.edge.start_again().await;
            rig.pull(content, &digest).await;
            rig.until_hit(content, &digest).await;
        }
    }
    assert!(killed >= 8, "only {killed} system calls were ever made");
}

/// What a disk that lost its power may have of a file whose name it has.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// What was there before some of it.
    Block,
    /// The end, of which it has the length.
    End,
    /// All of it.
    Content,
    /// The file.
    Name,
}

impl Lost {
    const ALL: [Self; 4] = [Self::Block, Self::End, Self::Content, Self::Name];

    /// Without a trace: the times are as they were.
    fn lose(self, path: &Path) {
        let modified = path.metadata().unwrap().modified().unwrap();
        let file = File::options().write(true).open(path).unwrap();
        match self {
            Self::Block => file.write_all_at(b"lost", 1000).unwrap(),
            Self::End => {
                file.set_len(LAYER / 2).unwrap();
                file.set_len(LAYER).unwrap();
            }
            Self::Content => file.set_len(0).unwrap(),
            Self::Name => fs::remove_file(path).unwrap(),
        }
        file.set_modified(modified).unwrap();
    }
}

#[tokio::test]
async fn what_a_bad_end_left_is_hashed_before_it_is_used() {
    let mut rig = Rig::new(&["cache.scrub=0B"]).await;
    let mut layers = Vec::new();
    for _ in 0..=Lost::ALL.len() {
        let (content, digest) = rig.new_layer().await;
        rig.until_hit(content, &digest).await;
        layers.push((content, digest));
    }
    rig.edge.kill();
    let (whole, whole_digest) = layers.pop().unwrap();
    for (lost, (_, digest)) in Lost::ALL.into_iter().zip(&layers) {
        let hex = digest.hex();
        let folder = rig.edge.directory().join("cache/blobs/sha256");
        lost.lose(&folder.join(&hex[..2]).join(&hex));
    }
    rig.edge.start_again().await;

    for (lost, (content, digest)) in Lost::ALL.into_iter().zip(&layers) {
        if !matches!(lost, Lost::Content | Lost::Name) {
            let mut open = rig.repository().blob(Method::GET, digest).open().await;
            let mut read = 0;
            while let Ok(Some(bytes)) = open.next().await {
                read += bytes.len() as u64;
            }
            assert!(read < LAYER, "{lost:?}: a wrong blob was served whole");
        }
        rig.until_hit(*content, digest).await;
    }
    assert_eq!(rig.pull(whole, &whole_digest).await, "hit");
}
