//! Two sets of results beside one another: which metrics moved, by more than noise or not, whose predictions flipped.
//!
//! A set of results comes from artifacts of evaluations, from the tables in `out/NAME/`, or from a lock file, which knows
//! numbers and no predictions. What one side does not know is not compared, and told as such by whoever shows it.
//!
//! How a difference is judged is in `data/metrics/noise.rs`: where both sides have predictions, on the images that both have with
//! the same class, elsewhere by the two numbers' own 95 % intervals. Without either it is not known.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::artifact::evaluation::{Evaluation, GateResult, METRICS as METRICS_TABLE, PREDICTIONS};
use crate::artifact::{Files, table};
use crate::data::metrics::{self, Judged, Pair, wilson_interval};

/// A number and its 95 % interval, where it has one.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Value {
    /// The number; `None` where it has no value.
    pub value: Option<f64>,
    /// Its interval.
    pub interval: Option<(f64, f64)>,
}

/// The numbers of one model on one split.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// Images, where that is known.
    pub n: Option<u64>,
    /// By metric.
    pub metrics: BTreeMap<String, Value>,
}

/// What a model said of an image.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    actual: String,
    predicted: String,
    loss: f64,
}

/// A model and a split, by name.
type At = (String, String);

/// The results of a run, as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// By model and split; empty: not known.
    pub scores: BTreeMap<At, Score>,
    /// The models that evaluations are about, without their members; empty: not known which.
    pub headline: BTreeSet<String>,
    /// Every gate; `None`: not known.
    pub gates: Option<Vec<GateResult>>,
    /// By model and split, then by the image's path; a path that stands for several images is left out.
    said: BTreeMap<At, HashMap<String, Said>>,
}

impl Results {
    /// The results in artifacts of evaluations (`evaluation.json` and `predictions.csv` of each), beside each the variant that it
    /// is of, nothing where there is none: models of variants are called as in a lock file, `ensemble seed=1`.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn of_artifacts<'f>(artifacts: impl Iterator<Item = (&'f str, &'f Files)>) -> Result<Results, String> {
        let mut all = Results::of_nothing();
        for (variant, files) in artifacts {
            let mut results = Results::of_nothing();
            let evaluation = Evaluation::read(files).map_err(|error| error.to_string())?;
            for score in &evaluation.scores {
                let known = results.scores.entry((score.model.clone(), score.split.clone())).or_default();
                known.n = Some(score.n as u64);
                for (metric, &value) in &score.metrics {
                    let own = if metric == "accuracy" { score.accuracy_interval } else { None };
                    let interval = own.or_else(|| score.intervals.get(metric).copied());
                    known.metrics.insert(metric.clone(), Value { value, interval });
                }
            }
            results.gates.get_or_insert_default().extend(evaluation.gates);
            results.headline.insert(evaluation.model);
            if let Some(bytes) = files.0.get(PREDICTIONS) {
                results.read_predictions(bytes)?;
            }
            all.take(results, variant);
        }
        Ok(all)
    }

    /// Takes over what another evaluation came to, which is of this variant.
    fn take(&mut self, other: Results, variant: &str) {
        let named = |model: String| if variant.is_empty() { model } else { format!("{model} {variant}") };
        let at = |(model, split): At| (named(model), split);
        self.scores.extend(other.scores.into_iter().map(|(own, score)| (at(own), score)));
        self.headline.extend(other.headline.into_iter().map(named));
        self.gates.get_or_insert_default().extend(other.gates.unwrap_or_default());
        self.said.extend(other.said.into_iter().map(|(own, said)| (at(own), said)));
    }

    /// The results of a run that evaluates nothing.
    pub fn of_nothing() -> Results {
        Results { gates: Some(Vec::new()), ..Results::default() }
    }

    /// The results in `metrics.csv` and, where it is there, `predictions.csv`.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn of_tables(metrics: &[u8], predictions: Option<&[u8]>) -> Result<Results, String> {
        let mut results = Results::default();
        results.read_metrics(metrics)?;
        if let Some(bytes) = predictions {
            results.read_predictions(bytes)?;
        }
        Ok(results)
    }

    /// The results in the headline metrics of a lock file: `stage.model.split.metric`.
    pub fn of_headline(headline: &BTreeMap<String, String>) -> Results {
        let mut results = Results::default();
        for (name, value) in headline {
            let Some((rest, metric)) = name.rsplit_once('.') else { continue };
            let Some((rest, split)) = rest.rsplit_once('.') else { continue };
            let Some((_, model)) = rest.split_once('.') else { continue };
            results.headline.insert(model.to_owned());
            let score = results.scores.entry((model.to_owned(), split.to_owned())).or_default();
            match metric {
                N => score.n = value.parse().ok(),
                _ => {
                    score.metrics.insert(metric.to_owned(), Value { value: value.parse().ok(), interval: None });
                }
            }
        }
        // A share of so many images has an interval.
        for score in results.scores.values_mut() {
            if let (Some(n), Some(accuracy)) = (score.n, score.metrics.get_mut("accuracy")) {
                let hits = accuracy.value.map(|value| (value * n as f64).round() as u64);
                accuracy.interval = hits.and_then(|hits| wilson_interval(hits.min(n), n));
            }
        }
        results
    }

    /// Takes the predictions of `other`, which are of the same run.
    pub fn take_predictions(&mut self, other: Results) {
        self.said = other.said;
    }

    /// Whether it has predictions.
    pub fn has_predictions(&self) -> bool {
        !self.said.is_empty()
    }

    fn read_metrics(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut rows = Rows::of(bytes, METRICS_TABLE, &["model", "split", "fold", "class", "metric", "value", "n"])?;
        while let Some(row) = rows.next()? {
            let [model, split, fold, class, metric, value, n] = [0, 1, 2, 3, 4, 5, 6].map(|i| row.cell(i));
            // Means and deviations over folds count folds.
            if !fold.is_empty() || !class.is_empty() || metrics::find(metric).is_none() {
                continue;
            }
            let (low, high) = (row.named("ci_low"), row.named("ci_high"));
            let interval = low.parse().ok().zip(high.parse().ok());
            let at = (table::unguarded(model).to_owned(), table::unguarded(split).to_owned());
            let score = self.scores.entry(at).or_default();
            score.n = n.parse().ok();
            score.metrics.insert(metric.to_owned(), Value { value: value.parse().ok(), interval });
        }
        Ok(())
    }

    /// Adds what a `predictions.csv` says; where it is known which models evaluations are about, of those only.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_predictions(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut rows = Rows::of(bytes, PREDICTIONS, &["path", "split", "model", "actual", "predicted", "loss"])?;
        let mut doubled: HashSet<(At, String)> = HashSet::new();
        while let Some(row) = rows.next()? {
            let [path, split, model, actual, predicted, loss] = [0, 1, 2, 3, 4, 5].map(|i| row.cell(i));
            let text = |cell: &str| table::unguarded(cell).to_owned();
            // Members of what was evaluated are not compared.
            if !self.headline.is_empty() && !self.headline.contains(table::unguarded(model)) {
                continue;
            }
            let said =
                Said { actual: text(actual), predicted: text(predicted), loss: loss.parse().unwrap_or(f64::NAN) };
            let at = (text(model), text(split));
            // Of a model's two evaluations one is enough; within one a path that stands twice names no image.
            if self.said.entry(at.clone()).or_default().insert(text(path), said.clone()).is_some_and(|old| old != said)
            {
                doubled.insert((at, text(path)));
            }
        }
        for (at, path) in doubled {
            if let Some(said) = self.said.get_mut(&at) {
                said.remove(&path);
            }
        }
        Ok(())
    }

    /// The models that a comparison with `other` is about: those of the evaluations, where either side knows them.
    fn models(&self, other: &Results) -> BTreeSet<String> {
        let known: BTreeSet<String> = self.headline.union(&other.headline).cloned().collect();
        match known.is_empty() {
            true => self.scores.keys().chain(other.scores.keys()).map(|(model, _)| model.clone()).collect(),
            false => known,
        }
    }
}

/// What a lock file calls the number of images behind its metrics.
pub const N: &str = "n";

/// The rows of a table, by the names of columns.
struct Rows<'a> {
    file: &'static str,
    reader: csv::Reader<&'a [u8]>,
    header: csv::StringRecord,
    columns: Vec<usize>,
    row: csv::StringRecord,
}

struct Row<'r> {
    header: &'r csv::StringRecord,
    columns: &'r [usize],
    row: &'r csv::StringRecord,
}

impl Row<'_> {
    fn cell(&self, i: usize) -> &str {
        self.row.get(self.columns[i]).unwrap_or_default()
    }

    fn named(&self, name: &str) -> &str {
        let at = self.header.iter().position(|column| column == name);
        at.and_then(|at| self.row.get(at)).unwrap_or_default()
    }
}

impl<'a> Rows<'a> {
    fn of(bytes: &'a [u8], file: &'static str, columns: &[&str]) -> Result<Rows<'a>, String> {
        let mut reader = csv::ReaderBuilder::new().from_reader(bytes);
        let header = reader.headers().map_err(|error| format!("`{file}` cannot be read: {error}"))?.clone();
        let place = |name: &&str| {
            let at = header.iter().position(|column| column == *name);
            at.ok_or_else(|| format!("`{file}` has no column `{name}`"))
        };
        let columns = columns.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Rows { file, reader, header, columns, row: csv::StringRecord::new() })
    }

    fn next(&mut self) -> Result<Option<Row<'_>>, String> {
        let is_there = self.reader.read_record(&mut self.row);
        match is_there.map_err(|error| format!("`{}` cannot be read: {error}", self.file))? {
            true => Ok(Some(Row { header: &self.header, columns: &self.columns, row: &self.row })),
            false => Ok(None),
        }
    }
}

/// A metric that one side has, or both.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct MetricChange {
    /// The model.
    pub model: String,
    /// The split.
    pub split: String,
    /// The metric.
    pub metric: String,
    /// The number before; `None`: this side does not have it.
    pub old: Option<Value>,
    /// The number after.
    pub new: Option<Value>,
    /// Images before, where that is known.
    pub old_n: Option<u64>,
    /// Images after.
    pub new_n: Option<u64>,
    /// Whether the difference may be luck; `None`: there is none, or it cannot be told.
    pub judged: Option<Judged>,
    /// Whether the new number is the worse one; a number that went missing, or has no value any more, is.
    pub is_worse: bool,
}

impl MetricChange {
    /// Whether both sides have the same number.
    pub fn is_same(&self) -> bool {
        self.old.map(|old| old.value) == self.new.map(|new| new.value)
    }

    /// Whether it is worse by more than noise; where noise cannot be told, worse is enough.
    pub fn is_worse_beyond_noise(&self) -> bool {
        self.is_worse && self.judged.as_ref().is_none_or(|judged| !judged.is_noise)
    }
}

/// An image of which the model says something else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Flip {
    /// The model.
    pub model: String,
    /// The split.
    pub split: String,
    /// The image.
    pub path: String,
    /// Its class.
    pub actual: String,
    /// What was said of it.
    pub old: String,
    /// What is said of it.
    pub new: String,
}

/// The predictions of one model on one split, before and after.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Flips {
    /// The model.
    pub model: String,
    /// The split.
    pub split: String,
    /// Images that both sides speak of, with the same class.
    pub n_common: usize,
    /// Those of which something else is said, by path.
    pub flips: Vec<Flip>,
}

impl Flips {
    /// How many are right that were wrong.
    pub fn n_mended(&self) -> usize {
        self.flips.iter().filter(|flip| flip.new == flip.actual).count()
    }

    /// How many are wrong that were right.
    pub fn n_broken(&self) -> usize {
        self.flips.iter().filter(|flip| flip.old == flip.actual).count()
    }
}

/// What both sides said of the same images, by path.
fn common<'r>(old: &'r Results, new: &'r Results, at: &At) -> Option<Vec<(&'r String, &'r Said, &'r Said)>> {
    let (old, new) = (old.said.get(at)?, new.said.get(at)?);
    let pairs = old.iter().filter_map(|(path, a)| Some((path, a, new.get(path)?)));
    let mut pairs: Vec<_> = pairs.filter(|(_, a, b)| a.actual == b.actual).collect();
    pairs.sort_unstable_by_key(|(path, ..)| *path);
    Some(pairs)
}

/// Every metric of the models that evaluations are about, and whether it moved, in the order of models, splits and metrics.
/// Metrics that only one side has are there.
pub fn metrics(old: &Results, new: &Results) -> Vec<MetricChange> {
    let models = old.models(new);
    let places: BTreeSet<&At> =
        old.scores.keys().chain(new.scores.keys()).filter(|(model, _)| models.contains(model)).collect();
    let none = Score::default();
    let mut changes = Vec::new();
    for at in places {
        let (before, after) = (old.scores.get(at).unwrap_or(&none), new.scores.get(at).unwrap_or(&none));
        let names: BTreeSet<&String> = before.metrics.keys().chain(after.metrics.keys()).collect();
        let pairs = common(old, new, at).filter(|pairs| !pairs.is_empty());
        for name in names {
            let (a, b) = (before.metrics.get(name).copied(), after.metrics.get(name).copied());
            let mut change = MetricChange {
                model: at.0.clone(),
                split: at.1.clone(),
                metric: name.clone(),
                old: a,
                new: b,
                old_n: before.n,
                new_n: after.n,
                judged: None,
                is_worse: false,
            };
            if !change.is_same() {
                change.is_worse = is_worse(name, a, b);
                change.judged = judge(name, a, b, pairs.as_deref());
            }
            changes.push(change);
        }
    }
    changes
}

fn is_worse(metric: &str, old: Option<Value>, new: Option<Value>) -> bool {
    match (old.and_then(|old| old.value), new.and_then(|new| new.value)) {
        (Some(_), None) => true,
        (Some(old), Some(new)) => match metrics::find(metric) {
            Some(metric) if metric.is_higher_better => new < old,
            _ => new > old,
        },
        (None, _) => false,
    }
}

fn judge(
    metric: &str,
    old: Option<Value>,
    new: Option<Value>,
    pairs: Option<&[(&String, &Said, &Said)]>,
) -> Option<Judged> {
    let (old, new) = (old?, new?);
    let (a, b) = (old.value?, new.value?);
    let paired = pairs.and_then(|said| {
        let classes: BTreeSet<&str> =
            said.iter().flat_map(|(_, a, b)| [a.actual.as_str(), a.predicted.as_str(), b.predicted.as_str()]).collect();
        let numbers: HashMap<&str, usize> = classes.iter().enumerate().map(|(i, name)| (*name, i)).collect();
        let pair = |(_, a, b): &(&String, &Said, &Said)| Pair {
            actual: numbers[a.actual.as_str()],
            a: numbers[a.predicted.as_str()],
            b: numbers[b.predicted.as_str()],
        };
        let pairs: Vec<Pair> = said.iter().map(pair).collect();
        let losses: Vec<f64> = said.iter().map(|(_, a, b)| b.loss - a.loss).collect();
        Judged::of_pairs(metric, &pairs, classes.len(), &losses)
    });
    paired.or_else(|| Some(Judged::of_independent((a, old.interval?), (b, new.interval?))))
}

/// Whose predictions flipped, for each model that evaluations are about and each split; `None` where a side has none.
pub fn flips(old: &Results, new: &Results) -> Option<Vec<Flips>> {
    if !old.has_predictions() || !new.has_predictions() {
        return None;
    }
    let models = old.models(new);
    let places = new.said.keys().filter(|(model, _)| models.contains(model));
    let all = places.filter_map(|at| {
        let pairs = common(old, new, at)?;
        let flips = pairs.iter().filter(|(_, a, b)| a.predicted != b.predicted).map(|(path, a, b)| Flip {
            model: at.0.clone(),
            split: at.1.clone(),
            path: (*path).clone(),
            actual: a.actual.clone(),
            old: a.predicted.clone(),
            new: b.predicted.clone(),
        });
        Some(Flips { model: at.0.clone(), split: at.1.clone(), n_common: pairs.len(), flips: flips.collect() })
    });
    Some(all.collect())
}

/// Two numbers, told apart: with four digits behind the point where that is enough.
pub fn shown_pair(old: Option<f64>, new: Option<f64>) -> (String, String) {
    let short = |value: f64| format!("{value:.4}");
    let long = |value: f64| crate::config::shortest(value);
    let show = |value: Option<f64>, how: &dyn Fn(f64) -> String| value.map_or_else(|| "none".to_owned(), how);
    match (show(old, &short), show(new, &short)) {
        (a, b) if a == b && old != new => (show(old, &long), show(new, &long)),
        pair => pair,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(correct: usize, n: usize, with_predictions: bool) -> Results {
        let share = correct as f64 / n as f64;
        let (low, high) = wilson_interval(correct as u64, n as u64).unwrap();
        let metrics = format!(
            "model,split,fold,class,metric,value,ci_low,ci_high,n\n\
             cnn,test,,,accuracy,{share},{low},{high},{n}\ncnn,test,,,macro-f1,{share},,,{n}\n\
             cnn,test,,,accuracy-mean,0.5,,,4\ncnn,test,1,,accuracy,0.1,,,{n}\ncnn,test,,cat,recall,0.1,,,{n}\n"
        );
        let mut predictions = "id,path,split,fold,model,actual,predicted,correct,confidence,loss,p_cat\n".to_owned();
        for i in 0..n {
            let said = if i < correct { "cat" } else { "dog" };
            let loss = if i < correct { 0.1 } else { 2.0 + i as f64 / 100.0 };
            predictions += &format!("{i},'=cats/{i:03}.png,test,,cnn,cat,{said},{},0.5,{loss},0.5\n", i < correct);
        }
        let predictions = with_predictions.then_some(predictions.as_bytes());
        Results::of_tables(metrics.as_bytes(), predictions).unwrap()
    }

    fn change<'c>(changes: &'c [MetricChange], metric: &str) -> &'c MetricChange {
        changes.iter().find(|change| change.metric == metric).unwrap()
    }

    #[test]
    fn small_moves_are_noise_and_large_ones_are_not() {
        let (old, near, far) = (tables(90, 100, true), tables(88, 100, true), tables(70, 100, true));
        let changes = metrics(&old, &near);
        assert_eq!(changes.len(), 2, "rows of folds, classes and means are not compared");
        let accuracy = change(&changes, "accuracy");
        assert!(accuracy.is_worse && !accuracy.is_worse_beyond_noise());
        assert_eq!(accuracy.judged.as_ref().unwrap().to_string(), "within noise (McNemar p 0.500, 100 images)");
        let changes = metrics(&old, &far);
        assert!(changes.iter().all(MetricChange::is_worse_beyond_noise), "{changes:?}");
        let changes = metrics(&far, &old);
        assert!(changes.iter().all(|change| !change.is_worse && !change.judged.as_ref().unwrap().is_noise));
        assert!(metrics(&old, &old).iter().all(|change| change.is_same() && change.judged.is_none()));
    }

    #[test]
    fn without_predictions_intervals_judge_and_without_those_nobody_does() {
        let (old, near, far) = (tables(90, 100, false), tables(88, 100, true), tables(60, 100, true));
        let by = |old: &Results, new: &Results, metric: &str| {
            let changes = metrics(old, new);
            let change = change(&changes, metric);
            (change.judged.as_ref().map(|judged| (judged.by, judged.is_noise)), change.is_worse_beyond_noise())
        };
        assert_eq!(by(&old, &near, "accuracy"), (Some(("intervals", true)), false));
        assert_eq!(by(&old, &far, "accuracy"), (Some(("intervals", false)), true));
        assert_eq!(by(&old, &near, "macro-f1"), (None, true), "where noise cannot be told, worse is worse");
        assert_eq!(flips(&old, &near), None);
        assert!(metrics(&Results::default(), &near).iter().all(|change| change.old.is_none() && !change.is_worse));
    }

    #[test]
    fn a_lock_file_knows_numbers_and_how_many_images() {
        let headline = |accuracy: &str, n: &str| {
            let pairs = [("evaluate.search.2.test.accuracy", accuracy), ("evaluate.search.2.test.n", n)];
            Results::of_headline(&pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
        };
        let changes = metrics(&headline("0.9", "1000"), &headline("0.8", "1000"));
        let [change] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((change.model.as_str(), change.old_n), ("search.2", Some(1000)));
        assert!(change.is_worse_beyond_noise() && change.judged.is_some());
        assert!(metrics(&headline("0.9", "10"), &headline("0.8", "10"))[0].judged.as_ref().unwrap().is_noise);
    }

    #[test]
    fn flips_are_named_by_path() {
        let all = flips(&tables(90, 100, true), &tables(88, 100, true)).unwrap();
        let [flips] = &all[..] else { panic!("{all:?}") };
        assert_eq!((flips.n_common, flips.n_mended(), flips.n_broken()), (100, 0, 2));
        assert_eq!(flips.flips[0].path, "=cats/088.png", "without the guard of its cell");
        assert_eq!((flips.flips[0].old.as_str(), flips.flips[0].new.as_str()), ("cat", "dog"));
    }

    #[test]
    fn a_number_that_went_missing_is_worse() {
        let mut gone = tables(90, 100, true);
        gone.scores.values_mut().for_each(|score| score.metrics.retain(|name, _| name != "macro-f1"));
        let changes = metrics(&tables(90, 100, true), &gone);
        assert!(change(&changes, "macro-f1").is_worse_beyond_noise());
        assert_eq!(shown_pair(Some(0.5), None), ("0.5000".into(), "none".into()));
        assert_eq!(shown_pair(Some(0.50001), Some(0.50002)), ("0.50001".into(), "0.50002".into()));
    }
}
