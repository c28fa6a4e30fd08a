//! Named tensors in one safetensors file: the form of everything learned or predicted.
//!
//! [`TensorsWriter`] collects and writes, [`Tensors`] reads and checks: a truncated or edited file is an
//! [`Error`], never a panic.

use std::io;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::{Bytes, Error, Files, Sink};

/// Longest header that is read, in bytes.
const MAX_HEADER: usize = 1 << 20;

/// Tensors on their way into a file. The file's bytes do not depend on the order in which they were added.
#[derive(Debug, Default)]
pub struct TensorsWriter {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl TensorsWriter {
    /// No tensors yet.
    pub fn new() -> TensorsWriter {
        TensorsWriter::default()
    }

    fn add(&mut self, name: &str, dtype: Dtype, shape: &[usize], n: usize, bytes: Vec<u8>) {
        assert_eq!(shape.iter().product::<usize>(), n, "shape {shape:?} and number of values of tensor `{name}`");
        assert!(self.tensors.iter().all(|(known, ..)| known != name), "tensor `{name}` added twice");
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

    /// Writes the file.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(self, sink: &mut dyn Sink, name: &str) -> io::Result<()> {
        let mut views = Vec::with_capacity(self.tensors.len());
        for (name, dtype, shape, bytes) in &self.tensors {
            let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(io::Error::other)?;
            views.push((name.as_str(), view));
        }
        // No metadata: the crate keeps it in a hash map, whose order would reach the file.
        let file = safetensors::serialize(views, None).map_err(io::Error::other)?;
        sink.put(name, &file)
    }
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
        let bytes: &Bytes = files.get(name)?;
        let error = |message: String| Error { file: name.to_owned(), message };
        let header = bytes.first_chunk::<8>().map_or(0, |chunk| u64::from_le_bytes(*chunk));
        if header > MAX_HEADER as u64 {
            return Err(error(format!("has a header of {header} bytes, more than {MAX_HEADER}")));
        }
        let tensors = SafeTensors::deserialize(bytes)
            .map_err(|cause| error(format!("is not a readable safetensors file ({cause})")))?;
        Ok(Tensors { file: name.to_owned(), tensors })
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
}
