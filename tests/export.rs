//! `export` in other programs' forms, read back: ONNX by a reader of its fields, NPZ as a ZIP file, event files record by
//! record; the same bytes each time, and what is refused. `tests/reference/check_exports.py` runs them in those programs.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use common::ran;

const MANIFEST: &str = r#"
schema = 1
name = "toy"
seed = 7

[stages.ingest]
source = "images"

[stages.split]
test = 0.25
folds = 2

[stages.preprocess]
steps = ["center", "standardize-image"]

[stages.cnn]
kind = "train"
architecture = "INPUT - CONV(4) - BN - LEAKY(0.2) - POOL - DROPOUT(0.2) - LOCAL(3) - FC(5) - ELU - FC"
augment      = ["flip"]
sanity       = false
epochs = 2

[stages.axes]
kind = "reduce"
input = "split"
method = { pca = { components = 5, whiten = true } }

[stages.linear]
kind = "train"
architecture = "INPUT - FC"
sanity       = false
epochs = 3
final = "refit"

[stages.vote]
kind = "ensemble"
members = ["cnn", "linear"]
combine = "vote"

[stages.evaluate]
"#;

fn project() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    common::draw_images(temp.path());
    fs::write(temp.path().join("toy.toml"), MANIFEST).unwrap();
    done(temp.path(), &["run", "-q", "toy.toml"]);
    temp
}

fn done(folder: &Path, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = ran(folder, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
    stdout
}

/// What is refused: the exit code, and what is said.
#[track_caller]
fn refused(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let (code, stdout, stderr) = ran(folder, arguments);
    assert_eq!(stdout, "", "{arguments:?}");
    (code.expect("an exit code"), common::unbroken(stderr.as_bytes()))
}

/// Fields of a message of protocol buffers.
struct Fields<'a>(Vec<(u64, Field<'a>)>);

#[derive(Clone, Copy, PartialEq, Debug)]
enum Field<'a> {
    Whole(u64),
    Bytes(&'a [u8]),
    Single(f32),
    Double(f64),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (&byte, rest) = bytes.split_first().expect("a whole number ends");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

impl<'a> Fields<'a> {
    fn read(mut bytes: &'a [u8]) -> Fields<'a> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let field = match key & 7 {
                0 => Field::Whole(varint(&mut bytes)),
                wire => {
                    let len = match wire {
                        1 => 8,
                        2 => varint(&mut bytes) as usize,
                        5 => 4,
                        other => panic!("wire type {other}"),
                    };
                    let (own, rest) = bytes.split_at(len);
                    bytes = rest;
                    match wire {
                        1 => Field::Double(f64::from_le_bytes(own.try_into().unwrap())),
                        5 => Field::Single(f32::from_le_bytes(own.try_into().unwrap())),
                        _ => Field::Bytes(own),
                    }
                }
            };
            fields.push((key >> 3, field));
        }
        Fields(fields)
    }

    fn all(&self, number: u64) -> Vec<Field<'a>> {
        self.0.iter().filter(|(own, _)| *own == number).map(|(_, field)| *field).collect()
    }

    fn messages(&self, number: u64) -> Vec<Fields<'a>> {
        let bytes = |field: Field<'a>| match field {
            Field::Bytes(bytes) => Fields::read(bytes),
            other => panic!("{other:?} is no message"),
        };
        self.all(number).into_iter().map(bytes).collect()
    }

    fn texts(&self, number: u64) -> Vec<&'a str> {
        let text = |field: Field<'a>| match field {
            Field::Bytes(bytes) => std::str::from_utf8(bytes).unwrap(),
            other => panic!("{other:?} is no text"),
        };
        self.all(number).into_iter().map(text).collect()
    }

    fn text(&self, number: u64) -> &'a str {
        self.texts(number)[0]
    }

    fn wholes(&self, number: u64) -> Vec<u64> {
        let whole = |field: Field<'a>| match field {
            Field::Whole(value) => value,
            other => panic!("{other:?} is no whole number"),
        };
        self.all(number).into_iter().map(whole).collect()
    }
}

#[test]
fn an_onnx_file_has_the_models_nodes_numbers_and_policy() {
    let project = project();
    let folder = project.path();
    assert_eq!(done(folder, &["export", "onnx", "toy.toml"]), "out/toy/vote.onnx\n");
    let bytes = fs::read(folder.join("out/toy/vote.onnx")).unwrap();
    let model = Fields::read(&bytes);
    assert_eq!((model.wholes(1), model.messages(8)[0].wholes(2)), (vec![7], vec![13]));
    let graph = &model.messages(7)[0];

    // Every value is given before it is read, and once.
    let mut known: Vec<&str> = graph.messages(11).iter().map(|input| input.text(1)).collect();
    assert_eq!(known, ["images"]);
    for tensor in graph.messages(5) {
        let shape: u64 = tensor.wholes(1).iter().product();
        let size = if tensor.wholes(2) == [7] { 8 } else { 4 };
        let [Field::Bytes(values)] = tensor.all(9)[..] else { panic!("values of {}", tensor.text(8)) };
        assert_eq!(values.len() as u64, shape * size, "{}", tensor.text(8));
        known.push(tensor.text(8));
    }
    let mut operators: BTreeMap<&str, usize> = BTreeMap::new();
    for node in graph.messages(1) {
        for input in node.texts(1) {
            assert!(known.contains(&input), "{input} of {} is not given before", node.text(3));
        }
        known.extend(node.texts(2));
        *operators.entry(node.text(4)).or_default() += 1;
    }
    let n_known = known.len();
    known.sort_unstable();
    known.dedup();
    assert_eq!(known.len(), n_known, "a name is given twice");
    // Two folds of a network with all of these, and one network that was refitted.
    for (operator, n) in [
        ("Cast", 3),
        ("Conv", 2),
        ("BatchNormalization", 2),
        ("LeakyRelu", 2),
        ("MaxPool", 2),
        ("Gather", 2),
        ("Elu", 2),
        ("Gemm", 5),
        ("MatMul", 3),
        ("Softmax", 3),
        ("ArgMax", 3),
        ("Equal", 2),
    ] {
        assert_eq!(operators.get(operator), Some(&n), "{operator} of {operators:?}");
    }
    assert!(!operators.contains_key("Dropout"), "{operators:?}");

    // `[batch, 6, 6, 1]` bytes in, `[batch, 2]` numbers and `[batch]` labels out.
    let port = |value: &Fields<'_>| {
        let tensor = &value.messages(2)[0].messages(1)[0];
        let axes = tensor.messages(2)[0].messages(1);
        assert_eq!(axes[0].texts(2), ["batch"]);
        let axes: Vec<u64> = axes[1..].iter().flat_map(|axis| axis.wholes(1)).collect();
        (value.text(1).to_owned(), tensor.wholes(1)[0], axes)
    };
    assert_eq!(graph.messages(11).iter().map(port).collect::<Vec<_>>(), [("images".to_owned(), 2, vec![6, 6, 1])]);
    let outputs: Vec<_> = graph.messages(12).iter().map(port).collect();
    assert_eq!(outputs, [("probabilities".to_owned(), 1, vec![2]), ("label".to_owned(), 7, vec![])]);

    let metadata: BTreeMap<&str, &str> =
        model.messages(14).iter().map(|entry| (entry.text(1), entry.text(2))).collect();
    for (key, value) in [
        ("classes", r#"["ant","bee"]"#),
        ("channels", "gray"),
        ("alpha", "drop"),
        ("exif", "apply"),
        ("depth", "8"),
        ("resize", "null"),
    ] {
        assert_eq!(metadata[key], value, "{key}");
    }
    assert!(!metadata.contains_key("data_licence"));
    done(folder, &["export", "safetensors", "toy.toml"]);
    let portable = fs::read(folder.join("out/toy/vote.safetensors")).unwrap();
    let told = String::from_utf8_lossy(&portable).contains(metadata["digest"]);
    assert!(told && metadata["digest"].len() == 64, "the digest is the portable model's");
}

#[test]
fn a_model_has_the_same_bytes_from_its_manifest_and_from_its_file_however_often() {
    let project = project();
    let folder = project.path();
    done(folder, &["export", "safetensors", "toy.toml", "-o", "m.safetensors"]);
    for form in ["onnx", "npz"] {
        let of = |arguments: &[&str], name: &str| {
            done(folder, &[&["export", form][..], arguments].concat());
            fs::read(folder.join(name)).unwrap()
        };
        let first = of(&["toy.toml", "-o", "first"], "first");
        assert!(of(&["-o", "again", "--threads", "1"], "again") == first, "{form}, again");
        let ending = format!("m.{form}");
        assert!(of(&["m.safetensors"], &ending) == first, "{form}, of the file");
        let out = format!("elsewhere/toy/vote.{form}");
        assert!(of(&["toy.toml", "--out-dir", "elsewhere"], &out) == first, "{form}, elsewhere");
        assert!(of(&["toy.toml", "--stage", "linear"], &format!("out/toy/linear.{form}")) != first);
    }
    let json = done(folder, &["export", "onnx", "toy.toml", "--json", "--stage", "linear"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["path"], &json["networks"]), (&"out/toy/linear.onnx".into(), &1.into()), "{json}");
    let len = fs::metadata(folder.join("out/toy/linear.onnx")).unwrap().len();
    assert_eq!(json["bytes"], len, "{json}");
}

#[test]
fn an_npz_file_has_the_arrays_of_the_portable_model() {
    let project = project();
    done(project.path(), &["export", "npz", "toy.toml", "-o", "m.npz"]);
    let file = fs::File::open(project.path().join("m.npz")).unwrap();
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
    for name in [
        "members.0.chain.0.0.subtract",
        "members.1.network.6.local.weights",
        "members.2.chain.0.mean",
        "members.2.chain.0.weights",
        "members.2.network.1.fc.bias",
        "classes",
        "index",
    ] {
        assert!(names.contains(&format!("{name}.npy")), "{name} is not in {names:?}");
    }
    let mut bytes = Vec::new();
    archive.by_name("index.npy").unwrap().read_to_end(&mut bytes).unwrap();
    let text: String =
        bytes[128..].as_chunks().0.iter().map(|c| char::from_u32(u32::from_le_bytes(*c)).unwrap()).collect();
    let index: serde_json::Value = serde_json::from_str(&text).unwrap();
    let arrays = index["arrays"].as_object().unwrap();
    assert_eq!(arrays.len() + 2, names.len());
    assert_eq!(arrays["members.0.network.1.conv.weights"]["shape"], serde_json::json!([3, 3, 1, 4]));
    assert!(arrays.values().all(|about| about["is"] != "as the description says"), "an array that is not explained");
    assert_eq!(index["model"]["classes"], serde_json::json!(["ant", "bee"]));
    // The date is the first that ZIP knows.
    let date = archive.by_index(0).unwrap().last_modified().unwrap();
    assert_eq!((date.year(), date.month(), date.day()), (1980, 1, 1));
}

#[test]
fn event_files_have_the_scalars_of_each_fold_and_old_ones_go() {
    let project = project();
    let folder = project.path();
    assert_eq!(done(folder, &["export", "tensorboard", "toy.toml"]), "out/toy/tensorboard\n");
    let listed = |below: &str| {
        let dir = folder.join(below);
        let files = walkdir::WalkDir::new(&dir).sort_by_file_name().into_iter().filter_map(Result::ok);
        let files = files.filter(|file| file.file_type().is_file());
        let name = |file: walkdir::DirEntry| file.path().strip_prefix(&dir).unwrap().display().to_string();
        files.map(name).collect::<Vec<String>>()
    };
    let event = "events.out.tfevents.0.convoy";
    let runs = ["cnn/fold-1", "cnn/fold-2", "linear/all", "linear/fold-1", "linear/fold-2"];
    let expected: Vec<String> = runs
        .iter()
        .flat_map(|run| [format!("{run}/train/{event}"), format!("{run}/validation/{event}")])
        .filter(|path| !path.starts_with("linear/all/validation"))
        .collect();
    assert_eq!(listed("out/toy/tensorboard"), expected);

    // What `epochs.csv` has, as numbers of single precision.
    let table = fs::read_to_string(folder.join("out/toy/epochs.csv")).unwrap();
    let mut lines = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let at = |name: &str| header.iter().position(|column| *column == name).unwrap();
    let losses: Vec<(u64, f32)> = lines
        .filter(|row| (row[at("stage")], row[at("fold")]) == ("linear", "2"))
        .map(|row| (row[at("epoch")].parse().unwrap(), row[at("valid_loss")].parse().unwrap()))
        .collect();
    assert_eq!(losses.len(), 3);
    let bytes = fs::read(folder.join("out/toy/tensorboard/linear/fold-2/validation").join(event)).unwrap();
    let mut rest = &bytes[..];
    let mut events = Vec::new();
    while !rest.is_empty() {
        let len = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        events.push(Fields::read(&rest[12..12 + len]));
        rest = &rest[16 + len..];
    }
    assert_eq!(events[0].texts(3), ["brain.Event:2"]);
    let read: Vec<(u64, f32)> = events[1..]
        .iter()
        .map(|event| {
            let values = event.messages(5)[0].messages(1);
            let loss = values.iter().find(|value| value.text(1) == "loss").unwrap();
            let [Field::Single(loss)] = loss.all(2)[..] else { panic!("a number") };
            (event.wholes(2)[0], loss)
        })
        .collect();
    assert_eq!(read, losses);
    assert!(events.iter().all(|event| event.all(1) == [Field::Double(0.0)]), "no event has a time");

    // The same bytes; what is no longer trained goes from the default place, and nothing else does.
    let before = bytes;
    fs::write(folder.join("out/toy/tensorboard/notes.txt"), "mine").unwrap();
    let fewer = fs::read_to_string(folder.join("toy.toml")).unwrap().replace("final = \"refit\"\n", "");
    fs::write(folder.join("toy.toml"), fewer).unwrap();
    let told = ran(folder, &["export", "tensorboard", "toy.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&told.1).unwrap();
    assert_eq!((told.0, &json["trainings"], &json["absent"]), (Some(0), &4.into(), &0.into()), "{}", told.2);
    let kept: Vec<String> = expected.iter().filter(|path| !path.starts_with("linear/all")).cloned().collect();
    assert_eq!(listed("out/toy/tensorboard"), [&kept[..], &["notes.txt".to_owned()]].concat());
    assert!(fs::read(folder.join("out/toy/tensorboard/linear/fold-2/validation").join(event)).unwrap() == before);
    done(folder, &["export", "tensorboard", "toy.toml", "--stage", "cnn", "-o", "logs"]);
    assert_eq!(listed("logs"), expected[..4]);
}

#[test]
fn what_cannot_be_exported_is_refused_by_name_and_nothing_is_lost() {
    let project = project();
    let folder = project.path();
    done(folder, &["export", "safetensors", "toy.toml", "-o", "m.safetensors"]);
    let model = fs::read(folder.join("m.safetensors")).unwrap();
    for form in ["onnx", "npz"] {
        let (code, said) = refused(folder, &["export", form, "m.safetensors", "-o", "./m.safetensors"]);
        assert_eq!(code, 2);
        assert!(said.contains("m.safetensors` is the model that is exported"), "{said}");
        let (code, said) = refused(folder, &["export", form, "m.safetensors", "--stage", "cnn"]);
        assert_eq!(code, 2);
        assert!(said.contains("`--stage` is about a manifest, and `m.safetensors` is an exported model"), "{said}");
        let (code, said) = refused(folder, &["export", form, "toy.toml", "--stage", "split"]);
        assert_eq!(code, 2);
        assert!(said.contains("stage `split` is no model") && said.contains("`cnn`, `linear`, `vote`"), "{said}");
        let (code, said) = refused(folder, &["export", form, "toy.toml", "-o", "toy.toml"]);
        assert_eq!(code, 2);
        assert!(said.contains("looks like a manifest or a lock file"), "{said}");
        let (code, said) = refused(folder, &["export", form, "images"]);
        assert_eq!(code, 2);
        assert!(said.contains("is a folder, not a model"), "{said}");
        let changed = ["export", form, "toy.toml", "--set", "stages.cnn.epochs=3"];
        let (code, said) = refused(folder, &changed);
        assert_eq!(code, 3);
        assert!(said.contains("help: run it first: `convoy run toy.toml --set 'stages.cnn.epochs=3'`"), "{said}");
    }
    assert!(fs::read(folder.join("m.safetensors")).unwrap() == model);
    let (code, said) = refused(folder, &["export", "tensorboard", "toy.toml", "--stage", "none"]);
    assert_eq!(code, 2);
    assert!(said.contains("`none`"), "{said}");
    let (code, said) = refused(folder, &["export", "tensorboard", "toy.toml", "--stage", "split"]);
    assert_eq!(code, 3);
    assert!(said.contains("`split` of `toy.toml` has no finished training"), "{said}");
    let changed = ["export", "tensorboard", "toy.toml", "--set", "stages.split.folds=3"];
    let (code, said) = refused(folder, &changed);
    assert_eq!(code, 3);
    assert!(said.contains("help: train first: `convoy run toy.toml --set 'stages.split.folds=3'`"), "{said}");
    let (code, said) = refused(folder, &["export", "tensorboard", "toy.toml", "-o", "toy.toml"]);
    assert_eq!(code, 2);
    assert!(said.contains("looks like a manifest"), "{said}");
    let (code, said) = refused(folder, &["export", "tensorboard", "toy.toml", "-o", "m.safetensors"]);
    assert_eq!(code, 1);
    assert!(said.contains("m.safetensors"), "{said}");
    assert!(fs::read(folder.join("m.safetensors")).unwrap() == model);
}
