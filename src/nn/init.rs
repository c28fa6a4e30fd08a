//! Initialisers: how weights start, addressed by (seed, layer, tensor, element).

use crate::config::{Bounds, Section};

/// How weights start. `fan_in` is the number of inputs of one output value, `fan_out` the outputs one input reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initializer {
    /// `normal * sqrt(2 / fan_in)` (He et al. 2015); the default.
    HeNormal,
    /// Uniform in `±sqrt(6 / fan_in)` (He et al. 2015).
    HeUniform,
    /// `normal * sqrt(2 / (fan_in + fan_out))` (Glorot and Bengio 2010).
    GlorotNormal,
    /// Uniform in `±sqrt(6 / (fan_in + fan_out))` (Glorot and Bengio 2010).
    GlorotUniform,
    /// All the same.
    Constant(f32),
}

/// The words of a manifest.
pub const WORDS: &[&str] = &["he-normal", "he-uniform", "glorot-normal", "glorot-uniform", "constant"];

impl Initializer {
    /// Reads the network's `initializer` ["he-normal"]: a word, or `{ constant = 0.1 }`.
    pub fn read(section: &mut Section<'_>) -> Initializer {
        section.choice("initializer", WORDS, Some("he-normal"), read_choice).unwrap_or(Initializer::HeNormal)
    }

    /// Reads a layer's `initializer`: the network's where there is none.
    pub fn read_optional(section: &mut Section<'_>) -> Option<Initializer> {
        if section.raw("initializer").is_none() {
            section.record("initializer", "none", None);
            return None;
        }
        section.choice("initializer", WORDS, None, read_choice)
    }
}

fn read_choice(word: &str, section: &mut Section<'_>) -> Initializer {
    match word {
        "he-uniform" => Initializer::HeUniform,
        "glorot-normal" => Initializer::GlorotNormal,
        "glorot-uniform" => Initializer::GlorotUniform,
        "constant" => Initializer::Constant(section.number("constant", Bounds::Finite, Some(0.0)) as f32),
        _ => Initializer::HeNormal,
    }
}
