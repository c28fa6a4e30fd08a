//! Every metric, interval and test beside scikit-learn's, SciPy's and NumPy's, on what
//! `tests/reference/make_metrics.py` wrote.

use std::collections::BTreeMap;

use convoy::data::metrics::{METRICS, Scored, find, holm, intervals, mcnemar, percentile_interval, wilson_interval};

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
    bootstrap: BTreeMap<String, (f64, f64)>,
}

#[track_caller]
fn assert_close(got: f64, expected: f64, what: &str) {
    assert!((got - expected).abs() <= TOLERANCE, "{what}: {got}, scikit-learn has {expected}");
}

fn table(probabilities: &[f32], n_classes: usize) -> ndarray::ArrayView2<'_, f32> {
    ndarray::ArrayView2::from_shape((probabilities.len() / n_classes, n_classes), probabilities).unwrap()
}

#[test]
fn metrics_agree_with_scikit_learn() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("reference/metrics.json")).unwrap();
    assert!(cases.len() >= 7);
    for case in cases {
        let name = &case.name;
        let n_classes = case.probabilities[0].len();
        let probabilities = case.probabilities.concat();
        let scored = Scored::new(&case.labels, table(&probabilities, n_classes), case.top_k);
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

#[test]
fn bootstrap_intervals_agree_with_scipy() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("reference/metrics.json")).unwrap();
    for case in cases {
        let probabilities = case.probabilities.concat();
        let scored = Scored::new(&case.labels, table(&probabilities, case.probabilities[0].len()), case.top_k);
        let names: Vec<&String> = case.bootstrap.keys().collect();
        let got = intervals(&scored, 1, 4000, |drawn, confusion| {
            names.iter().map(|name| (find(name).unwrap().compute)(drawn, confusion)).collect()
        });
        for ((name, &(low, high)), got) in case.bootstrap.iter().zip(got) {
            // Other draws than SciPy's: an end of the interval varies by a few hundredths of its width, and a share by
            // whole samples.
            let room = 0.1 * (high - low) + 1.0 / case.labels.len() as f64 + 1e-9;
            let (got_low, got_high) = got.unwrap();
            let what = format!("{}: {name} from {got_low} to {got_high}, SciPy has {low} to {high}", case.name);
            assert!((got_low - low).abs() <= room && (got_high - high).abs() <= room, "{what}");
        }
    }
}

#[derive(serde::Deserialize)]
struct Comparisons {
    mcnemar: Vec<Test>,
    holm: Vec<f64>,
    percentiles: Vec<(Vec<f64>, f64, f64)>,
}

#[derive(serde::Deserialize)]
struct Test {
    only_a: usize,
    only_b: usize,
    exact: bool,
    statistic: f64,
    p: f64,
}

#[test]
fn tests_of_differences_agree_with_scipy() {
    let expected: Comparisons = serde_json::from_str(include_str!("reference/comparisons.json")).unwrap();
    let mut p_values = Vec::new();
    for case in &expected.mcnemar {
        let pairs = (0..case.only_a).map(|_| (true, false)).chain((0..case.only_b).map(|_| (false, true)));
        let got = mcnemar(pairs.chain([(true, true)]));
        let what = format!("McNemar of {} and {}", case.only_a, case.only_b);
        assert_eq!(got.is_exact, case.exact, "{what}");
        assert_close(got.statistic, case.statistic, &what);
        assert!((got.p_value - case.p).abs() <= 1e-9 * case.p + 1e-15, "{what}: {} for {}", got.p_value, case.p);
        p_values.push(got.p_value);
    }
    for (got, expected) in holm(&p_values).iter().zip(&expected.holm) {
        assert_close(*got, *expected, "Holm");
    }
    for (values, low, high) in expected.percentiles {
        let got = percentile_interval(values).unwrap();
        assert!((got.0 - low).abs() < 1e-12 && (got.1 - high).abs() < 1e-12, "{got:?} for {low} to {high}");
    }
}
