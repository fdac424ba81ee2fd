//! The engines that a location can be kept by, and what a bucket needs of one beside `object_store`'s own interface.
//!
//! An engine is added by a scheme in [`LocationUrl`](super::LocationUrl), an arm in [`Location::open`](super::Location::open)
//! and an [`Engine`].

pub mod s3;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use object_store::ObjectStore;
use object_store::Result;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;

/// An object store that a bucket can be made of.
#[async_trait]
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Returns the interface for whole objects.
    fn objects(&self) -> &dyn ObjectStore;

    /// Returns the interface for objects that come in parts.
    fn multipart(&self) -> &dyn MultipartStore;

    /// Makes a part of a multipart upload out of a range of another object, within the store.
    async fn copy_part(&self, copy: CopyPart<'_>) -> Result<PartId>;
}

/// A part to be made of a range of another object.
#[derive(Clone, Debug)]
pub struct CopyPart<'a> {
    /// The object.
    pub from: &'a Path,
    /// Its bytes.
    pub range: Range<u64>,
    /// The key of the multipart upload.
    pub to: &'a Path,
    /// The store's id of the multipart upload.
    pub multipart: &'a str,
    /// The part's place, counted from zero.
    pub index: usize,
}
