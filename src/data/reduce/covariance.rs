//! Means and covariances of training samples, by feature.
//!
//! Stored bytes are summed and multiplied as whole numbers, exact, so that no order of summing can show; what affine
//! steps do to a covariance is computed from it. Everything else goes through the steps and is multiplied in single
//! precision, in chunks whose sums are added up in double precision (`engine::gram`).

use super::{BLOCK, FitError, Fitting, centred};
use crate::data::samples::Values;
use crate::data::transform::{Affine, Fitted};
use crate::engine::{ByteMoments, ByteProducts, gram};

/// What is known of training samples that have gone through the steps of their feed.
pub struct Covariance {
    /// `[features]`
    pub mean: Vec<f64>,
    /// `[features, features]`, symmetric, with `n - 1`.
    pub matrix: Vec<f64>,
}

impl Covariance {
    /// Of at least two samples.
    ///
    /// # Errors
    /// If it was told to stop.
    pub fn of(fitting: &Fitting<'_>) -> Result<Covariance, FitError> {
        let (feed, rows) = (fitting.samples.feed(), fitting.samples.rows());
        let steps: Option<Vec<&Affine>> = feed
            .chain()
            .fitted()
            .iter()
            .map(|step| match step {
                Fitted::Affine(affine) => Some(affine),
                Fitted::StandardizeImage => None,
            })
            .collect();
        let is_bytes = rows.first().is_some_and(|&row| matches!(feed.samples().values(row.index()), Values::U8(_)));
        match steps {
            Some(steps) if is_bytes => moved(&byte_moments(fitting)?, &steps, fitting),
            _ => in_single_precision(fitting),
        }
    }
}

fn byte_moments(fitting: &Fitting<'_>) -> Result<ByteMoments, FitError> {
    let (feed, rows) = (fitting.samples.feed(), fitting.samples.rows());
    let mut products = ByteProducts::new(fitting.engine, feed.sample_shape().len());
    let sample = |i: usize| match feed.samples().values(rows[i].index()) {
        Values::U8(values) => values,
        other => panic!("sample {:?} is {other:?}, the first one had bytes", rows[i]),
    };
    if products.add(rows.len(), sample, fitting.is_stopped) { Ok(products.finish()) } else { Err(FitError::Stopped) }
}

/// The covariance after affine steps.
fn moved(moments: &ByteMoments, steps: &[&Affine], fitting: &Fitting<'_>) -> Result<Covariance, FitError> {
    let (n, features) = (moments.n, moments.sums.len());
    let mut factors = vec![1.0; features];
    let mut mean: Vec<f64> = moments.sums.iter().map(|&sum| sum as f64 / n as f64).collect();
    for Affine { subtract, multiply, add, .. } in steps {
        for (i, (mean, factor)) in mean.iter_mut().zip(&mut factors).enumerate() {
            let at = i % subtract.len();
            *mean = (*mean - subtract[at]) * multiply[at] + add[at];
            *factor *= multiply[at];
        }
    }
    let divisor = n as f64 * (n - 1) as f64;
    let mut matrix = vec![0.0; features * features];
    for (i, row) in matrix.chunks_exact_mut(features).enumerate() {
        fitting.look()?;
        let products = &moments.products[i * features..][..features];
        for (j, (x, &product)) in row.iter_mut().zip(products).enumerate() {
            // n * product - sum * sum is exact; it is rounded once here, and by each of the following operations.
            let spread =
                i128::from(n) * i128::from(product) - i128::from(moments.sums[i]) * i128::from(moments.sums[j]);
            *x = spread as f64 / divisor * (factors[i] * factors[j]);
        }
    }
    Ok(Covariance { mean, matrix })
}

fn in_single_precision(fitting: &Fitting<'_>) -> Result<Covariance, FitError> {
    let (samples, engine) = (fitting.samples, fitting.engine);
    let (n, features) = (samples.len(), samples.feed().sample_shape().len());
    let mean: Vec<f64> = fitting.moments()?.iter().map(|moments| moments.mean).collect();
    let mut matrix = vec![0.0f64; features * features];
    let mut block = if n > BLOCK { vec![0.0f64; features * features] } else { Vec::new() };
    fitting.for_each_block(&centred(samples.feed(), &mean), BLOCK, |n_block, values| {
        let into = if block.is_empty() { &mut matrix } else { &mut block };
        if !gram(engine, (n_block, features), values, None, fitting.is_stopped, into) {
            return Err(FitError::Stopped);
        }
        matrix.iter_mut().zip(&block).for_each(|(sum, x)| *sum += x);
        Ok(())
    })?;
    matrix.iter_mut().for_each(|x| *x /= (n - 1) as f64);
    Ok(Covariance { mean, matrix })
}
