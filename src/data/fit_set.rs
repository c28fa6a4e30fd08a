//! Which rows a fitted stage may learn from, and a type that no other rows can be dressed up as.
//!
//! A [`Partition`] puts every sample in exactly one place. [`Partition::fit_set`] derives from it what fit set `fold f`
//! or `all` trains and validates on. Everything that learns (statistics, axes, weights) takes [`TrainingRows`], which
//! only a [`FitSet`] can make: to fit on validation or test rows does not compile.

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

    fn rows(&self, is_in: impl Fn(Place) -> bool) -> Vec<u32> {
        let rows = self.places.iter().enumerate();
        rows.filter(|(_, place)| is_in(**place)).map(|(row, _)| row as u32).collect()
    }

    /// The held-out samples, ascending.
    pub fn test_rows(&self) -> Vec<u32> {
        self.rows(|place| place == Place::Test)
    }

    /// The samples that fold `fold` (`1..=folds`) validates on, ascending.
    pub fn validation_rows(&self, fold: u32) -> Vec<u32> {
        self.rows(|place| place == Place::Fold(fold))
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

/// The rows of one fit set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitSet {
    training: Vec<u32>,
    validation: Vec<u32>,
}

impl FitSet {
    /// The rows that may be learned from.
    pub fn training(&self) -> TrainingRows<'_> {
        TrainingRows { rows: &self.training }
    }

    /// The rows that were held out of this fit set and are not test rows: empty for the fit set `all`.
    pub fn validation(&self) -> &[u32] {
        &self.validation
    }
}

/// Rows that may be learned from: sample indices, ascending. Only a [`FitSet`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingRows<'a> {
    rows: &'a [u32],
}

impl<'a> TrainingRows<'a> {
    /// The sample indices.
    pub fn as_slice(self) -> &'a [u32] {
        self.rows
    }

    /// Number of rows.
    pub fn len(self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(self) -> bool {
        self.rows.is_empty()
    }

    /// The first `n` rows, or all if there are fewer.
    pub fn first(self, n: usize) -> TrainingRows<'a> {
        TrainingRows { rows: &self.rows[..n.min(self.rows.len())] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fit_set_parts_the_rows_outside_the_test_split() {
        let places = [1, 2, 3, 0, 1, 2, 3, 1].map(|f| if f == 0 { Place::Test } else { Place::Fold(f) });
        let partition = Partition::new(places.to_vec(), 3).unwrap();
        assert_eq!(partition.test_rows(), [3]);
        let mut validated = Vec::new();
        for fold in 1..=3 {
            let fit_set = partition.fit_set(Fit::Fold(fold));
            let mut both = [fit_set.training().as_slice(), fit_set.validation()].concat();
            both.sort_unstable();
            assert_eq!(both, [0, 1, 2, 4, 5, 6, 7]);
            assert_eq!(fit_set.validation(), partition.validation_rows(fold));
            validated.extend_from_slice(fit_set.validation());
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
}
