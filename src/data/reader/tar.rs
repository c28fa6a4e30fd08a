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
pub fn find(query: &Query<'_>) -> Result<Option<Box<dyn Found>>, Error> {
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

/// Walks an archive. `visit` gets each path that is not hidden, cleaned, with its kind, size and content.
fn walk(
    input: &Input,
    visit: &mut dyn FnMut(&str, Kind, u64, &mut dyn Read) -> Result<(), Error>,
) -> Result<(), Error> {
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
