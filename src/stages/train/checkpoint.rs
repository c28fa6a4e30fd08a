//! What a killed training needs to go on at its last epoch with the same bytes.

use std::io;

use serde::{Deserialize, Serialize};

use super::rows::{EpochRow, LayerRow};
use crate::artifact::tensors::{Tensors, TensorsWriter};
use crate::artifact::{Bytes, Files};
use crate::files::document;
use crate::nn::network::NamedTensor;
use crate::nn::schedule::Plateau;

/// The key in the file's metadata that says what it is, and its value: another form is none.
const FORM: &str = "convoy checkpoint of a training";
const VERSION: &str = "4";

/// A training run between two epochs.
#[derive(Debug, PartialEq)]
pub(super) struct Checkpoint {
    /// Epochs done.
    pub epoch: u32,
    /// Steps done.
    pub step: u64,
    /// What the plateau schedule remembers.
    pub plateau: Plateau,
    /// The best epoch so far, its score, and epochs since.
    pub best: Best,
    /// The learning curves so far.
    pub epochs: Vec<EpochRow>,
    /// The layers' numbers so far.
    pub layers: Vec<LayerRow>,
    /// Weights, statistics and moments.
    pub state: Vec<NamedTensor>,
    /// The weights of the best epoch, where they will be restored.
    pub best_weights: Option<Vec<NamedTensor>>,
    /// The snapshots so far: their epochs and weights.
    pub snapshots: Vec<(u32, Vec<NamedTensor>)>,
    /// The first layer's weights after the best epoch, as they will be drawn.
    pub best_filters: Option<Vec<f32>>,
}

/// The best epoch so far, by the validation rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Best {
    /// Its number, from 1; 0 before the first.
    pub epoch: u32,
    /// Lower is better: the loss, or minus the accuracy. Its bits, since JSON has no infinity.
    score: u64,
    /// Epochs without improvement.
    pub stale_epochs: u32,
}

impl Best {
    /// Before the first epoch.
    pub fn none() -> Best {
        Best { epoch: 0, score: f64::INFINITY.to_bits(), stale_epochs: 0 }
    }

    /// Tells it an epoch's score; returns whether it is the best.
    pub fn watch(&mut self, epoch: u32, score: f64) -> bool {
        let best = f64::from_bits(self.score);
        if score < best || best.is_nan() || self.epoch == 0 {
            *self = Best { epoch, score: score.to_bits(), stale_epochs: 0 };
            return true;
        }
        self.stale_epochs += 1;
        false
    }
}

/// What a checkpoint has beside tensors.
#[derive(Serialize, Deserialize)]
struct Header {
    epoch: u32,
    step: u64,
    plateau: (u64, u64, u64),
    best: Best,
    epochs: Vec<EpochRow>,
    layers: Vec<LayerRow>,
    /// Names of tensors, in order.
    state: Vec<String>,
    best_weights: Option<Vec<String>>,
    snapshots: Vec<(u32, Vec<String>)>,
    has_best_filters: bool,
}

/// What the names of tensors begin with: those of the state, of the best epoch, of the `n`-th snapshot.
const STATE: &str = "state.";
const BEST: &str = "best.";
fn snapshot(n: usize) -> String {
    format!("snapshot.{n}.")
}
/// The tensors that are one each: the header, as JSON, and the filters.
const HEADER: &str = "header";
const FILTERS: &str = "best_filters";

impl Checkpoint {
    /// A safetensors file.
    ///
    /// # Errors
    /// If there are more tensors than such a file can have.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut file = TensorsWriter::new();
        let mut put = |prefix: &str, tensors: &[NamedTensor]| -> Vec<String> {
            for tensor in tensors {
                file.f32(&format!("{prefix}{}", tensor.name), &tensor.shape, &tensor.values);
            }
            tensors.iter().map(|tensor| tensor.name.clone()).collect()
        };
        let Plateau { best, stale_epochs, factor } = self.plateau;
        let header = Header {
            epoch: self.epoch,
            step: self.step,
            plateau: (best.to_bits(), stale_epochs, factor.to_bits()),
            best: self.best,
            epochs: self.epochs.clone(),
            layers: self.layers.clone(),
            state: put(STATE, &self.state),
            best_weights: self.best_weights.as_deref().map(|weights| put(BEST, weights)),
            snapshots: (self.snapshots.iter().enumerate())
                .map(|(n, (epoch, weights))| (*epoch, put(&snapshot(n), weights)))
                .collect(),
            has_best_filters: self.best_filters.is_some(),
        };
        if let Some(filters) = &self.best_filters {
            file.f32(FILTERS, &[filters.len()], filters);
        }
        file.u8(HEADER, &document::to_bytes(&header)?);
        file.to_bytes(Some((FORM, VERSION.to_owned())))
    }

    /// `None` if the bytes are not a checkpoint of this form.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Checkpoint> {
        let files = Files([(FORM.to_owned(), Bytes::new(bytes))].into());
        if Tensors::metadata(&files, FORM).ok()?.get(FORM)? != VERSION {
            return None;
        }
        let file = Tensors::open(&files, FORM).ok()?;
        let header: Header = document::from_bytes(&file.u8(HEADER).ok()?, None).ok()?;
        let tensors = |prefix: &str, names: Vec<String>| -> Option<Vec<NamedTensor>> {
            let tensor = |name: String| {
                let (shape, values) = file.f32_of_any_shape(&format!("{prefix}{name}")).ok()?;
                Some(NamedTensor { name, shape, values })
            };
            names.into_iter().map(tensor).collect()
        };
        let best_weights = match header.best_weights {
            Some(names) => Some(tensors(BEST, names)?),
            None => None,
        };
        let snapshots = (header.snapshots.into_iter().enumerate())
            .map(|(n, (epoch, names))| Some((epoch, tensors(&snapshot(n), names)?)))
            .collect::<Option<Vec<_>>>()?;
        let best_filters = match header.has_best_filters {
            true => Some(file.f32(FILTERS, 1).ok()?.1),
            false => None,
        };
        let (best, stale_epochs, factor) = header.plateau;
        Some(Checkpoint {
            epoch: header.epoch,
            step: header.step,
            plateau: Plateau { best: f64::from_bits(best), stale_epochs, factor: f64::from_bits(factor) },
            best: header.best,
            epochs: header.epochs,
            layers: header.layers,
            state: tensors(STATE, header.state)?,
            best_weights,
            snapshots,
            best_filters,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_survives_and_a_damaged_one_is_none() {
        let tensor = |name: &str, values: &[f32]| NamedTensor {
            name: name.to_owned(),
            shape: vec![1, values.len()],
            values: values.to_vec(),
        };
        let mut best = Best::none();
        assert!(best.watch(1, 0.1 + 0.2));
        assert!(!best.watch(2, f64::NAN));
        let checkpoint = Checkpoint {
            epoch: 2,
            step: 17,
            plateau: Plateau::default(),
            best,
            epochs: vec![EpochRow {
                epoch: 1,
                step: 8,
                learning_rate: 0.1,
                train_loss: 2.0 / 3.0,
                train_accuracy: 0.5,
                valid_loss: None,
                valid_accuracy: Some(1.0 / 3.0),
            }],
            layers: Vec::new(),
            state: vec![tensor("a", &[1.0, -0.0, f32::MIN_POSITIVE]), tensor("b", &[])],
            best_weights: Some(vec![tensor("a", &[3.0])]),
            snapshots: vec![(1, vec![tensor("a", &[5.0, 6.0])]), (2, vec![tensor("a", &[7.0])])],
            best_filters: Some(vec![0.5, -2.0]),
        };
        let bytes = checkpoint.to_bytes().unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("snapshot.0.a").unwrap().shape(), [1, 2]);
        assert_eq!(Checkpoint::from_bytes(bytes.clone()), Some(checkpoint));
        for end in 0..bytes.len() {
            assert_eq!(Checkpoint::from_bytes(bytes[..end].to_vec()), None, "cut at {end}");
        }
        assert_eq!(Checkpoint::from_bytes([&bytes[..], &[0]].concat()), None);
        let newer = [FORM.as_bytes(), b"\":\"", VERSION.as_bytes()].concat();
        let at = bytes.windows(newer.len()).position(|bytes| bytes == newer).unwrap();
        let mut other = bytes;
        other[at + newer.len() - 1] += 1;
        assert_eq!(Checkpoint::from_bytes(other), None, "another form");
    }
}
