//! Random numbers: streams derived by name, addressed by index, never taken in turn.
//!
//! A [`Stream`] is a ChaCha8 key, BLAKE3 of (seed, purpose, named indices). Draw `i` of a stream is a function of the
//! key and `i` alone, so that any thread may compute any draw in any order. The sampling functions are ours, with
//! pinned test vectors, since rand's may change in a minor release.
//!
//! Draws are 64 bits each ([`Stream::bits`] and what is made of it), but for [`Stream::words`], which reads the same
//! keystream 32 bits at a time: use one or the other of a stream, not both.

use rand::Rng as _;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use crate::elementary;

/// A stream of random numbers that are addressed by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u8; 32],
}

impl Stream {
    /// The stream of this `seed`, `purpose` ("shuffle", "init", …) and indices (`[("fold", 2), ("epoch", 7)]`).
    pub fn new(seed: u64, purpose: &str, indices: &[(&str, u64)]) -> Stream {
        let mut hasher = blake3::Hasher::new();
        let mut text = |s: &str| {
            hasher.update(&(s.len() as u64).to_le_bytes());
            hasher.update(s.as_bytes());
        };
        text("convoy stream 1");
        text(purpose);
        for (name, _) in indices {
            text(name);
        }
        hasher.update(&seed.to_le_bytes());
        for (_, index) in indices {
            hasher.update(&index.to_le_bytes());
        }
        Stream { key: *hasher.finalize().as_bytes() }
    }

    /// The generator, about to give draw `index`.
    fn at(&self, index: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::from_seed(self.key);
        if index > 0 {
            rng.set_word_pos(u128::from(index) * 2);
        }
        rng
    }

    /// 64 random bits at `index`.
    pub fn bits(&self, index: u64) -> u64 {
        self.at(index).next_u64()
    }

    /// A number in `[0, 1)` at `index`: a multiple of 2^-53.
    pub fn uniform(&self, index: u64) -> f64 {
        to_uniform(self.bits(index))
    }

    /// A whole number in `0..n` at `index` (Lemire's multiplication, without rejection: no number is preferred by more
    /// than `n / 2^64`).
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&self, index: u64, n: u64) -> u64 {
        to_below(self.bits(index), n)
    }

    /// A standard normal number at `index` (Box and Muller 1958), within ±6.7.
    pub fn normal(&self, index: u64) -> f64 {
        to_normal(self.bits(index))
    }

    /// A permutation of `0..n` (Fisher and Yates, from the end; draw `i` picks the partner of position `i`).
    pub fn permutation(&self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }

    /// Shuffles `items` as [`Stream::permutation`] orders indices.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        let mut rng = self.at(0);
        rng.next_u64();
        for i in 1..items.len() {
            // The "inside-out" order, so that draw `i` belongs to position `i` and the pass goes forwards.
            let partner = to_below(rng.next_u64(), i as u64 + 1) as usize;
            items.swap(i, partner);
        }
    }

    /// The draws `first..first + out.len()` of [`Stream::uniform`].
    pub fn fill_uniform(&self, first: u64, out: &mut [f64]) {
        let mut rng = self.at(first);
        out.iter_mut().for_each(|x| *x = to_uniform(rng.next_u64()));
    }

    /// The draws `first..first + out.len()` of [`Stream::normal`].
    pub fn fill_normal(&self, first: u64, out: &mut [f64]) {
        let mut rng = self.at(first);
        out.iter_mut().for_each(|x| *x = to_normal(rng.next_u64()));
    }

    /// The draws `first..first + out.len()` of [`Stream::normal`], rounded to f32.
    pub fn fill_normal32(&self, first: u64, out: &mut [f32]) {
        let mut rng = self.at(first);
        out.iter_mut().for_each(|x| *x = to_normal(rng.next_u64()) as f32);
    }

    /// 32 random bits for each of `first..first + out.len()`: word `i` is the lower half of draw `i / 2` for even `i`,
    /// the upper half for odd `i`.
    pub fn words(&self, first: u64, out: &mut [u32]) {
        let mut rng = ChaCha8Rng::from_seed(self.key);
        if first > 0 {
            rng.set_word_pos(u128::from(first));
        }
        // Whole blocks of the keystream at a time: half the time of word by word.
        let mut bytes = [0; 1024];
        for out in out.chunks_mut(bytes.len() / 4) {
            let bytes = &mut bytes[..4 * out.len()];
            rng.fill_bytes(bytes);
            for (word, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*bytes);
            }
        }
    }
}

fn to_uniform(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

fn to_below(bits: u64, n: u64) -> u64 {
    assert!(n > 0, "a whole number below 0");
    ((u128::from(bits) * u128::from(n)) >> 64) as u64
}

fn to_normal(bits: u64) -> f64 {
    let unit = 1.0 / (1u64 << 32) as f64;
    // Half a step off zero, so that the logarithm is finite.
    let radius = (((bits >> 32) as f64) + 0.5) * unit;
    let turn = f64::from(bits as u32) * unit;
    (-2.0 * elementary::ln(radius)).sqrt() * elementary::cos(std::f64::consts::TAU * turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream::new(42, "test", &[("fold", 2), ("epoch", 7)])
    }

    #[test]
    fn vectors_are_pinned() {
        // Any change here changes every split and every model: `stages/revisions.rs` names all that draw.
        let s = stream();
        let got = [s.bits(0), s.bits(1), s.bits(1 << 40), s.below(3, 10), s.below(5, 1000)];
        assert_eq!(
            (got, [s.uniform(0), s.normal(0), s.normal(9)], s.permutation(10)),
            (
                [11402080662234173236, 11609921083686467036, 1327729633435460045, 7, 649],
                [0.6181080312424624, -0.8556211027869871, 0.7041491827013704],
                vec![6, 2, 1, 5, 4, 3, 8, 9, 0, 7]
            )
        );
    }

    #[test]
    fn draws_are_addressed_not_taken_in_turn() {
        let s = stream();
        for first in [0, 1, 7, 1000, 1 << 33] {
            let mut uniform = [0.0; 37];
            let mut normal = [0.0; 37];
            let mut normal32 = [0.0f32; 37];
            let mut words = [0; 37];
            s.fill_uniform(first, &mut uniform);
            s.fill_normal(first, &mut normal);
            s.fill_normal32(first, &mut normal32);
            s.words(first, &mut words);
            for i in 0..37u64 {
                let at = first + i;
                assert_eq!(uniform[i as usize], s.uniform(at));
                assert_eq!(normal[i as usize], s.normal(at));
                assert_eq!(normal32[i as usize], s.normal(at) as f32);
                assert_eq!(words[i as usize], (s.bits(at / 2) >> (32 * (at % 2))) as u32);
            }
        }
        assert_ne!(s, Stream::new(43, "test", &[("fold", 2), ("epoch", 7)]));
        assert_ne!(s, Stream::new(42, "test", &[("fold", 7), ("epoch", 2)]));
        assert_ne!(s, Stream::new(42, "tes", &[("tfold", 2), ("epoch", 7)]));
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let n = 100_000;
        let (mut uniform, mut normal) = (vec![0.0; n], vec![0.0; n]);
        stream().fill_uniform(0, &mut uniform);
        stream().fill_normal(0, &mut normal);
        let mean = |x: &[f64], power: i64| x.iter().map(|&v| elementary::powi(v, power)).sum::<f64>() / n as f64;
        // Five standard errors each.
        assert!((mean(&uniform, 1) - 0.5).abs() < 0.005 && uniform.iter().all(|u| (0.0..1.0).contains(u)));
        assert!(mean(&normal, 1).abs() < 0.016);
        assert!((mean(&normal, 2) - 1.0).abs() < 0.023);
        assert!((mean(&normal, 4) - 3.0).abs() < 0.16);
    }

    #[test]
    fn a_permutation_holds_each_index_once_and_is_fair() {
        for n in [0, 1, 2, 100] {
            let mut order = stream().permutation(n);
            order.sort_unstable();
            assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
        let mut firsts = [0u32; 4];
        for seed in 0..4000 {
            firsts[Stream::new(seed, "test", &[]).permutation(4)[0]] += 1;
        }
        assert!(firsts.iter().all(|&count| count.abs_diff(1000) < 140), "{firsts:?}");
    }
}
