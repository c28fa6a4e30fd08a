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
use crate::config::Section;
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
    pub const WORDS: [&'static str; 3] = ["pixel", "channel", "global"];

    /// Reads the key `per`, by default "channel".
    pub fn read(section: &mut Section<'_>) -> Per {
        Per::parse(section.word("per", &Per::WORDS, "channel")).unwrap_or(Per::Channel)
    }

    /// The value of this word.
    pub fn parse(word: &str) -> Option<Per> {
        match word {
            "pixel" => Some(Per::Pixel),
            "channel" => Some(Per::Channel),
            "global" => Some(Per::Global),
            _ => None,
        }
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
    /// Reads its keys.
    pub read: fn(&mut Section<'_>) -> Box<dyn Transform>,
    /// An item of `steps` that uses it.
    pub example: &'static str,
}

/// Every transform. To add one: a file beside this one, and a line here.
pub const KINDS: &[Kind] = &[center::KIND, scale::KIND, divide::KIND, standardize_image::KIND];

/// Reads the list of transforms under `key`.
pub fn read_steps(section: &mut Section<'_>, key: &str) -> Vec<Box<dyn Transform>> {
    let names: Vec<&'static str> = KINDS.iter().map(|kind| kind.name).collect();
    let steps = section.choices(key, &names, |name, section| {
        let kind = KINDS.iter().find(|kind| kind.name == name);
        kind.map(|kind| (kind.read)(section))
    });
    steps.into_iter().flatten().collect()
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
