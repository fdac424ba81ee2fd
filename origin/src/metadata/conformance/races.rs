//! What happens at once.

use futures_util::future::{join, join_all};

use super::{
    BTreeMap, Change, Instances, PublishError, all_changes, all_events, blob_of, digest_of, link,
    link_of, now, publish, publish_of, repo, tag,
};

const ROUNDS: usize = 20;

/// A manifest is never published behind the unlinking of its blob.
pub async fn publish_against_unlink(instances: &Instances) {
    let name = repo("team/app");
    for round in 0..ROUNDS {
        let layer = format!("layer {round}");
        link(&instances.one, "team/app", &layer).await;
        let mut wanted = publish_of("team/app", &format!("manifest {round}"), &["latest"]);
        wanted.blobs = vec![digest_of(&layer)];
        let unlink = digest_of(&layer);
        let (published, unlinked) = join(
            instances.one.publish(wanted, now()),
            instances.other.unlink_blob(&name, &unlink, now()),
        )
        .await;
        let unlinked = unlinked.unwrap().unwrap();
        match published {
            Ok(published) => assert!(published.sequence < unlinked),
            Err(PublishError::MissingBlobs(missing)) => assert_eq!(missing, [unlink]),
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// A tag never points at a manifest that is not there.
pub async fn publish_against_delete(instances: &Instances) {
    let (name, latest) = (repo("team/app"), tag("latest"));
    for _ in 0..ROUNDS {
        publish(&instances.one, publish_of("team/app", "x", &["v1"])).await;
        let (published, deleted) = join(
            instances
                .one
                .publish(publish_of("team/app", "x", &["latest"]), now()),
            instances
                .other
                .delete_manifest(&name, &digest_of("x"), now()),
        )
        .await;
        let published = published.unwrap().sequence;
        let deleted = deleted.unwrap().unwrap();
        let found = instances.one.tag(&name, &latest).await.unwrap();
        let manifest = instances
            .one
            .manifest(&name, &digest_of("x"))
            .await
            .unwrap();
        assert_eq!(found.is_some(), published > deleted);
        assert_eq!(manifest.is_some(), published > deleted);
    }
}

/// Publishers that set the same tags in different orders all succeed, and no version is used twice.
pub async fn tags_in_any_order(instances: &Instances) {
    let names: Vec<_> = (0..6).map(|n| format!("t{n}")).collect();
    let publishers = (0..12).map(|n| {
        let metadata = if n % 2 == 0 {
            &instances.one
        } else {
            &instances.other
        };
        let mut names: Vec<_> = names.iter().map(String::as_str).collect();
        names.rotate_left(n % 6);
        if n % 4 < 2 {
            names.reverse();
        }
        metadata.publish(
            publish_of("team/app", &format!("manifest {n}"), &names),
            now(),
        )
    });
    for published in join_all(publishers).await {
        published.unwrap();
    }
    let mut versions = BTreeMap::new();
    for change in all_changes(&instances.one).await {
        if let Change::TagMoved(tag, record) = change {
            let before = versions.insert(tag, record.version).unwrap_or(0);
            assert_eq!(record.version, before + 1);
        }
    }
    assert_eq!(versions.into_values().collect::<Vec<_>>(), [12; 6]);
}

/// Many first pushes to one repository make one repository.
pub async fn first_push_at_once(instances: &Instances) {
    let pushes = (0..12).map(|n| {
        let metadata = if n % 2 == 0 {
            &instances.one
        } else {
            &instances.other
        };
        metadata.publish(publish_of("team/app", "x", &["latest"]), now())
    });
    for published in join_all(pushes).await {
        published.unwrap();
    }
    assert_eq!(all_events(&instances.one).await.len(), 2);
}

/// The same blob may arrive in several repositories at once.
pub async fn link_at_once(instances: &Instances) {
    for round in 0..ROUNDS / 4 {
        let content = format!("layer {round}");
        let links = (0..12).map(|n| {
            let metadata = if n % 2 == 0 {
                &instances.one
            } else {
                &instances.other
            };
            metadata.link_blob(link_of(&format!("team/app{}", n % 5), &content), now())
        });
        for linked in join_all(links).await {
            linked.unwrap();
        }
        for n in 0..5 {
            let found = instances
                .one
                .blob(&repo(&format!("team/app{n}")), &digest_of(&content))
                .await;
            assert_eq!(found.unwrap(), Some(blob_of(&content)));
        }
    }
}
