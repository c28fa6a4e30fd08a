//! What a data set came to, made anew from its files: what a person checks it by.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CLASSES, DATA, DECODE, DESCRIPTION, Description, Names, SKIPPED, bad, columns, number, read_decode_policy,
};
use crate::artifact::table::unguarded;
use crate::artifact::{Error, Files};
use crate::data::reader::GivenSplit;
use crate::data::resize::Fit;
use crate::tensor::ImageShape;

/// So many files that were left out are named.
const MOST_NAMED: usize = 50;

/// What is read for a [`Summary`].
pub const SUMMARY_FILES: &[&str] = &[CLASSES, DATA, DECODE, DESCRIPTION, SKIPPED];

/// A data set in a few numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The classes by label, each with its number of images.
    pub classes: Vec<(String, u64)>,
    /// The different sizes that images had in the source: width and height in pixels.
    pub sizes: BTreeSet<(u32, u32)>,
    /// What was done to bring them to one size, if anything.
    pub fit: Option<Fit>,
    /// The shape that all images have now.
    pub shape: ImageShape,
    /// Images in each split of the source's own.
    pub splits: BTreeMap<GivenSplit, u64>,
    /// Files of the source that were left out.
    pub n_left_out: u64,
    /// The first of them, each with the reason.
    pub left_out: Vec<(String, String)>,
}

impl Summary {
    /// Reads [`SUMMARY_FILES`] of a data set.
    ///
    /// # Errors
    /// If a file is missing or is not what was written.
    pub fn read(files: &Files) -> Result<Summary, Error> {
        let description = Description::read(files)?;
        let mut summary = Summary {
            classes: Names::classes_in(files)?.into_iter().map(|class| (class, 0)).collect(),
            sizes: BTreeSet::new(),
            fit: read_decode_policy(files)?.resize.map(|resize| resize.fit),
            shape: description.shape(),
            splits: BTreeMap::new(),
            n_left_out: 0,
            left_out: Vec::new(),
        };
        let mut rows = csv::ReaderBuilder::new().from_reader(&files.get(DATA)?[..]);
        let header = rows.headers().map_err(|e| bad(DATA, e))?.clone();
        let [label, split, width, height] = columns(&header, ["label", "split", "width", "height"])?;
        let mut row = csv::StringRecord::new();
        while rows.read_record(&mut row).map_err(|e| bad(DATA, e))? {
            let number = |column: usize| number(&row, &header, column);
            let class = summary.classes.get_mut(number(label)? as usize);
            class.ok_or_else(|| bad(DATA, "has a label without a class"))?.1 += 1;
            summary.sizes.insert((number(width)?, number(height)?));
            if let Some(split) = GivenSplit::parse(&row[split]) {
                *summary.splits.entry(split).or_default() += 1;
            }
        }
        let mut skipped = csv::ReaderBuilder::new().from_reader(&files.get(SKIPPED)?[..]);
        while skipped.read_record(&mut row).map_err(|e| bad(SKIPPED, e))? {
            summary.n_left_out += 1;
            if summary.left_out.len() < MOST_NAMED
                && let (Some(path), Some(reason)) = (row.get(0), row.get(2))
            {
                summary.left_out.push((unguarded(path).to_owned(), unguarded(reason).to_owned()));
            }
        }
        Ok(summary)
    }

    /// Number of images.
    pub fn n_samples(&self) -> u64 {
        self.classes.iter().map(|(_, n)| n).sum()
    }
}
