//! `predict` and `export` as a person uses them: the bits of `predictions.csv`, from a manifest or a file, and errors.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Networks behind every kind of chain, and ensembles of folds, of several models, and of an ensemble.
const MANIFEST: &str = r#"
schema = 1
name = "toy"
seed = 7

[stages.ingest]
source = "photos"
resize = { width = 6, height = 5 }

[stages.split]
test = 0.3
folds = 5

[stages.preprocess]
steps = ["center", "standardize-image"]

[stages.zca]
kind = "reduce"
method = { pca = { zca = true, epsilon = 1e-2 } }

[stages.cnn]
kind = "train"
architecture = "INPUT - CONV(4) - BN - LEAKY - POOL - DROPOUT(0.2) - FC(5, l2=0.01) - RELU - FC"
sanity       = false
epochs = 2
predict      = ["flip", { shift = 1 }]
calibrate    = "temperature"

[stages.pca]
kind = "reduce"
input = "preprocess"
method = { pca = { components = 7 } }

[stages.scale]
kind = "preprocess"
steps = ["scale"]

[stages.mlp]
kind = "train"
architecture = "INPUT - FC(6) - ELU - FC"
sanity       = false
epochs = 2
final = "refit"
calibrate    = "temperature"

[stages.random]
kind = "reduce"
input = "split"
method = { sparse-projection = { components = 9 } }

[stages.linear]
kind = "train"
architecture = "INPUT - FC"
sanity       = false
epochs = 2

[stages.folds]
kind = "ensemble"
members = ["cnn"]

[stages.all]
kind = "ensemble"
members = ["cnn", "mlp", "linear"]
combine = "vote"

[stages.weighted]
kind = "ensemble"
members = ["cnn", "mlp", "linear"]
combine = "weighted"
calibrate = "temperature"
abstain = { error = 0.5 }

[stages.stacked]
kind = "ensemble"
members = ["cnn", "all"]
combine = "stacking"

[stages.evaluate]
input = "all"

[stages.of-folds]
kind = "evaluate"
input = "folds"

[stages.of-weighted]
kind = "evaluate"
input = "weighted"

[stages.of-stacked]
kind = "evaluate"
input = "stacked"
"#;

struct Project {
    temp: tempfile::TempDir,
}

impl Project {
    /// A folder of 60 images of three classes, and the manifest, which has been run.
    fn run() -> Project {
        let project = Project { temp: tempfile::tempdir().unwrap() };
        for i in 0..60u32 {
            let class = ["cat", "dog", "=emu"][i as usize % 3];
            let folder = project.path().join("photos").join(class);
            fs::create_dir_all(&folder).unwrap();
            let pixels = (0..7 * 8 * 3).map(|k| ((i * 131 + k * k * 7 + 60 * (i % 3)) % 251) as u8);
            let image: Vec<u8> = b"P6\n7 8\n255\n".iter().copied().chain(pixels).collect();
            fs::write(folder.join(format!("{i:02}.ppm")), image).unwrap();
        }
        fs::write(project.path().join("toy.toml"), MANIFEST).unwrap();
        let run = project.convoy(&["run", "toy.toml", "--quiet"]);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        project
    }

    fn path(&self) -> &Path {
        self.temp.path()
    }

    fn convoy(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        common::program(self.path(), arguments)
    }
}

/// A row of a table by its path (without what stands before the class), then by column.
type Rows = BTreeMap<String, BTreeMap<String, String>>;

fn rows(csv: &[u8], wants: impl Fn(&BTreeMap<String, String>) -> bool) -> Rows {
    let text = std::str::from_utf8(csv).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let rows = lines.map(|cells| header.iter().cloned().zip(cells).collect::<BTreeMap<_, _>>());
    let short = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    rows.filter(|row| wants(row)).map(|row| (short(&row["path"]), row)).collect()
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn an_image_of_the_test_split_gets_the_bits_that_it_was_evaluated_with() {
    let project = Project::run();
    let evaluated = fs::read(project.path().join("out/toy/predictions.csv")).unwrap();
    for model in ["cnn", "mlp", "linear", "folds", "all", "weighted", "stacked"] {
        let expected = rows(&evaluated, |row| row["model"] == model && row["split"] == "test");
        assert!(expected.len() >= 15, "{model}: {} rows", expected.len());
        let predicted = project.convoy(&["predict", "toy.toml", "photos", "--stage", model, "--threads", "2"]);
        let got = rows(stdout(&predicted).as_bytes(), |_| true);
        assert_eq!(got.len(), 60);
        for (image, expected) in &expected {
            for column in ["predicted", "confidence", "p_=emu", "p_cat", "p_dog"] {
                assert_eq!(got[image][column], expected[column], "{model}, {image}, {column}");
            }
        }
        // Another machine: no manifest, no store, other kernels, and one image at a time.
        let file = format!("{model}.safetensors");
        let exported = project.convoy(&["export", "safetensors", "toy.toml", "--stage", model, "-o", &file]);
        assert_eq!(stdout(&exported), format!("{file}\n"));
        let mut command = project.command(&["predict", &file, "photos", "--threads", "3"]);
        let elsewhere = command.env("CONVOY_ISA", "portable").output().unwrap();
        assert_eq!(stdout(&elsewhere), stdout(&predicted), "{model}");
    }
    // The last ensemble is the model that a manifest stands for.
    let plain = project.convoy(&["predict", "toy.toml", "photos/cat/03.ppm"]);
    let named = project.convoy(&["predict", "stacked.safetensors", "photos/cat/03.ppm"]);
    assert_eq!(stdout(&plain), stdout(&named));
    let first = fs::read(project.path().join("stacked.safetensors")).unwrap();
    let _ = project.convoy(&["export", "safetensors", "toy.toml"]);
    assert_eq!(fs::read(project.path().join("out/toy/stacked.safetensors")).unwrap(), first);
}

#[test]
fn unreadable_images_are_named_and_the_rest_is_predicted() {
    let project = Project::run();
    let whole = fs::read(project.path().join("photos/dog/01.ppm")).unwrap();
    fs::write(project.path().join("cut.ppm"), &whole[..whole.len() - 9]).unwrap();
    fs::write(project.path().join("notes.txt"), "no image").unwrap();
    let files = ["photos/cat/00.ppm", "cut.ppm", "=none.png", "notes.txt", "photos/dog/01.ppm"];
    let of = |more: &[&str]| project.convoy(&[&["predict", "toy.toml", "--stage", "all"], &files[..], more].concat());
    let output = of(&["--top", "2"]);
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "path,predicted,confidence,predicted_2,confidence_2");
    assert_eq!(lines.len(), 3);
    assert!(lines[1].starts_with("photos/cat/00.ppm,") && lines[2].starts_with("photos/dog/01.ppm,"), "{table}");
    let said = String::from_utf8(output.stderr).unwrap();
    for line in [
        "error: `cut.ppm` is a truncated pnm file",
        "error: `=none.png` does not exist",
        "error: `notes.txt` is not an image of a known format",
    ] {
        assert!(said.lines().any(|said| said == line), "{line} is not in {said}");
    }
    assert!(said.contains("predict: 2 images with 11 networks, 3 could not be read, in "), "{said}");
    let json = of(&["--json", "-q"]);
    let lines: Vec<serde_json::Value> = json
        .stdout
        .split(|&b| b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!(lines.iter().map(|line| line["path"].as_str().unwrap()).collect::<Vec<_>>(), files);
    assert_eq!(lines[2]["error"], "does not exist");
    let confidence = lines[4]["probabilities"][lines[4]["predicted"].as_str().unwrap()].as_f64().unwrap();
    assert_eq!(lines[4]["confidence"].as_f64().unwrap(), confidence);
}

#[test]
fn a_model_that_is_not_there_or_was_damaged_is_an_error_that_says_what_to_do() {
    let project = Project::run();
    let code_and_text = |output: Output| (output.status.code().unwrap(), common::unbroken(&output.stderr));
    let (code, said) = code_and_text(project.convoy(&[
        "predict",
        "toy.toml",
        "photos",
        "--stage",
        "all",
        "--set",
        "stages.mlp.epochs=3",
    ]));
    assert_eq!(code, 3);
    assert_eq!(
        said,
        "error: the model `all` of `toy.toml` is not there yet: `mlp, fold 1` is stale (`epochs` changed: 2 -> 3)\n  \
         help: run it first: `convoy run toy.toml --set 'stages.mlp.epochs=3'`\n"
    );
    let (code, said) = code_and_text(project.convoy(&["predict", "toy.toml", "photos", "--stage", "split"]));
    assert_eq!(code, 2);
    assert_eq!(
        said,
        "error: stage `split` is no model, it is of the kind `split`\n  \
         help: the models are `cnn`, `mlp`, `linear`, `folds`, `all`, `weighted`, `stacked`\n"
    );
    let exported = project.convoy(&["export", "safetensors", "toy.toml", "--stage", "linear", "-o", "m.safetensors"]);
    stdout(&exported);
    let whole = fs::read(project.path().join("m.safetensors")).unwrap();
    let damaged = |bytes: &[u8]| {
        fs::write(project.path().join("bad.safetensors"), bytes).unwrap();
        code_and_text(project.convoy(&["predict", "bad.safetensors", "photos"]))
    };
    for end in [0, 5, 100, whole.len() / 2, whole.len() - 1] {
        let (code, said) = damaged(&whole[..end]);
        assert_eq!(code, 1, "{said}");
        assert!(said.starts_with("error: `bad.safetensors` is not a readable safetensors file"), "{said}");
    }
    for at in (0..whole.len()).step_by(whole.len() / 23) {
        let mut edited = whole.clone();
        edited[at] ^= 1;
        let (code, said) = damaged(&edited);
        assert_eq!(code, 1, "bit 0 of byte {at}: {said}");
        assert!(said.starts_with("error: `bad.safetensors` "), "{said}");
    }
}

#[test]
fn whoever_stops_reading_ends_it_quietly() {
    let project = Project::run();
    let list = "photos/cat/00.ppm\n".repeat(3000);
    fs::write(project.path().join("list"), list).unwrap();
    let stdin = fs::File::open(project.path().join("list")).unwrap();
    let mut command = project.command(&["predict", "toy.toml", "-", "--stage", "linear", "-q"]);
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
