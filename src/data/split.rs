//! How samples are divided: a test split, then folds; shuffled, stratified, grouped.
//!
//! [`SplitPlan::divide`] is a pure function of labels, groups, given splits and a stream of random numbers.
//! Samples that must stay together form a *unit* (a group, else the sample alone); units are dealt out, whole.

use std::collections::BTreeMap;

use super::fit_set::{Partition, Place};
use super::reader::GivenSplit;
use crate::config::Complaint;
use crate::rng::Stream;

/// How much is held out, or that the data set says it itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Share {
    /// A share of the samples, `0 <= x < 1`.
    Fraction(f64),
    /// What the data set marks.
    Given,
}

/// What to divide, by sample.
#[derive(Clone, Copy, Debug)]
pub struct Divisible<'a> {
    /// Class of each sample, `0..n_classes`.
    pub labels: &'a [u32],
    /// Name of each class.
    pub classes: &'a [String],
    /// Group of each sample, by number; samples of one group stay together. `None`: a group of its own.
    pub groups: Option<&'a [Option<u32>]>,
    /// What the data set says itself.
    pub marked: &'a [Option<GivenSplit>],
}

/// How to divide.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitPlan {
    /// What is held out for the test; a fraction of 0 holds out nothing.
    pub test: Share,
    /// Number of folds; 1 is a single train/validation split.
    pub folds: u32,
    /// With one fold: what is validated on, as a share of the samples outside the test split.
    pub validation: Share,
    /// Whether each split gets its share of each class.
    pub stratify: bool,
    /// Whether samples are dealt in random order; else in the data set's order, the test split from the end.
    pub shuffle: bool,
}

/// Why samples cannot be divided as planned: about the key to change.
pub type SplitError = Complaint<&'static str>;

fn wrong(key: &'static str, message: String, help: impl Into<String>) -> SplitError {
    SplitError::about(key, message).help(help)
}

/// A division, and what people should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Division {
    /// Where each sample went.
    pub partition: Partition,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// Samples that stay together.
struct Unit {
    rows: Vec<u32>,
    /// Samples per class, as (class, count), ascending.
    counts: Vec<(u32, usize)>,
}

impl SplitPlan {
    /// Divides the samples.
    ///
    /// # Errors
    /// If there are too few samples or groups for the folds, or the data set marks no split that is asked for.
    ///
    /// # Determinism
    /// A function of the arguments; random order comes from `stream`, addressed by unit.
    pub fn divide(&self, data: &Divisible<'_>, stream: &Stream) -> Result<Division, SplitError> {
        let n = data.labels.len();
        let mut places: Vec<Option<Place>> = vec![None; n];
        self.place_marked(data, &mut places)?;
        let mut units = units(data, &places)?;
        if self.shuffle {
            let mut left: Vec<Option<Unit>> = units.into_iter().map(Some).collect();
            units = stream.permutation(left.len()).into_iter().filter_map(|i| left[i].take()).collect();
        }
        let grouped = data.groups.is_some();
        let is_free = |unit: &Unit| unit.rows.iter().all(|&row| places[row as usize].is_none());
        let mut free: Vec<Unit> = units.into_iter().filter(is_free).collect();

        if let Share::Fraction(fraction) = self.test
            && fraction > 0.0
        {
            let (rest, test) = self.hold_out(free, data, fraction, grouped, "test", "the test split")?;
            free = rest;
            place(&test, Place::Test, &mut places);
        }
        if self.folds == 1 {
            if let Share::Fraction(fraction) = self.validation {
                let (rest, validation) =
                    self.hold_out(free, data, fraction, grouped, "validation", "the validation split")?;
                free = rest;
                place(&validation, Place::Fold(1), &mut places);
            }
            place(&free, Place::Train, &mut places);
        } else {
            self.deal(free, data, grouped, &mut places)?;
        }
        let places: Vec<Place> = places.into_iter().map(|place| place.unwrap_or(Place::Train)).collect();
        let partition = Partition::new(places, self.folds)
            .map_err(|message| wrong("folds", message, "use fewer `folds`, a smaller `test`, or more images"))?;
        if !partition.places().iter().any(|place| *place != Place::Test && (self.folds > 1 || *place == Place::Train)) {
            return Err(wrong(
                "test",
                format!("no image of {n} is left to train on"),
                "use a smaller `test` or `validation`",
            ));
        }
        let warnings = warnings(&partition, data);
        Ok(Division { partition, warnings })
    }

    /// Places what the data set marks itself.
    fn place_marked(&self, data: &Divisible<'_>, places: &mut [Option<Place>]) -> Result<(), SplitError> {
        let mut mark = |wanted: GivenSplit, place: Place, key: &'static str, word: &str| {
            let mut n_marked = 0;
            for (row, marked) in data.marked.iter().enumerate() {
                if *marked == Some(wanted) && places[row].is_none() {
                    places[row] = Some(place);
                    n_marked += 1;
                }
            }
            if n_marked == 0 {
                let message = format!("`{key}` is \"given\", but the data set has no {word} split of its own");
                return Err(wrong(key, message, format!("set `{key}` to a fraction such as 0.2")));
            }
            Ok(())
        };
        if self.test == Share::Given {
            mark(GivenSplit::Test, Place::Test, "test", "test")?;
        }
        if self.folds == 1 && self.validation == Share::Given {
            mark(GivenSplit::Validation, Place::Fold(1), "validation", "validation")?;
        }
        Ok(())
    }

    /// Takes about `fraction` of the samples out of `units`; returns what is left and what was taken.
    fn hold_out(
        &self,
        units: Vec<Unit>,
        data: &Divisible<'_>,
        fraction: f64,
        grouped: bool,
        key: &'static str,
        what: &str,
    ) -> Result<(Vec<Unit>, Vec<Unit>), SplitError> {
        let n: usize = units.iter().map(|unit| unit.rows.len()).sum();
        let noun = if grouped { "groups" } else { "images" };
        if units.len() < 2 {
            let message = format!("cannot take {what} from {} {noun}", units.len());
            return Err(wrong(key, message, format!("add {noun}, or use a smaller `test`")));
        }
        let taken: Vec<bool> = if grouped {
            let buckets = deal_groups(&units, data.classes.len(), &[1.0 - fraction, fraction], self.stratify);
            buckets.into_iter().map(|bucket| bucket == 1).collect()
        } else {
            let target = ((fraction * n as f64).round() as usize).clamp(1, n - 1);
            if self.stratify { take_by_class(&units, data.classes.len(), target) } else { take_last(n, target) }
        };
        if !taken.contains(&true) || !taken.contains(&false) {
            let message = format!("cannot take {what} of {fraction} from {} {noun}", units.len());
            return Err(wrong(key, message, format!("add {noun}, or change `{key}`")));
        }
        let mut rest = Vec::new();
        let mut out = Vec::new();
        for (unit, taken) in units.into_iter().zip(taken) {
            if taken { out.push(unit) } else { rest.push(unit) }
        }
        Ok((rest, out))
    }

    /// Deals `units` to the folds.
    fn deal(
        &self,
        units: Vec<Unit>,
        data: &Divisible<'_>,
        grouped: bool,
        places: &mut [Option<Place>],
    ) -> Result<(), SplitError> {
        let folds = self.folds as usize;
        if units.len() < folds {
            let noun = if grouped { "groups" } else { "images" };
            let message = format!("cannot make {folds} folds from {} {noun} outside the test split", units.len());
            let help = match units.len() {
                0 | 1 => format!("add {noun}, or use a smaller `test`"),
                n => format!("set `folds` to at most {n}, or add {noun}"),
            };
            return Err(wrong("folds", message, help));
        }
        let fold_of: Vec<usize> = if grouped {
            deal_groups(&units, data.classes.len(), &vec![1.0 / folds as f64; folds], self.stratify)
        } else if self.stratify {
            deal_by_class(&units, data.classes.len(), folds)
        } else {
            // Contiguous blocks of the dealing order; the first blocks are one longer where it does not come out even.
            (0..units.len()).map(|i| block_of(i, units.len(), folds)).collect()
        };
        for (unit, fold) in units.iter().zip(fold_of) {
            place(std::slice::from_ref(unit), Place::Fold(fold as u32 + 1), places);
        }
        Ok(())
    }
}

fn place(units: &[Unit], to: Place, places: &mut [Option<Place>]) {
    for &row in units.iter().flat_map(|unit| &unit.rows) {
        places[row as usize] = Some(to);
    }
}

/// The units, in order of their first sample.
fn units(data: &Divisible<'_>, places: &[Option<Place>]) -> Result<Vec<Unit>, SplitError> {
    let mut units: Vec<Unit> = Vec::new();
    let mut unit_of_group: BTreeMap<u32, usize> = BTreeMap::new();
    for (row, &label) in data.labels.iter().enumerate() {
        let group = data.groups.and_then(|groups| groups[row]);
        let known = group.and_then(|group| unit_of_group.get(&group).copied());
        let unit = known.unwrap_or_else(|| {
            units.push(Unit { rows: Vec::new(), counts: Vec::new() });
            if let Some(group) = group {
                unit_of_group.insert(group, units.len() - 1);
            }
            units.len() - 1
        });
        let unit = &mut units[unit];
        if let Some(&first) = unit.rows.first()
            && places[first as usize] != places[row]
        {
            return Err(wrong(
                "group",
                format!("images {first} and {row} are of one group, but the data set puts them in different splits"),
                "set `test` to a fraction, or leave out `group`",
            ));
        }
        unit.rows.push(row as u32);
        match unit.counts.binary_search_by_key(&label, |(class, _)| *class) {
            Ok(at) => unit.counts[at].1 += 1,
            Err(at) => unit.counts.insert(at, (label, 1)),
        }
    }
    Ok(units)
}

/// The block, of `n_blocks` as equal as can be, that position `i` of `n` falls in.
fn block_of(i: usize, n: usize, n_blocks: usize) -> usize {
    let (short, n_long) = (n / n_blocks, n % n_blocks);
    let in_long = n_long * (short + 1);
    if i < in_long { i / (short + 1) } else { n_long + (i - in_long) / short }
}

fn take_last(n: usize, target: usize) -> Vec<bool> {
    (0..n).map(|i| i >= n - target).collect()
}

/// Takes `target` of the units (one sample each), from each class its share (largest remainders first), the last of
/// each class in dealing order. A class with one sample keeps it.
fn take_by_class(units: &[Unit], n_classes: usize, target: usize) -> Vec<bool> {
    let mut sizes = vec![0usize; n_classes];
    for unit in units {
        sizes[unit.counts[0].0 as usize] += 1;
    }
    let n = units.len();
    let mut quota: Vec<usize> = sizes.iter().map(|&size| size * target / n).collect();
    let mut by_remainder: Vec<usize> = (0..n_classes).filter(|&class| sizes[class] > 1).collect();
    by_remainder.sort_by_key(|&class| (std::cmp::Reverse(sizes[class] * target % n), class));
    let missing = target - quota.iter().sum::<usize>();
    for &class in by_remainder.iter().filter(|&&class| !(sizes[class] * target).is_multiple_of(n)).take(missing) {
        quota[class] += 1;
    }
    for class in 0..n_classes {
        quota[class] = quota[class].min(sizes[class].saturating_sub(1));
    }
    // Where every class is too small for a share, the largest one gives a sample.
    if quota.iter().all(|&q| q == 0)
        && let Some(class) = (0..n_classes).filter(|&class| sizes[class] > 1).max_by_key(|&class| sizes[class])
    {
        quota[class] = 1;
    }
    let mut left = sizes;
    let mut taken = vec![false; n];
    for (unit, taken) in units.iter().zip(&mut taken) {
        let class = unit.counts[0].0 as usize;
        *taken = left[class] <= quota[class];
        left[class] -= 1;
    }
    taken
}

/// Deals units of one sample each so that folds and classes are as even as can be: the samples, sorted by class, go
/// round the folds to count how many of a class each fold gets; which ones is decided in contiguous blocks of the
/// dealing order, as scikit-learn's `StratifiedKFold` does.
fn deal_by_class(units: &[Unit], n_classes: usize, folds: usize) -> Vec<usize> {
    let mut sizes = vec![0usize; n_classes];
    for unit in units {
        sizes[unit.counts[0].0 as usize] += 1;
    }
    let mut remaining = vec![vec![0usize; folds]; n_classes];
    let mut position = 0;
    for (class, &size) in sizes.iter().enumerate() {
        for _ in 0..size {
            remaining[class][position % folds] += 1;
            position += 1;
        }
    }
    let mut next = vec![0usize; n_classes];
    units
        .iter()
        .map(|unit| {
            let class = unit.counts[0].0 as usize;
            while remaining[class][next[class]] == 0 {
                next[class] += 1;
            }
            remaining[class][next[class]] -= 1;
            next[class]
        })
        .collect()
}

/// Deals whole groups to buckets of the given shares, the largest group first, each to the bucket whose distance from
/// its share (per class where stratified) it reduces most; the first of equals.
fn deal_groups(units: &[Unit], n_classes: usize, shares: &[f64], stratify: bool) -> Vec<usize> {
    let class_of = |class: u32| if stratify { class as usize } else { 0 };
    let n_strata = if stratify { n_classes } else { 1 };
    let mut totals = vec![0usize; n_strata];
    for &(class, count) in units.iter().flat_map(|unit| &unit.counts) {
        totals[class_of(class)] += count;
    }
    let mut dealt = vec![vec![0usize; n_strata]; shares.len()];
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(units[i].rows.len()));
    let mut bucket_of = vec![0; units.len()];
    for i in order {
        let mut counts = vec![0usize; n_strata];
        for &(class, count) in &units[i].counts {
            counts[class_of(class)] += count;
        }
        // The change of the sum over classes of (dealt - target)^2 / target, and of the same for sizes.
        let change = |bucket: usize| {
            let mut change = 0.0;
            for (stratum, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let target = totals[stratum] as f64 * shares[bucket];
                let (count, dealt) = (count as f64, dealt[bucket][stratum] as f64);
                change += count * (count + 2.0 * (dealt - target)) / target.max(f64::MIN_POSITIVE);
            }
            change
        };
        let mut best = 0;
        for bucket in 1..shares.len() {
            if change(bucket) < change(best) {
                best = bucket;
            }
        }
        for (dealt, count) in dealt[best].iter_mut().zip(counts) {
            *dealt += count;
        }
        bucket_of[i] = best;
    }
    // A bucket that stayed empty takes the smallest unit of the bucket that has most.
    for empty in 0..shares.len() {
        let sizes: Vec<usize> = (0..shares.len()).map(|b| bucket_of.iter().filter(|&&of| of == b).count()).collect();
        if sizes[empty] == 0
            && let Some(donor) = (0..shares.len()).filter(|&b| sizes[b] > 1).max_by_key(|&b| (sizes[b], b))
            && let Some(unit) =
                (0..units.len()).filter(|&i| bucket_of[i] == donor).min_by_key(|&i| (units[i].rows.len(), i))
        {
            bucket_of[unit] = empty;
        }
    }
    bucket_of
}

/// The shares of rows to train on that need no warning, as the CS231n course advises.
pub const USUAL_TRAINING_SHARE: std::ops::RangeInclusive<f64> = 0.70..=0.90;

/// Says that a share of training rows is unusual, if it is.
pub fn share_warning(n_training: usize, n_outside_test: usize) -> Option<String> {
    let share = n_training as f64 / n_outside_test as f64;
    (!USUAL_TRAINING_SHARE.contains(&share)).then(|| {
        format!(
            "{:.0} % of the images outside the test split are trained on, 70 to 90 % is usual",
            (share * 100.0).round()
        )
    })
}

fn warnings(partition: &Partition, data: &Divisible<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let folds = partition.folds() as usize;
    // Samples by class and place: 0 is "train only", then the folds.
    let mut counts = vec![vec![0usize; folds + 1]; data.classes.len()];
    let mut in_test = vec![0usize; data.classes.len()];
    for (place, &label) in partition.places().iter().zip(data.labels) {
        match *place {
            Place::Train => counts[label as usize][0] += 1,
            Place::Fold(fold) => counts[label as usize][fold as usize] += 1,
            Place::Test => in_test[label as usize] += 1,
        }
    }
    let has_test = in_test.iter().any(|&n| n > 0);
    for (class, name) in data.classes.iter().enumerate() {
        let n: usize = counts[class].iter().sum();
        if n + in_test[class] == 0 {
            continue;
        }
        let images = if n == 1 { "image" } else { "images" };
        if let Some(fold) = (1..=folds).find(|&fold| counts[class][fold] == n) {
            let of = if folds > 1 { format!("in fold {fold} ") } else { String::new() };
            warnings
                .push(format!("class `{name}` has {n} {images} outside the test split: {of}nothing is trained on it"));
        } else if folds > 1 && n < folds {
            warnings.push(format!(
                "class `{name}` has {n} {images} outside the test split, fewer than the {folds} folds: some folds do not \
                 validate it"
            ));
        }
        if has_test && in_test[class] == 0 {
            warnings.push(format!("class `{name}` ({n} {images}) has none in the test split"));
        }
    }
    warnings.extend(imbalance(data.classes, &counts.iter().map(|places| places.iter().sum()).collect::<Vec<_>>()));
    warnings
}

/// From this ratio of the largest class to the smallest on, classes count as unbalanced.
const IMBALANCE: usize = 10;

/// Says that classes differ much in size, if they do: `sizes` are the images outside the test split. Classes without
/// any have a warning of their own.
fn imbalance(classes: &[String], sizes: &[usize]) -> Option<String> {
    let there = || sizes.iter().zip(classes).filter(|(size, _)| **size > 0);
    // The first of equals.
    let (most, largest) = there().rev().max_by_key(|(size, _)| **size)?;
    let (least, smallest) = there().min_by_key(|(size, _)| **size)?;
    (*most >= IMBALANCE * least).then(|| {
        format!(
            "class `{largest}` has {most} images outside the test split, `{smallest}` {least}: with so uneven classes accuracy \
             says little about the small ones; look at `balanced-accuracy` and `macro-f1`, and set \
             `class_weights = \"balanced\"` or `oversample` in `train`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fit_set::Fit;

    fn plan() -> SplitPlan {
        SplitPlan {
            test: Share::Fraction(0.2),
            folds: 5,
            validation: Share::Fraction(0.2),
            stratify: true,
            shuffle: true,
        }
    }

    fn classes(labels: &[u32]) -> Vec<String> {
        (0..=labels.iter().copied().max().unwrap_or(0)).map(|class| format!("c{class}")).collect()
    }

    fn divide(plan: &SplitPlan, labels: &[u32], groups: Option<&[Option<u32>]>) -> Result<Division, SplitError> {
        let marked = vec![None; labels.len()];
        let data = Divisible { labels, classes: &classes(labels), groups, marked: &marked };
        plan.divide(&data, &Stream::new(42, "split", &[]))
    }

    /// Samples of `class` in `place`.
    fn count(division: &Division, labels: &[u32], class: Option<u32>, place: Place) -> usize {
        let places = division.partition.places().iter().zip(labels);
        places.filter(|(p, l)| **p == place && class.is_none_or(|class| class == **l)).count()
    }

    #[test]
    fn classes_that_differ_tenfold_are_warned_about() {
        let classes: Vec<String> = ["cat", "dog", "owl", "yak"].map(str::to_owned).into();
        let said = |sizes: [usize; 4]| imbalance(&classes, &sizes);
        assert_eq!(said([90, 10, 0, 50]), None);
        assert_eq!(said([0, 0, 0, 7]), None);
        assert_eq!(imbalance(&[], &[]), None);
        let warning = said([100, 10, 0, 100]).unwrap();
        let expected = "class `cat` has 100 images outside the test split, `dog` 10: ";
        assert!(warning.starts_with(expected) && warning.contains("class_weights = \"balanced\""), "{warning}");
    }

    #[test]
    fn every_split_gets_its_share_of_every_class() {
        let labels: Vec<u32> = (0..1000).map(|i| if i % 10 < 7 { 0 } else { i % 3 }).collect();
        let division = divide(&plan(), &labels, None).unwrap();
        assert_eq!(count(&division, &labels, None, Place::Test), 200);
        for class in 0..3 {
            let total = labels.iter().filter(|label| **label == class).count() as f64;
            let test = count(&division, &labels, Some(class), Place::Test) as f64;
            assert!((test - total * 0.2).abs() <= 1.0, "class {class}: {test} of {total} in the test");
            for fold in 1..=5 {
                let n = count(&division, &labels, Some(class), Place::Fold(fold)) as f64;
                assert!((n - (total - test) / 5.0).abs() <= 1.0, "class {class}, fold {fold}: {n}");
            }
        }
        for fold in 1..=5 {
            assert_eq!(count(&division, &labels, None, Place::Fold(fold)), 160);
        }
        assert_eq!(division.warnings, [] as [String; 0]);
    }

    #[test]
    fn unshuffled_splits_are_contiguous() {
        let labels = vec![0; 10];
        let unshuffled = SplitPlan { shuffle: false, folds: 3, ..plan() };
        let division = divide(&unshuffled, &labels, None).unwrap();
        let expected = [1, 1, 1, 2, 2, 2, 3, 3].map(Place::Fold);
        assert_eq!(division.partition.places()[..8], expected);
        assert_eq!(division.partition.places()[8..], [Place::Test; 2]);
        let unstratified = divide(&SplitPlan { stratify: false, ..unshuffled }, &labels, None).unwrap();
        assert_eq!(unstratified.partition, division.partition);
        let shuffled = divide(&SplitPlan { folds: 3, ..plan() }, &labels, None).unwrap();
        assert_ne!(shuffled.partition, division.partition);
    }

    #[test]
    fn golden_places_of_a_seed() {
        let labels = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1];
        let division = divide(&SplitPlan { folds: 2, ..plan() }, &labels, None).unwrap();
        let text: String = division
            .partition
            .places()
            .iter()
            .map(|place| match place {
                Place::Train => '-',
                Place::Test => 't',
                Place::Fold(fold) => char::from(b'0' + *fold as u8),
            })
            .collect();
        assert_eq!(text, "2122t11t12");
    }

    #[test]
    fn groups_never_straddle() {
        let labels: Vec<u32> = (0..600).map(|i| (i / 7) % 4).collect();
        let groups: Vec<Option<u32>> = (0..600).map(|i| (i % 11 != 0).then_some(i / 13)).collect();
        for stratify in [false, true] {
            for folds in [1, 4] {
                let plan = SplitPlan { folds, stratify, ..plan() };
                let division = divide(&plan, &labels, Some(&groups)).unwrap();
                let places = division.partition.places();
                let mut place_of = BTreeMap::new();
                for (group, place) in groups.iter().zip(places) {
                    if let Some(group) = group {
                        assert_eq!(place_of.entry(*group).or_insert(*place), place, "group {group}");
                    }
                }
                let test = count(&division, &labels, None, Place::Test);
                assert!((105..=135).contains(&test), "{test} of 600 held out");
                for fold in 1..=folds {
                    let n = count(&division, &labels, None, Place::Fold(fold));
                    assert!((85..=155).contains(&n), "{n} in fold {fold} of {folds}");
                }
            }
        }
    }

    #[test]
    fn given_splits_are_kept() {
        use GivenSplit::{Test, Train, Validation};
        let labels = [0, 1, 0, 1, 0, 1, 0, 1];
        let marked = [Train, Train, Validation, Validation, Test, Train, Train, Test].map(Some);
        let data = Divisible { labels: &labels, classes: &classes(&labels), groups: None, marked: &marked };
        let given = SplitPlan { test: Share::Given, validation: Share::Given, folds: 1, ..plan() };
        let division = given.divide(&data, &Stream::new(1, "split", &[])).unwrap();
        assert_eq!(division.partition.test_rows().indices(), [4, 7]);
        assert_eq!(division.partition.fit_set(Fit::Fold(1)).validation().indices(), [2, 3]);
        assert_eq!(division.partition.fit_set(Fit::Fold(1)).training().indices(), [0, 1, 5, 6]);
        assert_eq!(division.partition.fit_set(Fit::All).training().indices(), [0, 1, 2, 3, 5, 6]);

        let groups = [0, 1, 2, 3, 0, 5, 6, 7].map(Some);
        let error = given.divide(&Divisible { groups: Some(&groups), ..data }, &Stream::new(1, "split", &[]));
        assert_eq!(error.unwrap_err().at, "group");
    }

    #[track_caller]
    fn check_error(plan: SplitPlan, labels: &[u32], key: &str, message: &str) {
        let error = divide(&plan, labels, None).unwrap_err();
        assert_eq!((error.at, error.message.as_str()), (key, message));
    }

    #[test]
    fn too_few_samples_are_an_error_with_numbers() {
        let seven = SplitPlan { folds: 7, ..plan() };
        check_error(seven, &[0, 1, 0, 1, 0], "folds", "cannot make 7 folds from 4 images outside the test split");
        check_error(plan(), &[0], "test", "cannot take the test split from 1 images");
        let single = SplitPlan { folds: 1, test: Share::Fraction(0.0), ..plan() };
        check_error(single, &[0], "validation", "cannot take the validation split from 1 images");
        let given = SplitPlan { test: Share::Given, ..plan() };
        let message = "`test` is \"given\", but the data set has no test split of its own";
        check_error(given, &[0, 1, 2], "test", message);
    }

    #[test]
    fn small_classes_are_kept_for_training_and_named() {
        // Class 1 has one image, class 2 has three.
        let mut labels = vec![0; 40];
        labels.extend([1, 2, 2, 2]);
        let division = divide(&plan(), &labels, None).unwrap();
        assert_eq!(count(&division, &labels, Some(1), Place::Test), 0);
        let about_1 = "class `c1` has 1 image outside the test split: in fold ";
        assert!(division.warnings.iter().any(|warning| warning.starts_with(about_1)), "{:?}", division.warnings);
        assert!(division.warnings.iter().any(|w| w == "class `c1` (1 image) has none in the test split"));
        let about_2 = "outside the test split, fewer than the 5 folds";
        assert!(division.warnings.iter().any(|warning| warning.contains(about_2)), "{:?}", division.warnings);
    }

    /// Everything that may be asked for either works or says why not: never a panic, never an empty fold.
    #[test]
    fn any_small_data_set_is_divided_or_refused() {
        for n in 0..9u32 {
            for n_classes in 1..4 {
                for folds in 1..6 {
                    for fraction in [0.0, 0.1, 0.5, 0.9] {
                        for stratify in [false, true] {
                            for group_size in [1, 3] {
                                let labels: Vec<u32> = (0..n).map(|i| i % n_classes).collect();
                                let groups: Vec<Option<u32>> = (0..n).map(|i| Some(i / group_size)).collect();
                                let test = Share::Fraction(fraction);
                                let plan = SplitPlan { test, folds, stratify, ..plan() };
                                let groups = (group_size > 1).then_some(&groups[..]);
                                let Ok(division) = divide(&plan, &labels, groups) else { continue };
                                let partition = &division.partition;
                                assert_eq!(partition.test_rows().is_empty(), fraction == 0.0);
                                for fold in 1..=folds {
                                    let fit_set = partition.fit_set(Fit::Fold(fold));
                                    assert!(!fit_set.training().is_empty() && !fit_set.validation().is_empty());
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
