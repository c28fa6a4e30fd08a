//! Images to look at by eye (`Part::Suspects`): what nothing else reads, and no metric depends on.
//!
//! Labels are judged by what was said of their images out of fold (or on the validation split) alone: labels of the test split
//! are not judged by the model that they test. Near duplicates and images unlike their class are looked for everywhere.

use std::collections::{BTreeMap, HashMap};

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::super::ensemble::models;
use super::super::{Context, StageError, Task, lineage, pictures};
use super::{Look, check_predictions, looks_at};
use crate::artifact::Sink;
use crate::artifact::dataset::{Dataset, Names, Numbers};
use crate::artifact::splits::Splits;
use crate::artifact::suspects::{About, Judged, Named, PAIRS, SINGLES, Sheet, Suspect, Suspects, TABLE, table};
use crate::data::fit_set::Place;
use crate::data::samples::Samples as _;
use crate::data::suspects::duplicates::{Correlation, LEAST, SIDE, hash, near};
use crate::data::suspects::labels::contradicted;
use crate::data::suspects::thumbnail::{Grey, UNIT};
use crate::data::suspects::unlike::unlike;

/// Labels, images unlike their class and pairs on the sheets.
const SHOWN: [usize; 3] = [18, 6, 12];
/// Cells in a row of the small pictures that are kept.
const SMALL: usize = 16;
/// What the correlation of small pictures is at least, in hundredths, where that of larger ones is looked at.
const LIKELY: u32 = 97;
/// Images between two looks at whether to stop.
const CHUNK: usize = 1024;

/// What is known of every image by its pixels.
struct Seen {
    /// Perceptual hashes.
    hashes: Vec<u64>,
    /// `[n_images, SMALL * SMALL]`.
    small: Vec<u8>,
}

/// Looks for suspects and writes them.
pub(super) fn find(task: &Task, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
    let (dataset, names, splits) = (lineage::dataset(task)?, lineage::names(task)?, lineage::splits(task)?);
    let named = |image: usize| {
        let (split, fold) = splits.report_name(splits.places()[image]);
        let label = names.classes()[dataset.label(image) as usize].clone();
        Named { id: image as u32, path: names.path(image).to_owned(), split: split.to_owned(), fold, label }
    };
    let mut told = Suspects::default();
    let mut labels = Vec::new();
    if let Some(look) = held_out(task, splits.folds())? {
        check_predictions(&look, &dataset)?;
        labels = of_labels(&look, &dataset, &names, &named);
        told.judged = Some(Judged {
            model: look.model.clone(),
            split: look.split.to_owned(),
            n: look.predictions.len(),
            n_contradicted: labels.len(),
            n_confident: labels.iter().filter(|suspect| is_confident(suspect)).count(),
        });
    }
    let seen = see(&dataset, context)?;
    let pairs = duplicates(&dataset, &splits, &seen, context)?;
    told.n_duplicates_of_labels = pairs.iter().filter(|pair| pair.is_of_labels).count();
    told.n_duplicates_of_splits = pairs.len() - told.n_duplicates_of_labels;
    let of_pair = |pair: &Pair| Suspect {
        image: named(pair.image),
        score: pair.score,
        about: About::Duplicate { other: named(pair.other), distance: pair.distance },
    };
    let pairs: Vec<Suspect> = pairs.iter().map(of_pair).collect();
    let far = unlike(&seen.small, SMALL * SMALL, dataset.labels(), dataset.n_classes());
    told.n_unlike = far.len();
    let far = far.iter().map(|one| Suspect { image: named(one.image), score: one.score, about: About::UnlikeClass });
    let far: Vec<Suspect> = far.collect();

    let shape = Numbers::shape(&dataset);
    let stored = |image: usize| dataset.values(image);
    let first_labels = labels.iter().filter(|suspect| is_confident(suspect)).take(SHOWN[0]);
    let singles: Vec<Suspect> = first_labels.chain(far.iter().take(SHOWN[1])).cloned().collect();
    if !singles.is_empty() {
        let images: Vec<Vec<usize>> = singles.iter().map(|suspect| vec![suspect.image.id as usize]).collect();
        let tiles = pictures::sheet(SINGLES, shape, &images, stored, sink)?;
        told.singles = Some(Sheet { tiles, suspects: singles });
    }
    if !pairs.is_empty() {
        let first: Vec<Suspect> = pairs.iter().take(SHOWN[2]).cloned().collect();
        let both = |suspect: &Suspect| match &suspect.about {
            About::Duplicate { other, .. } => vec![suspect.image.id as usize, other.id as usize],
            _ => vec![suspect.image.id as usize; 2],
        };
        let tiles = pictures::sheet(PAIRS, shape, &first.iter().map(both).collect::<Vec<_>>(), stored, sink)?;
        told.pairs = Some(Sheet { tiles, suspects: first });
    }
    sink.put(TABLE, &table(&[labels, pairs, far].concat()))?;
    Ok(told.write(sink)?)
}

fn is_confident(suspect: &Suspect) -> bool {
    matches!(suspect.about, About::Label { is_confident: true, .. })
}

/// What the first model that was scored on rows that it did not learn from, the test split aside, says of them.
fn held_out(task: &Task, folds: u32) -> Result<Option<Look>, StageError> {
    for model in &models(task)? {
        let looks = looks_at(model, folds)?;
        let own = looks.into_iter().find(|look| look.fold.is_none() && look.split != "test");
        if own.is_some() {
            return Ok(own);
        }
    }
    Ok(None)
}

fn of_labels(look: &Look, dataset: &Numbers, names: &Names, named: &impl Fn(usize) -> Named) -> Vec<Suspect> {
    let predictions = &look.predictions;
    let labels: Vec<u32> = predictions.rows().iter().map(|&row| dataset.label(row as usize)).collect();
    let found = contradicted(&labels, predictions.probabilities());
    let suspect = |one: &crate::data::suspects::labels::Contradicted| Suspect {
        image: named(predictions.rows()[one.row] as usize),
        score: one.score(),
        about: About::Label {
            suggested: names.classes()[one.suggested].clone(),
            p_label: one.p_label,
            p_suggested: one.p_suggested,
            is_confident: one.is_confident,
        },
    };
    found.iter().map(suspect).collect()
}

/// Looks at the pixels of every image.
fn see(dataset: &Dataset, context: &dyn Context) -> Result<Seen, StageError> {
    let n = Numbers::n_samples(dataset);
    let shape = Numbers::shape(dataset);
    let one = |image: usize| {
        let grey = Grey::new(shape, dataset.values(image));
        let small = grey.cells(SMALL).into_iter().map(|cell| (cell / UNIT) as u8).collect::<Vec<u8>>();
        (hash(&grey.cells(SIDE)), small)
    };
    // Without threads the work is done all the same.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(context.threads()).build().ok();
    let mut seen = Seen { hashes: Vec::with_capacity(n), small: Vec::with_capacity(n * SMALL * SMALL) };
    for start in (0..n).step_by(CHUNK) {
        if context.is_cancelled() {
            return Err(StageError::cancelled());
        }
        let chunk = start..(start + CHUNK).min(n);
        let done: Vec<(u64, Vec<u8>)> = match &pool {
            Some(pool) => pool.install(|| chunk.clone().into_par_iter().map(one).collect()),
            None => chunk.clone().map(one).collect(),
        };
        for (hash, small) in done {
            seen.hashes.push(hash);
            seen.small.extend(small);
        }
        context.progress(chunk.end as u64, n as u64, "images", "");
    }
    Ok(seen)
}

/// An image and an earlier one that is nearly the same, with another label or in another part of the splits.
struct Pair {
    image: usize,
    other: usize,
    score: f64,
    /// Bits that differ; `None`: pixel for pixel the same.
    distance: Option<u32>,
    is_of_labels: bool,
}

/// A row for each image that has a double: what it is most like. Those with another label first.
fn duplicates(dataset: &Dataset, splits: &Splits, seen: &Seen, context: &dyn Context) -> Result<Vec<Pair>, StageError> {
    let place = |image: usize| (dataset.label(image), splits.places()[image]);
    let differ = |a: (u32, Place), b: (u32, Place)| (a.0 != b.0, a != b);
    let mut pairs: BTreeMap<usize, Pair> = BTreeMap::new();
    let mut add = |pair: Pair| {
        let rank = |pair: &Pair| (pair.is_of_labels, pair.score);
        let known = pairs.get(&pair.image);
        if known.is_none_or(|known| rank(&pair) > rank(known)) {
            pairs.insert(pair.image, pair);
        }
    };
    // Of images with the same pixels the first of each label and part; only looked up, never walked.
    let mut firsts: HashMap<u128, Vec<usize>> = HashMap::new();
    let mut kept: Vec<usize> = Vec::new();
    for image in 0..Numbers::n_samples(dataset) {
        let same = firsts.entry(dataset.digest(image)).or_default();
        let own = place(image);
        let of_label = same.iter().find(|&&other| differ(own, place(other)).0);
        if let Some(&other) = of_label.or_else(|| same.iter().find(|&&other| differ(own, place(other)).1)) {
            add(Pair { image, other, score: 1.0, distance: None, is_of_labels: differ(own, place(other)).0 });
        }
        if !same.iter().any(|&other| place(other) == own) {
            same.push(image);
            kept.push(image);
        }
    }
    let shape = Numbers::shape(dataset);
    let hashes: Vec<u64> = kept.iter().map(|&image| seen.hashes[image]).collect();
    let small = |image: usize| &seen.small[image * SMALL * SMALL..(image + 1) * SMALL * SMALL];
    let large = |image: usize| Grey::new(shape, dataset.values(image)).cells(SIDE);
    let mut is_stopped = false;
    let mut n_looked = 0usize;
    near(&hashes, &mut |one, other, distance| {
        let (other, image) = (kept[one], kept[other]);
        n_looked += 1;
        is_stopped = n_looked.is_multiple_of(CHUNK) && context.is_cancelled();
        let (is_of_labels, is_apart) = differ(place(image), place(other));
        if is_apart
            && dataset.digest(image) != dataset.digest(other)
            && Correlation::new(small(image), small(other)).is_at_least(LIKELY)
        {
            let agree = Correlation::new(&large(image), &large(other));
            if agree.is_at_least(LEAST) {
                add(Pair { image, other, score: agree.value().min(1.0), distance: Some(distance), is_of_labels });
            }
        }
        !is_stopped
    });
    if is_stopped {
        return Err(StageError::cancelled());
    }
    let mut pairs: Vec<Pair> = pairs.into_values().collect();
    pairs.sort_by(|a, b| {
        let first = b.is_of_labels.cmp(&a.is_of_labels).then(b.score.total_cmp(&a.score));
        first.then(a.image.cmp(&b.image))
    });
    Ok(pairs)
}
