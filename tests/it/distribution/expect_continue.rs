//! `Expect: 100-continue`: a client that asks before it sends is told to go on, or why not.

use harness::at_each_door;
use harness::content::Content;
use harness::door::Registry;
use harness::raw::Raw;
use harness::repository::with_query;

at_each_door!(a_body_is_asked_for, a_refused_body_need_not_be_sent);

const CONTENT: Content = Content::new(1, 100_000);

async fn a_body_is_asked_for(registry: &Registry) {
    let repository = registry.repository("team/app");
    let location = repository.start_upload().await;
    let target = with_query(&location, &format!("digest={}", CONTENT.sha256()));
    let mut raw = Raw::connect(registry.address()).await;
    let head = format!(
        "PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        CONTENT.size()
    );
    raw.write(head).await.unwrap();
    let reply = raw.reply().await;
    assert_eq!(reply.status, Some(100), "{reply:?}");
    raw.write(CONTENT.bytes()).await.unwrap();
    let reply = raw.reply().await;
    assert_eq!(reply.status, Some(201), "{reply:?}");
    repository
        .get_blob(&CONTENT.sha256())
        .await
        .expect(200)
        .with_body(&CONTENT.bytes());
}

async fn a_refused_body_need_not_be_sent(registry: &Registry) {
    registry.repository("team/app").push("{}").await;
    let id = "0190f0f0-0000-7000-8000-000000000000";
    for (request, status) in [
        ("PUT /v2/team/app/manifests/tag", 413),
        ("PUT /v2/team/APP/manifests/tag", 400),
        ("POST /v2/team/app/blobs/uploads/?digest=nonsense", 400),
        (&format!("PATCH /v2/team/app/blobs/uploads/{id}"), 404),
    ] {
        let mut raw = Raw::connect(registry.address()).await;
        let head = format!(
            "{request} HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
        );
        raw.write(head).await.unwrap();
        let mut reply = raw.reply().await;
        // An edge asks for the body before it knows what the origin will say.
        if reply.status == Some(100) {
            reply = raw.reply().await;
        }
        assert_eq!(reply.status, Some(status), "{request}: {reply:?}");
    }
}
