//! The list of a repository's tags, and its pages.

use harness::at_each_door;
use harness::door::Registry;
use harness::reply::Reply;
use harness::repository::{Repository, strings};
use http::Method;

at_each_door!(
    an_unknown_repository,
    a_repository_without_tags,
    tags_are_in_byte_order,
    pages,
    the_last_page_has_no_link,
    none_at_all,
    a_last_that_is_no_tag,
    head_has_no_body
);

async fn push_tags(repository: &Repository, tags: &[&str]) {
    let image = repository.push_image_parts(1).await.manifest;
    for tag in tags {
        repository.put_manifest(tag, &image).await.expect(201);
    }
}

async fn list(repository: &Repository, query: &str) -> Reply {
    let reply = repository
        .call(Method::GET, &format!("tags/list{query}"))
        .send()
        .await
        .expect(200);
    let reply = reply.with_header("content-type", "application/json");
    assert_eq!(reply.json()["name"], repository.name());
    reply
}

#[track_caller]
fn has(reply: &Reply, tags: &[&str]) {
    assert_eq!(strings(&reply.json()["tags"]), tags, "{reply}");
}

async fn an_unknown_repository(registry: &Registry) {
    let repository = registry.repository("team/app");
    repository
        .call(Method::GET, "tags/list")
        .send()
        .await
        .refused(404, "NAME_UNKNOWN");
}

async fn a_repository_without_tags(registry: &Registry) {
    let repository = registry.repository("team/app");
    repository.push("{}").await;
    has(&list(&repository, "").await, &[]);
    let image = repository.push_image_parts(1).await.manifest;
    repository
        .put_manifest(image.digest(), &image)
        .await
        .expect(201);
    has(&list(&repository, "").await, &[]);
}

async fn tags_are_in_byte_order(registry: &Registry) {
    let repository = registry.repository("team/app");
    push_tags(
        &repository,
        &["b", "a", "_", "Z", "10", "9", "a-b", "a.b", "A"],
    )
    .await;
    has(
        &list(&repository, "").await,
        &["10", "9", "A", "Z", "_", "a", "a-b", "a.b", "b"],
    );
    has(
        &list(&repository, "?last=Z").await,
        &["_", "a", "a-b", "a.b", "b"],
    );
}

async fn pages(registry: &Registry) {
    let repository = registry.repository("team/app");
    let tags = ["a", "b", "c", "d", "e", "f", "g"];
    push_tags(&repository, &tags).await;
    for n in 1..=8 {
        let mut seen = Vec::new();
        let mut next = Some(repository.path(&format!("tags/list?n={n}")));
        while let Some(path) = next {
            let reply = registry.get(&path).send().await.expect(200);
            let page = strings(&reply.json()["tags"]);
            assert!(!page.is_empty() && page.len() <= n, "{reply}");
            seen.extend(page);
            next = next_page(&reply);
            assert!(next.is_none() || seen.len() % n == 0, "{reply}");
        }
        assert_eq!(seen, tags);
    }
}

/// Returns the path of the next page, if there is one.
#[track_caller]
pub(super) fn next_page(reply: &Reply) -> Option<String> {
    if !reply.headers.contains_key("link") {
        return None;
    }
    let link = reply
        .header("link")
        .strip_suffix(">; rel=\"next\"")
        .expect("a link to the next page");
    let path = link.strip_prefix('<').unwrap();
    assert!(path.starts_with("/v2/"), "{reply}");
    Some(path.to_owned())
}

async fn the_last_page_has_no_link(registry: &Registry) {
    let repository = registry.repository("team/app");
    push_tags(&repository, &["a", "b", "c"]).await;
    has(
        &list(&repository, "").await.without_header("link"),
        &["a", "b", "c"],
    );
    has(
        &list(&repository, "?n=3").await.without_header("link"),
        &["a", "b", "c"],
    );
    has(
        &list(&repository, "?n=2&last=a")
            .await
            .without_header("link"),
        &["b", "c"],
    );
    has(
        &list(&repository, "?n=2&last=c")
            .await
            .without_header("link"),
        &[],
    );
    let reply = list(&repository, "?n=2").await;
    has(&reply, &["a", "b"]);
    assert!(reply.headers.contains_key("link"));
}

async fn none_at_all(registry: &Registry) {
    let repository = registry.repository("team/app");
    push_tags(&repository, &["a", "b"]).await;
    has(&list(&repository, "?n=0").await.without_header("link"), &[]);
    has(
        &list(&repository, "?n=0&last=a")
            .await
            .without_header("link"),
        &[],
    );
}

async fn a_last_that_is_no_tag(registry: &Registry) {
    let repository = registry.repository("team/app");
    push_tags(&repository, &["a", "c", "e"]).await;
    has(&list(&repository, "?last=b").await, &["c", "e"]);
    has(&list(&repository, "?last=0").await, &["a", "c", "e"]);
    has(&list(&repository, "?last=zz").await, &[]);
    has(&list(&repository, "?last=").await, &["a", "c", "e"]);
}

async fn head_has_no_body(registry: &Registry) {
    let repository = registry.repository("team/app");
    push_tags(&repository, &["a"]).await;
    repository
        .call(Method::HEAD, "tags/list")
        .send()
        .await
        .expect(200);
}
