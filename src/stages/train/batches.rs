//! Rows of a data set, as batches that a network reads.

use crate::artifact::dataset::Dataset;
use crate::data::feed::Feed;

/// Rows of a data set as a network reads them: pixels through the feed, labels beside them.
pub(super) struct Batches<'a> {
    feed: &'a Feed,
    dataset: &'a Dataset,
    rows: Vec<u32>,
    images: Vec<f32>,
    labels: Vec<u32>,
}

impl<'a> Batches<'a> {
    pub fn new(feed: &'a Feed, dataset: &'a Dataset, batch: usize) -> Batches<'a> {
        let images = vec![0.0; batch * feed.sample_shape().len()];
        Batches { feed, dataset, rows: Vec::with_capacity(batch), images, labels: Vec::with_capacity(batch) }
    }

    /// Loads these rows; afterwards `images` and `labels` hold them.
    pub fn load(&mut self, rows: impl Iterator<Item = u32>) -> (&[f32], &[u32]) {
        self.rows.clear();
        self.rows.extend(rows);
        self.labels.clear();
        self.labels.extend(self.rows.iter().map(|&row| self.dataset.label(row as usize)));
        let images = &mut self.images[..self.rows.len() * self.feed.sample_shape().len()];
        self.feed.load(&self.rows, images);
        (images, &self.labels)
    }
}
