//! Samples as a network or a fit sees them: loaded, transformed, in single precision, by row.
//!
//! A [`Feed`] is a source of [`Samples`] (a data set's pixels, or materialised features) under a [`Chain`] of fitted
//! transforms, which is applied while loading and never stored. [`TrainingSamples`] is a feed with rows that may be
//! learned from: everything that fits takes it.

use std::sync::Arc;

use super::fit_set::{TrainingRow, TrainingRows};
use super::samples::{SampleIndex, Samples};
use super::transform::{Chain, Fitted};
use crate::engine::Engine;
use crate::tensor::SampleShape;

/// Samples that one thread loads at a time.
const LOADED_TOGETHER: usize = 64;

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
