//! Transforms that keep a sample's shape: what a manifest says ([`Transform`]), what fitting makes of it ([`Fitted`]),
//! and how that is applied ([`Chain`]).
//!
//! One file per transform, one line each in [`KINDS`]. Statistics come from `moments.rs`, training rows only.

pub mod center;
mod chain;
pub mod divide;
pub mod moments;
pub mod scale;
pub mod standardize_image;

use std::fmt;

pub use chain::Chain;
use moments::{Moments, Statistics};

use super::feed::TrainingSamples;
use crate::config::{Choice, Section};
use crate::tensor::SampleShape;

/// What shares one statistic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Per {
    /// All values of all samples.
    Global,
    /// The values of one channel; of a flat sample, each feature.
    Channel,
    /// Each value of a sample.
    Pixel,
}

impl Per {
    /// The words of the manifest.
    const WORDS: [(&'static str, &'static str, Per); 3] = [
        ("pixel", "Each value of a sample.", Per::Pixel),
        ("channel", "The values of one channel; of flat samples, each feature.", Per::Channel),
        ("global", "All values of all samples.", Per::Global),
    ];

    /// Reads the key `per`, by default "channel".
    pub fn read(section: &mut Section<'_>) -> Per {
        section.key("per", "What shares one statistic.", "\"pixel\"").short().word_or(&Per::WORDS, 1)
    }

    /// The value of this word.
    pub fn parse(word: &str) -> Option<Per> {
        Per::WORDS.iter().find(|(known, ..)| *known == word).map(|(.., per)| *per)
    }

    /// The word in the manifest.
    pub fn word(self) -> &'static str {
        match self {
            Per::Pixel => "pixel",
            Per::Channel => "channel",
            Per::Global => "global",
        }
    }

    /// How many statistics that is for samples of `shape`.
    pub fn count(self, shape: SampleShape) -> usize {
        match (self, shape) {
            (Per::Global, _) => 1,
            (Per::Channel, SampleShape::Image(image)) => image.channels,
            _ => shape.len(),
        }
    }
}

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

/// A fitted step.
#[derive(Clone, Debug, PartialEq)]
pub enum Fitted {
    /// `(x - subtract) * multiply + add`.
    Affine(Affine),
    /// Each image by its own mean and deviation; nothing is learned.
    StandardizeImage,
}

/// `(x - subtract) * multiply + add`, by pixel, by channel, or for all values alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// What shares one triple of numbers.
    pub per: Per,
    /// Subtracted first.
    pub subtract: Vec<f64>,
    /// Then multiplied; never 0.
    pub multiply: Vec<f64>,
    /// Then added.
    pub add: Vec<f64>,
}

impl Affine {
    /// The transform that does nothing, `n` numbers of each kind.
    pub fn identity(per: Per, n: usize) -> Affine {
        Affine { per, subtract: vec![0.0; n], multiply: vec![1.0; n], add: vec![0.0; n] }
    }
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
