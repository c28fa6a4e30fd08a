//! The numbers of an evaluation that others read: headline metrics, the classification report's data, gate results.
//!
//! `evaluation.json` holds them; the tables beside it (`metrics.csv`, `gains.csv`, `comparisons.csv`,
//! `predictions.csv`, `confusion.csv`; `calibration.csv`, `temperatures.csv`, `coverage.csv`) are for people.
//! A number that has no value is `null`.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::{Error, Files, Sink, put_document};
use crate::data::metrics::McNemar;

/// The file with these numbers.
pub const EVALUATION: &str = "evaluation.json";
/// The table of all numbers: `model,split,fold,class,metric,value,ci_low,ci_high,n`.
pub const METRICS: &str = "metrics.csv";
/// The table of all predictions: `id,path,split,fold,model,actual,predicted,correct,confidence,loss,p_<class>…`.
pub const PREDICTIONS: &str = "predictions.csv";
/// The table of what ensembles gain:
/// `model,split,metric,value,n_members,best_member,best_value,mean_value,gain_over_best,gain_over_mean`.
pub const GAINS: &str = "gains.csv";
/// The table of McNemar's tests: `split,model_a,model_b,n,both_correct,only_a_correct,only_b_correct,both_wrong,method,
/// statistic,p_value,p_holm`.
pub const COMPARISONS: &str = "comparisons.csv";
/// Where a model has a temperature, the table of confidences: `model,split,calibrated,prob_pred,prob_true,count`.
pub const CALIBRATION: &str = "calibration.csv";
/// And what the temperature does:
/// `model,split,temperature,n,log_loss_before,log_loss_after,calibration_error_before,calibration_error_after`.
pub const TEMPERATURES: &str = "temperatures.csv";
/// Where a model may abstain, what thresholds give: `model,split,threshold,chosen,coverage,error,n_answered,n_wrong`.
pub const COVERAGE: &str = "coverage.csv";
/// The table of confusions: `model,split,actual,predicted,count`.
pub const CONFUSION: &str = "confusion.csv";
/// The table of ROC and precision-recall curves: `model,split,class,n_positive,n_negative,threshold,true_positives,
/// false_positives,recall,precision,false_positive_rate`.
pub const CURVES: &str = "curves.csv";
/// The table of scores of groups: `column,group,model,split,metric,value,ci_low,ci_high,n,worst`; only there with `by`.
pub const BY: &str = "by.csv";

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Version of this file's form.
    pub format: u32,
    /// The model that was evaluated: the name of evaluate's input.
    pub model: String,
    /// Scores of it and of its members on whole splits, it first.
    pub scores: Vec<Score>,
    /// How it did class by class; `None` if no model has a score.
    pub report: Option<ClassReport>,
    /// What each ensemble gains over its members.
    pub gains: Vec<Gain>,
    /// Whether models differ by more than luck, pair by pair.
    pub comparisons: Vec<Comparison>,
    /// Every gate, as written.
    pub gates: Vec<GateResult>,
    /// What the temperature of a model does, where it has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calibrated: Vec<Calibrated>,
    /// How many images a model answers, where it may abstain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub abstained: Vec<Abstained>,
    /// Scores of groups of images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<GroupScore>,
}

/// What the temperature of one model does on one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibrated {
    /// Name of the model.
    pub model: String,
    /// `test`, `out_of_fold` or `validation_selected`.
    pub split: String,
    /// The temperature of its final model; out of fold each fold has its own, fitted without it.
    pub temperature: f64,
    /// Samples.
    pub n: usize,
    /// The mean log loss in nats, before and after.
    pub log_loss: (Option<f64>, Option<f64>),
    /// The expected calibration error, before and after.
    pub calibration_error: (Option<f64>, Option<f64>),
}

/// How many images of a split a model answers that abstains where it is not sure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Abstained {
    /// Name of the model.
    pub model: String,
    /// `test`, `out_of_fold`, or `validation_selected` where the threshold was chosen on those rows.
    pub split: String,
    /// The wanted error among answered images.
    pub error: f64,
    /// The confidence from which on its final model answers; `None`: it answers nothing. Out of fold each fold has its own,
    /// chosen without it.
    pub threshold: Option<f32>,
    /// Samples.
    pub n: u64,
    /// Those that are answered.
    pub n_answered: u64,
    /// Those of them that are wrong.
    pub n_wrong: u64,
    /// The 95 % interval (Wilson) of the error among answered images.
    pub error_interval: Option<(f64, f64)>,
}

impl Abstained {
    /// Which share of the images is answered.
    pub fn coverage(&self) -> Option<f64> {
        (self.n > 0).then(|| self.n_answered as f64 / self.n as f64)
    }

    /// Which share of the answers is wrong.
    pub fn error_found(&self) -> Option<f64> {
        (self.n_answered > 0).then(|| self.n_wrong as f64 / self.n_answered as f64)
    }
}

/// The numbers of one model on the images of one split that are of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupScore {
    /// The column that makes the groups.
    pub column: String,
    /// What it says of these images.
    pub group: String,
    /// Name of the stage.
    pub model: String,
    /// `test`, `out_of_fold`, `validation` or `validation_selected`.
    pub split: String,
    /// Images.
    pub n: usize,
    /// By metric.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// Their 95 % intervals, where they have some: the accuracy's is that of Wilson.
    pub intervals: BTreeMap<String, (f64, f64)>,
}

impl GroupScore {
    /// Whether it is of another, or the same, group of the same column, model and split.
    pub fn is_beside(&self, other: &GroupScore) -> bool {
        (&self.column, &self.model, &self.split) == (&other.column, &other.model, &other.split)
    }

    /// The one of several groups where a metric is least good, of equals the first; `None` where fewer than two have a value.
    pub fn worst<'s>(
        groups: impl Iterator<Item = &'s GroupScore>,
        metric: &str,
        is_higher_better: bool,
    ) -> Option<&'s GroupScore> {
        let valued = groups.filter_map(|group| Some((group, group.metrics.get(metric).copied().flatten()?)));
        let mut valued: Vec<(&GroupScore, f64)> = valued.collect();
        valued.sort_by(|a, b| if is_higher_better { a.1.total_cmp(&b.1) } else { b.1.total_cmp(&a.1) });
        valued.first().filter(|_| valued.len() > 1).map(|(group, _)| *group)
    }
}

/// The numbers of one model on one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Name of the stage.
    pub model: String,
    /// `test`, `out_of_fold`, `validation` or `validation_selected`.
    pub split: String,
    /// Samples.
    pub n: usize,
    /// Samples whose class was recognised.
    pub n_correct: u64,
    /// The 95 % interval of the accuracy.
    pub accuracy_interval: Option<(f64, f64)>,
    /// The 95 % bootstrap intervals of metrics, where they were asked for; the accuracy's own is that of Wilson.
    pub intervals: BTreeMap<String, (f64, f64)>,
    /// Each metric over all samples of the split.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// Mean and sample deviation of each metric over folds, where there are several.
    pub over_folds: BTreeMap<String, (Option<f64>, Option<f64>)>,
}

/// How an ensemble compares with its members by one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// The ensemble.
    pub model: String,
    /// Where: `test`, or the rows that were held out of the folds.
    pub split: String,
    /// By which metric.
    pub metric: String,
    /// Whether more of it is better.
    pub is_higher_better: bool,
    /// The ensemble's.
    pub value: f64,
    /// How many members.
    pub n_members: usize,
    /// The member that is best by this metric on this split; `NAME fold K` where folds are members.
    pub best_member: String,
    /// Its value.
    pub best_value: f64,
    /// The mean of the members' values.
    pub mean_value: f64,
    /// How much better the ensemble is than the best member; negative if it is worse.
    pub gain_over_best: f64,
    /// How much better it is than its members are on average.
    pub gain_over_mean: f64,
}

/// McNemar's test of two models on one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Where.
    pub split: String,
    /// The first model, by name.
    pub model_a: String,
    /// The second.
    pub model_b: String,
    /// Samples.
    pub n: usize,
    /// What was counted and what follows.
    pub test: McNemar,
    /// The p-value among all comparisons of the split (Holm, 1979).
    pub p_holm: f64,
}

/// Precision, recall, F1 and support by class: what a classification report shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// Whose.
    pub model: String,
    /// On which split.
    pub split: String,
    /// In order of labels.
    pub classes: Vec<ClassRow>,
    /// Share of samples whose class was recognised.
    pub accuracy: f64,
    /// Averages over classes that count the same.
    pub macro_average: ClassRow,
    /// Averages over classes that count by their samples.
    pub weighted_average: ClassRow,
}

/// A line of a classification report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassRow {
    /// The class, or what the line is about.
    pub name: String,
    /// Share of right ones among the samples that were taken for the class.
    pub precision: f64,
    /// Share of the class's samples that were recognised.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Samples of the class.
    pub support: u64,
}

/// A gate and whether it was passed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    /// Which model.
    pub model: String,
    /// On which split.
    pub split: String,
    /// Which metric.
    pub metric: String,
    /// What was asked for, as `>= 0.97`.
    pub expected: String,
    /// What came out.
    pub value: Option<f64>,
    /// Whether it is as asked for; a number without value never is.
    pub is_passed: bool,
    /// Of which class alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// On the images of which group alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The column that makes the groups, where the gate names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The worst group, where every group has to pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst: Option<String>,
    /// Whether the difference from a baseline may be luck, in words, where that was asked for and could be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<String>,
}

impl GateResult {
    /// What it looks at, without the model: `accuracy`, `recall of class pneumonia in group clinic-3`, `accuracy in the worst camera`.
    pub fn measured(&self) -> String {
        let class = self.class.as_ref().map(|class| format!(" of class {class}")).unwrap_or_default();
        let group = match (&self.by, &self.group) {
            (Some(by), Some(group)) => format!(" in {by} {group}"),
            (Some(by), None) => format!(" in the worst {by}"),
            (None, Some(group)) => format!(" in group {group}"),
            (None, None) => String::new(),
        };
        format!("{}{class}{group}", self.metric)
    }

    /// What came out: the number with four digits, and whether it differs from a baseline by more than noise.
    pub fn shown_value(&self) -> String {
        let value = self.value.map_or_else(|| "no value".to_owned(), |value| format!("{value:.4}"));
        let value = self.worst.as_ref().map_or(value.clone(), |worst| format!("{value} in {worst}"));
        self.judged.as_ref().map_or(value.clone(), |judged| format!("{value}, {judged}"))
    }
}

impl Evaluation {
    /// Writes the file.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(&self, sink: &mut dyn Sink) -> io::Result<()> {
        put_document(sink, EVALUATION, self)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If it is missing or of another form.
    pub fn read(files: &Files) -> Result<Evaluation, Error> {
        files.document(EVALUATION, Some(2))
    }
}
