//! FC: a fully-connected (dense) layer. Images are flattened by the way.

use std::sync::Arc;

use super::{LayerConfig, LayerKind, Reach, ShapeError, TensorSpec, WeightKeys};
use crate::config::Section;
use crate::tensor::SampleShape;

pub(super) const KIND: LayerKind = LayerKind {
    word: "fc",
    shorthand: "FC",
    positional: &["units"],
    read: |section| Arc::new(FcConfig::read(section)),
    example: "units=5",
};

/// Multiplies each sample, as a row, with a matrix `[inputs, units]` and adds a bias.
#[derive(Clone, Debug, PartialEq)]
pub struct FcConfig {
    /// Number of outputs; the last FC of a network has as many as there are classes unless it says otherwise.
    pub units: Option<usize>,
    pub(super) keys: WeightKeys,
}

impl FcConfig {
    /// Reads `units`, `bias`, `initializer`, `l2`.
    pub fn read(section: &mut Section<'_>) -> FcConfig {
        let units = section.optional_whole("units", 1..=16_777_216).map(|units| units as usize);
        FcConfig { units, keys: WeightKeys::read(section) }
    }
}

impl LayerConfig for FcConfig {
    fn word(&self) -> &'static str {
        "fc"
    }

    fn output_shape(&self, _input: SampleShape) -> Result<SampleShape, ShapeError> {
        match self.units {
            Some(units) => Ok(SampleShape::Flat(units)),
            None => Err(ShapeError::new("this `fc` needs `units`; only the last `fc` takes the number of classes")
                .help("give it a width: `FC(128)` or `{ fc = { units = 128 } }`")),
        }
    }

    fn tensors(&self, input: SampleShape) -> Vec<TensorSpec> {
        let (inputs, units) = (input.len(), self.units.unwrap_or(0));
        self.keys.tensors(vec![inputs, units], inputs, units, vec![units])
    }

    fn multiply_adds(&self, input: SampleShape) -> u64 {
        input.len() as u64 * self.units.unwrap_or(0) as u64
    }

    fn reach(&self, _input: SampleShape) -> Reach {
        Reach::Whole
    }

    fn with_classes(&self, n_classes: usize) -> Option<Arc<dyn LayerConfig>> {
        self.units.is_none().then(|| Arc::new(FcConfig { units: Some(n_classes), ..self.clone() }) as _)
    }
}
