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
pub fn find(query: &Query<'_>) -> super::FindResult {
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
    /// Images that are not there are left out: they are errors of those images, not of the source. Which ones these are is
    /// part of the others' role, so that an image that disappears is a change.
    fn files(&self) -> Files {
        let mut there = Vec::new();
        let mut missing = blake3::Hasher::new();
        for row in &self.rows {
            let path = self.full(row);
            if path.is_file() {
                there.push(path);
            } else {
                missing.update(row.path.as_bytes()).update(b"\0");
            }
        }
        let role = match missing.count() {
            0 => "images".to_owned(),
            _ => format!("images but for {}", &missing.finalize().to_hex()[..16]),
        };
        let images = there.into_iter().map(|path| (role.clone(), path));
        Files::Each(std::iter::once(("table".to_owned(), self.table.clone())).chain(images).collect())
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

#[cfg(test)]
mod tests {
    use super::super::testing::{collect, error_of, png};
    use super::*;

    #[test]
    fn rows_are_read_with_and_without_a_header() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("img")).unwrap();
        for (i, name) in ["a.png", "b.png", "c.png"].into_iter().enumerate() {
            std::fs::write(folder.path().join("img").join(name), png(2, 1, &[i as u8; 2])).unwrap();
        }
        let table = folder.path().join("table.txt");
        std::fs::write(
            &table,
            "group,label,path,split\np1,10,img/a.png,train\n\"p,2\",9,img/b.png,val\n,10,img/c.png,\n",
        )
        .unwrap();
        let (classes, samples) = collect(&table, None);
        assert_eq!(classes, ["9", "10"]);
        let seen: Vec<_> = samples.iter().map(|s| (s.path.as_str(), s.label, s.given, s.group.as_deref())).collect();
        assert_eq!(
            seen,
            [
                ("img/a.png", 1, Some(GivenSplit::Train), Some("p1")),
                ("img/b.png", 0, Some(GivenSplit::Validation), Some("p,2")),
                ("img/c.png", 1, None, None),
            ]
        );
        assert_eq!(samples[2].image.as_ref().unwrap().0.pixels, [2, 2]);
        std::fs::write(&table, "img/a.png,cat\nimg/gone.png,dog\n").unwrap();
        let (classes, samples) = collect(&table, None);
        assert_eq!(classes, ["cat", "dog"]);
        assert_eq!(samples[1].image.as_ref().unwrap_err(), "does not exist");
    }

    #[test]
    fn an_image_that_disappears_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.png"] {
            std::fs::write(folder.path().join(name), "same").unwrap();
        }
        let table = folder.path().join("t.csv");
        std::fs::write(&table, "a.png,x\nb.png,y\n").unwrap();
        let roles = || match super::super::find(&table, None, "auto").unwrap().files() {
            Files::Each(files) => files.into_iter().map(|(role, _)| role).collect::<Vec<_>>(),
            Files::Folder(_) => Vec::new(),
        };
        assert_eq!(roles(), ["table", "images", "images"]);
        std::fs::rename(folder.path().join("a.png"), folder.path().join("c.png")).unwrap();
        let without_a = roles();
        std::fs::rename(folder.path().join("b.png"), folder.path().join("a.png")).unwrap();
        assert_eq!(without_a.len(), 2);
        assert_ne!(without_a, roles());
    }

    #[test]
    fn a_bad_row_is_named_by_its_line() {
        for (text, expected) in [
            ("path,label,split\na.png,x,train\nb.png,y,often\n", "has the split `often` in line 3"),
            ("path,label\na.png,\n", "has no label in line 2"),
            ("path,label\n,x\n", "has no path in line 2"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let table = folder.path().join("t.csv");
            std::fs::write(&table, text).unwrap();
            let error = error_of(&table);
            assert!(error.contains(expected), "{error}");
        }
    }
}
