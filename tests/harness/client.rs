//! A client of the API that keeps its connections and changes nothing on the way: no redirect, no decompression, no retry.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::Location;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderName, HeaderValue, Method, Request};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::content::Content;
use crate::reply::Reply;

type RequestBody = UnsyncBoxBody<Bytes, Infallible>;

/// A client of one listener.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    pool: Pool<HttpConnector, RequestBody>,
}

/// A request in the making.
#[derive(Debug)]
#[must_use]
pub struct Call {
    client: Client,
    /// Where it was written down, for messages.
    caller: &'static Location<'static>,
    request: Request<RequestBody>,
}

/// A response whose body is still to be read.
#[derive(Debug)]
pub struct Open {
    /// Status and headers; the body is empty.
    pub head: Reply,
    body: Incoming,
}

/// A response did not come, or broke off.
#[derive(Debug)]
pub struct Broken(String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Client ===

impl Client {
    /// Returns a client of what listens at an address.
    pub fn new(address: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            address,
            pool: Pool::builder(TokioExecutor::new())
                .retry_canceled_requests(false)
                .build(connector),
        }
    }

    /// Returns where it goes.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts a request.
    #[track_caller]
    pub fn call(&self, method: Method, path: &str) -> Call {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .body(Full::default().boxed_unsync())
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        Call {
            client: self.clone(),
            caller: Location::caller(),
            request,
        }
    }

    /// Starts a GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    /// Starts a HEAD.
    #[track_caller]
    pub fn head(&self, path: &str) -> Call {
        self.call(Method::HEAD, path)
    }

    /// Starts a POST.
    #[track_caller]
    pub fn post(&self, path: &str) -> Call {
        self.call(Method::POST, path)
    }

    /// Starts a PUT.
    #[track_caller]
    pub fn put(&self, path: &str) -> Call {
        self.call(Method::PUT, path)
    }

    /// Starts a PATCH.
    #[track_caller]
    pub fn patch(&self, path: &str) -> Call {
        self.call(Method::PATCH, path)
    }

    /// Starts a DELETE.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }
}

// === impl Call ===

impl Call {
    /// Adds a header line.
    #[track_caller]
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let name = HeaderName::try_from(name).unwrap();
        let value = HeaderValue::try_from(value.as_ref()).unwrap();
        self.request.headers_mut().append(name, value);
        self
    }

    /// Sends some bytes, with their length.
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        *self.request.body_mut() = Full::new(bytes.into()).boxed_unsync();
        self
    }

    /// Sends content from an offset on, with its length.
    pub fn content_from(self, content: Content, start: u64) -> Self {
        let length = (content.size() - start).to_string();
        let pieces = content.pieces_from(start, 64 * 1024);
        self.header("content-length", length)
            .chunked(stream::iter(pieces))
    }

    /// Sends content, with its length.
    pub fn content(self, content: Content) -> Self {
        self.content_from(content, 0)
    }

    /// Sends what a stream gives, without a length.
    pub fn chunked(mut self, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        let frames = pieces.map(|piece| Ok(Frame::data(piece)));
        *self.request.body_mut() = StreamBody::new(frames).boxed_unsync();
        self
    }

    /// Sends it and returns the whole answer.
    pub async fn send(self) -> Reply {
        self.try_send()
            .await
            .unwrap_or_else(|broken| panic!("{broken}"))
    }

    /// Sends it; the answer may not come whole.
    pub async fn try_send(self) -> Result<Reply, Broken> {
        let method = self.request.method().clone();
        let Open { mut head, body } = self.try_open().await?;
        let body = body
            .collect()
            .await
            .map_err(|error| Broken(format!("{head}: {error:?}")))?;
        head.body = body.to_bytes();
        head.check(&method);
        Ok(head)
    }

    /// Sends it and returns as soon as the head of the answer is here.
    pub async fn open(self) -> Open {
        self.try_open()
            .await
            .unwrap_or_else(|broken| panic!("{broken}"))
    }

    /// Sends it; no answer may come.
    pub async fn try_open(self) -> Result<Open, Broken> {
        let (method, uri) = (self.request.method(), self.request.uri());
        let asked = format!("{}: {method} {uri}", self.caller);
        let response = match self.client.pool.request(self.request).await {
            Ok(response) => response,
            Err(error) => return Err(Broken(format!("{asked}: {error:?}"))),
        };
        let (head, body) = response.into_parts();
        let head = Reply {
            asked,
            status: head.status,
            headers: head.headers,
            body: Bytes::new(),
        };
        Ok(Open { head, body })
    }
}

// === impl Open ===

impl Open {
    /// Returns the next bytes, or none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| Broken(format!("{}: {error:?}", self.head)))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Reads to the end and holds it to being the content from an offset on; returns its length.
    pub async fn read_content(&mut self, content: Content, start: u64) -> Result<u64, Broken> {
        let mut at = start;
        while let Some(data) = self.next().await? {
            let end = at + data.len() as u64;
            assert!(
                end <= content.size(),
                "{} bytes too many: {}",
                end - content.size(),
                self.head
            );
            assert!(
                content.slice(at..end) == data,
                "other bytes in {at}..{end}: {}",
                self.head
            );
            at = end;
        }
        Ok(at - start)
    }
}
