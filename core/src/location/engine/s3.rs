//! S3, and the many stores that speak its protocol.
//!
//! What: `object_store`'s engine, set up for large blobs, and the one request it does not know, `UploadPartCopy` with a range.
//!
//! Failure: requests are bounded by [`Options`] in time and number; `object_store` retries with its own backoff, which ignores
//! `Retry-After`, so the bounds are short and the rest is left to our callers.

use std::time::Duration;

use async_trait::async_trait;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    HttpClient, HttpConnector as _, HttpRequest, HttpRequestBody, ReqwestConnector,
};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer as _};
use object_store::{BackoffConfig, ClientOptions, Error, ObjectStore, Result, RetryConfig};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use super::{CopyPart, Engine};
use crate::backoff::Backoff;
use crate::config::Secret;

/// What of a key may stand in `x-amz-copy-source` as it is.
const COPY_SOURCE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The delay before the second attempt, and the longest before any.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_millis(3200);

/// For how long the signature of a request is good.
const SIGNATURE_LIFETIME: Duration = Duration::from_mins(5);

/// How a bucket is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server, `https://host[:port]`; none for AWS.
    pub endpoint: Option<String>,
    /// The region that requests are signed for; none for what the environment says, or else `us-east-1`.
    pub region: Option<String>,
    /// Who asks.
    pub credentials: Credentials,
    /// Whether the bucket is the first part of the path, or of the host name.
    pub style: Style,
    /// Whether the endpoint may be `http://`; then payloads are signed, which costs a second hash.
    pub allow_http: bool,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a request may be without progress of its response.
    pub request_timeout: Duration,
    /// How often a request is made again.
    pub retries_max: usize,
    /// How long after the first attempt it may be made again.
    pub retry_timeout: Duration,
}

/// How a request names its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `https://host/bucket/key`.
    Path,
    /// `https://bucket.host/key`.
    VirtualHost,
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// As `AWS_*` in the environment, a web identity token, the container or the instance say.
    Environment,
    /// A key.
    Key {
        /// Its public part.
        id: String,
        /// Its secret part.
        secret: Secret,
        /// The session's token, for temporary keys.
        token: Option<Secret>,
    },
    /// Nobody in particular.
    Anonymous,
}

/// A bucket.
#[derive(Debug)]
pub struct S3 {
    store: AmazonS3,
    http: HttpClient,
    bucket: String,
    /// Between the attempts of the one request that `object_store` does not make.
    backoff: Backoff,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            credentials: Credentials::Environment,
            style: Style::VirtualHost,
            allow_http: false,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_mins(1),
            retries_max: 4,
            retry_timeout: Duration::from_secs(30),
        }
    }
}

impl Options {
    fn client(&self) -> ClientOptions {
        ClientOptions::new()
            .with_allow_http(self.allow_http)
            .with_connect_timeout(self.connect_timeout)
            .with_read_timeout(self.request_timeout)
            // The default bounds a whole response, which for a blob may last for hours.
            .with_timeout_disabled()
    }

    fn retry(&self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(5),
                base: 2.0,
            },
            max_retries: self.retries_max,
            retry_timeout: self.retry_timeout,
        }
    }

    fn builder(&self) -> AmazonS3Builder {
        let builder = match &self.credentials {
            Credentials::Environment => AmazonS3Builder::from_env(),
            Credentials::Anonymous => AmazonS3Builder::new().with_skip_signature(true),
            Credentials::Key { id, secret, token } => {
                let builder = AmazonS3Builder::new()
                    .with_access_key_id(id)
                    .with_secret_access_key(secret.expose());
                match token {
                    Some(token) => builder.with_token(token.expose()),
                    None => builder,
                }
            }
        };
        let builder = match &self.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint),
            None => builder,
        };
        match &self.region {
            Some(region) => builder.with_region(region),
            None => builder,
        }
    }
}

// === impl S3 ===

impl S3 {
    /// Sets up a bucket; makes no request.
    pub fn new(bucket: &str, options: &Options) -> Result<Self> {
        let store = options
            .builder()
            .with_bucket_name(bucket)
            .with_virtual_hosted_style_request(options.style == Style::VirtualHost)
            .with_allow_http(options.allow_http)
            .with_client_options(options.client())
            .with_retry(options.retry())
            // TLS vouches for the bytes where there is TLS.
            .with_unsigned_payload(!options.allow_http)
            // Not every server knows `DeleteObjects`.
            .with_disable_bulk_delete(true)
            .build()?;
        let attempts = u32::try_from(options.retries_max)
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let backoff = Backoff::try_new(FIRST_RETRY, LONGEST_RETRY, attempts).map_err(|error| {
            Error::Generic {
                store: "S3",
                source: error.into(),
            }
        })?;
        Ok(Self {
            store,
            http: ReqwestConnector::default().connect(&options.client())?,
            bucket: bucket.to_owned(),
            backoff,
        })
    }

    async fn try_copy_part(&self, copy: &CopyPart<'_>) -> Result<PartId, CopyError> {
        let source = format!(
            "/{}/{}",
            self.bucket,
            utf8_percent_encode(copy.from.as_ref(), COPY_SOURCE)
        );
        let range = format!("bytes={}-{}", copy.range.start, copy.range.end - 1);
        let headers = [
            ("x-amz-copy-source", source),
            ("x-amz-copy-source-range", range),
        ];
        let mut options = SignedUrlOptions::new().with_query([
            ("partNumber", (copy.index + 1).to_string()),
            ("uploadId", copy.multipart.to_owned()),
        ]);
        for (name, value) in headers {
            let value = HeaderValue::try_from(value).map_err(generic)?;
            options = options.with_signed_header(HeaderName::from_static(name), value);
        }
        let url = self
            .store
            .signed_url_opts(Method::PUT, copy.to, SIGNATURE_LIFETIME, &options)
            .await?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = url.as_str().parse().map_err(generic)?;
        *request.headers_mut() = options.signed_headers;
        request
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = self.http.execute(request).await.map_err(generic)?;
        let status = response.status();
        let body = response.into_body().bytes().await.map_err(generic)?;
        let body = String::from_utf8_lossy(&body);
        match part_id(&body) {
            Some(id) if status.is_success() => Ok(id),
            // A copy that fails late says so in the body of a 200.
            _ => Err(CopyError::Answer(status, body.into_owned())),
        }
    }
}

#[async_trait]
impl Engine for S3 {
    fn objects(&self) -> &dyn ObjectStore {
        &self.store
    }

    fn multipart(&self) -> &dyn MultipartStore {
        &self.store
    }

    async fn copy_part(&self, copy: CopyPart<'_>) -> Result<PartId> {
        // The random part of an id is seed enough to spread retries.
        let mut delays = self.backoff.delays(Uuid::now_v7().as_u64_pair().1);
        loop {
            let error = match self.try_copy_part(&copy).await {
                Ok(part) => return Ok(part),
                Err(error) => error,
            };
            match delays.next().filter(|_| error.is_transient()) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(error.into_error(copy.from)),
            }
        }
    }
}

/// Why a part was not copied.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error("copy a part: status code: {0}: {1}")]
    Answer(StatusCode, String),
    #[error(transparent)]
    Other(#[from] Error),
}

impl CopyError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Answer(status, _) => {
                // An answer of 200 that is none is a late failure within the store.
                status.is_server_error()
                    || status.is_success()
                    || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Other(_) => true,
        }
    }

    fn into_error(self, path: &Path) -> Error {
        match self {
            Self::Answer(StatusCode::NOT_FOUND, _) => Error::NotFound {
                path: path.to_string(),
                source: self.into(),
            },
            Self::Answer(..) => generic(self),
            Self::Other(error) => error,
        }
    }
}

fn generic(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic {
        store: "S3",
        source: error.into(),
    }
}

/// Returns what the answer to a copy calls the part.
fn part_id(body: &str) -> Option<PartId> {
    let (_, rest) = body.split_once("<ETag>")?;
    let (etag, _) = rest.split_once("</ETag>")?;
    let content_id = etag.replace("&quot;", "\"").replace("&#34;", "\"");
    (!content_id.is_empty()).then_some(PartId { content_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_id_of_a_copied_part() {
        #[track_caller]
        fn check(body: &str, expected: Option<&str>) {
            assert_eq!(part_id(body).map(|id| id.content_id).as_deref(), expected);
        }
        check(
            "<?xml version=\"1.0\"?>\n<CopyPartResult><LastModified>x</LastModified><ETag>&quot;ab&quot;</ETag></CopyPartResult>",
            Some("\"ab\""),
        );
        check(
            "<CopyPartResult><ETag>\"ab\"</ETag></CopyPartResult>",
            Some("\"ab\""),
        );
        check("<Error><Code>InternalError</Code></Error>", None);
        check("<ETag></ETag>", None);
        check("", None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials::Key {
            id: "id".to_owned(),
            secret: Secret::new("hush".to_owned()),
            token: Some(Secret::new("hush".to_owned())),
        };
        assert!(!format!("{credentials:?}").contains("hush"));
    }
}
