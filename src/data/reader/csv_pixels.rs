//! A CSV of pixels: a label and then the values of one image in each row, as MNIST is often passed around.
//!
//! With a header the label's column may stand anywhere and `split` and `group` columns are understood; without one the
//! label comes first, and a table where it could as well come last is refused. A
//! square number of values is a grey image; three times a square is an RGB image whose channels lie together; names
//! such as `28x28` in the header give the shape of any grey image.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::PathBuf;

use super::classes::{Column, some_of};
use super::input::Input;
use super::table::{Dialect, is_blank, wanted_columns};
use super::{Content, Error, Files, Found, GivenSplit, Pick, Query, Reader, Sample};
use crate::data::pixels::Depth;
use crate::data::pixels::{Limits, Raw, RawAlpha};
use crate::tensor::ImageShape;

const LABEL: &[&str] = &["label", "class", "target", "y"];
const SPLIT: &[&str] = &["split", "set", "usage"];
const GROUP: &[&str] = &["group", "group_id"];
/// Columns that number the rows.
const ID: &[&str] = &["id", "index", "image_id", "unnamed: 0", ""];
/// Rows that tell which column is the label.
const SAMPLE_ROWS: usize = 500;
/// What is read of them at most, in bytes.
const MAX_SAMPLE: u64 = 1 << 22;
/// Fewest values of an image; below that a table is something else.
const MIN_VALUES: usize = 4;
/// Bytes that one value and its comma may take at most in a row.
const MAX_CELL: u64 = 32;

#[derive(Clone, Debug)]
struct CsvPixels {
    path: PathBuf,
    dialect: Dialect,
    shape: ImageShape,
    label: usize,
    split: Option<usize>,
    group: Option<usize>,
    /// Columns that images are to be handed on with.
    wanted: Vec<usize>,
    /// Columns that are neither the label nor pixels.
    ignored: Vec<usize>,
    n_columns: usize,
    has_header: bool,
}

/// Finds a table of pixels: text whose rows are numbers, under a header or not.
///
/// # Errors
/// If it is one but its number of columns makes no image, or it is not clear which column is the label.
pub fn find(query: &Query<'_>) -> super::FindResult {
    if query.is_folder {
        return Ok(None);
    }
    let at = |first: &csv::StringRecord, names: &[&str]| -> Vec<usize> {
        let is_one = |cell: &str| names.contains(&cell.trim().to_lowercase().as_str());
        (0..first.len()).filter(|&i| is_one(&first[i])).collect()
    };
    let Some(dialect) = Dialect::of(&query.head, |first| !at(first, LABEL).is_empty()) else { return Ok(None) };
    let input = Input::Path(query.path.to_owned());
    let mut rows = Vec::new();
    for row in dialect.reader().from_reader(dialect.open(&input)?.take(MAX_SAMPLE)).records().take(SAMPLE_ROWS) {
        match row {
            Ok(row) => rows.push(row),
            Err(_) => return Ok(None),
        }
    }
    let Some(first) = rows.first() else { return Ok(None) };
    let n_columns = first.len();
    let is_number = |cell: &str| cell.trim().parse::<f64>().is_ok();
    let labels = at(first, LABEL);
    let has_header = !labels.is_empty();
    let others = if has_header { [at(first, SPLIT), at(first, GROUP), at(first, ID)] } else { Default::default() };
    // A table of other things is not refused for want of a column.
    let wanted = wanted_columns(&input, has_header.then_some(first), query.columns);
    let apart = wanted.as_deref().unwrap_or_default().iter();
    let ignored: Vec<usize> = labels.iter().skip(1).chain(others.iter().flatten()).chain(apart).copied().collect();
    let ignored: BTreeSet<usize> = ignored.into_iter().filter(|column| labels.first() != Some(column)).collect();
    let ignored: Vec<usize> = ignored.into_iter().collect();
    let n_values = n_columns.saturating_sub(1 + ignored.len());
    // Without a header all but the label are numbers.
    let n_words = first.iter().filter(|cell| !is_number(cell)).count();
    if n_values < MIN_VALUES || (!has_header && n_words > 1) {
        return Ok(None);
    }
    // The last row may be cut.
    let whole: Vec<&csv::StringRecord> =
        rows.iter().skip(usize::from(has_header)).filter(|row| row.len() == n_columns && !is_blank(row)).collect();
    let label = match (labels.first(), n_words) {
        (Some(&label), _) => label,
        (None, 0) => label_among_numbers(&input, &whole)?,
        (None, _) if !is_number(&first[0]) => 0,
        (None, _) if !is_number(&first[n_columns - 1]) => n_columns - 1,
        _ => return Ok(None),
    };
    let is_pixel = |(i, cell)| i == label || ignored.contains(&i) || is_number(cell);
    if !whole.first().is_none_or(|row| row.iter().enumerate().all(is_pixel)) {
        return Ok(None);
    }
    if labels.len() > 1 {
        let names = some_of(labels.iter().map(|&i| &first[i]));
        return Err(input
            .wrong(format_args!("has the columns {names}, which could all be the label"))
            .help("rename or remove those that are not"));
    }
    let header = has_header.then_some(first);
    let Some(shape) = shape_of(n_values, header) else {
        return Err(input
            .wrong(format_args!(
                "has {n_values} values in a row, which make neither a square grey nor a square RGB image"
            ))
            .help("name the columns by row and column, `1x1`, `1x2`, …, or use another format"));
    };
    let [split, group, _] = others.map(|columns| columns.first().copied());
    let (path, wanted) = (query.path.to_owned(), wanted?);
    Ok(Some(Box::new(CsvPixels { path, dialect, shape, label, split, group, wanted, ignored, n_columns, has_header })))
}

/// Which end of rows of numbers is the label: the first, unless the last could be it as well.
fn label_among_numbers(input: &Input, rows: &[&csv::StringRecord]) -> Result<usize, Error> {
    let distinct = |column: usize| {
        let values: BTreeSet<&str> = rows.iter().map(|row| row[column].trim()).collect();
        let are_labels = values.iter().all(|value| value.parse::<u32>().is_ok());
        if are_labels { values.len() } else { usize::MAX }
    };
    let last = rows.first().map_or(0, |row| row.len() - 1);
    let (at_first, at_last) = (distinct(0), distinct(last));
    // Labels are few and each comes several times; a pixel in a corner hardly changes, or has many values.
    let first_is_odd = at_first == 1 && rows.len() > 1 && at_last > 1;
    let last_is_likely = at_last > 1 && at_last < at_first && at_last <= rows.len() / 2;
    if !first_is_odd && !last_is_likely {
        return Ok(0);
    }
    Err(input
        .wrong(format_args!(
            "has no header, and it is not clear whether its first column is the label ({at_first} different values in {} rows) or its last ({at_last})",
            rows.len()
        ))
        .help("add a header whose cell over the labels is `label`"))
}

fn shape_of(n_values: usize, header: Option<&csv::StringRecord>) -> Option<ImageShape> {
    let named = header.and_then(|header| header.iter().rev().find_map(row_and_column));
    if let Some((height, width)) = named.filter(|(height, width)| height.checked_mul(*width) == Some(n_values)) {
        return Some(ImageShape { height, width, channels: 1 });
    }
    [1, 3].into_iter().find_map(|channels| {
        let side = (n_values / channels).isqrt();
        (side * side * channels == n_values).then_some(ImageShape { height: side, width: side, channels })
    })
}

/// `28x28` as the last pixel's name.
fn row_and_column(name: &str) -> Option<(usize, usize)> {
    let (row, column) = name.trim().split_once('x')?;
    Some((row.parse().ok()?, column.parse().ok()?))
}

impl CsvPixels {
    fn input(&self) -> Input {
        Input::Path(self.path.clone())
    }

    /// Hands each row to `visit`, with its line.
    fn rows(&self, visit: &mut dyn FnMut(&csv::StringRecord, u64) -> Result<(), Error>) -> Result<(), Error> {
        let input = self.input();
        let most = MAX_CELL * self.n_columns as u64 + (1 << 17);
        let (stream, allowed) = super::limited(self.dialect.open(&input)?, "a row");
        let mut reader = self.dialect.reader().buffer_capacity(1 << 16).from_reader(stream);
        let mut record = csv::StringRecord::new();
        let mut is_header = self.has_header;
        allowed.set(most);
        while reader.read_record(&mut record).map_err(|e| super::csv_error(&input, e))? {
            allowed.set(most);
            if std::mem::take(&mut is_header) {
                continue;
            }
            if is_blank(&record) {
                continue;
            }
            let line = self.dialect.line(&reader);
            if record.len() != self.n_columns {
                return Err(input.wrong(format_args!(
                    "has {} columns in line {line}, expected {} as in the first",
                    record.len(),
                    self.n_columns
                )));
            }
            visit(&record, line)?;
        }
        Ok(())
    }

    fn given(&self, record: &csv::StringRecord, line: u64) -> Result<Option<GivenSplit>, Error> {
        let Some(word) = self.split.and_then(|i| record.get(i)).map(str::trim).filter(|word| !word.is_empty()) else {
            return Ok(None);
        };
        GivenSplit::in_name(word).map(Some).ok_or_else(|| {
            self.input()
                .wrong(format_args!("has the split `{word}` in line {line}, expected `train`, `validation` or `test`"))
        })
    }
}

impl Found for CsvPixels {
    fn files(&self) -> Files {
        Files::Each(vec![("table".to_owned(), self.path.clone())])
    }

    fn open(&self, limits: &Limits) -> Result<Box<dyn Reader>, Error> {
        limits.check_raw(self.shape, Depth::U8).map_err(|reason| self.input().wrong(reason))?;
        let mut names = Column::default();
        self.rows(&mut |record, line| {
            let name = record[self.label].trim();
            if name.is_empty() {
                return Err(self.input().wrong(format_args!("has no label in line {line}")));
            }
            names.push(name)
        })?;
        if names.is_empty() {
            return Err(self.input().wrong("has no row of pixels"));
        }
        let (classes, labels) = names.finish();
        Ok(Box::new(CsvPixelsReader { table: self.clone(), classes, labels }))
    }
}

struct CsvPixelsReader {
    table: CsvPixels,
    classes: Vec<String>,
    labels: Vec<u32>,
}

impl Reader for CsvPixelsReader {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn n_samples(&self) -> u64 {
        self.labels.len() as u64
    }

    fn read(&self, pick: &Pick, each: &mut dyn FnMut(Sample) -> Result<(), Error>) -> Result<(), Error> {
        let table = &self.table;
        let mut rows = (0_u64..).zip(&self.labels);
        table.rows(&mut |record, line| {
            let Some((i, &label)) = rows.next() else { return Err(table.input().wrong("changed while it was read")) };
            if !pick.wants(i) {
                return Ok(());
            }
            let mut pixels = Vec::with_capacity(table.shape.len());
            for (column, cell) in record.iter().enumerate() {
                if column == table.label || table.ignored.contains(&column) {
                    continue;
                }
                let Some(value) = byte(cell.trim()) else {
                    let error = table.input().wrong(format_args!(
                        "has the value `{}` in line {line}, column {}, expected a whole number from 0 to 255",
                        cell.trim(),
                        column + 1
                    ));
                    return Err(match cell.trim().parse::<f64>() {
                        Ok(value) if (0.0..=1.0).contains(&value) => {
                            error.help("if pixels go from 0 to 1, multiply them by 255 and round")
                        }
                        _ => error,
                    });
                };
                pixels.push(value);
            }
            each(Sample {
                path: format!("row/{i:05}"),
                label,
                given: table.given(record, line)?,
                group: table.group.map(|i| record[i].trim()).filter(|group| !group.is_empty()).map(str::to_owned),
                cells: table.wanted.iter().map(|&column| record[column].trim().to_owned()).collect(),
                content: Content::Raw(Raw {
                    shape: table.shape,
                    depth: Depth::U8,
                    pixels,
                    format: "csv",
                    alpha: RawAlpha::None,
                }),
            })
        })
    }
}

/// A byte, also when written as `12.0`.
fn byte(cell: &str) -> Option<u8> {
    cell.parse().ok().or_else(|| {
        let value: f64 = cell.parse().ok()?;
        ((0.0..=255.0).contains(&value) && f64::from(value as u8) == value).then_some(value as u8)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{collect, error_of};

    #[track_caller]
    fn case(text: &str, shape: &str, classes: &[&str], first: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("pixels.dat");
        std::fs::write(&table, text).unwrap();
        let (found, samples) = collect(&table, None);
        assert_eq!(found, classes);
        let image = &samples[0].image.as_ref().unwrap().0;
        assert_eq!(image.shape.to_string(), shape);
        assert_eq!(image.pixels, first);
    }

    #[test]
    fn rows_become_images() {
        case("label,p0,p1,p2,p3\n7,0,1,2,255\n3,0,0,0,0\n", "2x2x1", &["3", "7"], &[0, 1, 2, 255]);
        case("7,0,1,2,255\n3,0,0,0,0\n", "2x2x1", &["3", "7"], &[0, 1, 2, 255]);
        case("label,a,b,c,d\n1.0,0,1,2,255\n0.0,0,0,0,0\n,,,,\n", "2x2x1", &["0", "1"], &[0, 1, 2, 255]);
        case("p0,p1,p2,p3,label\n0,1.0,2,3,cat\n", "2x2x1", &["cat"], &[0, 1, 2, 3]);
        case("label,1x1,1x2,1x3,2x1,2x2,2x3\n1,1,2,3,4,5,6\n", "3x2x1", &["1"], &[1, 2, 3, 4, 5, 6]);
        let rgb: Vec<String> = (0..12).map(|i| i.to_string()).collect();
        case(&format!("1,{}\n", rgb.join(",")), "2x2x3", &["1"], &(0..12).collect::<Vec<u8>>());
    }

    #[test]
    fn dialects_and_columns_beside_the_pixels() {
        case("id;label;group;p0;p1;p2;p3\n0;7;a;0;1;2;255\n1;3;b;0;0;0;0\n", "2x2x1", &["3", "7"], &[0, 1, 2, 255]);
        case("\u{feff}p0\tp1\tp2\tp3\tlabel\r\n0\t1\t2\t3\tcat\r\n", "2x2x1", &["cat"], &[0, 1, 2, 3]);
        case("0,1,2,3,cat\n9,9,9,9,dog\n", "2x2x1", &["cat", "dog"], &[0, 1, 2, 3]);
    }

    #[test]
    fn a_label_that_could_stand_at_either_end_is_not_guessed() {
        let row = |first: usize, last: usize, i: usize| {
            format!("{first},{},{},{},{last}\n", i * 7 % 256, i * 5 % 256, i * 3 % 256)
        };
        let error = |rows: &dyn Fn(usize) -> String| {
            let folder = tempfile::tempdir().unwrap();
            let table = folder.path().join("t.csv");
            std::fs::write(&table, (0..60).map(rows).collect::<String>()).unwrap();
            error_of(&table)
        };
        // Labels last, and a corner that is always black, or has many values.
        assert!(
            error(&|i| row(0, i % 10, i)).contains("is not clear whether its first column is the label (1 different")
        );
        assert!(error(&|i| row(i, i % 10, i)).contains("(60 different values in 60 rows) or its last (10)"));
        // Labels first.
        assert_eq!(error(&|i| row(i % 10, 0, i)), "nothing is wrong");
        assert_eq!(error(&|i| row(i % 10, i * 4 % 256, i)), "nothing is wrong");
    }

    #[test]
    fn what_is_no_pixel_is_named() {
        for (text, expected) in [
            ("label,a,b,c,d\n1,0,0,0,256\n", "has the value `256` in line 2, column 5"),
            ("label,a,b,c,d\n1,0,0,0,1\n1,0,0,0.5,1\n", "has the value `0.5` in line 3, column 4"),
            ("1,0,0,0,1\n1,0,0,0\n", "has 4 columns in line 2, expected 5"),
            ("label,a,b,c,d\n,,,,\n\n", "has no row of pixels"),
            ("1,0,0,0,1,0\n", "make neither a square grey nor a square RGB image"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let table = folder.path().join("t.csv");
            std::fs::write(&table, text).unwrap();
            let error = error_of(&table);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_row_without_end_does_not_fill_the_memory() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("t.csv");
        std::fs::write(&table, format!("1,0,0,0,0\n1,{}", "0".repeat(20 << 20))).unwrap();
        let error = error_of(&table);
        assert!(error.contains("a row is longer than"), "{error}");
    }
}
