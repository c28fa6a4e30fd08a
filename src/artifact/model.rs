//! A trained network: what it is, its weights, and how it came to be.
//!
//! | file | what |
//! |---|---|
//! | `model.json` | shorthand of the layers, input shape, classes, epochs run, best epoch |
//! | `weights.safetensors` | every tensor by name (`1.conv.weights`), f32 |
//!
//! A training run with `snapshots = N` hands on N models (or as many as there were epochs or cycles): the first is the
//! one at its end, the m-th the one m - 1 snapshots before. As everywhere ([`super::predictions::file_of`]), the files
//! of the m-th are `weights-m.safetensors`, `validation-m.safetensors` and `test-m.safetensors`; `model.json` has the
//! epochs of all of them under `snapshots`, in this order.

use std::io;

use serde::{Deserialize, Serialize};

use super::tensors::{Tensors, TensorsWriter};
use super::{Error, Files, Sink, put_document};
use crate::nn::network::NamedTensor;
use crate::tensor::{ImageShape, SampleShape};

/// The description's file name.
pub const MODEL: &str = "model.json";
/// The weights' file name.
pub const WEIGHTS: &str = "weights.safetensors";

/// The version of `model.json`. In 1, a convolution that did not say how it is computed was computed the direct way.
pub const FORMAT: u32 = 2;

/// What `model.json` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Version of this file's form.
    pub format: u32,
    /// The layers in shorthand, variables filled in.
    pub architecture: String,
    /// Axes of one sample: height, width, channels; or features.
    pub input: Vec<usize>,
    /// Number of classes.
    pub n_classes: usize,
    /// Values that training moved.
    pub n_parameters: usize,
    /// Epochs that were run.
    pub epochs: u32,
    /// The epoch with the lowest validation loss (the first of equals); the last one where there is no validation.
    pub best_epoch: u32,
    /// Whether validation rows chose the weights (early stopping) or the learning rate (plateau): a score on those rows
    /// is then not one on unseen rows.
    pub is_selected: bool,
    /// Samples it was fitted on.
    pub n_training: usize,
    /// The epochs of the models that were kept on the way, the last one first; empty if none were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<u32>,
}

impl Description {
    /// The shape of one sample.
    pub fn shape(&self) -> Option<SampleShape> {
        match self.input[..] {
            [height, width, channels] => Some(SampleShape::Image(ImageShape { height, width, channels })),
            [features] => Some(SampleShape::Flat(features)),
            _ => None,
        }
    }

    /// Reads the description of a model.
    ///
    /// # Errors
    /// If it is missing or of another form.
    pub fn read(files: &Files) -> Result<Description, Error> {
        let description: Description = files.document(MODEL, Some(FORMAT))?;
        match description.shape() {
            Some(_) => Ok(description),
            None => {
                let message = format!("has an input of {} axes, expected 1 or 3", description.input.len());
                Err(Error { file: MODEL.to_owned(), message })
            }
        }
    }
}

/// The axes of a shape as `model.json` has them.
pub fn axes(shape: SampleShape) -> Vec<usize> {
    match shape {
        SampleShape::Image(ImageShape { height, width, channels }) => vec![height, width, channels],
        SampleShape::Flat(features) => vec![features],
    }
}

/// Writes a model.
///
/// # Errors
/// Those of the sink.
pub fn write(description: &Description, weights: &[NamedTensor], sink: &mut dyn Sink) -> io::Result<()> {
    put_document(sink, MODEL, description)?;
    write_weights(weights, sink, WEIGHTS)
}

/// Writes tensors to the file called `name`.
///
/// # Errors
/// Those of the sink.
pub fn write_weights(weights: &[NamedTensor], sink: &mut dyn Sink, name: &str) -> io::Result<()> {
    let mut tensors = TensorsWriter::new();
    for tensor in weights {
        tensors.f32(&tensor.name, &tensor.shape, &tensor.values);
    }
    tensors.write(sink, name)
}

/// Reads the weights of a model: tensors by name, with any number of axes.
///
/// # Errors
/// If the file is missing or damaged.
pub fn read_weights(files: &Files) -> Result<Vec<NamedTensor>, Error> {
    let tensors = Tensors::open(files, WEIGHTS)?;
    tensors
        .names()
        .into_iter()
        .map(|name| {
            let (shape, values) = tensors.f32_of_any_shape(name)?;
            Ok(NamedTensor { name: name.to_owned(), shape, values })
        })
        .collect()
}
