//! INPUT: where the network begins; may assert the input's shape.

use std::sync::Arc;

use super::{Action, Build, Inference, Layer, LayerConfig, LayerKind, ShapeError};
use crate::config::{self, Form, Section, Value};
use crate::tensor::{ImageShape, SampleShape};

pub(super) const KIND: LayerKind = LayerKind {
    word: "input",
    shorthand: "INPUT",
    meaning: "Where the network begins; may assert the shape of samples.",
    positional: &["shape"],
    read: |section| Arc::new(InputConfig::read(section)),
    example: "",
};

/// Passes the samples on. `shape = "32x32x3"` (width x height x depth, the course's order) makes any other an error; so
/// does `shape = 784` for flat features.
#[derive(Clone, Debug, PartialEq)]
pub struct InputConfig {
    /// The only shape that is accepted.
    pub shape: Option<SampleShape>,
}

impl InputConfig {
    /// Reads `shape`.
    pub fn read(section: &mut Section<'_>) -> InputConfig {
        let key = section.key("shape", "Width x height x depth that samples must have, in pixels.", "\"32x32x3\"");
        let form = || Form::Either(vec![Form::Text, Form::whole_from(1)]);
        let Some(node) = key.form(None, form) else {
            return InputConfig { shape: None };
        };
        let shape = match &node.value {
            Value::Integer(i) => usize::try_from(*i).ok().filter(|n| *n > 0).map(SampleShape::Flat),
            Value::Text { text, .. } => parse(text),
            _ => None,
        };
        match shape {
            Some(shape) => section.record("shape", config::quote(&shape.to_string()), Some(node.span)),
            None => section.expected("shape", node, "width x height x depth such as `32x32x3`"),
        }
        InputConfig { shape }
    }
}

/// `32x32x3`, `28x28` (one channel) or `784`, with `x` or `×`.
fn parse(text: &str) -> Option<SampleShape> {
    let axes: Option<Vec<usize>> =
        text.split(['x', 'X', '×']).map(|axis| axis.trim().parse().ok().filter(|n| *n > 0)).collect();
    match axes?[..] {
        [n] => Some(SampleShape::Flat(n)),
        [width, height] => Some(SampleShape::Image(ImageShape { height, width, channels: 1 })),
        [width, height, channels] => Some(SampleShape::Image(ImageShape { height, width, channels })),
        _ => None,
    }
}

impl LayerConfig for InputConfig {
    fn word(&self) -> &'static str {
        "input"
    }

    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError> {
        match self.shape {
            Some(shape) if shape != input => {
                Err(ShapeError::new(format!("the samples are {input} (width x height x depth), `input` says {shape}"))
                    .help(format!("write `INPUT({input})`, or resize the images in `ingest`")))
            }
            _ => Ok(input),
        }
    }

    fn inference(&self, _input: SampleShape) -> Result<Inference, ShapeError> {
        Ok(Inference::Identity)
    }

    fn action(&self) -> Action {
        Action::Nothing
    }

    fn build(&self, _build: &Build<'_>) -> Box<dyn Layer> {
        panic!("`input` computes nothing")
    }
}
