//! A folder by its descriptor: what is removed is in that folder, whatever links anybody puts in its place meanwhile.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// An opened folder, not reached through a link at its own name.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    #[cfg(unix)]
    descriptor: std::os::fd::OwnedFd,
}

#[cfg(unix)]
const FLAGS: rustix::fs::OFlags = rustix::fs::OFlags::RDONLY
    .union(rustix::fs::OFlags::DIRECTORY)
    .union(rustix::fs::OFlags::NOFOLLOW)
    .union(rustix::fs::OFlags::CLOEXEC);

impl Folder {
    /// Opens the folder at `path`.
    ///
    /// # Errors
    /// Those of the system; that a link or something else is in its place.
    #[cfg(unix)]
    pub fn open(path: &Path) -> io::Result<Folder> {
        let descriptor = rustix::fs::openat(rustix::fs::CWD, path, FLAGS, rustix::fs::Mode::empty())?;
        Ok(Folder { path: path.to_owned(), descriptor })
    }

    /// Opens the folder at `path`.
    ///
    /// # Errors
    /// Those of the system; that a link or something else is in its place.
    #[cfg(not(unix))]
    pub fn open(path: &Path) -> io::Result<Folder> {
        match fs::symlink_metadata(path)?.is_dir() {
            true => Ok(Folder { path: path.to_owned() }),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Opens a folder in it.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn inner(&self, name: &str) -> io::Result<Folder> {
        let path = self.path.join(name);
        #[cfg(unix)]
        {
            let descriptor = rustix::fs::openat(&self.descriptor, name, FLAGS, rustix::fs::Mode::empty())?;
            Ok(Folder { path, descriptor })
        }
        #[cfg(not(unix))]
        Folder::open(&path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names in it, sorted.
    ///
    /// # Errors
    /// Those of the system.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names: Vec<OsString> =
            fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        names.sort_unstable();
        Ok(names)
    }

    /// Removes a file, or a link, from it.
    ///
    /// # Errors
    /// Those of the system; that it is a folder.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        #[cfg(unix)]
        return Ok(rustix::fs::unlinkat(&self.descriptor, name, rustix::fs::AtFlags::empty())?);
        #[cfg(not(unix))]
        {
            Folder::open(&self.path)?;
            let path = self.path.join(name);
            // What is read-only cannot be removed there.
            let mut permissions = fs::symlink_metadata(&path)?.permissions();
            permissions.set_readonly(false);
            let _ = fs::set_permissions(&path, permissions);
            fs::remove_file(path)
        }
    }

    /// Removes an empty folder from it.
    ///
    /// # Errors
    /// Those of the system; that it is not empty, or no folder.
    pub fn remove_folder(&self, name: &str) -> io::Result<()> {
        #[cfg(unix)]
        return Ok(rustix::fs::unlinkat(&self.descriptor, name, rustix::fs::AtFlags::REMOVEDIR)?);
        #[cfg(not(unix))]
        {
            Folder::open(&self.path)?;
            fs::remove_dir(self.path.join(name))
        }
    }
}
