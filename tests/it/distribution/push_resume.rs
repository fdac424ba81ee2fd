//! A push whose connection is cut goes on where it was: what was received before is kept.

use harness::at_each_door;
use harness::content::Content;
use harness::door::Registry;
use harness::eventually::eventually;
use harness::raw::Raw;
use harness::repository::{Repository, with_query};
use http::Method;

at_each_door!(
    a_cut_patch_goes_on,
    a_cut_stream_goes_on,
    a_reset_patch_goes_on,
    a_cut_put_goes_on,
    a_cut_post_leaves_nothing,
    a_cut_head_changes_nothing,
    cut_again_and_again
);

const CONTENT: Content = Content::new(1, 3_000_000);

/// Waits until a cut request has been noticed, and returns how many bytes there are then.
async fn noticed(repository: &Repository, location: &str, before: u64) -> u64 {
    eventually("the end of the cut request", async || {
        let offset = repository.upload_offset(location).await;
        (offset > before).then_some(offset)
    })
    .await
}

/// Sends what is left, as soon as the cut request is over.
async fn goes_on(repository: &Repository, location: &str, offset: u64) {
    assert!(offset <= CONTENT.size(), "{offset}");
    let put = eventually("the end of the push", async || {
        // Further bytes of the cut request may have been written down since.
        let offset = repository.upload_offset(location).await;
        let put = repository.finish_upload(location, &CONTENT.sha256());
        let put = put.header("content-range", format!("{offset}-{}", CONTENT.size() - 1));
        let reply = put.content_from(CONTENT, offset).send().await;
        (!matches!(reply.status.as_u16(), 416 | 503)).then_some(reply)
    });
    put.await.expect(201);
    let digest = CONTENT.sha256();
    let mut open = repository.blob(Method::GET, &digest).open().await;
    assert_eq!(open.read_content(CONTENT, 0).await.unwrap(), CONTENT.size());
}

fn head(method: &str, target: &str, length: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: registry\r\n{length}\r\n\r\n")
}

async fn a_cut_patch_goes_on(registry: &Registry) {
    let repository = registry.repository("team/app");
    let location = repository.start_upload().await;
    let mut raw = Raw::connect(registry.address()).await;
    raw.write(head("PATCH", &location, "Content-Length: 3000000"))
        .await
        .unwrap();
    raw.write(CONTENT.slice(0..1_000_000)).await.unwrap();
    drop(raw);
    let offset = noticed(&repository, &location, 0).await;
    assert!(offset <= 1_000_000, "{offset}");
    goes_on(&repository, &location, offset).await;
}

async fn a_cut_stream_goes_on(registry: &Registry) {
    let repository = registry.repository("team/app");
    let location = repository.start_upload().await;
    let mut raw = Raw::connect(registry.address()).await;
    raw.write(head("PATCH", &location, "Transfer-Encoding: chunked"))
        .await
        .unwrap();
    for first in (0..1_000_000).step_by(100_000) {
        raw.write(format!("{:x}\r\n", 100_000)).await.unwrap();
        raw.write(CONTENT.slice(first..first + 100_000))
            .await
            .unwrap();
        raw.write("\r\n").await.unwrap();
    }
    // In the middle of the next.
    raw.write("100000\r\n").await.unwrap();
    raw.write(CONTENT.slice(1_000_000..1_000_100))
        .await
        .unwrap();
    drop(raw);
    let offset = noticed(&repository, &location, 0).await;
    assert!(offset <= 1_000_100, "{offset}");
    goes_on(&repository, &location, offset).await;
}

async fn a_reset_patch_goes_on(registry: &Registry) {
    let repository = registry.repository("team/app");
    let location = repository.start_upload().await;
    registry
        .patch(&location)
        .body(CONTENT.slice(0..1000))
        .send()
        .await
        .expect(202);
    let mut raw = Raw::connect(registry.address()).await;
    raw.write(head("PATCH", &location, "Content-Length: 3000000"))
        .await
        .unwrap();
    raw.write(CONTENT.slice(1000..500_000)).await.unwrap();
    raw.reset();
    // All that was on its way may be lost with the reset; what was acknowledged is not.
    let offset = repository.upload_offset(&location).await;
    assert!(offset >= 1000, "{offset}");
    goes_on(&repository, &location, offset).await;
}

async fn a_cut_put_goes_on(registry: &Registry) {
    let repository = registry.repository("team/app");
    let location = repository.start_upload().await;
    let target = with_query(&location, &format!("digest={}", CONTENT.sha256()));
    let mut raw = Raw::connect(registry.address()).await;
    raw.write(head("PUT", &target, "Content-Length: 3000000"))
        .await
        .unwrap();
    raw.write(CONTENT.slice(0..2_999_999)).await.unwrap();
    drop(raw);
    let offset = noticed(&repository, &location, 0).await;
    repository.get_blob(&CONTENT.sha256()).await.expect(404);
    goes_on(&repository, &location, offset).await;
}

async fn a_cut_post_leaves_nothing(registry: &Registry) {
    let repository = registry.repository("team/app");
    repository.push("{}").await;
    let target = repository.path(&format!("blobs/uploads/?digest={}", CONTENT.sha256()));
    let mut raw = Raw::connect(registry.address()).await;
    raw.write(head("POST", &target, "Content-Length: 3000000"))
        .await
        .unwrap();
    raw.write(CONTENT.slice(0..2_999_999)).await.unwrap();
    raw.reset();
    repository
        .get_blob(&CONTENT.sha256())
        .await
        .refused(404, "BLOB_UNKNOWN");
    let location = repository.start_upload().await;
    goes_on(&repository, &location, 0).await;
}

async fn a_cut_head_changes_nothing(registry: &Registry) {
    let repository = registry.repository("team/app");
    let location = repository.start_upload().await;
    let whole = head("PATCH", &location, "Content-Length: 3000000");
    for length in [1, 10, whole.len() - 1, whole.len()] {
        let mut raw = Raw::connect(registry.address()).await;
        raw.write(&whole[..length]).await.unwrap();
        raw.reset();
    }
    goes_on(&repository, &location, 0).await;
}

async fn cut_again_and_again(registry: &Registry) {
    let repository = registry.repository("team/app");
    let location = repository.start_upload().await;
    let mut offset = 0;
    for _ in 0..8 {
        let mut raw = Raw::connect(registry.address()).await;
        let length = CONTENT.size() - offset;
        raw.write(head(
            "PATCH",
            &location,
            &format!("Content-Length: {length}"),
        ))
        .await
        .unwrap();
        raw.write(CONTENT.slice(offset..offset + 300_000))
            .await
            .unwrap();
        drop(raw);
        offset = noticed(&repository, &location, offset).await;
        // Nobody else writes, so it stands where it stood when the request ended.
        assert_eq!(repository.upload_offset(&location).await, offset);
    }
    goes_on(&repository, &location, offset).await;
}
