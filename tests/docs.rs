//! The recipes of `docs/ci.md` are run as they stand there: blocks of shell, and the lines of workflows.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Lines that the test leaves out end so.
const NETWORK: &str = "# network";

const MANIFEST: &str = r#"schema = 1
name   = "digits"
seed   = 1

[stages.ingest]
source = "builtin:digits"
limit  = 200

[stages.split]
test  = 0.2
folds = 4

[stages.preprocess]
steps = ["center", "scale"]

[stages.train]
architecture  = "INPUT - FC(16) - RELU - FC"
epochs = 2
batch_size    = 16
learning_rate = 0.01

[stages.ensemble]

[stages.evaluate]
gates = [{ metric = "accuracy", at_least = 0.2 }]
"#;

/// The fenced blocks of a page in this language, with the number of the line that each begins in.
fn blocks(page: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, bool, String)> = None;
    for (i, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(word), None) => open = Some((i + 2, word == language, String::new())),
            (Some(_), Some((at, true, text))) => found.push((at, text)),
            (Some(_), Some(_)) | (None, None) => {}
            (None, Some((at, is_meant, text))) => open = Some((at, is_meant, format!("{text}{line}\n"))),
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    found
}

/// What a workflow runs: the values of `run:`, on a line or below it, and the items of `script:`.
fn commands(workflow: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = workflow.lines().collect();
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let key = line.trim_start().trim_start_matches("- ");
        let column = line.len() - key.len();
        let below =
            || lines[i + 1..].iter().take_while(|below| below.trim().is_empty() || indent(below) > indent(line));
        if key == "script:" {
            found.extend(below().map(|item| item.trim_start().strip_prefix("- ").expect("an item").to_owned()));
        } else if key == "run: |" {
            let inner = below().take_while(|below| indent(below) > column);
            found.push(inner.map(|line| line.trim()).collect::<Vec<_>>().join("\n"));
        } else if let Some(command) = key.strip_prefix("run: ") {
            found.push(command.to_owned());
        }
    }
    found
}

struct Repository {
    temp: tempfile::TempDir,
}

impl Repository {
    /// An empty repository called `origin`, and a clone of it with a manifest.
    fn new() -> Repository {
        let repository = Repository { temp: tempfile::tempdir().unwrap() };
        repository.shell(".", "git init -q --bare -b main origin.git\ngit clone -q \"$PWD/origin.git\" work\n", &[]);
        fs::write(repository.path("work/digits.toml"), MANIFEST).unwrap();
        repository
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Runs a script as a job's shell does.
    fn shell(&self, folder: impl AsRef<Path>, script: &str, variables: &[(&str, &str)]) {
        let kept: Vec<&str> = script.lines().filter(|line| !line.ends_with(NETWORK)).collect();
        let program = Path::new(env!("CARGO_BIN_EXE_convoy")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.current_dir(self.temp.path().join(folder)).args(["-e", "-c", &kept.join("\n")]).stdin(Stdio::null());
        command.env_clear().env("PATH", path).env("HOME", self.temp.path()).envs(variables.iter().copied());
        for (name, value) in [("NAME", "tester"), ("EMAIL", "tester@example.org")] {
            command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
        }
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_COUNT", "1");
        command.env("GIT_CONFIG_KEY_0", "init.defaultBranch").env("GIT_CONFIG_VALUE_0", "main");
        let output = command.output().expect("sh starts");
        let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "{script}\nended with {:?}:\n{told}", output.status.code());
    }
}

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ci.md")).unwrap()
}

#[test]
fn recipes_run_as_they_stand_on_the_page() {
    let page = page();
    let repository = Repository::new();
    let scripts = blocks(&page, "sh");
    assert!(scripts.len() >= 10, "{} blocks", scripts.len());
    for (line, script) in &scripts {
        assert!(!script.contains(NETWORK), "docs/ci.md:{line}: plain recipes need no network");
        repository.shell("work", script, &[]);
    }
    assert!(repository.path("fresh/out/digits/metrics.csv").exists());
    assert!(fs::read_to_string(repository.path("work/diff.json")).unwrap().starts_with('{'));

    let workflows: Vec<(usize, String)> =
        blocks(&page, "yaml").into_iter().filter(|(_, text)| !commands(text).is_empty()).collect();
    assert_eq!(workflows.len(), 2, "GitHub's and GitLab's");
    let mut n_left_out = 0;
    for (line, workflow) in &workflows {
        let name = format!("job-{line}");
        repository.shell(".", &format!("git clone -q -b longer origin.git {name}"), &[]);
        let is_github = workflow.contains("actions/checkout@");
        let (output, summary) = (repository.path("output.txt"), repository.path("summary.md"));
        let mut variables = vec![("CI", "true")];
        if is_github {
            variables.extend([("GITHUB_ACTIONS", "true"), ("GITHUB_BASE_REF", "main")]);
            variables.push(("GITHUB_OUTPUT", output.to_str().unwrap()));
            variables.push(("GITHUB_STEP_SUMMARY", summary.to_str().unwrap()));
        } else {
            variables.push(("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "main"));
        }
        for command in commands(workflow) {
            n_left_out += command.lines().filter(|line| line.ends_with(NETWORK)).count();
            repository.shell(&name, &command, &variables);
        }
        let read = |file: &str| fs::read_to_string(repository.path(&name).join(file)).unwrap();
        let diff = read("diff.md");
        assert!(diff.starts_with("### `merge base with origin/main ("), "{diff}");
        assert!(diff.contains("| `train` | `epochs` | `2` | `3` |"), "{diff}");
        assert!(read("junit.xml").contains("<testsuite name=\"digits.gates\" tests=\"1\" failures=\"0\""));
        if is_github {
            let text = fs::read_to_string(&output).unwrap();
            assert!(text.starts_with("key=convoy-") && text.contains("\nrestore-prefix=convoy-"), "{text}");
            let text = fs::read_to_string(&summary).unwrap();
            assert!(text.contains("## `digits`: ✅ passed") && text.contains(&diff), "{text}");
        } else {
            assert_eq!(read("code-quality.json"), "[]\n");
        }
    }
    // Loading the program and writing the comment.
    assert_eq!(n_left_out, 4);
}

#[test]
fn commands_of_workflows_are_found_on_lines_and_below_them() {
    let workflow = "jobs:\n  a:\n    steps:\n      - run: one\n      - name: x\n        run: |\n          two\n          three  \
                    # network\n        env:\n          A: b\n      - uses: c@d\n  script:\n    - four\n    - five\n  after: x\n";
    assert_eq!(commands(workflow), ["one", "two\nthree  # network", "four", "five"]);
    assert_eq!(blocks("a\n```sh\nb\nc\n```\n```yaml\nd\n```\n", "sh"), [(3, "b\nc\n".to_owned())]);
}

/// What is wrong with a workflow: an action that is not pinned by its whole commit, rights that are not said, text of an event
/// in a shell.
fn faults(workflow: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines: Vec<&str> = workflow.lines().collect();
    if !lines.contains(&"permissions: {}") {
        faults.push("no `permissions: {}` at the top".to_owned());
    }
    if workflow.contains("pull_request_target") {
        faults.push("`pull_request_target` runs with the rights of the base".to_owned());
    }
    for (i, line) in lines.iter().enumerate() {
        let key = line.trim_start().trim_start_matches("- ");
        let Some(action) = key.strip_prefix("uses:") else { continue };
        let (action, version) = action.trim().split_once(" # ").unwrap_or((action.trim(), ""));
        let commit = action.rsplit_once('@').map_or("", |(_, commit)| commit);
        let is_pinned = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !is_pinned || !version.starts_with('v') {
            faults.push(format!("line {}: `{action}` is not pinned by its commit, with its version behind it", i + 1));
        }
        let below = lines[i + 1..].iter().take_while(|below| !below.trim_start().starts_with("- "));
        if action.starts_with("actions/checkout@")
            && !below.clone().any(|below| below.contains("persist-credentials: false"))
        {
            faults.push(format!("line {}: the checkout keeps its token", i + 1));
        }
    }
    // Jobs stand two columns in, their keys four.
    let jobs = lines.iter().skip_while(|line| **line != "jobs:").skip(1);
    let (mut job, mut has_rights) = ("", true);
    for line in jobs.chain([&"  end:"]) {
        if line.starts_with("  ") && !line.starts_with("   ") && line.ends_with(':') {
            if !has_rights {
                faults.push(format!("job `{job}` says no `permissions`"));
            }
            (job, has_rights) = (line.trim().trim_end_matches(':'), false);
        }
        has_rights |= line.starts_with("    permissions:");
    }
    for command in commands(workflow).iter().filter(|command| command.contains("${{")) {
        faults.push(format!("an expression in a shell: {command}"));
    }
    faults
}

#[test]
fn workflows_pin_actions_by_commit_and_have_few_rights() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut n_actions = 0;
    for name in ["ci.yml", "release.yml"] {
        let workflow = fs::read_to_string(root.join(".github/workflows").join(name)).unwrap();
        assert_eq!(faults(&workflow), [""; 0], "{name}");
        assert!(workflow.contains("Never run where"), "{name} says that it is untested");
        n_actions += workflow.matches("uses: ").count();
    }
    for (line, workflow) in blocks(&page(), "yaml") {
        if workflow.contains("uses: ") {
            assert_eq!(faults(&workflow), [""; 0], "docs/ci.md:{line}");
            n_actions += 1;
        }
    }
    assert!(n_actions >= 7, "{n_actions}");

    let good = "permissions: {}\njobs:\n  a:\n    permissions:\n      contents: read\n    steps:\n      - uses: \
                x/y@0123456789abcdef0123456789abcdef01234567 # v1\n";
    assert_eq!(faults(good), [""; 0]);
    for (from, to, n) in [
        ("@0123456789abcdef0123456789abcdef01234567 # v1", "@v1", 1),
        ("01234567 #", "0123456 #", 1),
        (" # v1", "", 1),
        ("permissions: {}\n", "", 1),
        ("    permissions:\n", "", 1),
        ("x/y@", "actions/checkout@", 1),
        ("      - uses", "      - run: echo ${{ github.event.title }}\n      - uses", 1),
        ("jobs:", "on: pull_request_target\njobs:", 1),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_eq!(faults(&bad).len(), n, "{bad}: {:?}", faults(&bad));
    }
}
