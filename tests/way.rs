//! How people find their way: templates and what `init --from` writes, run as they are but for fewer epochs; learning rates.

mod common;

use std::fs;
use std::path::Path;

use common::{ran, unbroken};

fn project() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(dir.path().join(".git")).expect("a project root");
    dir
}

/// Says `ended` and what was said, where it is not `expected`.
#[track_caller]
fn expect(expected: i32, dir: &Path, arguments: &[&str]) -> (String, String) {
    let (ended, stdout, stderr) = ran(dir, arguments);
    assert_eq!(ended, Some(expected), "{arguments:?}: {stdout}{stderr}");
    (stdout, unbroken(stderr.as_bytes()))
}

/// Colour images of two classes, of two sizes.
fn draw_photos(folder: &Path, n: u32, side: u32) {
    for (class, name) in ["ant", "bee"].iter().enumerate() {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).expect("a folder");
        for i in 0..n {
            let pixel = |x: u32, y: u32| {
                let shade = ((x * 31 + y * 17 + i * 29) % 97) as u8;
                image::Rgb([shade + 120 * class as u8, shade, 150 - 50 * class as u8])
            };
            let image = image::RgbImage::from_fn(side + i % 2, side, pixel);
            image.save(folder.join(format!("{i:02}.png"))).expect("writable");
        }
    }
}

/// A table of paths below `folder`.
fn write_table(dir: &Path, folder: &str) {
    let mut table = "path,label\n".to_owned();
    for class in ["ant", "bee"] {
        for entry in fs::read_dir(dir.join(folder).join(class)).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            table += &format!("{folder}/{class}/{},{class}\n", name.to_string_lossy());
        }
    }
    fs::write(dir.join("images.csv"), table).expect("writable");
}

/// Runs `path` with a single epoch, and without its gates, which so little does not reach.
#[track_caller]
fn run_shortened(dir: &Path, path: &str, set: &[&str]) {
    let text = fs::read_to_string(dir.join(path)).expect("a manifest");
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("gates")).collect();
    fs::write(dir.join(path), without.join("\n")).expect("writable");
    let sets: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
    expect(0, dir, &[&["run", "-q", path][..], &sets].concat());
}

#[test]
fn every_template_runs() {
    let quick = ["stages.ingest.limit=100", "stages.split.folds=2", "stages.train.epochs=1"];
    let search = "stages.search.rounds=[{ trials = 2, epochs = 1, keep = 1 }, {}]";
    let cases: [(&str, &[&str]); 6] = [
        ("digits", &quick),
        ("folder", &quick),
        ("photos", &["stages.train.epochs=1"]),
        ("csv", &quick),
        ("search", &[quick[0], quick[2], search, "stages.search.keep=1"]),
        ("pca", &quick),
    ];
    for (template, set) in cases {
        let dir = project();
        let dir = dir.path();
        let (_, said) = expect(0, dir, &["init", template]);
        let is_there = ["digits", "search", "pca"].contains(&template);
        assert_eq!(said.contains("next: convoy run pipeline.toml"), is_there, "{said}");
        assert_eq!(said.contains("next: put your images at"), !is_there, "{said}");
        draw_photos(&dir.join("images"), 16, 20);
        draw_photos(&dir.join("photos"), 16, 30);
        write_table(dir, "images");
        run_shortened(dir, "pipeline.toml", set);
        let mut results = fs::read_dir(dir.join("out")).expect("results");
        assert!(results.any(|of| of.expect("a folder").path().join("report.html").is_file()), "{template}");
    }
}

#[test]
fn what_is_there_already_is_left_alone_and_words_that_are_none_are_told() {
    let dir = project();
    let dir = dir.path();
    expect(0, dir, &["init", "pca", "work/first.toml"]);
    expect(0, dir, &["init", "search", "work"]);
    let before = fs::read(dir.join("work/first.toml")).expect("a manifest");
    let (_, said) = expect(2, dir, &["init", "digits", "work/first.toml"]);
    assert!(said.contains("`work/first.toml` exists already"), "{said}");
    assert_eq!(fs::read(dir.join("work/first.toml")).expect("a manifest"), before);
    // Not through a link to nowhere either.
    std::os::unix::fs::symlink("nowhere", dir.join("link.toml")).expect("a link");
    expect(2, dir, &["init", "link.toml"]);
    assert!(!dir.join("nowhere").exists());
    let (_, said) = expect(2, dir, &["init", "phots"]);
    assert!(said.contains("there is no template `phots`") && said.contains("photos"), "{said}");
    let (_, said) = expect(2, dir, &["init", "flowers", "here"]);
    assert!(said.contains("templates: digits, folder, photos, csv, search, pca"), "{said}");
    let (_, said) = expect(2, dir, &["init", "--from", "nothing"]);
    assert!(said.contains("`nothing`"), "{said}");
    assert!(!dir.join("pipeline.toml").exists() && !dir.join("phots").exists());
}

#[test]
fn data_gets_a_manifest_that_fits_and_runs() {
    let dir = project();
    let dir = dir.path();
    // Photos of two sizes with splits of their own, unequal classes.
    draw_photos(&dir.join("pets/train"), 30, 120);
    draw_photos(&dir.join("pets/validation"), 4, 120);
    draw_photos(&dir.join("pets/test"), 4, 120);
    for i in 1..30 {
        fs::remove_file(dir.join(format!("pets/train/bee/{i:02}.png"))).expect("it was there");
    }
    for split in ["validation", "test"] {
        for i in 1..4 {
            fs::remove_file(dir.join(format!("pets/{split}/bee/{i:02}.png"))).expect("it was there");
        }
    }
    let (_, said) = expect(0, dir, &["init", "--from", "pets", "pets.toml"]);
    assert!(said.contains("wrote pets.toml; next: convoy run pets.toml") && said.contains("41 images"), "{said}");
    let text = fs::read_to_string(dir.join("pets.toml")).expect("a manifest");
    for expected in ["name   = \"pets\"", "resize = 64", "test  = \"given\"", "validation = \"given\"", "balanced"] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    run_shortened(dir, "pets.toml", &["stages.train.epochs=1"]);
    // From another folder, an archive, and small images of one size: nothing to resize.
    let made = std::process::Command::new("tar").current_dir(dir).args(["cf", "pets.tar", "pets"]).status();
    assert!(made.expect("tar starts").success());
    let (stdout, _) = expect(0, dir, &["init", "--json", "--from", "pets.tar", "elsewhere"]);
    assert!(stdout.contains("\"ok\":true") && stdout.contains("41 images"), "{stdout}");
    expect(0, dir, &["check", "--data", "elsewhere/pipeline.toml"]);
    common::draw_images(dir);
    write_table(dir, "images");
    expect(0, dir, &["init", "--from", "images.csv", "table.toml"]);
    let text = fs::read_to_string(dir.join("table.toml")).expect("a manifest");
    assert!(!text.contains("resize") && text.contains("folds = 5"), "{text}");
    run_shortened(dir, "table.toml", &["stages.train.epochs=1", "stages.split.folds=2"]);
    // Grey and coloured ones together.
    fs::copy(dir.join("pets/train/ant/00.png"), dir.join("images/ant/colour.png")).expect("a copy");
    expect(0, dir, &["init", "--from", "images", "mixed.toml"]);
    let text = fs::read_to_string(dir.join("mixed.toml")).expect("a manifest");
    assert!(text.contains("resize = 6\nchannels = \"rgb\""), "{text}");
}

#[test]
fn a_learning_rate_is_found_the_same_on_any_threads() {
    let dir = project();
    let dir = dir.path();
    expect(0, dir, &["init"]);
    let sets = ["--set", "stages.ingest.limit=600"];
    let verb = ["selftest", "rate", "-q", "--steps", "60", "--json", "--from", "1e-5"];
    let of = |threads: &str, to: &str| {
        let more = ["--threads", threads, "--to", to, "-o", threads];
        let (stdout, _) = expect(0, dir, &[&verb[..], &more, &sets].concat());
        serde_json::from_str::<serde_json::Value>(&stdout).expect("JSON")
    };
    let (one, mut two) = (of("1", "1000"), of("2", "1000"));
    two["picture"] = one["picture"].clone();
    assert_eq!(one, two);
    assert_eq!(fs::read(dir.join("1")).expect("a picture"), fs::read(dir.join("2")).expect("a picture"));
    let steps = one["steps"].as_array().expect("steps");
    let rate = |i: usize| steps[i]["rate"].as_f64().expect("a number");
    assert!((rate(0) - 1e-5).abs() < 1e-12 && (rate(2) / rate(1) - rate(1) / rate(0)).abs() < 1e-6);
    // Adam with such rates leaves nothing of what was learned.
    assert_eq!(one["exploded"], true, "{one}");
    assert!(steps.len() < 60);
    let advised = one["learning_rate"].as_f64().expect("a rate");
    assert!((1e-4..0.1).contains(&advised), "{advised}");
    // Nothing of it is kept, and what is said is what a person needs.
    let (stdout, _) = expect(0, dir, &[&["selftest", "rate", "-q", "--steps", "60"][..], &sets].concat());
    assert!(stdout.contains("write `learning_rate = "), "{stdout}");
    assert!(fs::read_to_string(dir.join("train-rate.svg")).expect("a picture").contains("learning rate range test"));
    let (stdout, _) = expect(0, dir, &[&["status", "--json"][..], &sets].concat());
    assert!(!stdout.contains("\"train\",\"part\":\"fold 1\",\"state\":\"fresh\""), "{stdout}");
}

#[test]
fn rates_are_not_looked_for_where_there_are_none() {
    let dir = project();
    let dir = dir.path();
    expect(0, dir, &["init"]);
    let (_, said) = expect(2, dir, &["selftest", "rate", "pipeline.toml", "cnn"]);
    assert!(said.contains("there is no train stage `cnn`") && said.contains("train stages: `train`"), "{said}");
    let (_, said) = expect(2, dir, &["selftest", "rate", "--from", "1", "--to", "0.1"]);
    assert!(said.contains("rates go from 1 to 0.1"), "{said}");
    let text = fs::read_to_string(dir.join("pipeline.toml")).expect("a manifest");
    let text = text.replace("learning_rate = 0.002", "optimizer = \"lbfgs\"");
    fs::write(dir.join("pipeline.toml"), text).expect("writable");
    let (_, said) = expect(1, dir, &["selftest", "rate", "-q"]);
    assert!(said.contains("finds the length of its steps by itself"), "{said}");
}

#[test]
fn the_readme_has_the_photo_template() {
    let template = include_str!("../src/cli/templates/photos.toml");
    let body = &template[template.find("[stages.split]").expect("a stage")..];
    assert!(
        include_str!("../README.md").contains(body.trim_end()),
        "README's manifest for own images is the photo template"
    );
}
