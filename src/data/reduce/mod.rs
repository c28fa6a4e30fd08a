//! Fewer features: what a manifest says ([`Reduction`]), and the linear map that fitting makes of it ([`Projection`]).
//!
//! One file per family, one line per method in [`KINDS`]. Everything is learned from training rows only; the map is
//! then applied to all rows, block by block, by `engine`'s matrix product. The same bytes come out for any number of
//! threads and any instruction set.

mod axes;
mod covariance;
pub(crate) mod eigen;
mod few;
pub(crate) mod pca;
pub(crate) mod projection;

use std::fmt;
use std::sync::Arc;

use super::feed::{Feed, TrainingSamples};
use super::transform::moments::{Moments, Statistics};
use super::transform::{Affine, Fitted, Per};
use crate::config::{Choice, Complaint, Section};
use crate::engine::{Engine, Matrix};
use crate::rng::Stream;
use crate::tensor::SampleShape;

/// Samples that are loaded at once. Sums over samples are cut here, so that it must never depend on the machine.
pub const BLOCK: usize = 4096;

/// Samples that are projected at once, at most.
pub const PROJECTED: usize = 4096;

/// Multiply-adds between two looks at whether to stop, where they are not cut by the engine: a quarter of a second of
/// one thread. Sums over samples are cut by it, so that it must never depend on the machine.
const BETWEEN_LOOKS: usize = 1 << 32;

/// Random numbers that are drawn between two looks.
const DRAWN: usize = 1 << 22;

/// How many samples are worked on between two looks, if one takes so many multiply-adds and `most` are.
fn samples_between_looks(multiply_adds: usize, most: usize) -> usize {
    // Whole chunks of sums.
    (BETWEEN_LOOKS / multiply_adds.max(1) / CHUNK * CHUNK).clamp(CHUNK, most)
}

/// Least samples of a block.
const CHUNK: usize = 64;

/// What keeps a method from being fitted: about the key to change, within the method: `components`.
pub type Misfit = Complaint<&'static str>;

/// Why there is no projection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FitError {
    /// The method and the samples do not fit.
    Misfit(Misfit),
    /// It was told to stop.
    Stopped,
}

impl From<Misfit> for FitError {
    fn from(misfit: Misfit) -> FitError {
        FitError::Misfit(misfit)
    }
}

/// What a fit works with.
pub struct Fitting<'a> {
    /// What it learns from.
    pub samples: TrainingSamples<'a>,
    /// Where the arithmetic runs.
    pub engine: &'a Engine,
    /// Its random numbers.
    pub stream: &'a Stream,
    /// Whether it should stop: asked several times a second, whatever is done.
    pub is_stopped: &'a (dyn Fn() -> bool + Sync),
}

impl Fitting<'_> {
    /// Goes on unless it was told to stop.
    fn look(&self) -> Result<(), FitError> {
        if (self.is_stopped)() { Err(FitError::Stopped) } else { Ok(()) }
    }

    /// The moments of each value of the samples.
    fn moments(&self) -> Result<Vec<Moments>, FitError> {
        let moments = Statistics::new(self.samples, self.engine.threads()).unless(self.is_stopped).moments(Per::Pixel);
        self.look()?;
        Ok(moments)
    }

    /// Calls `work` with each block of at most `most` samples that have gone through `feed`: `[n, features]`, in order.
    fn for_each_block(
        &self,
        feed: &Feed,
        most: usize,
        mut work: impl FnMut(usize, &[f32]) -> Result<(), FitError>,
    ) -> Result<(), FitError> {
        let len = feed.sample_shape().len();
        let mut values = vec![0.0; self.samples.len().min(most) * len];
        for rows in self.samples.rows().chunks(most) {
            self.look()?;
            let values = &mut values[..rows.len() * len];
            feed.load_on(self.engine, rows, values);
            work(rows.len(), values)?;
        }
        Ok(())
    }

    /// Fills `values` piece by piece: `fill(i, piece)`, whose first value is number `i`.
    fn fill<T>(&self, values: &mut [T], mut fill: impl FnMut(u64, &mut [T])) -> Result<(), FitError> {
        for (i, piece) in values.chunks_mut(DRAWN).enumerate() {
            self.look()?;
            fill((i * DRAWN) as u64, piece);
        }
        Ok(())
    }
}

/// A method of `reduce` as the manifest says it.
pub trait Reduction: fmt::Debug + Send + Sync {
    /// The word in the manifest.
    fn name(&self) -> &'static str;

    /// Whether random numbers may be drawn.
    fn is_random(&self) -> bool;

    /// Whether a sample that has height and width keeps them.
    fn keeps_shape(&self) -> bool {
        false
    }

    /// Whether features come out with variances as different as the axes', which a dense network learns slowly from.
    fn leaves_scales(&self) -> bool {
        false
    }

    /// The shape that samples have afterwards, as far as it is known without the samples.
    ///
    /// # Errors
    /// If the method cannot be applied to samples of this shape, or to so few.
    fn output_shape(&self, input: Option<SampleShape>, n_samples: Option<usize>)
    -> Result<Option<SampleShape>, Misfit>;

    /// Bytes that learning it takes, from so many samples of so many features; rather too many.
    fn fit_bytes(&self, features: u64, n_samples: u64) -> u64;

    /// Learns the map.
    ///
    /// # Errors
    /// If the samples do not allow it, or it was told to stop.
    fn fit(&self, fitting: &Fitting<'_>) -> Result<Projection, FitError>;
}

/// A method, as the manifest knows it.
pub struct Kind {
    /// The word.
    pub name: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// Reads its keys.
    pub read: fn(&mut Section<'_>) -> Box<dyn Reduction>,
    /// A value of `method` that uses it.
    pub example: &'static str,
}

/// Every method. To add one: a file beside this one, and a line here.
pub const KINDS: &[Kind] = &[pca::KIND, projection::GAUSSIAN, projection::SPARSE];

/// Reads `method`, by default PCA; `None` after a problem.
pub fn read_method(section: &mut Section<'_>) -> Option<Box<dyn Reduction>> {
    let choice = |kind: &Kind| Choice { word: kind.name, meaning: kind.meaning, read: kind.read };
    let choices: Vec<Choice<Box<dyn Reduction>>> = KINDS.iter().map(choice).collect();
    let key = section.key("method", "How samples are projected on fewer axes.", "{ pca = { components = 20 } }");
    key.choice(&choices, Some(pca::KIND.name))
}

/// A fitted method: `(x - mean) weights`.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// The method's word.
    pub method: String,
    /// The shape of a sample before.
    pub input: SampleShape,
    /// The shape of a sample afterwards: flat, or the same as before.
    pub output: SampleShape,
    /// Subtracted first, `[features]`; empty: nothing is.
    pub mean: Vec<f64>,
    /// `[features, output]`.
    pub weights: Vec<f32>,
    /// What PCA learned.
    pub spectrum: Option<Spectrum>,
}

/// The axes that PCA found.
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum {
    /// Axes of length 1 by variance, descending: `[components, features]`. The entry of largest magnitude is positive.
    pub components: Vec<f32>,
    /// Variance along each, with `n - 1`.
    pub explained_variance: Vec<f64>,
    /// Variance along all axes, kept or not.
    pub total_variance: f64,
}

impl Spectrum {
    /// The share of the variance that each axis explains, and that it explains together with those before it.
    pub fn ratios(&self) -> Vec<(f64, f64)> {
        let mut cumulative = 0.0;
        let share = |variance: &f64| if self.total_variance > 0.0 { variance / self.total_variance } else { 0.0 };
        let running = |ratio: f64| {
            cumulative += ratio;
            (ratio, cumulative)
        };
        self.explained_variance.iter().map(share).map(running).collect()
    }
}

impl Projection {
    /// The step that takes its mean off, if it has one: the last before the weights.
    pub fn centring(&self) -> Option<Fitted> {
        (!self.mean.is_empty()).then(|| centring(&self.mean))
    }

    /// Makes ready to project samples of `feed`.
    ///
    /// # Panics
    /// If they have another shape than those it was fitted on.
    pub fn projector(&self, engine: &Engine, feed: &Feed) -> Projector {
        assert_eq!(feed.sample_shape(), self.input, "shape of the samples of a projection");
        let feed = if self.mean.is_empty() { feed.clone() } else { centred(feed, &self.mean) };
        let n_out = self.output.len();
        Projector { feed, weights: Matrix::new(engine, self.input.len(), n_out, &self.weights), n_out }
    }
}

/// A projection of the samples of one feed.
#[derive(Debug)]
pub struct Projector {
    /// The samples, less the mean.
    feed: Feed,
    weights: Matrix,
    n_out: usize,
}

impl Projector {
    /// How many samples to project at once, at most [`PROJECTED`], so that each time takes less than a second. Shows in
    /// no bit.
    pub fn at_once(&self) -> usize {
        samples_between_looks(self.feed.sample_shape().len() * self.n_out, PROJECTED)
    }

    /// Projects the samples `rows`.
    ///
    /// # Shapes
    /// - `out`: `[rows.len(), output]`
    ///
    /// # Panics
    /// If `out` has another length, or a row does not exist.
    pub fn project(&self, rows: &[u32], out: &mut [f32]) {
        self.weights.product(rows.len(), |range, to| self.feed.load(&rows[range], to), out);
    }
}

/// `feed` with `mean` (one number for each value of a sample) taken off at the end.
fn centred(feed: &Feed, mean: &[f64]) -> Feed {
    let mut steps = feed.chain().fitted().to_vec();
    steps.push(centring(mean));
    Feed::new(Arc::clone(feed.samples()), steps)
}

fn centring(mean: &[f64]) -> Fitted {
    Fitted::Affine(Affine { subtract: mean.to_vec(), ..Affine::identity(Per::Pixel, mean.len()) })
}

/// The number that a count of things takes: "1 image", "20 images".
fn counted(n: usize, noun: &str) -> String {
    if n == 1 { format!("{n} {noun}") } else { format!("{n} {noun}s") }
}
