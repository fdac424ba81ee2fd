//! A client that costs next to nothing: what is measured is the server.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::content::Content;
use harness::layout::hash_file;
use outport_core::oci::digest::{Algorithm, Digest, Hasher};
use tokio::time::Instant;

/// A file to be pushed, in the page cache.
#[derive(Debug)]
pub(crate) struct Layer {
    path: PathBuf,
    size: u64,
    digest: Digest,
}

/// How many seconds a push took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pushed {
    pub(crate) whole: f64,
    /// From the last byte to the last answer.
    pub(crate) commit: f64,
}

/// What to ask.
#[derive(Clone, Copy, Default)]
struct Question<'a> {
    method: &'a str,
    /// A path, or a whole URL of the same server.
    target: &'a str,
    /// A line, if there is one.
    header: &'a str,
    /// How long the body is.
    length: u64,
}

/// An answer's head, and the connection behind it.
struct Answer {
    status: u16,
    location: Option<String>,
    length: u64,
    rest: BufReader<TcpStream>,
}

const READ_BYTES: usize = 1 << 20;
const SECONDS_OF_WRK: u32 = 5;

// === impl Layer ===

impl Layer {
    /// Writes a file of `size` bytes that `seed` makes unlike any other.
    pub(crate) fn create(path: &Path, seed: u64, size: u64) -> Self {
        let mut file = File::create(path).unwrap();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for piece in Content::new(seed, size).pieces() {
            hasher.update(&piece);
            file.write_all(&piece).unwrap();
        }
        // What is still to be written must not be written while something is measured.
        file.sync_all().unwrap();
        Self {
            path: path.to_owned(),
            size,
            digest: hasher.finish(),
        }
    }

    /// Writes an archive that has one file of `size` bytes.
    pub(crate) fn create_archive(path: &Path, seed: u64, size: u64) -> Self {
        let file = path.with_extension("file");
        Self::create(&file, seed, size);
        let status = Command::new("tar")
            .args(["--create", "--owner=0", "--group=0", "--file"])
            .arg(path)
            .arg("--directory")
            .arg(file.parent().unwrap())
            .arg(file.file_name().unwrap())
            .status()
            .unwrap();
        assert!(status.success());
        std::fs::remove_file(&file).unwrap();
        File::open(path).unwrap().sync_all().unwrap();
        let (digest, size) = hash_file(Algorithm::Sha256, path);
        Self {
            path: path.to_owned(),
            size,
            digest,
        }
    }

    /// Returns its digest.
    pub(crate) const fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// Pushes a layer as docker does, one `PATCH` and a `PUT`.
pub(crate) fn push(address: SocketAddr, repository: &str, layer: &Layer) -> Pushed {
    let begin = Instant::now();
    let location = start_upload(address, repository);
    let mut file = File::open(&layer.path).unwrap();
    let answer = send(
        address,
        Question {
            method: "PATCH",
            target: &location,
            length: layer.size,
            ..Question::default()
        },
        |stream| {
            io::copy(&mut file, stream).unwrap();
        },
    );
    assert_eq!(answer.status, 202);
    let bytes = begin.elapsed().as_secs_f64();
    finish_upload(address, &answer.location.unwrap(), &layer.digest);
    let whole = begin.elapsed().as_secs_f64();
    Pushed {
        whole,
        commit: whole - bytes,
    }
}

/// Pulls a layer and throws it away; returns the seconds it took.
pub(crate) fn pull(address: SocketAddr, repository: &str, layer: &Layer) -> f64 {
    pull_to(address, repository, layer, |_| {})
}

/// Pulls a layer and checks its digest, as every real client does; returns the seconds it took.
pub(crate) fn pull_checked(address: SocketAddr, repository: &str, layer: &Layer) -> f64 {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let seconds = pull_to(address, repository, layer, |bytes| hasher.update(bytes));
    assert_eq!(hasher.finish(), layer.digest);
    seconds
}

/// Pulls a layer; returns the seconds until its first bytes were here.
pub(crate) fn first_byte(address: SocketAddr, repository: &str, layer: &Layer) -> f64 {
    let begin = Instant::now();
    let mut first = None;
    pull_to(address, repository, layer, |bytes| {
        if !bytes.is_empty() {
            first.get_or_insert_with(|| begin.elapsed().as_secs_f64());
        }
    });
    first.unwrap_or_default()
}

fn pull_to(
    address: SocketAddr,
    repository: &str,
    layer: &Layer,
    mut take: impl FnMut(&[u8]),
) -> f64 {
    let begin = Instant::now();
    let path = format!("/v2/{repository}/blobs/{}", layer.digest);
    let mut answer = send(
        address,
        Question {
            method: "GET",
            target: &path,
            length: 0,
            ..Question::default()
        },
        |_| {},
    );
    assert_eq!((answer.status, answer.length), (200, layer.size));
    let mut buffer = vec![0; READ_BYTES];
    take(answer.rest.buffer());
    let mut read = answer.rest.buffer().len() as u64;
    let stream = answer.rest.get_mut();
    while read < layer.size {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the layer broke off at {read}");
        take(&buffer[..count]);
        read += count as u64;
    }
    begin.elapsed().as_secs_f64()
}

/// Pushes an image `latest` of a config and of layers that are there; returns the digest of the config.
pub(crate) fn push_image(address: SocketAddr, repository: &str, layers: &[&Layer]) -> Digest {
    const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    // Layers are not compressed, and so are what clients make of them.
    let contents: Vec<_> = layers
        .iter()
        .map(|Layer { digest, .. }| format!(r#""{digest}""#))
        .collect();
    let contents = contents.join(",");
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{contents}]}}}}"#
    );
    let (config_size, digest) = (config.len(), Algorithm::Sha256.digest(config.as_bytes()));
    let location = start_upload(address, repository);
    let patched = send(
        address,
        Question {
            method: "PATCH",
            target: &location,
            header: "",
            length: config.len() as u64,
        },
        |stream| {
            stream.write_all(config.as_bytes()).unwrap();
        },
    );
    finish_upload(address, &patched.location.unwrap(), &digest);
    let layers: Vec<_> = layers
        .iter()
        .map(|Layer { digest, size, .. }| {
            format!(r#"{{"mediaType":"{LAYER}","digest":"{digest}","size":{size}}}"#)
        })
        .collect();
    let layers = layers.join(",");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":{config_size}}},"layers":[{layers}]}}"#
    );
    let path = format!("/v2/{repository}/manifests/latest");
    let header = format!("Content-Type: {IMAGE}\r\n");
    let answer = send(
        address,
        Question {
            method: "PUT",
            target: &path,
            header: &header,
            length: manifest.len() as u64,
        },
        |stream| {
            stream.write_all(manifest.as_bytes()).unwrap();
        },
    );
    assert_eq!(answer.status, 201);
    digest
}

/// Returns how many requests for `path` are answered in a second, over 32 connections.
pub(crate) fn requests_per_second(address: SocketAddr, path: &str) -> f64 {
    let output = Command::new("wrk")
        .args(["--threads", "1", "--connections", "32", "--duration"])
        .arg(format!("{SECONDS_OF_WRK}s"))
        .args([
            "--header",
            "Accept: application/vnd.oci.image.manifest.v1+json",
        ])
        .arg(format!("http://{address}{path}"))
        .output()
        .expect("wrk is installed: tests/bench/run sees to it");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("Non-2xx"), "{text}");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    line.unwrap().trim().parse().unwrap()
}

fn start_upload(address: SocketAddr, repository: &str) -> String {
    let path = format!("/v2/{repository}/blobs/uploads/");
    let answer = send(
        address,
        Question {
            method: "POST",
            target: &path,
            length: 0,
            ..Question::default()
        },
        |_| {},
    );
    assert_eq!(answer.status, 202);
    answer.location.unwrap()
}

fn finish_upload(address: SocketAddr, location: &str, digest: &Digest) {
    let separator = if location.contains('?') { '&' } else { '?' };
    let path = format!("{location}{separator}digest={digest}");
    assert_eq!(
        send(
            address,
            Question {
                method: "PUT",
                target: &path,
                length: 0,
                ..Question::default()
            },
            |_| {}
        )
        .status,
        201
    );
}

/// Sends a request on a connection of its own, and reads the head of the answer.
fn send(address: SocketAddr, question: Question<'_>, body: impl FnOnce(&mut TcpStream)) -> Answer {
    let Question {
        method,
        target,
        header,
        length,
    } = question;
    // docker-registry's locations are whole URLs.
    let path = target
        .strip_prefix(&format!("http://{address}"))
        .unwrap_or(target);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n{header}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    body(&mut stream);
    read_head(BufReader::new(stream))
}

fn read_head(mut rest: BufReader<TcpStream>) -> Answer {
    let mut line = String::new();
    let mut next = || {
        line.clear();
        rest.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let status = next().split(' ').nth(1).unwrap().parse().unwrap();
    let (mut location, mut length) = (None, 0);
    loop {
        let header = next();
        let Some((name, value)) = header.split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "location" => location = Some(value.to_owned()),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    Answer {
        status,
        location,
        length,
        rest,
    }
}
