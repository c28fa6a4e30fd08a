//! How sure a number is: intervals, and means over folds.

/// The 97.5 % point of the normal distribution.
pub(super) const Z: f64 = 1.959_963_984_540_054;

/// The 95 % interval of a share of `hits` in `n` (Wilson, 1927), which stays within `[0, 1]` and works near its ends.
/// `None` without samples.
pub fn wilson_interval(hits: u64, n: u64) -> Option<(f64, f64)> {
    if n == 0 {
        return None;
    }
    let (share, n) = (hits as f64 / n as f64, n as f64);
    let squared = Z * Z;
    let centre = share + squared / (2.0 * n);
    let margin = Z * ((share * (1.0 - share) + squared / (4.0 * n)) / n).sqrt();
    let scale = 1.0 + squared / n;
    // At no hits or nothing but hits one end is the share itself; rounding must not move it past.
    Some((((centre - margin) / scale).clamp(0.0, share), ((centre + margin) / scale).clamp(share, 1.0)))
}

/// The mean of `values` and their sample deviation (dividing by one less than their number; `NaN` for fewer than two).
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().fold(0.0, |sum, x| sum + x) / n;
    if values.len() < 2 {
        return (mean, f64::NAN);
    }
    let squares = values.iter().fold(0.0, |sum, x| sum + (x - mean) * (x - mean));
    (mean, (squares / (n - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_their_share_and_stay_in_range() {
        for n in [1, 7, 360, 10_000] {
            for hits in [0, n / 3, n - 1, n] {
                let (low, high) = wilson_interval(hits, n).unwrap();
                let share = hits as f64 / n as f64;
                assert!(0.0 <= low && low <= share && share <= high && high <= 1.0, "{hits} of {n}: {low} to {high}");
            }
        }
        assert_eq!(wilson_interval(0, 0), None);
    }

    #[test]
    fn deviations_are_those_of_a_sample() {
        assert_eq!(mean_and_deviation(&[1.0, 3.0]), (2.0, 2.0f64.sqrt()));
        assert!(mean_and_deviation(&[1.0]).1.is_nan());
    }
}
