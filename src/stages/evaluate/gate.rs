//! Gates in their short form: what a metric must reach for a run to count as good, or how far it may fall behind a baseline.

use std::path::Path;

use super::super::{Places, Source, StageError};
use crate::artifact::evaluation::{GateResult, Score};
use crate::artifact::table::unguarded;
use crate::config::{
    Bounds, Declaration, Form, Node, Problem, Section, Span, Table, Value, as_number, canonical_float, describe,
    positive_zero, quote, segment,
};
use crate::data::metrics::{METRICS, Metric, find, suggest};

/// How a value is compared with a bound. In an order in which `>=` is tried before `>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    AtLeast,
    AtMost,
    Above,
    Below,
}

const COMPARISONS: [(&str, Comparison); 4] =
    [(">=", Comparison::AtLeast), ("<=", Comparison::AtMost), (">", Comparison::Above), ("<", Comparison::Below)];

impl Comparison {
    fn word(self) -> &'static str {
        COMPARISONS.iter().find(|(_, other)| *other == self).map_or("", |(word, _)| word)
    }
}

/// Whether a bound is a percentage of what ends at 1; 97 / 100 has the shortest text that reads back.
pub(super) fn is_percentage(metric: &Metric, bound: f64) -> bool {
    metric.range.1 == 1.0 && (5.0..=100.0).contains(&bound)
}

/// One gate.
#[derive(Clone)]
pub(super) struct Gate {
    /// Which model; `None`: the test split of the input.
    pub model: Option<String>,
    /// Where the model is named.
    pub model_span: Span,
    /// Which metric.
    pub metric: &'static Metric,
    /// As written.
    pub text: String,
    /// Where it is written.
    pub span: Span,
    demand: Demand,
}

/// What is asked for.
#[derive(Clone, Debug)]
enum Demand {
    /// A comparison with a number.
    Bound(Comparison, f64),
    /// To be no more than `max_drop` worse than a baseline.
    Drop { baseline: Baseline, max_drop: f64 },
}

/// What a value is compared with.
#[derive(Clone, Debug)]
enum Baseline {
    /// A number.
    Number(f64),
    /// A model that is evaluated here, on the same split; where it is named.
    Model(String, Span),
    /// The `metrics.csv` of another run: its value for the same model, split and metric.
    File(String),
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{} {}", self.model.as_deref().unwrap_or("-"), self.metric.name, self.text)
    }
}

/// Reads the short form: metrics, or models with metrics.
pub(super) fn read(section: &mut Section<'_>, table: &Table) -> Vec<Gate> {
    let mut gates = Vec::new();
    for entry in &table.entries {
        match &entry.node.value {
            Value::Table(inner) if find(&entry.key).is_none() => {
                read_table(section, inner, Some((&entry.key, entry.key_span)), &mut gates);
            }
            _ => {
                let one = Table { entries: vec![entry.clone()] };
                read_table(section, &one, None, &mut gates);
            }
        }
    }
    // What is written of them does not depend on their order in the manifest, as their keys do not.
    gates.sort_by(|a, b| (&a.model, a.metric.name).cmp(&(&b.model, b.metric.name)));
    gates
}

fn read_table(section: &mut Section<'_>, table: &Table, model: Option<(&String, Span)>, gates: &mut Vec<Gate>) {
    for entry in &table.entries {
        let key = match model {
            Some((model, _)) => format!("gates.{}.{}", segment(model), segment(&entry.key)),
            None => format!("gates.{}", segment(&entry.key)),
        };
        let Some(metric) = find(&entry.key) else {
            let problem = Problem::error(entry.key_span, format!("unknown metric `{}`", entry.key));
            section.log().push(problem.help(suggest(&entry.key)));
            continue;
        };
        let gate = |text: String, demand: Demand| Gate {
            model: model.map(|(model, _)| model.clone()),
            model_span: model.map_or(entry.key_span, |(_, span)| span),
            metric,
            text,
            span: entry.key_span,
            demand,
        };
        if let Value::Table(inner) = &entry.node.value {
            let read = read_drop(section, &key, inner, metric, entry.node.span);
            gates.extend(read.map(|(text, demand)| gate(text, demand)));
            continue;
        }
        let parsed = match &entry.node.value {
            Value::Text { text, .. } => parse(text).map(|(comparison, bound)| (text, comparison, bound)),
            _ => None,
        };
        let Some((text, comparison, bound)) = parsed else {
            let expected = "a comparison with a number, such as \">= 0.97\", or a table with `baseline`";
            section.expected(&key, &entry.node, expected);
            let usual = if metric.is_higher_better { Comparison::AtLeast } else { Comparison::AtMost };
            let meant = match &entry.node.value {
                Value::Text { text, .. } => {
                    let number = text.trim().trim_end_matches('%').trim_end();
                    let read =
                        parse(number).or_else(|| Some((usual, number.trim_start_matches('=').trim().parse().ok()?)));
                    // A whole percentage is recognised below; half a percent is not.
                    let scale = if text.contains('%') && metric.range.1 == 1.0 { 100.0 } else { 1.0 };
                    read.map(|(comparison, x)| (comparison, x / scale))
                }
                other => as_number(other).map(|x| (usual, x)),
            };
            if let Some((comparison, bound)) = meant.filter(|(_, x)| x.is_finite())
                && let Some(problem) = section.log().problems.last_mut()
            {
                let bound = if is_percentage(metric, bound) { bound / 100.0 } else { bound };
                problem.help = Some(format!("write `{} = \"{} {bound}\"`", entry.key, comparison.word()));
            }
            continue;
        };
        if let Some(problem) = untelling(metric, comparison, bound, entry.node.span) {
            section.log().push(problem);
            continue;
        }
        let points_up = matches!(comparison, Comparison::AtLeast | Comparison::Above);
        if points_up != metric.is_higher_better {
            let better = if metric.is_higher_better { "higher" } else { "lower" };
            let message = format!("the gate `{text}` on `{}` asks for worse: {better} is better", entry.key);
            section.log().push(Problem::warning(entry.node.span, message));
        }
        let word = comparison.word();
        // The same bytes for `>=0.5` and `>= 0.50`, which are the same gate.
        let text = format!("{word} {bound}");
        section.record(&key, quote(&text), Some(entry.node.span));
        gates.push(gate(text, Demand::Bound(comparison, bound)));
    }
}

/// Why a comparison says nothing about any model, if it is passed by all or by none.
pub(super) fn untelling(metric: &Metric, comparison: Comparison, bound: f64, span: Span) -> Option<Problem> {
    let (least, most) = metric.range;
    let (is_always, is_never) = match comparison {
        Comparison::AtLeast => (bound <= least, bound > most),
        Comparison::Above => (bound < least, bound >= most),
        Comparison::AtMost => (bound >= most, bound < least),
        Comparison::Below => (bound > most, bound <= least),
    };
    let fate = match (is_always, is_never) {
        (true, _) => "is always passed",
        (_, true) => "can never be passed",
        (false, false) => return None,
    };
    let word = comparison.word();
    let (name, range) = (metric.name, metric.shown_range());
    let help = if is_percentage(metric, bound) {
        format!("write `{word} {}`", bound / 100.0)
    } else {
        format!("write a number between {least} and {most}, or remove the gate")
    };
    let message = format!("the gate `{word} {bound}` on `{name}` {fate}: `{name}` is {range}");
    Some(Problem::error(span, message).help(help))
}

/// The same for a gate with a baseline, of which a number or nothing is known.
pub(super) fn untelling_drop(metric: &Metric, baseline: Option<f64>, max_drop: f64, span: Span) -> Option<Problem> {
    let (name, (least, most), range) = (metric.name, metric.range, metric.shown_range());
    if let Some(baseline) = baseline.filter(|x| !(least..=most).contains(x)) {
        let problem =
            Problem::error(span, format!("the baseline `{baseline}` is no value of `{name}`, which is {range}"));
        return Some(match is_percentage(metric, baseline) {
            true => problem.help(format!("write `baseline = {}`", baseline / 100.0)),
            false => problem,
        });
    }
    let is_always = match (baseline, metric.is_higher_better) {
        (Some(baseline), true) => baseline - max_drop <= least,
        (Some(baseline), false) => baseline + max_drop >= most,
        (None, _) => max_drop >= most - least,
    };
    let message = format!("the gate on `{name}` is always passed with `max_drop = {max_drop}`: `{name}` is {range}");
    is_always.then(|| Problem::error(span, message).help("write how much worse it may be at most, such as `0.01`"))
}

/// A comparison or a baseline for each metric, or for each metric of each model.
pub(super) fn form() -> Form {
    let gate = Form::Either(vec![
        Form::Comparison,
        Form::Table(describe(|section| {
            read_drop_keys(section);
        })),
    ]);
    let metrics = METRICS.iter().map(|metric| Declaration {
        key: metric.name.to_owned(),
        meaning: "What this metric must reach.",
        example: if metric.is_higher_better { "\">= 0.9\"" } else { "\"<= 0.1\"" },
        default: None,
        is_required: false,
        is_place: false,
        is_short: false,
        form: gate.clone(),
    });
    let metrics: Vec<Declaration> = metrics.collect();
    Form::Open(metrics.clone(), Box::new(Form::Table(metrics)))
}

/// Declares the keys of a gate with a baseline.
fn read_drop_keys<'a>(section: &mut Section<'a>) -> (f64, Option<&'a Node>) {
    let meaning = "How much worse than the baseline the metric may be.";
    let max_drop = section.key("max_drop", meaning, "0.01").number(Bounds::NonNegative).or(0.0);
    let meaning = "A number, a model that is evaluated here, or the `metrics.csv` of another run.";
    let form = || Form::Either(vec![Form::Number(Bounds::Finite), Form::Text]);
    (max_drop, section.key("baseline", meaning, "\"cnn\"").required_form(form))
}

/// Reads `{ baseline = …, max_drop = … }`; returns it as a text, too.
fn read_drop(
    section: &mut Section<'_>,
    key: &str,
    table: &Table,
    metric: &Metric,
    span: Span,
) -> Option<(String, Demand)> {
    let mut inner = section.inner(table, span, key);
    let (max_drop, node) = read_drop_keys(&mut inner);
    let baseline = match node {
        None => {
            let problem = Problem::error(span, format!("a gate on `{key}` as a table expects a `baseline`"));
            inner.log().push(problem.help("write `{ baseline = \"MODEL\", max_drop = 0.01 }`"));
            None
        }
        Some(node) => match (&node.value, as_number(&node.value)) {
            (_, Some(x)) if x.is_finite() => {
                let x = positive_zero(x);
                inner.record("baseline", canonical_float(x), Some(node.span));
                Some((canonical_float(x), Baseline::Number(x)))
            }
            // What is in the file decides, not where it is: its content is among the sources.
            (Value::Text { text, .. }, _) if text.ends_with(".csv") => {
                inner.record_place("baseline", text, node.span);
                Some(("the baseline file".to_owned(), Baseline::File(text.clone())))
            }
            (Value::Text { text, .. }, _) => {
                inner.record("baseline", quote(text), Some(node.span));
                Some((text.clone(), Baseline::Model(text.clone(), node.span)))
            }
            _ => {
                inner.expected("baseline", node, "a number, a model that is evaluated here, or a `metrics.csv`");
                None
            }
        },
    };
    if let Some((_, baseline)) = &baseline {
        let number = if let Baseline::Number(x) = baseline { Some(*x) } else { None };
        if let Some(problem) = untelling_drop(metric, number, max_drop, span) {
            inner.log().push(problem);
        }
    }
    inner.finish();
    let (text, baseline) = baseline?;
    Some((format!("at most {} worse than {text}", canonical_float(max_drop)), Demand::Drop { baseline, max_drop }))
}

/// The files that gates are compared with.
///
/// # Errors
/// If one is not there.
pub(super) fn sources(gates: &[Gate], places: &Places) -> Result<Vec<Source>, StageError> {
    let mut sources = Vec::new();
    for gate in gates {
        let Demand::Drop { baseline: Baseline::File(file), .. } = &gate.demand else { continue };
        let path = places.resolve(Path::new(file));
        if !path.is_file() {
            let message = format!("there is no file `{file}` to compare `{}` with", gate.metric.name);
            return Err(StageError::new(message).key("gates").help("copy the `metrics.csv` of a good run there"));
        }
        let role = format!("baseline of {}", gate.metric.name);
        sources.push(Source::File { role, path });
    }
    Ok(sources)
}

/// A number in the `metrics.csv` of another run, with its 95 % interval and the images behind it where those are there.
pub(super) struct Filed {
    /// The number.
    pub value: f64,
    /// Its interval.
    pub interval: Option<(f64, f64)>,
    /// Images.
    pub n: Option<u64>,
}

/// What a model's metric is on a split, of a class or of all, in the `metrics.csv` of another run.
pub(super) fn value_in(
    file: &str,
    places: &Places,
    (model, split): (&str, &str),
    class: Option<&str>,
    metric: &str,
) -> Result<Filed, StageError> {
    let error = |what: String| StageError::new(format!("the baseline `{file}` {what}")).key("gates");
    let mut reader = csv::Reader::from_path(places.resolve(Path::new(file)))
        .map_err(|cause| error(format!("cannot be read: {cause}")))?;
    let header = reader.headers().map_err(|cause| error(format!("cannot be read: {cause}")))?.clone();
    let column = |name: &str| {
        let at = header.iter().position(|known| known == name);
        at.ok_or_else(|| error(format!("has no column `{name}`")).help("copy the `metrics.csv` of a good run there"))
    };
    let wanted =
        [("model", model), ("split", split), ("fold", ""), ("class", class.unwrap_or_default()), ("metric", metric)];
    let wanted: Vec<(usize, &str)> =
        wanted.into_iter().map(|(name, text)| Ok((column(name)?, text))).collect::<Result<_, StageError>>()?;
    let value = column("value")?;
    let optional = ["ci_low", "ci_high", "n"].map(|name| header.iter().position(|known| known == name));
    let of_class = class.map_or_else(String::new, |class| format!(" of class `{class}`"));
    let what = format!("`{metric}`{of_class} of `{model}` on {split}");
    for row in reader.records() {
        let row = row.map_err(|cause| error(format!("cannot be read: {cause}")))?;
        if wanted.iter().all(|(at, text)| row.get(*at).map(unguarded) == Some(text)) {
            let number = |at: usize| row.get(at)?.parse::<f64>().ok().filter(|x| x.is_finite());
            let [low, high, n] = optional.map(|at| at.and_then(number));
            let value = number(value).ok_or_else(|| error(format!("has no number for {what}")))?;
            return Ok(Filed { value, interval: low.zip(high), n: n.map(|n| n as u64) });
        }
    }
    Err(error(format!("has no row for {what}")).help("the row must have the same model, split and class, and no fold"))
}

fn parse(text: &str) -> Option<(Comparison, f64)> {
    let text = text.trim();
    let (word, comparison) = COMPARISONS.iter().find(|(word, _)| text.starts_with(word))?;
    let bound: f64 = text[word.len()..].trim().parse().ok()?;
    bound.is_finite().then_some((*comparison, positive_zero(bound)))
}

impl Gate {
    /// The model that it is compared with, and where that is named.
    pub(super) fn baseline_model(&self) -> Option<(&str, Span)> {
        match &self.demand {
            Demand::Drop { baseline: Baseline::Model(model, span), .. } => Some((model, *span)),
            _ => None,
        }
    }

    /// Whether the gate is passed, given the scores of whole splits; `input` is the model that a bare gate means.
    ///
    /// # Errors
    /// If the file with its baseline cannot be read, or has no such value.
    pub(super) fn result(&self, input: &str, scores: &[Score], places: &Places) -> Result<GateResult, StageError> {
        let model = self.model.as_deref().unwrap_or(input);
        // The test split comes first where there is one; a bare gate means nothing else.
        let score = scores.iter().find(|score| score.model == model && (self.model.is_some() || score.split == "test"));
        let of = |score: &Score| score.metrics.get(self.metric.name).copied().flatten();
        let value = score.and_then(of);
        let split = score.map_or("test", |score| &score.split);
        let (expected, is_passed) = match &self.demand {
            Demand::Bound(comparison, bound) => {
                let holds = |value: f64| match comparison {
                    Comparison::AtLeast => value >= *bound,
                    Comparison::AtMost => value <= *bound,
                    Comparison::Above => value > *bound,
                    Comparison::Below => value < *bound,
                };
                (self.text.clone(), value.is_some_and(holds))
            }
            Demand::Drop { baseline, max_drop } => {
                let number = match baseline {
                    Baseline::Number(x) => Some(*x),
                    Baseline::Model(name, _) => {
                        scores.iter().find(|score| score.model == *name && score.split == split).and_then(of)
                    }
                    Baseline::File(file) => Some(value_in(file, places, (model, split), None, self.metric.name)?.value),
                };
                let holds = |(value, number): (f64, f64)| match self.metric.is_higher_better {
                    true => value >= number - max_drop,
                    false => value <= number + max_drop,
                };
                let shown = match (baseline, number) {
                    (Baseline::Number(_), _) => self.text.clone(),
                    (_, Some(number)) => format!("{} ({})", self.text, canonical_float(number)),
                    (_, None) => format!("{} (which has no value)", self.text),
                };
                (shown, value.zip(number).is_some_and(holds))
            }
        };
        let metric = self.metric.name.to_owned();
        let (model, split) = (model.to_owned(), split.to_owned());
        Ok(GateResult { model, split, metric, expected, value, is_passed, ..GateResult::default() })
    }
}
