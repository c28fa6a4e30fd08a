//! The pictures of a search: all trials across parallel axes, and a slice for every key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Finished;
use super::svg::{Axis, Chart, ColourBar, Figure, Parallel, ParallelLine, Plot, Series, categorical, sequential};
use crate::artifact::search::{Round, TrialResult};

/// Most values that a key is given an axis of categories for; the rest are numbers, or too many to tell apart.
const MOST_CATEGORIES: usize = 24;

/// The pictures of every search of a finished run.
pub(super) fn pictures(finished: &[Finished<'_>]) -> Vec<(PathBuf, Vec<u8>)> {
    let mut searches: BTreeMap<&str, Vec<Round>> = BTreeMap::new();
    for task in finished.iter().filter(|task| task.kind == "search" && task.trial.is_none()) {
        if let Ok(round) = Round::read(task.files) {
            searches.entry(task.stage).or_default().push(round);
        }
    }
    let is_one = searches.len() == 1;
    let mut out = Vec::new();
    for (stage, mut rounds) in searches {
        rounds.sort_by_key(|round| round.round);
        let folder = if is_one { PathBuf::new() } else { Path::new(stage).to_owned() };
        out.push((folder.join("trials-parallel.svg"), parallel(stage, &rounds).to_svg()));
        out.push((folder.join("trials-slices.svg"), slices(stage, &rounds).to_svg()));
    }
    out
}

/// A key's values on an axis.
struct Column {
    name: String,
    /// In order of appearance; `None`: its values are numbers.
    categories: Option<Vec<String>>,
    is_log: bool,
    is_whole: bool,
}

impl Column {
    fn new(rounds: &[Round], i: usize) -> Column {
        let searched = &rounds[0].space[i];
        let values = || rounds.iter().flat_map(|round| &round.trials).map(|trial| trial.settings[i].as_str());
        let is_number = values().all(|text| text.parse::<f64>().is_ok());
        let mut distinct: Vec<String> = Vec::new();
        for text in values() {
            let text = text.trim_matches('"').to_owned();
            if !distinct.contains(&text) {
                distinct.push(text);
            }
        }
        let is_choice = searched.range.starts_with("{ choice");
        let is_whole = is_number && values().all(|text| text.parse::<i64>().is_ok());
        if is_number && is_choice {
            distinct.sort_by(|a, b| a.parse().unwrap_or(0.0f64).total_cmp(&b.parse().unwrap_or(0.0)));
        } else {
            distinct.sort();
        }
        let categories = (is_choice || !is_number).then_some(distinct).filter(|all| all.len() <= MOST_CATEGORIES);
        Column { name: searched.name.clone(), categories, is_log: searched.is_log, is_whole }
    }

    fn axis(&self) -> Axis {
        match &self.categories {
            Some(names) => Axis::categories(&self.name, names.clone()),
            None if self.is_log => Axis::log(&self.name),
            None if self.is_whole => Axis::whole(&self.name),
            None => Axis::linear(&self.name),
        }
    }

    fn value(&self, text: &str) -> Option<f64> {
        match &self.categories {
            Some(names) => names.iter().position(|name| name == text.trim_matches('"')).map(|i| i as f64),
            None => text.parse().ok(),
        }
    }
}

fn columns(rounds: &[Round]) -> Vec<Column> {
    let n_keys = rounds.first().map_or(0, |round| round.space.len());
    (0..n_keys).map(|i| Column::new(rounds, i)).collect()
}

fn value(trial: &TrialResult) -> Option<f64> {
    trial.value.map(|(mean, _)| mean)
}

fn note(round: &Round, trial: &TrialResult) -> String {
    let score = value(trial).map_or_else(|| trial.status.clone(), |value| format!("{} {value:.4}", round.metric));
    let settings: Vec<String> =
        round.space.iter().zip(&trial.settings).map(|(s, text)| format!("{} = {text}", s.name)).collect();
    format!("{}, {score}, {}", trial.trial, settings.join(", "))
}

fn title(rounds: &[Round]) -> String {
    let trials = || rounds.iter().flat_map(|round| &round.trials);
    let n_exploded = trials().filter(|trial| trial.value.is_none()).count();
    let exploded = if n_exploded > 0 { format!(", of which {n_exploded} exploded (grey)") } else { String::new() };
    format!("{} trials in {} rounds{exploded}", trials().count(), rounds.len())
}

/// One line a trial across all keys, coloured by how good it was: the best on top.
fn parallel(stage: &str, rounds: &[Round]) -> Figure {
    let columns = columns(rounds);
    let Some(first) = rounds.first() else { return Figure::new(stage, "") };
    let label = format!("mean validation {}", first.metric);
    let values = || rounds.iter().flat_map(|round| &round.trials).filter_map(value);
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    let (worst, best) = if first.is_higher_better { (low, high) } else { (high, low) };
    let share = |x: f64| if best == worst { 1.0 } else { (x - worst) / (best - worst) };
    let mut trials: Vec<(&Round, &TrialResult)> =
        rounds.iter().flat_map(|round| round.trials.iter().map(move |trial| (round, trial))).collect();
    let goodness = |trial: &TrialResult| value(trial).map_or(f64::NEG_INFINITY, share);
    trials.sort_by(|(_, a), (_, b)| goodness(a).total_cmp(&goodness(b)));
    let last = rounds.len() as u32;
    let lines = trials
        .into_iter()
        .map(|(round, trial)| {
            let mut values = vec![Some(f64::from(round.round))];
            values.extend(columns.iter().zip(&trial.settings).map(|(column, text)| column.value(text)));
            values.push(value(trial));
            let is_winner = round.round == last && trial.chosen;
            ParallelLine {
                values,
                colour: sequential(value(trial).map_or(f64::NAN, share)),
                width: if is_winner { 3.0 } else { 1.2 },
                opacity: if is_winner { 1.0 } else { 0.55 },
                note: note(round, trial),
            }
        })
        .collect();
    let mut axes = vec![Axis::whole("round")];
    axes.extend(columns.iter().map(Column::axis));
    axes.push(Axis::linear(&label));
    let bar = (low < high).then_some(ColourBar { label, low: worst, high: best });
    let mut figure = Figure::new(stage, title(rounds));
    figure.charts.push(Chart::Parallel(Parallel { title: String::new(), axes, lines, colour_bar: bar }));
    figure
}

/// For every key a chart of how good trials were against its value, a colour a round.
fn slices(stage: &str, rounds: &[Round]) -> Figure {
    let mut figure = Figure::new(stage, title(rounds));
    let Some(first) = rounds.first() else { return figure };
    let columns = columns(rounds);
    if columns.len() > 4 {
        figure.columns = 3;
    }
    for (i, column) in columns.iter().enumerate() {
        let y = Axis::linear(format!("mean validation {}", first.metric));
        let mut plot = Plot::new(&column.name, column.axis(), y);
        for round in rounds {
            let mut points = Vec::new();
            let mut notes = Vec::new();
            for trial in &round.trials {
                if let (Some(x), Some(y)) = (column.value(&trial.settings[i]), value(trial)) {
                    points.push((x, y));
                    notes.push(note(round, trial));
                }
            }
            if !points.is_empty() {
                let name = format!("round {}", round.round);
                let series = Series::dots(name, categorical(round.round as usize - 1), points);
                plot.series.push(Series { notes, ..series });
            }
        }
        figure.charts.push(Chart::Plot(plot));
    }
    figure
}
