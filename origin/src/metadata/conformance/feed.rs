//! The feed.

use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::{
    Arc, Change, Instances, Metadata, Sequence, all_events, digest_of, now, publish, publish_of,
    repo,
};

/// Writers at once, each publishing so many manifests.
const WRITERS: usize = 8;
const PUSHES: usize = 25;

/// Events say what happened, where and when, in order.
pub async fn events(instances: &Instances) {
    publish(&instances.one, publish_of("team/app", "x", &["latest"])).await;
    publish(&instances.other, publish_of("other/app", "x", &[])).await;
    let found = all_events(&instances.one).await;
    let sequences: Vec<_> = found.iter().map(|event| event.sequence.get()).collect();
    assert_eq!(sequences, [1, 2, 3]);
    assert_eq!(instances.one.position().await.unwrap(), Sequence::new(3));
    assert_eq!(found[0].repository, repo("team/app"));
    assert_eq!(found[0].change, Change::ManifestPublished(digest_of("x")));
    assert_eq!(found[2].repository, repo("other/app"));
    assert!(found.iter().all(|event| event.at == now()));
}

/// Events come in pages.
pub async fn event_pages(instances: &Instances) {
    let tags: Vec<_> = (0..9).map(|n| format!("t{n}")).collect();
    let tags: Vec<_> = tags.iter().map(String::as_str).collect();
    publish(&instances.one, publish_of("team/app", "x", &tags)).await;
    let found = async |after, limit| {
        let events = instances
            .other
            .events(Sequence::new(after), limit)
            .await
            .unwrap();
        let sequences = events.into_iter().map(|event| event.sequence.get());
        sequences.collect::<Vec<_>>()
    };
    assert_eq!(found(0, 3).await, [1, 2, 3]);
    assert_eq!(found(3, 3).await, [4, 5, 6]);
    assert_eq!(found(8, 9).await, [9, 10]);
    assert_eq!(found(10, 9).await, [0; 0]);
    assert_eq!(found(99, 9).await, [0; 0]);
    assert_eq!(found(0, 0).await, [0; 0]);
}

/// What fails has no number.
pub async fn failed_publish_leaves_no_event(instances: &Instances) {
    publish(&instances.one, publish_of("team/app", "x", &[])).await;
    let mut wanted = publish_of("team/app", "y", &["latest"]);
    wanted.blobs = vec![digest_of("missing")];
    instances.one.publish(wanted, now()).await.unwrap_err();
    let sequence = publish(&instances.one, publish_of("team/app", "z", &[])).await;
    assert_eq!(sequence, Sequence::new(2));
}

/// While many write through two instances, a follower sees every number once and in order, the position never runs ahead
/// of the events or back, and whoever published finds its own events behind the position it was given.
pub async fn feed_without_gaps(instances: &Instances) {
    let writers = (0..WRITERS).map(|writer| {
        let metadata = if writer % 2 == 0 {
            &instances.one
        } else {
            &instances.other
        };
        let metadata = Arc::clone(metadata);
        async move {
            for push in 0..PUSHES {
                // Half of them in one repository, so that they meet there too; some fail and give their place back.
                let name = if writer % 4 < 2 {
                    "team/app".to_owned()
                } else {
                    format!("team/app{writer}")
                };
                let content = format!("manifest {writer} {push}");
                let mut wanted = publish_of(&name, &content, &["latest", "same"]);
                if push % 5 == 4 {
                    wanted.blobs = vec![digest_of("missing")];
                    metadata.publish(wanted, now()).await.unwrap_err();
                    continue;
                }
                let mine = Change::ManifestPublished(wanted.manifest.digest);
                let sequence = publish(&metadata, wanted).await;
                let seen = metadata
                    .events(Sequence::new(sequence.get() - 3), 3)
                    .await
                    .unwrap();
                assert!(seen.iter().any(|event| event.change == mine));
            }
        }
    });
    let mut writers = std::pin::pin!(join_all(writers).fuse());
    let mut followed = Sequence::START;
    let mut done = false;
    loop {
        tokio::select! {
            _ = &mut writers, if !done => done = true,
            seen = follow(&instances.other, followed) => {
                if done && seen == followed {
                    break;
                }
                followed = seen;
            }
        }
    }
    let pushes = WRITERS * PUSHES / 5 * 4;
    assert_eq!(followed, Sequence::new(3 * pushes as u64));
}

/// Reads what came after `followed`; returns how far it read.
async fn follow(metadata: &Arc<dyn Metadata>, followed: Sequence) -> Sequence {
    let position = metadata.position().await.unwrap();
    assert!(position >= followed, "{position} after {followed}");
    let events = metadata.events(followed, 50).await.unwrap();
    for (expected, event) in (followed.get() + 1..).zip(&events) {
        assert_eq!(event.sequence, Sequence::new(expected));
    }
    let seen = events.last().map_or(followed, |event| event.sequence);
    assert!(
        events.len() == 50 || seen >= position,
        "{seen} of {position}"
    );
    seen
}
