//! `train`: the network, one cached task per fold, and one more on all rows for `final = "refit"`.
//!
//! This file has the keys and what can be checked before anything runs; [`fit`] has the epochs. A task writes its
//! weights, its learning curves, and its predictions on the rows that it did not learn from.

mod after;
mod batches;
mod checkpoint;
mod fit;
pub mod rate;
mod rows;
mod sanity;
#[cfg(test)]
mod tests;
mod trial;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::calibrate::Calibrate;
use super::{
    Advice, Context, Flow, Kind, Learns, Need, Output, Part, Places, Price, Reads, Stage, StageError, Task, Trained,
    Upstream, lineage, pictures,
};
use crate::artifact::calibration::CALIBRATION;
use crate::artifact::dataset::{DATASET_FILES, Dataset, NUMBERS_FILES};
use crate::artifact::model::MODEL;
use crate::artifact::sanity::Findings;
use crate::artifact::search::EXPLODED;
use crate::artifact::{Files, Sink};
use crate::config::{Bounds, Form, Log, Problem, Section, Short, Span, Table, Value};
use crate::data::augment::{Augmentation, Augmenter, Views};
use crate::data::feed::Feed;
use crate::data::fit_set::TrainingRow;
use crate::data::pixels::Depth;
use crate::data::samples::Samples as _;
use crate::nn::architecture::{self, Architecture};
use crate::nn::init::Initializer;
use crate::nn::layer::TensorSpec;
use crate::nn::optimizer::{self, OptimizerConfig};
use crate::nn::plan::NetworkPlan;
use crate::nn::schedule::Schedule;
use crate::nn::seeds::Seeds;

/// The line in the list.
pub const KIND: Kind = Kind {
    name: "train",
    read,
    example: "schema = 1\nname = \"example\"\n\n[stages.ingest]\nsource = \"builtin:digits\"\n\n[stages.split]\n\n\
              [stages.train]\narchitecture = \"INPUT - CONV - RELU - POOL - FC\"\n",
};

/// `last_layer_gain` unless something is said.
const LAST_LAYER_GAIN: f64 = 0.1;
/// The most that it may be: no first loss of a network that starts so is worth a training.
const MOST_GAIN: f64 = 10.0;

/// What is read of a training to predict with its networks.
const TRAINED: Reads = Reads(&[MODEL, "weights*.safetensors", EXPLODED]);
/// What is read of a fold to fit something to its probabilities.
const OUT_OF_FOLD: Reads = Reads(&["validation*.safetensors", EXPLODED]);

/// The tasks that follow the training of a model stage: what its models say over several views, and what is fitted to that.
pub(super) fn parts_after(flow: &Flow) -> Vec<Part> {
    let trained = (1..=flow.folds).map(Part::Fold).chain(flow.refit.then_some(Part::All));
    let predicted = trained.map(Part::predicting).filter(|_| flow.has_views);
    predicted.chain(flow.is_calibrated().then_some(Part::Calibration)).collect()
}

/// Trains a network.
#[derive(Debug)]
pub struct Train {
    /// The layers, as `architecture` or `layers` (and `vars`) say, and `convolution`: how those convolutions are
    /// computed that do not say it themselves: "winograd", 3x3 convolutions with 2.25 times fewer multiplications, for
    /// the shapes that [`crate::engine::Algorithm`] names, or "direct", one chain of multiply-adds for each output of
    /// every convolution ["winograd"]; `None` after a problem.
    architecture: Option<Architecture>,
    /// Passes over the training rows, at least 1 [10].
    epochs: u32,
    /// Samples per update, at least 1 [64]; with `lbfgs`, which looks at all samples, those that fit in memory at once.
    batch_size: usize,
    /// Step size of the optimizer at the start, above 0 [0.001]; `lbfgs` finds its own.
    learning_rate: f64,
    /// `sgd`, `adam`, … ["adam"].
    optimizer: Arc<dyn OptimizerConfig>,
    /// How the learning rate changes ["constant"].
    schedule: Schedule,
    /// Added to the loss: a gradient `l2 * w` on weights, not on biases or batch-norm scales (but see `decay_on`) [0].
    l2: f64,
    /// Decoupled decay, as in AdamW: `w -= learning_rate * weight_decay * w`; absent: the optimizer's own.
    weight_decay: Option<f64>,
    /// What `l2` and `weight_decay` act on: "weights", or "all" tensors, biases and batch-norm scales and shifts too
    /// ["weights"]. A layer's own `l2` goes before the network's.
    decay_on: DecayOn,
    /// Gradients are scaled down to this norm over all tensors; absent: never.
    clip: Option<f64>,
    /// How weights start ["he-normal"].
    initializer: Initializer,
    /// What the deviation of the weights before the softmax is multiplied by, from 0 to 10 [0.1]: with a tenth the
    /// first loss is about ln(classes), that of guessing; with 0 exactly that; with 1 the layer starts as all others
    /// do. Acts on whatever `initializer` draws; constants stay what they are.
    last_layer_gain: f64,
    /// Share of the target probability that is spread over all classes, in `[0, 1)` [0].
    label_smoothing: f64,
    /// Classes weigh the same in the loss, however many images they have ["none", or "balanced"].
    class_weights: ClassWeights,
    /// Whether rows of small classes are repeated until all classes are as large as the largest, on training rows only
    /// [false].
    oversample: bool,
    /// What is done to training images, and only those, anew in each epoch: see [`crate::data::augment`] [nothing].
    augment: Augmentation,
    /// Stops when validation has not improved, and restores the best weights; absent: all epochs, last weights.
    early_stopping: Option<EarlyStopping>,
    /// Models kept on the way, from 1 to 1,000, for an ensemble of one training run (Huang et al. 2017): those at the
    /// ends of the last cycles of `schedule = { cosine = { cycles = 5 } }`, or of the last epochs; absent: none.
    snapshots: Option<u32>,
    /// The model that `evaluate` and `predict` use ["fold-ensemble", or "refit"].
    last: Final,
    /// The views of an image over which its probabilities are averaged when it is predicted, see
    /// [`crate::data::augment`] [the image alone].
    views: Views,
    /// What is fitted to the probabilities of all folds together: `calibrate`, `abstain` [nothing].
    calibrate: Calibrate,
    /// Share of the training images that is learned from, above 0, at most 1 [1]; as many of every class as that share
    /// of the class has.
    data_fraction: f64,
    /// Set by a search for its trials [false]: a loss that explodes ends the training, not the run.
    is_trial: bool,
    /// Whether the checks before a training are made: labels and images vary, the loss starts where it should, the
    /// network learns 20 images by heart [true].
    sanity: bool,
    /// The stage's own seed; absent: the manifest's.
    seed: Option<u64>,
}

/// `final`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Final {
    /// The mean of the folds' probabilities.
    FoldEnsemble,
    /// One network trained on all rows outside the test split, for the folds' median best epoch.
    Refit,
}

/// `class_weights`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClassWeights {
    None,
    /// `n_samples / (n_classes * n_samples_of_class)`, as scikit-learn has it.
    Balanced,
}

/// `decay_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DecayOn {
    Weights,
    All,
}

/// `early_stopping`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct EarlyStopping {
    /// Epochs without improvement before it stops, at least 1 [5].
    patience: u32,
    /// What must improve ["loss", or "accuracy"] on the validation rows.
    by_accuracy: bool,
}

fn read(section: &mut Section<'_>) -> Box<dyn Stage> {
    let architecture = architecture::read(section);
    let optimizer = optimizer::read(section);
    Box::new(Train {
        architecture,
        epochs: section.key("epochs", "Passes over the training rows.", "30").whole(1..=1_000_000).or(10) as u32,
        batch_size: {
            let meaning = "Samples per update; with `lbfgs` those that fit in memory at once.";
            section.key("batch_size", meaning, "128").whole(1..=65_536).or(64) as usize
        },
        // One that finds its own steps has none, not even a default.
        learning_rate: {
            let meaning = "Step size of the optimizer at the start; `lbfgs` finds its own.";
            let key = section.key("learning_rate", meaning, "0.01").number(Bounds::Positive);
            match optimizer.full_batch() {
                Some(_) => key.optional().unwrap_or(0.001),
                None => key.or(0.001),
            }
        },
        optimizer,
        schedule: Schedule::read(section),
        l2: section
            .key("l2", "L2 regularisation: a gradient l2 * w is added.", "1e-4")
            .number(Bounds::NonNegative)
            .or(0.0),
        weight_decay: section
            .key("weight_decay", "Decoupled decay, as in AdamW; absent: the optimizer's own.", "0.01")
            .number(Bounds::NonNegative)
            .optional(),
        decay_on: section.key("decay_on", "What `l2` and `weight_decay` act on.", "\"all\"").word(&[
            ("weights", "Weights only.", DecayOn::Weights),
            ("all", "Biases and batch-norm scales and shifts too.", DecayOn::All),
        ]),
        clip: section
            .key("clip", "Gradients are scaled down to this norm over all tensors; absent: never.", "1.0")
            .number(Bounds::Positive)
            .optional(),
        initializer: Initializer::read(section),
        last_layer_gain: {
            let meaning =
                "Times the initializer's deviation, for the layer before the softmax; 1 starts it like the others.";
            section.key("last_layer_gain", meaning, "1.0").number(Bounds::UpTo(MOST_GAIN)).or(LAST_LAYER_GAIN)
        },
        label_smoothing: section
            .key("label_smoothing", "Share of the target probability that is spread over all classes.", "0.1")
            .number(Bounds::Rate)
            .or(0.0),
        class_weights: read_class_weights(section),
        oversample: section
            .key("oversample", "Whether rows of small classes are repeated until all are as large.", "true")
            .flag(false),
        augment: Augmentation::read(section),
        early_stopping: section
            .key("early_stopping", "Stops when validation has not improved, and restores the best weights.", "{}")
            .table_or(
                vec![Form::Flag],
                |node| match node.value {
                    Value::Boolean(true) => Short::Table(Table::default()),
                    Value::Boolean(false) => Short::Nothing,
                    Value::Integer(n) => Short::Unclear(Some(format!("write `early_stopping = {{ patience = {n} }}`"))),
                    _ => Short::Unclear(Some("write `early_stopping = true`, or `{ patience = 5 }`".to_owned())),
                },
                read_early_stopping,
            ),
        snapshots: section
            .key("snapshots", "Models kept on the way, for an ensemble of one training; absent: none.", "5")
            .whole(1..=1_000)
            .optional()
            .map(|snapshots| snapshots as u32),
        last: section.key("final", "The model that `evaluate` and `predict` use.", "\"refit\"").word(&[
            ("fold-ensemble", "The mean of the folds' probabilities.", Final::FoldEnsemble),
            ("refit", "One network trained on all rows outside the test split.", Final::Refit),
        ]),
        views: Views::read(section),
        calibrate: Calibrate::read(section),
        data_fraction: section
            .key("data_fraction", "Share of the training images that is learned from.", "0.5")
            .number(Bounds::Share)
            .or(1.0),
        is_trial: section.key("trial", "Set by a search for its trials.", "true").flag(false),
        sanity: section.key("sanity", "Whether the checks before a training are made.", "false").flag(true),
        seed: super::read_seed(section),
    })
}

fn read_class_weights(section: &mut Section<'_>) -> ClassWeights {
    let key = section.key("class_weights", "What classes weigh in the loss.", "\"balanced\"");
    let weights = key.word(&[
        ("none", "Each image the same.", ClassWeights::None),
        ("balanced", "Each class the same, however many images it has.", ClassWeights::Balanced),
    ]);
    let help =
        "weights of single classes are not supported: write `class_weights = \"balanced\"`, or `oversample = true`";
    match section.node("class_weights").map(|node| &node.value) {
        Some(Value::Table(_) | Value::List(_)) => section.advise("class_weights", help),
        Some(Value::Boolean(true)) => section.advise("class_weights", "write `class_weights = \"balanced\"`"),
        _ => {}
    }
    weights
}

fn read_early_stopping(section: &mut Section<'_>) -> EarlyStopping {
    EarlyStopping {
        patience: section
            .key("patience", "Epochs without improvement before it stops.", "10")
            .whole(1..=1_000_000)
            .or(5) as u32,
        by_accuracy: section
            .key("metric", "What must improve on the validation rows.", "\"accuracy\"")
            .word(&[("loss", "The loss.", false), ("accuracy", "The accuracy.", true)]),
    }
}

impl Train {
    /// Whether cycles and snapshots fit the epochs, and each other.
    fn check_cycles(&self, span: Span, log: &mut Log) {
        let (cycles, epochs) = (self.schedule.n_cycles(), u64::from(self.epochs));
        if cycles > epochs {
            let at = log.span_of("schedule.cosine.cycles", span);
            let message = format!("a cycle lasts an epoch at least, got {cycles} cycles in {epochs} epochs");
            log.push(Problem::error(at, message).help(format!("use `epochs = {cycles}` or more")));
        }
        let Some(snapshots) = self.snapshots.map(u64::from) else { return };
        let at = log.span_of("snapshots", span);
        if cycles > 1 && snapshots > cycles {
            let message = format!("there is one snapshot a cycle, got {snapshots} snapshots of {cycles} cycles");
            log.push(Problem::error(at, message).help(format!("use `snapshots = {cycles}`, or more `cycles`")));
        } else if snapshots > epochs {
            let message = format!("there is one snapshot an epoch, got {snapshots} snapshots of {epochs} epochs");
            log.push(Problem::error(at, message).help(format!("use `snapshots = {epochs}`, or more `epochs`")));
        }
        if self.early_stopping.is_some() {
            let message = "`snapshots` are of the last epochs, which `early_stopping` leaves out, expected one of them";
            log.push(Problem::error(at, message));
        }
    }

    /// What a full-batch optimizer cannot be combined with.
    fn check_full_batch(&self, span: Span, log: &mut Log) {
        let word = self.optimizer.word();
        for (key, is_set, message, help) in [
            (
                "learning_rate",
                is_set("learning_rate", log),
                format!("`{word}` finds the length of each step itself"),
                "remove `learning_rate`",
            ),
            (
                "schedule",
                self.schedule != Schedule::Constant,
                format!("`{word}` finds the length of each step itself, so that there is no learning rate to schedule"),
                "remove `schedule`",
            ),
            (
                "weight_decay",
                self.weight_decay.is_some_and(|decay| decay > 0.0),
                format!("`weight_decay` is no part of the loss that `{word}` goes down"),
                "use `l2`",
            ),
            (
                "clip",
                self.clip.is_some(),
                format!("`{word}` needs gradients as they are, not clipped"),
                "remove `clip`",
            ),
            (
                "oversample",
                self.oversample,
                format!("`{word}` looks at all training rows at once, none of them twice"),
                "use `class_weights = \"balanced\"`",
            ),
            (
                "augment",
                !self.augment.is_empty(),
                format!("`{word}` needs the same loss at each look, but `augment` changes the images"),
                "remove `augment`, or use `adam`",
            ),
        ] {
            if is_set {
                log.push(Problem::error(log.span_of(key, span), message).help(help));
            }
        }
        let Some(architecture) = &self.architecture else { return };
        for (layer, &at) in architecture.layers.iter().zip(&architecture.spans) {
            if matches!(layer.word(), "dropout" | "noise") {
                let message = format!("`{word}` needs the same loss at each look, but `{}` changes it", layer.word());
                log.push(Problem::error(at, message).help("remove it, or use `adam`"));
            }
        }
    }
}

/// Whether a key of the stage is written in the manifest.
fn is_set(key: &str, log: &Log) -> bool {
    log.resolved.iter().any(|resolved| resolved.key == key && resolved.span.is_some())
}

impl Train {
    /// Whether `l2` and `weight_decay` act on biases and batch normalisation too.
    fn decays_all(&self) -> bool {
        self.decay_on == DecayOn::All
    }

    /// Whether there is something to show of what training does to images.
    fn has_pictures(&self) -> bool {
        !self.is_trial && self.augment.changes_images()
    }

    /// Samples of every class, and below them what an epoch makes of them, as far as pixels tell: what acts on transformed
    /// images is drawn on stored ones, and nothing is mixed.
    fn draw_pictures(&self, task: &Task, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
        if context.is_cancelled() {
            return Err(StageError::cancelled());
        }
        let (dataset, splits) = (Arc::new(lineage::dataset(task)?), lineage::splits(task)?);
        let fit_set = lineage::fit_set(&splits, Part::Fold(1));
        let feed = Feed::new(Arc::<Dataset>::clone(&dataset) as _, Vec::new());
        let rows: BTreeMap<usize, TrainingRow> = fit_set.training().iter().map(|&row| (row.index(), row)).collect();
        let seeds = Seeds { seed: task.seed, indices: vec![("fit set", 1)] };
        if !self.augment.misfits(Some(feed.sample_shape())).is_empty() {
            // Training tells what does not fit.
            return pictures::write(None, None, sink);
        }
        let mut augmenter = Augmenter::new(&self.augment, feed.sample_shape());
        augmenter.begin(|i| seeds.stream("augment", &[("epoch", 1), ("operation", i)]));
        let largest = match dataset.depth() {
            Depth::U8 => 255.0,
            Depth::U16 => 65_535.0,
        };
        let mut changed = |image: usize| {
            let mut values = vec![0.0; feed.sample_shape().len()];
            augmenter.load(&feed, *rows.get(&image)?, 0, &mut values);
            values.iter_mut().for_each(|value| *value *= 255.0 / largest);
            Some(values)
        };
        let is_shown = |image: usize| rows.contains_key(&image);
        let samples = pictures::samples(&dataset, is_shown, |i| dataset.values(i), Some(&mut changed), sink)?;
        pictures::write(samples, None, sink)
    }

    /// The factor of a tensor's L2.
    fn l2_of(&self, spec: &TensorSpec) -> f64 {
        spec.l2_in(self.l2, self.decays_all())
    }
}

impl Stage for Train {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn rooms(&self, part: Part, upstream: &Upstream<'_>) -> Vec<&'static str> {
        if part == Part::Pictures {
            // Nothing is mixed there.
            return self.augment.words().filter(|word| *word != "mixup").chain(["pictures"]).collect();
        }
        if part == Part::Calibration {
            return self.calibrate.rooms().collect();
        }
        let mut rooms = lineage::rooms(upstream);
        rooms.push("softmax");
        rooms.extend((!matches!(part, Part::Predict(_))).then_some("init"));
        let layers = self.architecture.iter().flat_map(|architecture| &architecture.layers);
        match part {
            Part::Sanity => {
                rooms.extend(layers.filter(|layer| sanity::keeps(layer.word())).flat_map(|layer| layer.rooms()));
                rooms.extend(["adam", "sanity"]);
            }
            Part::Predict(_) => {
                rooms.extend(layers.flat_map(|layer| layer.rooms()));
                rooms.extend(["mean-probability", "views"]);
            }
            _ => {
                rooms.extend(layers.flat_map(|layer| layer.rooms()));
                rooms.extend([KIND.name, self.optimizer.word(), self.schedule.word()]);
                rooms.extend(self.augment.words());
            }
        }
        rooms
    }

    fn accepts(&self) -> &'static [Output] {
        &[Output::Splits, Output::Fitted]
    }

    fn check(&self, inputs: &[Flow], span: Span, log: &mut Log) -> Flow {
        let flow = &inputs[0];
        if let Some(architecture) = &self.architecture {
            architecture.check(flow.shape, flow.n_classes, log);
        }
        if self.last == Final::Refit && self.schedule.needs_validation() {
            let at = log.span_of("schedule", span);
            log.push(
                Problem::error(at, "a `plateau` schedule watches validation images, but `final = \"refit\"` has none")
                    .help("use `final = \"fold-ensemble\"`, or another schedule"),
            );
        }
        if self.oversample && self.class_weights == ClassWeights::Balanced {
            let at = log.span_of("oversample", span);
            let message =
                "`oversample` and `class_weights = \"balanced\"` both make classes equal, expected one of them";
            log.push(Problem::error(at, message));
        }
        self.check_cycles(span, log);
        if self.optimizer.full_batch().is_some() {
            self.check_full_batch(span, log);
        }
        for misfit in self.augment.misfits(flow.shape) {
            let at = log.span_of(&format!("augment[{}]", misfit.at), span);
            log.push(misfit.error(at));
        }
        for misfit in self.views.misfits(flow.shape) {
            let at = log.span_of(&format!("predict[{}]", misfit.at), span);
            log.push(misfit.error(at));
        }
        self.calibrate.warn_of_one_fold(flow.folds, span, log);
        Flow {
            output: Output::Model,
            refit: self.last == Final::Refit,
            models: self.snapshots.unwrap_or(1),
            has_views: !self.views.is_empty(),
            has_temperature: self.calibrate.has_temperature(),
            abstains: self.calibrate.abstains(),
            ..flow.clone()
        }
    }

    fn parts(&self, flow: &Flow) -> Vec<Part> {
        let folds = (1..=flow.folds).map(Part::Fold).chain(self.sanity.then_some(Part::Sanity));
        let all = (self.last == Final::Refit).then_some(Part::All);
        let trained = folds.chain(all).chain(self.has_pictures().then_some(Part::Pictures));
        trained.chain(if self.is_trial { Vec::new() } else { parts_after(flow) }).collect()
    }

    fn needs(&self, part: Part, upstream: &Upstream<'_>) -> Vec<Need> {
        if part == Part::Pictures {
            // Images as they are stored: transforms are not for people.
            return lineage::dataset_need(upstream, DATASET_FILES)
                .into_iter()
                .chain(lineage::splits_need(upstream))
                .collect();
        }
        if part == Part::Calibration {
            let folds = upstream.nodes[upstream.own].flow.folds;
            let said = |fold| match self.views.is_empty() {
                true => Part::Fold(fold),
                false => Part::Predict(fold),
            };
            let said = (1..=folds).map(|fold| Need { stage: upstream.own, part: said(fold), files: OUT_OF_FOLD });
            return lineage::dataset_need(upstream, NUMBERS_FILES).into_iter().chain(said).collect();
        }
        if let Part::Predict(_) = part {
            let mut needs = lineage::needs(part.trained(), upstream);
            needs.push(Need { stage: upstream.own, part: part.trained(), files: TRAINED });
            return needs;
        }
        // The checks look at what fold 1 learns from.
        let mut needs = lineage::needs(if part == Part::Sanity { Part::Fold(1) } else { part }, upstream);
        if part == Part::All {
            // How long to train on all rows is what the folds found.
            let folds = upstream.nodes[upstream.own].flow.folds;
            let of_fold = |fold| Need { stage: upstream.own, part: Part::Fold(fold), files: Reads(&[MODEL]) };
            needs.extend((1..=folds).map(of_fold));
        }
        needs
    }

    fn uses_seed(&self) -> bool {
        true
    }

    fn reads_key(&self, part: Part, key: &str) -> bool {
        let is_below =
            |above: &str| key.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        match part {
            // How long and how fast is no business of the checks.
            Part::Sanity => ["layers", "initializer", "last_layer_gain"].into_iter().any(is_below),
            // The layers are there to read the stage again.
            Part::Pictures => ["layers", "augment"].into_iter().any(is_below),
            Part::Predict(_) => ["layers", "predict"].into_iter().any(is_below),
            Part::Calibration => is_below("layers") || Calibrate::owns(key) || key == "trial",
            // Which model is the final one decides what is planned, not what a task computes; so do the checks, and what
            // follows the training.
            _ => !["final", "sanity"].contains(&key) && !is_below("predict") && !Calibrate::owns(key),
        }
    }

    fn planned_by(&self, part: Part) -> Option<(&'static str, &'static str, &'static str)> {
        (part == Part::All && self.last == Final::Refit).then_some(("final", "\"fold-ensemble\"", "\"refit\""))
    }

    fn gates(&self, part: Part) -> Vec<Part> {
        match part {
            Part::Sanity | Part::Pictures | Part::Suspects | Part::Predict(_) | Part::Calibration => Vec::new(),
            _ => self.sanity.then_some(Part::Sanity).into_iter().collect(),
        }
    }

    fn admits(&self, _: Part, files: &Files) -> Result<Vec<Advice>, StageError> {
        let admitted = sanity::admits(&Findings::read(files)?);
        match admitted {
            // One bad setting must not end a search.
            Err(error) if self.is_trial => Ok(vec![Advice { message: error.to_string(), image: error.image }]),
            admitted => admitted,
        }
    }

    fn own_seed(&self) -> Option<u64> {
        self.seed
    }

    fn price(&self, above: Option<&Flow>, read_bytes: u64) -> Price {
        let known = above.and_then(|above| Some((above, above.shape?, above.n_classes?)));
        let Some((above, shape, n_classes)) = known else { return Price { bytes: 4 * read_bytes, per_thread: 0 } };
        let layers = self.architecture.as_ref().map(|architecture| &architecture.layers);
        let plan = layers.and_then(|layers| NetworkPlan::new(layers, shape, n_classes).ok());
        let Some(plan) = plan else { return Price::default() };
        let n_moments = self.optimizer.n_moments();
        // The weights with their moments once more in a checkpoint, and as the bytes of its file.
        let kept = 2 * plan.n_parameters() as u64 * 4 * (1 + n_moments as u64 + u64::from(self.snapshots.unwrap_or(0)));
        let probabilities = above.n_samples.unwrap_or(0) as u64 * n_classes as u64 * 4;
        let bytes = plan.training_bytes(self.batch_size, n_moments) + kept + 2 * probabilities + 4 * read_bytes;
        Price { bytes, per_thread: plan.bytes_per_thread(self.batch_size) }
    }

    fn network(&self) -> Option<Trained<'_>> {
        let architecture = self.architecture.as_ref()?;
        Some(Trained { architecture, batch_size: self.batch_size, n_moments: self.optimizer.n_moments() })
    }

    fn learns(&self, part: Part) -> Option<Learns> {
        let chosen = match part {
            Part::Pictures | Part::Predict(_) => return None,
            Part::Calibration => {
                let fitted = Reads(&[CALIBRATION, EXPLODED]);
                return Some(Learns { fitted, says: Reads(&[]), chosen: Some(self.calibrate.chosen()) });
            }
            Part::Sanity => return Some(Learns { fitted: Reads::ALL, says: Reads(&[]), chosen: None }),
            Part::All => Some("chose its epochs"),
            _ if self.early_stopping.is_some() => Some("chooses its epoch"),
            _ if self.schedule.needs_validation() => Some("lowers its rate"),
            _ => None,
        };
        // What is written of each epoch has its score on validation rows in it.
        let (fitted, says) = match chosen {
            None => (
                Reads(&["weights*.safetensors", "layers.csv", EXPLODED]),
                Reads(&["validation*.safetensors", "test*.safetensors"]),
            ),
            Some(_) => {
                let of_epochs = Reads(&[
                    "weights*.safetensors",
                    "layers.csv",
                    "epochs.csv",
                    "filters-*.png",
                    "validation*.safetensors",
                    MODEL,
                    EXPLODED,
                ]);
                (of_epochs, Reads(&["test*.safetensors"]))
            }
        };
        Some(Learns { fitted, says, chosen })
    }

    fn rate_range(
        &self,
        task: &Task,
        range: rate::RateRange,
        context: &dyn Context,
    ) -> Option<Result<Vec<rate::RateStep>, StageError>> {
        Some(rate::rate_range(self, task, range, context))
    }

    fn run(&self, task: &Task, _: &Places, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
        match task.part {
            Part::Sanity => sanity::check(self, task, context, sink),
            Part::Pictures => self.draw_pictures(task, context, sink),
            Part::Predict(_) => after::predict(self, task, context, sink),
            Part::Calibration => after::calibrate(self, task, context, sink),
            _ => fit::fit(self, task, context, sink),
        }
    }
}
