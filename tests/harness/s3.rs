//! A server that speaks the S3 protocol, as a child process.
//!
//! It is moto's, which keeps objects in memory and is as strict as S3 about parts that are too short, wrong or gone.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};

use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use outport_core::config::Secret;
use outport_core::location::Options;
use outport_core::location::engine::s3::{Credentials, Options as S3Options, Style};
use tokio::sync::Mutex;

/// A server that speaks the S3 protocol.
#[derive(Debug)]
pub struct S3Server {
    child: Child,
    address: SocketAddr,
}

// === impl S3Server ===

impl S3Server {
    /// Returns the server that tests share; it ends when the last of them lets go of it.
    pub async fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<S3Server>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *shared = Arc::downgrade(&server);
        server
    }

    /// Starts a server of one's own.
    ///
    /// # Panics
    ///
    /// When it is not installed, or does not start.
    pub fn start() -> Self {
        let program = program();
        assert!(
            program.is_file(),
            "{} is missing: run tests/run",
            program.display()
        );
        let mut child = Command::new(program)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let address = loop {
            let Some(line) = lines.next() else {
                panic!("the S3 server ended:{said}");
            };
            let line = line.unwrap();
            if let Some((_, address)) = line.split_once("Running on http://") {
                break address.trim().parse().unwrap();
            }
            write!(said, "\n  {line}").unwrap();
        };
        // It logs every request, and would stop when nobody reads that.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// Returns the server's URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Creates a bucket.
    pub async fn create_bucket(&self, name: &str) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>();
        let request = http::Request::put(format!("{}/{name}", self.endpoint()))
            .body(Empty::new())
            .unwrap();
        let response = client.request(request).await.unwrap();
        assert!(response.status().is_success(), "{response:?}");
    }

    /// Returns the options that reach it.
    pub fn options(&self) -> Options {
        Options {
            s3: S3Options {
                endpoint: Some(self.endpoint()),
                region: Some("us-east-1".to_owned()),
                credentials: Credentials::Key {
                    id: "test".to_owned(),
                    secret: Secret::new("test-secret".to_owned()),
                    token: None,
                },
                style: Style::Path,
                allow_http: true,
                ..S3Options::default()
            },
            ..Options::default()
        }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It keeps nothing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Returns where `tests/run` installs the server: beside the profiles of the target directory.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    target.join("test-tools/moto/bin/moto_server")
}
