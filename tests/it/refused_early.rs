//! A client that is refused in the middle of a large body reads why, also one that sends all of it before it reads.

use std::net::SocketAddr;

use harness::door::Site;
use harness::raw::{End, Raw, RawReply};
use harness::repository::Repository;
use serde_json::Value;

const MIB: usize = 1 << 20;
const SENT_BYTES: usize = 64 * MIB;

/// Sends a request with a large body to its end, and reads only then.
async fn send_all_then_read(address: SocketAddr, line: &str) -> RawReply {
    let mut raw = Raw::connect(address).await;
    let head = format!("{line} HTTP/1.1\r\nhost: a\r\ncontent-length: {SENT_BYTES}\r\n\r\n");
    raw.write(head).await.expect(line);
    let piece = vec![7; MIB];
    for _ in 0..SENT_BYTES / MIB {
        raw.write(&piece).await.expect(line);
    }
    raw.reply().await
}

async fn is_refused(address: SocketAddr, line: &str, status: u16, code: &str) {
    let reply = send_all_then_read(address, line).await;
    assert_eq!(reply.end, End::Whole, "{line}: {reply:?}");
    assert_eq!(reply.status, Some(status), "{line}: {reply:?}");
    let errors: Value = serde_json::from_slice(&reply.body).expect(line);
    assert_eq!(errors["errors"][0]["code"], code, "{line}: {errors}");
    assert_eq!(reply.headers["connection"], "close", "{line}: {reply:?}");
}

#[tokio::test]
async fn by_an_edge_whose_origin_is_away() {
    let mut site = Site::start().await;
    let edge = Repository::new(site.edge.client(), "team/app");
    let session = edge.start_upload().await;
    site.origin.stop();
    let blob = format!("sha256:{}", "0".repeat(64));
    for line in [
        format!("PATCH {session}"),
        format!("PUT {session}?digest={blob}"),
        format!("POST /v2/team/app/blobs/uploads/?digest={blob}"),
        "PUT /v2/team/app/manifests/latest".to_owned(),
    ] {
        is_refused(site.edge.address(), &line, 503, "UNAVAILABLE").await;
    }
}

#[tokio::test]
async fn at_either_door() {
    let site = Site::start().await;
    let none = "/v2/team/app/blobs/uploads/01990000-0000-7000-8000-000000000000";
    for address in site.doors() {
        for (line, status, code) in [
            (format!("PATCH {none}"), 404, "BLOB_UPLOAD_UNKNOWN"),
            ("PUT /elsewhere".to_owned(), 404, "UNSUPPORTED"),
            ("PUT /v2/".to_owned(), 405, "UNSUPPORTED"),
            (
                "PUT /v2/team/app/manifests/latest".to_owned(),
                413,
                "MANIFEST_INVALID",
            ),
        ] {
            is_refused(address, &line, status, code).await;
        }
    }
}
