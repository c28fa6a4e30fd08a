//! What a training's own numbers say while it runs and when it ends, as advice for people.
//!
//! Everything here is a pure function of the rows of `epochs.csv` and `layers.csv`. Sentences hold no numbers of a
//! fold, so that five folds with one trouble give one warning. A training is given one piece of advice, the one that
//! the others follow from: a rate of 10 kills units, and their gradients vanish, but it is the rate that must change.
//! Each threshold stands beside what was measured: on the shipped pipelines, and on nets of 1 to 10 layers over digits,
//! MNIST and CIFAR-10, healthy ones have updates of 10^-3.6 to 10^-1.5 of their weights, gradients of neighbouring
//! layers within a factor of 30, and up to 0.78 of a layer's filters at 0 for a batch.

use super::rows::{EpochRow, LayerRow};
use crate::config::shortest;

/// An update smaller than this share of a layer's weights hardly moves it. Healthy is about 1e-3 (CS231n, "ratio of
/// weights to updates").
const LEAST_RATIO: f64 = 1e-5;
/// An update larger than this share of a layer's weights throws away what it has learned.
const MOST_RATIO: f64 = 1e-1;
/// A gradient this much smaller than that of the layer with the largest one has vanished; a factor of 300 was the most
/// between layers of a net that learned.
const VANISHED: f64 = 1e-4;
/// A layer with more of its filters or units at 0 for whole batches is mostly dead.
const DEAD: f64 = 0.9;
/// A network that is right on this share of what it learns from has small gradients because it is done.
const DONE: f64 = 0.98;
/// Accuracy on training rows may be this much above that on validation rows; a regularised net has less, since dropout
/// and augmentation make training rows the harder ones.
const GAP: f64 = 0.1;
/// Validation loss may rise to this many times its lowest value.
const RISEN: f64 = 1.5;
/// And by so many nats: 0.02 instead of 0.01 is no trouble.
const RISEN_BY: f64 = 0.1;
/// A training loss that ends above this many times its lowest value went up.
const UNSTABLE: f64 = 1.3;
/// A training loss that has not fallen by this share of itself has hardly moved; nor has one that is not this share
/// below guessing.
const FLAT: f64 = 0.05;
/// A training loss so many times that of guessing is of a network that was thrown about.
const THROWN: f64 = 2.0;
/// Where the loss has hardly fallen, updates above this share of a layer's weights (healthy is a tenth of it) were too
/// large.
const RESTLESS: f64 = 1e-2;

/// What the advice depends on besides the numbers.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    /// The stage's `learning_rate`.
    pub learning_rate: f64,
    /// Epochs that are planned.
    pub epochs: u32,
    /// The loss of guessing among the classes, in nats.
    pub guessing: f64,
    /// Whether early stopping decides when to end.
    pub stops_early: bool,
    /// Means against overfitting that are not in use, as one would write them.
    pub unused: Vec<&'static str>,
    /// Whether the layer before the softmax starts smaller than its initializer has it: it then grows fast at first.
    pub starts_small: bool,
    /// Rows that are validated on.
    pub n_valid: usize,
}

/// Trouble in layers, after an epoch: the one that matters most. It must last for two epochs, unless there is one only.
pub(super) fn layers(setup: &Setup, epochs: &[EpochRow], layers: &[LayerRow]) -> Option<String> {
    let n_needed = if setup.epochs == 1 { 1 } else { 2 };
    if epochs.len() < n_needed {
        return None;
    }
    if is_guessing(setup, &epochs[epochs.len() - n_needed..]) && was_thrown(setup, epochs, layers) {
        return Some(lower_rate(setup));
    }
    let last = &epochs[epochs.len() - n_needed..];
    let rows = |epoch: &EpochRow| layers.iter().filter(|row| row.epoch == epoch.epoch).collect::<Vec<_>>();
    let by_epoch: Vec<(&EpochRow, Vec<&LayerRow>)> = last.iter().map(|epoch| (epoch, rows(epoch))).collect();
    let names: Vec<&str> = by_epoch[0].1.iter().map(|row| &row.layer[..]).collect();
    let always = |name: &str, holds: &dyn Fn(&EpochRow, &LayerRow, &[&LayerRow]) -> bool| {
        by_epoch
            .iter()
            .all(|(epoch, rows)| rows.iter().find(|row| row.layer == name).is_some_and(|row| holds(epoch, row, rows)))
    };
    let is_learning = |epoch: &EpochRow| epoch.train_accuracy < DONE;
    let is_large = |_: &EpochRow, row: &LayerRow, rows: &[&LayerRow]| is_large(setup, row, rows);
    if let Some(name) = names.iter().find(|name| always(name, &is_large)) {
        return Some(format!(
            "updates of layer `{name}` are larger than a tenth of its weights (about a thousandth is healthy): lower `learning_rate`"
        ));
    }
    let has_vanished = |epoch: &EpochRow, row: &LayerRow, rows: &[&LayerRow]| {
        let largest = rows.iter().filter_map(|row| row.grad_norm).fold(0.0, f64::max);
        is_learning(epoch) && row.grad_norm.is_some_and(|norm| norm < VANISHED * largest || norm == 0.0)
    };
    if let Some(name) = names.iter().find(|name| always(name, &has_vanished)) {
        return Some(format!(
            "the gradient of layer `{name}` has vanished (its norm is below a ten-thousandth of the largest): add `BN` after the layers below it, or make the network shallower"
        ));
    }
    let is_still = |epoch: &EpochRow, row: &LayerRow, _: &[&LayerRow]| {
        // A schedule makes steps small on purpose.
        let scale = epoch.learning_rate / setup.learning_rate;
        is_learning(epoch) && ratio(row).is_some_and(|ratio| scale > 0.0 && ratio < LEAST_RATIO * scale)
    };
    if let Some(name) = names.iter().find(|name| always(name, &is_still)) {
        return Some(format!(
            "updates of layer `{name}` are smaller than a hundred-thousandth of its weights (about a thousandth is healthy): raise `learning_rate`"
        ));
    }
    if let Some(name) = names.iter().find(|name| always(name, &|_, row, _| is_dead(row))) {
        return Some(format!(
            "nine in ten filters or units of layer `{name}` are 0 for whole batches: lower `learning_rate`, or use `LEAKY` for `RELU`"
        ));
    }
    None
}

fn lower_rate(setup: &Setup) -> String {
    format!("the network is no better than guessing: lower `learning_rate` (now {})", shortest(setup.learning_rate))
}

/// Whether the network did no better than guessing in all of these epochs.
fn is_guessing(setup: &Setup, epochs: &[EpochRow]) -> bool {
    epochs.iter().all(|row| row.train_loss > (1.0 - FLAT) * setup.guessing && row.train_accuracy < DONE)
}

/// Whether a rate that is far too high has left its traces: a loss far above guessing, updates as large as the weights,
/// units that never answer.
fn was_thrown(setup: &Setup, epochs: &[EpochRow], layers: &[LayerRow]) -> bool {
    epochs.iter().any(|row| row.train_loss > THROWN * setup.guessing)
        || layers.chunk_by(|a, b| a.epoch == b.epoch).any(|rows| {
            let rows: Vec<&LayerRow> = rows.iter().collect();
            rows.iter().any(|row| is_dead(row) || is_large(setup, row, &rows))
        })
}

fn ratio(row: &LayerRow) -> Option<f64> {
    Some(row.update_norm? / row.weight_norm.filter(|norm| *norm > 0.0)?)
}

/// Whether a layer, of the `rows` of one epoch, was moved too far. A small start of the layer before the softmax is
/// there to be left behind in the first epoch.
fn is_large(setup: &Setup, row: &LayerRow, rows: &[&LayerRow]) -> bool {
    let last = rows.iter().rfind(|row| row.weight_norm.is_some());
    let is_meant = setup.starts_small && row.epoch == 1 && last.is_some_and(|last| last.layer == row.layer);
    !is_meant && ratio(row).is_some_and(|ratio| ratio > MOST_RATIO)
}

fn is_dead(row: &LayerRow) -> bool {
    row.dead_fraction.is_some_and(|dead| dead > DEAD)
}

/// What the curves say when the last epoch is done.
pub(super) fn curves(setup: &Setup, epochs: &[EpochRow], layers: &[LayerRow]) -> Option<String> {
    let (first, last) = (epochs.first()?, epochs.last()?);
    let lowest = epochs.iter().map(|row| row.train_loss).fold(f64::INFINITY, f64::min);
    let went_up = epochs.len() >= 3 && last.train_loss > UNSTABLE * lowest && last.train_loss > 0.1;
    let hardly_fell = epochs.len() >= 3 && lowest > (1.0 - FLAT) * first.train_loss && first.train_accuracy < DONE;
    if went_up {
        return Some("the training loss has risen again: lower `learning_rate`, or let a `schedule` do so".to_owned());
    }
    if hardly_fell {
        // What a layer with a small start is moved by says nothing.
        let last = layers.iter().rfind(|row| row.weight_norm.is_some()).filter(|_| setup.starts_small);
        let others = layers.iter().filter(|row| last.is_none_or(|last| last.layer != row.layer));
        let remedy = if others.filter_map(ratio).any(|ratio| ratio > RESTLESS) { "lower" } else { "raise" };
        let rate = shortest(setup.learning_rate);
        return Some(format!("the training loss has hardly fallen: {remedy} `learning_rate` (now {rate})"));
    }
    overfitting(setup, epochs).or_else(|| {
        let advice =
            || format!("validation was still getting better at the last epoch: raise `epochs` (now {})", setup.epochs);
        is_rising(setup, epochs).then(advice)
    })
}

fn overfitting(setup: &Setup, epochs: &[EpochRow]) -> Option<String> {
    let last = epochs.last()?;
    let (loss, accuracy) = (last.valid_loss?, last.valid_accuracy?);
    let lowest = epochs.iter().filter_map(|row| row.valid_loss).fold(f64::INFINITY, f64::min);
    // Few rows scatter: three standard errors more.
    let scatter = 3.0 * (accuracy * (1.0 - accuracy) / setup.n_valid.max(1) as f64).sqrt();
    let has_gap = last.train_accuracy - accuracy > GAP + scatter;
    let has_risen = loss > RISEN * lowest && loss > lowest + RISEN_BY && last.train_loss < loss;
    if !has_gap && !has_risen {
        return None;
    }
    let remedy = match setup.unused[..] {
        [] => "make `l2`, dropout or augmentation stronger".to_owned(),
        [one] => format!("try {one}"),
        [ref many @ .., last] => format!("try {} or {last}", many.join(", ")),
    };
    let what = if has_gap {
        "training accuracy is far above that of validation"
    } else {
        "the validation loss has risen while that of training fell"
    };
    Some(format!("{what}, the network overfits: {remedy}, and keep its size"))
}

/// Whether the best validation accuracy of the last fifth of the epochs is above all before by more than chance.
fn is_rising(setup: &Setup, epochs: &[EpochRow]) -> bool {
    let n_late = (epochs.len() / 5).max(1);
    if setup.stops_early || epochs.len() < 5 || epochs.len() < setup.epochs as usize {
        return false;
    }
    let best = |rows: &[EpochRow]| rows.iter().filter_map(|row| row.valid_accuracy).fold(f64::NEG_INFINITY, f64::max);
    let (early, late) = epochs.split_at(epochs.len() - n_late);
    let (early, late) = (best(early), best(late));
    let error = (late * (1.0 - late) / setup.n_valid.max(1) as f64).sqrt();
    // Twice the standard error: a fold of the digits at its end goes up and down by one.
    late > early + 2.0 * error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(epochs: u32) -> Setup {
        Setup {
            learning_rate: 0.01,
            epochs,
            guessing: 3.0,
            stops_early: false,
            unused: vec!["`l2 = 1e-4`", "`DROPOUT(0.5)`"],
            starts_small: true,
            n_valid: 400,
        }
    }

    fn epoch(epoch: u32, train: (f64, f64), valid: (f64, f64)) -> EpochRow {
        EpochRow {
            epoch,
            step: u64::from(epoch) * 10,
            learning_rate: 0.01,
            train_loss: train.0,
            train_accuracy: train.1,
            valid_loss: Some(valid.0),
            valid_accuracy: Some(valid.1),
        }
    }

    fn layer(epoch: u32, name: &str, update: f64, grad: f64, dead: Option<f64>) -> LayerRow {
        LayerRow {
            epoch,
            step: u64::from(epoch) * 10,
            layer: name.to_owned(),
            weight_norm: Some(1.0),
            update_norm: Some(update),
            grad_norm: Some(grad),
            dead_fraction: dead,
        }
    }

    /// Both epochs have a healthy last layer, and this one.
    #[track_caller]
    fn check_layers(update: f64, grad: f64, dead: f64, expected: Option<&str>) {
        let epochs = [epoch(1, (2.0, 0.3), (2.0, 0.3)), epoch(2, (1.9, 0.4), (2.0, 0.3))];
        let rows: Vec<LayerRow> = (1..=2)
            .flat_map(|e| [layer(e, "1.conv", update, grad, Some(dead)), layer(e, "4.fc", 1e-3, 1.0, None)])
            .collect();
        let said = layers(&setup(2), &epochs, &rows);
        assert_eq!(said.is_some(), expected.is_some(), "{said:?}");
        if let (Some(expected), Some(said)) = (expected, &said) {
            assert!(said.contains(expected) && said.contains("`1.conv`"), "{said:?}");
        }
        // One epoch of it is not enough of two, and is of one.
        assert_eq!(layers(&setup(2), &epochs[..1], &rows), None);
        assert_eq!(layers(&setup(1), &epochs[..1], &rows), said);
    }

    #[test]
    fn layers_in_trouble_are_named() {
        check_layers(1e-3, 0.1, 0.5, None);
        check_layers(0.2, 0.1, 0.5, Some("lower `learning_rate`"));
        check_layers(1e-6, 0.1, 0.5, Some("raise `learning_rate`"));
        check_layers(1e-3, 1e-5, 0.5, Some("has vanished"));
        check_layers(0.0, 0.0, 0.5, Some("has vanished"));
        check_layers(1e-3, 0.1, 0.95, Some("use `LEAKY`"));
    }

    #[test]
    fn a_rate_that_is_far_too_high_is_one_advice_whatever_else_follows_from_it() {
        let dead = [epoch(1, (9.0, 0.1), (3.0, 0.1)), epoch(2, (3.0, 0.1), (3.0, 0.1))];
        let calm = [epoch(1, (3.0, 0.1), (3.0, 0.1)), epoch(2, (3.0, 0.1), (3.0, 0.1))];
        let rows = |update, grad, dead| -> Vec<LayerRow> {
            (1..=2)
                .flat_map(|e| [layer(e, "1.conv", update, grad, Some(dead)), layer(e, "4.fc", 1e-3, 1.0, None)])
                .collect()
        };
        let advice = Some("the network is no better than guessing: lower `learning_rate` (now 0.01)".to_owned());
        for (epochs, rows) in [
            (&dead, rows(0.0, 0.0, 1.0)),
            (&dead, rows(1e-6, 1e-9, 0.0)),
            (&calm, rows(0.5, 1.0, 0.0)),
            (&calm, rows(0.0, 0.0, 0.95)),
        ] {
            assert_eq!(layers(&setup(2), epochs, &rows), advice);
        }
        // A network that only begins slowly is not told so, nor one whose rate is too low.
        assert_eq!(layers(&setup(2), &calm, &rows(1e-3, 0.1, 0.0)), None);
        let low = layers(&setup(2), &calm, &rows(1e-7, 0.1, 0.0));
        assert!(low.as_ref().is_some_and(|low| low.ends_with("raise `learning_rate`")), "{low:?}");
    }

    #[test]
    fn a_loss_that_has_hardly_fallen_has_one_remedy() {
        let rows: Vec<EpochRow> = (1..=3).map(|e| epoch(e, (3.0, 0.1), (3.0, 0.1))).collect();
        for (update, remedy) in [(1e-4, "raise"), (3e-2, "lower")] {
            let of_epoch = |e| [layer(e, "1.fc", update, 1.0, None), layer(e, "3.fc", 0.05, 1.0, None)];
            let layers: Vec<LayerRow> = (1..=3).flat_map(of_epoch).collect();
            let said = curves(&setup(3), &rows, &layers).unwrap();
            assert_eq!(said, format!("the training loss has hardly fallen: {remedy} `learning_rate` (now 0.01)"));
        }
    }

    #[test]
    fn a_small_start_before_the_softmax_may_grow_fast_in_the_first_epoch_only() {
        let epochs: Vec<EpochRow> = (1..=3).map(|e| epoch(e, (2.0, 0.3), (2.0, 0.3))).collect();
        let rows: Vec<LayerRow> =
            (1..=3).flat_map(|e| [layer(e, "1.conv", 1e-3, 0.1, None), layer(e, "3.fc", 0.2, 1.0, None)]).collect();
        let small = |epochs| Setup { starts_small: true, ..setup(epochs) };
        let plain = |epochs| Setup { starts_small: false, ..setup(epochs) };
        assert_eq!(layers(&small(1), &epochs[..1], &rows), None);
        assert_eq!(layers(&small(3), &epochs[..2], &rows), None);
        // From the second epoch on it is a layer like any other, as are all layers from the start.
        for said in [
            layers(&small(3), &epochs, &rows),
            layers(&plain(3), &epochs[..2], &rows),
            layers(&plain(1), &epochs[..1], &rows),
        ] {
            assert!(said.as_ref().is_some_and(|said| said.contains("`3.fc`")), "{said:?}");
        }
        let above: Vec<LayerRow> =
            (1..=2).flat_map(|e| [layer(e, "1.conv", 0.2, 0.1, None), layer(e, "3.fc", 1e-3, 1.0, None)]).collect();
        assert!(layers(&small(3), &epochs[..2], &above).is_some());
    }

    #[test]
    fn small_updates_are_well_where_the_schedule_wants_them_or_nothing_is_left_to_learn() {
        let rows: Vec<LayerRow> = (1..=2).map(|e| layer(e, "1.fc", 1e-6, 1.0, None)).collect();
        let mut epochs = [epoch(1, (2.0, 0.3), (2.0, 0.3)), epoch(2, (1.9, 0.4), (2.0, 0.3))];
        assert!(layers(&setup(2), &epochs, &rows).is_some());
        epochs.iter_mut().for_each(|row| row.learning_rate = 1e-6);
        assert_eq!(layers(&setup(2), &epochs, &rows), None);
        let done = [epoch(1, (1e-4, 1.0), (0.1, 0.97)), epoch(2, (1e-5, 1.0), (0.1, 0.97))];
        assert_eq!(layers(&setup(2), &done, &rows), None);
    }

    /// Loss and accuracy.
    type Pair = (f64, f64);

    #[track_caller]
    fn check_curves(rows: &[(Pair, Pair)], expected: Option<&str>) {
        let rows: Vec<EpochRow> =
            rows.iter().enumerate().map(|(i, (train, valid))| epoch(i as u32 + 1, *train, *valid)).collect();
        let said = curves(&setup(rows.len() as u32), &rows, &[]);
        assert_eq!(said.is_some(), expected.is_some(), "{said:?}");
        if let (Some(expected), Some(said)) = (expected, said) {
            assert!(said.contains(expected), "{said:?}");
            assert!(!said.contains("units") && !said.contains("smaller"), "{said:?}");
        }
    }

    #[test]
    fn curves_are_read_by_their_shape() {
        let good = [(2.0, 0.3), (1.0, 0.7), (0.5, 0.85), (0.4, 0.88), (0.35, 0.89), (0.33, 0.89)];
        let of = |train: &[Pair], valid: &[Pair]| -> Vec<(Pair, Pair)> {
            train.iter().copied().zip(valid.iter().copied()).collect()
        };
        check_curves(&of(&good, &good), None);
        let learned = [(2.0, 0.3), (0.8, 0.8), (0.2, 0.95), (0.1, 0.99), (0.05, 1.0), (0.01, 1.0)];
        let stuck = [(2.0, 0.3), (1.2, 0.6), (1.1, 0.65), (1.2, 0.66), (1.3, 0.66), (1.4, 0.66)];
        check_curves(&of(&learned, &stuck), Some("try `l2 = 1e-4` or `DROPOUT(0.5)`, and keep its size"));
        let worse = [(2.0, 0.3), (0.6, 0.91), (0.4, 0.95), (0.5, 0.95), (0.6, 0.95), (0.8, 0.95)];
        check_curves(&of(&learned, &worse), Some("validation loss has risen"));
        let up = [(2.0, 0.3), (1.0, 0.7), (1.5, 0.5), (2.5, 0.3), (2.4, 0.3), (2.3, 0.3)];
        check_curves(&of(&up, &up), Some("has risen again: lower `learning_rate`"));
        check_curves(&of(&[(2.3, 0.1); 6], &[(2.3, 0.1); 6]), Some("has hardly fallen"));
        let rising = [(2.0, 0.3), (1.8, 0.4), (1.6, 0.5), (1.4, 0.6), (1.2, 0.7), (1.0, 0.8)];
        check_curves(&of(&rising, &rising), Some("raise `epochs` (now 6)"));
    }
}
