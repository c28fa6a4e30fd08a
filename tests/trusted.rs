//! Temperatures, thresholds and views as a person uses them: the tables agree with the predictions, and asking for other ones
//! trains nothing anew.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

const MANIFEST: &str = r#"schema = 1
name = "trusted"
seed = 3

[stages.ingest]
source = "builtin:digits"
limit = 600

[stages.split]
test = 0.25
folds = 3

[stages.cnn]
kind = "train"
architecture = "INPUT - CONV(6) - RELU - POOL - FC"
sanity = false
epochs = 8
learning_rate = 0.01
# keys of cnn

[stages.mlp]
kind = "train"
input = "split"
architecture = "INPUT - FC(16) - RELU - FC"
sanity = false
epochs = 8
learning_rate = 0.01
final = "refit"

[stages.ensemble]
members = ["cnn", "mlp"]
# keys of ensemble

[stages.evaluate]
metrics = ["accuracy", "log-loss", "calibration-error"]
"#;

const ASKED: &str = "calibrate = \"temperature\"\nabstain = { error = 0.05 }";

fn manifest(of_cnn: &str, of_ensemble: &str) -> String {
    MANIFEST.replace("# keys of cnn", of_cnn).replace("# keys of ensemble", of_ensemble)
}

fn convoy(folder: &Path, arguments: &[&str]) -> Output {
    common::program(folder, arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

type Row = BTreeMap<String, String>;

fn table(text: &str) -> Vec<Row> {
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().unwrap();
    lines.map(|cells| header.iter().cloned().zip(cells).collect()).collect()
}

fn out(folder: &Path, file: &str) -> Vec<Row> {
    table(&fs::read_to_string(folder.join("out/trusted").join(file)).unwrap_or_else(|error| panic!("{file}: {error}")))
}

fn number(row: &Row, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} of {row:?}"))
}

/// Those rows of a table.
fn of<'a>(rows: &'a [Row], wanted: &[(&str, &str)]) -> std::vec::IntoIter<&'a Row> {
    let is_wanted = |row: &&Row| wanted.iter().all(|(column, value)| row[*column] == *value);
    rows.iter().filter(is_wanted).collect::<Vec<_>>().into_iter()
}

#[test]
fn tables_agree_with_predictions_and_a_model_abstains_as_its_table_says() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let views = format!("predict = [{{ shift = 1 }}]\n{ASKED}");
    fs::write(folder.join("trusted.toml"), manifest(&views, ASKED)).unwrap();
    let said = stdout(&convoy(folder, &["run", "trusted.toml", "--threads", "2"]));
    assert!(said.contains("\ntemperature ") && said.contains("\nensemble answers "), "{said}");
    let (metrics, predictions) = (out(folder, "metrics.csv"), out(folder, "predictions.csv"));
    let temperatures = out(folder, "temperatures.csv");
    assert_eq!(temperatures.len(), 4, "two models, each on two splits: {temperatures:?}");
    for row in &temperatures {
        let (model, split) = (&row["model"][..], &row["split"][..]);
        let own = [("model", model), ("split", split), ("fold", ""), ("class", "")];
        for (metric, column) in [("log-loss", "log_loss_after"), ("calibration-error", "calibration_error_after")] {
            let found = of(&metrics, &own).find(|row| row["metric"] == metric).unwrap();
            assert_eq!(row[column], found["value"], "{model} on {split}: {metric}");
        }
        assert_ne!(row["temperature"], "1.0");
        // These networks are trained so shortly that they are not sure enough: the temperature helps.
        assert!(number(row, "log_loss_after") < number(row, "log_loss_before"), "{row:?}");
    }
    // The bins are those of the predictions; the ones without a temperature say so.
    let bins = out(folder, "calibration.csv");
    for (model, calibrated) in [("ensemble", "true"), ("cnn", "true"), ("mlp", "false")] {
        let own = [("model", model), ("split", "test"), ("calibrated", calibrated)];
        let n: f64 = of(&bins, &own).map(|row| number(row, "count")).sum();
        let right: f64 = of(&bins, &own).map(|row| number(row, "count") * number(row, "prob_true")).sum();
        let sure: f64 = of(&bins, &own).map(|row| number(row, "count") * number(row, "prob_pred")).sum();
        let said: Vec<&Row> = of(&predictions, &[("model", model), ("split", "test")]).collect();
        assert_eq!(n, said.len() as f64);
        assert_eq!(right.round() as usize, said.iter().filter(|row| row["correct"] == "true").count());
        let confidence: f64 = said.iter().map(|row| number(row, "confidence")).sum();
        assert!((sure - confidence).abs() < 1e-3, "{model}: {sure}, {confidence}");
    }
    assert_eq!(of(&bins, &[("model", "mlp"), ("calibrated", "true")]).count(), 0);
    let coverage = out(folder, "coverage.csv");
    for model in ["ensemble", "cnn"] {
        let said: Vec<&Row> = of(&predictions, &[("model", model), ("split", "test")]).collect();
        let own: Vec<&Row> = of(&coverage, &[("model", model), ("split", "test")]).collect();
        assert_eq!(own.iter().filter(|row| row["chosen"] == "true").count(), 1);
        for row in &own {
            let threshold: f32 = row["threshold"].parse().unwrap();
            let answered: Vec<_> =
                said.iter().filter(|said| said["confidence"].parse::<f32>().unwrap() >= threshold).collect();
            let wrong = answered.iter().filter(|said| said["correct"] == "false").count();
            assert_eq!((&row["n_answered"], &row["n_wrong"]), (&answered.len().to_string(), &wrong.to_string()));
            assert_eq!(number(row, "coverage"), answered.len() as f64 / said.len() as f64);
        }
        let crossed: Vec<&Row> =
            of(&coverage, &[("model", model), ("split", "out_of_fold"), ("chosen", "true")]).collect();
        assert_eq!((crossed.len(), &crossed[0]["threshold"][..]), (1, ""), "each fold has its own");
    }
    // `predict` answers where the table says so, from the manifest and from a file.
    fs::create_dir(folder.join("new")).unwrap();
    for i in 0..20u32 {
        let pixels: Vec<String> =
            (0..64).map(|k| (if (k + i) % 3 == 0 { k * i * 7 % 256 } else { 0 }).to_string()).collect();
        fs::write(folder.join(format!("new/{i:02}.pgm")), format!("P2\n8 8\n255\n{}\n", pixels.join(" "))).unwrap();
    }
    for model in ["ensemble", "cnn"] {
        let chosen = of(&coverage, &[("model", model), ("split", "test"), ("chosen", "true")]).next().unwrap();
        let threshold: f32 = chosen["threshold"].parse().unwrap();
        let predicted = stdout(&convoy(folder, &["predict", "-q", "--stage", model, "trusted.toml", "new"]));
        for row in table(&predicted) {
            let is_sure = row["confidence"].parse::<f32>().unwrap() >= threshold;
            assert_eq!(row["abstained"], (!is_sure).to_string(), "{row:?}");
            assert!(!row["predicted"].is_empty(), "the best class is told in any case");
        }
        let n = table(&predicted).iter().filter(|row| row["abstained"] == "true").count();
        assert!(n > 0, "no image of noise is too hard for `{model}`");
        let file = format!("{model}.safetensors");
        stdout(&convoy(folder, &["export", "safetensors", "trusted.toml", "--stage", model, "-o", &file]));
        let output = convoy(folder, &["predict", &file, "new"]);
        assert_eq!(stdout(&output), predicted);
        let told = String::from_utf8(output.stderr.clone()).unwrap();
        assert!(told.contains(&format!(", {n} abstained, in ")), "{told}");
        let json = stdout(&convoy(folder, &["predict", "-q", "--json", "--top", "1", &file, "new/00.pgm"]));
        assert!(json.contains("\"abstained\":"), "{json}");
    }
    // A model that uses none of the keys keeps the older form; one that does is refused by programs that know only that.
    stdout(&convoy(folder, &["export", "safetensors", "trusted.toml", "--stage", "mlp", "-o", "mlp.safetensors"]));
    for (file, format) in [("mlp.safetensors", 2), ("cnn.safetensors", 3), ("ensemble.safetensors", 3)] {
        let bytes = fs::read(folder.join(file)).unwrap();
        let head = String::from_utf8_lossy(&bytes[8..bytes.len().min(8 + 200_000)]).into_owned();
        assert!(head.contains(&format!("\\\"format\\\":{format},\\\"image\\\"")), "{file}");
        assert_eq!(head.contains("\\\"predict\\\":"), file != "mlp.safetensors", "{file}");
    }
    let plain = stdout(&convoy(folder, &["predict", "-q", "mlp.safetensors", "new/00.pgm"]));
    assert!(plain.starts_with("path,predicted,confidence,p_0,"), "{plain}");
    // The activations before the last layer of one network.
    let output = convoy(folder, &["predict", "cnn.safetensors", "new", "--embeddings", "e.npy"]);
    assert_eq!(output.status.code(), Some(2));
    let told = common::unbroken(&output.stderr);
    assert!(told.contains("embeddings are those of one network, and cnn.safetensors has 3 networks"), "{told}");
    let shown = stdout(&convoy(
        folder,
        &["predict", "-q", "cnn.safetensors", "new", "--embeddings", "e.npy", "--network", "2"],
    ));
    assert_eq!(shown, "e.npy\ne.csv\n");
    let array = fs::read(folder.join("e.npy")).unwrap();
    assert!(
        String::from_utf8_lossy(&array[..128]).contains("'descr': '<f4', 'fortran_order': False, 'shape': (20, 96)")
    );
    assert_eq!(array.len(), 128 + 20 * 96 * 4);
    let index = table(&fs::read_to_string(folder.join("e.csv")).unwrap());
    assert_eq!((index.len(), &index[3]["row"][..], &index[3]["path"][..]), (20, "3", "new/03.pgm"));
    let other = convoy(folder, &["predict", "-q", "mlp.safetensors", "new", "--embeddings", "m.npy", "--json"]);
    assert!(stdout(&other).contains("\"shape\":[20,16]"));
    let output = convoy(folder, &["predict", "mlp.safetensors", "new", "--embeddings", "m.txt"]);
    assert_eq!(output.status.code(), Some(2));
}

/// How many tasks ran, by the last line.
fn n_computed(folder: &Path) -> String {
    let output = convoy(folder, &["run", "trusted.toml", "-q"]);
    let told = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(output.status.success(), "{told}");
    told.lines().find_map(|line| line.strip_prefix("trusted: ")).unwrap().split(" in [").next().unwrap().to_owned()
}

#[test]
fn other_views_and_thresholds_train_nothing_anew() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let write = |of_cnn: &str, of_ensemble: &str| {
        let text = manifest(of_cnn, of_ensemble).replace("limit = 600", "limit = 200");
        fs::write(folder.join("trusted.toml"), text).unwrap();
    };
    write("", "");
    let first = n_computed(folder);
    // ingest, split, three folds of either net, all rows of one, the ensemble, the evaluation, its pictures and suspects.
    assert!(first.starts_with("13 of 13 tasks computed"), "{first}");
    let plain = fs::read(folder.join("out/trusted/metrics.csv")).unwrap();
    for (of_cnn, of_ensemble, expected) in [
        // The calibration, the ensemble, the evaluation with its pictures and suspects.
        ("calibrate = \"temperature\"", "", "5 of 14 tasks computed"),
        ("abstain = { error = 0.1 }", "calibrate = \"temperature\"", "5 of 14 tasks computed"),
        // Three folds over their views, and what is below.
        ("predict = [\"flip\"]", "", "7 of 16 tasks computed"),
        ("predict = []", "", "nothing to do, 13 tasks are fresh"),
    ] {
        write(of_cnn, of_ensemble);
        let told = n_computed(folder);
        assert!(told.starts_with(expected), "{of_cnn} {of_ensemble}: {told}");
    }
    assert_eq!(fs::read(folder.join("out/trusted/metrics.csv")).unwrap(), plain);
    for file in ["calibration.csv", "temperatures.csv", "coverage.csv"] {
        assert!(!folder.join("out/trusted").join(file).exists(), "{file}");
    }
}

#[test]
fn one_fold_tells_nothing_of_what_was_fitted_on_it_and_an_error_that_is_out_of_reach_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let asked = "calibrate = \"temperature\"\nabstain = { error = 0.0001 }";
    let text = manifest(asked, "").replace("folds = 3", "folds = 1").replace("limit = 600", "limit = 200");
    fs::write(
        folder.join("trusted.toml"),
        text.replace("members = [\"cnn\", \"mlp\"]", "members = [\"mlp\", \"cnn\"]"),
    )
    .unwrap();
    let output = convoy(folder, &["run", "trusted.toml"]);
    let told = common::unbroken(&output.stderr);
    assert!(
        told.contains("is fitted on the validation images, about which it is then `validation_selected`"),
        "{told}"
    );
    assert!(told.contains("no confidence keeps the error among answered images at 0.0001 out of fold"), "{told}");
    let said = stdout(&output);
    assert!(said.contains("cnn abstains on every image of test"), "{said}");
    let metrics = out(folder, "metrics.csv");
    assert!(of(&metrics, &[("model", "cnn"), ("split", "validation")]).next().is_none());
    assert!(of(&metrics, &[("model", "cnn"), ("split", "validation_selected")]).next().is_some());
    assert!(of(&metrics, &[("model", "mlp"), ("split", "validation")]).next().is_some());
    fs::write(folder.join("a.pgm"), format!("P2\n8 8\n255\n{}\n", "0 200 ".repeat(32))).unwrap();
    let predicted = stdout(&convoy(folder, &["predict", "-q", "--stage", "cnn", "trusted.toml", "a.pgm"]));
    assert_eq!(table(&predicted)[0]["abstained"], "true");
}
