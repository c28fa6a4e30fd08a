//! What a training must keep: bytes over threads and kills, no look at held-out rows, errors that say where.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::artifact::Files;
use crate::artifact::dataset::Names;
use crate::artifact::model::Description;
use crate::artifact::predictions::{self, Predictions};
use crate::artifact::splits::Splits;
use crate::data::fit_set::{Partition, Place};
use crate::stages::Delivered;
use crate::stages::testing::{self, MemorySink, TestContext};
use crate::tensor::ImageShape;

pub(super) const SHAPE: ImageShape = ImageShape { height: 6, width: 5, channels: 2 };
const ARCHITECTURE: &str = "INPUT - CONV(4) - RELU - POOL - DROPOUT(0.2) - FC(8) - RELU - FC";

/// A train stage with these keys, read as a manifest has them.
pub(super) fn stage(keys: &str) -> Box<dyn Stage> {
    let text = format!(
        "schema = 1\nname = \"t\"\n[stages.ingest]\nsource = \"builtin:digits\"\n[stages.split]\nfolds = 3\n[stages.train]\n{keys}\n"
    );
    let table = crate::manifest::source::parse_document(&text, 0).table;
    let crate::config::Value::Table(stages) = &table.get("stages").unwrap().node.value else { panic!("no stages") };
    let crate::config::Value::Table(keys) = &stages.get("train").unwrap().node.value else { panic!("no train") };
    let (stage, log) = testing::read(KIND.read, keys);
    assert_eq!(log.problems, []);
    stage
}

pub(super) fn delivered(stage: usize, part: Part, output: Output, files: Files) -> Delivered {
    Delivered { from: stage, part, stage_name: format!("s{stage}"), output, files }
}

/// 60 images of two classes that differ in brightness; those that fold 2 does not train on hold `poison`, where given.
fn inputs(poison: Option<u8>) -> Vec<Delivered> {
    let labels: Vec<u32> = (0..60).map(|i| i % 2).collect();
    let places: Vec<Place> =
        (0..60).map(|i: u32| if i.is_multiple_of(7) { Place::Test } else { Place::Fold(i % 3 + 1) }).collect();
    let pixels: Vec<u8> = (0..60 * SHAPE.len())
        .map(|i| {
            let image = i / SHAPE.len();
            match (poison, places[image]) {
                (Some(poison), Place::Test | Place::Fold(2)) => poison,
                _ => (i * i % 97) as u8 + if image % 2 == 1 { 120 } else { 0 },
            }
        })
        .collect();
    let (files, dataset) = testing::dataset(SHAPE, &labels, &pixels);
    let mut sink = MemorySink::default();
    Splits::new(Partition::new(places, 3).unwrap(), &dataset)
        .write(&dataset, &Names::read(&files).unwrap(), &mut sink)
        .unwrap();
    vec![delivered(0, Part::Whole, Output::Dataset, files), delivered(1, Part::Whole, Output::Splits, sink.files())]
}

pub(super) fn run(
    stage: &dyn Stage,
    part: Part,
    inputs: Vec<Delivered>,
    context: &dyn Context,
) -> Result<Files, StageError> {
    testing::run(stage, part, inputs, &Places::default(), context)
}

fn bytes(files: &Files) -> Vec<(String, Vec<u8>)> {
    files.0.iter().map(|(name, bytes)| (name.clone(), bytes.to_vec())).collect()
}

fn keys(more: &str) -> String {
    format!(
        "architecture = \"{ARCHITECTURE}\"\nepochs = 4\nbatch_size = 8\nlearning_rate = 0.001\n\
         optimizer = {{ sgd = {{ momentum = 0.9 }} }}\nl2 = 1e-4\n{more}"
    )
}

/// Everything that may be done to training rows.
const AUGMENT: &str = "augment = [\"flip\", { crop = { padding = 1 } }, { shift = { fraction = 0.2 } }, \"rotate\", \
                       \"brightness\", \"zoom\", { perspective = 0.2 }, { cutout = { size = 2 } }, \"mixup\"]\noversample = true";

/// Snapshots of cycles, and L2 on everything.
const SNAPSHOTS: &str =
    "schedule = { cosine = { cycles = 3 } }\nsnapshots = 2\ndecay_on = \"all\"\nlabel_smoothing = 0.1";

/// A quasi-Newton training, which draws no number after its start.
fn lbfgs_keys() -> String {
    "architecture = \"INPUT - CONV(4) - BN - RELU - POOL - FC\"\nepochs = 4\nbatch_size = 7\n\
     optimizer = { lbfgs = { history = 2 } }\nl2 = 1e-3\nclass_weights = \"balanced\""
        .to_owned()
}

#[test]
fn threads_change_no_byte() {
    for keys in [keys(""), keys(AUGMENT), keys(SNAPSHOTS), lbfgs_keys()] {
        let stage = stage(&keys);
        let expected = bytes(&run(&*stage, Part::Fold(2), inputs(None), &TestContext::default()).unwrap());
        for threads in [2, 3, 7] {
            let context = TestContext { threads, ..TestContext::default() };
            assert_eq!(bytes(&run(&*stage, Part::Fold(2), inputs(None), &context).unwrap()), expected, "{threads}");
        }
    }
}

#[test]
fn what_held_out_rows_hold_changes_no_weight() {
    for more in ["", AUGMENT] {
        let stage = stage(&keys(more));
        let weights = |poison| {
            let files = run(&*stage, Part::Fold(2), inputs(Some(poison)), &TestContext::default()).unwrap();
            files.get(crate::artifact::model::WEIGHTS).unwrap().to_vec()
        };
        assert_eq!(weights(0), weights(255));
    }
}

#[test]
fn augmentation_is_for_training_rows_only() {
    // At a rate that moves no weight, whatever is done to training rows shows in the training loss alone.
    let still = |more: &str| keys(more).replace("learning_rate = 0.001", "learning_rate = 1e-30");
    let column = |more: &str, column: usize| -> Vec<String> {
        let files = run(&*stage(&still(more)), Part::Fold(1), inputs(None), &TestContext::default()).unwrap();
        let table = String::from_utf8(files.get("epochs.csv").unwrap().to_vec()).unwrap();
        table.lines().skip(1).map(|line| line.split(',').nth(column).unwrap().to_owned()).collect()
    };
    let (train_loss, valid_loss) = (3, 5);
    assert_ne!(column("", train_loss), column(AUGMENT, train_loss));
    assert_eq!(column("", valid_loss), column(AUGMENT, valid_loss));
}

#[test]
fn augmentation_that_does_not_fit_the_images_is_told_before_anything_is_trained() {
    let stage = stage(&keys("augment = [{ crop = { padding = 5 } }]"));
    let error = run(&*stage, Part::Fold(1), inputs(None), &TestContext::default()).unwrap_err();
    assert_eq!(error.message, "`padding` of 5 can push a 5x6x2 image out of sight");
    assert_eq!(error.key.as_deref(), Some("augment"));
}

#[test]
fn every_row_that_was_not_learned_from_is_predicted_and_no_other() {
    let stage = stage(&keys(""));
    let files = run(&*stage, Part::Fold(2), inputs(None), &TestContext::default()).unwrap();
    let rows = |name| Predictions::read(&files, name).unwrap().rows().to_vec();
    let expected = |wanted: fn(u32) -> bool| (0..60).filter(|&i| wanted(i)).collect::<Vec<u32>>();
    assert_eq!(rows(predictions::TEST), expected(|i| i.is_multiple_of(7)));
    assert_eq!(rows(predictions::VALIDATION), expected(|i| !i.is_multiple_of(7) && i % 3 + 1 == 2));
    let all = run(&*stage, Part::Fold(1), inputs(None), &TestContext::default()).unwrap();
    assert_ne!(bytes(&all), bytes(&files), "folds draw from streams of their own");
}

/// Stops the training when so many checkpoints have been kept.
struct Killer {
    inner: TestContext,
    left: AtomicU32,
}

impl Context for Killer {
    fn threads(&self) -> usize {
        1
    }
    fn is_cancelled(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
    fn progress(&self, _: u64, _: u64, _: &str, _: &str) {}
    fn warn(&self, _: &str) {}
    fn load_checkpoint(&self) -> Option<Vec<u8>> {
        self.inner.load_checkpoint()
    }
    fn save_checkpoint(&self, bytes: &[u8]) {
        self.inner.save_checkpoint(bytes);
        self.left.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Is told to stop when it has asked so many times.
struct Impatient {
    left: AtomicU32,
}

impl Context for Impatient {
    fn threads(&self) -> usize {
        2
    }
    fn is_cancelled(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }
    fn progress(&self, _: u64, _: u64, _: &str, _: &str) {}
    fn warn(&self, _: &str) {}
    fn load_checkpoint(&self) -> Option<Vec<u8>> {
        None
    }
    fn save_checkpoint(&self, _: &[u8]) {}
}

#[test]
fn one_batch_of_all_images_can_be_stopped_in_the_middle() {
    let stage = stage(&keys("").replace("epochs = 4", "epochs = 1").replace("batch_size = 8", "batch_size = 64"));
    let n_asked = |asks: u32| {
        let impatient = Impatient { left: AtomicU32::new(asks) };
        let stopped = run(&*stage, Part::Fold(1), inputs(None), &impatient).map_err(|error| error.is_cancelled);
        (stopped.map(drop), asks - impatient.left.into_inner())
    };
    let (done, n) = n_asked(1000);
    assert_eq!(done, Ok(()));
    assert!(n > 20, "asked {n} times by one update, its evaluation and its predictions");
    for asks in 0..n {
        assert_eq!(n_asked(asks).0, Err(true), "after {asks} of {n} questions");
    }
}

#[test]
fn a_killed_training_ends_with_the_bytes_of_one_that_was_not() {
    let adam = |more: &str| keys(more).replace("sgd = { momentum = 0.9 }", "adam = {}");
    for keys in [
        adam(""),
        adam(AUGMENT),
        adam("early_stopping = { patience = 2 }"),
        adam("schedule = { plateau = { patience = 0, metric = \"accuracy\" } }"),
        adam(SNAPSHOTS),
        lbfgs_keys(),
    ] {
        let stage = stage(&keys);
        let expected = bytes(&run(&*stage, Part::Fold(1), inputs(None), &TestContext::default()).unwrap());
        for epochs_before_kill in [1, 2, 3] {
            let killer = Killer { inner: TestContext::default(), left: AtomicU32::new(epochs_before_kill) };
            let error = run(&*stage, Part::Fold(1), inputs(None), &killer).unwrap_err();
            assert!(error.is_cancelled);
            let checkpoint = Mutex::new(killer.inner.load_checkpoint());
            assert!(checkpoint.lock().unwrap().is_some());
            let context = TestContext { checkpoint, ..TestContext::default() };
            let resumed = bytes(&run(&*stage, Part::Fold(1), inputs(None), &context).unwrap());
            assert_eq!(resumed, expected, "{keys} after {epochs_before_kill} epochs");
        }
    }
}

#[test]
fn snapshots_are_the_models_at_the_ends_of_cycles_or_of_the_last_epochs() {
    use crate::artifact::model::WEIGHTS;
    use crate::artifact::predictions::{file_of, n_models};
    let files_of =
        |more: &str| run(&*stage(&keys(more)), Part::Fold(1), inputs(None), &TestContext::default()).unwrap();
    for (more, epochs) in [(SNAPSHOTS, vec![4, 2]), ("snapshots = 3", vec![4, 3, 2])] {
        let files = files_of(more);
        assert_eq!(Description::read(&files).unwrap().snapshots, epochs);
        assert_eq!(n_models(&files) as usize, epochs.len());
        let file = |name, model| files.get(&file_of(name, model)).unwrap().to_vec();
        for name in [WEIGHTS, predictions::VALIDATION, predictions::TEST] {
            assert_ne!(file(name, 1), file(name, 2));
        }
    }
    // A constant rate, so that fewer epochs are the beginning of more.
    let shorter = stage(&keys("").replace("epochs = 4", "epochs = 2"));
    let shorter = run(&*shorter, Part::Fold(1), inputs(None), &TestContext::default()).unwrap();
    let longer = files_of("snapshots = 3");
    for name in [WEIGHTS, predictions::VALIDATION, predictions::TEST] {
        assert_eq!(longer.get(&file_of(name, 3)).unwrap().to_vec(), shorter.get(name).unwrap().to_vec(), "{name}");
    }
    assert!(Description::read(&files_of("")).unwrap().snapshots.is_empty());
}

#[test]
fn lbfgs_goes_down_steadily_and_reports_its_step_lengths() {
    let files = run(&*stage(&lbfgs_keys()), Part::Fold(1), inputs(None), &TestContext::default()).unwrap();
    let table = String::from_utf8(files.get("epochs.csv").unwrap().to_vec()).unwrap();
    let column = |i: usize| -> Vec<f64> {
        table.lines().skip(1).map(|line| line.split(',').nth(i).unwrap().parse().unwrap()).collect()
    };
    assert!(column(3).is_sorted_by(|a, b| a > b), "{table}");
    assert!(column(2).iter().all(|&length| length > 0.0), "{table}");
}

#[test]
fn l2_acts_on_what_it_is_asked_to() {
    let biases = |more: &str| -> f64 {
        let keys = keys(more).replace("l2 = 1e-4", "l2 = 5");
        let files = run(&*stage(&keys), Part::Fold(1), inputs(None), &TestContext::default()).unwrap();
        let weights = crate::artifact::model::read_weights(&files).unwrap();
        let biases = weights.iter().filter(|tensor| tensor.name.ends_with("bias")).flat_map(|tensor| &tensor.values);
        biases.fold(0.0, |sum, x| sum + f64::from(x * x))
    };
    let (on_weights, on_all) = (biases(""), biases("decay_on = \"all\""));
    assert!(on_all < on_weights, "{on_all} and {on_weights}");
}

#[test]
fn filters_are_drawn_at_the_start_the_best_and_the_end() {
    let architecture = "INPUT - CONV(4) - RELU - FC";
    let stage = |epochs| stage(&format!("architecture = \"{architecture}\"\nepochs = {epochs}\nbatch_size = 8"));
    let of = |epochs| {
        // One channel, so that there is something to see.
        let grey = ImageShape { height: 4, width: 4, channels: 1 };
        let labels: Vec<u32> = (0..24).map(|i| i % 2).collect();
        let pixels: Vec<u8> = (0..24 * 16).map(|i| (i * i % 7) as u8).collect();
        let (files, dataset) = testing::dataset(grey, &labels, &pixels);
        let places = (0..24).map(|i: u32| Place::Fold(i / 2 % 2 + 1)).collect();
        let mut sink = MemorySink::default();
        Splits::new(Partition::new(places, 2).unwrap(), &dataset)
            .write(&dataset, &Names::read(&files).unwrap(), &mut sink)
            .unwrap();
        let inputs = vec![
            delivered(0, Part::Whole, Output::Dataset, files),
            delivered(1, Part::Whole, Output::Splits, sink.files()),
        ];
        run(&*stage(epochs), Part::Fold(1), inputs, &TestContext::default()).unwrap()
    };
    let (one, three) = (of(1), of(3));
    let sheet = |files: &Files, which: &str| files.get(&format!("filters-{which}.png")).unwrap().to_vec();
    assert_eq!(sheet(&one, "start"), sheet(&three, "start"));
    assert_eq!(sheet(&one, "best"), sheet(&one, "end"), "one epoch is the best and the last");
    assert_ne!(sheet(&three, "start"), sheet(&three, "end"));
    let picture = image::load_from_memory(&sheet(&three, "end")).unwrap();
    assert_eq!((picture.width(), picture.height()), (4 * (3 * 11 + 2) + 2, 3 * 11 + 4));
    // Two channels are no colours to draw.
    let files = run(&*self::stage(&keys("")), Part::Fold(1), inputs(None), &TestContext::default()).unwrap();
    assert!(files.0.contains_key("filters-start.png"), "the first channel of them is drawn in grey");
}

#[test]
fn layers_are_looked_at_in_a_whole_batch() {
    // 35 rows in batches of 8: the rest of 3 is not looked at.
    let files = run(&*stage(&keys("")), Part::Fold(1), inputs(None), &TestContext::default()).unwrap();
    let n = Description::read(&files).unwrap().n_training;
    assert_ne!(n % 8, 0, "{n} rows");
    let step_of = |file: &str, row: usize| -> usize {
        let text = String::from_utf8(files.get(file).unwrap().to_vec()).unwrap();
        text.lines().nth(row).unwrap().split(',').nth(1).unwrap().parse().unwrap()
    };
    assert_eq!((step_of("layers.csv", 1), step_of("epochs.csv", 1)), (n / 8, n.div_ceil(8)));
}

#[test]
fn trouble_is_told_while_it_lasts() {
    let context = TestContext::default();
    let fast = keys("").replace("learning_rate = 0.001", "learning_rate = 30.0");
    // Whether it survives is not the question here.
    let _ = run(&*stage(&fast), Part::Fold(1), inputs(None), &context);
    let warnings = context.warnings.lock().unwrap().join("\n");
    let ended = run(&*stage(&fast), Part::Fold(1), inputs(None), &TestContext::default());
    assert!(warnings.contains("lower `learning_rate`") || ended.is_err(), "{warnings}");
    let context = TestContext::default();
    run(&*stage(&keys("").replace("l2 = 1e-4", "l2 = 10.0")), Part::Fold(1), inputs(None), &context).unwrap();
    let warnings = context.warnings.lock().unwrap().join("\n");
    assert!(warnings.contains("lower `l2`"), "{warnings}");
}

#[test]
fn an_exploding_loss_says_where_and_what_to_do() {
    let stage = stage(&keys("").replace("learning_rate = 0.001", "learning_rate = 1e30"));
    let error = run(&*stage, Part::Fold(1), inputs(None), &TestContext::default()).unwrap_err();
    assert!(error.message.starts_with("loss is not finite (epoch 1, batch "), "{}", error.message);
    assert_eq!(error.key.as_deref(), Some("learning_rate"));
    assert!(error.help.unwrap().starts_with("lower `learning_rate`"));
}

#[test]
fn refit_trains_on_all_rows_for_the_folds_median_best_epoch() {
    let stage = stage(&keys("final = \"refit\""));
    let mut all = inputs(None);
    let mut best = Vec::new();
    for fold in 1..=3 {
        let files = run(&*stage, Part::Fold(fold), inputs(None), &TestContext::default()).unwrap();
        best.push(Description::read(&files).unwrap().best_epoch);
        all.push(delivered(2, Part::Fold(fold), Output::Model, files));
    }
    best.sort_unstable();
    let files = run(&*stage, Part::All, all, &TestContext::default()).unwrap();
    let description = Description::read(&files).unwrap();
    assert_eq!(description.epochs, best[1]);
    assert_eq!(description.n_training, (0..60).filter(|i| i % 7 != 0).count());
    assert!(!files.0.contains_key(predictions::VALIDATION));
}

#[test]
fn early_stopping_restores_the_best_weights() {
    let stage =
        stage(&keys("early_stopping = { patience = 1 }").replace("learning_rate = 0.001", "learning_rate = 0.02"));
    let files = run(&*stage, Part::Fold(1), inputs(None), &TestContext::default()).unwrap();
    let description = Description::read(&files).unwrap();
    assert!(description.is_selected);
    assert!(description.best_epoch <= description.epochs);
    let table = String::from_utf8(files.get("epochs.csv").unwrap().to_vec()).unwrap();
    let losses: Vec<f64> = table.lines().skip(1).map(|line| line.split(',').nth(5).unwrap().parse().unwrap()).collect();
    let lowest = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(losses[description.best_epoch as usize - 1], lowest);
    let validation = Predictions::read(&files, predictions::VALIDATION_SELECTED).unwrap();
    let loss =
        |i: usize| -crate::elementary::ln(f64::from(validation.row(i)[(validation.rows()[i] % 2) as usize]).max(1e-30));
    let mean = (0..validation.len()).map(loss).sum::<f64>() / validation.len() as f64;
    // Two ways to the same number, one of them through rounded probabilities.
    assert!((mean - lowest).abs() < 1e-3 * lowest.max(1.0), "{mean} {lowest}");
}
