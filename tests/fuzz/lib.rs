//! What is fuzzed: one function for each parser of what comes from outside, on any bytes at all.
//!
//! Each panics when the parser does, and when what it returns breaks what it promises.

use std::fmt::{Debug, Display};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{Method, Uri};
use outport_core::config::{ByteSize, Sources};
use outport_core::oci::digest::{Algorithm, Digest};
use outport_core::oci::manifest::Manifest;
use outport_core::oci::media::{self, Declared};
use outport_core::oci::range::{self, ChunkRange, Selection};
use outport_core::oci::reference::{Reference, RepoName, Tag};
use outport_core::oci::route::{Fetch, Route};

/// Digests: one spelling for each.
pub fn digest(data: &[u8]) {
    if let Some(text) = text(data) {
        same_spelling::<Digest>(text);
    }
}

/// Repository names, tags, and what is either a tag or a digest.
pub fn reference(data: &[u8]) {
    if let Some(text) = text(data) {
        same_spelling::<RepoName>(text);
        same_spelling::<Tag>(text);
        same_spelling::<Reference>(text);
    }
}

/// Media types.
pub fn media(data: &[u8]) {
    if let Some(text) = text(data) {
        let _ = media::is_non_distributable(text);
        if let Declared::Manifest(known) = Declared::by(Some(text)) {
            assert_eq!(
                Declared::by(Some(known.as_str())),
                Declared::Manifest(known)
            );
        }
    }
}

/// Manifests: a content type in the first line, the body behind it.
pub fn manifest(data: &[u8]) {
    let (content_type, body) = split_line(data);
    let Ok(manifest) = Manifest::parse(text(content_type), body) else {
        return;
    };
    assert!(manifest.manifests.is_empty() || manifest.media_type.is_index());
    assert!(manifest.layers.is_empty() || !manifest.media_type.is_index());
    assert!(manifest.blobs().len() <= manifest.layers.len() + 1);
    assert!(manifest.children().len() <= manifest.manifests.len());
    // Whatever it was declared as, it says the same when it is declared as what it was found to be.
    let again = Manifest::parse(Some(manifest.media_type.as_str()), body);
    assert!(
        again.is_ok_and(|again| again == manifest),
        "a manifest with two readings"
    );
}

/// Routes: a method in the first line, path and query behind it.
pub fn route(data: &[u8]) {
    let (method, uri) = split_line(data);
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(uri)) else {
        return;
    };
    if let Ok(routed) = Route::parse(&method, &uri) {
        let route = routed.route;
        let uri = Uri::try_from(route.to_uri());
        let again = uri.map(|uri| Route::parse(&route.method(), &uri).map(|again| again.route));
        assert_eq!(again.ok(), Some(Ok(route)));
    }
}

/// Ranges and conditions: a size in the first eight bytes, a header's value behind it.
pub fn range(data: &[u8]) {
    let Some((size, header)) = data.split_first_chunk() else {
        return;
    };
    let size = u64::from_le_bytes(*size);
    let Ok(value) = HeaderValue::from_bytes(header) else {
        return;
    };
    let digest = Algorithm::Sha256.digest(b"");
    for name in [RANGE, IF_MATCH, IF_NONE_MATCH, IF_RANGE] {
        let mut headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=0-0"))]);
        headers.insert(name, value.clone());
        let parts = match range::select(&headers, Fetch::Get, &digest, size) {
            Selection::Part(part) => vec![part],
            Selection::Parts(parts) => parts,
            _ => continue,
        };
        let total = parts.iter().try_fold(0_u64, |total, part| {
            assert!(part.start < part.end && part.end <= size);
            total.checked_add(part.end - part.start)
        });
        assert!(parts.len() <= range::MAX_PARTS && total.is_some_and(|total| total <= size));
    }
}

/// Where a chunk of an upload lies.
pub fn chunk_range(data: &[u8]) {
    if let Some(range) = text(data).and_then(|text| text.parse::<ChunkRange>().ok()) {
        assert!(range.first().checked_add(range.len()).is_some() && range.len() > 0);
        assert_eq!(range.to_string().parse(), Ok(range));
    }
}

/// Configuration: a `--set` in the first line, a file behind it.
pub fn config(data: &[u8]) {
    let (set, file) = split_line(data);
    let (Some(set), Some(file)) = (text(set), text(file)) else {
        return;
    };
    let (name, value) = set.split_once('=').unwrap_or((set, ""));
    let sources = Sources {
        file: Some(Path::new("fuzz.toml")),
        env: &[(format!("OUTPORT_{name}"), value.to_owned())],
        set: &[set.to_owned()],
        read_file: &|_| Ok(file.to_owned()),
    };
    let loaded = outport_core::config::read(sources, |root| {
        root.take("text", String::new());
        root.take_secret("secret");
        root.section("section", |section| {
            section.take("size", ByteSize::mib(1));
            section.take("time", Duration::from_secs(1));
        });
        root.section_opt("optional", |section| section.require::<u32>("number"));
        root.list("list", |section| section.take_opt::<Vec<String>>("texts"));
    });
    if let Err(problems) = loaded {
        assert!(!problems.to_string().is_empty());
    }
}

/// Checks that what is parsed is written as it was.
fn same_spelling<T: FromStr + Display + Debug>(text: &str) {
    if let Ok(parsed) = text.parse::<T>() {
        assert_eq!(parsed.to_string(), text);
    }
}

fn text(data: &[u8]) -> Option<&str> {
    str::from_utf8(data).ok()
}

fn split_line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}
