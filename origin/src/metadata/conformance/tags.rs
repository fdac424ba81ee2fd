//! Tags and listings.

use super::{
    Change, Instances, Sequence, all_changes, digest_of, manifest_of, now, page, publish,
    publish_of, repo, tag, tag_names,
};
use crate::metadata::TagRecord;

/// A tag's version grows with every move, also across deletion of the tag or of its manifest.
pub async fn versions_only_grow(instances: &Instances) {
    let (metadata, name, latest) = (&instances.one, repo("team/app"), tag("latest"));
    let version = async || {
        metadata
            .tag(&name, &latest)
            .await
            .unwrap()
            .map(|tag| tag.version)
    };
    publish(metadata, publish_of("team/app", "x", &["latest"])).await;
    assert_eq!(version().await, Some(1));
    let deleted = metadata.delete_tag(&name, &latest, now()).await.unwrap();
    assert_eq!(deleted, Some(Sequence::new(3)));
    assert_eq!(version().await, None);
    assert_eq!(
        metadata.delete_tag(&name, &latest, now()).await.unwrap(),
        None
    );
    publish(&instances.other, publish_of("team/app", "x", &["latest"])).await;
    assert_eq!(version().await, Some(3));
    metadata
        .delete_manifest(&name, &digest_of("x"), now())
        .await
        .unwrap();
    publish(&instances.other, publish_of("team/app", "x", &["latest"])).await;
    assert_eq!(version().await, Some(5));
    let record = |version| TagRecord {
        digest: digest_of("x"),
        version,
    };
    assert_eq!(
        all_changes(metadata).await,
        [
            Change::ManifestPublished(digest_of("x")),
            Change::TagMoved(latest.clone(), record(1)),
            Change::TagDeleted(latest.clone(), 2),
            Change::TagMoved(latest.clone(), record(3)),
            Change::TagDeleted(latest.clone(), 4),
            Change::ManifestDeleted(digest_of("x")),
            Change::ManifestPublished(digest_of("x")),
            Change::TagMoved(latest.clone(), record(5)),
        ]
    );
}

/// A moved tag points at the new manifest, and the old one stays.
pub async fn moved_tag(instances: &Instances) {
    let (name, latest) = (repo("team/app"), tag("latest"));
    publish(
        &instances.one,
        publish_of("team/app", "x", &["latest", "v1"]),
    )
    .await;
    let sequence = publish(
        &instances.one,
        publish_of("team/app", "y", &["latest", "v1"]),
    )
    .await;
    assert_eq!(sequence, Sequence::new(6));
    let found = instances.other.tag(&name, &latest).await.unwrap();
    assert_eq!(
        found,
        Some(TagRecord {
            digest: digest_of("y"),
            version: 2
        })
    );
    let old = instances
        .other
        .manifest(&name, &digest_of("x"))
        .await
        .unwrap();
    assert_eq!(old, Some(manifest_of("x")));
    assert_eq!(
        instances
            .other
            .tag(&repo("other/app"), &latest)
            .await
            .unwrap(),
        None
    );
}

/// Tags are listed in byte order, in pages; what a page starts behind need not exist.
pub async fn tag_pages(instances: &Instances) {
    let sorted = [
        "0", "1.10", "1.9", "A", "B", "Z-", "_x", "a", "a-", "a.b", "aA", "a_", "b", "z",
    ];
    let mut shuffled = sorted;
    shuffled.reverse();
    publish(&instances.one, publish_of("team/app", "x", &shuffled)).await;
    publish(&instances.one, publish_of("team/app", "x", &["gone"])).await;
    instances
        .one
        .delete_tag(&repo("team/app"), &tag("gone"), now())
        .await
        .unwrap();

    let names = async |after: Option<&str>, limit| {
        let next = page(after.map(tag), limit);
        tag_names(&instances.other, "team/app", &next).await
    };
    assert_eq!(names(None, 100).await, sorted);
    assert_eq!(names(None, 0).await, [""; 0]);
    assert_eq!(names(Some("B"), 3).await, ["Z-", "_x", "a"]);
    assert_eq!(names(Some("C"), 2).await, ["Z-", "_x"]);
    assert_eq!(names(Some("z"), 2).await, [""; 0]);
    for (limit, more) in [(0, true), (13, true), (14, false), (15, false)] {
        let listing = instances
            .one
            .tags(&repo("team/app"), &page(None, limit))
            .await
            .unwrap();
        assert_eq!(listing.unwrap().more, more, "{limit}");
    }
}

/// Repositories are listed in byte order, in pages.
pub async fn repository_pages(instances: &Instances) {
    let sorted = ["a", "a-b", "a.b", "a/b", "a0", "a_b", "aa", "b/a", "z"];
    for name in sorted.iter().rev() {
        publish(&instances.one, publish_of(name, "x", &[])).await;
    }
    let names = async |after: Option<&str>, limit| {
        let next = page(after.map(repo), limit);
        let listing = instances.other.repositories(&next).await.unwrap();
        let names: Vec<_> = listing.items.iter().map(ToString::to_string).collect();
        (names, listing.more)
    };
    assert_eq!(names(None, 100).await.0, sorted);
    let (some, more) = names(Some("a.a"), 3).await;
    assert_eq!(
        (some, more),
        (["a.b", "a/b", "a0"].map(ToOwned::to_owned).to_vec(), true)
    );
    assert_eq!(names(Some("b/a"), 1).await, (vec!["z".to_owned()], false));
    assert_eq!(names(None, 0).await, (vec![], true));
}

/// Tags that differ in case are different tags.
pub async fn case_of_tags(instances: &Instances) {
    publish(&instances.one, publish_of("team/app", "x", &["v1"])).await;
    publish(&instances.one, publish_of("team/app", "y", &["V1"])).await;
    let name = repo("team/app");
    let lower = instances.one.tag(&name, &tag("v1")).await.unwrap().unwrap();
    let upper = instances.one.tag(&name, &tag("V1")).await.unwrap().unwrap();
    assert_eq!(
        (lower.digest, upper.digest),
        (digest_of("x"), digest_of("y"))
    );
}
