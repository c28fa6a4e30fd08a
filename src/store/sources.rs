//! Files from outside, by content. The stat index makes the no-op fast: content decides, stamps only save reading it.
//!
//! A folder's digest covers the relative path and content of every visible file and folder below it; links are
//! followed, hidden names, what file managers leave behind and what we write are left out, as ingest leaves them out.
//! Text beside images (a manifest, a log) stands in it by its path alone, so does what is no regular file (a FIFO, a
//! loop of links, a file that cannot be read): ingest will say what it thinks of it.
//!
//! The index remembers, per folder, the stamps of its folders and files. Where a folder's own stamp is unchanged its
//! listing is, so its files are looked up one by one and nothing is read. A file whose stamp was taken in the same tick
//! of the clock as its last change is written with an empty stamp (smudged), and hashed once more next time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;

use super::digest::Digest;
use super::stamp::{self, Stamp, stamp_of};
use super::{Error, Store};
use crate::files::{is_hidden, is_lasting, is_no_source, is_text_name, open_regular};

/// Something to be digested.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A file, by its content.
    File(PathBuf),
    /// A folder, by all that is below it.
    Folder(PathBuf),
}

/// How a folder differs from what it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files that are new.
    pub added: usize,
    /// Files that are no more.
    pub removed: usize,
    /// Files with other content.
    pub changed: usize,
    /// The first of them by path.
    pub first: String,
}

impl Changes {
    /// The first file that changed, came or went.
    pub fn first(&self) -> &str {
        &self.first
    }
}

impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = [(self.changed, "changed"), (self.added, "added"), (self.removed, "removed")];
        let counts: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        let is_one = self.changed + self.added + self.removed == 1;
        write!(f, "{}, {}`{}`", counts.join(", "), if is_one { "" } else { "first " }, self.first)
    }
}

/// A file or folder as the index knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    /// Relative to the folder (to the project's root, for single files), `/` between names.
    path: Vec<u8>,
    is_folder: bool,
    /// Empty: not to be trusted.
    stamp: Stamp,
    digest: Digest,
}

/// Where listings of folders are, by the digest of the folder.
const TREES: &str = "index/trees";

/// Files with different jobs for a marker instead of content.
const NOT_REGULAR: &[u8] = b"convoy: not a regular file";
const NOT_READABLE: &[u8] = b"convoy: not readable";
const TEXT: &[u8] = b"convoy: text beside images";

impl Store {
    /// The digest of each place. Runs on the current rayon pool. `told` hears of bytes read, a few at a time; where the
    /// index knows everything it hears nothing.
    ///
    /// # Errors
    /// If a single file, or the folder itself, cannot be read.
    pub fn digest_sources(&self, places: &[Place], told: &(dyn Fn(u64) + Sync)) -> Result<Vec<Digest>, Error> {
        let files: Vec<&Path> = places
            .iter()
            .filter_map(|place| match place {
                Place::File(path) => Some(path.as_path()),
                Place::Folder(_) => None,
            })
            .collect();
        let mut file_digests = self.digest_files(&files, told)?.into_iter();
        places
            .iter()
            .map(|place| match place {
                Place::File(path) => {
                    file_digests.next().ok_or_else(|| Error::io("read", path)(io::ErrorKind::NotFound.into()))
                }
                Place::Folder(path) => self.digest_folder(path, told),
            })
            .collect()
    }

    fn digest_files(&self, paths: &[&Path], told: &(dyn Fn(u64) + Sync)) -> Result<Vec<Digest>, Error> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let mut index: HashMap<Vec<u8>, Record> =
            self.load_index("files").into_iter().map(|record| (record.path.clone(), record)).collect();
        let looked_up: Vec<(Record, bool)> = paths
            .par_iter()
            .map(|path| {
                let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
                let key = self.key(path);
                match index.get(&key) {
                    Some(record) if metadata.is_file() && record.stamp == Stamp::of(&metadata) => {
                        Ok((record.clone(), false))
                    }
                    _ => {
                        let (stamp, digest) = hash(path, told).map_err(Error::io("read", path))?;
                        Ok((Record { path: key, is_folder: false, stamp, digest }, true))
                    }
                }
            })
            .collect::<Result<_, Error>>()?;
        let digests = looked_up.iter().map(|(record, _)| record.digest).collect();
        if looked_up.iter().any(|(_, is_new)| *is_new) {
            index.extend(looked_up.into_iter().map(|(record, _)| (record.path.clone(), record)));
            let mut records: Vec<Record> = index.into_values().collect();
            records.sort_by(|a, b| a.path.cmp(&b.path));
            self.save_index("files", &records);
        }
        Ok(digests)
    }

    fn digest_folder(&self, root: &Path, told: &(dyn Fn(u64) + Sync)) -> Result<Digest, Error> {
        let metadata = fs::metadata(root).map_err(Error::io("read", root))?;
        if !metadata.is_dir() {
            return Err(Error::io("read", root)(io::ErrorKind::NotADirectory.into()));
        }
        let name = format!("folder-{}", Digest::of(&self.key(root)));
        let old = self.load_index(&name);
        let is_listed = !old.is_empty()
            && old
                .par_iter()
                .filter(|record| record.is_folder)
                .all(|record| stamp_of(&root.join(to_path(&record.path))).is_ok_and(|stamp| stamp == record.stamp));
        if is_listed {
            let is_unchanged = old.par_iter().all(|record| {
                record.is_folder
                    || match fs::metadata(root.join(to_path(&record.path))) {
                        Ok(metadata) if metadata.is_file() => Stamp::of(&metadata) == record.stamp,
                        Ok(_) => record.digest == Digest::of(NOT_REGULAR),
                        Err(_) => record.digest == Digest::of(NOT_READABLE),
                    }
            });
            if is_unchanged {
                return Ok(tree_digest(&old));
            }
        }
        let old: HashMap<&[u8], &Record> =
            old.iter().filter(|record| !record.is_folder).map(|record| (record.path.as_slice(), record)).collect();
        let mut listed = list(root)?;
        listed.par_iter_mut().filter(|record| !record.is_folder).try_for_each(|record| {
            let path = root.join(to_path(&record.path));
            let hashed = match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() && is_text_name(&path) => {
                    Ok((Stamp::of(&metadata), Digest::of(TEXT)))
                }
                Ok(metadata) if metadata.is_file() => match old.get(record.path.as_slice()) {
                    Some(known) if known.stamp == Stamp::of(&metadata) => Ok((known.stamp, known.digest)),
                    _ => hash(&path, told),
                },
                Ok(_) => Ok((Stamp::default(), Digest::of(NOT_REGULAR))),
                Err(error) => Err(error),
            };
            (record.stamp, record.digest) = match hashed {
                Ok(hashed) => hashed,
                Err(error) if is_lasting(&error) => (Stamp::default(), Digest::of(NOT_READABLE)),
                // A disk that fails now and not when the file is ingested would give its content a wrong name.
                Err(error) => return Err(Error::io("read", &path)(error)),
            };
            Ok(())
        })?;
        let digest = tree_digest(&listed);
        self.save_index(&name, &listed);
        self.save_tree(&digest, listed);
        Ok(digest)
    }

    /// A digest of the stamps of all that lies at these places, as they are now: equal before and after something was
    /// done, nothing there was written meanwhile, not even if it was put back.
    ///
    /// # Errors
    /// If a folder cannot be listed.
    pub fn witness(&self, places: &[Place]) -> Result<Digest, Error> {
        let mut hasher = blake3::Hasher::new();
        let mut note = |path: &Path, has_content: bool| {
            hasher.update(&(path.as_os_str().len() as u64).to_le_bytes());
            hasher.update(&to_bytes(path));
            let stamp = if has_content { stamp_of(path).unwrap_or_default() } else { Stamp::default() };
            hasher.update(&stamp.to_bytes());
        };
        for place in places {
            match place {
                Place::File(path) => note(path, true),
                Place::Folder(root) => {
                    for record in list(root)? {
                        let path = root.join(to_path(&record.path));
                        note(&path, record.is_folder || !is_text_name(&path));
                    }
                }
            }
        }
        Ok(Digest(*hasher.finalize().as_bytes()))
    }

    /// How the folder with digest `new` differs from the one with digest `old`, if both are remembered.
    pub fn folder_changes(&self, old: &Digest, new: &Digest) -> Option<Changes> {
        let (old, new) = (shown_in(self.load_tree(old)?), shown_in(self.load_tree(new)?));
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        let mut changes = Changes::default();
        let mut note = |record: &Record, kind: fn(&mut Changes) -> &mut usize| {
            *kind(&mut changes) += 1;
            if changes.first.is_empty() {
                changes.first = String::from_utf8_lossy(&record.path).into_owned();
            }
        };
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.path.cmp(&b.path),
            };
            let before = if order.is_le() { old.next() } else { None };
            let after = if order.is_ge() { new.next() } else { None };
            match (before, after) {
                (Some(before), Some(after)) if before.digest != after.digest => note(after, |c| &mut c.changed),
                (Some(before), None) => note(before, |c| &mut c.removed),
                (None, Some(after)) => note(after, |c| &mut c.added),
                _ => {}
            }
        }
        Some(changes)
    }

    /// The content of each regular file in the folder with this digest, by its path with `/` between names, if that is
    /// remembered: believed only if it gives that digest.
    pub fn folder_files(&self, digest: &Digest) -> Option<BTreeMap<String, Digest>> {
        let is_content = |record: &Record| ![NOT_REGULAR, NOT_READABLE, TEXT].map(Digest::of).contains(&record.digest);
        let files = self.load_tree(digest)?.into_iter().filter(|record| !record.is_folder && is_content(record));
        Some(files.filter_map(|record| Some((String::from_utf8(record.path).ok()?, record.digest))).collect())
    }

    /// Whether `folder` holds what was noted of it last by [`Store::note_outputs`] under the same `key`, by the files' stamps:
    /// then nobody has written to these files since.
    pub fn knows_outputs(&self, folder: &Path, key: &Digest, files: &BTreeMap<PathBuf, Digest>) -> bool {
        let known = self.load_index(&self.outputs_name(folder));
        let Some((head, known)) = known.split_first().filter(|(head, _)| head.is_folder && head.digest == *key) else {
            return false;
        };
        let is_as_noted = |(record, (name, digest)): (&Record, (&PathBuf, &Digest))| {
            record.path == to_bytes(name)
                && record.digest == *digest
                && fs::symlink_metadata(folder.join(name))
                    .is_ok_and(|metadata| metadata.is_file() && Stamp::of(&metadata) == record.stamp)
        };
        head.path.is_empty() && known.len() == files.len() && known.iter().zip(files).all(is_as_noted)
    }

    /// Notes that `folder` holds these files (by their path within it, with the digests of their content), which were made
    /// from what `key` stands for and were written or compared no earlier than `since`.
    pub fn note_outputs(&self, folder: &Path, key: Digest, files: &BTreeMap<PathBuf, Digest>, since: SystemTime) {
        if stamp::is_remote(folder) {
            return;
        }
        let since = stamp::since_epoch(since);
        let mut records = vec![Record { path: Vec::new(), is_folder: true, stamp: Stamp::default(), digest: key }];
        records.extend(files.iter().map(|(name, digest)| {
            let stamp = fs::symlink_metadata(folder.join(name)).ok().map(|metadata| Stamp::of(&metadata));
            let stamp = stamp.filter(|stamp| stamp.is_settled(since)).unwrap_or_default();
            Record { path: to_bytes(name), is_folder: false, stamp, digest: *digest }
        }));
        self.save_index(&self.outputs_name(folder), &records);
    }

    fn outputs_name(&self, folder: &Path) -> String {
        format!("outputs-{}", Digest::of(&self.key(folder)))
    }

    /// What the index calls a path: relative to the project where it is inside, so that a moved project is known.
    fn key(&self, path: &Path) -> Vec<u8> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        to_bytes(path.strip_prefix(&self.base).unwrap_or(&path))
    }

    fn load_index(&self, name: &str) -> Vec<Record> {
        if self.is_remote {
            return Vec::new();
        }
        // Without an index everything is hashed once more.
        self.read_note("index", name).ok().flatten().and_then(|bytes| decode(&bytes)).unwrap_or_default()
    }

    fn save_index(&self, name: &str, records: &[Record]) {
        if self.may_remember() {
            // A lost index costs hashing.
            let _ = self.write_note("index", name, &encode(records));
        }
    }

    /// Remembers a listing, so that a later run can say which files changed, and need not read what did not.
    fn save_tree(&self, digest: &Digest, mut records: Vec<Record>) {
        let name = digest.to_string();
        if !self.may_remember() || matches!(self.read_note(TREES, &name), Ok(Some(_))) {
            return;
        }
        records.iter_mut().for_each(|record| record.stamp = Stamp::default());
        // Without it the reason is less precise.
        let _ = self.write_note(TREES, &name, &encode(&records));
    }

    /// The listing that has this digest.
    fn load_tree(&self, digest: &Digest) -> Option<Vec<Record>> {
        let records = decode(&self.read_note(TREES, &digest.to_string()).ok()??)?;
        (tree_digest(&records) == *digest).then_some(records)
    }
}

/// What is told of a listing: folders are told by their files; those without any by themselves.
fn shown_in(mut records: Vec<Record>) -> Vec<Record> {
    let parents: BTreeSet<Vec<u8>> = records
        .iter()
        .filter_map(|record| Some(record.path[..record.path.iter().rposition(|&b| b == b'/')?].to_vec()))
        .collect();
    records.retain(|record| !record.is_folder || !record.path.is_empty() && !parents.contains(&record.path));
    records.iter_mut().filter(|record| record.is_folder).for_each(|record| record.path.push(b'/'));
    records.sort_by(|a, b| a.path.cmp(&b.path));
    records
}

/// Longest piece that is read at once; shorter files are read whole.
const PIECE: u64 = 1 << 20;

/// Stamp and digest of a regular file; the stamp is empty if it may have changed meanwhile.
fn hash(path: &Path, told: &(dyn Fn(u64) + Sync)) -> io::Result<(Stamp, Digest)> {
    let at = stamp::now();
    let (mut file, metadata) = open_regular(path)?;
    let before = Stamp::of(&metadata);
    let mut hasher = blake3::Hasher::new();
    // One byte more than the file has, so that its end is seen at once.
    let mut piece = vec![0; (before.size + 1).min(PIECE) as usize];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&piece[..n]);
                told(n as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let digest = Digest(*hasher.finalize().as_bytes());
    let is_calm = before.is_settled(at) && stamp_of(path)? == before;
    Ok((if is_calm { before } else { Stamp::default() }, digest))
}

/// Every source below `root`, sorted by path; folders with their stamps, files without anything yet.
fn list(root: &Path) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    let at = stamp::now();
    let is_source =
        |entry: &walkdir::DirEntry| entry.depth() == 0 || !is_no_source(entry.path(), entry.file_type().is_dir());
    for entry in walkdir::WalkDir::new(root).follow_links(true).into_iter().filter_entry(is_source) {
        let (path, is_folder) = match entry {
            Ok(entry) => {
                let is_folder = entry.file_type().is_dir();
                (entry.into_path(), is_folder)
            }
            Err(error) => {
                let path = error.path().unwrap_or(root).to_owned();
                let is_loop = error.loop_ancestor().is_some();
                match error.into_io_error() {
                    Some(error) if path == root || !is_lasting(&error) => return Err(Error::io("read", &path)(error)),
                    None if !is_loop => return Err(Error::io("read", &path)(io::ErrorKind::Other.into())),
                    _ => (path, false),
                }
            }
        };
        if path != root && path.file_name().is_some_and(is_hidden) {
            // A dangling link is an error before its name is looked at.
            continue;
        }
        let stamp = match is_folder {
            true => stamp_of(&path).ok().filter(|stamp| stamp.is_settled(at)).unwrap_or_default(),
            false => Stamp::default(),
        };
        let path = to_bytes(path.strip_prefix(root).unwrap_or(&path));
        records.push(Record { path, is_folder, stamp, digest: Digest([0; 32]) });
    }
    records.sort_by(|a, b| a.path.cmp(&b.path));
    // A folder that cannot be read is listed twice: as a folder, and as an error.
    records.dedup_by(|a, b| a.path == b.path);
    Ok(records)
}

fn tree_digest(records: &[Record]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"convoy folder 1");
    for record in records {
        hasher.update(&[u8::from(record.is_folder)]);
        hasher.update(&(record.path.len() as u64).to_le_bytes());
        hasher.update(&record.path);
        hasher.update(&record.digest.0);
    }
    Digest(*hasher.finalize().as_bytes())
}

fn encode(records: &[Record]) -> Vec<u8> {
    let mut bytes = b"convoy index 1\n".to_vec();
    for record in records {
        bytes.push(u8::from(record.is_folder));
        bytes.extend_from_slice(&(record.path.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&record.path);
        bytes.extend_from_slice(&record.stamp.to_bytes());
        bytes.extend_from_slice(&record.digest.0);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<Record>> {
    let mut rest = bytes.strip_prefix(b"convoy index 1\n")?;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (&is_folder, tail) = rest.split_first()?;
        let (length, tail) = tail.split_first_chunk::<4>()?;
        let (path, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let (stamp, tail) = tail.split_first_chunk::<32>()?;
        let (digest, tail) = tail.split_first_chunk::<32>()?;
        records.push(Record {
            path: path.to_owned(),
            is_folder: is_folder == 1,
            stamp: Stamp::from_bytes(stamp),
            digest: Digest(*digest),
        });
        rest = tail;
    }
    Some(records)
}

#[cfg(unix)]
fn to_bytes(path: &Path) -> Vec<u8> {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_owned()
}

#[cfg(unix)]
fn to_path(bytes: &[u8]) -> &Path {
    Path::new(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes))
}

#[cfg(not(unix))]
fn to_bytes(path: &Path) -> Vec<u8> {
    path.to_string_lossy().replace('\\', "/").into_bytes()
}

#[cfg(not(unix))]
fn to_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Access;
    use super::*;

    struct Project {
        temp: tempfile::TempDir,
    }

    impl Project {
        fn new() -> Project {
            let temp = tempfile::tempdir().unwrap();
            for (name, content) in [("a/1.png", "one"), ("a/2.png", "two"), ("b/1.png", "three")] {
                let path = temp.path().join("p/images").join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            Project { temp }
        }

        fn images(&self) -> PathBuf {
            self.temp.path().join("p/images")
        }

        fn digest_at(&self, root: &Path) -> Digest {
            let store = Store::open(&root.join(".convoy"), root, Access::Write).unwrap();
            store.digest_sources(&[Place::Folder(root.join("images"))], &|_| ()).unwrap()[0]
        }

        fn digest(&self) -> Digest {
            self.digest_at(&self.temp.path().join("p"))
        }
    }

    #[test]
    fn outputs_are_known_while_nobody_wrote_to_them_and_for_one_key_only() {
        let project = Project::new();
        let (root, folder) = (project.temp.path().join("p"), project.images());
        let store = Store::open(&root.join(".convoy"), &root, Access::Write).unwrap();
        let (key, other) = (Digest::of(b"key"), Digest::of(b"other"));
        let mut files: BTreeMap<PathBuf, Digest> = BTreeMap::new();
        for (name, content) in [("a/1.png", "one"), ("b/1.png", "three")] {
            files.insert(PathBuf::from(name), Digest::of(content.as_bytes()));
        }
        let note = || {
            std::thread::sleep(Duration::from_millis(150));
            store.note_outputs(&folder, key, &files, SystemTime::now());
            assert!(store.knows_outputs(&folder, &key, &files));
        };
        assert!(!store.knows_outputs(&folder, &key, &files), "nothing was noted");
        store.note_outputs(&folder, key, &files, SystemTime::UNIX_EPOCH);
        assert!(!store.knows_outputs(&folder, &key, &files), "written since");
        note();
        assert!(!store.knows_outputs(&folder, &other, &files), "of another key");
        assert!(!store.knows_outputs(&root, &key, &files), "another folder");
        let fewer: BTreeMap<_, _> = files.clone().into_iter().take(1).collect();
        assert!(!store.knows_outputs(&folder, &key, &fewer), "other files");
        let digests: BTreeMap<_, _> = files.keys().map(|name| (name.clone(), other)).collect();
        assert!(!store.knows_outputs(&folder, &key, &digests), "other digests");
        let path = folder.join("a/1.png");
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "eno").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert!(!store.knows_outputs(&folder, &key, &files), "same size and time, other content");
        note();
        fs::remove_file(&path).unwrap();
        assert!(!store.knows_outputs(&folder, &key, &files), "one is gone");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(folder.join("a/2.png"), &path).unwrap();
            assert!(!store.knows_outputs(&folder, &key, &files), "a link in its place");
        }
    }

    #[test]
    fn content_and_names_decide_times_and_place_do_not() {
        let project = Project::new();
        let first = project.digest();
        assert_eq!(project.digest(), first);
        fs::File::open(project.images().join("a/1.png")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(project.digest(), first, "touched");
        let moved = project.temp.path().join("q");
        fs::rename(project.temp.path().join("p"), &moved).unwrap();
        assert_eq!(project.digest_at(&moved), first, "moved");
        fs::write(moved.join("images/.hidden"), "x").unwrap();
        fs::write(moved.join("images/a/Thumbs.db"), "x").unwrap();
        assert_eq!(project.digest_at(&moved), first, "hidden");
        type Edit = fn(&Path);
        let edits: &[Edit] = &[
            |p| fs::write(p.join("a/1.png"), "One").unwrap(),
            |p| fs::rename(p.join("a/1.png"), p.join("a/0.png")).unwrap(),
            |p| fs::rename(p.join("b"), p.join("c")).unwrap(),
            |p| fs::create_dir(p.join("d")).unwrap(),
            |p| fs::write(p.join("d/x"), "").unwrap(),
            |p| fs::remove_file(p.join("d/x")).unwrap(),
        ];
        let mut seen = vec![first];
        for (i, edit) in edits.iter().enumerate() {
            edit(&moved.join("images"));
            let digest = project.digest_at(&moved);
            // The last edit undoes the one before it.
            assert_eq!(seen.contains(&digest), i == 5, "edit {i}");
            seen.push(digest);
        }
    }

    #[test]
    fn an_edit_in_the_same_tick_is_seen() {
        let project = Project::new();
        for i in 0..20 {
            let path = project.images().join("a/1.png");
            fs::write(&path, format!("{i:03}")).unwrap();
            let first = project.digest();
            fs::write(&path, format!("{:03}", i + 100)).unwrap();
            assert_ne!(project.digest(), first, "round {i}");
        }
    }

    #[test]
    fn settled_files_are_not_read_again() {
        let project = Project::new();
        std::thread::sleep(Duration::from_millis(150));
        let first = project.digest();
        let root = project.temp.path().join("p");
        let store = Store::open(&root.join(".convoy"), &root, Access::Write).unwrap();
        let name = format!("folder-{}", Digest::of(&store.key(&root.join("images"))));
        let mut records = store.load_index(&name);
        assert!(records.iter().all(|record| record.stamp != Stamp::default()));
        // A lie in the index is believed, so nothing was read.
        let at = records.iter().position(|record| record.path == b"a/1.png").unwrap();
        records[at].digest = Digest::of(b"a lie");
        store.save_index(&name, &records);
        assert_ne!(project.digest(), first);
    }

    #[test]
    fn changes_are_named() {
        let project = Project::new();
        let first = project.digest();
        fs::write(project.images().join("a/2.png"), "TWO").unwrap();
        fs::write(project.images().join("b/2.png"), "four").unwrap();
        fs::remove_file(project.images().join("b/1.png")).unwrap();
        let second = project.digest();
        let root = project.temp.path().join("p");
        let store = Store::open(&root.join(".convoy"), &root, Access::Look).unwrap();
        let changes = Changes { added: 1, removed: 1, changed: 1, first: "a/2.png".into() };
        assert_eq!(store.folder_changes(&first, &second), Some(changes));
        assert_eq!(store.folder_changes(&first, &Digest::of(b"?")), None);
    }

    #[cfg(unix)]
    #[test]
    fn loops_and_dangling_links_are_marked_not_followed() {
        let project = Project::new();
        let first = project.digest();
        std::os::unix::fs::symlink(project.images(), project.images().join("a/loop")).unwrap();
        let second = project.digest();
        assert_ne!(first, second);
        assert_eq!(project.digest(), second);
        std::os::unix::fs::symlink("nowhere", project.images().join("a/dangling")).unwrap();
        let third = project.digest();
        assert_ne!(second, third);
        std::os::unix::fs::symlink("nowhere", project.images().join("a/.dangling")).unwrap();
        assert_eq!(project.digest(), third);
    }

    #[test]
    fn text_beside_images_counts_by_its_name_alone() {
        let project = Project::new();
        let first = project.digest();
        let log = project.images().join("run.LOG");
        fs::write(&log, "one").unwrap();
        let with = project.digest();
        assert_ne!(with, first);
        let store = Store::open(&project.temp.path().join("p/.convoy"), &project.temp.path().join("p"), Access::Write);
        let (store, place) = (store.unwrap(), [Place::Folder(project.images())]);
        let seen = store.witness(&place).unwrap();
        fs::write(&log, "one and two").unwrap();
        assert_eq!((project.digest(), store.witness(&place).unwrap()), (with, seen));
        fs::write(project.images().join("a/1.png"), "another").unwrap();
        assert!(project.digest() != with && store.witness(&place).unwrap() != seen);
    }

    #[test]
    fn single_files_are_digested_by_content() {
        let project = Project::new();
        let root = project.temp.path().join("p");
        let store = Store::open(&root.join(".convoy"), &root, Access::Write).unwrap();
        let one = Place::File(root.join("images/a/1.png"));
        let digests =
            store.digest_sources(&[one.clone(), Place::File(root.join("images/a/2.png")), one], &|_| ()).unwrap();
        assert_eq!(digests, [Digest::of(b"one"), Digest::of(b"two"), Digest::of(b"one")]);
        let error = store.digest_sources(&[Place::File(root.join("absent"))], &|_| ()).unwrap_err();
        assert!(error.to_string().contains("absent`: no such file"), "{error}");
    }

    #[test]
    fn an_index_survives_its_bytes() {
        let records = vec![Record {
            path: b"a/b".to_vec(),
            is_folder: false,
            stamp: Stamp { inode: 1, size: 2, modified: 3, changed: 4 },
            digest: Digest::of(b"x"),
        }];
        let bytes = encode(&records);
        assert_eq!(decode(&bytes), Some(records));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
    }
}
