//! Test: every stage can be read again from the keys that it recorded, and is the same stage then.

use std::fs;
use std::path::Path;

use super::{Manifest, Overrides, source};
use crate::config::{Log, Resolved, Severity, Table, Value, parse, rebuild, toml};
use crate::stages::{KINDS, Kind, Stage, testing};

fn pairs(resolved: &[Resolved]) -> Vec<(String, String)> {
    resolved.iter().map(|resolved| (resolved.key.clone(), resolved.value.clone())).collect()
}

/// What a stage is, without where it was written.
fn shown(stage: &dyn Stage) -> String {
    let text = format!("{stage:?}");
    let mut out = String::new();
    let mut rest = text.as_str();
    for (head, tail) in [("Span {", '}'), ("inner: Some(", ')')] {
        out.clear();
        while let Some(at) = rest.find(head) {
            out.push_str(&rest[..at]);
            let behind = &rest[at..];
            rest = &behind[behind.find(tail).expect("it ends") + 1..];
        }
        out.push_str(rest);
        rest = out.clone().leak();
    }
    out.replace("inner: None", "")
}

/// Reads a stage of `kind` again from what it recorded.
#[track_caller]
fn check(kind: &Kind, stage: &dyn Stage, log: &Log, what: &str) {
    let (recorded, places) = (pairs(&log.resolved), pairs(&log.places));
    for (key, value) in recorded.iter().chain(&places) {
        let back = parse(value).unwrap_or_else(|| panic!("{what}: {key} = {value}"));
        assert_eq!(toml(&back), *value, "{what}: {key}");
    }
    let mut sorted = recorded;
    sorted.sort();
    let again = rebuild(&sorted, &places).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (same, second) = testing::read(kind.read, &again);
    assert!(!has_error(&second), "{what}: {:?}\n{}", second.problems, toml(&Value::Table(again)));
    let mut second_keys = pairs(&second.resolved);
    second_keys.retain(|(key, _)| key != "seed" || sorted.iter().any(|(key, _)| key == "seed"));
    second_keys.sort();
    assert_eq!(second_keys, sorted, "{what}");
    let without_seed = |mut places: Vec<(String, String)>| {
        places.retain(|(key, _)| key != "seed");
        places
    };
    assert_eq!(without_seed(pairs(&second.places)), without_seed(places), "{what}");
    // The order of a search's space is that of its tables' columns: a round's record has it in `ranges[…].order`.
    if kind.name != "search" {
        assert_eq!(shown(&*same), shown(stage), "{what}");
    }
    if let (Some(a), Some(b)) = (stage.network(), same.network()) {
        assert_eq!(a.architecture.shorthand(), b.architecture.shorthand(), "{what}");
    }
}

fn has_error(log: &Log) -> bool {
    log.problems.iter().any(|problem| problem.severity == Severity::Error)
}

fn kind_of(word: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.name == word).expect("it is a kind")
}

/// Every stage of a manifest.
fn check_manifest(manifest: &Manifest, what: &str) -> usize {
    let own = manifest.nodes.iter().zip(&manifest.entries);
    let own = own.filter(|(node, _)| node.stage.search().is_none_or(|search| search.rank() == 1));
    for (node, entry) in own.clone() {
        let mut log = Log { resolved: entry.resolved.clone(), places: entry.places.clone(), ..Log::default() };
        let seed = node.stage.own_seed().map(|seed| seed.to_string());
        log.places.extend(seed.map(|value| Resolved { key: "seed".to_owned(), value, span: None }));
        check(kind_of(node.stage.kind()), &*node.stage, &log, &format!("{what}: {}", node.name));
    }
    own.count()
}

#[test]
fn stages_can_be_read_again_from_their_records() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut n = 0;
    for folder in ["pipelines", "tests/manifests/good"] {
        for file in fs::read_dir(root.join(folder)).expect("the folder is there") {
            let path = file.expect("its entries can be read").path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                let manifest = Manifest::load(&path, &Overrides::default()).unwrap_or_else(|found| panic!("{found}"));
                n += check_manifest(&manifest, &path.display().to_string());
            }
        }
    }
    for kind in KINDS {
        let example = Manifest::from_bytes(Path::new("m.toml"), kind.example.as_bytes(), &Overrides::default(), KINDS);
        n += check_manifest(&example.unwrap_or_else(|found| panic!("{found}")), kind.name);
    }
    assert!(n > 100, "{n} stages");
}

fn parsed(text: &str) -> Table {
    let parsed = source::parse_document(text, 0);
    assert_eq!(parsed.problems, [], "{text}");
    parsed.table
}

#[test]
fn every_choice_can_be_read_again() {
    let case = |kind: &str, keys: &str| {
        let (kind, about) = (kind_of(kind), format!("{kind}: {keys}"));
        let (stage, log) = testing::read(kind.read, &parsed(keys));
        assert!(!has_error(&log), "{about}: {:?}", log.problems);
        check(kind, &*stage, &log, &about);
    };
    for method in ["pca", "gaussian-projection", "sparse-projection"] {
        case("reduce", &format!("method = \"{method}\""));
    }
    case("reduce", "method.pca.zca = true");
    case("reduce", "method.pca = { zca = true, variance = 0.5 }");
    case("reduce", "method.pca = { components = 3, solver = \"randomized\", epsilon = 0 }");
    case("reduce", "method.sparse-projection = { components = 3, density = 1 }");
    case("reduce", "method.gaussian-projection = { components = \"johnson-lindenstrauss\", eps = 0.25 }");
    let net = "architecture = \"INPUT - FC\"\n";
    for word in crate::nn::optimizer::KINDS.iter().map(|kind| kind.word) {
        case("train", &format!("{net}optimizer = \"{word}\""));
    }
    for word in crate::nn::schedule::CHOICES.iter().map(|choice| choice.word) {
        case("train", &format!("{net}schedule = \"{word}\""));
    }
    for word in crate::data::augment::CHOICES.iter().map(|choice| choice.word) {
        case("train", &format!("{net}augment = [\"{word}\", {{ {word} = {{}} }}]"));
    }
    for word in crate::nn::init::CHOICES.iter().map(|choice| choice.word) {
        case("train", &format!("{net}initializer = \"{word}\""));
        case("train", &format!("architecture = \"INPUT - FC(3, initializer={word}) - FC\""));
    }
    case("train", &format!("{net}initializer = {{ constant = -0.0 }}"));
    for kind in crate::nn::layer::KINDS.iter().filter(|kind| kind.word != "input") {
        let keys = kind.example.split_whitespace().collect::<Vec<_>>().join(", ");
        case("train", &format!("architecture = \"INPUT - {} - {}({keys}) - FC\"", kind.shorthand, kind.shorthand));
    }
    case("train", "architecture = \"INPUT(32x32x3) - CONV(8, 3x5, padding=2, dilation=2, bias=false, l2=1) - FC\"");
    case("train", "layers = [{ input = { shape = 784 } }, { dropout = { rate = 0.25 } }, \"fc\"]");
    case("train", &format!("{net}convolution = \"winograd\""));
    case(
        "train",
        "architecture = \"INPUT - CONV - CONV(3, 5) - CONV(convolution=direct) - FC\"\nconvolution = \"winograd\"",
    );
    case("train", &format!("{net}early_stopping = {{}}\nsnapshots = 1\nclip = 1\nweight_decay = 0\ntrial = true"));
    for combine in ["mean-probability", "vote", "weighted", "stacking"] {
        case("ensemble", &format!("combine = \"{combine}\""));
    }
    case("evaluate", "gates = { accuracy = \">=0.50\", \"search.2\" = { log-loss = \"< 1\" } }");
    case(
        "evaluate",
        "gates = { accuracy = { baseline = 0.5 }, log-loss = { baseline = \"a/metrics.csv\", max_drop = 0.1 } }",
    );
    case(
        "evaluate",
        "gates = { cnn = { accuracy = { baseline = \"other\" } } }\nbootstrap = 100\nmetrics = [\"macro-f1\"]",
    );
    case("split", "folds = 1\nvalidation = \"given\"\ntest = 0\ngroup = \"group\"");
    case("split", "folds = 1");
    case("preprocess", "steps = []");
    case(
        "preprocess",
        "steps = [{ scale = { to = [-1, 1], per = \"global\" } }, { divide = 255 }, \"standardize-image\"]",
    );
    case(
        "search",
        "space = { stages.a.learning_rate = { uniform = [-0.0, 1] }, stages.b.vars.\"a b\" = { choice = [1, 2.5, \"x\", [3], { adam = { beta1 = 0.5 } }] } }\nrounds = [{ trials = 4 }, {}]\ntime_limit = \"2h\"",
    );
    case("ingest", "source = \"x\"\nlabels = \"y\"\nformat = \"idx\"\nlimit = 3\nresize = { width = 1, height = 2 }");
}

#[test]
fn defaults_are_recorded_as_if_they_were_written() {
    let keys = |kind: &str, keys: &str| pairs(&testing::read(kind_of(kind).read, &parsed(keys)).1.resolved);
    let same = |kind: &str, a: &str, b: &str| {
        let (mut a, mut other) = (keys(kind, a), keys(kind, b));
        a.sort();
        other.sort();
        assert_eq!(a, other, "{b}");
    };
    let net = "architecture = \"INPUT - FC\"\n";
    for written in [
        "augment = []",
        "optimizer = \"adam\"",
        "optimizer = { adam = { beta1 = 0.9 } }",
        "schedule = \"constant\"",
        "initializer = \"he-normal\"",
        "l2 = -0.0",
        "l2 = 0",
        "label_smoothing = 0.0",
        "data_fraction = 1",
    ] {
        same("train", net, &format!("{net}{written}"));
    }
    same("preprocess", "", "steps = []");
    same("evaluate", "", "gates = {}");
    same("ensemble", "", "combine = { mean-probability = {} }");
    same("split", "test = 0", "test = -0.0");
    same("train", "architecture = \"INPUT - CONV - FC\"", "layers = [\"input\", { conv = { filters = 32 } }, \"fc\"]");
    // Nothing is recorded of keys that are not there.
    let recorded = keys("train", net);
    assert!(recorded.iter().all(|(_, value)| !value.contains("none") || value == "\"none\""), "{recorded:?}");
    assert!(!recorded.iter().any(|(key, _)| key == "clip" || key == "weight_decay" || key == "snapshots"));
    // Places are no keys of a fingerprint.
    let log = testing::read(kind_of("ingest").read, &parsed("source = \"where\"")).1;
    assert_eq!(pairs(&log.places), [("source".to_owned(), "\"where\"".to_owned())]);
    assert!(log.resolved.iter().all(|resolved| resolved.key != "source"));
}
