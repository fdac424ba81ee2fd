use http::header::AUTHORIZATION;

use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// The cheapest that there is, as tests check many.
const COST: u32 = 4;

fn users(users: &[(&str, &str)]) -> String {
    let line = |(name, password)| {
        let hash = bcrypt::hash::<&str>(password, COST).unwrap();
        format!("{name}:{hash}\n")
    };
    users.iter().copied().map(line).collect()
}

fn config(key: Option<&str>) -> Config {
    Config {
        users: Some(UsersFile {
            path: "users".into(),
            text: users(&[("alice", "secret"), ("bob", "other")]),
        }),
        reload_interval: Duration::from_millis(10),
        key: key.map(|key| Secret::new(key.to_owned())),
        tokens_for: Duration::from_mins(5),
        password_checks: 2,
        public_url: None,
        is_tls: false,
    }
}

fn access() -> Access {
    Access::new(config(Some(KEY))).unwrap()
}

fn basic(name: &str, password: &str) -> String {
    use base64::Engine as _;
    let pair = format!("{name}:{password}");
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    format!("Basic {encoded}")
}

fn get(path: &str, authorization: Option<&str>) -> Request<Body> {
    let mut request = Request::get(path).header(HOST, "edge.example:5000");
    if let Some(authorization) = authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    request.body(Body::empty()).unwrap()
}

/// Answers who asks, and refuses `/v2/closed/...` to anybody.
async fn service(request: Request<Body>) -> Response<Body> {
    let caller = Caller::of(request.extensions()).clone();
    let is_closed = request.uri().path().starts_with("/v2/closed/");
    if is_closed && caller == Caller::Anybody {
        return error_response(&ErrorCode::Unauthorized.into());
    }
    small(
        HeaderValue::from_static("text/plain"),
        format!("{caller:?}"),
    )
}

/// Asks, and returns the status, the challenge and the body.
async fn ask(access: &Access, request: Request<Body>) -> (u16, String, String) {
    let response = serve(Some(access.clone()), request, service).await;
    let status = response.status().as_u16();
    let challenge = response.headers().get(WWW_AUTHENTICATE);
    let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
    let body = response.into_body().collect_limited(10_000).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    (status, challenge.unwrap_or_default(), body)
}

async fn token(access: &Access, request: Request<Body>) -> Result<String, u16> {
    let (status, _, body) = ask(access, request).await;
    if status != 200 {
        return Err(status);
    }
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["token"], body["access_token"]);
    assert_eq!(body["expires_in"], 300);
    Ok(format!("Bearer {}", body["token"].as_str().unwrap()))
}

#[tokio::test]
async fn clients_are_told_where_tokens_are() {
    let access = access();
    let realm = "Bearer realm=\"http://edge.example:5000/token\",service=\"edge.example:5000\"";
    let (status, challenge, body) = ask(&access, get("/v2/", None)).await;
    assert_eq!((status, challenge), (401, realm.to_owned()));
    assert!(body.contains("UNAUTHORIZED"));
    let (status, challenge, _) = ask(&access, get("/v2/closed/app/manifests/1", None)).await;
    let scope = format!("{realm},scope=\"repository:closed/app:pull\"");
    assert_eq!((status, challenge), (401, scope));
    let public_url = "https://registry.example/sub".parse().ok();
    let access = Access::new(Config {
        public_url,
        ..config(None)
    });
    let (_, challenge, _) = ask(&access.unwrap(), get("/v2/", None)).await;
    let realm = "Bearer realm=\"https://registry.example/sub/token\",service=\"registry.example\"";
    assert_eq!(challenge, realm);
}

#[tokio::test]
async fn a_token_stands_for_who_asked_for_it() {
    let access = access();
    let path = "/v2/open/app/manifests/1";
    for (shown, expected) in [
        (None, "Anybody"),
        (Some(basic("alice", "secret")), "User(\"alice\")"),
        (Some(basic("", "")), "Anybody"),
    ] {
        let asked = get(
            "/token?service=x&scope=repository:open/app:pull",
            shown.as_deref(),
        );
        let token = token(&access, asked).await.unwrap();
        for path in [path, "/v2/"] {
            let (status, _, body) = ask(&access, get(path, Some(&token))).await;
            assert_eq!((status, body.as_str()), (200, expected), "{path}");
        }
    }
    // Nothing shown, and a password shown with the request itself.
    assert_eq!(ask(&access, get(path, None)).await.2, "Anybody");
    for _ in 0..2 {
        let shown = basic("bob", "other");
        let (status, _, body) = ask(&access, get(path, Some(&shown))).await;
        assert_eq!((status, body.as_str()), (200, "User(\"bob\")"));
    }
}

#[tokio::test]
async fn a_form_gets_a_token_too() {
    let access = access();
    let post = |form: &'static str| {
        let request = Request::post("/token").header(HOST, "edge.example");
        request.body(Body::from(form.as_bytes().to_vec())).unwrap()
    };
    let good = "grant_type=password&service=x&client_id=y&username=alice&password=secret";
    let given = token(&access, post(good)).await.unwrap();
    assert_eq!(
        ask(&access, get("/v2/", Some(&given))).await.2,
        "User(\"alice\")"
    );
    for bad in [
        "grant_type=password&username=alice&password=wrong",
        "grant_type=password&username=alice",
        "grant_type=refresh_token&refresh_token=x",
        "",
        "%%%",
    ] {
        assert_eq!(token(&access, post(bad)).await, Err(401), "{bad}");
    }
    let long = Body::from(vec![b'a'; 1 << 20]);
    let long = Request::post("/token").body(long).unwrap();
    assert_eq!(token(&access, long).await, Err(401));
    let delete = Request::delete("/token").body(Body::empty()).unwrap();
    assert_eq!(token(&access, delete).await, Err(405));
}

#[tokio::test]
async fn what_is_wrong_is_refused_whatever_was_asked() {
    let access = access();
    let other = Access::new(config(Some("another key, and that is as long"))).unwrap();
    let alien = other.as_node().unwrap();
    for shown in [
        basic("alice", "wrong"),
        basic("alice", ""),
        basic("nobody", "secret"),
        basic("", "secret"),
        "Bearer nonsense".to_owned(),
        "Basic !".to_owned(),
        "Digest x".to_owned(),
        alien.to_str().unwrap().to_owned(),
    ] {
        for path in ["/v2/", "/v2/open/app/manifests/1", "/token", "/nothing"] {
            let (status, challenge, _) = ask(&access, get(path, Some(&shown))).await;
            assert_eq!(status, 401, "{shown} {path}");
            assert!(!challenge.is_empty(), "{shown} {path}");
        }
    }
}

#[tokio::test]
async fn nodes_know_each_other_by_their_key() {
    let (access, other) = (access(), access());
    let shown = other.as_node().unwrap();
    let (_, _, body) = ask(&access, get("/v2/", shown.to_str().ok())).await;
    assert_eq!(body, "Node");
    assert!(shown.is_sensitive());
    let alone = Access::new(config(None)).unwrap();
    assert_eq!(alone.as_node(), None);
    // Nobody gets more of a token by showing one.
    let again = get("/token", shown.to_str().ok());
    assert_eq!(token(&access, again).await, Err(401));
}

#[test]
fn who_is_no_user_is_a_stranger_where_there_are_users() {
    let names = ["alice", "mallory"].map(str::to_owned);
    assert_eq!(access().strangers(&names), [&names[1]]);
    let nodes_only = Access::new(Config {
        users: None,
        ..config(Some(KEY))
    });
    assert!(nodes_only.unwrap().strangers(&names).is_empty());
}

#[tokio::test]
async fn users_come_and_go_with_their_file() {
    let access = access();
    let asked = get("/token", Some(&basic("alice", "secret")));
    let token = token(&access, asked).await.unwrap();
    let is_in = async |shown: &str| ask(&access, get("/v2/", Some(shown))).await.0 == 200;
    assert!(is_in(&token).await);
    // What is no file of users, or cannot be read, changes nothing.
    access.take(Ok("carol".to_owned()));
    access.take(Err(io::Error::other("gone")));
    for empty in ["", " \n"] {
        access.take(Ok(empty.to_owned()));
    }
    assert!(is_in(&token).await);
    access.take(Ok(users(&[("bob", "new"), ("carol", "pw")])));
    assert!(is_in(&basic("carol", "pw")).await);
    assert!(!is_in(&token).await, "alice is gone");
    assert!(!is_in(&basic("bob", "other")).await, "that was bob's");
    assert!(is_in(&basic("bob", "new")).await);
}

#[tokio::test]
async fn the_file_of_users_is_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    let text = users(&[("alice", "secret")]);
    std::fs::write(&path, users(&[("bob", "other")])).unwrap();
    let access = Access::new(Config {
        users: Some(UsersFile { path, text }),
        ..config(None)
    });
    let (access, tasks) = (access.unwrap(), Tasks::new());
    let minding = access.clone().mind(Hangups::default(), tasks.clone());
    drop(tasks.spawn("users", minding));
    while !access.users().has("bob") {
        tokio::task::yield_now().await;
    }
    assert!(!access.users().has("alice"));
    tasks.cancel();
    tasks.drain(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn too_many_passwords_at_once_are_told_to_come_back() {
    let access = access();
    let turns = access.0.checks.acquire_many(2).await.unwrap();
    tokio::time::pause();
    let shown = basic("alice", "secret");
    let (status, challenge, _) = ask(&access, get("/v2/", Some(&shown))).await;
    assert_eq!((status, challenge.as_str()), (503, ""));
    tokio::time::resume();
    drop(turns);
    assert_eq!(ask(&access, get("/v2/", Some(&shown))).await.0, 200);
}

#[test]
fn a_file_of_users_is_one_of_bcrypt_hashes() {
    let good = users(&[("alice", "secret")]);
    let parsed: Users = format!("# people\n\n{good}").parse().unwrap();
    assert!(parsed.has("alice") && !parsed.has("bob"));
    // As apache's htpasswd writes it.
    let apache = good.replace("$2b$", "$2y$");
    assert!(apache.parse::<Users>().is_ok());
    let bad = |text: &str| text.parse::<Users>().unwrap_err();
    assert_eq!(bad("alice"), BadUsers::Line(1));
    assert_eq!(bad(":x"), BadUsers::Line(1));
    assert_eq!(
        bad("\nalice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="),
        BadUsers::Hash(2)
    );
    assert_eq!(bad("alice:$apr1$abc$def"), BadUsers::Hash(1));
    assert_eq!(bad(&format!("{good}{good}")), BadUsers::Twice(2));
    let shown = format!("{parsed:?} {:?}", config(Some(KEY)));
    assert!(!shown.contains("$2") && !shown.contains(KEY), "{shown}");
}

#[test]
fn no_time_is_saved_by_a_name_that_there_is_not() {
    let parsed: Users = users(&[("alice", "secret")]).parse().unwrap();
    assert!(matches!(parsed.hash("nobody"), (None, Some(_))));
}
