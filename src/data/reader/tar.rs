//! Tar archives of class folders or of CIFAR batches, also gzip, read without unpacking anything to disk.
//!
//! Opening walks the archive once for its names; reading streams it again. Links inside an archive are not followed, and
//! a path that leaves the archive is an error.

use std::io::{self, Read};

use super::cifar::{self, Batch};
use super::classes::{Assigned, by_folder};
use super::input::{Input, Stream};
use super::{Content, Error, Files, Found, GivenSplit, Limits, Pick, Query, Reader, Sample, is_hidden};

#[derive(Clone, Debug)]
struct Tar {
    input: Input,
}

/// Finds a tar archive by its first header's checksum.
///
/// # Errors
/// None.
pub fn find(query: &Query<'_>) -> super::FindResult {
    if query.is_folder || !is_tar(&query.head) {
        return Ok(None);
    }
    Ok(Some(Box::new(Tar { input: Input::Path(query.path.to_owned()) })))
}

/// A header's checksum is the sum of its bytes, with its own field as spaces.
fn is_tar(head: &[u8]) -> bool {
    let Some((header, _)) = head.split_first_chunk::<512>() else { return false };
    let field = String::from_utf8_lossy(&header[148..156]);
    let Ok(stored) = u32::from_str_radix(field.trim_matches(['\0', ' ']), 8) else { return false };
    let sum: u32 = (0..512).map(|i| if (148..156).contains(&i) { 32 } else { u32::from(header[i]) }).sum();
    sum == stored && header[0] != 0
}

/// What stands in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    Link,
}

/// Gets a path, its kind, size and content.
type Visit<'a> = dyn FnMut(&str, Kind, u64, &mut dyn Read) -> Result<(), Error> + 'a;

/// Walks an archive. `visit` gets each path that is not hidden, cleaned, with its kind, size and content.
fn walk(input: &Input, visit: &mut Visit<'_>) -> Result<(), Error> {
    let stream: Stream = input.open()?;
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries().map_err(|e| said(input, e))? {
        let mut entry = entry.map_err(|e| said(input, e))?;
        let kind = match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => Kind::File,
            tar::EntryType::Directory => Kind::Folder,
            tar::EntryType::XGlobalHeader => continue,
            _ => Kind::Link,
        };
        let bytes = entry.path_bytes().into_owned();
        let Ok(path) = String::from_utf8(bytes) else {
            return Err(input.wrong("holds a name that is not UTF-8"));
        };
        let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if path.starts_with('/') || parts.contains(&"..") {
            return Err(input.wrong(format_args!("holds the path `{path}`, which leaves the archive")));
        }
        if parts.is_empty() || parts.iter().any(|part| is_hidden(part)) {
            continue;
        }
        let size = entry.size();
        visit(&parts.join("/"), kind, size, &mut entry)?;
    }
    Ok(())
}

fn said(input: &Input, error: io::Error) -> Error {
    // The tar crate reports a short header or member as `Other`.
    let text = error.to_string();
    if error.kind() == io::ErrorKind::UnexpectedEof
        || text.contains("failed to read entire block")
        || text.contains("unexpected EOF")
    {
        input.wrong("is truncated")
    } else {
        input.wrong(format_args!("is not a sound tar archive: {text}"))
    }
}

impl Found for Tar {
    fn files(&self) -> Files {
        match &self.input {
            Input::Path(path) => Files::Each(vec![("images".to_owned(), path.clone())]),
            Input::Memory(..) => Files::Each(Vec::new()),
        }
    }

    fn open(&self, limits: &Limits) -> Result<Box<dyn Reader>, Error> {
        let mut files = Vec::new();
        let mut folders = Vec::new();
        let mut batches = cifar::Batches::default();
        walk(&self.input, &mut |path, kind, size, content| {
            match kind {
                Kind::Folder => folders.push(path.to_owned()),
                Kind::File | Kind::Link => files.push(path.to_owned()),
            }
            if kind == Kind::File {
                batches.note(path, size, content).map_err(|e| said(&self.input, e))?;
            }
            Ok(())
        })?;
        if !batches.is_empty() {
            let batches = batches.finish(&self.input)?;
            return Ok(Box::new(CifarReader { input: self.input.clone(), batches }));
        }
        let shown = self.input.shown();
        let Assigned { classes, files: assigned } = by_folder(&files, &folders).map_err(|error| Error {
            message: error.message.replacen("the source", &format!("`{shown}`"), 1),
            ..error
        })?;
        Ok(Box::new(FolderReader { input: self.input.clone(), limits: *limits, classes, assigned }))
    }
}

struct FolderReader {
    input: Input,
    limits: Limits,
    classes: Vec<String>,
    /// In the order of the archive.
    assigned: Vec<Option<(u32, Option<GivenSplit>)>>,
}

impl Reader for FolderReader {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn n_samples(&self) -> u64 {
        self.assigned.iter().flatten().count() as u64
    }

    fn read(&self, pick: &Pick, each: &mut dyn FnMut(Sample) -> Result<(), Error>) -> Result<(), Error> {
        let mut assigned = self.assigned.iter();
        let mut at = 0;
        walk(&self.input, &mut |path, kind, size, content| {
            if kind == Kind::Folder {
                return Ok(());
            }
            let Some(assigned) = assigned.next() else {
                return Err(self.input.wrong("changed while it was read"));
            };
            let Some((label, given)) = *assigned else { return Ok(()) };
            let is_wanted = pick.wants(at);
            at += 1;
            if !is_wanted {
                return Ok(());
            }
            let content = if kind == Kind::Link {
                Content::Bad("is not a regular file; links inside an archive are not followed".to_owned())
            } else if let Err(reason) = self.limits.check_bytes(size) {
                Content::Bad(reason)
            } else {
                let mut bytes = Vec::with_capacity(size.min(1 << 20) as usize);
                content.read_to_end(&mut bytes).map_err(|e| said(&self.input, e))?;
                if (bytes.len() as u64) < size {
                    return Err(self.input.wrong("is truncated"));
                }
                Content::Encoded(bytes)
            };
            each(Sample { path: path.to_owned(), label, given, group: None, content })
        })
    }
}

struct CifarReader {
    input: Input,
    batches: cifar::Sized,
}

impl Reader for CifarReader {
    fn classes(&self) -> &[String] {
        &self.batches.classes
    }

    fn n_samples(&self) -> u64 {
        self.batches.n_samples()
    }

    fn read(&self, pick: &Pick, each: &mut dyn FnMut(Sample) -> Result<(), Error>) -> Result<(), Error> {
        let mut batches = self.batches.batches.iter();
        let mut at = 0;
        walk(&self.input, &mut |path, kind, _, content| {
            if kind != Kind::File || !Batch::is_named(path) {
                return Ok(());
            }
            let Some(batch) = batches.next() else {
                return Err(self.input.wrong("changed while it was read"));
            };
            batch.read(content, &self.input, pick, &mut at, each)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::testing::{collect, error_of, png};
    use super::*;

    fn header(kind: tar::EntryType, len: usize) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(len as u64);
        header.set_mode(0o644);
        header
    }

    /// A path as it is, also one that the builder would refuse.
    fn append(out: &mut Vec<u8>, path: &str, kind: tar::EntryType, bytes: &[u8]) {
        let mut header = header(kind, bytes.len());
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        out.extend(header.as_bytes());
        out.extend(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (path, bytes) in members {
            let kind = if path.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular };
            append(&mut out, path, kind, bytes);
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn class_folders_are_read_from_either_kind() {
        let image = png(1, 1, &[7]);
        let bytes = archive(&[
            ("./set/", b""),
            ("./set/train/dog/1", &image),
            ("./set/train/._x", b"hidden"),
            ("./set/train/cat/1", &image),
            ("./set/test/dog/.DS_Store", b"hidden"),
            ("./set/test/dog/1", &image),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive");
        for bytes in [bytes.clone(), gzip(&bytes)] {
            std::fs::write(&path, bytes).unwrap();
            let (classes, samples) = collect(&path, None);
            assert_eq!(classes, ["cat", "dog"]);
            let seen: Vec<_> = samples.iter().map(|s| (s.path.as_str(), s.label, s.given)).collect();
            assert_eq!(
                seen,
                [
                    ("set/train/dog/1", 1, Some(GivenSplit::Train)),
                    ("set/train/cat/1", 0, Some(GivenSplit::Train)),
                    ("set/test/dog/1", 1, Some(GivenSplit::Test)),
                ]
            );
            assert_eq!(samples[0].image.as_ref().unwrap().0.pixels, [7]);
        }
    }

    #[test]
    fn cifar_batches_are_read_inside_an_archive() {
        let mut record = vec![4];
        record.resize(3073, 9);
        let names = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";
        let bytes = archive(&[
            ("cifar-10-batches-bin/data_batch_1.bin", &record),
            ("cifar-10-batches-bin/batches.meta.txt", names.as_bytes()),
            ("cifar-10-batches-bin/readme.html", b"text"),
            ("cifar-10-batches-bin/test_batch.bin", &record),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive");
        std::fs::write(&path, gzip(&bytes)).unwrap();
        let (classes, samples) = collect(&path, None);
        assert_eq!(classes[4], "e");
        assert_eq!(
            samples.iter().map(|s| s.given).collect::<Vec<_>>(),
            [Some(GivenSplit::Train), Some(GivenSplit::Test)]
        );
    }

    #[test]
    fn hostile_archives_are_errors() {
        let image = png(1, 1, &[7]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive");
        for outside in ["../a/1.png", "/a/1.png", "a/../../1.png"] {
            std::fs::write(&path, archive(&[(outside, &image)])).unwrap();
            let error = error_of(&path);
            assert!(error.contains(&format!("holds the path `{outside}`, which leaves the archive")), "{error}");
        }
        let mut linked = Vec::new();
        append(&mut linked, "a/1.png", tar::EntryType::Symlink, b"");
        linked.resize(linked.len() + 1024, 0);
        std::fs::write(&path, linked).unwrap();
        assert!(error_of(&path).contains("is not a regular file"), "{}", error_of(&path));
        std::fs::write(&path, archive(&[("1.png", &image)])).unwrap();
        assert!(error_of(&path).contains("has no class folders: `1.png` lies in none"), "{}", error_of(&path));

        let sound = archive(&[("a/1.png", &image), ("b/1.png", &image)]);
        let end = sound.len() - 1024;
        for len in (512..end).step_by(37).filter(|len| len % 512 != 0) {
            std::fs::write(&path, &sound[..len]).unwrap();
            assert_ne!(error_of(&path), "nothing is wrong", "cut at {len}");
        }
        let packed = gzip(&sound);
        for len in (20..packed.len() - 8).step_by(11) {
            std::fs::write(&path, &packed[..len]).unwrap();
            let error = error_of(&path);
            assert!(
                error.contains("is truncated") || error.contains("corrupt") || error.contains("no format"),
                "cut at {len}: {error}"
            );
        }
    }
}
