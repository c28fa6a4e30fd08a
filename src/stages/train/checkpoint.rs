//! What a killed training needs to go on at its last epoch with the same bytes.

use serde::{Deserialize, Serialize};

use super::rows::{EpochRow, LayerRow};
use crate::nn::network::NamedTensor;
use crate::nn::schedule::Plateau;

/// First bytes of a checkpoint: another form is none.
const MAGIC: &[u8; 16] = b"convoy train 3\n\0";

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

/// Names and shapes of tensors, in the order of their values.
type Names = Vec<(String, Vec<usize>)>;

#[derive(Serialize, Deserialize)]
struct Header {
    epoch: u32,
    step: u64,
    plateau: (u64, u64, u64),
    best: Best,
    epochs: Vec<EpochRow>,
    layers: Vec<LayerRow>,
    state: Names,
    best_weights: Option<Names>,
    snapshots: Vec<(u32, Names)>,
    best_filters: Option<usize>,
}

impl Checkpoint {
    pub fn to_bytes(&self) -> Vec<u8> {
        let names = |tensors: &[NamedTensor]| -> Names {
            tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
        };
        let Plateau { best, stale_epochs, factor } = self.plateau;
        let header = Header {
            epoch: self.epoch,
            step: self.step,
            plateau: (best.to_bits(), stale_epochs, factor.to_bits()),
            best: self.best,
            epochs: self.epochs.clone(),
            layers: self.layers.clone(),
            state: names(&self.state),
            best_weights: self.best_weights.as_deref().map(names),
            snapshots: self.snapshots.iter().map(|(epoch, weights)| (*epoch, names(weights))).collect(),
            best_filters: self.best_filters.as_ref().map(Vec::len),
        };
        // Numbers, strings and lists of them: there is nothing that JSON could refuse.
        let json = serde_json::to_vec(&header).unwrap_or_default();
        let mut bytes = MAGIC.to_vec();
        bytes.extend((json.len() as u64).to_le_bytes());
        bytes.extend(json);
        let snapshots = self.snapshots.iter().flat_map(|(_, weights)| weights);
        for tensor in self.state.iter().chain(self.best_weights.iter().flatten()).chain(snapshots) {
            bytes.extend(tensor.values.iter().flat_map(|x| x.to_le_bytes()));
        }
        bytes.extend(self.best_filters.iter().flatten().flat_map(|x| x.to_le_bytes()));
        bytes
    }

    /// `None` if the bytes are not a checkpoint of this form.
    pub fn from_bytes(bytes: &[u8]) -> Option<Checkpoint> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (len, rest) = rest.split_first_chunk::<8>()?;
        let (json, mut values) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        let header: Header = serde_json::from_slice(json).ok()?;
        let mut tensors = |names: Names| -> Option<Vec<NamedTensor>> {
            names
                .into_iter()
                .map(|(name, shape)| {
                    let len = shape.iter().try_fold(4usize, |len, axis| len.checked_mul(*axis))?;
                    let (these, others) = values.split_at_checked(len)?;
                    values = others;
                    let values = these.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                    Some(NamedTensor { name, shape, values })
                })
                .collect()
        };
        let state = tensors(header.state)?;
        let best_weights = match header.best_weights {
            Some(names) => Some(tensors(names)?),
            None => None,
        };
        let mut snapshots = Vec::with_capacity(header.snapshots.len());
        for (epoch, names) in header.snapshots {
            snapshots.push((epoch, tensors(names)?));
        }
        let best_filters = match header.best_filters {
            Some(len) => {
                let (these, others) = values.split_at_checked(len.checked_mul(4)?)?;
                values = others;
                Some(these.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
            }
            None => None,
        };
        let (best, stale_epochs, factor) = header.plateau;
        values.is_empty().then_some(Checkpoint {
            epoch: header.epoch,
            step: header.step,
            plateau: Plateau { best: f64::from_bits(best), stale_epochs, factor: f64::from_bits(factor) },
            best: header.best,
            epochs: header.epochs,
            layers: header.layers,
            state,
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
        let bytes = checkpoint.to_bytes();
        assert_eq!(Checkpoint::from_bytes(&bytes), Some(checkpoint));
        for end in [0, 10, 30, bytes.len() - 1] {
            assert_eq!(Checkpoint::from_bytes(&bytes[..end]), None);
        }
        assert_eq!(Checkpoint::from_bytes(&[&bytes[..], &[0]].concat()), None);
    }
}
