//! Fitted transforms of one fit set: their numbers as tensors, their order as JSON.
//!
//! | file | what |
//! |---|---|
//! | `transform.json` | shape of a sample and the steps in order, each with its kind and what shares its numbers |
//! | `transform.safetensors` | for affine step `i`: `i.subtract`, `i.multiply`, `i.add` (f64, `[n]`) |

use std::io;

use serde::{Deserialize, Serialize};

use super::tensors::{Tensors, TensorsWriter};
use super::{Error, Files, Sink, put_document};
use crate::data::transform::{Affine, Fitted, Per};
use crate::tensor::{ImageShape, SampleShape};

/// The file with the steps.
pub const STEPS: &str = "transform.json";
/// The file with the numbers.
pub const NUMBERS: &str = "transform.safetensors";

#[derive(Serialize, Deserialize)]
struct Description {
    format: u32,
    shape: Vec<usize>,
    steps: Vec<Step>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Step {
    Affine { per: String },
    StandardizeImage,
}

/// Writes the transforms `fitted` on samples of `shape`, in order.
///
/// # Errors
/// Those of the sink.
pub fn write(fitted: &[Fitted], shape: SampleShape, sink: &mut dyn Sink) -> io::Result<()> {
    let mut tensors = TensorsWriter::new();
    let mut steps = Vec::new();
    for (i, step) in fitted.iter().enumerate() {
        steps.push(match step {
            Fitted::Affine(Affine { per, subtract, multiply, add }) => {
                for (name, numbers) in [("subtract", subtract), ("multiply", multiply), ("add", add)] {
                    tensors.f64(&format!("{i}.{name}"), &[numbers.len()], numbers);
                }
                Step::Affine { per: per.word().to_owned() }
            }
            Fitted::StandardizeImage => Step::StandardizeImage,
        });
    }
    let shape = match shape {
        SampleShape::Image(ImageShape { height, width, channels }) => vec![height, width, channels],
        SampleShape::Flat(n) => vec![n],
    };
    put_document(sink, STEPS, &Description { format: 1, shape, steps })?;
    tensors.write(sink, NUMBERS)
}

/// Reads the transforms and the shape of the samples that they were fitted on.
///
/// # Errors
/// If a file is missing or is not what [`write`] writes.
pub fn read(files: &Files) -> Result<(Vec<Fitted>, SampleShape), Error> {
    let error = |message: String| Error { file: STEPS.to_owned(), message };
    let description: Description = files.document(STEPS, Some(1))?;
    let shape = match description.shape[..] {
        [n] => SampleShape::Flat(n),
        [height, width, channels] => SampleShape::Image(ImageShape { height, width, channels }),
        _ => return Err(error(format!("has a shape of {} axes, expected 1 or 3", description.shape.len()))),
    };
    let tensors = Tensors::open(files, NUMBERS)?;
    let mut fitted = Vec::with_capacity(description.steps.len());
    for (i, step) in description.steps.iter().enumerate() {
        fitted.push(match step {
            Step::StandardizeImage => Fitted::StandardizeImage,
            Step::Affine { per } => {
                let per = Per::parse(per).ok_or_else(|| error(format!("has an unknown `per`: `{per}`")))?;
                let numbers = |name: &str| {
                    let (_, numbers) = tensors.f64(&format!("{i}.{name}"), 1)?;
                    if numbers.len() != per.count(shape) || numbers.iter().any(|x| !x.is_finite()) {
                        return Err(error(format!("has a step `{i}` whose numbers do not fit the shape {shape}")));
                    }
                    Ok(numbers)
                };
                Fitted::Affine(Affine {
                    per,
                    subtract: numbers("subtract")?,
                    multiply: numbers("multiply")?,
                    add: numbers("add")?,
                })
            }
        });
    }
    Ok((fitted, shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Bytes;
    use crate::stages::testing::MemorySink;

    #[test]
    fn fitted_transforms_survive_the_disk_and_damage_is_an_error() {
        let shape = SampleShape::Image(ImageShape { height: 2, width: 3, channels: 3 });
        let fitted = vec![
            Fitted::Affine(Affine { subtract: vec![0.1, 0.2, 0.3], ..Affine::identity(Per::Channel, 3) }),
            Fitted::StandardizeImage,
            Fitted::Affine(Affine { multiply: vec![1.0 / 3.0; 18], ..Affine::identity(Per::Pixel, 18) }),
        ];
        let mut sink = MemorySink::default();
        write(&fitted, shape, &mut sink).unwrap();
        let files = sink.files();
        assert_eq!(read(&files).unwrap(), (fitted, shape));
        for name in [STEPS, NUMBERS] {
            let whole = files.get(name).unwrap().to_vec();
            for length in 0..whole.len() - 1 {
                let mut cut = files.clone();
                cut.0.insert(name.to_owned(), Bytes::new(whole[..length].to_vec()));
                assert!(read(&cut).is_err(), "{name} cut at {length}");
            }
        }
    }
}
