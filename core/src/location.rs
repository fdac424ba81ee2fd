//! A location: a storage engine of a region, opened from its URL.
//!
//! What: [`Location::open`] is the only place that knows which engine a URL stands for; everybody else holds a
//! [`ContentStore`]. `key` draws the layout, which is the same in every engine.

pub mod bucket;
pub mod engine;
pub mod key;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::store::disk::{Disk, OpenError as DiskError};
use crate::store::{ContentStore, StoreError};

use self::bucket::{Bucket, Limits};
use self::engine::s3::{self, S3};

/// A storage engine of a region.
#[derive(Clone, Debug)]
pub struct Location {
    url: LocationUrl,
    store: Arc<dyn ContentStore>,
}

/// Where a location is: what placements name it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocationUrl {
    /// `file:path`: a directory.
    File(PathBuf),
    /// `s3://bucket[/prefix]`: a bucket that speaks the S3 protocol.
    S3 {
        /// The bucket.
        bucket: String,
        /// What every key begins with, without slashes at its ends; may be empty.
        prefix: String,
    },
}

/// How a location is reached, for all engines.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For `s3://`.
    pub s3: s3::Options,
    /// For all object stores.
    pub limits: Limits,
}

/// A text is not the URL of a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLocationUrl {
    /// There is no engine for it.
    #[error("a location is written file:path or s3://bucket/prefix")]
    UnknownScheme,
    /// There is no path in it.
    #[error("the location has no path")]
    NoPath,
    /// There is no bucket in it, or not a possible one.
    #[error("the location has no valid bucket name")]
    BadBucket,
    /// The prefix cannot be part of a key.
    #[error("the location's prefix has an empty, `.` or `..` part")]
    BadPrefix,
}

/// A location could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The object store, before any request was made to it.
    #[error("set up the object store")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

// === impl Location ===

impl Location {
    /// Opens a location. Blocks for as long as a local directory takes; makes no request to an object store.
    pub fn open(url: LocationUrl, options: &Options) -> Result<Self, OpenError> {
        let store: Arc<dyn ContentStore> = match &url {
            LocationUrl::File(path) => Arc::new(Disk::open(path)?),
            LocationUrl::S3 { bucket, prefix } => {
                let engine = S3::new(bucket, &options.s3)
                    .map_err(|error| OpenError::Engine(error.into()))?;
                Arc::new(Bucket::new(Arc::new(engine), prefix, options.limits))
            }
        };
        Ok(Self { url, store })
    }

    /// Asks whether the location can be used: whether there is such a bucket, and it takes our word for who we are.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.store.check().await
    }

    /// Returns the name that placements know it by, which holds no secret.
    pub fn name(&self) -> String {
        self.url.to_string()
    }

    /// Returns where it is.
    pub const fn url(&self) -> &LocationUrl {
        &self.url
    }

    /// Returns the store.
    pub const fn store(&self) -> &Arc<dyn ContentStore> {
        &self.store
    }
}

// === impl LocationUrl ===

impl fmt::Display for LocationUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl FromStr for LocationUrl {
    type Err = BadLocationUrl;

    fn from_str(text: &str) -> Result<Self, BadLocationUrl> {
        if let Some(path) = text.strip_prefix("file:") {
            // `file:///path` has an empty host in front of its path.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(BadLocationUrl::NoPath),
                path => Ok(Self::File(path.into())),
            };
        }
        let rest = text
            .strip_prefix("s3://")
            .ok_or(BadLocationUrl::UnknownScheme)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if !is_bucket_name(bucket) {
            return Err(BadLocationUrl::BadBucket);
        }
        let prefix = prefix.trim_matches('/');
        if !prefix.is_empty()
            && prefix
                .split('/')
                .any(|part| matches!(part, "" | "." | ".."))
        {
            return Err(BadLocationUrl::BadPrefix);
        }
        Ok(Self::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

/// Whether a bucket can have this name: as AWS has it, and the underscore that older buckets may have.
fn is_bucket_name(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let url: LocationUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), expected);
            assert_eq!(url.to_string().parse(), Ok(url));
        }
        check("file:data/blobs", "file:data/blobs");
        check("file:/srv/blobs", "file:/srv/blobs");
        check("file:///srv/blobs", "file:/srv/blobs");
        check("s3://bucket", "s3://bucket");
        check("s3://bucket/", "s3://bucket");
        check("s3://eu-bucket/a/b/", "s3://eu-bucket/a/b");
    }

    #[test]
    fn refuses_what_is_not_a_url() {
        #[track_caller]
        fn check(text: &str, expected: BadLocationUrl) {
            assert_eq!(text.parse::<LocationUrl>(), Err(expected), "{text}");
        }
        check("", BadLocationUrl::UnknownScheme);
        check("data/blobs", BadLocationUrl::UnknownScheme);
        check("s3:bucket", BadLocationUrl::UnknownScheme);
        check("file:", BadLocationUrl::NoPath);
        check("s3://", BadLocationUrl::BadBucket);
        check("s3:///prefix", BadLocationUrl::BadBucket);
        check("s3://user:secret@bucket/prefix", BadLocationUrl::BadBucket);
        check("s3://bucket/a//b", BadLocationUrl::BadPrefix);
        check("s3://bucket/../b", BadLocationUrl::BadPrefix);
    }

    #[test]
    fn opens_a_directory() {
        let root = tempfile::tempdir().unwrap();
        let url = LocationUrl::File(root.path().join("deep/blobs"));
        let location = Location::open(url, &Options::default()).unwrap();
        assert!(location.name().starts_with("file:/"));
        assert_eq!(location.store().min_chunk_size(), 0);
    }
}
