//! Samples as a network or a fit sees them: loaded, transformed, in single precision, by row.
//!
//! A [`Feed`] is a source of [`Samples`] (a data set's pixels, or materialised features) under a [`Chain`] of fitted
//! transforms, which is applied while loading and never stored. [`TrainingSamples`] is a feed with rows that may be
//! learned from: everything that fits takes it.

use std::fmt;
use std::sync::Arc;

use super::fit_set::{Row, TrainingRow, TrainingRows};
use super::transform::{Chain, Fitted};
use crate::engine::Engine;
use crate::tensor::SampleShape;

/// Samples that one thread loads at a time.
const LOADED_TOGETHER: usize = 64;

/// The values of one sample as they are stored, images as `[height, width, channels]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values<'a> {
    /// `0..=255`.
    U8(&'a [u8]),
    /// `0..=65535`, little-endian.
    U16(&'a [[u8; 2]]),
    /// Single precision, little-endian.
    F32(&'a [[u8; 4]]),
}

impl Values<'_> {
    /// Number of values.
    pub fn len(self) -> usize {
        match self {
            Values::U8(values) => values.len(),
            Values::U16(values) => values.len(),
            Values::F32(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Copies them to `out`, in single precision.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn copy_to(self, out: &mut [f32]) {
        assert_eq!(self.len(), out.len(), "values of a sample");
        match self {
            Values::U8(values) => out.iter_mut().zip(values).for_each(|(out, &x)| *out = f32::from(x)),
            Values::U16(values) => {
                out.iter_mut().zip(values).for_each(|(out, &x)| *out = f32::from(u16::from_le_bytes(x)));
            }
            Values::F32(values) => out.iter_mut().zip(values).for_each(|(out, &x)| *out = f32::from_le_bytes(x)),
        }
    }
}

/// Something that has samples, all of one shape.
pub trait Samples: Send + Sync + fmt::Debug {
    /// How many there are.
    fn n_samples(&self) -> usize;

    /// The shape of each.
    fn shape(&self) -> SampleShape;

    /// The values of sample `i`.
    fn values(&self, i: usize) -> Values<'_>;
}

/// Which sample: a plain index where nothing is learned, else a row that says what it may be used for.
pub trait SampleIndex: Copy + Send + Sync {
    /// The sample's index.
    fn index(self) -> usize;
}

impl SampleIndex for u32 {
    fn index(self) -> usize {
        self as usize
    }
}

impl<U: Copy + Send + Sync> SampleIndex for Row<U> {
    fn index(self) -> usize {
        Row::index(self)
    }
}

/// Samples under a chain of transforms.
#[derive(Clone, Debug)]
pub struct Feed {
    samples: Arc<dyn Samples>,
    chain: Chain,
}

impl Feed {
    /// `samples` as they come out of the fitted transforms, in order.
    ///
    /// # Panics
    /// If a transform was fitted on samples of another shape.
    pub fn new(samples: Arc<dyn Samples>, fitted: Vec<Fitted>) -> Feed {
        let chain = Chain::new(samples.shape(), fitted);
        Feed { samples, chain }
    }

    /// The shape of one transformed sample.
    pub fn sample_shape(&self) -> SampleShape {
        self.samples.shape()
    }

    /// How many samples there are.
    pub fn n_samples(&self) -> usize {
        self.samples.n_samples()
    }

    /// What lies under the transforms.
    pub fn samples(&self) -> &Arc<dyn Samples> {
        &self.samples
    }

    /// The transforms.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Loads the samples `rows` into `out`, transformed. May be called from several threads.
    ///
    /// # Shapes
    /// - `out`: `[rows.len(), sample_shape]`
    ///
    /// # Panics
    /// If `out` has another length, or a row does not exist.
    pub fn load(&self, rows: &[impl SampleIndex], out: &mut [f32]) {
        let len = self.sample_shape().len();
        assert_eq!(out.len(), rows.len() * len, "values of {} samples of {len}", rows.len());
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(len)) {
            self.chain.apply(self.samples.values(row.index()), out);
        }
    }

    /// As [`Feed::load`], on all threads of `engine`.
    ///
    /// # Panics
    /// As [`Feed::load`].
    pub fn load_on(&self, engine: &Engine, rows: &[impl SampleIndex], out: &mut [f32]) {
        let len = self.sample_shape().len();
        assert_eq!(out.len(), rows.len() * len, "values of {} samples of {len}", rows.len());
        if len > 0 {
            engine.for_each_chunk(out, LOADED_TOGETHER * len, |i, out| {
                let first = i * LOADED_TOGETHER;
                self.load(&rows[first..first + out.len() / len], out);
            });
        }
    }
}

/// Transformed samples that may be learned from.
#[derive(Clone, Copy, Debug)]
pub struct TrainingSamples<'a> {
    feed: &'a Feed,
    rows: &'a TrainingRows,
}

impl<'a> TrainingSamples<'a> {
    /// The training rows of a fit set, out of `feed`.
    pub fn new(feed: &'a Feed, rows: &'a TrainingRows) -> TrainingSamples<'a> {
        TrainingSamples { feed, rows }
    }

    /// Where they come from.
    pub fn feed(&self) -> &'a Feed {
        self.feed
    }

    /// Which they are, ascending.
    pub fn rows(&self) -> &'a [TrainingRow] {
        self.rows
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
