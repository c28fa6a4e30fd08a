//! Contract tests: every kind of layer in small networks, against central differences; whole steps, to the bit.

use std::sync::Arc;

use super::init::Initializer;
use super::layer::{KINDS, LayerConfig, layer_of, network_of};
use super::network::{NamedTensor, Network};
use super::optimizer::{Adam, OptimizerConfig, Sgd};
use super::plan::NetworkPlan;
use super::seeds::Seeds;
use super::training::{Trainer, Training};
use crate::engine::{Engine, Isa, Targets};
use crate::rng::Stream;
use crate::tensor::{ImageShape, SampleShape};

const N_CLASSES: usize = 3;
const SHAPE: ImageShape = ImageShape { height: 6, width: 5, channels: 2 };

fn training(optimizer: impl OptimizerConfig + 'static) -> Training {
    Training {
        seeds: Seeds { seed: 7, indices: vec![("fit set", 1)] },
        last_layer_gain: 1.0,
        optimizer: Arc::new(optimizer),
        ..Training::default()
    }
}

fn images(n: usize, shape: SampleShape) -> Vec<f32> {
    let mut images = vec![0.0; n * shape.len()];
    Stream::new(3, "test images", &[]).fill_normal32(0, &mut images);
    images
}

fn labels(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * 2 % N_CLASSES as u32).collect()
}

/// Compares the gradient of some elements of each tensor with central differences of the loss.
#[track_caller]
fn check_gradients(what: &str, layers: &[Arc<dyn LayerConfig>], input: SampleShape) {
    // Differences of a loss near 1 whose logits carry an error of 1e-6, over twice these steps. Where a ReLU or a
    // maximum has a kink within the first step, the second is nearly always short enough.
    const STEPS: [f32; 3] = [1e-3, 2.5e-4, 6e-5];
    const ABSOLUTE: f64 = 3e-3;
    const RELATIVE: f64 = 0.02;
    let plan = NetworkPlan::new(layers, input, N_CLASSES).unwrap_or_else(|problems| panic!("{what}: {problems:?}"));
    // One thread: thousands of tiny passes, which would spend their time waking a second.
    let engine = Engine::new(1);
    let n = 3;
    let mut trainer = Trainer::new(&engine, &plan, n + 1, training(Sgd { momentum: 0.0, is_nesterov: false }));
    // Biases, scales and shifts start where nothing can be seen of them.
    let mut tensors = trainer.network().save();
    for (i, tensor) in tensors.iter_mut().enumerate() {
        if !tensor.name.ends_with("weights") && !tensor.name.contains("running") {
            let stream = Stream::new(5, "test biases", &[("tensor", i as u64)]);
            for (j, value) in tensor.values.iter_mut().enumerate() {
                *value += 0.3 * stream.normal(j as u64) as f32;
            }
        }
    }
    trainer.load(&tensors).unwrap();
    let (images, labels) = (images(n, input), labels(n));
    let mut loss = |tensors: &[NamedTensor]| {
        trainer.load(tensors).unwrap();
        trainer.accumulate_gradients(&images, Targets::Labels(&labels)).loss()
    };
    loss(&tensors);
    let gradients: Vec<(String, Vec<f32>)> =
        trainer.gradient().map(|(name, values)| (name.to_owned(), values.to_vec())).collect();
    let mut loss = |tensors: &[NamedTensor]| {
        trainer.load(tensors).unwrap();
        trainer.accumulate_gradients(&images, Targets::Labels(&labels)).loss()
    };
    let mut largest: f64 = 0.0;
    for (name, gradient) in &gradients {
        let tensor = tensors.iter().position(|tensor| tensor.name == *name).expect("a saved tensor");
        let every = gradient.len().div_ceil(24);
        for i in (0..gradient.len()).step_by(every) {
            let old = tensors[tensor].values[i];
            let got = f64::from(gradient[i]);
            let differences = STEPS.map(|step| {
                tensors[tensor].values[i] = old + step;
                let above = loss(&tensors);
                tensors[tensor].values[i] = old - step;
                let below = loss(&tensors);
                tensors[tensor].values[i] = old;
                (above - below) / f64::from((old + step) - (old - step))
            });
            largest = largest.max(got.abs());
            assert!(
                differences.iter().any(|want| (got - want).abs() <= ABSOLUTE + RELATIVE * want.abs()),
                "{what}: {name}[{i}] has gradient {got}, differences say {differences:?}"
            );
        }
    }
    assert!(largest > 0.01, "{what}: no gradient to speak of");
}

#[test]
fn every_layer_agrees_with_central_differences() {
    for kind in KINDS {
        let layer = layer_of(kind, kind.example);
        let around = |above: &str, below: &str| {
            let mut layers = network_of(above);
            layers.push(Arc::clone(&layer));
            layers.extend(network_of(below));
            layers
        };
        let image = SampleShape::Image(SHAPE);
        let word = kind.word;
        check_gradients(
            &format!("{word} below a convolution"),
            &around("input | conv filters=4 kernel_size=[2,3]", "fc"),
            image,
        );
        check_gradients(&format!("{word} below a ReLU"), &around("input | conv filters=4 | relu", "fc"), image);
        check_gradients(&format!("{word} above a ReLU"), &around("input | conv filters=4", "relu | fc"), image);
        check_gradients(&format!("{word} first"), &around("input", "fc units=4 | leaky slope=0.3 | fc"), image);
        let flat = around("input | fc units=8 | elu", "fc");
        if flat.iter().try_fold(SampleShape::Flat(7), |shape, layer| layer.output_shape(shape)).is_ok()
            || layer.output_shape(SampleShape::Flat(8)).is_ok()
        {
            check_gradients(&format!("{word} flat"), &flat, SampleShape::Flat(7));
        }
    }
}

#[test]
fn strides_paddings_dilations_and_groups_agree_with_central_differences() {
    for layers in [
        "input | conv filters=4 padding=valid dilation=2 | relu | conv filters=6 groups=2 stride=[1,2] bias=0 | relu | fc",
        "input | local filters=2 kernel_size=2 padding=1 | relu | avgpool size=3 stride=1 padding=same | relu | fc",
        "input | conv filters=4 | bn | relu | pool size=3 stride=1 padding=1 | gap | fc",
        "input | relu | relu | leaky | conv filters=3 | elu | pool | relu | flatten | relu | dropout rate=0.3 | relu | fc",
        "input | noise | pool | conv filters=4 kernel_size=1 | bn | leaky slope=0.2 | dropout rate=0.3 | gap | fc",
    ] {
        // `bias=0` is not a flag; leave it out where it stands.
        let layers = network_of(&layers.replace(" bias=0", ""));
        check_gradients(&format!("{layers:?}"), &layers, SampleShape::Image(SHAPE));
    }
}

#[test]
fn both_kinds_of_convolutions_agree_with_central_differences() {
    let shape = ImageShape { height: 6, width: 8, channels: 2 };
    for layers in [
        "input | conv filters=5 | elu | conv filters=6 | elu | pool | fc",
        "input | conv filters=5 | elu | conv filters=6 convolution=direct | elu | pool | fc",
        "input | conv filters=6 | bn | elu | conv filters=5 padding=2 | bn | elu | gap | fc",
        "input | conv filters=6 | bn | elu | conv filters=5 convolution=direct padding=2 | bn | elu | gap | fc",
    ] {
        check_gradients(layers, &network_of(layers), SampleShape::Image(shape));
    }
}

#[test]
fn shapes_agree_with_what_forward_writes() {
    for kind in KINDS {
        let layer = layer_of(kind, kind.example);
        let image = SampleShape::Image(SHAPE);
        let output = layer.output_shape(image).unwrap();
        let mut layers = network_of("input");
        layers.push(layer);
        layers.extend(network_of("fc"));
        let plan = NetworkPlan::new(&layers, image, N_CLASSES).unwrap();
        assert_eq!(plan.layers[1].output, output);
        let mut network = Trainer::new(&Engine::new(1), &plan, 2, training(Adam::default())).into_network();
        let mut probabilities = vec![0.0; 2 * N_CLASSES];
        network.predict(&images(2, image), &mut probabilities);
        assert!(probabilities.chunks(N_CLASSES).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
        if let Some(values) = network.output_of(1, 2) {
            assert_eq!(values.len(), 2 * output.len());
        }
    }
}

const NET: &str = "input | noise stddev=0.05 | conv filters=5 | relu | conv filters=6 stride=2 | bn | relu | pool | \
    dropout rate=0.3 | fc units=7 | elu | fc";

fn trained(engine: &Engine, steps: usize) -> Trainer {
    trained_by(Adam::default(), engine, steps)
}

fn trained_by(optimizer: impl OptimizerConfig + 'static, engine: &Engine, steps: usize) -> Trainer {
    let plan = NetworkPlan::new(&network_of(NET), SampleShape::Image(SHAPE), N_CLASSES).unwrap();
    let config = Training { l2: 1e-3, clip: Some(1.0), label_smoothing: 0.1, ..training(optimizer) };
    let mut trainer = Trainer::new(engine, &plan, 8, config);
    let (images, labels) = (images(8, SampleShape::Image(SHAPE)), labels(8));
    for step in 0..steps {
        // The last batch of an epoch is smaller.
        let n = if step % 3 == 2 { 5 } else { 8 };
        let stats = trainer.train_step(&images[..n * SHAPE.len()], Targets::Labels(&labels[..n]), 0.01, None);
        assert!(stats.is_finite());
    }
    trainer
}

fn digest(trainer: &Trainer) -> String {
    let mut hasher = blake3::Hasher::new();
    for tensor in trainer.save_state().1 {
        hasher.update(tensor.name.as_bytes());
        tensor.values.iter().for_each(|x| {
            hasher.update(&x.to_bits().to_le_bytes());
        });
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

#[test]
fn training_gives_the_same_bytes_on_every_instruction_set_and_number_of_threads() {
    // Any change here changes models: `stages/revisions.rs` names the rooms whose revisions to bump.
    const GOLDEN: &str = "9d6655e8be90409e";
    const GOLDEN_SGD: &str = "e55672308f38a985";
    for isa in Isa::available() {
        for threads in [1, 2, 3, 7] {
            let engine = Engine::with_isa(threads, isa);
            assert_eq!(digest(&trained(&engine, 6)), GOLDEN, "{isa}, {threads} threads");
            let sgd = trained_by(Sgd { momentum: 0.9, is_nesterov: true }, &engine, 6);
            assert_eq!(digest(&sgd), GOLDEN_SGD, "sgd, {isa}, {threads} threads");
        }
    }
}

#[test]
fn training_with_either_kind_of_convolutions_gives_the_same_bytes_everywhere() {
    // Any change here changes models: bump the revisions of the stages that train.
    const NET: &str = "input | conv filters=6 | relu | conv filters=37 | relu | pool | \
        conv filters=9 padding=2 | bn | relu | conv filters=6 | fc";
    let direct = NET.replace("conv ", "conv convolution=direct ");
    for (net, golden) in [(NET, "83977d2659a7d5cf"), (&direct, "d7614d98a4a70da9")] {
        for isa in Isa::available() {
            for threads in [1, 2, 3, 7] {
                let engine = Engine::with_isa(threads, isa);
                let (tensors, probabilities) = stepped(net, &engine, Sgd { momentum: 0.9, is_nesterov: false });
                let mut hasher = blake3::Hasher::new();
                tensors.iter().flatten().chain(&probabilities).for_each(|x| {
                    hasher.update(&x.to_bits().to_le_bytes());
                });
                assert_eq!(&hasher.finalize().to_hex()[..16], golden, "{net}, {isa}, {threads} threads");
            }
        }
    }
}

#[test]
fn the_layer_before_the_softmax_starts_as_small_as_it_is_told() {
    let weights = |layers: &str, gain: f64, initializer: Initializer| {
        let plan = NetworkPlan::new(&network_of(layers), SampleShape::Image(SHAPE), N_CLASSES).unwrap();
        let config = Training { last_layer_gain: gain, initializer, ..training(Adam::default()) };
        let trainer = Trainer::new(&Engine::new(1), &plan, 2, config);
        trainer.network().save().into_iter().filter(|tensor| tensor.name.ends_with("weights")).collect::<Vec<_>>()
    };
    for (layers, last) in [
        ("input | conv filters=4 | relu | fc units=5 | relu | fc", 2),
        ("input | conv filters=4 | relu | conv filters=3 | bn | relu | gap", 1),
        ("input | fc", 0),
    ] {
        for initializer in [Initializer::HeNormal, Initializer::GlorotUniform] {
            let whole = weights(layers, 1.0, initializer);
            for gain in [0.0, 0.125, 2.0] {
                let got = weights(layers, gain, initializer);
                assert_eq!(got.len(), last + 1, "{layers}");
                for (i, (got, whole)) in got.iter().zip(&whole).enumerate() {
                    // A power of two rounds nothing.
                    let gain = if i == last { gain as f32 } else { 1.0 };
                    assert!(got.values.iter().zip(&whole.values).all(|(g, w)| *g == w * gain), "{layers}, layer {i}");
                }
            }
        }
        // A constant is what it says.
        let constant = Initializer::Constant(0.5);
        assert_eq!(weights(layers, 0.1, constant), weights(layers, 1.0, constant));
    }
}

/// All tensors and moments after some steps of `layers`, from weights that depend on their order only.
fn stepped(layers: &str, engine: &Engine, optimizer: impl OptimizerConfig + 'static) -> (Vec<Vec<f32>>, Vec<f32>) {
    let shape = ImageShape { height: 12, width: 8, channels: 2 };
    let plan = NetworkPlan::new(&network_of(layers), SampleShape::Image(shape), N_CLASSES).unwrap();
    let mut trainer = Trainer::new(engine, &plan, 6, training(optimizer));
    let mut tensors = trainer.network().save();
    for (i, tensor) in tensors.iter_mut().enumerate().filter(|(_, tensor)| !tensor.name.contains("running")) {
        let stream = Stream::new(11, "test weights", &[("tensor", i as u64)]);
        stream.fill_normal32(0, &mut tensor.values);
        tensor.values.iter_mut().for_each(|w| *w *= 0.2);
    }
    trainer.load(&tensors).unwrap();
    let (images, labels) = (images(6, SampleShape::Image(shape)), labels(6));
    let mut statistics = Vec::new();
    for n in [6, 6, 4, 6] {
        let targets = Targets::Labels(&labels[..n]);
        assert!(trainer.train_step(&images[..n * shape.len()], targets, 0.05, Some(&mut statistics)).is_finite());
    }
    let mut values: Vec<Vec<f32>> = trainer.save_state().1.into_iter().map(|tensor| tensor.values).collect();
    values.push(statistics.iter().map(|entry| entry.dead_fraction.map_or(-1.0, |dead| dead as f32)).collect());
    let mut probabilities = vec![0.0; 6 * N_CLASSES];
    trainer.into_network().predict(&images, &mut probabilities);
    (values, probabilities)
}

#[test]
fn batch_normalisation_within_the_layers_beside_it_gives_the_bytes_of_it_apart() {
    for middle in [
        "conv filters=40 | bn | relu | conv filters=6 | relu | pool",
        "conv filters=33 | bn | relu | pool | conv filters=6 | bn | leaky",
        // Chunks of 234 rows, of which some lie within one thread's share of 576 and some do not.
        "conv filters=70 convolution=direct | bn | relu | conv filters=6 convolution=direct",
        "conv filters=70 convolution=direct | bn | relu | pool | conv filters=6 convolution=direct | relu | pool",
        "conv filters=17 convolution=direct | bn | leaky | conv filters=70 stride=2 | bn | relu | conv filters=33 | bn",
        "bn | conv filters=64 kernel_size=1 | bn | relu | conv filters=40 | relu | pool | bn | relu | pool size=3 stride=1",
    ] {
        let net = |middle: &str| format!("input | conv filters=6 | relu | {middle} | dropout rate=0 | fc");
        // Dropout of nothing keeps layers apart.
        let apart = net(&middle.replace("bn", "dropout rate=0 | bn").replace(" | conv", " | dropout rate=0 | conv"));
        let sgd = || Sgd { momentum: 0.9, is_nesterov: false };
        let fastest = Isa::available()[0];
        let want = stepped(&apart, &Engine::with_isa(1, fastest), sgd());
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Portable) {
            for threads in [1, 2, 3, 5] {
                let got = stepped(&net(middle), &Engine::with_isa(threads, isa), sgd());
                assert_eq!(got, want, "{middle}, {isa}, {threads} threads");
            }
        }
    }
}

#[test]
fn pooling_within_the_layer_above_gives_the_bytes_of_pooling_apart() {
    // Dropout of nothing keeps the two layers apart.
    for [together, apart] in [
        ["conv filters=5 | relu | pool", "conv filters=5 | relu | dropout rate=0 | pool"],
        [
            "conv filters=5 convolution=direct | relu | pool",
            "conv filters=5 convolution=direct | relu | dropout rate=0 | pool",
        ],
        [
            "conv filters=17 convolution=direct | pool | relu",
            "conv filters=17 convolution=direct | dropout rate=0 | pool | relu",
        ],
        ["conv filters=4 | relu | pool | relu", "conv filters=4 | relu | dropout rate=0 | pool | relu"],
        ["conv filters=4 kernel_size=5 | relu | pool", "conv filters=4 kernel_size=5 | relu | dropout rate=0 | pool"],
        ["conv filters=4 | bn | relu | pool", "conv filters=4 | bn | relu | dropout rate=0 | pool"],
        ["conv filters=37 | relu | pool", "conv filters=37 | relu | dropout rate=0 | pool"],
        ["conv filters=33 | bn | pool", "conv filters=33 | bn | dropout rate=0 | pool"],
        [
            "conv filters=33 convolution=direct | bn | pool",
            "conv filters=33 convolution=direct | bn | dropout rate=0 | pool",
        ],
    ] {
        let net = |middle: &str| {
            format!("input | conv filters=6 | relu | {middle} | conv filters=7 groups=1 | relu | dropout rate=0 | fc")
        };
        let sgd = || Sgd { momentum: 0.9, is_nesterov: false };
        let want = stepped(&net(apart), &Engine::with_isa(1, Isa::Portable), sgd());
        for isa in Isa::available() {
            for threads in [1, 3] {
                let got = stepped(&net(together), &Engine::with_isa(threads, isa), sgd());
                assert_eq!(got, want, "{together}, {isa}, {threads} threads");
            }
        }
    }
}

#[test]
fn a_restored_network_goes_on_with_the_same_bytes() {
    let engine = Engine::new(2);
    let whole = trained(&engine, 6);
    let (step, tensors) = trained(&engine, 3).save_state();
    let mut rest = trained(&engine, 0);
    rest.load_state(step, &tensors).unwrap();
    let (images, labels) = (images(8, SampleShape::Image(SHAPE)), labels(8));
    for n in [8, 8, 5] {
        rest.train_step(&images[..n * SHAPE.len()], Targets::Labels(&labels[..n]), 0.01, None);
    }
    assert_eq!(digest(&rest), digest(&whole));
    let missing = rest.load(&tensors[1..]).unwrap_err();
    assert_eq!(missing.to_string(), "tensor `2.conv.weights` is missing");
}

#[test]
fn a_network_made_for_prediction_predicts_what_the_trained_one_does_in_any_batch() {
    let engine = Engine::new(2);
    let mut network = trained(&engine, 4).into_network();
    let images = images(21, SampleShape::Image(SHAPE));
    let mut want = vec![0.0; 21 * N_CLASSES];
    network.predict(&images, &mut want);
    let mut other = Network::new(&engine, network.plan(), 5);
    other.load(&network.save()).unwrap();
    let mut got = vec![0.0; want.len()];
    other.predict(&images, &mut got);
    assert_eq!(got, want);
    let labels = labels(21);
    got.fill(f32::NAN);
    let stats = other.evaluate(&images, &labels, Some(&mut got));
    assert_eq!(got, want);
    let mut loss = 0.0;
    for (row, &label) in want.chunks(N_CLASSES).zip(&labels) {
        loss -= crate::elementary::ln(f64::from(row[label as usize]));
    }
    assert!((stats.loss_sum - loss).abs() < 1e-4 && stats.n == 21);
}

#[test]
fn a_loss_that_is_not_finite_changes_nothing() {
    let engine = Engine::new(1);
    let mut trainer = trained(&engine, 1);
    let before = digest(&trainer);
    let mut images = images(8, SampleShape::Image(SHAPE));
    images[17] = f32::NAN;
    let stats = trainer.train_step(&images, Targets::Labels(&labels(8)), 0.01, None);
    assert!(!stats.is_finite());
    // Running statistics have seen the batch; weights and moments have not.
    let tensors = trainer.network().save();
    assert!(tensors.iter().filter(|t| !t.name.contains("running")).all(|t| t.values.iter().all(|x| x.is_finite())));
    assert_eq!(trainer.step(), 1);
    drop(before);
}

#[test]
fn a_small_network_learns_its_samples_and_tells_how() {
    let engine = Engine::new(2);
    let plan = NetworkPlan::new(
        &network_of("input | conv filters=8 | relu | pool | fc units=16 | relu | fc"),
        SampleShape::Image(SHAPE),
        3,
    )
    .unwrap();
    let mut trainer = Trainer::new(&engine, &plan, 12, training(Sgd { momentum: 0.9, is_nesterov: true }));
    let (images, labels) = (images(12, SampleShape::Image(SHAPE)), labels(12));
    let first = trainer.evaluate(&images, &labels, None).loss();
    let mut statistics = Vec::new();
    for _ in 0..60 {
        trainer.train_step(&images, Targets::Labels(&labels), 0.02, Some(&mut statistics));
    }
    let last = trainer.evaluate(&images, &labels, None);
    assert!(last.n_correct == 12 && last.loss() < 0.1 * first, "{first} to {last:?}");
    let words: Vec<_> = statistics.iter().map(|entry| entry.word).collect();
    assert_eq!(words, ["conv", "fc", "fc"]);
    for entry in &statistics {
        let (weights, update) = (entry.weight_norm.unwrap(), entry.update_norm.unwrap());
        assert!(update > 0.0 && update < weights, "{entry:?}");
        assert!(entry.grad_norm.unwrap() > 0.0);
        assert_eq!(entry.dead_fraction.is_some(), entry.layer != 6);
    }
}
