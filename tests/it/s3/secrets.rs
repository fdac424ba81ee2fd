//! Who cannot prove to be somebody is refused, and told so without the secret.

use std::io::Read as _;
use std::process::{Command, Stdio};

use harness::content::Content;
use harness::node::Origin;
use harness::process::binary;
use harness::repository::Repository;
use harness::s3::{KEY_ID, S3Server, SECRET};
use http::Method;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use outport_core::config::Secret;
use outport_core::location::engine::s3::{Credentials, Options as S3Options, S3};
use outport_core::location::engine::{CopyPart, Engine as _};
use outport_core::location::{Location, Options};
use outport_core::net::respond::chain;
use outport_core::store::StoreError;

const WRONG: &str = "not/the+secret";

fn key(id: &str, secret: &str) -> Credentials {
    Credentials::Key {
        id: id.to_owned(),
        secret: Secret::new(secret.to_owned()),
        token: None,
    }
}

/// Returns the options that reach the server as somebody.
fn options(server: &S3Server, credentials: Credentials) -> Options {
    let Options { s3, limits } = server.options();
    let s3 = S3Options { credentials, ..s3 };
    Options { s3, limits }
}

#[track_caller]
fn assert_no_secret(text: &str) {
    assert!(!text.contains(WRONG) && !text.contains(SECRET), "{text}");
}

#[tokio::test]
async fn a_location_says_why_it_cannot_be_used() {
    let server = S3Server::shared().await;
    let bucket = server.bucket().await;
    let open = |bucket: &str, credentials: Credentials| {
        let url = format!("s3://{bucket}/eu").parse().unwrap();
        Location::open(url, &options(&server, credentials)).unwrap()
    };
    let check = async |bucket: &str, credentials: Credentials, expected: &str| {
        let error = open(bucket, credentials).check().await.unwrap_err();
        assert!(matches!(error, StoreError::Failed(_)), "{error:?}");
        let text = format!("{} {error:?}", chain(&error));
        assert!(text.contains(expected), "{text}");
        assert_no_secret(&text);
    };
    let good = open(&bucket, key(KEY_ID, SECRET));
    good.check().await.unwrap();
    let text = "the secret access key does not belong to the access key id";
    check(&bucket, key(KEY_ID, WRONG), text).await;
    check(&bucket, key("nobody", SECRET), "no such access key id").await;
    check(&bucket, Credentials::Anonymous, "do not allow this").await;
    check("no-such-bucket", key(KEY_ID, SECRET), "no such bucket").await;
}

/// The one request that is signed by us, and not by `object_store`.
#[tokio::test]
async fn a_copied_part_is_signed() {
    let server = S3Server::shared().await;
    let bucket = server.bucket().await;
    let engine = |secret: &str| {
        let options = options(&server, key(KEY_ID, secret));
        S3::new(&bucket, &options.s3).unwrap()
    };
    let (good, bad) = (engine(SECRET), engine(WRONG));
    let (from, to) = (Path::from("a b/=+/from"), Path::from("a b/=+/to"));
    let content = Content::new(1, 10_000).bytes();
    let put = good.objects().put(&from, content.clone().into());
    put.await.unwrap();
    let multipart = good.multipart().create_multipart(&to).await.unwrap();
    let copy = CopyPart {
        from: &from,
        range: 2_000..9_000,
        to: &to,
        multipart: &multipart,
        index: 0,
    };
    let error = bad.copy_part(copy.clone()).await.unwrap_err();
    let text = format!("{} {error:?}", chain(&error));
    assert!(text.contains("SignatureDoesNotMatch"), "{text}");
    assert_no_secret(&text);

    let part = good.copy_part(copy).await.unwrap();
    let complete = good.multipart();
    let complete = complete.complete_multipart(&to, &multipart, vec![part]);
    complete.await.unwrap();
    let copied = good
        .objects()
        .get(&to)
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert_eq!(copied, content.slice(2_000..9_000));
}

#[tokio::test]
async fn an_origin_with_a_wrong_secret_does_not_start() {
    let server = S3Server::shared().await;
    let bucket = server.bucket().await;
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary("outport"));
    command
        .args(["origin", "--set"])
        .arg(format!("location.url=s3://{bucket}/eu"));
    for setting in server.settings(WRONG) {
        command.args(["--set", &setting]);
    }
    let mut child = command
        .args(["--set", "listen=127.0.0.1:0"])
        .args(["--set", "admin_listen=127.0.0.1:0"])
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    for expected in [
        &format!("s3://{bucket}/eu"),
        "SignatureDoesNotMatch",
        "the secret access key does not belong",
    ] {
        assert!(said.contains(expected), "{expected} is not in {said}");
    }
    assert!(!said.contains("listening"), "{said}");
    assert_no_secret(&said);
}

/// A key that is withdrawn while the origin runs, and given again.
#[tokio::test]
async fn a_refusal_is_not_passed_on() {
    let server = S3Server::start().await;
    let bucket = server.bucket().await;
    let origin = Origin::builder().bucket(&server, &bucket).start().await;
    let repository = Repository::new(origin.client(), "team/app");
    let content = Content::new(1, 1_000_000);
    let digest = repository.push_content(content).await;
    let location = repository.start_upload().await;

    server.refuse();
    let patch = repository.client().patch(&location).body("new");
    for call in [repository.blob(Method::GET, &digest), patch] {
        let reply = call.send().await.refused(500, "UNKNOWN");
        let body = String::from_utf8_lossy(&reply.body);
        for word in [bucket.as_str(), KEY_ID, "Suspended", "Denied"] {
            assert!(!body.contains(word), "{reply}");
        }
    }
    let log = origin.process().log().concat();
    assert!(log.contains("UserSuspended"), "{log}");
    assert_no_secret(&log);

    server.accept();
    repository
        .get_blob(&digest)
        .await
        .expect(200)
        .with_body(&content.bytes());
    let patch = repository.client().patch(&location).body("new");
    patch.send().await.expect(202);
}
