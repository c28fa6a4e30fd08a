//! What an ensemble is made of, and what it predicted.
//!
//! | file | what |
//! |---|---|
//! | `ensemble.json` | how members are combined, which they are, their weights |
//! | `stacking.safetensors` | with `combine = "stacking"`: the softmax regression that combines them ([`Stacking`]) |
//! | `weights.csv` | what was fitted, with all folds (`without_fold` is empty) and cross-fitted: with `combine = "weighted"` `without_fold,member,weight`, with `"stacking"` `without_fold,member,said,scored,weight`: what the member's probability of class `said` (by label, from 0) is multiplied by for the score of class `scored`; an intercept has neither `member` nor `said` |
//! | `test.safetensors` | predictions on the test split, where there is one |
//! | `calibration.json` | with `calibrate` or `abstain`: the temperature of its probabilities, the confidence from which on it answers ([`super::calibration`]); predictions here are as they were before |
//! | `validation_fold_K.safetensors` | what the members of fold K say of fold K together; `validation_selected_…` where those rows chose a member or its weight |
//!
//! Applying it to new images needs the JSON files, the regression and, of every member, the tasks that it lists: a member's answer
//! is the mean of what those tasks' models say, and the members' answers are combined in the order of the list. A
//! member that is an ensemble itself (part `whole`) is applied the same way.

use std::io;

use serde::{Deserialize, Serialize};

use super::predictions::OutOfFold;
use super::tensors::{Tensors, TensorsWriter};
use super::{Error, Files, Sink, put_document};

/// The file with the members.
pub const MEMBERS: &str = "ensemble.json";
/// The file with the regression of a stacked ensemble.
pub const STACKING: &str = "stacking.safetensors";
/// The table of fitted weights.
pub const WEIGHTS: &str = "weights.csv";

/// A model made of models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ensemble {
    /// Version of this file's form.
    pub format: u32,
    /// How members are combined: `mean-probability`, `vote`, `weighted` or `stacking`.
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
    /// Which of the models that each of the stage's tasks hands on, from 1.
    pub model: u32,
    /// The stage's tasks whose mean probability it is: `fold 1`, …, `all`, or `whole` for an ensemble.
    pub parts: Vec<String>,
    /// Its share; all of them sum to 1. `None` in a stacked ensemble, where members have coefficients.
    pub weight: Option<f64>,
}

/// A softmax regression on the probabilities of members: the score of class c is
/// `intercepts[c] + sum over members m, classes k of coefficients[m, k, c] * p[m, k]`, and the ensemble's
/// probabilities are the softmax of the scores.
///
/// On disk (`stacking.safetensors`, f64): `coefficients` `[n_members, n_classes, n_classes]`, `intercepts`
/// `[n_classes]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stacking {
    /// Number of members.
    pub n_members: usize,
    /// Number of classes.
    pub n_classes: usize,
    /// `[n_members, n_classes, n_classes]`: member, class that it speaks of, class that is scored.
    pub coefficients: Vec<f64>,
    /// `[n_classes]`.
    pub intercepts: Vec<f64>,
}

impl Stacking {
    /// Writes the file.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(&self, sink: &mut dyn Sink) -> io::Result<()> {
        let mut tensors = TensorsWriter::new();
        tensors.f64("coefficients", &[self.n_members, self.n_classes, self.n_classes], &self.coefficients);
        tensors.f64("intercepts", &[self.n_classes], &self.intercepts);
        tensors.write(sink, STACKING)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If it is missing or of another form.
    pub fn read(files: &Files) -> Result<Stacking, Error> {
        let tensors = Tensors::open(files, STACKING)?;
        let (shape, coefficients) = tensors.f64("coefficients", 3)?;
        let (_, intercepts) = tensors.f64("intercepts", 1)?;
        if shape[1] != intercepts.len() || shape[2] != intercepts.len() {
            let message = format!("has coefficients {shape:?} for {} classes", intercepts.len());
            return Err(Error { file: STACKING.to_owned(), message });
        }
        Ok(Stacking { n_members: shape[0], n_classes: intercepts.len(), coefficients, intercepts })
    }
}

/// The file with the combined out-of-fold predictions of a fold.
pub fn validation_name(fold: u32, is_selected: bool) -> String {
    if is_selected {
        format!("validation_selected_fold_{fold}.safetensors")
    } else {
        format!("validation_fold_{fold}.safetensors")
    }
}

/// The combined out-of-fold predictions of a fold, if there are any.
///
/// # Errors
/// If the file is damaged.
pub fn read_validation(files: &Files, fold: u32) -> Result<Option<OutOfFold>, Error> {
    OutOfFold::read_either(files, |is_selected| validation_name(fold, is_selected))
}

impl Ensemble {
    /// Writes the list of members.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(&self, sink: &mut dyn Sink) -> io::Result<()> {
        put_document(sink, MEMBERS, self)
    }

    /// Reads the list of members.
    ///
    /// # Errors
    /// If it is missing or of another form.
    pub fn read(files: &Files) -> Result<Ensemble, Error> {
        files.document(MEMBERS, Some(2))
    }
}
