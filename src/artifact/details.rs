//! What the pictures of an evaluation are drawn from: confusions, scores of classes, calibration, curves.
//!
//! `details.json`, beside `evaluation.json`: of the model that was evaluated, on each whole split. A number that has no value
//! is `null`.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Error, Files, Sink, put_document};

/// The file.
pub const DETAILS: &str = "details.json";
/// The version of its form.
const FORMAT: u32 = 1;

/// What one evaluation can be drawn from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    format: u32,
    /// The classes, by label.
    pub classes: Vec<String>,
    /// The test split first, where there is one.
    pub splits: Vec<SplitDetails>,
}

/// A model on a split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitDetails {
    /// Whose.
    pub model: String,
    /// `test`, `out_of_fold`, `validation` or `validation_selected`.
    pub split: String,
    /// Actual class, predicted class and how often, where that is not 0; sorted.
    pub confusion: Vec<(u32, u32, u64)>,
    /// By label.
    pub classes: Vec<ClassDetails>,
    /// By confidence, bins of the same width from 0 to 1: how many, how many of them right, mean confidence.
    pub calibration: Vec<(u64, u64, Option<f64>)>,
    /// The same before the model's temperature, where it has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calibration_before: Vec<(u64, u64, Option<f64>)>,
    /// Of the second of two classes; of more, of the five that are told apart worst (least area under the ROC curve).
    pub curves: Vec<ClassCurve>,
}

/// A class. The intervals are of 95 %: of the bootstrap where it was asked for, else those of Wilson, which the F1 has not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassDetails {
    /// Precision; `None` where nothing was taken for it and nothing is of it.
    pub precision: Option<f64>,
    /// Recall.
    pub recall: Option<f64>,
    /// Their harmonic mean.
    pub f1: Option<f64>,
    /// Of precision, recall and F1.
    pub intervals: [Option<(f64, f64)>; 3],
    /// Samples of the class.
    pub support: u64,
}

/// A class against the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassCurve {
    /// Its label.
    pub class: u32,
    /// Samples of it.
    pub n_positive: u64,
    /// Other samples.
    pub n_negative: u64,
    /// The area under the ROC curve.
    pub auc: f64,
    /// The average precision.
    pub average_precision: f64,
    /// Threshold, samples of the class at or above it, other samples there; the highest threshold first.
    pub steps: Vec<(f32, u64, u64)>,
    /// The same at round thresholds, from 0.1 to 0.9.
    pub thresholds: Vec<(f32, u64, u64)>,
}

impl Details {
    /// Of these classes and splits.
    pub fn new(classes: Vec<String>, splits: Vec<SplitDetails>) -> Details {
        Details { format: FORMAT, classes, splits }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(&self, sink: &mut dyn Sink) -> io::Result<()> {
        put_document(sink, DETAILS, self)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If it is missing, of another form, or speaks of classes that there are not.
    pub fn read(files: &Files) -> Result<Details, Error> {
        let details: Details = files.document(DETAILS, Some(FORMAT))?;
        let n = details.classes.len();
        let is_whole = details.splits.iter().all(|split| {
            split.classes.len() == n
                && split.confusion.iter().all(|(actual, predicted, _)| (*actual.max(predicted) as usize) < n)
                && split.curves.iter().all(|curve| (curve.class as usize) < n)
        });
        if is_whole {
            Ok(details)
        } else {
            Err(Error { file: DETAILS.to_owned(), message: "speaks of classes that there are not".to_owned() })
        }
    }
}
