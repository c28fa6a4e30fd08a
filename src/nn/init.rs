//! Initialisers: how weights start, addressed by (seed, layer, tensor, element).

use crate::config::{Bounds, Choice, Section};
use crate::rng::Stream;

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

/// The choices of a manifest.
pub const CHOICES: &[Choice<Initializer>] = &[
    Choice {
        word: "he-normal",
        meaning: "Normal, of variance 2 / fan_in (He et al. 2015).",
        read: |_| Initializer::HeNormal,
    },
    Choice {
        word: "he-uniform",
        meaning: "Uniform, of variance 2 / fan_in (He et al. 2015).",
        read: |_| Initializer::HeUniform,
    },
    Choice {
        word: "glorot-normal",
        meaning: "Normal, of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010).",
        read: |_| Initializer::GlorotNormal,
    },
    Choice {
        word: "glorot-uniform",
        meaning: "Uniform, of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010).",
        read: |_| Initializer::GlorotUniform,
    },
    Choice {
        word: "constant",
        meaning: "All the same.",
        read: |section| {
            let value = section.key("constant", "The value of every weight.", "0.1").number(Bounds::Finite).or(0.0);
            Initializer::Constant(value as f32)
        },
    },
];

impl Initializer {
    /// Reads the network's `initializer` ["he-normal"]: a word, or `{ constant = 0.1 }`.
    pub fn read(section: &mut Section<'_>) -> Initializer {
        section
            .key("initializer", "How weights start.", "\"glorot-uniform\"")
            .choice(CHOICES, Some("he-normal"))
            .unwrap_or(Initializer::HeNormal)
    }

    /// Reads a layer's `initializer`: the network's where there is none.
    pub fn read_optional(section: &mut Section<'_>) -> Option<Initializer> {
        section
            .key("initializer", "How this layer's weights start; absent: the network's.", "\"he-uniform\"")
            .choice(CHOICES, None)
    }
}

impl Initializer {
    /// Fills `values` (element `i` of the tensor is draw `i` of `stream`, times `gain`; a constant stays what it is).
    pub fn fill(self, gain: f64, fan_in: usize, fan_out: usize, stream: &Stream, values: &mut [f32]) {
        let (fan_in, fan_out) = (fan_in.max(1) as f64, fan_out.max(1) as f64);
        let (scale, is_normal) = match self {
            Initializer::HeNormal => ((2.0 / fan_in).sqrt(), true),
            Initializer::HeUniform => ((6.0 / fan_in).sqrt(), false),
            Initializer::GlorotNormal => ((2.0 / (fan_in + fan_out)).sqrt(), true),
            Initializer::GlorotUniform => ((6.0 / (fan_in + fan_out)).sqrt(), false),
            Initializer::Constant(value) => return values.fill(value),
        };
        let scale = scale * gain;
        let mut draws = [0.0; 256];
        for (i, block) in values.chunks_mut(draws.len()).enumerate() {
            let first = (i * draws.len()) as u64;
            let draws = &mut draws[..block.len()];
            if is_normal {
                stream.fill_normal(first, draws);
            } else {
                stream.fill_uniform(first, draws);
                draws.iter_mut().for_each(|u| *u = 2.0 * *u - 1.0);
            }
            for (value, draw) in block.iter_mut().zip(draws) {
                *value = (*draw * scale) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_those_of_the_papers() {
        let stream = Stream::new(1, "init", &[]);
        for (initializer, deviation, most) in [
            (Initializer::HeNormal, (2.0f64 / 50.0).sqrt(), 2.0),
            (Initializer::HeUniform, (2.0f64 / 50.0).sqrt(), (6.0f64 / 50.0).sqrt()),
            (Initializer::GlorotNormal, (2.0f64 / 120.0).sqrt(), 2.0),
            (Initializer::GlorotUniform, (2.0f64 / 120.0).sqrt(), (6.0f64 / 120.0).sqrt()),
        ] {
            let mut values = vec![0.0f32; 20_000];
            initializer.fill(1.0, 50, 70, &stream, &mut values);
            let n = values.len() as f64;
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
            let square = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / n;
            assert!(mean.abs() < 5.0 * deviation / n.sqrt(), "{initializer:?}: mean {mean}");
            assert!((square.sqrt() / deviation - 1.0).abs() < 0.03, "{initializer:?}: deviation {}", square.sqrt());
            assert!(values.iter().all(|x| f64::from(x.abs()) <= most));
        }
        let mut values = [0.0; 3];
        Initializer::Constant(0.1).fill(0.5, 1, 1, &stream, &mut values);
        assert_eq!(values, [0.1; 3]);
    }
}
