//! What an ensemble is made of, and what it predicted.
//!
//! | file | what |
//! |---|---|
//! | `ensemble.json` | how members are combined, which they are, their weights |
//! | `test.safetensors` | predictions on the test split, where there is one |
//! | `validation_fold_K.safetensors` | what the members of fold K say of fold K together; `validation_selected_…` where those rows chose a member |

use std::io;

use serde::{Deserialize, Serialize};

use super::predictions::Predictions;
use super::{Error, Files, Sink};

/// The file with the members.
pub const MEMBERS: &str = "ensemble.json";

/// A model made of models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ensemble {
    /// Version of this file's form.
    pub format: u32,
    /// How members are combined: `mean-probability` or `vote`.
    pub combine: String,
    /// Whether it has an out-of-fold score: it has none where its members are the folds of one model, each of which
    /// trained on what the others validate.
    pub is_scored_out_of_fold: bool,
    /// In the order in which they are summed.
    pub members: Vec<Member>,
}

/// A member of an ensemble.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Name of its stage.
    pub stage: String,
    /// The stage's tasks whose mean probability it is: `fold 1`, …, `all`, or `whole` for an ensemble.
    pub parts: Vec<String>,
    /// Its share; all of them sum to 1.
    pub weight: f64,
}

/// The file with the combined out-of-fold predictions of a fold.
pub fn validation_name(fold: u32, is_selected: bool) -> String {
    if is_selected {
        format!("validation_selected_fold_{fold}.safetensors")
    } else {
        format!("validation_fold_{fold}.safetensors")
    }
}

/// The combined out-of-fold predictions of a fold, if there are any, and whether those rows chose a member.
///
/// # Errors
/// If the file is damaged.
pub fn read_validation(files: &Files, fold: u32) -> Result<Option<(Predictions, bool)>, Error> {
    for is_selected in [false, true] {
        if let Some(predictions) = Predictions::read_optional(files, &validation_name(fold, is_selected))? {
            return Ok(Some((predictions, is_selected)));
        }
    }
    Ok(None)
}

impl Ensemble {
    /// Writes the list of members.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(&self, sink: &mut dyn Sink) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        json.push(b'\n');
        sink.put(MEMBERS, &json)
    }

    /// Reads the list of members.
    ///
    /// # Errors
    /// If it is missing or of another form.
    pub fn read(files: &Files) -> Result<Ensemble, Error> {
        let error = |message: String| Error { file: MEMBERS.to_owned(), message };
        let ensemble: Ensemble =
            serde_json::from_slice(files.get(MEMBERS)?).map_err(|cause| error(format!("is not readable ({cause})")))?;
        if ensemble.format != 1 {
            return Err(error(format!("has format {}, expected 1", ensemble.format)));
        }
        Ok(ensemble)
    }
}
