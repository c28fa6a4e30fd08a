//! Every metric beside scikit-learn's, on predictions of `tests/reference/make_metrics.py`.

use std::collections::BTreeMap;

use convoy::data::metrics::{METRICS, Scored, wilson_interval};

/// Sums of up to 150 terms, in another order than scikit-learn's.
const TOLERANCE: f64 = 1e-6;

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    top_k: usize,
    labels: Vec<u32>,
    probabilities: Vec<Vec<f32>>,
    values: BTreeMap<String, f64>,
    classes: Vec<(f64, f64, f64, u64)>,
    confusion: Vec<Vec<u64>>,
    wilson: (f64, f64),
}

#[track_caller]
fn assert_close(got: f64, expected: f64, what: &str) {
    assert!((got - expected).abs() <= TOLERANCE, "{what}: {got}, scikit-learn has {expected}");
}

#[test]
fn metrics_agree_with_scikit_learn() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("reference/metrics.json")).unwrap();
    assert!(cases.len() >= 7);
    for case in cases {
        let name = &case.name;
        let n_classes = case.probabilities[0].len();
        let probabilities = case.probabilities.concat();
        let scored = Scored::new(&case.labels, &probabilities, n_classes, case.top_k);
        let confusion = scored.confusion();
        for metric in METRICS {
            let expected = case.values.get(metric.name);
            let expected = *expected.unwrap_or_else(|| panic!("no reference for `{}`", metric.name));
            assert_close((metric.compute)(&scored, &confusion), expected, &format!("{name}: {}", metric.name));
        }
        for (class, &(precision, recall, f1, support)) in case.classes.iter().enumerate() {
            let got = confusion.class(class);
            assert_eq!(got.support, support, "{name}: support of class {class}");
            assert_close(got.precision, precision, &format!("{name}: precision of class {class}"));
            assert_close(got.recall, recall, &format!("{name}: recall of class {class}"));
            assert_close(got.f1, f1, &format!("{name}: F1 of class {class}"));
            for (predicted, &count) in case.confusion[class].iter().enumerate() {
                assert_eq!(confusion.count(class, predicted), count, "{name}: {class} taken for {predicted}");
            }
        }
        let (low, high) = wilson_interval(confusion.n_correct(), confusion.n_samples()).unwrap();
        assert_close(low, case.wilson.0, &format!("{name}: lower end of the interval"));
        assert_close(high, case.wilson.1, &format!("{name}: upper end of the interval"));
    }
}
