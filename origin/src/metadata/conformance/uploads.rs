//! Upload sessions.

use outport_core::store::Staged;
use uuid::Uuid;

use super::{Algorithm, Arc, Duration, Instances, Metadata, link_of, now, page, repo};

fn staged(n: u128) -> Staged {
    Staged::new(Uuid::from_u128(n), Algorithm::Sha512)
}

async fn create(metadata: &Arc<dyn Metadata>, repository: &str, n: u128) -> Staged {
    let staged = staged(n);
    let created = metadata
        .create_upload(&repo(repository), &staged, now())
        .await;
    created.unwrap();
    staged
}

/// A session comes back as it was written, from every instance, until it ends.
pub async fn upload_session(instances: &Instances) {
    let (one, other, name) = (&instances.one, &instances.other, repo("team/app"));
    let staged = create(one, "team/app", 1).await;
    let found = other.upload(&name, staged.id()).await.unwrap().unwrap();
    assert_eq!(found.revision, 0);
    let (found, expected) = (found.staged.to_record(), staged.to_record());
    assert_eq!(
        (found.id, found.size_bytes),
        (expected.id, expected.size_bytes)
    );
    assert_eq!(
        (found.algorithm, found.hasher),
        (expected.algorithm, expected.hasher)
    );

    assert!(other.delete_upload(&name, staged.id()).await.unwrap());
    assert!(one.upload(&name, staged.id()).await.unwrap().is_none());
    assert!(!one.delete_upload(&name, staged.id()).await.unwrap());
    assert!(
        !one.advance_upload(staged.id(), 0, &staged, now())
            .await
            .unwrap()
    );
}

/// Only who knows the present revision advances a session.
pub async fn upload_compare_and_swap(instances: &Instances) {
    let (one, other, name) = (&instances.one, &instances.other, repo("team/app"));
    let staged = create(one, "team/app", 1).await;
    assert!(
        one.advance_upload(staged.id(), 0, &staged, now())
            .await
            .unwrap()
    );
    assert!(
        !other
            .advance_upload(staged.id(), 0, &staged, now())
            .await
            .unwrap()
    );
    assert!(
        other
            .advance_upload(staged.id(), 1, &staged, now())
            .await
            .unwrap()
    );
    assert_eq!(
        one.upload(&name, staged.id())
            .await
            .unwrap()
            .unwrap()
            .revision,
        2
    );
}

/// A session belongs to its repository.
pub async fn upload_of_another_repository(instances: &Instances) {
    let metadata = &instances.one;
    let staged = create(metadata, "team/app", 1).await;
    let elsewhere = repo("other/app");
    assert!(
        metadata
            .upload(&elsewhere, staged.id())
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        !metadata
            .delete_upload(&elsewhere, staged.id())
            .await
            .unwrap()
    );
    let mut link = link_of("other/app", "layer");
    link.upload = Some(staged.id());
    metadata.link_blob(link, now()).await.unwrap();
    assert!(
        metadata
            .upload(&repo("team/app"), staged.id())
            .await
            .unwrap()
            .is_some()
    );
}

/// The link ends the session that brought the blob, and works without one too.
pub async fn upload_ends_with_link(instances: &Instances) {
    let metadata = &instances.one;
    let staged = create(metadata, "team/app", 1).await;
    let mut link = link_of("team/app", "layer");
    link.upload = Some(staged.id());
    metadata.link_blob(link.clone(), now()).await.unwrap();
    let found = instances.other.upload(&repo("team/app"), staged.id()).await;
    assert!(found.unwrap().is_none());
    metadata.link_blob(link, now()).await.unwrap();
}

/// A session is not a push.
pub async fn upload_makes_no_repository(instances: &Instances) {
    create(&instances.one, "team/app", 1).await;
    let name = repo("team/app");
    assert!(!instances.one.repository_exists(&name).await.unwrap());
    assert_eq!(
        instances.one.tags(&name, &page(None, 9)).await.unwrap(),
        None
    );
    let listing = instances.one.repositories(&page(None, 9)).await.unwrap();
    assert_eq!(listing.items, []);
}

/// Sessions that nobody touches are found, oldest first.
pub async fn stale_uploads(instances: &Instances) {
    let metadata = &instances.one;
    let at = |seconds| now() + Duration::from_secs(seconds);
    for n in 1..=4_u64 {
        let name = repo(&format!("team/app{n}"));
        let staged = staged(n.into());
        metadata.create_upload(&name, &staged, at(n)).await.unwrap();
    }
    let first = Uuid::from_u128(1);
    assert!(
        metadata
            .advance_upload(first, 0, &staged(1), at(9))
            .await
            .unwrap()
    );
    let stale = async |before, limit| {
        let found = instances
            .other
            .stale_uploads(at(before), limit)
            .await
            .unwrap();
        let names = found
            .into_iter()
            .map(|(name, upload)| (name.to_string(), upload.staged.id()));
        names.collect::<Vec<_>>()
    };
    let expected = |n: u128| (format!("team/app{n}"), Uuid::from_u128(n));
    assert_eq!(stale(2, 9).await, []);
    assert_eq!(stale(4, 9).await, [expected(2), expected(3)]);
    assert_eq!(stale(100, 2).await, [expected(2), expected(3)]);
    assert_eq!(
        stale(100, 9).await,
        [expected(2), expected(3), expected(4), expected(1)]
    );
    let second = Uuid::from_u128(2);
    metadata.touch_upload(second, at(10)).await.unwrap();
    assert_eq!(stale(10, 1).await, [expected(3)]);
    assert_eq!(stale(100, 9).await.last(), Some(&expected(2)));
    let touched = metadata.upload(&repo("team/app2"), second).await;
    assert_eq!(touched.unwrap().unwrap().revision, 0);
    // One that has ended stays so.
    metadata
        .touch_upload(Uuid::from_u128(5), at(10))
        .await
        .unwrap();
    assert_eq!(stale(100, 9).await.len(), 4);
}

/// Of all who advance a session from the same revision, one does.
pub async fn advance_at_once(instances: &Instances) {
    let staged = create(&instances.one, "team/app", 1).await;
    for revision in 0..10 {
        let tries = (0..8).map(|n| {
            let metadata = if n % 2 == 0 {
                &instances.one
            } else {
                &instances.other
            };
            metadata.advance_upload(staged.id(), revision, &staged, now())
        });
        let won = futures_util::future::join_all(tries).await;
        let won = won.into_iter().filter(|won| *won.as_ref().unwrap()).count();
        assert_eq!(won, 1);
    }
}
