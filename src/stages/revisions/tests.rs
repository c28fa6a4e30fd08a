//! Every room computed on a tiny input, beside the table; and every kind of stage, with the rooms it says it has.

#[cfg(test)]
mod after;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::{ROOMS, Room, of, revision_of};
use crate::artifact::ensemble::validation_name;
use crate::artifact::model::Description;
use crate::artifact::predictions::{Predictions, TEST, VALIDATION};
use crate::artifact::splits::Splits;
use crate::artifact::{Files, Sink};
use crate::config::{Log, Section, Span, Table};
use crate::data::augment::{self, Augmentation, Augmenter};
use crate::data::decode::{Alpha, Channels, DecodePolicy, DepthPolicy};
use crate::data::feed::{Feed, TrainingSamples};
use crate::data::fit_set::{Partition, Place, TrainingRow, first_rows};
use crate::data::metrics::{METRICS, Scored, averages, holm, intervals, mcnemar, mean_and_deviation, wilson_interval};
use crate::data::pixels::Depth;
use crate::data::pixels::{Raw, RawAlpha};
use crate::data::reader::FORMATS;
use crate::data::reader::testing::collect;
use crate::data::reduce::{self, Fitting, read_method};
use crate::data::resize::{Filter, Fit, Resize};
use crate::data::samples::{Samples, Values};
use crate::data::transform::{self, Affine, Fitted, Per, read_steps};
use crate::engine::{Engine, LossOptions, LossScratch, Targets, softmax, softmax_cross_entropy};
use crate::manifest::{Manifest, Overrides};
use crate::nn::init::Initializer;
use crate::nn::layer::{self, network_of};
use crate::nn::optimizer::{self, OptimizerConfig};
use crate::nn::plan::NetworkPlan;
use crate::nn::schedule::{self, Moment, Plateau, Schedule};
use crate::nn::seeds::Seeds;
use crate::nn::training::{AllSamples, Trainer, Training};
use crate::rng::Stream;
use crate::stages::ensemble::{Combine, stacking, weights};
use crate::stages::search::{PlacedRound, Placement};
use crate::stages::testing::{self, MemorySink, TestContext};
use crate::stages::{self, Delivered, Kind, Output, Part, Places, Stage, Upstream};
use crate::tensor::{ImageShape, SampleShape};

/// What a room made, to be digested.
#[derive(Default)]
struct Made(blake3::Hasher);

impl Made {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn f32s(&mut self, values: &[f32]) {
        self.bytes(&values.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect::<Vec<u8>>());
    }

    /// The sign and payload of a NaN are the hardware's business.
    fn f64s(&mut self, values: &[f64]) {
        let bits = |x: &f64| if x.is_nan() { f64::NAN } else { *x }.to_bits().to_le_bytes();
        self.bytes(&values.iter().flat_map(bits).collect::<Vec<u8>>());
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn files(&mut self, files: &Files) {
        for (name, bytes) in &files.0 {
            self.text(name);
            self.bytes(bytes);
        }
    }

    /// The table's digest of this under `revision`.
    fn golden(&self, revision: u32) -> String {
        let mut hasher = self.0.clone();
        hasher.update(&revision.to_le_bytes());
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

/// The table in `text`.
fn table(text: &str) -> Table {
    let parsed = crate::manifest::source::parse_document(text, 0);
    assert_eq!(parsed.problems, [], "{text}");
    parsed.table
}

/// What `read` reads from the keys `text`.
fn read<T>(text: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
    let (table, mut log) = (table(text), Log::default());
    let mut section = Section::new(Some(&table), Span::default(), "", &mut log);
    let value = read(&mut section);
    section.finish();
    assert_eq!(log.problems, [], "{text}");
    value
}

/// A stage of `kind` with the keys `text`.
fn stage(kind: &Kind, text: &str) -> Box<dyn Stage> {
    let (stage, log) = testing::read(kind.read, &table(text));
    assert_eq!(log.problems, [], "{text}");
    stage
}

fn delivered(stage: usize, part: Part, output: Output, files: Files) -> Delivered {
    Delivered { from: stage, part, stage_name: format!("s{stage}"), output, files }
}

fn run(stage: &dyn Stage, part: Part, inputs: Vec<Delivered>, places: &Places) -> Files {
    let context = TestContext { threads: 2, ..TestContext::default() };
    testing::run(stage, part, inputs, places, &context).unwrap_or_else(|error| panic!("{stage:?}: {error}"))
}

const N: usize = 24;
const SHAPE: ImageShape = ImageShape { height: 6, width: 5, channels: 2 };

fn pixels(n: usize) -> Vec<u8> {
    (0..n as u64).map(|i| Stream::new(1, "test pixels", &[]).below(i, 256) as u8).collect()
}

/// A data set of three classes, its three folds and its test split.
fn inputs() -> Vec<Delivered> {
    let labels: Vec<u32> = (0..N as u32).map(|i| i % 3).collect();
    let (files, dataset) = testing::dataset(SHAPE, &labels, &pixels(N * SHAPE.len()));
    let place = |i: u32| if i % 8 == 7 { Place::Test } else { Place::Fold(i / 3 % 3 + 1) };
    let mut sink = MemorySink::default();
    let partition = Partition::new((0..N as u32).map(place).collect(), 3).unwrap();
    Splits::new(partition, &dataset)
        .write(&dataset, &crate::artifact::dataset::Names::read(&files).unwrap(), &mut sink)
        .unwrap();
    vec![delivered(0, Part::Whole, Output::Dataset, files), delivered(1, Part::Whole, Output::Splits, sink.files())]
}

/// Stored pixels, or the same as features.
#[derive(Debug)]
enum Stored {
    Pixels(Vec<u8>),
    Floats(Vec<[u8; 4]>),
}

impl Samples for Stored {
    fn n_samples(&self) -> usize {
        N
    }
    fn shape(&self) -> SampleShape {
        SampleShape::Image(SHAPE)
    }
    fn values(&self, i: usize) -> Values<'_> {
        let range = i * SHAPE.len()..(i + 1) * SHAPE.len();
        match self {
            Stored::Pixels(values) => Values::U8(&values[range]),
            Stored::Floats(values) => Values::F32(&values[range]),
        }
    }
}

fn stored() -> [Arc<dyn Samples>; 2] {
    let pixels = pixels(N * SHAPE.len());
    let floats = pixels.iter().map(|&x| (f32::from(x) * 0.37 - 20.0).to_le_bytes()).collect();
    [Arc::new(Stored::Pixels(pixels)), Arc::new(Stored::Floats(floats))]
}

/// What comes out of a feed, and of the same chain applied in place.
fn fed(made: &mut Made, feed: &Feed) {
    let mut out = vec![0.0; N * SHAPE.len()];
    feed.load(&(0..N as u32).collect::<Vec<_>>(), &mut out);
    made.f32s(&out);
    feed.chain().apply_in_place(&mut out[..SHAPE.len()]);
    made.f32s(&out[..SHAPE.len()]);
}

fn transforms(made: &mut Made, steps: &str) {
    let steps = read(&format!("steps = [{steps}]"), read_steps);
    for samples in stored() {
        let feed = Feed::new(samples, Vec::new());
        for fitted in transform::fit(&steps, TrainingSamples::new(&feed, &first_rows(N - 3)), 2) {
            match fitted {
                Fitted::Affine(Affine { per, subtract, multiply, add }) => {
                    made.text(per.word());
                    [subtract, multiply, add].iter().for_each(|numbers| made.f64s(numbers));
                }
                Fitted::StandardizeImage => made.text("standardize-image"),
            }
        }
    }
}

fn reduction(made: &mut Made, method: &str) {
    let method = read(&format!("method = {method}"), read_method).unwrap();
    let engine = Engine::new(2);
    for samples in stored() {
        let feed = Feed::new(samples, Vec::new());
        let rows = first_rows(N - 3);
        let fitting = Fitting {
            samples: TrainingSamples::new(&feed, &rows),
            engine: &engine,
            stream: &Stream::new(3, method.name(), &[]),
            is_stopped: &|| false,
        };
        let projection = method.fit(&fitting).unwrap_or_else(|_| panic!("{method:?} does not fit"));
        made.f64s(&projection.mean);
        made.f32s(&projection.weights);
        if let Some(spectrum) = &projection.spectrum {
            made.f32s(&spectrum.components);
            made.f64s(&spectrum.explained_variance);
            made.f64s(&[spectrum.total_variance]);
        }
        let mut out = vec![0.0; N * projection.output.len()];
        projection.projector(&engine, &feed).project(&(0..N as u32).collect::<Vec<_>>(), &mut out);
        made.f32s(&out);
    }
}

fn augmentation(made: &mut Made, operation: &str) {
    const LARGE: ImageShape = ImageShape { height: 12, width: 10, channels: 3 };
    #[derive(Debug)]
    struct Large(Vec<u8>);
    impl Samples for Large {
        fn n_samples(&self) -> usize {
            self.0.len() / LARGE.len()
        }
        fn shape(&self) -> SampleShape {
            SampleShape::Image(LARGE)
        }
        fn values(&self, i: usize) -> Values<'_> {
            Values::U8(&self.0[i * LARGE.len()..(i + 1) * LARGE.len()])
        }
    }
    let rows = first_rows(6);
    let feed = Feed::new(Arc::new(Large(pixels(rows.len() * LARGE.len()))), Vec::new());
    let fills: &[&str] = match operation {
        "color-jitter" => &["", "hue = 0.4, brightness = 1.5"],
        "zoom" => &["", "scale = [0.1, 0.3], ratio = [0.2, 5]", "scale = [1, 1], ratio = [2, 3]"],
        "perspective" => &["probability = 1", "fill = \"edge\"", "distortion = 0.9, fill = \"reflect\""],
        "crop" | "shift" | "rotate" => &["fill = \"black\"", "fill = \"edge\"", "fill = \"reflect\""],
        "flip" => &["direction = \"horizontal\"", "direction = \"both\""],
        _ => &[""],
    };
    for keys in fills {
        let augmentation = read(&format!("augment = [{{ {operation} = {{ {keys} }} }}]"), Augmentation::read);
        let mut augmenter = Augmenter::new(&augmentation, SampleShape::Image(LARGE));
        augmenter.begin(|i| Stream::new(1, "augment", &[("operation", i)]));
        let label = |row: TrainingRow| row.index() as u32 % 3;
        for &row in rows.iter() {
            for turn in 0..2 {
                let (mut image, mut target) = (vec![0.0; LARGE.len()], [0.0; 3]);
                augmenter.load(&feed, row, turn, &mut image);
                augmenter.mix(&feed, (row, turn), &rows, label, &mut image, &mut target);
                made.f32s(&image);
                made.f32s(&target);
            }
        }
    }
}

const N_CLASSES: usize = 3;

fn trainer(layers: &str, shape: ImageShape, optimizer: Arc<dyn OptimizerConfig>) -> (Trainer, Vec<f32>, Vec<u32>) {
    let plan = NetworkPlan::new(&network_of(layers), SampleShape::Image(shape), N_CLASSES).unwrap();
    let training = Training {
        seeds: Seeds { seed: 7, indices: vec![("fit set", 1)] },
        optimizer,
        l2: 1e-3,
        ..Training::default()
    };
    let mut images = vec![0.0; 6 * shape.len()];
    Stream::new(3, "test images", &[]).fill_normal32(0, &mut images);
    let labels = (0..6).map(|i| i * 2 % N_CLASSES as u32).collect();
    (Trainer::new(&Engine::new(2), &plan, 6, training), images, labels)
}

/// What a layer makes of images on the way up and down: gradients, running statistics, predictions.
fn layers(made: &mut Made, layers: &str, shape: ImageShape) {
    let (mut trainer, images, labels) = trainer(layers, shape, Arc::new(optimizer::Adam::default()));
    for n in [6, 4] {
        trainer.accumulate_gradients(&images[..n * shape.len()], Targets::Labels(&labels[..n]));
        trainer.gradient().for_each(|(_, values)| made.f32s(values));
        trainer.network().save().iter().for_each(|tensor| made.f32s(&tensor.values));
    }
    let mut probabilities = vec![0.0; 6 * N_CLASSES];
    let mut network = trainer.into_network();
    network.predict(&images, &mut probabilities);
    made.f32s(&probabilities);
    if let Some(values) = network.output_of(1, 6) {
        made.f32s(values);
    }
}

fn steps(made: &mut Made, word: &str) {
    struct All<'a>(&'a [f32], &'a [u32]);
    impl AllSamples for All<'_> {
        fn for_each(&mut self, f: &mut dyn FnMut(&[f32], Targets<'_>)) -> bool {
            f(self.0, Targets::Labels(self.1));
            true
        }
    }
    let optimizer = read(&format!("optimizer = \"{word}\""), optimizer::read);
    let is_full_batch = optimizer.full_batch().is_some();
    let (mut trainer, images, labels) = trainer("input | fc units=4 | fc", SHAPE, optimizer);
    for step in 0..5 {
        if is_full_batch {
            let (stats, length) = trainer.full_batch_step(&mut All(&images, &labels), None).unwrap();
            made.f64s(&[stats.loss(), length]);
        } else {
            let rate = 0.01 / f64::from(step + 1);
            trainer.train_step(&images, Targets::Labels(&labels), rate, None);
        }
        trainer.save_state().1.iter().for_each(|tensor| made.f32s(&tensor.values));
    }
}

fn factors(made: &mut Made, schedules: &[&str]) {
    for schedule in schedules {
        let schedule = read(&format!("schedule = {schedule}"), Schedule::read);
        let mut plateau = Plateau::default();
        for step in 0..24 {
            let moment = Moment { step, steps_per_epoch: 3, epochs: 8 };
            made.f64s(&[schedule.factor(moment, &plateau)]);
            if step % 3 == 2 {
                let loss = [1.0, 0.7, 0.71, 0.72, 0.7, 0.9, 0.3, 0.31][(step / 3) as usize];
                schedule.watch(loss, 1.0 - loss, &mut plateau);
            }
        }
        made.bytes(&schedule.ends_of_cycles(8).iter().flat_map(|end| end.to_le_bytes()).collect::<Vec<u8>>());
    }
}

/// Made-up probabilities of three classes, mostly right.
fn said(rows: &[u32], member: u64) -> Predictions {
    let stream = Stream::new(5, "test predictions", &[("member", member)]);
    let probabilities = rows.iter().flat_map(|&row| {
        let score =
            |class: u32| 0.05 + stream.uniform(u64::from(row * 3 + class)) + if class == row % 3 { 0.4 } else { 0.0 };
        let scores = [0, 1, 2].map(score);
        let sum = scores[0] + scores[1] + scores[2];
        scores.map(|score| (score / sum) as f32)
    });
    Predictions::new(rows.to_vec(), 3, probabilities.collect())
}

/// Folds 1 to 3 of a model, with their predictions.
fn model(stage: usize) -> Vec<Delivered> {
    let splits = Splits::read(&inputs()[1].files).unwrap();
    let fold = |fold: u32| {
        let mut sink = MemorySink::default();
        let member = (stage * 10) as u64 + u64::from(fold);
        let rows = |place| (0..N as u32).filter(|&i| splits.places()[i as usize] == place).collect::<Vec<u32>>();
        said(&rows(Place::Fold(fold)), member).write(&mut sink, VALIDATION).unwrap();
        said(&rows(Place::Test), member).write(&mut sink, TEST).unwrap();
        let description = Description {
            format: crate::artifact::model::FORMAT,
            architecture: "INPUT - FC".to_owned(),
            input: vec![6, 5, 2],
            n_classes: 3,
            n_parameters: 183,
            epochs: 2,
            best_epoch: 1,
            is_selected: false,
            n_training: 14,
            snapshots: Vec::new(),
        };
        sink.put("model.json", &serde_json::to_vec(&description).unwrap()).unwrap();
        delivered(stage, Part::Fold(fold), Output::Model, sink.files())
    };
    (1..=3).map(fold).collect()
}

fn combined(made: &mut Made, rule: &Combine) {
    let rows: Vec<u32> = (0..N as u32).collect();
    made.f32s(
        rule.apply(&[said(&rows, 1), said(&rows, 2), said(&rows, 3)]).unwrap().probabilities().as_slice().unwrap(),
    );
}

fn labels(n: u32) -> Vec<u32> {
    (0..n).map(|i| i % 3).collect()
}

fn readers(made: &mut Made) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let image =
        |name: &str| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images").join(name)).unwrap();
    for (place, name) in [("pets/cat/1.png", "rgb.png"), ("pets/cat/2.bmp", "rgb.bmp"), ("pets/dog/1.png", "rgba.png")]
    {
        fs::create_dir_all(at(place).parent().unwrap()).unwrap();
        fs::write(at(place), image(name)).unwrap();
    }
    let array = |shape: &[u32], values: &[u8]| {
        let mut bytes = vec![0, 0, 8, shape.len() as u8];
        shape.iter().for_each(|n| bytes.extend(n.to_be_bytes()));
        bytes.extend(values);
        bytes
    };
    fs::create_dir(at("idx")).unwrap();
    fs::write(at("idx/train-images-idx3-ubyte"), array(&[4, 2, 3], &pixels(24))).unwrap();
    fs::write(at("idx/train-labels-idx1-ubyte"), array(&[4], &[0, 1, 1, 0])).unwrap();
    let npy = |shape: &str, values: &[u8]| {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
        [b"\x93NUMPY\x01\x00\x76\x00".to_vec(), format!("{header:<117}\n").into_bytes(), values.to_vec()].concat()
    };
    fs::write(at("x.npy"), npy("(4, 2, 3)", &pixels(24))).unwrap();
    fs::write(at("y.npy"), npy("(4,)", &[1, 0, 1, 0])).unwrap();
    fs::write(at("pixels.csv"), "label,a,b,c,d\n0,1,2,3,4\n1,5,6,7,255\n0,9,8,7,6\n").unwrap();
    fs::write(at("paths.csv"), "path,label,group\npets/cat/1.png,x,g\npets/dog/1.png,y,h\n").unwrap();
    fs::create_dir(at("cifar")).unwrap();
    for (name, label) in [("data_batch_1.bin", 3), ("test_batch.bin", 9)] {
        fs::write(at("cifar").join(name), [vec![label], pixels(3072)].concat()).unwrap();
    }
    let mut arrays = zip::ZipWriter::new(fs::File::create(at("arrays.npz")).unwrap());
    for (name, bytes) in [
        ("x_train.npy", npy("(2, 2, 3)", &pixels(12))),
        ("y_train.npy", npy("(2,)", &[5, 6])),
        ("x_test.npy", npy("(1, 2, 3)", &pixels(6))),
        ("y_test.npy", npy("(1,)", &[6])),
    ] {
        arrays.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        arrays.write_all(&bytes).unwrap();
    }
    arrays.finish().unwrap();
    let mut archive = tar::Builder::new(fs::File::create(at("pets.tar")).unwrap());
    for (path, name) in [("set/train/cat/1.png", "rgb.png"), ("set/test/dog/2.bmp", "rgb.bmp")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(image(name).len() as u64);
        archive.append_data(&mut header, path, &image(name)[..]).unwrap();
    }
    archive.finish().unwrap();
    let sources = [
        ("pets", None),
        ("idx", None),
        ("x.npy", Some("y.npy")),
        ("pixels.csv", None),
        ("paths.csv", None),
        ("cifar", None),
        ("arrays.npz", None),
        ("pets.tar", None),
    ];
    assert_eq!(sources.len(), FORMATS.len(), "a source of each format");
    for (source, labels) in sources {
        let labels = labels.map(at);
        let (classes, loaded) = collect(&at(source), labels.as_deref());
        classes.iter().for_each(|class| made.text(class));
        for loaded in loaded {
            let (image, digest) = loaded.image.unwrap();
            made.text(&format!(
                "{} {} {:?} {:?} {}",
                loaded.path, loaded.label, loaded.given, loaded.group, image.shape
            ));
            made.bytes(&image.pixels);
            made.bytes(&digest.to_le_bytes());
        }
    }
}

fn decoded(made: &mut Made) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for (channels, alpha, depth) in [
        (Channels::Keep, Alpha::Drop, DepthPolicy::Keep),
        (Channels::Gray, Alpha::White, DepthPolicy::To8),
        (Channels::Rgb, Alpha::Black, DepthPolicy::To16),
    ] {
        let policy = DecodePolicy { channels, alpha, depth, ..DecodePolicy::default() };
        for path in &files {
            match policy.decode(&fs::read(path).unwrap()) {
                Ok(image) => {
                    made.text(&format!("{} {}", image.shape, image.depth.bits()));
                    made.bytes(&image.pixels);
                }
                Err(refused) => made.text(&format!("{refused:?}")),
            }
        }
        let shape = ImageShape { height: 2, width: 3, channels: 4 };
        let raw = Raw { shape, depth: Depth::U16, pixels: pixels(48), format: "png", alpha: RawAlpha::Straight };
        made.bytes(&policy.apply(raw).unwrap().pixels);
    }
}

fn resized(made: &mut Made) {
    let from = ImageShape { height: 9, width: 14, channels: 3 };
    for filter in [Filter::Box, Filter::Triangle, Filter::CatmullRom] {
        for fit in [Fit::Stretch, Fit::Cover, Fit::Contain] {
            for (width, height) in [(5, 6), (20, 11)] {
                for depth in [Depth::U8, Depth::U16] {
                    let resize = Resize { width, height, fit, filter };
                    made.bytes(&resize.apply(from, depth, pixels(from.len() * depth.bytes())));
                }
            }
        }
    }
}

fn losses(made: &mut Made) {
    let engine = Engine::new(2);
    let mut logits = vec![0.0; 7 * 5];
    Stream::new(9, "test logits", &[]).fill_normal32(0, &mut logits);
    let labels: Vec<u32> = (0..7).map(|i| i % 5).collect();
    let soft: Vec<f32> = (0..35).map(|i| if i % 5 == i / 5 % 5 { 0.6 } else { 0.1 }).collect();
    let weights = [0.5, 1.0, 2.0, 0.25, 1.5];
    for targets in [Targets::Labels(&labels), Targets::Probabilities(&soft)] {
        for options in [LossOptions::default(), LossOptions { label_smoothing: 0.1, class_weights: Some(&weights) }] {
            let mut grad = vec![0.0; logits.len()];
            let mut scratch = LossScratch::default();
            let loss = softmax_cross_entropy(&engine, 5, &logits, targets, options, Some(&mut grad), &mut scratch);
            made.f64s(&[loss.loss_sum, loss.weight_sum, loss.n_correct as f64]);
            made.f32s(&grad);
        }
    }
    softmax(&engine, 5, &mut logits);
    made.f32s(&logits);
}

fn starts(made: &mut Made) {
    for initializer in [
        Initializer::HeNormal,
        Initializer::HeUniform,
        Initializer::GlorotNormal,
        Initializer::GlorotUniform,
        Initializer::Constant(0.3),
    ] {
        let mut values = [0.0; 300];
        initializer.fill(0.5, 50, 70, &Stream::new(1, "init", &[]), &mut values);
        made.f32s(&values);
    }
    let (trainer, ..) = trainer("input | fc units=4 | relu | fc", SHAPE, Arc::new(optimizer::Adam::default()));
    trainer.network().save().iter().for_each(|tensor| {
        made.text(&tensor.name);
        made.f32s(&tensor.values);
    });
}

fn metrics(made: &mut Made) {
    let rows: Vec<u32> = (0..60).collect();
    let (labels, said) = (labels(60), said(&rows, 4));
    let scored = Scored::new(&labels, said.probabilities(), 2);
    let confusion = scored.confusion();
    METRICS.iter().for_each(|metric| made.f64s(&[(metric.compute)(&scored, &confusion)]));
    let scores = averages().map(|average| confusion.average(average)).into_iter();
    for scores in scores.chain((0..3).map(|class| confusion.class(class))) {
        made.f64s(&[scores.precision, scores.recall, scores.f1]);
    }
}

fn chances(made: &mut Made) {
    for (hits, n) in [(0, 7), (3, 7), (95, 100), (100, 100)] {
        let (low, high) = wilson_interval(hits, n).unwrap();
        made.f64s(&[low, high]);
    }
    let (mean, deviation) = mean_and_deviation(&[0.91, 0.87, 0.93]);
    made.f64s(&[mean, deviation]);
    for n in [20, 200] {
        let test = mcnemar((0..n).map(|i| (i % 3 != 0, i % 4 != 0)));
        made.f64s(&[test.statistic, test.p_value]);
    }
    made.f64s(&holm(&[0.01, 0.2, 0.03]));
}

const SEARCH: &str = "tune = \"train\"\nkeep = 1\nspace.stages.train.learning_rate = { log-uniform = [1e-4, 1e-1] }\n\
    space.stages.train.l2 = { uniform = [0, 1] }\nspace.stages.train.epochs = { integer = [1, 9] }\n\
    space.stages.train.batch_size = { choice = [16, 32] }\nrounds = [{ trials = 3, keep = 2 }, { trials = 2 }]";

/// What was drawn for the first round, and for the second if `ranked` is the first.
fn drawn(made: &mut Made, ranked: bool) {
    let stage = stage(&stages::search::KIND, SEARCH);
    let search = stage.search().unwrap();
    let trials = search.trials(11, &[]);
    let ranges = search.ranges(&[]);
    if !ranked {
        for trial in &trials {
            made.text(&trial.id());
            let settings = search.space().iter().zip(&trial.settings);
            settings.for_each(|(dimension, &setting)| made.text(&dimension.text(setting)));
        }
        return ranges.iter().for_each(|range| made.text(&range.toml()));
    }
    let placed = trials.into_iter().enumerate().map(|(i, trial)| (trial, Some(5 + i))).collect();
    let rounds = vec![PlacedRound { ranges, trials: placed, epochs: 2 }];
    let placed = search.placed(Placement { tuned: "train".to_owned(), rounds, winners: Vec::new() });
    let dataset = || inputs().swap_remove(0);
    let inputs = (5..8).flat_map(|stage| std::iter::once(dataset()).chain(model(stage))).collect();
    made.files(&run(&placed, Part::Round(1), inputs, &Places::default()));
    made.files(&run(&placed, Part::Fold(1), model(5).into_iter().take(1).collect(), &Places::default()));
}

fn augment_words() -> Vec<&'static str> {
    augment::CHOICES.iter().map(|choice| choice.word).collect()
}

fn layer_words() -> Vec<&'static str> {
    layer::KINDS.iter().map(|kind| kind.word).collect()
}

fn optimizer_words() -> Vec<&'static str> {
    optimizer::KINDS.iter().map(|kind| kind.word).collect()
}

fn schedule_words() -> Vec<&'static str> {
    schedule::CHOICES.iter().map(|choice| choice.word).collect()
}

/// What the room called `name` makes of a tiny input.
fn made(name: &str) -> Made {
    let made = &mut Made::default();
    let places = Places::default();
    match name {
        "affine" => {
            for samples in stored() {
                let affine = |per: Per, scale: f64| {
                    let numbers = |k: f64| (0..per.count(samples.shape())).map(|i| k * (i as f64 + 1.3)).collect();
                    Fitted::Affine(Affine { per, subtract: numbers(scale), multiply: numbers(0.1), add: numbers(0.7) })
                };
                for steps in [vec![affine(Per::Pixel, 1.0)], vec![affine(Per::Channel, 3.0), affine(Per::Global, 0.5)]]
                {
                    fed(made, &Feed::new(Arc::clone(&samples), steps));
                }
            }
        }
        "standardize-image" => {
            stored().into_iter().for_each(|samples| fed(made, &Feed::new(samples, vec![Fitted::StandardizeImage])));
        }
        "center" => {
            transforms(made, "\"center\", { center = { per = \"pixel\" } }, { center = { per = \"global\" } }");
            transforms(made, "\"standardize-image\", \"center\"");
        }
        "scale" => transforms(
            made,
            "{ scale = { per = \"pixel\" } }, \"scale\", { scale = { to = [-1, 1] } }, \"standardize-image\", \"scale\"",
        ),
        "divide" => transforms(made, "{ divide = 255 }, { divide = 7.5 }"),
        "pca" => {
            reduction(made, "\"pca\"");
            reduction(made, "{ pca = { components = 3, solver = \"randomized\", whiten = true } }");
            reduction(made, "{ pca = { components = 3, solver = \"full\", whiten = true } }");
        }
        "zca" => reduction(made, "{ pca = { zca = true } }"),
        "gaussian-projection" => reduction(made, "{ gaussian-projection = { components = 4 } }"),
        "sparse-projection" => reduction(made, "{ sparse-projection = { components = 4, density = 0.4 } }"),
        name if augment_words().contains(&name) => augmentation(made, name),
        "input" => layers(made, "input | fc", SHAPE),
        // Eight rows of sixteen channels: enough for the transform to pay.
        "winograd" => {
            let shape = ImageShape { height: 8, width: 8, channels: 16 };
            layers(made, "input | conv filters=24 convolution=winograd | fc", shape);
        }
        "conv" => {
            layers(made, "input | conv filters=5 convolution=direct | fc", SHAPE);
            layers(made, "input | conv filters=4 kernel_size=[2,3] stride=2 groups=2 | fc", SHAPE);
        }
        name if layer_words().contains(&name) => {
            let kind = layer::KINDS.iter().find(|kind| kind.word == name).unwrap();
            layers(made, &format!("input | {name} {} | fc", kind.example), SHAPE);
        }
        name if optimizer_words().contains(&name) => steps(made, name),
        "constant" => factors(made, &["\"constant\""]),
        "step" => factors(made, &["{ step = { factor = 0.3, every = 2 } }"]),
        "exponential" => factors(made, &["{ exponential = { factor = 0.9 } }"]),
        "cosine" => factors(made, &["{ cosine = { warm_up = 1.5, floor = 0.1 } }", "{ cosine = { cycles = 3 } }"]),
        "plateau" => factors(
            made,
            &[
                "{ plateau = { patience = 1, factor = 0.4 } }",
                "{ plateau = { patience = 0, metric = \"accuracy\", floor = 0.2 } }",
            ],
        ),
        "init" => starts(made),
        "softmax" => losses(made),
        "decode" => decoded(made),
        "resize" => resized(made),
        "readers" => readers(made),
        "metrics" => metrics(made),
        "intervals" => chances(made),
        "bootstrap" => {
            let rows: Vec<u32> = (0..60).collect();
            let (labels, said) = (labels(60), said(&rows, 4));
            let scored = Scored::new(&labels, said.probabilities(), 2);
            for interval in intervals(&scored, 3, 40, |_, confusion| vec![confusion.accuracy(), f64::NAN]) {
                made.f64s(&interval.map_or([f64::NAN; 2], |(low, high)| [low, high]));
            }
        }
        "draw" => drawn(made, false),
        "search" => drawn(made, true),
        "mean-probability" => combined(made, &Combine::MeanProbability),
        "vote" => combined(made, &Combine::Vote),
        "weighted" => {
            let truths: Vec<f64> = (0..90).map(|i| Stream::new(2, "test truths", &[]).uniform(i)).collect();
            let weights = weights::fit(3, &truths);
            made.f64s(&weights);
            combined(made, &Combine::Weighted(weights));
        }
        "stacking" => {
            let probabilities: Vec<f64> =
                (0..40 * 9).map(|i| Stream::new(2, "test probabilities", &[]).uniform(i)).collect();
            let labels = labels(40);
            let said = stacking::Said { probabilities: &probabilities, labels: &labels, n_members: 3, n_classes: 3 };
            let (stacking, _) = stacking::fit(said, 0.01);
            made.f64s(&stacking.coefficients);
            made.f64s(&stacking.intercepts);
            combined(made, &Combine::Stacking(stacking));
        }
        "ingest" => {
            let stage = stage(&stages::ingest::KIND, "source = \"builtin:digits\"\nlimit = 100");
            made.files(&run(&*stage, Part::Whole, Vec::new(), &places));
        }
        "split" => {
            for keys in ["", "stratify = false\nfolds = 3\ntest = 0.3", "folds = 1\nshuffle = false"] {
                let stage = stage(&stages::split::KIND, keys);
                made.files(&run(&*stage, Part::Whole, inputs().into_iter().take(1).collect(), &places));
            }
        }
        "preprocess" => {
            let stage = stage(&stages::preprocess::KIND, "steps = [{ divide = 255 }]");
            made.files(&run(&*stage, Part::Fold(1), inputs(), &places));
        }
        "reduce" => {
            let stage = stage(&stages::reduce::KIND, "method = { sparse-projection = { components = 4 } }");
            made.files(&run(&*stage, Part::Fold(1), inputs(), &places));
        }
        "train" => {
            for keys in [
                "optimizer = { sgd = { momentum = 0.9 } }\nl2 = 1e-3\nclip = 0.5\nlabel_smoothing = 0.1\noversample = true",
                "optimizer = \"sgd\"\nclass_weights = \"balanced\"\nearly_stopping = { patience = 1 }\ndecay_on = \"all\"\nl2 = 1e-2",
                "optimizer = \"sgd\"\nsnapshots = 2\ndata_fraction = 0.7\nweight_decay = 0.1",
            ] {
                let keys =
                    format!("architecture = \"INPUT - FC\"\nepochs = 3\nbatch_size = 4\nlearning_rate = 1e-4\n{keys}");
                let stage = stage(&stages::train::KIND, &keys);
                made.files(&run(&*stage, Part::Fold(1), inputs(), &places));
            }
        }
        "sanity" => {
            let stage = stage(&stages::train::KIND, "architecture = \"INPUT - FC\"");
            made.files(&run(&*stage, Part::Sanity, inputs(), &places));
        }
        "ensemble" => {
            let stage = stage(&stages::ensemble::KIND, "combine = \"mean-probability\"");
            let files = run(&*stage, Part::Whole, [model(2), model(3)].concat(), &places);
            assert!(files.0.contains_key(&validation_name(3, false)));
            made.files(&files);
        }
        "evaluate" => {
            let stage = stage(&stages::evaluate::KIND, "");
            made.files(&run(&*stage, Part::Whole, [inputs(), model(2), model(3)].concat(), &places));
        }
        "pictures" => {
            let stage = stage(&stages::evaluate::KIND, "");
            made.files(&run(&*stage, Part::Pictures, [inputs(), model(2)].concat(), &places));
            let stage = self::stage(&stages::train::KIND, "architecture = \"INPUT - FC\"\naugment = [\"flip\"]");
            made.files(&run(&*stage, Part::Pictures, inputs(), &places));
        }
        "suspects" => {
            let stage = stage(&stages::evaluate::KIND, "");
            made.files(&run(&*stage, Part::Suspects, [inputs(), model(2)].concat(), &places));
        }
        "temperature" | "abstain" | "trust" | "views" => after::made(made, name),
        name => panic!("room `{name}` is in the table, but not among what is computed here"),
    }
    std::mem::take(made)
}

/// The table as it should be, and what to do where it is another; nothing where it is right.
fn complaints(rooms: &[Room], made: impl Fn(&str) -> Made) -> Option<String> {
    let (mut changed, mut table) = (Vec::new(), Vec::new());
    for &Room { name, revision, golden } in rooms {
        let Ok(made) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| made(name))) else {
            changed.push(format!("`{name}` cannot be computed any more: see above"));
            table.push(format!("    room(\"{name}\", {revision}, \"{golden}\"),"));
            continue;
        };
        let mut right = (revision, made.golden(revision));
        if right.1 != golden {
            // A room without a digest is new.
            right = if golden.is_empty() { right } else { (revision + 1, made.golden(revision + 1)) };
            changed.push(match golden {
                "" => format!("`{name}` is new: put the golden \"{}\"", right.1),
                _ => format!(
                    "bytes of `{name}` changed: bump its revision to {} and put the new golden \"{}\"",
                    right.0, right.1
                ),
            });
        }
        table.push(format!("    room(\"{name}\", {}, \"{}\"),", right.0, right.1));
    }
    (!changed.is_empty())
        .then(|| format!("{}\n\nthe whole table, for `stages/revisions.rs`:\n{}", changed.join("\n"), table.join("\n")))
}

#[test]
fn revisions_and_goldens_of_all_rooms_are_those_of_the_table() {
    if let Some(complaints) = complaints(ROOMS, made) {
        panic!("{complaints}");
    }
}

#[test]
fn a_changed_byte_needs_a_new_revision_and_a_new_golden() {
    let of = |text: &'static str| {
        move |_: &str| {
            let mut made = Made::default();
            made.text(text);
            made
        }
    };
    let golden = |text, revision| &*of(text)("x").golden(revision).leak();
    let room = |revision, golden| [Room { name: "x", revision, golden }];
    assert_eq!(complaints(&room(4, golden("old", 4)), of("old")), None);
    let told = complaints(&room(4, golden("old", 4)), of("new")).unwrap();
    let remedy =
        format!("bytes of `x` changed: bump its revision to 5 and put the new golden \"{}\"", golden("new", 5));
    assert!(
        told.starts_with(&remedy) && told.ends_with(&format!("room(\"x\", 5, \"{}\"),", golden("new", 5))),
        "{told}"
    );
    assert!(complaints(&room(4, golden("new", 5)), of("new")).is_some(), "the golden alone");
    assert!(complaints(&room(5, golden("old", 4)), of("new")).is_some(), "the revision alone");
    assert_eq!(complaints(&room(5, golden("new", 5)), of("new")), None);
}

#[test]
fn winograds_room_is_computed_by_winograds_algorithm() {
    let shape = ImageShape { height: 8, width: 8, channels: 16 };
    let [winograd, direct] = ["winograd", "direct"].map(|algorithm| {
        let mut made = Made::default();
        layers(&mut made, &format!("input | conv filters=24 convolution={algorithm} | fc"), shape);
        made.golden(1)
    });
    assert_ne!(winograd, direct);
}

#[test]
fn the_table_is_sorted_and_every_kind_has_a_room() {
    assert!(ROOMS.is_sorted_by(|a, b| a.name < b.name));
    assert!(ROOMS.iter().all(|room| room.revision > 0));
    let kinds = stages::KINDS.iter().map(|kind| kind.name);
    let kinds = kinds.chain(transform::KINDS.iter().map(|kind| kind.name));
    let kinds = kinds.chain(reduce::KINDS.iter().map(|kind| kind.name));
    let words = [layer_words(), optimizer_words(), schedule_words(), augment_words()].concat();
    let combined = ["mean-probability", "vote", "weighted", "stacking"];
    for name in kinds.chain(words).chain(combined) {
        assert!(revision_of(name).is_some(), "`{name}` has no room in the table of revisions");
    }
    assert_eq!((revision_of("bn-2"), FORMATS.is_empty()), (None, false));
    assert_eq!(of(&["relu", "pca", "relu"]), ["pca", "relu"].map(|room| (room.to_owned(), revision_of(room).unwrap())));
}

/// A manifest of these stages below a split.
fn manifest(stages: &str) -> Manifest {
    let text =
        format!("schema = 1\nname = \"m\"\n[stages.ingest]\nsource = \"builtin:digits\"\n[stages.split]\n{stages}");
    load(&text)
}

fn load(text: &str) -> Manifest {
    let loaded = Manifest::from_bytes(Path::new("m.toml"), text.as_bytes(), &Overrides::default(), stages::KINDS);
    loaded.unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

/// Stage, part and rooms of all tasks that are always planned, and of the fit set `all` where a stage has folds.
fn rooms(manifest: &Manifest) -> Vec<(String, Part, BTreeSet<&'static str>)> {
    let mut rooms = Vec::new();
    for (own, node) in manifest.nodes.iter().enumerate() {
        let upstream = Upstream { own, nodes: &manifest.nodes };
        let all = (node.flow.output == Output::Fitted).then_some(Part::All);
        for part in node.stage.parts(&node.flow).into_iter().chain(all) {
            // Asked for first, as the planner does.
            let needs = node.stage.needs(part, &upstream);
            assert!(needs.iter().all(|need| need.stage <= own && (need.stage, need.part) != (own, part)), "{needs:?}");
            for need in &needs {
                let above = &manifest.nodes[need.stage];
                let parts = above.stage.parts(&above.flow);
                let is_fitted = above.flow.output == Output::Fitted && need.part == Part::All;
                assert!(parts.contains(&need.part) || is_fitted, "{} {part} needs {need:?}", node.name);
            }
            let distinct: HashSet<(usize, Part)> = needs.iter().map(|need| (need.stage, need.part)).collect();
            assert_eq!(distinct.len(), needs.len(), "{} {part} needs something twice", node.name);
            let named = node.stage.rooms(part, &upstream);
            assert!(!named.is_empty(), "{} {part} computes with nothing", node.name);
            named.iter().for_each(|name| assert!(revision_of(name).is_some(), "`{name}` of {}", node.name));
            assert_eq!(node.stage.revisions(part, &upstream), of(&named));
            rooms.push((node.name.clone(), part, named.into_iter().collect()));
        }
    }
    rooms
}

#[track_caller]
fn check_rooms(stages: &str, stage: &str, part: Part, expected: &[&str]) {
    let found = rooms(&manifest(stages));
    let (.., found) = found.iter().find(|(name, of, _)| name == stage && *of == part).expect("a task");
    assert_eq!(found.iter().copied().collect::<Vec<_>>(), expected, "{stages}");
}

#[test]
fn every_kind_of_stage_needs_what_is_there_and_names_its_own_room() {
    for kind in stages::KINDS {
        let rooms = rooms(&load(kind.example));
        assert!(rooms.iter().any(|(stage, ..)| stage == kind.name), "no task of `{}`", kind.name);
        for (stage, part, rooms) in rooms {
            // Stages without a name are called as their kind. The checks of a training are another piece of work.
            let own = match part {
                Part::Sanity => "sanity",
                Part::Pictures => "pictures",
                Part::Predict(_) => "views",
                Part::Calibration => "temperature",
                Part::Suspects => "suspects",
                _ => &stage,
            };
            assert!(rooms.contains(own), "{stage}, {part}: not its own room, but {rooms:?}");
        }
    }
}

#[test]
fn a_task_names_exactly_the_rooms_that_it_computes_with() {
    let fold = Part::Fold(1);
    let plain = "[stages.train]\narchitecture = \"INPUT - FC\"\n";
    check_rooms(plain, "ingest", Part::Whole, &["decode", "ingest", "readers"]);
    check_rooms(plain, "split", Part::Whole, &["split"]);
    check_rooms(plain, "train", fold, &["adam", "constant", "fc", "init", "input", "softmax", "train"]);
    check_rooms(plain, "train", Part::Sanity, &["adam", "fc", "init", "input", "sanity", "softmax"]);
    let deep = "[stages.train]\narchitecture = \"INPUT - CONV - BN - RELU - DROPOUT(0.2) - FC\"\n\
        optimizer = { lbfgs = {} }\nschedule = \"constant\"\n"
        .replace(" - DROPOUT(0.2)", "");
    let rooms = rooms(&manifest(&deep));
    let (.., found) = rooms.iter().find(|(name, part, _)| name == "train" && *part == fold).unwrap();
    assert!(["bn", "conv", "lbfgs", "relu"].iter().all(|room| found.contains(room)), "{found:?}");
    assert!(!["adam", "dropout", "sgd", "pool", "affine"].iter().any(|room| found.contains(room)), "{found:?}");
    // What is fitted above is applied below, until a `reduce` has put everything into its features.
    let above = "[stages.preprocess]\nsteps = [\"center\", \"standardize-image\"]\n";
    check_rooms(
        &format!("{above}{plain}"),
        "train",
        fold,
        &["adam", "affine", "constant", "fc", "init", "input", "softmax", "standardize-image", "train"],
    );
    check_rooms(above, "preprocess", fold, &["affine", "center", "preprocess", "standardize-image"]);
    let reduced = format!("{above}[stages.reduce]\nmethod = {{ pca = {{ zca = true }} }}\n{plain}");
    check_rooms(&reduced, "reduce", fold, &["affine", "pca", "reduce", "standardize-image", "zca"]);
    check_rooms(&reduced, "train", fold, &["adam", "constant", "fc", "init", "input", "softmax", "train"]);
    let after = format!("{plain}predict = [\"flip\"]\ncalibrate = \"temperature\"\nfinal = \"refit\"\n");
    check_rooms(&after, "train", fold, &["adam", "constant", "fc", "init", "input", "softmax", "train"]);
    let predicting = ["fc", "input", "mean-probability", "softmax", "views"];
    check_rooms(&after, "train", Part::Predict(2), &predicting);
    check_rooms(&after, "train", Part::Predict(0), &predicting);
    check_rooms(&after, "train", Part::Calibration, &["temperature"]);
    let scored = format!("{after}[stages.evaluate]\n");
    let judged = ["evaluate", "intervals", "mean-probability", "metrics", "temperature", "trust"];
    check_rooms(&scored, "evaluate", Part::Whole, &judged);
    check_rooms(&scored, "evaluate", Part::Pictures, &["mean-probability", "pictures", "temperature"]);
    let scored = format!("{plain}[stages.evaluate]\nbootstrap = 100\n");
    check_rooms(
        &scored,
        "evaluate",
        Part::Whole,
        &["bootstrap", "evaluate", "intervals", "mean-probability", "metrics"],
    );
}

#[test]
fn no_room_is_unused() {
    let mut used = BTreeSet::new();
    let mut add = |manifest: Manifest| rooms(&manifest).into_iter().for_each(|(.., rooms)| used.extend(rooms));
    stages::KINDS.iter().for_each(|kind| add(load(kind.example)));
    let train = |keys: &str| format!("[stages.train]\narchitecture = \"INPUT - FC\"\n{keys}\n");
    let net = layer::KINDS.iter().filter(|kind| !matches!(kind.word, "input" | "fc" | "flatten" | "gap"));
    let net: Vec<&str> = net.map(|kind| kind.shorthand).collect();
    for tail in ["FLATTEN", "GAP"] {
        let net = net.join(" - ").replace("CONV", "CONV(4)").replace("LOCAL", "LOCAL(4)");
        let net =
            net.replace("DROPOUT", "DROPOUT(0.5)").replace("NOISE", "NOISE(0.1)").replace("AVGPOOL", "AVGPOOL(2)");
        add(manifest(&format!(
            "[stages.train]\narchitecture = \"INPUT - {net} - {tail} - FC\"\nconvolution = \"winograd\"\n"
        )));
    }
    optimizer_words().iter().for_each(|word| add(manifest(&train(&format!("optimizer = \"{word}\"")))));
    schedule_words().iter().for_each(|word| add(manifest(&train(&format!("schedule = \"{word}\"")))));
    let operations: Vec<String> = augment_words().iter().map(|word| format!("\"{word}\"")).collect();
    add(manifest(&train(&format!("augment = [{}]", operations.join(", ")))));
    let steps: Vec<&str> = transform::KINDS.iter().map(|kind| kind.example).collect();
    add(manifest(&format!("[stages.preprocess]\nsteps = [{}]\n", steps.join(", "))));
    let methods = reduce::KINDS.iter().map(|kind| kind.example).chain(["{ pca = { zca = true } }"]);
    methods.for_each(|method| add(manifest(&format!("[stages.reduce]\nmethod = {method}\n"))));
    for combine in ["vote", "weighted", "stacking"] {
        let two = "[stages.a]\nkind = \"train\"\narchitecture = \"INPUT - FC\"\n[stages.b]\nkind = \"train\"\n\
            input = \"split\"\narchitecture = \"INPUT - FC\"\n";
        let ensemble = format!("[stages.ensemble]\nmembers = [\"a\", \"b\"]\ncombine = \"{combine}\"\n");
        add(manifest(&format!("{two}{ensemble}[stages.evaluate]\nbootstrap = 100\n")));
    }
    let after = train("predict = [\"flip\"]\ncalibrate = \"temperature\"\nabstain = { error = 0.1 }");
    add(manifest(&format!("{after}[stages.evaluate]\n")));
    for room in ROOMS {
        assert!(used.contains(room.name), "no task computes with room `{}`", room.name);
    }
}
