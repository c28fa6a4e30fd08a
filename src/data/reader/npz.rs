//! NumPy's NPZ: a zip archive of arrays. Which is which is told by name (`images`, `labels`; `x`, `y`; each also with a split, as in
//! `x_train`), or by shape where there are just two.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::input::{Input, open_regular};
use super::npy::{Arrays, Header, Holder, Pair};
use super::{Error, Files, Found, GivenSplit, Limits, Query, Reader};

const IMAGES: &[&str] = &["images", "image", "x", "data", "pixels"];
const LABELS: &[&str] = &["labels", "label", "y", "target", "targets"];

#[derive(Clone, Debug)]
struct Npz {
    path: PathBuf,
}

/// Finds a zip archive.
///
/// # Errors
/// None.
pub fn find(query: &Query<'_>) -> super::FindResult {
    let is_zip = !query.is_folder && (query.head.starts_with(b"PK\x03\x04") || query.head.starts_with(b"PK\x05\x06"));
    Ok(if is_zip { Some(Box::new(Npz { path: query.path.to_owned() })) } else { None })
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
        let file = archive.by_index(self.index).map_err(|e| said(&self.input, &e))?;
        visit(&mut BufReader::with_capacity(1 << 18, file))
    }

    fn input(&self) -> &Input {
        &self.input
    }
}

impl Npz {
    fn member(&self, index: usize, name: &str) -> Box<dyn Holder> {
        let input = Input::Path(self.path.join(name));
        Box::new(Member { path: self.path.clone(), index, input })
    }

    fn pairs(&self) -> Result<Vec<Pair>, Error> {
        let input = Input::Path(self.path.clone());
        let mut archive = archive(&self.path)?;
        let mut names = Vec::new();
        for index in 0..archive.len() {
            let file = archive.by_index(index).map_err(|e| said(&input, &e))?;
            if file.is_file() {
                let name = file.name().map_err(|e| said(&input, &e))?.into_owned();
                names.push((index, name.trim_end_matches(".npy").to_owned()));
            }
        }
        if let Some(pairs) = self.by_name(&names) {
            return Ok(pairs);
        }
        if let [a, b] = &names[..] {
            return self.by_shape(a, b);
        }
        let shown: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
        Err(input
            .wrong(format_args!(
                "holds the arrays `{}`, and it is not clear which are images and labels",
                shown.join("`, `")
            ))
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
        let shape = |array: &Named| {
            let member = self.member(array.0, &array.1);
            let mut shape = Vec::new();
            member.with(&mut |stream| {
                shape = Header::read(stream, member.input())?.shape;
                Ok(())
            })?;
            Ok::<_, Error>(shape)
        };
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
        Files::Each(vec![("arrays".to_owned(), self.path.clone())])
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
    fn what_is_not_clear_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.npz");
        write(&path, &[("a", images(1)), ("b", labels()), ("c", labels())]);
        assert!(error_of(&path).contains("holds the arrays `a`, `b`, `c`"), "{}", error_of(&path));
        write(&path, &[("a", images(1)), ("b", images(1))]);
        assert!(error_of(&path).contains("which are not images and labels"), "{}", error_of(&path));
        write(&path, &[("images", images(1)), ("labels", labels())]);
        let bytes = std::fs::read(&path).unwrap();
        for len in 4..bytes.len() {
            std::fs::write(&path, &bytes[..len]).unwrap();
            assert_ne!(error_of(&path), "nothing is wrong", "cut at {len}");
        }
    }
}
