//! Readers of a download whose disk gives out in the middle.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outport_core::net::client::{self, Client};

use super::origin::{Fault, ScriptedOrigin};
use super::{content, questions, sha256};
use crate::download::attendance::Attendance;
use crate::download::follower::follow;
use crate::download::landing::tests::landing;
use crate::download::landing::{Landing, Writer};
use crate::frozen::Frozen;
use crate::metrics::OriginMetrics;
use crate::source::freshness::Rules;
use crate::source::registries::{Hosted, Registries};
use crate::source::ring::Ring;
use crate::source::sources::{Reach, Sources};
use crate::source::through::Through;
use crate::source::{Node, Origin};

const LAYER: usize = 1_000_000;

/// Where the disk gives out.
const WRITTEN: usize = 400_000;

struct Abandoned {
    origin: Arc<ScriptedOrigin>,
    blob: Bytes,
    landing: Landing,
    writer: Writer,
    through: Through,
}

impl Abandoned {
    async fn new() -> Self {
        let origin = ScriptedOrigin::start().await;
        let blob = content(LAYER, 1);
        origin.put_blob("a", &blob);
        let url = format!("http://{}", origin.address).parse().unwrap();
        let node = Node {
            client: Client::new(vec![url], client::Config::default()).unwrap(),
            access: None,
        };
        let asked = Origin::new(Some(node), questions(), OriginMetrics::default());
        let frozen = Frozen::open(std::path::Path::new("/nowhere")).unwrap();
        let through = Through {
            sources: Sources::new(
                Registries::new(
                    Hosted {
                        origin: asked,
                        names: Vec::new(),
                        is_here: false,
                    },
                    Vec::new(),
                    (None, Rules::default()),
                    frozen,
                ),
                Ring::new("edge-1".to_owned(), Vec::new()),
                Vec::new(),
                Duration::MAX,
            ),
            reach: Reach::Region,
            repo: "a".parse().unwrap(),
            digest: sha256(&blob),
            size: LAYER as u64,
        };
        let (writer, landing) = landing(&blob);
        for at in (0..WRITTEN).step_by(50_000) {
            let batch = blob.slice(at..at + 50_000);
            writer.write(at as u64, &[batch], || false).unwrap();
        }
        Self {
            origin,
            blob,
            landing,
            writer,
            through,
        }
    }

    async fn read(&self, from: usize, to: usize) -> Option<Bytes> {
        let range = from as u64..to as u64;
        let attendee = Attendance::new().first();
        let body = follow(
            self.landing.clone(),
            Some(self.through.clone()),
            range,
            attendee,
        );
        body.collect_limited(LAYER as u64).await.ok()
    }
}

#[tokio::test]
async fn readers_go_on_without_the_disk() {
    let rig = Abandoned::new().await;
    rig.writer.abandon();
    let ranges = [
        (0, LAYER),
        (100, LAYER),
        (WRITTEN - 1, LAYER),
        (WRITTEN, LAYER),
        (WRITTEN + 1, LAYER),
        (LAYER - 1, LAYER),
        (0, WRITTEN),
        (100, WRITTEN + 100),
        (WRITTEN + 100, WRITTEN + 200),
    ];
    for (from, to) in ranges {
        let read = rig.read(from, to).await.expect("broke off");
        assert!(read == rig.blob[from..to], "wrong bytes for {from}..{to}");
    }
}

#[tokio::test]
async fn who_may_not_go_on_alone_gets_what_is_here_and_breaks_off() {
    let rig = Abandoned::new().await;
    rig.writer.abandon();
    for (range, is_here) in [(0..WRITTEN, true), (100..WRITTEN + 1, false)] {
        let (landing, attendee) = (rig.landing.clone(), Attendance::new().first());
        let range = range.start as u64..range.end as u64;
        let read = follow(landing, None, range, attendee).collect_limited(LAYER as u64);
        assert_eq!(read.await.is_ok(), is_here);
    }
    assert_eq!(rig.origin.seen_all(), 0);
}

#[tokio::test]
async fn what_comes_past_the_disk_is_verified_too() {
    let rig = Abandoned::new().await;
    rig.writer.abandon();
    rig.origin.fail_next(Fault::FlipAt(WRITTEN + 1));
    assert_eq!(rig.read(0, LAYER).await, None);
}

#[tokio::test]
async fn a_writer_that_vanishes_breaks_readers_off() {
    let rig = Abandoned::new().await;
    let attendee = Attendance::new().first();
    let body = follow(
        rig.landing.clone(),
        Some(rig.through.clone()),
        0..LAYER as u64,
        attendee,
    );
    drop(rig.writer);
    assert!(body.collect_limited(LAYER as u64).await.is_err());
}
