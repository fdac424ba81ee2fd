use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::Secret;
use crate::net::serve::{self, Server};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

static TASKS: LazyLock<Tasks> = LazyLock::new(Tasks::new);

/// What a request said.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: String,
}

type Answer = fn(&Seen) -> Response<Body>;

/// A registry that answers as a function says, and remembers what it was asked.
struct Rig {
    upstream: Upstream,
    seen: Arc<Mutex<Vec<Seen>>>,
    down: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.down.cancel();
    }
}

impl Rig {
    /// Returns one that lets in who has a token, which `token` answers for.
    async fn guarded(token: Answer) -> Self {
        Self::new(move |seen| {
            if seen.target.starts_with("/token") {
                token(seen)
            } else {
                guarded(seen)
            }
        })
        .await
    }

    async fn new(answer: impl Fn(&Seen) -> Response<Body> + Clone + Send + Sync + 'static) -> Self {
        Self::with(None, answer).await
    }

    async fn with(
        identity_token: Option<&str>,
        answer: impl Fn(&Seen) -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let down = CancellationToken::new();
        let server = Server::new("upstream", serve::Config::default(), &Metrics::new());
        let (log, end) = (Arc::clone(&seen), down.clone());
        drop(TASKS.spawn("upstream", async move {
            let call = move |request: Request<Body>| {
                let (log, answer) = (Arc::clone(&log), answer.clone());
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect_limited(1 << 20).await.unwrap();
                    let seen = Seen {
                        method: head.method,
                        target: head.uri.to_string(),
                        headers: head.headers,
                        body: String::from_utf8(body.to_vec()).unwrap(),
                    };
                    let response = answer(&seen);
                    log.lock().push(seen);
                    response
                }
            };
            server.run(listener, call, end).await;
        }));
        let definition = Definition {
            credentials: Some(Credentials {
                username: "user".to_owned(),
                password: Secret::new("p&ss".to_owned()),
            }),
            identity_token: identity_token.map(|token| Secret::new(token.to_owned())),
            ..Definition::new("hub".to_owned(), url.parse().unwrap())
        };
        Self {
            upstream: Upstream::new(definition, client::Config::default()).unwrap(),
            seen,
            down,
        }
    }

    async fn ask(&self, path: &str) -> Result<StatusCode, UpstreamError> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        let repo = "a/b".parse().unwrap();
        Ok(self
            .upstream
            .send(&repo, request, &Progress::new())
            .await?
            .status())
    }

    fn asked(&self) -> Vec<String> {
        let seen = self.seen.lock();
        let paths = seen.iter();
        paths
            .map(|seen| format!("{} {}", seen.method, seen.target.split('?').next().unwrap()))
            .collect()
    }
}

fn status(code: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

/// Lets in who has the token, and says where it is to be had, which is here.
fn guarded(seen: &Seen) -> Response<Body> {
    if seen.headers.get(AUTHORIZATION) == Some(&HeaderValue::from_static("Bearer good")) {
        return status(200);
    }
    let host = seen.headers["host"].to_str().unwrap();
    let mut response = status(401);
    let asked = format!("Bearer realm=\"http://{host}/token?a=b\",service=\"s\"");
    let headers = response.headers_mut();
    headers.insert(WWW_AUTHENTICATE, asked.parse().unwrap());
    response
}

fn token(text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[tokio::test]
async fn a_token_is_had_once_and_used_again() {
    let rig = Rig::guarded(|_| token(r#"{"access_token": "good", "expires_in": 600}"#)).await;
    for _ in 0..3 {
        assert_eq!(rig.ask("/v2/a/b/tags/list").await.unwrap(), 200);
    }
    assert_eq!(
        rig.asked(),
        [
            "GET /v2/a/b/tags/list",
            "GET /token",
            "GET /v2/a/b/tags/list",
            "GET /v2/a/b/tags/list",
            "GET /v2/a/b/tags/list"
        ]
    );
    let asked = rig.seen.lock()[1].clone();
    assert_eq!(
        asked.target,
        "/token?a=b&service=s&scope=repository%3Aa%2Fb%3Apull&account=user&client_id=outport"
    );
    assert_eq!(asked.headers[AUTHORIZATION], "Basic dXNlcjpwJnNz");
}

#[tokio::test]
async fn a_token_that_is_refused_late_is_not_what_was_granted_since() {
    static HAD: AtomicUsize = AtomicUsize::new(0);
    // The first token is given up at once, the second is good.
    let rig = Rig::new(|seen| {
        if seen.target.starts_with("/token") {
            return match HAD.fetch_add(1, Ordering::SeqCst) {
                0 => token(r#"{"token": "old"}"#),
                _ => token(r#"{"token": "good"}"#),
            };
        }
        guarded(seen)
    })
    .await;
    assert_eq!(rig.ask("/v2/").await.unwrap(), 401);
    let tokens = &rig.upstream.0.tokens;
    let scope = "repository:a/b:pull";
    assert_eq!(rig.ask("/v2/").await.unwrap(), 200);
    let grant = |header| Grant {
        header: HeaderValue::from_static(header),
        good_for: Duration::from_mins(1),
    };
    tokens.forget(scope, &grant("Bearer old")).await;
    assert_eq!(rig.ask("/v2/").await.unwrap(), 200);
    assert_eq!(HAD.load(Ordering::SeqCst), 2);
    tokens.forget(scope, &grant("Bearer good")).await;
    assert!(tokens.granted(scope).await.is_none());
}

#[tokio::test]
async fn a_token_endpoint_that_knows_only_post_is_posted_to() {
    let rig = Rig::new(
        |seen| match (seen.target.starts_with("/token"), &seen.method) {
            (true, &Method::POST) => token(r#"{"access_token": "good"}"#),
            (true, _) => status(405),
            (false, _) => guarded(seen),
        },
    )
    .await;
    assert_eq!(rig.ask("/v2/").await.unwrap(), 200);
    let posted = rig.seen.lock()[2].clone();
    assert_eq!(
        posted.body,
        "grant_type=password&service=s&scope=repository%3Aa%2Fb%3Apull&client_id=outport&username=user&password=p%26ss"
    );
}

#[tokio::test]
async fn an_identity_token_stands_for_the_password() {
    let rig = Rig::with(Some("id&"), |seen| {
        if seen.target.starts_with("/token") {
            token(r#"{"access_token": "good"}"#)
        } else {
            guarded(seen)
        }
    })
    .await;
    assert_eq!(rig.ask("/v2/").await.unwrap(), 200);
    assert_eq!(rig.asked(), ["GET /v2/", "POST /token", "GET /v2/"]);
    let posted = rig.seen.lock()[1].clone();
    assert_eq!(
        posted.body,
        "grant_type=refresh_token&service=s&scope=repository%3Aa%2Fb%3Apull&client_id=outport&refresh_token=id%26"
    );
    assert!(!posted.headers.contains_key(AUTHORIZATION));
}

#[tokio::test]
async fn a_token_that_is_no_good_is_fetched_anew_once() {
    let rig = Rig::guarded(|_| token(r#"{"token": "bad"}"#)).await;
    for _ in 0..2 {
        assert_eq!(rig.ask("/v2/").await.unwrap(), 401);
    }
    assert_eq!(rig.asked().len(), 2 * 3);
}

#[tokio::test]
async fn what_a_token_endpoint_says_is_told_apart() {
    let answers: [(Answer, bool); 6] = [
        (|_| status(401), true),
        (|_| status(403), true),
        (|_| status(500), false),
        (|_| status(429), false),
        (|_| token("<html>"), false),
        (|_| Response::new(Body::from(vec![b' '; 100 << 10])), false),
    ];
    for (answer, is_no) in answers {
        let rig = Rig::guarded(answer).await;
        let Err(UpstreamError::Token(error)) = rig.ask("/v2/").await else {
            panic!("a token was had");
        };
        assert_eq!(error.is_no(), is_no, "{error}");
    }
}

#[tokio::test]
async fn redirects_are_followed_so_far() {
    let rig = Rig::new(|seen| {
        let step: u32 = seen.target.trim_start_matches('/').parse().unwrap();
        if step == 0 {
            return status(200);
        }
        let mut response = status(307);
        let next = format!("/{}", step - 1).parse().unwrap();
        response.headers_mut().insert(LOCATION, next);
        response
    })
    .await;
    assert_eq!(rig.ask("/5").await.unwrap(), 200);
    let endless = rig.ask("/6").await;
    assert!(matches!(endless, Err(UpstreamError::TooManyRedirects)));
}

#[tokio::test]
async fn where_it_sends_to_itself_it_lets_in_as_before() {
    let rig = Rig::new(|seen| {
        if seen.target.starts_with("/token") {
            return token(r#"{"token": "good"}"#);
        }
        let mut response = guarded(seen);
        if response.status() == 200 && seen.target == "/v2/old" {
            response = status(308);
            let next = HeaderValue::from_static("/v2/new");
            response.headers_mut().insert(LOCATION, next);
        }
        response
    })
    .await;
    assert_eq!(rig.ask("/v2/old").await.unwrap(), 200);
    assert_eq!(rig.asked().last().unwrap(), "GET /v2/new");
}

#[tokio::test]
async fn redirects_may_be_relative() {
    let from = Uri::from_static("https://a:5000/v2/b/blobs/c?ns=x");
    for (location, expected) in [
        (
            "https://cdn.example/a%2Fb?sig=x%2B",
            "https://cdn.example/a%2Fb?sig=x%2B",
        ),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("/x?y=z#part", "https://a:5000/x?y=z"),
        ("x", "https://a:5000/v2/b/blobs/x"),
        ("?x=y", "https://a:5000/v2/b/blobs/c?x=y"),
        ("../d e", "https://a:5000/v2/b/d%20e"),
    ] {
        let mut response = status(307);
        response
            .headers_mut()
            .insert(LOCATION, location.parse().unwrap());
        let target = redirect(&from, &response).unwrap().unwrap();
        assert_eq!(target.to_string(), expected, "{location}");
    }
}

/// However few requests may be under way: one that leads to another is over before that begins.
#[tokio::test]
async fn a_question_does_not_wait_for_its_own_connection() {
    let rig = Rig::new(|seen| {
        if seen.target.starts_with("/token") {
            return token(r#"{"token": "good"}"#);
        }
        let mut response = guarded(seen);
        if response.status() == 200 && seen.target == "/v2/old" {
            response = status(307);
            let next = HeaderValue::from_static("/v2/new");
            response.headers_mut().insert(LOCATION, next);
        }
        response
    })
    .await;
    let config = client::Config {
        max_requests: 1,
        ..client::Config::default()
    };
    let definition = rig.upstream.definition().clone();
    let narrow = Rig {
        upstream: Upstream::new(definition, config).unwrap(),
        seen: Arc::clone(&rig.seen),
        down: rig.down.clone(),
    };
    let asking = narrow.ask("/v2/old");
    let answer = timeout(Duration::from_secs(10), asking).await;
    assert_eq!(answer.unwrap().unwrap(), 200);
}

#[tokio::test]
async fn a_redirect_to_nowhere_is_none() {
    for target in ["ftp://a/b", "mailto:a", "", "http://", "http://a b/"] {
        let mut response = status(302);
        let value = target.parse().unwrap();
        response.headers_mut().insert(LOCATION, value);
        let from = Uri::from_static("https://a/v2/b");
        let target = redirect(&from, &response);
        let is_url = target.is_ok_and(|uri| uri.is_some_and(|uri| BaseUrl::of(&uri).is_ok()));
        assert!(!is_url);
    }
}
