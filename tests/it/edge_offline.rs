//! An edge whose origin is away: it serves what it holds, and says so of what it does not.

use std::time::Duration;

use harness::content::Content;
use harness::eventually::eventually;
use harness::node::{Edge, Origin};
use harness::repository::{PushedImage, Repository};
use harness::wire::Wire;
use http::Method;
use tokio::time::{Instant, timeout};

/// Starts an origin with an image, and an edge that has pulled it by tag.
async fn pulled() -> (Origin, Edge, Repository, PushedImage) {
    let origin = Origin::start().await;
    let edge = Edge::start(&origin).await;
    let at_origin = Repository::new(origin.client(), "team/app");
    let image = at_origin.push_image("latest", 1).await;
    at_origin.push_image("other", 2).await;
    let repository = at_origin.behind(edge.client());
    repository.get_manifest("latest").await.expect(200);
    repository
        .get_blob(&image.config_digest())
        .await
        .expect(200);
    repository.get_blob(&image.layer_digest()).await.expect(200);
    (origin, edge, repository, image)
}

async fn is_served(repository: &Repository, image: &PushedImage) {
    for reference in ["latest".to_owned(), image.manifest.digest().to_string()] {
        let reply = repository.get_manifest(&reference).await.expect(200);
        let reply = reply.with_body(&image.manifest.body);
        reply.with_header(
            "docker-content-digest",
            &image.manifest.digest().to_string(),
        );
        repository
            .manifest(Method::HEAD, &reference)
            .send()
            .await
            .expect(200);
    }
    repository
        .get_blob(&image.layer_digest())
        .await
        .expect(200)
        .with_body(&image.layer);
    repository
        .get_blob(&image.config_digest())
        .await
        .expect(200)
        .with_body(&image.config);
    let ranged = repository
        .blob(Method::GET, &image.layer_digest())
        .header("range", "bytes=10-19");
    ranged
        .send()
        .await
        .expect(206)
        .with_body(&image.layer[10..20]);
}

/// What the edge does not hold it cannot know: that is no 404, and it does not take long to say.
async fn is_unavailable(repository: &Repository) {
    let missing = Content::new(77, 1000).sha256();
    let calls = [
        repository.manifest(Method::GET, "other"),
        repository.manifest(Method::GET, "never-was"),
        repository.manifest(Method::GET, missing),
        repository.blob(Method::GET, &missing),
        repository.call(Method::GET, "tags/list"),
        repository.call(Method::GET, &format!("referrers/{missing}")),
        repository.call(Method::POST, "blobs/uploads/"),
        repository.manifest(Method::PUT, "new").body("{}"),
        repository.manifest(Method::DELETE, "latest"),
    ];
    for call in calls {
        let begin = Instant::now();
        let reply = call.send().await.refused(503, "UNAVAILABLE");
        let seconds: u64 = reply.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&seconds), "{reply}");
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "{:?}: {reply}",
            begin.elapsed()
        );
    }
    repository.client().get("/v2/").send().await.expect(200);
}

#[tokio::test]
async fn it_serves_what_it_holds() {
    let (mut origin, _edge, repository, image) = pulled().await;
    origin.kill();
    is_served(&repository, &image).await;
}

#[tokio::test]
async fn it_is_unavailable_for_what_it_does_not_hold() {
    let (mut origin, _edge, repository, image) = pulled().await;
    origin.kill();
    is_unavailable(&repository).await;
    is_served(&repository, &image).await;
    origin.start_again().await;
    // The edge rests between its attempts to reach it.
    eventually("the origin's answer", async || {
        let reply = repository.get_manifest("other").await;
        (reply.status == 200).then_some(())
    })
    .await;
    repository
        .get_manifest("never-was")
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    repository.push("pushed").await;
}

#[tokio::test]
async fn it_starts_and_serves_without_the_origin() {
    let (mut origin, mut edge, repository, image) = pulled().await;
    origin.kill();
    for _ in 0..2 {
        edge.stop();
        edge.start_again().await;
        is_served(&repository, &image).await;
    }
    edge.kill();
    edge.start_again().await;
    is_served(&repository, &image).await;
    is_unavailable(&repository).await;
}

#[tokio::test]
async fn a_silent_origin_is_as_good_as_away() {
    let (origin, _edge, repository, image) = pulled().await;
    origin.process().pause();
    let served = timeout(Duration::from_mins(1), is_served(&repository, &image)).await;
    origin.process().resume();
    served.expect("it does not wait for the origin for ever");
}

#[tokio::test]
async fn a_tag_that_moved_meanwhile_is_seen_afterwards() {
    let (origin, mut edge, repository, image) = pulled().await;
    edge.kill();
    let moved = repository
        .behind(origin.client())
        .push_image("latest", 3)
        .await;
    edge.start_again().await;
    repository
        .get_manifest("latest")
        .await
        .expect(200)
        .with_body(&moved.manifest.body);
    repository
        .get_manifest(image.manifest.digest())
        .await
        .expect(200);
}

#[tokio::test]
async fn a_connection_that_breaks_in_a_download_is_not_the_clients_matter() {
    let origin = Origin::start().await;
    let wire = Wire::to(origin.address()).await;
    let edge = Edge::start_at(wire.address()).await;
    let repository = Repository::new(edge.client(), "team/app");
    let content = Content::new(1, 64 << 20);
    let digest = repository
        .behind(origin.client())
        .push_content(content)
        .await;
    let mut open = repository.blob(Method::GET, &digest).open().await;
    assert_eq!(open.head.status, 200);
    // The client has read little, so most is still on its way.
    let first = open.next().await.unwrap().unwrap();
    wire.cut();
    wire.mend();
    let rest = open
        .read_content(content, first.len() as u64)
        .await
        .unwrap();
    assert_eq!(first.len() as u64 + rest, content.size());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_makes_one_request() {
    let origin = Origin::start().await;
    let wire = Wire::to(origin.address()).await;
    let edge = Edge::start_at(wire.address()).await;
    let content = Content::new(1, 64 << 20);
    let digest = Repository::new(origin.client(), "team/app")
        .push_content(content)
        .await;
    let before = wire.answered_bytes();
    let clients = (0..50).map(|client| {
        // Each has a connection of its own, and some want the end first.
        let repository = Repository::new(edge.client(), "team/app");
        let start = if client % 10 == 9 { 60 << 20 } else { 0 };
        async move {
            let call = repository
                .blob(Method::GET, &digest)
                .header("range", format!("bytes={start}-"));
            let mut open = call.open().await;
            assert_eq!(open.head.status, 206, "{}", open.head);
            open.read_content(content, start).await.unwrap() + start
        }
    });
    for end in futures_util::future::join_all(clients).await {
        assert_eq!(end, content.size());
    }
    let blob = format!("/blobs/{digest}");
    assert_eq!(wire.count("GET ", &blob), 1, "{:?}", wire.requests());
    let bytes = wire.answered_bytes() - before;
    assert!(bytes < content.size() * 105 / 100, "{bytes}");
    // From here on nobody is asked for the bytes.
    let repository = Repository::new(edge.client(), "team/app");
    let mut open = repository.blob(Method::GET, &digest).open().await;
    open.read_content(content, 0).await.unwrap();
    assert_eq!(wire.count("GET ", &blob), 1, "{:?}", wire.requests());
}

#[tokio::test]
async fn clients_that_leave_do_not_stop_a_download() {
    let origin = Origin::start().await;
    let wire = Wire::to(origin.address()).await;
    let edge = Edge::start_at(wire.address()).await;
    let repository = Repository::new(edge.client(), "team/app");
    let content = Content::new(1, 32 << 20);
    let digest = repository
        .behind(origin.client())
        .push_content(content)
        .await;
    let mut first = Repository::new(edge.client(), "team/app")
        .blob(Method::GET, &digest)
        .open()
        .await;
    let mut second = repository.blob(Method::GET, &digest).open().await;
    first.next().await.unwrap();
    drop(first);
    assert_eq!(
        second.read_content(content, 0).await.unwrap(),
        content.size()
    );
    assert_eq!(
        wire.count("GET ", &format!("/blobs/{digest}")),
        1,
        "{:?}",
        wire.requests()
    );
}

#[tokio::test]
async fn what_is_cached_is_served_where_it_is_linked() {
    let origin = Origin::start().await;
    let edge = Edge::start(&origin).await;
    let [a, b] = ["team/a", "team/b"].map(|name| Repository::new(edge.client(), name));
    let bytes = Content::new(1, 100_000).bytes();
    let digest = a.behind(origin.client()).push(bytes.clone()).await;
    let image = a
        .behind(origin.client())
        .push_image("latest", 2)
        .await
        .manifest;
    a.get_blob(&digest).await.expect(200);
    a.get_manifest(image.digest()).await.expect(200);

    b.behind(origin.client()).push("{}").await;
    b.get_blob(&digest).await.refused(404, "BLOB_UNKNOWN");
    b.blob(Method::HEAD, &digest).send().await.expect(404);
    b.get_manifest(image.digest())
        .await
        .refused(404, "MANIFEST_UNKNOWN");

    b.behind(origin.client()).push(bytes.clone()).await;
    b.get_blob(&digest).await.expect(200).with_body(&bytes);
    b.push_image("latest", 2).await;
    b.get_manifest(image.digest())
        .await
        .expect(200)
        .with_body(&image.body);
}
