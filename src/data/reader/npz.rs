//! NumPy's NPZ: a zip archive of arrays. Which is which is told by name (`images`, `labels`; `x`, `y`; each also with a
//! split, as in `x_train`), or by shape where there are just two.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::classes::some_of;
use super::input::{Input, open_regular};
use super::npy::{Arrays, Header, Holder, Pair};
use super::{Error, Files, Found, GivenSplit, Query, Reader};
use crate::data::pixels::Limits;
use crate::files::is_hidden;

const IMAGES: &[&str] = &["images", "image", "x", "data", "pixels"];
const LABELS: &[&str] = &["labels", "label", "y", "target", "targets"];

/// The most arrays of an archive.
const MAX_ARRAYS: usize = 10_000;

#[derive(Clone, Debug)]
struct Npz {
    path: PathBuf,
    /// The archive of the labels, where it is another.
    labels: Option<PathBuf>,
}

/// Finds a zip archive.
///
/// # Errors
/// None.
pub fn find(query: &Query<'_>) -> super::FindResult {
    Ok(if !query.is_folder && is_zip(&query.head) {
        Some(Box::new(Npz { path: query.path.to_owned(), labels: query.labels.map(Path::to_owned) }))
    } else {
        None
    })
}

/// The arrays of an archive.
fn names(path: &Path) -> Result<Vec<Named>, Error> {
    let input = Input::Path(path.to_owned());
    let archive = archive(path)?;
    let mut names: Vec<Named> = Vec::new();
    let mut others: Vec<String> = Vec::new();
    for (index, name) in archive.file_names().enumerate() {
        let name = name.map_err(|e| said(&input, &e))?;
        match name.strip_suffix(".npy") {
            Some(name) => names.push((index, name.to_owned())),
            None if name.ends_with('/') || name.split('/').any(is_hidden) => {}
            None => others.push(name.into_owned()),
        }
    }
    if names.is_empty() || others.iter().any(|name| super::is_image_name(name) == Some(true)) {
        return Err(super::foreign::archive(&input, &others));
    }
    if names.len() + others.len() > MAX_ARRAYS {
        return Err(input.wrong(format_args!("holds {} files, more than {MAX_ARRAYS}", names.len() + others.len())));
    }
    Ok(names)
}

fn shown(names: &[Named]) -> String {
    some_of(names.iter().map(|(_, name)| name.as_str()))
}

fn member(path: &Path, index: usize, name: &str) -> Box<dyn Holder> {
    Box::new(Member { path: path.to_owned(), index, input: Input::Path(path.join(name)) })
}

/// The array of an archive that has one of `known` names or is the only one of a shape that `fits`.
fn only(path: &Path, known: &[&str], fits: impl Fn(&[u64]) -> bool) -> Result<Box<dyn Holder>, Error> {
    let names = names(path)?;
    let mut found: Vec<&Named> =
        names.iter().filter(|(_, name)| known.contains(&name.to_lowercase().as_str())).collect();
    if found.is_empty() {
        for array in &names {
            let header = header(&*member(path, array.0, &array.1))?;
            if fits(&header.shape) {
                found.push(array);
            }
        }
    }
    match found[..] {
        [(index, name)] => Ok(member(path, *index, name)),
        _ => Err(Input::Path(path.to_owned())
            .wrong(format_args!("holds the arrays {}, and it is not clear which is meant", shown(&names)))
            .help(format!("name it `{}`", known[0]))),
    }
}

fn header(holder: &dyn Holder) -> Result<Header, Error> {
    let mut header = None;
    holder.start(&mut |stream| {
        header = Some(Header::read(stream, holder.input())?);
        Ok(())
    })?;
    header.ok_or_else(|| holder.input().wrong("is not an NPY array"))
}

fn is_zip(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")
}

fn archive(path: &Path) -> Result<zip::ZipArchive<BufReader<std::fs::File>>, Error> {
    let input = Input::Path(path.to_owned());
    let (file, _) = open_regular(path).map_err(|e| input.error(e))?;
    zip::ZipArchive::new(BufReader::new(file)).map_err(|e| said(&input, &e))
}

fn said(input: &Input, error: &zip::result::ZipError) -> Error {
    input.wrong(format_args!("is not a sound zip archive: {error}"))
}

/// An array's index in the archive, and its name.
type Named = (usize, String);

/// An array in the archive.
#[derive(Debug)]
struct Member {
    path: PathBuf,
    index: usize,
    input: Input,
}

impl Holder for Member {
    fn with(&self, visit: &mut dyn FnMut(&mut dyn Read) -> Result<(), Error>) -> Result<(), Error> {
        let mut archive = archive(&self.path)?;
        self.check_header(&mut archive)?;
        let file = archive.by_index(self.index).map_err(|e| said(&self.input, &e))?;
        let expected = file.size();
        let mut counted = Counted { inner: file, n: 0 };
        {
            let mut buffered = BufReader::with_capacity(1 << 18, &mut counted);
            visit(&mut buffered)?;
            // To the end, where the checksum is compared. What is not the array's is not much: `Header::read` has seen
            // to it.
            std::io::copy(&mut buffered, &mut std::io::sink()).map_err(|e| self.input.error(e))?;
        }
        match counted.n == expected {
            true => Ok(()),
            false => Err(self.input.wrong(format_args!("has {} bytes, its archive says {expected}", counted.n))),
        }
    }

    fn start(&self, visit: &mut dyn FnMut(&mut dyn Read) -> Result<(), Error>) -> Result<(), Error> {
        let mut archive = archive(&self.path)?;
        let mut file = archive.by_index(self.index).map_err(|e| said(&self.input, &e))?;
        visit(&mut file)
    }

    fn said_len(&self) -> Result<Option<u64>, Error> {
        let mut archive = archive(&self.path)?;
        let file = archive.by_index(self.index).map_err(|e| said(&self.input, &e))?;
        Ok(Some(file.size()))
    }

    fn input(&self) -> &Input {
        &self.input
    }
}

impl Member {
    /// The entry's own header must say what the directory at the archive's end says: the crate looks at the latter
    /// only.
    fn check_header(&self, archive: &mut zip::ZipArchive<BufReader<std::fs::File>>) -> Result<(), Error> {
        let start = archive.by_index_raw(self.index).map_err(|e| said(&self.input, &e))?.header_start();
        let (mut file, _) = open_regular(&self.path).map_err(|e| self.input.error(e))?;
        let mut header = [0; 8];
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut header))
            .map_err(|e| self.input.error(e))?;
        let is_entry = header.starts_with(b"PK\x03\x04");
        if !is_entry || header[6] & 1 != 0 {
            let what = if is_entry { "is encrypted" } else { "has no header where its archive says" };
            return Err(self.input.wrong(what));
        }
        Ok(())
    }
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    n: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.n += n as u64;
        Ok(n)
    }
}

impl Npz {
    fn member(&self, index: usize, name: &str) -> Box<dyn Holder> {
        member(&self.path, index, name)
    }

    /// Images in one archive, labels in another, or in an NPY file.
    fn pair_with(&self, labels: &Path) -> Result<Vec<Pair>, Error> {
        let images = only(&self.path, IMAGES, |shape| shape.len() > 1)?;
        let head = Input::Path(labels.to_owned()).head(8)?;
        let labels = match is_zip(&head) {
            true => only(labels, LABELS, |shape| matches!(shape, [_] | [_, 1]))?,
            false => super::npy::loose(labels),
        };
        Ok(vec![Pair { images, labels, given: None }])
    }

    fn pairs(&self) -> Result<Vec<Pair>, Error> {
        if let Some(labels) = &self.labels {
            return self.pair_with(labels);
        }
        let input = Input::Path(self.path.clone());
        let names = names(&self.path)?;
        if let Some(pairs) = self.by_name(&names) {
            return Ok(pairs);
        }
        if let [a, b] = &names[..] {
            return self.by_shape(a, b);
        }
        if let [_] = names[..] {
            return Err(input
                .wrong(format_args!("holds one array, {}, and no labels", shown(&names)))
                .help("set `labels` to the file that holds them, or save both into one archive"));
        }
        Err(input
            .wrong(format_args!("holds the arrays {}, and it is not clear which are images and labels", shown(&names)))
            .help("name them `images` and `labels`, or `x` and `y`"))
    }

    fn by_name(&self, names: &[Named]) -> Option<Vec<Pair>> {
        let mut parts: BTreeMap<Option<GivenSplit>, [Option<&Named>; 2]> = BTreeMap::new();
        for array in names {
            let lower = array.1.to_lowercase();
            let words: Vec<&str> = lower.split(['_', '-', '.']).collect();
            let given = words.iter().find_map(|word| GivenSplit::parse(word));
            let rest: Vec<&&str> = words.iter().filter(|word| GivenSplit::parse(word).is_none()).collect();
            let [word] = rest[..] else { continue };
            let side = match (IMAGES.contains(word), LABELS.contains(word)) {
                (true, _) => 0,
                (_, true) => 1,
                _ => continue,
            };
            if parts.entry(given).or_default()[side].replace(array).is_some() {
                return None;
            }
        }
        let has_test = parts.keys().any(|given| matches!(given, Some(GivenSplit::Test | GivenSplit::Validation)));
        let mut pairs = Vec::new();
        for (given, sides) in parts {
            let [Some(images), Some(labels)] = sides else { return None };
            // What has no split beside a test split is what is left to learn from.
            let given = if has_test { given.or(Some(GivenSplit::Train)) } else { None };
            pairs.push(Pair {
                images: self.member(images.0, &images.1),
                labels: self.member(labels.0, &labels.1),
                given,
            });
        }
        (!pairs.is_empty()).then_some(pairs)
    }

    fn by_shape(&self, a: &Named, b: &Named) -> Result<Vec<Pair>, Error> {
        let shape = |array: &Named| Ok::<_, Error>(header(&*self.member(array.0, &array.1))?.shape);
        let (shape_a, shape_b) = (shape(a)?, shape(b)?);
        let is_labels = |shape: &[u64]| matches!(shape, [_] | [_, 1]);
        let (images, labels) = match (is_labels(&shape_a), is_labels(&shape_b)) {
            (false, true) => (a, b),
            (true, false) => (b, a),
            _ => {
                return Err(Input::Path(self.path.clone())
                    .wrong(format_args!(
                        "holds the arrays `{}` of shape {shape_a:?} and `{}` of shape {shape_b:?}, which are not images and labels",
                        a.1, b.1
                    ))
                    .help("name them `images` and `labels`, or `x` and `y`"));
            }
        };
        let pair =
            Pair { images: self.member(images.0, &images.1), labels: self.member(labels.0, &labels.1), given: None };
        Ok(vec![pair])
    }
}

impl Found for Npz {
    fn files(&self) -> Files {
        let labels = self.labels.iter().map(|labels| ("labels".to_owned(), labels.clone()));
        Files::Each(std::iter::once(("arrays".to_owned(), self.path.clone())).chain(labels).collect())
    }

    fn open(&self, limits: &Limits) -> Result<Box<dyn Reader>, Error> {
        Ok(Box::new(Arrays::open(self.pairs()?, limits)?))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::super::npy::tests::npy;
    use super::super::testing::{collect, error_of};
    use super::*;

    fn write(path: &Path, arrays: &[(&str, Vec<u8>)]) {
        let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in arrays {
            let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
            out.start_file(format!("{name}.npy"), options).unwrap();
            out.write_all(bytes).unwrap();
        }
        std::fs::write(path, out.finish().unwrap().into_inner()).unwrap();
    }

    fn images(value: u8) -> Vec<u8> {
        npy("|u1", "(2, 1, 1)", &[value, value + 1])
    }

    fn labels() -> Vec<u8> {
        npy("|u1", "(2,)", &[1, 0])
    }

    #[test]
    fn arrays_are_told_apart_by_name_or_by_shape() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set");
        for (a, b) in [("images", "labels"), ("x", "y"), ("arr_0", "arr_1"), ("train_images", "train_labels")] {
            write(&path, &[(b, labels()), (a, images(7))]);
            let (classes, samples) = collect(&path, None);
            assert_eq!(classes, ["0", "1"], "{a}");
            assert_eq!(samples[0].image.as_ref().unwrap().0.pixels, [7], "{a}");
            assert_eq!((samples[0].label, samples[0].given), (1, None), "{a}");
        }
        write(&path, &[("x_test", images(1)), ("y_test", labels()), ("x_train", images(3)), ("y_train", labels())]);
        let (_, samples) = collect(&path, None);
        let seen: Vec<_> = samples.iter().map(|s| (s.path.as_str(), s.given)).collect();
        let (train, test) = (Some(GivenSplit::Train), Some(GivenSplit::Test));
        assert_eq!(seen, [("train/00000", train), ("train/00001", train), ("test/00000", test), ("test/00001", test)]);
    }

    #[test]
    fn labels_may_lie_in_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let (x, y) = (folder.path().join("x.npz"), folder.path().join("y.npz"));
        write(&x, &[("arr_0", images(7))]);
        write(&y, &[("arr_0", labels())]);
        let (_, samples) = collect(&x, Some(&y));
        assert_eq!(samples.iter().map(|s| s.label).collect::<Vec<_>>(), [1, 0]);
        let plain = folder.path().join("y.npy");
        std::fs::write(&plain, labels()).unwrap();
        assert_eq!(collect(&x, Some(&plain)).1.len(), 2);
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.npz");
        let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (name, bytes) in [("images.npy", images(77)), ("labels.npy", labels())] {
            out.start_file(name, stored).unwrap();
            out.write_all(&bytes).unwrap();
        }
        let sound = out.finish().unwrap().into_inner();
        std::fs::write(&path, &sound).unwrap();
        assert_eq!(error_of(&path), "nothing is wrong");
        let pixel = sound.iter().position(|&byte| byte == 77).unwrap();
        let start = sound.windows(4).position(|four| four == b"PK\x03\x04").unwrap();
        let directory = sound.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
        for (at, flip) in [(pixel, 1), (start + 6, 1), (start, 1), (directory + 24, 2), (directory + 27, 1)] {
            let mut damaged = sound.clone();
            damaged[at] ^= flip;
            std::fs::write(&path, &damaged).unwrap();
            assert_ne!(error_of(&path), "nothing is wrong", "byte {at}");
        }
    }

    #[test]
    fn an_archive_of_image_files_is_called_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photos.zip");
        let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for name in ["s/cat/1.jpg", "s/dog/1.png", "s/readme.txt"] {
            out.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        }
        std::fs::write(&path, out.finish().unwrap().into_inner()).unwrap();
        assert!(
            error_of(&path).ends_with("is a zip archive of 2 image files, which is not read"),
            "{}",
            error_of(&path)
        );
    }

    #[test]
    fn what_is_not_clear_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.npz");
        write(&path, &[("a", images(1)), ("b", labels()), ("c", labels())]);
        assert!(error_of(&path).contains("holds the arrays `a`, `b`, `c`"), "{}", error_of(&path));
        write(&path, &[("a", images(1)), ("b", images(1))]);
        assert!(error_of(&path).contains("which are not images and labels"), "{}", error_of(&path));
        write(&path, &[("images", images(1))]);
        assert!(error_of(&path).contains("holds one array, `images`, and no labels"), "{}", error_of(&path));
        let many: Vec<(String, Vec<u8>)> = (0..9).map(|i| (format!("a{i}"), images(1))).collect();
        write(&path, &many.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect::<Vec<_>>());
        assert!(error_of(&path).contains("`a3`, `a4` and 4 more, and it is not clear"), "{}", error_of(&path));
        write(&path, &[("images", images(1)), ("labels", labels())]);
        let bytes = std::fs::read(&path).unwrap();
        for len in 4..bytes.len() {
            std::fs::write(&path, &bytes[..len]).unwrap();
            assert_ne!(error_of(&path), "nothing is wrong", "cut at {len}");
        }
    }
}
