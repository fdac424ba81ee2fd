//! Manifests and referrers.

use super::{
    Algorithm, Arc, Change, Digest, Instances, Metadata, Publish, PublishError, RepoName, Sequence,
    Tag, all_changes, all_events, digest_of, link, now, page, publish, publish_of, repo, tag,
    tag_names,
};
use crate::metadata::Referrer;

/// Nothing is there before anything was pushed.
pub async fn starts_empty(instances: &Instances) {
    let metadata = &instances.one;
    let (name, digest) = (repo("team/app"), digest_of("x"));
    assert_eq!(metadata.position().await.unwrap(), Sequence::START);
    assert_eq!(all_events(metadata).await, []);
    assert!(!metadata.repository_exists(&name).await.unwrap());
    assert_eq!(metadata.tag(&name, &tag("latest")).await.unwrap(), None);
    assert_eq!(metadata.manifest(&name, &digest).await.unwrap(), None);
    assert_eq!(metadata.blob(&name, &digest).await.unwrap(), None);
    assert_eq!(metadata.tags(&name, &page(None, 9)).await.unwrap(), None);
    let none = metadata
        .referrers(&name, &digest, None, &page(None, 9))
        .await
        .unwrap();
    assert_eq!((none.items.len(), none.more), (0, false));
    let none = metadata.repositories(&page(None, 9)).await.unwrap();
    assert_eq!((none.items.len(), none.more), (0, false));
    assert_eq!(
        metadata.delete_tag(&name, &tag("a"), now()).await.unwrap(),
        None
    );
    assert_eq!(
        metadata
            .delete_manifest(&name, &digest, now())
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        metadata.unlink_blob(&name, &digest, now()).await.unwrap(),
        None
    );
    assert_eq!(metadata.position().await.unwrap(), Sequence::START);
}

/// Bodies come back byte for byte, whatever is in them, for both algorithms.
pub async fn exact_bytes(instances: &Instances) {
    let bodies: [&[u8]; 4] = [
        b"{}\r\n \n",
        b"\0\xff\xfe",
        "\u{fffd}\u{1f980}".as_bytes(),
        b"",
    ];
    for body in bodies {
        for algorithm in Algorithm::ALL {
            let mut wanted = publish_of("team/app", "", &["latest"]);
            wanted.manifest.digest = algorithm.digest(body);
            wanted.manifest.body = body.to_vec().into();
            let record = wanted.manifest.clone();
            publish(&instances.one, wanted).await;
            let found = instances
                .other
                .manifest(&repo("team/app"), &record.digest)
                .await;
            assert_eq!(found.unwrap(), Some(record));
        }
    }
}

/// The same push again succeeds and changes nothing.
pub async fn publish_twice(instances: &Instances) {
    let wanted = publish_of("team/app", "x", &["latest"]);
    let first = publish(&instances.one, wanted.clone()).await;
    let again = publish(&instances.other, wanted).await;
    assert_eq!((first, again), (Sequence::new(2), Sequence::new(2)));
    assert_eq!(all_events(&instances.one).await.len(), 2);
    let found = instances.one.tag(&repo("team/app"), &tag("latest")).await;
    assert_eq!(found.unwrap().unwrap().version, 1);
}

/// Blobs that the repository does not link are named all at once, and nothing is left behind.
pub async fn missing_blobs(instances: &Instances) {
    let metadata = &instances.one;
    link(metadata, "other/app", "elsewhere").await;
    let mut wanted = publish_of("team/app", "x", &["latest"]);
    wanted.blobs = ["here", "elsewhere", "nowhere", "nowhere"]
        .map(digest_of)
        .to_vec();
    let mut expected = ["here", "elsewhere", "nowhere"].map(digest_of).to_vec();
    expect_missing(metadata, &wanted, &mut expected).await;
    assert!(!metadata.repository_exists(&repo("team/app")).await.unwrap());

    link(metadata, "team/app", "here").await;
    let mut expected = ["elsewhere", "nowhere"].map(digest_of).to_vec();
    expect_missing(metadata, &wanted, &mut expected).await;
    let found = metadata
        .manifest(&repo("team/app"), &wanted.manifest.digest)
        .await;
    assert_eq!(found.unwrap(), None);

    link(metadata, "team/app", "elsewhere").await;
    link(metadata, "team/app", "nowhere").await;
    publish(metadata, wanted).await;
}

async fn expect_missing(metadata: &Arc<dyn Metadata>, wanted: &Publish, expected: &mut [Digest]) {
    let refused = metadata.publish(wanted.clone(), now()).await.unwrap_err();
    let PublishError::MissingBlobs(mut missing) = refused else {
        panic!("{refused:?}");
    };
    missing.sort_unstable();
    expected.sort_unstable();
    assert_eq!(missing, expected);
    assert_eq!(metadata.position().await.unwrap(), Sequence::START);
}

/// An index may list what is not there yet, and makes its repository exist.
pub async fn publish_without_blobs(instances: &Instances) {
    let mut wanted = publish_of("team/app", "index", &[]);
    wanted.children = vec![digest_of("not there"), digest_of("not there")];
    wanted.subject = Some(digest_of("not there either"));
    publish(&instances.one, wanted).await;
    assert!(
        instances
            .other
            .repository_exists(&repo("team/app"))
            .await
            .unwrap()
    );
    assert_eq!(
        tag_names(&instances.other, "team/app", &page(None, 9)).await,
        [""; 0]
    );
}

/// A request that says a thing twice means it once.
pub async fn repeated_names(instances: &Instances) {
    link(&instances.one, "team/app", "layer").await;
    let mut wanted = publish_of("team/app", "x", &["b", "a", "b"]);
    wanted.blobs = vec![digest_of("layer"), digest_of("layer")];
    assert_eq!(publish(&instances.one, wanted).await, Sequence::new(3));
    assert_eq!(
        tag_names(&instances.one, "team/app", &page(None, 9)).await,
        ["a", "b"]
    );
}

/// The same bytes may have several media types in several repositories; in one, the last push says.
pub async fn media_types(instances: &Instances) {
    let metadata = &instances.one;
    for (name, media_type) in [
        ("team/app", "one"),
        ("other/app", "two"),
        ("team/app", "three"),
    ] {
        let mut wanted = publish_of(name, "x", &["latest"]);
        media_type.clone_into(&mut wanted.manifest.media_type);
        publish(metadata, wanted).await;
        let found = metadata
            .manifest(&repo(name), &digest_of("x"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found.media_type, media_type);
    }
    let found = metadata
        .manifest(&repo("other/app"), &digest_of("x"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.media_type, "two");
    // Two first pushes with their tags, and the correction, which edges must hear of.
    let changes = all_changes(metadata).await;
    assert_eq!(changes.len(), 5);
    assert_eq!(changes[4], Change::ManifestPublished(digest_of("x")));
}

/// A deleted manifest takes its tags and its place among the referrers along, in its repository only.
pub async fn delete_manifest(instances: &Instances) {
    let (metadata, name) = (&instances.one, repo("team/app"));
    for repository in ["team/app", "other/app"] {
        let mut wanted = publish_of(repository, "x", &["b", "a"]);
        wanted.subject = Some(digest_of("subject"));
        publish(metadata, wanted).await;
        publish(metadata, publish_of(repository, "y", &["c"])).await;
    }
    let before = metadata.position().await.unwrap();
    let deleted = metadata
        .delete_manifest(&name, &digest_of("x"), now())
        .await
        .unwrap();
    assert_eq!(deleted, Some(Sequence::new(before.get() + 3)));
    let changes = all_changes(&instances.other).await;
    assert_eq!(
        changes[changes.len() - 3..],
        [
            Change::TagDeleted(tag("a"), 2),
            Change::TagDeleted(tag("b"), 2),
            Change::ManifestDeleted(digest_of("x")),
        ]
    );
    assert_eq!(
        metadata.manifest(&name, &digest_of("x")).await.unwrap(),
        None
    );
    assert_eq!(tag_names(metadata, "team/app", &page(None, 9)).await, ["c"]);
    let subject = digest_of("subject");
    let left = metadata
        .referrers(&name, &subject, None, &page(None, 9))
        .await
        .unwrap();
    assert_eq!(left.items.len(), 0);
    assert_eq!(
        tag_names(metadata, "other/app", &page(None, 9)).await,
        ["a", "b", "c"]
    );
    let left = metadata
        .referrers(&repo("other/app"), &subject, None, &page(None, 9))
        .await;
    assert_eq!(left.unwrap().items.len(), 1);
    let again = metadata
        .delete_manifest(&name, &digest_of("x"), now())
        .await
        .unwrap();
    assert_eq!(again, None);
}

/// A manifest may need and list thousands, and have hundreds of tags.
pub async fn many_references(instances: &Instances) {
    let metadata = &instances.one;
    let name = |n: usize| format!("blob {n}");
    for n in 0..20 {
        link(metadata, "team/app", &name(n)).await;
    }
    let mut wanted = publish_of("team/app", "x", &[]);
    wanted.blobs = (0..3000).map(|n| digest_of(&name(n))).collect();
    wanted.children = (0..3000).map(|n| digest_of(&name(n))).collect();
    wanted.tags = (0..300).map(|n| tag(&format!("t{n}"))).collect();
    let refused = metadata.publish(wanted.clone(), now()).await.unwrap_err();
    assert!(matches!(refused, PublishError::MissingBlobs(missing) if missing.len() == 2980));
    wanted.blobs.truncate(20);
    assert_eq!(publish(metadata, wanted).await, Sequence::new(301));
    let deleted = metadata
        .delete_manifest(&repo("team/app"), &digest_of("x"), now())
        .await;
    assert_eq!(deleted.unwrap(), Some(Sequence::new(602)));
}

/// Referrers come back as they were published.
pub async fn referrers(instances: &Instances) {
    let mut wanted = publish_of("team/app", "signature", &[]);
    wanted.subject = Some(Algorithm::Sha512.digest(b"subject"));
    wanted.artifact_type = Some("application/x.sig".to_owned());
    wanted.annotations = [("k\"\u{1f980}", "v\n"), ("", "")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    publish(&instances.one, wanted.clone()).await;
    let subject = wanted.subject.unwrap();
    let (name, all) = (repo("team/app"), page(None, 9));
    let found = instances
        .other
        .referrers(&name, &subject, None, &all)
        .await
        .unwrap();
    let expected = Referrer {
        digest: wanted.manifest.digest,
        media_type: wanted.manifest.media_type,
        size: 9,
        artifact_type: wanted.artifact_type,
        annotations: wanted.annotations,
    };
    assert_eq!(found.items, [expected]);
    let elsewhere = instances
        .other
        .referrers(&repo("other/app"), &subject, None, &all)
        .await;
    assert_eq!(elsewhere.unwrap().items, []);
}

/// Referrers are listed in the order of their digests' text, in pages.
pub async fn referrer_pages(instances: &Instances) {
    let (metadata, name, subject) = (&instances.one, repo("team/app"), digest_of("subject"));
    let mut expected = Vec::new();
    for n in 0..7 {
        let mut wanted = publish_of("team/app", &format!("referrer {n}"), &[]);
        if n % 2 == 0 {
            wanted.manifest.digest = Algorithm::Sha512.digest(&wanted.manifest.body);
        }
        wanted.subject = Some(subject);
        expected.push(wanted.manifest.digest);
        publish(metadata, wanted).await;
    }
    expected.sort_by_key(Digest::to_string);
    let mut found = Vec::new();
    loop {
        let next = page(found.last().copied(), 3);
        let listing = metadata
            .referrers(&name, &subject, None, &next)
            .await
            .unwrap();
        found.extend(listing.items.iter().map(|referrer| referrer.digest));
        if !listing.more {
            break;
        }
        assert_eq!(listing.items.len(), 3);
    }
    assert_eq!(found, expected);
}

/// The filter takes those of one artifact type, and pages count what it lets through.
pub async fn referrer_types(instances: &Instances) {
    let (metadata, name, subject) = (&instances.one, repo("team/app"), digest_of("subject"));
    for (n, artifact_type) in [Some("sig"), None, Some("sbom"), Some("sig")]
        .into_iter()
        .enumerate()
    {
        let mut wanted = publish_of("team/app", &format!("referrer {n}"), &[]);
        wanted.subject = Some(subject);
        wanted.artifact_type = artifact_type.map(ToOwned::to_owned);
        publish(metadata, wanted).await;
    }
    for (artifact_type, expected) in [
        (None, 4),
        (Some("sig"), 2),
        (Some("sbom"), 1),
        (Some("si"), 0),
    ] {
        let all = page(None, 9);
        let found = metadata
            .referrers(&name, &subject, artifact_type, &all)
            .await
            .unwrap();
        assert_eq!(
            (found.items.len(), found.more),
            (expected, false),
            "{artifact_type:?}"
        );
    }
    let first = metadata
        .referrers(&name, &subject, Some("sig"), &page(None, 1))
        .await
        .unwrap();
    assert_eq!((first.items.len(), first.more), (1, true));
}

/// What the index at the referrers tag lists is among the referrers: each once, in order, in pages, and by type.
pub async fn referrers_of_an_index(instances: &Instances) {
    let (metadata, name) = (&instances.one, repo("team/app"));
    for subject in [digest_of("subject"), Algorithm::Sha512.digest(b"subject")] {
        let mut children = vec![digest_of("never pushed")];
        let mut expected = Vec::new();
        for n in 0..9 {
            let mut wanted = publish_of("team/app", &format!("{subject} {n}"), &[]);
            wanted.artifact_type = Some(["sig", "sbom"][n % 2].to_owned());
            // Some have a subject, some are listed, and some both.
            wanted.subject = (n % 3 != 0).then_some(subject);
            if n % 3 != 1 {
                children.push(wanted.manifest.digest);
            }
            expected.push((wanted.manifest.digest, wanted.artifact_type.clone()));
            publish(metadata, wanted).await;
        }
        expected.sort_by_key(|(digest, _)| digest.to_string());
        let mut index = publish_of("team/app", &format!("index of {subject}"), &[]);
        index.children = children;
        index.tags = vec![Tag::of_referrers(&subject)];
        publish(metadata, index.clone()).await;

        for artifact_type in [None, Some("sig"), Some("none")] {
            let expected: Vec<_> = expected
                .iter()
                .filter(|(_, found)| artifact_type.is_none_or(|ty| found.as_deref() == Some(ty)))
                .map(|(digest, _)| *digest)
                .collect();
            for limit in [1, 2, 4, 9] {
                let found = all_referrers(instances, &name, &subject, artifact_type, limit).await;
                assert_eq!(found, expected, "{artifact_type:?} by {limit}");
            }
        }
        let elsewhere = repo("other/app");
        assert_eq!(
            all_referrers(instances, &elsewhere, &subject, None, 9).await,
            []
        );

        // Without the tag, only the subject counts.
        let tag = Tag::of_referrers(&subject);
        metadata.delete_tag(&name, &tag, now()).await.unwrap();
        assert_eq!(
            all_referrers(instances, &name, &subject, None, 9)
                .await
                .len(),
            6
        );
    }
}

/// Reads the list page by page.
async fn all_referrers(
    instances: &Instances,
    name: &RepoName,
    subject: &Digest,
    artifact_type: Option<&str>,
    limit: u32,
) -> Vec<Digest> {
    let mut found = Vec::new();
    loop {
        let next = page(found.last().copied(), limit);
        let listing = instances
            .other
            .referrers(name, subject, artifact_type, &next)
            .await
            .unwrap();
        found.extend(listing.items.iter().map(|referrer| referrer.digest));
        if !listing.more {
            return found;
        }
        assert_eq!(listing.items.len(), limit as usize);
    }
}
