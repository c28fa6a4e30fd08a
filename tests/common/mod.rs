//! What several of the tests use.

use std::fs;
use std::path::{Path, PathBuf};

/// The manifests that lie in `folder` itself, sorted by path.
pub fn manifests_in(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("its entries can be read").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    paths.sort();
    paths
}
