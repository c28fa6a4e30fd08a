//! What is fitted to a model's probabilities after its training: a temperature, and the confidence from which on it
//! answers.
//!
//! `calibration.json`, of a `train` stage in a task of its own (`calibration`), of an ensemble beside its members. What is said
//! of fold f goes by what was fitted without that fold; of test rows and new images, by what was fitted on all folds.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Error, Files, Sink, put_document};

/// The file.
pub const CALIBRATION: &str = "calibration.json";
/// The version of its form.
const FORMAT: u32 = 1;

/// What was fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    format: u32,
    /// The wanted error among answered images, above 0, at most 1; absent: every image is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// By the models that a task hands on, the first one first.
    pub models: Vec<Fits>,
}

/// What was fitted to one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fits {
    /// On the rows of all folds.
    pub all: Fit,
    /// By fold, on the rows of all others; empty where there is one fold.
    pub without_fold: Vec<Fit>,
}

/// A fit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Rows it was made on.
    pub n: usize,
    /// What logarithms of probabilities are divided by; absent: they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// An image is answered whose highest probability is at least this; absent: where an error is wanted, no threshold
    /// reached it and no image is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
}

impl Calibration {
    /// Of these models.
    pub fn new(error: Option<f64>, models: Vec<Fits>) -> Calibration {
        Calibration { format: FORMAT, error, models }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(&self, sink: &mut dyn Sink) -> io::Result<()> {
        put_document(sink, CALIBRATION, self)
    }

    /// Reads the file, if the artifact has it.
    ///
    /// # Errors
    /// If it is of another form, or has a temperature that is none.
    pub fn read_optional(files: &Files) -> Result<Option<Calibration>, Error> {
        if !files.0.contains_key(CALIBRATION) {
            return Ok(None);
        }
        let calibration: Calibration = files.document(CALIBRATION, Some(FORMAT))?;
        let fits = calibration.models.iter().flat_map(|model| std::iter::once(&model.all).chain(&model.without_fold));
        match fits.filter_map(|fit| fit.temperature).find(|t| !(t.is_finite() && *t > 0.0)) {
            None => Ok(Some(calibration)),
            Some(t) => Err(Error { file: CALIBRATION.to_owned(), message: format!("has the temperature {t}") }),
        }
    }
}

impl Fits {
    /// What goes for the rows of `fold`; `None`: for test rows and new images.
    pub fn of(&self, fold: Option<u32>) -> Fit {
        let crossed = fold.and_then(|fold| self.without_fold.get((fold as usize).checked_sub(1)?));
        *crossed.unwrap_or(&self.all)
    }

    /// Whether what is said of a fold goes by a fit on that very fold, the only one.
    pub fn is_of_own_rows(&self) -> bool {
        self.without_fold.is_empty()
    }
}
