//! `train`: the network, one cached task per fold, and one more on all rows for `final = "refit"`.
//!
//! This file has the keys and what can be checked before anything runs; [`fit`] has the epochs. A task writes its
//! weights, its learning curves, and its predictions on the rows that it did not learn from.

mod batches;
mod checkpoint;
mod fit;
mod sanity;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;

use super::{Context, Flow, Kind, Need, Output, Part, Places, Stage, StageError, Task, Trained, Upstream, lineage};
use crate::artifact::sanity::Findings;
use crate::artifact::{Files, Sink};
use crate::config::{Bounds, Log, Problem, Section, Span};
use crate::data::augment::Augmentation;
use crate::nn::architecture::{self, Architecture};
use crate::nn::init::Initializer;
use crate::nn::optimizer::{self, OptimizerConfig};
use crate::nn::schedule::Schedule;

/// The line in the list.
pub const KIND: Kind = Kind {
    name: "train",
    read,
    example: "schema = 1\nname = \"example\"\n\n[stages.ingest]\nsource = \"builtin:digits\"\n\n[stages.split]\n\n\
              [stages.train]\narchitecture = \"INPUT - CONV - RELU - POOL - FC\"\n",
};

/// Bumped when the same inputs train to other bytes.
const REVISION: &str = "2";

/// Trains a network.
#[derive(Debug)]
pub struct Train {
    /// The layers, as `architecture` or `layers` (and `vars`) say; `None` after a problem.
    architecture: Option<Architecture>,
    /// Passes over the training rows, at least 1 [10].
    epochs: u32,
    /// Samples per update, at least 1 [64].
    batch_size: usize,
    /// Step size of the optimizer at the start, above 0 [0.001].
    learning_rate: f64,
    /// `sgd`, `adam`, … ["adam"].
    optimizer: Arc<dyn OptimizerConfig>,
    /// How the learning rate changes ["constant"].
    schedule: Schedule,
    /// Added to the loss: a gradient `l2 * w` on weights, not on biases or batch-norm scales [0].
    l2: f64,
    /// Decoupled decay, as in AdamW: `w -= learning_rate * weight_decay * w`; absent: the optimizer's own.
    weight_decay: Option<f64>,
    /// Gradients are scaled down to this norm over all tensors; absent: never.
    clip: Option<f64>,
    /// How weights start ["he-normal"].
    initializer: Initializer,
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
    /// The model that `evaluate` and `predict` use ["fold-ensemble", or "refit"].
    last: Final,
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
    let early_stopping = section.section("early_stopping").map(|mut inner| {
        let early_stopping = EarlyStopping {
            patience: inner.whole("patience", 1..=1_000_000, Some(5)) as u32,
            by_accuracy: inner.word("metric", &["loss", "accuracy"], "loss") == "accuracy",
        };
        inner.finish();
        early_stopping
    });
    Box::new(Train {
        architecture,
        epochs: section.whole("epochs", 1..=1_000_000, Some(10)) as u32,
        batch_size: section.whole("batch_size", 1..=65_536, Some(64)) as usize,
        learning_rate: section.number("learning_rate", Bounds::Positive, Some(0.001)),
        optimizer: optimizer::read(section),
        schedule: Schedule::read(section),
        l2: section.number("l2", Bounds::NonNegative, Some(0.0)),
        weight_decay: section.optional_number("weight_decay", Bounds::NonNegative),
        clip: section.optional_number("clip", Bounds::Positive),
        initializer: Initializer::read(section),
        label_smoothing: section.number("label_smoothing", Bounds::Rate, Some(0.0)),
        class_weights: match section.word("class_weights", &["none", "balanced"], "none") {
            "balanced" => ClassWeights::Balanced,
            _ => ClassWeights::None,
        },
        oversample: section.flag("oversample", false),
        augment: Augmentation::read(section),
        early_stopping,
        last: match section.word("final", &["fold-ensemble", "refit"], "fold-ensemble") {
            "refit" => Final::Refit,
            _ => Final::FoldEnsemble,
        },
        sanity: section.flag("sanity", true),
        seed: section.raw("seed").is_some().then(|| section.whole("seed", 0..=i64::MAX as u64, Some(0))),
    })
}

impl Stage for Train {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn revision(&self) -> String {
        REVISION.to_owned()
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
        for misfit in self.augment.misfits(flow.shape) {
            let at = log.span_of(&format!("augment[{}]", misfit.operation), span);
            log.push(Problem { help: misfit.help, ..Problem::error(at, misfit.message) });
        }
        Flow { output: Output::Model, refit: self.last == Final::Refit, ..flow.clone() }
    }

    fn parts(&self, flow: &Flow) -> Vec<Part> {
        let folds = (1..=flow.folds).map(Part::Fold).chain(self.sanity.then_some(Part::Sanity));
        folds.chain((self.last == Final::Refit).then_some(Part::All)).collect()
    }

    fn needs(&self, part: Part, upstream: &Upstream<'_>) -> Vec<Need> {
        // The checks look at what fold 1 learns from.
        let mut needs = lineage::needs(if part == Part::Sanity { Part::Fold(1) } else { part }, upstream);
        if part == Part::All {
            // How long to train on all rows is what the folds found.
            let folds = upstream.nodes[upstream.own].flow.folds;
            needs.extend((1..=folds).map(|fold| Need { stage: upstream.own, part: Part::Fold(fold) }));
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
            Part::Sanity => ["layers", "initializer"].into_iter().any(is_below),
            // Which model is the final one decides what is planned, not what a task computes; so do the checks.
            _ => !["final", "sanity"].contains(&key),
        }
    }

    fn gates(&self, part: Part) -> Vec<Part> {
        match part {
            Part::Sanity => Vec::new(),
            _ => self.sanity.then_some(Part::Sanity).into_iter().collect(),
        }
    }

    fn admits(&self, _: Part, files: &Files) -> Result<Vec<String>, StageError> {
        sanity::admits(&Findings::read(files)?)
    }

    fn own_seed(&self) -> Option<u64> {
        self.seed
    }

    fn network(&self) -> Option<Trained<'_>> {
        let architecture = self.architecture.as_ref()?;
        Some(Trained { architecture, batch_size: self.batch_size, n_moments: self.optimizer.n_moments() })
    }

    fn run(&self, task: &Task<'_>, _: &Places, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
        match task.part {
            Part::Sanity => sanity::check(self, task, context, sink),
            _ => fit::fit(self, task, context, sink),
        }
    }
}
