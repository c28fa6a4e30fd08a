//! The rows of `epochs.csv` and `layers.csv`: what a training says of itself as it goes on.

use serde::{Deserialize, Serialize};

use crate::artifact::table::Table;
use crate::elementary::log10;
use crate::nn::training::LayerStatistics;

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

/// A row of `layers.csv`: an epoch's last step with a whole batch, one layer.
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

impl LayerRow {
    /// Of what a step did to a layer.
    pub(super) fn new(epoch: u32, step: u64, of: &LayerStatistics) -> LayerRow {
        LayerRow {
            epoch,
            step,
            layer: format!("{}.{}", of.layer, of.word),
            weight_norm: of.weight_norm,
            update_norm: of.update_norm,
            grad_norm: of.grad_norm,
            dead_fraction: of.dead_fraction,
        }
    }
}

/// `epochs.csv`.
pub(super) fn epochs_table(rows: &[EpochRow]) -> Vec<u8> {
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

/// `layers.csv`.
pub(super) fn layers_table(rows: &[LayerRow]) -> Vec<u8> {
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
