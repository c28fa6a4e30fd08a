//! PCA: the axes of largest variance, with whitening, and ZCA, which turns whitened samples back so that they are images.
//!
//! `full` solves the eigenproblem of the covariance matrix. `randomized` never builds it: a
//! random block of vectors is multiplied by the covariance a few times, made orthogonal in between, and the small problem
//! inside what it spans is solved (Halko, Martinsson and Tropp, 2011).

use super::covariance::Covariance;
use super::eigen::{NotFinite, orient, symmetric_eigen};
use super::{BLOCK, FitError, Fitting, Kind, Misfit, Projection, Reduction, Spectrum, centred, counted};
use crate::config::{Bounds, Problem, Section, canonical_float};
use crate::data::feed::Feed;
use crate::data::transform::Per;
use crate::data::transform::moments::Statistics;
use crate::engine::symmetric::{dot, subtract};
use crate::engine::{Dense, Engine, matmul};
use crate::tensor::SampleShape;

/// The line in the list.
pub const KIND: Kind = Kind {
    name: "pca",
    meaning: "The axes of largest variance, with or without whitening.",
    read,
    revision: 3,
    example: "{ pca = { components = 20, whiten = true, epsilon = 1e-3 } }",
};

/// What is kept unless something is said.
const DEFAULT_VARIANCE: f64 = 0.95;
/// Features up to which `auto` solves in full: 1,000 features take less time than reading 10,000 samples twice more.
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
    /// "full", "randomized" ["auto": full up to 1,024 features, or where most axes are kept].
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

    fn is_random(&self) -> bool {
        self.solver != Solver::Full && self.components.is_some()
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
                return Err(Misfit::new("components", message).help(format!("set `components` to at most {features}")));
            }
            if let Some(n) = n_samples.filter(|&n| n < components) {
                let message = format!("{wanted} cannot be found in {}", counted(n, "image"));
                return Err(Misfit::new("components", message).help(format!("set `components` to at most {n}")));
            }
        }
        Ok(if self.zca { input } else { self.components.map(SampleShape::Flat) })
    }

    fn fit(&self, fitting: &Fitting<'_>) -> Result<Projection, FitError> {
        let (samples, engine) = (fitting.samples, fitting.engine);
        let input = samples.feed().sample_shape();
        self.output_shape(Some(input), Some(samples.len()))?;
        if samples.len() < 2 {
            let message = format!("a variance needs 2 images to train on, got {}", samples.len());
            return Err(Misfit::new("", message).help("give `split` more images, or fewer folds").into());
        }
        let features = input.len();
        let (mean, mut axes) = match self.components {
            Some(n) if self.is_randomized(features, n) => {
                let moments = Statistics::new(samples, engine.threads()).moments(Per::Pixel);
                let mean: Vec<f64> = moments.iter().map(|moments| moments.mean).collect();
                let total = moments.iter().fold(0.0, |sum, moments| sum + moments.m2) / (samples.len() - 1) as f64;
                let axes = randomized(fitting, &centred(samples.feed(), &mean), n, total)?;
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
                (mean, full(engine, matrix, n_expected, |shares| self.n_kept(shares, most))?)
            }
        };
        // Rounding may leave a variance below nothing.
        axes.variances.iter_mut().for_each(|variance| *variance = variance.max(0.0));
        let n_kept = axes.variances.len();
        let weights = if self.zca {
            zca_weights(engine, features, &axes.vectors, &self.factors(&axes.variances))
        } else {
            let factors = if self.whiten { self.factors(&axes.variances) } else { vec![1.0; n_kept] };
            let mut weights = vec![0.0; features * n_kept];
            for (j, (vector, factor)) in axes.vectors.chunks_exact(features).zip(&factors).enumerate() {
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
    fn is_randomized(&self, features: usize, components: usize) -> bool {
        match self.solver {
            Solver::Full => false,
            Solver::Randomized => true,
            Solver::Auto => features > MOST_FULL && components * 5 < features,
        }
    }

    /// How many axes will probably be kept.
    fn n_expected(&self, features: usize) -> usize {
        match (self.components, self.variance) {
            (Some(n), _) => n,
            // All but nothing of images' variance is in all but nothing less than all axes.
            (None, Some(variance)) if variance > 0.999 => features,
            (None, Some(_)) => 0,
            (None, None) => features,
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

/// Orthogonal axes and the variances along them, descending.
struct Axes {
    /// `[components, features]`
    vectors: Vec<f64>,
    variances: Vec<f64>,
    /// Along all axes together.
    total: f64,
}

fn not_finite(_: NotFinite) -> FitError {
    Misfit::new("", "the features are too large, or not finite, so that there is no covariance").into()
}

/// The share of each variance.
fn shares(variances: &[f64], total: f64) -> Vec<f64> {
    variances.iter().map(|v| if total > 0.0 { v.max(0.0) / total } else { 1.0 }).collect()
}

/// All axes of a covariance, of which the first `n_kept(shares)` are kept, probably `n_expected`.
fn full(
    engine: &Engine,
    covariance: Vec<f64>,
    n_expected: usize,
    n_kept: impl FnOnce(&[f64]) -> usize,
) -> Result<Axes, FitError> {
    let features = covariance.len().isqrt();
    let total = (0..features).fold(0.0, |sum, i| sum + covariance[i * features + i]);
    let found = symmetric_eigen(engine, features, covariance, n_expected, |values| n_kept(&shares(values, total)))
        .map_err(not_finite)?;
    let n_kept = found.vectors.len() / features;
    Ok(Axes { vectors: found.vectors, variances: found.values[..n_kept].to_vec(), total })
}

/// The first `n_kept` axes; `total` is the variance along all of them.
fn randomized(fitting: &Fitting<'_>, feed: &Feed, n_kept: usize, total: f64) -> Result<Axes, FitError> {
    let (features, n, engine) = (feed.sample_shape().len(), fitting.samples.len(), fitting.engine);
    let width = (n_kept + OVERSAMPLING).min(features).min(n);
    // Rows are vectors: `[width, features]`.
    let mut basis = vec![0.0f64; width * features];
    fitting.stream.fill_normal(0, &mut basis);
    orthogonalise(engine, &mut basis, features);
    let mut product = vec![0.0f64; width * features];
    let mut dense = Dense::new(fitting.engine, BLOCK.min(n), features, width);
    let (mut columns, mut image) = (vec![0.0f32; features * width], vec![0.0f32; BLOCK.min(n) * width]);
    let mut sums = vec![0.0f32; features * width];
    for turn in 0..N_PRODUCTS {
        if turn > 0 {
            std::mem::swap(&mut basis, &mut product);
            orthogonalise(engine, &mut basis, features);
        }
        for (i, vector) in basis.chunks_exact(features).enumerate() {
            for (j, x) in vector.iter().enumerate() {
                columns[j * width + i] = *x as f32;
            }
        }
        product.fill(0.0);
        fitting.for_each_block(feed, |n_block, values| {
            let image = &mut image[..n_block * width];
            matmul(fitting.engine, n_block, features, width, values, &columns, image);
            dense.backward_weights(n_block, values, image, &mut sums, None);
            for (i, product) in product.chunks_exact_mut(features).enumerate() {
                for (j, x) in product.iter_mut().enumerate() {
                    *x += f64::from(sums[j * width + i]);
                }
            }
        })?;
    }
    // What the covariance does inside the span of the basis.
    let (basis_rows, product_rows) = (basis.chunks_exact(features), product.chunks_exact(features));
    let inner: Vec<f64> = basis_rows
        .clone()
        .flat_map(|b| product_rows.clone().map(move |p| dot(engine, b, p) / (n - 1) as f64))
        .collect();
    let symmetric = (0..width * width).map(|at| 0.5 * (inner[at] + inner[at % width * width + at / width])).collect();
    let found = symmetric_eigen(fitting.engine, width, symmetric, n_kept, |_| n_kept).map_err(not_finite)?;
    let mut vectors = vec![0.0; n_kept * features];
    for (vector, shares) in vectors.chunks_exact_mut(features).zip(found.vectors.chunks_exact(width)) {
        for (share, basis) in shares.iter().zip(basis_rows.clone()) {
            for (x, b) in vector.iter_mut().zip(basis) {
                *x += share * b;
            }
        }
        orient(vector);
    }
    Ok(Axes { vectors, variances: found.values[..n_kept].to_vec(), total })
}

/// Makes the rows orthogonal and of length 1, in order (Gram and Schmidt, twice: once is not enough for rows that were
/// nearly parallel). A row that adds nothing to those before it becomes 0.
fn orthogonalise(engine: &Engine, rows: &mut [f64], n: usize) {
    for i in 0..rows.len() / n {
        let (before, rest) = rows.split_at_mut(i * n);
        let row = &mut rest[..n];
        let length = dot(engine, row, row).sqrt();
        for _ in 0..2 {
            for other in before.chunks_exact(n) {
                let share = dot(engine, other, row);
                subtract(engine, share, other, row);
            }
        }
        let left = dot(engine, row, row).sqrt();
        let factor = if left > length * 1e-13 { 1.0 / left } else { 0.0 };
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Rows of a ZCA matrix that one thread makes at a time.
const ZCA_ROWS: usize = 8;

/// `Σ factor v vᵀ`, `[features, features]`.
fn zca_weights(engine: &Engine, features: usize, vectors: &[f64], factors: &[f64]) -> Vec<f32> {
    let mut weights = vec![0.0f32; features * features];
    engine.for_each_chunk(&mut weights, ZCA_ROWS * features, |i, weights| {
        let first = i * ZCA_ROWS;
        let mut sums = vec![0.0f64; weights.len()];
        for (vector, factor) in vectors.chunks_exact(features).zip(factors) {
            for (row, sums) in sums.chunks_exact_mut(features).enumerate() {
                let share = vector[first + row] * factor;
                for (sum, x) in sums.iter_mut().zip(vector) {
                    *sum += share * x;
                }
            }
        }
        for (weight, sum) in weights.iter_mut().zip(&sums) {
            *weight = *sum as f32;
        }
    });
    weights
}
