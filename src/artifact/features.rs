//! Features: what `reduce` learned from the training rows of one fit set, and every sample as it comes out of that.
//!
//! | file | what |
//! |---|---|
//! | `projection.json` | method, and the shape of a sample before and afterwards |
//! | `projection.safetensors` | `mean` (f64, `[features]`, or empty), `weights` (f32, `[features, output]`), and of PCA `components` (f32, `[components, features]`), `explained_variance` (f64), `total_variance` (f64, `[1]`) |
//! | `features.npy` | f32, little-endian, C order: `[n_samples, features]`, or `[n_samples, height, width, channels]`; readers map it |
//! | `components.csv` | of PCA: how much variance each component explains |
//! | `components.png` | of PCA on images: the first 64 components as pictures |

use std::fs::File;
use std::io::{self, BufWriter, Write};

use serde::{Deserialize, Serialize};

use super::model::axes;
use super::sheet::sheet;
use super::table::{Cell, Table};
use super::tensors::{Tensors, TensorsWriter};
use super::{Bytes, Error, Files, Sink, npy, put_document};
use crate::data::reduce::{Projection, Spectrum};
use crate::data::samples::{Samples, Values};
use crate::tensor::{ImageShape, SampleShape};

/// The file with the shapes.
pub const DESCRIPTION: &str = "projection.json";
/// The file with the numbers.
pub const NUMBERS: &str = "projection.safetensors";
/// The file with all samples.
pub const FEATURES: &str = "features.npy";
/// The table of explained variance.
pub const COMPONENTS: &str = "components.csv";
/// The picture of the first components.
pub const PICTURE: &str = "components.png";

/// Components on the picture.
const N_PICTURED: usize = 64;

#[derive(Serialize, Deserialize)]
struct Description {
    format: u32,
    method: String,
    input: Vec<usize>,
    output: Vec<usize>,
    n_samples: usize,
}

/// All samples of a data set as features, where the store keeps them.
#[derive(Clone, Debug)]
pub struct Features {
    shape: SampleShape,
    n_samples: usize,
    bytes: Bytes,
}

impl Features {
    /// Whether an artifact holds features (and not transforms that are applied while loading).
    pub fn are_in(files: &Files) -> bool {
        files.0.contains_key(FEATURES)
    }

    /// The features of an artifact.
    ///
    /// # Errors
    /// If a file is missing, short, or does not agree with the others.
    pub fn read(files: &Files) -> Result<Features, Error> {
        let description = describe(files)?;
        let shape = shape(&description.output)?;
        let bytes = files.get(FEATURES)?.clone();
        npy::check(FEATURES, &bytes, npy::Kind::F32, &array(description.n_samples, shape), DESCRIPTION)?;
        Ok(Features { shape, n_samples: description.n_samples, bytes })
    }
}

impl Samples for Features {
    fn n_samples(&self) -> usize {
        self.n_samples
    }

    fn shape(&self) -> SampleShape {
        self.shape
    }

    fn values(&self, i: usize) -> Values<'_> {
        let len = self.shape.len() * 4;
        Values::F32(self.bytes[npy::HEADER_LEN + i * len..][..len].as_chunks().0)
    }
}

/// Writes `features.npy`, samples in the order of the data set.
pub struct FeaturesWriter {
    file: BufWriter<File>,
    n_values: usize,
}

impl FeaturesWriter {
    /// Starts the file.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn create(sink: &mut dyn Sink, n_samples: usize, shape: SampleShape) -> io::Result<FeaturesWriter> {
        let mut file = BufWriter::with_capacity(1 << 20, sink.create(FEATURES)?);
        file.write_all(&npy::header(npy::Kind::F32, &array(n_samples, shape)))?;
        Ok(FeaturesWriter { file, n_values: n_samples * shape.len() })
    }

    /// Appends the values of some samples.
    ///
    /// # Errors
    /// Those of the file system.
    ///
    /// # Panics
    /// If there are more values than were announced.
    pub fn push(&mut self, values: &[f32]) -> io::Result<()> {
        assert!(values.len() <= self.n_values, "more samples than announced");
        self.n_values -= values.len();
        let mut bytes = [0; 4096];
        for values in values.chunks(bytes.len() / 4) {
            for (out, x) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                *out = x.to_le_bytes();
            }
            self.file.write_all(&bytes[..values.len() * 4])?;
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Those of the file system.
    ///
    /// # Panics
    /// If samples are missing.
    pub fn finish(mut self) -> io::Result<()> {
        assert_eq!(self.n_values, 0, "values of samples that were announced");
        self.file.flush()
    }
}

/// Writes everything but the features.
///
/// # Errors
/// Those of the sink.
pub fn write(projection: &Projection, n_samples: usize, sink: &mut dyn Sink) -> io::Result<()> {
    let description = Description {
        format: 1,
        method: projection.method.clone(),
        input: axes(projection.input),
        output: axes(projection.output),
        n_samples,
    };
    put_document(sink, DESCRIPTION, &description)?;
    let mut tensors = TensorsWriter::new();
    tensors.f64("mean", &[projection.mean.len()], &projection.mean);
    tensors.f32("weights", &[projection.input.len(), projection.output.len()], &projection.weights);
    if let Some(spectrum) = &projection.spectrum {
        let n = spectrum.explained_variance.len();
        tensors.f32("components", &[n, projection.input.len()], &spectrum.components);
        tensors.f64("explained_variance", &[n], &spectrum.explained_variance);
        tensors.f64("total_variance", &[1], &[spectrum.total_variance]);
        sink.put(COMPONENTS, &components_table(spectrum))?;
        // A sheet of grey or of colours; other numbers of channels have no picture.
        if let Some(shape) = projection.input.image().filter(|shape| matches!(shape.channels, 1 | 3)) {
            let n = n.min(N_PICTURED);
            sink.put(PICTURE, &sheet(&spectrum.components[..n * shape.len()], shape)?)?;
        }
    }
    tensors.write(sink, NUMBERS)
}

fn components_table(spectrum: &Spectrum) -> Vec<u8> {
    let mut table = Table::new(&["component", "explained_variance", "explained_variance_ratio", "cumulative"]);
    for (i, (variance, (ratio, cumulative))) in spectrum.explained_variance.iter().zip(spectrum.ratios()).enumerate() {
        table.row(&[Cell::Whole(i as u64 + 1), (*variance).into(), ratio.into(), cumulative.into()]);
    }
    table.into_bytes()
}

/// The fitted map of an artifact, for samples that are not in the data set.
///
/// # Errors
/// If a file is missing, or is not what [`write`] writes.
pub fn read_projection(files: &Files) -> Result<Projection, Error> {
    let description = describe(files)?;
    let (input, output) = (shape(&description.input)?, shape(&description.output)?);
    let tensors = Tensors::open(files, NUMBERS)?;
    let wrong = |name: &str| bad(NUMBERS, format_args!("has numbers `{name}` that do not fit {DESCRIPTION}"));
    let (_, mean) = tensors.f64("mean", 1)?;
    if !(mean.is_empty() || mean.len() == input.len()) || mean.iter().any(|x| !x.is_finite()) {
        return Err(wrong("mean"));
    }
    let (axes, weights) = tensors.f32("weights", 2)?;
    if axes != [input.len(), output.len()] || weights.iter().any(|x| !x.is_finite()) {
        return Err(wrong("weights"));
    }
    let mut spectrum = None;
    if tensors.names().contains(&"components") {
        let (axes, components) = tensors.f32("components", 2)?;
        let (_, explained_variance) = tensors.f64("explained_variance", 1)?;
        let (_, total) = tensors.f64("total_variance", 1)?;
        match total[..] {
            [total_variance] if axes == [explained_variance.len(), input.len()] => {
                spectrum = Some(Spectrum { components, explained_variance, total_variance });
            }
            _ => return Err(wrong("components")),
        }
    }
    Ok(Projection { method: description.method, input, output, mean, weights, spectrum })
}

fn describe(files: &Files) -> Result<Description, Error> {
    files.document(DESCRIPTION, Some(1))
}

fn shape(axes: &[usize]) -> Result<SampleShape, Error> {
    let n = axes.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis));
    match (axes, n) {
        (&[n], Some(1..)) => Ok(SampleShape::Flat(n)),
        (&[height, width, channels], Some(1..)) => Ok(SampleShape::Image(ImageShape { height, width, channels })),
        _ => Err(bad(DESCRIPTION, format_args!("has a shape {axes:?}, expected 1 or 3 axes"))),
    }
}

/// The axes of all samples together.
fn array(n_samples: usize, shape: SampleShape) -> Vec<usize> {
    [vec![n_samples], axes(shape)].concat()
}

fn bad(file: &str, message: impl std::fmt::Display) -> Error {
    Error { file: file.to_owned(), message: message.to_string() }
}
