//! What the program says, word for word: transcripts of its verbs on small projects, in `tests/golden/*.txt`.
//!
//! `UPDATE_EXPECT=1 cargo test --test golden` rewrites the transcripts; read the diff. A transcript that is empty, or equal to
//! another one, is refused, and so is a verb without a transcript.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/transcript.rs"]
mod transcript;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use transcript::{CALM, FOLDER, Project, SMALL, check, on_a_terminal, redacted, text};

/// The verbs, those below another one behind it.
const VERBS: &[&[&str]] = &[
    &["run"],
    &["check"],
    &["summary"],
    &["status"],
    &["why"],
    &["diff"],
    &["runs"],
    &["report"],
    &["predict"],
    &["evaluate"],
    &["export"],
    &["export", "safetensors"],
    &["export", "onnx"],
    &["export", "npz"],
    &["export", "tensorboard"],
    &["init"],
    &["data"],
    &["data", "list"],
    &["data", "show"],
    &["data", "fetch"],
    &["data", "verify"],
    &["data", "add"],
    &["cache"],
    &["cache", "list"],
    &["cache", "show"],
    &["cache", "path"],
    &["cache", "export"],
    &["cache", "gc"],
    &["cache", "key"],
    &["cache", "pack"],
    &["cache", "unpack"],
    &["verify"],
    &["selftest"],
    &["selftest", "training"],
    &["selftest", "leakage"],
    &["selftest", "rate"],
    &["doctor"],
    &["schema"],
    &["man"],
    &["completions"],
];

/// Verbs that only name others.
const FAMILIES: &[&str] = &["export", "data", "cache"];

#[test]
fn every_verb_has_help() {
    check("help", "", |project| {
        let (help, _) = project.convoy(&["--help"]);
        let is_listed = |verb: &str| VERBS.iter().any(|known| *known == [verb]);
        let told = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        for verb in told.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()) {
            assert!(verb.is_empty() || verb == "help" || is_listed(verb), "`{verb}` is not in VERBS");
        }
        project.convoy(&["--version"]);
        for verb in VERBS {
            project.convoy(&[verb, &["--help"][..]].concat());
        }
        project.convoy(&[]);
        project.convoy(&["rum"]);
        project.convoy(&["run", "--thread", "2"]);
        project.convoy(&["cache"]);
        project.convoy(&["export", "small.toml"]);
    });
}

/// From `init` to the second run, and what a changed key comes to.
#[test]
fn a_first_day() {
    check("first-day", SMALL, |project| {
        project.convoy(&["check", "small.toml"]);
        project.convoy(&["check", "--json"]);
        project.convoy(&["status"]);
        project.convoy(&["why", "train"]);
        project.convoy(&["run", "--dry-run"]);
        project.convoy(&["run", "--dry-run", "--json"]);
        project.convoy(&["run", "--threads", "1"]);
        let stamps = |project: &Project| {
            let of = |name| fs::metadata(project.path(name)).expect("a report").modified().expect("a time");
            [of("out/small/timings.csv"), of("out/small/run.json"), of("small.lock")]
        };
        let before = stamps(project);
        project.convoy(&["run", "--threads", "1"]);
        assert_eq!(stamps(project), before, "a run without work writes nothing");
        project.convoy(&["run", "--json"]);
        project.convoy(&["status"]);
        project.convoy(&["status", "--json"]);
        project.convoy(&["status", "--exit-code"]);
        project.convoy(&["why", "train"]);
        project.convoy(&["why", "train", "--json"]);
        project.convoy(&["report"]);
        project.convoy(&["report", "-o", "page.html", "--times"]);
        project.convoy(&["report", "--json"]);
        project.edit("small.toml", "epochs        = 4", "epochs        = 5");
        project.convoy(&["status"]);
        project.convoy(&["status", "--json"]);
        project.convoy(&["status", "--exit-code"]);
        project.convoy(&["why", "train"]);
        project.convoy(&["why", "evaluate", "--json"]);
        project.convoy(&["report"]);
        project.convoy(&["run", "--threads", "1"]);
        project.convoy(&["run", "-q", "--threads", "1", "--force", "split"]);
        project.convoy(&["run", "-q", "--threads", "1", "--to", "split"]);
        project.convoy(&["run", "--to", "splitt"]);
        project.convoy(&["why", "nothing"]);
    });
}

#[test]
fn reasons() {
    check("reasons", SMALL, |project| {
        project.write("small.toml", &SMALL.replace("builtin:digits", "t.csv").replace("limit  = 100", ""));
        project.write("t.csv", &table(0));
        project.convoy(&["run", "-q", "--threads", "1", "--set", "stages.train.sanity=false"]);
        project.edit("small.toml", "[stages.train]", "[stages.train]\nsanity = false");
        project.convoy(&["run", "-q", "--threads", "1"]);
        project.write("t.csv", &table(1));
        project.convoy(&["why", "ingest"]);
        project.convoy(&["why", "ensemble"]);
        project.convoy(&["why", "ingest", "--json"]);
        project.write("t.csv", &table(0));
        project.edit("small.toml", "learning_rate = 0.005", "learning_rate = 0.02\noptimizer = \"sgd\"");
        project.edit("small.toml", "\"center\", \"scale\"", "\"center\"");
        project.convoy(&["why", "train"]);
        project.edit("small.toml", "seed   = 1", "seed   = 2");
        project.convoy(&["why", "split"]);
        project.convoy(&["run", "--dry-run", "--force", "ingest"]);
        fs::remove_dir_all(project.path(".convoy/ac")).expect("records");
        project.convoy(&["why", "preprocess"]);
        project.edit("small.toml", "seed   = 2", "seed   = 1");
        project.convoy(&["status"]);
    });
}

/// A table of pixels: 40 images of 6x6 in two classes.
fn table(more: u32) -> String {
    let header: Vec<String> = (0..36).map(|i| format!("pixel{i}")).collect();
    let mut out = format!("label,{}\n", header.join(","));
    for i in 0..40 {
        let pixel = |at: u32| (at * 7 + i * 13 + (i % 2) * (at % 6) * 30) % 251 + more;
        let pixels: Vec<String> = (0..36).map(|at| pixel(at).to_string()).collect();
        let _ = writeln!(out, "{},{}", i % 2, pixels.join(","));
    }
    out
}

#[test]
fn wrong_manifests() {
    check("wrong-manifests", "", |project| {
        project.convoy(&["check"]);
        project.convoy(&["check", "--json"]);
        project.convoy(&["run", "--json", "none.toml"]);
        project.write("a.toml", &SMALL.replace("epochs ", "epoch ").replace("folds = 4", "folds = 2"));
        project.convoy(&["check"]);
        project.convoy(&["check", "--json"]);
        project.convoy(&["run", "--json"]);
        project.convoy(&["status", "--json"]);
        project.write("b.toml", "schema = 1\nname = \"b\"\n[stages.ingest]\nsource = \"builtin:digit\"\nlabels = 3\n");
        project.convoy(&["check"]);
        project.convoy(&["check", "b.toml"]);
        project.convoy(&["check", "--json", "b.toml", "--set", "stages.ingest.limit=\"ä\""]);
        project.convoy(&["run", "b.toml", "--profile", "quick"]);
        project.write("c.toml", &SMALL.replace("builtin:digits", "photos"));
        project.convoy(&["run", "c.toml"]);
        project.convoy(&["run", "c.toml", "--json"]);
        project.convoy(&["status", "c.toml"]);
    });
}

#[test]
fn a_stage_that_fails_is_exit_1() {
    let net = "INPUT - CONV(1) - RELU - GAP - FC";
    check("failed", &SMALL.replace("INPUT - CONV(4) - RELU - POOL - FC", net), |project| {
        project.convoy(&["run", "-q", "--threads", "1"]);
        project.convoy(&["run", "-q", "--threads", "1", "--json"]);
        project.convoy(&["selftest", "training", "--threads", "1"]);
        project.convoy(&["selftest", "training", "--json", "--threads", "1"]);
        project.convoy(&["predict", "small.toml", "x.png"]);
        // A rate that makes numbers leave the finite world, and one that only ruins the training.
        let net = "INPUT - FC(32) - RELU - FC";
        let sets = [format!("stages.train.architecture=\"{net}\""), "stages.train.optimizer=\"sgd\"".to_owned()];
        for rate in ["stages.train.learning_rate=1e30", "stages.train.learning_rate=10"] {
            project.convoy(&["run", "-q", "--threads", "1", "--set", &sets[0], "--set", &sets[1], "--set", rate]);
        }
    });
}

#[test]
fn what_differs_from_the_lock_file_is_exit_3() {
    check("locked", SMALL, |project| {
        project.convoy(&["run", "-q", "--threads", "1", "--locked"]);
        project.convoy(&["check", "--locked"]);
        project.convoy(&["check", "--locked", "--json"]);
        project.convoy(&["run", "-q", "--threads", "1"]);
        project.convoy(&["run", "-q", "--threads", "1", "--locked"]);
        project.convoy(&["check", "--locked"]);
        project.convoy(&["check", "--locked", "--json"]);
        let epochs = ["--set", "stages.train.epochs=3"];
        project.convoy(&[&["check", "--locked"], &epochs[..]].concat());
        project.convoy(&[&["check", "--locked", "--json"], &epochs[..]].concat());
        let locked = ["run", "-q", "--threads", "1", "--locked"];
        project.convoy(&[&locked[..], &epochs[..]].concat());
        project.convoy(&[&locked[..], &["--json"], &epochs[..]].concat());
        project.convoy(&[&locked[..], &["--verbose"], &epochs[..]].concat());
        assert!(!project.path("out/small@set-771db878").exists(), "nothing is computed");
        project.convoy(&[&locked[..], &["--recompute"], &epochs[..]].concat());
        // What is computed already is compared.
        project.convoy(&[&locked[..], &["--verbose"], &epochs[..]].concat());
        project.convoy(&[&locked[..], &["--json"], &epochs[..]].concat());
        project.edit("small.toml", "seed   = 1", "seed   = 2");
        project.convoy(&locked);
        project.convoy(&[&locked[..], &["--to", "split"]].concat());
    });
}

/// A branch that changes a key, as somebody who reviews it sees it.
#[test]
fn what_changed_and_what_was_run() {
    let gated = SMALL.to_owned() + "gates = { accuracy = \">= 0.7\" }\n";
    check("diff", &gated.replace("limit  = 100", "limit  = 400"), |project| {
        let git = |project: &Project, arguments: &[&str]| {
            assert!(common::git(project.temp.path(), arguments).status.success(), "git {arguments:?}");
        };
        project.convoy(&["runs"]);
        fs::remove_dir(project.path(".git")).expect("an empty folder");
        project.convoy(&["diff"]);
        git(project, &["init", "-q", "-b", "main"]);
        project.write(".gitignore", ".convoy\nout\n");
        project.convoy(&["diff"]);
        project.convoy(&["run", "-q", "--threads", "1"]);
        git(project, &["add", "."]);
        git(project, &["commit", "-q", "-m", "begin"]);
        project.convoy(&["diff"]);
        git(project, &["checkout", "-q", "-b", "change"]);
        project.edit("small.toml", "epochs        = 4", "epochs        = 1");
        project.convoy(&["diff"]);
        project.convoy(&["run", "-q", "--threads", "1"]);
        project.convoy(&["diff"]);
        project.convoy(&["diff", "--fail-on-worse"]);
        project.convoy(&["diff", "main", "--md", "--fail-on-worse=log-loss"]);
        project.convoy(&["diff", "--fail-on-worse=acuracy"]);
        project.convoy(&["diff", "nothing"]);
        let output = project.command(&["diff", "--json"]).output().expect("the program starts");
        let shown = text(output.stdout);
        project.note(&[], &["diff", "--json"], "", &shown, &text(output.stderr), output.status);
        fs::rename(project.path(".convoy"), project.path(".hidden")).expect("a store");
        project.convoy(&["diff", "main"]);
        fs::rename(project.path(".hidden"), project.path(".convoy")).expect("a store");
        project.convoy(&["runs"]);
        let output = project.command(&["runs", "--json"]).output().expect("the program starts");
        let names = ["finished_unix_seconds", "seconds", "id", "convoy", "revision"];
        let shown = redacted::without_fields(&text(output.stdout), &names);
        project.note(&[], &["runs", "--json"], "", &shown, &text(output.stderr), output.status);
        project.was_slow = false;
    });
}

#[test]
fn what_is_recorded_is_computed_again() {
    check("verify", SMALL, |project| {
        project.convoy(&["verify", "small.toml"]);
        project.convoy_in(&[("CONVOY_ISA", "portable")], &["verify", "--all", "-q", "--threads", "2"]);
        project.convoy(&["run", "-q", "--threads", "1"]);
        let verb = ["verify", "-q", "--threads", "2"];
        for arguments in [&["--all"][..], &["train"], &["trian"], &["--sample", "2"]] {
            let mut command = project.command(&[&verb[..], arguments].concat());
            let output = command.env("CONVOY_ISA", "portable").output().expect("the program starts");
            let (stdout, stderr) = (text(output.stdout), text(output.stderr));
            let environment = [("CONVOY_ISA", "portable")];
            project.note(&environment, &[&verb[..], arguments].concat(), "", &stdout, &stderr, output.status);
        }
        project.convoy_in(&[("CONVOY_ISA", "portable")], &[&verb[..], &["--json", "ensemble"]].concat());
        project.each("verify|train|--all, verify|--sample|2|train");
        project.edit("small.toml", "epochs        = 4", "epochs        = 3");
        project.convoy_in(&[("CONVOY_ISA", "portable")], &[&verb[..], &["--all"]].concat());
        project.was_slow = false;
    });
}

#[test]
fn gates_that_fail_are_exit_6_and_come_last() {
    let gated = SMALL.to_owned() + "gates = { accuracy = \">= 0.99\", log-loss = \"<= 9.0\" }\n";
    check("gates", &gated, |project| {
        project.convoy(&["run", "-q", "--threads", "1"]);
        project.convoy(&["run", "-q", "--threads", "1"]);
        project.convoy(&["run", "-q", "--threads", "1", "--json"]);
        project.edit("small.toml", "epochs        = 4", "epochs        = 3");
        project.convoy(&["run", "-q", "--threads", "1", "--locked"]);
        project.convoy(&["run", "-q", "--threads", "1", "--locked", "--recompute"]);
    });
}

#[test]
fn gates_of_a_list_and_the_page_of_a_job() {
    let gates = "gates = [
  { metric = \"accuracy\", at_least = 0.5 },
  { metric = \"recall\", class = \"1\", split = \"test\", at_least = 0.9 },
  { metric = \"accuracy\", model = \"train\", split = \"out_of_fold\", baseline = 0.7, within_noise = true },
]
";
    check("job", &(SMALL.to_owned() + gates), |project| {
        project.convoy(&["run", "-q", "--threads", "1", "--junit", "junit.xml"]);
        let text = fs::read_to_string(project.path("junit.xml")).expect("a page");
        let _ = writeln!(project.transcript, "-- junit.xml\n{}", redacted::redacted(&text));
        project.edit(
            "small.toml",
            "  { metric = \"recall\"",
            "  { metric = \"log-loss\", baseline = \"small.lock\" },\n  { metric = \"recall\"",
        );
        project.edit("small.toml", "epochs        = 4", "epochs        = 3");
        project.convoy(&["run", "-q", "--threads", "1"]);
        project.edit("small.toml", "class = \"1\"", "class = \"11\"");
        project.edit("small.toml", "\"small.lock\"", "\"smal.lock\"");
        project.convoy(&["check", "small.toml", "--code-quality", "quality.json"]);
        let report = fs::read_to_string(project.path("quality.json")).expect("a report");
        let _ = writeln!(project.transcript, "-- quality.json\n{report}");
    });
}

#[test]
fn other_bytes_from_the_same_inputs_are_exit_4() {
    check("other-bytes", SMALL, |project| {
        project.convoy(&["run", "-q", "--threads", "1", "--to", "split"]);
        project.convoy(&["run", "-q", "--threads", "1"]);
        let lock = fs::read_to_string(project.path("small.lock")).expect("a lock file");
        let line = lock.lines().find(|line| line.starts_with("\"split/")).expect("a line of `split`");
        let digest = line.split('"').rev().nth(1).expect("a digest");
        project.edit("small.lock", digest, &"0".repeat(digest.len()));
        project.convoy(&["run", "-q", "--threads", "1"]);
        project.convoy(&["run", "-q", "--threads", "1", "--json"]);
        project.convoy(&["run", "-q", "--threads", "1", "--relock"]);
        project.convoy(&["run", "-q", "--threads", "1", "--locked"]);
    });
}

#[test]
fn a_damaged_store_is_exit_5() {
    check("damaged", SMALL, |project| {
        project.each("cache|list, verify, run|-q|--threads|1|--to|preprocess, cache|list, cache|list|--json");
        project.each("verify, verify|--json");
        for verb in [&["verify"][..], &["verify", "--json"]] {
            let blobs = fs::read_dir(project.path(".convoy/cas")).expect("blobs");
            let largest = blobs
                .map(|entry| entry.expect("a blob").path())
                .max_by_key(|path| (fs::metadata(path).expect("a blob").len(), path.clone()));
            let largest = largest.expect("there are blobs");
            let mut bytes = fs::read(&largest).expect("a blob");
            bytes[0] ^= 1;
            fs::remove_file(&largest).expect("a blob goes");
            fs::write(&largest, bytes).expect("another comes");
            project.convoy(verb);
            project.convoy(&["why", "ingest"]);
            project.convoy(&["run", "-q", "--threads", "1", "--to", "preprocess"]);
        }
        project
            .each("cache|gc|--dry-run, cache|gc|--keep|nothing, cache|gc|--max-size|many, cache|gc|--json, cache|gc");
    });
}

#[test]
fn what_is_stored_can_be_looked_at_and_carried() {
    check("carry", SMALL, |project| {
        let here = "run|-q|--threads|1, cache|list, cache|show|small split, cache|show|nothing, cache|path|small split,
            cache|path|small split|splits.csv, cache|path|small split|nothing, cache|path|small train,
            cache|export|small split|copy, cache|export|small split|copy, cache|key, cache|key|--json,
            cache|pack|pack.tar, run|-q|--threads|1|--set|stages.train.epochs=1,
            cache|gc|--dry-run|--keep|small ingest, cache|gc|--drop|nothing";
        let there = "cache|unpack|pack.tar, cache|unpack|pack.tar|--json, cache|unpack|small.toml, status, cache|list,
            run|-q|--threads|1|--locked, export|safetensors|small.toml, data|show|digits, data|show|digits|--json,
            data|fetch|digits, data|fetch|digits|--json, data|fetch|mnist|--offline, data|fetch|mnist|--offline|--json,
            data|fetch|mmist, data|add|copy, data|add|own, data|add|own|--json, data|show|own, data|fetch|own,
            cache|show|small split|--json, cache|path|small split|--json, cache|export|small split|other|--json,
            cache|pack|again.tar|--json, cache|gc|--drop|small|--json";
        for (class, byte) in [("cat", 1u8), ("dog", 200)] {
            let folder = project.path("own").join(class);
            fs::create_dir_all(&folder).expect("a folder is made");
            fs::write(folder.join("1.pgm"), [&b"P5\n2 2\n255\n"[..], &[byte; 4]].concat())
                .expect("an image is written");
        }
        project.each(here);
        fs::remove_dir_all(project.path(".convoy")).expect("the store goes");
        project.each(there);
    });
}

#[test]
fn an_interrupt_is_exit_130() {
    let long =
        SMALL.replace("epochs        = 4", "epochs        = 900000\nsanity        = false").replace("= 4", "= 1");
    check("interrupted", &long, |project| {
        for arguments in [&["run", "-q", "--threads", "1"][..], &["run", "-q", "--threads", "1", "--json"]] {
            project.convoy(&["run", "-q", "--threads", "1", "--to", "preprocess"]);
            fs::remove_dir_all(project.path(".convoy/checkpoints")).expect("checkpoints");
            fs::create_dir(project.path(".convoy/checkpoints")).expect("a folder for others");
            let mut command = project.command(arguments);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = command.spawn().expect("the program starts");
            // The training is at work when its first checkpoint is there.
            let started = Instant::now();
            let is_there = || fs::read_dir(project.path(".convoy/checkpoints")).is_ok_and(|dir| dir.count() > 0);
            while !is_there() && started.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(5));
            }
            // SAFETY: a signal to a child of this process that has not been waited for.
            unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
            let output = child.wait_with_output().expect("it ends");
            let (stdout, stderr) = (text(output.stdout), text(output.stderr));
            project.note(&[], arguments, "    # and SIGINT while it trains", &stdout, &stderr, output.status);
        }
        project.was_slow = false;
    });
}

/// The second time the epoch is chosen by validation rows, the third time nothing is held out of that.
#[test]
fn held_out_rows_move_nothing() {
    check("leakage", SMALL, |project| {
        let verb = ["selftest", "leakage", "-q", "--threads", "2"];
        project.convoy(&verb);
        project.edit("small.toml", "epochs        = 4", "epochs = 4\nearly_stopping = { patience = 2 }");
        project.convoy(&verb);
        project.edit("small.toml", "test  = 0.2", "test = 0.0");
        project.convoy(&verb);
        project.convoy(&[&verb[..], &["--json"]].concat());
        project.was_slow = false;
    });
}

#[test]
fn other_verbs() {
    check("other-verbs", "", |project| {
        project.convoy(&["init"]);
        project.convoy(&["init"]);
        project.convoy(&["init", "--json", "second.toml"]);
        project.convoy(&["check", "pipeline.toml"]);
        project.convoy(&["summary", "pipeline.toml"]);
        project.convoy(&["summary", "--json", "pipeline.toml"]);
        project.convoy(&["summary", "--toml", "pipeline.toml"]);
        project.each("data|list, data|list|--json, data|verify|digits, data|verify|--json|digits, data|verify|mnist");
        project.each("data|verify|--json|mnist, data|verify|mmist");
        project.each("schema|train.optimizer, schema|epoch, cache|gc|--json");
        project.was_slow = false;
    });
    check("schema", "", |project| {
        project.convoy(&["schema"]);
        for line in [&["schema", "--json"][..], &["man"]] {
            let output = project.command(line).output().expect("the program starts");
            let (stdout, stderr) = (text(output.stdout), text(output.stderr));
            let head: String = stdout.split_inclusive('\n').take(4).collect();
            project.note(&[], line, " | head -n 4", &head, &stderr, output.status);
        }
    });
    check("completions", SMALL, |project| {
        project.convoy(&["completions", "fish"]);
        project.convoy(&["completions", "bash"]);
        project.write(
            "other.toml",
            "schema = 1\n[stages.ingest]\n[stages.net]\nkind = \"train\"\n[profile.ci]\nseed = 2\n",
        );
        project.write("half.toml", "schema = 1\n[stages.ingest]\n[stages.dense]\nkind = \"tr\n[profile.quick]\n");
        project.write("datasets/mine.toml", "");
        project.convoy(&["run", "-q", "--threads", "1", "--to", "split", "small.toml"]);
        for line in [
            &["run", "small.toml", "--to", ""][..],
            &["run", "other.toml", "--force", "n"],
            &["run", "half.toml", "--to", ""],
            &["check", "other.toml", "--profile", ""],
            &["check", "half.toml", "--profile", ""],
            &["predict", "other.toml", "--stage", "n"],
            &["why", "tr", "small.toml"],
            &["check", "other.toml", "--set", "stages.net.e"],
            &["check", "other.toml", "--set", "stages.net.optimizer.adam."],
            &["schema", "train.optimizer.ad"],
            &["data", "verify", ""],
            &["cache", "gc", "--keep", ""],
            &["export", ""],
        ] {
            let index = if line[0] == "why" { 2 } else { line.len() }.to_string();
            let asked = [("CONVOY_COMPLETE", "bash"), ("_CLAP_COMPLETE_INDEX", index.as_str())];
            project.convoy_in(&asked, &[&["--", "convoy"], line].concat());
        }
        let of_fish = ["--", "convoy", "run", "other.toml", "--set", "stages.net.epo"];
        project.convoy_in(&[("CONVOY_COMPLETE", "fish")], &of_fish);
        project.convoy_in(&[("CONVOY_COMPLETE", "tcsh")], &[]);
        project.was_slow = false;
    });
}

/// With `--json` every verb that fails has a document on stdout, and the text of it on stderr.
#[test]
fn errors_are_documents_too() {
    check("errors-as-json", SMALL, |project| {
        project.write("broken.toml", &SMALL.replace("epochs ", "epoch "));
        project.write("absent.toml", &SMALL.replace("builtin:digits", "photos"));
        project.write("file", "a file in the place of a folder");
        let failing: &[&[&str]] = &[
            &["run", "none.toml"],
            &["run", "broken.toml"],
            &["run", "absent.toml", "-q"],
            &["run", "small.toml", "--to", "splitt"],
            &["run", "small.toml", "-q", "--cache-dir", "file"],
            &["run", "small.toml", "-q", "--out-dir", "file"],
            &["run", "small.toml", "--threads", "0"],
            &["check", "broken.toml"],
            &["check", "absent.toml", "--data"],
            &["check", "small.toml", "--locked"],
            &["summary", "broken.toml"],
            &["status", "absent.toml"],
            &["status", "small.toml", "--cache-dir", "file"],
            &["why", "nothing", "small.toml"],
            &["predict", "small.toml", "x.png"],
            &["predict", "broken.toml", "x.png"],
            &["predict", "none.safetensors", "x.png"],
            &["export", "safetensors", "small.toml"],
            &["export", "safetensors", "broken.toml"],
            &["export", "safetensors", "--stage", "split", "small.toml"],
            &["init", "small.toml"],
            &["data", "verify", "mmist"],
            &["data", "verify", "mnist"],
            &["cache", "list", "--cache-dir", "file"],
            &["cache", "gc", "--cache-dir", "file"],
            &["cache", "gc", "--max-size", "many"],
            &["cache", "gc", "--keep", "nothing"],
            &["cache", "clean"],
            &["verify", "--cache-dir", "file"],
            &["selftest", "training", "broken.toml"],
            &["rum"],
        ];
        fs::create_dir(project.path(".convoy")).expect("a folder");
        for arguments in failing {
            let (stdout, stderr) = project.convoy(&[arguments, &["--json"][..]].concat());
            assert_eq!(stdout.lines().count(), 1, "{arguments:?}: {stdout}");
            assert!(!stderr.is_empty(), "{arguments:?} says nothing on stderr");
            let json: serde_json::Value = serde_json::from_str(&stdout).expect("it is JSON");
            assert_eq!(json["schema_version"], 1, "{arguments:?}");
            let told = json["diagnostics"].as_array().expect("a list");
            let errors: Vec<_> = told.iter().filter(|told| told["severity"] == "error").collect();
            assert!(!errors.is_empty(), "{arguments:?}: {stdout}");
            for error in errors {
                // Its beginning: a long one is broken.
                let reason = error["reason"].as_str().expect("a text");
                let start: String = reason.split(' ').take(4).collect::<Vec<_>>().join(" ");
                assert!(stderr.contains(&start), "{arguments:?}: `{start}` is not in {stderr}");
            }
        }
        project.was_slow = false;
    });
}

#[test]
fn the_program_and_the_machine() {
    check("selftest", "", |project| {
        // Of instruction sets each machine has its own.
        for arguments in [&["selftest"][..], &["selftest", "--json"]] {
            let output = project.command(arguments).output().expect("the program starts");
            let stdout = text(output.stdout);
            let shown = match stdout.find("\"runs\":") {
                Some(at) => stdout[..at].to_owned() + "\"runs\":[MACHINE]}\n",
                None => {
                    let is_row = |line: &&str| line.starts_with("passed  ");
                    let rows: Vec<&str> = stdout.lines().filter(is_row).collect();
                    assert!(rows.len() >= 2, "{stdout}");
                    stdout.lines().filter(|line| !is_row(line)).flat_map(|line| [line, "\n"]).collect()
                }
            };
            project.note(&[], arguments, "", &shown, &text(output.stderr), output.status);
        }
    });
    check("doctor", "", |project| {
        let output = project.command(&["doctor"]).output().expect("the program starts");
        let stdout = text(output.stdout);
        let mut seen = BTreeSet::new();
        let lines = stdout.lines().filter_map(|line| line.split(' ').next()).filter(|name| seen.insert(*name));
        let shown: String = lines.map(|name| format!("{name:<16} [MACHINE]\n")).collect();
        project.note(&[], &["doctor"], "", &shown, &text(output.stderr), output.status);
        let output = project.command(&["doctor", "--json"]).output().expect("the program starts");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(output.stdout.starts_with(b"{\"schema_version\":1,"));
        let names = json.as_object().expect("an object").keys().filter(|name| *name != "schema_version");
        let fields: String = names.map(|name| format!(",\"{name}\":[MACHINE]")).collect();
        let shown = format!("{{\"schema_version\":1{fields}}}\n");
        project.note(&[], &["doctor", "--json"], "", &shown, &text(output.stderr), output.status);
        project.was_slow = false;
    });
}

/// A picture of 6x6 pixels.
fn picture(shade: u32) -> String {
    let pixels: Vec<String> =
        (0..36).map(|at| ((at * 7 + shade * 29 + (shade % 2) * at * 5) % 251).to_string()).collect();
    format!("P2\n6 6\n255\n{}\n", pixels.join(" "))
}

/// Class names of double width and of combined characters, every kind of model, and predictions.
#[test]
fn models() {
    let manifest = SMALL
        .replace("builtin:digits", "photos")
        .replace("limit  = 100\n", "")
        .replace("epochs        = 4", "epochs        = 12\nsanity = false\nearly_stopping = { patience = 2 }")
        .replace(
            "[stages.ensemble]",
            "[stages.dense]\nkind = \"train\"\ninput = \"preprocess\"\nsanity = false\narchitecture = \"INPUT - FC\"\n\
             epochs = 3\n\n[stages.ensemble]\nmembers = [\"train\", \"dense\"]",
        );
    check("models", &manifest, |project| {
        for i in 0..60 {
            let class = ["猫", "cafe\u{301}", "dog"][i % 3];
            project.write(&format!("photos/{class}/{i:02}.pgm"), &picture(i as u32));
        }
        project.convoy(&["run", "-q", "--threads", "1"]);
        project.convoy(&["run", "-q", "--threads", "1", "--json"]);
        project.write("other/a.pgm", &picture(3));
        project.write("other/b.pgm", "P2\n6 6\n255\n1 2 3\n");
        project.convoy(&["predict", "-q", "small.toml", "other"]);
        project.convoy(&["predict", "-q", "--json", "--top", "2", "small.toml", "other"]);
        project.convoy(&["predict", "--stage", "dense", "small.toml", "other/a.pgm"]);
        project.convoy(&["predict", "--stage", "split", "small.toml", "other"]);
        project.convoy(&["export", "safetensors", "small.toml"]);
        project.convoy(&["export", "safetensors", "--json", "--stage", "dense", "small.toml"]);
        for form in ["onnx", "npz", "tensorboard"] {
            project.convoy(&["export", form, "small.toml"]);
            project.convoy(&["export", form, "--json", "--stage", "dense", "small.toml"]);
        }
        project.convoy(&["predict", "-q", "out/small/dense.safetensors", "other/a.pgm"]);
        project.convoy(&["evaluate", "-q", "small.toml", "photos", "-o", "new", "--gate", "accuracy>=0.99"]);
        project.convoy(&["evaluate", "-q", "--json", "out/small/dense.safetensors", "photos", "--metric", "accuracy"]);
        project.convoy(&["evaluate", "small.toml", "other"]);
        project.was_slow = false;
    });
}

#[test]
fn what_a_model_answers() {
    let keys = "predict = [\"flip\"]\ncalibrate = \"temperature\"\nabstain = { error = 0.3 }\n\n[stages.ensemble]";
    check("answers", &SMALL.replace("[stages.ensemble]", keys), |project| {
        project.convoy(&["run", "-q", "--threads", "1"]);
        project.edit("small.toml", "error = 0.3", "error = 0.001");
        project.convoy(&["why", "train"]);
        project.convoy(&["run", "-q", "--threads", "1"]);
        project.write("a.pgm", &format!("P2\n8 8\n255\n{}", "7 90 ".repeat(32)));
        project.convoy(&["predict", "-q", "--stage", "train", "small.toml", "a.pgm"]);
        project.each("predict|-q|--stage|train|--embeddings|e.npy|small.toml|a.pgm");
        project.each("predict|-q|--stage|train|--embeddings|e.npy|--network|2|small.toml|a.pgm");
        project.was_slow = false;
    });
}

#[test]
fn a_search_ends_with_its_best_settings() {
    let manifest = SMALL.replace("[stages.ensemble]\n", "").replace("epochs        = 4", "epochs        = 2")
        + "\n[stages.search]\ntune = \"train\"\nrounds = [{ trials = 3, epochs = 1, keep = 2 }, {}]\n\n\
           [stages.search.space]\nstages.train.learning_rate = { log-uniform = [1e-3, 1e-1] }\n\
           stages.train.l2 = { choice = [0.0, 1e-4] }\n";
    let (above, below) = manifest.split_once("[stages.evaluate]\n").expect("an evaluation");
    let manifest = format!("{above}{below}\n[stages.evaluate]\nmetrics = [\"accuracy\", \"log-loss\"]\n");
    check("search", &manifest, |project| {
        project.convoy(&["status"]);
        project.convoy(&["run", "-q", "--threads", "1"]);
        project.convoy(&["run", "-q", "--threads", "1", "--json"]);
        project.convoy(&["status"]);
        project.convoy(&["why", "search"]);
        project.was_slow = false;
    });
}

#[test]
fn a_rate_is_looked_for() {
    check("rate", SMALL, |project| {
        let rate = "selftest|rate|-q|--threads|1|--steps|40";
        project.each(&format!("{rate}, {rate}|--json, {rate}|small.toml|split, {rate}|--from|1|--to|0.1"));
        project.was_slow = false;
    });
}

/// Slips that would cost an hour, or a result: told before anything is computed.
#[test]
fn slips_are_told_before_they_cost_anything() {
    check("slips", SMALL, |project| {
        project.each("run|-q|--threads|1, run|--junit|small.toml, runs|nope, data|show|builtin:digits");
        project
            .each("export|safetensors|small.toml|-o|small.toml, run|-q|--threads|1|--set|stages.train.batch_size=5000");
        let lock = fs::read_to_string(project.path("small.lock")).expect("a lock file");
        let line = lock.lines().find(|line| line.contains(".accuracy\"")).expect("an accuracy");
        let (name, _) = line.split_once(" = ").expect("a key and a value");
        project.write("small.lock", &lock.replacen(line, &format!("{name} = \"0.99\""), 1));
        project.each("check|--locked, run|-q|--threads|1|--locked, run|-q|--threads|1");
        project.write("small.lock", &format!("<<<<<<< HEAD\n{lock}"));
        project.each("run|-q|--threads|1, run|-q|--threads|1|--locked, check|--locked");
        project.write("small.lock", &lock);
        project.write("out/small/metrics.csv", "edited");
        project.each("status, run|-q|--threads|1");
    });
}

/// Sources as they lie on a disk.
#[test]
fn sources_that_are_not_what_they_seem() {
    let manifest = |source: &str| SMALL.replace("builtin:digits", source).replace("limit  = 100\n", "");
    check("sources", &manifest("photos"), |project| {
        for (i, name) in ["cat/1", "cat/2", "test/cat/3", "test/dog/4", "dog/5"].iter().enumerate() {
            project.write(&format!("photos/{name}.pgm"), &picture(i as u32));
        }
        project.each("check|--data, run|-q|--threads|1");
        project.each("check|--data|--set|stages.ingest.source=\"photos/test\", run|-q|--out-dir|photos|small.toml");
        fs::create_dir_all(project.path("photos/train")).expect("a folder");
        for class in ["cat", "dog"] {
            let to = project.path("photos/train").join(class);
            fs::rename(project.path("photos").join(class), to).expect("a class is moved");
        }
        fs::create_dir(project.path("photos/train/eel")).expect("a folder");
        project.write("photos/train/cat/notes.txt", "not an image");
        project.write("photos/train/dog/broken.pgm", "P2\n6 6\n255\n1 2 3\n");
        project.each("check|--data, run|-q|--threads|1|--to|ingest");
        project.edit("small.toml", "source = \"photos\"", "source = \"photos\"\non_corrupt = \"skip\"");
        project.each("check|--data, run|-q|--threads|1|--to|ingest, summary");
    });
    check("tables", &manifest("table.csv"), |project| {
        for i in 0..12 {
            project.write(&format!("photos/{i}.pgm"), &picture(i));
        }
        let mut table = String::from("path,label\n");
        for i in 0..12 {
            let _ = writeln!(table, "photos/{i}.pgm,{}", ["cat", "dog", "Cat"][i % 3]);
        }
        project.write("table.csv", &table);
        project.each("check|--data, run|-q|--threads|1|--to|ingest");
        project.write("table.csv", &table.replace(",Cat", ",eel"));
        fs::remove_file(project.path("photos/3.pgm")).expect("an image goes");
        project.write("photos/more.pgm", &picture(40));
        project.each("check|--data, run|-q|--threads|1|--to|ingest");
        project.edit("small.toml", "source = \"table.csv\"", "source = \"table.csv\"\non_corrupt = \"skip\"");
        project.each("check|--data, run|-q|--threads|1|--to|ingest");
    });
}

#[test]
fn colours_and_the_environment() {
    check("environment", SMALL, |project| {
        let wrong = ["check", "--set", "stages.train.epoch=1"];
        project.convoy_in(&[("CLICOLOR_FORCE", "1")], &wrong);
        project.convoy_in(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], &wrong);
        project.convoy_in(&[("NO_COLOR", "1")], &["check", "--color", "always", "none.toml"]);
        project.convoy_in(&[("CLICOLOR_FORCE", "1")], &["check", "--color=never", "none.toml"]);
        project.convoy_in(&[("CONVOY_COLOR", "always")], &["check", "none.toml"]);
        project.convoy_in(&[("CONVOY_COLOR", "always")], &["check", "none.toml", "--color", "never"]);
        project.convoy_in(&[("CONVOY_COLOR", "sometimes")], &["check"]);
        project.convoy(&["check", "--color", "sometimes"]);
        let run = ["run", "-q", "--to", "ingest"];
        project.convoy_in(&[("CONVOY_THREADS", "1"), ("CONVOY_CACHE", "elsewhere")], &run);
        assert!(project.path("elsewhere/ac").is_dir() && !project.path(".convoy").exists());
        project.convoy_in(&[("CONVOY_THREADS", ""), ("CONVOY_CACHE", ""), ("CONVOY_DATA", "")], &["status"]);
        project.convoy_in(&[("CONVOY_THREADS", "many")], &["status"]);
        project.convoy_in(&[("CONVOY_THREADS", "many")], &["status", "--threads", "0"]);
        project.convoy_in(&[("CONVOY_ISA", "mmx")], &["status"]);
        project.convoy_in(&[("CONVOY_ISA", "portable")], &["run", "-q", "--to", "ingest"]);
    });
}

#[test]
fn streams_that_do_not_take_what_is_said() {
    check("streams", SMALL, |project| {
        for arguments in [&["status"][..], &["status", "--json"], &["run", "-q", "--threads", "1"]] {
            let mut command = project.command(arguments);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
            drop(child.stdout.take());
            let output = child.wait_with_output().expect("it ends");
            project.note(&[], arguments, " | true", "", &text(output.stderr), output.status);
        }
        for arguments in [&["status"][..], &["check", "--json"], &["run", "-q", "--threads", "1"]] {
            let full = fs::File::options().write(true).open("/dev/full").expect("a full disk");
            let output = project.command(arguments).stdout(full).output().expect("the program starts");
            project.note(&[], arguments, " >/dev/full", "", &text(output.stderr), output.status);
        }
        let full = fs::File::options().write(true).open("/dev/full").expect("a full disk");
        let output = project.command(&["check", "none.toml"]).stderr(full).output().expect("the program starts");
        project.note(&[], &["check", "none.toml"], " 2>/dev/full", &text(output.stdout), "", output.status);
    });
}

#[test]
fn terminals_have_bars_and_colours_and_those_of_ci_have_lines() {
    check("ci", SMALL, |project| {
        let arguments = ["run", "--threads", "1"];
        let mut command = project.command(&arguments);
        command.env("CI", "true");
        let started = Instant::now();
        let (shown, status) = on_a_terminal(command);
        project.was_slow |= started.elapsed() > CALM;
        assert!(!shown.contains('\x1b'), "{shown}");
        let shown = shown.replace("\r\n", "\n");
        assert!(!shown.contains('\r'), "{shown}");
        project.note(&[("CI", "true")], &arguments, "    # on a terminal", &shown, "", status);
    });
    let project = Project::new(&(SMALL.to_owned() + "gates = { accuracy = \">= 0.1\" }\n"));
    let (shown, status) = on_a_terminal(project.command(&["run", "--threads", "1"]));
    assert!(status.success(), "{shown}");
    for expected in ["\x1b[32mpassed\x1b[0m", "tasks computed in", "train (", "\x1b[32mout/small/\x1b[0m", "\x1b["] {
        assert!(shown.contains(expected), "no {expected:?} in {shown}");
    }
    assert!(!shown.contains("starting"), "bars show what runs: {shown}");
    // Only what is a terminal is coloured.
    let mut command = project.command(&["run", "--threads", "1"]);
    command.env("NO_COLOR", "1");
    let (shown, _) = on_a_terminal(command);
    assert!(!shown.contains("\x1b[32m"), "{shown}");
}

/// Transcripts that are empty or equal say that the wrong thing was written down.
#[test]
fn transcripts_differ_and_every_verb_has_some() {
    let mut seen: Vec<(PathBuf, String)> = Vec::new();
    let mut commands = BTreeSet::new();
    let mut codes = BTreeSet::new();
    for entry in fs::read_dir(FOLDER).expect("the folder is there") {
        let path = entry.expect("its entries can be read").path();
        if path.extension().is_none_or(|ending| ending != "txt") {
            continue;
        }
        let content = fs::read_to_string(&path).expect("a transcript is text");
        let plays: Vec<&str> = content.split_inclusive("\n-- exit ").collect();
        assert!(plays.len() > 1, "{} is empty", path.display());
        if let Some((other, _)) = seen.iter().find(|(_, known)| *known == content) {
            panic!("{} and {} are equal", path.display(), other.display());
        }
        for play in content.split("\n$ ") {
            let line = play.lines().next().unwrap_or_default();
            let words: Vec<&str> =
                line.trim_start_matches("$ ").split(' ').skip_while(|word| *word != "convoy").skip(1).collect();
            let said: Vec<&str> = play.lines().skip(1).take_while(|line| !line.starts_with("-- exit ")).collect();
            let is_silent = line.contains("/dev/full") || line.ends_with("| true") || words.contains(&"gc");
            assert!(is_silent || !said.is_empty(), "{}: `{line}` says nothing", path.display());
            let is_json = words.contains(&"--json");
            if let (true, Some(at)) = (is_json, said.iter().position(|line| *line == "-- stdout")) {
                let first = said[at + 1].trim_start();
                let is_pretty = words.contains(&"schema") && first == "{";
                assert!(is_pretty || first.starts_with("{\"schema_version\":1,"), "{}: {first}", path.display());
            }
            codes.extend(play.lines().filter_map(|line| line.strip_prefix("-- exit ")).map(str::to_owned));
            for verb in VERBS.iter().filter(|verb| words.starts_with(verb) && !words.contains(&"--help")) {
                commands.insert((verb.join(" "), is_json));
            }
        }
        seen.push((path, content));
    }
    for verb in VERBS.iter().map(|verb| verb.join(" ")).filter(|verb| !FAMILIES.contains(&&verb[..])) {
        assert!(commands.contains(&(verb.clone(), false)), "`{verb}` has no transcript");
        assert!(
            ["completions", "man"].contains(&&verb[..]) || commands.contains(&(verb.clone(), true)),
            "`{verb} --json` has no transcript"
        );
    }
    for code in ["0", "1", "2", "3", "4", "5", "6", "130"] {
        assert!(codes.contains(code), "nothing ends with {code}");
    }
}
