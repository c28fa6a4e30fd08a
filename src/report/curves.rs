//! Learning curves: one picture a train stage, folds as thin lines and their mean as a thick one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Finished;
use super::svg::{Axis, Band, Chart, Figure, Guide, Plot, Series, categorical, sequential};
use crate::config::shortest;
use crate::stages::Part;

/// Update over weights where a layer learns well (CS231n: about 1e-3).
const HEALTHY: (f64, f64) = (1e-4, 1e-2);
/// Learning rates, losses: from this factor between largest and smallest on, an axis is logarithmic.
const WIDE: f64 = 30.0;
/// Learning rates smaller than the largest by more than this have no say in their axis.
const MOST_RANGE: f64 = 1e4;

/// What learning curves are drawn from, of whatever kind of stage: a search trains its last round itself.
pub(super) const CURVES: [&str; 2] = ["epochs.csv", "layers.csv"];

/// One task's numbers: a column by its name, one value an epoch, not a number where a cell is empty.
pub(super) struct Columns(BTreeMap<String, Vec<String>>);

impl Columns {
    /// A table as stages write them.
    pub(super) fn parse(bytes: &[u8]) -> Option<Columns> {
        let mut reader = csv::Reader::from_reader(bytes);
        let header = reader.headers().ok()?.clone();
        let mut columns: Vec<Vec<String>> = vec![Vec::new(); header.len()];
        for record in reader.records() {
            let record = record.ok()?;
            columns.iter_mut().zip(&record).for_each(|(column, cell)| column.push(cell.to_owned()));
        }
        Some(Columns(header.iter().map(str::to_owned).zip(columns).collect()))
    }

    /// Names of its columns, in alphabetical order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn texts(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], |column| column)
    }

    pub(super) fn numbers(&self, name: &str) -> Vec<f64> {
        self.texts(name).iter().map(|cell| cell.parse().unwrap_or(f64::NAN)).collect()
    }

    /// `(epoch, value)`, of all rows.
    fn points(&self, name: &str) -> Vec<(f64, f64)> {
        self.numbers("epoch").into_iter().zip(self.numbers(name)).collect()
    }
}

/// `curves/STAGE.svg` for every stage that trains.
pub(super) fn curves(finished: &[Finished<'_>]) -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
    // A hundred trials are told apart by numbers.
    let own = || finished.iter().filter(|task| task.trial.is_none());
    let stages: BTreeSet<&str> =
        own().filter(|task| task.files.0.contains_key(CURVES[0])).map(|task| task.stage).collect();
    stages.into_iter().filter_map(move |stage| {
        let tasks: Vec<&Finished<'_>> = own().filter(|task| task.stage == stage).collect();
        Some((Path::new("curves").join(format!("{stage}.svg")), figure(stage, &tasks)?.to_svg()))
    })
}

fn figure(stage: &str, tasks: &[&Finished<'_>]) -> Option<Figure> {
    let read = |file: &str| -> Vec<(Part, Columns)> {
        let of = |task: &&Finished<'_>| Some((task.part, Columns::parse(task.files.0.get(file)?)?));
        tasks.iter().filter_map(of).collect()
    };
    let [epochs, layers] = CURVES.map(read);
    let n_folds = epochs.iter().filter(|(part, _)| matches!(part, Part::Fold(_))).count();
    let subtitle = match (n_folds, epochs.iter().any(|(part, _)| *part == Part::All)) {
        (0 | 1, false) => String::new(),
        (n, false) => format!("thick: mean of {n} folds; thin: each fold"),
        (n, true) => format!("thick: mean of {n} folds; thin: each fold; dashed: all training rows (refit)"),
    };
    let mut figure = Figure::new(format!("{stage}: learning curves"), subtitle);
    let losses = || epochs.iter().flat_map(|(_, table)| [table.numbers("train_loss"), table.numbers("valid_loss")]);
    let loss = match is_wide(losses().flatten()) {
        true => Axis::log("cross-entropy (nats)"),
        false => Axis::linear("cross-entropy (nats)"),
    };
    for (title, y, columns) in [
        ("Loss", loss, ["train_loss", "valid_loss"]),
        ("Accuracy", Axis::linear("share of images that are right"), ["train_accuracy", "valid_accuracy"]),
    ] {
        let mut plot = Plot::new(title, Axis::whole("epoch"), y);
        for (i, (column, name)) in columns.into_iter().zip(["training", "validation"]).enumerate() {
            let lines: Vec<(Part, Vec<(f64, f64)>)> =
                epochs.iter().map(|(part, table)| (*part, table.points(column))).collect();
            plot.series.extend(bundle(name, i, &lines));
        }
        if let (1, Some(best)) = (epochs.len(), best_epoch(&epochs[0].1)) {
            plot.guides.push(Guide { at: best, name: "lowest validation loss".into() });
        }
        figure.charts.push(Chart::Plot(plot));
    }
    figure.charts.push(Chart::Plot(ratios(&layers)));
    let rates = || epochs.iter().flat_map(|(_, table)| table.numbers("learning_rate")).filter(|rate| rate.is_finite());
    let (low, high) = rates().fold((f64::INFINITY, 0.0f64), |(low, high), rate| (low.min(rate), high.max(rate)));
    if low < high {
        // Where a schedule ends, at 0 or near it, is no reason to stretch the axis of all the rest.
        let shown = rates().filter(|rate| *rate >= high / MOST_RANGE).fold(high, f64::min);
        let axis = match high > WIDE * shown {
            true => Axis::log("at the end of the epoch").within(shown / 1.3, high * 1.3),
            false => Axis::linear("at the end of the epoch"),
        };
        let mut plot = Plot::new("Learning rate", Axis::whole("epoch"), axis);
        for (_, table) in &epochs {
            let line = Series::line("", categorical(2), table.points("learning_rate"));
            plot.series.push(Series { name: None, ..line });
        }
        figure.charts.push(Chart::Plot(plot));
    } else if high > 0.0 {
        let rate = format!("learning rate {} throughout", shortest(high));
        figure.subtitle = if figure.subtitle.is_empty() { rate } else { format!("{rate}; {}", figure.subtitle) };
    }
    figure.description = "loss, accuracy and the size of updates by epoch, training beside validation".to_owned();
    Some(figure)
}

/// The epoch of the lowest validation loss.
fn best_epoch(table: &Columns) -> Option<f64> {
    let points = table.points("valid_loss");
    let finite = points.into_iter().filter(|(_, loss)| loss.is_finite());
    finite.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(epoch, _)| epoch)
}

fn is_wide(values: impl Iterator<Item = f64>) -> bool {
    let positive = values.filter(|x| *x > 0.0);
    let (low, high) = positive.fold((f64::INFINITY, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
    high > WIDE * low
}

/// Folds as thin lines, their mean as a thick one, what was trained on all rows in dashes.
fn bundle(name: &str, colour: usize, lines: &[(Part, Vec<(f64, f64)>)]) -> Vec<Series> {
    let colour = categorical(colour);
    let folds: Vec<&Vec<(f64, f64)>> =
        lines.iter().filter(|(part, _)| matches!(part, Part::Fold(_))).map(|(_, points)| points).collect();
    let mut series = Vec::new();
    if folds.len() > 1 {
        series.extend(folds.iter().map(|points| Series::line("", colour, (*points).clone()).thin()));
    }
    series.push(Series::line(name, colour, mean(&folds)));
    let all = lines.iter().filter(|(part, _)| *part == Part::All);
    series.extend(all.map(|(_, points)| Series { name: None, ..Series::line("", colour, points.clone()).dashed() }));
    series.retain(|series| series.points.iter().any(|(_, y)| y.is_finite()));
    series
}

/// The mean of several lines where all of those that still go on have a value.
fn mean(lines: &[&Vec<(f64, f64)>]) -> Vec<(f64, f64)> {
    let longest = lines.iter().map(|line| line.len()).max().unwrap_or(0);
    (0..longest)
        .filter_map(|i| {
            let here: Vec<(f64, f64)> = lines.iter().filter_map(|line| line.get(i).copied()).collect();
            let sum = here.iter().fold(0.0, |sum, (_, y)| sum + y);
            Some((here.first()?.0, sum / here.len() as f64))
        })
        .collect()
}

/// Size of the updates beside that of the weights, a line a layer, the mean over the folds.
fn ratios(layers: &[(Part, Columns)]) -> Plot {
    let mut plot = Plot::new("Updates", Axis::whole("epoch"), Axis::log("norm of update / norm of weights"));
    let mut names: Vec<&String> = Vec::new();
    for (_, table) in layers {
        for name in table.texts("layer") {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let of_layer = |name: &String| -> Vec<(f64, f64)> {
        let folds: Vec<Vec<(f64, f64)>> = layers
            .iter()
            .map(|(_, table)| {
                let (epochs, update, weight) =
                    (table.numbers("epoch"), table.numbers("update_norm"), table.numbers("weight_norm"));
                let rows = table.texts("layer").iter().enumerate().filter(|(_, layer)| *layer == name);
                rows.map(|(i, _)| (epochs[i], update[i] / weight[i])).collect()
            })
            .collect();
        mean(&folds.iter().collect::<Vec<_>>())
    };
    let lines: Vec<(&String, Vec<(f64, f64)>)> = names
        .into_iter()
        .map(|name| (name, of_layer(name)))
        .filter(|(_, points)| points.iter().any(|(_, ratio)| ratio.is_finite()))
        .collect();
    let n = lines.len();
    for (i, (name, points)) in lines.into_iter().enumerate() {
        let t = if n > 1 { i as f64 / (n - 1) as f64 } else { 0.3 };
        plot.series.push(Series::line(name, sequential(t), points));
    }
    plot.bands.push(Band { low: HEALTHY.0, high: HEALTHY.1, name: "about 1e-3".into() });
    plot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{Bytes, Files};

    fn files(epochs: &str, layers: &str) -> Files {
        let of = |name: &str, text: &str| (name.to_owned(), Bytes::new(text.as_bytes().to_vec()));
        Files([of("epochs.csv", epochs), of("layers.csv", layers)].into_iter().collect())
    }

    #[test]
    fn every_train_stage_gets_a_picture_with_its_folds_and_their_mean() {
        let header = "epoch,step,learning_rate,train_loss,train_accuracy,valid_loss,valid_accuracy\n";
        let one = files(
            &format!("{header}1,10,0.1,2.0,0.3,2.1,0.25\n2,20,0.1,1.0,0.6,1.2,0.5\n"),
            "epoch,step,layer,weight_norm,update_norm,log10_ratio,grad_norm,dead_fraction\n1,10,1.conv,2.0,0.002,-3.0,1.0,0.0\n2,20,1.conv,2.0,0.002,-3.0,1.0,0.0\n",
        );
        let two = files(&format!("{header}1,10,0.1,4.0,0.3,2.1,0.25\n"), "epoch,layer\n");
        let all = files(&format!("{header}1,10,0.1,2.0,0.3,,\n"), "epoch,layer\n");
        let task = |part, files| Finished { stage: "cnn", kind: "train", part, trial: None, files };
        let finished = [task(Part::Fold(1), &one), task(Part::Fold(2), &two), task(Part::All, &all)];
        let pictures: Vec<(PathBuf, Vec<u8>)> = curves(&finished).collect();
        assert_eq!(pictures.len(), 1);
        assert_eq!(pictures[0].0, Path::new("curves/cnn.svg"));
        let text = String::from_utf8(pictures[0].1.clone()).unwrap();
        for expected in ["cnn: learning curves", "mean of 2 folds", "refit", "training", "validation", "1.conv", "nats"]
        {
            assert!(text.contains(expected), "{expected}");
        }
        // A constant rate is a line of text, not a chart.
        assert!(text.contains("learning rate 0.1 throughout") && !text.contains(">Learning rate<"), "{text}");
        assert_eq!(mean(&[&vec![(1.0, 2.0), (2.0, 1.0)], &vec![(1.0, 4.0)]]), [(1.0, 3.0), (2.0, 1.0)]);
        assert_eq!(curves(&finished).collect::<Vec<_>>(), pictures);
    }

    #[test]
    fn where_a_schedule_ends_does_not_stretch_its_axis() {
        let rates = |rates: &[f64]| {
            let rows = rates.iter().enumerate();
            let rows: String = rows.map(|(i, rate)| format!("{},{i},{rate},2.0,0.3,2.1,0.25\n", i + 1)).collect();
            let header = "epoch,step,learning_rate,train_loss,train_accuracy,valid_loss,valid_accuracy\n";
            let files = files(&format!("{header}{rows}"), "epoch,layer\n");
            let task = Finished { stage: "cnn", kind: "train", part: Part::Fold(1), trial: None, files: &files };
            String::from_utf8(curves(&[task]).next().unwrap().1).unwrap()
        };
        let falling = rates(&[0.1, 0.05, 0.01, 0.0005, 0.0]);
        assert!(falling.contains(">Learning rate<") && falling.contains(">0.001<"), "{falling}");
        assert!(!falling.contains("10⁻⁵"), "{falling}");
        assert!(!rates(&[0.1, 0.05, 0.01, 0.0005, 1e-17]).contains("10⁻¹⁶"));
    }
}
