//! The bootstrap (Efron, 1979): how much a number would vary with other samples of the same kind.

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::{Confusion, Scored};
use crate::rng::Stream;

/// The 95 % percentile intervals (Efron and Tibshirani, 1993, chapter 13) of what `compute` makes of predictions: over
/// `n_replicates` data sets of the same size, drawn from the samples with replacement. `None` for a number that has a
/// value in none of them.
///
/// # Determinism
/// Replicate r draws from the stream (`seed`, "bootstrap", r) and from nothing else, whoever computes it: the same
/// bytes for any number of threads. Predictions of the same samples are drawn alike, whatever the model.
///
/// # Panics
/// If `compute` makes more or fewer numbers of one data set than of another.
pub fn intervals(
    scored: &Scored<'_>,
    seed: u64,
    n_replicates: u32,
    compute: impl Fn(&Scored<'_>, &Confusion) -> Vec<f64> + Sync,
) -> Vec<Option<(f64, f64)>> {
    let replicates: Vec<Vec<f64>> = (0..n_replicates)
        .into_par_iter()
        .map_init(Vec::new, |picked, replicate| {
            let stream = Stream::new(seed, "bootstrap", &[("replicate", u64::from(replicate))]);
            draw(&stream, scored.len(), picked);
            let labels: Vec<u32> = picked.iter().map(|&i| scored.labels[i as usize]).collect();
            let k = scored.n_classes;
            let row = |&i: &u32| &scored.probabilities[i as usize * k..(i as usize + 1) * k];
            let probabilities: Vec<f32> = picked.iter().flat_map(row).copied().collect();
            let drawn = Scored { labels: &labels, probabilities: &probabilities, ..*scored };
            compute(&drawn, &drawn.confusion())
        })
        .collect();
    let n_numbers = replicates.first().map_or(0, Vec::len);
    assert!(replicates.iter().all(|numbers| numbers.len() == n_numbers), "numbers of a replicate");
    (0..n_numbers).map(|i| percentile_interval(replicates.iter().map(|numbers| numbers[i]).collect())).collect()
}

/// Indices of `n` samples drawn from `0..n` with replacement, ascending: order does not matter, and memory likes it.
pub(super) fn draw(stream: &Stream, n: usize, picked: &mut Vec<u32>) {
    let mut uniform = vec![0.0; n];
    stream.fill_uniform(0, &mut uniform);
    let mut counts = vec![0u32; n];
    for u in uniform {
        // Just below 1, the product may be rounded up to n.
        counts[((u * n as f64) as usize).min(n - 1)] += 1;
    }
    picked.clear();
    picked.extend((0..).zip(counts).flat_map(|(i, count)| std::iter::repeat_n(i, count as usize)));
}

/// The 2.5 % and 97.5 % points of `values`, linear between neighbours as NumPy has it; what is not a number is left
/// out.
pub fn percentile_interval(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.retain(|value| !value.is_nan());
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let point = |share: f64| {
        let at = share * last as f64;
        let below = at as usize;
        let above = values[(below + 1).min(last)];
        values[below] + (at - below as f64) * (above - values[below])
    };
    Some((point(0.025), point(0.975)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_between_neighbours() {
        let values: Vec<f64> = (0..=40).rev().map(f64::from).collect();
        assert_eq!(percentile_interval(values), Some((1.0, 39.0)));
        assert_eq!(percentile_interval(vec![3.0, f64::NAN, 1.0]), Some((1.05, 2.95)));
        assert_eq!(percentile_interval(vec![5.0]), Some((5.0, 5.0)));
        assert_eq!(percentile_interval(vec![f64::NAN]), None);
        assert_eq!(percentile_interval(Vec::new()), None);
    }

    #[test]
    fn draws_are_fair_and_threads_change_nothing() {
        let mut picked = Vec::new();
        let mut totals = [0u32; 50];
        for replicate in 0..2000 {
            draw(&Stream::new(1, "bootstrap", &[("replicate", replicate)]), 50, &mut picked);
            assert!(picked.len() == 50 && picked.is_sorted());
            picked.iter().for_each(|&i| totals[i as usize] += 1);
        }
        // 2,000 expected, with a deviation of 45.
        assert!(totals.iter().all(|&total| total.abs_diff(2000) < 230), "{totals:?}");

        let labels: Vec<u32> = (0..40).map(|i| i % 2).collect();
        let probabilities: Vec<f32> = (0..40).flat_map(|i| if i % 5 == 0 { [0.4, 0.6] } else { [0.7, 0.3] }).collect();
        let scored = Scored::new(&labels, ndarray::ArrayView2::from_shape((40, 2), &probabilities).unwrap(), 1);
        let of = |threads: usize, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| intervals(&scored, seed, 300, |_, confusion| vec![confusion.accuracy(), f64::NAN]))
        };
        let one = of(1, 7);
        assert_eq!(of(3, 7), one);
        assert_ne!(of(1, 8), one);
        assert_eq!(one[1], None);
        let (low, high) = one[0].unwrap();
        let accuracy = scored.confusion().accuracy();
        assert!(low < accuracy && accuracy < high && high - low < 0.4, "{low} to {high} around {accuracy}");
    }
}
