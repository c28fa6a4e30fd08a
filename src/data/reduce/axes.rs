//! Axes of variance, and what every way to find them shares.

use super::eigen::EigenError;
use super::{FitError, Misfit};
use crate::engine::Engine;
use crate::engine::symmetric::{dot, subtract};

/// Orthogonal axes and the variances along them, descending.
pub(super) struct Axes {
    /// `[components, features]`
    pub vectors: Vec<f64>,
    pub variances: Vec<f64>,
    /// Along all axes together.
    pub total: f64,
    /// Whether all others have no variance, and are kept without being known.
    pub is_all: bool,
}

pub(super) fn eigen_error(error: EigenError) -> FitError {
    match error {
        EigenError::Stopped => FitError::Stopped,
        EigenError::NotFinite => {
            Misfit::about("", "the features are too large, or not finite, so that there is no covariance").into()
        }
    }
}

/// The share of each variance.
pub(super) fn shares(variances: &[f64], total: f64) -> Vec<f64> {
    variances.iter().map(|v| if total > 0.0 { v.max(0.0) / total } else { 1.0 }).collect()
}

/// Makes `row` orthogonal to those of length 1 `before` it, and of length 1 itself, or 0.
pub(super) fn straighten(engine: &Engine, before: &[f64], row: &mut [f64]) {
    let length = dot(engine, row, row).sqrt();
    for _ in 0..2 {
        for other in before.chunks_exact(row.len()) {
            let share = dot(engine, other, row);
            subtract(engine, share, other, row);
        }
    }
    let left = dot(engine, row, row).sqrt();
    let factor = if left > length * 1e-13 { 1.0 / left } else { 0.0 };
    row.iter_mut().for_each(|x| *x *= factor);
}
