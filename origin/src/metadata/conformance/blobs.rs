//! Blobs and links.

use super::{
    Change, Instances, PublishError, RepoName, Sequence, all_changes, blob_of, digest_of, link,
    link_of, now, publish, publish_of, repo,
};

/// A blob is there for those who link it, as long as they do.
pub async fn link_and_unlink(instances: &Instances) {
    let (one, other) = (&instances.one, &instances.other);
    let (name, digest) = (repo("team/app"), digest_of("layer"));
    link(one, "team/app", "layer").await;
    assert_eq!(
        other.blob(&name, &digest).await.unwrap(),
        Some(blob_of("layer"))
    );
    assert_eq!(other.blob(&repo("other/app"), &digest).await.unwrap(), None);
    assert!(other.repository_exists(&name).await.unwrap());

    let unlinked = other.unlink_blob(&name, &digest, now()).await.unwrap();
    assert_eq!(unlinked, Some(Sequence::new(1)));
    assert_eq!(all_changes(one).await, [Change::BlobUnlinked(digest)]);
    assert_eq!(one.blob(&name, &digest).await.unwrap(), None);
    assert_eq!(one.unlink_blob(&name, &digest, now()).await.unwrap(), None);

    link(one, "team/app", "layer").await;
    assert_eq!(
        other.blob(&name, &digest).await.unwrap(),
        Some(blob_of("layer"))
    );
}

/// Linking what is linked changes nothing; another location is one more placement.
pub async fn link_twice(instances: &Instances) {
    for location in ["us", "us", "eu"] {
        let mut link = link_of("team/app", "layer");
        location.clone_into(&mut link.location);
        instances.one.link_blob(link, now()).await.unwrap();
    }
    link(&instances.other, "other/app", "layer").await;
    let found = instances
        .one
        .blob(&repo("other/app"), &digest_of("layer"))
        .await;
    assert_eq!(found.unwrap(), Some(blob_of("layer")));
    assert_eq!(instances.one.position().await.unwrap(), Sequence::START);
}

/// A mount gives what the other repository links, and no more.
pub async fn mount(instances: &Instances) {
    let metadata = &instances.one;
    let (name, from, digest) = (repo("team/app"), repo("from/app"), digest_of("layer"));
    let mount = async |from: Option<&RepoName>| {
        metadata
            .mount_blob(&name, &digest, from, now())
            .await
            .unwrap()
    };
    assert_eq!(mount(Some(&from)).await, None);
    assert_eq!(mount(None).await, None);
    assert!(!metadata.repository_exists(&name).await.unwrap());

    link(metadata, "third/app", "layer").await;
    assert_eq!(mount(Some(&from)).await, None);
    assert_eq!(metadata.blob(&name, &digest).await.unwrap(), None);
    assert_eq!(mount(None).await, Some(blob_of("layer")));
    assert_eq!(
        metadata.blob(&name, &digest).await.unwrap(),
        Some(blob_of("layer"))
    );
    assert_eq!(
        mount(Some(&repo("third/app"))).await,
        Some(blob_of("layer"))
    );

    metadata.unlink_blob(&name, &digest, now()).await.unwrap();
    metadata
        .unlink_blob(&repo("third/app"), &digest, now())
        .await
        .unwrap();
    assert_eq!(mount(None).await, None);
}

/// A blob that a manifest needs is unlinked all the same, and the manifest can be pushed again only with it.
pub async fn unlink_below_manifest(instances: &Instances) {
    let (metadata, name) = (&instances.one, repo("team/app"));
    link(metadata, "team/app", "layer").await;
    let mut wanted = publish_of("team/app", "x", &["latest"]);
    wanted.blobs = vec![digest_of("layer")];
    publish(metadata, wanted.clone()).await;
    let unlinked = metadata
        .unlink_blob(&name, &digest_of("layer"), now())
        .await
        .unwrap();
    assert_eq!(unlinked, Some(Sequence::new(3)));
    assert!(
        metadata
            .manifest(&name, &digest_of("x"))
            .await
            .unwrap()
            .is_some()
    );
    let refused = metadata.publish(wanted, now()).await.unwrap_err();
    assert!(matches!(refused, PublishError::MissingBlobs(missing) if missing.len() == 1));
}

/// Sizes have 63 bits.
pub async fn large_sizes(instances: &Instances) {
    let mut link = link_of("team/app", "layer");
    link.blob.size = 1 << 62;
    instances.one.link_blob(link.clone(), now()).await.unwrap();
    let found = instances
        .other
        .blob(&repo("team/app"), &link.blob.digest)
        .await;
    assert_eq!(found.unwrap(), Some(link.blob));
}
