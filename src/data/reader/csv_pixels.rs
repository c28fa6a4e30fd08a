//! A CSV of pixels: a label and then the values of one image in each row, as MNIST is often passed around.
//!
//! With a header the label's column may stand anywhere and a `split` column is understood; without one the label comes first. A
//! square number of values is a grey image; three times a square is an RGB image whose channels lie together; names such as `28x28`
//! in the header give the shape of any grey image.

use std::path::PathBuf;

use super::classes::by_column;
use super::input::Input;
use super::{Content, Error, Files, Found, GivenSplit, Limits, Pick, Query, Raw, Reader, Sample};
use crate::data::decode::Depth;
use crate::tensor::ImageShape;

const LABEL: &[&str] = &["label", "class", "target", "y"];
const SPLIT: &[&str] = &["split", "set", "usage"];
/// Fewest values of an image; below that a table is something else.
const MIN_VALUES: usize = 4;
/// Bytes that one value and its comma may take at most in a row.
const MAX_CELL: u64 = 32;

#[derive(Clone, Debug)]
struct CsvPixels {
    path: PathBuf,
    shape: ImageShape,
    label: usize,
    split: Option<usize>,
    n_columns: usize,
    has_header: bool,
}

/// Finds a table of pixels: text whose rows are numbers, under a header or not.
///
/// # Errors
/// If it is one but its number of columns makes no image.
pub fn find(query: &Query<'_>) -> super::FindResult {
    if query.is_folder || !super::is_text(&query.head) {
        return Ok(None);
    }
    let input = Input::Path(query.path.to_owned());
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(input.open()?.take_head());
    let mut rows = Vec::new();
    for row in reader.records().take(2) {
        match row {
            Ok(row) => rows.push(row),
            Err(_) => return Ok(None),
        }
    }
    let Some(first) = rows.first() else { return Ok(None) };
    let is_number = |cell: &str| cell.trim().parse::<f64>().is_ok();
    let at = |names: &[&str]| first.iter().position(|cell| names.contains(&cell.trim().to_lowercase().as_str()));
    let (label, split, has_header) = match at(LABEL) {
        Some(label) => (label, at(SPLIT), true),
        // Without a header all but the label, which comes first, are numbers.
        None if first.iter().skip(1).all(is_number) => (0, None, false),
        None => return Ok(None),
    };
    let n_columns = first.len();
    let n_values = n_columns.saturating_sub(1 + usize::from(split.is_some()));
    let sample = if has_header { rows.get(1) } else { Some(first) };
    let is_pixel = |(i, cell)| i == label || Some(i) == split || is_number(cell);
    if n_values < MIN_VALUES || !sample.is_none_or(|row| row.iter().enumerate().all(is_pixel)) {
        return Ok(None);
    }
    let header = has_header.then_some(first);
    let Some(shape) = shape_of(n_values, header) else {
        return Err(input
            .wrong(format_args!(
                "has {n_values} values in a row, which make neither a square grey nor a square RGB image"
            ))
            .help("name the columns by row and column, `1x1`, `1x2`, …, or use another format"));
    };
    Ok(Some(Box::new(CsvPixels { path: query.path.to_owned(), shape, label, split, n_columns, has_header })))
}

/// The head of a stream that is enough for two rows.
trait TakeHead {
    fn take_head(self) -> std::io::Take<super::input::Stream>;
}

impl TakeHead for super::input::Stream {
    fn take_head(self) -> std::io::Take<super::input::Stream> {
        std::io::Read::take(self, 1 << 23)
    }
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
        let (stream, row_start) = super::limited(input.open()?, MAX_CELL * self.n_columns as u64 + (1 << 17));
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(self.has_header)
            .flexible(true)
            .buffer_capacity(1 << 16)
            .from_reader(stream);
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|e| super::csv_error(&input, e))? {
            row_start.reset();
            let line = record.position().map_or(0, csv::Position::line);
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
        // FER-2013 says `PublicTest` for validation and `PrivateTest` for test.
        match word {
            "PublicTest" => Ok(Some(GivenSplit::Validation)),
            "PrivateTest" => Ok(Some(GivenSplit::Test)),
            _ => GivenSplit::parse(word).map(Some).ok_or_else(|| {
                let input = self.input();
                input.wrong(format_args!(
                    "has the split `{word}` in line {line}, expected `train`, `validation` or `test`"
                ))
            }),
        }
    }
}

impl Found for CsvPixels {
    fn files(&self) -> Files {
        Files::Each(vec![("table".to_owned(), self.path.clone())])
    }

    fn open(&self, limits: &Limits) -> Result<Box<dyn Reader>, Error> {
        limits.check_raw(self.shape, Depth::U8).map_err(|reason| self.input().wrong(reason))?;
        let mut names = Vec::new();
        self.rows(&mut |record, line| {
            let name = record[self.label].trim();
            if name.is_empty() {
                return Err(self.input().wrong(format_args!("has no label in line {line}")));
            }
            names.push(name.to_owned());
            Ok(())
        })?;
        let (classes, labels) = by_column(&names);
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
                if column == table.label || Some(column) == table.split {
                    continue;
                }
                let Some(value) = byte(cell.trim()) else {
                    return Err(table.input().wrong(format_args!(
                        "has the value `{}` in line {line}, column {}, expected a whole number from 0 to 255",
                        cell.trim(),
                        column + 1
                    )));
                };
                pixels.push(value);
            }
            each(Sample {
                path: format!("row/{i:05}"),
                label,
                given: table.given(record, line)?,
                group: None,
                content: Content::Raw(Raw { shape: table.shape, depth: Depth::U8, pixels, format: "csv" }),
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
        case("p0,p1,p2,p3,label\n0,1.0,2,3,cat\n", "2x2x1", &["cat"], &[0, 1, 2, 3]);
        case("label,1x1,1x2,1x3,2x1,2x2,2x3\n1,1,2,3,4,5,6\n", "3x2x1", &["1"], &[1, 2, 3, 4, 5, 6]);
        let rgb: Vec<String> = (0..12).map(|i| i.to_string()).collect();
        case(&format!("1,{}\n", rgb.join(",")), "2x2x3", &["1"], &(0..12).collect::<Vec<u8>>());
    }

    #[test]
    fn what_is_no_pixel_is_named() {
        for (text, expected) in [
            ("label,a,b,c,d\n1,0,0,0,256\n", "has the value `256` in line 2, column 5"),
            ("label,a,b,c,d\n1,0,0,0,1\n1,0,0,0.5,1\n", "has the value `0.5` in line 3, column 4"),
            ("1,0,0,0,1\n1,0,0,0\n", "has 4 columns in line 2, expected 5"),
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
