//! FC: a fully-connected (dense) layer. Images are flattened by the way.

use std::sync::Arc;

use super::{
    Backward, Build, Forward, Fusion, Inference, Layer, LayerConfig, LayerKind, Pass, Reach, ShapeError, TensorSpec,
    WeightKeys, Weights, epilogue,
};
use crate::config::Section;
use crate::engine;
use crate::tensor::SampleShape;

pub(super) const KIND: LayerKind = LayerKind {
    word: "fc",
    shorthand: "FC",
    meaning: "A fully-connected layer.",
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
        let units = section
            .key("units", "Outputs; of the last layer the number of classes unless it says otherwise.", "128")
            .whole(1..=16_777_216)
            .optional()
            .map(|units| units as usize);
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

    fn inference(&self, _input: SampleShape) -> Result<Inference, ShapeError> {
        Ok(Inference::Dense)
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

    fn fusion(&self) -> Fusion {
        Fusion { relu_after: true, relu_before: true, ..Fusion::default() }
    }

    fn build(&self, build: &Build<'_>) -> Box<dyn Layer> {
        Box::new(Fc {
            plan: engine::Dense::new(build.engine, build.batch, build.input.len(), build.output.len()),
            weights: Weights::new(build),
            activation: epilogue(build.relu_after),
            relu_before: build.relu_before,
        })
    }
}

struct Fc {
    plan: engine::Dense,
    weights: Weights,
    activation: engine::Activation,
    relu_before: bool,
}

impl Layer for Fc {
    fn training_bytes(&mut self) -> usize {
        self.plan.training_bytes()
    }

    fn forward(&mut self, pass: &Pass<'_>, values: Forward<'_>) {
        let (weights, bias) = self.weights.of(values.parameters);
        self.plan.forward(pass.n, values.input(), weights, bias, self.activation, values.output);
    }

    fn backward(&mut self, pass: &Pass<'_>, values: Backward<'_>) {
        let (grad_weights, grad_bias) = self.weights.of_mut(values.grad_parameters);
        self.plan.backward_weights(pass.n, values.input, values.grad_output, grad_weights, grad_bias);
        if let Some(grad_input) = values.grad_input {
            let (weights, _) = self.weights.of(values.parameters);
            let mask = self.relu_before.then_some(values.input);
            self.plan.backward_data(pass.n, values.grad_output, weights, mask, grad_input);
        }
    }
}
