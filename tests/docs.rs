//! Commands and manifests of README and of the book are run as they stand there: blocks of shell, manifests, parts of manifests, the
//! lines of workflows.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::ran;

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

/// A fenced block of a page.
struct Block {
    /// The number of its first line.
    line: usize,
    language: String,
    text: String,
}

/// The fenced blocks of a page.
fn all_blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (i, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(word), None) => open = Some(Block { line: i + 2, language: word.to_owned(), text: String::new() }),
            (Some(_), Some(block)) => found.push(block),
            (None, Some(block)) => open = Some(Block { text: format!("{}{line}\n", block.text), ..block }),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    found
}

/// Those in this language, each with the number of its first line.
fn blocks(page: &str, language: &str) -> Vec<(usize, String)> {
    let meant = all_blocks(page).into_iter().filter(|block| block.language == language);
    meant.map(|block| (block.line, block.text)).collect()
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

/// `ci.md` needs a repository; `export.md` needs programs of others: `tests/reference/check_exports.py` runs its blocks.
const APART: [&str; 2] = ["ci.md", "export.md"];

/// The pages whose blocks are run one page at a time: README and the book, but for those apart.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = vec!["README.md".to_owned()];
    for folder in ["docs", "docs/how-to", "docs/explanation"] {
        let inside =
            fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.extend(
            inside
                .filter(|name| name.ends_with(".md") && !APART.contains(&&name[..]))
                .map(|name| format!("{folder}/{name}")),
        );
    }
    names.sort();
    names
        .into_iter()
        .map(|name| (fs::read_to_string(root.join(&name)).unwrap(), name))
        .map(|(text, name)| (name, text))
        .collect()
}

/// Photos of three kinds of flowers, which differ in their colour.
fn draw_flowers(folder: &Path) {
    for (class, name) in ["daisy", "rose", "tulip"].iter().enumerate() {
        fs::create_dir_all(folder.join(name)).unwrap();
        for i in 0..12u32 {
            let grain = |x: u32, y: u32| ((x * 31 + y * 17 + i * 29 + x * y * i) % 90) as u8;
            let pixel = |x, y| {
                let mut rgb = [grain(x, y), grain(y, x), grain(x + 1, y)];
                rgb[class] += 130;
                image::Rgb(rgb)
            };
            image::RgbImage::from_fn(20, 16, pixel).save(folder.join(format!("{name}/{i:02}.png"))).unwrap();
        }
    }
}

/// The tutorial's manifest, so small that a page of it takes seconds; and what a page's part of a manifest is tried on.
const FLOWERS: &str = r#"schema = 1
name   = "flowers"
seed   = 1

[stages.ingest]
source = "photos"
resize = { width = 8, height = 8 }

[stages.split]
folds = 3

[stages.preprocess]
steps = ["center", "scale"]

[stages.train]
architecture  = "INPUT - CONV(4) - RELU - POOL - FC"
epochs        = 2
learning_rate = 0.01

[stages.ensemble]

[stages.evaluate]
"#;

/// A manifest with the tables and keys of `part` in the place of its own. A stage of `part` that says its own network keeps no
/// network of the manifest's.
fn laid_over(manifest: &str, part: &str) -> String {
    fn lay(below: &mut toml::Table, above: toml::Table, depth: usize) {
        for (key, value) in above {
            match (below.get_mut(&key), value) {
                (Some(toml::Value::Table(below)), toml::Value::Table(above)) if depth < 2 => {
                    lay(below, above, depth + 1)
                }
                (_, value) => _ = below.insert(key, value),
            }
        }
    }
    let mut whole: toml::Table = manifest.parse().unwrap();
    lay(&mut whole, part.parse().unwrap_or_else(|error| panic!("{error}\n{part}")), 0);
    toml::to_string(&whole).unwrap()
}

/// The value of a top-level key of a manifest that is a string.
fn name_of(manifest: &str) -> String {
    let table: toml::Table = manifest.parse().unwrap();
    table["name"].as_str().expect("a manifest of a page has a name").to_owned()
}

/// Lines of README that are CI's own: it runs them as its steps.
const STEPS_OF_CI: [&str; 1] = ["cargo test --release"];

/// A script as the test's shell runs it: README's program is built by its line, here it is there.
fn here(script: &str) -> String {
    let kept = script.lines().filter(|line| STEPS_OF_CI.iter().all(|step| !line.starts_with(step)));
    let lines: Vec<String> = kept.map(|line| line.replace("cargo run --release -- ", "convoy ")).collect();
    lines.join("\n")
}

fn run_page(name: &str, page: &str) {
    let repository = Repository { temp: tempfile::tempdir().unwrap() };
    let work = repository.path("work");
    draw_flowers(&work.join("photos"));
    let is_tutorial = ["README.md", "docs/tutorial.md"].contains(&name);
    let mut manifest = FLOWERS.to_owned();
    if is_tutorial {
        let pipelines = work.join("pipelines");
        fs::create_dir(&pipelines).unwrap();
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/digits.toml"), pipelines.join("digits.toml"))
            .unwrap();
    } else {
        fs::write(work.join("flowers.toml"), FLOWERS).unwrap();
    }
    for Block { line, language, text } in all_blocks(page) {
        let checked = |file: &str| {
            let (code, _, told) = ran(&work, &["check", file]);
            assert_eq!(code, Some(0), "{name}:{line}:\n{told}");
        };
        match &language[..] {
            "sh" => repository.shell("work", &here(&text), &[]),
            "toml" if text.contains("schema = ") => {
                let file = format!("{}.toml", name_of(&text));
                fs::write(work.join(&file), &text).unwrap();
                checked(&file);
                manifest = text;
            }
            "toml" => {
                fs::write(work.join("part.toml"), laid_over(&manifest, &text)).unwrap();
                checked("part.toml");
                fs::remove_file(work.join("part.toml")).unwrap();
            }
            "text" | "json" | "yaml" => {}
            other => panic!("{name}:{line}: a block of `{other}` that no test runs"),
        }
    }
}

#[test]
fn blocks_of_readme_and_book_run_as_they_stand() {
    let pages = pages();
    let (mut n, mut n_left_out) = (0, 0);
    let mut failed = Vec::new();
    for (name, page) in &pages {
        // All that fail are told.
        if std::panic::catch_unwind(|| run_page(name, page)).is_err() {
            failed.push(name);
        }
        let runnable = all_blocks(page).into_iter().filter(|block| ["sh", "toml"].contains(&&block.language[..]));
        let (count, left_out) = runnable.fold((0, 0), |(n, out), block| {
            (n + 1, out + block.text.lines().filter(|line| line.ends_with(NETWORK)).count())
        });
        (n, n_left_out) = (n + count, n_left_out + left_out);
    }
    assert_eq!(failed, [""; 0]);
    assert!(pages.len() >= 15 && n >= 40, "{} pages, {n} blocks", pages.len());
    // Installing the program from somewhere.
    assert!(n_left_out <= 6, "{n_left_out} lines need a network");
}

/// The commands of a page's prose: code that begins with `convoy `.
fn spans(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_fenced = false;
    for line in page.lines() {
        is_fenced ^= line.starts_with("```");
        let inside = line.split('`').skip(1).step_by(2).filter(|span| !is_fenced && span.starts_with("convoy "));
        found.extend(inside.map(str::to_owned));
    }
    found
}

#[test]
fn commands_in_prose_have_verbs_and_options_that_there_are() {
    let mut helps: BTreeMap<Vec<String>, (Option<i32>, String)> = BTreeMap::new();
    let mut help = |words: &[&str]| {
        let key = words.iter().map(|word| (*word).to_owned()).collect();
        let told = helps.entry(key).or_insert_with(|| {
            let (code, out, _) = ran(".", &[words, &["--help"]].concat());
            (code, out)
        });
        told.clone()
    };
    let mut n = 0;
    let ci = ("docs/ci.md".to_owned(), page());
    for (name, page) in pages().into_iter().chain([ci]) {
        for span in spans(&page) {
            let words: Vec<&str> = span.split(' ').skip(1).collect();
            let (code, mut text) = help(&words[..1]);
            let is_plain = words[0].starts_with("--") || words[0].chars().any(char::is_uppercase);
            assert!(is_plain || code == Some(0), "{name}: `{span}`: there is no such verb");
            // Families' verbs and options are one word further.
            if let Some(second) = words.get(1).filter(|word| word.chars().all(|c| c.is_ascii_lowercase())) {
                let (code, more) = help(&words[..2]);
                let is_family = text.contains("<COMMAND>") || text.contains("[COMMAND]");
                assert!(!is_family || text.contains(&format!("  {second}")) || code == Some(0), "{name}: `{span}`");
                text += &more;
            }
            for option in words.iter().filter(|word| word.starts_with("--")) {
                let option = option.split(['=', '[']).next().unwrap_or(option);
                assert!(is_plain || text.contains(option), "{name}: `{span}`: there is no `{option}`");
            }
            n += 1;
        }
    }
    assert!(n > 20, "{n} commands");
    assert_eq!(spans("a `convoy b c` `d`\n```\n`convoy e`\n```\n`convoy f`"), ["convoy b c", "convoy f"]);
}

#[test]
fn a_part_of_a_manifest_is_laid_over_it() {
    let whole = laid_over("a = 1\n[stages.b]\nc = 2\nd = 3\n", "[stages.b]\nc = 4\n[stages.e]\n");
    let table: toml::Table = whole.parse().unwrap();
    assert_eq!(table["stages"]["b"]["c"].as_integer(), Some(4));
    assert_eq!((table["stages"]["b"]["d"].as_integer(), table["a"].as_integer()), (Some(3), Some(1)));
    assert!(table["stages"].get("e").is_some());
    assert_eq!(here("cargo run --release -- run x   # y\ncargo test --release\n"), "convoy run x   # y");
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
    // Rights are the job's that uses it.
    let action = fs::read_to_string(root.join("action.yml")).unwrap();
    assert_eq!(faults(&action), ["no `permissions: {}` at the top"]);
    assert!(action.contains("Never run where") && action.contains("#     permissions:\n#       contents: read"));
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
