use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream;
use proptest::prelude::*;

use super::*;
use crate::oci::digest::Algorithm;

/// Bytes that differ from one chunk to the next.
fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| u8::try_from((index ^ (index >> 8) ^ (index >> 16)) & 0xff).unwrap())
        .collect()
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn sealed(file: &File) -> Seal {
    let seal = Seal::of(&Algorithm::Sha256.digest(b"any"));
    seal.put_on(file).unwrap();
    seal
}

async fn read(body: Body) -> io::Result<Vec<u8>> {
    body.into_stream()
        .try_fold(Vec::new(), async |mut all, bytes| {
            all.extend_from_slice(&bytes);
            Ok(all)
        })
        .await
}

fn pieces(pieces: &[&'static str]) -> Body {
    let pieces: Vec<_> = pieces
        .iter()
        .map(|piece| Ok(Bytes::from_static(piece.as_bytes())))
        .collect();
    Body::stream(stream::iter(pieces))
}

#[tokio::test]
async fn what_is_made_later_is_made_when_it_is_wanted() {
    let made = Arc::new(AtomicUsize::new(0));
    let later = |text: &'static str| {
        let made = Arc::clone(&made);
        Body::later(text.len() as u64, move || {
            made.fetch_add(1, Ordering::Relaxed);
            text.into()
        })
    };
    drop(later("never"));
    let chain = Body::chain(vec![later("ab"), later("cd")]);
    assert_eq!(chain.size_hint().exact(), Some(4));
    assert_eq!(made.load(Ordering::Relaxed), 0);
    assert_eq!(chain.collect_limited(9).await.unwrap(), "abcd");
    assert_eq!(made.load(Ordering::Relaxed), 2);
    let short = Body::later(3, || "ab".into());
    assert!(short.collect_limited(9).await.is_err());
}

#[tokio::test]
async fn a_file_is_read_whole_and_by_ranges() {
    let length = 3 * file::CHUNK_BYTES + 17;
    let bytes = content(length);
    let file = Arc::new(file_of(&bytes));
    for range in [
        0..length,
        0..1,
        length - 1..length,
        file::CHUNK_BYTES - 1..file::CHUNK_BYTES + 1,
        5..2 * file::CHUNK_BYTES + 5,
        9..9,
    ] {
        let whole = || Body::file(Arc::clone(&file), range.start as u64..range.end as u64);
        for body in [whole(), whole().in_small_chunks()] {
            let length = body.size_hint().exact();
            assert_eq!(length, Some(range.len() as u64), "{range:?}");
            let read = read(body).await.unwrap();
            assert!(read == bytes[range.clone()], "{range:?}");
        }
    }
}

#[tokio::test]
async fn a_cold_file_is_read_from_disk() {
    let bytes = content(2 * file::CHUNK_BYTES + 1);
    let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    file.write_all(&bytes).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let body = Body::file(file, 0..bytes.len() as u64);
    assert!(read(body).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_file_cut_while_it_is_served_breaks_the_body() {
    let file = Arc::new(file_of(&content(2 * file::CHUNK_BYTES)));
    let body = Body::file(Arc::clone(&file), 0..2 * file::CHUNK_BYTES as u64);
    let mut stream = body.into_stream();
    stream.try_next().await.unwrap().unwrap();
    file.set_len(file::CHUNK_BYTES as u64).unwrap();
    for _ in 0..2 {
        let error = stream.try_next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn a_file_that_was_written_to_meanwhile_breaks_the_body() {
    const LENGTH: u64 = 1 << 20;
    let file = Arc::new(tempfile::tempfile().unwrap());
    file.set_len(LENGTH).unwrap();
    let seal = sealed(&file);
    let body = || Body::file(Arc::clone(&file), 0..LENGTH).as_long_as(seal);
    assert_eq!(
        body().collect_limited(LENGTH).await.unwrap().len() as u64,
        LENGTH
    );
    let mut begun = body().into_stream();
    let first = begun.next().await.unwrap().unwrap();
    assert!((first.len() as u64) < LENGTH);
    std::os::unix::fs::FileExt::write_all_at(&*file, b"x", LENGTH - 1).unwrap();
    let rest: Vec<_> = begun.collect().await;
    assert!(rest.last().unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_small_part_that_is_read_late_is_looked_at_too() {
    let file = Arc::new(file_of(b"0123456789"));
    let seal = sealed(&file);
    let body = |file: &Arc<File>, range| Body::file(Arc::clone(file), range).as_long_as(seal);
    let chain = || Body::chain(vec![body(&file, 0..3), "-".into(), body(&file, 7..9)]);
    assert_eq!(read(chain()).await.unwrap(), b"012-78");
    let mut begun = chain().into_stream();
    assert_eq!(begun.next().await.unwrap().unwrap(), "012");
    assert_eq!(begun.next().await.unwrap().unwrap(), "-");
    file.set_len(9).unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    let error = begun.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_promised_length_is_held() {
    for (length, outcome) in [
        (5, Ok(b"hello".to_vec())),
        (6, Err(io::ErrorKind::UnexpectedEof)),
        (4, Err(io::ErrorKind::InvalidData)),
    ] {
        let body = pieces(&["he", "llo"]).with_exact_len(length);
        assert_eq!(body.size_hint().exact(), Some(length));
        assert_eq!(
            read(body).await.map_err(|error| error.kind()),
            outcome,
            "{length}"
        );
    }
}

#[tokio::test]
async fn a_chain_is_as_long_as_its_links() {
    let file = file_of(b"0123456789");
    let chain = Body::chain(vec![
        "head ".into(),
        Body::file(file, 2..5),
        Body::empty(),
        " tail".into(),
    ]);
    assert_eq!(chain.size_hint().exact(), Some(13));
    assert_eq!(read(chain).await.unwrap(), b"head 234 tail");
    assert_eq!(Body::chain(vec![pieces(&["a"])]).size_hint().exact(), None);
}

#[tokio::test]
async fn a_body_over_the_limit_is_not_held() {
    for (body, limit, fits) in [
        (Body::empty(), 0, true),
        (Body::from("hello"), 5, true),
        (Body::from("hello"), 4, false),
        (pieces(&["he", "llo"]), 5, true),
        (pieces(&["he", "llo"]), 4, false),
        (pieces(&["hello"]).with_exact_len(5), 5, true),
        // As HTTP/2 may end one.
        (pieces(&["hello", ""]).with_exact_len(5), 5, true),
    ] {
        match body.collect_limited(limit).await {
            Ok(_) => assert!(fits),
            Err(CollectError::TooLarge { limit_bytes }) => assert!(!fits && limit_bytes == limit),
            Err(error) => panic!("{error}"),
        }
    }
    let unread = Body::stream(stream::pending()).with_exact_len(1 << 40);
    assert!(matches!(
        unread.collect_limited(100).await,
        Err(CollectError::TooLarge { .. })
    ));
    let short = pieces(&["hello"]).with_exact_len(6);
    assert!(matches!(
        short.collect_limited(10).await,
        Err(CollectError::Broken(_))
    ));
}

proptest! {
    #[test]
    fn any_range_of_a_file_is_that_range(length in 0_usize..600_000, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let bytes = content(length);
        let (a, b) = (a.index(length + 1), b.index(length + 1));
        let range = a.min(b)..a.max(b);
        let body = Body::file(file_of(&bytes), range.start as u64..range.end as u64);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        prop_assert!(runtime.block_on(read(body)).unwrap() == bytes[range]);
    }
}
