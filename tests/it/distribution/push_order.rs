//! Chunks that are out of order are refused, and the session stays as it is.

use harness::at_each_door;
use harness::content::Content;
use harness::door::Registry;
use harness::repository::with_query;
use outport_core::oci::digest::Digest;

at_each_door!(
    out_of_order_chunks,
    out_of_order_last_chunks,
    a_range_that_is_not_the_length,
    malformed_ranges,
    the_same_chunk_from_many
);

const CONTENT: Content = Content::new(1, 3067);

async fn out_of_order_chunks(registry: &Registry) {
    refuses_what_is_out_of_order(registry, false).await;
}

async fn out_of_order_last_chunks(registry: &Registry) {
    refuses_what_is_out_of_order(registry, true).await;
}

async fn refuses_what_is_out_of_order(registry: &Registry, ends_with_a_chunk: bool) {
    let repository = registry.repository("team/app");
    let digest: Digest = CONTENT.sha256();
    let location = repository.start_upload().await;
    for (refused, accepted, before) in [
        ((1024, 2048), (0, 1024), 0),
        ((2048, 3067), (1024, 2048), 1024),
        ((0, 1024), (2048, 3067), 2048),
    ] {
        let (first, end) = refused;
        let is_last = ends_with_a_chunk && end == 3067;
        let target = if is_last {
            with_query(&location, &format!("digest={digest}"))
        } else {
            location.clone()
        };
        let call = if is_last {
            registry.put(&target)
        } else {
            registry.patch(&target)
        };
        let call = call.header("content-range", format!("{first}-{}", end - 1));
        let reply = call.body(CONTENT.slice(first..end)).send().await;
        let reply = reply.refused(416, "RANGE_INVALID");
        let stands_at = format!("0-{}", u64::saturating_sub(before, 1));
        assert_eq!(reply.location().split('?').next(), Some(location.as_str()));
        reply.with_header("range", &stands_at);
        // The status is asked where the refused request went.
        let status = registry
            .get(&target)
            .send()
            .await
            .expect(204)
            .with_header("range", &stands_at);
        let location = status.location().to_owned();

        let (first, end) = accepted;
        let is_last = ends_with_a_chunk && end == 3067;
        let call = if is_last {
            repository.finish_upload(&location, &digest)
        } else {
            registry.patch(&location)
        };
        let call = call.header("content-range", format!("{first}-{}", end - 1));
        let reply = call.body(CONTENT.slice(first..end)).send().await;
        reply.expect(if is_last { 201 } else { 202 });
    }
    if !ends_with_a_chunk {
        repository
            .finish_upload(&location, &digest)
            .send()
            .await
            .expect(201);
    }
    repository
        .get_blob(&digest)
        .await
        .expect(200)
        .with_body(&CONTENT.bytes());
}

async fn a_range_that_is_not_the_length(registry: &Registry) {
    let repository = registry.repository("team/app");
    let location = repository.start_upload().await;
    for range in ["0-1022", "0-1024"] {
        let call = registry.patch(&location).header("content-range", range);
        let reply = call.body(CONTENT.slice(0..1024)).send().await;
        assert!(matches!(reply.status.as_u16(), 400 | 416), "{reply}");
        assert_eq!(repository.upload_offset(&location).await, 0);
    }
    let call = registry.patch(&location).header("content-range", "0-1023");
    call.body(CONTENT.slice(0..1024)).send().await.expect(202);
}

async fn malformed_ranges(registry: &Registry) {
    let repository = registry.repository("team/app");
    let location = repository.start_upload().await;
    for range in [
        "x",
        "0",
        "1023-0",
        "-5",
        "0-",
        "bytes=0-1023",
        "0-99999999999999999999",
    ] {
        let call = registry.patch(&location).header("content-range", range);
        let reply = call.body(CONTENT.slice(0..1024)).send().await;
        assert!(matches!(reply.status.as_u16(), 400 | 416), "{reply}");
        assert_eq!(repository.upload_offset(&location).await, 0, "{range}");
    }
}

async fn the_same_chunk_from_many(registry: &Registry) {
    let repository = registry.repository("team/app");
    let content = Content::new(2, 900_000);
    let location = repository.start_upload().await;
    for first in [0, 300_000, 600_000] {
        let patches = (0..6).map(|_| {
            let range = format!("{first}-{}", first + 299_999);
            let call = registry.patch(&location).header("content-range", range);
            call.body(content.slice(first..first + 300_000)).send()
        });
        let mut taken = 0;
        for reply in futures_util::future::join_all(patches).await {
            match reply.status.as_u16() {
                202 => taken += 1,
                // Too late, or at the same time.
                416 | 503 => {}
                _ => panic!("{reply}"),
            }
        }
        assert_eq!(taken, 1);
        assert_eq!(repository.upload_offset(&location).await, first + 300_000);
    }
    repository
        .finish_upload(&location, &content.sha256())
        .send()
        .await
        .expect(201);
    repository
        .get_blob(&content.sha256())
        .await
        .expect(200)
        .with_body(&content.bytes());
}
