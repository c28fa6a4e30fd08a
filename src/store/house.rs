//! The folder itself: whether it is ours, made by this format, whole; made where it is not there.
//!
//! A folder is ours only if we made it: our words in `CACHEDIR.TAG` and a number in `format`, which are on the disk
//! before anything else is. Of the folders in it none may be a link: what is removed would be removed elsewhere.

use std::io;
use std::path::{Path, PathBuf};

use super::{Access, Error, FORMAT};
use crate::files::{self, Calls, Own};

/// The store's own folders, each after the one it is in.
pub(super) const FOLDERS: [&str; 11] =
    ["ac", "cas", "checkpoints", "history", "index", "index/trees", "locks", "quarantine", "roots", "runs", "tmp"];

/// Where temporary files are, and what the names of those of notes begin with.
pub(super) const NOTE: &str = "note-";

const TAG: &str = "CACHEDIR.TAG";

fn tag() -> String {
    format!(
        "Signature: 8a477f597d28d172789f06886806bc55\n\
         # {}; backups may leave it out. See https://bford.info/cachedir/\n",
        files::OUR_WORDS
    )
}

/// What `format` says.
enum Format {
    Number(u32),
    /// Nothing, or nothing that is a number.
    Garbled,
    Absent,
}

fn format_of(dir: &Path) -> Result<Format, Error> {
    let path = dir.join("format");
    Ok(match files::read_own(&path, 64).map_err(Error::io("read", &path))? {
        Own::Absent => Format::Absent,
        Own::Foreign => Format::Garbled,
        Own::Regular(_, text) => {
            let text = String::from_utf8_lossy(&text).into_owned();
            let digits = text.strip_suffix('\n').unwrap_or(&text);
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse().ok().filter(|_| is_number).map_or(Format::Garbled, Format::Number)
        }
    })
}

/// The names in a folder; `None` if there is none.
fn names(dir: &Path) -> Result<Option<Vec<String>>, Error> {
    match std::fs::read_dir(dir).and_then(|all| all.map(|one| Ok(one?.file_name())).collect::<io::Result<Vec<_>>>()) {
        Ok(names) => Ok(Some(names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read the store", dir)(error)),
    }
}

/// What a first run that was killed, or lost its power, may have left before `format` and the words were on the disk.
fn is_beginning(name: &str) -> bool {
    ["format", TAG, ".gitignore"].contains(&name) || files::is_unused_name(name, files::BESIDE)
}

/// Whether the folder is there, and ours, and of a format that can be read; with `Access::Write` makes and mends it.
/// Returns warnings.
pub(super) fn open(calls: &dyn Calls, dir: &Path, access: Access) -> Result<Vec<String>, Error> {
    let found = match names(dir)? {
        None => match std::fs::symlink_metadata(dir) {
            Ok(metadata) if metadata.is_symlink() => {
                return Err(Error::io("read the store", dir)(io::Error::new(
                    io::ErrorKind::NotFound,
                    "it is a link to nothing",
                )));
            }
            // Another run has made it just now.
            Ok(_) => names(dir)?,
            Err(_) => None,
        },
        Some(found) => Some(found),
    };
    let format = format_of(dir)?;
    match format {
        Format::Number(found) if found > FORMAT => return Err(Error::Newer { path: dir.to_owned(), found }),
        Format::Number(found) if found < FORMAT => return Err(Error::Older { path: dir.to_owned(), found }),
        _ => {}
    }
    let Some(found) = found else {
        if access == Access::Write {
            std::fs::create_dir_all(dir).map_err(Error::io("create the store", dir))?;
            make(calls, dir)?;
        }
        return Ok(Vec::new());
    };
    let is_made = |name: &String| is_beginning(name) || FOLDERS.contains(&name.as_str());
    let is_ours = files::is_store(dir)
        || match format {
            // A number of ours and nothing that is not ours: the words are what is damaged.
            Format::Number(_) => found.iter().all(is_made),
            Format::Garbled | Format::Absent => found.iter().all(|name| is_beginning(name)),
        };
    if !is_ours {
        return Err(Error::NotAStore { path: dir.to_owned() });
    }
    for folder in FOLDERS {
        let path = dir.join(folder);
        match files::seen(&path).map_err(Error::io("read", &path))? {
            None | Some(Err("a folder")) => {}
            Some(Err(what)) => return Err(Error::Foreign { path, what }),
            Some(Ok(_)) => return Err(Error::Foreign { path, what: "a file" }),
        }
    }
    let has_begun = found.iter().any(|name| !is_beginning(name));
    let mut warnings = Vec::new();
    if has_begun && !matches!(format, Format::Number(_)) {
        let what = if matches!(format, Format::Absent) { "was missing" } else { "was damaged" };
        let mended = if access == Access::Write { " and is written anew" } else { "" };
        warnings.push(format!("the file `{}` {what}{mended}", dir.join("format").display()));
    }
    if access == Access::Write {
        make(calls, dir)?;
    }
    Ok(warnings)
}

/// Makes what is not there: first of all `format`, then the words, both on the disk before any folder is.
fn make(calls: &dyn Calls, dir: &Path) -> Result<(), Error> {
    let number = format!("{FORMAT}\n");
    for (name, content) in [("format", &number), (TAG, &tag()), (".gitignore", &"*\n".to_owned())] {
        let path = dir.join(name);
        let stands = files::read_own(&path, 4096).map_err(Error::io("read", &path))?;
        if matches!(&stands, Own::Regular(_, bytes) if bytes == content.as_bytes()) {
            continue;
        }
        // Another program's words in `.gitignore` are its user's.
        if name == ".gitignore" && matches!(&stands, Own::Regular(_, bytes) if !bytes.is_empty()) {
            continue;
        }
        if matches!(stands, Own::Foreign) {
            displace(calls, dir, &path, name).map_err(Error::io("move", &path))?;
        }
        files::replace_by(calls, (dir, files::BESIDE), &path, content.as_bytes(), true)
            .map_err(Error::io("write", &path))?;
    }
    let mut has_made = false;
    for folder in FOLDERS {
        let path = dir.join(folder);
        match calls_if_absent(calls, &path) {
            Ok(made) => has_made |= made,
            Err(error) => return Err(Error::io("create", &path)(error)),
        }
    }
    if has_made {
        calls.sync_folder(dir).map_err(Error::io("write", dir))?;
    }
    Ok(())
}

fn calls_if_absent(calls: &dyn Calls, path: &Path) -> io::Result<bool> {
    if files::seen(path)?.is_some() {
        return Ok(false);
    }
    match calls.make_folder(path) {
        Ok(()) => Ok(true),
        // Another run was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Moves what stands in the place of a file of ours, whatever it is, to quarantine, where it can be looked at.
pub(super) fn displace(calls: &dyn Calls, dir: &Path, path: &Path, name: &str) -> io::Result<PathBuf> {
    let folder = dir.join("quarantine");
    calls_if_absent(calls, &folder)?;
    let to = folder.join(format!("{name}-{}", super::stamp::now()));
    calls.rename(path, &to)?;
    Ok(to)
}

/// Folders without which nothing can be published. What the others hold only saves time: another user's may be
/// read-only.
#[cfg(unix)]
const NEEDED: [&str; 5] = ["ac", "cas", "locks", "roots", "tmp"];

/// That every folder that a run has to write to can be written to: told now, not after an hour of training.
pub(super) fn probe(calls: &dyn Calls, dir: &Path) -> Result<(), Error> {
    #[cfg(unix)]
    for folder in NEEDED {
        let path = dir.join(folder);
        rustix::fs::accessat(
            rustix::fs::CWD,
            &path,
            rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
            rustix::fs::AtFlags::EACCESS,
        )
        .map_err(|error| Error::io("write to", &path)(error.into()))?;
    }
    let tmp = dir.join("tmp");
    let name = files::unused_name(NOTE);
    calls
        .create(&tmp.join(&name))
        .and_then(|_| match calls.unlink(&files::Folder::open(&tmp)?, &name) {
            // Another run swept it: nobody holds it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            unlinked => unlinked,
        })
        .map_err(Error::io("write to", &tmp))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{FOLDER, Store};
    use super::*;
    use crate::files::{How, Recorder, System};

    fn open_at(dir: &Path) -> Result<Store, Error> {
        Store::open(dir, dir.parent().unwrap(), Access::Write)
    }

    fn made() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join(FOLDER);
        drop(open_at(&dir).unwrap());
        (temp, dir)
    }

    #[test]
    fn runs_that_make_a_store_at_the_same_time_all_have_it() {
        for _ in 0..200 {
            let temp = tempfile::tempdir().unwrap();
            let dir = temp.path().join(FOLDER);
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for access in [Access::Write, Access::Write, Access::Write, Access::Look] {
                    let (start, dir, root) = (&start, &dir, temp.path());
                    scope.spawn(move || {
                        start.wait();
                        Store::open(dir, root, access).unwrap();
                    });
                }
            });
        }
    }

    #[test]
    fn a_store_says_what_it_is_and_refuses_another_format() {
        let (temp, dir) = made();
        assert!(fs::read_to_string(dir.join(TAG)).unwrap().starts_with("Signature: 8a477f597d28d172"));
        assert_eq!(fs::read_to_string(dir.join("format")).unwrap(), "2\n");
        for (text, said) in [
            ("3\n", "has format 3, newer than 2"),
            ("1\n", "was made by an earlier convoy (format 1, this program writes 2)"),
        ] {
            fs::write(dir.join("format"), text).unwrap();
            for access in [Access::Look, Access::Write] {
                let error = Store::open(&dir, temp.path(), access).unwrap_err();
                assert!(error.to_string().contains(said), "{error}");
                assert!(error.help().unwrap().contains("--cache-dir"));
            }
            assert_eq!(fs::read_to_string(dir.join("format")).unwrap(), text, "left alone");
        }
    }

    #[test]
    fn a_format_that_is_lost_is_written_anew_and_told() {
        type Damage = fn(&Path);
        let damages: &[Damage] = &[
            |p| fs::remove_file(p).unwrap(),
            |p| fs::write(p, "").unwrap(),
            |p| fs::write(p, "\0\0").unwrap(),
            |p| fs::write(p, "convoy\n").unwrap(),
            |p| {
                fs::remove_file(p).unwrap();
                fs::create_dir_all(p.join("full")).unwrap();
            },
        ];
        for (i, damage) in damages.iter().enumerate() {
            let (temp, dir) = made();
            damage(&dir.join("format"));
            let looked = Store::open(&dir, temp.path(), Access::Look).unwrap();
            assert!(looked.take_warnings()[0].contains("format` was "), "damage {i}");
            let store = open_at(&dir).unwrap();
            let warnings = store.take_warnings();
            assert!(warnings[0].contains("format` was ") && warnings[0].contains("written anew"), "{warnings:?}");
            assert_eq!(fs::read_to_string(dir.join("format")).unwrap(), "2\n");
            drop(store);
            assert!(open_at(&dir).unwrap().take_warnings().is_empty());
        }
    }

    #[test]
    fn a_tag_that_is_lost_is_written_anew_unless_the_folder_holds_other_things() {
        let (_temp, dir) = made();
        fs::write(dir.join(TAG), "").unwrap();
        drop(open_at(&dir).unwrap());
        assert_eq!(fs::read_to_string(dir.join(TAG)).unwrap(), tag());
        fs::remove_file(dir.join(TAG)).unwrap();
        fs::write(dir.join("thesis.txt"), "").unwrap();
        assert!(matches!(open_at(&dir), Err(Error::NotAStore { .. })));
    }

    #[test]
    fn a_folder_of_other_things_is_not_made_a_store() {
        let temp = tempfile::tempdir().unwrap();
        // Not even one that is called like one, or that holds a file `format`.
        for (folder, file) in [("data", "thesis.txt"), (FOLDER, "thesis.txt"), ("media", "format/1")] {
            let dir = temp.path().join(folder);
            fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
            fs::write(dir.join(file), "").unwrap();
            fs::write(dir.join("other"), "").unwrap();
            assert!(matches!(open_at(&dir), Err(Error::NotAStore { .. })), "{folder}");
            assert!(!dir.join("cas").exists());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_or_a_file_in_a_folders_place_is_refused_by_name() {
        use std::os::unix::fs::symlink;
        for folder in FOLDERS {
            for what in ["link", "link to nothing", "file"] {
                let (temp, dir) = made();
                let photos = temp.path().join("photos");
                fs::create_dir(&photos).unwrap();
                fs::write(photos.join("task-1"), "a photo").unwrap();
                let path = dir.join(folder);
                fs::remove_dir_all(&path).unwrap();
                match what {
                    "link" => symlink(&photos, &path).unwrap(),
                    "link to nothing" => symlink("nowhere", &path).unwrap(),
                    _ => fs::write(&path, "").unwrap(),
                }
                for access in [Access::Look, Access::Write] {
                    let error = Store::open(&dir, temp.path(), access).unwrap_err();
                    assert!(error.to_string().contains(&format!("{folder}`")), "{error}");
                    assert!(error.help().unwrap().contains("--cache-dir"));
                }
                assert_eq!(fs::read_to_string(photos.join("task-1")).unwrap(), "a photo");
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_store_itself_may_be_a_link_to_a_store_or_to_an_empty_folder() {
        use std::os::unix::fs::symlink;
        let (temp, dir) = made();
        let link = temp.path().join("link");
        symlink(&dir, &link).unwrap();
        drop(open_at(&link).unwrap());
        let photos = temp.path().join("photos");
        fs::create_dir(&photos).unwrap();
        fs::write(photos.join("1.jpg"), "").unwrap();
        fs::remove_file(&link).unwrap();
        symlink(&photos, &link).unwrap();
        assert!(matches!(open_at(&link), Err(Error::NotAStore { .. })));
        fs::remove_file(photos.join("1.jpg")).unwrap();
        drop(open_at(&link).unwrap());
        fs::remove_file(&link).unwrap();
        symlink("nowhere", &link).unwrap();
        assert!(open_at(&link).unwrap_err().to_string().contains("link to nothing"));
    }

    #[test]
    fn the_format_is_on_the_disk_before_anything_else_is() {
        let temp = tempfile::tempdir().unwrap();
        let recorder = Recorder::new(temp.path());
        open(&recorder, temp.path(), Access::Write).unwrap();
        let file = ["create .", "write .", "sync .", "rename . .", "sync-folder ."];
        let log = recorder.log();
        assert_eq!(log[..15], [file, file, file].concat());
        assert!(log[15..log.len() - 1].iter().all(|call| call.starts_with("make-folder ")), "{log:?}");
        assert_eq!(log.last().unwrap(), "sync-folder .");
    }

    #[test]
    fn stopped_at_any_call_the_next_run_finishes_it() {
        for how in [How::Fail, How::Die, How::DieAfter] {
            for at in 1.. {
                let temp = tempfile::tempdir().unwrap();
                let dir = temp.path().join("s");
                fs::create_dir(&dir).unwrap();
                let is_done = open(&Recorder::failing(&dir, at, how), &dir, Access::Write).is_ok();
                assert!(open(&System, &dir, Access::Write).unwrap().is_empty(), "{how:?} {at}");
                assert_eq!(fs::read_to_string(dir.join("format")).unwrap(), "2\n");
                assert_eq!(fs::read_to_string(dir.join(TAG)).unwrap(), tag());
                assert!(dir.join("tmp").is_dir());
                if is_done {
                    assert!(at > 20, "only {at} calls were seen");
                    break;
                }
            }
        }
    }

    #[test]
    fn a_store_that_cannot_be_written_says_so() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join(FOLDER);
        fs::write(&dir, "a file is in the way").unwrap();
        let error = open_at(&dir).unwrap_err();
        assert!(error.to_string().contains(".convoy"), "{error}");
        assert!(error.help().is_some(), "{error}");
    }
}
