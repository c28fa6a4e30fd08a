//! Stacking: a softmax regression on the probabilities that members give (Wolpert, 1992; Ting and Witten, 1999). Not on
//! their logarithms: those of networks that are too sure of themselves span tens of nats, and few images decide the
//! fit.
//!
//! Minimises the mean log loss plus `l2 / 2 * |coefficients|^2` (intercepts are not shrunk) with L-BFGS (Nocedal, 1980;
//! Liu and Nocedal, 1989), which is scikit-learn's `LogisticRegression` with `C = 1 / (l2 * n)`.

use super::super::calibrate::softmax;
use crate::artifact::ensemble::Stacking;

/// Largest entry of the gradient at which it stops.
const TOLERANCE: f64 = 1e-9;
/// Steps after which it stops in any case.
const MAX_STEPS: usize = 2_000;
/// Pairs of steps and changes of the gradient that are remembered.
const MEMORY: usize = 20;

/// What members say of labelled samples.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// Probabilities, `[n, n_members, n_classes]`.
    pub probabilities: &'a [f64],
    /// True classes, `[n]`.
    pub labels: &'a [u32],
    /// Number of members.
    pub n_members: usize,
    /// Number of classes.
    pub n_classes: usize,
}

/// Fits the regression. Returns it, and whether it converged.
///
/// # Determinism
/// Sums run over samples in order, in double precision.
///
/// # Panics
/// If the shapes disagree.
pub fn fit(said: Said<'_>, l2: f64) -> (Stacking, bool) {
    let (n, k) = (said.labels.len(), said.n_classes);
    let d = said.n_members * k;
    assert_eq!(said.probabilities.len(), n * d, "probabilities of {n} samples");
    // Centred, the problem is far better conditioned; the intercepts, which are free, take it up.
    let mut means = vec![0.0; d];
    for row in said.probabilities.chunks_exact(d) {
        means.iter_mut().zip(row).for_each(|(mean, x)| *mean += x);
    }
    means.iter_mut().for_each(|mean| *mean /= n.max(1) as f64);
    let centred: Vec<f64> =
        said.probabilities.chunks_exact(d).flat_map(|row| row.iter().zip(&means).map(|(x, mean)| x - mean)).collect();
    let said = Said { probabilities: &centred, ..said };
    let start = vec![0.0; (d + 1) * k];
    let (mut parameters, is_converged) = minimise(start, |at, gradient| loss(said, l2, at, gradient));
    let mut intercepts = parameters.split_off(d * k);
    for (coefficients, mean) in parameters.chunks_exact(k).zip(&means) {
        intercepts.iter_mut().zip(coefficients).for_each(|(intercept, w)| *intercept -= w * mean);
    }
    let stacking = Stacking { n_members: said.n_members, n_classes: k, coefficients: parameters, intercepts };
    (stacking, is_converged)
}

/// The objective and its gradient at `[n_members * n_classes + 1, n_classes]` parameters, intercepts last.
fn loss(said: Said<'_>, l2: f64, at: &[f64], gradient: &mut [f64]) -> f64 {
    let k = said.n_classes;
    let d = said.n_members * k;
    let (weights, intercepts) = at.split_at(d * k);
    gradient.fill(0.0);
    let mut total = 0.0;
    let mut scores = vec![0.0; k];
    for (row, &label) in said.probabilities.chunks_exact(d).zip(said.labels) {
        scores.copy_from_slice(intercepts);
        for (x, weights) in row.iter().zip(weights.chunks_exact(k)) {
            scores.iter_mut().zip(weights).for_each(|(score, w)| *score += w * x);
        }
        let truth = scores[label as usize];
        total += softmax(&mut scores) - truth;
        scores[label as usize] -= 1.0;
        let (of_weights, of_intercepts) = gradient.split_at_mut(d * k);
        for (x, gradient) in row.iter().zip(of_weights.chunks_exact_mut(k)) {
            gradient.iter_mut().zip(&scores).for_each(|(g, error)| *g += error * x);
        }
        of_intercepts.iter_mut().zip(&scores).for_each(|(g, error)| *g += error);
    }
    let n = said.labels.len().max(1) as f64;
    gradient.iter_mut().for_each(|g| *g /= n);
    for (g, w) in gradient.iter_mut().zip(weights) {
        *g += l2 * w;
    }
    total / n + 0.5 * l2 * dot(weights, weights)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

/// A minimum of `f`, which fills in the gradient and returns the value; and whether the gradient vanishes there.
fn minimise(start: Vec<f64>, mut f: impl FnMut(&[f64], &mut [f64]) -> f64) -> (Vec<f64>, bool) {
    let mut at = start;
    let mut gradient = vec![0.0; at.len()];
    let mut value = f(&at, &mut gradient);
    // Steps and changes of the gradient, the newest last.
    let mut pairs: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
    let mut next = vec![0.0; at.len()];
    let mut next_gradient = vec![0.0; at.len()];
    for _ in 0..MAX_STEPS {
        if gradient.iter().all(|g| g.abs() <= TOLERANCE) {
            return (at, true);
        }
        let direction = quasi_newton_direction(&gradient, &pairs);
        let slope = dot(&gradient, &direction);
        // The first step knows no curvature: it is no longer than 1.
        let mut length = if pairs.is_empty() { 1.0 / dot(&direction, &direction).sqrt().max(1.0) } else { 1.0 };
        let next_value = loop {
            next.iter_mut().zip(&at).zip(&direction).for_each(|((next, at), d)| *next = at + length * d);
            let next_value = f(&next, &mut next_gradient);
            if next_value <= value + 1e-4 * length * slope {
                break Some(next_value);
            }
            length *= 0.5;
            if length < 1e-10 {
                break None;
            }
        };
        // Where rounding hides any further descent, the gradient is as small as it gets.
        let Some(next_value) = next_value else { break };
        let step: Vec<f64> = next.iter().zip(&at).map(|(next, at)| next - at).collect();
        let change: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(next, g)| next - g).collect();
        if dot(&step, &change) > 0.0 {
            if pairs.len() == MEMORY {
                pairs.remove(0);
            }
            pairs.push((step, change));
        }
        std::mem::swap(&mut at, &mut next);
        std::mem::swap(&mut gradient, &mut next_gradient);
        value = next_value;
    }
    // A gradient this small moves no probability by more than a reader sees.
    let is_converged = gradient.iter().all(|g| g.abs() <= 1e3 * TOLERANCE);
    (at, is_converged)
}

/// The two-loop recursion.
fn quasi_newton_direction(gradient: &[f64], pairs: &[(Vec<f64>, Vec<f64>)]) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let Some((step, change)) = pairs.last() else { return direction };
    let mut shares = Vec::with_capacity(pairs.len());
    for (step, change) in pairs.iter().rev() {
        let share = dot(step, &direction) / dot(step, change);
        direction.iter_mut().zip(change).for_each(|(d, y)| *d -= share * y);
        shares.push(share);
    }
    let scale = dot(step, change) / dot(change, change);
    direction.iter_mut().for_each(|d| *d *= scale);
    for ((step, change), share) in pairs.iter().zip(shares.iter().rev()) {
        let correction = share - dot(change, &direction) / dot(step, change);
        direction.iter_mut().zip(step).for_each(|(d, s)| *d += correction * s);
    }
    direction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_that_of_the_loss_and_vanishes_at_the_fit() {
        let stream = crate::rng::Stream::new(3, "test", &[]);
        let (n, m, k) = (40, 2, 3);
        let said: Vec<f64> = (0..n * m * k).map(|i| 3.0 * stream.uniform(i as u64)).collect();
        let labels: Vec<u32> = (0..n).map(|i| (stream.below(10_000 + i as u64, 3)) as u32).collect();
        let said = Said { probabilities: &said, labels: &labels, n_members: m, n_classes: k };
        let at: Vec<f64> = (0..(m * k + 1) * k).map(|i| stream.normal(20_000 + i as u64)).collect();
        let mut gradient = vec![0.0; at.len()];
        loss(said, 0.01, &at, &mut gradient);
        let mut scratch = vec![0.0; at.len()];
        for i in 0..at.len() {
            let mut moved = at.clone();
            moved[i] += 1e-5;
            let above = loss(said, 0.01, &moved, &mut scratch);
            moved[i] -= 2e-5;
            let below = loss(said, 0.01, &moved, &mut scratch);
            assert!(((above - below) / 2e-5 - gradient[i]).abs() < 1e-8, "parameter {i}");
        }
        let (stacking, is_converged) = fit(said, 0.01);
        assert!(is_converged);
        let at = [stacking.coefficients, stacking.intercepts].concat();
        loss(said, 0.01, &at, &mut gradient);
        assert!(gradient.iter().all(|g| g.abs() < 1e-8), "{gradient:?}");
    }

    #[test]
    fn members_that_know_are_believed_and_no_samples_teach_nothing() {
        // The first member is right, the second always says class 0.
        let labels = [0, 1, 2, 0, 1, 2];
        let said: Vec<f64> = labels
            .iter()
            .flat_map(|&label| {
                (0..6).map(move |i| {
                    if i < 3 && i != label {
                        0.05
                    } else if i < 4 {
                        0.9
                    } else {
                        0.02
                    }
                })
            })
            .collect();
        let labels = labels.map(|label| label as u32);
        let (stacking, is_converged) =
            fit(Said { probabilities: &said, labels: &labels, n_members: 2, n_classes: 3 }, 1e-3);
        assert!(is_converged);
        assert!(stacking.coefficients[0] > 0.5 && stacking.coefficients[9..].iter().all(|w| w.abs() < 1e-6));
        let (nothing, is_converged) = fit(Said { probabilities: &[], labels: &[], n_members: 2, n_classes: 3 }, 1e-3);
        assert!(is_converged && nothing.coefficients.iter().all(|w| *w == 0.0));
    }
}
