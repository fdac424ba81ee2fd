//! Tags that go along with a push by digest, and the feed position that every push answers with.

use harness::at_each_door;
use harness::door::Registry;
use harness::reply::Reply;

at_each_door!(
    tags_in_the_query,
    many_tags,
    too_many_tags,
    tags_move,
    tags_in_the_query_of_a_push_by_tag,
    a_refused_push_moves_no_tag,
    the_sequence_grows
);

fn accepted(reply: &Reply) -> Vec<String> {
    let lines = reply.headers("oci-tag");
    let mut tags: Vec<_> = lines
        .iter()
        .flat_map(|line| line.split(','))
        .map(|tag| tag.trim().to_owned())
        .collect();
    tags.sort();
    tags
}

async fn tags_in_the_query(registry: &Registry) {
    let repository = registry.repository("team/app");
    let image = repository.push_image_parts(1).await.manifest;
    for tags in [&["a"][..], &["b", "c"]] {
        let path = format!("{}?tag={}", image.digest(), tags.join("&tag="));
        let reply = repository.put_manifest(path, &image).await.expect(201);
        assert_eq!(accepted(&reply), tags);
        for tag in tags {
            repository
                .get_manifest(tag)
                .await
                .expect(200)
                .with_body(&image.body);
        }
    }
    assert_eq!(repository.tags().await, ["a", "b", "c"]);
    let reply = repository
        .put_manifest(image.digest(), &image)
        .await
        .expect(201);
    reply.without_header("oci-tag");
}

async fn many_tags(registry: &Registry) {
    let repository = registry.repository("team/app");
    let image = repository.push_image_parts(1).await.manifest;
    let tags: Vec<_> = (10..30).map(|number| format!("v1.{number}")).collect();
    let path = format!(
        "{}?tag={}&tag={}",
        image.digest(),
        tags.join("&tag="),
        tags[0]
    );
    let reply = repository.put_manifest(path, &image).await.expect(201);
    assert_eq!(accepted(&reply), tags);
    assert_eq!(repository.tags().await, tags);
}

async fn too_many_tags(registry: &Registry) {
    let repository = registry.repository("team/app");
    let image = repository.push_image_parts(1).await.manifest;
    let tags: Vec<_> = (0..200).map(|number| format!("tag={number}")).collect();
    let path = format!("{}?{}", image.digest(), tags.join("&"));
    repository.put_manifest(path, &image).await.expect(414);
    assert!(repository.tags().await.is_empty());
}

async fn tags_move(registry: &Registry) {
    let repository = registry.repository("team/app");
    let first = repository.push_image("a", 1).await.manifest;
    let second = repository.push_image_parts(2).await.manifest;
    repository
        .put_manifest(format!("{}?tag=a&tag=b", second.digest()), &second)
        .await
        .expect(201);
    repository
        .get_manifest("a")
        .await
        .expect(200)
        .with_body(&second.body);
    repository
        .get_manifest("b")
        .await
        .expect(200)
        .with_body(&second.body);
    repository
        .get_manifest(first.digest())
        .await
        .expect(200)
        .with_body(&first.body);
    repository.put_manifest("a", &first).await.expect(201);
    repository
        .get_manifest("a")
        .await
        .expect(200)
        .with_body(&first.body);
    repository
        .get_manifest("b")
        .await
        .expect(200)
        .with_body(&second.body);
}

async fn tags_in_the_query_of_a_push_by_tag(registry: &Registry) {
    let repository = registry.repository("team/app");
    let image = repository.push_image_parts(1).await.manifest;
    // The specification knows them with a digest only.
    let reply = repository.put_manifest("a?tag=b", &image).await;
    assert!(matches!(reply.status.as_u16(), 201 | 400), "{reply}");
    assert!(!repository.tags().await.contains(&"b".to_owned()));
}

async fn a_refused_push_moves_no_tag(registry: &Registry) {
    let repository = registry.repository("team/app");
    let first = repository.push_image("a", 1).await.manifest;
    let second = repository.push_image_parts(2).await.manifest;
    let path = format!("{}?tag=a&tag=-bad", second.digest());
    repository
        .put_manifest(path, &second)
        .await
        .refused(400, "NAME_INVALID");
    repository
        .get_manifest("a")
        .await
        .expect(200)
        .with_body(&first.body);
    repository
        .get_manifest(second.digest())
        .await
        .refused(404, "MANIFEST_UNKNOWN");
}

async fn the_sequence_grows(registry: &Registry) {
    let repository = registry.repository("team/app");
    let mut last = 0;
    for seed in 0..5 {
        let image = repository.push_image_parts(seed).await.manifest;
        let reply = repository.put_manifest("latest", &image).await.expect(201);
        let sequence: u64 = reply.header("outport-sequence").parse().unwrap();
        assert!(sequence > last, "{sequence} after {last}");
        // Nothing has changed, so nothing has happened: the same position still contains it.
        let reply = repository.put_manifest("latest", &image).await.expect(201);
        let again: u64 = reply.header("outport-sequence").parse().unwrap();
        assert!(again >= sequence, "{again} after {sequence}");
        last = sequence;
    }
}
