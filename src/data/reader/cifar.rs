//! CIFAR-10 and CIFAR-100 in their binary versions: batches of records, a label (or two) and 32x32 pixels, plane by
//! plane.
//!
//! Layout (A. Krizhevsky, 2009): CIFAR-10 has one byte of label, CIFAR-100 a coarse and a fine one (the fine one is the
//! class here), then 1,024 bytes each of red, green and blue. Names of classes lie beside, in `batches.meta.txt` or
//! `fine_label_names.txt`. Read from a folder, from one file, or inside a tar archive.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

use super::input::{Input, open_regular};
use super::{Content, Error, Files, Found, GivenSplit, Pick, Query, Reader, Sample};
use crate::data::pixels::Depth;
use crate::data::pixels::{Limits, Raw, RawAlpha};
use crate::tensor::ImageShape;

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// The longest file of class names that is read.
const MAX_NAMES: u64 = 1 << 16;

/// A batch of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    name: String,
    n_samples: u64,
    label_len: usize,
    n_classes: usize,
    given: Option<GivenSplit>,
}

impl Batch {
    /// Whether a path ends as a batch is named.
    pub(super) fn is_named(path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        let numbered = name.strip_prefix("data_batch_").and_then(|rest| rest.strip_suffix(".bin"));
        numbered.is_some_and(|n| n.parse::<u8>().is_ok()) || matches!(name, "test_batch.bin" | "train.bin" | "test.bin")
    }

    /// Reads the records from the start of the batch; `at` counts them over all batches.
    pub(super) fn read(
        &self,
        stream: &mut dyn Read,
        input: &Input,
        pick: &Pick,
        at: &mut u64,
        each: &mut dyn FnMut(Sample) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut record = vec![0; self.label_len + 3 * PLANE];
        for i in 0..self.n_samples {
            stream.read_exact(&mut record).map_err(|e| input.error(e))?;
            let (labels, planes) = record.split_at(self.label_len);
            let label = u32::from(labels[self.label_len - 1]);
            if label as usize >= self.n_classes {
                return Err(input.wrong(format_args!(
                    "has the label {label} in record {i} of `{}`, expected one below {}",
                    self.name, self.n_classes
                )));
            }
            let is_wanted = pick.wants(*at);
            *at += 1;
            if !is_wanted {
                continue;
            }
            let mut pixels = Vec::with_capacity(3 * PLANE);
            let (red, rest) = planes.split_at(PLANE);
            let (green, blue) = rest.split_at(PLANE);
            for ((&r, &g), &b) in red.iter().zip(green).zip(blue) {
                pixels.extend([r, g, b]);
            }
            let shape = ImageShape { height: SIDE, width: SIDE, channels: 3 };
            each(Sample {
                path: format!("{}/{i:05}", self.name),
                label,
                given: self.given,
                group: None,
                cells: Vec::new(),
                content: Content::Raw(Raw { shape, depth: Depth::U8, pixels, format: "cifar", alpha: RawAlpha::None }),
            })?;
        }
        Ok(())
    }
}

/// Batches as they are met, and the names of classes.
#[derive(Default)]
pub(super) struct Batches {
    sizes: Vec<(String, u64)>,
    names: Option<Vec<String>>,
}

/// Batches that agree with each other.
pub(super) struct Sized {
    pub(super) classes: Vec<String>,
    pub(super) batches: Vec<Batch>,
}

impl Sized {
    pub(super) fn n_samples(&self) -> u64 {
        self.batches.iter().map(|batch| batch.n_samples).sum()
    }
}

impl Batches {
    /// Takes note of a file: a batch, or the names of classes.
    pub(super) fn note(&mut self, path: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let name = path.rsplit('/').next().unwrap_or(path);
        if Batch::is_named(name) {
            // In an archive, what comes later replaces what was there.
            self.sizes.retain(|(known, _)| stem(known) != stem(name));
            self.sizes.push((name.to_owned(), size));
        } else if matches!(name, "batches.meta.txt" | "fine_label_names.txt") && size <= MAX_NAMES {
            let mut text = String::new();
            content.take(MAX_NAMES).read_to_string(&mut text)?;
            self.names = Some(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect());
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// Checks that all sizes are whole records of one kind.
    pub(super) fn finish(self, input: &Input) -> Result<Sized, Error> {
        let fits = |label_len: u64| {
            let len = label_len + 3 * PLANE as u64;
            self.sizes.iter().all(|(_, size)| *size > 0 && size % len == 0)
        };
        let (label_len, n_classes) = if fits(1) {
            (1, 10)
        } else if fits(2) {
            (2, 100)
        } else {
            let sizes: Vec<String> =
                self.sizes.iter().map(|(name, size)| format!("`{name}` has {size} bytes")).collect();
            return Err(input.wrong(format_args!(
                "does not hold whole records of 3,073 (CIFAR-10) or 3,074 bytes (CIFAR-100): {}",
                sizes.join(", ")
            )));
        };
        let classes = match self.names {
            Some(names) if names.len() == n_classes => names,
            _ => (0..n_classes).map(|i| i.to_string()).collect(),
        };
        let has_test = self.sizes.iter().any(|(name, _)| name.starts_with("test"));
        let given = |name: &str| match (has_test, name.starts_with("test")) {
            (false, _) => None,
            (true, true) => Some(GivenSplit::Test),
            (true, false) => Some(GivenSplit::Train),
        };
        let batches = self
            .sizes
            .iter()
            .map(|(name, size)| Batch {
                name: stem(name).to_owned(),
                n_samples: size / (label_len as u64 + 3 * PLANE as u64),
                label_len,
                n_classes,
                given: given(stem(name)),
            })
            .collect();
        Ok(Sized { classes, batches })
    }
}

/// What a batch is called, whether or not its file has the ending.
fn stem(name: &str) -> &str {
    name.trim_end_matches(".bin")
}

/// A folder of batches, or one batch.
#[derive(Clone, Debug)]
struct Cifar {
    /// Batches and names, sorted by name.
    files: Vec<(String, PathBuf)>,
    source: Input,
}

/// Finds CIFAR: a folder with batches in it (or in its only folder), or a file of whole records with sound labels.
///
/// # Errors
/// If the folder cannot be read.
pub fn find(query: &Query<'_>) -> super::FindResult {
    let source = Input::Path(query.path.to_owned());
    if !query.is_folder {
        return Ok(match is_batch(query) {
            true => {
                // Its own name may not matter, its content does.
                let files = vec![("data_batch_1.bin".to_owned(), query.path.to_owned())];
                Some(Box::new(Cifar { files, source }))
            }
            false => None,
        });
    }
    let mut folder = query.path.to_owned();
    let mut names = super::names_in(&folder)?;
    if let [only] = &names[..] {
        let inner = folder.join(only);
        if inner.is_dir() && only.starts_with("cifar") {
            folder = inner;
            names = super::names_in(&folder)?;
        }
    }
    if !names.iter().any(|name| Batch::is_named(name) && folder.join(name).is_file()) {
        return Ok(None);
    }
    let files = names
        .into_iter()
        .filter(|name| Batch::is_named(name) || matches!(&**name, "batches.meta.txt" | "fine_label_names.txt"))
        .map(|name| (name.clone(), folder.join(name)))
        .collect();
    Ok(Some(Box::new(Cifar { files, source })))
}

fn is_batch(query: &Query<'_>) -> bool {
    let Ok(len) = fs::metadata(query.path).map(|metadata| metadata.len()) else { return false };
    [(1, 10), (2, 100)].into_iter().any(|(label_len, n_classes)| {
        let record = label_len + 3 * PLANE;
        len > 0
            && len % record as u64 == 0
            && query.head.chunks(record).all(|record| record.get(label_len - 1).is_none_or(|&label| label < n_classes))
    })
}

impl Found for Cifar {
    fn files(&self) -> Files {
        Files::Each(self.files.clone())
    }

    fn open(&self, _limits: &Limits) -> Result<Box<dyn Reader>, Error> {
        let mut batches = Batches::default();
        for (name, path) in &self.files {
            let input = Input::Path(path.clone());
            let (mut file, len) = open_regular(path).map_err(|e| input.error(e))?;
            batches.note(name, len, &mut file).map_err(|e| input.error(e))?;
        }
        let sized = batches.finish(&self.source)?;
        let files = self.files.iter().filter(|(name, _)| Batch::is_named(name)).map(|(_, path)| path.clone()).collect();
        Ok(Box::new(CifarReader { sized, files }))
    }
}

struct CifarReader {
    sized: Sized,
    files: Vec<PathBuf>,
}

impl Reader for CifarReader {
    fn classes(&self) -> &[String] {
        &self.sized.classes
    }

    fn n_samples(&self) -> u64 {
        self.sized.n_samples()
    }

    fn read(&self, pick: &Pick, each: &mut dyn FnMut(Sample) -> Result<(), Error>) -> Result<(), Error> {
        let mut at = 0;
        for (batch, path) in self.sized.batches.iter().zip(&self.files) {
            let input = Input::Path(path.clone());
            batch.read(&mut input.open_raw()?, &input, pick, &mut at, each)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{collect, error_of};
    use super::*;

    /// A record whose pixel (0, 0) is (1, 2, 3).
    fn record(labels: &[u8]) -> Vec<u8> {
        let mut out = labels.to_vec();
        for plane in 1..=3 {
            out.push(plane);
            out.resize(out.len() + PLANE - 1, 0);
        }
        out
    }

    #[test]
    fn both_data_sets_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("cifar-10-batches-bin");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("data_batch_1.bin"), [record(&[3]), record(&[9])].concat()).unwrap();
        fs::write(inner.join("test_batch.bin"), record(&[0])).unwrap();
        fs::write(inner.join("batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n").unwrap();
        let (classes, samples) = collect(folder.path(), None);
        assert_eq!(classes.len(), 10);
        assert_eq!(classes[9], "j");
        let seen: Vec<_> = samples.iter().map(|s| (s.path.as_str(), s.label, s.given)).collect();
        assert_eq!(
            seen,
            [
                ("data_batch_1/00000", 3, Some(GivenSplit::Train)),
                ("data_batch_1/00001", 9, Some(GivenSplit::Train)),
                ("test_batch/00000", 0, Some(GivenSplit::Test)),
            ]
        );
        let image = &samples[0].image.as_ref().unwrap().0;
        assert_eq!((image.shape.to_string().as_str(), &image.pixels[..4]), ("32x32x3", &[1, 2, 3, 0][..]));

        let hundred = tempfile::tempdir().unwrap();
        fs::write(hundred.path().join("train.bin"), record(&[19, 99])).unwrap();
        let (classes, samples) = collect(hundred.path(), None);
        assert_eq!((classes.len(), samples[0].label, samples[0].given), (100, 99, None));
        let (_, samples) = collect(&hundred.path().join("train.bin"), None);
        assert_eq!(samples[0].label, 99);
    }

    #[test]
    fn broken_batches_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data_batch_1.bin");
        fs::write(&path, &record(&[3])[..3000]).unwrap();
        assert!(error_of(folder.path()).contains("does not hold whole records"));
        fs::write(&path, record(&[10])).unwrap();
        let error = error_of(folder.path());
        assert!(error.contains("has the label 10 in record 0 of `data_batch_1`, expected one below 10"), "{error}");
    }
}
