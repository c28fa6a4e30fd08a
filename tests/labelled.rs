//! What evaluation says of labels and groups, from outside: planted suspects, scores by a column, curves, and a finished model
//! on new labelled images.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// 80 images of two classes that any net tells apart, a camera each; four of them are planted:
/// 5 is labelled wrongly, 41 is 11 a little brighter with another label, 60 is 33 pixel for pixel, and 70 is white.
fn draw(folder: &Path) {
    let mut table = String::from("path,label,camera,note\n");
    fs::create_dir_all(folder.join("images")).unwrap();
    for i in 0..80u32 {
        let like = if i == 60 { 33 } else { i };
        let class = if i == 41 { 1 } else { like % 2 };
        let drawn = if i == 41 { 11 } else { like };
        let image = image::GrayImage::from_fn(24, 24, |x, y| {
            let noise = (x * 37 + y * 11 + x * y * drawn) * (2 * drawn + 7) / 5 % 60;
            let bright = if (class == 0) == (x < 12) { 150 } else { 30 };
            image::Luma([match i {
                70 => 255,
                41 => (f64::from(noise + bright) * 1.05) as u8,
                _ => (noise + bright) as u8,
            }])
        });
        let path = format!("images/{i:02}.png");
        image.save(folder.join(&path)).unwrap();
        let label = if (i == 5 || i == 41) != (class == 1) { "bee" } else { "ant" };
        // The camera of a few images is not known.
        let camera = ["phone", "slr", ""][if i % 10 == 9 { 2 } else { i as usize % 3 % 2 }];
        table.push_str(&format!("{path},{label},{camera},{}\n", i % 7));
    }
    fs::write(folder.join("table.csv"), table).unwrap();
}

const MANIFEST: &str = r#"
schema = 1
name = "toy"
seed = 3

[stages.ingest]
source = "table.csv"
KEPT
[stages.split]
test = 0.25
folds = 4

[stages.preprocess]
steps = ["center", "scale"]

[stages.train]
architecture = "INPUT - FC(8) - RELU - FC"
epochs = 6
sanity = false

[stages.evaluate]
EVALUATE
"#;

fn project(kept: &str, evaluate: &str) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    draw(temp.path());
    write(temp.path(), kept, evaluate);
    temp
}

fn write(folder: &Path, kept: &str, evaluate: &str) {
    let manifest = MANIFEST.replace("KEPT", kept).replace("EVALUATE", evaluate);
    fs::write(folder.join("toy.toml"), manifest).unwrap();
}

/// The rows of a table, by column.
fn rows(path: impl AsRef<Path>) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let header = reader.headers().unwrap().clone();
    let row = |row: csv::StringRecord| header.iter().map(str::to_owned).zip(row.iter().map(str::to_owned)).collect();
    reader.records().map(|record| row(record.unwrap())).collect()
}

fn out(folder: &tempfile::TempDir, name: &str) -> PathBuf {
    folder.path().join("out/toy").join(name)
}

#[test]
fn planted_suspects_are_found_and_told() {
    let temp = project("", "");
    let (code, stdout, stderr) = common::ran(temp.path(), &["run", "toy.toml", "-q"]);
    assert_eq!(code, Some(0), "{stderr}");
    let found = rows(out(&temp, "suspects.csv"));
    let of = |reason: &str| -> Vec<&BTreeMap<String, String>> {
        found.iter().filter(|row| row["reason"] == reason).collect()
    };
    // The wrong label is first where it is not in the test split, which is not judged.
    let split_of =
        |id: &str| rows(out(&temp, "splits.csv")).into_iter().find(|row| row["id"] == id).unwrap()["split"].clone();
    let labels = of("label");
    assert!(labels.iter().all(|row| row["split"] == "out_of_fold"), "{labels:?}");
    assert_eq!(split_of("5"), "out_of_fold", "another seed: the planted image is to be judged");
    let five = labels.iter().find(|row| row["id"] == "5").expect("the wrong label");
    assert_eq!((&*five["label"], &*five["suggested"], &*five["confident"]), ("ant", "bee", "true"));
    let scores: Vec<f64> = labels.iter().map(|row| row["score"].parse().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores[0] <= 1.0, "{scores:?}");
    // The score is what the label lacks.
    let predictions = rows(out(&temp, "predictions.csv"));
    let row = predictions.iter().find(|row| row["id"] == "5" && row["split"] == "out_of_fold").unwrap();
    let p: f32 = row["p_ant"].parse().unwrap();
    assert!((five["score"].parse::<f64>().unwrap() - (1.0 - f64::from(p))).abs() < 1e-12);

    let pairs = of("duplicate");
    let bright = pairs.iter().find(|row| row["id"] == "41").expect("the brighter one");
    assert_eq!((&*bright["other_id"], &*bright["label"], &*bright["other_label"]), ("11", "ant", "bee"));
    assert!(bright["score"].parse::<f64>().unwrap() >= 0.99 && !bright["distance"].is_empty());
    if split_of("33") != split_of("60") {
        let same = pairs.iter().find(|row| row["id"] == "60").expect("the copy");
        assert_eq!((&*same["other_id"], &*same["score"], &*same["distance"]), ("33", "1.0", ""));
    }
    assert!(pairs.iter().all(|row| ["41", "60"].contains(&&*row["id"])), "{pairs:?}");
    let unlike: Vec<&str> = of("unlike-class").iter().map(|row| row["id"].as_str()).collect();
    assert_eq!(unlike.first(), Some(&"70"), "{unlike:?}");

    let line = stdout.replace("\n  ", " ");
    let told = line.lines().find(|line| line.starts_with("suspects: ")).expect("a line");
    assert!(told.contains("doubtful by what train says out of fold"), "{told}");
    assert!(told.contains("1 image has a double with another label"), "{told}");
    assert!(told.contains("unlike their class (see out/toy/report.html)"), "{told}");
    let html = fs::read_to_string(out(&temp, "report.html")).unwrap();
    assert!(html.contains("Suspects: images to look at by eye") && html.contains("images/05.png"));
    assert!(
        out(&temp, "figures/suspects-evaluate.svg").is_file()
            && out(&temp, "figures/duplicates-evaluate.svg").is_file()
    );
    // Another metric looks for nothing again.
    write(temp.path(), "", "metrics = [\"brier\"]");
    let (_, status, _) = common::ran(temp.path(), &["run", "toy.toml", "-q", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(told["computed"], 1, "{told}");
}

#[test]
fn groups_of_a_column_are_scored_and_gated() {
    let gates = r#"
metrics = ["accuracy", "log-loss"]
by = ["camera"]
gates = [
    { metric = "accuracy", by = "camera", at_least = 0.01 },
    { metric = "accuracy", by = "camera", at_least = 0.999999, split = "out_of_fold" },
    { metric = "log-loss", by = "camera", group = "slr", at_most = 15.0 },
    { metric = "recall", class = "ant", by = "camera", at_least = 0.01 },
]"#;
    let temp = project("columns = [\"note\", \"camera\"]\n", gates);
    let (code, stdout, stderr) = common::ran(temp.path(), &["run", "toy.toml", "-q"]);
    assert_eq!(code, Some(6), "{stdout}{stderr}");
    let by = rows(out(&temp, "by.csv"));
    let predictions = rows(out(&temp, "predictions.csv"));
    let cameras: Vec<String> = rows(temp.path().join("table.csv")).iter().map(|row| row["camera"].clone()).collect();
    let mut worst: BTreeMap<String, (f64, String)> = BTreeMap::new();
    for split in ["test", "out_of_fold"] {
        for camera in ["phone", "slr"] {
            let own = |row: &&BTreeMap<String, String>| {
                row["split"] == split && cameras[row["id"].parse::<usize>().unwrap()] == camera
            };
            let right: Vec<bool> = predictions.iter().filter(own).map(|row| row["correct"] == "true").collect();
            let accuracy = right.iter().filter(|right| **right).count() as f64 / right.len() as f64;
            let find = |metric: &str| {
                let is_it = |row: &&BTreeMap<String, String>| {
                    row["group"] == camera && row["split"] == split && row["metric"] == metric
                };
                by.iter().find(is_it).unwrap_or_else(|| panic!("no row of {camera}, {split}, {metric}"))
            };
            let row = find("accuracy");
            assert_eq!((&*row["column"], &*row["n"]), ("camera", &*right.len().to_string()));
            assert!((row["value"].parse::<f64>().unwrap() - accuracy).abs() < 1e-12, "{row:?}");
            let [low, high] = ["ci_low", "ci_high"].map(|end| row[end].parse::<f64>().unwrap());
            assert!(low <= accuracy && accuracy <= high && low < high);
            let loss: f64 = predictions.iter().filter(own).map(|row| row["loss"].parse::<f64>().unwrap()).sum();
            let loss = loss / right.len() as f64;
            assert!((find("log-loss")["value"].parse::<f64>().unwrap() - loss).abs() < 1e-6);
            let known = worst.entry(split.to_owned()).or_insert((f64::INFINITY, String::new()));
            if accuracy < known.0 {
                *known = (accuracy, camera.to_owned());
            }
        }
        let marked: Vec<&str> = by
            .iter()
            .filter(|row| row["split"] == split && row["metric"] == "accuracy" && row["worst"] == "true")
            .map(|row| row["group"].as_str())
            .collect();
        assert_eq!(marked, [worst[split].1.as_str()], "{split}");
    }
    // What is not known is no group of its own.
    assert!(by.iter().all(|row| !row["group"].is_empty()), "{by:?}");
    let told = stdout.replace("\n  ", " ");
    let (value, camera) = &worst["test"];
    assert!(
        told.contains(&format!(
            "gate accuracy in the worst camera >= 0.01 on test of train: {value:.4} in {camera}, passed"
        )),
        "{told}"
    );
    let (value, camera) = &worst["out_of_fold"];
    let line = format!(
        "gate accuracy in the worst camera >= 0.999999 on out_of_fold of train: {value:.4} in {camera}, FAILED"
    );
    assert!(told.contains(&line), "{told}");
    assert!(
        told.contains("gate log-loss in camera slr <= 15 on test") && told.contains("by camera, test: accuracy from")
    );

    // What learns reads no column: keeping another one computes what evaluates alone.
    write(temp.path(), "columns = [\"camera\"]\n", gates);
    let (_, json, _) = common::ran(temp.path(), &["run", "toy.toml", "-q", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(told["computed"], 2, "ingest and what evaluates: {told}");
}

#[test]
fn columns_that_are_not_there_are_told_with_a_remedy() {
    let temp = project("", "by = [\"camera\"]");
    let check = |expected: &[&str]| {
        let (code, stdout, stderr) = common::ran(temp.path(), &["check", "toy.toml"]);
        let told = format!("{stdout}{stderr}");
        assert_ne!(code, Some(0), "{told}");
        expected.iter().for_each(|expected| assert!(told.contains(expected), "{told}"));
    };
    check(&["`ingest` keeps no column `camera`", "add `columns = [\"camera\"]` to `[stages.ingest]`", "toy.toml:"]);
    write(temp.path(), "columns = [\"camra\"]\n", "");
    let (_, _, told) = common::ran(temp.path(), &["run", "toy.toml"]);
    assert!(told.contains("has no column `camra`") && told.contains("did you mean `camera`?"), "{told}");
    write(
        temp.path(),
        "columns = [\"camera\"]\n",
        "gates = [{ metric = \"accuracy\", by = \"camera\", group = \"slrs\", at_least = 0.1 }]",
    );
    let (code, _, told) = common::ran(temp.path(), &["run", "toy.toml"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("there is no group `slrs`") && told.contains("did you mean `slr`?"), "{told}");
    let builtin = MANIFEST
        .replace("KEPT", "columns = [\"camera\"]")
        .replace("EVALUATE", "")
        .replace("table.csv", "builtin:digits");
    fs::write(temp.path().join("toy.toml"), builtin).unwrap();
    let (_, _, told) = common::ran(temp.path(), &["run", "toy.toml"]);
    assert!(told.contains("`columns` are those of a table of images, and this source is none"), "{told}");
}

#[test]
fn curves_are_those_of_the_predictions() {
    let temp = project("", "");
    assert_eq!(common::ran(temp.path(), &["run", "toy.toml", "-q"]).0, Some(0));
    let curves = rows(out(&temp, "curves.csv"));
    let predictions = rows(out(&temp, "predictions.csv"));
    for split in ["test", "out_of_fold"] {
        let own: Vec<_> = curves.iter().filter(|row| row["split"] == split).collect();
        assert!(own.len() >= 2 && own.iter().all(|row| row["class"] == "bee"), "the second of two classes");
        let said: Vec<(f32, bool)> = predictions
            .iter()
            .filter(|row| row["split"] == split && row["model"] == "train")
            .map(|row| (row["p_bee"].parse().unwrap(), row["actual"] == "bee"))
            .collect();
        for row in &own {
            let threshold: f32 = row["threshold"].parse().unwrap();
            let above = |wanted: bool| said.iter().filter(|(p, is)| *p >= threshold && *is == wanted).count();
            let all = |wanted: bool| said.iter().filter(|(_, is)| *is == wanted).count();
            assert_eq!(row["true_positives"], above(true).to_string());
            assert_eq!(row["false_positives"], above(false).to_string());
            let number = |name: &str| row[name].parse::<f64>().unwrap();
            assert!((number("recall") - above(true) as f64 / all(true) as f64).abs() < 1e-12);
            assert!((number("false_positive_rate") - above(false) as f64 / all(false) as f64).abs() < 1e-12);
            assert!((number("precision") - above(true) as f64 / (above(true) + above(false)) as f64).abs() < 1e-12);
        }
        let last = own.last().unwrap();
        assert_eq!((&*last["recall"], &*last["false_positive_rate"]), ("1.0", "1.0"));
    }
}

#[test]
fn a_finished_model_is_evaluated_on_new_labelled_images() {
    let temp = project("", "");
    assert_eq!(common::ran(temp.path(), &["run", "toy.toml", "-q"]).0, Some(0));
    let exported = common::ran(temp.path(), &["export", "safetensors", "toy.toml", "-o", "toy.safetensors"]);
    assert_eq!(exported.0, Some(0), "{}", exported.2);
    // Its own images once more, in folders of classes: what it says of them is known.
    for (i, row) in rows(temp.path().join("table.csv")).iter().enumerate() {
        let folder = temp.path().join("new").join(&row["label"]);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(temp.path().join(&row["path"]), folder.join(format!("{i:02}.png"))).unwrap();
    }
    let flags = ["-o", "report", "--gate", "accuracy>=0.5", "--metric", "accuracy", "--metric", "log-loss", "-q"];
    let evaluate = |model: &str, more: &[&str]| {
        common::ran(temp.path(), &[&["evaluate", model, "new"], &flags[..], more].concat())
    };
    let (code, stdout, stderr) = evaluate("toy.safetensors", &[]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("toy on test") && stdout.contains("weighted avg") && stdout.contains("passed"), "{stdout}");
    let predicted = common::ran(temp.path(), &["predict", "toy.safetensors", "new", "-q"]).1;
    fs::write(temp.path().join("predicted.csv"), predicted).unwrap();
    let predicted = rows(temp.path().join("predicted.csv"));
    let report = temp.path().join("report");
    let told = rows(report.join("predictions.csv"));
    assert_eq!(told.len(), 80);
    for row in &told {
        let same = predicted.iter().find(|own| own["path"].ends_with(&row["path"])).expect("an image");
        for column in ["predicted", "confidence", "p_ant", "p_bee"] {
            assert_eq!(row[column], same[column], "{}", row["path"]);
        }
        assert_eq!(row["actual"], row["path"].split('/').next().unwrap());
    }
    for file in
        ["report.html", "report.md", "metrics.csv", "confusion.csv", "curves.csv", "suspects.csv", "metrics.json"]
    {
        assert!(report.join(file).is_file(), "{file}");
    }
    let html = fs::read_to_string(report.join("report.html")).unwrap();
    assert!(html.contains("convoy evaluate toy.safetensors new") && !html.contains("convoy run manifest.toml"));
    // A manifest stands for its model, and gives the same numbers.
    let metrics = fs::read_to_string(report.join("metrics.json")).unwrap();
    let (code, json, stderr) = evaluate("toy.toml", &["--json", "--gate", "log-loss<=0.000001"]);
    assert_eq!(code, Some(6), "a gate that is not passed: {json}{stderr}");
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&value["images"], &value["left_out"], &value["gates_passed"]), (&80.into(), &0.into(), &false.into()));
    let again = fs::read_to_string(report.join("metrics.json")).unwrap();
    let numbers = |text: &str| text.split_once("\"test\"").map(|(_, rest)| rest.to_owned());
    assert_eq!(numbers(&again), numbers(&metrics));

    // By a column of a table.
    let (code, stdout, stderr) =
        common::ran(temp.path(), &["evaluate", "toy.safetensors", "table.csv", "--by", "camera", "-q"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("by camera, test: accuracy from "), "{stdout}");

    // Classes are matched by name; what the model does not know is told.
    fs::rename(temp.path().join("new/bee"), temp.path().join("new/bees")).unwrap();
    let (code, _, stderr) = evaluate("toy.safetensors", &[]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the model has no class `bees`") && stderr.contains("did you mean `bee`?"), "{stderr}");
    let (code, _, stderr) = common::ran(temp.path(), &["evaluate", "toy.safetensors", "nothing"]);
    assert!(
        code == Some(1) && stderr.contains("`nothing` does not exist") && stderr.contains("name a folder"),
        "{stderr}"
    );
    let (code, _, stderr) = common::ran(temp.path(), &["evaluate", "toy.safetensors", "new", "--by", "camera"]);
    assert!(code == Some(1) && stderr.contains("`--by` names a column of a table"), "{stderr}");
    for (wrong, told) in [("accuracy=0.5", "is no gate"), ("acuracy>=0.5", "unknown metric `acuracy`")] {
        let (code, _, stderr) = common::ran(temp.path(), &["evaluate", "toy.safetensors", "new", "--gate", wrong]);
        assert!(code == Some(2) && stderr.contains(told), "{stderr}");
    }
    let (code, _, stderr) = common::ran(temp.path(), &["evaluate", "toy.safetensors", "table.csv", "--split", "tests"]);
    assert!(code == Some(2) || stderr.contains("no image"), "{stderr}");
}
