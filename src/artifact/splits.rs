//! Where each image went: the partition, for stages to read, and `splits.csv`, for people.
//!
//! | file | what |
//! |---|---|
//! | `places.safetensors` | `places` (u32, `[n_samples]`): 0 train only, `1..=folds` the fold, `u32::MAX` test |
//! | `splits.json` | numbers: folds, sizes, duplicates across splits |
//! | `splits.csv` | a row per image: `id,path,label,class,split,fold` |
//!
//! The `split` of an image is the name under which its predictions are reported: `test`, `out_of_fold` (of `fold`),
//! `validation` with a single split; `train` is never predicted.

use std::collections::HashMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::dataset::{Names, Numbers};
use super::table::{Cell, Table};
use super::tensors::{Tensors, TensorsWriter};
use super::{Error, Files, Sink, put_document};
use crate::data::fit_set::{Fit, FitSet, Partition, Place, TestRows};

/// The partition's file name.
pub const PLACES: &str = "places.safetensors";
/// The file name of the numbers.
pub const SUMMARY: &str = "splits.json";
/// The table's file name.
pub const TABLE: &str = "splits.csv";

const TEST: u32 = u32::MAX;

/// The division of a data set into a test split and folds.
#[derive(Clone, Debug, PartialEq)]
pub struct Splits {
    partition: Partition,
    summary: Summary,
}

/// Sizes, and what is in two places at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of this file's form.
    pub format: u32,
    /// Number of folds; 1 is a single train/validation split.
    pub folds: u32,
    /// Number of images.
    pub n_samples: usize,
    /// Images held out.
    pub n_test: usize,
    /// Images that only train (with a single split).
    pub n_train: usize,
    /// Images validated on, by fold.
    pub n_validation: Vec<usize>,
    /// Images that lie elsewhere, too, pixel for pixel.
    pub duplicates: Duplicates,
}

/// Counts of images whose exact pixels are also in another split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicates {
    /// Test images that are outside the test split, too.
    pub test_and_training: usize,
    /// Images outside the test split that are in another fold (or on the other side of a single split), too.
    pub across_folds: usize,
}

impl Splits {
    /// The splits of `dataset`, with duplicates counted.
    ///
    /// # Panics
    /// If the partition is of another number of samples.
    pub fn new(partition: Partition, dataset: &Numbers) -> Splits {
        assert_eq!(partition.n_samples(), dataset.n_samples(), "samples of a partition and its data set");
        let count = |wanted: Place| partition.places().iter().filter(|place| **place == wanted).count();
        let summary = Summary {
            format: 1,
            folds: partition.folds(),
            n_samples: partition.n_samples(),
            n_test: count(Place::Test),
            n_train: count(Place::Train),
            n_validation: (1..=partition.folds()).map(|fold| count(Place::Fold(fold))).collect(),
            duplicates: duplicates(partition.places(), dataset.digests()),
        };
        Splits { partition, summary }
    }

    /// Sizes and duplicates.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Where each sample is.
    pub fn places(&self) -> &[Place] {
        self.partition.places()
    }

    /// Number of folds; 1 is a single train/validation split.
    pub fn folds(&self) -> u32 {
        self.partition.folds()
    }

    /// What `fit` trains and validates on.
    ///
    /// # Panics
    /// If there is no such fold.
    pub fn fit_set(&self, fit: Fit) -> FitSet {
        self.partition.fit_set(fit)
    }

    /// The held-out samples, ascending.
    pub fn test_rows(&self) -> TestRows {
        self.partition.test_rows()
    }

    /// The name under which predictions of a sample in `place` are reported, and its fold where it has one.
    pub fn report_name(&self, place: Place) -> (&'static str, Option<u32>) {
        match place {
            Place::Train => ("train", None),
            Place::Test => ("test", None),
            Place::Fold(_) if self.folds() == 1 => ("validation", None),
            Place::Fold(fold) => ("out_of_fold", Some(fold)),
        }
    }

    /// Writes the artifact.
    ///
    /// # Errors
    /// Those of the sink.
    ///
    /// # Panics
    /// If `dataset` is not the one that was divided.
    pub fn write(&self, dataset: &Numbers, names: &Names, sink: &mut dyn Sink) -> io::Result<()> {
        let places: Vec<u32> = self
            .places()
            .iter()
            .map(|place| match *place {
                Place::Train => 0,
                Place::Fold(fold) => fold,
                Place::Test => TEST,
            })
            .collect();
        let mut tensors = TensorsWriter::new();
        tensors.u32("places", &[places.len()], &places);
        tensors.write(sink, PLACES)?;
        put_document(sink, SUMMARY, &self.summary)?;

        let mut table = Table::new(&["id", "path", "label", "class", "split", "fold"]);
        for (i, place) in self.places().iter().enumerate() {
            let label = dataset.label(i);
            let (split, fold) = self.report_name(*place);
            table.row(&[
                i.into(),
                names.path(i).into(),
                label.into(),
                (&names.classes()[label as usize]).into(),
                split.into(),
                Cell::from(fold),
            ]);
        }
        sink.put(TABLE, &table.into_bytes())
    }

    /// Reads the artifact.
    ///
    /// # Errors
    /// If a file is missing or is not what [`Splits::write`] writes.
    pub fn read(files: &Files) -> Result<Splits, Error> {
        let error = |file: &str, message: String| Error { file: file.to_owned(), message };
        let summary: Summary = files.document(SUMMARY, Some(1))?;
        let (_, places) = Tensors::open(files, PLACES)?.u32("places", 1)?;
        if places.len() != summary.n_samples {
            return Err(error(PLACES, format!("has {} places, expected {}", places.len(), summary.n_samples)));
        }
        let places = places
            .into_iter()
            .map(|place| match place {
                0 => Place::Train,
                TEST => Place::Test,
                fold => Place::Fold(fold),
            })
            .collect();
        // A fold is not empty, so there are at most as many as samples: a wrong number cannot make a huge table.
        if summary.folds as usize > summary.n_samples {
            return Err(error(SUMMARY, format!("has {} folds of {} samples", summary.folds, summary.n_samples)));
        }
        let partition = Partition::new(places, summary.folds).map_err(|message| error(PLACES, message))?;
        Ok(Splits { partition, summary })
    }
}

/// Counts the samples that are elsewhere, too.
fn duplicates(places: &[Place], digests: &[u128]) -> Duplicates {
    // Only looked up, never walked.
    let mut first: HashMap<u128, usize> = HashMap::with_capacity(digests.len());
    // For each sample, the first with the same pixels; for each such first: in the test, outside it, in two places
    // outside it.
    let mut original = Vec::with_capacity(digests.len());
    let mut in_test = vec![false; digests.len()];
    let mut outside: Vec<Option<Place>> = vec![None; digests.len()];
    let mut in_two = vec![false; digests.len()];
    for (i, (digest, &place)) in digests.iter().zip(places).enumerate() {
        let at = *first.entry(*digest).or_insert(i);
        original.push(at);
        match outside[at] {
            _ if place == Place::Test => in_test[at] = true,
            Some(other) => in_two[at] |= other != place,
            None => outside[at] = Some(place),
        }
    }
    let mut counts = Duplicates::default();
    for (&at, &place) in original.iter().zip(places) {
        if place == Place::Test {
            counts.test_and_training += usize::from(outside[at].is_some());
        } else {
            counts.across_folds += usize::from(in_two[at]);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::testing::{MemorySink, dataset};
    use crate::tensor::ImageShape;

    fn written() -> (Splits, Files) {
        let shape = ImageShape { height: 1, width: 1, channels: 1 };
        let (of_data, data) = dataset(shape, &[0, 1, 0, 1, 0, 1], &[1, 2, 1, 1, 3, 2]);
        let places = [Place::Test, Place::Fold(1), Place::Fold(1), Place::Fold(2), Place::Fold(2), Place::Fold(2)];
        let splits = Splits::new(Partition::new(places.to_vec(), 2).unwrap(), &data);
        let mut sink = MemorySink::default();
        splits.write(&data, &Names::read(&of_data).unwrap(), &mut sink).unwrap();
        (splits, sink.files())
    }

    #[test]
    fn splits_survive_the_disk() {
        let (splits, files) = written();
        assert_eq!(Splits::read(&files).unwrap(), splits);
        let table = String::from_utf8(files.get(TABLE).unwrap().to_vec()).unwrap();
        assert_eq!(
            table,
            "id,path,label,class,split,fold\n0,0.png,0,a,test,\n1,1.png,1,b,out_of_fold,1\n2,2.png,0,a,out_of_fold,1\n\
             3,3.png,1,b,out_of_fold,2\n4,4.png,0,a,out_of_fold,2\n5,5.png,1,b,out_of_fold,2\n"
        );
    }

    #[test]
    fn duplicates_are_counted_where_they_leak() {
        // Value 1 is in the test, fold 1 and fold 2; value 2 in folds 1 and 2; value 3 once.
        let (splits, _) = written();
        assert_eq!(splits.summary().duplicates, Duplicates { test_and_training: 1, across_folds: 4 });
    }

    #[test]
    fn damaged_files_are_errors() {
        let (_, files) = written();
        for name in [PLACES, SUMMARY] {
            let whole = files.get(name).unwrap().to_vec();
            for length in 0..whole.len() - 1 {
                let mut cut = files.clone();
                cut.0.insert(name.to_owned(), super::super::Bytes::new(whole[..length].to_vec()));
                assert!(Splits::read(&cut).is_err(), "{name} cut at {length}");
            }
        }
    }
}
