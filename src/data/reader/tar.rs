//! Tar archives of class folders or of CIFAR batches, also gzip, read without unpacking anything to disk.
//!
//! Opening walks the archive once for its names; reading streams it again. Links inside an archive are not followed,
//! and a path that leaves the archive is an error. Of members of one path the last one counts.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};

use super::cifar::{self, Batch};
use super::classes::{Assigned, by_folder};
use super::input::{self, Input, Stream};
use super::{Aside, Content, Error, Files, Found, GivenSplit, Pick, Query, Reader, Sample};
use crate::data::decode::{is_known_image, too_large};
use crate::data::pixels::Limits;
use crate::files::is_hidden;

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

/// A member of an archive.
struct Member<'a> {
    /// How many that are not hidden stand before it.
    index: usize,
    /// Cleaned.
    path: &'a str,
    kind: Kind,
    /// In bytes.
    size: u64,
}

/// Gets a member and its content.
type Visit<'a> = dyn FnMut(&Member<'_>, &mut dyn Read) -> Result<(), Error> + 'a;

/// The longest name, link or PAX header that is read, in bytes.
const MAX_EXTENSION: u64 = 1 << 20;

/// Walks an archive. `visit` gets each member that is not hidden.
///
/// Long names and PAX headers are read here, not by the crate: it reads them whatever they say of their length, takes
/// those that do not parse for absent, and cuts values at line feeds.
fn walk(input: &Input, visit: &mut Visit<'_>) -> Result<(), Error> {
    let stream: Stream = input.open()?;
    let mut archive = tar::Archive::new(stream);
    let mut index = 0;
    let mut next = Next::default();
    for entry in archive.entries().map_err(|e| said(input, e))?.raw(true) {
        let mut entry = entry.map_err(|e| said(input, e))?;
        let size = entry.header().entry_size().map_err(|e| said(input, e))?;
        let kind = match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => Kind::File,
            tar::EntryType::Directory => Kind::Folder,
            extension @ (tar::EntryType::XHeader
            | tar::EntryType::XGlobalHeader
            | tar::EntryType::GNULongName
            | tar::EntryType::GNULongLink) => {
                if size > MAX_EXTENSION {
                    return Err(input.wrong(format_args!(
                        "has a header of {size} bytes between its members, more than {MAX_EXTENSION}"
                    )));
                }
                let bytes = input::read_len(&mut entry, size, input)?;
                next.take(extension, bytes).map_err(|reason| input.wrong(reason))?;
                continue;
            }
            _ => Kind::Link,
        };
        let own = std::mem::take(&mut next);
        if own.size.is_some_and(|other| other != size) {
            return Err(input.wrong("holds a file whose size is said twice and differently"));
        }
        let bytes = own.path.unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let Ok(path) = String::from_utf8(bytes) else {
            return Err(input.wrong("holds a name that is not UTF-8"));
        };
        if leaves(&path) {
            return Err(input.wrong(format_args!("holds the path `{path}`, which leaves the archive")));
        }
        let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if parts.is_empty() || parts.iter().any(is_hidden) {
            continue;
        }
        let kind = if own.is_sparse { Kind::Link } else { kind };
        visit(&Member { index, path: &parts.join("/"), kind, size }, &mut entry)?;
        index += 1;
    }
    if next != Next::default() {
        return Err(input.wrong("is truncated"));
    }
    Ok(())
}

/// Whether a path is absolute or climbs, also as Windows would read it.
fn leaves(path: &str) -> bool {
    let is_drive = matches!(path.as_bytes(), [letter, b':', b'\\', ..] if letter.is_ascii_alphabetic());
    path.starts_with('/') || is_drive || path.split(['/', '\\']).any(|part| part == "..")
}

/// What headers say of the member that follows them.
#[derive(Default, PartialEq, Eq)]
struct Next {
    path: Option<Vec<u8>>,
    size: Option<u64>,
    is_sparse: bool,
}

impl Next {
    /// Takes what one header says.
    fn take(&mut self, kind: tar::EntryType, bytes: Vec<u8>) -> Result<(), &'static str> {
        match kind {
            tar::EntryType::GNULongName if self.path.is_none() => {
                let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
                self.path = Some(bytes[..end].to_vec());
            }
            tar::EntryType::XHeader => {
                for (key, value) in pax_records(&bytes).ok_or("holds a PAX header that does not parse")? {
                    match key {
                        b"path" => self.path = Some(value.to_vec()),
                        b"size" => {
                            let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                            self.size = Some(size.ok_or("holds a PAX header that does not parse")?);
                        }
                        _ => self.is_sparse |= key.starts_with(b"GNU.sparse."),
                    }
                }
            }
            tar::EntryType::XGlobalHeader => {
                pax_records(&bytes).ok_or("holds a PAX header that does not parse")?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The records `LENGTH KEY=VALUE\n` of a PAX header, each as long as it says; `None` if they are not that.
fn pax_records(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|&byte| byte == b' ')?;
        let len: usize = std::str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
        let record = bytes.get(blank + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        records.push((&record[..equals], &record[equals + 1..]));
        bytes = &bytes[len..];
    }
    Some(records)
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
        let mut files: Vec<(usize, String, bool)> = Vec::new();
        let mut batches = cifar::Batches::default();
        let mut first_other = None;
        walk(&self.input, &mut |member, content| {
            if member.kind == Kind::Folder {
                return Ok(());
            }
            // A link may be an image or a folder: it is not followed, and so it is a bad image.
            let mut is_image = super::is_image_name(member.path).or((member.kind == Kind::Link).then_some(true));
            if member.kind == Kind::File {
                batches.note(member.path, member.size, content).map_err(|e| said(&self.input, e))?;
                if is_image.is_none() && !Batch::is_named(member.path) {
                    let mut head = Vec::new();
                    content.take(super::IMAGE_HEAD as u64).read_to_end(&mut head).map_err(|e| said(&self.input, e))?;
                    is_image = Some(is_known_image(&head));
                    if is_image == Some(false) {
                        first_other.get_or_insert((member.path.to_owned(), head));
                    }
                } else if is_image == Some(false) {
                    first_other.get_or_insert((member.path.to_owned(), Vec::new()));
                }
            }
            files.push((member.index, member.path.to_owned(), is_image == Some(true)));
            Ok(())
        })?;
        let replaced = keep_last(&mut files);
        if !batches.is_empty() {
            let batches = batches.finish(&self.input)?;
            let kept = files.into_iter().map(|(index, ..)| index).collect();
            return Ok(Box::new(CifarReader { input: self.input.clone(), batches, kept }));
        }
        let (mut indices, mut paths, mut aside) = (Vec::new(), Vec::new(), Aside::default());
        for (index, path, is_image) in files {
            if is_image {
                indices.push(index);
                paths.push(path);
            } else {
                aside.others.push(path);
            }
        }
        if paths.is_empty() {
            let first = first_other.as_ref().map(|(path, head)| (path.as_str(), &head[..]));
            let (what, help) = super::foreign::instead(aside.others.len(), first);
            return Err(self.input.wrong(format_args!("has no image {what}")).help(help));
        }
        let shown = self.input.shown();
        let Assigned { classes, files: assigned } = by_folder(&paths).map_err(|error| Error {
            message: error.message.replacen("the source", &format!("`{shown}`"), 1),
            ..error
        })?;
        let mut kept = BTreeMap::new();
        for ((index, path), assigned) in indices.into_iter().zip(paths).zip(assigned) {
            match assigned {
                Ok(assigned) => drop(kept.insert(index, assigned)),
                Err(reason) => aside.images.push((path, reason)),
            }
        }
        aside.images.extend(replaced.into_iter().map(|path| (path, "is replaced by a later member of that path")));
        Ok(Box::new(FolderReader { input: self.input.clone(), limits: *limits, classes, kept, aside }))
    }
}

/// Of files (index, path, whether an image) of one path, keeps the one that was added last, as unpacking has it; the
/// paths of the images that it drops.
fn keep_last(files: &mut Vec<(usize, String, bool)>) -> Vec<String> {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_unstable_by_key(|&i| (&files[i].1, i));
    let replaced: HashSet<usize> =
        order.windows(2).filter(|pair| files[pair[0]].1 == files[pair[1]].1).map(|pair| files[pair[0]].0).collect();
    let (dropped, kept): (Vec<_>, Vec<_>) =
        std::mem::take(files).into_iter().partition(|(index, ..)| replaced.contains(index));
    *files = kept;
    dropped.into_iter().filter(|(.., is_image)| *is_image).map(|(_, path, _)| path).collect()
}

struct FolderReader {
    input: Input,
    limits: Limits,
    classes: Vec<String>,
    /// Of the members that are images, by index in the archive.
    kept: BTreeMap<usize, (u32, Option<GivenSplit>)>,
    aside: Aside,
}

impl Reader for FolderReader {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn n_samples(&self) -> u64 {
        self.kept.len() as u64
    }

    fn aside(&self) -> Option<&Aside> {
        Some(&self.aside)
    }

    fn read(&self, pick: &Pick, each: &mut dyn FnMut(Sample) -> Result<(), Error>) -> Result<(), Error> {
        let mut at = 0;
        walk(&self.input, &mut |member, content| {
            let Some(&(label, given)) = self.kept.get(&member.index) else { return Ok(()) };
            let is_wanted = pick.wants(at);
            at += 1;
            if !is_wanted {
                return Ok(());
            }
            let content = if member.kind != Kind::File {
                Content::Bad("is not a regular file; links inside an archive are not followed".to_owned().into())
            } else if let Err(reason) = self.limits.check_bytes(member.size) {
                Content::Bad(too_large(reason))
            } else {
                Content::Encoded(input::read_len(content, member.size, &self.input)?)
            };
            each(Sample { path: member.path.to_owned(), label, given, group: None, cells: Vec::new(), content })
        })?;
        if at != self.n_samples() {
            return Err(self.input.wrong("changed while it was read"));
        }
        Ok(())
    }
}

struct CifarReader {
    input: Input,
    batches: cifar::Sized,
    /// Members that nothing replaces, by index in the archive.
    kept: HashSet<usize>,
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
        walk(&self.input, &mut |member, content| {
            if member.kind != Kind::File || !Batch::is_named(member.path) || !self.kept.contains(&member.index) {
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

    fn record(key: &str, value: &str) -> Vec<u8> {
        let tail = format!(" {key}={value}\n");
        let len = (tail.len() + 1..).find(|len| len.to_string().len() + tail.len() == *len).unwrap();
        format!("{len}{tail}").into_bytes()
    }

    /// An archive whose second image stands behind `headers`.
    fn behind(headers: &[(tar::EntryType, Vec<u8>)]) -> (tempfile::TempDir, std::path::PathBuf) {
        let image = png(1, 1, &[7]);
        let mut out = Vec::new();
        append(&mut out, "a/1.png", tar::EntryType::Regular, &image);
        for (kind, bytes) in headers {
            append(&mut out, "header", *kind, bytes);
        }
        append(&mut out, "b/2.png", tar::EntryType::Regular, &image);
        out.resize(out.len() + 1024, 0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive");
        std::fs::write(&path, out).unwrap();
        (folder, path)
    }

    #[test]
    fn long_names_are_read_with_all_their_characters() {
        use tar::EntryType::{GNULongName, XGlobalHeader, XHeader};
        let long = format!("c/{}.png", "x".repeat(200));
        for (headers, expected) in [
            (vec![(XHeader, record("path", "c\nd/2.png"))], "c\nd/2.png"),
            (vec![(XHeader, [record("mtime", "1.5"), record("path", &long)].concat())], &long),
            (vec![(GNULongName, format!("{long}\0").into_bytes())], &long),
            (vec![(XGlobalHeader, record("comment", "x"))], "b/2.png"),
            (vec![(XHeader, record("size", &png(1, 1, &[7]).len().to_string()))], "b/2.png"),
        ] {
            let (_folder, path) = behind(&headers);
            assert_eq!(collect(&path, None).1[1].path, expected);
        }
    }

    #[test]
    fn headers_that_do_not_parse_or_never_end_are_errors() {
        use tar::EntryType::{GNULongName, XGlobalHeader, XHeader};
        for (headers, expected) in [
            (vec![(XHeader, b"999999999999 a=b\n".to_vec())], "holds a PAX header that does not parse"),
            (vec![(XHeader, b"7 a=bcd\n".to_vec())], "holds a PAX header that does not parse"),
            (vec![(XHeader, record("size", "many"))], "holds a PAX header that does not parse"),
            (vec![(XGlobalHeader, b"x".to_vec())], "holds a PAX header that does not parse"),
            (vec![(XHeader, record("size", "4"))], "whose size is said twice"),
            (vec![(XHeader, record("path", "../x.png"))], "which leaves the archive"),
            (vec![(GNULongName, vec![b'a'; (1 << 20) + 1])], "has a header of 1048577 bytes between its members"),
            (vec![(XHeader, vec![b'a'; (1 << 20) + 1])], "has a header of 1048577 bytes between its members"),
        ] {
            let (_folder, path) = behind(&headers);
            let error = error_of(&path);
            assert!(error.contains(expected), "{error}");
        }
    }

    fn find_reader(path: &std::path::Path) -> Box<dyn Reader> {
        super::super::find(path, &Default::default(), "auto").unwrap().open(&super::super::testing::LIMITS).unwrap()
    }

    #[test]
    fn an_archive_without_images_says_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive");
        for (name, bytes, expected) in [
            ("a/x.parquet", &b"PAR1\x15"[..], "has no image among its 1 file: `a/x.parquet` is a Parquet file"),
            ("a/x.txt", b"text", "has no image among its 1 file, such as `a/x.txt`"),
        ] {
            std::fs::write(&path, archive(&[(name, bytes)])).unwrap();
            assert!(error_of(&path).contains(expected), "{}", error_of(&path));
        }
    }

    #[test]
    fn of_members_of_one_path_the_last_one_counts() {
        let bytes = archive(&[
            ("a/1.png", &png(1, 1, &[7])),
            ("b/1.png", &png(1, 1, &[8])),
            ("a/1.png", &png(1, 1, &[9])),
            ("b/notes.txt", b"x"),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive");
        std::fs::write(&path, bytes).unwrap();
        let (_, samples) = collect(&path, None);
        let seen: Vec<_> = samples.iter().map(|s| (s.path.as_str(), s.image.as_ref().unwrap().0.pixels[0])).collect();
        assert_eq!(seen, [("b/1.png", 8), ("a/1.png", 9)]);
        let reader = find_reader(&path);
        let aside = reader.aside().unwrap();
        assert_eq!(aside.images, [("a/1.png".to_owned(), "is replaced by a later member of that path")]);
        assert_eq!(aside.others, ["b/notes.txt"]);
    }

    #[test]
    fn hostile_archives_are_errors() {
        let image = png(1, 1, &[7]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive");
        for outside in ["../a/1.png", "/a/1.png", "a/../../1.png", "..\\a\\1.png", "C:\\a\\1.png"] {
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
