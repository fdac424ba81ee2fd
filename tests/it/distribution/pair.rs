//! Two origins over one database and one location are one registry.

use harness::content::Content;
use harness::node::Origin;
use harness::repository::Repository;
use http::Method;

/// Starts two origins and returns one repository at each.
async fn pair() -> ([Origin; 2], [Repository; 2]) {
    let first = Origin::start().await;
    let second = first.start_beside().await;
    let repositories =
        [first.client(), second.client()].map(|client| Repository::new(client, "team/app"));
    ([first, second], repositories)
}

#[tokio::test]
async fn chunks_of_one_push_alternate() {
    let (_origins, repositories) = pair().await;
    let content = Content::new(1, 1_000_003);
    let location = repositories[0].start_upload().await;
    let mut offset = 0;
    for round in 0.. {
        let end = content.size().min(offset + 60_000);
        let [here, there] = [&repositories[round % 2], &repositories[(round + 1) % 2]];
        let patch = here
            .client()
            .patch(&location)
            .header("content-range", format!("{offset}-{}", end - 1));
        patch
            .body(content.slice(offset..end))
            .send()
            .await
            .expect(202);
        assert_eq!(there.upload_offset(&location).await, end);
        // What the other one took cannot be sent again.
        let patch = there
            .client()
            .patch(&location)
            .header("content-range", format!("{offset}-{}", end - 1));
        patch
            .body(content.slice(offset..end))
            .send()
            .await
            .refused(416, "RANGE_INVALID");
        offset = end;
        if offset == content.size() {
            break;
        }
    }
    repositories[1]
        .finish_upload(&location, &content.sha256())
        .send()
        .await
        .expect(201);
    for repository in &repositories {
        repository
            .get_blob(&content.sha256())
            .await
            .expect(200)
            .with_body(&content.bytes());
        repository
            .client()
            .get(&location)
            .send()
            .await
            .refused(404, "BLOB_UPLOAD_UNKNOWN");
    }
}

#[tokio::test]
async fn a_push_goes_on_at_the_other_one() {
    let (mut origins, repositories) = pair().await;
    let content = Content::new(1, 1_000_003);
    let location = repositories[0].start_upload().await;
    repositories[0]
        .client()
        .patch(&location)
        .body(content.slice(0..500_000))
        .send()
        .await
        .expect(202);
    origins[0].kill();
    assert_eq!(repositories[1].upload_offset(&location).await, 500_000);
    let put = repositories[1].finish_upload(&location, &content.sha256());
    put.content_from(content, 500_000).send().await.expect(201);
    repositories[1]
        .get_blob(&content.sha256())
        .await
        .expect(200)
        .with_body(&content.bytes());
}

#[tokio::test]
async fn what_one_takes_the_other_serves_at_once() {
    let (_origins, [a, b]) = pair().await;
    for seed in 0..10 {
        let (here, there) = if seed % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let image = here.push_image("latest", seed).await;
        there
            .get_manifest("latest")
            .await
            .expect(200)
            .with_body(&image.manifest.body);
        there
            .get_manifest(image.manifest.digest())
            .await
            .expect(200);
        there
            .get_blob(&image.layer_digest())
            .await
            .expect(200)
            .with_body(&image.layer);
    }
}

#[tokio::test]
async fn what_one_deletes_the_other_misses_at_once() {
    let (_origins, [a, b]) = pair().await;
    for (here, there) in [(&a, &b), (&b, &a)] {
        let image = here.push_image("latest", 1).await;
        let (digest, layer) = (image.manifest.digest(), image.layer_digest());
        // Both know them.
        for repository in [here, there] {
            repository.get_manifest("latest").await.expect(200);
            repository.get_manifest(digest).await.expect(200);
            repository.get_blob(&layer).await.expect(200);
        }
        here.manifest(Method::DELETE, "latest")
            .send()
            .await
            .expect(202);
        there
            .get_manifest("latest")
            .await
            .refused(404, "MANIFEST_UNKNOWN");
        assert!(there.tags().await.is_empty());
        here.manifest(Method::DELETE, digest)
            .send()
            .await
            .expect(202);
        there
            .get_manifest(digest)
            .await
            .refused(404, "MANIFEST_UNKNOWN");
        here.blob(Method::DELETE, &layer).send().await.expect(202);
        there.get_blob(&layer).await.refused(404, "BLOB_UNKNOWN");
    }
}

#[tokio::test]
async fn one_tag_pushed_at_both_is_one_of_them() {
    let (_origins, [a, b]) = pair().await;
    let images = [a.push_image_parts(1).await, b.push_image_parts(2).await];
    for _ in 0..10 {
        let pushes = [&a, &b].into_iter().zip(&images);
        let pushes =
            pushes.map(|(repository, image)| repository.put_manifest("latest", &image.manifest));
        for reply in futures_util::future::join_all(pushes).await {
            reply.expect(201);
        }
        let [at_a, at_b] = [
            a.get_manifest("latest").await.expect(200),
            b.get_manifest("latest").await.expect(200),
        ];
        assert_eq!(at_a.body, at_b.body);
    }
}
