use super::*;
use crate::oci::digest::Algorithm;
use http::HeaderValue;
use proptest::prelude::*;

#[test]
fn ranges() {
    #[track_caller]
    fn check(header: &str, size: u64, expected: &Selection) {
        assert_eq!(select_ranges(header, size), *expected, "{header} of {size}");
    }
    let part = |start, end| Selection::Part(start..end);
    check("bytes=500-1499", 2048, &part(500, 1500));
    check("bytes=500-", 2048, &part(500, 2048));
    check("bytes=-500", 2048, &part(1548, 2048));
    check("bytes=2000-5000", 2048, &part(2000, 2048));
    check("bytes=0-0", 1, &part(0, 1));
    check("bytes=-5000", 2048, &part(0, 2048));
    check("Bytes = 1-2", 9, &part(1, 3));
    check("bytes=,1-2,", 9, &part(1, 3));
    check("bytes=0-99999999999999999999999", 9, &part(0, 9));
    check("bytes=2-3,50-60", 9, &part(2, 4));

    for header in [
        "bytes=500-0",
        "bytes=5000-10000",
        "bytes=2048-",
        "bytes=-0",
        "bytes=3000-,4000-5000",
        "bytes=99999999999999999999999-",
    ] {
        check(header, 2048, &Selection::Unsatisfiable);
    }
    for header in [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes= 1 - 2",
        "items=0-1",
        "bytes=0-1,x",
        "bytes=0-1;2-3",
    ] {
        check(header, 2048, &Selection::Full);
    }
    for header in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=5-"] {
        check(header, 0, &Selection::Full);
    }
}

#[test]
fn several_ranges() {
    assert_eq!(
        select_ranges("bytes=5-6, 0-1 ,-1,50-", 9),
        Selection::Parts(vec![5..7, 0..2, 8..9])
    );
    assert_eq!(select_ranges("bytes=0-,0-", 9), Selection::Full);
    assert_eq!(select_ranges("bytes=0-4,4-8", 9), Selection::Full);
    let many = |count: u64| {
        let specs: Vec<_> = (0..count).map(|i| format!("{0}-{0}", 2 * i)).collect();
        select_ranges(&format!("bytes={}", specs.join(",")), 1 << 20)
    };
    assert!(matches!(many(MAX_PARTS as u64), Selection::Parts(parts) if parts.len() == MAX_PARTS));
    assert_eq!(many(MAX_PARTS as u64 + 1), Selection::Full);
}

#[track_caller]
fn check_conditions(fetch: Fetch, headers: &[(HeaderName, &str)], expected: &Selection) {
    let digest = Algorithm::Sha256.digest(b"content");
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
        .fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        });
    assert_eq!(
        select(&headers, fetch, &digest, 7),
        *expected,
        "{headers:?}"
    );
}

#[test]
fn conditions() {
    let digest = Algorithm::Sha256.digest(b"content");
    let tag = etag(&digest);
    let other = etag(&Algorithm::Sha256.digest(b"other"));
    let check =
        |headers: &[(HeaderName, &str)], expected| check_conditions(Fetch::Get, headers, &expected);
    let part = || Selection::Part(1..3);
    let range = || (RANGE, "bytes=1-2");

    check(&[], Selection::Full);
    check(&[range()], part());
    check_conditions(Fetch::Head, &[range()], &Selection::Full);
    check(&[range(), range()], Selection::Full);

    for value in [
        tag.clone(),
        digest.to_string(),
        format!("W/{tag}"),
        format!("{other}, {tag}"),
        format!("{other},W/{tag}"),
        "*".to_owned(),
    ] {
        check(&[(IF_NONE_MATCH, &value), range()], Selection::NotModified);
        check_conditions(
            Fetch::Head,
            &[(IF_NONE_MATCH, &value)],
            &Selection::NotModified,
        );
    }
    check(
        &[(IF_NONE_MATCH, &other), (IF_NONE_MATCH, &tag)],
        Selection::NotModified,
    );
    check(&[(IF_NONE_MATCH, &other)], Selection::Full);
    check(&[(IF_NONE_MATCH, "")], Selection::Full);

    check(&[(IF_MATCH, &tag), range()], part());
    check(&[(IF_MATCH, "*")], Selection::Full);
    check(&[(IF_MATCH, &other)], Selection::PreconditionFailed);
    check(
        &[(IF_MATCH, &format!("W/{tag}"))],
        Selection::PreconditionFailed,
    );
    check(
        &[(IF_MATCH, &other), (IF_NONE_MATCH, &tag)],
        Selection::PreconditionFailed,
    );

    check(&[(IF_RANGE, &tag), range()], part());
    check(&[(IF_RANGE, &other), range()], Selection::Full);
    check(&[(IF_RANGE, &format!("W/{tag}")), range()], Selection::Full);
    check(&[(IF_RANGE, "*"), range()], Selection::Full);
    check(
        &[(IF_RANGE, "Wed, 21 Oct 2015 07:28:00 GMT"), range()],
        Selection::Full,
    );
}

#[test]
fn chunk_ranges() {
    #[track_caller]
    fn check(text: &str, expected: Option<(u64, u64)>) {
        let parsed = text.parse::<ChunkRange>().ok();
        assert_eq!(
            parsed.map(|range| (range.first(), range.len())),
            expected,
            "{text}"
        );
    }
    check("0-1023", Some((0, 1024)));
    check("1024-1024", Some((1024, 1)));
    check("bytes 0-1023/2048", Some((0, 1024)));
    check("bytes 0-1023/1024", Some((0, 1024)));
    check("bytes 0-1023/*", Some((0, 1024)));
    for text in [
        "",
        "-",
        "0-",
        "-1",
        "1-0",
        "a-b",
        " 0-1",
        "0-1 ",
        "+0-1",
        "0-1/2",
        "bytes 0-1",
        "bytes 0-1023/1023",
        "bytes */5",
        "bytes=0-1",
        "0-18446744073709551615",
        "0-99999999999999999999",
        "bytes 0-1/x",
    ] {
        check(text, None);
    }
}

#[test]
fn formats() {
    assert_eq!(content_range(&(2..5), 9), "bytes 2-4/9");
    assert_eq!(unsatisfied_range(9), "bytes */9");
    assert_eq!(upload_range(0), "0-0");
    assert_eq!(upload_range(1), "0-0");
    assert_eq!(upload_range(9), "0-8");
}

proptest! {
    #[test]
    fn parts_lie_within_the_content(
        specs in prop::collection::vec((prop::option::of(0_u64..300), prop::option::of(0_u64..300)), 0..6),
        size in 0_u64..256,
    ) {
        let text = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
        let specs: Vec<_> = specs.into_iter().map(|(first, last)| format!("{}-{}", text(first), text(last))).collect();
        let parts = match select_ranges(&format!("bytes={}", specs.join(",")), size) {
            Selection::Part(part) => vec![part],
            Selection::Parts(parts) => {
                prop_assert!(parts.len() > 1);
                parts
            }
            Selection::Full | Selection::Unsatisfiable => vec![],
            other => panic!("{other:?}"),
        };
        prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
        prop_assert!(parts.iter().map(|part| part.end - part.start).sum::<u64>() <= size);
    }

    #[test]
    fn never_panics(text in "(bytes[= ])?[-0-9,/* ]*|\\PC*", size: u64) {
        let _selection = select_ranges(&text, size);
        if let Ok(range) = text.parse::<ChunkRange>() {
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }
        if let Ok(value) = HeaderValue::from_str(&text) {
            let headers = HeaderMap::from_iter([IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE].map(|name| (name, value.clone())));
            let _selection = select(&headers, Fetch::Get, &Algorithm::Sha256.digest(b""), size);
        }
    }
}
