//! The landing, without a source.

use super::super::recent::RECENT_BYTES_MIN;
use super::*;
use outport_core::oci::digest::Algorithm;

/// Returns a landing in a file of its own.
pub(crate) fn landing(content: &[u8]) -> (Writer, Landing) {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let digest = Algorithm::Sha256.digest(content);
    Landing::new(file, None, content.len() as u64, digest, Spans::default())
}

fn content(length: usize) -> Bytes {
    (0..251_u8).cycle().take(length).collect()
}

fn state(landing: &Landing) -> State {
    landing.state().borrow().clone()
}

#[test]
fn bytes_are_released_as_they_come_and_the_end_when_it_matches() {
    let content = content(200_000);
    let (writer, landing) = landing(&content);
    writer
        .write(0, &[content.slice(..100_000)], || false)
        .unwrap();
    assert_eq!(landing.readable(&(0..u64::MAX)), 100_000);
    writer
        .write(
            100_000,
            &[
                content.slice(100_000..150_000),
                Bytes::new(),
                content.slice(150_000..),
            ],
            || false,
        )
        .unwrap();
    let held_back_from = 200_000 - HELD_BACK_BYTES;
    assert_eq!(landing.readable(&(0..u64::MAX)), held_back_from);
    assert_eq!(landing.readable(&(199_999..u64::MAX)), 199_999);
    assert_eq!(landing.recent(199_999), None);
    assert_eq!(landing.recent(100_000).unwrap()[0], content[100_000]);
    writer.finish().unwrap();
    assert_eq!(landing.readable(&(0..u64::MAX)), 200_000);
    assert!(matches!(state(&landing), State::Complete));
    // Who reads it now may stay for long: what came last is given back.
    assert_eq!(landing.recent(100_000), None);
}

#[test]
fn what_comes_ahead_is_readable_at_once_and_hashed_in_its_turn() {
    let content = content(3_000_000);
    let (writer, landing) = landing(&content);
    writer
        .write(2_000_000, &[content.slice(2_000_000..)], || false)
        .unwrap();
    assert_eq!(landing.readable(&(0..u64::MAX)), 0);
    assert_eq!(
        landing.readable(&(2_500_000..u64::MAX)),
        3_000_000 - HELD_BACK_BYTES
    );
    assert!(writer.finish().is_err());
    writer
        .write(1_000_000, &[content.slice(1_000_000..2_000_000)], || false)
        .unwrap();
    writer
        .write(0, &[content.slice(..1_000_000)], || false)
        .unwrap();
    writer.finish().unwrap();
    assert_eq!(landing.readable(&(0..u64::MAX)), 3_000_000);
}

#[test]
fn what_was_there_is_hashed_too() {
    let content = content(300_000);
    let file = Arc::new(tempfile::tempfile().unwrap());
    file.write_all_at(&content, 0).unwrap();
    let digest = Algorithm::Sha256.digest(&content);
    let here = std::iter::once(0..300_000).collect();
    let (writer, landing) = Landing::new(file, None, 300_000, digest, here);
    assert_eq!(landing.readable(&(0..u64::MAX)), 300_000 - HELD_BACK_BYTES);
    writer.hash_rest().unwrap();
    writer.finish().unwrap();
}

#[test]
fn writers_on_many_threads_leave_nothing_unhashed() {
    let content = content(4_000_000);
    let (writer, _landing) = landing(&content);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (writer, content) = (&writer, &content);
            scope.spawn(move || {
                for at in (thread * 10_000..content.len()).step_by(40_000) {
                    let end = (at + 10_000).min(content.len());
                    writer
                        .write(at as u64, &[content.slice(at..end)], || false)
                        .unwrap();
                }
            });
        }
    });
    writer.finish().unwrap();
}

#[test]
fn a_small_blob_is_held_whole() {
    let (writer, landing) = landing(b"small");
    writer.write(0, &["small".into()], || false).unwrap();
    assert_eq!(landing.readable(&(0..u64::MAX)), 0);
    writer.finish().unwrap();
    assert_eq!(landing.readable(&(0..u64::MAX)), 5);
}

#[test]
fn wrong_and_short_content_breaks_it() {
    for wrong in ["smalL", "smal"] {
        let (writer, landing) = landing(b"small");
        writer.write(0, &[wrong.into()], || false).unwrap();
        assert!(writer.finish().is_err());
        drop(writer);
        assert!(matches!(state(&landing), State::Broken));
        assert_eq!(landing.readable(&(0..u64::MAX)), 0);
    }
}

#[test]
fn a_failing_disk_abandons_it_where_it_stands() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let read_only = Arc::new(File::open(file.path()).unwrap());
    let digest = Algorithm::Sha256.digest(b"small");
    let (writer, landing) = Landing::new(read_only, None, 5, digest, Spans::default());
    assert!(writer.write(0, &["small".into()], || false).is_err());
    drop(writer);
    let State::Abandoned(position) = state(&landing) else {
        panic!("not abandoned");
    };
    assert_eq!(position.offset, 0);
}

#[test]
fn only_recent_bytes_stay_in_memory() {
    let content = content(4 * RECENT_BYTES_MIN);
    let (writer, landing) = landing(&content);
    for at in (0..content.len()).step_by(100_000) {
        let end = (at + 100_000).min(content.len());
        writer
            .write(at as u64, &[content.slice(at..end)], || false)
            .unwrap();
    }
    assert_eq!(landing.recent(0), None);
    let last = content.len() as u64 - HELD_BACK_BYTES - 1;
    assert!(landing.recent(last).is_some());
    assert_eq!(landing.recent(content.len() as u64), None);
    assert!(landing.0.arrived.lock().recent.bytes <= RECENT_BYTES_MIN);
}

#[test]
fn a_want_lasts_as_long_as_its_reader() {
    let (_writer, landing) = landing(&content(10));
    let want = landing.want(3..10);
    assert_eq!(landing.wants().as_slice(), std::slice::from_ref(&(3..10)));
    drop(want);
    assert!(landing.wants().is_empty());
}

#[test]
fn hashing_ends_when_the_edge_does() {
    let content = content(3_000_000);
    let digest = Algorithm::Sha256.digest(&content);
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&content, 0).unwrap();
    let here = std::iter::once(0..3_000_000).collect();
    let (writer, landing) = Landing::new(Arc::new(file), None, 3_000_000, digest, here);
    let ending = CancellationToken::new();
    let writer = writer.until(ending.clone());
    ending.cancel();
    assert!(writer.hash_rest().is_err() && writer.is_cancelled());
    let State::Abandoned(position) = state(&landing) else {
        panic!("it goes on");
    };
    assert_eq!(position.offset, 0);
}
