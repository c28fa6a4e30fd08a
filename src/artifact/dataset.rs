//! The data set: all images as one packed NHWC blob, an index with a line per image, and what was left out.
//!
//! Numbers and names lie in files of their own, since a task reads files: what learns reads pixels and [`Numbers`], and
//! a renamed image or class changes neither.
//!
//! | file | what |
//! |---|---|
//! | `images.npy` | `[n_samples, height, width, channels]`, u8 or little-endian u16, C order; readers map it |
//! | `index.csv` | a row per image, in the order of the blob: label, digest of the pixels, number of its group, given split |
//! | `dataset.json` | number of images and classes, shape, depth |
//! | `names.csv` | a row per image: its path, the name of its group |
//! | `columns.csv` | where asked for, a row per image: what other columns of the source's table say of it |
//! | `classes.json` | the names of the classes, by label |
//! | `decode.json` | how images were decoded: what `predict` repeats |
//! | `data.csv` | what ingest saw, for people |
//! | `skipped.csv` | what was left out and why |

mod summary;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use ndarray::ArrayView4;
use serde::{Deserialize, Serialize};

use super::table::{Cell, Table, unguarded};
use super::{Bytes, Error, Files, Sink, npy, put_document};
use crate::data::decode::{DecodePolicy, Seen, pixel_digest, seen_format};
use crate::data::pixels::Depth;
use crate::data::reader::GivenSplit;
use crate::data::samples::{Samples, Values};
use crate::tensor::{ImageShape, SampleShape};

pub use summary::{SUMMARY_FILES, Summary};

/// The blob's file name.
pub const IMAGES: &str = "images.npy";
/// The index's file name.
pub const INDEX: &str = "index.csv";
/// The description's file name.
pub const DESCRIPTION: &str = "dataset.json";
/// The file name of the names of images and groups.
pub const NAMES: &str = "names.csv";
/// The file name of other columns of the source's table; only there where they were asked for.
pub const COLUMNS: &str = "columns.csv";
/// The file name of the names of the classes.
pub const CLASSES: &str = "classes.json";
/// The file name of how images were decoded.
pub const DECODE: &str = "decode.json";
/// The file name of what ingest saw.
pub const DATA: &str = "data.csv";
/// The file name of what ingest left out.
pub const SKIPPED: &str = "skipped.csv";

/// What is read of a data set by who looks at no pixel: [`Numbers::read`].
pub const NUMBERS_FILES: &[&str] = &[INDEX, DESCRIPTION];
/// What is read of a data set by who learns from it: [`Dataset::read`].
pub const DATASET_FILES: &[&str] = &[IMAGES, INDEX, DESCRIPTION];
/// What is read of a data set by who speaks to people: [`Numbers::read`] and [`Names::read`].
pub const NAMES_FILES: &[&str] = &[INDEX, DESCRIPTION, NAMES, CLASSES];

/// The same with what columns say of images: [`Columns::read`].
pub const COLUMNS_FILES: &[&str] = &[INDEX, DESCRIPTION, NAMES, CLASSES, COLUMNS];

/// The form of this artifact, in `dataset.json`.
const FORMAT: u32 = 2;

/// All pixels of a data set, `[n_samples, height, width, channels]`, where the store keeps them.
#[derive(Clone, Copy, Debug)]
pub enum Images<'a> {
    /// Values `0..=255`.
    U8(ArrayView4<'a, u8>),
    /// Values `0..=65535`, each as its two little-endian bytes.
    U16(ArrayView4<'a, [u8; 2]>),
}

/// What there is to know of a data set but its pixels and its names.
#[derive(Clone, Debug)]
pub struct Numbers {
    shape: ImageShape,
    depth: Depth,
    n_classes: usize,
    labels: Vec<u32>,
    digests: Vec<u128>,
    groups: Vec<Option<u32>>,
    given: Vec<Option<GivenSplit>>,
}

/// A data set, read: the index in memory, the pixels where the store keeps them.
#[derive(Clone, Debug)]
pub struct Dataset {
    numbers: Numbers,
    images: Bytes,
}

/// What a data set calls its images and classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    classes: Vec<String>,
    paths: Vec<String>,
    /// The first image of each group.
    groups: BTreeMap<String, usize>,
}

/// What `dataset.json` says.
#[derive(Serialize, Deserialize)]
struct Description {
    format: u32,
    n_samples: usize,
    n_classes: usize,
    height: usize,
    width: usize,
    channels: usize,
    depth: u32,
}

impl Description {
    fn read(files: &Files) -> Result<Description, Error> {
        files.document(DESCRIPTION, Some(FORMAT))
    }

    fn shape(&self) -> ImageShape {
        ImageShape { height: self.height, width: self.width, channels: self.channels }
    }
}

impl Numbers {
    /// Reads the numbers of a data set.
    ///
    /// # Errors
    /// If a file is missing, short, or does not agree with the others.
    pub fn read(files: &Files) -> Result<Numbers, Error> {
        let description = Description::read(files)?;
        let shape = description.shape();
        let depth = match description.depth {
            8 => Depth::U8,
            16 => Depth::U16,
            other => return Err(bad(DESCRIPTION, format_args!("has depth {other}, expected 8 or 16"))),
        };
        let mut numbers = Numbers {
            shape,
            depth,
            n_classes: description.n_classes,
            labels: Vec::new(),
            digests: Vec::new(),
            groups: Vec::new(),
            given: Vec::new(),
        };
        numbers.read_index(files.get(INDEX)?)?;
        if numbers.labels.len() != description.n_samples {
            return Err(bad(
                INDEX,
                format_args!("has {} rows, expected {}", numbers.labels.len(), description.n_samples),
            ));
        }
        Ok(numbers)
    }

    fn read_index(&mut self, bytes: &[u8]) -> Result<(), Error> {
        // A cut within the last cell may leave one that reads.
        if !bytes.ends_with(b"\n") {
            return Err(bad(INDEX, "is truncated"));
        }
        let mut rows = csv::ReaderBuilder::new().from_reader(bytes);
        let mut row = csv::StringRecord::new();
        while rows.read_record(&mut row).map_err(|e| bad(INDEX, e))? {
            let line = self.labels.len() + 2;
            let cell =
                |i: usize| row.get(i).ok_or_else(|| bad(INDEX, format_args!("has too few columns in line {line}")));
            let wrong = |what: &str| bad(INDEX, format_args!("has a bad {what} in line {line}"));
            let label: u32 = cell(1)?.parse().map_err(|_| wrong("label"))?;
            if label as usize >= self.n_classes {
                return Err(wrong("label"));
            }
            self.labels.push(label);
            self.digests.push(u128::from_str_radix(cell(2)?, 16).map_err(|_| wrong("digest"))?);
            self.groups.push(match cell(3)? {
                "" => None,
                number => Some(number.parse().map_err(|_| wrong("group"))?),
            });
            self.given.push(match cell(4)? {
                "" => None,
                word => Some(GivenSplit::parse(word).ok_or_else(|| wrong("split"))?),
            });
        }
        Ok(())
    }

    /// Number of images.
    pub fn n_samples(&self) -> usize {
        self.labels.len()
    }

    /// The shape that all images have.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Bits of one value.
    pub fn depth(&self) -> Depth {
        self.depth
    }

    /// Number of classes.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// The label of image `i`, `0..n_classes`.
    pub fn label(&self, i: usize) -> u32 {
        self.labels[i]
    }

    /// All labels, by image.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The digest of image `i`'s shape and pixels: equal if and only if the images are the same.
    pub fn digest(&self, i: usize) -> u128 {
        self.digests[i]
    }

    /// All digests, by image.
    pub fn digests(&self) -> &[u128] {
        &self.digests
    }

    /// The groups (a patient, a burst), by image, numbered in order of first appearance; `None` of an image that the
    /// source puts in none.
    pub fn groups(&self) -> &[Option<u32>] {
        &self.groups
    }

    /// Whether any image has a group.
    pub fn has_groups(&self) -> bool {
        self.groups.iter().any(Option::is_some)
    }

    /// The split that the source itself puts image `i` in, if it says.
    pub fn given(&self, i: usize) -> Option<GivenSplit> {
        self.given[i]
    }
}

impl std::ops::Deref for Dataset {
    type Target = Numbers;

    fn deref(&self) -> &Numbers {
        &self.numbers
    }
}

impl Dataset {
    /// Reads a data set.
    ///
    /// # Errors
    /// If a file is missing, short, or does not agree with the others.
    pub fn read(files: &Files) -> Result<Dataset, Error> {
        let numbers = Numbers::read(files)?;
        let images = files.get(IMAGES)?.clone();
        npy::check(IMAGES, &images, kind(numbers.depth), &array(numbers.n_samples(), numbers.shape), DESCRIPTION)?;
        Ok(Dataset { numbers, images })
    }

    /// All pixels.
    pub fn images(&self) -> Images<'_> {
        let bytes = &self.images[npy::HEADER_LEN..];
        let ImageShape { height, width, channels } = self.shape;
        let shape = (self.n_samples(), height, width, channels);
        // The length was checked when the file was read.
        match self.depth {
            Depth::U8 => Images::U8(ArrayView4::from_shape(shape, bytes).expect("a checked length")),
            Depth::U16 => Images::U16(ArrayView4::from_shape(shape, bytes.as_chunks().0).expect("a checked length")),
        }
    }
}

impl Samples for Dataset {
    fn n_samples(&self) -> usize {
        Numbers::n_samples(self)
    }

    fn shape(&self) -> SampleShape {
        SampleShape::Image(Numbers::shape(self))
    }

    fn values(&self, i: usize) -> Values<'_> {
        let len = self.shape.len() * self.depth.bytes();
        let bytes = &self.images[npy::HEADER_LEN + i * len..][..len];
        match self.depth {
            Depth::U8 => Values::U8(bytes),
            Depth::U16 => Values::U16(bytes.as_chunks().0),
        }
    }
}

impl Names {
    /// Reads the names of a data set.
    ///
    /// # Errors
    /// If a file is missing or is not what was written.
    pub fn read(files: &Files) -> Result<Names, Error> {
        let classes = Names::classes_in(files)?;
        let mut names = Names { classes, paths: Vec::new(), groups: BTreeMap::new() };
        let mut rows = csv::ReaderBuilder::new().from_reader(&files.get(NAMES)?[..]);
        let mut row = csv::StringRecord::new();
        while rows.read_record(&mut row).map_err(|e| bad(NAMES, e))? {
            let line = names.paths.len() + 2;
            let cell =
                |i: usize| row.get(i).ok_or_else(|| bad(NAMES, format_args!("has too few columns in line {line}")));
            let group = unguarded(cell(2)?);
            if !group.is_empty() && !names.groups.contains_key(group) {
                names.groups.insert(group.to_owned(), names.paths.len());
            }
            names.paths.push(unguarded(cell(1)?).to_owned());
        }
        Ok(names)
    }

    /// Reads the names of the classes alone.
    ///
    /// # Errors
    /// If the file is missing or is not what was written.
    pub fn classes_in(files: &Files) -> Result<Vec<String>, Error> {
        files.document(CLASSES, None)
    }

    /// The classes' names, by label.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The groups' names, in order.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    /// An image of a group; `None` if there is no such group.
    pub fn image_of_group(&self, group: &str) -> Option<usize> {
        self.groups.get(group).copied()
    }

    /// Where image `i` is from, relative to the source.
    pub fn path(&self, i: usize) -> &str {
        &self.paths[i]
    }

    /// Number of images.
    pub fn n_samples(&self) -> usize {
        self.paths.len()
    }
}

/// What columns of the source's table say of images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(Vec<Grouping>);

/// The images by what one column says of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// The column.
    pub name: String,
    /// What it says, sorted by its characters, each once.
    pub groups: Vec<String>,
    /// Which of these it says of each image; `None` where the cell is empty.
    pub of_image: Vec<Option<u32>>,
}

impl Columns {
    /// Reads [`COLUMNS`]; none where the data set has no such file.
    ///
    /// # Errors
    /// If it is not what was written.
    pub fn read(files: &Files) -> Result<Columns, Error> {
        let Some(bytes) = files.0.get(COLUMNS) else { return Ok(Columns::default()) };
        let mut rows = csv::ReaderBuilder::new().from_reader(&bytes[..]);
        let header = rows.headers().map_err(|e| bad(COLUMNS, e))?.clone();
        let names: Vec<String> = header.iter().skip(1).map(|name| unguarded(name).to_owned()).collect();
        let mut cells: Vec<Vec<String>> = vec![Vec::new(); names.len()];
        let mut row = csv::StringRecord::new();
        while rows.read_record(&mut row).map_err(|e| bad(COLUMNS, e))? {
            cells.iter_mut().zip(row.iter().skip(1)).for_each(|(cells, cell)| cells.push(unguarded(cell).to_owned()));
        }
        let grouping = |(name, cells): (String, Vec<String>)| {
            let groups: BTreeSet<String> = cells.iter().filter(|cell| !cell.is_empty()).cloned().collect();
            let groups: Vec<String> = groups.into_iter().collect();
            let of_image = cells.iter().map(|cell| groups.binary_search(cell).ok().map(|at| at as u32)).collect();
            Grouping { name, groups, of_image }
        };
        Ok(Columns(names.into_iter().zip(cells).map(grouping).collect()))
    }

    /// The column of this name.
    pub fn get(&self, name: &str) -> Option<&Grouping> {
        self.0.iter().find(|grouping| grouping.name == name)
    }
}

/// How the images of a data set were decoded.
///
/// # Errors
/// If the file is missing or is not what was written.
pub fn read_decode_policy(files: &Files) -> Result<DecodePolicy, Error> {
    files.document(DECODE, None)
}

/// What each image was before any policy, in the order of the blob, as [`DATA`] has it.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenTable(pub Vec<Seen>);

impl SeenTable {
    /// Reads it.
    ///
    /// # Errors
    /// If the file is missing or is not what was written.
    pub fn read(files: &Files) -> Result<SeenTable, Error> {
        let mut rows = csv::ReaderBuilder::new().from_reader(&files.get(DATA)?[..]);
        let header = rows.headers().map_err(|e| bad(DATA, e))?.clone();
        let [format, numbers @ ..] = columns(&header, ["format", "width", "height", "channels", "depth"])?;
        let mut seen = Vec::new();
        let mut row = csv::StringRecord::new();
        while rows.read_record(&mut row).map_err(|e| bad(DATA, e))? {
            let number = |column: usize| number(&row, &header, column);
            let format = seen_format(&row[format]).ok_or_else(|| bad(DATA, "has an unknown format"))?;
            let [width, height, channels, depth] = numbers.map(number);
            seen.push(Seen { format, width: width?, height: height?, channels: channels?, depth: depth? });
        }
        Ok(SeenTable(seen))
    }
}

/// Where these columns of [`DATA`] stand.
fn columns<const N: usize>(header: &csv::StringRecord, names: [&str; N]) -> Result<[usize; N], Error> {
    let mut found = [0; N];
    for (at, name) in found.iter_mut().zip(names) {
        let place = header.iter().position(|cell| cell == name);
        *at = place.ok_or_else(|| bad(DATA, format_args!("has no column `{name}`")))?;
    }
    Ok(found)
}

/// A number in a row of [`DATA`].
fn number(row: &csv::StringRecord, header: &csv::StringRecord, column: usize) -> Result<u32, Error> {
    row[column].parse().map_err(|_| bad(DATA, format_args!("has a bad `{}`", &header[column])))
}

/// The files of a data set that learning reads ([`DATASET_FILES`]), some rows of which are other ones: `change` is given a
/// row's number, the bytes of its pixels as the blob has them, and its label.
///
/// # Errors
/// If a file is missing or is not what was written, or has no such row.
///
/// # Panics
/// If a changed label names no class.
pub fn rewritten(
    files: &Files,
    rows: &BTreeSet<u32>,
    change: &mut dyn FnMut(u32, &mut [u8], &mut u32),
) -> Result<Files, Error> {
    let dataset = Dataset::read(files)?;
    let numbers = &dataset.numbers;
    if let Some(row) = rows.last().filter(|&&row| row as usize >= numbers.n_samples()) {
        return Err(bad(INDEX, format_args!("has {} rows, and no row {row}", numbers.n_samples())));
    }
    let (shape, depth) = (numbers.shape, numbers.depth);
    let len = shape.len() * depth.bytes();
    let mut images = dataset.images.to_vec();
    let mut table = Table::new(&["id", "label", "digest", "group", "split"]);
    for (row, &label) in numbers.labels.iter().enumerate() {
        let (mut label, mut digest) = (label, numbers.digests[row]);
        if rows.contains(&(row as u32)) {
            let pixels = &mut images[npy::HEADER_LEN + row * len..][..len];
            change(row as u32, pixels, &mut label);
            assert!((label as usize) < numbers.n_classes, "label {label} of {} classes", numbers.n_classes);
            digest = pixel_digest(shape, depth, pixels);
        }
        let (group, split) = (numbers.groups[row], numbers.given[row].map(GivenSplit::name));
        let digest = format!("{digest:032x}");
        table.row(&[row.into(), label.into(), digest.as_str().into(), group.into(), split.into()]);
    }
    let mut changed = Files::default();
    changed.0.insert(IMAGES.to_owned(), Bytes::new(images));
    changed.0.insert(INDEX.to_owned(), Bytes::new(table.into_bytes()));
    changed.0.insert(DESCRIPTION.to_owned(), files.get(DESCRIPTION)?.clone());
    Ok(changed)
}

/// One image's line in the index, before it is known which classes there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Where it is from, relative to the source.
    pub path: String,
    /// Index of its class.
    pub label: u32,
    /// Its group.
    pub group: Option<String>,
    /// The split the source puts it in.
    pub given: Option<GivenSplit>,
    /// What the columns that were asked for say of it.
    pub cells: Vec<String>,
    /// What it was when it came in.
    pub seen: Seen,
}

/// One image that was left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Skipped {
    /// Where it is from, relative to the source.
    pub path: String,
    /// The class it would have had, by name.
    pub class: String,
    /// Why.
    pub reason: String,
}

/// Writes a data set, image by image, without holding the pixels.
pub struct DatasetWriter {
    images: BufWriter<File>,
    shape: ImageShape,
    depth: Depth,
    rows: Vec<(Row, u128)>,
    columns: Vec<String>,
}

#[cfg(test)]
impl DatasetWriter {
    pub(crate) fn create(sink: &mut dyn Sink, shape: ImageShape, depth: Depth) -> io::Result<DatasetWriter> {
        DatasetWriter::new(sink.create(IMAGES)?, shape, depth)
    }

    pub(crate) fn push(&mut self, row: Row, pixels: &[u8]) -> io::Result<()> {
        let digest = pixel_digest(self.shape, self.depth, pixels);
        self.push_digested(row, pixels, digest)
    }
}

impl DatasetWriter {
    /// Starts a data set whose blob (the file [`IMAGES`] of a sink) is there already.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(images: File, shape: ImageShape, depth: Depth) -> io::Result<DatasetWriter> {
        let mut images = BufWriter::with_capacity(1 << 20, images);
        images.write_all(&[0; npy::HEADER_LEN])?;
        Ok(DatasetWriter { images, shape, depth, rows: Vec::new(), columns: Vec::new() })
    }

    /// Keeps these columns: each row has a cell for each of them.
    pub fn keep_columns(&mut self, columns: &[String]) {
        self.columns = columns.to_vec();
    }

    /// The shape of every image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// The depth of every image.
    pub fn depth(&self) -> Depth {
        self.depth
    }

    /// The first two images of each kind of equal pixels under two labels.
    pub fn contradictions(&self) -> Vec<[&Row; 2]> {
        let mut first: HashMap<u128, (&Row, bool)> = HashMap::with_capacity(self.rows.len());
        let mut found = Vec::new();
        for (row, digest) in &self.rows {
            let (before, is_told) = first.entry(*digest).or_insert((row, false));
            if before.label != row.label && !std::mem::replace(is_told, true) {
                found.push([*before, row]);
            }
        }
        found
    }

    /// The labels so far.
    pub fn labels(&self) -> impl Iterator<Item = u32> + '_ {
        self.rows.iter().map(|(row, _)| row.label)
    }

    /// Appends an image: its values in the order `[height, width, channels]`, 16-bit values little-endian, and their
    /// digest.
    ///
    /// # Errors
    /// Those of the file system.
    ///
    /// # Panics
    /// If `pixels` has not exactly the bytes of one image.
    pub fn push_digested(&mut self, row: Row, pixels: &[u8], digest: u128) -> io::Result<()> {
        assert_eq!(pixels.len(), self.shape.len() * self.depth.bytes(), "bytes of an image of shape {}", self.shape);
        self.images.write_all(pixels)?;
        self.rows.push((row, digest));
        Ok(())
    }

    /// Writes the index, the description and the reports; `classes` are the names by label.
    ///
    /// # Errors
    /// Those of the file system.
    ///
    /// # Panics
    /// If a row's label is not in `classes`.
    pub fn finish(
        mut self,
        sink: &mut dyn Sink,
        classes: &[String],
        decode: &DecodePolicy,
        skipped: &[Skipped],
    ) -> io::Result<()> {
        let n_samples = self.rows.len();
        self.images.seek(SeekFrom::Start(0))?;
        self.images.write_all(&npy::header(kind(self.depth), &array(n_samples, self.shape)))?;
        self.images.flush()?;
        let description = Description {
            format: FORMAT,
            n_samples,
            n_classes: classes.len(),
            height: self.shape.height,
            width: self.shape.width,
            channels: self.shape.channels,
            depth: self.depth.bits(),
        };
        put_document(sink, DESCRIPTION, &description)?;
        put_document(sink, CLASSES, &classes)?;
        put_document(sink, DECODE, decode)?;
        sink.put(INDEX, &self.index())?;
        sink.put(NAMES, &self.names())?;
        if !self.columns.is_empty() {
            sink.put(COLUMNS, &self.cells())?;
        }
        sink.put(DATA, &self.data(classes))?;
        sink.put(SKIPPED, &skipped_table(skipped))
    }

    fn index(&self) -> Vec<u8> {
        // Only looked up, never walked.
        let mut groups: HashMap<&str, usize> = HashMap::new();
        let mut table = Table::new(&["id", "label", "digest", "group", "split"]);
        for (id, (row, digest)) in self.rows.iter().enumerate() {
            let group = row.group.as_deref().filter(|group| !group.is_empty()).map(|group| {
                let next = groups.len();
                *groups.entry(group).or_insert(next)
            });
            let digest = format!("{digest:032x}");
            table.row(&[
                id.into(),
                row.label.into(),
                digest.as_str().into(),
                group.into(),
                row.given.map(GivenSplit::name).into(),
            ]);
        }
        table.into_bytes()
    }

    fn names(&self) -> Vec<u8> {
        let mut table = Table::new(&["id", "path", "group"]);
        for (id, (row, _)) in self.rows.iter().enumerate() {
            table.row(&[id.into(), (&row.path).into(), row.group.as_deref().into()]);
        }
        table.into_bytes()
    }

    fn cells(&self) -> Vec<u8> {
        let header: Vec<&str> = std::iter::once("id").chain(self.columns.iter().map(String::as_str)).collect();
        let mut table = Table::new(&header);
        for (id, (row, _)) in self.rows.iter().enumerate() {
            let cells = row.cells.iter().map(|cell| Cell::Text(cell));
            table.row(&std::iter::once(id.into()).chain(cells).collect::<Vec<_>>());
        }
        table.into_bytes()
    }

    fn data(&self, classes: &[String]) -> Vec<u8> {
        // The first image with the same pixels; a map that is only looked up, never walked.
        let mut first = HashMap::with_capacity(self.rows.len());
        let mut table = Table::new(&[
            "id",
            "path",
            "class",
            "label",
            "split",
            "group",
            "format",
            "width",
            "height",
            "channels",
            "depth",
            "duplicate_of",
            "digest",
        ]);
        for (id, (row, digest)) in self.rows.iter().enumerate() {
            let original = *first.entry(digest).or_insert(id);
            let digest = format!("{digest:032x}");
            table.row(&[
                id.into(),
                (&row.path).into(),
                (&classes[row.label as usize]).into(),
                row.label.into(),
                row.given.map(GivenSplit::name).into(),
                row.group.as_deref().into(),
                row.seen.format.into(),
                row.seen.width.into(),
                row.seen.height.into(),
                row.seen.channels.into(),
                row.seen.depth.into(),
                (original != id).then_some(original).into(),
                digest.as_str().into(),
            ]);
        }
        table.into_bytes()
    }
}

fn skipped_table(skipped: &[Skipped]) -> Vec<u8> {
    let mut table = Table::new(&["path", "class", "reason"]);
    for image in skipped {
        table.row(&[(&image.path).into(), (&image.class).into(), (&image.reason).into()]);
    }
    table.into_bytes()
}

fn kind(depth: Depth) -> npy::Kind {
    match depth {
        Depth::U8 => npy::Kind::U8,
        Depth::U16 => npy::Kind::U16,
    }
}

/// The axes of all images together.
fn array(n_samples: usize, shape: ImageShape) -> [usize; 4] {
    [n_samples, shape.height, shape.width, shape.channels]
}

fn bad(file: &str, message: impl std::fmt::Display) -> Error {
    Error { file: file.to_owned(), message: message.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::testing::MemorySink;

    fn two_images(depth: Depth) -> Files {
        let mut sink = MemorySink::default();
        let shape = ImageShape { height: 1, width: 2, channels: 1 };
        let mut writer = DatasetWriter::create(&mut sink, shape, depth).unwrap();
        let pixels = [1, 2, 3, 4];
        let pixels = &pixels[..2 * depth.bytes()];
        let row = |path: &str, label| Row {
            path: path.to_owned(),
            label,
            seen: Seen { format: "png", ..Seen::default() },
            ..Row::default()
        };
        writer.push(Row { group: Some("p, 1".to_owned()), ..row("a \"x\"", 0) }, pixels).unwrap();
        writer.push(Row { given: Some(GivenSplit::Test), ..row("=cmd", 1) }, pixels).unwrap();
        let skipped = [Skipped { path: "z".to_owned(), class: "b".to_owned(), reason: "is empty".to_owned() }];
        let classes = ["-a".to_owned(), "b".to_owned()];
        writer.finish(&mut sink, &classes, &DecodePolicy::default(), &skipped).unwrap();
        sink.files()
    }

    #[test]
    fn what_is_written_is_read() {
        for depth in [Depth::U8, Depth::U16] {
            let files = two_images(depth);
            let (dataset, names) = (Dataset::read(&files).unwrap(), Names::read(&files).unwrap());
            assert_eq!((dataset.n_samples(), names.n_samples(), dataset.n_classes()), (2, 2, 2));
            assert_eq!(dataset.labels(), [0, 1]);
            assert_eq!((names.path(0), names.path(1)), ("a \"x\"", "=cmd"));
            assert_eq!(names.classes(), ["-a", "b"]);
            assert_eq!(dataset.groups(), [Some(0), None]);
            assert_eq!(read_decode_policy(&files).unwrap(), DecodePolicy::default());
            assert_eq!(dataset.given(1), Some(GivenSplit::Test));
            assert_eq!(dataset.digest(0), dataset.digest(1));
            let mut values = [0.0; 2];
            dataset.values(1).copy_to(&mut values);
            assert_eq!(values, if depth == Depth::U8 { [1.0, 2.0] } else { [513.0, 1027.0] });
            match dataset.images() {
                Images::U8(images) => assert_eq!((images.dim(), images[[1, 0, 1, 0]]), ((2, 1, 2, 1), 2)),
                Images::U16(images) => assert_eq!((images.dim(), images[[1, 0, 1, 0]]), ((2, 1, 2, 1), [3, 4])),
            }
        }
    }

    #[test]
    fn reports_say_duplicates_and_are_safe_in_spreadsheets() {
        let files = two_images(Depth::U8);
        let data = String::from_utf8(files.get(DATA).unwrap().to_vec()).unwrap();
        let line = data.lines().nth(2).unwrap();
        assert!(line.starts_with("1,'=cmd,b,1,test,,png,0,0,0,0,0,"), "{line}");
        assert!(data.contains("'-a"), "{data}");
        assert_eq!(files.get(SKIPPED).unwrap()[..], b"path,class,reason\nz,b,is empty\n"[..]);
    }

    #[test]
    fn a_short_or_wrong_file_is_an_error() {
        let files = two_images(Depth::U8);
        for name in [IMAGES, INDEX, DESCRIPTION] {
            let whole = files.get(name).unwrap().to_vec();
            // Without its last line feed a document of JSON is still whole.
            let end = if name == DESCRIPTION { whole.len() - 1 } else { whole.len() };
            for len in 0..end {
                let mut cut = files.clone();
                cut.0.insert(name.to_owned(), Bytes::new(whole[..len].to_vec()));
                let error = Dataset::read(&cut).expect_err(&format!("{name} cut at {len}"));
                assert_eq!(error.file, name, "cut at {len}: {error}");
            }
        }
        for (name, from, to, expected) in [
            (INDEX, "1,1,", "1,2,", "has a bad label in line 3"),
            (INDEX, ",test\n", ",tests\n", "has a bad split in line 3"),
            (INDEX, ",0,\n", ",x,\n", "has a bad group in line 2"),
            (DESCRIPTION, "\"depth\": 8", "\"depth\": 9", "has depth 9, expected 8 or 16"),
            (DESCRIPTION, "\"n_samples\": 2", "\"n_samples\": 3", "has 2 rows, expected 3"),
            (DESCRIPTION, "\"width\": 2", "\"width\": 3", "has a header that does not agree with dataset.json"),
        ] {
            let text = String::from_utf8(files.get(name).unwrap().to_vec()).unwrap();
            assert!(text.contains(from), "{text}");
            let mut wrong = files.clone();
            wrong.0.insert(name.to_owned(), Bytes::new(text.replacen(from, to, 1).into_bytes()));
            let error = Dataset::read(&wrong).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
