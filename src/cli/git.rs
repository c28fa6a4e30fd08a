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

    /// Where this branch left the one that a CI's job says it is to be merged into, else the main one: that branch's name,
    /// and the commit.
    ///
    /// # Errors
    /// In a sentence, what is not in this checkout.
    pub fn merge_base(&self) -> Result<(String, String), String> {
        let (name, commit) = match target() {
            Some((variable, branch)) => {
                let name = format!("origin/{branch}");
                let commit = self.commit(&name);
                let missing =
                    || format!("there is no `{name}` here, which `{variable}` says this is to be merged into");
                (name.clone(), commit.ok_or_else(missing)?)
            }
            None => {
                let head = self.ask(&["symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD"]);
                let names =
                    head.into_iter().chain(["origin/main", "origin/master", "main", "master"].map(str::to_owned));
                let mut found = names.filter_map(|name| Some((self.commit(&name)?, name)));
                let missing = || "there is no `origin/HEAD`, `main` or `master` to compare with".to_owned();
                let (commit, name) = found.next().ok_or_else(missing)?;
                (name, commit)
            }
        };
        match self.ask(&["merge-base", "HEAD", &commit]) {
            Some(base) => Ok((name, base)),
            None => Err(format!("it is not known here where this branch left `{name}`")),
        }
    }

    /// Whether it is a checkout without its whole history, as CI's are unless they are told otherwise.
    pub fn is_shallow(&self) -> bool {
        self.ask(&["rev-parse", "--is-shallow-repository"]).is_some_and(|said| said == "true")
    }
}

/// The branch that a job for a pull request is to be merged into, and the variable that says so (GitHub's, GitLab's).
fn target() -> Option<(&'static str, String)> {
    let names = ["GITHUB_BASE_REF", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME"].into_iter();
    let mut set = names.filter_map(|name| Some((name, std::env::var(name).ok().filter(|branch| !branch.is_empty())?)));
    set.next()
}

/// What helps where history is missing.
pub const FETCH: &str =
    "this checkout is shallow: fetch its history (`fetch-depth: 0` of actions/checkout, `GIT_DEPTH: 0` in GitLab)";
