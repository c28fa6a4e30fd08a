//! CSV tables: RFC 4180, UTF-8, LF, header always, shortest round-trip numbers, an empty cell where nothing applies.
//!
//! Every CSV of the program is written here, so that all of them follow the same rules. A text cell (or a heading) that
//! begins with `=`, `+`, `-`, `@`, a tab or a carriage return and is not a number gets a leading `'`: a spreadsheet
//! would run it as a formula (OWASP's list). One that begins with `'` gets another, so that whoever takes one leading
//! `'` away has the text again, and no two texts become one.

use std::borrow::Cow;

use crate::config::shortest;

/// One cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Not applicable.
    Empty,
    /// Text, guarded against being read as a formula.
    Text(&'a str),
    /// A whole number.
    Whole(u64),
    /// A number; what is not a number (NaN) is not applicable.
    Number(f64),
    /// A number of single precision, in its own shortest form.
    Single(f32),
    /// `true` or `false`.
    Flag(bool),
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Cell<'a> {
        Cell::Text(text)
    }
}

impl<'a> From<&'a String> for Cell<'a> {
    fn from(text: &'a String) -> Cell<'a> {
        Cell::Text(text)
    }
}

impl From<f64> for Cell<'_> {
    fn from(x: f64) -> Cell<'static> {
        Cell::Number(x)
    }
}

impl From<f32> for Cell<'_> {
    fn from(x: f32) -> Cell<'static> {
        Cell::Single(x)
    }
}

impl From<bool> for Cell<'_> {
    fn from(flag: bool) -> Cell<'static> {
        Cell::Flag(flag)
    }
}

impl From<u32> for Cell<'_> {
    fn from(x: u32) -> Cell<'static> {
        Cell::Whole(x.into())
    }
}

impl From<u64> for Cell<'_> {
    fn from(x: u64) -> Cell<'static> {
        Cell::Whole(x)
    }
}

impl From<usize> for Cell<'_> {
    fn from(x: usize) -> Cell<'static> {
        Cell::Whole(x as u64)
    }
}

impl<'a, T: Into<Cell<'a>>> From<Option<T>> for Cell<'a> {
    fn from(cell: Option<T>) -> Cell<'a> {
        cell.map_or(Cell::Empty, Into::into)
    }
}

/// A table being written, row by row, into memory.
#[derive(Debug)]
pub struct Table {
    writer: csv::Writer<Vec<u8>>,
    n_columns: usize,
}

impl Table {
    /// A table with this header.
    ///
    /// # Panics
    /// If there is no column.
    pub fn new(header: &[impl AsRef<str>]) -> Table {
        assert!(!header.is_empty(), "a table needs a column");
        let mut table = Table { writer: writer(), n_columns: header.len() };
        let cells: Vec<Cell<'_>> = header.iter().map(|name| Cell::Text(name.as_ref())).collect();
        table.row(&cells);
        table
    }

    /// Appends a row.
    ///
    /// # Panics
    /// If it does not have one cell per column.
    pub fn row(&mut self, cells: &[Cell<'_>]) {
        assert_eq!(cells.len(), self.n_columns, "cells of a row and columns of its table");
        for cell in cells {
            // Writing to memory cannot fail, and the number of cells was just checked.
            let _ = self.writer.write_field(text(cell).as_bytes());
        }
        let _ = self.writer.write_record(None::<&[u8]>);
    }

    /// What has been written since the last call: for tables that are printed as they grow.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::replace(&mut self.writer, writer()).into_inner().expect("flushing into memory cannot fail")
    }

    /// The finished file.
    pub fn into_bytes(self) -> Vec<u8> {
        self.writer.into_inner().expect("flushing into memory cannot fail")
    }
}

/// Puts `cells` (under `header`) before every record of the finished table `bytes`.
pub fn with_columns(bytes: &[u8], header: &[&str], cells: &[Cell<'_>]) -> Vec<u8> {
    let front = |cells: &[Cell<'_>]| {
        let mut table = Table { writer: writer(), n_columns: cells.len() };
        table.row(cells);
        let mut front = table.into_bytes();
        // The line feed becomes the comma before what was the first cell.
        if let Some(end) = front.last_mut() {
            *end = b',';
        }
        front
    };
    let (first, others) = (front(&header.iter().map(|name| Cell::Text(name)).collect::<Vec<_>>()), front(cells));
    let mut out = Vec::with_capacity(bytes.len() * 2);
    for (i, record) in records(bytes).enumerate() {
        out.extend_from_slice(if i == 0 { &first } else { &others });
        out.extend_from_slice(record);
    }
    out
}

/// Where the first record of a finished table, its header, ends.
pub fn header_len(bytes: &[u8]) -> usize {
    records(bytes).next().map_or(0, <[u8]>::len)
}

/// The records with their ends: a line feed that is not inside quotes (a quote in a quoted cell is doubled, so that
/// their number tells).
fn records(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    bytes.split_inclusive(move |&byte| {
        is_quoted ^= byte == b'"';
        byte == b'\n' && !is_quoted
    })
}

fn writer() -> csv::Writer<Vec<u8>> {
    csv::WriterBuilder::new().terminator(csv::Terminator::Any(b'\n')).from_writer(Vec::new())
}

/// What stands in the file, before quoting.
fn text<'a>(cell: &Cell<'a>) -> Cow<'a, str> {
    match *cell {
        Cell::Empty => Cow::Borrowed(""),
        Cell::Text(text) => guarded(text),
        Cell::Whole(x) => Cow::Owned(x.to_string()),
        Cell::Number(x) if x.is_nan() => Cow::Borrowed(""),
        Cell::Single(x) if x.is_nan() => Cow::Borrowed(""),
        Cell::Number(x) => Cow::Owned(shortest(x)),
        Cell::Single(x) => Cow::Owned(shortest(x)),
        Cell::Flag(flag) => Cow::Borrowed(if flag { "true" } else { "false" }),
    }
}

/// A cell that a spreadsheet will not run as a formula; no two texts give the same one.
fn guarded(text: &str) -> Cow<'_, str> {
    // `-inf` parses as a number, but not in a spreadsheet.
    let is_number = || text.parse::<f64>().is_ok() && text.contains(|c: char| c.is_ascii_digit());
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\'']) && !is_number() {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The text that [`guarded`] made a cell of.
pub fn unguarded(cell: &str) -> &str {
    cell.strip_prefix('\'').unwrap_or(cell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cells: &[Cell<'_>], expected: &str) {
        let header: Vec<String> = (0..cells.len()).map(|i| format!("c{i}")).collect();
        let mut table = Table::new(&header);
        table.row(cells);
        assert_eq!(String::from_utf8(table.into_bytes()).unwrap(), format!("{}\n{expected}\n", header.join(",")));
    }

    #[test]
    fn cells_are_written_in_their_shortest_form() {
        check(
            &[0.1.into(), 0.1f32.into(), 1.0.into(), 1e-7.into(), 7u32.into(), true.into()],
            "0.1,0.1,1.0,1e-7,7,true",
        );
        check(&[f64::NAN.into(), None::<f64>.into(), Some(2u64).into()], ",,2");
        check(&[f64::INFINITY.into(), (-1.5).into()], "inf,-1.5");
    }

    #[test]
    fn text_is_quoted_as_rfc_4180_has_it() {
        check(&["a,b".into(), "say \"hi\"".into(), "two\nlines".into()], "\"a,b\",\"say \"\"hi\"\"\",\"two\nlines\"");
        check(&["".into()], "\"\"");
        check(&["\u{e9}t\u{e9}".into(), "cat".into()], "\u{e9}t\u{e9},cat");
    }

    #[test]
    fn formulas_are_disarmed_and_numbers_are_left_alone() {
        check(&["=1+1".into(), "+x".into(), "-x".into(), "@SUM(A1)".into()], "'=1+1,'+x,'-x,'@SUM(A1)");
        check(&["-1.5e3".into(), "+7".into(), "a=b".into()], "-1.5e3,+7,a=b");
        let header = String::from_utf8(Table::new(&["=cmd", "p_cat"]).into_bytes()).unwrap();
        assert_eq!(header, "'=cmd,p_cat\n");
    }

    #[test]
    fn the_guard_can_be_taken_away_again() {
        let texts = ["=1", "'=1", "''=1", "'", "''", "\t=1", "\r=1", "-inf", "+nan", "a'", "", "-1", "'-1"];
        let cells: Vec<Cow<'_, str>> = texts.iter().map(|text| guarded(text)).collect();
        for (text, cell) in texts.iter().zip(&cells) {
            assert_eq!(unguarded(cell), *text);
            assert!(text.parse::<i32>().is_ok() || !cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell}");
        }
    }

    #[test]
    fn columns_are_put_before_records_not_before_lines() {
        let mut table = Table::new(&["class", "p_a\nb"]);
        table.row(&["two\nlines".into(), 1u32.into()]);
        table.row(&["say \"hi\"\n".into(), 2u32.into()]);
        let bytes = table.into_bytes();
        assert_eq!(&bytes[..header_len(&bytes)], b"class,\"p_a\nb\"\n");
        let text = String::from_utf8(with_columns(&bytes, &["stage", "fold"], &["a,b".into(), Cell::Empty])).unwrap();
        assert_eq!(text, "stage,fold,class,\"p_a\nb\"\n\"a,b\",,\"two\nlines\",1\n\"a,b\",,\"say \"\"hi\"\"\n\",2\n");
    }

    #[test]
    fn a_table_can_be_had_piece_by_piece() {
        let mut table = Table::new(&["id"]);
        assert_eq!(table.take(), b"id\n");
        assert_eq!(table.take(), b"");
        table.row(&[1u32.into()]);
        table.row(&[2u32.into()]);
        assert_eq!(table.take(), b"1\n2\n");
    }

    #[test]
    fn a_table_without_rows_still_has_its_header() {
        assert_eq!(Table::new(&["id", "path"]).into_bytes(), b"id,path\n");
    }
}
