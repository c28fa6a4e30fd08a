//! Weights of a mixture of members: on the simplex, those with the smallest log loss.
//!
//! The mean log loss of `sum over m of w[m] p[m]` is convex in the weights. With the sum of the weights added to it the
//! best non-negative weights sum to 1 by themselves, so that only `w >= 0` is left to keep (Kim, Carbonetto, Stephens
//! and Anitescu, 2020); a projected Newton method (Bertsekas, 1982) does so in a few steps.

/// Steps after which it stops in any case; ten are usual.
const MAX_STEPS: usize = 200;
/// Largest violation of the conditions of a minimum: of a weight's gradient, or of a weight that should be 0.
const TOLERANCE: f64 = 1e-12;
/// Least probability that is looked at, as in the log loss.
const LEAST: f64 = f32::EPSILON as f64;
/// Added to the curvature, relative to its mean, so that members that say the same share their weight.
const RIDGE: f64 = 1e-9;

/// The weights with which the mixture has the smallest mean log loss.
///
/// # Shapes
/// - `truths`: `[n, n_members]`, the probability that each member gives the true class of each sample
/// - returns `[n_members]`, not negative, summing to 1; equal weights without samples
///
/// # Determinism
/// Sums run over samples in order, in double precision.
///
/// # Panics
/// If there is no member, or the shape is not whole.
pub fn fit(n_members: usize, truths: &[f64]) -> Vec<f64> {
    assert!(n_members > 0 && truths.len().is_multiple_of(n_members), "{} truths of {n_members}", truths.len());
    let truths: Vec<f64> = truths.iter().map(|p| if *p >= LEAST { *p } else { LEAST }).collect();
    let mut weights = vec![1.0 / n_members as f64; n_members];
    if truths.is_empty() {
        return weights;
    }
    for _ in 0..MAX_STEPS {
        let (value, gradient, curvature) = derivatives(n_members, &truths, &weights);
        let violation = weights.iter().zip(&gradient).fold(0.0f64, |worst, (w, g)| worst.max(w.min(*g).abs()));
        if violation <= TOLERANCE {
            break;
        }
        // Weights that are about to be 0 follow their gradient there; the others take a Newton step.
        let near = violation.min(1e-3);
        let free: Vec<usize> = (0..n_members).filter(|&m| weights[m] > near || gradient[m] <= 0.0).collect();
        let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
        for (&m, step) in free.iter().zip(newton_step(&free, &gradient, &curvature, n_members)) {
            direction[m] = step;
        }
        let moved = |length: f64| -> Vec<f64> {
            weights.iter().zip(&direction).map(|(w, d)| (w + length * d).max(0.0)).collect()
        };
        let mut length = 1.0;
        let next = loop {
            let next = moved(length);
            let promised =
                weights.iter().zip(&next).zip(&gradient).fold(0.0, |sum, ((old, new), g)| sum + g * (old - new));
            if objective(n_members, &truths, &next) <= value - 1e-4 * promised {
                break Some(next);
            }
            length *= 0.5;
            if length < 1e-12 {
                break None;
            }
        };
        match next {
            Some(next) => weights = next,
            // Rounding leaves nothing to gain.
            None => break,
        }
    }
    let total = weights.iter().fold(0.0, |sum, w| sum + w);
    weights.iter().map(|w| w / total).collect()
}

fn mixture(said: &[f64], weights: &[f64]) -> f64 {
    said.iter().zip(weights).fold(0.0, |sum, (p, w)| sum + p * w)
}

fn objective(n_members: usize, truths: &[f64], weights: &[f64]) -> f64 {
    let n = (truths.len() / n_members) as f64;
    let loss =
        truths.chunks_exact(n_members).fold(0.0, |sum, said| sum - crate::elementary::ln(mixture(said, weights)));
    // Without any weight the logarithm is infinite, and so is the objective.
    loss / n + weights.iter().fold(0.0, |sum, w| sum + w)
}

/// The objective, its gradient and its Hessian `[n_members, n_members]`.
fn derivatives(n_members: usize, truths: &[f64], weights: &[f64]) -> (f64, Vec<f64>, Vec<f64>) {
    let n = (truths.len() / n_members) as f64;
    let mut gradient = vec![0.0; n_members];
    let mut curvature = vec![0.0; n_members * n_members];
    for said in truths.chunks_exact(n_members) {
        let whole = mixture(said, weights);
        for (a, p) in said.iter().enumerate() {
            let share = p / whole;
            gradient[a] -= share;
            for (b, q) in said.iter().enumerate() {
                curvature[a * n_members + b] += share * (q / whole);
            }
        }
    }
    gradient.iter_mut().for_each(|g| *g = *g / n + 1.0);
    curvature.iter_mut().for_each(|h| *h /= n);
    (objective(n_members, truths, weights), gradient, curvature)
}

/// `-H^-1 g` over the members `free`, by Cholesky's decomposition.
fn newton_step(free: &[usize], gradient: &[f64], curvature: &[f64], n_members: usize) -> Vec<f64> {
    let k = free.len();
    let mut lower = vec![0.0; k * k];
    let trace = free.iter().fold(0.0, |sum, &m| sum + curvature[m * n_members + m]);
    let ridge = RIDGE * trace / k.max(1) as f64;
    for i in 0..k {
        for j in 0..=i {
            let mut sum = curvature[free[i] * n_members + free[j]];
            for l in 0..j {
                sum -= lower[i * k + l] * lower[j * k + l];
            }
            lower[i * k + j] = if i == j { (sum + ridge).max(ridge).sqrt() } else { sum / lower[j * k + j] };
        }
    }
    let mut step: Vec<f64> = free.iter().map(|&m| -gradient[m]).collect();
    for i in 0..k {
        for l in 0..i {
            step[i] -= lower[i * k + l] * step[l];
        }
        step[i] /= lower[i * k + i];
    }
    for i in (0..k).rev() {
        for l in i + 1..k {
            step[i] -= lower[l * k + i] * step[l];
        }
        step[i] /= lower[i * k + i];
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conditions_of_a_minimum_hold() {
        let stream = crate::rng::Stream::new(1, "test", &[]);
        for (case, n_members) in [2usize, 3, 5, 8].into_iter().enumerate() {
            let n = 300;
            let truths: Vec<f64> = (0..n * n_members)
                .map(|i| {
                    let u = stream.uniform((case * 100_000 + i) as u64);
                    // Some members are worse than others.
                    u * (1.0 - 0.1 * (i % n_members) as f64)
                })
                .collect();
            let weights = fit(n_members, &truths);
            let total: f64 = weights.iter().fold(0.0, |sum, w| sum + w);
            assert!((total - 1.0).abs() < 1e-14 && weights.iter().all(|w| *w >= 0.0), "{weights:?}");
            let (_, gradient, _) = derivatives(n_members, &truths, &weights);
            for (w, g) in weights.iter().zip(&gradient) {
                assert!(w.min(*g).abs() < 1e-10, "{n_members} members: {weights:?}, {gradient:?}");
            }
        }
    }

    #[test]
    fn plain_cases_come_out_as_they_must() {
        // Members that say the same share their weight.
        let same: Vec<f64> = (0..50).flat_map(|i| [0.01 + 0.019 * f64::from(i); 2]).collect();
        assert_eq!(fit(2, &same), [0.5, 0.5]);
        // One that is always better gets all.
        let weights = fit(3, &[0.9, 0.5, 0.1, 0.8, 0.7, 0.2, 0.6, 0.5, 0.3]);
        assert_eq!(weights, [1.0, 0.0, 0.0]);
        // Two that are right about different samples: 2 of 3 against 1 of 3.
        let weights = fit(2, &[1.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        assert!((weights[0] - 2.0 / 3.0).abs() < 1e-6, "{weights:?}");
        assert_eq!(fit(4, &[]), [0.25; 4]);
        assert_eq!(fit(1, &[0.5, 0.1]), [1.0]);
        // What is not a number is the surest mistake.
        let weights = fit(2, &[f64::NAN, 0.5, 0.5, 0.5]);
        assert!(weights[1] > 0.99, "{weights:?}");
    }
}
