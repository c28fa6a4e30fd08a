//! IDX, the format of MNIST: an array with its type and shape in front; images in one file, labels in another.
//!
//! Layout (Y. LeCun, C. Cortes, C. Burges): two zero bytes, a type, the number of axes, each axis as a big-endian u32,
//! the values. Gzip is undone where the content says so.

use std::path::{Path, PathBuf};

use super::classes::{self, some_of};
use super::input::{self, Input, Stream};
use super::{Content, Error, Files, Found, GivenSplit, Pick, Query, Reader, Sample};
use crate::data::pixels::Depth;
use crate::data::pixels::{Limits, Raw, RawAlpha};
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
pub fn find(query: &Query<'_>) -> super::FindResult {
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

/// Every file of images with its labels, train before validation before test, one of each; a file that is there both
/// packed and unpacked counts once.
fn pairs_in(folder: &Path) -> Result<Vec<Pair>, Error> {
    let mut found: Vec<(Option<GivenSplit>, String, Pair)> = Vec::new();
    for name in super::names_in(folder)? {
        let stem = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
        if !name.contains("images") || !stem.contains("idx") || found.iter().any(|(_, known, _)| *known == stem) {
            continue;
        }
        let path = folder.join(&name);
        // One that cannot be read is no reason to go on with the others: it may be the test split.
        if !path.is_file() || !is_idx(&Input::Path(path.clone()).head(4)?) {
            continue;
        }
        let Some(labels) = labels_beside(&path) else {
            return Err(Error::new(format!("`{}` has no file of labels beside it", path.display()))
                .help(format!("put `{}` beside it", labels_name(&name).unwrap_or_default())));
        };
        let given = GivenSplit::in_name(&name);
        found.push((given, stem, Pair { images: Input::Path(path), labels: Input::Path(labels), given }));
    }
    found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    // EMNIST comes as six sets in one folder.
    if let Some(two) = found.windows(2).find(|two| two[0].0 == two[1].0) {
        let split = two[0].0.map_or("without a split", GivenSplit::name);
        let same = found.iter().filter(|(given, ..)| *given == two[0].0).map(|(_, stem, _)| stem.as_str());
        return Err(Error::new(format!(
            "`{}` holds several sets of images that are all called {split}: {}",
            folder.display(),
            some_of(same)
        ))
        .help("put the files of one set into a folder of their own"));
    }
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
        for pair in &self.pairs {
            for (role, input) in [("images", &pair.images), ("labels", &pair.labels)] {
                let split = pair.given.map_or(String::new(), |given| format!("{} ", given.name()));
                if let Input::Path(path) = input {
                    files.push((format!("{split}{role}"), path.clone()));
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
                [_, height, width, channels @ 1..=4] => {
                    ImageShape { height: height as usize, width: width as usize, channels: channels as usize }
                }
                _ => {
                    return Err(pair.images.wrong(format_args!(
                        "has the shape {:?}, expected images as [n, height, width] or [n, height, width, 1 to 4]",
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
                    cells: Vec::new(),
                    content: Content::Raw(Raw {
                        shape: part.shape,
                        depth: Depth::U8,
                        pixels,
                        format: "idx",
                        alpha: RawAlpha::None,
                    }),
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
            match u64::try_from(value) {
                Err(_) => Err(input.wrong(format_args!("has the negative label {value} at position {i}"))),
                Ok(label) if label > u64::from(classes::MAX_LABEL) => Err(classes::bad_label(input, value)),
                Ok(label) => Ok(label),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::testing::{collect, error_of};
    use super::*;

    fn idx(kind: u8, axes: &[u32], values: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, kind, axes.len() as u8];
        axes.iter().for_each(|axis| out.extend(axis.to_be_bytes()));
        out.extend(values);
        out
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn a_folder_of_pairs_is_found_by_name_and_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        put("train-images-idx3-ubyte.gz", &gzip(&idx(U8, &[2, 1, 2], &[1, 2, 3, 4])));
        put("train-labels-idx1-ubyte", &idx(U8, &[2], &[11, 9]));
        put("t10k-images-idx3-ubyte", &idx(U8, &[1, 1, 2], &[5, 6]));
        put("t10k-labels-idx1-ubyte.gz", &gzip(&idx(0x0c, &[1], &[0, 0, 0, 10])));
        let (classes, samples) = collect(folder.path(), None);
        assert_eq!(classes, ["9", "10", "11"]);
        let seen: Vec<_> = samples.iter().map(|s| (s.path.as_str(), s.label, s.given)).collect();
        assert_eq!(
            seen,
            [
                ("train/00000", 2, Some(GivenSplit::Train)),
                ("train/00001", 0, Some(GivenSplit::Train)),
                ("test/00000", 1, Some(GivenSplit::Test)),
            ]
        );
        assert_eq!(samples[1].image.as_ref().unwrap().0.pixels, [3, 4]);
    }

    #[test]
    fn splits_are_words_anywhere_in_the_names() {
        let folder = tempfile::tempdir().unwrap();
        for (split, n) in [("train", 2), ("test", 1)] {
            let put = |name: String, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
            put(format!("emnist-letters-{split}-images-idx3-ubyte"), &idx(U8, &[n, 1, 1], &vec![0; n as usize]));
            put(format!("emnist-letters-{split}-labels-idx1-ubyte"), &idx(U8, &[n], &vec![1; n as usize]));
        }
        let given: Vec<_> = collect(folder.path(), None).1.into_iter().map(|s| s.given).collect();
        assert_eq!(given, [Some(GivenSplit::Train), Some(GivenSplit::Train), Some(GivenSplit::Test)]);
        // EMNIST's sets are not one.
        for name in ["images-idx3", "labels-idx1"] {
            let from = folder.path().join(format!("emnist-letters-train-{name}-ubyte"));
            std::fs::copy(&from, folder.path().join(format!("emnist-digits-train-{name}-ubyte"))).unwrap();
        }
        let error = error_of(folder.path());
        let expected =
            "several sets of images that are all called train: `emnist-digits-train-images-idx3-ubyte`, `emnist-l";
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn one_pair_by_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let (images, labels) = (folder.path().join("x"), folder.path().join("y"));
        std::fs::write(&images, idx(U8, &[1, 1, 1, 3], &[1, 2, 3])).unwrap();
        std::fs::write(&labels, idx(U8, &[1], &[0])).unwrap();
        let (_, samples) = collect(&images, Some(&labels));
        assert_eq!(samples[0].image.as_ref().unwrap().0.shape.to_string(), "1x1x3");
        let error = error_of(&images);
        assert!(error.contains("no file of labels beside it"), "{error}");
    }

    #[test]
    fn files_that_disagree_or_end_early_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        let (images, labels) = ("a-images-idx3-ubyte", "a-labels-idx1-ubyte");
        let sound = idx(U8, &[2, 2, 2], &[0; 8]);
        for (image_bytes, label_bytes, expected) in [
            (sound.clone(), idx(U8, &[3], &[0; 3]), "has 2 images but"),
            (sound.clone(), idx(0x0d, &[2], &[0; 8]), "holds 32-bit floats, expected whole numbers"),
            (sound.clone(), idx(0x09, &[2], &[0, 255]), "has the negative label -1 at position 1"),
            (sound.clone(), idx(U8, &[2], &[0]), "is truncated"),
            (idx(0x0d, &[2, 2, 2], &[0; 32]), idx(U8, &[2], &[0; 2]), "holds 32-bit floats, expected bytes"),
            (idx(U8, &[2, 2], &[0; 4]), idx(U8, &[2], &[0; 2]), "expected images as"),
            (idx(U8, &[2, u32::MAX, u32::MAX], &[]), idx(U8, &[2], &[0; 2]), "more than `max_pixels"),
            (idx(U8, &[2, 0, 2], &[]), idx(U8, &[2], &[0; 2]), "expected at least 1x1"),
        ] {
            put(images, &image_bytes);
            put(labels, &label_bytes);
            let error = error_of(folder.path());
            assert!(error.contains(expected), "{error}");
        }
        let labels_file = idx(U8, &[2], &[0; 2]);
        for bytes in [sound, gzip(&idx(U8, &[2, 2, 2], &[0; 8]))] {
            for len in 4..bytes.len() {
                put(images, &bytes[..len]);
                put(labels, &labels_file);
                let error = error_of(folder.path());
                // A gzip file cut in its last 8 bytes has all its data; only its checksum is lost.
                assert!(
                    error.contains("is truncated")
                        || error.contains("no image")
                        || error.contains("is corrupt")
                        || bytes[0] == 0x1f,
                    "{len}: {error}"
                );
            }
        }
    }
}
