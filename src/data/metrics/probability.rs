//! How far probabilities can be trusted: log loss, Brier score, calibration.

use super::{Scored, arg_max};
use crate::elementary::ln;

/// Bins of [`calibration_error`], all of the same width.
pub const CALIBRATION_BINS: usize = 15;

/// The log loss of one sample, in nats, whose true class was given the probability `p`.
///
/// The probability is clipped to `[ε, 1 - ε]` with the ε of single precision, as scikit-learn does with such
/// probabilities, so that one sure mistake costs 15.9 and not everything.
pub fn sample_log_loss(p: f32) -> f64 {
    // What is not a number counts as the surest mistake, lest it hide.
    let p = if p.is_nan() { 0.0 } else { p };
    -ln(f64::from(p.clamp(f32::EPSILON, 1.0 - f32::EPSILON)))
}

/// The mean log loss, in nats.
pub(super) fn log_loss(scored: &Scored<'_>) -> f64 {
    let sum = scored.samples().fold(0.0, |sum, (label, p)| sum + sample_log_loss(p[label]));
    sum / scored.len() as f64
}

/// The mean over samples of the summed squared distances from certainty (Brier, 1950): 0 is perfect, 2 the worst.
pub(super) fn brier(scored: &Scored<'_>) -> f64 {
    let of = |label: usize, probabilities: &[f32]| {
        probabilities.iter().enumerate().fold(0.0, |sum, (class, &p)| {
            let distance = f64::from(p) - f64::from(u8::from(class == label));
            sum + distance * distance
        })
    };
    scored.samples().fold(0.0, |sum, (label, p)| sum + of(label, p)) / scored.len() as f64
}

/// Predictions of about the same confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CalibrationBin {
    /// How many there are.
    pub n: u64,
    /// How many of them are right.
    pub n_correct: u64,
    /// Their confidences, added up.
    pub confidence: f64,
}

/// Predictions by their confidence, in [`CALIBRATION_BINS`] bins `(low, high]` of the same width.
pub fn calibration(scored: &Scored<'_>) -> [CalibrationBin; CALIBRATION_BINS] {
    let mut bins = [CalibrationBin::default(); CALIBRATION_BINS];
    for (label, probabilities) in scored.samples() {
        let predicted = arg_max(probabilities);
        let confidence = f64::from(probabilities[predicted]);
        let bin = (confidence * CALIBRATION_BINS as f64).ceil() as usize;
        let bin = &mut bins[bin.clamp(1, CALIBRATION_BINS) - 1];
        bin.n += 1;
        bin.n_correct += u64::from(predicted == label);
        bin.confidence += confidence;
    }
    bins
}

/// The expected calibration error (Naeini et al., 2015; Guo et al., 2017): how far confidence and accuracy are apart,
/// on average over the bins of [`calibration`].
pub(super) fn calibration_error(scored: &Scored<'_>) -> f64 {
    // |accuracy - confidence| * share = |hits - sum of confidence| / n
    let apart = |total: f64, bin: &CalibrationBin| total + (bin.n_correct as f64 - bin.confidence).abs();
    calibration(scored).iter().fold(0.0, apart) / scored.len() as f64
}
