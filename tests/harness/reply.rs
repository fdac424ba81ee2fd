//! What came back: a response, whole.
//!
//! Invariant: whatever a test looks at, every response of the API is held to what is promised of all of them: the version
//! header, an exact length, and the protocol's JSON for every error.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use outport_core::oci::digest::{Algorithm, Digest};
use serde_json::Value;

/// A response, whole.
#[derive(Clone, Debug)]
pub struct Reply {
    /// What was asked, for messages.
    pub(crate) asked: String,
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

// === impl Reply ===

impl Reply {
    /// Holds it to what is promised of every response of the API.
    #[track_caller]
    pub(crate) fn check(&self, method: &Method) {
        assert_eq!(
            self.headers("docker-distribution-api-version"),
            ["registry/2.0"],
            "{self}"
        );
        if self.status != StatusCode::NO_CONTENT && self.status != StatusCode::NOT_MODIFIED {
            let length: usize = self.header("content-length").parse().unwrap();
            if method != Method::HEAD {
                assert_eq!(length, self.body.len(), "{self}");
            }
        }
        if method == Method::HEAD {
            assert!(self.body.is_empty(), "{self}");
        } else if self.status.as_u16() >= 400 {
            self.check_error();
        }
    }

    #[track_caller]
    fn check_error(&self) {
        assert_eq!(self.header("content-type"), "application/json", "{self}");
        let json = self.json();
        let errors = json["errors"].as_array().expect("a list of errors");
        assert!(!errors.is_empty(), "{self}");
        for error in errors {
            let code = error["code"].as_str().expect("a code");
            assert!(
                code.bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte == b'_'),
                "{self}"
            );
            assert!(error["message"].is_string(), "{self}");
        }
    }

    /// Holds it to a status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self}");
        self
    }

    /// Holds it to a refusal with a code.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!(
            (self.status.as_u16(), self.code().as_str()),
            (status, code),
            "{self}"
        );
        self
    }

    /// Returns the code of its first error.
    #[track_caller]
    pub fn code(&self) -> String {
        let json = self.json();
        json["errors"][0]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no error: {self}"))
            .to_owned()
    }

    /// Returns a header that must be there once.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let values = self.headers(name);
        assert_eq!(values.len(), 1, "{name}: {self}");
        values[0]
    }

    /// Returns the values of a header, one for each line.
    #[track_caller]
    pub fn headers(&self, name: &str) -> Vec<&str> {
        self.headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    }

    /// Holds it to a header.
    #[track_caller]
    pub fn with_header(self, name: &str, value: &str) -> Self {
        assert_eq!(self.headers(name), [value], "{name}: {self}");
        self
    }

    /// Holds it to not having a header.
    #[track_caller]
    pub fn without_header(self, name: &str) -> Self {
        assert!(!self.headers.contains_key(name), "{name}: {self}");
        self
    }

    /// Holds it to a body.
    #[track_caller]
    pub fn with_body(self, body: &[u8]) -> Self {
        assert!(
            self.body == body,
            "{} bytes instead of {}: {self}",
            self.body.len(),
            body.len()
        );
        self
    }

    /// Returns its body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Returns the path that `Location` names, which must be on the host that was asked.
    #[track_caller]
    pub fn location(&self) -> &str {
        let location = self.header("location");
        assert!(location.starts_with("/v2/"), "{self}");
        location
    }

    /// Returns the digest of the body.
    pub fn body_digest(&self, algorithm: Algorithm) -> Digest {
        algorithm.digest(&self.body)
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(500)]);
        write!(
            f,
            "{} -> {} {:?} {body:?}",
            self.asked, self.status, self.headers
        )
    }
}
