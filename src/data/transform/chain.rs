//! Applying fitted transforms to one sample while it is loaded.
//!
//! Neighbouring affine steps are fused in double precision into one `(x - subtract) * multiply + add`, rounded to single
//! precision once; applying it is three rounded operations per value (never a fused multiply-add, so that every
//! machine agrees and the loop vectorises everywhere). The first one is applied while stored values are converted.

use super::{Affine, Fitted, standardize_image};
use crate::data::feed::Values;
use crate::tensor::SampleShape;

/// Shortest run of numbers that one pass of the loop goes over, in values: long enough to vectorise.
const MIN_RUN: usize = 64;

/// Fitted transforms in order, ready to be applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    fitted: Vec<Fitted>,
    passes: Vec<Pass>,
}

#[derive(Clone, Debug, PartialEq)]
enum Pass {
    Affine(Run),
    StandardizeImage,
}

/// The numbers of an affine step for a run of values; a sample is a whole number of runs, but for the last one.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    subtract: Vec<f32>,
    multiply: Vec<f32>,
    add: Vec<f32>,
}

impl Chain {
    /// The transforms `fitted`, for samples of `shape`.
    ///
    /// # Panics
    /// If they were fitted on samples of another shape.
    pub fn new(shape: SampleShape, fitted: Vec<Fitted>) -> Chain {
        let mut passes = Vec::new();
        let mut open: Option<Affine> = None;
        for step in &fitted {
            match step {
                Fitted::Affine(affine) => {
                    let counts = [affine.subtract.len(), affine.multiply.len(), affine.add.len()];
                    let n = affine.per.count(shape);
                    assert_eq!(counts, [n; 3], "numbers of a transform per {}, shape {shape}", affine.per.word());
                    open = Some(match open {
                        Some(first) => fused(&first, affine, shape),
                        None => affine.clone(),
                    });
                }
                Fitted::StandardizeImage => {
                    passes.extend(open.take().map(|affine| Pass::Affine(run(&affine))));
                    passes.push(Pass::StandardizeImage);
                }
            }
        }
        passes.extend(open.map(|affine| Pass::Affine(run(&affine))));
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
                    Values::U8(values) => run.convert(values, out, |x| f32::from(x)),
                    Values::U16(values) => run.convert(values, out, |x| f32::from(u16::from_le_bytes(x))),
                    Values::F32(values) => run.convert(values, out, f32::from_le_bytes),
                }
                rest
            }
            _ => {
                match values {
                    Values::U8(values) => convert(values, out, |x| f32::from(x)),
                    Values::U16(values) => convert(values, out, |x| f32::from(u16::from_le_bytes(x))),
                    Values::F32(values) => convert(values, out, f32::from_le_bytes),
                }
                &self.passes[..]
            }
        };
        for pass in rest {
            match pass {
                Pass::Affine(run) => run.apply(out),
                Pass::StandardizeImage => standardize_image::apply(out),
            }
        }
    }
}

fn convert<T: Copy>(values: &[T], out: &mut [f32], to_f32: impl Fn(T) -> f32) {
    for (out, &x) in out.iter_mut().zip(values) {
        *out = to_f32(x);
    }
}

impl Run {
    fn convert<T: Copy>(&self, values: &[T], out: &mut [f32], to_f32: impl Fn(T) -> f32) {
        let n = self.subtract.len();
        for (out, values) in out.chunks_mut(n).zip(values.chunks(n)) {
            let numbers = self.subtract.iter().zip(&self.multiply).zip(&self.add);
            for ((out, &x), ((subtract, multiply), add)) in out.iter_mut().zip(values).zip(numbers) {
                *out = (to_f32(x) - subtract) * multiply + add;
            }
        }
    }

    fn apply(&self, out: &mut [f32]) {
        for out in out.chunks_mut(self.subtract.len()) {
            let numbers = self.subtract.iter().zip(&self.multiply).zip(&self.add);
            for (out, ((subtract, multiply), add)) in out.iter_mut().zip(numbers) {
                *out = (*out - subtract) * multiply + add;
            }
        }
    }
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

fn run(affine: &Affine) -> Run {
    let n = affine.subtract.len();
    let length = n * MIN_RUN.div_ceil(n);
    let repeat = |numbers: &[f64]| (0..length).map(|i| numbers[i % n] as f32).collect();
    Run { subtract: repeat(&affine.subtract), multiply: repeat(&affine.multiply), add: repeat(&affine.add) }
}
