//! Training agrees with PyTorch: layers, losses, batch normalisation, whole steps, optimizers, schedules, initialisers.
//!
//! `tests/reference/training.json` holds what PyTorch says in double precision; `make_training.py` beside it made it.
//! Weights and inputs are not stored, both sides compute them ([`value`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use convoy::config::{Entry, Log, Node, Section, Span, Table, Value};
use convoy::engine::{Engine, Targets, UpdateStep};
use convoy::nn::architecture;
use convoy::nn::init::Initializer;
use convoy::nn::optimizer::{Adagrad, Adam, Lbfgs, OptimizerConfig, RmsProp, Sgd, Update};
use convoy::nn::plan::NetworkPlan;
use convoy::nn::schedule::{Moment, Plateau, Schedule};
use convoy::nn::seeds::Seeds;
use convoy::nn::training::{AllSamples, Trainer, Training};
use convoy::rng::Stream;
use convoy::tensor::{ImageShape, SampleShape};
use serde_json::Value as Json;

fn reference(part: &str) -> Json {
    let json: Json = serde_json::from_str(include_str!("reference/training.json")).expect("JSON");
    json[part].clone()
}

/// Value `i` of tensor `k`.
fn value(k: usize, i: usize) -> f64 {
    ((i * i * 7 + i * 13 + k * 29) % 101) as f64 - 50.0
}

fn tensor(k: usize, n: usize, offset: f64, scale: f64) -> Vec<f32> {
    (0..n).map(|i| (offset + scale * (value(k, i) / 80.0)) as f32).collect()
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn whole(json: &Json) -> usize {
    json.as_u64().expect("a whole number") as usize
}

#[track_caller]
fn assert_close(got: impl IntoIterator<Item = f64>, expected: &[f64], tolerance: f64, what: &str) {
    let got: Vec<f64> = got.into_iter().collect();
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(expected).enumerate() {
        assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{what}[{i}] is {got}, PyTorch says {want}");
    }
}

fn wide(values: &[f32]) -> impl Iterator<Item = f64> + '_ {
    values.iter().map(|&x| f64::from(x))
}

fn plan(architecture: &str, shape: &Json, n_classes: usize) -> NetworkPlan {
    let span = Span::default();
    let node = Node { value: Value::Text { text: architecture.to_owned(), inner: None }, span };
    let table = Table { entries: vec![Entry { key: "architecture".to_owned(), key_span: span, node }] };
    let mut log = Log::default();
    let read = architecture::read(&mut Section::new(Some(&table), span, "", &mut log));
    assert_eq!(log.problems, [], "{architecture}");
    let [height, width, channels] = [0, 1, 2].map(|i| whole(&shape[i]));
    let input = SampleShape::Image(ImageShape { height, width, channels });
    NetworkPlan::new(&read.expect("an architecture").layers, input, n_classes).expect("a plan")
}

/// A network whose tensors are those of the reference.
fn trainer(plan: &NetworkPlan, batch: usize, change: impl FnOnce(&mut Training)) -> Trainer {
    let mut training = Training {
        seeds: Seeds { seed: 1, indices: Vec::new() },
        last_layer_gain: 1.0,
        optimizer: Arc::new(Sgd { momentum: 0.9, is_nesterov: true }),
        ..Training::default()
    };
    change(&mut training);
    let mut trainer = Trainer::new(&Engine::new(2), plan, batch, training);
    let mut tensors = trainer.network().save();
    for (k, tensor) in tensors.iter_mut().enumerate() {
        let (offset, scale) = if tensor.name.ends_with("scale") { (1.0, 0.3) } else { (0.0, 1.0) };
        if !tensor.name.contains("running") {
            tensor.values = self::tensor(k, tensor.values.len(), offset, scale);
        }
    }
    trainer.load(&tensors).expect("the same tensors");
    trainer
}

fn images(n: usize, plan: &NetworkPlan) -> Vec<f32> {
    tensor(1000, n * plan.input.len(), 0.0, 2.0)
}

#[test]
fn layers_and_losses_agree_forward_and_backward() {
    // Sums of up to a hundred products near 1, in f32.
    const TOLERANCE: f64 = 2e-5;
    let cases = reference("networks");
    for case in cases.as_array().expect("a list") {
        let name = case["name"].as_str().expect("a name");
        let (n, n_classes) = (whole(&case["n"]), whole(&case["n_classes"]));
        let plan = plan(case["architecture"].as_str().expect("a string"), &case["shape"], n_classes);
        let mut trainer = trainer(&plan, n, |training| {
            training.label_smoothing = case["smoothing"].as_f64().unwrap_or(0.0);
            let weights = case["weights"].as_array();
            training.class_weights = weights.map(|_| numbers(&case["weights"]).iter().map(|&w| w as f32).collect());
        });
        let images = images(n, &plan);
        let labels: Vec<u32> = (0..n).map(|i| (i * 2 % n_classes) as u32).collect();
        let soft: Option<Vec<f32>> =
            case["targets"].as_array().map(|rows| rows.iter().flat_map(numbers).map(|x| x as f32).collect());
        let targets = soft.as_deref().map_or(Targets::Labels(&labels), Targets::Probabilities);
        let loss = trainer.accumulate_gradients(&images, targets).loss();
        assert_close([loss], &[case["loss"].as_f64().expect("a loss")], TOLERANCE, &format!("{name}: loss"));
        let mut n_gradients = 0;
        for (tensor, gradient) in trainer.gradient() {
            assert_close(wide(gradient), &numbers(&case["gradients"][tensor]), TOLERANCE, &format!("{name}: {tensor}"));
            n_gradients += 1;
        }
        assert_eq!(n_gradients, case["gradients"].as_object().expect("a table").len(), "{name}");
        for tensor in trainer.network().save().iter().filter(|tensor| tensor.name.contains("running")) {
            let expected = numbers(&case["statistics"][&tensor.name]);
            assert_close(wide(&tensor.values), &expected, TOLERANCE, &format!("{name}: {}", tensor.name));
        }
        let mut probabilities = vec![0.0; n * n_classes];
        trainer.into_network().predict(&images, &mut probabilities);
        assert_close(wide(&probabilities), &numbers(&case["probabilities"]), TOLERANCE, &format!("{name}: outputs"));
    }
}

#[test]
fn whole_steps_agree_with_clipping_l2_and_decay() {
    // Ten steps of a network with a ReLU and a maximum, in f32.
    const TOLERANCE: f64 = 1e-4;
    let cases = reference("steps");
    for case in cases.as_array().expect("a list") {
        let name = case["name"].as_str().expect("a name");
        let shape = serde_json::json!([6, 5, 2]);
        let plan = plan("INPUT - CONV(3) - BN - RELU - POOL - FC", &shape, 3);
        let mut trainer = trainer(&plan, 6, |training| {
            training.clip = case["clip"].as_f64();
            training.l2 = case["l2"].as_f64().expect("a number");
            training.weight_decay = case["weight_decay"].as_f64();
            training.decays_all = case["decays_all"].as_bool().expect("a flag");
        });
        let (images, labels) = (images(6, &plan), [0, 2, 1, 0, 2, 1]);
        for _ in 0..10 {
            trainer.train_step(&images, Targets::Labels(&labels), 0.05, None);
        }
        for tensor in trainer.network().save() {
            let expected = numbers(&case["tensors"][&tensor.name]);
            assert_close(wide(&tensor.values), &expected, TOLERANCE, &format!("{name}: {}", tensor.name));
        }
    }
}

#[test]
fn optimizers_agree_over_a_hundred_steps() {
    // The rounding of 100 updates of weights near 1.
    const TOLERANCE: f64 = 1e-5;
    let engine = Engine::new(1);
    let cases = reference("optimizers");
    for case in cases.as_array().expect("a list") {
        let (name, l2) = (case["name"].as_str().expect("a name"), case["l2"].as_f64().expect("a number"));
        // The defaults of the manifest, but for the momentum, read as a manifest's are.
        let rmsprop = RmsProp { rho: 0.99, momentum: 0.0, epsilon: 1e-8 };
        let rule: Box<dyn OptimizerConfig> = match name {
            "sgd" => Box::new(Sgd { momentum: 0.0, is_nesterov: false }),
            "momentum" => Box::new(Sgd { momentum: 0.9, is_nesterov: false }),
            "nesterov" => Box::new(Sgd { momentum: 0.9, is_nesterov: true }),
            "adam" => Box::new(Adam::default()),
            "adamw" => Box::new(Adam { weight_decay: Some(if l2 > 0.0 { 0.1 } else { 0.01 }), ..Adam::default() }),
            "rmsprop" => Box::new(rmsprop),
            "rmsprop-momentum" => Box::new(RmsProp { momentum: 0.5, ..rmsprop }),
            "adagrad" => Box::new(Adagrad { epsilon: 1e-10 }),
            _ => panic!("no rule `{name}`"),
        };
        let l2 = if name == "adamw" { 0.0 } else { l2 };
        let mut weights = tensor(0, 19, 0.0, 1.0);
        let mut moments = vec![vec![0.0f32; 19]; rule.n_moments()];
        for t in 1..=100usize {
            let grad: Vec<f32> = (0..19).map(|i| ((i * 7 + t * t * 13) % 17) as f32 * 0.125 - 0.875).collect();
            let step = UpdateStep {
                learning_rate: 0.02,
                grad_scale: 1.0,
                l2: l2 as f32,
                decay: (1.0 - 0.02 * rule.weight_decay()) as f32,
            };
            let mut slices: Vec<&mut [f32]> = moments.iter_mut().map(|moment| &mut moment[..]).collect();
            let update = Update { engine: &engine, step, step_number: t as u64, weights: &mut weights, grad: &grad };
            rule.update(update, &mut slices);
            if let Some(expected) = case["after"].get(t.to_string()) {
                let what = format!("{name} with L2 {l2} after {t} steps");
                assert_close(wide(&weights), &numbers(expected), TOLERANCE, &what);
            }
        }
    }
}

#[test]
fn schedules_agree_over_a_hundred_epochs() {
    const TOLERANCE: f64 = 1e-12;
    let expected = reference("schedules");
    for (name, schedule) in [
        ("step", Schedule::Step { factor: 0.5, every: 7 }),
        ("exponential", Schedule::Exponential { factor: 0.95 }),
        ("cosine", Schedule::Cosine { cycles: 1, warm_up: 0.0, floor: 0.1 }),
        ("warm-up", Schedule::Cosine { cycles: 1, warm_up: 10.0, floor: 0.0 }),
        ("cycles", Schedule::Cosine { cycles: 4, warm_up: 0.0, floor: 0.0 }),
    ] {
        let factors =
            (0..100).map(|step| schedule.factor(Moment { step, steps_per_epoch: 1, epochs: 100 }, &Plateau::default()));
        assert_close(factors, &numbers(&expected[name]), TOLERANCE, name);
    }
    let (losses, accuracies) = (numbers(&expected["losses"]), numbers(&expected["accuracies"]));
    for (name, by_accuracy) in [("plateau", false), ("accuracy-plateau", true)] {
        let schedule = Schedule::Plateau { factor: 0.5, patience: 3, threshold: 0.01, by_accuracy, floor: 0.02 };
        let mut plateau = Plateau::default();
        let factors = losses.iter().zip(&accuracies).map(|(&loss, &accuracy)| {
            schedule.watch(loss, accuracy, &mut plateau);
            schedule.factor(Moment { step: 0, steps_per_epoch: 1, epochs: 100 }, &plateau)
        });
        assert_close(factors, &numbers(&expected[name]), TOLERANCE, name);
    }
}

#[test]
fn initialisers_have_the_spread_of_theirs() {
    // Two samples of 73,728 values: deviations within 4 standard errors of each other, 0.5 % each.
    const TOLERANCE: f64 = 0.015;
    let expected = reference("initialisers");
    let (fan_in, fan_out) = (whole(&expected["fan_in"]), whole(&expected["fan_out"]));
    for (name, initializer) in [
        ("he-normal", Initializer::HeNormal),
        ("he-uniform", Initializer::HeUniform),
        ("glorot-normal", Initializer::GlorotNormal),
        ("glorot-uniform", Initializer::GlorotUniform),
    ] {
        let mut values = vec![0.0; whole(&expected["n"])];
        initializer.fill(1.0, fan_in, fan_out, &Stream::new(1, "test init", &[]), &mut values);
        let n = values.len() as f64;
        let mean = wide(&values).sum::<f64>() / n;
        let deviation = (wide(&values).map(|x| (x - mean) * (x - mean)).sum::<f64>() / n).sqrt();
        let of = |what: &str| expected["of"][name][what].as_f64().expect("a number");
        assert!((deviation / of("deviation") - 1.0).abs() < TOLERANCE, "{name}: {deviation}");
        assert!(mean.abs() < 4.0 * deviation / n.sqrt(), "{name}: {mean}");
        let largest = wide(&values).fold(0.0, |most: f64, x| most.max(x.abs()));
        // The ends of a uniform distribution are sharp, those of a normal one are not.
        let share = if name.ends_with("uniform") { 1e-3 } else { 0.25 };
        assert!((largest / of("largest") - 1.0).abs() < share, "{name}: {largest}");
    }
}

/// The same samples each time, in batches.
struct Samples {
    images: Vec<f32>,
    labels: Vec<u32>,
    batch: usize,
}

impl AllSamples for Samples {
    fn for_each(&mut self, f: &mut dyn FnMut(&[f32], Targets<'_>)) -> bool {
        let sample = self.images.len() / self.labels.len();
        for (images, labels) in self.images.chunks(self.batch * sample).zip(self.labels.chunks(self.batch)) {
            f(images, Targets::Labels(labels));
        }
        true
    }
}

#[test]
fn lbfgs_goes_the_same_way() {
    let case = reference("lbfgs");
    let (n, n_classes) = (whole(&case["n"]), whole(&case["n_classes"]));
    let plan = plan("INPUT - FC(5) - ELU - FC", &case["shape"], n_classes);
    let expected = numbers(&case["losses"]);
    let l2 = case["l2"].as_f64().expect("a number");
    let mut ends = BTreeMap::new();
    for batch in [n, 7] {
        let mut trainer = trainer(&plan, batch, |training| {
            training.optimizer = Arc::new(Lbfgs { history: whole(&case["history"]), ..Lbfgs::default() });
            training.l2 = l2;
        });
        let labels = (0..n).map(|i| ((i * 5 + i * i) % n_classes) as u32).collect();
        let mut samples = Samples { images: images(n, &plan), labels, batch };
        let losses: Vec<f64> = (0..expected.len())
            .map(|_| {
                let (stats, _) = trainer.full_batch_step(&mut samples, None).expect("never stopped");
                let weights = trainer.network().save().into_iter().filter(|tensor| tensor.name.ends_with("weights"));
                let squares: f64 = weights.map(|tensor| wide(&tensor.values).map(|x| x * x).sum::<f64>()).sum();
                stats.loss() + 0.5 * l2 * squares
            })
            .collect();
        // Rounding sets the two apart, more so with each step; both end in the same valley.
        assert_close(losses[..8].iter().copied(), &expected[..8], 1e-3, "the first losses");
        let (last, want) = (losses[expected.len() - 1], expected[expected.len() - 1]);
        assert!((last - want).abs() < 2e-3 * want, "the last loss is {last}, PyTorch's {want}");
        assert!(losses.is_sorted_by(|a, b| a >= b), "no step goes up: {losses:?}");
        ends.insert(batch, last);
    }
    assert!((ends[&n] - ends[&7]).abs() < 1e-3, "batches are only a matter of memory: {ends:?}");
}
