//! An archive of records and blobs, to be carried to another store, and what of one is believed.
//!
//! A plain tar file with the same bytes for the same content: `convoy-pack` (what follows), then `ac/FINGERPRINT` and
//! `cas/DIGEST`, each sorted, and nothing else. Of an archive nothing is published before all of it was read: a record
//! counts only if it hashes to its name, a blob only if it does and a record of the archive names it. Names become no
//! paths: what is written lies in a draft of the store under a number, and goes to its place under its digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};

use super::digest::Digest;
use super::entry::{self, Entry, Output};
use super::read::{MOST, Stored};
use super::stamp::Stamp;
use super::{Error, Store};
use crate::artifact::Sink;
use crate::files::{self, Calls, Folder, Own, System};

/// The name of the first member.
const HEAD: &str = "convoy-pack";
/// Its first line, with the format's number.
const WORDS: &str = "convoy pack ";
const VERSION: u32 = 1;
/// More is no head of ours, in bytes.
const MOST_HEAD: u64 = 256;

/// What an archive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Records.
    pub records: usize,
    /// Blobs.
    pub blobs: usize,
    /// Bytes of the archive.
    pub bytes: u64,
    /// Blobs that were asked for and are not in the store.
    pub absent: usize,
}

/// What came out of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Records that it holds.
    pub records: usize,
    /// Those of them that the store did not have.
    pub new_records: usize,
    /// Blobs that it holds.
    pub blobs: usize,
    /// Those of them that the store did not have.
    pub new_blobs: usize,
}

/// Why an archive was refused. The store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It is none of ours, or damaged, or made to do harm.
    #[error("`{path}` {what}", path = path.display())]
    Refused {
        /// The archive.
        path: PathBuf,
        /// What is wrong, by the member's name.
        what: String,
    },
    /// It says other bytes than what is believed already.
    #[error("`{path}` says other bytes for `{task}` than {whom}", path = path.display())]
    Contradicts {
        /// The archive.
        path: PathBuf,
        /// The task, as it was called.
        task: String,
        /// "the store", or a lock file.
        whom: String,
    },
    /// The store, or a file.
    #[error(transparent)]
    Store(#[from] Error),
}

/// A member of the archive, by what its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Member {
    Record(Digest),
    Blob(Digest),
}

impl Member {
    fn parse(name: &str) -> Option<Member> {
        let (folder, digest) = name.split_once('/')?;
        let digest = digest.parse().ok()?;
        match folder {
            "ac" => Some(Member::Record(digest)),
            "cas" => Some(Member::Blob(digest)),
            _ => None,
        }
    }
}

fn header(size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header
}

/// Counts what goes through.
struct Counted<W> {
    to: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A member of an archive: its name, its bytes in number, and itself.
type Streamed<'a> = (String, u64, tar::Entry<'a, BufReader<File>>);

impl Store {
    /// Whether a blob of this size is here. Its content is not looked at.
    ///
    /// # Errors
    /// If that cannot be found out.
    pub fn has_blob(&self, output: &Output) -> Result<bool, Error> {
        let path = self.blob_path(&output.digest);
        let seen = files::seen(&path).map_err(Error::io("read", &path))?;
        Ok(matches!(seen, Some(Ok(metadata)) if metadata.len() == output.size))
    }

    /// Whether a blob of this digest is here, whatever its size. What cannot be found out is for who reads it to tell.
    pub fn has_digest(&self, digest: &Digest) -> bool {
        !matches!(files::seen(&self.blob_path(digest)), Ok(None))
    }

    /// Where the record of a fingerprint is, if it is here.
    pub fn place_of_record(&self, fingerprint: &Digest) -> PathBuf {
        self.entry_path(fingerprint)
    }

    /// Where a blob is, if it is here.
    pub fn place_of_blob(&self, digest: &Digest) -> PathBuf {
        self.blob_path(digest)
    }

    /// Writes `entries`, and of their files those that are `wanted` by name and here, to the archive `path`, atomically.
    ///
    /// # Errors
    /// If a record or a blob cannot be read or is damaged; if the archive cannot be written. What was there is there, then.
    pub fn pack(
        &self,
        path: &Path,
        entries: &[Entry],
        wanted: &dyn Fn(&Entry, &Output) -> bool,
    ) -> Result<Packed, Error> {
        let records: BTreeSet<Digest> = entries.iter().map(|entry| entry.fingerprint).collect();
        let mut blobs: BTreeMap<Digest, &Output> = BTreeMap::new();
        let mut absent = BTreeSet::new();
        for entry in entries {
            for output in entry.outputs.iter().filter(|output| wanted(entry, output)) {
                if self.has_blob(output)? {
                    blobs.insert(output.digest, output);
                } else {
                    absent.insert(output.digest);
                }
            }
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let name = files::unused_name(files::BESIDE);
        let temporary = folder.join(&name);
        let written = self.write_pack(&temporary, path, &records, &blobs);
        if written.is_err() {
            // What stays is swept next time.
            let _ = Folder::open(folder).and_then(|folder| System.unlink(&folder, &name));
        }
        written.map(|bytes| Packed { records: records.len(), blobs: blobs.len(), bytes, absent: absent.len() })
    }

    fn write_pack(
        &self,
        temporary: &Path,
        path: &Path,
        records: &BTreeSet<Digest>,
        blobs: &BTreeMap<Digest, &Output>,
    ) -> Result<u64, Error> {
        let error = || Error::io("write", path);
        let mut file = System.create(temporary).map_err(error())?;
        // Says that somebody is writing.
        let _ = file.try_lock();
        let mut builder = Builder::new(Counted { to: io::BufWriter::new(&mut file), bytes: 0 });
        let head = format!("{WORDS}{VERSION}\nrecords {}\nblobs {}\n", records.len(), blobs.len());
        builder.append_data(&mut header(head.len() as u64), HEAD, head.as_bytes()).map_err(error())?;
        for fingerprint in records {
            let place = self.entry_path(fingerprint);
            let text = self.record_text(&place)?;
            let name = format!("ac/{fingerprint}");
            builder.append_data(&mut header(text.len() as u64), name, text.as_bytes()).map_err(error())?;
        }
        for (digest, output) in blobs {
            let mut blob = self.open_checked(output)?;
            io::Seek::rewind(&mut blob).map_err(Error::io("read", &self.blob_path(digest)))?;
            let name = format!("cas/{digest}");
            builder.append_data(&mut header(output.size), name, blob.take(output.size)).map_err(error())?;
        }
        let mut counted = builder.into_inner().map_err(error())?;
        counted.flush().map_err(error())?;
        let bytes = counted.bytes;
        drop(counted);
        System.sync(&file, temporary).and_then(|()| System.rename(temporary, path)).map_err(error())?;
        Ok(bytes)
    }

    /// Brings the records and blobs of an archive into the store: all of them or, if anything about it is wrong, none.
    /// `witness` says by which lock file, and to what digest, a task's outputs are known: an archive that says otherwise
    /// is refused, as is one that contradicts a record that is here.
    ///
    /// # Errors
    /// What is wrong with the archive, by the name of its member; those of the file system.
    pub fn unpack(
        &self,
        path: &Path,
        witness: &dyn Fn(&Digest) -> Option<(Digest, String)>,
    ) -> Result<Unpacked, PackError> {
        let refused = |what: String| PackError::Refused { path: path.to_owned(), what };
        let (file, metadata) = files::open_regular(path).map_err(Error::io("read", path))?;
        let length = metadata.len();
        let mut archive = Archive::new(BufReader::new(file));
        let read_error = |error: io::Error| refused(format!("is damaged or cut short ({error})"));
        // Raw: a name that is longer than a header holds, or another extension, is a member of its own, and refused.
        let mut members = archive.entries().map_err(read_error)?.raw(true);
        let mut next = || -> Result<Option<Streamed<'_>>, PackError> {
            let Some(member) = members.next() else { return Ok(None) };
            let member = member.map_err(read_error)?;
            let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
            let size = member.header().entry_size().map_err(read_error)?;
            if member.header().entry_type() != EntryType::Regular {
                return Err(refused(format!("holds `{}`, which is no regular file", name.escape_debug())));
            }
            if member.header().as_gnu().is_some_and(|gnu| gnu.is_extended()) || size > length {
                return Err(refused(format!("holds `{}`, which cannot have its size in it", name.escape_debug())));
            }
            Ok(Some((name, size, member)))
        };
        let (n_records, n_blobs) = match next()? {
            Some((name, size, member)) if name == HEAD && size <= MOST_HEAD => {
                let mut head = String::new();
                member.take(MOST_HEAD).read_to_string(&mut head).map_err(read_error)?;
                parse_head(&head).map_err(&refused)?
            }
            _ => return Err(refused("is no archive of `convoy cache pack`".to_owned())),
        };
        let mut draft = self.draft()?;
        let mut entries: Vec<(Entry, String)> = Vec::new();
        // By digest: the size that a record says, and where the blob lies once it was read.
        let mut named: BTreeMap<Digest, Output> = BTreeMap::new();
        let mut blobs: Vec<Output> = Vec::new();
        let mut last: Option<Member> = None;
        while let Some((name, size, mut member)) = next()? {
            let shown = name.escape_debug().to_string();
            let Some(which) = Member::parse(&name) else {
                return Err(refused(format!("holds `{shown}`, which is neither a record nor a blob")));
            };
            if last.is_some_and(|last| last >= which) {
                return Err(refused(format!("holds `{shown}` twice, or out of its order")));
            }
            last = Some(which);
            match which {
                Member::Record(fingerprint) => {
                    if size > MOST {
                        return Err(refused(format!("holds the record `{shown}` of {size} bytes, more than {MOST}")));
                    }
                    let mut text = String::new();
                    member.read_to_string(&mut text).map_err(read_error)?;
                    if entry::is_newer(&text) {
                        return Err(refused(format!("holds the record `{shown}` of a newer convoy")));
                    }
                    let entry = Entry::parse(&text).filter(|entry| entry.fingerprint == fingerprint);
                    let Some(entry) = entry.filter(|_| text.len() as u64 == size) else {
                        return Err(refused(format!("holds `{shown}`, which is damaged or of another name")));
                    };
                    self.admit(path, &entry, witness)?;
                    named.extend(entry.outputs.iter().map(|output| (output.digest, output.clone())));
                    entries.push((entry, text));
                }
                Member::Blob(digest) => {
                    let Some(output) = named.get(&digest).filter(|output| output.size == size) else {
                        return Err(refused(format!("holds `{shown}`, which no record of it names with that size")));
                    };
                    let written = draft.create(&digest.to_string()).and_then(|file| copy(&mut member, file));
                    let (found, n_bytes) = written.map_err(|error| match error.kind() {
                        io::ErrorKind::UnexpectedEof => read_error(error),
                        _ => Error::io("write to", &self.dir().join("tmp"))(error).into(),
                    })?;
                    if found != digest || n_bytes != size {
                        return Err(refused(format!("holds `{shown}`, which is damaged or cut short")));
                    }
                    blobs.push(output.clone());
                }
            }
        }
        if (entries.len(), blobs.len()) != (n_records, n_blobs) {
            return Err(refused(format!(
                "holds {} records and {} blobs where its head says {n_records} and {n_blobs}: it is cut short",
                entries.len(),
                blobs.len()
            )));
        }
        let mut unpacked = Unpacked { records: entries.len(), blobs: blobs.len(), ..Unpacked::default() };
        for output in &blobs {
            unpacked.new_blobs += usize::from(!self.has_blob(output)?);
        }
        self.adopt_all(&draft, &blobs)?;
        for (entry, text) in &entries {
            let place = self.entry_path(&entry.fingerprint);
            if matches!(self.stored(&place, &entry.fingerprint)?, Stored::Whole(_)) {
                continue;
            }
            self.write_entry(&draft, &place, text.as_bytes()).map_err(Error::io("write", &place))?;
            unpacked.new_records += 1;
        }
        Ok(unpacked)
    }

    /// Whether a record of an archive agrees with what is believed already.
    fn admit(
        &self,
        path: &Path,
        entry: &Entry,
        witness: &dyn Fn(&Digest) -> Option<(Digest, String)>,
    ) -> Result<(), PackError> {
        let contradicts = |whom: String| PackError::Contradicts {
            path: path.to_owned(),
            task: entry.label.escape_debug().to_string(),
            whom,
        };
        if self.read_entry(&entry.fingerprint)?.is_some_and(|own| own.outputs != entry.outputs) {
            return Err(contradicts("the store".to_owned()));
        }
        match witness(&entry.fingerprint) {
            Some((output, whom)) if output != entry.artifact() => Err(contradicts(format!("`{whom}`"))),
            _ => Ok(()),
        }
    }

    /// The text of a record that must be there and whole.
    fn record_text(&self, path: &Path) -> Result<String, Error> {
        match files::read_own(path, MOST).map_err(Error::io("read", path))? {
            Own::Regular(_, bytes) => String::from_utf8(bytes).map_err(|_| Error::Damaged { path: path.to_owned() }),
            Own::Absent => Err(Error::io("read", path)(io::ErrorKind::NotFound.into())),
            Own::Foreign => Err(Error::Damaged { path: path.to_owned() }),
        }
    }

    /// Brings blobs of a draft, each under its digest, to their places.
    fn adopt_all(&self, draft: &super::Draft, blobs: &[Output]) -> Result<(), Error> {
        for output in blobs {
            let Some(path) = draft.place(&output.digest.to_string()) else { continue };
            self.seal(path).map_err(Error::io("write", path))?;
            let blob = self.blob_path(&output.digest);
            self.adopt(path, &blob, output).map_err(Error::io("write", &blob))?;
            if let Ok(metadata) = std::fs::symlink_metadata(&blob) {
                self.remember_stamp(output.digest, Stamp::of(&metadata));
            }
        }
        let folder = self.dir().join("cas");
        self.calls.sync_folder(&folder).map_err(Error::io("write", &folder))
    }
}

/// How many records and blobs follow.
fn parse_head(head: &str) -> Result<(usize, usize), String> {
    let mut lines = head.lines();
    let version = lines.next().and_then(|line| line.strip_prefix(WORDS)?.parse::<u32>().ok());
    match version {
        Some(VERSION) => {}
        Some(version) if version > VERSION => {
            return Err(format!(
                "is an archive of format {version}, newer than {VERSION}, the newest this program knows"
            ));
        }
        _ => return Err("is no archive of `convoy cache pack`".to_owned()),
    }
    let mut number = |word: &str| lines.next()?.strip_prefix(word)?.trim().parse().ok();
    let numbers = (number("records"), number("blobs"));
    let (Some(records), Some(blobs)) = numbers else { return Err("has a damaged head".to_owned()) };
    Ok((records, blobs))
}

/// Copies a member, and says what it holds.
fn copy(from: &mut impl Read, mut to: File) -> io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)),
        };
        if n == 0 {
            return Ok((Digest(*hasher.finalize().as_bytes()), hasher.count()));
        }
        hasher.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::fingerprint::TaskRecord;
    use super::super::{Access, Found};
    use super::*;

    fn store(temp: &tempfile::TempDir, name: &str) -> Store {
        Store::open(&temp.path().join(name), temp.path(), Access::Write).unwrap()
    }

    fn publish(store: &Store, seed: u64, content: &[u8]) -> Entry {
        let mut draft = store.draft().unwrap();
        draft.put("big.bin", content).unwrap();
        draft.put("table.csv", b"a,b\n").unwrap();
        let task = TaskRecord { seed: Some(seed), ..TaskRecord::default() };
        store.publish(draft, &task, &format!("toy {seed}"), Vec::new()).unwrap().entry
    }

    /// The archive of two tasks, without what is large, and the store that it came from.
    fn packed(temp: &tempfile::TempDir) -> (PathBuf, Store, Vec<Entry>) {
        let from = store(temp, "from");
        let entries = vec![publish(&from, 1, &[1; 5000]), publish(&from, 2, &[2; 5000])];
        let path = temp.path().join("a.tar");
        let packed = from.pack(&path, &entries, &|_, output| output.name != "big.bin").unwrap();
        assert_eq!((packed.records, packed.blobs, packed.absent), (2, 1, 0));
        assert_eq!(packed.bytes, fs::metadata(&path).unwrap().len());
        (path, from, entries)
    }

    fn unpack(store: &Store, path: &Path) -> Result<Unpacked, PackError> {
        store.unpack(path, &|_| None)
    }

    /// That nothing is in the store.
    fn assert_empty(store: &Store) {
        for folder in ["ac", "cas", "tmp", "quarantine"] {
            assert_eq!(fs::read_dir(store.dir().join(folder)).unwrap().count(), 0, "{folder}");
        }
    }

    #[test]
    fn what_is_packed_is_found_elsewhere_and_its_bytes_are_the_same_each_time() {
        let temp = tempfile::tempdir().unwrap();
        let (path, from, mut entries) = packed(&temp);
        let again = temp.path().join("b.tar");
        entries.reverse();
        from.pack(&again, &entries, &|_, output| output.name != "big.bin").unwrap();
        assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap());
        let to = store(&temp, "to");
        let expected = Unpacked { records: 2, new_records: 2, blobs: 1, new_blobs: 1 };
        assert_eq!(unpack(&to, &path).unwrap(), expected);
        assert_eq!(unpack(&to, &path).unwrap(), Unpacked { new_records: 0, new_blobs: 0, ..expected });
        for entry in &entries {
            let found = to.find(&entry.fingerprint).unwrap();
            assert_eq!(found, Found::Recorded { entry: entry.clone(), absent: "big.bin".into() });
        }
        assert_eq!(
            &**to.open_files(&entries[0], &|name| name == "table.csv").unwrap().get("table.csv").unwrap(),
            b"a,b\n"
        );
        assert!(to.open_artifact(&entries[0]).is_err());
        // What was carried can be carried on; what is not here is counted.
        let packed = to.pack(&again, &entries, &|_, _| true).unwrap();
        assert_eq!((packed.records, packed.blobs, packed.absent), (2, 1, 2));
    }

    #[test]
    fn an_archive_that_is_cut_or_damaged_anywhere_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let (path, _, _) = packed(&temp);
        let whole = fs::read(&path).unwrap();
        // The two blocks of zeros at the end say nothing.
        let end = whole.len() - 1024;
        let to = store(&temp, "to");
        for cut in (0..end).step_by(128) {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(matches!(unpack(&to, &path), Err(PackError::Refused { .. })), "cut at {cut}");
            assert_empty(&to);
        }
        for flip in (0..end).step_by(97) {
            let mut bytes = whole.clone();
            bytes[flip] ^= 1;
            fs::write(&path, &bytes).unwrap();
            if let Err(error) = unpack(&to, &path) {
                assert!(matches!(error, PackError::Refused { .. }), "flip at {flip}: {error}");
                assert_empty(&to);
            } else {
                // Padding behind a member says nothing either.
                assert!(flip % 512 != 0, "flip at {flip}");
                fs::remove_dir_all(temp.path().join("to")).unwrap();
                drop(store(&temp, "to"));
            }
        }
    }

    /// An archive with one more member behind what is there.
    fn with(whole: &[u8], header: &mut Header, name: &[u8], data: &[u8]) -> Vec<u8> {
        header.as_mut_bytes()[..100].fill(0);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_cksum();
        let mut bytes = whole[..whole.len() - 1024].to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
        bytes
    }

    #[test]
    fn hostile_members_are_refused_by_name_with_nothing_done() {
        let temp = tempfile::tempdir().unwrap();
        let (path, _, entries) = packed(&temp);
        let whole = fs::read(&path).unwrap();
        let to = store(&temp, "to");
        // Behind all others.
        let blob = format!("cas/{}", "f".repeat(64));
        let record = format!("ac/{}", entries[0].fingerprint);
        let table = format!("cas/{}", Digest::of(b"a,b\n"));
        let link = || {
            let mut header = header(0);
            header.set_entry_type(EntryType::Symlink);
            header.set_link_name("/etc/passwd").unwrap();
            header
        };
        let hard = || {
            let mut header = link();
            header.set_entry_type(EntryType::Link);
            header
        };
        let long = || {
            let mut header = header(1);
            header.set_entry_type(EntryType::GNULongName);
            header
        };
        let cases: [(&str, Header, &[u8], &str); 11] = [
            ("../../evil", header(1), b"x", "`../../evil`, which is neither"),
            ("/etc/evil", header(1), b"x", "`/etc/evil`, which is neither"),
            ("cas/../../evil", header(1), b"x", "which is neither"),
            ("index/blobs", header(1), b"x", "`index/blobs`, which is neither"),
            (&blob, link(), b"", "no regular file"),
            (&blob, hard(), b"", "no regular file"),
            ("././@LongLink", long(), b"x", "no regular file"),
            (&blob, header(1), b"x", "no record of it names"),
            (&blob, header(1 << 40), b"x", "cannot have its size"),
            (&table, header(4), b"a,b\n", "twice, or out of its order"),
            (&record, header(1), b"x", "twice, or out of its order"),
        ];
        for (name, mut header, data, expected) in cases {
            fs::write(&path, with(&whole, &mut header, name.as_bytes(), data)).unwrap();
            let error = unpack(&to, &path).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
            assert_empty(&to);
        }
        fs::write(&path, b"not a tar file").unwrap();
        assert!(unpack(&to, &path).is_err());
        let mut other = Builder::new(Vec::new());
        other.append_data(&mut header(1), "photo.jpg", &b"x"[..]).unwrap();
        fs::write(&path, other.into_inner().unwrap()).unwrap();
        assert!(unpack(&to, &path).unwrap_err().to_string().contains("is no archive of"));
        assert_empty(&to);
        assert!(!temp.path().join("evil").exists());
    }

    #[test]
    fn an_archive_that_contradicts_the_store_or_a_lock_file_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let (path, _, entries) = packed(&temp);
        let to = store(&temp, "to");
        let witness =
            |key: &Digest| (*key == entries[1].fingerprint).then(|| (Digest::of(b"other"), "a.lock".to_owned()));
        let error = to.unpack(&path, &witness).unwrap_err().to_string();
        assert!(error.contains("for `toy 2` than `a.lock`"), "{error}");
        assert_empty(&to);
        let witness = |key: &Digest| (*key == entries[1].fingerprint).then(|| (entries[1].artifact(), String::new()));
        to.unpack(&path, &witness).unwrap();
        let other = store(&temp, "other");
        let first = publish(&other, 2, &[3; 10]);
        let error = unpack(&other, &path).unwrap_err().to_string();
        assert!(error.contains("for `toy 2` than the store"), "{error}");
        assert_eq!(other.find(&first.fingerprint).unwrap(), Found::Hit(first));
        assert_eq!(other.list().unwrap().len(), 1);
    }
}
