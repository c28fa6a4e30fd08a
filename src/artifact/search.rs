//! What a round of a search found: its trials by rank, with their settings and scores.
//!
//! | file | what |
//! |---|---|
//! | `round.json` | the ranges that were searched, every trial in order of rank |
//! | `trials.csv` | the same as a table: `round,rank,trial,chosen,status,…,param_<name>…` |
//!
//! A trial that exploded leaves `exploded.json` in place of a model ([`Exploded`]).

use std::io;

use serde::{Deserialize, Serialize};

use super::{Error, Files, Sink, put_document};

/// The file with what a round found.
pub const ROUND: &str = "round.json";
/// The table of a round's trials.
pub const TRIALS: &str = "trials.csv";
/// The file that a trial which exploded leaves in place of a model.
pub const EXPLODED: &str = "exploded.json";

/// What a round found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Version of this file's form.
    pub format: u32,
    /// Which round, from 1.
    pub round: u32,
    /// By what trials are ranked.
    pub metric: String,
    /// Whether more of it is better.
    pub is_higher_better: bool,
    /// The keys that are searched, and the range of each in this round.
    pub space: Vec<Searched>,
    /// Best first.
    pub trials: Vec<TrialResult>,
}

/// A key that is searched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Searched {
    /// Dotted, as `stages.cnn.learning_rate`.
    pub key: String,
    /// What its column is called.
    pub name: String,
    /// Its range in this round, as TOML.
    pub range: String,
    /// Whether its range is on a logarithmic scale.
    pub is_log: bool,
}

/// A trial and how good it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialResult {
    /// `r1t7`: the seventh that was drawn in round 1; `r2k1`: the best that round 1 kept, trained again in round 2.
    pub trial: String,
    /// The trial of an earlier round that it repeats with this round's budget.
    pub origin: Option<String>,
    /// From 1, the best.
    pub rank: u32,
    /// `finished`, `exploded`, or `invalid`: nothing can be trained with these settings.
    pub status: String,
    /// Whether it goes on into the next round; after the last, whether it is handed on.
    pub chosen: bool,
    /// Epochs that it was trained for at most.
    pub epochs: u32,
    /// Share of the training images that it learned from.
    pub data_fraction: f64,
    /// Folds that it was trained and validated on.
    pub folds: u32,
    /// Images that it was validated on.
    pub n_valid: usize,
    /// Values that training moved; `None` of one that exploded.
    pub n_parameters: Option<usize>,
    /// Mean and sample deviation over its folds, of validation accuracy.
    pub accuracy: Option<(f64, Option<f64>)>,
    /// The same of validation loss.
    pub loss: Option<(f64, Option<f64>)>,
    /// The same of the metric by which it is ranked.
    pub value: Option<(f64, Option<f64>)>,
    /// The value of every key, in the order of the space, as TOML.
    pub settings: Vec<String>,
}

/// Where a trial's numbers left the finite world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exploded {
    /// Version of this file's form.
    pub format: u32,
    /// The epoch.
    pub epoch: u32,
    /// What was seen.
    pub message: String,
}

impl Exploded {
    /// Whether these are files of a trial that exploded.
    pub fn is_in(files: &Files) -> bool {
        files.0.contains_key(EXPLODED)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(&self, sink: &mut dyn Sink) -> io::Result<()> {
        put_document(sink, EXPLODED, self)
    }
}

impl Round {
    /// Writes the file.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(&self, sink: &mut dyn Sink) -> io::Result<()> {
        put_document(sink, ROUND, self)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If it is missing or of another form.
    pub fn read(files: &Files) -> Result<Round, Error> {
        files.document(ROUND, Some(1))
    }
}
