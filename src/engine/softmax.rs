//! Softmax and its cross-entropy: one row a sample.

use super::Engine;
use super::sums::LANES;
use super::threads::Shares;
use super::versions::versions;
use crate::elementary::{exp32, ln};

/// What each sample should have been.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// The class of each sample, `[n]`.
    Labels(&'a [u32]),
    /// The probability of each class, `[n, n_classes]`; rows sum to 1 (mixup).
    Probabilities(&'a [f32]),
}

/// How much each sample counts, and how sure the targets are.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossOptions<'a> {
    /// Share of the target's probability that is spread evenly over all classes, in `[0, 1)` (Szegedy et al. 2015).
    pub label_smoothing: f32,
    /// A weight per class, `[n_classes]`; a sample's weight is the mean over its target.
    pub class_weights: Option<&'a [f32]>,
}

/// The loss of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BatchLoss {
    /// Sum over samples of weight times loss, in nats.
    pub loss_sum: f64,
    /// Sum of the weights; the number of samples where there are none.
    pub weight_sum: f64,
    /// Samples whose largest logit is at the target (the first where several are largest).
    pub n_correct: usize,
}

/// Room for [`softmax_cross_entropy`] to work in, kept between calls.
#[derive(Clone, Debug, Default)]
pub struct LossScratch {
    rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    loss: f64,
    weight: f64,
    is_correct: bool,
}

/// Turns logits into probabilities, in place: `[n, n_classes]`.
///
/// # Panics
/// If `values` is not made of whole rows.
pub fn softmax(engine: &Engine, n_classes: usize, values: &mut [f32]) {
    assert_eq!(values.len() % n_classes, 0, "rows of {n_classes} logits");
    let isa = engine.isa();
    let rows = rows_per_piece(n_classes);
    engine.for_each_chunk(values, rows * n_classes, |_, piece| {
        for row in piece.chunks_exact_mut(n_classes) {
            softmax_row(isa, row);
        }
    });
}

/// Softmax cross-entropy of `n = logits.len() / n_classes` samples, and its gradient.
///
/// With target probabilities `q` (after smoothing) and `p = softmax(logits)` a sample's loss is `-Σ q ln p`. `grad`
/// gets `weight * (p - q) / Σ weight`: the gradient of the weighted mean, as PyTorch defines it for labels.
///
/// # Shapes
/// - `logits`, `grad`: `[n, n_classes]`
///
/// # Panics
/// If shapes differ, or a label is not below `n_classes`.
pub fn softmax_cross_entropy(
    engine: &Engine,
    n_classes: usize,
    logits: &[f32],
    targets: Targets<'_>,
    options: LossOptions<'_>,
    grad: Option<&mut [f32]>,
    scratch: &mut LossScratch,
) -> BatchLoss {
    let n = logits.len() / n_classes;
    assert_eq!(logits.len(), n * n_classes, "rows of {n_classes} logits");
    match targets {
        Targets::Labels(labels) => {
            assert_eq!(labels.len(), n, "labels of {n} samples");
            assert!(labels.iter().all(|&label| (label as usize) < n_classes), "a label beyond {n_classes} classes");
        }
        Targets::Probabilities(rows) => assert_eq!(rows.len(), logits.len(), "target rows of {n} samples"),
    }
    if let Some(weights) = options.class_weights {
        assert_eq!(weights.len(), n_classes, "weights of {n_classes} classes");
    }
    if scratch.rows.len() < n {
        scratch.rows.resize(n, Row::default());
    }
    let rows = &mut scratch.rows[..n];
    let weight_of = |i: usize| match (options.class_weights, targets) {
        (None, _) => 1.0,
        (Some(weights), Targets::Labels(labels)) => weights[labels[i] as usize],
        (Some(weights), Targets::Probabilities(q)) => {
            q[i * n_classes..][..n_classes].iter().zip(weights).fold(0.0, |sum, (q, w)| sum + q * w)
        }
    };
    let weight_sum = (0..n).fold(0.0f64, |sum, i| sum + f64::from(weight_of(i)));
    let grad = grad.map(|grad| {
        assert_eq!(grad.len(), logits.len(), "gradients of {n} samples");
        Shares(grad.as_mut_ptr())
    });
    let isa = engine.isa();
    let per_piece = rows_per_piece(n_classes);
    engine.for_each_chunk(rows, per_piece, |piece_idx, piece| {
        for (i, row) in (piece_idx * per_piece..).zip(piece) {
            let weight = weight_of(i);
            let target = match targets {
                Targets::Labels(labels) => Target::Label(labels[i] as usize),
                Targets::Probabilities(q) => Target::Row(&q[i * n_classes..][..n_classes]),
            };
            // SAFETY: row `i` belongs to this piece alone and lies within `grad`, whose length was checked.
            let grad = grad.map(|grad| unsafe { grad.slice(i * n_classes, n_classes) });
            let scale = (f64::from(weight) / weight_sum) as f32;
            let logits = &logits[i * n_classes..][..n_classes];
            let (loss, is_correct) = loss_row(isa, logits, target, options.label_smoothing, scale, grad);
            *row = Row { loss, weight: f64::from(weight), is_correct };
        }
    });
    let mut total = BatchLoss { weight_sum, ..BatchLoss::default() };
    for row in rows {
        total.loss_sum += row.weight * row.loss;
        total.n_correct += usize::from(row.is_correct);
    }
    total
}

/// Rows of one piece of work: about 1,000 exponentials.
fn rows_per_piece(n_classes: usize) -> usize {
    (1024 / n_classes).max(1)
}

#[derive(Clone, Copy)]
enum Target<'a> {
    Label(usize),
    Row(&'a [f32]),
}

/// The index of the largest value, the first where several are largest; 0 if there is a NaN at 0.
fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in values.iter().enumerate() {
        if *x > values[best] {
            best = i;
        }
    }
    best
}

/// The largest of a row; NaN if there is one.
#[inline(always)]
fn maximum(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for block in row.chunks(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = if x > *lane || x.is_nan() { x } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, |most, x| if x > most || x.is_nan() { x } else { most })
}

/// `exp(row - most)` into `out`, and their sum over sixteen lanes.
#[inline(always)]
fn exponentials(row: &[f32], most: f32, out: &mut [f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (block, out) in row.chunks(LANES).zip(out.chunks_mut(LANES)) {
        for ((lane, &x), y) in lanes.iter_mut().zip(block).zip(out) {
            *y = exp32(x - most);
            *lane += *y;
        }
    }
    fold32(lanes)
}

#[inline(always)]
fn fold32(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

versions! {
    fn softmax_row(row: &mut [f32]) {
        let most = maximum(row);
        let mut lanes = [0.0f32; LANES];
        for block in row.chunks_mut(LANES) {
            for (lane, x) in lanes.iter_mut().zip(block) {
                *x = exp32(*x - most);
                *lane += *x;
            }
        }
        let sum = fold32(lanes);
        for x in row {
            *x /= sum;
        }
    }

    /// The loss of one row and whether it is right; writes the gradient times `scale`.
    fn loss_row(
        logits: &[f32],
        target: Target<'_>,
        smoothing: f32,
        scale: f32,
        grad: Option<&mut [f32]>,
    ) -> (f64, bool) {
        let most = maximum(logits);
        let mut block = [0.0f32; 64];
        let sum = match grad {
            Some(grad) => {
                let sum = exponentials(logits, most, grad);
                let spread = smoothing / logits.len() as f32;
                let certain = 1.0 - smoothing;
                match target {
                    Target::Label(label) => {
                        for p in grad.iter_mut() {
                            *p = (*p / sum - spread) * scale;
                        }
                        grad[label] -= certain * scale;
                    }
                    Target::Row(q) => {
                        for (p, q) in grad.iter_mut().zip(q) {
                            *p = (*p / sum - (certain * q + spread)) * scale;
                        }
                    }
                }
                sum
            }
            None if logits.len() <= block.len() => exponentials(logits, most, &mut block[..logits.len()]),
            None => {
                let mut lanes = [0.0f32; LANES];
                for chunk in logits.chunks(LANES) {
                    for (lane, &x) in lanes.iter_mut().zip(chunk) {
                        *lane += exp32(x - most);
                    }
                }
                fold32(lanes)
            }
        };
        let log_sum = ln(f64::from(sum)) + f64::from(most);
        let of = |i: usize| log_sum - f64::from(logits[i]);
        let certain = f64::from(1.0 - smoothing);
        let (mut loss, wanted) = match target {
            Target::Label(label) => (certain * of(label), label),
            Target::Row(q) => {
                let mut loss = 0.0;
                for (i, &q) in q.iter().enumerate() {
                    // 0 * ln 0 is 0 here.
                    if q != 0.0 {
                        loss += certain * f64::from(q) * of(i);
                    }
                }
                (loss, largest(q))
            }
        };
        if smoothing > 0.0 {
            let mut all = 0.0;
            for i in 0..logits.len() {
                all += of(i);
            }
            loss += f64::from(smoothing) / logits.len() as f64 * all;
        }
        (loss, largest(logits) == wanted && !most.is_nan())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the standard library is the oracle")]
mod tests {
    use super::*;
    use crate::engine::Isa;

    fn logits(n: usize, n_classes: usize) -> Vec<f32> {
        (0..n * n_classes).map(|i| ((i * 7919) % 1000) as f32 * 0.01 - 5.0).collect()
    }

    #[test]
    fn losses_and_gradients_agree_with_the_formula() {
        for n_classes in [2, 3, 10, 17, 100] {
            let n = 9;
            let logits = logits(n, n_classes);
            let labels: Vec<u32> = (0..n).map(|i| (i * 5 % n_classes) as u32).collect();
            let weights: Vec<f32> = (0..n_classes).map(|c| 0.5 + c as f32).collect();
            for (label_smoothing, class_weights) in [(0.0, None), (0.1, None), (0.2, Some(&weights[..]))] {
                let options = LossOptions { label_smoothing, class_weights };
                let mut grad = vec![0.0; n * n_classes];
                let engine = Engine::new(2);
                let got = softmax_cross_entropy(
                    &engine,
                    n_classes,
                    &logits,
                    Targets::Labels(&labels),
                    options,
                    Some(&mut grad),
                    &mut LossScratch::default(),
                );
                let (mut want, mut weight_sum) = (0.0, 0.0);
                for i in 0..n {
                    let weight = class_weights.map_or(1.0, |w| f64::from(w[labels[i] as usize]));
                    weight_sum += weight;
                    let row = &logits[i * n_classes..][..n_classes];
                    let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                    for (c, &x) in row.iter().enumerate() {
                        let smooth = f64::from(label_smoothing);
                        let q =
                            f64::from(u8::from(c == labels[i] as usize)) * (1.0 - smooth) + smooth / n_classes as f64;
                        want -= weight * q * (f64::from(x) - sum.ln());
                    }
                }
                assert!((got.loss_sum - want).abs() < 1e-5 * want, "{} for {want}", got.loss_sum);
                assert!((got.weight_sum - weight_sum).abs() < 1e-6);
                for i in 0..n {
                    let weight = class_weights.map_or(1.0, |w| f64::from(w[labels[i] as usize]));
                    let row = &logits[i * n_classes..][..n_classes];
                    let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                    for (c, &x) in row.iter().enumerate() {
                        let smooth = f64::from(label_smoothing);
                        let q =
                            f64::from(u8::from(c == labels[i] as usize)) * (1.0 - smooth) + smooth / n_classes as f64;
                        let want = weight / weight_sum * (f64::from(x).exp() / sum - q);
                        assert!((f64::from(grad[i * n_classes + c]) - want).abs() < 1e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn target_rows_that_are_certain_are_labels() {
        let (n, n_classes) = (8, 5);
        let logits = logits(n, n_classes);
        let labels: Vec<u32> = (0..n as u32).map(|i| i % 5).collect();
        let mut rows = vec![0.0; n * n_classes];
        labels.iter().enumerate().for_each(|(i, &label)| rows[i * n_classes + label as usize] = 1.0);
        let options = LossOptions { label_smoothing: 0.1, class_weights: Some(&[1.0, 2.0, 3.0, 4.0, 5.0]) };
        let run = |targets| {
            let mut grad = vec![0.0; n * n_classes];
            let mut scratch = LossScratch::default();
            let loss = softmax_cross_entropy(
                &Engine::new(1),
                n_classes,
                &logits,
                targets,
                options,
                Some(&mut grad),
                &mut scratch,
            );
            (loss, grad)
        };
        let (a, b) = (run(Targets::Labels(&labels)), run(Targets::Probabilities(&rows)));
        assert!((a.0.loss_sum - b.0.loss_sum).abs() < 1e-9 && a.0.n_correct == b.0.n_correct);
        assert!(a.1.iter().zip(&b.1).all(|(a, b)| (a - b).abs() < 1e-7));
    }

    #[test]
    fn the_same_bits_everywhere_and_nan_is_seen() {
        for n_classes in [3, 10, 33, 1000] {
            let mut want = None;
            for isa in Isa::available() {
                for threads in [1, 2, 3] {
                    let engine = Engine::with_isa(threads, isa);
                    let mut p = logits(300, n_classes);
                    softmax(&engine, n_classes, &mut p);
                    assert!(p.chunks(n_classes).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
                    let bits: Vec<u32> = p.iter().map(|x| x.to_bits()).collect();
                    assert_eq!(want.get_or_insert_with(|| bits.clone()), &bits);
                }
            }
        }
        let mut row = [1.0, f32::NAN, 2.0];
        softmax(&Engine::new(1), 3, &mut row);
        assert!(row.iter().all(|x| x.is_nan()));
        let loss = softmax_cross_entropy(
            &Engine::new(1),
            3,
            &row,
            Targets::Labels(&[2]),
            LossOptions::default(),
            None,
            &mut LossScratch::default(),
        );
        assert!(loss.loss_sum.is_nan() && loss.n_correct == 0);
    }
}
