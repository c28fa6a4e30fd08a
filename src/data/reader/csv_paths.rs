//! A CSV of `path,label[,split,group]`: a row per image file. Paths are relative to the CSV.
//!
//! With a header the columns may stand in any order and others are ignored; without one they stand in the order above.

use std::path::{Path, PathBuf};

use super::classes::by_column;
use super::folder::Listing;
use super::input::Input;
use super::{Content, Error, Files, Found, GivenSplit, Limits, Query, Reader, Sample};

const PATH: &[&str] = &["path", "file", "filename", "file_name", "filepath", "image", "image_path"];
const LABEL: &[&str] = &["label", "class", "class_name", "target"];
const SPLIT: &[&str] = &["split", "set", "subset"];
const GROUP: &[&str] = &["group", "group_id"];
/// The longest row: a path, three words, and room.
const MAX_ROW: u64 = 1 << 20;

#[derive(Clone, Debug)]
struct CsvPaths {
    table: PathBuf,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    path: String,
    label: String,
    given: Option<GivenSplit>,
    group: Option<String>,
}

#[derive(Clone, Copy)]
struct Columns {
    path: usize,
    label: usize,
    split: Option<usize>,
    group: Option<usize>,
}

/// Finds a table of paths: text whose first row names the columns, or holds a path and one to three more cells.
///
/// # Errors
/// If a row is malformed.
pub fn find(query: &Query<'_>) -> Result<Option<Box<dyn Found>>, Error> {
    if query.is_folder || !super::is_text(&query.head) {
        return Ok(None);
    }
    let mut first = csv::StringRecord::new();
    let mut head = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(&query.head[..]);
    if !head.read_record(&mut first).unwrap_or(false) {
        return Ok(None);
    }
    let at = |names: &[&str]| first.iter().position(|cell| names.contains(&cell.trim().to_lowercase().as_str()));
    let (columns, has_header) = match (at(PATH), at(LABEL)) {
        (Some(path), Some(label)) => (Columns { path, label, split: at(SPLIT), group: at(GROUP) }, true),
        _ => {
            let is_path =
                |cell: &str| cell.trim().parse::<f64>().is_err() && (cell.contains('.') || cell.contains('/'));
            if !(2..=4).contains(&first.len()) || !is_path(&first[0]) {
                return Ok(None);
            }
            (Columns { path: 0, label: 1, split: Some(2), group: Some(3) }, false)
        }
    };
    let rows = read_rows(query.path, columns, has_header)?;
    Ok(Some(Box::new(CsvPaths { table: query.path.to_owned(), rows })))
}

fn read_rows(table: &Path, columns: Columns, has_header: bool) -> Result<Vec<Row>, Error> {
    let input = Input::Path(table.to_owned());
    let (stream, row_start) = super::limited(input.open()?, MAX_ROW);
    let mut reader = csv::ReaderBuilder::new().has_headers(has_header).flexible(true).from_reader(stream);
    let mut record = csv::StringRecord::new();
    let mut rows = Vec::new();
    while reader.read_record(&mut record).map_err(|e| super::csv_error(&input, e))? {
        row_start.reset();
        let line = record.position().map_or(0, csv::Position::line);
        let cell =
            |column: Option<usize>| column.and_then(|i| record.get(i)).map(str::trim).filter(|cell| !cell.is_empty());
        let missing = |what: &str| input.wrong(format_args!("has no {what} in line {line}"));
        let path = cell(Some(columns.path)).ok_or_else(|| missing("path"))?.to_owned();
        let label = cell(Some(columns.label)).ok_or_else(|| missing("label"))?.to_owned();
        let given = match cell(columns.split) {
            None => None,
            Some(word) => Some(GivenSplit::parse(word).ok_or_else(|| {
                input.wrong(format_args!(
                    "has the split `{word}` in line {line}, expected `train`, `validation` or `test`"
                ))
            })?),
        };
        rows.push(Row { path, label, given, group: cell(columns.group).map(str::to_owned) });
    }
    Ok(rows)
}

impl CsvPaths {
    fn full(&self, row: &Row) -> PathBuf {
        self.table.parent().unwrap_or(Path::new("")).join(&row.path)
    }
}

impl Found for CsvPaths {
    /// Images that are not there are left out: they are errors of those images, not of the source.
    fn files(&self) -> Files {
        let mut files = vec![("table".to_owned(), self.table.clone())];
        let images = self.rows.iter().map(|row| (format!("image {}", row.path), self.full(row)));
        files.extend(images.filter(|(_, path)| path.is_file()));
        files.dedup();
        Files::Each(files)
    }

    fn open(&self, _limits: &Limits) -> Result<Box<dyn Reader>, Error> {
        let names: Vec<String> = self.rows.iter().map(|row| row.label.clone()).collect();
        let (classes, labels) = by_column(&names);
        let samples = self
            .rows
            .iter()
            .zip(labels)
            .map(|(row, label)| Sample {
                path: row.path.clone(),
                label,
                given: row.given,
                group: row.group.clone(),
                content: Content::File(self.full(row)),
            })
            .collect();
        Ok(Box::new(Listing { classes, samples }))
    }
}
