//! Blobs: GET, HEAD, conditions.

use harness::at_each_door;
use harness::content::Content;
use harness::door::Registry;
use http::Method;

at_each_door!(
    a_blob_comes_back,
    the_empty_blob_comes_back,
    head_has_the_headers_of_get,
    a_missing_blob_is_unknown,
    conditions,
    nothing_is_compressed,
    a_blob_is_served_where_it_is_linked
);

async fn a_blob_comes_back(registry: &Registry) {
    let repository = registry.repository("team/app");
    for (seed, size) in [(1, 1), (2, 4096), (3, 1_000_003), (4, 20 << 20)] {
        let content = Content::new(seed, size);
        let digest = repository.push_content(content).await;
        // The second time it is no longer new to the edge.
        for _ in 0..2 {
            let mut open = repository.blob(Method::GET, &digest).open().await;
            let head = open.head.clone().expect(200);
            let head = head.with_header("content-length", &size.to_string());
            let head = head.with_header("docker-content-digest", &digest.to_string());
            let head = head.with_header("content-type", "application/octet-stream");
            let head = head.with_header("accept-ranges", "bytes");
            head.with_header("etag", &format!("\"{digest}\""));
            assert_eq!(open.read_content(content, 0).await.unwrap(), size);
        }
    }
}

async fn the_empty_blob_comes_back(registry: &Registry) {
    let repository = registry.repository("team/app");
    let digest = repository.push("").await;
    for method in [Method::HEAD, Method::GET] {
        let reply = repository.blob(method, &digest).send().await.expect(200);
        let reply = reply.with_header("content-length", "0").with_body(b"");
        reply.with_header("docker-content-digest", &digest.to_string());
    }
    // Some clients send a range with everything.
    let ranged = repository
        .blob(Method::GET, &digest)
        .header("range", "bytes=0-");
    ranged.send().await.expect(200).with_body(b"");
}

async fn head_has_the_headers_of_get(registry: &Registry) {
    let repository = registry.repository("team/app");
    let digest = repository.push(Content::new(1, 5000).bytes()).await;
    for _ in 0..2 {
        let head = repository
            .blob(Method::HEAD, &digest)
            .send()
            .await
            .expect(200);
        let get = repository.get_blob(&digest).await.expect(200);
        for name in [
            "content-length",
            "content-type",
            "docker-content-digest",
            "etag",
            "accept-ranges",
        ] {
            assert_eq!(head.header(name), get.header(name), "{name}");
        }
    }
}

async fn a_missing_blob_is_unknown(registry: &Registry) {
    let missing = Content::new(1, 10).sha256();
    let repository = registry.repository("team/app");
    for method in [Method::HEAD, Method::GET, Method::DELETE] {
        let reply = repository
            .blob(method.clone(), &missing)
            .send()
            .await
            .expect(404);
        if method != Method::HEAD {
            reply.refused(404, "NAME_UNKNOWN");
        }
    }
    repository.push("{}").await;
    for method in [Method::GET, Method::DELETE] {
        repository
            .blob(method, &missing)
            .send()
            .await
            .refused(404, "BLOB_UNKNOWN");
    }
    let ranged = repository
        .blob(Method::GET, &missing)
        .header("range", "bytes=0-5");
    ranged.send().await.refused(404, "BLOB_UNKNOWN");
    // Not found is no lasting truth.
    repository.push(Content::new(1, 10).bytes()).await;
    repository.get_blob(&missing).await.expect(200);
}

async fn conditions(registry: &Registry) {
    let repository = registry.repository("team/app");
    let bytes = Content::new(1, 5000).bytes();
    let digest = repository.push(bytes.clone()).await;
    let other = Content::new(2, 1).sha256();
    for (name, value, status) in [
        ("if-none-match", format!("\"{digest}\""), 304),
        ("if-none-match", format!("W/\"{digest}\""), 304),
        ("if-none-match", format!("\"{other}\", \"{digest}\""), 304),
        ("if-none-match", digest.to_string(), 304),
        ("if-none-match", "*".to_owned(), 304),
        ("if-none-match", format!("\"{other}\""), 200),
        ("if-match", format!("\"{digest}\""), 200),
        ("if-match", format!("\"{other}\""), 412),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let reply = repository
                .blob(method.clone(), &digest)
                .header(name, &value)
                .send()
                .await;
            let reply = reply.expect(status);
            match status {
                200 if method == Method::GET => drop(reply.with_body(&bytes)),
                304 => drop(
                    reply
                        .with_body(b"")
                        .with_header("etag", &format!("\"{digest}\"")),
                ),
                _ => {}
            }
        }
    }
}

async fn nothing_is_compressed(registry: &Registry) {
    let repository = registry.repository("team/app");
    let bytes = vec![b'a'; 100_000];
    let digest = repository.push(bytes.clone()).await;
    let call = repository
        .blob(Method::GET, &digest)
        .header("accept-encoding", "zstd, gzip, deflate");
    let reply = call
        .send()
        .await
        .expect(200)
        .without_header("content-encoding");
    reply
        .with_header("content-length", "100000")
        .with_body(&bytes);
}

async fn a_blob_is_served_where_it_is_linked(registry: &Registry) {
    let (here, there) = (
        registry.repository("team/here"),
        registry.repository("team/there"),
    );
    let bytes = Content::new(1, 5000).bytes();
    let digest = here.push(bytes.clone()).await;
    there.push("{}").await;
    here.get_blob(&digest).await.expect(200);
    there.get_blob(&digest).await.refused(404, "BLOB_UNKNOWN");
    there.blob(Method::HEAD, &digest).send().await.expect(404);
    for (name, value) in [
        ("range", "bytes=0-1".to_owned()),
        ("if-none-match", format!("\"{digest}\"")),
    ] {
        let call = there.blob(Method::GET, &digest).header(name, value);
        call.send().await.refused(404, "BLOB_UNKNOWN");
    }
    there.push(bytes.clone()).await;
    there.get_blob(&digest).await.expect(200).with_body(&bytes);
}
