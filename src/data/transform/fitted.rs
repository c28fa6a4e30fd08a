//! Fitted transforms, and how they are applied to one sample while it is loaded.
//!
//! Neighbouring affine steps are fused in double precision into one `(x - subtract) * multiply + add`, rounded to
//! single precision once; applying it is three rounded operations per value (never a fused multiply-add, so that every
//! machine agrees and the loop vectorises everywhere). The first one is applied while stored values are converted.

use crate::config::Section;
use crate::data::samples::Values;
use crate::engine::{self, AffineRun};
use crate::tensor::SampleShape;

/// Shortest run of numbers that one pass of the loop goes over, in values: long enough to vectorise.
const MIN_RUN: usize = 64;

/// What shares one statistic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Per {
    /// All values of all samples.
    Global,
    /// The values of one channel; of a flat sample, each feature.
    Channel,
    /// Each value of a sample.
    Pixel,
}

impl Per {
    /// The words of the manifest.
    const WORDS: [(&'static str, &'static str, Per); 3] = [
        ("pixel", "Each value of a sample.", Per::Pixel),
        ("channel", "The values of one channel; of flat samples, each feature.", Per::Channel),
        ("global", "All values of all samples.", Per::Global),
    ];

    /// Reads the key `per`, by default "channel".
    pub fn read(section: &mut Section<'_>) -> Per {
        section.key("per", "What shares one statistic.", "\"pixel\"").short().word_or(&Per::WORDS, 1)
    }

    /// The value of this word.
    pub fn parse(word: &str) -> Option<Per> {
        Per::WORDS.iter().find(|(known, ..)| *known == word).map(|(.., per)| *per)
    }

    /// The word in the manifest.
    pub fn word(self) -> &'static str {
        match self {
            Per::Pixel => "pixel",
            Per::Channel => "channel",
            Per::Global => "global",
        }
    }

    /// How many statistics that is for samples of `shape`.
    pub fn count(self, shape: SampleShape) -> usize {
        match (self, shape) {
            (Per::Global, _) => 1,
            (Per::Channel, SampleShape::Image(image)) => image.channels,
            _ => shape.len(),
        }
    }
}

/// A fitted step.
#[derive(Clone, Debug, PartialEq)]
pub enum Fitted {
    /// `(x - subtract) * multiply + add`.
    Affine(Affine),
    /// Each image by its own mean and deviation; nothing is learned.
    StandardizeImage,
}

/// `(x - subtract) * multiply + add`, by pixel, by channel, or for all values alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// What shares one triple of numbers.
    pub per: Per,
    /// Subtracted first.
    pub subtract: Vec<f64>,
    /// Then multiplied; never 0.
    pub multiply: Vec<f64>,
    /// Then added.
    pub add: Vec<f64>,
}

impl Affine {
    /// The transform that does nothing, `n` numbers of each kind.
    pub fn identity(per: Per, n: usize) -> Affine {
        Affine { per, subtract: vec![0.0; n], multiply: vec![1.0; n], add: vec![0.0; n] }
    }
}

/// Fitted transforms in order, ready to be applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    fitted: Vec<Fitted>,
    passes: Vec<Pass>,
}

#[derive(Clone, Debug, PartialEq)]
enum Pass {
    /// A sample is a whole number of runs, but for the last one.
    Affine(AffineRun),
    StandardizeImage,
}

impl Chain {
    /// The transforms `fitted`, for samples of `shape`.
    ///
    /// # Panics
    /// If they were fitted on samples of another shape.
    pub fn new(shape: SampleShape, fitted: Vec<Fitted>) -> Chain {
        let pass = |step: Fitted| match step {
            Fitted::Affine(affine) => Pass::Affine(run(&affine)),
            Fitted::StandardizeImage => Pass::StandardizeImage,
        };
        let passes = fuse(shape, &fitted).into_iter().map(pass).collect();
        Chain { fitted, passes }
    }

    /// The transforms.
    pub fn fitted(&self) -> &[Fitted] {
        &self.fitted
    }

    /// Converts one sample and transforms it.
    ///
    /// # Panics
    /// If `out` has not one value for each of `values`.
    pub fn apply(&self, values: Values<'_>, out: &mut [f32]) {
        assert_eq!(values.len(), out.len(), "values of a sample");
        let rest = match self.passes.split_first() {
            Some((Pass::Affine(run), rest)) => {
                match values {
                    Values::U8(values) => engine::affine(values, run, out),
                    Values::U16(values) => engine::affine(values, run, out),
                    Values::F32(values) => engine::affine(values, run, out),
                }
                rest
            }
            _ => {
                values.copy_to(out);
                &self.passes[..]
            }
        };
        pass_over(rest, out);
    }

    /// Transforms one sample that is in single precision already: the same bits as [`Chain::apply`] of its values.
    pub fn apply_in_place(&self, sample: &mut [f32]) {
        pass_over(&self.passes, sample);
    }
}

fn pass_over(passes: &[Pass], sample: &mut [f32]) {
    for pass in passes {
        match pass {
            Pass::Affine(run) => engine::affine_in_place(run, sample),
            Pass::StandardizeImage => standardize_image(sample),
        }
    }
}

/// The steps that a chain applies: neighbouring affine ones are one. Their numbers are rounded to single precision then.
///
/// # Panics
/// If one was fitted on samples of another shape.
pub fn fuse(shape: SampleShape, fitted: &[Fitted]) -> Vec<Fitted> {
    let mut steps: Vec<Fitted> = Vec::new();
    for step in fitted {
        if let Fitted::Affine(affine) = step {
            let counts = [affine.subtract.len(), affine.multiply.len(), affine.add.len()];
            let n = affine.per.count(shape);
            assert_eq!(counts, [n; 3], "numbers of a transform per {}, shape {shape}", affine.per.word());
            if let Some(Fitted::Affine(first)) = steps.last_mut() {
                *first = fused(first, affine, shape);
                continue;
            }
        }
        steps.push(step.clone());
    }
    steps
}

/// Both steps as one, at the finer of their granularities.
fn fused(first: &Affine, second: &Affine, shape: SampleShape) -> Affine {
    let per = first.per.max(second.per);
    let n = per.count(shape);
    let mut out = Affine::identity(per, n);
    for i in 0..n {
        // Channels are innermost, so the index modulo the count is the channel (or 0 for a global number).
        let (a, b) = (i % first.subtract.len(), i % second.subtract.len());
        // ((x - s1) m1 + a1 - s2) m2 + a2 = (x - (s1 - (a1 - s2) / m1)) m1 m2 + a2
        let shift = first.add[a] - second.subtract[b];
        out.subtract[i] = if shift == 0.0 { first.subtract[a] } else { first.subtract[a] - shift / first.multiply[a] };
        out.multiply[i] = first.multiply[a] * second.multiply[b];
        out.add[i] = second.add[b];
    }
    out
}

fn run(affine: &Affine) -> AffineRun {
    let n = affine.subtract.len();
    let length = n * MIN_RUN.div_ceil(n);
    let repeat = |numbers: &[f64]| (0..length).map(|i| numbers[i % n] as f32).collect();
    AffineRun { subtract: repeat(&affine.subtract), multiply: repeat(&affine.multiply), add: repeat(&affine.add) }
}

/// Sums `f(x)` in double precision: sixteen lanes, then one fixed tree.
fn sum(values: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0f64; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(f64::from(x));
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(f64::from(x));
    }
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Standardises the values of one image in place.
fn standardize_image(values: &mut [f32]) {
    let n = values.len() as f64;
    let mean = sum(values, |x| x) / n;
    let deviation = (sum(values, |x| (x - mean) * (x - mean)) / n).sqrt();
    let (mean, factor) = (mean as f32, (1.0 / deviation.max(1.0 / n.sqrt())) as f32);
    for x in values {
        *x = (*x - mean) * factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ImageShape;

    const SHAPE: SampleShape = SampleShape::Image(ImageShape { height: 7, width: 5, channels: 3 });

    fn affine(per: Per, seed: f64) -> Affine {
        let numbers = |from: f64, step: f64| (0..per.count(SHAPE)).map(|i| from + step * (i % 11) as f64).collect();
        Affine { per, subtract: numbers(seed, 0.7), multiply: numbers(0.3 * seed, 0.01), add: numbers(-seed, 0.2) }
    }

    /// Step by step, in double precision.
    fn naive(steps: &[Fitted], values: &[f64]) -> Vec<f64> {
        let mut out = values.to_vec();
        for step in steps {
            match step {
                Fitted::Affine(Affine { subtract, multiply, add, .. }) => {
                    let n = subtract.len();
                    for (i, x) in out.iter_mut().enumerate() {
                        *x = (*x - subtract[i % n]) * multiply[i % n] + add[i % n];
                    }
                }
                Fitted::StandardizeImage => {
                    let n = out.len() as f64;
                    let mean = out.iter().fold(0.0, |sum, x| sum + x) / n;
                    let variance = out.iter().fold(0.0, |sum, x| sum + (x - mean) * (x - mean)) / n;
                    let deviation = variance.sqrt().max(1.0 / n.sqrt());
                    out.iter_mut().for_each(|x| *x = (*x - mean) / deviation);
                }
            }
        }
        out
    }

    #[test]
    fn fused_steps_do_what_the_steps_do_one_by_one() {
        let bytes: Vec<u8> = (0..SHAPE.len()).map(|i| (i * 37 % 256) as u8).collect();
        let u16s: Vec<[u8; 2]> = bytes.iter().map(|x| u16::from(*x).to_le_bytes()).collect();
        let f32s: Vec<[u8; 4]> = bytes.iter().map(|x| f32::from(*x).to_le_bytes()).collect();
        let exact: Vec<f64> = bytes.iter().map(|x| f64::from(*x)).collect();
        let [pixel, channel, global] =
            [(Per::Pixel, 1.0), (Per::Channel, 2.0), (Per::Global, 3.0)].map(|(p, s)| Fitted::Affine(affine(p, s)));
        let image = Fitted::StandardizeImage;
        for steps in [
            vec![],
            vec![pixel.clone()],
            vec![channel.clone()],
            vec![global.clone()],
            vec![image.clone()],
            vec![global.clone(), pixel.clone()],
            vec![pixel.clone(), channel.clone(), global.clone()],
            vec![channel.clone(), image.clone(), global.clone(), channel],
            vec![image.clone(), image, pixel, global],
        ] {
            let expected = naive(&steps, &exact);
            let chain = Chain::new(SHAPE, steps);
            let mut outs = [Values::U8(&bytes), Values::U16(&u16s), Values::F32(&f32s)].map(|values| {
                let mut out = vec![f32::NAN; SHAPE.len()];
                chain.apply(values, &mut out);
                out
            });
            assert!(outs[0] == outs[1] && outs[0] == outs[2], "stored forms differ");
            for (got, expected) in outs[0].iter_mut().zip(expected) {
                // A few roundings in single precision of values up to a thousand.
                assert!((f64::from(*got) - expected).abs() < 1e-4 * expected.abs().max(1.0), "{got}, not {expected}");
            }
        }
    }

    #[test]
    fn an_image_of_one_colour_is_standardised_to_nothing() {
        let chain = Chain::new(SHAPE, vec![Fitted::StandardizeImage]);
        let mut out = vec![f32::NAN; SHAPE.len()];
        chain.apply(Values::U8(&vec![200; SHAPE.len()]), &mut out);
        assert_eq!(out, vec![0.0; SHAPE.len()]);
    }
}
