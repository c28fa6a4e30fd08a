//! NumPy's NPY: one array after a header that is a Python literal; images in one file, labels in another.
//!
//! Bytes and 16-bit values are kept; other numbers are taken where they are whole and fit a byte, and refused
//! otherwise, since ingest never rounds. No pickled objects: headers are parsed, never evaluated. [`npz`](super::npz)
//! reads the same arrays from an archive.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::classes::{self, Column};
use super::input::{self, Input};
use super::{Content, Error, Files, Found, GivenSplit, Pick, Query, Reader, Sample};
use crate::data::pixels::Depth;
use crate::data::pixels::{Limits, Raw, RawAlpha};
use crate::tensor::ImageShape;

/// The longest header that is read, as NumPy's own limit.
const MAX_HEADER: usize = 10_000;
const MAGIC: &[u8] = b"\x93NUMPY";

/// Where an array is: opened by whoever holds it.
pub(super) trait Holder: Send + Sync + std::fmt::Debug {
    /// Hands the array's file to `visit`, and sees to it that what stands behind the array is sound as well.
    fn with(&self, visit: &mut dyn FnMut(&mut dyn Read) -> Result<(), Error>) -> Result<(), Error>;

    /// Hands the array's file to `visit`, which reads its start only.
    fn start(&self, visit: &mut dyn FnMut(&mut dyn Read) -> Result<(), Error>) -> Result<(), Error>;

    /// How long the file is said to be, if anything says it.
    fn said_len(&self) -> Result<Option<u64>, Error>;

    /// For messages: what follows goes on from the array's name.
    fn input(&self) -> &Input;
}

/// A file of its own.
#[derive(Clone, Debug)]
struct Loose(Input);

impl Holder for Loose {
    fn with(&self, visit: &mut dyn FnMut(&mut dyn Read) -> Result<(), Error>) -> Result<(), Error> {
        let mut stream = self.0.open()?;
        visit(&mut *stream)?;
        // A gzip file ends with a checksum; an array is followed by nothing.
        let mut rest = [0; 1];
        match stream.read(&mut rest).map_err(|e| self.0.error(e))? {
            0 => Ok(()),
            _ => Err(self.0.wrong("has more bytes than its array")),
        }
    }

    fn start(&self, visit: &mut dyn FnMut(&mut dyn Read) -> Result<(), Error>) -> Result<(), Error> {
        visit(&mut *self.0.open()?)
    }

    fn said_len(&self) -> Result<Option<u64>, Error> {
        Ok(None)
    }

    fn input(&self) -> &Input {
        &self.0
    }
}

/// An array in a file of its own.
pub(super) fn loose(path: &Path) -> Box<dyn Holder> {
    Box::new(Loose(Input::Path(path.to_owned())))
}

#[derive(Clone, Debug)]
struct Npy {
    images: PathBuf,
    labels: PathBuf,
}

/// Finds an array of images, with its `labels` named or beside it.
///
/// # Errors
/// If there are no labels.
pub fn find(query: &Query<'_>) -> super::FindResult {
    if query.is_folder || !query.head.starts_with(MAGIC) {
        return Ok(None);
    }
    let images = query.path.to_owned();
    match query.labels.map(Path::to_owned).or_else(|| labels_beside(&images)) {
        Some(labels) => Ok(Some(Box::new(Npy { images, labels }))),
        None => Err(Input::Path(images)
            .wrong("is an array of images and there is no array of labels beside it")
            .help("set `labels` to the NPY file that holds the labels")),
    }
}

/// `images.npy` to `labels.npy`, `x_train.npy` to `y_train.npy`.
fn labels_beside(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    [("images", "labels"), ("x_", "y_"), ("X_", "y_"), ("x.", "y."), ("X.", "y.")]
        .into_iter()
        .filter(|(from, _)| name.contains(from))
        .map(|(from, to)| images.with_file_name(name.replacen(from, to, 1)))
        .find(|path| path.is_file())
}

impl Found for Npy {
    fn files(&self) -> Files {
        Files::Each(vec![("images".to_owned(), self.images.clone()), ("labels".to_owned(), self.labels.clone())])
    }

    fn open(&self, limits: &Limits) -> Result<Box<dyn Reader>, Error> {
        let pair = Pair { images: loose(&self.images), labels: loose(&self.labels), given: None };
        Ok(Box::new(Arrays::open(vec![pair], limits)?))
    }
}

/// The numbers of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Unsigned(usize),
    Signed(usize),
    Float(usize),
    /// Bytes of text, with this many per item.
    Bytes(usize),
    /// Code points, with this many per item.
    Unicode(usize),
}

impl Kind {
    fn len(self) -> usize {
        match self {
            Kind::Bool => 1,
            Kind::Unsigned(n) | Kind::Signed(n) | Kind::Float(n) | Kind::Bytes(n) => n,
            Kind::Unicode(n) => 4 * n,
        }
    }
}

/// What stands before an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    is_big_endian: bool,
    pub(super) shape: Vec<u64>,
}

impl Header {
    /// Reads the header and leaves the stream at the first value.
    pub(super) fn read(stream: &mut dyn Read, input: &Input) -> Result<Header, Error> {
        let mut start = [0; 8];
        input::read_exact(stream, &mut start, input)?;
        if !start.starts_with(MAGIC) {
            return Err(input.wrong("is not an NPY array"));
        }
        let len = if start[6] == 1 {
            let mut len = [0; 2];
            input::read_exact(stream, &mut len, input)?;
            usize::from(u16::from_le_bytes(len))
        } else {
            let mut len = [0; 4];
            input::read_exact(stream, &mut len, input)?;
            u32::from_le_bytes(len) as usize
        };
        if len > MAX_HEADER {
            return Err(input.wrong(format_args!("has an NPY header of {len} bytes, more than {MAX_HEADER}")));
        }
        let text = input::read_len(stream, len as u64, input)?;
        let text = std::str::from_utf8(&text).map_err(|_| input.wrong("has a broken NPY header"))?;
        Header::parse(text, input)
    }

    fn parse(text: &str, input: &Input) -> Result<Header, Error> {
        let broken = || input.wrong("has a broken NPY header");
        let after = |key: &str| text.find(key).map(|at| text[at + key.len()..].trim_start_matches([' ', ':']));
        let descr = after("'descr'").ok_or_else(broken)?;
        if descr.starts_with('[') {
            return Err(input.wrong("holds records of several fields, expected one number per pixel"));
        }
        let descr = descr.strip_prefix('\'').and_then(|rest| rest.split('\'').next()).ok_or_else(broken)?;
        let is_fortran = after("'fortran_order'").ok_or_else(broken)?.starts_with("True");
        let shape = after("'shape'").and_then(|rest| rest.strip_prefix('(')).ok_or_else(broken)?;
        let shape: Option<Vec<u64>> = shape
            .split(')')
            .next()
            .unwrap_or_default()
            .split(',')
            .map(|axis| axis.trim().trim_end_matches('L'))
            .filter(|axis| !axis.is_empty())
            .map(|axis| axis.parse().ok())
            .collect();
        let shape = shape.ok_or_else(broken)?;
        // With one axis both orders are the same.
        if is_fortran && shape.len() > 1 {
            return Err(input
                .wrong("is stored column by column (Fortran order)")
                .help("save it with `np.save(path, np.ascontiguousarray(array))`"));
        }
        let (order, kind) = descr.split_at_checked(1).ok_or_else(broken)?;
        let (letter, len) = kind.split_at_checked(1).ok_or_else(broken)?;
        let len: usize = if letter == "O" { 0 } else { len.parse().map_err(|_| broken())? };
        let kind = match (letter, len) {
            ("b", 1) => Kind::Bool,
            ("u", 1 | 2 | 4 | 8) => Kind::Unsigned(len),
            ("i", 1 | 2 | 4 | 8) => Kind::Signed(len),
            ("f", 4 | 8) => Kind::Float(len),
            ("S" | "a", 1..=MAX_HEADER) => Kind::Bytes(len),
            ("U", 1..=MAX_HEADER) => Kind::Unicode(len),
            ("O", _) => return Err(input.wrong("holds Python objects, which are not read").help("save plain numbers")),
            _ => return Err(input.wrong(format_args!("holds values of the type `{descr}`, expected u8 or u16"))),
        };
        Ok(Header { kind, is_big_endian: order == ">", shape })
    }

    /// What is said of the file's length must be what the header says, before anything is unpacked.
    fn check_len(&self, holder: &dyn Holder) -> Result<(), Error> {
        let Some(len) = holder.said_len()? else { return Ok(()) };
        let n = self.shape.iter().try_fold(self.kind.len() as u64, |n, axis| n.checked_mul(*axis));
        match n {
            Some(n) if len >= n && len - n <= (MAX_HEADER + 12) as u64 => Ok(()),
            _ => Err(holder
                .input()
                .wrong(format_args!("has {len} bytes, which are not those of an array {:?}", self.shape))),
        }
    }

    /// One value as a number.
    fn number(&self, bytes: &[u8]) -> f64 {
        let mut all = [0; 8];
        all[..bytes.len()].copy_from_slice(bytes);
        if self.is_big_endian {
            all[..bytes.len()].reverse();
        }
        let wide = u64::from_le_bytes(all);
        let unused = 64 - 8 * bytes.len() as u32;
        match self.kind {
            Kind::Float(4) => f64::from(f32::from_bits(wide as u32)),
            Kind::Float(_) => f64::from_bits(wide),
            Kind::Signed(_) => ((wide << unused) as i64 >> unused) as f64,
            _ => wide as f64,
        }
    }

    /// One label as a class's name.
    fn name(&self, bytes: &[u8], input: &Input) -> Result<String, Error> {
        let broken = || input.wrong("holds a label that is not text");
        match self.kind {
            Kind::Bytes(_) => {
                let text = std::str::from_utf8(bytes).map_err(|_| broken())?;
                Ok(text.trim_end_matches('\0').to_owned())
            }
            Kind::Unicode(_) => {
                let point = |four: &[u8; 4]| match self.is_big_endian {
                    true => u32::from_be_bytes(*four),
                    false => u32::from_le_bytes(*four),
                };
                let points = bytes.as_chunks().0.iter().map(point).take_while(|&point| point != 0);
                points.map(char::from_u32).collect::<Option<String>>().ok_or_else(broken)
            }
            _ => {
                let value = self.number(bytes);
                match (0.0..=classes::MAX_LABEL as f64).contains(&value) && value.fract() == 0.0 {
                    true => Ok((value as u32).to_string()),
                    false => Err(classes::bad_label(input, value)),
                }
            }
        }
    }
}

/// An array of images and that of their labels.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) images: Box<dyn Holder>,
    pub(super) labels: Box<dyn Holder>,
    pub(super) given: Option<GivenSplit>,
}

/// How the axes of an array are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    shape: ImageShape,
    is_planar: bool,
}

impl Layout {
    /// `[n, height, width]`, `[n, height, width, channels]`, `[n, channels, height, width]`, or `[n, values]` of square
    /// images.
    fn of(shape: &[u64]) -> Option<Layout> {
        let axis = |i: usize| usize::try_from(shape[i]).ok().filter(|&n| n > 0);
        let image = |h, w, channels, is_planar| {
            Some(Layout { shape: ImageShape { height: axis(h)?, width: axis(w)?, channels }, is_planar })
        };
        match *shape {
            // Channels first or last, and either would do: of a few pixels only, and worth a question.
            [_, c @ 1..=4, h, w @ 1..=4] if h == w && c != h => None,
            [_, _, _] => image(1, 2, 1, false),
            [_, _, _, c @ 1..=4] => image(1, 2, c as usize, false),
            [_, c @ 1..=4, _, _] => image(2, 3, c as usize, true),
            [_, n] => {
                let side = n.isqrt();
                let side = usize::try_from(side).ok().filter(|_| n > 0 && side * side == n)?;
                Some(Layout { shape: ImageShape { height: side, width: side, channels: 1 }, is_planar: false })
            }
            _ => None,
        }
    }
}

struct Part {
    pair: Pair,
    layout: Layout,
    labels: Vec<u32>,
}

/// Pairs whose labels are read.
pub(super) struct Arrays {
    classes: Vec<String>,
    parts: Vec<Part>,
}

impl Arrays {
    pub(super) fn open(pairs: Vec<Pair>, limits: &Limits) -> Result<Arrays, Error> {
        let mut names = Column::default();
        let mut found = Vec::new();
        for pair in pairs {
            let first = names.len();
            pair.labels.with(&mut |stream| read_labels(stream, &*pair.labels, &mut names))?;
            let mut header = None;
            pair.images.start(&mut |stream| {
                header = Some(Header::read(stream, pair.images.input())?);
                Ok(())
            })?;
            let input = pair.images.input();
            let header = header.ok_or_else(|| input.wrong("is not an NPY array"))?;
            let layout = Layout::of(&header.shape).ok_or_else(|| {
                input.wrong(format_args!(
                    "has the shape {:?}, expected images as [n, height, width], [n, height, width, channels] or [n, channels, height, width]",
                    header.shape
                ))
                .help("put channels last where two axes could be them; leave an axis of one channel out")
            })?;
            limits.check_raw(layout.shape, Depth::U16).map_err(|reason| input.wrong(reason))?;
            header.check_len(&*pair.images)?;
            let n_labels = names.len() - first;
            if header.shape[0] != n_labels as u64 {
                return Err(input.wrong(format_args!(
                    "has {} images but `{}` has {n_labels} labels",
                    header.shape[0],
                    pair.labels.input().shown()
                )));
            }
            found.push((pair, layout, n_labels));
        }
        let (classes, labels) = names.finish();
        let mut labels = labels.into_iter();
        let parts = found
            .into_iter()
            .map(|(pair, layout, n)| Part { pair, layout, labels: labels.by_ref().take(n).collect() })
            .collect();
        Ok(Arrays { classes, parts })
    }
}

fn read_labels(stream: &mut dyn Read, holder: &dyn Holder, names: &mut Column) -> Result<(), Error> {
    let input = holder.input();
    let header = Header::read(stream, input)?;
    header.check_len(holder)?;
    let (&[n] | &[n, 1]) = &header.shape[..] else {
        return Err(input
            .wrong(format_args!("has the shape {:?}, expected labels as [n]", header.shape))
            .help("save one label for each image: of one-hot labels `labels.argmax(axis=1)`"));
    };
    let len = n.checked_mul(header.kind.len() as u64).ok_or_else(|| input.wrong("has a broken NPY header"))?;
    let bytes = input::read_len(stream, len, input)?;
    for item in bytes.chunks_exact(header.kind.len()) {
        names.push(&header.name(item, input)?)?;
    }
    Ok(())
}

impl Reader for Arrays {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn n_samples(&self) -> u64 {
        self.parts.iter().map(|part| part.labels.len() as u64).sum()
    }

    fn read(&self, pick: &Pick, each: &mut dyn FnMut(Sample) -> Result<(), Error>) -> Result<(), Error> {
        let mut at = 0;
        for part in &self.parts {
            let input = part.pair.images.input();
            part.pair.images.with(&mut |stream| {
                let header = Header::read(stream, input)?;
                let mut bytes = vec![0; part.layout.shape.len() * header.kind.len()];
                for (i, &label) in part.labels.iter().enumerate() {
                    input::read_exact(stream, &mut bytes, input)?;
                    let is_wanted = pick.wants(at);
                    at += 1;
                    if !is_wanted {
                        continue;
                    }
                    let (depth, mut pixels) = pixels(&header, &bytes, i, input)?;
                    if part.layout.is_planar {
                        pixels = interleaved(part.layout.shape, depth, &pixels);
                    }
                    let folder = part.pair.given.map_or("images", GivenSplit::name);
                    each(Sample {
                        path: format!("{folder}/{i:05}"),
                        label,
                        given: part.pair.given,
                        group: None,
                        cells: Vec::new(),
                        content: Content::Raw(Raw {
                            shape: part.layout.shape,
                            depth,
                            pixels,
                            format: "npy",
                            alpha: RawAlpha::None,
                        }),
                    })?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// The values of one image, as they are or where they are whole numbers that fit a byte.
fn pixels(header: &Header, bytes: &[u8], image: usize, input: &Input) -> Result<(Depth, Vec<u8>), Error> {
    match header.kind {
        Kind::Unsigned(1) | Kind::Bool => Ok((Depth::U8, bytes.to_vec())),
        Kind::Unsigned(2) => {
            let mut pixels = bytes.to_vec();
            if header.is_big_endian {
                pixels.chunks_exact_mut(2).for_each(<[u8]>::reverse);
            }
            Ok((Depth::U16, pixels))
        }
        Kind::Bytes(_) | Kind::Unicode(_) => Err(input.wrong("holds text, expected pixels")),
        _ => {
            let whole = |item: &[u8]| {
                let value = header.number(item);
                match (0.0..=255.0).contains(&value) && f64::from(value as u8) == value {
                    true => Ok(value as u8),
                    false => Err(input
                        .wrong(format_args!(
                            "holds the value {value} in image {image}, expected whole numbers from 0 to 255"
                        ))
                        .help(match (0.0..=1.0).contains(&value) {
                            true => "if pixels go from 0 to 1, save `(images * 255).round().astype(np.uint8)`",
                            false => "save pixels as `np.uint8` or `np.uint16`; `preprocess` scales them",
                        })),
                }
            };
            let pixels: Result<Vec<u8>, Error> = bytes.chunks_exact(header.kind.len()).map(whole).collect();
            Ok((Depth::U8, pixels?))
        }
    }
}

/// `[channels, height, width]` to `[height, width, channels]`.
fn interleaved(shape: ImageShape, depth: Depth, planes: &[u8]) -> Vec<u8> {
    let n = depth.bytes();
    let plane = shape.height * shape.width;
    let mut out = Vec::with_capacity(planes.len());
    for pixel in 0..plane {
        for channel in 0..shape.channels {
            let start = (channel * plane + pixel) * n;
            out.extend_from_slice(&planes[start..start + n]);
        }
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::testing::{collect, error_of};

    /// An NPY file (version 1.0).
    pub(crate) fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((text.len() as u16).to_le_bytes());
        out.extend(text.as_bytes());
        out.extend(values);
        out
    }

    fn le<const N: usize>(values: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
        values.into_iter().flatten().collect()
    }

    #[track_caller]
    fn case(images: &[u8], labels: &[u8], classes: &[&str], shape: &str, first: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("images.npy"), images).unwrap();
        std::fs::write(folder.path().join("labels.npy"), labels).unwrap();
        let (found, samples) = collect(&folder.path().join("images.npy"), None);
        assert_eq!(found, classes);
        let image = &samples[0].image.as_ref().unwrap().0;
        assert_eq!(image.shape.to_string(), shape);
        assert_eq!(image.pixels, first);
    }

    #[test]
    fn arrays_become_images() {
        let labels = npy("<i8", "(2,)", &le([10_i64, 9].map(i64::to_le_bytes)));
        let pixels: Vec<u8> = (0..12).collect();
        case(&npy("|u1", "(2, 2, 3)", &pixels), &labels, &["9", "10"], "3x2x1", &pixels[..6]);
        case(&npy("|u1", "(2, 1, 2, 3)", &pixels), &labels, &["9", "10"], "2x1x3", &pixels[..6]);
        // Channels first, since 5 is no number of channels.
        case(&npy("|u1", "(1, 3, 2, 5)", &[0; 30]), &npy("|u1", "(1,)", &[4]), &["4"], "5x2x3", &[0; 30]);
        case(
            &npy("|u1", "(3, 4)", &pixels),
            &npy("|u1", "(3, 1)", &[1, 2, 3]),
            &["1", "2", "3"],
            "2x2x1",
            &pixels[..4],
        );
        case(&npy("<u2", "(1, 1, 2)", &[1, 2, 3, 4]), &npy("|u1", "(1,)", &[4]), &["4"], "2x1x1", &[1, 2, 3, 4]);
        case(&npy(">u2", "(1, 1, 2)", &[1, 2, 3, 4]), &npy("|u1", "(1,)", &[4]), &["4"], "2x1x1", &[2, 1, 4, 3]);
        let floats = le([0.0_f32, 255.0].map(f32::to_le_bytes));
        case(
            &npy("<f4", "(1, 1, 2)", &floats),
            &npy("<f8", "(1,)", &3.0_f64.to_le_bytes()),
            &["3"],
            "2x1x1",
            &[0, 255],
        );
        let names = le("catdog".chars().map(|c| u32::from(c).to_le_bytes()));
        case(&npy("|b1", "(2, 1, 1)", &[1, 0]), &npy("<U3", "(2,)", &names), &["cat", "dog"], "1x1x1", &[1]);
        case(&npy("|i1", "(2, 1, 1)", &[1, 0]), &npy("|S3", "(2,)", b"dogca\0"), &["ca", "dog"], "1x1x1", &[1]);
    }

    #[test]
    fn planes_are_interleaved() {
        let planes: Vec<u8> = (0..15).collect();
        let images = npy("|u1", "(1, 3, 1, 5)", &planes);
        let expected = [0, 5, 10, 1, 6, 11, 2, 7, 12, 3, 8, 13, 4, 9, 14];
        case(&images, &npy("|u1", "(1,)", &[0]), &["0"], "5x1x3", &expected);
    }

    #[test]
    fn what_cannot_be_read_exactly_is_refused() {
        let labels = npy("|u1", "(1,)", &[0]);
        let one = |value: f32| npy("<f4", "(1, 1, 1)", &value.to_le_bytes());
        let fortran = String::from_utf8_lossy(&npy("|u1", "(1, 2, 2)", &[0; 4])).replace("False", "True ");
        let cases: Vec<(Vec<u8>, Vec<u8>, &str)> = vec![
            (one(0.5), labels.clone(), "holds the value 0.5 in image 0"),
            (one(256.0), labels.clone(), "expected whole numbers from 0 to 255"),
            (one(f32::NAN), labels.clone(), "holds the value NaN"),
            (npy("|O", "(1, 1, 1)", &[0; 8]), labels.clone(), "holds Python objects"),
            (npy("<c8", "(1, 1, 1)", &[0; 8]), labels.clone(), "holds values of the type `<c8`"),
            (npy("|u1", "(1, 1, 1, 1, 1)", &[0]), labels.clone(), "has the shape [1, 1, 1, 1, 1]"),
            (npy("|u1", "(2, 1, 1)", &[0; 2]), labels.clone(), "has 2 images but"),
            (npy("|u1", "(1, 2, 2)", &[0; 3]), labels.clone(), "is truncated"),
            (npy("|u1", "(1, 99999999999, 99999999999)", &[]), labels.clone(), "more than `max_pixels"),
            (npy("|u1", "(1, 3, 4, 4)", &[0; 48]), labels.clone(), "has the shape [1, 3, 4, 4], expected images as"),
            (npy("|u1", "(1, 1, 1)", &[0]), npy("|u1", "(1, 10)", &[0; 10]), "expected labels as [n]"),
            (npy("|u1", "(1, 1, 1)", &[0]), npy("<f4", "(1,)", &0.5_f32.to_le_bytes()), "holds the label 0.5"),
            (npy("|u1", "(9999999999, 1, 1)", &[0]), npy("|u1", "(9999999999,)", &[0]), "is truncated"),
        ];
        for (images, labels, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("images.npy"), images).unwrap();
            std::fs::write(folder.path().join("labels.npy"), labels).unwrap();
            let error = error_of(&folder.path().join("images.npy"));
            assert!(error.contains(expected), "{error}");
        }
        assert!(fortran.contains("True"));
        let input = super::Input::Memory("x", b"");
        let header = fortran[10..].lines().next().unwrap();
        assert!(super::Header::parse(header, &input).unwrap_err().message.contains("column by column"));
    }
}
