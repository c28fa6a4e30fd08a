//! A table of `path,label[,split,group]`: a row per image file. Paths are relative to the table, or to `root`; they may
//! be ids that lack a suffix.
//!
//! With a header the columns may stand in any order and others are ignored; without one they stand in the order above.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::classes::{Column, some_of};
use super::folder::Listing;
use super::input::Input;
use super::table::{Dialect, is_blank, wanted_columns};
use super::{Allowance, Aside, Content, Error, Files, Found, GivenSplit, Query, Reader, Sample};
use crate::data::decode::{Fault, Refused};
use crate::data::pixels::Limits;

const PATH: &[&str] =
    &["path", "file", "filename", "file_name", "filepath", "filepaths", "image", "image_path", "img_path"];
/// What names an image without being its path, in most cases.
const ID: &[&str] = &["id", "image_id", "img_id", "id_code", "image_name", "img_name", "name"];
const LABEL: &[&str] = &["label", "labels", "class", "class_name", "classname", "target", "category"];
const SPLIT: &[&str] = &["split", "set", "subset", "usage", "data set"];
const GROUP: &[&str] = &["group", "group_id"];
/// What ids lack.
const SUFFIXES: [&str; 8] = ["", ".jpg", ".png", ".jpeg", ".JPG", ".tif", ".bmp", ".webp"];
/// The longest row: a path, three words, and room.
const MAX_ROW: u64 = 1 << 20;

#[derive(Clone, Debug)]
struct CsvPaths {
    table: PathBuf,
    root: Option<PathBuf>,
    suffix: String,
    rows: Vec<Row>,
    /// What is worth a warning.
    warnings: Vec<String>,
}

#[derive(Clone, Debug)]
struct Row {
    path: String,
    label: String,
    given: Option<GivenSplit>,
    group: Option<String>,
    cells: Vec<String>,
}

#[derive(Clone, Debug)]
struct Columns {
    path: usize,
    /// The first is taken; others must say the same.
    labels: Vec<usize>,
    split: Option<usize>,
    group: Option<usize>,
    /// Those that images are to be handed on with.
    wanted: Vec<usize>,
}

/// Columns of one of `names`, in their order.
fn at(first: &csv::StringRecord, names: &[&str]) -> Vec<usize> {
    let is_one = |cell: &str| names.contains(&cell.trim().to_lowercase().as_str());
    (0..first.len()).filter(|&i| is_one(&first[i])).collect()
}

/// Other columns from which on a table with ids is one of numbers.
const MANY: usize = 4;

/// The columns that a header names. An id is taken for a path where nothing else is and there are few other columns.
fn named(first: &csv::StringRecord) -> Option<Columns> {
    let labels = at(first, LABEL);
    let n_known = [PATH, ID, LABEL, SPLIT, GROUP].iter().map(|names| at(first, names).len()).sum::<usize>();
    let ids = if first.len().saturating_sub(n_known) < MANY { at(first, ID) } else { Vec::new() };
    let path = at(first, PATH).first().or(ids.first()).copied()?;
    let one = |names| at(first, names).first().copied();
    (!labels.is_empty()).then(|| Columns { path, labels, split: one(SPLIT), group: one(GROUP), wanted: Vec::new() })
}

/// Finds a table of paths: text whose first row names the columns, or holds a path and one to three more cells.
///
/// # Errors
/// If a row is malformed.
pub fn find(query: &Query<'_>) -> super::FindResult {
    if query.is_folder {
        return Ok(None);
    }
    let Some(dialect) = Dialect::of(&query.head, |first| named(first).is_some()) else { return Ok(None) };
    let Some(first) = first_row(query, dialect) else { return Ok(None) };
    let (mut columns, has_header) = match named(&first) {
        Some(columns) => (columns, true),
        None => {
            let is_path =
                |cell: &str| cell.trim().parse::<f64>().is_err() && (cell.contains('.') || cell.contains('/'));
            if !(2..=4).contains(&first.len()) || !is_path(&first[0]) || !at(&first, LABEL).is_empty() {
                return Ok(None);
            }
            (Columns { path: 0, labels: vec![1], split: Some(2), group: Some(3), wanted: Vec::new() }, false)
        }
    };
    let input = Input::Path(query.path.to_owned());
    columns.wanted = wanted_columns(&input, has_header.then_some(&first), query.columns)?;
    let (rows, warnings) = read_rows(query, dialect, &columns, has_header.then_some(&first))?;
    let root = query.root.map(Path::to_owned);
    let (table, suffix) = (query.path.to_owned(), query.suffix.to_owned());
    Ok(Some(Box::new(CsvPaths { table, root, suffix, rows, warnings })))
}

fn first_row(query: &Query<'_>, dialect: Dialect) -> Option<csv::StringRecord> {
    let stream = dialect.open(&Input::Path(query.path.to_owned())).ok()?;
    let (stream, allowed) = super::limited(stream, "a row");
    allowed.set(MAX_ROW);
    let mut first = csv::StringRecord::new();
    dialect.reader().from_reader(stream).read_record(&mut first).ok()?.then_some(first)
}

/// For a table that nobody could read: which columns it has, and which ones are looked for.
pub fn unknown_columns(query: &Query<'_>) -> Option<Error> {
    let is_table = matches!(query.format, "auto" | "csv-paths" | "csv-pixels") && !query.is_folder;
    let dialect = Dialect::of(&query.head, |_| false).filter(|_| is_table)?;
    let first = first_row(query, dialect).filter(|first| first.len() > 1 || query.format != "auto")?;
    let expected = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let input = Input::Path(query.path.to_owned());
    Some(
        input
            .wrong(format_args!(
                "is a table with the columns {}, expected one of {} and one of {}",
                some_of(first.iter()),
                expected(PATH),
                expected(LABEL)
            ))
            .help("name the columns in its first row"),
    )
}

fn read_rows(
    query: &Query<'_>,
    dialect: Dialect,
    columns: &Columns,
    header: Option<&csv::StringRecord>,
) -> Result<(Vec<Row>, Vec<String>), Error> {
    let input = Input::Path(query.path.to_owned());
    let folder = query.root.or(query.path.parent()).unwrap_or(Path::new(""));
    let mut twice: Vec<(String, u64, u64)> = Vec::new();
    let (stream, allowed): (_, Allowance) = super::limited(dialect.open(&input)?, "a row");
    let mut reader = dialect.reader().from_reader(stream);
    let mut record = csv::StringRecord::new();
    let mut rows: Vec<Row> = Vec::new();
    let mut seen: HashMap<String, (usize, u64)> = HashMap::new();
    // What each further column of labels says beside the first.
    let mut pairs: Vec<BTreeSet<(String, String)>> = vec![BTreeSet::new(); columns.labels.len() - 1];
    let mut is_header = header.is_some();
    allowed.set(MAX_ROW);
    while reader.read_record(&mut record).map_err(|e| super::csv_error(&input, e))? {
        allowed.set(MAX_ROW);
        if std::mem::take(&mut is_header) {
            continue;
        }
        if is_blank(&record) {
            continue;
        }
        let line = dialect.line(&reader);
        let cell =
            |column: Option<usize>| column.and_then(|i| record.get(i)).map(str::trim).filter(|cell| !cell.is_empty());
        let missing = |what: &str| {
            input.wrong(format_args!("has no {what} in line {line}")).help("complete the line, or remove it")
        };
        let path = cell(Some(columns.path)).ok_or_else(|| missing("path"))?.to_owned();
        let label = cell(Some(columns.labels[0])).ok_or_else(|| missing("label"))?.to_owned();
        for (pairs, &other) in pairs.iter_mut().zip(&columns.labels[1..]) {
            if pairs.len() <= super::classes::MAX_CLASSES {
                pairs.insert((label.clone(), cell(Some(other)).unwrap_or_default().to_owned()));
            }
        }
        let given = match cell(columns.split) {
            None => None,
            Some(word) => Some(GivenSplit::in_name(word).ok_or_else(|| {
                input.wrong(format_args!(
                    "has the split `{word}` in line {line}, expected `train`, `validation` or `test`"
                ))
            })?),
        };
        let same = place(folder, &path);
        if let Some(&(row, before)) = seen.get(&same) {
            let other = &rows[row].label;
            if *other != label {
                return Err(input
                    .wrong(format_args!("lists `{path}` as `{other}` in line {before} and as `{label}` in line {line}"))
                    .help("an image has one label: remove one of the lines"));
            }
            twice.push((path.clone(), before, line));
        } else {
            seen.insert(same, (rows.len(), line));
        }
        let text = |column: Option<usize>| cell(column).map(str::to_owned);
        let cells = columns.wanted.iter().map(|&column| text(Some(column)).unwrap_or_default()).collect();
        rows.push(Row { path, label, given, group: text(columns.group), cells });
    }
    if rows.is_empty() {
        return Err(input.wrong("has no row that names an image"));
    }
    if let (Some(header), Some(other)) = (header, pairs.iter().position(|pairs| !are_one_to_one(pairs))) {
        return Err(input
            .wrong(format_args!(
                "has the columns `{}` and `{}`, which say different things and could both be the label",
                header[columns.labels[0]].trim(),
                header[columns.labels[other + 1]].trim()
            ))
            .help("rename or remove the one that is not"));
    }
    let warnings = twice.first().map(|(path, before, line)| {
        let images = if twice.len() == 1 { "1 row lists".to_owned() } else { format!("{} rows list", twice.len()) };
        format!(
            "{images} an image once more, first `{path}` in the lines {before} and {line}: it counts twice, and may be \
             learned from and tested on; remove one of the lines"
        )
    });
    Ok((rows, warnings.into_iter().collect()))
}

/// Where an image is, by its path alone: the same for all the ways in which a path may be written.
fn place(folder: &Path, path: &str) -> String {
    let whole = folder.join(plain(path));
    let mut parts: Vec<&str> = Vec::new();
    let whole = plain(&whole.to_string_lossy());
    for part in whole.split('/') {
        match (part, parts.last()) {
            ("..", Some(last)) if !matches!(*last, "" | "..") => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// A path as others may write it, too: with `\` for `/`, with `./` and `//`.
fn plain(path: &str) -> String {
    let parts: Vec<&str> = path.split(['/', '\\']).filter(|part| !matches!(*part, "" | ".")).collect();
    let root = if path.starts_with(['/', '\\']) { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

/// Whether two columns name the same classes in two ways.
fn are_one_to_one(pairs: &BTreeSet<(String, String)>) -> bool {
    let firsts: BTreeSet<&String> = pairs.iter().map(|(first, _)| first).collect();
    let seconds: BTreeSet<&String> = pairs.iter().map(|(_, second)| second).collect();
    firsts.len() == pairs.len() && seconds.len() == pairs.len()
}

impl CsvPaths {
    fn folder(&self) -> &Path {
        self.root.as_deref().or(self.table.parent()).unwrap_or(Path::new(""))
    }

    /// Where an image is. A path that Windows wrote is understood elsewhere, too.
    fn full(&self, row: &Row) -> PathBuf {
        let path = self.folder().join(format!("{}{}", row.path, self.suffix));
        match row.path.contains('\\') && !path.exists() {
            true => self.folder().join(format!("{}{}", plain(&row.path), self.suffix)),
            false => path,
        }
    }

    fn absent(&self) -> String {
        let folder = self.folder().display().to_string();
        let folder = if folder.is_empty() { "." } else { &folder };
        let which = if self.root.is_some() { "the `root`" } else { "the table's folder" };
        format!("does not exist (looked for in `{folder}`, {which})")
    }

    /// No image is there: says so, and where one of the first one's name is.
    fn nothing_there(&self) -> Error {
        let first = &self.rows[0].path;
        let n = self.rows.len();
        let images = if n == 1 { "1 image".to_owned() } else { format!("{n} images") };
        let error = Input::Path(self.table.clone()).wrong(format_args!(
            "names {images} and none is there: `{first}{}` {}",
            self.suffix,
            self.absent()
        ));
        let name = plain(first);
        let mut folders = vec![String::new()];
        folders.extend(super::names_in(self.folder()).unwrap_or_default().into_iter().map(|name| format!("{name}/")));
        let mut places = folders.iter().flat_map(|folder| SUFFIXES.map(|suffix| (folder, suffix)));
        error.help(
            match places.find(|(folder, suffix)| self.folder().join(format!("{folder}{name}{suffix}")).is_file()) {
                None => {
                    "set `root` to the folder of the images, and `suffix` to the end that their names lack".to_owned()
                }
                Some((folder, suffix)) => {
                    let root = (!folder.is_empty()).then(|| "`root` to that folder".to_owned());
                    let suffix_key = (suffix != self.suffix).then(|| format!("`suffix` to `\"{suffix}\"`"));
                    let keys: Vec<String> = root.into_iter().chain(suffix_key).collect();
                    format!("`{folder}{name}{suffix}` is there: set {}", keys.join(" and "))
                }
            },
        )
    }
}

impl Found for CsvPaths {
    /// Images that are not there are left out: they are errors of those images, not of the source. Which ones these are
    /// is part of the others' role, so that an image that disappears is a change.
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
        let mut column = Column::default();
        self.rows.iter().try_for_each(|row| column.push(&row.label))?;
        let (classes, labels) = column.finish();
        let samples: Vec<Sample> = self
            .rows
            .iter()
            .zip(labels)
            .map(|(row, label)| {
                let full = self.full(row);
                let content = match full.try_exists() {
                    Ok(false) => Content::Bad(Refused { fault: Fault::Absent, reason: self.absent() }),
                    _ => Content::File(full),
                };
                let (group, cells) = (row.group.clone(), row.cells.clone());
                Sample { path: row.path.clone(), label, given: row.given, group, cells, content }
            })
            .collect();
        if samples.iter().all(|sample| matches!(sample.content, Content::Bad(_))) {
            return Err(self.nothing_there());
        }
        let aside = Aside { warnings: self.warnings.clone(), ..Aside::default() };
        Ok(Box::new(Listing { classes, samples, aside }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Hints;
    use super::super::testing::{LIMITS, collect, error_of, png};
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
        let reason = &samples[1].image.as_ref().unwrap_err().reason;
        let expected = format!("does not exist (looked for in `{}`, the table's folder)", folder.path().display());
        assert_eq!(*reason, expected);
    }

    #[test]
    fn dialects_and_names_of_columns_vary() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.png"] {
            std::fs::write(folder.path().join(name), png(2, 1, &[1; 2])).unwrap();
        }
        let table = folder.path().join("t.csv");
        for text in [
            "path;label\na.png;x\nb.png;y\n",
            "\u{feff}Filename\tClass\r\na.png\tx\r\nb.png\ty\r\n",
            "id,Category\na.png,x\nb.png,y\n",
            "class_id,path,label,class_name\n4,a.png,0,x\n4,b.png,1,y\n",
        ] {
            std::fs::write(&table, text).unwrap();
            let (_, samples) = collect(&table, None);
            assert_eq!(samples.iter().map(|s| s.label).collect::<Vec<_>>(), [0, 1], "{text}");
        }
        let utf16: Vec<u8> =
            "\u{feff}path;label\r\na.png;x\r\nb.png;y\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        std::fs::write(&table, utf16).unwrap();
        assert_eq!(collect(&table, None).0, ["x", "y"]);
    }

    #[test]
    fn ids_become_paths() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("train")).unwrap();
        std::fs::write(folder.path().join("train/7.png"), png(2, 1, &[1; 2])).unwrap();
        let table = folder.path().join("labels.csv");
        std::fs::write(&table, "id,breed,label\n7,pug,x\n8,pug,y\n").unwrap();
        let root = folder.path().join("train");
        let hints = Hints { root: Some(&root), suffix: ".png", ..Hints::default() };
        let found = super::super::find(&table, &hints, "auto").unwrap();
        let Files::Each(files) = found.files() else { unreachable!() };
        assert_eq!(files[1].1, root.join("7.png"));
        let reader = found.open(&LIMITS).unwrap();
        let mut bad = Vec::new();
        let pick = super::super::Pick::new(2, None);
        reader
            .read(&pick, &mut |sample| {
                if let Content::Bad(refused) = sample.content {
                    bad.push((sample.path, refused.reason));
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(bad, [("8".to_owned(), format!("does not exist (looked for in `{}`, the `root`)", root.display()))]);
    }

    #[test]
    fn images_that_lie_elsewhere_are_pointed_at() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("train")).unwrap();
        std::fs::write(folder.path().join("train/7.png"), png(2, 1, &[1; 2])).unwrap();
        let table = folder.path().join("labels.csv");
        let error = |rows: &str, suffix: &str| {
            std::fs::write(&table, format!("id,label\n{rows}")).unwrap();
            let hints = Hints { suffix, ..Hints::default() };
            super::super::find(&table, &hints, "auto").unwrap().open(&LIMITS).err().unwrap()
        };
        let said = error("7,x\n8,y\n", "");
        assert!(said.message.contains("names 2 images and none is there: `7` does not exist (looked for in"), "{said}");
        let help = "`train/7.png` is there: set `root` to that folder and `suffix` to `\".png\"`";
        assert_eq!(said.help.as_deref(), Some(help));
        assert_eq!(error("7,x\n", ".png").help.as_deref(), Some("`train/7.png` is there: set `root` to that folder"));
        let help = error("9,x\n", ".png").help.unwrap();
        assert!(help.starts_with("set `root` to the folder of the images"), "{help}");
    }

    #[test]
    fn what_windows_and_spreadsheets_write_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("img")).unwrap();
        for name in ["a.png", "b.png"] {
            std::fs::write(folder.path().join("img").join(name), png(2, 1, &[1; 2])).unwrap();
        }
        let table = folder.path().join("t.csv");
        std::fs::write(&table, ",path,label\r\n0,img\\a.png,1.0\r\n1,.\\img\\b.png,0.0\r\n,,\r\n\r\n").unwrap();
        let (classes, samples) = collect(&table, None);
        assert_eq!(classes, ["0", "1"]);
        assert!(samples.iter().all(|sample| sample.image.is_ok()));
        // One file under two names is still one file.
        std::fs::write(&table, "path,label\nimg/a.png,x\n./img//a.png,y\n").unwrap();
        assert!(error_of(&table).contains("lists `./img//a.png` as `x` in line 2 and as `y` in line 3"));
        let here = folder.path().join("img/a.png");
        for other in ["img/../img/a.png", &here.display().to_string(), "img\\\\a.png "] {
            std::fs::write(&table, format!("path,label\nimg/a.png,x\n{other},y\n")).unwrap();
            assert!(error_of(&table).contains("as `x` in line 2 and as `y` in line 3"), "{other}");
        }
        std::fs::write(&table, "path,label\n\n,\n").unwrap();
        assert!(error_of(&table).ends_with("has no row that names an image"), "{}", error_of(&table));
    }

    #[test]
    fn a_row_that_is_there_twice_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.png"] {
            std::fs::write(folder.path().join(name), png(2, 1, &[1; 2])).unwrap();
        }
        let table = folder.path().join("t.csv");
        let warnings = |rows: &str| {
            std::fs::write(&table, format!("sep=;\r\npath;label\r\n{rows}")).unwrap();
            let reader = super::super::find(&table, &Hints::default(), "auto").unwrap().open(&LIMITS).unwrap();
            assert_eq!(reader.classes(), ["x", "y"]);
            reader.aside().map_or(Vec::new(), |aside| aside.warnings.clone())
        };
        assert_eq!(warnings("a.png;x\r\nb.png;y\r\n"), [""; 0]);
        let told = warnings("a.png;x\r\nb.png;y\r\n./a.png ;x\r\n");
        assert!(
            told[0].starts_with("1 row lists an image once more, first `./a.png` in the lines 3 and 5"),
            "{told:?}"
        );
        let told = warnings("a.png;x\r\nb.png;y\r\na.png;x\r\na.png; x\r\n");
        assert!(told[0].starts_with("2 rows list an image once more, first `a.png` in the lines 3 and 5"), "{told:?}");
    }

    #[test]
    fn an_image_that_disappears_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.png"] {
            std::fs::write(folder.path().join(name), "same").unwrap();
        }
        let table = folder.path().join("t.csv");
        std::fs::write(&table, "a.png,x\nb.png,y\n").unwrap();
        let roles = || match super::super::find(&table, &Hints::default(), "auto").unwrap().files() {
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
            ("path,label\r\n\r\na.png,x\r\nb.png,", "has no label in line 4"),
            ("path,label\n\n\na.png,x\n\nb.png,", "has no label in line 6"),
            ("path,label\na.png,x\nb.png,y\na.png,y\n", "lists `a.png` as `x` in line 2 and as `y` in line 4"),
            (
                "path,label,class\na.png,x,1\nb.png,x,2\n",
                "has the columns `label` and `class`, which say different things and could both be the label",
            ),
            ("Where,Kind\na,x\n", "is a table with the columns `Where`, `Kind`, expected one of `path`, `file`"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let table = folder.path().join("t.csv");
            std::fs::write(&table, text).unwrap();
            let error = error_of(&table);
            assert!(error.contains(expected), "{error}");
        }
    }
}
