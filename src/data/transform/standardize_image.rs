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
