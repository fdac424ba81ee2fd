use std::time::Duration;

use super::*;
use proptest::prelude::*;

/// Stands for what a binary makes of its configuration.
#[derive(Debug, PartialEq)]
struct Sample {
    listen: std::net::SocketAddr,
    drain: Duration,
    capacity: ByteSize,
    workers: u32,
    verbose: bool,
    tls_key: Option<PathBuf>,
    urls: Vec<String>,
    password: Option<String>,
    upstreams: Vec<(String, Option<String>)>,
}

fn build(root: &mut Section<'_>) -> Sample {
    Sample {
        listen: root.take("listen", "127.0.0.1:5000".parse().unwrap()),
        drain: root.take("drain", Duration::from_secs(30)),
        verbose: root.take("verbose", false),
        urls: root.take("urls", vec![]),
        password: root
            .take_secret("password")
            .map(|secret| secret.expose().to_owned()),
        capacity: root.section("cache", |cache| cache.take("capacity", ByteSize::gib(100))),
        workers: root.section("pool", |pool| {
            let workers = pool.take("workers", 4);
            if workers == 13 {
                pool.problem("workers", "is unlucky");
            }
            workers
        }),
        tls_key: root.section_opt("tls", |tls| tls.require("key")),
        upstreams: root.list("upstream", |upstream| {
            let password = upstream
                .take_secret("password")
                .map(|secret| secret.expose().to_owned());
            Some((upstream.require("name")?, password))
        }),
    }
}

fn load(file: &str, env: &[(&str, &str)], set: &[&str]) -> Result<Loaded<Sample>, Problems> {
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let set: Vec<_> = set.iter().map(|set| (*set).to_owned()).collect();
    read(
        Sources {
            file: Some(Path::new("file.toml")),
            env: &env,
            set: &set,
            read_file: &|path| match path.to_str() {
                Some("file.toml") => Ok(file.to_owned()),
                Some("password.txt") => Ok("hunter2\n".to_owned()),
                _ => Err(io::ErrorKind::NotFound.into()),
            },
        },
        build,
    )
}

#[track_caller]
fn config(file: &str, env: &[(&str, &str)], set: &[&str]) -> Sample {
    load(file, env, set).unwrap().config
}

#[track_caller]
fn problems(file: &str, env: &[(&str, &str)], set: &[&str], expected: &[&str]) {
    let problems = load(file, env, set).unwrap_err().to_string();
    assert_eq!(problems.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn defaults_hold() {
    let read_file = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let sources = Sources {
        file: None,
        env: &[],
        set: &[],
        read_file: &read_file,
    };
    let config = read(sources, build).unwrap().config;
    assert_eq!(config.listen.port(), 5000);
    assert_eq!(config.capacity, ByteSize::gib(100));
    assert_eq!(config.tls_key, None);
    assert_eq!(config.upstreams, []);
}

#[test]
fn the_later_wins() {
    let file = "listen = '0.0.0.0:1'\ndrain = '5m'\nurls = ['a']\n[pool]\nworkers = 1\n[cache]\ncapacity = '1MiB'";
    let env = [
        ("OUTPORT_LISTEN", "0.0.0.0:2"),
        ("OUTPORT_POOL__WORKERS", "2"),
        ("OUTPORT_URLS", "b, c"),
        ("OUTPORT_TLS__KEY", "key.pem"),
        ("PATH", "/bin"),
        ("OUTPORT_EDGE_SERVICE_HOST", "10.0.0.1"),
        ("OUTPORT_PORT", "tcp://10.0.0.1:5000"),
        ("OUTPORT_PORT_5000_TCP_ADDR", "10.0.0.1"),
        ("OUTPORT_EDGE_SERVICE_PORT_HTTP", "5000"),
    ];
    let config = config(file, &env, &["listen=0.0.0.0:3", "verbose=true"]);
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.drain, Duration::from_mins(5));
    assert_eq!(config.workers, 2);
    assert_eq!(config.capacity, ByteSize::mib(1));
    assert_eq!(config.urls, ["b", "c"]);
    assert_eq!(config.tls_key.as_deref(), Some(Path::new("key.pem")));
    assert!(config.verbose);
}

#[test]
fn lists_of_sections() {
    let file = "[[upstream]]\nname = 'a'\n[[upstream]]\nname = 'b'";
    let set = ["upstream.1.password=x", "upstream.2.name=c"];
    let expected =
        |name: &str, password: Option<&str>| (name.to_owned(), password.map(str::to_owned));
    let all = [
        expected("a", None),
        expected("b", Some("x")),
        expected("c", None),
    ];
    assert_eq!(config(file, &[], &set).upstreams, all);
    assert_eq!(
        config("", &[("OUTPORT_UPSTREAM__0__NAME", "a")], &[]).upstreams,
        all[..1]
    );
    assert_eq!(
        config("", &[], &["upstream=[{name='a'}]"]).upstreams,
        all[..1]
    );
    assert_eq!(config(file, &[], &["upstream=[]"]).upstreams, []);
}

#[test]
fn secrets() {
    let password = |file: &str, env: &[(&str, &str)]| config(file, env, &[]).password;
    assert_eq!(
        password("password_file = 'password.txt'", &[]).unwrap(),
        "hunter2"
    );
    // What looks like a number stays as it was written.
    for text in [
        "0123",
        "1e5",
        "true",
        "1_000",
        "2020-01-01",
        "a#b",
        "x = 1",
        "[1]",
    ] {
        assert_eq!(password("", &[("OUTPORT_PASSWORD", text)]).unwrap(), text);
    }
    assert_eq!(
        password("", &[("OUTPORT_PASSWORD", "'quoted'")]).unwrap(),
        "quoted"
    );
    assert_eq!(
        format!("{:?}", Secret::new("hunter2".to_owned())),
        "(secret)"
    );
}

#[test]
fn all_problems_at_once() {
    let file = "
        listen = 5000
        drain = 30
        unknown = 'hunter2'
        password = 'hunter2'
        password_file = 'password.txt'
        [cache]
        capacity = '100 parsecs'
        [tls]
        [pool]
        workers = 13
        [[upstream]]
        password_file = 'missing.txt'
        [strange]
        key = 1
    ";
    problems(
        file,
        &[("OUTPORT_VERBOSE", "maybe"), ("OUTPORT_CACHE__SIZE", "1")],
        &["nonsense", "a..b=1", "urls.x=1", "cache=1"],
        &[
            "expected key=value (--set)",
            "a..b: there can be no such key (--set)",
            "cache: is a section, not a key (--set)",
            "listen: expected an address and port, such as \"127.0.0.1:5000\" (file.toml)",
            "drain: expected a time as a whole number and one of the units ms, s, m, h, d, such as \"30s\" (file.toml)",
            "verbose: expected true or false (OUTPORT_VERBOSE)",
            "urls: expected a value, not a section (--set)",
            "password_file: and password exclude each other",
            "cache.capacity: expected a size, such as \"100GiB\", \"500MB\" or 1024 (file.toml)",
            "cache.size: unknown key (OUTPORT_CACHE__SIZE)",
            "pool.workers: is unlucky",
            "tls.key: is missing: expected a path in quotes",
            "upstream.0.password_file: missing.txt cannot be read: entity not found",
            "upstream.0.name: is missing: expected a text in quotes",
            "a: unknown section",
            "strange: unknown section (file.toml)",
            "unknown: unknown key (file.toml)",
        ],
    );
}

#[test]
fn wrong_shapes() {
    problems(
        "tls = 1",
        &[],
        &[],
        &["tls: expected a section (file.toml)"],
    );
    problems(
        "[[tls]]\nkey = 'a'",
        &[],
        &[],
        &["tls: expected a section (file.toml)"],
    );
    problems(
        "upstream = 1",
        &[],
        &[],
        &["upstream: expected [[upstream]] sections (file.toml)"],
    );
    problems(
        "upstream.b.name = 'a'",
        &[],
        &[],
        &["upstream.b: expected [[upstream]] sections, numbered from 0 (file.toml)"],
    );
    problems(
        "[listen]\nx = 1",
        &[],
        &[],
        &["listen: expected a value, not a section (file.toml)"],
    );
}

#[test]
fn a_broken_file_tells_no_secret() {
    let problems = load("a = 1\npassword = \"hunter2\nb = 1", &[], &[])
        .unwrap_err()
        .to_string();
    assert!(problems.starts_with("line 2: "), "{problems}");
    assert!(!problems.contains("hunter2"), "{problems}");
}

#[test]
fn documented_defaults_are_compared() {
    let file = "
        listen = '127.0.0.1:5000'
        drain = '30000ms'
        verbose = true
        [cache]
        capacity = '102400MiB'
        [pool]
        workers = 4
    ";
    let loaded = load(file, &[], &[]).unwrap();
    assert_eq!(loaded.untrue_defaults(), ["verbose", "urls"]);
    let keys: Vec<_> = loaded
        .entries
        .iter()
        .map(|entry| entry.key.as_str())
        .collect();
    assert!(keys.contains(&"password_file") && keys.contains(&"cache.capacity"));
}

#[test]
fn sizes() {
    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(
            text.parse::<ByteSize>().ok().map(ByteSize::as_u64),
            expected,
            "{text}"
        );
    }
    check("0", Some(0));
    check("1024", Some(1024));
    check("7B", Some(7));
    check("5 MB", Some(5_000_000));
    check("1kib", Some(1024));
    check("100GiB", Some(100 << 30));
    check("3TiB", Some(3 << 40));
    for text in [
        "",
        "GiB",
        "1.5GiB",
        "-1",
        "1 parsec",
        "99999999999TiB",
        "1GiB2",
    ] {
        check(text, None);
    }
    assert_eq!(ByteSize::gib(100).to_string(), "100GiB");
    assert_eq!(ByteSize::bytes(1500).to_string(), "1500B");
    assert_eq!(ByteSize::bytes(0).to_string(), "0B");
}

fn given(text: &str) -> Given {
    Given {
        value: Value::String(text.to_owned()),
        text: None,
        source: Source::Set,
    }
}

#[test]
fn urls() {
    let parse = |text: &str| http::Uri::from_given(&given(text)).is_some();
    assert!(parse("https://registry.example"));
    assert!(parse("http://127.0.0.1:5000/prefix"));
    for text in [
        "",
        "registry.example",
        "/path",
        "ftp://example",
        "https://",
        "mailto:x",
    ] {
        assert!(!parse(text), "{text}");
    }
}

proptest! {
    #[test]
    fn sizes_round_trip(bytes: u64, shift in 0_u32..41) {
        let size = ByteSize::bytes(bytes >> shift << shift);
        prop_assert_eq!(size.to_string().parse(), Ok(size));
    }

    #[test]
    fn times_round_trip(ms in 0_u64..1 << 50, unit in prop::sample::select(vec![1, 1000, 60_000, 86_400_000])) {
        let time = Duration::from_millis(ms / unit * unit);
        let text = time.to_value();
        prop_assert_eq!(Duration::from_given(&given(text.as_str().unwrap())), Some(time));
    }

    #[test]
    fn never_panics(file in "\\PC*|([a-z.=\\[\\]\"'0-9\n ]|upstream|tls|listen){0,20}", name in "OUTPORT_[A-Z0-9_]{0,12}", value in "\\PC*", set in "[a-z0-9.=]{0,12}|\\PC*") {
        let _loaded = load(&file, &[(&name, &value)], &[&set]);
    }
}
