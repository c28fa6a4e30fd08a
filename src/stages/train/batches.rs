//! Rows of a data set, as batches that a network reads: plain ones in the order asked for, and those of an epoch of
//! training, shuffled, oversampled and augmented.

use crate::artifact::dataset::Dataset;
use crate::data::augment::{Augmentation, Augmenter};
use crate::data::feed::Feed;
use crate::data::fit_set::{TrainingRow, TrainingRows};
use crate::data::samples::SampleIndex;
use crate::engine::{Targets, prefetch};
use crate::nn::seeds::Seeds;
use crate::nn::training::AllSamples;
use crate::stages::Context;

/// Rows of a data set as a network reads them: pixels through the feed, labels beside them.
pub(super) struct Batches<'a> {
    feed: &'a Feed,
    dataset: &'a Dataset,
    images: Vec<f32>,
    labels: Vec<u32>,
}

impl<'a> Batches<'a> {
    pub fn new(feed: &'a Feed, dataset: &'a Dataset, batch: usize) -> Batches<'a> {
        let images = vec![0.0; batch * feed.sample_shape().len()];
        Batches { feed, dataset, images, labels: Vec::with_capacity(batch) }
    }

    /// Loads these rows; afterwards `images` and `labels` hold them.
    pub fn load(&mut self, rows: &[impl SampleIndex]) -> (&[f32], &[u32]) {
        self.labels.clear();
        self.labels.extend(rows.iter().map(|row| self.dataset.label(row.index())));
        let images = &mut self.images[..rows.len() * self.feed.sample_shape().len()];
        self.feed.load(rows, images);
        (images, &self.labels)
    }
}

/// The training rows of a task, epoch by epoch.
///
/// Everything that is allocated for batches is allocated here, once; [`TrainingBatches::for_each`] allocates no batch.
///
/// # Determinism
/// The order of an epoch, the rows that oversampling repeats and what augmentation does to a sample follow from (seed,
/// fit set, epoch, sample) alone.
pub(super) struct TrainingBatches<'a> {
    source: Source<'a>,
    seeds: &'a Seeds,
    batch: usize,
    /// Samples of one epoch.
    n_samples: usize,
    /// The rows of each class, where classes are oversampled.
    by_class: Option<Vec<TrainingRows>>,
    /// What is learned from in this epoch, in order.
    order: Vec<View>,
    /// Two where a loader works in the background.
    slots: Vec<Batch>,
}

/// One sample of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    row: TrainingRow,
    /// How many times the row has come up before in this epoch, by oversampling.
    turn: u32,
}

/// What fills batches.
struct Source<'a> {
    feed: &'a Feed,
    dataset: &'a Dataset,
    rows: &'a TrainingRows,
    augmenter: Option<Augmenter>,
}

/// One batch of training samples.
#[derive(Default)]
struct Batch {
    rows: Vec<TrainingRow>,
    images: Vec<f32>,
    labels: Vec<u32>,
    /// `[n, n_classes]` where samples are mixed, else empty.
    targets: Vec<f32>,
}

impl<'a> TrainingBatches<'a> {
    /// Batches of `batch` of the training rows `rows`. With `prefetches` a thread of its own loads the next batch while
    /// the network learns from one.
    pub fn new(
        (feed, dataset): (&'a Feed, &'a Dataset),
        rows: &'a TrainingRows,
        seeds: &'a Seeds,
        batch: usize,
        augmentation: &Augmentation,
        oversample: bool,
        prefetches: bool,
    ) -> TrainingBatches<'a> {
        let shape = feed.sample_shape();
        let augmenter = (!augmentation.is_empty()).then(|| Augmenter::new(augmentation, shape));
        let by_class = oversample.then(|| rows.by_class(dataset.n_classes(), |i| dataset.label(i)));
        let n_samples = match &by_class {
            None => rows.len(),
            Some(by_class) => {
                let classes = by_class.iter().map(|rows| rows.len());
                classes.clone().filter(|&n| n > 0).count() * classes.max().unwrap_or(0)
            }
        };
        let n_targets = if augmenter.as_ref().is_some_and(Augmenter::mixes) { dataset.n_classes() } else { 0 };
        let slots = (0..if prefetches { 2 } else { 1 })
            .map(|_| Batch {
                rows: Vec::with_capacity(batch),
                images: vec![0.0; batch * shape.len()],
                labels: Vec::with_capacity(batch),
                targets: vec![0.0; batch * n_targets],
            })
            .collect();
        // Oversampling draws from all rows of a class before it keeps some.
        let order = Vec::with_capacity(n_samples + rows.len());
        let source = Source { feed, dataset, rows, augmenter };
        TrainingBatches { source, seeds, batch, n_samples, by_class, order, slots }
    }

    /// Batches of one epoch.
    pub fn n_batches(&self) -> usize {
        self.n_samples.div_ceil(self.batch)
    }

    /// Batches of one epoch that are not a rest.
    pub fn n_whole_batches(&self) -> usize {
        self.n_samples / self.batch
    }

    /// Calls `f(i, images, targets)` for each batch of epoch `epoch`, in order, until it fails.
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn for_each<E>(
        &mut self,
        epoch: u32,
        f: impl FnMut(usize, &[f32], Targets<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.begin(epoch);
        self.run(f)
    }

    /// All rows as they are, in order, until `context` is cancelled.
    pub fn all<'b>(&'b mut self, context: &'b dyn Context) -> impl AllSamples + use<'a, 'b> {
        self.order.clear();
        self.order.extend(self.source.rows.iter().map(|&row| View { row, turn: 0 }));
        All { batches: self, context }
    }

    /// Calls `f` for each batch of `order`.
    fn run<E>(&mut self, mut f: impl FnMut(usize, &[f32], Targets<'_>) -> Result<(), E>) -> Result<(), E> {
        let (source, order, batch) = (&mut self.source, &self.order, self.batch);
        let (len, n_classes) = (source.feed.sample_shape().len(), source.dataset.n_classes());
        prefetch(
            &mut self.slots,
            order.len().div_ceil(batch),
            |i, into| source.load(&order[i * batch..order.len().min((i + 1) * batch)], into),
            |i, from| {
                let n = from.labels.len();
                let targets = match from.targets.is_empty() {
                    true => Targets::Labels(&from.labels),
                    false => Targets::Probabilities(&from.targets[..n * n_classes]),
                };
                f(i, &from.images[..n * len], targets)
            },
        )
    }

    /// Puts the samples of an epoch in order.
    fn begin(&mut self, epoch: u32) {
        let place = ("epoch", u64::from(epoch));
        self.order.clear();
        match &self.by_class {
            None => self.order.extend(self.source.rows.iter().map(|&row| View { row, turn: 0 })),
            Some(by_class) => oversample(by_class, self.seeds, epoch, &mut self.order),
        }
        self.seeds.stream("shuffle", &[place]).shuffle(&mut self.order);
        if let Some(augmenter) = &mut self.source.augmenter {
            augmenter.begin(|i| self.seeds.stream("augment", &[place, ("operation", i)]));
        }
    }
}

/// The training rows without order, turns and augmentation, for rules that look at all of them.
struct All<'b, 'a> {
    batches: &'b mut TrainingBatches<'a>,
    context: &'b dyn Context,
}

impl AllSamples for All<'_, '_> {
    fn for_each(&mut self, f: &mut dyn FnMut(&[f32], Targets<'_>)) -> bool {
        let context = self.context;
        let outcome = self.batches.run(|_, images, targets| {
            if context.is_cancelled() {
                return Err(());
            }
            f(images, targets);
            Ok(())
        });
        outcome.is_ok()
    }
}

impl Source<'_> {
    /// Loads these samples.
    fn load(&mut self, views: &[View], into: &mut Batch) {
        let len = self.feed.sample_shape().len();
        into.rows.clear();
        into.rows.extend(views.iter().map(|view| view.row));
        into.labels.clear();
        into.labels.extend(views.iter().map(|view| self.dataset.label(view.row.index())));
        let images = &mut into.images[..views.len() * len];
        let Some(augmenter) = &mut self.augmenter else { return self.feed.load(&into.rows, images) };
        for (view, image) in views.iter().zip(images.chunks_exact_mut(len)) {
            augmenter.load(self.feed, view.row, view.turn, image);
        }
        if augmenter.mixes() {
            let label = |row: TrainingRow| self.dataset.label(row.index());
            let targets = into.targets.chunks_exact_mut(self.dataset.n_classes());
            for ((view, image), target) in views.iter().zip(images.chunks_exact_mut(len)).zip(targets) {
                augmenter.mix(self.feed, (view.row, view.turn), self.rows, label, image, target);
            }
        }
    }
}

/// Fills `order` with as many samples of each class as the largest has: each row as often as that goes, and for the
/// rest rows drawn anew in each epoch, no row twice. A class without a row stays without.
fn oversample(by_class: &[TrainingRows], seeds: &Seeds, epoch: u32, order: &mut Vec<View>) {
    let largest = by_class.iter().map(|rows| rows.len()).max().unwrap_or(0);
    for (class, rows) in by_class.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
        let turns = largest / rows.len();
        order.extend((0..turns as u32).flat_map(|turn| rows.iter().map(move |&row| View { row, turn })));
        let n_more = largest % rows.len();
        let place = [("epoch", u64::from(epoch)), ("class", class as u64)];
        let start = order.len();
        order.extend(rows.iter().map(|&row| View { row, turn: turns as u32 }));
        seeds.stream("oversample", &place).shuffle(&mut order[start..]);
        order.truncate(start + n_more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fit_set::first_rows;

    #[test]
    fn oversampling_makes_classes_equal_and_repeats_rows_evenly() {
        let rows = first_rows(20);
        let by_class = [&[1, 4, 9][..], &[], &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19], &[7]]
            .map(|class| class.iter().map(|&i: &usize| rows[i]).collect::<TrainingRows>());
        let seeds = Seeds { seed: 1, indices: vec![("fit set", 2)] };
        let of_epoch = |epoch| {
            let mut order = Vec::new();
            oversample(&by_class, &seeds, epoch, &mut order);
            order
        };
        let order = of_epoch(1);
        assert_eq!(order.len(), 30);
        for (rows, turns) in [(&by_class[0], [3, 4]), (&by_class[2], [1, 1]), (&by_class[3], [10, 10])] {
            for row in rows.iter() {
                let n = order.iter().filter(|view| view.row == *row).count();
                assert!(turns.contains(&n), "row {row:?}: {n} times");
            }
            assert_eq!(order.iter().filter(|view| rows.contains(&view.row)).count(), 10);
        }
        let mut views = order.clone();
        views.sort_unstable_by_key(|view| (view.row, view.turn));
        views.dedup();
        assert_eq!(views.len(), order.len(), "no view comes twice");
        assert_eq!(of_epoch(1), order);
        assert!((2..6).any(|epoch| of_epoch(epoch) != order), "the rest is drawn anew");
    }
}
