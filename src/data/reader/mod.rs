//! Readers: one file per data set format. To add one: a file beside this one, and a line in [`FORMATS`].
//!
//! [`find`] looks at a source's content (never its suffix) and says which format it has and which files belong to it
//! ([`Found`]); opening that lists what is there ([`Reader`]: classes, number of images); reading it streams
//! [`Sample`]s in a fixed order, which [`load`](load::load) decodes in parallel. No pixel policy here (that is
//! [`decode`](crate::data::decode)), and nothing is written.

pub(crate) mod cifar;
pub(crate) mod classes;
pub(crate) mod csv_paths;
pub(crate) mod csv_pixels;
pub(crate) mod folder;
mod foreign;
pub(crate) mod idx;
pub(crate) mod images;
pub(crate) mod input;
pub(crate) mod load;
pub(crate) mod npy;
pub(crate) mod npz;
mod table;
pub(crate) mod tar;

use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::config::Complaint;
use crate::data::decode::{Refused, is_known_image};
use crate::data::pixels::{Limits, Raw};
use crate::files;

/// Every format, in the order they are tried.
pub const FORMATS: &[Format] = &[
    Format {
        name: "idx",
        meaning: "MNIST's files: a magic number, sizes, bytes; images and labels apart, train and t10k as own splits.",
        find: idx::find,
    },
    Format {
        name: "tar",
        meaning: "A tar archive of class folders or of CIFAR's files, also gzipped.",
        find: tar::find,
    },
    Format { name: "cifar", meaning: "The binary files of CIFAR-10 and CIFAR-100.", find: cifar::find },
    Format { name: "npy", meaning: "A NumPy array of images; its labels are in another file.", find: npy::find },
    Format {
        name: "npz",
        meaning: "A ZIP of NumPy arrays: images and labels, also one of each for a split, as in `x_train`.",
        find: npz::find,
    },
    Format {
        name: "csv-paths",
        meaning: "A table with a row per image file: `path`, `label`, and `split` and `group` where there are such.",
        find: csv_paths::find,
    },
    Format {
        name: "csv-pixels",
        meaning: "A table with a row per image: `label`, and a column per pixel.",
        find: csv_pixels::find,
    },
    Format {
        name: "folders",
        meaning: "A folder with one folder per class, also below folders of splits.",
        find: folder::find,
    },
];

/// What looking at a source comes to; `None`: another format.
pub type FindResult = Result<Option<Box<dyn Found>>, Error>;

/// A format of data sets.
pub struct Format {
    /// The word for the key `format`.
    pub name: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// Whether this is it; `None` if not.
    pub find: fn(&Query<'_>) -> FindResult,
}

/// A source to be recognised.
pub struct Query<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// The name of the format, or `auto`.
    pub format: &'a str,
    /// The separate file of labels, if one was named.
    pub labels: Option<&'a Path>,
    /// Where the paths of a table begin, if not at the table.
    pub root: Option<&'a Path>,
    /// What a table's paths lack at their end.
    pub suffix: &'a str,
    /// Columns of a table that images are handed on with.
    pub columns: &'a [String],
    /// A folder, else a file.
    pub is_folder: bool,
    /// The file's first bytes, inflated if it is gzip; empty for a folder.
    pub head: Vec<u8>,
}

/// Bytes of a file that are enough to recognise it: a tar header, or a line of a pixel CSV.
const HEAD_LEN: usize = 1 << 16;

/// What somebody says of a source.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints<'a> {
    /// A file of labels.
    pub labels: Option<&'a Path>,
    /// The folder that a table's paths are relative to; its own by default.
    pub root: Option<&'a Path>,
    /// To be added to a table's paths, as `.jpg` to ids.
    pub suffix: &'a str,
    /// Columns of a table that images are to be handed on with.
    pub columns: &'a [String],
}

/// Recognises the source at `path`. `format` is a name from [`FORMATS`], or `auto`.
///
/// # Errors
/// If nothing is there, or it has no known format.
pub fn find(path: &Path, hints: &Hints<'_>, format: &str) -> Result<Box<dyn Found>, Error> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::new(format!("`{shown}` does not exist")),
        _ => Error::new(format!("cannot read `{shown}`: {e}")),
    })?;
    let is_folder = metadata.is_dir();
    let head = if is_folder { Vec::new() } else { input::Input::Path(path.to_owned()).head(HEAD_LEN)? };
    if !is_folder && head.is_empty() {
        return Err(Error::new(format!("`{shown}` is empty")));
    }
    let Hints { labels, root, suffix, columns } = *hints;
    let query = Query { path, format, labels, root, suffix, columns, is_folder, head };
    for kind in FORMATS.iter().filter(|kind| format == "auto" || format == kind.name) {
        if let Some(found) = (kind.find)(&query)? {
            return Ok(found);
        }
    }
    if let Some((what, help)) = foreign::of(&shown.to_string(), &query.head) {
        return Err(Error::new(format!("`{shown}` is {what}, which is not read")).help(help));
    }
    if is_known_image(&query.head) {
        return Err(Error::new(format!("`{shown}` is one image, which is not read"))
            .help("set `source` to the folder above its class folder"));
    }
    if let Some(error) = csv_paths::unknown_columns(&query) {
        return Err(error);
    }
    Err(match format {
        "auto" => Error::new(format!("`{shown}` has no format that ingest knows"))
            .help("set `format` if you know it, or `source` to a folder with one folder per class"),
        _ => Error::new(format!("`{shown}` does not have the format `{format}`")),
    })
}

/// As [`find`] with `auto`, and which format it is.
///
/// # Errors
/// As [`find`].
pub fn find_format(path: &Path) -> Result<(&'static str, Box<dyn Found>), Error> {
    for format in FORMATS {
        if let Ok(found) = find(path, &Hints::default(), format.name) {
            return Ok((format.name, found));
        }
    }
    find(path, &Hints::default(), "auto").map(|found| ("auto", found))
}

/// The files that belong to a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// These, each with what it is to the reader.
    Each(Vec<(String, PathBuf)>),
    /// Everything below a folder that is not hidden.
    Folder(PathBuf),
}

/// A recognised source.
pub trait Found: fmt::Debug {
    /// Its files.
    fn files(&self) -> Files;

    /// Lists what is there.
    ///
    /// # Errors
    /// If something is missing or malformed.
    fn open(&self, limits: &Limits) -> Result<Box<dyn Reader>, Error>;
}

/// A listed source.
pub trait Reader: Send + Sync {
    /// The classes' names, by label; one without any image is listed too.
    fn classes(&self) -> &[String];

    /// Number of images.
    fn n_samples(&self) -> u64;

    /// What there is beside the images that it counts.
    fn aside(&self) -> Option<&Aside> {
        None
    }

    /// Hands every picked image to `each`, in a fixed order.
    ///
    /// # Errors
    /// Those of `each`, and everything that is wrong with the source as a whole. An image that is wrong by itself is
    /// handed on as [`Content::Bad`].
    fn read(&self, pick: &Pick, each: &mut dyn FnMut(Sample) -> Result<(), Error>) -> Result<(), Error>;
}

/// What a source holds that is not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// Images that have no class, or no place: their paths, and why.
    pub images: Vec<(String, &'static str)>,
    /// Files that are no images.
    pub others: Vec<String>,
    /// Folders without images beside those of classes. They come and go without a change of the source: whoever looks at it
    /// is told, a data set does not hold them.
    pub empty: Vec<String>,
    /// What else is to be told of it.
    pub warnings: Vec<String>,
}

/// Endings of files that are meant as images, those of formats that are not read among them: such a file is an image
/// that can be read or not. Others are looked into.
const IMAGE_ENDINGS: &[&str] = &[
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "gif", "bmp", "dib", "webp", "tif", "tiff", "ppm", "pgm", "pbm",
    "pnm", "pam", "heic", "heif", "avif", "jp2", "j2k", "jxl", "tga", "psd", "dds", "exr", "hdr", "ico", "qoi", "cr2",
    "nef", "arw", "dng", "svg", "dcm",
];

/// Whether a file is an image by its name; `None` if its content must tell.
fn is_image_name(path: &str) -> Option<bool> {
    let (_, ending) = path.rsplit('/').next()?.rsplit_once('.')?;
    match IMAGE_ENDINGS.contains(&ending.to_ascii_lowercase().as_str()) {
        true => Some(true),
        false => files::is_text_name(Path::new(path)).then_some(false),
    }
}

/// Bytes that tell an image: DICOM's mark stands at 128, and an SVG may begin with comments.
const IMAGE_HEAD: usize = 512;

/// One image as it lies in its source.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Where it is, relative to the source.
    pub path: String,
    /// Its class.
    pub label: u32,
    /// The split the source puts it in.
    pub given: Option<GivenSplit>,
    /// Its group.
    pub group: Option<String>,
    /// What the columns that were asked for say of it, in their order.
    pub cells: Vec<String>,
    /// Its pixels, or where to find them.
    pub content: Content,
}

/// An image's content, as much as the reader had to touch it.
#[derive(Clone, Debug)]
pub enum Content {
    /// An image file, not yet read.
    File(PathBuf),
    /// The bytes of an image file.
    Encoded(Vec<u8>),
    /// Pixels.
    Raw(Raw),
    /// This image cannot be had, and why.
    Bad(Refused),
}

/// Which images are read: all, or `limit` of them, evenly spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    n_samples: u64,
    limit: u64,
}

impl Pick {
    /// At most `limit` of `n_samples`.
    pub fn new(n_samples: u64, limit: Option<u64>) -> Pick {
        Pick { n_samples, limit: limit.unwrap_or(n_samples).min(n_samples) }
    }

    /// Number of images that are picked.
    pub fn len(self) -> u64 {
        self.limit
    }

    /// Whether image `i` is picked.
    pub fn wants(self, i: u64) -> bool {
        let before = |i: u64| u128::from(i) * u128::from(self.limit) / u128::from(self.n_samples.max(1));
        before(i + 1) > before(i)
    }
}

/// Whether a head is text: no control characters but white space, and UTF-8 (but for a character cut at its end).
fn is_text(head: &[u8]) -> bool {
    let is_utf8 = std::str::from_utf8(head).map_or_else(|e| e.error_len().is_none(), |_| true);
    is_utf8 && !head.iter().any(|byte| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r'))
}

/// A stream that ends in an error once more than an allowance has been read of it: a row or a header that never ends
/// must not fill the memory. `what` is what would be too long. Nothing is allowed before the first [`Allowance::set`].
fn limited(stream: input::Stream, what: &'static str) -> (impl Read, Allowance) {
    let left = Allowance(Rc::new(Cell::new((0, 0))));
    (Limited { stream, what, left: left.clone() }, left)
}

/// How much may still be read of a [`limited`] stream.
#[derive(Clone)]
struct Allowance(Rc<Cell<(u64, u64)>>);

impl Allowance {
    /// From here on, `most` bytes; `u64::MAX` for any number.
    fn set(&self, most: u64) {
        self.0.set((most, most));
    }
}

struct Limited {
    stream: input::Stream,
    what: &'static str,
    left: Allowance,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (left, most) = self.left.0.get();
        if left == 0 {
            let message = format!("{} is longer than {most} bytes", self.what);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let n = self.stream.read(buffer)? as u64;
        self.left.0.set((if most == u64::MAX { most } else { left.saturating_sub(n) }, most));
        Ok(n as usize)
    }
}

/// What the CSV parser says, in our words.
fn csv_error(input: &input::Input, error: csv::Error) -> Error {
    let line = error.position().map_or(String::new(), |position| format!(" in line {}", position.line()));
    match error.into_kind() {
        csv::ErrorKind::Io(error) => input.error(error),
        csv::ErrorKind::Utf8 { .. } => input.wrong(format_args!("is not UTF-8{line}")),
        _ => input.wrong(format_args!("is not sound CSV{line}")),
    }
}

/// The names in a folder that are not hidden, sorted by their bytes.
///
/// # Errors
/// If the folder cannot be read, or a name is not UTF-8.
pub fn names_in(folder: &Path) -> Result<Vec<String>, Error> {
    let wrong = |e: std::io::Error| Error::new(format!("cannot read the folder `{}`: {e}", folder.display()));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let name = entry.map_err(wrong)?.file_name();
        match name.into_string() {
            Ok(name) if files::is_hidden(&name) => {}
            Ok(name) => names.push(name),
            Err(name) => {
                return Err(Error::new(format!(
                    "the name `{}` in `{}` is not UTF-8",
                    name.to_string_lossy(),
                    folder.display()
                )));
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The split that a source itself puts an image in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GivenSplit {
    /// To learn from.
    Train,
    /// To choose with.
    Validation,
    /// To report on.
    Test,
}

impl GivenSplit {
    /// The word in every CSV.
    pub fn name(self) -> &'static str {
        match self {
            GivenSplit::Train => "train",
            GivenSplit::Validation => "validation",
            GivenSplit::Test => "test",
        }
    }

    /// The split that a folder's name or a CSV cell means: `train`, `training`; `valid`, `validation`, `val`; `test`,
    /// `testing`; in any case.
    pub fn parse(word: &str) -> Option<GivenSplit> {
        match word.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(GivenSplit::Train),
            "valid" | "validation" | "val" => Some(GivenSplit::Validation),
            "test" | "testing" => Some(GivenSplit::Test),
            _ => None,
        }
    }

    /// The split that a name tells as a word anywhere in it: `seg_train`, `val2017`, `ImagesTest`,
    /// `emnist-letters-test-images`. `None` where it has none, or several that differ. MNIST's `t10k` is a test split,
    /// FER-2013's `PublicTest` for validation.
    pub fn in_name(name: &str) -> Option<GivenSplit> {
        if name.eq_ignore_ascii_case("PublicTest") {
            return Some(GivenSplit::Validation);
        }
        let mut words: Vec<String> = Vec::new();
        let mut before = ' ';
        for c in name.chars() {
            let is_new = !before.is_alphabetic() || (before.is_lowercase() && c.is_uppercase());
            match words.last_mut() {
                Some(word) if c.is_alphabetic() && !is_new => word.push(c),
                _ if c.is_alphabetic() => words.push(c.to_string()),
                _ => {}
            }
            before = c;
        }
        let is_t10k = name.split(|c: char| !c.is_alphanumeric()).any(|word| word.eq_ignore_ascii_case("t10k"));
        let mut found = words.iter().filter_map(|word| match word.to_ascii_lowercase().as_str() {
            "trainset" => Some(GivenSplit::Train),
            "testset" => Some(GivenSplit::Test),
            word => GivenSplit::parse(word),
        });
        let first = found.next().or(is_t10k.then_some(GivenSplit::Test))?;
        found.all(|other| other == first).then_some(first)
    }
}

/// What is wrong with a source, for people.
pub type Error = Complaint<OfSource>;

/// Tells complaints about a source from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfSource;

#[cfg(test)]
mod contract;

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of readers share.

    use std::path::Path;

    use super::load::{Loaded, Plan, load};
    use super::{Error, Hints, Limits, Pick, find};
    use crate::data::decode::DecodePolicy;

    pub(crate) const LIMITS: Limits = Limits { max_pixels: 1 << 20, max_bytes: 1 << 22 };

    fn try_collect(source: &Path, labels: Option<&Path>) -> Result<(Vec<String>, Vec<Loaded>), Error> {
        let hints = Hints { labels, ..Hints::default() };
        let reader = find(source, &hints, "auto")?.open(&LIMITS)?;
        let policy = DecodePolicy { limits: LIMITS, ..DecodePolicy::default() };
        let pick = Pick::new(reader.n_samples(), None);
        let mut samples = Vec::new();
        let plan = Plan { policy: &policy, pick, threads: 2, known: None };
        load(&*reader, &plan, &mut |loaded| {
            samples.push(loaded);
            Ok::<(), Error>(())
        })?;
        assert_eq!(samples.len() as u64, reader.n_samples());
        Ok((reader.classes().to_vec(), samples))
    }

    /// Classes and images of a source.
    #[track_caller]
    pub(crate) fn collect(source: &Path, labels: Option<&Path>) -> (Vec<String>, Vec<Loaded>) {
        try_collect(source, labels).unwrap()
    }

    /// What is wrong with a source, or with its first image that has something wrong.
    #[track_caller]
    pub(crate) fn error_of(source: &Path) -> String {
        match try_collect(source, None) {
            Err(error) => error.message,
            Ok((_, samples)) => samples
                .into_iter()
                .find_map(|sample| sample.image.err())
                .map(|refused| refused.reason)
                .unwrap_or_else(|| "nothing is wrong".to_owned()),
        }
    }

    /// A grey PNG file.
    pub(crate) fn png(width: u32, height: u32, pixels: &[u8]) -> Vec<u8> {
        let mut out = std::io::Cursor::new(Vec::new());
        image::GrayImage::from_raw(width, height, pixels.to_vec())
            .unwrap()
            .write_to(&mut out, image::ImageFormat::Png)
            .unwrap();
        out.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_words_in_names() {
        use GivenSplit::{Test, Train, Validation};
        for (name, expected) in [
            ("train", Some(Train)),
            ("seg_train", Some(Train)),
            ("TrainImages", Some(Train)),
            ("val2017", Some(Validation)),
            ("emnist-letters-test-images-idx3-ubyte", Some(Test)),
            ("t10k-images-idx3-ubyte.gz", Some(Test)),
            ("PublicTest", Some(Validation)),
            ("PrivateTest", Some(Test)),
            ("TEST", Some(Test)),
            ("train_val_test", None),
            ("restrain", None),
            ("contest", None),
            ("protest2", None),
            ("", None),
        ] {
            assert_eq!(GivenSplit::in_name(name), expected, "{name}");
        }
    }

    #[test]
    fn a_limit_picks_evenly_and_exactly() {
        for (n, limit) in [(10, 3), (10, 10), (10, 20), (7, 1), (1, 1), (0, 5), (1_797, 100)] {
            let pick = Pick::new(n, Some(limit));
            let picked: Vec<u64> = (0..n).filter(|i| pick.wants(*i)).collect();
            assert_eq!(picked.len() as u64, limit.min(n));
            let gaps: Vec<u64> = picked.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let (least, most) = (gaps.iter().min().unwrap_or(&0), gaps.iter().max().unwrap_or(&0));
            assert!(most - least <= 1, "{n} {limit}: {picked:?}");
        }
        assert!((0..5).all(|i| Pick::new(5, None).wants(i)));
    }

    #[test]
    fn unknown_content_and_absent_sources_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let message = || find(&path, &Hints::default(), "auto").unwrap_err().message;
        assert!(message().contains("does not exist"));
        std::fs::write(&path, "").unwrap();
        assert!(message().contains("is empty"));
        std::fs::write(&path, b"\x01\x02\x03 something").unwrap();
        assert!(message().contains("has no format that ingest knows"));
        let error = find(&path, &Hints::default(), "npz").unwrap_err();
        assert!(error.message.contains("does not have the format `npz`"), "{error}");
    }
}
