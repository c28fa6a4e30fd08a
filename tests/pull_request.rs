//! A pull request as a CI's jobs see it, in clones of one repository: the base is run and its cache carried, a key changes, the
//! lock file is stale, a gate fails; what each job says and ends with.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{program, unbroken};

const MANIFEST: &str = r#"schema = 1
name   = "small"
seed   = 1

[stages.ingest]
source = "builtin:digits"
limit  = 300

[stages.split]
test  = 0.2
folds = 4

[stages.preprocess]
steps = ["center", "scale"]

[stages.train]
architecture  = "INPUT - FC(16) - RELU - FC"
epochs        = 6
batch_size    = 16
learning_rate = 0.01

[stages.ensemble]

[stages.evaluate]
gates = [{ metric = "accuracy", at_least = 0.1 }]
"#;

struct Project {
    temp: tempfile::TempDir,
}

impl Project {
    /// A repository called `origin.git` whose `main` has a manifest and its lock file, made in the clone `a`.
    fn new() -> Project {
        let project = Project { temp: tempfile::tempdir().unwrap() };
        project.git(".", &["init", "-q", "--bare", "origin.git"]);
        project.clone_into("a", &[]);
        fs::write(project.path("a/small.toml"), MANIFEST).unwrap();
        fs::write(project.path("a/.gitignore"), ".convoy/\nout/\n").unwrap();
        project.expect("a", &["run", "-q"], 0);
        project.git("a", &["add", "-A"]);
        project.git("a", &["commit", "-q", "-m", "Base"]);
        project.git("a", &["push", "-q", "origin", "HEAD:main"]);
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn git(&self, folder: &str, arguments: &[&str]) -> String {
        let output = common::git(self.path(folder), arguments);
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A clone by URL, as a job has it: the history of a folder on this disk is never cut off.
    fn clone_into(&self, name: &str, options: &[&str]) {
        let url = format!("file://{}", self.path("origin.git").display());
        self.git(".", &[&["clone", "-q"], options, &[&url, name]].concat());
    }

    /// What a verb says, on stdout and then on stderr, that ends with this code.
    fn expect(&self, clone: &str, arguments: &[&str], code: i32) -> String {
        self.expect_in(clone, arguments, code, &[])
    }

    fn expect_in(&self, clone: &str, arguments: &[&str], code: i32, variables: &[(&str, &str)]) -> String {
        let output = program(self.path(clone), arguments).envs(variables.iter().copied()).output().unwrap();
        let told = unbroken(&[output.stdout, output.stderr].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?} in {clone}: {told}");
        told
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(file)).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(self.path(file), text.replacen(from, to, 1)).unwrap();
    }
}

fn has(told: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(told.contains(part), "`{part}` is not in:\n{told}"));
}

fn n_files(folder: &Path) -> usize {
    walkdir::WalkDir::new(folder).into_iter().filter(|entry| entry.as_ref().unwrap().file_type().is_file()).count()
}

#[test]
fn a_changed_key_is_told_at_once_then_by_what_it_came_to() {
    let project = Project::new();
    project.expect("a", &["cache", "pack", "../cache.tar"], 0);
    let key = project.expect("a", &["cache", "key"], 0);

    // The base in another job: the cache of the first one does, and says what it can vouch for.
    project.clone_into("b", &[]);
    assert_eq!(project.expect("b", &["cache", "key"], 0), key, "the same on every machine");
    has(&project.expect("b", &["cache", "unpack", "../cache.tar"], 0), &["15 tasks, 15 of them new"]);
    has(&project.expect("b", &["status", "--exit-code"], 0), &["nothing to do", "by their records only"]);
    has(&project.expect("b", &["run", "--locked"], 3), &["nobody here can vouch", "--recompute"]);
    has(&project.expect("b", &["run"], 0), &["nothing to do", "passed"]);
    let told = project.expect("b", &["diff", "--md"], 0);
    has(&told, &["**Keys**: unchanged", "**Metrics**: unchanged", "0 of 60 common images flipped"]);
    assert_eq!(project.git("b", &["status", "--porcelain"]), "", "a run of what is committed changes no file");

    // A key that nobody ran.
    project.git("b", &["switch", "-q", "-c", "short"]);
    project.edit("b/small.toml", "epochs        = 6", "epochs        = 1");
    assert_ne!(project.expect("b", &["cache", "key"], 0), key);
    has(&project.expect("b", &["check", "--locked"], 3), &["small.lock: `train`: `epochs` changed: 6 -> 1"]);
    let before = n_files(&project.path("b/.convoy"));
    let told = project.expect("b", &["run", "--locked"], 3);
    has(&told, &["nothing was computed", "`train`: `epochs` changed: 6 -> 1", "small.toml:18:17"]);
    assert_eq!(n_files(&project.path("b/.convoy")), before);
    let told = project.expect("b", &["diff", "--md"], 0);
    has(&told, &["| `train` | `epochs` | `6` | `1` |", "**Metrics**: not known here", "**Gates**: not known here"]);
    let told = project.expect("b", &["run", "--locked", "--recompute"], 3);
    has(&told, &["`epochs` changed: 6 -> 1", "metric accuracy of ensemble on test: ", "beyond noise (McNemar p"]);
    // No lock file was written of that, and what it came to is known all the same.
    let told = project.expect("b", &["diff", "--md"], 0);
    has(
        &told,
        &["**worse**, beyond noise (McNemar p", "of other keys than the manifest: its results are those of run-"],
    );
    has(&told, &["- `wrong now    images/", "passed with 0."]);
    assert!(!told.contains("not known here"), "{told}");
    // Not those of other keys.
    project.edit("b/small.toml", "batch_size    = 16", "batch_size    = 17");
    has(&project.expect("b", &["diff", "--md"], 0), &["**Metrics**: not known here", "run it to know its results"]);
    project.edit("b/small.toml", "batch_size    = 17", "batch_size    = 16");

    // Run and committed: what it came to, named.
    project.expect("b", &["run", "-q"], 0);
    let told = project.expect("b", &["diff", "--md"], 0);
    has(
        &told,
        &["| `train` | `epochs` | `6` | `1` |", "**worse**, beyond noise (McNemar p", "- `wrong now    images/"],
    );
    has(&project.expect("b", &["diff", "--fail-on-worse"], 6), &["worse: metric accuracy of ensemble on test"]);
    project.git("b", &["commit", "-q", "-a", "-m", "Train for an epoch"]);
    assert_eq!(project.expect("b", &["diff", "--md"], 0), told, "committed or not");
    has(&project.expect("b", &["run", "--locked"], 0), &["all equal"]);

    // A gate that fails: its page and its case.
    project.edit("b/small.toml", "at_least = 0.1", "at_least = 0.99");
    let page = project.path("page.md");
    let variables = [("GITHUB_ACTIONS", "true"), ("GITHUB_STEP_SUMMARY", page.to_str().unwrap())];
    let told = project.expect_in("b", &["run", "--junit", "junit.xml"], 6, &variables);
    has(&told, &["expected >= 0.99", "FAILED"]);
    has(&fs::read_to_string(&page).unwrap(), &["## `small`: ❌ gates failed, 0 of 1 gates passed", "| **FAILED** |"]);
    has(&fs::read_to_string(project.path("b/junit.xml")).unwrap(), &["<failure type=\"gate\"", "expected &gt;= 0.99"]);
    has(&project.expect("b", &["run", "--locked"], 6), &["all equal", "FAILED"]);
}

#[test]
fn a_pipeline_that_is_new_is_shown_with_what_it_came_to() {
    let project = Project::new();
    project.git("a", &["switch", "-q", "-c", "second"]);
    fs::write(project.path("a/second.toml"), MANIFEST.replace("\"small\"", "\"second\"")).unwrap();
    project.expect("a", &["run", "-q", "second.toml"], 0);
    let told = project.expect("a", &["diff", "--md", "--manifest", "second.toml"], 0);
    has(
        &told,
        &["there is no `second.toml`", "`train` is new", "| `ensemble` | `test` | `accuracy` |", "passed with 0."],
    );
    assert!(!told.contains("not known here") && !told.contains("unchanged"), "{told}");
    let told = project.expect("a", &["diff", "--manifest", "second.toml", "--fail-on-worse"], 6);
    has(&told, &["`accuracy` is not known of `merge base with origin/main"]);
}

#[test]
fn the_branch_that_is_compared_with_is_the_jobs_and_its_history_must_be_there() {
    let project = Project::new();
    project.git("a", &["switch", "-q", "-c", "develop"]);
    project.edit("a/small.toml", "epochs        = 6", "epochs        = 5");
    project.expect("a", &["run", "-q"], 0);
    project.git("a", &["commit", "-q", "-a", "-m", "Develop"]);
    project.git("a", &["push", "-q", "origin", "develop"]);
    project.git("a", &["switch", "-q", "-c", "change"]);
    project.edit("a/small.toml", "batch_size    = 16", "batch_size    = 20");
    project.expect("a", &["run", "-q"], 0);
    project.git("a", &["commit", "-q", "-a", "-m", "Change"]);
    project.git("a", &["push", "-q", "origin", "change"]);

    // Detached, as jobs check out.
    project.clone_into("whole", &[]);
    project.git("whole", &["checkout", "-q", "--detach", "origin/change"]);
    let told = project.expect("whole", &["diff"], 0);
    has(&told, &["merge base with origin/main", "`epochs` changed: 6 -> 5", "`batch_size` changed: 16 -> 20"]);
    for variable in ["GITHUB_BASE_REF", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME"] {
        let told = project.expect_in("whole", &["diff"], 0, &[(variable, "develop")]);
        has(&told, &["merge base with origin/develop", "`batch_size` changed: 16 -> 20"]);
        assert!(!told.contains("epochs"), "{told}");
        // Never something else than what is asked for.
        let told = project.expect_in("whole", &["diff"], 2, &[(variable, "gone")]);
        has(&told, &["there is no `origin/gone` here, which", variable, "name what to compare"]);
        assert!(!told.contains("shallow"), "{told}");
    }
    assert_eq!(project.expect_in("whole", &["diff"], 0, &[("GITHUB_BASE_REF", "")]), told);

    project.clone_into("shallow", &["--depth", "1", "-b", "change"]);
    has(&project.expect("shallow", &["diff"], 2), &["to compare with", "this checkout is shallow", "`fetch-depth: 0`"]);
    project.git("shallow", &["fetch", "-q", "--depth", "1", "origin", "develop:refs/remotes/origin/develop"]);
    let told = project.expect_in("shallow", &["diff"], 2, &[("GITHUB_BASE_REF", "develop")]);
    has(&told, &["it is not known here where this branch left `origin/develop`", "this checkout is shallow"]);
    let gate = "{ metric = \"accuracy\", baseline = \"git:merge-base\", max_drop = 0.5 }";
    project.edit("shallow/small.toml", "gates = [", &format!("gates = [{gate}, "));
    let told = project.expect_in("shallow", &["run"], 2, &[("GITHUB_BASE_REF", "develop")]);
    has(&told, &["`git:merge-base`: it is not known here where", "`fetch-depth: 0`"]);
    project.git("shallow", &["fetch", "-q", "--unshallow", "origin"]);
    project.git("shallow", &["fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*"]);
    let told = project.expect_in("shallow", &["diff"], 0, &[("GITHUB_BASE_REF", "develop")]);
    has(&told, &["merge base with origin/develop"]);
}
