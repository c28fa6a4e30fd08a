//! The report of a run: the same bytes whatever ran, every picture there, foreign names only text, small with many classes.
#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

const MANIFEST: &str = r#"schema = 1
name = "t"
[stages.ingest]
source = "img"
[stages.split]
folds = 2
[stages.preprocess]
steps = ["center"]
[stages.train]
architecture = "INPUT - CONV(4) - RELU - FC"
epochs = 2
sanity = false
augment = ["flip"]
[stages.ensemble]
[stages.evaluate]
gates = { accuracy = ">= 0.01" }
"#;

/// A class of images that a name may try to break out of a page with.
const EVIL: &str = "<script>alert(1)<|script> & \"q\" 'a' `b` |c|";

/// A project of `n_classes` classes of grey images of `side` pixels.
fn project(n_classes: usize, side: usize) -> tempfile::TempDir {
    let temp = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(temp.path().join(".git")).expect("a project root");
    fs::write(temp.path().join("t.toml"), MANIFEST).expect("a manifest");
    for class in 0..n_classes {
        let name = if class == 0 { EVIL.to_owned() } else { format!("class-{class:02}") };
        let folder = temp.path().join("img").join(name);
        fs::create_dir_all(&folder).expect("a folder");
        for i in 0..8 {
            let mut bytes = format!("P5\n{side} {side}\n255\n").into_bytes();
            // Noise, which no compression makes small.
            let mut state = (class * 97 + i * 7919 + 1) as u32;
            for _ in 0..side * side {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                bytes.push((state >> 24) as u8);
            }
            fs::write(folder.join(format!("{i}.pgm")), bytes).expect("an image");
        }
    }
    temp
}

fn convoy(dir: &Path, arguments: &[&str]) -> Output {
    common::program(dir, arguments).output().expect("the program starts")
}

/// Files below a folder whose bytes are the same for every run.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = walkdir::WalkDir::new(dir).into_iter().map(|entry| entry.expect("a readable folder"));
    let files = all.filter(|entry| entry.file_type().is_file());
    let named = files.map(|entry| (entry.path().strip_prefix(dir).expect("below").to_owned(), entry));
    let kept = named.filter(|(name, _)| !["run.json", "timings.csv"].iter().any(|time| name.ends_with(time)));
    kept.map(|(name, entry)| (name, fs::read(entry.path()).expect("a readable file"))).collect()
}

#[test]
fn a_report_is_the_same_for_any_threads_and_however_often_a_run_was_killed() {
    let (one, three) = (project(3, 6), project(3, 6));
    let ran = convoy(one.path(), &["run", "-q", "--threads", "1"]);
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    // Two runs that end at a part, with reports of what was there, and one that goes on.
    for arguments in
        [&["run", "-q", "--to", "split"][..], &["run", "-q", "--to", "train", "--threads", "3"], &["run", "-q"]]
    {
        assert_eq!(convoy(three.path(), arguments).status.code(), Some(0));
    }
    let (first, second) = (files(&one.path().join("out/t")), files(&three.path().join("out/t")));
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    for (name, bytes) in &first {
        assert!(second[name] == *bytes, "`{}` differs", name.display());
    }
    for name in ["report.html", "report.md", "summary.md", "figures/samples-train.svg", "figures/mistakes-evaluate.svg"]
    {
        assert!(first.contains_key(Path::new(name)), "no {name}");
    }
    // A run with nothing to do leaves them; one that was edited is healed; the verb writes the same.
    let report = three.path().join("out/t/report.html");
    fs::write(&report, "edited").expect("writable");
    assert_eq!(convoy(three.path(), &["run", "-q"]).status.code(), Some(0));
    assert!(fs::read(&report).expect("a report") == first[Path::new("report.html")]);
    fs::remove_file(&report).expect("removable");
    assert_eq!(convoy(three.path(), &["report"]).status.code(), Some(0));
    assert!(fs::read(&report).expect("a report") == first[Path::new("report.html")]);
    // Times are in a page that was asked for them, and only there.
    assert_eq!(convoy(three.path(), &["report", "--times", "-o", "page.html"]).status.code(), Some(0));
    let page = fs::read_to_string(three.path().join("page.html")).expect("a page");
    assert!(page.contains("instruction set: ") && page.contains("threads: "), "no times");
    let page = String::from_utf8(first[Path::new("report.html")].clone()).expect("text");
    assert!(!page.contains("instruction set: ") && !page.contains("threads: "));
    // What is not there is not reported.
    fs::write(three.path().join("t.toml"), MANIFEST.replace("epochs = 2", "epochs = 3")).expect("a manifest");
    let stale = convoy(three.path(), &["report"]);
    assert_eq!(stale.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&stale.stderr).contains("not computed yet"));
}

#[test]
fn a_page_loads_nothing_runs_nothing_and_shows_names_as_they_are() {
    let temp = project(3, 6);
    assert_eq!(convoy(temp.path(), &["run", "-q"]).status.code(), Some(0));
    let out = temp.path().join("out/t");
    let page = fs::read_to_string(out.join("report.html")).expect("a page");
    assert!(
        page.contains("&lt;script&gt;alert(1)&lt;|script&gt; &amp; &quot;q&quot; &#39;a&#39; `b` |c|"),
        "the name is not there"
    );
    for forbidden in ["<script", "http:", "https:", "@import", "@font-face", " onload", "javascript:", "url("] {
        assert!(!page.contains(forbidden), "`{forbidden}` is in the page");
    }
    let markdown = fs::read_to_string(out.join("report.md")).expect("a page");
    assert!(!markdown.lines().any(|line| line.trim_start().starts_with("<script")));
    // Every picture of the Markdown is there, has a title and an alt text.
    let pictures: Vec<&str> = markdown.split("](<").skip(1).filter_map(|rest| rest.split(">)").next()).collect();
    assert!(pictures.len() >= 8, "{pictures:?}");
    for picture in pictures {
        let text = fs::read_to_string(out.join(picture)).unwrap_or_else(|_| panic!("no {picture}"));
        assert!(text.contains("<title>") && text.contains("prefers-color-scheme:dark"), "{picture}");
    }
    assert!(!markdown.contains("![]("), "a picture without an alt text");
    let alone = page.matches("<img ").count();
    assert_eq!(alone, page.matches("<img alt=\"").count());
    assert_eq!(page.matches("<svg aria-label=\"").count(), page.matches("class=\"figure\"").count());
    // What the report says comes in this order.
    let sections = ["verdict", "data", "results", "mistakes", "training", "provenance"];
    let places: Vec<usize> =
        sections.iter().map(|id| page.find(&format!("<section id=\"{id}\">")).expect(id)).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(page.contains("Passed: 1 of 1 gate passed."));
    let short = fs::read_to_string(out.join("summary.md")).expect("a page");
    for expected in ["**Passed: 1 of 1 gate passed.**", "accuracy", "24 images", "curves/train.svg"] {
        assert!(short.contains(expected), "{expected}: {short}");
    }
}

#[test]
fn forty_classes_of_photos_stay_below_five_megabytes() {
    let temp = project(40, 96);
    let manifest = MANIFEST.replace("CONV(4) - RELU", "POOL(8)").replace("epochs = 2", "epochs = 1");
    let manifest = manifest.replace("gates = { accuracy = \">= 0.01\" }\n", "");
    fs::write(temp.path().join("t.toml"), manifest).expect("a manifest");
    let ran = convoy(temp.path(), &["run", "-q"]);
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    let size = fs::metadata(temp.path().join("out/t/report.html")).expect("a page").len();
    assert!(size > 200_000 && size < 5_000_000, "{size} bytes");
    let page = fs::read_to_string(temp.path().join("out/t/report.html")).expect("a page");
    assert!(!page.contains("too large for this page"), "pictures were left out");
}
