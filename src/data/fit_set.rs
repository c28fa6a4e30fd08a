//! Which rows a fitted stage may learn from, and types that no other rows can be dressed up as.
//!
//! A [`Partition`] puts every sample in exactly one place. [`Partition::fit_set`] derives from it what fit set `fold f`
//! or `all` trains and validates on. Everything that learns (statistics, axes, weights, class weights, the checks
//! before a training) takes [`TrainingRows`], or [`TrainingRow`]s out of them; what may only choose (an epoch, a
//! learning rate on a plateau) takes [`ValidationRows`]. A row's number is private to this file: to make a training row
//! of a number, of a validation row or of a test row does not compile, and subsets, orders and repetitions are
//! collected from rows that are there ([`Rows`] is [`FromIterator`] of its own rows). What is collected must be of one
//! fit set: a row that is trained on in fold 1 is held out of fold 2, so rows know their set, and mixing those of two
//! panics.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use crate::rng::Stream;

/// Where a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Always trained on, never validated on (only with a single train/validation split).
    Train,
    /// Validated on in this fold, `1..=folds`, and trained on in the others.
    Fold(u32),
    /// Held out.
    Test,
}

/// A set of rows that something is fitted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fit {
    /// All rows outside the test split but those of fold `f`, `1..=folds`.
    Fold(u32),
    /// All rows outside the test split.
    All,
}

/// A place for every sample of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    places: Vec<Place>,
    folds: u32,
}

impl Partition {
    /// A partition into a test split and `folds` folds, by sample.
    ///
    /// # Errors
    /// If a place names a fold beyond `folds`, or a fold is empty.
    pub fn new(places: Vec<Place>, folds: u32) -> Result<Partition, String> {
        let mut counts = vec![0usize; folds as usize];
        for place in &places {
            if let Place::Fold(fold) = *place {
                match counts.get_mut((fold as usize).wrapping_sub(1)) {
                    Some(count) => *count += 1,
                    None => return Err(format!("a sample is in fold {fold} of {folds}")),
                }
            }
        }
        match counts.iter().position(|&count| count == 0) {
            Some(i) => Err(format!("fold {} of {folds} has no samples", i + 1)),
            None => Ok(Partition { places, folds }),
        }
    }

    /// `n_samples` samples that are all held out: nothing can be learned from them.
    pub fn held_out(n_samples: usize) -> Partition {
        Partition { places: vec![Place::Test; n_samples], folds: 0 }
    }

    /// Where each sample is.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Number of samples.
    pub fn n_samples(&self) -> usize {
        self.places.len()
    }

    /// Number of folds; 1 is a single train/validation split.
    pub fn folds(&self) -> u32 {
        self.folds
    }

    fn rows<U>(&self, is_in: impl Fn(Place) -> bool + Clone) -> Rows<U> {
        let rows = self.places.iter().enumerate().filter(|(_, place)| is_in(**place)).map(|(row, _)| row as u32);
        let set = identity(rows.clone());
        Rows { rows: rows.map(|index| Row { index, set, of: PhantomData }).collect() }
    }

    /// The held-out samples, ascending.
    pub fn test_rows(&self) -> TestRows {
        self.rows(|place| place == Place::Test)
    }

    /// What `fit` trains and validates on.
    ///
    /// # Panics
    /// If there is no such fold.
    pub fn fit_set(&self, fit: Fit) -> FitSet {
        let held_out = match fit {
            Fit::All => None,
            Fit::Fold(fold) => {
                assert!((1..=self.folds).contains(&fold), "fold {fold} of {}", self.folds);
                Some(Place::Fold(fold))
            }
        };
        FitSet {
            training: self.rows(|place| place != Place::Test && Some(place) != held_out),
            validation: self.rows(|place| Some(place) == held_out),
        }
    }
}

/// What tells a set of rows from others: equal sets have the same, whoever made them (FNV-1a, 32 bits).
fn identity(rows: impl Iterator<Item = u32>) -> u32 {
    rows.flat_map(u32::to_le_bytes).fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The rows of one fit set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitSet {
    training: TrainingRows,
    validation: ValidationRows,
}

impl FitSet {
    /// The rows that may be learned from, ascending.
    pub fn training(&self) -> &TrainingRows {
        &self.training
    }

    /// The rows that were held out of this fit set and are not test rows, ascending: none for the fit set `all`.
    pub fn validation(&self) -> &ValidationRows {
        &self.validation
    }
}

/// Of rows that may be learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Training {}

/// Of rows that were held out of a fit set: they may choose between models, and be predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Validation {}

/// Of rows that nothing may look at before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {}

/// One sample, and what it may be used for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row<U> {
    index: u32,
    /// [`identity`] of the rows that this one was made among.
    set: u32,
    of: PhantomData<U>,
}

/// A sample that may be learned from. Only a [`FitSet`] has such rows:
///
/// ```
/// use convoy::data::fit_set::{Fit, Partition, Place, TrainingRow};
///
/// let partition = Partition::new(vec![Place::Fold(1), Place::Fold(2), Place::Test], 2).unwrap();
/// let row: TrainingRow = partition.fit_set(Fit::Fold(1)).training()[0];
/// assert_eq!(row.index(), 1);
/// ```
///
/// None is made of a number:
///
/// ```compile_fail
/// use convoy::data::fit_set::TrainingRow;
///
/// let row = TrainingRow { index: 1, set: 0, of: std::marker::PhantomData };
/// ```
///
/// ```compile_fail
/// use convoy::data::fit_set::{Fit, Partition, Place, TrainingRow};
///
/// let partition = Partition::new(vec![Place::Fold(1), Place::Fold(2), Place::Test], 2).unwrap();
/// let row: TrainingRow = 1.into();
/// ```
///
/// Nor of a row that was held out:
///
/// ```compile_fail
/// use convoy::data::fit_set::{Fit, Partition, Place, TrainingRow};
///
/// let partition = Partition::new(vec![Place::Fold(1), Place::Fold(2), Place::Test], 2).unwrap();
/// let row: TrainingRow = partition.fit_set(Fit::Fold(1)).validation()[0];
/// ```
pub type TrainingRow = Row<Training>;

impl<U> Row<U> {
    /// The sample's index.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

impl<U> fmt::Debug for Row<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.index.fmt(f)
    }
}

/// Samples of one use, in some order; a sample may come up more than once.
#[derive(Clone, PartialEq, Eq)]
pub struct Rows<U> {
    rows: Vec<Row<U>>,
}

/// Rows that may be learned from. Only a [`FitSet`] makes them; a subset, an order, a repetition is collected from
/// them:
///
/// ```
/// use convoy::data::fit_set::{Fit, Partition, Place, TrainingRows};
///
/// let places = vec![Place::Fold(1), Place::Fold(2), Place::Fold(2), Place::Test];
/// let fit_set = Partition::new(places, 2).unwrap().fit_set(Fit::Fold(1));
/// let backwards: TrainingRows = fit_set.training().iter().rev().copied().collect();
/// assert_eq!(backwards.indices(), [2, 1]);
/// ```
///
/// Rows of two fit sets cannot be mixed, not even by who has both:
///
/// ```should_panic
/// use convoy::data::fit_set::{Fit, Partition, Place, TrainingRows};
///
/// let partition = Partition::new(vec![Place::Fold(1), Place::Fold(2), Place::Fold(2), Place::Test], 2).unwrap();
/// let (one, two) = (partition.fit_set(Fit::Fold(1)), partition.fit_set(Fit::Fold(2)));
/// let both: TrainingRows = one.training().iter().chain(two.training().iter()).copied().collect();
/// ```
///
/// Neither numbers nor held-out rows can be collected into them, nor stand in their place:
///
/// ```compile_fail
/// use convoy::data::fit_set::{Fit, Partition, Place, TrainingRows};
///
/// let backwards: TrainingRows = [2u32, 1].iter().rev().copied().collect();
/// ```
///
/// ```compile_fail
/// use convoy::data::fit_set::{Fit, Partition, Place, TrainingRows};
///
/// let places = vec![Place::Fold(1), Place::Fold(2), Place::Fold(2), Place::Test];
/// let fit_set = Partition::new(places, 2).unwrap().fit_set(Fit::Fold(1));
/// let backwards: TrainingRows = fit_set.validation().iter().rev().copied().collect();
/// ```
///
/// ```compile_fail
/// use convoy::data::fit_set::{Fit, Partition, Place, TrainingRows};
///
/// let places = vec![Place::Fold(1), Place::Fold(2), Place::Fold(2), Place::Test];
/// let tested: TrainingRows = Partition::new(places, 2).unwrap().test_rows();
/// ```
///
/// ```compile_fail
/// use convoy::data::fit_set::TrainingRows;
///
/// let rows = TrainingRows { rows: Vec::new() };
/// ```
pub type TrainingRows = Rows<Training>;

/// Rows that were held out of a fit set: what monitors watch. Training rows are none:
///
/// ```
/// use convoy::data::fit_set::{Fit, Partition, Place, ValidationRows};
///
/// let partition = Partition::new(vec![Place::Fold(1), Place::Fold(2)], 2).unwrap();
/// let watched: ValidationRows = partition.fit_set(Fit::Fold(1)).validation().clone();
/// ```
///
/// ```compile_fail
/// use convoy::data::fit_set::{Fit, Partition, Place, ValidationRows};
///
/// let partition = Partition::new(vec![Place::Fold(1), Place::Fold(2)], 2).unwrap();
/// let watched: ValidationRows = partition.fit_set(Fit::Fold(1)).training().clone();
/// ```
pub type ValidationRows = Rows<Validation>;

/// The rows of the test split.
pub type TestRows = Rows<Test>;

impl<U> Deref for Rows<U> {
    type Target = [Row<U>];

    fn deref(&self) -> &[Row<U>] {
        &self.rows
    }
}

impl<U> FromIterator<Row<U>> for Rows<U> {
    /// # Panics
    /// If there are rows of more than one set among them.
    fn from_iter<I: IntoIterator<Item = Row<U>>>(rows: I) -> Rows<U> {
        let rows: Vec<Row<U>> = rows.into_iter().collect();
        assert!(rows.windows(2).all(|pair| pair[0].set == pair[1].set), "rows of two fit sets are mixed");
        Rows { rows }
    }
}

impl<U> fmt::Debug for Rows<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.fmt(f)
    }
}

impl<U: Copy> Rows<U> {
    /// The samples' indices, in order.
    pub fn indices(&self) -> Vec<u32> {
        self.rows.iter().map(|row| row.index).collect()
    }

    /// The rows of each of `n_classes` classes, in order.
    ///
    /// # Panics
    /// If `label` names a class beyond.
    pub fn by_class(&self, n_classes: usize, label: impl Fn(usize) -> u32) -> Vec<Rows<U>> {
        let mut by_class = vec![Rows { rows: Vec::new() }; n_classes];
        self.rows.iter().for_each(|&row| by_class[label(row.index()) as usize].rows.push(row));
        by_class
    }

    /// Evenly spread rows, at most `most`.
    pub fn spread(&self, most: usize) -> Rows<U> {
        let n = self.rows.len().min(most);
        (0..n).map(|i| self.rows[i * self.rows.len() / n]).collect()
    }

    /// The rows in random order, as `stream` shuffles them, cut off after `n`.
    pub fn drawn(mut self, n: usize, stream: &Stream) -> Rows<U> {
        stream.shuffle(&mut self.rows);
        self.rows.truncate(n);
        self
    }

    /// The rows in ascending order.
    pub fn ascending(mut self) -> Rows<U> {
        self.rows.sort_unstable_by_key(|row| row.index);
        self
    }
}

/// The first `n` of `n + 1` samples, the last of which is held out.
#[cfg(test)]
pub(crate) fn first_rows(n: usize) -> TrainingRows {
    let places = (0..=n).map(|i| if i < n { Place::Train } else { Place::Fold(1) }).collect();
    Partition::new(places, 1).unwrap().fit_set(Fit::Fold(1)).training
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fit_set_parts_the_rows_outside_the_test_split() {
        let places = [1, 2, 3, 0, 1, 2, 3, 1].map(|f| if f == 0 { Place::Test } else { Place::Fold(f) });
        let partition = Partition::new(places.to_vec(), 3).unwrap();
        assert_eq!(partition.test_rows().indices(), [3]);
        let mut validated = Vec::new();
        for fold in 1..=3 {
            let fit_set = partition.fit_set(Fit::Fold(fold));
            let mut both = [fit_set.training().indices(), fit_set.validation().indices()].concat();
            both.sort_unstable();
            assert_eq!(both, [0, 1, 2, 4, 5, 6, 7]);
            assert!(fit_set.validation().iter().all(|row| partition.places()[row.index()] == Place::Fold(fold)));
            validated.extend(fit_set.validation().indices());
        }
        validated.sort_unstable();
        assert_eq!(validated, [0, 1, 2, 4, 5, 6, 7]);
        let all = partition.fit_set(Fit::All);
        assert_eq!((all.training().len(), all.validation().len()), (7, 0));
    }

    #[test]
    fn a_partition_without_sense_is_refused() {
        assert!(Partition::new(vec![Place::Fold(3), Place::Fold(1)], 2).is_err());
        assert!(Partition::new(vec![Place::Fold(0), Place::Fold(1)], 1).is_err());
        assert!(Partition::new(vec![Place::Fold(1), Place::Test], 2).is_err());
        assert!(Partition::new(vec![Place::Fold(1), Place::Train], 1).is_ok());
    }

    #[test]
    fn rows_of_two_fit_sets_do_not_mix_and_those_of_one_read_twice_do() {
        let partition = Partition::new([1, 2, 3, 1, 2, 3].map(Place::Fold).to_vec(), 3).unwrap();
        let training = |fit| partition.fit_set(fit).training;
        let mixed = |a: &TrainingRows, b: &TrainingRows| {
            std::panic::catch_unwind(|| a.iter().chain(b.iter()).copied().collect::<TrainingRows>())
        };
        let sets = [Fit::Fold(1), Fit::Fold(2), Fit::Fold(3), Fit::All].map(training);
        for (i, a) in sets.iter().enumerate() {
            for (j, b) in sets.iter().enumerate() {
                assert_eq!(mixed(a, b).is_ok(), i == j, "{a:?} and {b:?}");
            }
        }
        let (again, half) = (training(Fit::Fold(1)), sets[0].spread(2));
        assert_eq!(mixed(&half, &again).unwrap().len(), 6);
        assert!(mixed(&half, &sets[1]).is_err());
        // Also those of another partition of the same samples.
        let other = Partition::new([2, 1, 3, 1, 2, 3].map(Place::Fold).to_vec(), 3).unwrap();
        assert!(mixed(&sets[0], &other.fit_set(Fit::Fold(1)).training).is_err());
        assert!(mixed(&sets[3], &other.fit_set(Fit::All).training).is_ok());
    }

    #[test]
    fn subsets_are_made_of_rows_that_are_there() {
        let rows = first_rows(9);
        assert_eq!(rows.spread(4).indices(), [0, 2, 4, 6]);
        assert_eq!(rows.spread(20), rows);
        let by_class = rows.by_class(4, |i| i as u32 % 3);
        assert_eq!(
            by_class.iter().map(Rows::indices).collect::<Vec<_>>(),
            [vec![0, 3, 6], vec![1, 4, 7], vec![2, 5, 8], vec![]]
        );
        let drawn = rows.clone().drawn(5, &Stream::new(1, "test", &[]));
        assert_eq!(drawn.len(), 5);
        let mut ascending = drawn.indices();
        ascending.sort_unstable();
        assert_ne!(drawn.indices(), ascending, "drawn in random order");
        assert_eq!(drawn.ascending().indices(), ascending);
    }
}
