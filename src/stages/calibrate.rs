//! What follows a model's training: a temperature for its probabilities (Guo et al. 2017), and the confidence from which
//! on it answers (Chow 1970). Both are fitted on what was said out of fold, never on training or test rows.
//!
//! **Temperature.** The probabilities `p` become `softmax(ln(p) / T)`, with the one T above 0 that has the smallest mean log
//! loss. In `b = 1 / T` that loss is convex: its derivative is the mean of `E[ln p] - ln p_true`, its curvature the mean
//! variance of `ln p`, both under the tempered probabilities. Newton's steps, kept between bounds that the sign of the
//! derivative moves, find the minimum; it stops when a step moves b by less than 1e-13 of itself.
//!
//! **Threshold.** Of the confidences (highest probabilities) of the rows, the least one from which on the share of wrong
//! answers is at most the wanted error. There must be `1 / error` answered rows, or a single mistake among them would be more
//! than is wanted and its absence would show nothing.

use std::borrow::Borrow;

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::{Flow, StageError};
use crate::artifact::calibration::{Calibration, Fit, Fits};
use crate::artifact::dataset::Numbers;
use crate::artifact::predictions::{OutOfFold, Predictions};
use crate::config::{Bounds, Choice, Form, Log, Problem, Section, Short, Span, Value};
use crate::elementary::{exp, ln};

/// The choice of `calibrate`.
const TEMPERATURE: &str = "temperature";
/// The name of the threshold's room.
const ABSTAIN: &str = "abstain";
/// Least probability that is looked at: what is smaller was rounded to 0 by single precision.
const LEAST: f32 = f32::MIN_POSITIVE;
/// The largest temperature, and one over the least. A minimum beyond is none: all rows are right, or none is better than
/// guessed.
const MOST: f64 = 100.0;
/// Steps after which it stops in any case; ten are usual.
const MAX_STEPS: usize = 200;
/// Relative length of a step at which it stops.
const TOLERANCE: f64 = 1e-13;

/// The keys `calibrate` and `abstain` of a stage that makes a model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Calibrate {
    /// Whether probabilities get a temperature [no].
    has_temperature: bool,
    /// The wanted error among answered images, above 0, at most 1; absent: all are answered.
    error: Option<f64>,
}

impl Calibrate {
    /// Reads both keys.
    pub fn read(section: &mut Section<'_>) -> Calibrate {
        let choices: &[Choice<()>] = &[Choice {
            word: TEMPERATURE,
            meaning: "One number that logarithms of probabilities are divided by (Guo et al. 2017).",
            read: |_| (),
        }];
        let meaning =
            "How probabilities are made as sure as they are right, out of fold; absent: they stay as they are.";
        let has_temperature = section.key("calibrate", meaning, "\"temperature\"").choice(choices, None).is_some();
        let meaning = "The model answers where it is sure enough, and abstains elsewhere; absent: it always answers.";
        let key = section.key("abstain", meaning, "{ error = 0.02 }");
        let error = key.table_or(
            Vec::<Form>::new(),
            |node| match node.value {
                Value::Float(error) => Short::Unclear(Some(format!("write `abstain = {{ error = {error} }}`"))),
                _ => Short::Unclear(Some("write `abstain = { error = 0.02 }`".to_owned())),
            },
            |section| {
                let meaning = "The wanted share of wrong answers among the answered images.";
                section.key("error", meaning, "0.02").number(Bounds::Share).required()
            },
        );
        Calibrate { has_temperature, error }
    }

    /// Whether something is fitted.
    pub fn is_asked(self) -> bool {
        self.has_temperature || self.error.is_some()
    }

    /// Whether probabilities get a temperature.
    pub fn has_temperature(self) -> bool {
        self.has_temperature
    }

    /// Whether the model may abstain.
    pub fn abstains(self) -> bool {
        self.error.is_some()
    }

    /// What validation rows do to it.
    pub fn chosen(self) -> &'static str {
        if self.has_temperature { "sets its temperature" } else { "sets its threshold" }
    }

    /// Warns of a single fold, whose rows say nothing of what was fitted on them.
    pub fn warn_of_one_fold(self, folds: u32, span: Span, log: &mut Log) {
        if folds != 1 || !self.is_asked() {
            return;
        }
        let key = self.key();
        let message = format!(
            "with `folds = 1`, `{key}` is fitted on the validation images, about which it is then `validation_selected`"
        );
        let problem = Problem::warning(log.span_of(key, span), message);
        log.push(problem.help("use more `folds`, over which it is cross-fitted"));
    }

    /// The key that asks for it.
    pub fn key(self) -> &'static str {
        if self.has_temperature { "calibrate" } else { ABSTAIN }
    }

    /// Whether a key, dotted, is one of these.
    pub fn owns(key: &str) -> bool {
        let head = key.split('.').next().unwrap_or_default();
        ["calibrate", ABSTAIN].contains(&head)
    }

    /// The rooms of what is fitted.
    pub fn rooms(self) -> impl Iterator<Item = &'static str> {
        self.has_temperature.then_some(TEMPERATURE).into_iter().chain(self.error.map(|_| ABSTAIN))
    }

    /// Fits what is asked for to models, each by what it says of its folds out of fold; returns it with what is worth a
    /// warning.
    ///
    /// # Determinism
    /// Sums run over folds and rows in order, in double precision.
    ///
    /// # Errors
    /// If a model has said nothing out of fold, or speaks of another data set.
    pub fn fit(self, models: &[Vec<OutOfFold>], dataset: &Numbers) -> Result<(Calibration, Vec<String>), StageError> {
        let mut fitted = Vec::with_capacity(models.len());
        for folds in models {
            if folds.iter().all(|said| said.is_empty()) {
                let message = format!("`{}` is fitted on out-of-fold predictions, and there are none", self.key());
                return Err(StageError::new(message).key(self.key()));
            }
            let n_samples = dataset.n_samples();
            let is_other = |said: &OutOfFold| {
                said.n_classes() != dataset.n_classes()
                    || said.rows().last().is_some_and(|&row| row as usize >= n_samples)
            };
            if folds.iter().any(is_other) {
                return Err(StageError::new("a model that is to be calibrated predicts another data set than its own"));
            }
            let folds: Vec<Rows> = folds.iter().map(|said| Rows::new(said, dataset)).collect();
            // All rows first, then all but each fold; nothing is crossed where there is one fold.
            let n_fits = if folds.len() == 1 { 1 } else { 1 + folds.len() };
            let fit = |i: usize| {
                let others = folds.iter().enumerate().filter(|(fold, _)| i == 0 || *fold != i - 1);
                self.fit_on(&others.map(|(_, rows)| rows).collect::<Vec<_>>())
            };
            let fits: Vec<Fit> = (0..n_fits).into_par_iter().map(fit).collect();
            fitted.push(Fits { all: fits[0], without_fold: fits[1..].to_vec() });
        }
        let warnings = fitted.first().map_or_else(Vec::new, |first| self.warnings(first.all));
        Ok((Calibration::new(self.error, fitted), warnings))
    }

    fn fit_on(self, folds: &[&Rows<'_>]) -> Fit {
        let temperature = self.has_temperature.then(|| temperature(folds));
        let threshold = self.error.and_then(|error| {
            let answers = folds.iter().flat_map(|rows| {
                let said = temperature.map(|t| tempered(rows.said, t));
                let answer = |i: usize| {
                    let said = said.as_ref().unwrap_or(rows.said);
                    let class = said.class(i);
                    (said.row(i)[class], class == rows.labels[i] as usize)
                };
                (0..rows.labels.len()).map(answer).collect::<Vec<_>>()
            });
            threshold(answers.collect(), error)
        });
        Fit { n: folds.iter().map(|rows| rows.labels.len()).sum(), temperature, threshold }
    }

    /// What a person should know of a fit.
    fn warnings(self, fit: Fit) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(temperature) = fit.temperature.filter(|&t| is_at_end(t)) {
            let why = match temperature < 1.0 {
                true => "the surer the model is, the better: next to no image is wrong out of fold",
                false => "the model says next to nothing about its images out of fold",
            };
            warnings.push(format!("the temperature is {temperature}, at the end of its range: {why}"));
        }
        if let (Some(error), None) = (self.error, fit.threshold) {
            warnings.push(format!(
                "no confidence keeps the error among answered images at {error} out of fold, on {} images of which at \
                 least {:.0} must be answered: the model abstains on every image",
                fit.n,
                (1.0 / error).ceil()
            ));
        }
        warnings
    }
}

/// The rooms that reading what a stage says computes with, beside those of who reads it.
pub(super) fn rooms_of(flow: &Flow) -> Option<&'static str> {
    flow.has_temperature.then_some(TEMPERATURE)
}

/// What was said of labelled rows.
struct Rows<'a> {
    said: &'a Predictions,
    labels: Vec<u32>,
    /// Logarithms of the probabilities, `[n, n_classes]`.
    logs: Vec<f64>,
}

impl<'a> Rows<'a> {
    fn new(said: &'a OutOfFold, dataset: &Numbers) -> Rows<'a> {
        let said: &Predictions = said.borrow();
        let labels = said.rows().iter().map(|&row| dataset.label(row as usize)).collect();
        Rows { said, labels, logs: said.probabilities().iter().map(|&p| log(p)).collect() }
    }
}

fn log(p: f32) -> f64 {
    // What is not a number is less than the least.
    ln(f64::from(if p >= LEAST { p } else { LEAST }))
}

fn is_at_end(temperature: f64) -> bool {
    temperature >= MOST * (1.0 - 1e-9) || temperature <= (1.0 + 1e-9) / MOST
}

/// The temperature with the smallest mean log loss, from 0.01 to 100.
fn temperature(folds: &[&Rows<'_>]) -> f64 {
    let (mut low, mut high) = (1.0 / MOST, MOST);
    let mut b = 1.0;
    for (end, is_beyond) in [(low, (|slope| slope >= 0.0) as fn(f64) -> bool), (high, |slope| slope <= 0.0)] {
        if is_beyond(derivatives(folds, end).0) {
            return 1.0 / end;
        }
    }
    for _ in 0..MAX_STEPS {
        let (slope, curvature) = derivatives(folds, b);
        if slope == 0.0 {
            break;
        }
        if slope > 0.0 {
            high = b;
        } else {
            low = b;
        }
        let newton = b - slope / curvature;
        if (newton - b).abs() <= TOLERANCE * b {
            b = newton;
            break;
        }
        // No step without a curvature, and none out of the bounds.
        b = if newton > low && newton < high { newton } else { (low * high).sqrt() };
    }
    1.0 / b
}

/// The first and the second derivative of the mean log loss by `b = 1 / T`.
fn derivatives(folds: &[&Rows<'_>], b: f64) -> (f64, f64) {
    let (mut slope, mut curvature, mut n) = (0.0, 0.0, 0usize);
    let mut shares = Vec::new();
    for rows in folds {
        let n_classes = rows.said.n_classes();
        n += rows.labels.len();
        for (logs, &label) in rows.logs.chunks_exact(n_classes.max(1)).zip(&rows.labels) {
            shares.clear();
            shares.extend(logs.iter().map(|z| b * z));
            softmax(&mut shares);
            let mean = shares.iter().zip(logs).fold(0.0, |sum, (q, z)| sum + q * z);
            let variance = shares.iter().zip(logs).fold(0.0, |sum, (q, z)| sum + q * ((z - mean) * (z - mean)));
            slope += mean - logs[label as usize];
            curvature += variance;
        }
    }
    (slope / n as f64, curvature / n as f64)
}

/// Probabilities at this temperature: `softmax(ln(p) / temperature)`. The order of classes stays.
///
/// # Determinism
/// In double precision, class by class; rounded once at the end.
pub(super) fn tempered(said: &Predictions, temperature: f64) -> Predictions {
    let n_classes = said.n_classes();
    let b = 1.0 / temperature;
    let mut shares = Vec::with_capacity(n_classes);
    let mut probabilities = Vec::with_capacity(said.len() * n_classes);
    for i in 0..said.len() {
        shares.clear();
        shares.extend(said.row(i).iter().map(|&p| b * log(p)));
        softmax(&mut shares);
        probabilities.extend(shares.iter().map(|&p| p as f32));
    }
    Predictions::new(said.rows().to_vec(), n_classes, probabilities)
}

/// Scores become probabilities; returns the logarithm of what they were divided by, plus the largest score.
pub(super) fn softmax(scores: &mut [f64]) -> f64 {
    let largest = scores.iter().fold(f64::NEG_INFINITY, |largest, &score| largest.max(score));
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = exp(*score - largest);
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
    largest + ln(sum)
}

/// The least confidence from which on at most this share of `answers` (confidence, whether it is right) is wrong.
fn threshold(mut answers: Vec<(f32, bool)>, error: f64) -> Option<f32> {
    answers.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (mut n, mut n_wrong, mut found) = (0u64, 0u64, None);
    // Equals are answered together or not at all.
    for equals in answers.chunk_by(|a, b| a.0 == b.0) {
        n += equals.len() as u64;
        n_wrong += equals.iter().filter(|(_, is_right)| !is_right).count() as u64;
        let most = error * n as f64;
        if n_wrong as f64 <= most && most >= 1.0 {
            found = Some(equals[0].0);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Files;
    use crate::artifact::predictions::VALIDATION;
    use crate::rng::Stream;
    use crate::stages::testing::{self, MemorySink};
    use crate::tensor::ImageShape;

    /// What is said out of fold, as it is read from a fold's file.
    fn out_of_fold(rows: Vec<u32>, probabilities: Vec<f32>, n_classes: usize) -> OutOfFold {
        let mut sink = MemorySink::default();
        Predictions::new(rows, n_classes, probabilities).write(&mut sink, VALIDATION).unwrap();
        let files: Files = sink.files();
        OutOfFold::read(&files, 1).unwrap().unwrap()
    }

    /// A data set of these labels.
    fn numbers(labels: &[u32], n_classes: u32) -> Numbers {
        let shape = ImageShape { height: 1, width: 1, channels: 1 };
        // Classes are counted by the labels that are there.
        let all: Vec<u32> = labels.iter().copied().chain(0..n_classes).collect();
        let (files, _) = testing::dataset(shape, &all, &vec![0; all.len()]);
        Numbers::read(&files).unwrap()
    }

    /// Labels that are drawn from probabilities of 3 classes, and what is said of them: the same probabilities at
    /// `1 / sharpness`.
    fn drawn(n: u32, sharpness: f64) -> (Vec<u32>, Vec<OutOfFold>) {
        let stream = Stream::new(9, "test temperature", &[]);
        let (mut labels, mut folds) = (Vec::new(), vec![(Vec::new(), Vec::new()); 4]);
        for i in 0..n {
            let mut p: Vec<f64> = (0..3).map(|class| 4.0 * stream.uniform(u64::from(i * 4 + class))).collect();
            let mut said: Vec<f64> = p.iter().map(|z| sharpness * z).collect();
            softmax(&mut p);
            softmax(&mut said);
            let u = stream.uniform(u64::from(i * 4 + 3));
            labels.push(u32::from(u >= p[0]) + u32::from(u >= p[0] + p[1]));
            let (rows, probabilities): &mut (Vec<u32>, Vec<f32>) = &mut folds[(i % 4) as usize];
            rows.push(i);
            probabilities.extend(said.iter().map(|&p| p as f32));
        }
        (labels, folds.into_iter().map(|(rows, p)| out_of_fold(rows, p, 3)).collect())
    }

    const TEMPERED: Calibrate = Calibrate { has_temperature: true, error: None };

    fn loss(folds: &[OutOfFold], labels: &[u32], temperature: f64) -> f64 {
        let mut sum = 0.0;
        for said in folds {
            let said = tempered(said, temperature);
            sum += (0..said.len()).map(|i| -log(said.row(i)[labels[said.rows()[i] as usize] as usize])).sum::<f64>();
        }
        sum
    }

    #[test]
    fn the_temperature_undoes_what_was_made_too_sure_or_not_sure_enough() {
        for sharpness in [0.4, 1.0, 3.0] {
            let (labels, folds) = drawn(8000, sharpness);
            let (fitted, warnings) = TEMPERED.fit(std::slice::from_ref(&folds), &numbers(&labels, 3)).unwrap();
            let found = fitted.models[0].all.temperature.unwrap();
            assert!((found / sharpness - 1.0).abs() < 0.06, "{found} for {sharpness}");
            assert_eq!((warnings.len(), fitted.models[0].all.n), (0, 8000));
            let best = loss(&folds, &labels, found);
            for other in [0.98, 0.999, 1.001, 1.02] {
                assert!(loss(&folds, &labels, other * found) >= best, "{other}");
            }
        }
    }

    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        labels: Vec<u32>,
        probabilities: Vec<Vec<f32>>,
        temperature: f64,
        loss: f64,
        tempered: Vec<Vec<f64>>,
        thresholds: Vec<(f64, Option<f32>)>,
    }

    #[test]
    fn temperatures_and_thresholds_agree_with_scipy() {
        let text = include_str!("../../tests/reference/temperature.json");
        for case in serde_json::from_str::<Vec<Case>>(text).unwrap() {
            let (n, n_classes) = (case.labels.len(), case.probabilities[0].len());
            let numbers = numbers(&case.labels, n_classes as u32);
            let rows = |from: usize, to: usize| {
                out_of_fold((from as u32..to as u32).collect(), case.probabilities[from..to].concat(), n_classes)
            };
            // However rows are dealt out, all of them count.
            let folds = [vec![rows(0, n / 3), rows(n / 3, n)]];
            let found = TEMPERED.fit(&folds, &numbers).unwrap().0.models[0].all.temperature.unwrap();
            assert!((found / case.temperature - 1.0).abs() < 1e-9, "{}: {found}, not {}", case.name, case.temperature);
            let said = tempered(&rows(0, n), found);
            for (i, expected) in case.tempered.iter().enumerate() {
                for (got, expected) in said.row(i).iter().zip(expected) {
                    assert!((f64::from(*got) - expected).abs() < 1e-7, "{}: {got}, not {expected}", case.name);
                }
            }
            let labels: Vec<usize> = case.labels.iter().map(|&label| label as usize).collect();
            let mean = (0..n).map(|i| -log(said.row(i)[labels[i]])).sum::<f64>() / n as f64;
            assert!((mean - case.loss).abs() < 1e-6, "{}: {mean}, not {}", case.name, case.loss);
            for (error, expected) in case.thresholds {
                let keys = Calibrate { has_temperature: false, error: Some(error) };
                let (fitted, warnings) = keys.fit(&folds, &numbers).unwrap();
                assert_eq!(fitted.models[0].all.threshold, expected, "{}: {error}", case.name);
                assert_eq!(warnings.len(), usize::from(expected.is_none()), "{warnings:?}");
            }
        }
    }

    #[test]
    fn what_is_said_of_a_fold_goes_by_the_others_alone() {
        let (labels, folds) = drawn(400, 2.0);
        let fit = |labels: &[u32]| {
            TEMPERED.fit(std::slice::from_ref(&folds), &numbers(labels, 3)).unwrap().0.models.remove(0)
        };
        let before = fit(&labels);
        let other = labels.iter().enumerate().map(|(i, label)| if i % 4 == 2 { (label + 1) % 3 } else { *label });
        let after = fit(&other.collect::<Vec<_>>());
        assert_eq!(before.of(Some(3)), after.of(Some(3)));
        for fold in [None, Some(1), Some(2), Some(4)] {
            assert_ne!(before.of(fold), after.of(fold), "{fold:?}");
        }
        assert!(!before.is_of_own_rows());
        let (one, _) = TEMPERED.fit(&[vec![folds[0].clone()]], &numbers(&labels, 3)).unwrap();
        assert!(one.models[0].is_of_own_rows() && one.models[0].of(Some(1)) == one.models[0].all);
    }

    #[test]
    fn the_order_of_classes_stays_and_a_temperature_of_one_changes_nothing_much() {
        let (_, folds) = drawn(300, 2.0);
        for temperature in [0.3, 1.0, 7.0] {
            let said = tempered(&folds[0], temperature);
            for i in 0..said.len() {
                assert_eq!(said.class(i), folds[0].class(i));
                assert!((said.row(i).iter().sum::<f32>() - 1.0).abs() < 1e-6);
                let apart = said.row(i).iter().zip(folds[0].row(i)).all(|(a, b)| (a - b).abs() < 1e-6);
                assert!(temperature != 1.0 || apart);
            }
        }
        // Probabilities that single precision rounded to 0 stay numbers.
        let said = tempered(&Predictions::new(vec![0], 3, vec![1.0, 0.0, 0.0]), 50.0);
        assert!(said.row(0).iter().all(|p| p.is_finite() && *p > 0.0), "{:?}", said.row(0));
    }

    #[test]
    fn without_a_mistake_there_is_no_minimum_and_it_is_told() {
        let said = || out_of_fold(vec![0, 1], vec![0.9, 0.1, 0.2, 0.8], 2);
        let (fitted, warnings) = TEMPERED.fit(&[vec![said()]], &numbers(&[0, 1], 2)).unwrap();
        assert_eq!(fitted.models[0].all.temperature, Some(0.01));
        assert!(warnings[0].contains("at the end of its range"), "{warnings:?}");
        let (fitted, warnings) = TEMPERED.fit(&[vec![said()]], &numbers(&[1, 0], 2)).unwrap();
        assert_eq!(fitted.models[0].all.temperature, Some(100.0));
        assert!(warnings[0].contains("next to nothing"), "{warnings:?}");
        let nothing = out_of_fold(Vec::new(), Vec::new(), 2);
        let error = TEMPERED.fit(&[vec![nothing]], &numbers(&[0, 1], 2)).unwrap_err();
        assert_eq!(error.message, "`calibrate` is fitted on out-of-fold predictions, and there are none");
    }

    #[test]
    fn the_threshold_answers_as_many_as_the_wanted_error_allows() {
        let answers = |wrong: &[usize]| -> Vec<(f32, bool)> {
            (0..100).map(|i| (1.0 - i as f32 / 200.0, !wrong.contains(&i))).collect()
        };
        for (wrong, error, expected) in [
            // 20 answered have no mistake, 40 have two, and then there are more.
            (&[30, 35, 41, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95][..], 0.05, Some(40)),
            (&[][..], 0.02, Some(99)),
            (&[0][..], 0.01, Some(99)),
            // The surest is wrong, and 50 answers are too few for 1 in 100.
            (&[50][..], 0.01, Some(99)),
            (&[50, 51][..], 0.01, None),
            (&[0, 1, 2, 3][..], 0.02, None),
            (&[0, 1, 2, 3][..], 1.0, Some(99)),
        ] {
            let found = threshold(answers(wrong), error);
            assert_eq!(found, expected.map(|last: usize| answers(&[])[last].0), "{wrong:?} {error}");
        }
        // Equals are answered together: the mistake among them counts.
        let equals = [vec![(0.9, true); 19], vec![(0.8, true), (0.8, false)], vec![(0.7, false); 9]].concat();
        assert_eq!(threshold(equals.clone(), 0.05), Some(0.8));
        assert_eq!(threshold(equals, 0.04), None);
    }
}
