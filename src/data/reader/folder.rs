//! Class folders, as ImageNet has them: `class/image`, also below `train/`, `valid/` and `test/`.
//!
//! Links are followed; hidden files and folders are neither images nor classes, files that are no images are left out.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::classes::{Assigned, by_folder};
use super::{Aside, Content, Error, Files, Found, Pick, Query, Reader, Sample, foreign};
use crate::data::decode::is_known_image;
use crate::data::pixels::Limits;
use crate::files;

/// A folder of class folders.
#[derive(Clone, Debug)]
struct Folder {
    path: PathBuf,
}

/// Finds class folders: any folder that is nothing else.
///
/// # Errors
/// None.
pub fn find(query: &Query<'_>) -> super::FindResult {
    Ok(if query.is_folder { Some(Box::new(Folder { path: query.path.to_owned() })) } else { None })
}

/// Something below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Relative to the folder, with `/`.
    pub path: String,
    /// Where it is.
    pub full: PathBuf,
    /// A folder, else a file (or what stands in a file's place).
    pub is_folder: bool,
}

/// Everything below `folder` that is not hidden, links followed, each folder's names in the order of their bytes.
///
/// # Errors
/// If a folder cannot be read, a link leads to a folder above itself, or a name is not UTF-8.
pub fn list(folder: &Path) -> Result<Vec<Listed>, Error> {
    let walk = walkdir::WalkDir::new(folder).follow_links(true).min_depth(1).sort_by_file_name();
    let mut listed = Vec::new();
    // The same as is hashed: reports, locks and stores of ours are no images of anybody's.
    let is_seen = |entry: &walkdir::DirEntry| {
        entry.depth() == 0 || !files::is_no_source(entry.path(), entry.file_type().is_dir())
    };
    for entry in walk.into_iter().filter_entry(is_seen) {
        let (full, is_folder) = match entry {
            Ok(entry) => {
                let is_folder = entry.file_type().is_dir();
                (entry.into_path(), is_folder)
            }
            Err(error) => match broken_link(&error) {
                // Listed as a file, so that it is an error of that image.
                Some(path) => (path, false),
                None => return Err(said(&error, folder)),
            },
        };
        let relative = full.strip_prefix(folder).unwrap_or(&full);
        let names: Option<Vec<&str>> = relative.components().map(|part| part.as_os_str().to_str()).collect();
        let Some(names) = names else {
            return Err(Error::new(format!("the name `{}` is not UTF-8", full.display())).help("rename it"));
        };
        listed.push(Listed { path: names.join("/"), full, is_folder });
    }
    Ok(listed)
}

/// The link that `error` is about, if it leads nowhere.
fn broken_link(error: &walkdir::Error) -> Option<PathBuf> {
    let path = error.path()?;
    let is_link = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_symlink());
    let is_absent = error.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound);
    (is_link && is_absent && !files::is_hidden(path.file_name()?)).then(|| path.to_owned())
}

fn said(error: &walkdir::Error, folder: &Path) -> Error {
    let path = error.path().unwrap_or(folder).display();
    if let Some(above) = error.loop_ancestor() {
        return Error::new(format!("`{path}` is a link to `{}`, a folder above it", above.display()))
            .help("remove the link");
    }
    // The kernel stops at a link that leads to itself.
    let detail = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
    Error::new(format!("cannot read `{path}`: {detail}"))
}

impl Found for Folder {
    fn files(&self) -> Files {
        Files::Folder(self.path.clone())
    }

    fn open(&self, _limits: &Limits) -> Result<Box<dyn Reader>, Error> {
        let (folders, listed): (Vec<Listed>, Vec<Listed>) =
            list(&self.path)?.into_iter().partition(|listed| listed.is_folder);
        let (mut images, mut others) = (Vec::new(), Vec::new());
        for file in listed {
            if is_image(&file)? { images.push(file) } else { others.push(file) }
        }
        let paths: Vec<String> = images.iter().map(|file| file.path.clone()).collect();
        let shown = self.path.display();
        if paths.is_empty() {
            let (what, help) = without_images(&others)?;
            return Err(Error::new(format!("`{shown}` has no image {what}")).help(help));
        }
        let Assigned { classes, files: assigned } = by_folder(&paths).map_err(|error| Error {
            message: error.message.replacen("the source", &format!("`{shown}`"), 1),
            ..error
        })?;
        let empty = without_any(&folders, &paths);
        let mut aside = Aside { empty, others: others.into_iter().map(|file| file.path).collect(), ..Aside::default() };
        let mut samples = Vec::with_capacity(images.len());
        for (file, assigned) in images.into_iter().zip(assigned) {
            match assigned {
                Ok((label, given)) => {
                    let content = Content::File(file.full);
                    samples.push(Sample { path: file.path, label, given, group: None, cells: Vec::new(), content });
                }
                Err(reason) => aside.images.push((file.path, reason)),
            }
        }
        Ok(Box::new(Listing { classes, samples, aside }))
    }
}

/// The folders that have no image in them and lie where one has that has.
fn without_any(folders: &[Listed], images: &[String]) -> Vec<String> {
    let folder_of = |path: &str| path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
    let mut with: BTreeSet<String> = BTreeSet::new();
    let mut levels: BTreeSet<String> = BTreeSet::new();
    for image in images.iter().filter(|image| image.contains('/')) {
        let mut folder = folder_of(image);
        levels.insert(folder_of(&folder));
        while !folder.is_empty() && with.insert(folder.clone()) {
            folder = folder_of(&folder);
        }
    }
    let names = folders.iter().map(|folder| &folder.path);
    names.filter(|path| !with.contains(*path) && levels.contains(&folder_of(path))).cloned().collect()
}

/// Whether a file is meant as an image: by its name, else by its content.
///
/// # Errors
/// If this machine cannot read it now.
pub fn is_image(file: &Listed) -> Result<bool, Error> {
    match super::is_image_name(&file.path) {
        Some(is_image) => Ok(is_image),
        None => Ok(is_known_image(&head(file, super::IMAGE_HEAD)?)),
    }
}

/// A file's first bytes; none of what nobody can read.
///
/// # Errors
/// If this machine cannot read it now.
fn head(file: &Listed, n: usize) -> Result<Vec<u8>, Error> {
    let mut head = Vec::new();
    let opened = super::input::open_regular(&file.full);
    match opened.and_then(|(file, _)| file.take(n as u64).read_to_end(&mut head)) {
        Ok(_) => Ok(head),
        Err(error) if files::is_lasting(&error) => Ok(Vec::new()),
        Err(error) => Err(Error::new(format!("cannot read `{}` now: {error}", file.full.display()))
            .help("see to the machine, and run again")),
    }
}

/// Files of a folder without images that are looked into.
const LOOKED_INTO: usize = 100;

/// What there is instead of images, and what to do.
///
/// # Errors
/// If this machine cannot read one now.
fn without_images(others: &[Listed]) -> Result<(String, String), Error> {
    let heads = others.iter().take(LOOKED_INTO).map(|file| Ok((file.path.as_str(), head(file, 512)?)));
    let heads: Vec<(&str, Vec<u8>)> = heads.collect::<Result<_, Error>>()?;
    let telling = heads.iter().find(|(path, head)| foreign::is_known(path, head)).or(heads.first());
    Ok(foreign::instead(others.len(), telling.map(|(path, head)| (*path, &head[..]))))
}

/// Samples that are all known, and read one by one.
pub(super) struct Listing {
    pub(super) classes: Vec<String>,
    pub(super) samples: Vec<Sample>,
    pub(super) aside: Aside,
}

impl Reader for Listing {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn n_samples(&self) -> u64 {
        self.samples.len() as u64
    }

    fn aside(&self) -> Option<&Aside> {
        Some(&self.aside)
    }

    fn read(&self, pick: &Pick, each: &mut dyn FnMut(Sample) -> Result<(), Error>) -> Result<(), Error> {
        (0..).zip(&self.samples).filter(|(i, _)| pick.wants(*i)).try_for_each(|(_, sample)| each(sample.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{collect, error_of, png};

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    #[test]
    fn foreign_images_are_known_by_their_content_where_their_names_do_not_tell() {
        let dicom = [&[0; 128][..], b"DICM", &[0; 9]].concat();
        let drawn = b"<?xml version=\"1.0\"?>\n<!-- drawn -->\n<svg xmlns=\"\"/>";
        for (bytes, format) in [(&dicom[..], "dicom"), (&drawn[..], "svg")] {
            let image = png(1, 1, &[7]);
            let folder = folder(&[("a/scan", bytes), ("a/1.png", &image), ("b/1.png", &image)]);
            let said = error_of(folder.path());
            assert!(said.contains(&format!("of the format {format}")), "{said}");
        }
    }

    #[test]
    fn images_come_sorted_and_hidden_names_do_not_count() {
        let image = png(1, 1, &[7]);
        let folder = folder(&[
            ("b/2.png", &image),
            ("b/10.png", &image),
            ("a/deep/1", &image),
            (".git/x", b"x"),
            ("a/.DS_Store", b"x"),
            ("__MACOSX/a/1.png", b"x"),
            ("README.md", b"x"),
            ("scripts/x.py", b"print()"),
            ("a/notes.txt", b"x"),
            ("a/@eaDir/1.png", &image),
            ("@eaDir/1.png", &image),
        ]);
        let (classes, samples) = collect(folder.path(), None);
        assert_eq!(classes, ["a", "b"]);
        let seen: Vec<_> = samples.iter().map(|s| (s.path.as_str(), s.label)).collect();
        assert_eq!(seen, [("a/deep/1", 0), ("b/10.png", 1), ("b/2.png", 1)]);
    }

    #[test]
    fn each_image_says_what_is_wrong_with_it() {
        for (bytes, expected) in [
            (&b""[..], "is empty"),
            (b"hello", "is not an image of a known format"),
            (b"\0\0\0\x18ftypheic", "is an image of the format heic, which is not supported"),
            (&png(4, 4, &[9; 16])[..40], "is a truncated png file"),
        ] {
            let folder = folder(&[("a/1.png", bytes)]);
            assert_eq!(error_of(folder.path()), expected);
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_in_circles() {
        use std::os::unix::fs::symlink;
        let image = png(1, 1, &[7]);
        let elsewhere = folder(&[("x.png", &image)]);
        let folder = folder(&[("a/1.png", &image)]);
        symlink(elsewhere.path(), folder.path().join("b")).unwrap();
        let (classes, samples) = collect(folder.path(), None);
        assert_eq!((classes.len(), samples.len()), (2, 2));
        symlink(folder.path().join("a/nothing"), folder.path().join("a/2.png")).unwrap();
        assert_eq!(error_of(folder.path()), "does not exist");
        fs::remove_file(folder.path().join("a/2.png")).unwrap();
        symlink(folder.path(), folder.path().join("a/loop")).unwrap();
        let error = error_of(folder.path());
        assert!(error.contains("is a link to") && error.contains("a folder above it"), "{error}");
        fs::remove_file(folder.path().join("a/loop")).unwrap();
        symlink("self", folder.path().join("a/self")).unwrap();
        assert!(!error_of(folder.path()).contains("nothing is wrong"));
    }

    /// A file that opens and then fails to be read, as on a disk that fails: nothing is mapped at the start of memory.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_this_machine_cannot_read_now_is_not_called_corrupt() {
        for name in ["a/2.png", "a/2"] {
            let folder = folder(&[("a/1.png", &png(1, 1, &[7])), ("b/1.png", &png(1, 1, &[7]))]);
            std::os::unix::fs::symlink("/proc/self/mem", folder.path().join(name)).unwrap();
            let error = error_of(folder.path());
            assert!(error.contains(name) && error.contains("cannot ") && error.contains(" now"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_fifo_never_blocks() {
        let folder = folder(&[("a/1.png", &png(1, 1, &[7]))]);
        let made = std::process::Command::new("mkfifo").arg(folder.path().join("a/2.png")).status();
        if made.is_ok_and(|status| status.success()) {
            assert_eq!(error_of(folder.path()), "cannot be read: it is not a regular file");
        }
    }
}
