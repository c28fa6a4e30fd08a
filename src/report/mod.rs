//! What a run tells people: the tables under `out/NAME/`, collated from artifacts, and the texts for a terminal.
//!
//! The numbers are the stages'; here they only get the names of their stages, folds and a place. Every file is replaced
//! atomically and left alone when its bytes would be the same.

pub(crate) mod best;
pub mod changed_data;
pub mod compare;
pub(crate) mod content;
mod curves;
pub(crate) mod dataset;
mod document;
mod html;
pub(crate) mod junit;
pub(crate) mod markdown;
pub(crate) mod matrix;
pub(crate) mod outputs;
mod reads;
mod search;
pub(crate) mod summary;
pub(crate) mod svg;
pub(crate) mod tensorboard;
pub(crate) mod text;
pub(crate) mod trust;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::artifact::model::Description;
use crate::artifact::{Files, table};
use crate::stages::Part;
use svg::{Chart, Figure, Images};

pub use reads::reads;

/// A finished task and its artifact, as a report sees it.
#[derive(Clone, Debug)]
pub struct Finished<'a> {
    /// The stage's name.
    pub stage: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// Which of its tasks.
    pub part: Part,
    /// The trial of a search that it belongs to, as `r1t7`; `None` for the manifest's own stages.
    pub trial: Option<String>,
    /// The artifact.
    pub files: &'a Files,
}

/// How a table of an artifact gets into `out/NAME/`.
struct Table {
    /// The kind of stage that writes it.
    kind: &'static str,
    /// Its file name, in the artifact and in `out/NAME/`.
    file: &'static str,
    /// Whether its rows get `stage,trial,fold` in front, which an artifact does not know.
    is_per_task: bool,
}

/// Every table that a report has. A stage that writes another adds a line.
const TABLES: &[Table] = &[
    Table { kind: "ingest", file: "data.csv", is_per_task: false },
    Table { kind: "ingest", file: "skipped.csv", is_per_task: false },
    Table { kind: "split", file: "splits.csv", is_per_task: false },
    Table { kind: "reduce", file: "components.csv", is_per_task: true },
    Table { kind: "train", file: "sanity.csv", is_per_task: true },
    Table { kind: "train", file: "epochs.csv", is_per_task: true },
    Table { kind: "train", file: "layers.csv", is_per_task: true },
    Table { kind: "search", file: "trials.csv", is_per_task: false },
    Table { kind: "ensemble", file: "weights.csv", is_per_task: true },
    Table { kind: "evaluate", file: "metrics.csv", is_per_task: false },
    Table { kind: "evaluate", file: "gains.csv", is_per_task: false },
    Table { kind: "evaluate", file: "comparisons.csv", is_per_task: false },
    Table { kind: "evaluate", file: "predictions.csv", is_per_task: false },
    Table { kind: "evaluate", file: "confusion.csv", is_per_task: false },
    Table { kind: "evaluate", file: "calibration.csv", is_per_task: false },
    Table { kind: "evaluate", file: "temperatures.csv", is_per_task: false },
    Table { kind: "evaluate", file: "coverage.csv", is_per_task: false },
    Table { kind: "evaluate", file: "curves.csv", is_per_task: false },
    Table { kind: "evaluate", file: "by.csv", is_per_task: false },
    Table { kind: "evaluate", file: "suspects.csv", is_per_task: false },
];

/// Pictures that artifacts hold, by kind of stage and file name: each is a part of one in the folder of its own name, as
/// `components/pca-fold-1.svg`, `filters/cnn.svg`.
const PICTURES: &[(&str, &str)] = &[
    ("reduce", "components.png"),
    ("train", "filters-start.png"),
    ("train", "filters-best.png"),
    ("train", "filters-end.png"),
];

/// What is drawn around the pictures of a finished run: `components/TASK.svg`, `filters/STAGE.svg`.
fn pictures(finished: &[Finished<'_>]) -> Vec<(PathBuf, Vec<u8>)> {
    let mut out: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    // A hundred trials are told apart by numbers.
    for task in finished.iter().filter(|task| task.trial.is_none()) {
        if let Some(figure) = components(task) {
            out.push((Path::new("components").join(format!("{}.svg", task_name(task))), figure.to_svg()));
        }
        let path = Path::new("filters").join(format!("{}.svg", task.stage));
        // The folds' filters differ by what they began with: the first one's stand for all.
        if out.iter().all(|(known, _)| *known != path)
            && let Some(figure) = filters(task)
        {
            out.push((path, figure.to_svg()));
        }
    }
    out
}

/// The name of a task as a file's: `pca-fold-1`.
fn task_name(task: &Finished<'_>) -> String {
    match task.part {
        Part::Fold(fold) => format!("{}-fold-{fold}", task.stage),
        Part::All => format!("{}-all", task.stage),
        _ => task.stage.to_owned(),
    }
}

fn figure_of(title: String, subtitle: String, description: &str, images: Vec<(String, Vec<u8>)>) -> Figure {
    let mut figure = Figure::new(title, subtitle);
    figure.description = description.to_owned();
    figure.charts.push(Chart::Images(Images { images }));
    figure
}

/// The first components of a task of `reduce`, with how much they explain.
fn components(task: &Finished<'_>) -> Option<Figure> {
    let png = task.files.0.get("components.png").filter(|_| task.kind == "reduce")?;
    let table = task.files.0.get("components.csv").and_then(|bytes| curves::Columns::parse(bytes));
    let cumulative = table.map(|table| table.numbers("cumulative")).unwrap_or_default();
    let explained = cumulative
        .last()
        .map(|share| format!("{} components explain {:.1} % of the variance; ", cumulative.len(), 100.0 * share));
    let subtitle = format!("{}grey is 0, each component has its own contrast", explained.unwrap_or_default());
    let title = format!("{}: components", task_name(task).replace('-', " "));
    let subtitle = format!("{subtitle}, row by row");
    let shown = String::new();
    Some(figure_of(title, subtitle, "components of the images as small pictures", vec![(shown, png.to_vec())]))
}

/// The filters of a network's first layer, if they are large enough to look like something.
fn filters(task: &Finished<'_>) -> Option<Figure> {
    let model = Description::read(task.files).ok().filter(|_| task.kind == "train")?;
    if !has_large_filters(&model.architecture) {
        return None;
    }
    let named = [("start", "at the start"), ("best", "at the best epoch"), ("end", "at the end")];
    let image = |(file, title): &(&str, &str)| {
        Some(((*title).to_owned(), task.files.0.get(&format!("filters-{file}.png"))?.to_vec()))
    };
    let images: Vec<(String, Vec<u8>)> = named.iter().filter_map(image).collect();
    if images.is_empty() {
        return None;
    }
    let of = match task.part {
        Part::Fold(fold) => format!("of fold {fold}; "),
        _ => String::new(),
    };
    let subtitle = format!("{of}grey is 0, each filter has its own contrast");
    let title = format!("{}: filters of the first layer", task.stage);
    Some(figure_of(title, subtitle, "filters as small pictures, before and after training", images))
}

/// Whether the first layer with weights looks at 5x5 pixels or more at once.
fn has_large_filters(architecture: &str) -> bool {
    const LEAST: u32 = 5;
    let layers = architecture.split(" - ").map(|layer| layer.trim_start_matches('['));
    let Some(first) = layers.into_iter().find(|layer| layer.starts_with("CONV") || layer.starts_with("FC")) else {
        return false;
    };
    let Some(arguments) = first.strip_prefix("CONV") else { return true };
    let arguments = arguments.trim_start_matches('(').split(')').next().unwrap_or_default();
    let named = arguments.split("kernel_size").nth(1);
    let unnamed = || arguments.split(',').nth(1).filter(|text| !text.contains('='));
    let text = named.or_else(unnamed).unwrap_or_default();
    let digits: String = text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse::<u32>().is_ok_and(|size| size >= LEAST)
}

/// Renders every table and picture of a finished run: relative path under `out/NAME/` and content, sorted by path.
///
/// Tables of one name from several stages are put under one another when their columns agree; where they do not, each
/// goes into a folder named after its stage.
pub fn tables(finished: &[Finished<'_>]) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut out: BTreeMap<PathBuf, Vec<u8>> = pictures(finished).into_iter().chain(curves::curves(finished)).collect();
    out.extend(search::pictures(finished));
    for table in TABLES {
        let parts: Vec<(&str, Vec<u8>)> = finished
            .iter()
            .filter(|task| task.kind == table.kind && (table.is_per_task || task.trial.is_none()))
            .filter_map(|task| {
                let bytes = task.files.0.get(table.file)?;
                let bytes = if table.is_per_task { with_task_columns(bytes, task) } else { bytes.to_vec() };
                Some((task.stage, bytes))
            })
            .collect();
        let Some((_, first)) = parts.first() else { continue };
        let own = header(first).to_vec();
        // Rounds and trials of one search are numbered like those of another.
        let is_apart = table.kind == "search" && parts.iter().any(|(stage, _)| *stage != parts[0].0);
        if !is_apart && parts.iter().all(|(_, bytes)| header(bytes) == own) {
            let mut all = own;
            for (_, bytes) in &parts {
                all.extend_from_slice(&bytes[header(bytes).len()..]);
            }
            out.insert(PathBuf::from(table.file), all);
        } else {
            for (stage, bytes) in parts {
                let at = out.entry(Path::new(stage).join(table.file)).or_insert_with(|| header(&bytes).to_vec());
                at.extend_from_slice(&bytes[header(&bytes).len()..]);
            }
        }
    }
    out
}

/// The header with its line feed.
fn header(bytes: &[u8]) -> &[u8] {
    &bytes[..table::header_len(bytes)]
}

/// Puts `stage,trial,fold` before every row of a table.
fn with_task_columns(bytes: &[u8], task: &Finished<'_>) -> Vec<u8> {
    let fold = match task.part {
        Part::Fold(fold) => Some(fold),
        _ => None,
    };
    let cells = [task.stage.into(), task.trial.as_ref().into(), fold.into()];
    table::with_columns(bytes, &["stage", "trial", "fold"], &cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Bytes;

    fn files(entries: &[(&str, &str)]) -> Files {
        Files(entries.iter().map(|(name, text)| ((*name).to_owned(), Bytes::new(text.as_bytes().to_vec()))).collect())
    }

    #[test]
    fn rows_of_folds_get_their_stage_and_fold() {
        let one = files(&[("epochs.csv", "epoch,loss\n1,0.5\n2,0.25\n")]);
        let two = files(&[("epochs.csv", "epoch,loss\n1,0.75\n")]);
        let finished = [
            Finished { stage: "cnn", kind: "train", part: Part::Fold(1), trial: Some("r1t7".into()), files: &one },
            Finished { stage: "cnn", kind: "train", part: Part::All, trial: None, files: &two },
        ];
        let tables = tables(&finished);
        let text = String::from_utf8(tables[Path::new("epochs.csv")].clone()).unwrap();
        assert_eq!(text, "stage,trial,fold,epoch,loss\ncnn,r1t7,1,1,0.5\ncnn,r1t7,1,2,0.25\ncnn,,,1,0.75\n");
    }

    #[test]
    fn components_say_how_much_they_explain() {
        let png = crate::artifact::sheet::rows(&[vec![vec![7; 12]]], 2).unwrap();
        let table =
            "component,explained_variance,explained_variance_ratio,cumulative\n1,2.0,0.5,0.5\n2,1.0,0.25,0.75\n";
        let mut files = files(&[("components.csv", table)]);
        files.0.insert("components.png".to_owned(), Bytes::new(png));
        let finished = [
            Finished { stage: "pca", kind: "reduce", part: Part::Fold(2), trial: None, files: &files },
            Finished { stage: "pca", kind: "reduce", part: Part::All, trial: None, files: &files },
        ];
        let tables = tables(&finished);
        let names: Vec<String> = tables.keys().map(|path| path.display().to_string()).collect();
        assert_eq!(names, ["components/pca-all.svg", "components/pca-fold-2.svg", "components.csv"]);
        let text = String::from_utf8(tables[Path::new("components/pca-fold-2.svg")].clone()).unwrap();
        assert!(text.contains("2 components explain 75.0 % of the variance") && text.contains("image/png;base64"));
    }

    #[test]
    fn filters_are_shown_from_five_pixels_on() {
        for (architecture, expected) in [
            ("INPUT - CONV(32) - RELU - FC", false),
            ("INPUT - CONV(32, 5) - RELU - FC", true),
            ("INPUT - CONV(32, kernel_size=7, stride=2) - FC", true),
            ("INPUT - CONV(32, kernel_size=[3, 3]) - CONV(8, 7) - FC", false),
            ("INPUT - [CONV(32, 3, 2) - RELU]*2 - FC", false),
            ("INPUT - FLATTEN - FC(10) - FC", true),
            ("INPUT - CONV(8, padding=9) - FC", false),
        ] {
            assert_eq!(has_large_filters(architecture), expected, "{architecture}");
        }
    }

    #[test]
    fn tables_with_other_columns_go_into_their_stages_folders() {
        let one = files(&[("predictions.csv", "id,p_cat\n1,0.5\n")]);
        let two = files(&[("predictions.csv", "id,p_dog\n1,0.5\n")]);
        let finished = [
            Finished { stage: "a", kind: "evaluate", part: Part::Whole, trial: None, files: &one },
            Finished { stage: "b", kind: "evaluate", part: Part::Whole, trial: None, files: &two },
        ];
        let tables = tables(&finished);
        assert_eq!(
            tables.keys().map(|p| p.display().to_string()).collect::<Vec<_>>(),
            ["a/predictions.csv", "b/predictions.csv"]
        );
    }
}
