//! IDX, the format of MNIST: an array with its type and shape in front; images in one file, labels in another.
//!
//! Layout (Y. LeCun, C. Cortes, C. Burges): two zero bytes, a type, the number of axes, each axis as a big-endian u32,
//! the values. Gzip is undone where the content says so.

use std::path::{Path, PathBuf};

use super::input::{self, Input, Stream};
use super::{Content, Error, Files, Found, GivenSplit, Limits, Pick, Query, Raw, Reader, Sample};
use crate::data::decode::Depth;
use crate::tensor::ImageShape;

const U8: u8 = 0x08;

/// A file of images and the file of their labels.
#[derive(Clone, Debug)]
struct Pair {
    images: Input,
    labels: Input,
    given: Option<GivenSplit>,
}

/// One or more pairs.
#[derive(Clone, Debug)]
pub struct Idx {
    pairs: Vec<Pair>,
}

impl Idx {
    /// A pair that is compiled in.
    pub fn builtin(images: Input, labels: Input) -> Idx {
        Idx { pairs: vec![Pair { images, labels, given: None }] }
    }
}

/// Finds IDX: a folder with files named as MNIST's are, or a file of images with its `labels`.
///
/// # Errors
/// If there are images without labels.
pub fn find(query: &Query<'_>) -> Result<Option<Box<dyn Found>>, Error> {
    if query.is_folder {
        let pairs = pairs_in(query.path)?;
        return Ok(if pairs.is_empty() { None } else { Some(Box::new(Idx { pairs })) });
    }
    if !is_idx(&query.head) {
        return Ok(None);
    }
    let images = Input::Path(query.path.to_owned());
    let labels = match query.labels {
        Some(labels) => labels.to_owned(),
        None => match labels_beside(query.path) {
            Some(labels) => labels,
            None => {
                return Err(images
                    .wrong("is an IDX file of images and there is no file of labels beside it")
                    .help("set `labels` to the IDX file that holds the labels"));
            }
        },
    };
    let pair = Pair { images, labels: Input::Path(labels), given: None };
    Ok(Some(Box::new(Idx { pairs: vec![pair] })))
}

fn is_idx(head: &[u8]) -> bool {
    matches!(head, [0, 0, 0x08 | 0x09 | 0x0b..=0x0e, 1..=4, ..])
}

/// `train-images-idx3-ubyte.gz` to `train-labels-idx1-ubyte.gz`.
fn labels_name(images: &str) -> Option<String> {
    images
        .contains("images")
        .then(|| images.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1"))
}

/// The labels of a file of images, packed or not.
fn labels_beside(images: &Path) -> Option<PathBuf> {
    let labels = labels_name(images.file_name()?.to_str()?)?;
    let plain = labels.strip_suffix(".gz").unwrap_or(&labels);
    [labels.clone(), plain.to_owned(), format!("{plain}.gz")]
        .into_iter()
        .map(|name| images.with_file_name(name))
        .find(|path| path.is_file())
}

/// Every file of images with its labels, train before validation before test; a file that is there both packed and
/// unpacked counts once.
fn pairs_in(folder: &Path) -> Result<Vec<Pair>, Error> {
    let mut found: Vec<(Option<GivenSplit>, String, Pair)> = Vec::new();
    for name in super::names_in(folder)? {
        let stem = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
        if !name.contains("images") || !stem.contains("idx") || found.iter().any(|(_, known, _)| *known == stem) {
            continue;
        }
        let path = folder.join(&name);
        if !path.is_file() || !is_idx(&Input::Path(path.clone()).head(4).unwrap_or_default()) {
            continue;
        }
        let Some(labels) = labels_beside(&path) else {
            return Err(Error::new(format!("`{}` has no file of labels beside it", path.display()))
                .help(format!("put `{}` beside it", labels_name(&name).unwrap_or_default())));
        };
        let word = name.split(['-', '_', '.']).next().unwrap_or_default();
        let given = if word == "t10k" { Some(GivenSplit::Test) } else { GivenSplit::parse(word) };
        found.push((given, stem, Pair { images: Input::Path(path), labels: Input::Path(labels), given }));
    }
    found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    // `train` alone is not a split: there is nothing to set apart.
    let only_train = found.iter().all(|(given, ..)| matches!(given, None | Some(GivenSplit::Train)));
    Ok(found
        .into_iter()
        .map(|(given, _, pair)| Pair { given: if only_train { None } else { given }, ..pair })
        .collect())
}

impl Found for Idx {
    fn files(&self) -> Files {
        let mut files = Vec::new();
        for (i, pair) in self.pairs.iter().enumerate() {
            for (role, input) in [("images", &pair.images), ("labels", &pair.labels)] {
                let split = pair.given.map_or(String::new(), |given| format!("{} ", given.name()));
                if let Input::Path(path) = input {
                    files.push((format!("{split}{role} {i}"), path.clone()));
                }
            }
        }
        Files::Each(files)
    }

    fn open(&self, limits: &Limits) -> Result<Box<dyn Reader>, Error> {
        let mut values = Vec::new();
        let mut parts = Vec::new();
        for pair in &self.pairs {
            let labels = read_labels(&pair.labels)?;
            let (header, _) = Header::read(&pair.images)?;
            if header.kind != U8 {
                return Err(pair.images.wrong(format_args!("holds {}, expected bytes", kind_name(header.kind))));
            }
            let shape = match header.axes[..] {
                [_, height, width] => ImageShape { height: height as usize, width: width as usize, channels: 1 },
                [_, height, width, channels @ (1 | 3)] => {
                    ImageShape { height: height as usize, width: width as usize, channels: channels as usize }
                }
                _ => {
                    return Err(pair.images.wrong(format_args!(
                        "has the shape {:?}, expected images as [n, height, width] or [n, height, width, 1 or 3]",
                        header.axes
                    )));
                }
            };
            limits.check_raw(shape, Depth::U8).map_err(|reason| pair.images.wrong(reason))?;
            let n_samples = header.axes[0] as usize;
            if labels.len() != n_samples {
                return Err(pair.images.wrong(format_args!(
                    "has {n_samples} images but `{}` has {} labels",
                    pair.labels.shown(),
                    labels.len()
                )));
            }
            values.extend(labels.iter().copied());
            parts.push(Part { pair: pair.clone(), shape, labels });
        }
        values.sort_unstable();
        values.dedup();
        Ok(Box::new(IdxReader { classes: values.iter().map(ToString::to_string).collect(), values, parts }))
    }
}

struct Part {
    pair: Pair,
    shape: ImageShape,
    labels: Vec<u64>,
}

struct IdxReader {
    values: Vec<u64>,
    classes: Vec<String>,
    parts: Vec<Part>,
}

impl Reader for IdxReader {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn n_samples(&self) -> u64 {
        self.parts.iter().map(|part| part.labels.len() as u64).sum()
    }

    fn read(&self, pick: &Pick, each: &mut dyn FnMut(Sample) -> Result<(), Error>) -> Result<(), Error> {
        let mut at = 0;
        for part in &self.parts {
            let (_, mut stream) = Header::read(&part.pair.images)?;
            for (i, value) in part.labels.iter().enumerate() {
                let mut pixels = vec![0; part.shape.len()];
                input::read_exact(&mut stream, &mut pixels, &part.pair.images)?;
                let is_wanted = pick.wants(at);
                at += 1;
                if !is_wanted {
                    continue;
                }
                let label = self.values.binary_search(value).unwrap_or_default() as u32;
                let folder = part.pair.given.map_or("images", GivenSplit::name);
                each(Sample {
                    path: format!("{folder}/{i:05}"),
                    label,
                    given: part.pair.given,
                    group: None,
                    content: Content::Raw(Raw { shape: part.shape, depth: Depth::U8, pixels, format: "idx" }),
                })?;
            }
        }
        Ok(())
    }
}

struct Header {
    kind: u8,
    axes: Vec<u32>,
}

impl Header {
    fn read(input: &Input) -> Result<(Header, Stream), Error> {
        let mut stream = input.open()?;
        let mut magic = [0; 4];
        input::read_exact(&mut stream, &mut magic, input)?;
        if !is_idx(&magic) {
            return Err(input.wrong("is not an IDX file"));
        }
        let mut axes = Vec::new();
        for _ in 0..magic[3] {
            let mut axis = [0; 4];
            input::read_exact(&mut stream, &mut axis, input)?;
            axes.push(u32::from_be_bytes(axis));
        }
        Ok((Header { kind: magic[2], axes }, stream))
    }
}

fn kind_name(kind: u8) -> &'static str {
    match kind {
        U8 => "bytes",
        0x09 => "signed bytes",
        0x0b => "16-bit integers",
        0x0c => "32-bit integers",
        0x0d => "32-bit floats",
        _ => "64-bit floats",
    }
}

fn read_labels(input: &Input) -> Result<Vec<u64>, Error> {
    let (header, mut stream) = Header::read(input)?;
    let &[n] = &header.axes[..] else {
        return Err(input.wrong(format_args!("has the shape {:?}, expected labels as [n]", header.axes)));
    };
    let width = match header.kind {
        U8 | 0x09 => 1,
        0x0b => 2,
        0x0c => 4,
        kind => return Err(input.wrong(format_args!("holds {}, expected whole numbers", kind_name(kind)))),
    };
    let bytes = input::read_len(&mut stream, u64::from(n) * width as u64, input)?;
    bytes
        .chunks_exact(width)
        .enumerate()
        .map(|(i, bytes)| {
            let value = match (header.kind, bytes) {
                (U8, &[byte]) => i64::from(byte),
                (_, &[byte]) => i64::from(byte as i8),
                (_, &[a, b]) => i64::from(i16::from_be_bytes([a, b])),
                (_, &[a, b, c, d]) => i64::from(i32::from_be_bytes([a, b, c, d])),
                _ => -1,
            };
            u64::try_from(value)
                .map_err(|_| input.wrong(format_args!("has the negative label {value} at position {i}")))
        })
        .collect()
}
