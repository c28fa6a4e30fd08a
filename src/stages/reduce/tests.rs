//! `reduce` against scikit-learn, and what it promises: no row that is not trained on is learned from, no thread shows.

use super::*;
use crate::artifact::dataset::Names;
use crate::artifact::features::{Features, NUMBERS, read_projection};
use crate::artifact::splits::Splits;
use crate::artifact::{Bytes, Files};
use crate::config::{Entry, Node, Table, Value};
use crate::data::fit_set::{Partition, Place};
use crate::data::reduce::Projection;
use crate::data::reduce::projection::johnson_lindenstrauss;
use crate::data::samples::{Samples, Values};
use crate::stages::Delivered;
use crate::stages::testing::{self, MemorySink, TestContext};
use crate::tensor::ImageShape;

fn text(text: &str) -> Value {
    Value::Text { text: text.to_owned(), inner: None }
}

fn table(keys: &[(&str, Value)]) -> Value {
    let entry = |(key, value): &(&str, Value)| Entry {
        key: (*key).to_owned(),
        key_span: Span::default(),
        node: Node { value: value.clone(), span: Span::default() },
    };
    Value::Table(Table { entries: keys.iter().map(entry).collect() })
}

fn read_stage(method: &str, keys: &[(&str, Value)]) -> (Box<dyn Stage>, Log) {
    let Value::Table(section) = table(&[("method", table(&[(method, table(keys))]))]) else { unreachable!() };
    testing::read(KIND.read, &section)
}

#[track_caller]
fn stage(method: &str, keys: &[(&str, Value)]) -> Box<dyn Stage> {
    let (stage, log) = read_stage(method, keys);
    assert_eq!(log.problems, []);
    stage
}

/// What scikit-learn says of some images.
struct Reference(serde_json::Value);

impl Reference {
    fn read() -> Reference {
        Reference(serde_json::from_str(include_str!("../../../tests/reference/reduce.json")).unwrap())
    }

    fn number(&self, key: &str) -> f64 {
        self.0[key].as_f64().unwrap()
    }

    fn vector(&self, key: &str) -> Vec<f64> {
        self.0[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    fn rows(&self, key: &str) -> Vec<Vec<f64>> {
        let row = |row: &serde_json::Value| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        self.0[key].as_array().unwrap().iter().map(row).collect()
    }

    fn shape(&self) -> ImageShape {
        let [height, width] = ["height", "width"].map(|key| self.number(key) as usize);
        ImageShape { height, width, channels: 1 }
    }

    /// The images; those that fold 1 does not train on hold `poison`, if given.
    fn inputs(&self, poison: Option<u8>) -> Vec<Delivered> {
        let n_training = self.number("n_training") as usize;
        let mut images = self.rows("images");
        let n = images.len();
        if let Some(poison) = poison {
            images[n_training..].iter_mut().for_each(|image| image.fill(poison.into()));
        }
        let pixels: Vec<u8> = images.concat().iter().map(|&x| x as u8).collect();
        let labels: Vec<u32> = (0..n as u32).map(|i| i % 2).collect();
        let place = |i: usize| match i {
            i if i < n_training => Place::Fold(2),
            i if i < n_training + 10 => Place::Test,
            _ => Place::Fold(1),
        };
        let (files, dataset) = testing::dataset(self.shape(), &labels, &pixels);
        let mut sink = MemorySink::default();
        let partition = Partition::new((0..n).map(place).collect(), 2).unwrap();
        Splits::new(partition, &dataset).write(&dataset, &Names::read(&files).unwrap(), &mut sink).unwrap();
        vec![delivered(0, Output::Dataset, files), delivered(1, Output::Splits, sink.files())]
    }
}

fn delivered(stage: usize, output: Output, files: Files) -> Delivered {
    Delivered { from: stage, part: Part::Whole, stage_name: format!("s{stage}"), output, files }
}

fn run(stage: &dyn Stage, inputs: Vec<Delivered>, threads: usize) -> Files {
    let context = TestContext { threads, ..TestContext::default() };
    testing::run(stage, Part::Fold(1), inputs, &Places::default(), &context).unwrap()
}

fn fitted(stage: &dyn Stage) -> (Projection, Vec<Vec<f64>>) {
    let files = run(stage, Reference::read().inputs(None), 2);
    (read_projection(&files).unwrap(), rows(&Features::read(&files).unwrap()))
}

fn rows(features: &Features) -> Vec<Vec<f64>> {
    let row = |i: usize| match features.values(i) {
        Values::F32(values) => values.iter().map(|x| f64::from(f32::from_le_bytes(*x))).collect(),
        other => panic!("{other:?}"),
    };
    (0..features.n_samples()).map(row).collect()
}

#[track_caller]
fn assert_near(got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance * expected.abs().max(1.0), "{i}: {got}, expected {expected}");
    }
}

/// The rows of every fourth image.
fn fourth(rows: Vec<Vec<f64>>) -> Vec<f64> {
    rows.into_iter().step_by(4).flatten().collect()
}

#[test]
fn pca_finds_the_axes_of_scikit_learn() {
    let reference = Reference::read();
    for solver in ["full", "randomized"] {
        let stage = stage("pca", &[("components", Value::Integer(8)), ("solver", text(solver))]);
        let (projection, features) = fitted(stage.as_ref());
        let spectrum = projection.spectrum.as_ref().unwrap();
        let components: Vec<f64> = spectrum.components.iter().map(|&x| x.into()).collect();
        assert_near(&components, &reference.rows("components").concat(), 1e-4);
        assert_near(&spectrum.explained_variance, &reference.vector("explained_variance"), 1e-5);
        let ratios: Vec<f64> = spectrum.ratios().iter().map(|(ratio, _)| *ratio).collect();
        assert_near(&ratios, &reference.vector("explained_variance_ratio"), 1e-5);
        assert_near(&fourth(features), &reference.rows("features").concat(), 1e-4 * 40.0);
        assert_eq!(projection.output, SampleShape::Flat(8));
    }
}

/// A covariance of sums in single precision, next to one in double precision: the axes of small variances, which
/// whitening blows up, lean towards the large ones by some 1e-6.
const SINGLE: f64 = 5e-4;

#[test]
fn whitened_samples_are_those_of_scikit_learn() {
    let reference = Reference::read();
    let keys = [("components", Value::Integer(8)), ("whiten", Value::Boolean(true)), ("epsilon", Value::Integer(0))];
    let (_, features) = fitted(stage("pca", &keys).as_ref());
    assert_near(&fourth(features), &reference.rows("whitened").concat(), SINGLE);
    let epsilon = Value::Float(reference.number("epsilon"));
    let (projection, features) = fitted(stage("pca", &[("zca", Value::Boolean(true)), ("epsilon", epsilon)]).as_ref());
    assert_near(&fourth(features), &reference.rows("zca").concat(), SINGLE);
    assert_eq!(projection.output, SampleShape::Image(reference.shape()));
    let d = projection.input.len();
    assert!((0..d * d).all(|at| (projection.weights[at] - projection.weights[at % d * d + at / d]).abs() < 1e-6));
}

#[test]
fn as_many_axes_are_kept_as_explain_the_share() {
    let reference = Reference::read();
    for (share, n) in reference.0["kept"].as_object().unwrap() {
        let stage = stage("pca", &[("variance", Value::Float(share.parse().unwrap()))]);
        let (projection, _) = fitted(stage.as_ref());
        assert_eq!(projection.output, SampleShape::Flat(n.as_u64().unwrap() as usize), "{share}");
    }
    let (projection, _) = fitted(stage("pca", &[]).as_ref());
    assert_eq!(projection.output, SampleShape::Flat(5), "0.95 unless said otherwise");
    let (projection, _) = fitted(stage("pca", &[("variance", Value::Integer(1))]).as_ref());
    assert!(projection.output.len() >= 29);
}

#[test]
fn random_projections_have_the_moments_of_their_papers() {
    let reference = Reference::read();
    let components = ("components", Value::Integer(9));
    let (gaussian, features) = fitted(stage("gaussian-projection", std::slice::from_ref(&components)).as_ref());
    let n = gaussian.weights.len() as f64;
    let mean = |power: i64| gaussian.weights.iter().map(|&w| crate::elementary::powi(w.into(), power)).sum::<f64>() / n;
    // Five standard errors of 270 draws.
    assert!(mean(1).abs() < 5.0 / (9.0 * n).sqrt() && (mean(2) * 9.0 - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
    // By definition: the product of an image and the weights.
    let image = &reference.rows("images")[3];
    let expected: Vec<f64> = (0..9)
        .map(|j| image.iter().enumerate().map(|(i, x)| x * f64::from(gaussian.weights[i * 9 + j])).sum())
        .collect();
    assert_near(&features[3], &expected, 1e-5);
    assert!(gaussian.mean.is_empty() && gaussian.spectrum.is_none());

    let (sparse, _) = fitted(stage("sparse-projection", std::slice::from_ref(&components)).as_ref());
    let weight = reference.number("sparse_weight");
    assert!(sparse.weights.iter().all(|&w| w == 0.0 || (f64::from(w).abs() - weight).abs() < 1e-6));
    let share = |keep: fn(f32) -> bool| sparse.weights.iter().filter(|w| keep(**w)).count() as f64 / n;
    let density = reference.number("sparse_density");
    assert!((share(|w| w != 0.0) - density).abs() < 5.0 * (density * (1.0 - density) / n).sqrt());
    assert!((share(|w| w > 0.0) - density / 2.0).abs() < 5.0 * (density / 2.0 / n).sqrt());
    let (dense, _) = fitted(stage("sparse-projection", &[components, ("density", Value::Integer(1))]).as_ref());
    assert!(dense.weights.iter().all(|w| (w.abs() - 1.0 / 3.0).abs() < 1e-6));

    for row in reference.rows("johnson_lindenstrauss") {
        assert_eq!(johnson_lindenstrauss(row[0] as usize, row[1]), row[2] as usize, "{row:?}");
    }
}

/// A stage of every method and solver.
fn every_stage() -> Vec<Box<dyn Stage>> {
    let components = ("components", Value::Integer(6));
    vec![
        stage("pca", &[]),
        stage("pca", &[("zca", Value::Boolean(true))]),
        stage("pca", &[components.clone(), ("solver", text("randomized")), ("whiten", Value::Boolean(true))]),
        stage("gaussian-projection", std::slice::from_ref(&components)),
        stage("sparse-projection", &[components]),
    ]
}

#[test]
fn poisoned_rows_change_nothing_that_is_learned_and_threads_no_byte() {
    let reference = Reference::read();
    for stage in every_stage() {
        let expected = run(stage.as_ref(), reference.inputs(Some(0)), 1);
        let poisoned = run(stage.as_ref(), reference.inputs(Some(255)), 1);
        for (name, bytes) in &expected.0 {
            let n_training = reference.number("n_training") as usize;
            let len = match name.as_str() {
                "features.npy" => 128 + n_training * Features::read(&expected).unwrap().shape().len() * 4,
                _ => bytes.len(),
            };
            assert!(bytes[..len] == poisoned.0[name][..len], "{name} of {stage:?}");
            assert_eq!(bytes[..] == poisoned.0[name][..], name != "features.npy", "{name} of {stage:?}");
        }
        for threads in [2, 3, 7] {
            let got = run(stage.as_ref(), reference.inputs(Some(0)), threads);
            assert!(got.0.keys().eq(expected.0.keys()));
            assert!(got.0.iter().all(|(name, bytes)| bytes[..] == expected.0[name][..]), "{threads}: {stage:?}");
        }
    }
}

/// Where these change, the same samples give other bytes: bump the method's revision (`stages/revisions.rs`) in the
/// same commit.
#[test]
fn every_method_gives_the_golden_bytes() {
    let golden = ["f65d3da1be419473", "8fee4f5cc2865928", "06b2e87ca1a5a8fc", "37e87ed6695d1552", "2ff1c3da138ce140"];
    let found: Vec<String> = every_stage()
        .iter()
        .map(|stage| {
            let mut hasher = blake3::Hasher::new();
            for (name, bytes) in &run(stage.as_ref(), Reference::read().inputs(None), 2).0 {
                hasher.update(name.as_bytes());
                hasher.update(bytes);
            }
            hasher.finalize().to_hex()[..16].to_owned()
        })
        .collect();
    assert_eq!(found, golden);
}

#[test]
fn fit_sets_and_seeds_draw_their_own_weights() {
    let inputs = || Reference::read().inputs(None);
    let stage = stage("gaussian-projection", &[("components", Value::Integer(6))]);
    let weights = |part: Part, seed: u64| {
        let mut sink = MemorySink::default();
        let task = Task { part, seed, inputs: inputs() };
        stage.run(&task, &Places::default(), &TestContext::default(), &mut sink).unwrap();
        sink.files().get(NUMBERS).unwrap().to_vec()
    };
    let first = weights(Part::Fold(1), 42);
    assert_ne!(weights(Part::Fold(2), 42), first);
    assert_ne!(weights(Part::All, 42), first);
    assert_ne!(weights(Part::Fold(1), 43), first);
    assert_eq!(weights(Part::Fold(1), 42), first);
}

#[test]
fn stages_below_read_the_features() {
    let mut inputs = Reference::read().inputs(None);
    let center = testing::read(crate::stages::preprocess::KIND.read, &{
        let Value::Table(steps) =
            table(&[("steps", Value::List(vec![Node { value: text("center"), span: Span::default() }]))])
        else {
            unreachable!()
        };
        steps
    })
    .0;
    let pca = stage("pca", &[("components", Value::Integer(6))]);
    let push = |stage: &dyn Stage, inputs: &mut Vec<Delivered>| {
        let files = run(stage, inputs.clone(), 1);
        inputs.push(delivered(inputs.len(), Output::Fitted, files));
    };
    let feed_of = |inputs: &[Delivered]| {
        let task = Task { part: Part::Fold(1), seed: 42, inputs: inputs.to_vec() };
        let dataset = Arc::new(lineage::dataset(&task).unwrap());
        lineage::feed(&task, &dataset).unwrap()
    };
    push(center.as_ref(), &mut inputs);
    push(pca.as_ref(), &mut inputs);
    let feed = feed_of(&inputs);
    assert_eq!(feed.sample_shape(), SampleShape::Flat(6));
    assert!(feed.chain().fitted().is_empty(), "what came before is in the features");
    let expected = rows(&Features::read(&inputs[3].files).unwrap());
    let mut got = vec![0.0f32; 12];
    feed.load(&[5, 2], &mut got);
    assert_near(&got.iter().map(|&x| x.into()).collect::<Vec<f64>>(), &[&expected[5][..], &expected[2]].concat(), 0.0);
    // Later transforms and another reduction come on top.
    push(center.as_ref(), &mut inputs);
    assert_eq!(feed_of(&inputs).chain().fitted().len(), 1);
    push(stage("gaussian-projection", &[("components", Value::Integer(2))]).as_ref(), &mut inputs);
    assert_eq!(feed_of(&inputs).sample_shape(), SampleShape::Flat(2));
}

#[test]
fn damaged_features_are_an_error() {
    let files = run(stage("pca", &[]).as_ref(), Reference::read().inputs(None), 1);
    let whole = |files: &Files| Features::read(files).is_ok() && read_projection(files).is_ok();
    assert!(whole(&files));
    assert!(files.0.contains_key("components.png"), "{:?}", files.0.keys());
    for (name, bytes) in &files.0 {
        for length in (0..bytes.len().saturating_sub(1)).step_by(1 + bytes.len() / 300) {
            let mut cut = files.clone();
            cut.0.insert(name.clone(), Bytes::new(bytes[..length].to_vec()));
            assert!(!whole(&cut) || name.starts_with("components."), "{name} cut at {length}");
        }
    }
}

#[test]
fn too_many_components_are_told_when_they_are_known() {
    let reference = Reference::read();
    let flow = Flow {
        output: Output::Splits,
        shape: Some(SampleShape::Image(reference.shape())),
        n_classes: None,
        n_samples: Some(160),
        given: None,
        folds: 2,
        has_test: true,
        refit: false,
        models: 1,
        has_views: false,
        has_temperature: false,
        abstains: false,
    };
    let told = |method: &str, keys: &[(&str, Value)], flow: &Flow| {
        let (stage, mut log) = read_stage(method, keys);
        stage.check(std::slice::from_ref(flow), Span::default(), &mut log);
        log.problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
    };
    let components = |n: i64| [("components", Value::Integer(n))];
    assert_eq!(told("pca", &components(30), &flow), "");
    assert_eq!(told("pca", &components(31), &flow), "31 components cannot be found in 30 features");
    let unknown = Flow { shape: None, ..flow.clone() };
    assert_eq!(told("pca", &components(161), &unknown), "161 components cannot be found in 160 images");
    let message = "31 components are more than the 30 features: nothing is reduced";
    assert_eq!(told("sparse-projection", &components(31), &flow), message);
    let message = "the Johnson-Lindenstrauss minimum for 160 images at `eps = 0.1` is 4350 components, more than the \
                   30 features";
    assert_eq!(told("gaussian-projection", &[], &flow), message);
    let both = [("components", Value::Integer(3)), ("variance", Value::Float(0.5))];
    assert_eq!(told("pca", &both, &flow), "`components` and `variance` both say how many components are kept");
    // 30 images are trained on in fold 2, which only the run knows.
    let stage = stage("pca", &components(29));
    let context = TestContext::default();
    let few = testing::run(stage.as_ref(), Part::Fold(2), reference.inputs(None), &Places::default(), &context);
    let few = few.unwrap_err();
    assert_eq!(few.message, "29 components cannot be found in 20 images");
    assert_eq!(few.key.as_deref(), Some("method.pca.components"));
}
