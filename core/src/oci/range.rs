//! Which bytes a request wants: ranges, conditions, and where a chunk of an upload lies.
//!
//! RFC 9110 sections 13 and 14, and the distribution specification's "Pushing a blob in chunks".
//!
//! Content never changes under its digest, so the digest is the strong validator of every answer, and there are no dates.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::str::FromStr;

use http::HeaderMap;
use http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};

use super::digest::Digest;
use super::route::Fetch;

/// As long as the entity tag of nearly all content, which has a SHA-256.
const ETAG_BYTES: usize = 80;

/// What to answer a request for existing content with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// 304: the client has it.
    NotModified,
    /// 412: it is not what the client wants it to be.
    PreconditionFailed,
    /// 200, all of it.
    Full,
    /// 206, one part; never empty, and within the content.
    Part(Range<u64>),
    /// 206 `multipart/byteranges`: at least two such parts in the order asked for, together not more than the content.
    Parts(Vec<Range<u64>>),
    /// 416.
    Unsatisfiable,
}

/// Where a chunk of an upload lies, as its `Content-Range` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRange {
    first: u64,
    last: u64,
}

/// A `Content-Range` that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a chunk's Content-Range is written first-last")]
pub struct BadChunkRange;

/// The most parts one answer has.
///
/// podman asks for up to so many when it pulls the missing files of a zstd:chunked layer, and takes all of the content as
/// an answer too, which is what anybody gets who asks for more.
pub const MAX_PARTS: usize = 1024;

/// Returns what to answer a request for the content `digest` of `size` bytes with.
///
/// The order of the conditions is that of RFC 9110 section 13.2.2.
pub fn select(headers: &HeaderMap, fetch: Fetch, digest: &Digest, size: u64) -> Selection {
    let conditions = [IF_MATCH, IF_NONE_MATCH, RANGE];
    if !conditions.iter().any(|name| headers.contains_key(name)) {
        return Selection::Full;
    }
    let digest = digest.to_string();
    if headers.contains_key(IF_MATCH) && !any_tag(headers, &IF_MATCH, |tag| tag.is(&digest)) {
        return Selection::PreconditionFailed;
    }
    if any_tag(headers, &IF_NONE_MATCH, |tag| tag.is_weakly(&digest)) {
        return Selection::NotModified;
    }
    let mut ranges = headers.get_all(RANGE).iter();
    match (fetch, ranges.next(), ranges.next()) {
        (Fetch::Get, Some(range), None) if range_applies(headers, &digest) => range
            .to_str()
            .map_or(Selection::Full, |range| select_ranges(range, size)),
        _ => Selection::Full,
    }
}

/// Returns the `ETag` of the content `digest`.
pub fn etag(digest: &Digest) -> String {
    // One allocation for each answer, where formatting alone takes some.
    let mut text = String::with_capacity(ETAG_BYTES);
    // Writing to a string does not fail.
    write!(text, "\"{digest}\"").ok();
    text
}

/// Returns the `Content-Range` of a 206 with `part` of content of `size` bytes.
pub fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1))
}

/// Returns the `Content-Range` of a 416 for content of `size` bytes.
pub fn unsatisfied_range(size: u64) -> String {
    format!("bytes */{size}")
}

/// Returns the `Range` of an answer about an upload of which `size` bytes are here.
///
/// There is no way to write that there are none; `0-0` is what clients know for it. Docker's scans for two numbers, so
/// the unit is left away.
pub fn upload_range(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

// --- ranges

/// Returns what `header` selects of `size` bytes: [`Selection::Full`] when it is malformed or in another unit.
pub fn select_ranges(header: &str, size: u64) -> Selection {
    let Some(specs) = parse_ranges(header) else {
        return Selection::Full;
    };
    // Some clients send a Range with everything, and of nothing no range can be satisfied.
    if size == 0 {
        return Selection::Full;
    }
    let mut parts: Vec<_> = specs
        .into_iter()
        .filter_map(|spec| spec.within(size))
        .collect();
    let total = parts.iter().fold(0_u64, |total, part| {
        total.saturating_add(part.end - part.start)
    });
    match parts.len() {
        0 => Selection::Unsatisfiable,
        1 => Selection::Part(parts.remove(0)),
        // Parts that overlap would make a small request of us a large answer.
        _ if total > size => Selection::Full,
        _ => Selection::Parts(parts),
    }
}

/// One element of a `Range` header.
#[derive(Clone, Copy)]
enum Spec {
    /// `first-last`, or `first-` for all from there on.
    From(u64, u64),
    /// `-length`.
    Suffix(u64),
}

/// Returns the elements of a `Range` header in bytes, or none when there are none, too many, or other than that.
fn parse_ranges(header: &str) -> Option<Vec<Spec>> {
    let (unit, specs) = header.split_once('=')?;
    if !unit.trim_ascii().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut parsed = Vec::new();
    for spec in specs.split(',').map(str::trim_ascii) {
        // The grammar of lists lets recipients skip empty elements.
        if spec.is_empty() {
            continue;
        }
        if parsed.len() == MAX_PARTS {
            return None;
        }
        parsed.push(parse_spec(spec)?);
    }
    (!parsed.is_empty()).then_some(parsed)
}

fn parse_spec(spec: &str) -> Option<Spec> {
    let (first, last) = spec.split_once('-')?;
    Some(match (first, last) {
        ("", length) => Spec::Suffix(parse_number(length)?),
        (first, "") => Spec::From(parse_number(first)?, u64::MAX),
        (first, last) => Spec::From(parse_number(first)?, parse_number(last)?),
    })
}

/// Returns a number of digits only; one that is too large is as large as can be.
fn parse_number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

impl Spec {
    /// Returns the part it means of `size` bytes, or none when there is no such part.
    ///
    /// The RFC calls `5-2` malformed and would have it ignored; the conformance suite wants it refused, as here.
    fn within(self, size: u64) -> Option<Range<u64>> {
        let (start, end) = match self {
            Self::From(first, last) => (first, last.saturating_add(1).min(size)),
            Self::Suffix(length) => (size.saturating_sub(length), size),
        };
        (start < end).then_some(start..end)
    }
}

// --- conditions

/// An element of `If-Match` and its kin.
enum EntityTag<'a> {
    Any,
    Strong(&'a str),
    Weak(&'a str),
}

impl<'a> EntityTag<'a> {
    /// Parses an element leniently: a digest without quotes is meant as the tag that it is in.
    fn parse(text: &'a str) -> Self {
        let unquoted = |text: &'a str| text.trim_matches('"');
        match text {
            "*" => Self::Any,
            _ => match text.strip_prefix("W/") {
                Some(weak) => Self::Weak(unquoted(weak)),
                None => Self::Strong(unquoted(text)),
            },
        }
    }

    fn is(&self, digest: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Strong(tag) => *tag == digest,
            Self::Weak(_) => false,
        }
    }

    fn is_weakly(&self, digest: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Strong(tag) | Self::Weak(tag) => *tag == digest,
        }
    }
}

/// Whether the list in `header` has an element that `accept`s, over all of its lines.
///
/// A comma can be part of a tag, but of none of ours, so that splitting there makes no element of a tag that is one.
fn any_tag(
    headers: &HeaderMap,
    header: &HeaderName,
    accept: impl Fn(EntityTag<'_>) -> bool,
) -> bool {
    headers
        .get_all(header)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|element| accept(EntityTag::parse(element.trim_ascii())))
}

/// Whether the `Range` counts: not when `If-Range` names other content, or a date, of which we have none.
fn range_applies(headers: &HeaderMap, digest: &str) -> bool {
    headers.get(IF_RANGE).is_none_or(|validator| {
        validator.to_str().is_ok_and(|validator| {
            matches!(EntityTag::parse(validator.trim_ascii()), EntityTag::Strong(tag) if tag == digest)
        })
    })
}

// === impl ChunkRange ===

impl ChunkRange {
    /// Returns the offset of its first byte.
    pub const fn first(self) -> u64 {
        self.first
    }

    /// Returns how many bytes it has; at least one.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub const fn len(self) -> u64 {
        self.last - self.first + 1
    }
}

impl FromStr for ChunkRange {
    type Err = BadChunkRange;

    /// Parses the specification's `0-1023`, and `bytes 0-1023/2048` and `bytes 0-1023/*` as in RFC 9110.
    fn from_str(text: &str) -> Result<Self, BadChunkRange> {
        let exact = |text: &str| parse_number(text).filter(|number| *number < u64::MAX);
        let parse = || {
            let (range, total) = match text.strip_prefix("bytes ") {
                Some(text) => text.split_once('/')?,
                None => (text, "*"),
            };
            let (first, last) = range.split_once('-')?;
            let (first, last) = (exact(first)?, exact(last)?);
            let fits = total == "*" || last < exact(total)?;
            (first <= last && fits).then_some(Self { first, last })
        };
        parse().ok_or(BadChunkRange)
    }
}

impl fmt::Display for ChunkRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests;
