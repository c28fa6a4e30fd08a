//! Named tensors in one safetensors file: the form of everything learned or predicted.
//!
//! [`TensorsWriter`] collects and writes, [`Tensors`] reads and checks: a truncated or edited file is an
//! [`Error`], never a panic.

use std::collections::{HashMap, HashSet};
use std::io;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::{Bytes, Error, Files, Sink, npy};

/// Longest header that is read, in bytes.
const MAX_HEADER: usize = 1 << 24;

/// Tensors on their way into a file. The file's bytes do not depend on the order in which they were added.
#[derive(Debug, Default)]
pub struct TensorsWriter {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    names: HashSet<String>,
}

impl TensorsWriter {
    /// No tensors yet.
    pub fn new() -> TensorsWriter {
        TensorsWriter::default()
    }

    fn add(&mut self, name: &str, dtype: Dtype, shape: &[usize], n: usize, bytes: Vec<u8>) {
        assert_eq!(shape.iter().product::<usize>(), n, "shape {shape:?} and number of values of tensor `{name}`");
        assert!(self.names.insert(name.to_owned()), "tensor `{name}` added twice");
        self.tensors.push((name.to_owned(), dtype, shape.to_vec(), bytes));
    }

    /// Adds a tensor of single precision.
    ///
    /// # Panics
    /// If `shape` and `values` disagree, or `name` is taken.
    pub fn f32(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.add(name, Dtype::F32, shape, values.len(), bytes);
    }

    /// Adds a tensor of double precision.
    ///
    /// # Panics
    /// If `shape` and `values` disagree, or `name` is taken.
    pub fn f64(&mut self, name: &str, shape: &[usize], values: &[f64]) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.add(name, Dtype::F64, shape, values.len(), bytes);
    }

    /// Adds a tensor of whole numbers.
    ///
    /// # Panics
    /// If `shape` and `values` disagree, or `name` is taken.
    pub fn u32(&mut self, name: &str, shape: &[usize], values: &[u32]) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.add(name, Dtype::U32, shape, values.len(), bytes);
    }

    /// Adds bytes.
    ///
    /// # Panics
    /// If `name` is taken.
    pub fn u8(&mut self, name: &str, bytes: &[u8]) {
        self.add(name, Dtype::U8, &[bytes.len()], bytes.len(), bytes.to_vec());
    }

    /// Adds the tensors of `from` whose names it `wants`, under the names that `renamed` makes of theirs.
    ///
    /// # Panics
    /// If a name is taken.
    pub fn copy(&mut self, from: &Tensors<'_>, wants: impl Fn(&str) -> bool, renamed: impl Fn(&str) -> String) {
        for (name, view) in from.tensors.iter().filter(|(name, _)| wants(name)) {
            let n = view.shape().iter().product();
            self.add(&renamed(name), view.dtype(), view.shape(), n, view.data().to_vec());
        }
    }

    /// Name, shape and bytes of each tensor, in any order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Vec<usize>, &[u8])> {
        self.tensors.iter().map(|(name, _, shape, bytes)| (name.as_str(), shape.clone(), bytes.as_slice()))
    }

    /// The tensors as arrays for NumPy, by name.
    pub(super) fn arrays(&self) -> impl Iterator<Item = (&str, npy::Kind, &[usize], &[u8])> {
        let kind = |dtype: Dtype| match dtype {
            Dtype::F32 => npy::Kind::F32,
            Dtype::F64 => npy::Kind::F64,
            Dtype::U32 => npy::Kind::U32,
            _ => npy::Kind::U8,
        };
        let mut tensors: Vec<_> = self.tensors.iter().collect();
        tensors.sort_unstable_by_key(|(name, ..)| name);
        tensors
            .into_iter()
            .map(move |(name, dtype, shape, bytes)| (name.as_str(), kind(*dtype), shape.as_slice(), bytes.as_slice()))
    }

    /// The file's bytes, with at most one key of metadata.
    ///
    /// # Errors
    /// If the tensors are too many for a file.
    pub fn to_bytes(&self, metadata: Option<(&str, String)>) -> io::Result<Vec<u8>> {
        let mut views = Vec::with_capacity(self.tensors.len());
        for (name, dtype, shape, bytes) in &self.tensors {
            let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(io::Error::other)?;
            views.push((name.as_str(), view));
        }
        // The crate keeps metadata in a hash map, whose order would reach the file: hence one key.
        let metadata = metadata.map(|(key, value)| HashMap::from([(key.to_owned(), value)]));
        safetensors::serialize(views, metadata).map_err(io::Error::other)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(self, sink: &mut dyn Sink, name: &str) -> io::Result<()> {
        sink.put(name, &self.to_bytes(None)?)
    }
}

/// The bytes of a file whose header is not too long.
fn checked<'a>(files: &'a Files, name: &str) -> Result<&'a Bytes, Error> {
    let bytes = files.get(name)?;
    let header = bytes.first_chunk::<8>().map_or(0, |chunk| u64::from_le_bytes(*chunk));
    if header > MAX_HEADER as u64 {
        let message = format!("has a header of {header} bytes, more than {MAX_HEADER}");
        return Err(Error { file: name.to_owned(), message });
    }
    Ok(bytes)
}

fn unreadable(name: &str, cause: &dyn std::fmt::Display) -> Error {
    Error { file: name.to_owned(), message: format!("is not a readable safetensors file ({cause})") }
}

/// The tensors of a file.
#[derive(Debug)]
pub struct Tensors<'a> {
    file: String,
    tensors: SafeTensors<'a>,
}

impl<'a> Tensors<'a> {
    /// Reads the header of the file called `name`.
    ///
    /// # Errors
    /// If the file is absent, or is not a safetensors file.
    pub fn open(files: &'a Files, name: &str) -> Result<Tensors<'a>, Error> {
        let bytes = checked(files, name)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|cause| unreadable(name, &cause))?;
        Ok(Tensors { file: name.to_owned(), tensors })
    }

    /// The metadata of the file called `name`, which may be empty.
    ///
    /// # Errors
    /// If the file is absent, or is not a safetensors file.
    pub fn metadata(files: &Files, name: &str) -> Result<HashMap<String, String>, Error> {
        let bytes = checked(files, name)?;
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|cause| unreadable(name, &cause))?;
        Ok(metadata.metadata().clone().unwrap_or_default())
    }

    /// Name, shape and bytes of each tensor, in any order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Vec<usize>, &'a [u8])> {
        self.tensors.iter().map(|(name, view)| (name, view.shape().to_vec(), view.data()))
    }

    /// Name and values of each tensor of floating-point numbers, in the order of their names.
    pub fn floats(&self) -> impl Iterator<Item = (&str, Vec<f64>)> {
        self.names().into_iter().filter_map(|name| {
            let view = self.tensors.tensor(name).ok()?;
            let bytes = view.data();
            let values = match view.dtype() {
                Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
                Dtype::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
                _ => return None,
            };
            Some((name, values))
        })
    }

    fn error(&self, message: String) -> Error {
        Error { file: self.file.clone(), message }
    }

    fn view(&self, name: &str, dtype: Dtype, n_axes: usize) -> Result<TensorView<'a>, Error> {
        let view = self.tensors.tensor(name).map_err(|_| self.error(format!("has no tensor `{name}`")))?;
        if view.dtype() != dtype || view.shape().len() != n_axes {
            return Err(self.error(format!(
                "has tensor `{name}` as {:?} {:?}, expected {dtype:?} with {n_axes} axes",
                view.dtype(),
                view.shape()
            )));
        }
        Ok(view)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names = self.tensors.names();
        names.sort_unstable();
        names
    }

    /// Shape and values of a tensor of single precision with `n_axes` axes.
    ///
    /// # Errors
    /// If there is none of this name, or it is of another kind.
    pub fn f32(&self, name: &str, n_axes: usize) -> Result<(Vec<usize>, Vec<f32>), Error> {
        let view = self.view(name, Dtype::F32, n_axes)?;
        let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok((view.shape().to_vec(), values))
    }

    /// Shape and values of a tensor of single precision, however many axes it has.
    ///
    /// # Errors
    /// If there is none of this name, or it is of another kind.
    pub fn f32_of_any_shape(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), Error> {
        let n_axes = self.tensors.tensor(name).map_or(0, |view| view.shape().len());
        self.f32(name, n_axes)
    }

    /// Shape and values of a tensor of double precision with `n_axes` axes.
    ///
    /// # Errors
    /// If there is none of this name, or it is of another kind.
    pub fn f64(&self, name: &str, n_axes: usize) -> Result<(Vec<usize>, Vec<f64>), Error> {
        let view = self.view(name, Dtype::F64, n_axes)?;
        let values = view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        Ok((view.shape().to_vec(), values))
    }

    /// Shape and values of a tensor of whole numbers with `n_axes` axes.
    ///
    /// # Errors
    /// If there is none of this name, or it is of another kind.
    pub fn u32(&self, name: &str, n_axes: usize) -> Result<(Vec<usize>, Vec<u32>), Error> {
        let view = self.view(name, Dtype::U32, n_axes)?;
        let values = view.data().as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        Ok((view.shape().to_vec(), values))
    }

    /// The bytes of a tensor of bytes.
    ///
    /// # Errors
    /// If there is none of this name, or it is of another kind.
    pub fn u8(&self, name: &str) -> Result<Vec<u8>, Error> {
        Ok(self.view(name, Dtype::U8, 1)?.data().to_vec())
    }
}
