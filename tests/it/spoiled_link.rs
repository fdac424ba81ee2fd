//! A link between edge and origin that fails in every way, in the middle of every kind of answer.

use std::sync::Arc;
use std::time::Duration;

use harness::content::Content;
use harness::node::{Edge, Origin};
use harness::repository::Repository;
use harness::wire::{Fault, Wire};
use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

const BLOB_BYTES: u64 = 2 << 20;
/// Behind the head of each answer, and before the end of each.
const PLACE: usize = 20_000;
/// Until when a client hears that something is not to be had.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
const FAULTS: [Fault; 9] = [
    Fault::StallAt(0),
    Fault::StallAt(PLACE),
    Fault::ResetAt(0),
    Fault::ResetAt(PLACE),
    Fault::EndAt(0),
    Fault::EndAt(100),
    Fault::EndAt(PLACE),
    Fault::FlipAt(PLACE),
    Fault::Slice(100),
];
const SETTINGS: [&str; 4] = [
    "origin.stall_timeout=1s",
    "origin.header_timeout=1s",
    "origin.answer_timeout=1s",
    "origin.failures=100",
];

struct Rig {
    origin: Origin,
    wire: Wire,
    edge: Edge,
}

impl Rig {
    async fn start() -> Self {
        let origin = Origin::start().await;
        let wire = Wire::to(origin.address()).await;
        let directory = Arc::new(TempDir::new().unwrap());
        let edge = Edge::start_in(directory, wire.address(), &SETTINGS).await;
        Self { origin, wire, edge }
    }
}

#[tokio::test]
async fn a_blob_comes_whole_or_breaks_off() {
    let rig = Rig::start().await;
    let repository = Repository::new(rig.edge.client(), "team/app");
    let at_origin = repository.behind(rig.origin.client());
    for (seed, fault) in FAULTS.into_iter().enumerate() {
        let content = Content::new(seed as u64, BLOB_BYTES);
        let digest = at_origin.push_content(content).await;
        let before = rig.wire.answered_bytes();
        rig.wire.spoil("GET ", &digest.to_string(), fault);
        let mut open = repository.blob(Method::GET, &digest).open().await;
        assert_eq!(rig.wire.to_spoil(), 0, "{fault:?}");
        match (open.head.status.as_u16(), fault) {
            // There was no answer at all.
            (503, Fault::StallAt(at) | Fault::ResetAt(at) | Fault::EndAt(at)) if at < PLACE => {
                assert!(open.head.headers.contains_key("retry-after"));
            }
            // What is wrong is only known at the end, which a client then does not get.
            (200, Fault::FlipAt(_)) => {
                let end = loop {
                    match open.next().await {
                        Ok(Some(_)) => {}
                        end => break end,
                    }
                };
                end.unwrap_err();
            }
            (status, _) => {
                let read = open.read_content(content, 0).await.unwrap_or_default();
                assert_eq!((status, read), (200, BLOB_BYTES), "{fault:?}");
                let came = rig.wire.answered_bytes() - before;
                assert!(came < BLOB_BYTES * 105 / 100, "{fault:?}: {came}");
            }
        }
        let mut open = repository.blob(Method::GET, &digest).open().await;
        assert_eq!(open.head.status, 200, "behind {fault:?}");
        let read = open.read_content(content, 0).await.unwrap();
        assert_eq!(read, BLOB_BYTES, "{fault:?}");
    }
}

#[tokio::test]
async fn a_manifest_comes_as_it_is_or_not_at_all() {
    let rig = Rig::start().await;
    let repository = Repository::new(rig.edge.client(), "team/app");
    let at_origin = repository.behind(rig.origin.client());
    let image = at_origin.push_image_parts(1).await;
    for (index, fault) in FAULTS.into_iter().enumerate() {
        for is_by_tag in [true, false] {
            let tag = format!("v{index}-{is_by_tag}");
            let mut json: serde_json::Value = serde_json::from_slice(&image.manifest.body).unwrap();
            json["annotations"] = json!({ "tag": tag, "padding": "x".repeat(2 * PLACE) });
            let document = at_origin.push_manifest(&json).await;
            let digest = document.digest();
            at_origin.put_manifest(&tag, &document).await.expect(201);
            let reference = if is_by_tag { tag } else { digest.to_string() };
            rig.wire
                .spoil("GET ", &format!("/manifests/{digest}"), fault);
            rig.wire
                .spoil("GET ", &format!("/manifests/{reference}"), fault);
            let begin = Instant::now();
            let answer = repository
                .manifest(Method::GET, &reference)
                .try_send()
                .await;
            let elapsed = begin.elapsed();
            assert!(elapsed < TOLD_WITHIN, "{fault:?}, {reference}: {elapsed:?}");
            // The client itself is never cut off.
            let answer = answer.unwrap_or_else(|broken| panic!("{fault:?}: {broken}"));
            if answer.status == 200 {
                answer.with_body(&document.body);
            } else {
                let refused = answer.refused(503, "UNAVAILABLE");
                assert!(refused.headers.contains_key("retry-after"), "{fault:?}");
                assert_ne!(fault, Fault::Slice(100));
            }
            rig.wire.forgive();
            let answer = repository.get_manifest(&reference).await.expect(200);
            let answer = answer.with_body(&document.body);
            answer.with_header("docker-content-digest", &digest.to_string());
        }
    }
}
