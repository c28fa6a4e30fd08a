//! What flows between stages, and its bytes on disk: standard files (NPY, safetensors, CSV, JSON).
//!
//! An artifact is a named set of files. A stage writes them through a [`Sink`] and reads those of the stages above
//! through [`Files`]; neither knows where they are kept (that is `store`). One file here per artifact type.

pub(crate) mod calibration;
pub mod columns;
pub mod dataset;
pub(crate) mod details;
pub(crate) mod difference;
pub(crate) mod ensemble;
pub(crate) mod evaluation;
pub(crate) mod features;
pub(crate) mod gallery;
pub(crate) mod model;
pub(crate) mod npy;
pub(crate) mod npz;
pub(crate) mod onnx;
pub(crate) mod portable;
pub mod predictions;
pub(crate) mod protobuf;
pub(crate) mod sanity;
pub(crate) mod search;
pub(crate) mod sheet;
pub(crate) mod splits;
pub(crate) mod suspects;
pub(crate) mod table;
pub(crate) mod tensors;
pub(crate) mod transform;
pub(crate) mod views;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files::document;

/// The bytes of one file: in memory, or mapped by the store.
#[derive(Clone)]
pub struct Bytes(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl Bytes {
    /// Wraps anything that holds bytes.
    pub fn new(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Bytes {
        Bytes(Arc::new(bytes))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}

/// The files of one artifact, by name.
#[derive(Clone, Debug, Default)]
pub struct Files(pub BTreeMap<String, Bytes>);

impl Files {
    /// The file called `name`.
    ///
    /// # Errors
    /// If the artifact has no such file.
    pub fn get(&self, name: &str) -> Result<&Bytes, Error> {
        self.0
            .get(name)
            .ok_or_else(|| Error { file: name.to_owned(), message: "is missing from the artifact".to_owned() })
    }
}

impl Files {
    /// The document called `name`, of this format if it has a number.
    ///
    /// # Errors
    /// If there is none, or it is not readable or of another form.
    pub fn document<T: DeserializeOwned>(&self, name: &str, format: Option<u32>) -> Result<T, Error> {
        let wrong = |message| Error { file: name.to_owned(), message };
        document::from_bytes(self.get(name)?, format).map_err(wrong)
    }
}

/// Writes a document, as [`Files::document`] reads it.
///
/// # Errors
/// Those of the sink.
pub fn put_document(sink: &mut dyn Sink, name: &str, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    sink.put(name, &document::to_bytes(value)?)
}

/// Where a stage writes its artifact. Nothing is visible to others before the task has ended well.
pub trait Sink {
    /// A new file, to be written (and seeked in, and mapped) freely until the task ends.
    ///
    /// # Errors
    /// Those of the file system: a full disk, for one.
    fn create(&mut self, name: &str) -> io::Result<File>;

    /// A new file with this content.
    ///
    /// # Errors
    /// Those of the file system.
    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.create(name)?.write_all(bytes)
    }
}

/// An artifact that cannot be read: never the user's fault, since the store checks digests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{file}` {message}")]
pub struct Error {
    /// The file's name within the artifact.
    pub file: String,
    /// What is wrong with it.
    pub message: String,
}
