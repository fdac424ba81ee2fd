//! A server that speaks the S3 protocol: ceph's gateway, which checks signatures as S3 does.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::Method;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::signer::Signer as _;
use outport_core::config::Secret;
use outport_core::location::Options;
use outport_core::location::bucket::Limits;
use outport_core::location::engine::s3::{Credentials, Options as S3Options, Style};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::ceph::Ceph;
use crate::process::Handle;

/// A server that speaks the S3 protocol.
#[derive(Debug)]
pub struct S3Server(Ceph);

/// Who may do everything there.
pub const KEY_ID: &str = "OUTPORTTESTS";
/// What proves it, with characters that have to be encoded here and there.
pub const SECRET: &str = "hush/Hush+hush=TopSecret%20";
/// How long the server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// For how long the signature of a request is good.
const SIGNATURE_LIFETIME: Duration = Duration::from_mins(1);

// === impl S3Server ===

impl S3Server {
    /// Returns the server that tests share; it ends when the last of them lets go of it.
    pub async fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<S3Server>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start().await);
        *shared = Arc::downgrade(&server);
        server
    }

    /// Starts a server of one's own.
    pub async fn start() -> Self {
        let start = spawn_blocking(|| Ceph::start(KEY_ID, SECRET));
        Self(start.await.unwrap())
    }

    /// Returns the server's URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.0.address())
    }

    /// Creates a bucket of a name that no other has, and returns it.
    pub async fn bucket(&self) -> String {
        let name = format!("bucket-{}", uuid::Uuid::now_v7());
        let bucket = AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_access_key_id(KEY_ID)
            .with_secret_access_key(SECRET)
            .with_bucket_name(&name)
            .build()
            .unwrap();
        let root = Path::default();
        let url = bucket.signed_url(Method::PUT, &root, SIGNATURE_LIFETIME);
        let request = http::Request::put(url.await.unwrap().as_str())
            .body(Empty::new())
            .unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>();
        let response = client.request(request).await.unwrap();
        assert!(response.status().is_success(), "{response:?}");
        name
    }

    /// Returns the options that reach it.
    pub fn options(&self) -> Options {
        Options {
            s3: S3Options {
                endpoint: Some(self.endpoint()),
                region: Some("us-east-1".to_owned()),
                credentials: Credentials::Key {
                    id: KEY_ID.to_owned(),
                    secret: Secret::new(SECRET.to_owned()),
                    token: None,
                },
                style: Style::Path,
                allow_http: true,
                ..S3Options::default()
            },
            limits: Limits {
                answer_timeout: ANSWER_TIMEOUT,
                ..Limits::default()
            },
        }
    }

    /// Returns what an origin is to be told, `key=value`, to reach it with a secret.
    ///
    /// A machine that is busy with tests is not a bucket that is away.
    pub fn settings(&self, secret: &str) -> [String; 5] {
        [
            format!("location.answer_timeout={}s", ANSWER_TIMEOUT.as_secs()),
            format!("location.s3.endpoint={}", self.endpoint()),
            "location.s3.allow_http=true".to_owned(),
            format!("location.s3.access_key_id={KEY_ID}"),
            format!("location.s3.secret_access_key={secret}"),
        ]
    }

    /// Ends it on the spot; what is in its buckets stays.
    pub fn kill(&mut self) {
        self.0.kill_gateway();
    }

    /// Returns a way to stop it, or to end it from within what is sent; [`Self::kill`] is still to be called then.
    pub fn handle(&self) -> Handle {
        self.0.gateway()
    }

    /// Refuses everybody, as it does when a key has been withdrawn.
    pub fn refuse(&self) {
        self.0.suspend_user(true);
    }

    /// Refuses nobody any more who has the secret.
    pub fn accept(&self) {
        self.0.suspend_user(false);
    }

    /// Starts it again, where it was.
    pub fn start_again(&mut self) {
        self.0.start_gateway();
    }
}
