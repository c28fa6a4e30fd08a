//! `standardize-image`: each image by its own mean and deviation, as TensorFlow's `per_image_standardization` does.

use super::moments::Statistics;
use super::{Fitted, Kind, Transform};
use crate::config::Section;

/// Subtracts an image's own mean and divides by its own deviation, at least `1 / sqrt(n)` for `n` values, so that an
/// image of one colour becomes 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StandardizeImage;

/// The line in the list.
pub const KIND: Kind = Kind {
    name: "standardize-image",
    meaning: "Brings each image to mean 0 and deviation 1 by itself.",
    read,
    example: "\"standardize-image\"",
};

fn read(_: &mut Section<'_>) -> Box<dyn Transform> {
    Box::new(StandardizeImage)
}

impl Transform for StandardizeImage {
    fn name(&self) -> &'static str {
        KIND.name
    }

    fn fit(&self, _: &mut Statistics<'_>) -> Fitted {
        Fitted::StandardizeImage
    }
}

/// Sums `f(x)` in double precision: sixteen lanes, then one fixed tree.
fn sum(values: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0f64; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(f64::from(x));
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(f64::from(x));
    }
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Standardises the values of one image in place.
pub(super) fn apply(values: &mut [f32]) {
    let n = values.len() as f64;
    let mean = sum(values, |x| x) / n;
    let deviation = (sum(values, |x| (x - mean) * (x - mean)) / n).sqrt();
    let (mean, factor) = (mean as f32, (1.0 / deviation.max(1.0 / n.sqrt())) as f32);
    for x in values {
        *x = (*x - mean) * factor;
    }
}
