//! The epochs: batches in, updates out, validation after each; then the predictions on every row not learned from.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::batches::Batches;
use super::checkpoint::{Best, Checkpoint};
use super::{ClassWeights, Context, Output, Part, StageError, Task, Train, lineage};
use crate::artifact::dataset::Dataset;
use crate::artifact::model::{self, Description};
use crate::artifact::predictions::{self, Predictions};
use crate::artifact::table::Table;
use crate::artifact::{Sink, model::axes};
use crate::elementary::log10;
use crate::engine::{Engine, Isa, Targets};
use crate::nn::network::{LayerStatistics, Network, StepStats, Training};
use crate::nn::plan::{NetworkPlan, PlanProblem};
use crate::nn::schedule::{Moment, Plateau};
use crate::nn::seeds::Seeds;
use crate::tensor::SampleShape;

/// A row of `epochs.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct EpochRow {
    pub epoch: u32,
    /// Steps done.
    pub step: u64,
    /// Of the epoch's last step.
    pub learning_rate: f64,
    /// Mean over the epoch's batches, as they were trained on.
    pub train_loss: f64,
    pub train_accuracy: f64,
    pub valid_loss: Option<f64>,
    pub valid_accuracy: Option<f64>,
}

/// A row of `layers.csv`: an epoch's last step, one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LayerRow {
    pub epoch: u32,
    pub step: u64,
    pub layer: String,
    pub weight_norm: Option<f64>,
    pub update_norm: Option<f64>,
    pub grad_norm: Option<f64>,
    pub dead_fraction: Option<f64>,
}

/// Trains one network and writes the task's artifact.
pub(super) fn fit(
    stage: &Train,
    task: &Task<'_>,
    context: &dyn Context,
    sink: &mut dyn Sink,
) -> Result<(), StageError> {
    let dataset = Arc::new(lineage::dataset(task)?);
    let splits = lineage::splits(task)?;
    let fit_set = lineage::fit_set(&splits, task.part);
    let feed = lineage::feed(task, &dataset)?;
    let training_rows = fit_set.training().as_slice();
    let validation_rows = fit_set.validation();
    if training_rows.is_empty() {
        return Err(no_images());
    }
    let architecture = stage.architecture.as_ref().expect("a checked stage has its layers");
    let plan = plan(stage, feed.sample_shape(), dataset.n_classes())?;

    let fit_set_number = match task.part {
        Part::Fold(fold) => u64::from(fold),
        Part::All | Part::Whole | Part::Sanity => 0,
    };
    let seeds = Seeds { seed: task.seed, indices: vec![("fit set", fit_set_number)] };
    let batch = stage.batch_size.min(training_rows.len());
    let engine = Engine::with_isa(context.threads(), Isa::detect());
    let mut network = Network::for_training(
        &engine,
        &plan,
        batch,
        Training {
            seeds: seeds.clone(),
            initializer: stage.initializer,
            optimizer: Arc::clone(&stage.optimizer),
            l2: stage.l2,
            weight_decay: stage.weight_decay,
            clip: stage.clip,
            label_smoothing: stage.label_smoothing,
            class_weights: class_weights(stage.class_weights, &dataset, training_rows),
        },
    );
    let epochs = if task.part == Part::All { median_best_epoch(task)? } else { stage.epochs };
    let mut batches = Batches::new(&feed, &dataset, batch);
    let run = run_epochs(
        stage,
        &mut network,
        &mut batches,
        Rows { training: training_rows, validation: validation_rows, seeds: &seeds },
        epochs,
        context,
    )?;

    let is_selected =
        !validation_rows.is_empty() && (stage.early_stopping.is_some() || stage.schedule.needs_validation());
    let description = Description {
        format: 1,
        architecture: architecture.shorthand(),
        input: axes(plan.input),
        n_classes: plan.n_classes,
        n_parameters: plan.n_parameters(),
        epochs: run.epochs.last().map_or(0, |row| row.epoch),
        best_epoch: run.best.epoch,
        is_selected,
        n_training: training_rows.len(),
    };
    model::write(&description, &network.save(), sink)?;
    sink.put("epochs.csv", &epochs_table(&run.epochs))?;
    sink.put("layers.csv", &layers_table(&run.layers))?;
    let test_rows = splits.test_rows();
    let validation = if is_selected { predictions::VALIDATION_SELECTED } else { predictions::VALIDATION };
    for (rows, name) in [(validation_rows, validation), (&test_rows, predictions::TEST)] {
        if !rows.is_empty() {
            predict(&mut network, &mut batches, rows, context)?.write(sink, name)?;
        }
    }
    Ok(())
}

/// A task without a training row.
pub(super) fn no_images() -> StageError {
    StageError::new("there is no image to train on").help("give `split` more images, or fewer folds")
}

/// The stage's network for samples of this shape.
///
/// # Errors
/// What `check` could not know before the shape and the number of classes were.
pub(super) fn plan(stage: &Train, shape: SampleShape, n_classes: usize) -> Result<NetworkPlan, StageError> {
    let architecture = stage.architecture.as_ref().expect("a checked stage has its layers");
    NetworkPlan::new(&architecture.layers, shape, n_classes).map_err(plan_error)
}

/// The first problem of a plan.
pub(super) fn plan_error(problems: Vec<PlanProblem>) -> StageError {
    let problem = problems.into_iter().next().expect("an error names a problem");
    StageError { help: problem.help, ..StageError::new(problem.message).key("architecture") }
}

/// Which rows are learned from and which only looked at, in what order.
struct Rows<'a> {
    training: &'a [u32],
    validation: &'a [u32],
    seeds: &'a Seeds,
}

/// What the epochs leave behind besides the network.
struct Run {
    epochs: Vec<EpochRow>,
    layers: Vec<LayerRow>,
    best: Best,
}

fn run_epochs(
    stage: &Train,
    network: &mut Network,
    batches: &mut Batches<'_>,
    rows: Rows<'_>,
    epochs: u32,
    context: &dyn Context,
) -> Result<Run, StageError> {
    let batch = network.batch();
    let steps_per_epoch = rows.training.len().div_ceil(batch) as u64;
    let mut plateau = Plateau::default();
    let mut run = Run { epochs: Vec::new(), layers: Vec::new(), best: Best::none() };
    let mut best_weights = None;
    let mut first_epoch = 1;
    let checkpoint = context.load_checkpoint().and_then(|bytes| Checkpoint::from_bytes(&bytes));
    if let Some(checkpoint) = checkpoint
        && network.load_state(checkpoint.step, &checkpoint.state).is_ok()
    {
        first_epoch = checkpoint.epoch + 1;
        plateau = checkpoint.plateau;
        run = Run { epochs: checkpoint.epochs, layers: checkpoint.layers, best: checkpoint.best };
        best_weights = checkpoint.best_weights;
    }
    let mut statistics: Vec<LayerStatistics> = Vec::new();
    for epoch in first_epoch..=epochs {
        if is_stopped(stage, &run.best) {
            break;
        }
        let order = rows.seeds.stream("shuffle", &[("epoch", u64::from(epoch))]).permutation(rows.training.len());
        let mut total = StepStats::default();
        let mut learning_rate = stage.learning_rate;
        for (i, chunk) in order.chunks(batch).enumerate() {
            if context.is_cancelled() {
                return Err(StageError::cancelled());
            }
            let moment = Moment { step: network.step(), steps_per_epoch, epochs: u64::from(epochs) };
            learning_rate = stage.learning_rate * stage.schedule.factor(moment, &plateau);
            let (images, labels) = batches.load(chunk.iter().map(|&at| rows.training[at]));
            let is_last = i as u64 + 1 == steps_per_epoch;
            let stats =
                network.train_step(images, Targets::Labels(labels), learning_rate, is_last.then_some(&mut statistics));
            if !stats.is_finite() {
                let message = format!("loss is not finite (epoch {epoch}, batch {})", i + 1);
                return Err(StageError::new(message)
                    .key("learning_rate")
                    .help(format!("lower `learning_rate` (now {})", stage.learning_rate)));
            }
            total.add(stats);
            if i % 16 == 15 {
                let done = u64::from(epoch - 1) * steps_per_epoch + i as u64 + 1;
                let note = format!("epoch {epoch}/{epochs}, loss {:.3}", total.loss());
                context.progress(done, u64::from(epochs) * steps_per_epoch, "batches", &note);
            }
        }
        let valid = (!rows.validation.is_empty()).then(|| evaluate(network, batches, rows.validation));
        let row = EpochRow {
            epoch,
            step: network.step(),
            learning_rate,
            train_loss: total.loss(),
            train_accuracy: total.accuracy(),
            valid_loss: valid.map(|stats| stats.loss()),
            valid_accuracy: valid.map(|stats| stats.accuracy()),
        };
        run.layers.extend(statistics.iter().map(|of| layer_row(&row, of)));
        let by_accuracy = stage.early_stopping.is_some_and(|stopping| stopping.by_accuracy);
        let score = match (row.valid_loss, row.valid_accuracy) {
            (Some(_), Some(accuracy)) if by_accuracy => -accuracy,
            (Some(loss), _) => loss,
            // Without validation the last epoch counts.
            (None, _) => -f64::from(epoch),
        };
        if run.best.watch(epoch, score) && stage.early_stopping.is_some() && valid.is_some() {
            best_weights = Some(network.save());
        }
        if let Some(loss) = row.valid_loss {
            stage.schedule.watch(loss, &mut plateau);
        }
        let note = match (row.valid_loss, row.valid_accuracy) {
            (Some(loss), Some(accuracy)) => format!(
                "epoch {epoch}/{epochs}, loss {:.3}, validation loss {loss:.3} accuracy {accuracy:.4}",
                row.train_loss
            ),
            _ => format!("epoch {epoch}/{epochs}, loss {:.3}", row.train_loss),
        };
        run.epochs.push(row);
        context.progress(u64::from(epoch) * steps_per_epoch, u64::from(epochs) * steps_per_epoch, "batches", &note);
        if epoch < epochs && context.wants_checkpoint() {
            let (step, state) = network.save_state();
            let checkpoint = Checkpoint {
                epoch,
                step,
                plateau,
                best: run.best,
                epochs: run.epochs.clone(),
                layers: run.layers.clone(),
                state,
                best_weights: best_weights.clone(),
            };
            context.save_checkpoint(&checkpoint.to_bytes());
        }
    }
    if let Some(weights) = best_weights {
        network.load(&weights).map_err(|error| StageError::new(error.to_string()))?;
    }
    Ok(run)
}

fn is_stopped(stage: &Train, best: &Best) -> bool {
    stage.early_stopping.is_some_and(|stopping| best.stale_epochs >= stopping.patience)
}

fn evaluate(network: &mut Network, batches: &mut Batches<'_>, rows: &[u32]) -> StepStats {
    let mut total = StepStats::default();
    for chunk in rows.chunks(network.batch()) {
        let (images, labels) = batches.load(chunk.iter().copied());
        total.add(network.evaluate(images, labels));
    }
    total
}

fn predict(
    network: &mut Network,
    batches: &mut Batches<'_>,
    rows: &[u32],
    context: &dyn Context,
) -> Result<Predictions, StageError> {
    let n_classes = network.plan().n_classes;
    let mut probabilities = vec![0.0; rows.len() * n_classes];
    let batch = network.batch();
    for (chunk, out) in rows.chunks(batch).zip(probabilities.chunks_mut(batch * n_classes)) {
        if context.is_cancelled() {
            return Err(StageError::cancelled());
        }
        let (images, _) = batches.load(chunk.iter().copied());
        network.predict(images, out);
    }
    Ok(Predictions::new(rows.to_vec(), n_classes, probabilities))
}

/// The lower median of the folds' best epochs.
fn median_best_epoch(task: &Task<'_>) -> Result<u32, StageError> {
    let mut epochs: Vec<u32> = task
        .inputs_with(Output::Model)
        .map(|fold| Ok(Description::read(&fold.files)?.best_epoch))
        .collect::<Result<_, StageError>>()?;
    epochs.sort_unstable();
    Ok(epochs[(epochs.len() - 1) / 2].max(1))
}

fn class_weights(weights: ClassWeights, dataset: &Dataset, rows: &[u32]) -> Option<Vec<f32>> {
    match weights {
        ClassWeights::None => None,
        ClassWeights::Balanced => {
            let n_classes = dataset.n_classes();
            let mut counts = vec![0u32; n_classes];
            rows.iter().for_each(|&row| counts[dataset.label(row as usize) as usize] += 1);
            // A class without a training image weighs nothing: it never comes up.
            let weight = |count: u32| match count {
                0 => 0.0,
                count => (rows.len() as f64 / (n_classes as f64 * f64::from(count))) as f32,
            };
            Some(counts.into_iter().map(weight).collect())
        }
    }
}

fn layer_row(epoch: &EpochRow, of: &LayerStatistics) -> LayerRow {
    LayerRow {
        epoch: epoch.epoch,
        step: epoch.step,
        layer: format!("{}.{}", of.layer, of.word),
        weight_norm: of.weight_norm,
        update_norm: of.update_norm,
        grad_norm: of.grad_norm,
        dead_fraction: of.dead_fraction,
    }
}

fn epochs_table(rows: &[EpochRow]) -> Vec<u8> {
    let mut table =
        Table::new(&["epoch", "step", "learning_rate", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy"]);
    for row in rows {
        table.row(&[
            row.epoch.into(),
            row.step.into(),
            row.learning_rate.into(),
            row.train_loss.into(),
            row.train_accuracy.into(),
            row.valid_loss.into(),
            row.valid_accuracy.into(),
        ]);
    }
    table.into_bytes()
}

fn layers_table(rows: &[LayerRow]) -> Vec<u8> {
    let mut table = Table::new(&[
        "epoch",
        "step",
        "layer",
        "weight_norm",
        "update_norm",
        "log10_ratio",
        "grad_norm",
        "dead_fraction",
    ]);
    for row in rows {
        let ratio = match (row.update_norm, row.weight_norm) {
            (Some(update), Some(weight)) if update > 0.0 && weight > 0.0 => Some(log10(update / weight)),
            _ => None,
        };
        table.row(&[
            row.epoch.into(),
            row.step.into(),
            (&row.layer).into(),
            row.weight_norm.into(),
            row.update_norm.into(),
            ratio.into(),
            row.grad_norm.into(),
            row.dead_fraction.into(),
        ]);
    }
    table.into_bytes()
}
