//! The calls that write: one small trait, and for tests a double that records them and lets each of them fail.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::Folder;

/// What is asked of the file system by everything that must survive a power cut. An fsync that fails is never tried
/// again: after a failure the kernel may have dropped the pages and call the file clean.
pub trait Calls: Debug + Send + Sync {
    /// Makes a folder that is not there.
    ///
    /// # Errors
    /// Those of the system.
    fn make_folder(&self, path: &Path) -> io::Result<()>;

    /// Makes a file that is not there, to be read and written; its mode follows the umask.
    ///
    /// # Errors
    /// Those of the system.
    fn create(&self, path: &Path) -> io::Result<File>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Those of the system.
    fn write(&self, file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Takes everybody's right to write the file.
    ///
    /// # Errors
    /// Those of the system.
    fn protect(&self, file: &File, path: &Path) -> io::Result<()>;

    /// Brings a file's content to the disk.
    ///
    /// # Errors
    /// Those of the system.
    fn sync(&self, file: &File, path: &Path) -> io::Result<()>;

    /// Renames, over what is there.
    ///
    /// # Errors
    /// Those of the system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Brings the names in a folder to the disk.
    ///
    /// # Errors
    /// Those of the system.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Removes a file from a folder.
    ///
    /// # Errors
    /// Those of the system.
    fn unlink(&self, folder: &Folder, name: &str) -> io::Result<()>;
}

/// The file system.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl Calls for System {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    fn write(&self, file: &mut File, _path: &Path, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn protect(&self, file: &File, _path: &Path) -> io::Result<()> {
        let mut permissions = file.metadata()?.permissions();
        permissions.set_readonly(true);
        file.set_permissions(permissions)
    }

    fn sync(&self, file: &File, _path: &Path) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        // Elsewhere a folder cannot be opened, and renames are journalled.
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    }

    fn unlink(&self, folder: &Folder, name: &str) -> io::Result<()> {
        folder.remove(name)
    }
}

/// What happens at a recorder's N-th call.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It fails, the disk being full.
    Fail,
    /// The process dies before it: neither it nor any later call does anything.
    Die,
    /// The process dies just after it.
    DieAfter,
}

/// Records the calls, as verb and folders relative to a root, and makes one of them go wrong.
#[cfg(test)]
#[derive(Debug)]
pub struct Recorder {
    root: std::path::PathBuf,
    log: std::sync::Mutex<Vec<String>>,
    at: usize,
    how: How,
}

#[cfg(test)]
impl Recorder {
    /// One that lets everything happen.
    pub fn new(root: &Path) -> Recorder {
        Recorder::failing(root, usize::MAX, How::Fail)
    }

    /// One whose `at`-th call, counted from 1, goes wrong.
    pub fn failing(root: &Path, at: usize, how: How) -> Recorder {
        Recorder { root: root.to_owned(), log: std::sync::Mutex::default(), at, how }
    }

    /// The calls so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    fn call<T>(&self, verb: &str, folders: &[&Path], real: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let n = {
            let mut log = self.log.lock().unwrap();
            let shown: Vec<String> = folders
                .iter()
                .map(|folder| {
                    let inside = folder.strip_prefix(&self.root).unwrap_or(folder);
                    inside.components().next().map_or(".".into(), |c| c.as_os_str().to_string_lossy().into_owned())
                })
                .collect();
            log.push(format!("{verb} {}", shown.join(" ")));
            log.len()
        };
        match self.how {
            How::Fail if n == self.at => Err(io::ErrorKind::StorageFull.into()),
            How::Die if n >= self.at => Err(io::Error::other("dead")),
            How::DieAfter if n > self.at => Err(io::Error::other("dead")),
            How::DieAfter if n == self.at => {
                let _ = real()?;
                Err(io::Error::other("dead"))
            }
            _ => real(),
        }
    }
}

#[cfg(test)]
fn above(path: &Path) -> &Path {
    path.parent().unwrap()
}

#[cfg(test)]
impl Calls for Recorder {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.call("make-folder", &[above(path)], || System.make_folder(path))
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        self.call("create", &[above(path)], || System.create(path))
    }

    fn write(&self, file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.call("write", &[above(path)], || System.write(file, path, bytes))
    }

    fn protect(&self, file: &File, path: &Path) -> io::Result<()> {
        self.call("protect", &[above(path)], || System.protect(file, path))
    }

    fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        self.call("sync", &[above(path)], || System.sync(file, path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call("rename", &[above(from), above(to)], || System.rename(from, to))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.call("sync-folder", &[folder], || System.sync_folder(folder))
    }

    fn unlink(&self, folder: &Folder, name: &str) -> io::Result<()> {
        self.call("unlink", &[folder.path()], || System.unlink(folder, name))
    }
}
