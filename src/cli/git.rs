//! What Git says of a folder: by its program, asked for nothing that writes. Where there is none, nothing is known.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder in a Git checkout.
pub struct Git {
    dir: PathBuf,
}

/// The commit that is checked out, and whether tracked files differ from it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GitState {
    /// The commit.
    pub revision: String,
    /// Whether files that Git tracks have been changed since.
    pub dirty: bool,
}

impl Git {
    /// The checkout that `dir` is in, if it is in one and Git is installed.
    pub fn of(dir: &Path) -> Option<Git> {
        let git = Git { dir: dir.to_owned() };
        git.ask(&["rev-parse", "--is-inside-work-tree"]).is_some_and(|said| said == "true").then_some(git)
    }

    /// What Git prints, without the line feed at its end; `None` if it fails.
    fn ask(&self, arguments: &[&str]) -> Option<String> {
        let bytes = self.bytes(arguments)?;
        Some(String::from_utf8(bytes).ok()?.trim_end_matches('\n').to_owned())
    }

    fn bytes(&self, arguments: &[&str]) -> Option<Vec<u8>> {
        // Reading the state of files must not take the index's lock from whoever works here.
        let mut command = Command::new("git");
        command.args(["--no-optional-locks", "-C"]).arg(&self.dir).args(arguments);
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        output.status.success().then_some(output.stdout)
    }

    /// What is checked out.
    pub fn state(&self) -> Option<GitState> {
        let revision = self.ask(&["rev-parse", "--verify", "--quiet", "HEAD"])?;
        let dirty = !self.ask(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        Some(GitState { revision, dirty })
    }

    /// The commit that a revision names.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let commit = format!("{revision}^{{commit}}");
        self.ask(&["rev-parse", "--verify", "--quiet", "--end-of-options", &commit])
    }

    /// A file of the folder as it was in a commit; `None` if it was not there.
    pub fn show(&self, commit: &str, name: &str) -> Option<Vec<u8>> {
        self.bytes(&["show", "--no-textconv", &format!("{commit}:./{name}")])
    }

    /// Where this branch left the main one: the main branch's name, and the commit.
    pub fn merge_base(&self) -> Option<(String, String)> {
        let head = self.ask(&["symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD"]);
        let names = head.into_iter().chain(["origin/main", "origin/master", "main", "master"].map(str::to_owned));
        let mut found = names.filter_map(|name| Some((self.commit(&name)?, name)));
        let (commit, name) = found.next()?;
        Some((name, self.ask(&["merge-base", "HEAD", &commit])?))
    }
}
