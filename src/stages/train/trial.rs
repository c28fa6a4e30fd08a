//! What a training is as the trial of a search: on a share of the images, and ended by its own numbers.

use crate::artifact::dataset::Dataset;
use crate::artifact::search::Exploded;
use crate::data::fit_set::TrainingRows;
use crate::elementary::ln;
use crate::nn::seeds::Seeds;

/// A trial ends when the mean loss of its epochs grows, and is above this many times `ln(n_classes)`, the loss of
/// guessing: the same threefold above which the loss of a network before its first update counts as wrong. Growth is
/// asked for since large inputs make a large first loss, which training mends.
const EXPLODED: f64 = 3.0;

/// So much of `rows`, as many of every class as its share (at least one), ascending.
///
/// # Determinism
/// The same images for every trial of a fit set, drawn per class from the stream "data fraction".
pub(super) fn share_of_rows(fraction: f64, seeds: &Seeds, dataset: &Dataset, rows: &TrainingRows) -> TrainingRows {
    let by_class = rows.by_class(dataset.n_classes(), |i| dataset.label(i)).into_iter();
    let kept = (0u64..).zip(by_class).flat_map(|(class, rows)| {
        let n = (rows.len() as f64 * fraction).round() as usize;
        rows.drawn(n.max(1), &seeds.stream("data fraction", &[("class", class)])).to_vec()
    });
    kept.collect::<TrainingRows>().ascending()
}

/// A batch of a trial whose loss is not finite.
pub(super) fn not_finite(epoch: u32, batch: usize) -> Exploded {
    Exploded { format: 1, epoch, message: format!("loss is not finite (epoch {epoch}, batch {batch})") }
}

/// Whether a trial is to end after this epoch, given the mean loss of it and of the epoch before.
pub(super) fn exploded(epoch: u32, before: Option<f64>, loss: f64, n_classes: usize) -> Option<Exploded> {
    let limit = EXPLODED * ln(n_classes.max(2) as f64);
    let is_over = loss > limit && before.is_some_and(|before| loss > before);
    (is_over || loss.is_nan()).then(|| {
        let message = format!("the mean loss of epoch {epoch} grew to {loss:.3}, above {limit:.3}");
        Exploded { format: 1, epoch, message }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_is_large_and_grows_ends_a_trial() {
        for (before, loss, is_exploded) in [
            (None, 50.0, false),
            (Some(50.0), 40.0, false),
            (Some(40.0), 41.0, true),
            (Some(2.0), 3.0, false),
            (None, f64::NAN, true),
        ] {
            assert_eq!(exploded(2, before, loss, 10).is_some(), is_exploded, "{before:?} {loss}");
        }
    }
}
