//! Nodes that are stopped and started again.

use harness::content::Content;
use harness::node::{Edge, Origin};
use harness::process::Ended;
use harness::raw::Raw;
use harness::repository::Repository;
use harness::wire::Wire;
use http::Method;
use rustix::process::Signal;

#[tokio::test]
async fn an_origin_has_everything_after_a_restart() {
    let mut origin = Origin::start().await;
    let repository = Repository::new(origin.client(), "team/app");
    let content = Content::new(9, 2_000_000);
    let mut image = None;
    let location = repository.start_upload().await;
    for round in 0..4 {
        let pushed = repository.push_image(&format!("v{round}"), round).await;
        let patch = repository
            .client()
            .patch(&location)
            .body(content.slice(round * 100_000..(round + 1) * 100_000));
        patch.send().await.expect(202);
        // In turn, as a good end and as a bad one.
        if round % 2 == 0 {
            origin.stop();
        } else {
            origin.kill();
        }
        origin.start_again().await;
        repository
            .get_manifest(format!("v{round}"))
            .await
            .expect(200)
            .with_body(&pushed.manifest.body);
        repository
            .get_blob(&pushed.layer_digest())
            .await
            .expect(200)
            .with_body(&pushed.layer);
        assert_eq!(
            repository.upload_offset(&location).await,
            (round + 1) * 100_000
        );
        image = Some(pushed);
    }
    assert_eq!(repository.tags().await, ["v0", "v1", "v2", "v3"]);
    let image = image.unwrap();
    repository
        .manifest(Method::DELETE, image.manifest.digest())
        .send()
        .await
        .expect(202);
    origin.kill();
    origin.start_again().await;
    repository
        .get_manifest("v3")
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    let put = repository.finish_upload(&location, &content.sha256());
    put.content_from(content, 400_000).send().await.expect(201);
}

#[tokio::test]
async fn the_sequence_goes_on_after_a_restart() {
    let mut origin = Origin::start().await;
    let repository = Repository::new(origin.client(), "team/app");
    let mut last = 0;
    for seed in 0..3 {
        let image = repository.push_image_parts(seed).await.manifest;
        let reply = repository.put_manifest("latest", &image).await.expect(201);
        let sequence: u64 = reply.header("outport-sequence").parse().unwrap();
        assert!(sequence > last, "{sequence} after {last}");
        last = sequence;
        origin.kill();
        origin.start_again().await;
    }
}

#[tokio::test]
async fn an_edge_keeps_its_cache() {
    let origin = Origin::start().await;
    let wire = Wire::to(origin.address()).await;
    let mut edge = Edge::start_at(wire.address()).await;
    let repository = Repository::new(edge.client(), "team/app");
    let content = Content::new(1, 3_000_000);
    Repository::new(origin.client(), "team/app")
        .push_content(content)
        .await;
    let digest = content.sha256();
    for round in 0..3 {
        let mut open = repository.blob(Method::GET, &digest).open().await;
        assert_eq!(open.read_content(content, 0).await.unwrap(), content.size());
        if round == 0 {
            edge.stop();
        } else {
            edge.kill();
        }
        edge.start_again().await;
    }
    assert_eq!(
        wire.count("GET ", &format!("/blobs/{digest}")),
        1,
        "{:?}",
        wire.requests()
    );
}

#[tokio::test]
async fn an_edge_that_was_killed_in_a_download_serves_it_right() {
    let origin = Origin::start().await;
    let mut edge = Edge::start(&origin).await;
    let repository = Repository::new(edge.client(), "team/app");
    let content = Content::new(1, 48 << 20);
    let digest = Repository::new(origin.client(), "team/app")
        .push_content(content)
        .await;
    for pieces in [0, 1, 20] {
        let mut open = repository.blob(Method::GET, &digest).open().await;
        for _ in 0..pieces {
            open.next().await.unwrap();
        }
        edge.kill();
        // What is in the socket may still be read; it cannot be all.
        let mut rest = Ok(Some(bytes::Bytes::new()));
        while let Ok(Some(_)) = rest {
            rest = open.next().await;
        }
        edge.start_again().await;
    }
    let mut open = repository.blob(Method::GET, &digest).open().await;
    assert_eq!(open.read_content(content, 0).await.unwrap(), content.size());
}

#[tokio::test]
async fn requests_under_way_are_finished_before_a_node_stops() {
    let mut origin = Origin::start().await;
    let repository = Repository::new(origin.client(), "team/app");
    let content = Content::new(1, 1000);
    let location = repository.start_upload().await;
    let target =
        harness::repository::with_query(&location, &format!("digest={}", content.sha256()));
    let mut raw = Raw::connect(origin.address()).await;
    let head = format!(
        "PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
    );
    raw.write(head).await.unwrap();
    // The node has the request when it asks for the body.
    assert_eq!(raw.reply().await.status, Some(100));
    raw.write(content.slice(0..500)).await.unwrap();
    origin.process().signal(Signal::TERM);
    raw.write(content.slice(500..1000)).await.unwrap();
    assert_eq!(raw.reply().await.status, Some(201));
    assert_eq!(origin.ended(), Ended::Cleanly);
    origin.start_again().await;
    repository
        .get_blob(&content.sha256())
        .await
        .expect(200)
        .with_body(&content.bytes());
}

#[tokio::test]
async fn idle_connections_do_not_hold_a_node() {
    let mut origin = Origin::start().await;
    let mut edge = Edge::start(&origin).await;
    let mut raws = Vec::new();
    for address in [origin.address(), edge.address()] {
        for half_a_request in ["", "GET /v2/ HT"] {
            let mut raw = Raw::connect(address).await;
            raw.write(half_a_request).await.unwrap();
            raws.push(raw);
        }
    }
    edge.client().get("/v2/").send().await.expect(200);
    edge.stop();
    origin.stop();
}
