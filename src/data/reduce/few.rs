//! PCA of fewer samples than features, exact, by the samples' products with one another.
//!
//! The covariance `xᵀ x / (n - 1)` of centred samples `x`, `[n, features]`, and their products `g = x xᵀ / (n - 1)`,
//! `[n, n]`, have the same variances but for zeros, and where `u` is an axis of `g`, `xᵀ u` is one of the covariance,
//! but for its length (Turk and Pentland, 1991). 245 photos of 64x64x3 so take a problem of 245 rows, not of 12,288.
//! All is done in double precision: in single precision axes of small variances, which are sums that nearly cancel,
//! would not be orthogonal. Samples are loaded block by block, twice; no more of them is in memory than [`LOADED`]
//! values.

use super::axes::{Axes, eigen_error, shares, straighten};
use super::eigen::{orient, symmetric_eigen};
use super::{FitError, Fitting};
use crate::engine::double;
use crate::engine::symmetric::dot;
use crate::rng::Stream;

/// Values of samples in memory at once, at most, for each of two blocks: 128 MiB. Shows in no bit.
const LOADED: usize = 1 << 24;
/// Samples of a block, at least.
const LEAST: usize = 32;
/// A variance of this share of the largest is rounding: of single precision in the samples, of double in the products.
const NOTHING: f64 = 1e-12;
/// Axes whose variances are above this share of the largest come out orthogonal to about the precision of a single
/// (1e-16 / 1e-8); those below are made so.
const FIRM: f64 = 1e-8;

/// The axes of the first `n_kept(shares)` variances, probably `n_expected`. Axes without variance are chosen at will,
/// orthogonal to all others, where `fills`; else they are left out.
pub(super) fn axes(
    fitting: &Fitting<'_>,
    mean: &[f64],
    n_expected: usize,
    fills: bool,
    n_kept: impl FnOnce(&[f64]) -> usize,
) -> Result<Axes, FitError> {
    let most = (LOADED / mean.len()).max(LEAST);
    axes_of(Blocks { fitting, mean, most, loaded: None }, n_expected, fills, n_kept)
}

fn axes_of(
    mut samples: Blocks<'_>,
    n_expected: usize,
    fills: bool,
    n_kept: impl FnOnce(&[f64]) -> usize,
) -> Result<Axes, FitError> {
    let (fitting, len) = (samples.fitting, samples.mean.len());
    let (n, engine) = (fitting.samples.len(), fitting.engine);
    let products = products(&mut samples)?;
    let total = (0..n).fold(0.0, |sum, i| sum + products[i * n + i]);
    let n_kept = |values: &[f64]| n_kept(&shares(values, total));
    let found = symmetric_eigen(engine, n, products, n_expected, n_kept, fitting.is_stopped).map_err(eigen_error)?;
    let n_kept = found.vectors.len() / n;
    let largest = found.values[0].max(0.0);
    let n_real = found.values[..n_kept].partition_point(|&variance| variance > NOTHING * largest);

    let n_axes = if fills { n_kept } else { n_real };
    let mut vectors = vec![0.0; n_axes * len];
    for block in 0..samples.n_blocks() {
        let first = block * samples.most;
        let share = |axis: usize, row: usize| found.vectors[axis * n + first + row];
        let rows = samples.load(block)?;
        if !double::add_rows(engine, len, share, &rows, &mut vectors[..n_real * len], fitting.is_stopped) {
            return Err(FitError::Stopped);
        }
        samples.loaded = Some((block, rows));
    }
    for i in 0..n_axes {
        fitting.look()?;
        let (before, rest) = vectors.split_at_mut(i * len);
        let vector = &mut rest[..len];
        if i >= n_real {
            Stream::new(0, "axis without variance", &[("axis", i as u64)]).fill_normal(0, vector);
        }
        if i >= n_real || found.values[i] < FIRM * largest {
            straighten(engine, before, vector);
        } else {
            let length = dot(engine, vector, vector).sqrt();
            vector.iter_mut().for_each(|x| *x /= length);
        }
        orient(vector);
    }
    let mut variances = found.values[..n_axes].to_vec();
    variances[n_real.min(n_axes)..].fill(0.0);
    Ok(Axes { vectors, variances, total, is_all: !fills && n_kept == n })
}

/// `x xᵀ / (n - 1)`, `[n, n]`.
fn products(samples: &mut Blocks<'_>) -> Result<Vec<f64>, FitError> {
    let (fitting, len) = (samples.fitting, samples.mean.len());
    let (n, most) = (fitting.samples.len(), samples.most);
    let mut products = vec![0.0; n * n];
    for block in 0..samples.n_blocks() {
        let rows = samples.load(block)?;
        for other in 0..=block {
            let others = if other == block { None } else { Some(samples.load(other)?) };
            let put = |i: usize, j: usize, product: f64| {
                let (i, j) = (block * most + i, other * most + j);
                products[i * n + j] = product / (n - 1) as f64;
                products[j * n + i] = products[i * n + j];
            };
            if !double::row_products(fitting.engine, len, &rows, others.as_deref(), fitting.is_stopped, put) {
                return Err(FitError::Stopped);
            }
        }
        samples.loaded = Some((block, rows));
    }
    Ok(products)
}

/// Centred samples, some at a time.
struct Blocks<'a> {
    fitting: &'a Fitting<'a>,
    mean: &'a [f64],
    /// Samples of a block.
    most: usize,
    /// The block that was put back last.
    loaded: Option<(usize, Vec<f64>)>,
}

impl Blocks<'_> {
    fn n_blocks(&self) -> usize {
        self.fitting.samples.len().div_ceil(self.most)
    }

    /// `[samples of the block, features]`
    fn load(&mut self, block: usize) -> Result<Vec<f64>, FitError> {
        if let Some((_, rows)) = self.loaded.take_if(|(loaded, _)| *loaded == block) {
            return Ok(rows);
        }
        let (samples, len) = (self.fitting.samples, self.mean.len());
        let rows = samples.rows().chunks(self.most).nth(block).unwrap_or_default();
        let mut values = vec![0.0; rows.len() * len];
        let load = |i: usize, values: &mut [f64]| {
            let mut single = vec![0.0; len];
            samples.feed().load(&rows[i..=i], &mut single);
            for ((value, x), mean) in values.iter_mut().zip(single).zip(self.mean) {
                *value = f64::from(x) - mean;
            }
        };
        // Loading a value costs what tens of multiply-adds do.
        let work = (len * 32) as u64;
        let is_done = self.fitting.engine.for_each_chunk_until(&mut values, len, work, self.fitting.is_stopped, load);
        if is_done { Ok(values) } else { Err(FitError::Stopped) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::covariance::Covariance;
    use super::super::pca::{KIND, full, zca_weights};
    use super::super::{Projection, Reduction};
    use super::*;
    use crate::config::{Entry, Log, Node, Section, Span, Table, Value};
    use crate::data::feed::{Feed, TrainingSamples};
    use crate::data::fit_set::{Fit, Partition, Place};
    use crate::data::samples::{Samples, Values};
    use crate::engine::{Engine, Isa};
    use crate::tensor::SampleShape;

    /// Images of bytes whose variances fall; the last `n_same` are the first ones again.
    #[derive(Debug)]
    struct Bytes {
        len: usize,
        pixels: Vec<u8>,
    }

    impl Bytes {
        fn new(n: usize, n_same: usize, len: usize) -> Bytes {
            let stream = Stream::new(3, "pixels", &[]);
            let own = |i: usize, at: usize| 40.0 * stream.normal((i * len + at) as u64) / (1.0 + at as f64).sqrt();
            let all = |i: usize, at: usize| 30.0 * stream.normal(1 << 20 | i as u64) * (at as f64 / len as f64);
            let pixel = |i: usize, at: usize| (128.0 + own(i, at) + all(i, at)).clamp(0.0, 255.0) as u8;
            let n_own = n - n_same;
            Bytes { len, pixels: (0..n * len).map(|at| pixel(at / len % n_own, at % len)).collect() }
        }
    }

    impl Samples for Bytes {
        fn n_samples(&self) -> usize {
            self.pixels.len() / self.len
        }

        fn shape(&self) -> SampleShape {
            SampleShape::Flat(self.len)
        }

        fn values(&self, i: usize) -> Values<'_> {
            Values::U8(&self.pixels[i * self.len..][..self.len])
        }
    }

    /// Calls `work` with a fit of those images.
    fn with<T>(
        images: (usize, usize, usize),
        engine: &Engine,
        is_stopped: &(dyn Fn() -> bool + Sync),
        work: impl FnOnce(&Fitting<'_>) -> T,
    ) -> T {
        let (n, n_same, len) = images;
        let feed = Feed::new(Arc::new(Bytes::new(n, n_same, len)), Vec::new());
        let partition = Partition::new(vec![Place::Train; n], 0).unwrap();
        let fit_set = partition.fit_set(Fit::All);
        let stream = Stream::new(1, "pca", &[]);
        let samples = TrainingSamples::new(&feed, fit_set.training());
        work(&Fitting { samples, engine, stream: &stream, is_stopped })
    }

    fn mean(fitting: &Fitting<'_>) -> Vec<f64> {
        fitting.moments().unwrap().iter().map(|moments| moments.mean).collect()
    }

    fn blocks<'a>(fitting: &'a Fitting<'a>, mean: &'a [f64], most: usize) -> Blocks<'a> {
        Blocks { fitting, mean, most, loaded: None }
    }

    #[track_caller]
    fn assert_near(got: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(got.len(), expected.len());
        let furthest = got.iter().zip(expected).fold(0.0f64, |most, (a, b)| most.max((a - b).abs()));
        assert!(furthest < tolerance, "{furthest}");
    }

    #[test]
    fn axes_are_those_of_the_covariance() {
        for images in [(12, 0, 40), (30, 0, 31), (9, 3, 200), (2, 0, 5)] {
            let (n, n_same, len) = images;
            let rank = n - n_same - 1;
            with(images, &Engine::new(2), &|| false, |fitting| {
                let mean = mean(fitting);
                let few = axes(fitting, &mean, n, true, |_| n).unwrap();
                let whole = full(fitting, Covariance::of(fitting).unwrap().matrix, len, |_| len).unwrap();
                let scale = whole.variances[0];
                assert_near(&few.variances[..rank], &whole.variances[..rank], 1e-12 * scale);
                assert!(few.variances[rank..].iter().all(|variance| *variance == 0.0), "{:?}", few.variances);
                assert!((few.total - whole.total).abs() < 1e-12 * whole.total);
                let sum = few.variances.iter().fold(0.0, |sum, x| sum + x);
                assert!((sum - few.total).abs() < 1e-12 * few.total);
                assert_near(&few.vectors[..rank * len], &whole.vectors[..rank * len], 1e-9);
                // Those without variance are orthogonal to all.
                for (i, a) in few.vectors.chunks_exact(len).enumerate() {
                    for (j, b) in few.vectors.chunks_exact(len).enumerate() {
                        let expected = f64::from(u8::from(i == j));
                        assert!((dot(fitting.engine, a, b) - expected).abs() < 1e-9, "{images:?}: {i}, {j}");
                    }
                }
                // Where only variances count, they are left out.
                let bare = axes(fitting, &mean, n, false, |_| n).unwrap();
                assert!(bare.is_all && bare.variances == few.variances[..rank]);
                assert!(!axes(fitting, &mean, n, false, |_| n - 1).unwrap().is_all);
            });
        }
    }

    #[test]
    fn images_that_are_all_the_same_have_no_variance() {
        with((6, 5, 10), &Engine::new(1), &|| false, |fitting| {
            let found = axes(fitting, &mean(fitting), 2, true, |_| 2).unwrap();
            assert_eq!((found.variances, found.total), (vec![0.0; 2], 0.0));
            assert_near(
                &found.vectors.chunks_exact(10).map(|v| dot(fitting.engine, v, v)).collect::<Vec<_>>(),
                &[1.0; 2],
                1e-12,
            );
        });
    }

    #[test]
    fn whitening_with_zca_turns_unknown_axes_back_too() {
        let images = (15, 2, 60);
        with(images, &Engine::new(2), &|| false, |fitting| {
            let found = fit("zca = true, epsilon = 0.001", fitting).unwrap();
            assert_eq!(found.spectrum.as_ref().unwrap().explained_variance.len(), 12);
            let whole = full(fitting, Covariance::of(fitting).unwrap().matrix, 60, |_| 60).unwrap();
            let factors: Vec<f64> = whole.variances.iter().map(|v| 1.0 / (v.max(0.0) + 0.001).sqrt()).collect();
            let expected = zca_weights(fitting, 60, &whole.vectors, &factors, 0.0).unwrap();
            let as_double = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            assert_near(&as_double(&found.weights), &as_double(&expected), 1e-4);
        });
    }

    #[test]
    fn neither_threads_nor_instruction_sets_nor_blocks_change_a_bit() {
        let images = (70, 4, 700);
        let of = |engine: &Engine, most: usize| {
            with(images, engine, &|| false, |fitting| {
                let mean = mean(fitting);
                let found = axes_of(blocks(fitting, &mean, most), 70, true, |_| 70).unwrap();
                let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                (bits(&found.vectors), bits(&found.variances), found.total.to_bits())
            })
        };
        let want = of(&Engine::with_isa(1, Isa::Portable), 70);
        for isa in Isa::available() {
            for (threads, most) in [(1, 70), (2, 33), (5, 8), (3, 69)] {
                assert!(
                    of(&Engine::with_isa(threads, isa), most) == want,
                    "{isa}, {threads} threads, blocks of {most}"
                );
            }
        }
    }

    fn pca(keys: &str) -> Box<dyn Reduction> {
        let entry = |key: &str, value| Entry {
            key: key.to_owned(),
            key_span: Span::default(),
            node: Node { value, span: Span::default() },
        };
        let entries = keys.split(", ").map(|key| {
            let (key, value) = key.split_once(" = ").unwrap();
            let value = match (value.parse::<i64>(), value.parse::<f64>(), value.parse::<bool>()) {
                (Ok(n), ..) => Value::Integer(n),
                (_, Ok(x), _) => Value::Float(x),
                (_, _, Ok(flag)) => Value::Boolean(flag),
                _ => Value::Text { text: value.to_owned(), inner: None },
            };
            entry(key, value)
        });
        let table = Table { entries: entries.collect() };
        let mut log = Log::default();
        let read = (KIND.read)(&mut Section::new(Some(&table), Span::default(), "", &mut log));
        assert_eq!(log.problems, []);
        read
    }

    fn fit(keys: &str, fitting: &Fitting<'_>) -> Result<Projection, FitError> {
        pca(keys).fit(fitting)
    }

    #[test]
    fn every_solver_stops_wherever_it_is_told_to() {
        for (images, keys) in [
            ((70, 3, 90), "components = 70, whiten = true"),
            ((70, 0, 90), "components = 5"),
            ((40, 0, 90), "zca = true"),
            ((90, 0, 40), "components = 40"),
            ((90, 0, 40), "zca = true"),
            ((90, 0, 40), "components = 6, solver = randomized"),
        ] {
            let asked = AtomicUsize::new(0);
            let stopped_after = |most: usize| {
                asked.store(0, Ordering::Relaxed);
                let is_stopped = || asked.fetch_add(1, Ordering::Relaxed) >= most;
                with(images, &Engine::new(1), &is_stopped, |fitting| fit(keys, fitting).err())
            };
            assert_eq!(stopped_after(usize::MAX), None, "{keys}");
            let n_looks = asked.load(Ordering::Relaxed);
            assert!(n_looks > 30, "{keys}: {n_looks}");
            for most in 0..n_looks {
                assert_eq!(stopped_after(most), Some(FitError::Stopped), "{keys}: look {most} of {n_looks}");
            }
        }
    }
}
