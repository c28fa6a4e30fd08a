//! Gates as a list: per model, split, class and group, against a bound or a baseline.
//!
//! Bounds, and baselines that are a number, a model of the same evaluation or a table of metrics, are judged by the task, which
//! has the predictions. A lock file is written after the task that it names, so it cannot be a source of that task: gates against
//! lock files are no part of a task's record and are judged by who ran it ([`Listed::judge`]).

use super::gate::{Comparison, Filed, Gate, form as short_form, is_percentage, read as read_short, untelling};
use super::gate::{untelling_drop, value_in};
use super::{Figures, Look, names_of};
use crate::artifact::dataset::{Columns, Names, Numbers};
use crate::artifact::evaluation::GateResult;
use crate::config::{
    Bounds, Form, Log, Node, Problem, Section, Span, Table, Value, as_number, canonical_float, describe, did_you_mean,
    positive_zero, quote,
};
use crate::data::metrics::{
    Confusion, Judged, METRICS, Metric, Pair, Scored, find, sample_log_loss, suggest, wilson_interval,
};
use crate::stages::{Places, Source, StageError};

/// What there is to know of a class alone.
static CLASS_METRICS: [Metric; 3] = [
    of_class("precision", "Of the images called so, the share that are; of one class."),
    of_class("recall", "Of the images that are, the share called so; of one class."),
    of_class("f1", "The harmonic mean of precision and recall; of one class."),
];

const fn of_class(name: &'static str, meaning: &'static str) -> Metric {
    Metric { name, meaning, is_higher_better: true, range: (0.0, 1.0), is_default: false, compute: |_, _| f64::NAN }
}

/// The splits that a score can be of.
const SPLITS: [(&str, &str); 4] = [
    ("test", "The test split."),
    ("out_of_fold", "All validation folds, each predicted by the model that was not trained on it."),
    ("validation", "The validation images of a single split."),
    ("validation_selected", "Validation images that chose an epoch, a trial or a weight: leans upwards."),
];

/// Before the Git revision whose lock file is meant.
const GIT: &str = "git:";

/// What a gate of the list is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Baseline {
    /// A number.
    Number(f64),
    /// A model that is evaluated here, on the same split.
    Model(String),
    /// The `metrics.csv` of another run.
    Metrics(String),
    /// A lock file.
    Lock(String),
    /// The lock file as it was in a Git revision; `merge-base`: where this branch left the main one.
    Revision(String),
}

/// Whether a baseline, as it is written, is a lock file.
pub fn is_lock(baseline: &str) -> bool {
    baseline.starts_with(GIT) || baseline.ends_with(".lock")
}

/// A word of the manifest and its place.
type Named = Option<(String, Span)>;

/// One gate of the list.
#[derive(Clone)]
pub struct Listed {
    metric: &'static Metric,
    model: Named,
    split: Named,
    class: Named,
    group: Named,
    by: Named,
    demand: Demand,
}

impl std::fmt::Debug for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {:?}", self.metric.name, self.model.as_ref().map(|(model, _)| model), self.demand)
    }
}

#[derive(Clone, Debug)]
enum Demand {
    /// To be within bounds; one at least.
    Range { at_least: Option<f64>, at_most: Option<f64> },
    /// To be no more than `max_drop` worse than a baseline, or no worse than noise.
    Drop { baseline: Baseline, at: Span, max_drop: f64, within_noise: bool },
}

/// A number and its 95 % interval, where it has one.
type Measured = (Option<f64>, Option<(f64, f64)>);

/// Reads the key `gates`, short or as a list; `metrics` are reported anyway.
pub(super) fn read(section: &mut Section<'_>, metrics: &[&'static Metric]) -> (Vec<Gate>, Vec<Listed>) {
    let meaning =
        "What metrics must reach, by metric or by model and metric (a comparison, or a baseline); or a list of gates.";
    let key = section.key("gates", meaning, "{ accuracy = \">= 0.97\" }");
    let form = || {
        let item = Form::Table(describe(|section| {
            read_keys(section);
        }));
        Form::Either(vec![short_form(), Form::List(Box::new(item), 0..=usize::MAX)])
    };
    let Some(node) = key.form(None, form) else { return Default::default() };
    match &node.value {
        Value::Table(table) => (read_short(section, table), Vec::new()),
        Value::List(items) => {
            section.log().lists.push(("gates".to_owned(), node.span));
            let mut listed = Vec::new();
            let mut n = 0;
            for item in items {
                let Value::Table(table) = &item.value else {
                    section.expected("gates", item, "tables such as { metric = \"accuracy\", at_least = 0.97 }");
                    continue;
                };
                let mut log = Log::default();
                let gate = read_item(table, item.span, n, metrics, &mut log);
                section.log().problems.append(&mut log.problems);
                // What a task does not judge is no part of what it is.
                if gate.as_ref().is_none_or(|gate| !gate.is_of_lock()) {
                    section.log().resolved.append(&mut log.resolved);
                    section.log().places.append(&mut log.places);
                    n += 1;
                }
                listed.extend(gate);
            }
            (Vec::new(), listed)
        }
        _ => {
            section.expected("gates", node, "a table such as { accuracy = \">= 0.97\" }, or a list of tables");
            Default::default()
        }
    }
}

/// An item as it is written.
struct Keys<'a> {
    metric: Option<&'a Node>,
    model: Option<&'a Node>,
    split: Option<&'a Node>,
    class: Option<&'a Node>,
    group: Option<&'a Node>,
    by: Option<&'a Node>,
    at_least: Option<f64>,
    at_most: Option<f64>,
    baseline: Option<&'a Node>,
    max_drop: Option<f64>,
    within_noise: bool,
}

fn read_keys<'a>(section: &mut Section<'a>) -> Keys<'a> {
    let metric_form = || {
        let names = METRICS.iter().chain(&CLASS_METRICS).map(|metric| (metric.name.to_owned(), metric.meaning));
        Form::Words(names.collect())
    };
    let meaning = "The metric; with `class`: precision, recall or f1.";
    let metric = section.key("metric", meaning, "\"recall\"").required_form(metric_form);
    let meaning = "Of which model that is evaluated here; the input of the stage where it is not set.";
    let model = section.key("model", meaning, "\"cnn\"").form(None, || Form::Text);
    let meaning =
        "On which split; where it is not set, on the test split, or on what was held out where there is none.";
    let splits = || Form::Words(SPLITS.iter().map(|(split, meaning)| ((*split).to_owned(), *meaning)).collect());
    let split = section.key("split", meaning, "\"test\"").form(None, splits);
    let class = section.key("class", "Of this class alone.", "\"pneumonia\"").form(None, || Form::Text);
    let meaning = "On the images of this group alone: a patient, a clinic.";
    let group = section.key("group", meaning, "\"clinic-3\"").form(None, || Form::Text);
    let meaning = "A column that `ingest` keeps: on the images of each of its values apart, so that the worst has to pass; with \
                   `group`: on those of this value alone.";
    let by = section.key("by", meaning, "\"camera\"").form(None, || Form::Text);
    let at_least = section.key("at_least", "The least that it may be.", "0.9").number(Bounds::Finite).optional();
    let at_most = section.key("at_most", "The most that it may be.", "0.3").number(Bounds::Finite).optional();
    let meaning = "Instead of bounds: a number, a model that is evaluated here, the `metrics.csv` of another run, a `.lock` \
                   file, or `git:REVISION` for the lock file of a Git revision (`git:merge-base`: where this branch left \
                   the main one).";
    let baseline_form = || Form::Either(vec![Form::Number(Bounds::Finite), Form::Text]);
    let baseline = section.key("baseline", meaning, "\"git:origin/main\"").form(None, baseline_form);
    let meaning = "How much worse than the baseline it may be; 0 where it is not set.";
    let max_drop = section.key("max_drop", meaning, "0.01").number(Bounds::NonNegative).optional();
    let meaning = "Whether what is worse by no more than noise is passed, too: McNemar's p from 0.05, or 0 within the 95 % \
                   interval of the difference.";
    let within_noise = section.key("within_noise", meaning, "true").flag(false);
    Keys { metric, model, split, class, group, by, at_least, at_most, baseline, max_drop, within_noise }
}

/// A string of the manifest, checked and recorded.
fn word(section: &mut Section<'_>, key: &str, node: Option<&Node>) -> Named {
    let node = node?;
    match &node.value {
        Value::Text { text, .. } => {
            section.record(key, quote(text), Some(node.span));
            Some((text.clone(), node.span))
        }
        _ => {
            section.expected(key, node, "a string");
            None
        }
    }
}

/// Reads the item that is the `n`-th of those that a task judges; `None` after a problem.
fn read_item(table: &Table, span: Span, n: usize, metrics: &[&'static Metric], log: &mut Log) -> Option<Listed> {
    let mut section = Section::new(Some(table), span, &format!("gates[{n}]."), log);
    let keys = read_keys(&mut section);
    if keys.metric.is_none() {
        let problem = Problem::error(span, "missing key `metric`".to_owned());
        section.log().push(problem.help("add `metric`: what the gate looks at, such as `\"accuracy\"`"));
    }
    let metric = word(&mut section, "metric", keys.metric);
    let model = word(&mut section, "model", keys.model);
    let split = word(&mut section, "split", keys.split);
    let class = word(&mut section, "class", keys.class);
    let group = word(&mut section, "group", keys.group);
    let by = word(&mut section, "by", keys.by);
    let baseline = keys.baseline.and_then(|node| Some((read_baseline(&mut section, node)?, node.span)));
    if let Some((split, at)) =
        split.as_ref().filter(|(split, _)| SPLITS.iter().all(|(known, _)| *known != split.as_str()))
    {
        let mut problem = Problem::error(*at, format!("there is no split `{split}`"));
        problem.help = did_you_mean(split, SPLITS.iter().map(|(known, _)| *known))
            .or_else(|| Some(format!("the splits are `{}`", SPLITS.map(|(known, _)| known).join("`, `"))));
        section.log().push(problem);
    }
    let metric = metric.and_then(|(name, at)| match find_metric(&name, class.is_some()) {
        Ok(metric) => Some((metric, at)),
        Err((message, help)) => {
            section.log().push(Problem::error(at, message).help(help));
            None
        }
    });
    let has_baseline = keys.baseline.is_some();
    let has_bound = keys.at_least.is_some() || keys.at_most.is_some();
    let unset = match (has_bound, has_baseline) {
        (false, false) => Some(("a gate expects `at_least`, `at_most` or `baseline`", "write `at_least = 0.9`, say")),
        (true, true) => Some((
            "a gate has bounds or a baseline, not both",
            "write two gates, or `max_drop` for how much worse it may be",
        )),
        (true, false) if keys.max_drop.is_some() || keys.within_noise => {
            Some(("`max_drop` and `within_noise` are about a `baseline`", "add `baseline`, or remove them"))
        }
        _ => None,
    };
    if let Some((message, help)) = unset {
        section.log().push(Problem::error(span, message.to_owned()).help(help));
    }
    let Keys { at_least, at_most, within_noise, .. } = keys;
    let max_drop = keys.max_drop.unwrap_or(0.0);
    section.finish();
    let ((metric, metric_at), None) = (metric?, unset) else { return None };
    if has_bound {
        let bounds = [(Comparison::AtLeast, at_least), (Comparison::AtMost, at_most)];
        for (comparison, bound) in bounds.into_iter().filter_map(|(comparison, bound)| Some((comparison, bound?))) {
            log.problems.extend(untelling(metric, comparison, bound, span).map(|problem| {
                match is_percentage(metric, bound) {
                    true => problem.help(format!("write `{}`", canonical_float(bound / 100.0))),
                    false => problem,
                }
            }));
        }
        if let (Some(least), Some(most)) = (at_least, at_most)
            && least > most
        {
            let message = format!("no value is at least {least} and at most {most}");
            log.push(Problem::error(span, message).help("swap `at_least` and `at_most`"));
        }
        let demand = Demand::Range { at_least, at_most };
        return Some(Listed { metric, model, split, class, group, by, demand });
    }
    let (baseline, at) = baseline?;
    let number = if let Baseline::Number(x) = baseline { Some(x) } else { None };
    log.problems.extend(untelling_drop(metric, number, max_drop, span));
    let gate = Listed {
        metric,
        model,
        split,
        class,
        group,
        by,
        demand: Demand::Drop { baseline: baseline.clone(), at, max_drop, within_noise },
    };
    let is_filed = matches!(baseline, Baseline::Metrics(_)) || gate.is_of_lock();
    if let Some((_, at)) = gate.by.as_ref().or(gate.group.as_ref()).filter(|_| is_filed) {
        let message = "neither a lock file nor a table of metrics says anything of groups".to_owned();
        log.push(Problem::error(*at, message).help("compare with a number, or with a model that is evaluated here"));
    }
    if let Some((_, at)) = gate.class.as_ref().filter(|_| gate.is_of_lock()) {
        let message = "a lock file says nothing of classes".to_owned();
        log.push(Problem::error(*at, message).help("compare with the `metrics.csv` of a run, or with a number"));
    }
    let is_computed =
        |name: &str| ["accuracy", "log-loss"].contains(&name) || metrics.iter().any(|metric| metric.name == name);
    if gate.is_of_lock() && gate.class.is_none() && !is_computed(metric.name) {
        let message = format!("`{}` is not among the stage's `metrics`, so no lock file has it", metric.name);
        let all = names_of(metrics.iter().copied().chain([metric]));
        log.push(Problem::error(metric_at, message).help(format!("write `metrics = {all}`")));
    }
    Some(gate)
}

/// The metric of this name, of a class or of all; else what is wrong and what helps.
fn find_metric(name: &str, is_of_class: bool) -> Result<&'static Metric, (String, String)> {
    let own = CLASS_METRICS.iter().position(|metric| metric.name == name);
    match (own, is_of_class) {
        (Some(at), true) => Ok(&CLASS_METRICS[at]),
        (Some(_), false) => {
            let help = format!("add `class = \"NAME\"`, or write `macro-{name}`");
            Err((format!("`{name}` is of a class, and the gate names none"), help))
        }
        (None, true) => {
            let help = "of a class there are `precision`, `recall` and `f1`".to_owned();
            Err((format!("`{name}` is no metric of a class"), help))
        }
        (None, false) => find(name).ok_or_else(|| (format!("unknown metric `{name}`"), suggest(name))),
    }
}

fn read_baseline(section: &mut Section<'_>, node: &Node) -> Option<Baseline> {
    if let Some(x) = as_number(&node.value).filter(|x| x.is_finite()) {
        let x = positive_zero(x);
        section.record("baseline", canonical_float(x), Some(node.span));
        return Some(Baseline::Number(x));
    }
    let Value::Text { text, .. } = &node.value else {
        section.expected("baseline", node, "a number, a model, a `metrics.csv`, a `.lock` file or `git:REVISION`");
        return None;
    };
    if let Some(revision) = text.strip_prefix(GIT) {
        if revision.is_empty() || revision.starts_with('-') {
            let problem = Problem::error(node.span, format!("`{text}` names no Git revision"));
            section.log().push(problem.help("write `git:origin/main`, say"));
            return None;
        }
        return Some(Baseline::Revision(revision.to_owned()));
    }
    if text.ends_with(".lock") {
        section.record_place("baseline", text, node.span);
        return Some(Baseline::Lock(text.clone()));
    }
    // What is in the file decides, not where it is: its content is among the sources.
    if text.ends_with(".csv") {
        section.record_place("baseline", text, node.span);
        return Some(Baseline::Metrics(text.clone()));
    }
    section.record("baseline", quote(text), Some(node.span));
    Some(Baseline::Model(text.clone()))
}

/// The tables of metrics that gates are compared with.
///
/// # Errors
/// If one is not there.
pub(super) fn sources(listed: &[Listed], places: &Places) -> Result<Vec<Source>, StageError> {
    let mut sources = Vec::new();
    for (n, gate) in listed.iter().filter(|gate| !gate.is_of_lock()).enumerate() {
        let Demand::Drop { baseline: Baseline::Metrics(file), .. } = &gate.demand else { continue };
        let path = places.resolve(std::path::Path::new(file));
        if !path.is_file() {
            let message = format!("there is no file `{file}` to compare `{}` with", gate.metric.name);
            let help = "copy the `metrics.csv` of a good run there";
            return Err(StageError::new(message).key(format!("gates[{n}].baseline")).help(help));
        }
        sources.push(Source::File { role: format!("baseline of gate {}", n + 1), path });
    }
    Ok(sources)
}

impl Listed {
    /// Whether it is compared with a lock file, by who runs the task.
    pub fn is_of_lock(&self) -> bool {
        matches!(&self.demand, Demand::Drop { baseline: Baseline::Lock(_) | Baseline::Revision(_), .. })
    }

    /// What it is compared with, and where that is written; `None` of bounds.
    pub fn baseline(&self) -> Option<(&Baseline, Span)> {
        match &self.demand {
            Demand::Drop { baseline, at, .. } => Some((baseline, *at)),
            Demand::Range { .. } => None,
        }
    }

    /// The metric's name.
    pub fn metric(&self) -> &'static str {
        self.metric.name
    }

    /// The model that it means; `input` is the one that is evaluated.
    pub fn model_or<'g>(&'g self, input: &'g str) -> &'g str {
        self.model.as_ref().map_or(input, |(model, _)| model)
    }

    /// The split that it names.
    pub fn split(&self) -> Option<&str> {
        self.split.as_ref().map(|(split, _)| split.as_str())
    }

    /// The column whose groups it is about, and where that is named.
    pub(super) fn by(&self) -> Option<(&str, Span)> {
        self.by.as_ref().map(|(by, at)| (by.as_str(), *at))
    }

    fn class(&self) -> Option<&str> {
        self.class.as_ref().map(|(class, _)| class.as_str())
    }

    /// Models that it names, with their places.
    pub(super) fn models(&self) -> impl Iterator<Item = (&str, Span)> {
        self.model.as_ref().map(|(model, at)| (model.as_str(), *at)).into_iter().chain(self.baseline_model())
    }

    /// The model that it is compared with, and where that stands.
    pub(super) fn baseline_model(&self) -> Option<(&str, Span)> {
        match &self.demand {
            Demand::Drop { baseline: Baseline::Model(model), at, .. } => Some((model.as_str(), *at)),
            _ => None,
        }
    }

    /// Where its split is named, if that is none of a model with so many folds, with a test split or not.
    pub(super) fn impossible_split(&self, folds: u32, has_test: bool) -> Option<Problem> {
        let (split, at) = self.split.as_ref()?;
        let (message, help) = match split.as_str() {
            "test" if !has_test => ("there is no test split: `test = 0` holds out nothing", "hold out a test split"),
            "out_of_fold" if folds == 1 => ("there is one split and no folds", "write `split = \"validation\"`"),
            "validation" if folds > 1 => ("there are folds", "write `split = \"out_of_fold\"`"),
            _ => return None,
        };
        Some(Problem::error(*at, format!("no score is of `{split}`: {message}")).help(help))
    }

    /// What is wrong with the class or group of the `n`-th gate that a task judges, where classes are known.
    pub(super) fn unknown_name(&self, n: usize, classes: &[String], has_groups: bool) -> Option<StageError> {
        let wrong = |key: &str, message: String| StageError::new(message).key(format!("gates[{n}].{key}"));
        if let Some(class) = self.class().filter(|class| !classes.iter().any(|known| known == class)) {
            let help = did_you_mean(class, classes.iter().map(String::as_str)).unwrap_or_else(|| {
                let some: Vec<&str> = classes.iter().take(20).map(String::as_str).collect();
                format!("the classes are `{}`", some.join("`, `"))
            });
            return Some(wrong("class", format!("there is no class `{class}`")).help(help));
        }
        let (group, _) = self.group.as_ref().filter(|_| !has_groups && self.by.is_none())?;
        let message = format!("there is no group `{group}`: the images have no groups");
        Some(wrong("group", message).help("name groups in a column `group` of the source's table, or remove it here"))
    }

    /// Whether the table of metrics that it is compared with has the number, where the gate names its split; `n` counts the
    /// gates that a task judges, `input` is the model that is evaluated.
    ///
    /// # Errors
    /// If the table cannot be read, or has no such number.
    pub fn look(&self, n: usize, input: &str, places: &Places) -> Result<(), StageError> {
        if let (Some((Baseline::Metrics(file), _)), Some(split)) = (self.baseline(), self.split()) {
            value_in(file, places, (self.model_or(input), split), self.class(), self.metric.name)
                .map_err(|error| error.key(format!("gates[{n}].baseline")))?;
        }
        Ok(())
    }

    /// What was asked for, in words; with the number of the baseline, where it is known.
    fn expected(&self, number: Option<f64>) -> String {
        match &self.demand {
            Demand::Range { at_least: Some(least), at_most: Some(most) } => format!(">= {least} and <= {most}"),
            Demand::Range { at_least: Some(least), .. } => format!(">= {least}"),
            Demand::Range { at_most, .. } => format!("<= {}", at_most.unwrap_or(f64::NAN)),
            Demand::Drop { baseline, max_drop, within_noise, .. } => {
                let what = match baseline {
                    Baseline::Number(x) => canonical_float(*x),
                    Baseline::Model(model) => model.clone(),
                    Baseline::Metrics(_) => "the baseline file".to_owned(),
                    Baseline::Lock(file) => file.clone(),
                    Baseline::Revision(revision) => format!("{GIT}{revision}"),
                };
                let number = match (baseline, number) {
                    (Baseline::Number(_), _) => String::new(),
                    (_, Some(number)) => format!(" ({})", canonical_float(number)),
                    (_, None) => " (which has no value)".to_owned(),
                };
                let noise = if *within_noise { ", or worse within noise" } else { "" };
                format!("at most {} worse than {what}{number}{noise}", canonical_float(*max_drop))
            }
        }
    }

    /// Whether `value` is as asked for, beside the baseline's `number`; a number that is missing never is.
    pub fn judge(
        &self,
        (model, split): (&str, &str),
        value: Option<f64>,
        number: Option<f64>,
        judged: Option<&Judged>,
    ) -> GateResult {
        let value = value.filter(|value| value.is_finite());
        let number = number.filter(|number| number.is_finite());
        let (is_passed, told) = match &self.demand {
            Demand::Range { at_least, at_most } => {
                let holds = |value: f64| {
                    at_least.is_none_or(|least| value >= least) && at_most.is_none_or(|most| value <= most)
                };
                (value.is_some_and(holds), None)
            }
            Demand::Drop { max_drop, within_noise, .. } => {
                let holds = |(value, number): (f64, f64)| match self.metric.is_higher_better {
                    true => value >= number - max_drop,
                    false => value <= number + max_drop,
                };
                let both = value.zip(number);
                let is_noise = *within_noise && judged.is_some_and(|judged| judged.is_noise);
                let differs = both.is_some_and(|(value, number)| value != number);
                let told = match judged {
                    _ if !differs => None,
                    Some(judged) => Some(judged.to_string()),
                    None => within_noise.then(|| "whether that is noise is not known".to_owned()),
                };
                (both.is_some_and(|both| holds(both) || is_noise), told)
            }
        };
        GateResult {
            model: model.to_owned(),
            split: split.to_owned(),
            metric: self.metric.name.to_owned(),
            expected: self.expected(number),
            value,
            is_passed,
            class: self.class().map(str::to_owned),
            group: self.group.as_ref().map(|(group, _)| group.clone()),
            by: self.by.as_ref().map(|(by, _)| by.clone()),
            worst: None,
            judged: told,
        }
    }

    /// Judges it by what was predicted; `input` is the model that is evaluated.
    ///
    /// # Errors
    /// If its class or group is not there, or the table of its baseline has no such number.
    pub(super) fn result(
        &self,
        n: usize,
        input: &str,
        seen: &Seen<'_>,
        places: &Places,
    ) -> Result<GateResult, StageError> {
        let wrong = |key: &str, message: String| StageError::new(message).key(format!("gates[{n}].{key}"));
        let class = match self.class() {
            None => None,
            Some(class) => match seen.names.classes().iter().position(|name| name == class) {
                Some(at) => Some(at),
                None => return Err(wrong("class", format!("there is no class `{class}` for a gate"))),
            },
        };
        let unknown = |group: &str, known: &mut dyn Iterator<Item = &str>| {
            let help = did_you_mean(group, known);
            let error = wrong("group", format!("there is no group `{group}` for a gate"));
            help.map_or(error.clone(), |help| error.help(help))
        };
        let Some((by, _)) = &self.by else {
            let among = match &self.group {
                None => None,
                Some((group, _)) => match seen.names.image_of_group(group) {
                    Some(image) => Some((seen.dataset.groups(), seen.dataset.groups()[image])),
                    None => return Err(unknown(group, &mut seen.names.groups())),
                },
            };
            return self.result_among(input, seen, places, class, among);
        };
        let Some(grouping) = seen.columns.get(by) else {
            return Err(wrong("by", format!("the data set has no column `{by}`")));
        };
        if let Some((group, _)) = &self.group {
            return match grouping.groups.iter().position(|known| known == group) {
                Some(at) => self.result_among(input, seen, places, class, Some((&grouping.of_image, Some(at as u32)))),
                None => Err(unknown(group, &mut grouping.groups.iter().map(String::as_str))),
            };
        }
        // Every group has to pass; told is the worst, of those that do not pass if there are any. Groups without a value (of a
        // class that none of their images has, say) are not asked.
        let mut worst: Option<GateResult> = None;
        for (at, group) in grouping.groups.iter().enumerate() {
            let own = self.result_among(input, seen, places, class, Some((&grouping.of_image, Some(at as u32))))?;
            let Some(value) = own.value else { continue };
            let is_worse = worst.as_ref().is_none_or(|worst| {
                let before = worst.value.unwrap_or(f64::NAN);
                let is_less_good = if self.metric.is_higher_better { value < before } else { value > before };
                if own.is_passed == worst.is_passed { is_less_good } else { worst.is_passed }
            });
            if is_worse {
                worst = Some(GateResult { worst: Some(group.clone()), ..own });
            }
        }
        let split = self.split().unwrap_or("test");
        Ok(worst.unwrap_or_else(|| self.judge((self.model_or(input), split), None, None, None)))
    }

    /// Judges it by the images of one group, or all.
    fn result_among(
        &self,
        input: &str,
        seen: &Seen<'_>,
        places: &Places,
        class: Option<usize>,
        among: Option<Among<'_>>,
    ) -> Result<GateResult, StageError> {
        let model = self.model_or(input);
        let of = |model: &str, split: Option<&str>| {
            let is_own = |look: &Look| {
                look.model == model && look.fold.is_none() && split.is_none_or(|split| look.split == split)
            };
            seen.looks.iter().position(is_own)
        };
        let Some(at) = of(model, self.split()) else {
            return Ok(self.judge((model, self.split().unwrap_or("test")), None, None, None));
        };
        let place = (model, seen.looks[at].split);
        let rows = seen.rows(at, among);
        let (value, interval) = seen.measure(self.metric, at, &rows, class, among.is_some());
        let Demand::Drop { baseline, .. } = &self.demand else {
            return Ok(self.judge(place, value, None, None));
        };
        let independent = |other: Measured| {
            let (new, old) = ((value?, interval?), (other.0?, other.1?));
            Some(Judged::of_independent(old, new))
        };
        let (number, judged) = match baseline {
            // A number is as it is: the difference is noise where it lies within the own interval.
            Baseline::Number(x) => (Some(*x), independent((Some(*x), Some((*x, *x))))),
            Baseline::Model(other) => match of(other, Some(place.1)) {
                None => (None, None),
                Some(before) => {
                    let their_rows = seen.rows(before, among);
                    let other = seen.measure(self.metric, before, &their_rows, class, among.is_some());
                    let paired = seen.paired(self.metric, (before, &their_rows), (at, &rows), class);
                    (other.0, paired.or_else(|| independent(other)))
                }
            },
            Baseline::Metrics(file) => {
                let Filed { value: number, interval, n } =
                    value_in(file, places, place, self.class(), self.metric.name)?;
                let is_share = ["accuracy", "recall"].contains(&self.metric.name);
                let of_share =
                    || n.filter(|_| is_share).and_then(|n| wilson_interval((number * n as f64).round() as u64, n));
                (Some(number), independent((Some(number), interval.or_else(of_share))))
            }
            Baseline::Lock(_) | Baseline::Revision(_) => (None, None),
        };
        Ok(self.judge(place, value, number, judged.as_ref()))
    }
}

/// The group of each image, and the one that is meant.
type Among<'a> = (&'a [Option<u32>], Option<u32>);

/// What an evaluation has seen.
pub(super) struct Seen<'s> {
    /// Predictions, the test split of a model first.
    pub looks: &'s [Look],
    /// What was computed of each.
    pub figures: &'s [Figures],
    /// The truth.
    pub dataset: &'s Numbers,
    /// What it is called.
    pub names: &'s Names,
    /// What columns say of images.
    pub columns: &'s Columns,
    /// How many classes `top-k` looks at.
    pub top_k: usize,
}

impl Seen<'_> {
    /// The rows of a look that are of a group, or all.
    fn rows(&self, at: usize, among: Option<Among<'_>>) -> Vec<usize> {
        let ids = self.looks[at].predictions.rows();
        let is_own = |id: u32| among.is_none_or(|(of_image, group)| of_image[id as usize] == group);
        (0..ids.len()).filter(|&i| is_own(ids[i])).collect()
    }

    /// A metric of some rows of a look, of a class or of all, with its 95 % interval where it has one.
    fn measure(&self, metric: &Metric, at: usize, rows: &[usize], class: Option<usize>, is_part: bool) -> Measured {
        let (look, figures) = (&self.looks[at], &self.figures[at]);
        let own: Confusion;
        let (confusion, value, drawn) = if is_part {
            let labels: Vec<u32> = rows.iter().map(|&i| self.label(at, i)).collect();
            let probabilities: Vec<f32> = rows.iter().flat_map(|&i| look.predictions.row(i).iter().copied()).collect();
            let shape = (labels.len(), look.predictions.n_classes());
            let Ok(view) = ndarray::ArrayView2::from_shape(shape, &probabilities) else { return (None, None) };
            let scored = Scored::new(&labels, view, self.top_k);
            own = scored.confusion();
            (&own, (metric.compute)(&scored, &own), None)
        } else {
            (&figures.confusion, figures.value(metric.name), figures.interval(metric.name))
        };
        let Some(class) = class else {
            let is_share = metric.name == "accuracy";
            let own = if is_share { wilson_interval(confusion.n_correct(), confusion.n_samples()) } else { drawn };
            return (value.is_finite().then_some(value), own);
        };
        let scores = confusion.class(class);
        let (hits, actual, predicted) = (confusion.count(class, class), scores.support, confusion.predicted(class));
        // Of a class without images nothing is known, whatever was taken for it.
        let (value, interval) = match metric.name {
            "precision" => (scores.precision, wilson_interval(hits, predicted)),
            "recall" => (scores.recall, wilson_interval(hits, actual)),
            _ if is_part => (scores.f1, None),
            _ => (scores.f1, figures.class_interval(class, 2)),
        };
        ((actual > 0).then_some(value), interval)
    }

    fn label(&self, at: usize, i: usize) -> u32 {
        self.dataset.label(self.looks[at].predictions.rows()[i] as usize)
    }

    /// Whether two looks differ by more than noise on the rows that both have; `None` where that cannot be told in pairs.
    fn paired(
        &self,
        metric: &Metric,
        (before, their): (usize, &[usize]),
        (at, own): (usize, &[usize]),
        class: Option<usize>,
    ) -> Option<Judged> {
        let (old, new) = (&self.looks[before].predictions, &self.looks[at].predictions);
        let mut pairs = Vec::new();
        let mut losses = Vec::new();
        let mut theirs = their.iter().copied().peekable();
        // Rows of a look are in order.
        for &i in own {
            let id = new.rows()[i];
            while theirs.next_if(|&j| old.rows()[j] < id).is_some() {}
            let Some(j) = theirs.next_if(|&j| old.rows()[j] == id) else { continue };
            let actual = self.label(at, i) as usize;
            if metric.name == "recall" && class.is_some_and(|class| class != actual) {
                continue;
            }
            pairs.push(Pair { actual, a: old.class(j), b: new.class(i) });
            losses.push(sample_log_loss(new.row(i)[actual]) - sample_log_loss(old.row(j)[actual]));
        }
        match (class, metric.name) {
            _ if pairs.is_empty() => None,
            // The recall of a class is the accuracy on its images.
            (Some(_), "recall") => Some(Judged::by_mcnemar(&pairs)),
            (Some(_), _) => None,
            (None, name) => Judged::of_pairs(name, &pairs, new.n_classes(), &losses),
        }
    }
}
