//! Transforms that keep a sample's shape: what a manifest says ([`Transform`]), what fitting makes of it ([`Fitted`]),
//! and how that is applied ([`Chain`]).
//!
//! One file per transform, one line each in [`KINDS`]. Statistics come from `moments.rs`, training rows only.

pub(crate) mod center;
pub(crate) mod divide;
mod fitted;
pub mod moments;
pub(crate) mod scale;
pub(crate) mod standardize_image;

use std::fmt;

pub use fitted::{Affine, Chain, Fitted, Per, fuse};
use moments::{Moments, Statistics};

use super::feed::TrainingSamples;
use crate::config::{Choice, Section};

/// A step of `preprocess` as the manifest says it.
pub trait Transform: fmt::Debug + Send + Sync {
    /// The word in the manifest.
    fn name(&self) -> &'static str;

    /// Learns what the step needs from training samples that have gone through the steps before it.
    fn fit(&self, statistics: &mut Statistics<'_>) -> Fitted;
}

/// A transform, as the manifest knows it.
pub struct Kind {
    /// The word.
    pub name: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// Reads its keys.
    pub read: fn(&mut Section<'_>) -> Box<dyn Transform>,
    /// An item of `steps` that uses it.
    pub example: &'static str,
}

/// Every transform. To add one: a file beside this one, and a line here.
pub const KINDS: &[Kind] = &[center::KIND, scale::KIND, divide::KIND, standardize_image::KIND];

/// Reads the list of transforms, `steps`.
pub fn read_steps(section: &mut Section<'_>) -> Vec<Box<dyn Transform>> {
    let choice = |kind: &Kind| Choice { word: kind.name, meaning: kind.meaning, read: kind.read };
    let choices: Vec<Choice<Box<dyn Transform>>> = KINDS.iter().map(choice).collect();
    section.key("steps", "What is done to each image, in this order.", "[\"center\", \"scale\"]").choices(&choices)
}

/// Fits `transforms` in order, each on training samples that went through the ones before it.
///
/// # Determinism
/// The same bytes for any number of `threads`.
pub fn fit(transforms: &[Box<dyn Transform>], samples: TrainingSamples<'_>, threads: usize) -> Vec<Fitted> {
    let mut statistics = Statistics::new(samples, threads);
    for transform in transforms {
        let fitted = transform.fit(&mut statistics);
        statistics.push(fitted);
    }
    statistics.into_fitted()
}

/// Whether values with these moments are all the same, up to the rounding of their mean (the bound that scikit-learn
/// has in `_is_constant_feature`).
fn is_constant(moments: &Moments) -> bool {
    let n = moments.n as f64;
    let bound = n * moments.mean * f64::EPSILON;
    moments.m2 / n <= bound * bound
}
