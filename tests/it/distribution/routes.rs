//! Paths, methods, names and parameters that are none.

use harness::at_each_door;
use harness::content::Content;
use harness::door::Registry;
use harness::raw::{End, Raw};
use http::Method;

at_each_door!(
    unknown_paths,
    unknown_methods,
    bad_names,
    bad_digests,
    bad_tags,
    bad_parameters,
    malformed_requests,
    broken_chunks
);

async fn unknown_paths(registry: &Registry) {
    for path in [
        "/",
        "/v1/",
        "/v3/",
        "/v2x/",
        "/v2/a",
        "/v2/a/b",
        "/v2/a/blobs/",
        "/v2/a/tags",
        "/v2/a/tags/other",
        "/v2/a/unknown/list",
    ] {
        let reply = registry.get(path).send().await;
        // A digest that is missing may be called bad.
        assert!(matches!(reply.status.as_u16(), 404 | 400), "{reply}");
    }
    registry
        .get("/v3/")
        .send()
        .await
        .refused(404, "UNSUPPORTED");
}

async fn unknown_methods(registry: &Registry) {
    let digest = Content::new(1, 1).sha256();
    let upload = "/v2/a/blobs/uploads/0190f0f0-0000-7000-8000-000000000000";
    for (path, allowed) in [
        ("/v2/", "GET, HEAD"),
        ("/v2/_catalog", "GET, HEAD"),
        ("/v2/a/tags/list", "GET, HEAD"),
        (&format!("/v2/a/referrers/{digest}"), "GET, HEAD"),
        ("/v2/a/manifests/latest", "GET, HEAD, PUT, DELETE"),
        (&format!("/v2/a/blobs/{digest}"), "GET, HEAD, DELETE"),
        ("/v2/a/blobs/uploads/", "POST"),
        (upload, "GET, HEAD, PATCH, PUT, DELETE"),
    ] {
        for method in [
            Method::GET,
            Method::PUT,
            Method::POST,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
            Method::from_bytes(b"FETCH").unwrap(),
        ] {
            if allowed
                .split(", ")
                .all(|allowed| allowed != method.as_str())
            {
                let reply = registry.call(method, path).send().await;
                reply
                    .refused(405, "UNSUPPORTED")
                    .with_header("allow", allowed);
            }
        }
    }
}

async fn bad_names(registry: &Registry) {
    let long = "a".repeat(256);
    for name in [
        "A", "a_", "-a", "a//b", "a/B", "a..b", "a/.b", "%2e%2e", "a%2fb", "a%00", &long,
    ] {
        for rest in ["tags/list", "manifests/latest"] {
            let reply = registry.get(&format!("/v2/{name}/{rest}")).send().await;
            reply.refused(400, "NAME_INVALID");
        }
        let reply = registry
            .post(&format!("/v2/{name}/blobs/uploads/"))
            .send()
            .await;
        reply.refused(400, "NAME_INVALID");
    }
    let longest = "a".repeat(255);
    registry.repository(&longest).push("{}").await;
    registry.repository("a.b__c-d/e--f").push("{}").await;
    registry
        .repository("manifests/tags/list/blobs/uploads")
        .push("{}")
        .await;
}

async fn bad_digests(registry: &Registry) {
    let repository = registry.repository("team/app");
    let good = repository.push("{}").await.to_string();
    for digest in [
        "sha256:baddigeststring",
        "sha256:",
        &good[..good.len() - 1],
        &good.to_uppercase(),
        &format!("{good}0"),
    ] {
        for kind in ["blobs", "manifests"] {
            let reply = repository
                .call(Method::GET, &format!("{kind}/{digest}"))
                .send()
                .await;
            assert!(matches!(reply.status.as_u16(), 404 | 400), "{reply}");
        }
        let reply = repository
            .manifest(Method::PUT, digest)
            .body("{}")
            .send()
            .await;
        reply.refused(400, "DIGEST_INVALID");
        let reply = repository
            .call(Method::GET, &format!("referrers/{digest}"))
            .send()
            .await;
        assert_eq!(reply.status, 400, "{reply}");
        let encoded = digest.replace(':', "%3A");
        let path = format!("blobs/uploads/?digest={encoded}");
        repository
            .call(Method::POST, &path)
            .body("{}")
            .send()
            .await
            .refused(400, "DIGEST_INVALID");
    }
    // An algorithm that nobody has pushed with: there is nothing of that name, and nothing can be pushed as it.
    let unknown = format!("md5:{}", "0".repeat(32));
    repository
        .call(Method::GET, &format!("blobs/{unknown}"))
        .send()
        .await
        .expect(404);
    let path = format!("blobs/uploads/?digest={unknown}");
    repository
        .call(Method::POST, &path)
        .body("{}")
        .send()
        .await
        .refused(400, "DIGEST_INVALID");
    repository
        .manifest(Method::PUT, unknown)
        .body("{}")
        .send()
        .await
        .refused(400, "DIGEST_INVALID");
    let path = "blobs/uploads/?digest-algorithm=md5";
    repository
        .call(Method::POST, path)
        .send()
        .await
        .refused(400, "DIGEST_INVALID");
}

async fn bad_tags(registry: &Registry) {
    let repository = registry.repository("team/app");
    let image = repository.push_image("latest", 1).await.manifest;
    for tag in ["-a", ".a", "a%2Fb", "a%20b", "%C3%A4", &"a".repeat(129)] {
        let reply = repository.put_manifest(tag, &image).await;
        assert_eq!(reply.status, 400, "{reply}");
        let reply = repository.get_manifest(tag).await;
        assert!(matches!(reply.status.as_u16(), 404 | 400), "{reply}");
        let path = format!("{}?tag={tag}", image.digest());
        repository
            .put_manifest(path, &image)
            .await
            .refused(400, "NAME_INVALID");
    }
    let longest = "a".repeat(128);
    repository.put_manifest(&longest, &image).await.expect(201);
    assert_eq!(repository.tags().await, [longest, "latest".to_owned()]);
}

async fn bad_parameters(registry: &Registry) {
    let repository = registry.repository("team/app");
    repository.push_image("latest", 1).await;
    for n in ["-1", "x", "1.5"] {
        let path = format!("tags/list?n={n}");
        let reply = repository.call(Method::GET, &path).send().await;
        assert_eq!(reply.status, 400, "{reply}");
    }
    // More than anyone gives out at once is no mistake.
    let path = "tags/list?n=99999999999999999999";
    repository.call(Method::GET, path).send().await.expect(200);
}

async fn malformed_requests(registry: &Registry) {
    for request in [
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
        "NONSENSE\r\n\r\n",
        "GET /v2/\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ] {
        let mut raw = Raw::connect(registry.address()).await;
        raw.write(request).await.unwrap();
        let reply = raw.reply().await;
        assert_eq!(
            (reply.status, reply.end),
            (Some(400), End::Whole),
            "{request:?}: {reply:?}"
        );
    }
    registry.get("/v2/").send().await.expect(200);
}

async fn broken_chunks(registry: &Registry) {
    let repository = registry.repository("team/broken");
    let upload = repository.start_upload().await;
    for (line, code) in [
        (
            "PUT /v2/team/broken/manifests/tag".to_owned(),
            "MANIFEST_INVALID",
        ),
        (format!("PATCH {upload}"), "BLOB_UPLOAD_INVALID"),
    ] {
        let mut raw = Raw::connect(registry.address()).await;
        let head = format!("{line} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        raw.write(&format!("{head}no length\r\n")).await.unwrap();
        let reply = raw.reply().await;
        assert_eq!(reply.status, Some(400), "{line}: {reply:?}");
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(body["errors"][0]["code"], code, "{line}");
    }
}
