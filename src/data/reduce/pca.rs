//! PCA: the axes of largest variance, with whitening, and ZCA, which turns whitened samples back so that they are
//! images.
//!
//! `full` solves the eigenproblem of the covariance matrix; where there are fewer samples than features, that of the
//! samples' products with one another, which has the same axes and is smaller (`few.rs`). `randomized` builds neither:
//! a random block of vectors is multiplied by the covariance a few times, made orthogonal in between, and the small
//! problem inside what it spans is solved (Halko, Martinsson and Tropp, 2011).

use super::axes::{Axes, eigen_error, shares, straighten};
use super::covariance::Covariance;
use super::eigen::{orient, symmetric_eigen};
use super::few;
use super::{
    BLOCK, FitError, Fitting, Kind, Misfit, Projection, Reduction, Spectrum, centred, counted, samples_between_looks,
};
use crate::config::{Bounds, Problem, Section, canonical_float};
use crate::data::feed::Feed;
use crate::engine::symmetric::dot;
use crate::engine::{Dense, double, matmul};
use crate::tensor::SampleShape;

/// The line in the list.
pub const KIND: Kind = Kind {
    name: "pca",
    meaning: "The axes of largest variance, with or without whitening.",
    read,
    example: "{ pca = { components = 20, whiten = true, epsilon = 1e-3 } }",
};

/// What is kept unless something is said.
const DEFAULT_VARIANCE: f64 = 0.95;
/// Features, or samples where these are fewer, up to which `auto` solves in full: 1,000 features take less time than
/// reading 10,000 samples twice more.
const MOST_FULL: usize = 1024;
/// Vectors beside the wanted ones (Halko et al. section 4.2: 5 or 10).
const OVERSAMPLING: usize = 10;
/// Products with the covariance. Each one divides what is left of unwanted axes by their ratio of variances; images,
/// whose variances fall slowly, need more than the one or two of the paper.
const N_PRODUCTS: usize = 8;

/// Principal component analysis.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    /// How many axes are kept; absent: by `variance`.
    components: Option<usize>,
    /// As few axes as explain more than this share of the variance, from 0 to 1 [0.95; with `zca`: all axes].
    variance: Option<f64>,
    /// Divides each component by its standard deviation [false].
    whiten: bool,
    /// Whitens and turns back, so that images stay images [false].
    zca: bool,
    /// Added to the variances before whitening divides by their roots, so that noise is not blown up [1e-5].
    epsilon: f64,
    /// "full", "randomized" ["auto": full up to 1,024 features or images, or where most axes are kept].
    solver: Solver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Solver {
    Auto,
    Full,
    Randomized,
}

fn read(section: &mut Section<'_>) -> Box<dyn Reduction> {
    let components = section
        .key("components", "How many axes are kept; absent: by `variance`.", "20")
        .short()
        .whole(1..=1_000_000)
        .optional()
        .map(|n| n as usize);
    let whiten = section.key("whiten", "Divides each component by its deviation.", "true").flag(false);
    let zca = section.key("zca", "Whitens and turns back, so that images stay images.", "true").flag(false);
    let meaning = "As few axes as explain more than this share of the variance; absent: 0.95, with `zca` all axes.";
    let variance = section.key("variance", meaning, "0.99").number(Bounds::Fraction).optional();
    let variance_span = section.node("variance").map(|node| node.span);
    let keeps_all = components.is_some() || zca;
    let variance = match variance {
        None if !keeps_all => {
            section.record("variance", canonical_float(DEFAULT_VARIANCE), None);
            Some(DEFAULT_VARIANCE)
        }
        variance => variance,
    };
    let meaning = "Added to variances before whitening divides by their roots.";
    let epsilon = section.key("epsilon", meaning, "1e-3").number(Bounds::NonNegative).or(1e-5);
    let solver = section.key("solver", "How axes are found.", "\"full\"").word(&[
        ("auto", "Full up to 1,024 features, or where most axes are kept.", Solver::Auto),
        ("full", "The eigenproblem of the covariance.", Solver::Full),
        ("randomized", "A random block of vectors, for many features (Halko et al. 2011).", Solver::Randomized),
    ]);
    let zca_span = section.node("zca").map(|node| node.span);
    let solver_span = section.node("solver").map(|node| node.span);
    if let (Some(span), Some(_)) = (variance_span, components) {
        let problem = Problem::error(span, "`components` and `variance` both say how many components are kept");
        section.log().push(problem.help("leave one of them out"));
    }
    if let (Some(span), true, true) = (zca_span, zca, whiten) {
        let problem = Problem::error(span, "`whiten` and `zca` are two ways to whiten: `zca` also turns images back");
        section.log().push(problem.help("leave one of them out"));
    }
    if let (Some(span), Solver::Randomized, None) = (solver_span, solver, components) {
        let problem = Problem::error(span, "the randomized solver needs to know how many components are kept");
        section.log().push(problem.help("set `components`, or use `solver = \"full\"`"));
    }
    Box::new(Pca { components, variance, whiten, zca, epsilon, solver })
}

impl Reduction for Pca {
    fn name(&self) -> &'static str {
        KIND.name
    }

    fn fit_bytes(&self, features: u64, n_samples: u64) -> u64 {
        // The smaller of the two symmetric problems, with its eigenvectors and scratch; the axes and the map, in double precision.
        let side = features.min(n_samples);
        let kept = self.components.map_or(side, |components| components as u64).min(features);
        if self.is_random() && (self.solver == Solver::Randomized || features > 1024 && kept < side / 2) {
            return (6 * features * (kept + 16)).saturating_mul(8);
        }
        (3 * side * side).saturating_add(4 * features * kept).saturating_mul(8)
    }

    fn is_random(&self) -> bool {
        self.solver != Solver::Full && self.components.is_some()
    }

    fn leaves_scales(&self) -> bool {
        !self.whiten && !self.zca
    }

    fn keeps_shape(&self) -> bool {
        self.zca
    }

    fn output_shape(
        &self,
        input: Option<SampleShape>,
        n_samples: Option<usize>,
    ) -> Result<Option<SampleShape>, Misfit> {
        if let Some(components) = self.components {
            let wanted = counted(components, "component");
            if let Some(features) = input.map(SampleShape::len).filter(|&features| features < components) {
                let message = format!("{wanted} cannot be found in {}", counted(features, "feature"));
                return Err(
                    Misfit::about("components", message).help(format!("set `components` to at most {features}"))
                );
            }
            if let Some(n) = n_samples.filter(|&n| n < components) {
                let message = format!("{wanted} cannot be found in {}", counted(n, "image"));
                return Err(Misfit::about("components", message).help(format!("set `components` to at most {n}")));
            }
        }
        Ok(if self.zca { input } else { self.components.map(SampleShape::Flat) })
    }

    fn fit(&self, fitting: &Fitting<'_>) -> Result<Projection, FitError> {
        let samples = fitting.samples;
        let input = samples.feed().sample_shape();
        self.output_shape(Some(input), Some(samples.len()))?;
        if samples.len() < 2 {
            let message = format!("a variance needs 2 images to train on, got {}", samples.len());
            return Err(Misfit::about("", message).help("give `split` more images, or fewer folds").into());
        }
        let features = input.len();
        let (mean, mut axes) = match self.components {
            Some(n) if self.is_randomized(features.min(samples.len()), n) => {
                let moments = fitting.moments()?;
                let mean: Vec<f64> = moments.iter().map(|moments| moments.mean).collect();
                let total = moments.iter().fold(0.0, |sum, moments| sum + moments.m2) / (samples.len() - 1) as f64;
                let axes = randomized(fitting, &centred(samples.feed(), &mean), n, total)?;
                (mean, axes)
            }
            _ if samples.len() < features => {
                let mean: Vec<f64> = fitting.moments()?.iter().map(|moments| moments.mean).collect();
                let n = samples.len();
                let n_expected = if self.zca { n } else { self.n_expected(n) };
                // Axes without variance, of which there are thousands, need not be known to be turned back.
                let fills = !(self.zca && self.components.is_none());
                let axes = few::axes(fitting, &mean, n_expected, fills, |shares| self.n_kept(shares, n))?;
                (mean, axes)
            }
            _ => {
                let Covariance { mean, matrix } = Covariance::of(fitting)?;
                // Whitening turns axes without variance back too.
                let (n_expected, most) = if self.zca {
                    (features, features)
                } else {
                    (self.n_expected(features), features.min(samples.len()))
                };
                (mean, full(fitting, matrix, n_expected, |shares| self.n_kept(shares, most))?)
            }
        };
        // Rounding may leave a variance below nothing.
        axes.variances.iter_mut().for_each(|variance| *variance = variance.max(0.0));
        let n_kept = axes.variances.len();
        let weights = if self.zca {
            let rest = if axes.is_all { self.factors(&[0.0])[0] } else { 0.0 };
            zca_weights(fitting, features, &axes.vectors, &self.factors(&axes.variances), rest)?
        } else {
            let factors = if self.whiten { self.factors(&axes.variances) } else { vec![1.0; n_kept] };
            let mut weights = vec![0.0; features * n_kept];
            for (j, (vector, factor)) in axes.vectors.chunks_exact(features).zip(&factors).enumerate() {
                fitting.look()?;
                for (i, x) in vector.iter().enumerate() {
                    weights[i * n_kept + j] = (x * factor) as f32;
                }
            }
            weights
        };
        Ok(Projection {
            method: KIND.name.to_owned(),
            input,
            output: if self.zca { input } else { SampleShape::Flat(n_kept) },
            mean,
            weights,
            spectrum: Some(Spectrum {
                components: axes.vectors.iter().map(|&x| x as f32).collect(),
                explained_variance: axes.variances,
                total_variance: axes.total,
            }),
        })
    }
}

impl Pca {
    /// Whether the randomized solver finds the axes; `most` is how many there are.
    fn is_randomized(&self, most: usize, components: usize) -> bool {
        match self.solver {
            Solver::Full => false,
            Solver::Randomized => true,
            Solver::Auto => most > MOST_FULL && components * 5 < most,
        }
    }

    /// How many axes will probably be kept.
    fn n_expected(&self, most: usize) -> usize {
        match (self.components, self.variance) {
            (Some(n), _) => n,
            // All but nothing of images' variance is in all but nothing less than all axes.
            (None, Some(variance)) if variance > 0.999 => most,
            (None, Some(_)) => 0,
            (None, None) => most,
        }
    }

    /// How many axes are kept of those that explain these shares, at most `most`.
    fn n_kept(&self, shares: &[f64], most: usize) -> usize {
        let Some(variance) = self.variance else { return self.components.unwrap_or(most).min(most) };
        let mut explained = 0.0;
        let is_enough = |share: &f64| {
            explained += share;
            explained > variance
        };
        shares.iter().position(is_enough).map_or(most, |at| at + 1).clamp(1, most)
    }

    /// What whitening multiplies by, for each axis. Without any `epsilon`, an axis of no variance is multiplied by the
    /// number that scikit-learn has.
    fn factors(&self, variances: &[f64]) -> Vec<f64> {
        variances.iter().map(|v| 1.0 / (v + self.epsilon).sqrt().max(f64::from(f32::EPSILON))).collect()
    }
}

/// All axes of a covariance, of which the first `n_kept(shares)` are kept, probably `n_expected`.
pub(super) fn full(
    fitting: &Fitting<'_>,
    covariance: Vec<f64>,
    n_expected: usize,
    n_kept: impl FnOnce(&[f64]) -> usize,
) -> Result<Axes, FitError> {
    let features = covariance.len().isqrt();
    let total = (0..features).fold(0.0, |sum, i| sum + covariance[i * features + i]);
    let n_kept = |values: &[f64]| n_kept(&shares(values, total));
    let found = symmetric_eigen(fitting.engine, features, covariance, n_expected, n_kept, fitting.is_stopped)
        .map_err(eigen_error)?;
    let n_kept = found.vectors.len() / features;
    Ok(Axes { vectors: found.vectors, variances: found.values[..n_kept].to_vec(), total, is_all: false })
}

/// The first `n_kept` axes; `total` is the variance along all of them.
fn randomized(fitting: &Fitting<'_>, feed: &Feed, n_kept: usize, total: f64) -> Result<Axes, FitError> {
    let (features, n, engine) = (feed.sample_shape().len(), fitting.samples.len(), fitting.engine);
    let width = (n_kept + OVERSAMPLING).min(features).min(n);
    // Rows are vectors: `[width, features]`.
    let mut basis = vec![0.0f64; width * features];
    fitting.fill(&mut basis, |first, piece| fitting.stream.fill_normal(first, piece))?;
    orthogonalise(fitting, &mut basis, features)?;
    let mut product = vec![0.0f64; width * features];
    let most = samples_between_looks(features * width, BLOCK);
    let mut dense = Dense::new(fitting.engine, most.min(n), features, width);
    let (mut columns, mut image) = (vec![0.0f32; features * width], vec![0.0f32; most.min(n) * width]);
    let (mut sums, mut totals) = (vec![0.0f32; features * width], vec![0.0f64; features * width]);
    for turn in 0..N_PRODUCTS {
        if turn > 0 {
            std::mem::swap(&mut basis, &mut product);
            orthogonalise(fitting, &mut basis, features)?;
        }
        for (i, vector) in basis.chunks_exact(features).enumerate() {
            for (j, x) in vector.iter().enumerate() {
                columns[j * width + i] = *x as f32;
            }
        }
        totals.fill(0.0);
        fitting.for_each_block(feed, most, |n_block, values| {
            let image = &mut image[..n_block * width];
            matmul(fitting.engine, n_block, features, width, values, &columns, image);
            dense.backward_weights(n_block, values, image, &mut sums, None);
            totals.iter_mut().zip(&sums).for_each(|(total, &sum)| *total += f64::from(sum));
            Ok(())
        })?;
        for (i, product) in product.chunks_exact_mut(features).enumerate() {
            product.iter_mut().zip(totals[i..].iter().step_by(width)).for_each(|(x, total)| *x = *total);
        }
    }
    // What the covariance does inside the span of the basis.
    let (basis_rows, product_rows) = (basis.chunks_exact(features), product.chunks_exact(features));
    let mut inner: Vec<f64> = Vec::with_capacity(width * width);
    for b in basis_rows.clone() {
        fitting.look()?;
        inner.extend(product_rows.clone().map(|p| dot(engine, b, p) / (n - 1) as f64));
    }
    let symmetric = (0..width * width).map(|at| 0.5 * (inner[at] + inner[at % width * width + at / width])).collect();
    let found = symmetric_eigen(fitting.engine, width, symmetric, n_kept, |_| n_kept, fitting.is_stopped)
        .map_err(eigen_error)?;
    let mut vectors = vec![0.0; n_kept * features];
    for (vector, shares) in vectors.chunks_exact_mut(features).zip(found.vectors.chunks_exact(width)) {
        fitting.look()?;
        for (share, basis) in shares.iter().zip(basis_rows.clone()) {
            for (x, b) in vector.iter_mut().zip(basis) {
                *x += share * b;
            }
        }
        orient(vector);
    }
    Ok(Axes { vectors, variances: found.values[..n_kept].to_vec(), total, is_all: false })
}

/// Makes the rows orthogonal and of length 1, in order (Gram and Schmidt, twice: once is not enough for rows that were
/// nearly parallel). A row that adds nothing to those before it becomes 0.
fn orthogonalise(fitting: &Fitting<'_>, rows: &mut [f64], n: usize) -> Result<(), FitError> {
    for i in 0..rows.len() / n {
        fitting.look()?;
        let (before, rest) = rows.split_at_mut(i * n);
        straighten(fitting.engine, before, &mut rest[..n]);
    }
    Ok(())
}

/// Rows of a ZCA matrix that are made at once.
const ZCA_ROWS: usize = 512;

/// `rest 1 + Σ (factor - rest) v vᵀ`, `[features, features]`: axes that are not known are multiplied by `rest`.
pub(super) fn zca_weights(
    fitting: &Fitting<'_>,
    features: usize,
    vectors: &[f64],
    factors: &[f64],
    rest: f64,
) -> Result<Vec<f32>, FitError> {
    let mut weights = vec![0.0f32; features * features];
    let mut sums = vec![0.0f64; ZCA_ROWS.min(features) * features];
    for (i, weights) in weights.chunks_mut(ZCA_ROWS * features).enumerate() {
        let (first, sums) = (i * ZCA_ROWS, &mut sums[..weights.len()]);
        sums.fill(0.0);
        sums.chunks_exact_mut(features).enumerate().for_each(|(row, sums)| sums[first + row] = rest);
        let share = |row: usize, axis: usize| vectors[axis * features + first + row] * (factors[axis] - rest);
        if !double::add_rows(fitting.engine, features, share, vectors, sums, fitting.is_stopped) {
            return Err(FitError::Stopped);
        }
        weights.iter_mut().zip(&*sums).for_each(|(weight, sum)| *weight = *sum as f32);
    }
    Ok(weights)
}
