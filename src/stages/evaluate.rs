//! `evaluate`: numbers about a model and its members, on the test split and out of fold.
//!
//! What is reported under which name: `test` is the held-out split, by the final model (no fold) and by each fold's
//! model; `out_of_fold` is what each fold's model says of the rows it was not fitted on, by fold and all folds
//! together; `validation` is the same with a single split. Where those rows chose the model they are
//! `validation_selected` and nothing else. No network runs here: a changed metric, gate or interval is a matter of
//! seconds. Tables are in `evaluate/tables.rs`, gates in `evaluate/gate.rs` (short) and `evaluate/listed.rs` (as a list),
//! comparisons of models in `evaluate/gain.rs`.

mod details;
mod gain;
mod gate;
mod groups;
mod listed;
mod suspects;
mod tables;
#[cfg(test)]
mod tests;
mod trust;

use std::collections::BTreeMap;

use super::calibrate;
use super::ensemble::{Model, models, prediction_needs};
use super::{
    Context, Flow, Glance, Kind, Learns, Need, Output, Part, Places, Source, Stage, StageError, Task, Tried, Upstream,
    lineage, pictures,
};
use crate::artifact::Sink;
use crate::artifact::dataset::{
    CLASSES, COLUMNS_FILES, Columns, DESCRIPTION, IMAGES, INDEX, NAMES, NAMES_FILES, Numbers,
};
use crate::artifact::evaluation::{
    BY, COMPARISONS, CONFUSION, CURVES, ClassReport, ClassRow, Evaluation, GAINS, METRICS as METRICS_TABLE,
    PREDICTIONS, Score,
};
use crate::artifact::gallery::Mistake;
use crate::artifact::predictions::Predictions;
use crate::config::{Form, Log, Problem, Section, Span, Value, quote};
use crate::data::fit_set::Place;
use crate::data::metrics::{
    Average, ClassScores, Confusion, METRICS, Metric, Scored, find, intervals, mean_and_deviation, sample_log_loss,
    suggest, wilson_interval,
};
use crate::data::samples::Samples as _;
use gate::Gate;
pub use listed::{Baseline, Listed, is_lock};

/// The line in the list.
pub const KIND: Kind = Kind {
    name: "evaluate",
    read,
    example: "schema = 1\nname = \"example\"\n\n[stages.ingest]\nsource = \"builtin:digits\"\n\n[stages.split]\n\n\
              [stages.train]\narchitecture = \"INPUT - FC\"\n\n[stages.evaluate]\nmetrics = [\"accuracy\", \"log-loss\"]\n\
              gates = { accuracy = \">= 0.5\" }\n",
};

/// What is read of a data set for pictures of its images.
const PICTURE_FILES: &[&str] = &[IMAGES, INDEX, DESCRIPTION, NAMES, CLASSES];

/// Evaluates a model.
pub struct Evaluate {
    /// Names of metrics; by default accuracy, balanced accuracy, log loss, and macro and weighted averages of
    /// precision, recall and F1. Precision, recall, F1 and support by class are always there.
    metrics: Vec<&'static Metric>,
    /// How many most probable classes `top-k` looks at. Default 5.
    top_k: usize,
    /// What metrics must reach: `{ accuracy = ">= 0.97" }` on the test split of the input, or for a model by name
    /// (`{ cnn = { accuracy = ">= 0.95" } }`) on the test split, else out of fold. Or how much worse than a baseline
    /// they may be: `{ accuracy = { baseline = "cnn", max_drop = 0.01 } }` (default 0), where the baseline is a number,
    /// a model that is evaluated here, or the `metrics.csv` of another run (relative to the manifest).
    gates: Vec<Gate>,
    /// The same as a list, per model, split, class and group: `[{ metric = "recall", class = "pneumonia", at_least = 0.9 }]`.
    listed: Vec<Listed>,
    /// Data sets that are drawn for the 95 % percentile interval of every metric, from 100; absent: only the accuracy
    /// has an interval, that of Wilson, which it keeps.
    bootstrap: Option<u32>,
    /// Columns that `ingest` keeps: every metric also of the images of each of their values apart.
    by: Vec<String>,
}

impl std::fmt::Debug for Evaluate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.metrics.iter().map(|metric| metric.name).collect();
        f.debug_struct("Evaluate")
            .field("metrics", &names)
            .field("top_k", &self.top_k)
            .field("gates", &self.gates)
            .field("listed", &self.listed)
            .field("bootstrap", &self.bootstrap)
            .field("by", &self.by)
            .finish()
    }
}

fn read(section: &mut Section<'_>) -> Box<dyn Stage> {
    let metrics = read_metrics(section);
    let top_k = section.key("top_k", "How many most probable classes `top-k` looks at.", "3").whole(1..=1_000_000).or(5)
        as usize;
    let bootstrap = section
        .key(
            "bootstrap",
            "Data sets drawn for the 95 % interval of every metric; absent: only the accuracy has one.",
            "1000",
        )
        .whole(100..=1_000_000)
        .optional()
        .map(|n| n as u32);
    let meaning = "Columns that `ingest` keeps: metrics also by each of their values apart, and of the worst.";
    let by = super::read_names(section, "by", meaning, "[\"camera\"]");
    let (gates, listed) = listed::read(section, &metrics);
    Box::new(Evaluate { metrics, top_k, gates, listed, bootstrap, by })
}

fn read_metrics(section: &mut Section<'_>) -> Vec<&'static Metric> {
    let mut metrics: Vec<&'static Metric> = Vec::new();
    let mut span = None;
    let default = names_of(METRICS.iter().filter(|metric| metric.is_default));
    let form = || Form::List(Box::new(metric_form()), 0..=usize::MAX);
    let meaning = "What is reported, besides precision, recall, F1 and support by class.";
    match section.key("metrics", meaning, "[\"accuracy\", \"log-loss\"]").form(Some(&default), form) {
        None => metrics.extend(METRICS.iter().filter(|metric| metric.is_default)),
        Some(node) => match &node.value {
            Value::List(items) => {
                span = Some(node.span);
                for item in items {
                    match &item.value {
                        Value::Text { text, .. } => match find(text) {
                            Some(metric) if metrics.iter().any(|known| known.name == metric.name) => {}
                            Some(metric) => metrics.push(metric),
                            None => {
                                let problem = Problem::error(item.span, format!("unknown metric `{text}`"));
                                section.log().push(problem.help(suggest(text)));
                            }
                        },
                        _ => section.expected("metrics", item, "names of metrics"),
                    }
                }
            }
            other => {
                section.expected("metrics", node, "a list of names of metrics");
                if let Value::Text { text, .. } = other {
                    section.advise("metrics", format!("write `metrics = [{}]`", quote(text)));
                }
            }
        },
    }
    section.record("metrics", names_of(metrics.iter().copied()), span);
    metrics
}

/// The names of metrics, as a list.
fn names_of<'m>(metrics: impl Iterator<Item = &'m Metric>) -> String {
    format!("[{}]", metrics.map(|metric| quote(metric.name)).collect::<Vec<_>>().join(", "))
}

/// The name of a metric.
fn metric_form() -> Form {
    Form::Words(METRICS.iter().map(|metric| (metric.name.to_owned(), metric.meaning)).collect())
}

/// The stages whose predictions an evaluation of `stage` reads: itself, then its members, theirs, and so on.
fn evaluated(stage: usize, upstream: &Upstream<'_>) -> Vec<usize> {
    let mut stages = vec![stage];
    let mut next = 0;
    while next < stages.len() {
        let node = &upstream.nodes[stages[next]];
        if node.flow.output == Output::Ensemble {
            for &member in &node.inputs {
                if !stages.contains(&member) {
                    stages.push(member);
                }
            }
        }
        next += 1;
    }
    stages
}

impl Stage for Evaluate {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn rooms(&self, part: Part, upstream: &Upstream<'_>) -> Vec<&'static str> {
        let input = upstream.nodes[upstream.own].inputs.first().copied();
        let temperature = |stage: usize| calibrate::rooms_of(&upstream.nodes[stage].flow);
        if part == Part::Pictures {
            return ["mean-probability", "pictures"].into_iter().chain(input.and_then(temperature)).collect();
        }
        let models = input.map(|input| evaluated(input, upstream)).unwrap_or_default();
        if part == Part::Suspects {
            let temperature = models.into_iter().find_map(temperature);
            return ["mean-probability", "suspects"].into_iter().chain(temperature).collect();
        }
        let is_calibrated = models.iter().any(|&stage| upstream.nodes[stage].flow.is_calibrated());
        // What a model says of the test split is the mean of its folds.
        [KIND.name, "intervals", "mean-probability", "metrics"]
            .into_iter()
            .chain(self.bootstrap.map(|_| "bootstrap"))
            .chain(is_calibrated.then_some("trust"))
            .chain(models.into_iter().find_map(temperature))
            .collect()
    }

    fn accepts(&self) -> &'static [Output] {
        &[Output::Model, Output::Ensemble]
    }

    fn uses_seed(&self) -> bool {
        self.bootstrap.is_some()
    }

    fn sources(&self, places: &Places) -> Result<Vec<Source>, StageError> {
        let mut sources = gate::sources(&self.gates, places)?;
        sources.extend(listed::sources(&self.listed, places)?);
        Ok(sources)
    }

    fn reads_names(&self) -> bool {
        true
    }

    fn listed_gates(&self) -> &[Listed] {
        &self.listed
    }

    fn try_on(&self, _: Option<&Flow>, glance: Option<&Glance>, _: u64) -> Result<Tried, StageError> {
        let Some(glance) = glance else { return Ok(Tried::default()) };
        let has_groups = glance.groups.iter().any(Option::is_some);
        let own = self.listed.iter().filter(|gate| !gate.is_of_lock()).enumerate();
        let mut wrong = own.filter_map(|(n, gate)| gate.unknown_name(n, &glance.classes, has_groups));
        wrong.next().map_or_else(|| Ok(Tried::default()), Err)
    }

    fn check(&self, inputs: &[Flow], span: Span, log: &mut Log) -> Flow {
        let input = &inputs[0];
        if !input.has_test {
            for gate in self.gates.iter().filter(|gate| gate.model.is_none()) {
                let metric = gate.metric.name;
                let message = format!("a gate on `{metric}` means the test split, but `test = 0` holds out nothing");
                let help = format!("name a model that has a score: `{{ NAME = {{ {metric} = \"{}\" }} }}`", gate.text);
                log.push(Problem::error(gate.span, message).help(help));
            }
        }
        if let Some(n_classes) = input.n_classes
            && self.metrics.iter().any(|metric| metric.name == "top-k")
            && self.top_k >= n_classes
        {
            let span = log.span_of("top_k", log.span_of("metrics", span));
            let message = format!("with {n_classes} classes the first {} are always right", self.top_k);
            log.push(Problem::warning(span, message).help("set `top_k` to less than the number of classes"));
        }
        Flow { output: Output::Evaluation, ..input.clone() }
    }

    fn check_graph(&self, upstream: &Upstream<'_>, log: &mut Log) {
        let Some(&input) = upstream.nodes[upstream.own].inputs.first() else { return };
        let stages = evaluated(input, upstream);
        let named = self.gates.iter().filter_map(|gate| Some((gate.model.as_deref()?, gate.model_span)));
        let baselines = self.gates.iter().filter_map(Gate::baseline_model);
        let listed = self.listed.iter().flat_map(Listed::models);
        for (name, span) in named.chain(baselines).chain(listed) {
            let names = || stages.iter().map(|&stage| upstream.nodes[stage].name.as_str());
            let Some(at) = names().position(|known| known == name) else {
                let mut problem = Problem::error(span, format!("no model `{name}` is evaluated here"));
                problem.help = crate::config::did_you_mean(name, names())
                    .or_else(|| Some(format!("the models here are `{}`", names().collect::<Vec<_>>().join("`, `"))));
                log.push(problem);
                continue;
            };
            let node = &upstream.nodes[stages[at]];
            if !node.flow.has_test && !has_validation_score(stages[at], upstream) {
                let message = format!(
                    "`{name}` has no score: nothing is held out for a test, and an ensemble of folds has none out of fold"
                );
                log.push(Problem::error(span, message).help("hold out a test split, or name its member"));
            }
        }
        let last = upstream.nodes[input].name.as_str();
        let short = self.gates.iter().map(|gate| (gate.model.as_deref().unwrap_or(last), gate.baseline_model()));
        let listed = self.listed.iter().map(|gate| (gate.model_or(last), gate.baseline_model()));
        for (own, baseline) in short.chain(listed) {
            let Some((baseline, at)) = baseline.filter(|(baseline, _)| *baseline == own) else { continue };
            let problem = Problem::error(at, format!("`{baseline}` is compared with itself: this gate cannot fail"));
            log.push(problem.help("name another model, a lock file or a number as the baseline"));
        }
        let ingest = upstream.own_lineage().first().map(|&stage| &upstream.nodes[stage]);
        let kept = ingest.map_or(&[][..], |ingest| ingest.stage.columns());
        let named = self.by.iter().map(|column| (column.as_str(), log.span_of("by", Span::default())));
        let named: Vec<(&str, Span)> = named.chain(self.listed.iter().filter_map(Listed::by)).collect();
        for (column, at) in named.into_iter().filter(|(column, _)| !kept.iter().any(|own| own == column)) {
            let name = ingest.map_or("ingest", |ingest| &ingest.name);
            let all: Vec<String> = kept.iter().map(String::as_str).chain([column]).map(quote).collect();
            let problem = Problem::error(at, format!("`{name}` keeps no column `{column}`"));
            log.push(problem.help(format!("add `columns = [{}]` to `[stages.{name}]`", all.join(", "))));
        }
        for gate in &self.listed {
            let name = gate.model_or(&upstream.nodes[input].name);
            let own = stages.iter().map(|&stage| &upstream.nodes[stage]).find(|node| node.name == name);
            log.problems.extend(own.and_then(|node| gate.impossible_split(node.flow.folds, node.flow.has_test)));
        }
    }

    fn parts(&self, _flow: &Flow) -> Vec<Part> {
        vec![Part::Whole, Part::Pictures, Part::Suspects]
    }

    fn reads_key(&self, part: Part, _key: &str) -> bool {
        // Whatever is measured, the mistakes are the same.
        !matches!(part, Part::Pictures | Part::Suspects)
    }

    fn needs(&self, part: Part, upstream: &Upstream<'_>) -> Vec<Need> {
        let input = upstream.nodes[upstream.own].inputs.first();
        if let (Part::Pictures, Some(&input)) = (part, input) {
            let dataset = lineage::dataset_need(upstream, PICTURE_FILES);
            let needs = dataset.into_iter().chain(lineage::splits_need(upstream));
            return needs.chain(prediction_needs(input, &upstream.nodes[input].flow)).collect();
        }
        let files = match part {
            Part::Suspects => PICTURE_FILES,
            _ if self.columns_read().is_empty() => NAMES_FILES,
            _ => COLUMNS_FILES,
        };
        let dataset = lineage::dataset_need(upstream, files);
        let mut needs: Vec<Need> = dataset.into_iter().chain(lineage::splits_need(upstream)).collect();
        for &input in &upstream.nodes[upstream.own].inputs {
            for stage in evaluated(input, upstream) {
                needs.extend(prediction_needs(stage, &upstream.nodes[stage].flow));
            }
        }
        needs
    }

    fn learns(&self, _part: Part) -> Option<Learns> {
        None
    }

    fn run(&self, task: &Task, places: &Places, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
        match task.part {
            Part::Pictures => return draw_pictures(task, context, sink),
            Part::Suspects => return suspects::find(task, context, sink),
            _ => {}
        }
        let (dataset, names) = (lineage::numbers(task)?, lineage::names(task)?);
        let folds = lineage::splits(task)?.folds();
        let models = models(task)?;
        let Some(input) = models.first() else { return Err(StageError::new("there is no model to evaluate")) };
        let mut looks = Vec::new();
        for (i, model) in models.iter().enumerate() {
            looks.extend(looks_at(model, folds)?);
            context.progress(i as u64 + 1, models.len() as u64, "models", &model.name);
        }
        for look in &looks {
            check_predictions(look, &dataset)?;
        }
        let metrics = self.all_metrics();
        let mut figures = Vec::with_capacity(looks.len());
        for (i, look) in looks.iter().enumerate() {
            if context.is_cancelled() {
                return Err(StageError::cancelled());
            }
            let bootstrap = self.bootstrap.map(|n_replicates| (task.seed, n_replicates));
            figures.push(Figures::new(look, &dataset, &metrics, self.top_k, bootstrap));
            context.progress(i as u64 + 1, looks.len() as u64, "splits", "");
        }
        let scores = scores(&looks, &figures);
        if let Some(warning) = gap(&scores) {
            context.warn(&warning);
        }
        let report = looks
            .iter()
            .zip(&figures)
            .find(|(look, _)| look.fold.is_none())
            .map(|(look, figures)| class_report(look, figures, names.classes()));
        let columns = match self.columns_read().is_empty() {
            true => Columns::default(),
            false => Columns::read(task.input(Output::Dataset))?,
        };
        let short = self.gates.iter().map(|gate| gate.result(&input.name, &scores, places));
        let seen = listed::Seen {
            looks: &looks,
            figures: &figures,
            dataset: &dataset,
            names: &names,
            columns: &columns,
            top_k: self.top_k,
        };
        let own = self.listed.iter().filter(|gate| !gate.is_of_lock()).enumerate();
        let listed = own.map(|(n, gate)| gate.result(n, &input.name, &seen, places));
        let gates = short.chain(listed).collect::<Result<_, _>>()?;
        let gains = gain::gains(&models, &looks, &figures, &self.compared())?;
        let comparisons = gain::comparisons(&looks, &dataset);
        let listed: Vec<&str> = self.metrics.iter().map(|metric| metric.name).collect();
        let trust = trust::Trust::of(&models, &looks, &dataset, folds)?;

        sink.put(METRICS_TABLE, &tables::metrics(&looks, &figures, &scores, &listed, names.classes()))?;
        sink.put(GAINS, &tables::gains(&gains))?;
        sink.put(COMPARISONS, &tables::comparisons(&comparisons))?;
        sink.put(PREDICTIONS, &tables::predictions(&looks, &dataset, &names))?;
        sink.put(CONFUSION, &tables::confusion(&looks, &figures, names.classes()))?;
        trust.write(sink)?;
        sink.put(CURVES, &details::curves_table(&input.name, &looks, &dataset, names.classes()))?;
        let mut by = Vec::new();
        for column in self.columns_read() {
            let Some(grouping) = columns.get(column) else {
                return Err(StageError::new(format!("the data set has no column `{column}`")).key("by"));
            };
            by.extend(groups::groups(grouping, &looks, |part| {
                let bootstrap = self.bootstrap.map(|n_replicates| (task.seed, n_replicates));
                if context.is_cancelled() {
                    return Err(StageError::cancelled());
                }
                Ok(Figures::new(part, &dataset, &metrics, self.top_k, bootstrap))
            })?);
        }
        if !by.is_empty() {
            sink.put(BY, &groups::table(&by, &listed))?;
        }
        let mut details = details::details(&input.name, &looks, &figures, &dataset, names.classes());
        trust.complete(&mut details);
        details.write(sink)?;
        let trust::Trust { calibrated, abstained, .. } = trust;
        let model = input.name.clone();
        Evaluation { format: 2, model, scores, report, gains, comparisons, gates, calibrated, abstained, by }
            .write(sink)?;
        Ok(())
    }
}

/// Says of the first model that does far worse on the test split than on the rows held out of its folds that it does:
/// the intervals of the accuracy do not touch. Rows that chose the model lean upwards anyway and tell nothing.
fn gap(scores: &[Score]) -> Option<String> {
    scores.iter().filter(|score| score.split == "test").find_map(|test| {
        let is_other = |other: &&Score| other.model == test.model && ["out_of_fold", "validation"].contains(&&*other.split);
        let held_out = scores.iter().find(is_other)?;
        let ((low, high), (other_low, other_high)) = (test.accuracy_interval?, held_out.accuracy_interval?);
        let accuracy = |score: &Score| score.metrics.get("accuracy").copied().flatten();
        let (here, there) = (accuracy(test)?, accuracy(held_out)?);
        let how = if held_out.split == "validation" { "on validation images" } else { "out of fold" };
        (high < other_low).then(|| {
            format!(
                "`{}` recognises far fewer test images than it did {how}: accuracy {here:.4} [{low:.4}, {high:.4}] against \
                 {there:.4} [{other_low:.4}, {other_high:.4}]: either the test images are of another kind, or images \
                 outside the test split resemble each other (set `group`)",
                test.model
            )
        })
    })
}

/// Samples of every class and the worst mistakes of the model, by their loss.
fn draw_pictures(task: &Task, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
    if context.is_cancelled() {
        return Err(StageError::cancelled());
    }
    let (dataset, names, splits) = (lineage::dataset(task)?, lineage::names(task)?, lineage::splits(task)?);
    let models = models(task)?;
    let Some(input) = models.first() else { return Err(StageError::new("there is no model to evaluate")) };
    let is_shown = |i: usize| splits.places()[i] != Place::Test;
    let samples = pictures::samples(&dataset, is_shown, |i| dataset.values(i), None, sink)?;
    let look = looks_at(input, splits.folds())?.into_iter().find(|look| look.fold.is_none());
    let mut mistakes = None;
    if let Some(look) = look {
        check_predictions(&look, &dataset)?;
        let predictions = &look.predictions;
        let actual = |i: usize| dataset.label(predictions.rows()[i] as usize) as usize;
        let loss = |i: &usize| sample_log_loss(predictions.row(*i)[actual(*i)]);
        let mut wrong: Vec<usize> = (0..predictions.len()).filter(|&i| predictions.class(i) != actual(i)).collect();
        // Of equals the first image.
        wrong.sort_by(|a, b| loss(b).total_cmp(&loss(a)).then(a.cmp(b)));
        let about = (look.model.clone(), look.split.to_owned(), predictions.len(), wrong.len());
        let mistake = |&i: &usize| {
            let (image, predicted) = (predictions.rows()[i] as usize, predictions.class(i));
            let mistake = Mistake {
                path: names.path(image).to_owned(),
                actual: names.classes()[actual(i)].clone(),
                predicted: names.classes()[predicted].clone(),
                confidence: predictions.row(i)[predicted],
                loss: loss(&i),
            };
            (image, mistake)
        };
        let worst = wrong.iter().take(pictures::MOST_MISTAKES).map(mistake).collect();
        mistakes = pictures::mistakes(Numbers::shape(&dataset), about, worst, |i| dataset.values(i), sink)?;
    }
    pictures::write(samples, mistakes, sink)
}

/// Whether what `stage` says of a fold was learned without that fold.
fn has_validation_score(stage: usize, upstream: &Upstream<'_>) -> bool {
    let node = &upstream.nodes[stage];
    match (node.flow.output, &node.inputs[..]) {
        (Output::Ensemble, [one]) if upstream.nodes[*one].flow.models == 1 => {
            upstream.nodes[*one].flow.output == Output::Ensemble && has_validation_score(*one, upstream)
        }
        _ => true,
    }
}

impl Evaluate {
    /// The columns that are read: those that are reported by, and those that gates name.
    fn columns_read(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = self.by.iter().map(String::as_str).collect();
        for (column, _) in self.listed.iter().filter(|gate| !gate.is_of_lock()).filter_map(Listed::by) {
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        columns
    }

    /// By what an ensemble is compared with its members: accuracy, log loss, and the metrics that are listed.
    fn compared(&self) -> Vec<&'static Metric> {
        let is_listed = |name: &str| self.metrics.iter().any(|metric| metric.name == name);
        let always = |name: &str| matches!(name, "accuracy" | "log-loss");
        METRICS.iter().filter(|metric| always(metric.name) || is_listed(metric.name)).collect()
    }

    /// The metrics to compute: those listed, those that gates name, accuracy and log loss, in the order of the list of
    /// all.
    fn all_metrics(&self) -> Vec<&'static Metric> {
        let wanted = |name: &str| {
            name == "accuracy"
                || name == "log-loss"
                || self.metrics.iter().any(|metric| metric.name == name)
                || self.gates.iter().any(|gate| gate.metric.name == name)
                || self.listed.iter().any(|gate| !gate.is_of_lock() && gate.metric() == name)
        };
        METRICS.iter().filter(|metric| wanted(metric.name)).collect()
    }
}

/// Predictions of one model on one split, or on one fold of it.
struct Look {
    model: String,
    split: &'static str,
    /// `None`: the whole split, or the final model.
    fold: Option<u32>,
    predictions: Predictions,
    /// The fold of each row, where the whole is made of folds.
    fold_of_row: Option<Vec<u32>>,
}

/// Everything there is to say about a model: the test split first, whole splits before their folds.
fn looks_at(model: &Model<'_>, folds: u32) -> Result<Vec<Look>, StageError> {
    let look =
        |split, fold, predictions| Look { model: model.name.to_owned(), split, fold, predictions, fold_of_row: None };
    let mut looks = Vec::new();
    looks.extend(model.test()?.map(|predictions| look("test", None, predictions)));
    if model.ensemble().is_none() && folds > 1 {
        for fold in 1..=folds {
            looks.extend(model.fold_test(fold)?.map(|predictions| look("test", Some(fold), predictions)));
        }
    }
    if !model.is_scored_out_of_fold()? {
        return Ok(looks);
    }
    let mut by_fold = Vec::new();
    let mut is_selected = false;
    for fold in 1..=folds {
        if let Some(said) = model.validation(fold)? {
            is_selected |= said.is_selected();
            by_fold.push((fold, said.into_predictions()));
        }
    }
    let split = match (is_selected, folds) {
        (true, _) => "validation_selected",
        (false, 1) => "validation",
        (false, _) => "out_of_fold",
    };
    if folds == 1 {
        looks.extend(by_fold.into_iter().map(|(_, predictions)| look(split, None, predictions)));
    } else if !by_fold.is_empty() {
        let (together, fold_of_row) = together(&by_fold)?;
        looks.push(Look { fold_of_row: Some(fold_of_row), ..look(split, None, together) });
        looks.extend(by_fold.into_iter().map(|(fold, predictions)| look(split, Some(fold), predictions)));
    }
    Ok(looks)
}

/// The predictions of all folds as one, and the fold of each row.
fn together(by_fold: &[(u32, Predictions)]) -> Result<(Predictions, Vec<u32>), StageError> {
    let n_classes = by_fold[0].1.n_classes();
    if by_fold.iter().any(|(_, predictions)| predictions.n_classes() != n_classes) {
        return Err(StageError::new("folds of one model predict different numbers of classes"));
    }
    let mut rows: Vec<(u32, u32, &[f32])> = by_fold
        .iter()
        .flat_map(|(fold, p)| p.rows().iter().enumerate().map(|(i, &row)| (row, *fold, p.row(i))))
        .collect();
    rows.sort_unstable_by_key(|(row, ..)| *row);
    if let Some(twice) = rows.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(StageError::new(format!("two folds of one model predict sample {}", twice[0].0)));
    }
    let probabilities = rows.iter().flat_map(|(.., p)| p.iter().copied()).collect();
    let fold_of_row = rows.iter().map(|(_, fold, _)| *fold).collect();
    Ok((Predictions::new(rows.iter().map(|(row, ..)| *row).collect(), n_classes, probabilities), fold_of_row))
}

/// Whether predictions are about this data set.
fn check_predictions(look: &Look, dataset: &Numbers) -> Result<(), StageError> {
    let (n_classes, n) = (look.predictions.n_classes(), dataset.n_samples());
    let beyond = look.predictions.rows().last().filter(|&&last| last as usize >= n);
    if n_classes != dataset.n_classes() || beyond.is_some() {
        return Err(StageError::new(format!(
            "predictions of `{}` are about another data set: {n_classes} classes, expected {}",
            look.model,
            dataset.n_classes()
        )));
    }
    Ok(())
}

/// What was computed of a look.
struct Figures {
    confusion: Confusion,
    /// Names and values of metrics, in the order of the list of all.
    values: Vec<(&'static str, f64)>,
    /// The bootstrap intervals, where asked for: of the values in order, then of precision, recall and F1 by class.
    intervals: Vec<Option<(f64, f64)>>,
}

impl Figures {
    /// The value of a metric that was computed.
    fn value(&self, name: &str) -> f64 {
        self.values.iter().find(|(known, _)| *known == name).map_or(f64::NAN, |(_, value)| *value)
    }

    /// The bootstrap interval of a metric.
    fn interval(&self, name: &str) -> Option<(f64, f64)> {
        let at = self.values.iter().position(|(known, _)| *known == name)?;
        self.intervals.get(at).copied().flatten()
    }

    /// The bootstrap interval of the precision (0), recall (1) or F1 (2) of a class.
    fn class_interval(&self, class: usize, which: usize) -> Option<(f64, f64)> {
        self.intervals.get(self.values.len() + 3 * class + which).copied().flatten()
    }

    /// `bootstrap`: seed and number of replicates.
    fn new(
        look: &Look,
        dataset: &Numbers,
        metrics: &[&'static Metric],
        top_k: usize,
        bootstrap: Option<(u64, u32)>,
    ) -> Figures {
        let predictions = &look.predictions;
        let labels: Vec<u32> = predictions.rows().iter().map(|&row| dataset.label(row as usize)).collect();
        let scored = Scored::new(&labels, predictions.probabilities(), top_k);
        let confusion = scored.confusion();
        let values = metrics.iter().map(|metric| (metric.name, (metric.compute)(&scored, &confusion))).collect();
        let intervals = bootstrap.filter(|_| !scored.is_empty()).map_or_else(Vec::new, |(seed, n_replicates)| {
            intervals(&scored, seed, n_replicates, |drawn, confusion| {
                let values = metrics.iter().map(|metric| (metric.compute)(drawn, confusion));
                let of_class = |class| {
                    let ClassScores { precision, recall, f1, support } = confusion.class(class);
                    // A class that was not drawn has no value there.
                    let is_there = support + confusion.predicted(class) > 0;
                    [precision, recall, f1].map(|score| if is_there { score } else { f64::NAN })
                };
                values.chain((0..drawn.n_classes()).flat_map(of_class)).collect()
            })
        });
        Figures { confusion, values, intervals }
    }
}

/// A number, if it is one.
fn number(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

/// The numbers of whole splits, with mean and deviation over their folds.
fn scores(looks: &[Look], figures: &[Figures]) -> Vec<Score> {
    let whole = looks.iter().zip(figures).filter(|(look, _)| look.fold.is_none());
    whole
        .map(|(look, of_whole)| {
            let is_fold = |other: &Look| other.model == look.model && other.split == look.split && other.fold.is_some();
            let folds: Vec<&Figures> =
                looks.iter().zip(figures).filter(|(other, _)| is_fold(other)).map(|(_, figures)| figures).collect();
            let over_folds = |name: &str| {
                let values: Vec<f64> = folds.iter().map(|figures| figures.value(name)).collect();
                let (mean, deviation) = mean_and_deviation(&values);
                (number(mean), number(deviation))
            };
            let values = of_whole.values.iter();
            let confusion = &of_whole.confusion;
            Score {
                model: look.model.clone(),
                split: look.split.to_owned(),
                n: look.predictions.len(),
                n_correct: confusion.n_correct(),
                accuracy_interval: wilson_interval(confusion.n_correct(), confusion.n_samples()),
                intervals: of_whole
                    .values
                    .iter()
                    .filter_map(|(name, _)| Some(((*name).to_owned(), of_whole.interval(name)?)))
                    .collect(),
                metrics: values.clone().map(|&(name, value)| (name.to_owned(), number(value))).collect(),
                over_folds: if folds.is_empty() {
                    BTreeMap::new()
                } else {
                    values.map(|&(name, _)| (name.to_owned(), over_folds(name))).collect()
                },
            }
        })
        .collect()
}

fn class_report(look: &Look, figures: &Figures, classes: &[String]) -> ClassReport {
    let row = |name: &str, scores: ClassScores| ClassRow {
        name: name.to_owned(),
        precision: scores.precision,
        recall: scores.recall,
        f1: scores.f1,
        support: scores.support,
    };
    let confusion = &figures.confusion;
    // A split without samples has no averages; a report of zeros says so, and JSON has no word for "not a number".
    let average = |name: &str, average: Average| {
        let scores = confusion.average(average);
        let zeros = ClassScores { precision: 0.0, recall: 0.0, f1: 0.0, support: 0 };
        row(name, if scores.f1.is_finite() { scores } else { zeros })
    };
    ClassReport {
        model: look.model.clone(),
        split: look.split.to_owned(),
        classes: classes.iter().enumerate().map(|(class, name)| row(name, confusion.class(class))).collect(),
        accuracy: number(confusion.accuracy()).unwrap_or(0.0),
        macro_average: average("macro avg", Average::Macro),
        weighted_average: average("weighted avg", Average::Weighted),
    }
}
