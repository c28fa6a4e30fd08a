//! What is said in words of temperatures and of what a model answers.

use crate::artifact::evaluation::{Abstained, Calibrated, Evaluation};

/// A line for each temperature and each threshold of the model that was evaluated; of its members where it has none.
pub fn lines(evaluation: &Evaluation) -> Vec<String> {
    let is_own = |model: &str| model == evaluation.model;
    let has_own = evaluation.calibrated.iter().any(|own| is_own(&own.model))
        || evaluation.abstained.iter().any(|own| is_own(&own.model));
    let is_shown = |model: &str| !has_own || is_own(model);
    let calibrated = evaluation.calibrated.iter().filter(|own| is_shown(&own.model)).map(temperature);
    calibrated.chain(evaluation.abstained.iter().filter(|own| is_shown(&own.model)).map(answered)).collect()
}

/// `temperature 1.4142 of cnn on test: calibration error 0.0312 -> 0.0105, log loss 0.1234 -> 0.1102`.
fn temperature(own: &Calibrated) -> String {
    let digits = |x: Option<f64>| x.map_or_else(|| "none".to_owned(), |x| format!("{x:.4}"));
    let both = |(before, after): (Option<f64>, Option<f64>)| format!("{} -> {}", digits(before), digits(after));
    format!(
        "temperature {:.4} of {} on {}: calibration error {}, log loss {}",
        own.temperature,
        own.model,
        own.split,
        both(own.calibration_error),
        both(own.log_loss)
    )
}

/// `cnn answers 93.1 % of test (335 of 360), 1.8 % of that wrong [0.8 %, 3.9 %], 2 % wanted`.
fn answered(own: &Abstained) -> String {
    let Abstained { model, split, n, n_answered, .. } = own;
    let wanted = percent(own.error);
    if own.threshold.is_none() {
        return format!(
            "{model} abstains on every image of {split}: no confidence keeps the error at {wanted} out of fold"
        );
    }
    let coverage = own.coverage().map_or_else(String::new, |share| format!("{} ", percent(share)));
    let wrong = match (own.error_found(), own.error_interval) {
        (Some(error), Some((low, high))) => {
            format!("{} of that wrong [{}, {}]", percent(error), percent(low), percent(high))
        }
        _ => "nothing of that wrong".to_owned(),
    };
    format!("{model} answers {coverage}of {split} ({n_answered} of {n}), {wrong}, {wanted} wanted")
}

/// `1.8 %`, with as many digits as it takes to see something.
pub fn percent(share: f64) -> String {
    let text =
        if share > 0.0 && share < 0.001 { format!("{:.3}", 100.0 * share) } else { format!("{:.1}", 100.0 * share) };
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_is_said_in_words() {
        let own = Abstained {
            model: "cnn".into(),
            split: "test".into(),
            error: 0.02,
            threshold: Some(0.75),
            n: 360,
            n_answered: 335,
            n_wrong: 6,
            error_interval: Some((0.0082, 0.0385)),
        };
        let expected = "cnn answers 93.1 % of test (335 of 360), 1.8 % of that wrong [0.8 %, 3.9 %], 2 % wanted";
        assert_eq!(answered(&own), expected);
        let nothing = Abstained { threshold: None, n_answered: 0, n_wrong: 0, error: 0.0005, ..own };
        let expected = "cnn abstains on every image of test: no confidence keeps the error at 0.050 % out of fold";
        assert_eq!(answered(&nothing), expected);
    }
}
