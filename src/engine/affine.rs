//! `(x - subtract) * multiply + add` for stored values: what every sample goes through when it is loaded.

use super::isa::Isa;
use super::versions::versions;

/// The numbers of an affine step for a run of values.
#[derive(Clone, Debug, PartialEq)]
pub struct AffineRun {
    /// Taken off first.
    pub subtract: Vec<f32>,
    /// Multiplied by next.
    pub multiply: Vec<f32>,
    /// Added at last.
    pub add: Vec<f32>,
}

/// A form in which values are stored.
pub trait Stored: Copy + private::Build {}

impl Stored for u8 {}
impl Stored for [u8; 2] {}
impl Stored for [u8; 4] {}

/// Converts `values` (bytes, or little-endian 16-bit numbers or floats) to single precision and sends them through the
/// step, run after run; each operation is rounded once.
///
/// # Panics
/// If `out` has another length, or the numbers are not of one length.
pub fn affine<T: Stored>(values: &[T], run: &AffineRun, out: &mut [f32]) {
    assert_eq!(values.len(), out.len(), "values of a sample");
    let n = run.subtract.len();
    assert!(n > 0 && run.multiply.len() == n && run.add.len() == n, "numbers of a run of {n}");
    T::build(Isa::detect(), values, run, out);
}

/// As [`affine`], of values that are in single precision already.
///
/// # Panics
/// If the numbers are not of one length.
pub fn affine_in_place(run: &AffineRun, values: &mut [f32]) {
    let n = run.subtract.len();
    assert!(n > 0 && run.multiply.len() == n && run.add.len() == n, "numbers of a run of {n}");
    in_place(Isa::detect(), run, values);
}

mod private {
    use super::*;

    pub trait Build: Sized {
        fn build(isa: Isa, values: &[Self], run: &AffineRun, out: &mut [f32]);
    }

    impl Build for u8 {
        fn build(isa: Isa, values: &[u8], run: &AffineRun, out: &mut [f32]) {
            bytes(isa, values, run, out);
        }
    }

    impl Build for [u8; 2] {
        fn build(isa: Isa, values: &[[u8; 2]], run: &AffineRun, out: &mut [f32]) {
            words(isa, values, run, out);
        }
    }

    impl Build for [u8; 4] {
        fn build(isa: Isa, values: &[[u8; 4]], run: &AffineRun, out: &mut [f32]) {
            floats(isa, values, run, out);
        }
    }
}

#[inline(always)]
fn convert<T: Copy>(values: &[T], run: &AffineRun, out: &mut [f32], to_f32: impl Fn(T) -> f32) {
    let n = run.subtract.len();
    for (out, values) in out.chunks_mut(n).zip(values.chunks(n)) {
        let numbers = run.subtract.iter().zip(&run.multiply).zip(&run.add);
        for ((out, &x), ((subtract, multiply), add)) in out.iter_mut().zip(values).zip(numbers) {
            *out = (to_f32(x) - subtract) * multiply + add;
        }
    }
}

versions! {
    fn bytes(values: &[u8], run: &AffineRun, out: &mut [f32]) {
        convert(values, run, out, f32::from);
    }

    fn words(values: &[[u8; 2]], run: &AffineRun, out: &mut [f32]) {
        convert(values, run, out, |x| f32::from(u16::from_le_bytes(x)));
    }

    fn floats(values: &[[u8; 4]], run: &AffineRun, out: &mut [f32]) {
        convert(values, run, out, f32::from_le_bytes);
    }

    fn in_place(run: &AffineRun, values: &mut [f32]) {
        for values in values.chunks_mut(run.subtract.len()) {
            let numbers = run.subtract.iter().zip(&run.multiply).zip(&run.add);
            for (value, ((subtract, multiply), add)) in values.iter_mut().zip(numbers) {
                *value = (*value - subtract) * multiply + add;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::private::Build as _;
    use super::*;

    #[test]
    fn instruction_sets_change_no_bit() {
        for (n, len) in [(1, 1), (64, 784), (75, 75), (66, 3072), (784, 784)] {
            let numbers = |from: f32, step: f32| (0..n).map(|i| from + step * (i % 13) as f32).collect();
            let run =
                AffineRun { subtract: numbers(0.3, 17.7), multiply: numbers(0.1, 0.37), add: numbers(-3.1, 0.77) };
            let stored: Vec<u8> = (0..len).map(|i| (i * 37 % 256) as u8).collect();
            let pairs: Vec<[u8; 2]> = stored.iter().map(|&x| [x, x.wrapping_mul(7)]).collect();
            let mut want = vec![[0.0; 2]; len];
            for (i, want) in want.iter_mut().enumerate() {
                let at = i % n;
                *want = [f32::from(stored[i]), f32::from(u16::from_le_bytes(pairs[i]))]
                    .map(|x| (x - run.subtract[at]) * run.multiply[at] + run.add[at]);
            }
            let [of_bytes, of_words] = [0, 1].map(|at| want.iter().map(|w| w[at].to_bits()).collect::<Vec<_>>());
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            for isa in Isa::available() {
                let mut out = vec![f32::NAN; len];
                u8::build(isa, &stored, &run, &mut out);
                assert!(bits(&out) == of_bytes, "bytes, {isa}, {n}, {len}");
                <[u8; 2]>::build(isa, &pairs, &run, &mut out);
                assert!(bits(&out) == of_words, "words, {isa}, {n}, {len}");
                let mut floats: Vec<f32> = stored.iter().map(|&x| f32::from(x)).collect();
                let as_stored: Vec<[u8; 4]> = floats.iter().map(|x| x.to_le_bytes()).collect();
                <[u8; 4]>::build(isa, &as_stored, &run, &mut out);
                assert!(bits(&out) == of_bytes, "floats, {isa}, {n}, {len}");
                in_place(isa, &run, &mut floats);
                assert!(bits(&floats) == of_bytes, "in place, {isa}, {n}, {len}");
            }
        }
    }
}
