//! Near duplicates: images whose perceptual hashes are close and whose small grey pictures agree.
//!
//! The hash is that of Zauner (2010), pHash, in whole numbers: of the image in 32x32 cells the discrete cosine transform
//! (cosines in 16,384ths), of that the 8x8 lowest frequencies without the constant one, of each of these 63 whether it is above their
//! median. Two images are near duplicates if at most 7 of the 63 bits differ and the correlation of their 32x32 cells is at
//! least 0.99: what was saved again as JPEG, made smaller, brighter or paler is; what was cropped or mirrored is not.
//!
//! Pairs are found without comparing all with all (Norouzi et al. 2012, multi-index hashing): 7 bits that differ leave one of
//! four quarters of the hash with at most one, so that images are looked up by each quarter, and by it with one bit changed.

/// Cells in a row of what is hashed and correlated.
pub const SIDE: usize = 32;
/// Bits that may differ.
const RADIUS: u32 = 7;
/// Quarters of a hash.
const BANDS: usize = 4;
/// Bits of a quarter.
const BAND: u32 = 16;
/// The least correlation, in hundredths.
pub const LEAST: u32 = 99;

/// `16384 cos(k pi / 64)`, rounded.
const COSINES: [i64; 33] = [
    16384, 16364, 16305, 16207, 16069, 15893, 15679, 15426, 15137, 14811, 14449, 14053, 13623, 13160, 12665, 12140,
    11585, 11003, 10394, 9760, 9102, 8423, 7723, 7005, 6270, 5520, 4756, 3981, 3196, 2404, 1606, 804, 0,
];

/// `16384 cos(k pi / 64)` for any `k`.
fn cosine(k: usize) -> i64 {
    match k % 128 {
        k @ 0..=32 => COSINES[k],
        k @ 33..=64 => -COSINES[64 - k],
        k @ 65..=96 => -COSINES[k - 64],
        k => COSINES[128 - k],
    }
}

/// The perceptual hash of an image in [`SIDE`] times [`SIDE`] cells.
///
/// # Panics
/// If there are not so many cells.
pub fn hash(cells: &[u64]) -> u64 {
    assert_eq!(cells.len(), SIDE * SIDE, "cells of an image");
    const LOW: usize = 8;
    // By columns, then by rows. Cells are below 2^12, sums of 32 products with cosines below 2^31, of those below 2^50.
    let mut half = [[0i64; LOW]; SIDE];
    for (row, out) in cells.chunks_exact(SIDE).zip(&mut half) {
        for (u, out) in out.iter_mut().enumerate() {
            *out = row.iter().enumerate().map(|(x, &cell)| cell as i64 * cosine((2 * x + 1) * u)).sum();
        }
    }
    let mut coefficients = Vec::with_capacity(LOW * LOW - 1);
    for v in 0..LOW {
        for u in 0..LOW {
            if (u, v) != (0, 0) {
                coefficients
                    .push(half.iter().enumerate().map(|(y, row)| row[u] * cosine((2 * y + 1) * v)).sum::<i64>());
            }
        }
    }
    let mut sorted = coefficients.clone();
    sorted.sort_unstable();
    let median = sorted[sorted.len() / 2];
    coefficients.iter().fold(0, |hash, &coefficient| hash << 1 | u64::from(coefficient > median))
}

/// Calls `each` with the indices of any two hashes that differ in at most 7 bits, the smaller one first, and in how many; every
/// pair once, in no particular order. Ends early if `each` says so.
pub fn near(hashes: &[u64], each: &mut dyn FnMut(usize, usize, u32) -> bool) {
    let band_of = |hash: u64, band: usize| (hash >> (BAND as usize * band)) as u16;
    for band in 0..BANDS {
        let mut sorted: Vec<(u16, u32)> =
            hashes.iter().enumerate().map(|(i, &hash)| (band_of(hash, band), i as u32)).collect();
        sorted.sort_unstable();
        let mut starts = vec![0u32; (1 << BAND) + 1];
        sorted.iter().for_each(|&(key, _)| starts[key as usize + 1] += 1);
        (0..1 << BAND).for_each(|key| starts[key + 1] += starts[key]);
        for (i, &hash) in hashes.iter().enumerate() {
            let key = band_of(hash, band);
            let keys = std::iter::once(key).chain((0..BAND).map(|bit| key ^ 1 << bit));
            for key in keys {
                let bucket = &sorted[starts[key as usize] as usize..starts[key as usize + 1] as usize];
                // Those of a key are in order.
                for &(_, other) in bucket.iter().take_while(|(_, other)| (*other as usize) < i) {
                    let differ = hashes[other as usize] ^ hash;
                    // A pair is told by the first quarter that has it.
                    let is_first = (0..band).all(|before| band_of(differ, before).count_ones() > 1);
                    if differ.count_ones() <= RADIUS && is_first && !each(other as usize, i, differ.count_ones()) {
                        return;
                    }
                }
            }
        }
    }
}

/// How much two images agree, by their cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correlation {
    covariance: i128,
    /// The product of both variances.
    variances: i128,
}

impl Correlation {
    /// Of two images in as many cells each.
    pub fn new<T: Copy + Into<u64>>(one: &[T], other: &[T]) -> Correlation {
        let n = one.len() as i128;
        let sum = |cells: &[T]| i128::from(cells.iter().map(|&cell| cell.into()).sum::<u64>());
        let product = |a: &[T], b: &[T]| i128::from(a.iter().zip(b).map(|(&a, &b)| a.into() * b.into()).sum::<u64>());
        let (of_one, of_other) = (sum(one), sum(other));
        let variances = (n * product(one, one) - of_one * of_one) * (n * product(other, other) - of_other * of_other);
        Correlation { covariance: n * product(one, other) - of_one * of_other, variances }
    }

    /// Whether it is at least so many hundredths. Images of one colour agree with none.
    pub fn is_at_least(self, hundredths: u32) -> bool {
        let Correlation { covariance, variances } = self;
        let least = i128::from(hundredths);
        covariance > 0 && covariance * covariance * 100 * 100 >= least * least * variances
    }

    /// Pearson's coefficient, from -1 to 1; 0 for images of one colour.
    pub fn value(self) -> f64 {
        if self.variances == 0 { 0.0 } else { self.covariance as f64 / (self.variances as f64).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::thumbnail::Grey;
    use super::*;
    use crate::data::samples::Values;
    use crate::rng::Stream;
    use crate::tensor::ImageShape;

    /// Blobs on a slope, `side` pixels wide, and what `change` makes of each value.
    fn picture(seed: u64, side: usize, change: impl Fn(f64) -> f64) -> Vec<u64> {
        let stream = Stream::new(seed, "blobs", &[]);
        let blobs: Vec<[f64; 4]> = (0..12).map(|blob| [0, 1, 2, 3].map(|k| stream.uniform(4 * blob + k))).collect();
        let value = |i: usize| {
            let (y, x) = ((i / side) as f64 / side as f64, (i % side) as f64 / side as f64);
            let blob = |b: &[f64; 4]| {
                (b[3] - 0.5) * 160.0 / (1.0 + 60.0 * ((x - b[0]) * (x - b[0]) + (y - b[1]) * (y - b[1])))
            };
            change(120.0 + blobs.iter().map(blob).sum::<f64>()).clamp(0.0, 255.0) as u8
        };
        let bytes: Vec<u8> = (0..side * side).map(value).collect();
        Grey::new(ImageShape { height: side, width: side, channels: 1 }, Values::U8(&bytes)).cells(SIDE)
    }

    #[test]
    fn cosines_go_round() {
        for k in 0..400 {
            let expected = 16384.0 * crate::elementary::cos(k as f64 * std::f64::consts::PI / 64.0);
            assert!((cosine(k) as f64 - expected).abs() <= 0.5 + 1e-9, "{k}: {} for {expected}", cosine(k));
        }
    }

    #[test]
    fn the_same_picture_smaller_brighter_or_paler_is_near_and_another_is_not() {
        let is_near = |one: &[u64], other: &[u64]| {
            (hash(one) ^ hash(other)).count_ones() <= RADIUS && Correlation::new(one, other).is_at_least(LEAST)
        };
        let mut n_near = 0;
        for seed in 0..20 {
            let own = picture(seed, 96, |x| x);
            let changed =
                [picture(seed, 64, |x| x), picture(seed, 96, |x| x * 1.1), picture(seed, 50, |x| x * 0.7 + 40.0)];
            n_near += changed.iter().filter(|changed| is_near(&own, changed)).count();
            assert!(!is_near(&own, &picture(seed + 100, 96, |x| x)), "{seed}");
        }
        // A bit more may differ once.
        assert!(n_near >= 57, "{n_near} of 60");
        let flat = vec![700u64; SIDE * SIDE];
        assert!(!Correlation::new(&flat, &flat).is_at_least(LEAST) && Correlation::new(&flat, &flat).value() == 0.0);
        let own = picture(3, 32, |x| x);
        assert!((Correlation::new(&own, &own).value() - 1.0).abs() < 1e-12);
        assert!(Correlation::new(&own, &own.iter().map(|x| 4080 - x).collect::<Vec<_>>()).value() < -0.999);
    }

    #[test]
    fn every_pair_within_seven_bits_is_found_once_and_no_other() {
        let stream = Stream::new(7, "hashes", &[]);
        let mut hashes: Vec<u64> = (0..60).map(|i| stream.bits(i)).collect();
        for i in 0..200usize {
            // Up to nine bits from another one, some of them all in one quarter.
            let bit = |k: u64| if i % 2 == 0 { 16 * (k % 4) + stream.below(1000 + 10 * i as u64 + k, 16) } else { k };
            let hash = (0..i as u64 % 10).fold(hashes[i % 60], |hash, k| hash ^ 1 << bit(k));
            hashes.push(hash);
        }
        let mut expected = BTreeSet::new();
        for j in 0..hashes.len() {
            let near = (0..j).filter(|&i| (hashes[i] ^ hashes[j]).count_ones() <= 7);
            expected.extend(near.map(|i| (i, j, (hashes[i] ^ hashes[j]).count_ones())));
        }
        let mut found = Vec::new();
        near(&hashes, &mut |i, j, differ| {
            found.push((i, j, differ));
            true
        });
        assert!(expected.len() > 150);
        assert_eq!(found.len(), expected.len());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
        let mut n = 0;
        near(&hashes, &mut |_, _, _| {
            n += 1;
            n < 3
        });
        assert_eq!(n, 3);
    }
}
