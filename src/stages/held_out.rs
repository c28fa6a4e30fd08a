//! What a task learns, and data sets whose held-out rows are other ones: for who shows that these moved nothing.

use std::collections::BTreeSet;

use super::{Part, Reads};
use crate::artifact::dataset::{self, Numbers};
use crate::artifact::splits::Splits;
use crate::artifact::{Error, Files};
use crate::data::fit_set::Fit;
use crate::rng::Stream;

/// What a task learns ([`Stage::learns`](super::Stage::learns)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learns {
    /// The files that hold it: rows that are held out of it move no byte of them.
    pub fitted: Reads,
    /// The files with what it says of such rows, which other rows change.
    pub says: Reads,
    /// What validation rows do to it ("chooses its epoch"): then only test rows are held out of it.
    pub chosen: Option<&'static str>,
}

impl Learns {
    /// The rows that are held out of the task of `part`.
    pub fn held_out(&self, part: Part) -> HeldOut {
        match (self.chosen, part) {
            (None, Part::Fold(fold)) => HeldOut::OfFold(fold),
            // They look at what fold 1 learns from.
            (None, Part::Sanity) => HeldOut::OfFold(1),
            _ => HeldOut::Test,
        }
    }
}

/// Which rows are held out of what is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeldOut {
    /// Those that this fold validates on, and those of the test split.
    OfFold(u32),
    /// Those of the test split.
    Test,
}

/// Numbers of rows, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldOutRows {
    /// Of the test split.
    pub test: BTreeSet<u32>,
    /// That a fold validates on.
    pub validation: BTreeSet<u32>,
}

impl HeldOutRows {
    /// Those that `splits`, an artifact of `split`, holds out.
    ///
    /// # Errors
    /// If a file of it is missing or damaged, or there is no such fold.
    pub fn of(splits: &Files, held_out: HeldOut) -> Result<HeldOutRows, Error> {
        let splits = Splits::read(splits)?;
        let test = splits.test_rows().indices().into_iter().collect();
        let validation = match held_out {
            HeldOut::Test => BTreeSet::new(),
            HeldOut::OfFold(fold) if (1..=splits.folds()).contains(&fold) => {
                splits.fit_set(Fit::Fold(fold)).validation().indices().into_iter().collect()
            }
            HeldOut::OfFold(fold) => {
                let message = format!("has {} folds and no fold {fold}", splits.folds());
                return Err(Error { file: crate::artifact::splits::SUMMARY.to_owned(), message });
            }
        };
        Ok(HeldOutRows { test, validation })
    }

    /// Those that are in both.
    pub fn and(&self, other: &HeldOutRows) -> HeldOutRows {
        let both = |a: &BTreeSet<u32>, b: &BTreeSet<u32>| a.intersection(b).copied().collect();
        HeldOutRows { test: both(&self.test, &other.test), validation: both(&self.validation, &other.validation) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.test.len() + self.validation.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The files of `dataset` that learning reads ([`DATASET_FILES`](dataset::DATASET_FILES)), with every value of the
    /// pixels of these rows another one, and, where there are two classes, every label: the next class.
    ///
    /// # Errors
    /// If a file is missing or damaged, or has no such row.
    pub fn rewrite(&self, dataset: &Files) -> Result<Files, Error> {
        let numbers = Numbers::read(dataset)?;
        let rows: BTreeSet<u32> = self.test.union(&self.validation).copied().collect();
        let noise = Stream::new(0, "held-out rows", &[]);
        let mut words = Vec::new();
        let n_classes = numbers.n_classes() as u32;
        dataset::rewritten(dataset, &rows, &mut |row, pixels, label| {
            words.resize(pixels.len().div_ceil(4), 0);
            noise.words(u64::from(row) * words.len() as u64, &mut words);
            let noise = words.iter().flat_map(|word| word.to_le_bytes());
            // Never the same byte: adding 1 to 255 leaves none where it was.
            pixels.iter_mut().zip(noise).for_each(|(x, noise)| *x = x.wrapping_add(1 + noise % 255));
            *label = (*label + 1) % n_classes.max(1);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::dataset::{DATASET_FILES, Dataset};
    use crate::data::samples::Samples;
    use crate::stages::testing;
    use crate::tensor::ImageShape;

    #[test]
    fn rewritten_rows_differ_in_every_value_and_label_and_others_in_none() {
        let shape = ImageShape { height: 2, width: 3, channels: 1 };
        let labels = [0, 1, 2, 0, 1, 2, 2];
        let pixels: Vec<u8> = (0..7 * 6).map(|i| (i * 37 % 256) as u8).collect();
        let (files, before) = testing::dataset(shape, &labels, &pixels);
        let rows = HeldOutRows { test: BTreeSet::from([1, 6]), validation: BTreeSet::from([3]) };
        let rewritten = rows.rewrite(&files).unwrap();
        let names: BTreeSet<&str> = rewritten.0.keys().map(String::as_str).collect();
        assert_eq!(names, DATASET_FILES.iter().copied().collect());
        let after = Dataset::read(&rewritten).unwrap();
        let values = |dataset: &Dataset, row: usize| {
            let mut values = [0.0; 6];
            dataset.values(row).copy_to(&mut values);
            values
        };
        for row in 0..7 {
            let (old, new) = (values(&before, row), values(&after, row));
            let is_other = [1, 3, 6].contains(&row);
            assert!(old.iter().zip(&new).all(|(a, b)| (a != b) == is_other), "row {row}: {old:?}, {new:?}");
            assert_eq!(before.label(row) != after.label(row), is_other, "row {row}");
            assert_eq!(before.digest(row) != after.digest(row), is_other, "row {row}");
        }
        assert_eq!(before.groups(), after.groups());
        let beyond = HeldOutRows { test: BTreeSet::from([7]), ..HeldOutRows::default() };
        assert!(beyond.rewrite(&files).is_err());
    }
}
