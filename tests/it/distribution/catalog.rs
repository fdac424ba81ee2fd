//! The list of repositories, and its pages.

use harness::at_each_door;
use harness::door::Registry;
use harness::repository::strings;

use super::tags::next_page;

at_each_door!(
    an_empty_registry,
    repositories_are_in_byte_order,
    pages,
    none_at_all
);

async fn an_empty_registry(registry: &Registry) {
    let reply = registry.get("/v2/_catalog").send().await.expect(200);
    assert!(strings(&reply.json()["repositories"]).is_empty());
}

async fn repositories_are_in_byte_order(registry: &Registry) {
    for name in ["b", "a/b", "a", "a-b", "a0"] {
        registry.repository(name).push("{}").await;
    }
    let reply = registry.get("/v2/_catalog").send().await.expect(200);
    let reply = reply
        .with_header("content-type", "application/json")
        .without_header("link");
    assert_eq!(
        strings(&reply.json()["repositories"]),
        ["a", "a-b", "a/b", "a0", "b"]
    );
}

async fn pages(registry: &Registry) {
    let names = ["a", "a/b", "b", "c/d/e", "f"];
    for name in names {
        registry.repository(name).push("{}").await;
    }
    for n in 1..=6 {
        let mut seen = Vec::new();
        let mut next = Some(format!("/v2/_catalog?n={n}"));
        while let Some(path) = next {
            let reply = registry.get(&path).send().await.expect(200);
            let page = strings(&reply.json()["repositories"]);
            assert!(!page.is_empty() && page.len() <= n, "{reply}");
            seen.extend(page);
            next = next_page(&reply);
        }
        assert_eq!(seen, names);
    }
    let reply = registry
        .get("/v2/_catalog?last=a%2Fb")
        .send()
        .await
        .expect(200);
    assert_eq!(strings(&reply.json()["repositories"]), ["b", "c/d/e", "f"]);
}

async fn none_at_all(registry: &Registry) {
    registry.repository("a").push("{}").await;
    let reply = registry
        .get("/v2/_catalog?n=0")
        .send()
        .await
        .expect(200)
        .without_header("link");
    assert!(strings(&reply.json()["repositories"]).is_empty());
}
