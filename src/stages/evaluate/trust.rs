//! How far a model's probabilities can be trusted, where something was fitted to them: what a temperature does, and what is
//! answered from which confidence on. Nothing is computed, or written, where no model has either.

use super::{Look, check_predictions, details, looks_at, number};
use crate::artifact::Sink;
use crate::artifact::dataset::Numbers;
use crate::artifact::details::Details;
use crate::artifact::evaluation::{Abstained, CALIBRATION, COVERAGE, Calibrated, TEMPERATURES};
use crate::artifact::predictions::Predictions;
use crate::artifact::table::{Cell, Table};
use crate::data::metrics::{Scored, find, wilson_interval};
use crate::stages::StageError;
use crate::stages::ensemble::Model;

/// Thresholds of a table of coverage: steps of 1 % of the images.
const STEPS: usize = 100;

/// A share of right predictions against their confidence, bin by bin.
type Bins = Vec<(u64, u64, Option<f64>)>;

/// What there is to say.
#[derive(Default)]
pub(super) struct Trust {
    /// What temperatures do, by model and split.
    pub calibrated: Vec<Calibrated>,
    /// How much is answered, by model and split.
    pub abstained: Vec<Abstained>,
    /// By model and split, whether after a temperature, and the bins.
    bins: Vec<(String, &'static str, bool, Bins)>,
    coverage: Vec<Covered>,
}

/// What is answered from a confidence on.
struct Covered {
    model: String,
    split: &'static str,
    /// `None` where each fold has its own.
    threshold: Option<f32>,
    is_chosen: bool,
    n: u64,
    n_answered: u64,
    n_wrong: u64,
}

impl Trust {
    /// Of these models and what they say.
    ///
    /// # Errors
    /// If a file is damaged, or speaks of another data set.
    pub fn of(models: &[Model<'_>], looks: &[Look], dataset: &Numbers, folds: u32) -> Result<Trust, StageError> {
        let mut trust = Trust::default();
        let has_any = |has: fn(&Model<'_>) -> bool| models.iter().any(has);
        let temperature = |model: &Model<'_>| model.fit(None).and_then(|fit| fit.temperature);
        if !has_any(|model| model.fit(None).is_some()) {
            return Ok(trust);
        }
        let has_temperatures = has_any(|model| model.fit(None).is_some_and(|fit| fit.temperature.is_some()));
        for model in models {
            let own: Vec<&Look> = looks.iter().filter(|look| look.model == model.name && look.fold.is_none()).collect();
            // In the same order: a temperature takes no rows away and adds none.
            let before: Vec<Look> = match temperature(model) {
                Some(_) => looks_at(&model.as_trained(), folds)?,
                None => Vec::new(),
            };
            let mut before = before.into_iter().filter(|look| look.fold.is_none());
            for look in own {
                let after = Judged::new(&look.predictions, dataset);
                let is_tempered = temperature(model).is_some();
                if has_temperatures {
                    trust.bins.push((model.name.clone(), look.split, is_tempered, after.bins()));
                }
                if let (Some(temperature), Some(before)) = (temperature(model), before.next()) {
                    check_predictions(&before, dataset)?;
                    let judged = Judged::new(&before.predictions, dataset);
                    let both = |metric: &str| (number(judged.value(metric)), number(after.value(metric)));
                    trust.calibrated.push(Calibrated {
                        model: model.name.clone(),
                        split: look.split.to_owned(),
                        temperature,
                        n: look.predictions.len(),
                        log_loss: both("log-loss"),
                        calibration_error: both("calibration-error"),
                    });
                    trust.bins.push((model.name.clone(), look.split, false, judged.bins()));
                }
                if let Some(error) = model.wanted_error() {
                    trust.cover(model, look, &after, error);
                }
            }
        }
        Ok(trust)
    }

    fn cover(&mut self, model: &Model<'_>, look: &Look, judged: &Judged<'_>, error: f64) {
        let answers = judged.answers();
        let n = answers.len() as u64;
        let covered = |threshold, is_chosen, (n_answered, n_wrong)| Covered {
            model: model.name.clone(),
            split: look.split,
            threshold,
            is_chosen,
            n,
            n_answered,
            n_wrong,
        };
        self.coverage.extend(
            thresholds(&answers).into_iter().map(|(threshold, counts)| covered(Some(threshold), false, counts)),
        );
        // What is said of a fold goes by the threshold that was chosen without it.
        let is_crossed = look.split != "test" && look.fold_of_row.is_some();
        let of_row = |i: usize| {
            let fold = look.fold_of_row.as_ref().filter(|_| is_crossed).map(|folds| folds[i]);
            model.fit(fold).and_then(|fit| fit.threshold)
        };
        let mut counts = (0, 0);
        for (i, &(confidence, is_right)) in answers.iter().enumerate() {
            if of_row(i).is_some_and(|threshold| confidence >= threshold) {
                counts.0 += 1;
                counts.1 += u64::from(!is_right);
            }
        }
        let threshold = model.fit(None).and_then(|fit| fit.threshold);
        self.coverage.push(covered(threshold.filter(|_| !is_crossed), true, counts));
        let is_own = look.split == "validation" && model.is_fitted_on_own_rows();
        self.abstained.push(Abstained {
            model: model.name.clone(),
            split: if is_own { "validation_selected" } else { look.split }.to_owned(),
            error,
            threshold,
            n,
            n_answered: counts.0,
            n_wrong: counts.1,
            error_interval: wilson_interval(counts.1, counts.0),
        });
    }

    /// Puts what was before temperatures into what pictures are drawn from.
    pub fn complete(&self, details: &mut Details) {
        let is_tempered =
            |model: &str, split: &str| self.calibrated.iter().any(|known| known.model == model && known.split == split);
        for split in &mut details.splits {
            let is_before = |(model, of, is_after, _): &&(String, &str, bool, Bins)| {
                *model == split.model && *of == split.split && !is_after
            };
            if is_tempered(&split.model, &split.split)
                && let Some((.., bins)) = self.bins.iter().find(is_before)
            {
                split.calibration_before.clone_from(bins);
            }
        }
    }

    /// Writes the tables that there are.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(&self, sink: &mut dyn Sink) -> Result<(), StageError> {
        if !self.calibrated.is_empty() {
            sink.put(CALIBRATION, &self.calibration())?;
            sink.put(TEMPERATURES, &self.temperatures())?;
        }
        if !self.abstained.is_empty() {
            sink.put(COVERAGE, &self.coverages())?;
        }
        Ok(())
    }

    /// `model,split,calibrated,prob_pred,prob_true,count`: a row a bin of confidences that is not empty.
    fn calibration(&self) -> Vec<u8> {
        let mut table = Table::new(&["model", "split", "calibrated", "prob_pred", "prob_true", "count"]);
        let mut sorted: Vec<_> = self.bins.iter().collect();
        sorted.sort_by_key(|(model, split, is_after, _)| (model, *split, *is_after));
        for (model, split, is_after, bins) in sorted {
            for (n, n_correct, confidence) in bins.iter().filter(|(n, ..)| *n > 0) {
                let share = *n_correct as f64 / *n as f64;
                table.row(&[
                    model.into(),
                    (*split).into(),
                    (*is_after).into(),
                    (*confidence).into(),
                    share.into(),
                    (*n).into(),
                ]);
            }
        }
        table.into_bytes()
    }

    fn temperatures(&self) -> Vec<u8> {
        let mut table = Table::new(&[
            "model",
            "split",
            "temperature",
            "n",
            "log_loss_before",
            "log_loss_after",
            "calibration_error_before",
            "calibration_error_after",
        ]);
        let mut sorted: Vec<&Calibrated> = self.calibrated.iter().collect();
        sorted.sort_by_key(|own| (&own.model, &own.split));
        for own in sorted {
            table.row(&[
                (&own.model).into(),
                (&own.split).into(),
                own.temperature.into(),
                own.n.into(),
                own.log_loss.0.into(),
                own.log_loss.1.into(),
                own.calibration_error.0.into(),
                own.calibration_error.1.into(),
            ]);
        }
        table.into_bytes()
    }

    /// `model,split,threshold,chosen,coverage,error,n_answered,n_wrong`: from the highest threshold down in steps of 1 % of
    /// the images, then what the model's own threshold gives (empty where each fold has its own, or there is none).
    fn coverages(&self) -> Vec<u8> {
        let mut table =
            Table::new(&["model", "split", "threshold", "chosen", "coverage", "error", "n_answered", "n_wrong"]);
        let mut sorted: Vec<&Covered> = self.coverage.iter().collect();
        sorted.sort_by_key(|own| (&own.model, own.split));
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        for own in sorted {
            table.row(&[
                (&own.model).into(),
                own.split.into(),
                own.threshold.map_or(Cell::Empty, Cell::from),
                own.is_chosen.into(),
                share(own.n_answered, own.n).into(),
                share(own.n_wrong, own.n_answered).into(),
                own.n_answered.into(),
                own.n_wrong.into(),
            ]);
        }
        table.into_bytes()
    }
}

/// What was said, and what is true.
struct Judged<'a> {
    said: &'a Predictions,
    labels: Vec<u32>,
}

impl<'a> Judged<'a> {
    fn new(said: &'a Predictions, dataset: &Numbers) -> Judged<'a> {
        Judged { said, labels: said.rows().iter().map(|&row| dataset.label(row as usize)).collect() }
    }

    fn scored(&self) -> Scored<'_> {
        Scored::new(&self.labels, self.said.probabilities(), 1)
    }

    fn value(&self, metric: &str) -> f64 {
        let scored = self.scored();
        find(metric).map_or(f64::NAN, |metric| (metric.compute)(&scored, &scored.confusion()))
    }

    fn bins(&self) -> Bins {
        details::bins(&self.scored())
    }

    /// Confidence, and whether it is right.
    fn answers(&self) -> Vec<(f32, bool)> {
        let answer = |i: usize| {
            let class = self.said.class(i);
            (self.said.row(i)[class], class == self.labels[i] as usize)
        };
        (0..self.labels.len()).map(answer).collect()
    }
}

/// Thresholds, the highest first, with how many are answered and how many of those wrongly: the last of each percent of the
/// answers.
fn thresholds(answers: &[(f32, bool)]) -> Vec<(f32, (u64, u64))> {
    let mut sorted = answers.to_vec();
    sorted.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (mut found, mut counts, mut step) = (Vec::new(), (0u64, 0u64), 1);
    for equals in sorted.chunk_by(|a, b| a.0 == b.0) {
        counts.0 += equals.len() as u64;
        counts.1 += equals.iter().filter(|(_, is_right)| !is_right).count() as u64;
        if counts.0 as usize * STEPS >= step * sorted.len() {
            found.push((equals[0].0, counts));
            step = counts.0 as usize * STEPS / sorted.len() + 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_go_down_a_percent_at_a_time_and_keep_equals_together() {
        let answers: Vec<(f32, bool)> = (0..1000).map(|i| ((999 - i / 2 * 2) as f32 / 1000.0, i % 10 != 7)).collect();
        let found = thresholds(&answers);
        assert_eq!((found.len(), found[0], found[99]), (100, (0.991, (10, 1)), (0.001, (1000, 100))));
        assert!(found.windows(2).all(|pair| pair[0].0 > pair[1].0 && pair[0].1.0 + 10 == pair[1].1.0));
        assert_eq!(thresholds(&[(0.5, true), (0.5, false), (0.9, true)]), [(0.9, (1, 0)), (0.5, (3, 1))]);
        assert_eq!(thresholds(&[]), []);
    }
}
