//! How good trials were, and in which order: at the end of a round, over all of its trials in index order.

use super::{Search, Setting};
use crate::artifact::dataset::Numbers;
use crate::artifact::model::Description;
use crate::artifact::predictions::OutOfFold;
use crate::artifact::search::{Exploded, Round, Searched, TRIALS, TrialResult};
use crate::artifact::table::{Cell, Table};
use crate::artifact::{Files, Sink};
use crate::data::metrics::{self, Metric, Scored, mean_and_deviation};
use crate::stages::{Context, Delivered, Output, StageError, Task};

/// With fewer validation images a key than this, the winner of a round owes much to luck: at an accuracy of 0.9 and
/// three keys the standard error is then 0.012 or more, as much as good settings differ by.
const FEW_IMAGES_PER_KEY: usize = 200;

/// `top-k` looks at so many classes, as `evaluate` does where it is not told otherwise.
const TOP_K: usize = 5;

/// How good a fold's model is on the images of that fold.
struct FoldScore {
    n: usize,
    accuracy: f64,
    loss: f64,
    value: f64,
}

fn metric(name: &str) -> Result<&'static Metric, StageError> {
    metrics::find(name).ok_or_else(|| StageError::new(format!("there is no metric `{name}`")))
}

fn score(files: &Files, dataset: &Numbers, by: &Metric) -> Result<FoldScore, StageError> {
    let Some(predictions) = OutOfFold::read(files, 1)? else {
        return Err(StageError::new("a trial has no validation images"));
    };
    if predictions.rows().last().is_some_and(|&row| row as usize >= dataset.n_samples())
        || predictions.n_classes() < dataset.n_classes()
    {
        return Err(StageError::new("a trial predicts other images than its data set has"));
    }
    let labels: Vec<u32> = predictions.rows().iter().map(|&row| dataset.label(row as usize)).collect();
    let scored = Scored::new(&labels, predictions.probabilities(), TOP_K);
    let confusion = scored.confusion();
    let of = |metric: &Metric| (metric.compute)(&scored, &confusion);
    Ok(FoldScore { n: labels.len(), accuracy: confusion.accuracy(), loss: of(metric("log-loss")?), value: of(by) })
}

/// Mean over folds of the metric called `name`; `None` if a fold exploded.
pub(super) fn value(name: &str, folds: &[Files], dataset: &Files) -> Result<Option<f64>, StageError> {
    if folds.iter().any(Exploded::is_in) {
        return Ok(None);
    }
    let (dataset, metric) = (Numbers::read(dataset)?, metric(name)?);
    let values: Vec<f64> =
        folds.iter().map(|files| Ok(score(files, &dataset, metric)?.value)).collect::<Result<_, StageError>>()?;
    Ok(Some(mean_and_deviation(&values).0).filter(|value| value.is_finite()))
}

/// Scores and ranks the trials of a round, and writes what was found.
pub(super) fn run(
    search: &Search,
    round: u32,
    task: &Task,
    context: &dyn Context,
    sink: &mut dyn Sink,
) -> Result<(), StageError> {
    let placed = &search.placement.rounds[round as usize - 1];
    let metric = metric(search.metric)?;
    let config = &search.rounds[round as usize - 1];
    let mut results = Vec::with_capacity(placed.trials.len());
    let mut dataset: Option<(usize, Numbers)> = None;
    let mut delivered = trials_in(task).into_iter();
    for (i, (trial, node)) in placed.trials.iter().enumerate() {
        let settings = search.space.iter().zip(&trial.settings).map(|(d, &setting)| d.text(setting)).collect();
        let mut result = TrialResult {
            trial: trial.id(),
            origin: trial.origin.clone(),
            rank: i as u32,
            status: "invalid".to_owned(),
            chosen: false,
            epochs: placed.epochs,
            data_fraction: config.data_fraction,
            folds: 0,
            n_valid: 0,
            n_parameters: None,
            accuracy: None,
            loss: None,
            value: None,
            settings,
        };
        context.progress(i as u64 + 1, placed.trials.len() as u64, "trials", "");
        if node.is_none() {
            results.push(result);
            continue;
        }
        let Some((of_trial, own)) = delivered.next() else { return Err(StageError::new("a trial has no data set")) };
        let dataset = match &dataset {
            Some((from, dataset)) if *from == of_trial.from => dataset,
            _ => &dataset.insert((of_trial.from, Numbers::read(&of_trial.files)?)).1,
        };
        let is_exploded = own.iter().any(|delivered| Exploded::is_in(&delivered.files));
        let mut folds = Vec::new();
        if !is_exploded {
            for delivered in own.iter() {
                folds.push(score(&delivered.files, dataset, metric)?);
            }
        }
        let over = |of: fn(&FoldScore) -> f64| {
            let values: Vec<f64> = folds.iter().map(of).collect();
            let (mean, deviation) = mean_and_deviation(&values);
            mean.is_finite().then_some((mean, Some(deviation).filter(|x| x.is_finite())))
        };
        if let (Some(first), false) = (own.first(), is_exploded) {
            result.n_parameters = Some(Description::read(&first.files)?.n_parameters);
        }
        result.status = if is_exploded { "exploded" } else { "finished" }.to_owned();
        result.folds = own.len() as u32;
        result.n_valid = folds.iter().map(|fold| fold.n).sum();
        result.accuracy = over(|fold| fold.accuracy);
        result.loss = over(|fold| fold.loss);
        result.value = over(|fold| fold.value);
        results.push(result);
    }
    rank(&mut results, metric.is_higher_better, config.keep);
    let n_finished = results.iter().filter(|trial| trial.value.is_some()).count();
    if results.is_empty() {
        return Err(StageError::new("no trial finished within the time limit").key("time_limit").help("raise it"));
    }
    if n_finished == 0 {
        let message = format!("no trial of round {round} is left: none of {} finished", results.len());
        return Err(StageError::new(message).key("space").help("lower the upper end of the learning rate's range"));
    }
    let is_last = round as usize == search.rounds.len();
    if is_last && n_finished < search.keep as usize {
        let message = format!("`keep` is {}, but only {n_finished} trials of the last round finished", search.keep);
        return Err(StageError::new(message).key("keep").help("lower `keep`, or let the round before keep more"));
    }
    // Only the last round decides: what the ones before it would say of their own best is none of anybody's concern.
    if round as usize == search.rounds.len() {
        warn(search, &results, context);
    }
    let tuned = tuned_name(search);
    let found = Round {
        format: 1,
        round,
        metric: metric.name.to_owned(),
        is_higher_better: metric.is_higher_better,
        space: search
            .space
            .iter()
            .zip(&placed.ranges)
            .map(|(dimension, range)| Searched {
                key: dimension.key.clone(),
                name: dimension.short_name(tuned),
                range: range.toml(),
                is_log: matches!(range, super::Range::LogUniform(..)),
            })
            .collect(),
        trials: results,
    };
    found.write(sink)?;
    sink.put(TRIALS, &table(&found))?;
    Ok(())
}

/// The name of the tuned stage, which the keys of the space begin with.
fn tuned_name(search: &Search) -> &str {
    &search.placement.tuned
}

/// What was delivered of each trial that was trained, in index order: the data set, which stands directly before its
/// models, and those.
fn trials_in(task: &Task) -> Vec<(&Delivered, Vec<&Delivered>)> {
    let mut trials: Vec<(&Delivered, Vec<&Delivered>)> = Vec::new();
    for delivered in &task.inputs {
        match (delivered.output, trials.last_mut()) {
            (Output::Dataset, _) => trials.push((delivered, Vec::new())),
            (_, Some((_, models))) => models.push(delivered),
            (_, None) => {}
        }
    }
    trials
}

/// Puts trials in order, best first, equals by their place, what exploded last, and marks the `keep` best.
fn rank(trials: &mut [TrialResult], is_higher_better: bool, keep: u32) {
    trials.sort_by(|a, b| {
        let value = |trial: &TrialResult| trial.value.map(|(mean, _)| if is_higher_better { -mean } else { mean });
        match (value(a), value(b)) {
            (Some(x), Some(y)) => x.total_cmp(&y),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => std::cmp::Ordering::Equal,
        }
        .then(a.rank.cmp(&b.rank))
    });
    for (i, trial) in trials.iter_mut().enumerate() {
        trial.rank = i as u32 + 1;
        trial.chosen = trial.rank <= keep && trial.value.is_some();
    }
}

/// What a person should know before believing the winner.
fn warn(search: &Search, results: &[TrialResult], context: &dyn Context) {
    let Some(best) = results.first() else { return };
    let n_keys = search.space.len();
    if let Some((accuracy, _)) = best.accuracy
        && n_keys > 1
        && results.len() > 1
        && best.n_valid < FEW_IMAGES_PER_KEY * n_keys
        && best.n_valid > 0
    {
        let error = (accuracy * (1.0 - accuracy) / best.n_valid as f64).sqrt();
        context.warn(&format!(
            "{n_keys} keys are tuned on {} validation images, where an accuracy of {accuracy:.4} has a \
             standard error of {error:.4}: trials that are closer than that are not told apart; use more `folds` or data",
            best.n_valid
        ));
    }
    for (dimension, text) in search.space.iter().zip(&best.settings) {
        let Some(setting) = dimension.parse(text) else { continue };
        if matches!(setting, Setting::Choice(_)) {
            continue;
        }
        if let Some((side, wider)) = dimension.range.widened(setting) {
            context.warn(&format!(
                "the best trial has `{}` = {text}, at the {side} end of its range: try `{} = {}`",
                dimension.key,
                dimension.key,
                wider.toml()
            ));
        }
    }
}

/// `trials.csv`.
fn table(round: &Round) -> Vec<u8> {
    let by = round.metric.replace('-', "_");
    let has_own = !matches!(round.metric.as_str(), "accuracy" | "log-loss");
    let mut header: Vec<String> = [
        "round",
        "rank",
        "trial",
        "chosen",
        "status",
        "origin",
        "epochs",
        "data_fraction",
        "folds",
        "n_valid",
        "n_parameters",
        "mean_valid_accuracy",
        "std_valid_accuracy",
        "mean_valid_loss",
        "std_valid_loss",
    ]
    .map(str::to_owned)
    .to_vec();
    if has_own {
        header.extend([format!("mean_valid_{by}"), format!("std_valid_{by}")]);
    }
    header.extend(round.space.iter().map(|searched| format!("param_{}", searched.name)));
    let mut table = Table::new(&header);
    for trial in &round.trials {
        let pair = |value: Option<(f64, Option<f64>)>| [Cell::from(value.map(|v| v.0)), value.and_then(|v| v.1).into()];
        let mut row: Vec<Cell<'_>> = vec![
            round.round.into(),
            trial.rank.into(),
            (&trial.trial).into(),
            trial.chosen.into(),
            (&trial.status).into(),
            trial.origin.as_deref().into(),
            trial.epochs.into(),
            trial.data_fraction.into(),
            trial.folds.into(),
            trial.n_valid.into(),
            trial.n_parameters.into(),
        ];
        row.extend(pair(trial.accuracy));
        row.extend(pair(trial.loss));
        if has_own {
            row.extend(pair(trial.value));
        }
        let texts: Vec<String> = trial.settings.iter().map(|text| unquoted(text)).collect();
        row.extend(texts.iter().map(|text| Cell::from(text.as_str())));
        table.row(&row);
    }
    table.into_bytes()
}

/// The text of a string, other values as they are.
fn unquoted(toml: &str) -> String {
    let inside = toml.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inside.filter(|text| !text.contains(['\\', '"'])).unwrap_or(toml).to_owned()
}
