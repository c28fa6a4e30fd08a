//! Activation functions of single values, in place, and their derivatives in terms of the output.

use super::Engine;
use super::versions::{PIECE, versions};
use crate::elementary::exp32;

/// A function of single values. The derivative at `x` follows from the value at `x`, so that it can be applied in
/// place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pointwise {
    /// `max(x, 0)`; the derivative at 0 is 0. NaN stays NaN.
    Relu,
    /// `x` where `x > 0`, else `slope * x`, with `0 <= slope < 1`.
    Leaky(f32),
    /// `x` where `x > 0`, else `alpha * (exp(x) - 1)`, with `alpha >= 0`.
    Elu(f32),
}

/// Applies `function` to each value, in place.
pub fn activate(engine: &Engine, function: Pointwise, values: &mut [f32]) {
    let isa = engine.isa();
    engine.for_each_chunk(values, PIECE, |_, piece| match function {
        Pointwise::Relu => relu(isa, piece),
        Pointwise::Leaky(slope) => leaky(isa, slope, piece),
        Pointwise::Elu(alpha) => elu(isa, alpha, piece),
    });
}

/// Multiplies each gradient by the derivative of `function`, given the function's value there.
///
/// # Panics
/// If the lengths differ.
pub fn activate_backward(engine: &Engine, function: Pointwise, output: &[f32], grad: &mut [f32]) {
    assert_eq!(output.len(), grad.len(), "values and gradients");
    let isa = engine.isa();
    engine.for_each_chunk(grad, PIECE, |i, piece| {
        let output = &output[i * PIECE..][..piece.len()];
        match function {
            Pointwise::Relu => relu_backward(isa, output, piece),
            Pointwise::Leaky(slope) => leaky_backward(isa, slope, output, piece),
            Pointwise::Elu(alpha) => elu_backward(isa, alpha, output, piece),
        }
    });
}

/// `output = input * factor` where `keep` is not 0, else 0: dropout, forward and backward.
///
/// # Panics
/// If the lengths differ.
pub fn mask_and_scale(engine: &Engine, input: &[f32], keep: &[u8], factor: f32, output: &mut [f32]) {
    assert!(input.len() == output.len() && keep.len() == output.len(), "values and mask");
    let isa = engine.isa();
    engine.for_each_chunk(output, PIECE, |i, piece| {
        let start = i * PIECE;
        masked(isa, &input[start..][..piece.len()], &keep[start..][..piece.len()], factor, piece);
    });
}

/// [`mask_and_scale`] in place.
///
/// # Panics
/// If the lengths differ.
pub fn mask_and_scale_in_place(engine: &Engine, keep: &[u8], factor: f32, values: &mut [f32]) {
    assert_eq!(keep.len(), values.len(), "values and mask");
    let isa = engine.isa();
    engine.for_each_chunk(values, PIECE, |i, piece| {
        masked_in_place(isa, &keep[i * PIECE..][..piece.len()], factor, piece);
    });
}

/// Copies `input` to `output`, on all threads.
///
/// # Panics
/// If the lengths differ.
pub fn copy(engine: &Engine, input: &[f32], output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "values and their copy");
    engine.for_each_chunk(output, PIECE, |i, piece| piece.copy_from_slice(&input[i * PIECE..][..piece.len()]));
}

versions! {
    fn relu(values: &mut [f32]) {
        for x in values {
            *x = if *x < 0.0 { 0.0 } else { *x };
        }
    }

    fn leaky(slope: f32, values: &mut [f32]) {
        for x in values {
            *x = if *x > 0.0 { *x } else { *x * slope };
        }
    }

    fn elu(alpha: f32, values: &mut [f32]) {
        for x in values {
            // Near 0 the difference loses digits, but no more than 2^-24 * alpha in all.
            let below = alpha * (exp32(*x) - 1.0);
            *x = if *x > 0.0 { *x } else { below };
        }
    }

    fn relu_backward(output: &[f32], grad: &mut [f32]) {
        for (g, y) in grad.iter_mut().zip(output) {
            *g = if *y > 0.0 { *g } else { 0.0 };
        }
    }

    fn leaky_backward(slope: f32, output: &[f32], grad: &mut [f32]) {
        for (g, y) in grad.iter_mut().zip(output) {
            *g = if *y > 0.0 { *g } else { *g * slope };
        }
    }

    fn elu_backward(alpha: f32, output: &[f32], grad: &mut [f32]) {
        for (g, y) in grad.iter_mut().zip(output) {
            *g = if *y > 0.0 { *g } else { *g * (*y + alpha) };
        }
    }

    fn masked_in_place(keep: &[u8], factor: f32, values: &mut [f32]) {
        for (y, k) in values.iter_mut().zip(keep) {
            let scaled = *y * factor;
            *y = if *k != 0 { scaled } else { 0.0 };
        }
    }

    fn masked(input: &[f32], keep: &[u8], factor: f32, output: &mut [f32]) {
        for ((y, x), k) in output.iter_mut().zip(input).zip(keep) {
            let scaled = *x * factor;
            *y = if *k != 0 { scaled } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Isa;

    #[test]
    fn the_same_bits_on_every_instruction_set_and_as_defined() {
        let inputs: Vec<f32> = (0..40_001).map(|i| (i as f32 - 20_000.0) * 3e-4).chain([f32::NAN, -0.0]).collect();
        for function in [Pointwise::Relu, Pointwise::Leaky(0.1), Pointwise::Elu(0.7)] {
            let want: Vec<f32> = inputs
                .iter()
                .map(|&x| match function {
                    Pointwise::Relu if x < 0.0 => 0.0,
                    Pointwise::Leaky(slope) if x < 0.0 => slope * x,
                    Pointwise::Elu(alpha) if x < 0.0 => alpha * (exp32(x) - 1.0),
                    _ => x,
                })
                .collect();
            for isa in Isa::available() {
                for threads in [1, 3] {
                    let engine = Engine::with_isa(threads, isa);
                    let mut got = inputs.clone();
                    activate(&engine, function, &mut got);
                    let mut grad = vec![2.0; got.len()];
                    activate_backward(&engine, function, &want, &mut grad);
                    for i in 0..got.len() - 2 {
                        assert_eq!(got[i], want[i], "{function:?} of {}", inputs[i]);
                        let slope = match function {
                            _ if want[i] > 0.0 => 1.0,
                            Pointwise::Relu => 0.0,
                            Pointwise::Leaky(slope) => slope,
                            Pointwise::Elu(alpha) => want[i] + alpha,
                        };
                        assert_eq!(grad[i], 2.0 * slope, "{function:?} at {}", inputs[i]);
                    }
                    assert!(got[40_001].is_nan());
                }
            }
        }
    }
}
