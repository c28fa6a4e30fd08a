//! What people are told about a manifest: for each bad one in `tests/manifests/` the exact message beside it.
//!
//! `UPDATE_EXPECT=1 cargo test --test manifests` rewrites the messages; read the diff. A line `#: --set a=b` or
//! `#: --profile ci` in a manifest is an argument of its command line.

mod common;

use std::fs;
use std::path::Path;

use convoy::manifest::{Diagnostics, Manifest, Overrides};
use convoy::stages;
use proptest::prelude::*;

use common::manifests_in;

/// Relative to the crate's root, where cargo runs tests: messages show it as it is.
const FOLDER: &str = "tests/manifests";

/// The command line that a manifest's `#:` lines stand for.
fn overrides_in(bytes: &[u8]) -> Overrides {
    let mut overrides = Overrides::default();
    for line in String::from_utf8_lossy(bytes).lines() {
        match line.strip_prefix("#: --").and_then(|rest| rest.split_once(' ')) {
            Some(("set", value)) => overrides.sets.push(value.to_owned()),
            Some(("profile", value)) => overrides.profile = Some(value.to_owned()),
            _ => {}
        }
    }
    overrides
}

fn load(path: &Path) -> Result<Manifest, Diagnostics> {
    let bytes = fs::read(path).expect("the manifest can be read");
    Manifest::load(path, &overrides_in(&bytes))
}

#[test]
fn bad_manifests_are_told_apart() {
    let bad = manifests_in(Path::new(FOLDER));
    assert!(bad.len() >= 40, "only {} bad manifests", bad.len());
    let mut wrong = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for path in bad {
        let is_empty = fs::read(&path).expect("a manifest can be read").trim_ascii().is_empty();
        assert!(!is_empty || path.ends_with("empty.toml"), "{} is empty", path.display());
        let told = match load(&path) {
            Ok(_) => "it loads\n".to_owned(),
            Err(found) => found.render(false),
        };
        let beside = path.with_extension("stderr");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&beside, &told).expect("the message can be written");
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        // Two manifests with one message: one of them does not show what it is named after.
        let plain = expected.replace(&path.display().to_string(), "");
        assert!(plain.is_empty() || !seen.contains(&plain), "{} says what another one says", path.display());
        seen.push(plain);
        if told != expected || told == "it loads\n" {
            wrong.push(format!("{}\n-- expected\n{expected}\n-- told\n{told}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_message_stands_alone() {
    for entry in fs::read_dir(FOLDER).expect("the folder is there") {
        let path = entry.expect("its entries can be read").path();
        if path.extension().is_some_and(|ending| ending == "stderr") {
            assert!(path.with_extension("toml").exists(), "{} has no manifest", path.display());
        }
    }
}

#[test]
fn good_manifests_load_without_a_word() {
    let good = manifests_in(Path::new(FOLDER).join("good"));
    assert!(!good.is_empty());
    for path in good {
        match load(&path) {
            Ok(manifest) => assert_eq!(manifest.diagnostics().render(false), "", "{}", path.display()),
            Err(found) => panic!("{found}"),
        }
    }
}

#[test]
fn stages_stand_in_the_order_of_the_file() {
    let manifest =
        load(&Path::new(FOLDER).join("good/not-alphabetical.toml")).unwrap_or_else(|found| panic!("{found}"));
    let names: Vec<&str> = manifest.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["zebra", "monkey", "ant"]);
}

#[test]
fn files_that_are_no_manifests_are_refused() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let told = |path: &Path| {
        let found = Manifest::load(path, &Overrides::default()).expect_err("it is no manifest");
        found.problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(told(&folder.path().join("absent.toml")), "the manifest does not exist");
    assert_eq!(told(folder.path()), "expected a manifest, got a folder");
    let large = folder.path().join("large.toml");
    fs::write(&large, "#".repeat((1 << 20) + 1)).expect("the file can be written");
    assert_eq!(told(&large), "the manifest is larger than 1 MiB");
    let full = folder.path().join("full.toml");
    fs::write(&full, "#".repeat(1 << 20)).expect("the file can be written");
    assert_eq!(told(&full), "missing key `schema`; there is no stage");
}

/// Loads `bytes`; whatever is said must have a place and be shown without a panic.
fn survive(bytes: &[u8], sets: &[String]) -> Result<(), TestCaseError> {
    let overrides = Overrides { sets: sets.to_vec(), profile: None };
    let found = match Manifest::from_bytes(Path::new("m.toml"), bytes, &overrides, stages::KINDS) {
        Ok(manifest) => manifest.diagnostics(),
        Err(found) => {
            prop_assert!(found.n_errors() > 0);
            found
        }
    };
    for problem in &found.problems {
        let text = found.texts.text(problem.span).expect("a span is in a text");
        let range = problem.span.start as usize..problem.span.end as usize;
        prop_assert!(text.content.get(range.clone()).is_some(), "{:?} in {:?}", range, text.content);
        prop_assert!(!problem.message.contains(char::is_control), "{}", problem.message);
    }
    let page = found.render(false);
    prop_assert!(page.is_empty() == found.problems.is_empty());
    found.render(true);
    Ok(())
}

/// Pieces that break manifests in more interesting ways than random bytes do.
const PIECES: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "\"\"\"",
    "=",
    ".",
    ",",
    "\n",
    "\r",
    "#",
    "\\",
    "\\u00",
    "\u{0}",
    "é",
    "数",
    "\t",
    " ",
    "-",
    "99999999999999999999",
    "1e999",
    "nan",
    "-inf",
    "2026-01-01",
    "true",
    "[stages.x]",
    "[[stages.split]]",
    "stages.split.folds = 2\n",
    "input = \"split\"\n",
    "kind = \"split\"\n",
    "members = []\n",
    "[profile.ci]\n",
    "{ a.b.c = 1 }",
    "steps = [[[\"center\"]]]\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        survive(&bytes, &[])?;
    }

    #[test]
    fn mutated_manifests_do_not_panic(
        which in any::<proptest::sample::Index>(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), 0usize..12, any::<proptest::sample::Index>()), 1..6),
        sets in proptest::collection::vec("[a-z.]{0,12}=?[\\[\\]{}\"a-z0-9., -]{0,12}", 0..2),
    ) {
        let mut paths = manifests_in(Path::new(FOLDER).join("good"));
        paths.extend(manifests_in(Path::new(FOLDER)));
        let mut bytes = fs::read(&paths[which.index(paths.len())]).expect("the manifest can be read");
        for (at, remove, piece) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + remove).min(bytes.len());
            bytes.splice(at..end, PIECES[piece.index(PIECES.len())].bytes());
        }
        survive(&bytes, &sets)?;
    }
}
