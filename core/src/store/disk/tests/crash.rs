//! Kills a process that writes to a disk, again and again, and looks at what it leaves.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::*;
use bytes::Bytes;
use uuid::Uuid;

use crate::store::StagedRecord;
use crate::store::conformance::seeded;

/// The file that tells a process that it is the one to be killed, and where to begin counting.
const MARK: &str = "crash-child";

/// How often it is killed.
const ROUNDS: u64 = 24;

const CHUNK_BYTES: usize = 150_000;

fn content(session: u64) -> Bytes {
    let size = usize::try_from(session * 7_919 % 17).unwrap() * 61_001;
    seeded(session, size)
}

/// Writes one session after another and says what is acknowledged, until it is killed.
#[tokio::test]
async fn child() {
    // Only the test below starts it in a directory with a mark; by itself it has nothing to do.
    let Ok(first) = fs::read_to_string(MARK) else {
        return;
    };
    let disk = Disk::open(".").unwrap();
    for session in first.parse::<u64>().unwrap().. {
        let content = content(session);
        let mut staged = Staged::new(Uuid::now_v7(), Algorithm::Sha256);
        for chunk in content.chunks(CHUNK_BYTES) {
            let appended = disk.append(staged, frames(chunk, 9_999), None).await;
            appended.outcome.unwrap();
            staged = appended.staged;
            let record = serde_json::to_string(&staged.to_record()).unwrap();
            println!("appended {session} {record}");
        }
        let digest = Algorithm::Sha256.digest(&content);
        disk.commit(staged, &digest).await.unwrap();
        println!("committed {session}");
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_acknowledged() {
    let root = TempDir::new().unwrap();
    for round in 0..ROUNDS {
        let first = round * 1_000;
        fs::write(root.path().join(MARK), first.to_string()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::disk::tests::crash::child", "--nocapture"])
            .current_dir(root.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = lines.map(Result::unwrap).filter_map(|line| {
            let (_, said) = line
                .rsplit_once("appended ")
                .or(line.rsplit_once("committed "))?;
            Some(said.to_owned())
        });
        let count = usize::try_from(1 + round * 13 % 37).unwrap();
        let mut heard: Vec<String> = said.by_ref().take(count).collect();
        assert_eq!(heard.len(), count, "the child ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        heard.extend(said);
        check(&root, &heard).await;
    }
}

/// Checks what is on the disk against what was acknowledged.
async fn check(root: &TempDir, heard: &[String]) {
    let disk = Disk::open(root.path()).unwrap();
    for entry in disk.entries() {
        let digest = entry.unwrap().digest;
        assert!(
            disk.open_blob(&digest)
                .unwrap()
                .unwrap()
                .verify(&digest)
                .unwrap()
        );
    }
    let mut open = None;
    for said in heard {
        open = said.split_once(' ');
        if open.is_none() {
            let digest = Algorithm::Sha256.digest(&content(said.parse().unwrap()));
            assert!(disk.open_blob(&digest).unwrap().is_some());
        }
    }
    if let Some((session, record)) = open {
        resume(&disk, &content(session.parse().unwrap()), record).await;
    }
}

async fn resume(disk: &Disk, content: &Bytes, record: &str) {
    let record: StagedRecord = serde_json::from_str(record).unwrap();
    let mut staged = Staged::try_from(record).unwrap();
    let rest = content.slice(usize::try_from(staged.size()).unwrap()..);
    // With nothing left to append, the child may have committed it.
    if !rest.is_empty() {
        let appended = disk.append(staged, frames(&rest, 9_999), None).await;
        appended.outcome.unwrap();
        staged = appended.staged;
    }
    let digest = Algorithm::Sha256.digest(content);
    disk.commit(staged, &digest).await.unwrap();
    assert!(
        disk.open_blob(&digest)
            .unwrap()
            .unwrap()
            .verify(&digest)
            .unwrap()
    );
}
