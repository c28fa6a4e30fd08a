//! What a finished run prints: the classification report in the layout every student knows, a table of scores, the gates, the
//! best settings of searches.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::terminal::{GREEN, RED, Terminal};
use crate::artifact::evaluation::{ClassReport, Evaluation, Gain, GateResult, GroupScore, Score};
use crate::artifact::model::{Description, MODEL};
use crate::artifact::search::Round;
use crate::artifact::suspects::Suspects;
use crate::manifest::{Combination, Manifest, stage_name, variant_of};
use crate::report::best::Best;
use crate::report::content::suspects_line;
use crate::report::matrix::{self, FIRST, cut};
use crate::report::text::{Align, COLUMNS, aligned, counted, width, wrapped};
use crate::report::{Finished, compare, trust};
use crate::runner::Graph;
use crate::stages::Part;

/// Names of models are cut after so many columns.
const MOST_NAME: usize = 26;
/// And names of classes: four columns of numbers stand beside them.
const MOST_CLASS: usize = 58;

/// The evaluations of a run, and what its searches and trainings chose.
pub struct Results {
    /// By stage, in manifest order.
    evaluations: Vec<(String, Evaluation)>,
    /// By stage that evaluates.
    suspects: Vec<(String, Suspects)>,
    searches: Vec<Best>,
    stopped: Vec<Stopped>,
}

/// A training with early stopping, and which epoch it kept.
#[derive(serde::Serialize)]
struct Stopped {
    stage: String,
    part: String,
    kept_epoch: u32,
    epochs: u32,
}

/// `, 7 by their records only`: nobody has vouched for their files, which are not here.
pub fn by_records(n: usize) -> String {
    if n == 0 { String::new() } else { format!(", {n} by their records only") }
}

/// Whether [`Results::of`] reads the artifact of a task.
pub fn reads(manifest: &Manifest, graph: &Graph, stage: usize, part: Part) -> bool {
    match (graph.nodes[stage].stage.kind(), part) {
        ("evaluate", Part::Whole | Part::Suspects) | ("search", Part::Round(_)) => true,
        ("train", Part::Fold(_)) => graph.trial(stage).is_none() && stops_early(manifest, &graph.nodes[stage].name),
        _ => false,
    }
}

fn stops_early(manifest: &Manifest, stage: &str) -> bool {
    let entry = manifest.stage(stage).map(|stage| &manifest.entries[stage]);
    entry.is_some_and(|entry| entry.resolved.iter().any(|key| key.key.starts_with("early_stopping")))
}

impl Results {
    /// Reads them from what was finished.
    pub fn of(finished: &[Finished<'_>], manifest: &Manifest) -> anyhow::Result<Results> {
        let (evaluations, suspects) = evaluated(finished)?;
        let mut rounds: Vec<(&str, Round)> = Vec::new();
        for task in finished.iter().filter(|task| task.kind == "search" && matches!(task.part, Part::Round(_))) {
            let round = Round::read(task.files)?;
            match rounds.iter_mut().find(|(search, _)| *search == task.stage) {
                Some((_, known)) if known.round > round.round => {}
                Some((_, known)) => *known = round,
                None => rounds.push((task.stage, round)),
            }
        }
        let searches = rounds.into_iter().filter_map(|(search, round)| Best::of(search, &round)).collect();
        let mut stopped = Vec::new();
        for task in finished.iter().filter(|task| task.kind == "train" && task.trial.is_none()) {
            if !stops_early(manifest, task.stage)
                || !matches!(task.part, Part::Fold(_))
                || !task.files.0.contains_key(MODEL)
            {
                continue;
            }
            let model: Description = Description::read(task.files)?;
            stopped.push(Stopped {
                stage: task.stage.to_owned(),
                part: task.part.to_string(),
                kept_epoch: model.best_epoch,
                epochs: model.epochs,
            });
        }
        Ok(Results { evaluations, suspects, searches, stopped })
    }

    /// Of evaluations alone, whatever they are from.
    pub fn of_evaluations(finished: &[Finished<'_>]) -> anyhow::Result<Results> {
        let (evaluations, suspects) = evaluated(finished)?;
        Ok(Results { evaluations, suspects, searches: Vec::new(), stopped: Vec::new() })
    }

    /// The evaluations, by stage.
    pub fn evaluations(&self) -> &[(String, Evaluation)] {
        &self.evaluations
    }

    /// The evaluations of a variant, by the names of their stages in the manifest.
    pub fn of_variant(&self, manifest: &Manifest, combination: &Combination) -> Vec<(String, Evaluation)> {
        let own = self.own(manifest, combination);
        own.into_iter().map(|(stage, evaluation)| (stage.to_owned(), evaluation.clone())).collect()
    }

    fn own<'r>(&'r self, manifest: &'r Manifest, combination: &Combination) -> Vec<(&'r str, &'r Evaluation)> {
        let names = combination.nodes.iter().map(|&at| manifest.nodes[at].name.as_str());
        let found = names.filter_map(|name| {
            let (_, evaluation) = self.evaluations.iter().find(|(stage, _)| stage == name)?;
            Some((stage_name(name), evaluation))
        });
        found.collect()
    }

    /// Every variant of the manifest beside its results.
    pub fn variants<'r>(&'r self, manifest: &'r Manifest) -> Vec<matrix::Variant<'r>> {
        let variant = |combination: &'r Combination| matrix::Variant {
            name: &combination.name,
            group: &combination.group,
            settings: combination.settings.iter().map(|own| (own.key.as_str(), own.plain())).collect(),
            evaluations: self.own(manifest, combination),
        };
        manifest.combinations.iter().map(variant).collect()
    }

    /// The gates that were not passed, each with the stage that judges.
    pub fn failed_gates(&self) -> impl Iterator<Item = (&str, &GateResult)> {
        let all = self
            .evaluations
            .iter()
            .flat_map(|(stage, evaluation)| evaluation.gates.iter().map(move |gate| (stage.as_str(), gate)));
        all.filter(|(_, gate)| !gate.is_passed)
    }

    /// Adds a gate that was judged after the task.
    pub fn add_gate(&mut self, stage: &str, gate: GateResult) {
        if let Some((_, evaluation)) = self.evaluations.iter_mut().find(|(known, _)| known == stage) {
            evaluation.gates.push(gate);
        }
    }

    /// Every gate.
    pub fn gates(&self) -> impl Iterator<Item = &GateResult> {
        self.evaluations.iter().flat_map(|(_, evaluation)| &evaluation.gates)
    }

    /// The headline metrics by `stage.model.split.metric`, for the lock file; of a variant, `stage.model VARIANT.split.metric`.
    pub fn headline(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        for (stage, evaluation) in &self.evaluations {
            for score in evaluation.scores.iter().filter(|score| score.model == evaluation.model) {
                let model = match variant_of(stage) {
                    "" => score.model.clone(),
                    variant => format!("{} {variant}", score.model),
                };
                let at = format!("{}.{model}.{}", stage_name(stage), score.split);
                out.insert(format!("{at}.{}", compare::N), score.n.to_string());
                for (metric, value) in &score.metrics {
                    if let Some(value) = value {
                        out.insert(format!("{at}.{metric}"), crate::config::shortest(*value));
                    }
                }
            }
        }
        out
    }

    /// All of it for programs.
    pub fn json(&self) -> serde_json::Value {
        let evaluations: serde_json::Map<String, serde_json::Value> = self
            .evaluations
            .iter()
            .filter_map(|(stage, evaluation)| Some((stage.clone(), serde_json::to_value(evaluation).ok()?)))
            .collect();
        let of_stage = |(stage, found): &(String, Suspects)| {
            let counts = serde_json::json!({
                "labels": found.n_confident(), "duplicates_with_another_label": found.n_duplicates_of_labels,
                "duplicates_in_another_split": found.n_duplicates_of_splits, "unlike_class": found.n_unlike,
            });
            (stage.clone(), counts)
        };
        let suspects: serde_json::Map<String, serde_json::Value> = self.suspects.iter().map(of_stage).collect();
        // Of a run that did not come to its evaluations nobody knows.
        let passed = (!self.evaluations.is_empty()).then(|| self.failed_gates().next().is_none());
        serde_json::json!({
            "evaluations": evaluations, "gates_passed": passed, "suspects": suspects,
            "searches": self.searches, "early_stopping": self.stopped,
        })
    }

    /// The results of variants beside one another, for people. `folder` has the files with more.
    pub fn matrix_text(&self, manifest: &Manifest, folder: &str) -> String {
        format!("\n{}", matrix::text(&self.variants(manifest), folder))
    }

    /// The results of variants for programs.
    pub fn matrix_json(&self, manifest: &Manifest) -> serde_json::Value {
        let variants = self.variants(manifest);
        let settings = |variant: &matrix::Variant<'_>| -> serde_json::Map<String, serde_json::Value> {
            variant.settings.iter().map(|(key, value)| ((*key).to_owned(), value.as_str().into())).collect()
        };
        let named = manifest.combinations.iter().zip(&variants).map(|(combination, variant)| {
            let stages: BTreeMap<&str, &str> =
                combination.nodes.iter().map(|&at| &*manifest.nodes[at].name).map(|n| (stage_name(n), n)).collect();
            serde_json::json!({ "name": variant.name, "settings": settings(variant), "stages": stages })
        });
        serde_json::json!({ "variants": named.collect::<Vec<_>>(), "matrix": matrix::means(&variants) })
    }

    /// All of it for people; in `brief`, what has been told before is left out. `folder` has the files with more.
    pub fn text(&self, is_brief: bool, folder: &str, terminal: &Terminal) -> String {
        let mut text = String::new();
        for (stage, evaluation) in &self.evaluations {
            if self.evaluations.len() > 1 {
                let _ = writeln!(text, "== {stage}");
            }
            if let Some(report) = evaluation.report.as_ref().filter(|_| !is_brief) {
                let _ = writeln!(text, "\n{}", classification_report(report));
            }
            let (table, has_more) = scores_table(evaluation);
            text.push_str(&table);
            if has_more && !folder.is_empty() {
                let _ = writeln!(text, "(more metrics in {folder}/metrics.csv)");
            }
            if !is_brief {
                let own: Vec<Gain> =
                    evaluation.gains.iter().filter(|gain| gain.model == evaluation.model).cloned().collect();
                let gains = gains_table(&own);
                text.push_str(if gains.is_empty() { "" } else { "\n" });
                text.push_str(&gains);
            }
            if !is_brief {
                let lines = trust::lines(evaluation);
                text.push_str(if lines.is_empty() { "" } else { "\n" });
                lines.iter().for_each(|line| {
                    let _ = writeln!(text, "{}", wrapped(line, COLUMNS, "  "));
                });
            }
            let suspects = self.suspects.iter().filter(|(known, _)| known == stage && !is_brief);
            for told in suspects.filter_map(|(_, suspects)| suspects_line(suspects)) {
                let place = if folder.is_empty() { String::new() } else { format!(" (see {folder}/report.html)") };
                let line = format!("suspects: {told}{place}");
                let _ = writeln!(text, "{}", wrapped(&line, COLUMNS, "  "));
            }
            by_lines(evaluation, is_brief).iter().for_each(|line| {
                let _ = writeln!(text, "{}", wrapped(line, COLUMNS, "  "));
            });
            text.push_str(if is_brief || evaluation.gates.is_empty() { "" } else { "\n" });
            for gate in &evaluation.gates {
                let (verdict, style) = if gate.is_passed { ("passed", GREEN) } else { ("FAILED", RED) };
                let (measured, expected, value) = (gate.measured(), &gate.expected, gate.shown_value());
                let line =
                    format!("gate {measured} {expected} on {} of {}: {value}, {verdict}", gate.split, gate.model);
                let line = wrapped(&line, COLUMNS, "  ");
                let start = line.strip_suffix(verdict).unwrap_or(&line);
                let _ = writeln!(text, "{start}{}", terminal.paint_result(verdict, style));
            }
        }
        if !is_brief {
            text.push_str(&stopped_lines(&self.stopped));
            self.searches.iter().for_each(|best| text.push_str(&best_text(best)));
        }
        text
    }
}

/// `by camera, test: accuracy from 0.8100 (phone, 31 images) to 0.9300 (slr, 200 images)`, a line a column of the model that was
/// evaluated, on the first split that it has.
fn by_lines(evaluation: &Evaluation, is_brief: bool) -> Vec<String> {
    let Some(first) = evaluation.scores.iter().find(|score| score.model == evaluation.model && !is_brief) else {
        return Vec::new();
    };
    let is_own = |group: &&GroupScore| (&group.model, &group.split) == (&first.model, &first.split);
    let own: Vec<&GroupScore> = evaluation.by.iter().filter(is_own).collect();
    let line = |groups: &[&GroupScore]| {
        let accuracy = |group: &GroupScore| group.metrics.get("accuracy").copied().flatten();
        let mut valued: Vec<(&GroupScore, f64)> =
            groups.iter().filter_map(|group| Some((*group, accuracy(group)?))).collect();
        valued.sort_by(|a, b| a.1.total_cmp(&b.1));
        let told = |(group, value): &(&GroupScore, f64)| {
            format!("{value:.4} ({}, {})", group.group, counted(group.n as u64, "image", "images"))
        };
        let (worst, best) = (valued.first()?, valued.last()?);
        Some(format!("by {}, {}: accuracy from {} to {}", worst.0.column, first.split, told(worst), told(best)))
    };
    own.chunk_by(|a, b| a.column == b.column).filter_map(line).collect()
}

/// Documents by the stage that they are of.
type ByStage<T> = Vec<(String, T)>;

/// What was evaluated, and what there is to look at.
fn evaluated(finished: &[Finished<'_>]) -> anyhow::Result<(ByStage<Evaluation>, ByStage<Suspects>)> {
    let (mut evaluations, mut suspects) = (Vec::new(), Vec::new());
    for task in finished.iter().filter(|task| task.kind == "evaluate") {
        match task.part {
            Part::Whole => evaluations.push((task.stage.to_owned(), Evaluation::read(task.files)?)),
            Part::Suspects => suspects.push((task.stage.to_owned(), Suspects::read(task.files)?)),
            _ => {}
        }
    }
    Ok((evaluations, suspects))
}

/// The best settings as lines to paste.
fn best_text(best: &Best) -> String {
    let score = best.score();
    let score = if score.is_empty() { score } else { format!(", {score}") };
    format!("\n# best of `{}`: trial {}{score}; to paste:\n{}", best.search, best.trial, best.lines())
}

/// `train stopped early and kept epoch 9 of 14 (fold 1), 12 of 17 (fold 2)`, a line a stage.
fn stopped_lines(stopped: &[Stopped]) -> String {
    let mut text = String::new();
    for own in stopped.chunk_by(|a, b| a.stage == b.stage) {
        let kept: Vec<String> =
            own.iter().map(|one| format!("{} of {} ({})", one.kept_epoch, one.epochs, one.part)).collect();
        let line = format!("early stopping: {} kept epoch {}", own[0].stage, kept.join(", "));
        let _ = writeln!(text, "{}", wrapped(&line, COLUMNS, "  "));
    }
    text
}

/// A row per model and split, and whether metrics were left out for want of room. What an ensemble of one model's folds says
/// on the test split is what that model says: it stands there once.
fn scores_table(evaluation: &Evaluation) -> (String, bool) {
    let mut scores: Vec<Score> = Vec::new();
    for score in &evaluation.scores {
        let is_same = |known: &&mut Score| {
            known.model == evaluation.model && known.split == score.split && known.metrics == score.metrics
        };
        match scores.iter_mut().find(is_same) {
            Some(known) => known.over_folds.extend(score.over_folds.clone()),
            None => scores.push(score.clone()),
        }
    }
    if scores.is_empty() {
        return (String::new(), false);
    }
    let named: BTreeSet<&str> = scores.iter().flat_map(|score| score.metrics.keys().map(String::as_str)).collect();
    let others = named.iter().copied().filter(|name| !FIRST.contains(name));
    let mut metrics: Vec<&str> = FIRST.into_iter().filter(|name| named.contains(name)).chain(others).collect();
    let n_metrics = metrics.len();
    loop {
        let table = scores_with(&scores, &metrics);
        if metrics.len() <= 1 || table.lines().all(|line| width(line) <= COLUMNS) {
            return (table, metrics.len() < n_metrics);
        }
        metrics.pop();
    }
}

fn scores_with(scores: &[Score], metrics: &[&str]) -> String {
    let mut header = vec!["model", "split"];
    let mut aligns = vec![Align::Left, Align::Left];
    for metric in metrics {
        header.push(metric);
        aligns.push(Align::Right);
        if *metric == "accuracy" {
            header.push("95 % interval");
            aligns.push(Align::Left);
        }
    }
    let folds = |score: &Score| match score.over_folds.get("accuracy") {
        Some((Some(mean), Some(deviation))) => Some(format!("{mean:.4} ± {deviation:.4}")),
        _ => None,
    };
    let has_folds = scores.iter().any(|score| folds(score).is_some());
    if has_folds {
        header.push("over folds");
        aligns.push(Align::Left);
    }
    header.push("images");
    aligns.push(Align::Right);
    let row = |score: &Score| {
        let mut row = vec![cut(&score.model, MOST_NAME), score.split.clone()];
        for metric in metrics {
            let value = score.metrics.get(*metric).copied().flatten();
            row.push(value.map_or_else(String::new, |value| format!("{value:.4}")));
            if *metric == "accuracy" {
                let interval = score.accuracy_interval;
                row.push(interval.map_or_else(String::new, |(low, high)| format!("[{low:.4}, {high:.4}]")));
            }
        }
        row.extend(has_folds.then(|| folds(score).unwrap_or_default()));
        row.push(score.n.to_string());
        row
    };
    aligned(&header, &aligns, &scores.iter().map(row).collect::<Vec<_>>())
}

/// What an ensemble gains over its members, a row per split and metric, accuracy and log loss.
fn gains_table(gains: &[Gain]) -> String {
    let headline = gains.iter().filter(|gain| matches!(gain.metric.as_str(), "accuracy" | "log-loss"));
    let by = |gain: f64| match gain {
        0.0 => "as good".to_owned(),
        _ => format!("{:.4} {}", gain.abs(), if gain > 0.0 { "better" } else { "worse" }),
    };
    let row = |gain: &Gain| {
        vec![
            cut(&gain.model, MOST_NAME),
            gain.split.clone(),
            gain.metric.clone(),
            by(gain.gain_over_mean),
            format!("{} ({})", by(gain.gain_over_best), cut(&gain.best_member, MOST_NAME)),
        ]
    };
    let rows: Vec<Vec<String>> = headline.map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let header = ["ensemble", "split", "metric", "beside its members' mean", "beside the best of them"];
    aligned(&header, &[Align::Left; 5], &rows)
}

/// Scikit-learn's layout: a line per class, the accuracy, and both averages.
fn classification_report(report: &ClassReport) -> String {
    let names: Vec<String> = report.classes.iter().map(|row| cut(&row.name, MOST_CLASS)).collect();
    let longest = names.iter().map(|name| width(name)).max().unwrap_or(0).max("weighted avg".len());
    let mut text = format!("{} on {}\n\n", report.model, report.split);
    let _ = writeln!(text, "{:>longest$} {:>9} {:>9} {:>9} {:>9}\n", "", "precision", "recall", "f1-score", "support");
    let row = |name: &str, row: &crate::artifact::evaluation::ClassRow| {
        let blanks = " ".repeat(longest - width(name));
        format!("{blanks}{name} {:>9.2} {:>9.2} {:>9.2} {:>9}\n", row.precision, row.recall, row.f1, row.support)
    };
    for (name, class) in names.iter().zip(&report.classes) {
        text.push_str(&row(name, class));
    }
    let support = report.weighted_average.support;
    let _ = writeln!(text, "\n{:>longest$} {:>9} {:>9} {:>9.2} {support:>9}", "accuracy", "", "", report.accuracy);
    text.push_str(&row("macro avg", &report.macro_average));
    text.push_str(&row("weighted avg", &report.weighted_average));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::evaluation::ClassRow;

    #[test]
    fn gains_are_said_in_words() {
        let gain = |metric: &str, is_higher_better, gain_over_best, gain_over_mean| Gain {
            model: "both".into(),
            split: "test".into(),
            metric: metric.into(),
            is_higher_better,
            value: 0.5,
            n_members: 2,
            best_member: "cnn".into(),
            best_value: 0.5,
            mean_value: 0.5,
            gain_over_best,
            gain_over_mean,
        };
        let gains = [gain("accuracy", true, 0.0, 0.01), gain("macro-f1", true, 0.1, 0.1), {
            gain("log-loss", false, -0.002, 0.03)
        }];
        let expected = "\
ensemble  split  metric    beside its members' mean  beside the best of them
both      test   accuracy  0.0100 better             as good (cnn)
both      test   log-loss  0.0300 better             0.0020 worse (cnn)
";
        assert_eq!(gains_table(&gains), expected);
    }

    fn score(model: &str, split: &str, accuracy: f64, folds: Option<(f64, f64)>, metrics: &[&str]) -> Score {
        let all = metrics.iter().map(|metric| ((*metric).to_owned(), Some(0.5)));
        Score {
            model: model.into(),
            split: split.into(),
            n: 10_000,
            n_correct: 9_000,
            accuracy_interval: Some((0.88, 0.92)),
            intervals: BTreeMap::new(),
            metrics: all.chain([("accuracy".to_owned(), Some(accuracy))]).collect(),
            over_folds: folds.map(|(a, b)| ("accuracy".to_owned(), (Some(a), Some(b)))).into_iter().collect(),
        }
    }

    fn evaluation(scores: Vec<Score>) -> Evaluation {
        Evaluation {
            format: 2,
            model: scores[0].model.clone(),
            scores,
            report: None,
            gains: Vec::new(),
            comparisons: Vec::new(),
            gates: Vec::new(),
            calibrated: Vec::new(),
            abstained: Vec::new(),
            by: Vec::new(),
        }
    }

    #[test]
    fn an_ensemble_of_folds_stands_in_the_table_once() {
        let (table, has_more) = scores_table(&evaluation(vec![
            score("ensemble", "test", 0.9, None, &["log-loss"]),
            score("train", "test", 0.9, Some((0.89, 0.01)), &["log-loss"]),
            score("train", "out_of_fold", 0.8, Some((0.8, 0.02)), &["log-loss"]),
        ]));
        let expected = "\
model     split        accuracy  95 % interval     log-loss  over folds       images
ensemble  test           0.9000  [0.8800, 0.9200]    0.5000  0.8900 ± 0.0100   10000
train     out_of_fold    0.8000  [0.8800, 0.9200]    0.5000  0.8000 ± 0.0200   10000
";
        assert_eq!((&table[..], has_more), (expected, false));
    }

    #[test]
    fn a_table_has_a_hundred_columns_at_most_whatever_there_is_to_show() {
        let metrics = ["log-loss", "macro-f1", "balanced-accuracy", "weighted-precision", "roc-auc"];
        let name = "猫".repeat(40);
        let scores = ["test", "validation_selected"].map(|split| score(&name, split, 0.9, Some((0.9, 0.1)), &metrics));
        let (table, has_more) = scores_table(&evaluation(scores.to_vec()));
        assert!(has_more && table.contains("…") && table.lines().count() == 3, "{table}");
        assert!(table.lines().all(|line| width(line) <= COLUMNS), "{table}");
    }

    #[test]
    fn best_settings_can_be_pasted() {
        let settings =
            [("stages.cnn.l2", "0.001"), ("stages.pre.steps[0].per", "\"pixel\""), ("stages.cnn.vars.n", "8")];
        let best = Best {
            search: "search".into(),
            trial: "r2t1".into(),
            metric: "accuracy".into(),
            value: Some(0.5),
            deviation: Some(0.25),
            settings: settings.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
        };
        let expected = "
# best of `search`: trial r2t1, accuracy 0.5000 ± 0.2500; to paste:
[stages.cnn]
l2     = 0.001
vars.n = 8
# --set 'stages.pre.steps[0].per=\"pixel\"'
";
        assert_eq!(best_text(&best), expected);
    }

    #[test]
    fn the_report_has_the_layout_every_student_knows() {
        let row = |name: &str, x: f64, support| ClassRow { name: name.into(), precision: x, recall: x, f1: x, support };
        let report = ClassReport {
            model: "cnn".into(),
            split: "test".into(),
            classes: vec![row("cat", 0.5, 2), row("dog", 1.0, 2)],
            accuracy: 0.75,
            macro_average: row("", 0.75, 4),
            weighted_average: row("", 0.75, 4),
        };
        let expected = "cnn on test\n\n             precision    recall  f1-score   support\n\n         cat      0.50      0.50      0.50         2\n         dog      1.00      1.00      1.00         2\n\n    accuracy                          0.75         4\n   macro avg      0.75      0.75      0.75         4\nweighted avg      0.75      0.75      0.75         4\n";
        assert_eq!(classification_report(&report), expected);
    }
}
