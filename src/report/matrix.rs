//! The results of a manifest's variants beside one another: `matrix.csv`, and a table for a terminal with the mean and the
//! deviation over what differs in seeds only.

use std::collections::{BTreeMap, BTreeSet};

use super::text::{Align, COLUMNS, aligned, width};
use crate::artifact::evaluation::{Evaluation, Score};
use crate::artifact::table;
use crate::data::metrics::mean_and_deviation;
use crate::escape::on_line;

/// The file.
pub const MATRIX: &str = "matrix.csv";

/// Metrics in the order in which they get a column of a terminal; others follow by name.
pub const FIRST: [&str; 3] = ["accuracy", "log-loss", "macro-f1"];

/// Names of variants are cut after so many columns.
const MOST_NAME: usize = 44;

/// A variant and what it came to.
#[derive(Debug)]
pub struct Variant<'a> {
    /// Its name.
    pub name: &'a str,
    /// The same without seeds.
    pub group: &'a str,
    /// Keys and their values, strings as they are and all others as TOML; the same keys in each variant.
    pub settings: Vec<(&'a str, String)>,
    /// By stage.
    pub evaluations: Vec<(&'a str, &'a Evaluation)>,
}

/// One metric of one model over the variants that differ in seeds only.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Mean {
    /// What those are called, without their seeds.
    pub variants: String,
    /// The stage that evaluates.
    pub stage: String,
    /// The model.
    pub model: String,
    /// The split.
    pub split: String,
    /// The metric.
    pub metric: String,
    /// The mean of its values; `None` where no variant has one.
    pub mean: Option<f64>,
    /// Their sample deviation; `None` of fewer than two.
    pub deviation: Option<f64>,
    /// How many there are.
    pub repeats: usize,
}

/// Which number: stage, model, split, metric.
type At<'a> = (&'a str, &'a str, &'a str, &'a str);

fn value_at(variant: &Variant<'_>, (stage, model, split, metric): At<'_>) -> Option<f64> {
    let own = variant.evaluations.iter().find(|(known, _)| *known == stage)?.1;
    let score = own.scores.iter().find(|score| score.model == model && score.split == split)?;
    score.metrics.get(metric).copied().flatten()
}

fn mean_of(variants: &[Variant<'_>], group: &str, at: At<'_>) -> Mean {
    let own = variants.iter().filter(|variant| variant.group == group);
    let values: Vec<f64> = own.filter_map(|variant| value_at(variant, at)).collect();
    let (mean, deviation) = mean_and_deviation(&values);
    let number = |x: f64| x.is_finite().then_some(x);
    let (stage, model, split, metric) = at;
    Mean {
        variants: group.to_owned(),
        stage: stage.to_owned(),
        model: model.to_owned(),
        split: split.to_owned(),
        metric: metric.to_owned(),
        mean: number(mean),
        deviation: number(deviation),
        repeats: values.len(),
    }
}

fn numbers<'a>(variant: &Variant<'a>) -> Vec<(At<'a>, &'a Score, Option<f64>)> {
    let mut all = Vec::new();
    for (stage, evaluation) in &variant.evaluations {
        for score in &evaluation.scores {
            let own = score.metrics.iter();
            all.extend(own.map(|(metric, value)| ((*stage, &*score.model, &*score.split, &**metric), score, *value)));
        }
    }
    all
}

/// Every mean, in the order of the variants.
pub fn means(variants: &[Variant<'_>]) -> Vec<Mean> {
    let mut seen = BTreeSet::new();
    let mut means = Vec::new();
    for variant in variants {
        for (at, _, _) in numbers(variant) {
            if seen.insert((variant.group, at)) {
                means.push(mean_of(variants, variant.group, at));
            }
        }
    }
    means
}

/// `matrix.csv`: a row per variant, model, split and metric, with the mean and the deviation over the variants that differ from it
/// in seeds only.
pub fn table(variants: &[Variant<'_>]) -> Vec<u8> {
    let keys = variants.first().map_or(&[][..], |variant| &variant.settings);
    let mut header = vec!["variant"];
    header.extend(keys.iter().map(|(key, _)| *key));
    header.extend(["stage", "model", "split", "metric", "value", "n", "mean", "deviation", "repeats"]);
    let mut table = table::Table::new(&header);
    let means = means(variants);
    let at = |mean: &'_ Mean| -> [String; 5] {
        [&mean.variants, &mean.stage, &mean.model, &mean.split, &mean.metric].map(Clone::clone)
    };
    let means: BTreeMap<[String; 5], &Mean> = means.iter().map(|mean| (at(mean), mean)).collect();
    for variant in variants {
        for ((stage, model, split, metric), score, value) in numbers(variant) {
            let own = means.get(&[variant.group, stage, model, split, metric].map(str::to_owned));
            let mut row: Vec<table::Cell<'_>> = vec![variant.name.into()];
            row.extend(variant.settings.iter().map(|(_, value)| table::Cell::from(value)));
            row.extend([stage, model, split, metric].map(table::Cell::from));
            row.push(value.into());
            row.push(score.n.into());
            row.push(own.and_then(|own| own.mean).into());
            row.push(own.and_then(|own| own.deviation).into());
            row.push(own.map(|own| own.repeats).into());
            table.row(&row);
        }
    }
    table.into_bytes()
}

/// The table for a terminal: what was evaluated, a row for each split and for the variants that differ in seeds only. `folder` has
/// the files with more.
pub fn text(variants: &[Variant<'_>], folder: &str) -> String {
    let means = means(variants);
    let is_evaluated = |mean: &&Mean| {
        let mut all = variants.iter().flat_map(|variant| &variant.evaluations);
        all.any(|(stage, evaluation)| *stage == mean.stage && evaluation.model == mean.model)
    };
    let own: Vec<&Mean> = means.iter().filter(is_evaluated).collect();
    let named: BTreeSet<&str> = own.iter().map(|mean| mean.metric.as_str()).collect();
    let others = named.iter().copied().filter(|name| !FIRST.contains(name));
    let mut metrics: Vec<&str> = FIRST.into_iter().filter(|name| named.contains(name)).chain(others).collect();
    let n_metrics = metrics.len();
    let mut most_name = MOST_NAME;
    loop {
        let text = text_of(&own, &metrics, most_name);
        if text.lines().all(|line| width(line) <= COLUMNS) || (metrics.len() <= 1 && most_name <= 12) {
            let more = if metrics.len() < n_metrics || own.len() < means.len() { "more" } else { "all of it" };
            return if text.is_empty() { text } else { format!("{text}({more} in {folder}/{MATRIX})\n") };
        }
        if metrics.len() > 1 { metrics.truncate(metrics.len() - 1) } else { most_name -= 4 }
    }
}

fn text_of(means: &[&Mean], metrics: &[&str], most_name: usize) -> String {
    /// What a row is of: variants, stage, model, split.
    type Row<'a> = (&'a str, &'a str, &'a str, &'a str);
    let mut rows: Vec<(Row<'_>, Vec<&Mean>)> = Vec::new();
    for mean in means {
        let at = (&*mean.variants, &*mean.stage, &*mean.model, &*mean.split);
        match rows.iter_mut().find(|(known, _)| *known == at) {
            Some((_, own)) => own.push(mean),
            None => rows.push((at, vec![mean])),
        }
    }
    let distinct =
        |part: &dyn Fn(&Row<'_>) -> String| rows.iter().map(|(at, _)| part(at)).collect::<BTreeSet<String>>().len() > 1;
    let has_variants = distinct(&|at| at.0.to_owned());
    let (has_stages, has_models) = (distinct(&|at| at.1.to_owned()), distinct(&|at| at.2.to_owned()));
    let cell = |own: &[&Mean], metric: &str| {
        let Some(mean) = own.iter().find(|mean| mean.metric == metric) else { return String::new() };
        match (mean.mean, mean.deviation) {
            (Some(value), Some(deviation)) => format!("{value:.4} ± {deviation:.4}"),
            (Some(value), None) => format!("{value:.4}"),
            _ => String::new(),
        }
    };
    let mut header: Vec<&str> = Vec::new();
    let columns = [(has_variants, "variants"), (has_stages, "stage"), (has_models, "model")];
    header.extend(columns.iter().filter(|(is_there, _)| *is_there).map(|(_, name)| *name));
    header.push("split");
    let mut aligns = vec![Align::Left; header.len() + metrics.len()];
    header.extend(metrics);
    header.push("runs");
    aligns.push(Align::Right);
    let row = |((variants, stage, model, split), own): &(Row<'_>, Vec<&Mean>)| {
        let mut row = Vec::new();
        let cells = [(has_variants, *variants), (has_stages, *stage), (has_models, *model)];
        row.extend(cells.iter().filter(|(is_there, _)| *is_there).map(|(_, cell)| cut(cell, most_name)));
        row.push((*split).to_owned());
        row.extend(metrics.iter().map(|metric| cell(own, metric)));
        row.push(own.iter().map(|mean| mean.repeats).max().unwrap_or(0).to_string());
        row
    };
    if rows.is_empty() {
        return String::new();
    }
    aligned(&header, &aligns, &rows.iter().map(row).collect::<Vec<_>>())
}

/// A name on one line and in so many columns at most.
pub fn cut(name: &str, most: usize) -> String {
    let name = on_line(name);
    if width(&name) <= most {
        return name.into_owned();
    }
    let mut out = String::new();
    for c in name.chars() {
        if width(&out) + width(c.encode_utf8(&mut [0; 4])) >= most {
            break;
        }
        out.push(c);
    }
    out + "…"
}
