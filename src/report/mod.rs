//! What a run tells people: the tables under `out/NAME/`, collated from artifacts, and the texts for a terminal.
//!
//! The numbers are the stages'; here they only get the names of their stages, folds and a place. Every file is replaced
//! atomically and left alone when its bytes would be the same.

pub mod changed_data;
pub mod compare;
mod curves;
pub(crate) mod dataset;
pub(crate) mod junit;
pub(crate) mod matrix;
pub(crate) mod outputs;
mod reads;
mod search;
pub(crate) mod summary;
pub(crate) mod svg;
pub(crate) mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::artifact::{Files, table};
use crate::stages::Part;

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
];

/// Pictures that artifacts hold, by kind of stage and file name: each task's goes into a folder of its own name, as
/// `components/pca-fold-1.png`.
///
/// What stands behind a `-` in the file's name goes behind that of the task: `filters/cnn-fold-1-start.png`.
const PICTURES: &[(&str, &str)] = &[
    ("reduce", "components.png"),
    ("train", "filters-start.png"),
    ("train", "filters-best.png"),
    ("train", "filters-end.png"),
];

/// Every picture of a finished run.
fn pictures(finished: &[Finished<'_>]) -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
    // A hundred trials are told apart by numbers.
    finished.iter().filter(|task| task.trial.is_none()).flat_map(|task| {
        let own = PICTURES.iter().filter(|(kind, _)| *kind == task.kind);
        own.filter_map(|(_, file)| {
            let part = match task.part {
                Part::Fold(fold) => format!("-fold-{fold}"),
                Part::All => "-all".to_owned(),
                Part::Whole | Part::Round(_) | Part::Sanity => String::new(),
            };
            let (name, ending) = file.split_once('.')?;
            let (folder, which) = name.split_at(name.find('-').unwrap_or(name.len()));
            let path = Path::new(folder).join(format!("{}{part}{which}.{ending}", task.stage));
            Some((path, task.files.0.get(*file)?.to_vec()))
        })
    })
}

/// Renders every table and picture of a finished run: relative path under `out/NAME/` and content, sorted by path.
///
/// Tables of one name from several stages are put under one another when their columns agree; where they do not, each
/// goes into a folder named after its stage.
pub fn tables(finished: &[Finished<'_>]) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut out: BTreeMap<PathBuf, Vec<u8>> = pictures(finished).chain(curves::curves(finished)).collect();
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
        Part::Whole | Part::All | Part::Round(_) | Part::Sanity => None,
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
    fn pictures_of_tasks_stand_beside_one_another() {
        let files = files(&[("components.png", "picture"), ("components.csv", "component\n1\n")]);
        let finished = [
            Finished { stage: "pca", kind: "reduce", part: Part::Fold(2), trial: None, files: &files },
            Finished { stage: "pca", kind: "reduce", part: Part::All, trial: None, files: &files },
        ];
        let tables = tables(&finished);
        let names: Vec<String> = tables.keys().map(|path| path.display().to_string()).collect();
        assert_eq!(names, ["components/pca-all.png", "components/pca-fold-2.png", "components.csv"]);
        assert_eq!(tables[Path::new("components/pca-all.png")], b"picture");
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
