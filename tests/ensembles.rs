//! Fitted rules of ensembles beside SciPy's and scikit-learn's, on predictions of `tests/reference/make_ensembles.py`.

use convoy::artifact::predictions::Predictions;
use convoy::data::metrics::sample_log_loss;
use convoy::stages::ensemble::{Combine, stacking, weights};

/// SLSQP stops a little before the minimum, where the loss is flat.
const WEIGHT_TOLERANCE: f64 = 1e-5;
/// Where coefficients are hardly shrunk, a gradient of 1e-9 leaves them some room.
const COEFFICIENT_TOLERANCE: f64 = 1e-5;
/// Probabilities are single precision.
const PROBABILITY_TOLERANCE: f64 = 2e-7;

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    l2: f64,
    labels: Vec<u32>,
    members: Vec<Vec<Vec<f32>>>,
    weights: Vec<f64>,
    weighted_loss: f64,
    coefficients: Vec<f64>,
    intercepts: Vec<f64>,
    probabilities: Vec<Vec<f64>>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("reference/ensembles.json")).unwrap()
}

impl Case {
    fn predictions(&self) -> Vec<Predictions> {
        let rows: Vec<u32> = (0..self.labels.len() as u32).collect();
        let of = |member: &Vec<Vec<f32>>| Predictions::new(rows.clone(), member[0].len(), member.concat());
        self.members.iter().map(of).collect()
    }
}

#[track_caller]
fn assert_close(got: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((got - expected).abs() <= tolerance, "{what}: {got}, the reference has {expected}");
}

#[test]
fn weights_agree_with_scipy() {
    for case in cases() {
        let truths: Vec<f64> = (0..case.labels.len())
            .flat_map(|i| case.members.iter().map(move |member| (i, member)))
            .map(|(i, member)| f64::from(member[i][case.labels[i] as usize]))
            .collect();
        let got = weights::fit(case.members.len(), &truths);
        for (member, (got, expected)) in got.iter().zip(&case.weights).enumerate() {
            assert_close(*got, *expected, WEIGHT_TOLERANCE, &format!("{}: weight {member}", case.name));
        }
        let combined = Combine::Weighted(got).apply(&case.predictions()).unwrap();
        let losses = case.labels.iter().enumerate().map(|(i, &label)| sample_log_loss(combined.row(i)[label as usize]));
        let loss = losses.fold(0.0, |sum, loss| sum + loss) / case.labels.len() as f64;
        assert_close(loss, case.weighted_loss, 1e-7, &format!("{}: log loss", case.name));
    }
}

#[test]
fn stacking_agrees_with_scikit_learn() {
    for case in cases() {
        let (n_members, n_classes) = (case.members.len(), case.members[0][0].len());
        let probabilities: Vec<f64> = (0..case.labels.len())
            .flat_map(|i| case.members.iter().flat_map(move |member| &member[i]))
            .map(|&p| f64::from(p))
            .collect();
        let said = stacking::Said { probabilities: &probabilities, labels: &case.labels, n_members, n_classes };
        let (got, is_converged) = stacking::fit(said, case.l2);
        assert!(is_converged, "{}", case.name);
        for (i, (got, expected)) in got.coefficients.iter().zip(&case.coefficients).enumerate() {
            assert_close(*got, *expected, COEFFICIENT_TOLERANCE, &format!("{}: coefficient {i}", case.name));
        }
        let mean = got.intercepts.iter().fold(0.0, |sum, x| sum + x) / n_classes as f64;
        for (i, (got, expected)) in got.intercepts.iter().zip(&case.intercepts).enumerate() {
            assert_close(got - mean, *expected, COEFFICIENT_TOLERANCE, &format!("{}: intercept {i}", case.name));
        }
        let combined = Combine::Stacking(got).apply(&case.predictions()).unwrap();
        for (i, expected) in case.probabilities.iter().enumerate() {
            for (class, expected) in expected.iter().enumerate() {
                let what = format!("{}: sample {i}, class {class}", case.name);
                assert_close(combined.row(i)[class].into(), *expected, PROBABILITY_TOLERANCE, &what);
            }
        }
    }
}
