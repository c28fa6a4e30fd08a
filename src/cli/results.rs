//! What a finished run prints: headline numbers, the classification report in the layout every student knows, the gates.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::terminal::{GREEN, RED, Terminal};
use crate::artifact::evaluation::{ClassReport, Evaluation, Gain, Score};
use crate::escape::on_line;
use crate::report::Finished;

/// The evaluations of a run.
pub struct Results {
    /// By stage, in manifest order.
    evaluations: Vec<(String, Evaluation)>,
}

impl Results {
    /// Reads them from what was finished.
    pub fn of(finished: &[Finished<'_>]) -> anyhow::Result<Results> {
        let evaluations = finished
            .iter()
            .filter(|task| task.kind == "evaluate")
            .map(|task| Ok((task.stage.to_owned(), Evaluation::read(task.files)?)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Results { evaluations })
    }

    /// Whether a gate was not passed.
    pub fn has_failed_gate(&self) -> bool {
        self.evaluations.iter().any(|(_, evaluation)| !evaluation.is_passed())
    }

    /// The headline metrics by `stage.model.split.metric`, for the lock file.
    pub fn headline(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        for (stage, evaluation) in &self.evaluations {
            for score in evaluation.scores.iter().filter(|score| score.model == evaluation.model) {
                for (metric, value) in &score.metrics {
                    if let Some(value) = value {
                        out.insert(
                            format!("{stage}.{}.{}.{metric}", score.model, score.split),
                            crate::config::shortest(*value),
                        );
                    }
                }
            }
        }
        out
    }

    /// All of it as JSON.
    pub fn json(&self, pipeline: &str, computed: usize, tasks: usize) -> serde_json::Value {
        let evaluations: serde_json::Map<String, serde_json::Value> = self
            .evaluations
            .iter()
            .filter_map(|(stage, evaluation)| Some((stage.clone(), serde_json::to_value(evaluation).ok()?)))
            .collect();
        serde_json::json!({
            "pipeline": pipeline, "computed": computed, "tasks": tasks, "evaluations": evaluations,
            "gates_passed": !self.has_failed_gate(),
        })
    }

    /// All of it for people.
    pub fn text(&self, terminal: &Terminal) -> String {
        let mut text = String::new();
        for (stage, evaluation) in &self.evaluations {
            if self.evaluations.len() > 1 {
                let _ = writeln!(text, "== {stage}");
            }
            if let Some(report) = &evaluation.report {
                let _ = write!(text, "\n{}\n", classification_report(report));
            }
            for score in &evaluation.scores {
                let _ = writeln!(text, "{}", score_line(score));
            }
            let own: Vec<Gain> =
                evaluation.gains.iter().filter(|gain| gain.model == evaluation.model).cloned().collect();
            for line in gain_lines(&own) {
                let _ = writeln!(text, "{line}");
            }
            for gate in &evaluation.gates {
                let value = gate.value.map_or_else(|| "no value".to_owned(), |value| format!("{value:.4}"));
                let verdict =
                    if gate.is_passed { terminal.paint("passed", GREEN) } else { terminal.paint("FAILED", RED) };
                let _ = writeln!(
                    text,
                    "gate {} {} on {} of {}: {value}, {verdict}",
                    gate.metric, gate.expected, gate.split, gate.model
                );
            }
        }
        text
    }
}

/// `train      out_of_fold  accuracy 0.9840 [0.9761, 0.9893]  log-loss 0.0571  (1437 images, folds 0.9840 ± 0.0043)`
fn score_line(score: &Score) -> String {
    let mut line = format!("{:<12} {:<12}", score.model, score.split);
    for (metric, value) in &score.metrics {
        let Some(value) = value else { continue };
        let _ = write!(line, "  {metric} {value:.4}");
        if let ("accuracy", Some((low, high))) = (metric.as_str(), score.accuracy_interval) {
            let _ = write!(line, " [{low:.4}, {high:.4}]");
        }
    }
    let _ = write!(line, "  ({} images", score.n);
    if let Some((Some(mean), Some(deviation))) = score.over_folds.get("accuracy") {
        let _ = write!(line, ", folds {mean:.4} ± {deviation:.4}");
    }
    line.push(')');
    line
}

/// A line per ensemble and split, accuracy and log loss:
/// `both on test, over 2 members: accuracy 0.0028 higher than the best (cnn), 0.0098 higher than the mean; log-loss …`
fn gain_lines(gains: &[Gain]) -> Vec<String> {
    let of_splits = gains.chunk_by(|a, b| a.model == b.model && a.split == b.split);
    let line = |gains: &[Gain]| {
        let headline = gains.iter().filter(|gain| matches!(gain.metric.as_str(), "accuracy" | "log-loss"));
        let said = headline.map(|gain| {
            let by = |gain_over: f64| match gain_over {
                0.0 => "as good as".to_owned(),
                _ => {
                    let is_higher = (gain_over > 0.0) == gain.is_higher_better;
                    format!("{:.4} {} than", gain_over.abs(), if is_higher { "higher" } else { "lower" })
                }
            };
            let (best, mean) = (by(gain.gain_over_best), by(gain.gain_over_mean));
            format!("{} {best} the best ({}), {mean} the mean", gain.metric, gain.best_member)
        });
        let (said, first) = (said.collect::<Vec<_>>().join("; "), &gains[0]);
        format!("{} on {}, over its {} members: {said}", first.model, first.split, first.n_members)
    };
    of_splits.map(line).collect()
}

/// Scikit-learn's layout: a line per class, the accuracy, and both averages.
fn classification_report(report: &ClassReport) -> String {
    let longest = report
        .classes
        .iter()
        .map(|row| on_line(&row.name).chars().count())
        .max()
        .unwrap_or(0)
        .max("weighted avg".len());
    let mut text = format!("{} on {}\n\n", report.model, report.split);
    let _ = writeln!(text, "{:>longest$} {:>9} {:>9} {:>9} {:>9}\n", "", "precision", "recall", "f1-score", "support");
    let row = |name: &str, row: &crate::artifact::evaluation::ClassRow| {
        format!("{name:>longest$} {:>9.2} {:>9.2} {:>9.2} {:>9}\n", row.precision, row.recall, row.f1, row.support)
    };
    for class in &report.classes {
        text.push_str(&row(&on_line(&class.name), class));
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
        let expected = "both on test, over its 2 members: accuracy as good as the best (cnn), 0.0100 higher than the mean; \
                        log-loss 0.0020 higher than the best (cnn), 0.0300 lower than the mean";
        assert_eq!(gain_lines(&gains), [expected]);
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
