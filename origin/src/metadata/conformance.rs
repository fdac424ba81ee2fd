//! What every [`Metadata`] must do, as functions that panic when one does not.
//!
//! Each function takes two instances over one fresh, empty database, as two processes would have them.
//! [`metadata_tests!`](crate::metadata_tests) makes a test of each.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a suite of tests: it panics when a database does not conform"
)]

mod blobs;
mod feed;
mod manifests;
mod races;
mod tags;
mod uploads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outport_core::cluster::Sequence;
use outport_core::oci::digest::{Algorithm, Digest};
use outport_core::oci::reference::{RepoName, Tag};

pub use self::blobs::*;
pub use self::feed::*;
pub use self::manifests::*;
pub use self::races::*;
pub use self::tags::*;
pub use self::uploads::*;
use super::{
    BlobRecord, Change, Event, Link, Listing, ManifestRecord, Metadata, Page, Publish, PublishError,
};

/// Two instances over one database.
#[derive(Clone, Debug)]
pub struct Instances {
    /// The one that most calls go to.
    pub one: Arc<dyn Metadata>,
    /// The one that sees what the other did.
    pub other: Arc<dyn Metadata>,
}

/// Makes a `#[tokio::test]` of every function of the suite.
///
/// `$instances` is a function that returns a future of [`Instances`] and something that is dropped behind the test.
#[macro_export]
macro_rules! metadata_tests {
    ($instances:path) => {
        $crate::metadata_tests!(@each $instances;
            starts_empty, exact_bytes, publish_twice, missing_blobs, publish_without_blobs, repeated_names, media_types,
            delete_manifest, many_references, referrers, referrer_pages, referrer_types, referrers_of_an_index,
            versions_only_grow, moved_tag, tag_pages, repository_pages, case_of_tags,
            link_and_unlink, link_twice, mount, unlink_below_manifest, large_sizes,
            upload_session, upload_compare_and_swap, upload_of_another_repository, upload_ends_with_link,
            upload_makes_no_repository, stale_uploads, advance_at_once,
            events, event_pages, feed_without_gaps, failed_publish_leaves_no_event,
            publish_against_unlink, publish_against_delete, tags_in_any_order, first_push_at_once, link_at_once);
    };
    (@each $instances:path; $($name:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let (instances, _guard) = $instances().await;
                $crate::metadata::conformance::$name(&instances).await;
            }
        )+
    };
}

// --- what the functions are written with

fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

fn digest_of(content: &str) -> Digest {
    Algorithm::Sha256.digest(content.as_bytes())
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(1_800_000_000_123_456)
}

fn manifest_of(content: &str) -> ManifestRecord {
    ManifestRecord {
        digest: digest_of(content),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        body: content.to_owned().into(),
    }
}

/// A manifest that needs nothing.
fn publish_of(repository: &str, content: &str, tags: &[&str]) -> Publish {
    Publish {
        repository: repo(repository),
        manifest: manifest_of(content),
        subject: None,
        artifact_type: None,
        annotations: BTreeMap::new(),
        blobs: Vec::new(),
        children: Vec::new(),
        tags: tags.iter().map(|name| tag(name)).collect(),
    }
}

fn link_of(repository: &str, content: &str) -> Link {
    Link {
        repository: repo(repository),
        blob: blob_of(content),
        location: "us".to_owned(),
        upload: None,
    }
}

fn blob_of(content: &str) -> BlobRecord {
    BlobRecord {
        digest: digest_of(content),
        size: content.len() as u64,
    }
}

fn page<T>(after: Option<T>, limit: u32) -> Page<T> {
    Page { after, limit }
}

async fn publish(metadata: &Arc<dyn Metadata>, publish: Publish) -> Sequence {
    metadata.publish(publish, now()).await.unwrap().sequence
}

async fn link(metadata: &Arc<dyn Metadata>, repository: &str, content: &str) {
    let link = link_of(repository, content);
    metadata.link_blob(link, now()).await.unwrap();
}

async fn all_events(metadata: &Arc<dyn Metadata>) -> Vec<Event> {
    metadata.events(Sequence::START, 100_000).await.unwrap()
}

async fn all_changes(metadata: &Arc<dyn Metadata>) -> Vec<Change> {
    let events = all_events(metadata).await;
    events.into_iter().map(|event| event.change).collect()
}

async fn tag_names(
    metadata: &Arc<dyn Metadata>,
    repository: &str,
    after: &Page<Tag>,
) -> Vec<String> {
    let listing: Listing<Tag> = metadata
        .tags(&repo(repository), after)
        .await
        .unwrap()
        .unwrap();
    listing.items.iter().map(ToString::to_string).collect()
}
