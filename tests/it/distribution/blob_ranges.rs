//! Blobs: ranges, of a blob that the edge has and of one that it has not.

use harness::at_each_door;
use harness::content::Content;
use harness::door::Registry;
use http::Method;
use outport_core::oci::digest::Digest;

at_each_door!(
    one_range,
    unsatisfiable_ranges,
    what_is_no_range_is_the_whole,
    several_ranges,
    if_range,
    head_ignores_ranges,
    a_large_blob_by_ranges
);

const SIZE: u64 = 2048;

async fn one_range(registry: &Registry) {
    let repository = registry.repository("team/app");
    for (seed, (range, first, last)) in (0..).zip([
        ("bytes=500-1499", 500, 1499),
        ("bytes=0-0", 0, 0),
        ("bytes=500-", 500, 2047),
        ("bytes=-500", 1548, 2047),
        ("bytes=-5000", 0, 2047),
        ("bytes=2000-5000", 2000, 2047),
        ("bytes=0-2047", 0, 2047),
        ("bytes=2047-18446744073709551615", 2047, 2047),
    ]) {
        let content = Content::new(seed, SIZE);
        let digest = repository.push(content.bytes()).await;
        for _ in 0..2 {
            let reply = repository
                .blob(Method::GET, &digest)
                .header("range", range)
                .send()
                .await;
            let reply = reply.expect(206).with_body(&content.slice(first..last + 1));
            let reply = reply.with_header("content-range", &format!("bytes {first}-{last}/{SIZE}"));
            reply.with_header("docker-content-digest", &digest.to_string());
        }
    }
}

async fn unsatisfiable_ranges(registry: &Registry) {
    let repository = registry.repository("team/app");
    let digest = repository.push(Content::new(1, SIZE).bytes()).await;
    for range in [
        "bytes=2048-",
        "bytes=5000-10000",
        "bytes=500-0",
        "bytes=-0",
        "bytes=3000-,4000-",
    ] {
        let reply = repository
            .blob(Method::GET, &digest)
            .header("range", range)
            .send()
            .await;
        let reply = reply.refused(416, "RANGE_INVALID");
        reply.with_header("content-range", &format!("bytes */{SIZE}"));
    }
}

async fn what_is_no_range_is_the_whole(registry: &Registry) {
    let repository = registry.repository("team/app");
    let bytes = Content::new(1, SIZE).bytes();
    let digest = repository.push(bytes.clone()).await;
    for range in ["bytes", "bytes=", "bytes=a-b", "lines=0-1", "bytes=1-2x"] {
        let reply = repository
            .blob(Method::GET, &digest)
            .header("range", range)
            .send()
            .await;
        reply.expect(200).with_body(&bytes);
    }
}

async fn several_ranges(registry: &Registry) {
    let repository = registry.repository("team/app");
    let content = Content::new(1, SIZE);
    let digest = repository.push(content.bytes()).await;
    for _ in 0..2 {
        let call = repository
            .blob(Method::GET, &digest)
            .header("range", "bytes=0-9, 100-109,-10");
        let reply = call.send().await;
        // A client takes the whole for an answer too.
        if reply.status == 200 {
            reply.with_body(&content.bytes());
            continue;
        }
        let reply = reply.expect(206).without_header("content-range");
        let content_type = reply.header("content-type");
        let boundary = content_type
            .strip_prefix("multipart/byteranges; boundary=")
            .unwrap();
        let expected = [(0, 10), (100, 110), (SIZE - 10, SIZE)].map(|(first, end)| {
            (
                format!("bytes {first}-{}/{SIZE}", end - 1),
                content.slice(first..end).to_vec(),
            )
        });
        assert_eq!(parts(&reply.body, boundary), expected);
    }
    // One range that can be satisfied makes it one part.
    let call = repository
        .blob(Method::GET, &digest)
        .header("range", "bytes=5000-, 0-9");
    let reply = call
        .send()
        .await
        .expect(206)
        .with_header("content-range", "bytes 0-9/2048");
    reply.with_body(&content.slice(0..10));
    // Overlaps do not make much of little.
    let many = format!("bytes={}", vec!["0-"; 100].join(","));
    let reply = repository
        .blob(Method::GET, &digest)
        .header("range", many)
        .send()
        .await;
    assert!(reply.body.len() < 4 * content.bytes().len(), "{reply}");
}

/// Takes a `multipart/byteranges` body apart: the `Content-Range` and the bytes of each part.
fn parts(body: &[u8], boundary: &str) -> Vec<(String, Vec<u8>)> {
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = if body.starts_with(b"--") {
        &body[delimiter.len() - 2..]
    } else {
        &body[find(body, delimiter.as_bytes()) + delimiter.len()..]
    };
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        let head_length = find(rest, b"\r\n\r\n");
        let head = std::str::from_utf8(&rest[..head_length]).unwrap();
        let range = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-range")
                .then(|| value.to_owned())
        });
        rest = &rest[head_length + 4..];
        let length = find(rest, delimiter.as_bytes());
        parts.push((range.unwrap(), rest[..length].to_vec()));
        rest = &rest[length + delimiter.len()..];
    }
    parts
}

#[track_caller]
fn find(haystack: &[u8], needle: &[u8]) -> usize {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
        .expect("a delimiter")
}

async fn if_range(registry: &Registry) {
    let repository = registry.repository("team/app");
    let content = Content::new(1, SIZE);
    let digest = repository.push(content.bytes()).await;
    let other = Content::new(2, 1).sha256();
    let ask = |validator: String| {
        repository
            .blob(Method::GET, &digest)
            .header("range", "bytes=0-9")
            .header("if-range", validator)
            .send()
    };
    let is_weak = |digest: &Digest| format!("W/\"{digest}\"");
    ask(format!("\"{digest}\""))
        .await
        .expect(206)
        .with_body(&content.slice(0..10));
    ask(format!("\"{other}\""))
        .await
        .expect(200)
        .with_body(&content.bytes());
    ask(is_weak(&digest))
        .await
        .expect(200)
        .with_body(&content.bytes());
}

async fn head_ignores_ranges(registry: &Registry) {
    let repository = registry.repository("team/app");
    let digest = repository.push(Content::new(1, SIZE).bytes()).await;
    let reply = repository
        .blob(Method::HEAD, &digest)
        .header("range", "bytes=0-9")
        .send()
        .await;
    reply.expect(200).with_header("content-length", "2048");
}

async fn a_large_blob_by_ranges(registry: &Registry) {
    let repository = registry.repository("team/app");
    let content = Content::new(1, 24 << 20);
    let digest = repository.push_content(content).await;
    // From the end, so that an edge that fetches it meanwhile is behind the range.
    let mut ends = (0..6).map(|part| part << 22).rev();
    let first = ends.next().unwrap();
    let mut tail = repository
        .blob(Method::GET, &digest)
        .header("range", format!("bytes={first}-"))
        .open()
        .await;
    assert_eq!(tail.head.status, 206);
    for start in ends {
        let range = format!("bytes={start}-{}", start + (4 << 20) - 1);
        let reply = repository
            .blob(Method::GET, &digest)
            .header("range", range)
            .send()
            .await;
        reply
            .expect(206)
            .with_body(&content.slice(start..start + (4 << 20)));
    }
    assert_eq!(tail.read_content(content, first).await.unwrap(), 4 << 20);
}
