//! Tables of text in any usual dialect: commas, semicolons, tabs, bars or, where none of these makes columns, spaces;
//! UTF-8, with its mark or without, or UTF-16.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use super::Error;
use super::input::{Input, Stream};

/// Separators, in the order of preference.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// Rows that tell a dialect.
const ROWS: usize = 5;

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    delimiter: u8,
    encoding: Encoding,
    /// Whether the first line only says which separator there is, as Excel reads and writes it.
    has_separator_line: bool,
    /// Whether lines end as Windows writes them.
    is_crlf: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Utf16 { is_big_endian: bool },
}

impl Encoding {
    fn of(head: &[u8]) -> Encoding {
        match head {
            [0xff, 0xfe, ..] => Encoding::Utf16 { is_big_endian: false },
            [0xfe, 0xff, ..] => Encoding::Utf16 { is_big_endian: true },
            // Without its mark: no text of UTF-8 has zeros.
            [1..=0x7f, 0, 1..=0x7f, 0, ..] => Encoding::Utf16 { is_big_endian: false },
            [0, 0x20..=0x7f, 0, 0x20..=0x7f, ..] => Encoding::Utf16 { is_big_endian: true },
            _ => Encoding::Utf8,
        }
    }

    /// The text as UTF-8 without its mark.
    fn decoded(self, mut stream: Stream) -> io::Result<Stream> {
        match self {
            Encoding::Utf8 => {
                if stream.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
                    stream.consume(3);
                }
                Ok(stream)
            }
            Encoding::Utf16 { is_big_endian } => {
                let units =
                    Utf16 { inner: stream, is_big_endian, waiting: None, is_start: true, out: Vec::new(), at: 0 };
                Ok(Box::new(BufReader::with_capacity(1 << 16, units)))
            }
        }
    }
}

impl Dialect {
    /// That of the table that begins with `head`; `None` if it is no text. `knows` says whether it can make sense of a
    /// first row.
    pub(super) fn of(head: &[u8], knows: impl Fn(&csv::StringRecord) -> bool) -> Option<Dialect> {
        let encoding = Encoding::of(head);
        // Half a character at the end of the head is not the table's fault.
        let head = if encoding == Encoding::Utf8 { head } else { &head[..head.len() & !1] };
        let mut text = Vec::new();
        let owned: Stream = Box::new(Cursor::new(head.to_vec()));
        encoding.decoded(owned).ok()?.read_to_end(&mut text).ok()?;
        if !super::is_text(&text) {
            return None;
        }
        let said = separator_line(&text);
        let text = &text[said.map_or(0, |(_, len)| len)..];
        let has_separator_line = said.is_some();
        let is_crlf = text.iter().position(|&byte| byte == b'\n').is_some_and(|at| text[..at].ends_with(b"\r"));
        let rank = |delimiter: u8| {
            let mut rows = reader(delimiter).from_reader(text);
            let rows: Vec<csv::StringRecord> = rows.records().take(ROWS).map_while(Result::ok).collect();
            let n_columns = rows.first().map_or(0, csv::StringRecord::len);
            // The last row may be cut.
            let whole = &rows[..rows.len().saturating_sub(usize::from(rows.len() > 1 && rows.len() < ROWS))];
            let is_even = n_columns > 1 && whole.iter().all(|row| row.len() == n_columns);
            (rows.first().is_some_and(&knows), is_even, n_columns)
        };
        // What it says, where that makes columns: somebody may have saved the table anew.
        let said = said.map(|(delimiter, _)| delimiter).filter(|&delimiter| rank(delimiter).2 > 1);
        if let Some(delimiter) = said {
            return Some(Dialect { delimiter, encoding, has_separator_line, is_crlf });
        }
        let best = DELIMITERS.into_iter().rev().max_by_key(|&delimiter| rank(delimiter))?;
        // Lists of ImageNet and others; words within a cell are not to be taken for columns.
        let makes_sense = |delimiter| matches!(rank(delimiter), (true, ..) | (_, true, _));
        let is_spaced = !makes_sense(best) && makes_sense(b' ');
        let delimiter = if is_spaced { b' ' } else { best };
        Some(Dialect { delimiter, encoding, has_separator_line, is_crlf })
    }

    /// The table's text.
    pub(super) fn open(self, input: &Input) -> Result<Stream, Error> {
        self.text(input.open()?).map_err(|e| input.error(e))
    }

    /// The line of the record that `reader` has just read.
    pub(super) fn line<R: Read>(self, reader: &csv::Reader<R>) -> u64 {
        // Of `\r\n` the parser leaves the second to the next record.
        reader.position().line() - u64::from(!self.is_crlf)
    }

    /// The text of its bytes, its last line ended. Of a line that says the separator only the end is left, so that
    /// lines keep their numbers.
    fn text(self, stream: Stream) -> io::Result<Stream> {
        let mut stream = self.encoding.decoded(stream)?;
        if self.has_separator_line {
            let said = separator_line(stream.fill_buf()?).map_or(0, |(_, len)| len);
            stream.consume(said);
        }
        let end: &'static [u8] = if self.is_crlf { b"\r\n" } else { b"\n" };
        Ok(Box::new(stream.chain(end)))
    }

    /// A parser of its rows, the header among them.
    pub(super) fn reader(self) -> csv::ReaderBuilder {
        reader(self.delimiter)
    }
}

/// The separator that a table's first line says (`sep=;`, also in quotes), and the length of the line without its end.
fn separator_line(text: &[u8]) -> Option<(u8, usize)> {
    let len = text.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
    let line = text[..len].trim_ascii_start();
    let line = line.strip_prefix(b"\"").map_or(line, |line| line.strip_suffix(b"\"").unwrap_or(line));
    match line.split_at_checked(4)? {
        (word, [delimiter]) if word.eq_ignore_ascii_case(b"sep=") && delimiter.is_ascii() => Some((*delimiter, len)),
        _ => None,
    }
}

/// Where the `wanted` columns stand in a header; each by its name without blanks around it.
///
/// # Errors
/// If there is none of that name, or no header at all.
pub(super) fn wanted_columns(
    input: &Input,
    header: Option<&csv::StringRecord>,
    wanted: &[String],
) -> Result<Vec<usize>, Error> {
    let find = |name: &String| {
        let Some(header) = header else {
            return Err(input
                .wrong(format_args!("has no header, and so no column `{name}`"))
                .help("name the columns in its first row"));
        };
        let at = header.iter().position(|cell| cell.trim() == name.trim());
        at.ok_or_else(|| {
            let names = || header.iter().map(str::trim);
            let error = input.wrong(format_args!("has no column `{name}`"));
            let help = crate::config::did_you_mean(name, names());
            error.help(help.unwrap_or_else(|| format!("its columns are {}", super::classes::some_of(names()))))
        })
    };
    wanted.iter().map(find).collect()
}

/// Whether nothing stands in a row, as spreadsheets leave some at the end.
pub(super) fn is_blank(row: &csv::StringRecord) -> bool {
    row.iter().all(|cell| cell.trim().is_empty())
}

fn reader(delimiter: u8) -> csv::ReaderBuilder {
    let mut builder = csv::ReaderBuilder::new();
    builder.has_headers(false).flexible(true).delimiter(delimiter);
    builder
}

/// UTF-16 on its way to UTF-8.
struct Utf16 {
    inner: Stream,
    is_big_endian: bool,
    /// The first half of a pair of surrogates.
    waiting: Option<u16>,
    is_start: bool,
    out: Vec<u8>,
    at: usize,
}

impl Utf16 {
    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.inner.by_ref().take(1 << 15).read_to_end(&mut bytes)?;
        let is_end = bytes.is_empty();
        if bytes.len() % 2 != 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut units: Vec<u16> = self.waiting.take().into_iter().collect();
        let unit =
            |pair: &[u8; 2]| if self.is_big_endian { u16::from_be_bytes(*pair) } else { u16::from_le_bytes(*pair) };
        units.extend(bytes.as_chunks().0.iter().map(unit));
        if !is_end && units.last().is_some_and(|unit| (0xd800..0xdc00).contains(unit)) {
            self.waiting = units.pop();
        }
        let text = String::from_utf16(&units)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not sound UTF-16"))?;
        let text = if std::mem::take(&mut self.is_start) { text.trim_start_matches('\u{feff}') } else { &text };
        (self.out, self.at) = (text.as_bytes().to_vec(), 0);
        Ok(())
    }
}

impl Read for Utf16 {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.out.len() {
            self.fill()?;
            if self.out.is_empty() && self.waiting.is_none() {
                return Ok(0);
            }
        }
        let n = buffer.len().min(self.out.len() - self.at);
        buffer[..n].copy_from_slice(&self.out[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, is_big_endian: bool) -> Vec<u8> {
        let unit = |unit: u16| if is_big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() };
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(unit).collect()
    }

    #[track_caller]
    fn case(bytes: &[u8], delimiter: u8, rows: &[&[&str]]) {
        let dialect = Dialect::of(bytes, |_| false).unwrap();
        assert_eq!(dialect.delimiter, delimiter);
        let mut out = Vec::new();
        let stream: Stream = Box::new(Cursor::new(bytes.to_vec()));
        dialect.text(stream).unwrap().read_to_end(&mut out).unwrap();
        let seen: Vec<Vec<String>> = dialect
            .reader()
            .from_reader(&out[..])
            .records()
            .map(|row| row.unwrap().iter().map(str::to_owned).collect())
            .collect();
        assert_eq!(seen, rows);
    }

    #[test]
    fn every_usual_dialect_is_told() {
        let rows: &[&[&str]] = &[&["path", "label"], &["a,b.png", "\u{1f600}"]];
        case("path,label\n\"a,b.png\",\u{1f600}\n".as_bytes(), b',', rows);
        case("path;label\r\na,b.png;\u{1f600}\r\n".as_bytes(), b';', rows);
        case("\u{feff}path\tlabel\na,b.png\t\u{1f600}\n".as_bytes(), b'\t', rows);
        case("path|label\na,b.png|\u{1f600}".as_bytes(), b'|', rows);
        case("path label\na,b.png \u{1f600}\n".as_bytes(), b' ', rows);
        case(
            b"my cat.png,big dog\nmy dog.png,big cat\n",
            b',',
            &[&["my cat.png", "big dog"], &["my dog.png", "big cat"]],
        );
        case(&utf16("path;label\na,b.png;\u{1f600}\n", false), b';', rows);
        case(&utf16("path;label\na,b.png;\u{1f600}\n", false)[2..], b';', rows);
        case(&utf16("path;label\na,b.png;\u{1f600}\n", true)[2..], b';', rows);
        case(&utf16("path\tlabel\r\na,b.png\t\u{1f600}\r\n", true), b'\t', rows);
    }

    #[test]
    fn a_first_line_may_say_the_separator() {
        let rows: &[&[&str]] = &[&["path", "label"], &["a,b.png", "x"]];
        case(b"sep=;\r\npath;label\r\na,b.png;x\r\n", b';', rows);
        case(b"\xef\xbb\xbfsep=;\npath;label\na,b.png;x\n", b';', rows);
        case(b"\"SEP=|\"\npath|label\na,b.png|x\n", b'|', rows);
        case(b"sep=\t\npath\tlabel\na,b.png\tx\n", b'\t', rows);
        case(b"sep=:\npath:label\na,b.png:x\n", b':', rows);
        case(&utf16("sep=;\r\npath;label\r\na,b.png;x\r\n", false), b';', rows);
        // Saved anew with another one.
        case(b"sep=;\npath,label\n\"a,b.png\",x\n", b',', rows);
        // No line of its own.
        assert_eq!(separator_line(b"sep=;path\n"), None);
        assert_eq!(separator_line(b"separator\n"), None);
    }

    #[test]
    fn what_is_no_text_is_no_table() {
        assert_eq!(Dialect::of(b"\x89PNG\r\n\x1a\n", |_| false), None);
        assert_eq!(Dialect::of(&[0xff, 0xfe, 0, 0xd8, b'a', 0], |_| false), None);
    }
}
