//! Which class and which split an image belongs to: by the folders it lies in, or by a column of labels.
//!
//! Folders are a guess about what somebody meant. A guess that another reading of the same folders contradicts is an
//! error that names both; what a guess leaves out is listed.

use std::collections::{BTreeMap, BTreeSet};

use super::input::Input;
use super::{Error, GivenSplit};

/// The most classes that a data set may have: more are a column of something else.
pub const MAX_CLASSES: usize = 65_535;

/// The largest label of an array of numbers: above it lie marks for images that have none.
pub const MAX_LABEL: u32 = 65_534;

/// The error about a label that is no index of a class.
pub fn bad_label(input: &Input, value: impl std::fmt::Display) -> Error {
    input
        .wrong(format_args!("holds the label {value}, expected whole numbers from 0 to {MAX_LABEL}, or names"))
        .help("leave images without a label out, or store names as text")
}

/// Classes in the order of their labels, and what each image is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// Names by label.
    pub classes: Vec<String>,
    /// For each image: its label and split, or why it has none.
    pub files: Vec<Result<(u32, Option<GivenSplit>), &'static str>>,
}

/// Why an image has no class.
const IN_NO_CLASS: &str = "lies in no class folder";
const BESIDE_SPLITS: &str = "lies beside the folders of the splits";

/// Assigns by folders: `class/…/image`, also below folders of splits (`train`, `seg_train`, `val2017`, …), also below
/// folders that hold everything, also with the splits inside the classes. `files` are the relative paths of images,
/// with `/`.
///
/// # Errors
/// If there is no class folder, or folders contradict the guess.
pub fn by_folder(files: &[String]) -> Result<Assigned, Error> {
    let depth = wrapper_depth(files);
    let tops = children(files, depth, |_| true);
    let splits = split_folders(files, depth, &tops)?;
    let of_file: Vec<Result<(&str, Option<GivenSplit>), &'static str>> = if splits.is_empty() {
        let has_inner_splits = has_splits_inside(files, depth, &tops);
        if !has_inner_splits {
            check_classes(files, depth, &tops)?;
        }
        files
            .iter()
            .map(|path| {
                let class = component(path, depth).ok_or(IN_NO_CLASS)?;
                let inner = if has_inner_splits { component(path, depth + 1) } else { None };
                Ok((class, inner.and_then(GivenSplit::in_name)))
            })
            .collect()
    } else {
        check_train(&splits, &tops)?;
        files
            .iter()
            .map(|path| {
                let top = component(path, depth).ok_or(IN_NO_CLASS)?;
                let &(split, inner) = splits.get(top).ok_or(BESIDE_SPLITS)?;
                let class = component(path, inner).ok_or(IN_NO_CLASS)?;
                Ok((class, Some(split)))
            })
            .collect()
    };
    let classes: BTreeSet<&str> = of_file.iter().flatten().map(|(class, _)| *class).collect();
    if classes.is_empty() {
        return Err(match files.first() {
            None => Error::new("the source has no image"),
            Some(file) => Error::new(format!("the source has no class folders: `{file}` lies in none")),
        }
        .help("put each image into a folder that is named after its class"));
    }
    check_count(classes.len(), "class folders")?;
    let classes: Vec<&str> = classes.into_iter().collect();
    // One split alone, whichever, sets nothing apart.
    let splits: BTreeSet<Option<GivenSplit>> = of_file.iter().flatten().map(|(_, split)| *split).collect();
    let is_apart = splits.len() > 1 && splits.iter().any(|split| !matches!(split, None | Some(GivenSplit::Train)));
    let files = of_file
        .into_iter()
        .map(|file| {
            // Every class is among those that are made of them.
            file.map(|(class, split)| {
                (classes.binary_search(&class).unwrap_or_default() as u32, split.filter(|_| is_apart))
            })
        })
        .collect();
    Ok(Assigned { classes: classes.into_iter().map(str::to_owned).collect(), files })
}

/// How many folders hold everything else and are neither a split nor a class.
fn wrapper_depth(files: &[String]) -> usize {
    let mut depth = 0;
    loop {
        let tops = children(files, depth, |_| true);
        let mut names = tops.iter().copied();
        let (Some(only), None) = (names.next(), names.next()) else { return depth };
        let inside: Vec<&String> = files.iter().filter(|path| component(path, depth) == Some(only)).collect();
        // A class has images in it; a wrapper has folders.
        let has_images = inside.iter().any(|path| component(path, depth + 1).is_none());
        if has_images || GivenSplit::parse(only).is_some() {
            return depth;
        }
        depth += 1;
    }
}

/// The names of the folders at `depth` of those images that `wants` takes.
fn children(files: &[String], depth: usize, wants: impl Fn(&str) -> bool) -> BTreeSet<&str> {
    files.iter().filter(|path| wants(path)).filter_map(|path| component(path, depth)).collect()
}

/// Which of `tops` are splits, and at which depth their classes lie. Empty where none is.
///
/// `train`, `val` and `test` decide, whatever lies beside them, once one of them has class folders. A name that has
/// such a word in it (`seg_train`, `bullet train`) is a split only where another one has the same classes and no folder
/// has just that name.
///
/// # Errors
/// If there are two of one split.
fn split_folders<'a>(
    files: &[String],
    depth: usize,
    tops: &BTreeSet<&'a str>,
) -> Result<BTreeMap<&'a str, (GivenSplit, usize)>, Error> {
    // `seg_train/seg_train/sea`: what holds everything of a split is passed over.
    let inside = |top: &str| {
        let mut at = depth + 1;
        loop {
            let within = |path: &str| component(path, depth) == Some(top);
            let own = children(files, at, within);
            let has_images = files.iter().any(|path| within(path) && component(path, at).is_none());
            match own.iter().next() {
                Some(only) if own.len() == 1 && !has_images && GivenSplit::in_name(only).is_some() => at += 1,
                _ => {
                    let classes: BTreeSet<String> = own.into_iter().map(str::to_owned).collect();
                    return (at, classes);
                }
            }
        }
    };
    struct Named<'a> {
        name: &'a str,
        split: GivenSplit,
        is_exact: bool,
        /// The depth of its classes.
        at: usize,
        classes: BTreeSet<String>,
    }
    let named: Vec<Named<'a>> = tops
        .iter()
        .filter_map(|&name| {
            let split = GivenSplit::in_name(name)?;
            let (at, classes) = inside(name);
            Some(Named { name, split, is_exact: GivenSplit::parse(name).is_some(), at, classes })
        })
        .collect();
    // A class may be called `train`: then the images lie right in it.
    let is_decided = named.iter().any(|top| top.is_exact && !top.classes.is_empty() && top.at == depth + 1);
    // Folders that are all called as splits are: a classifier of splits is of no use to anybody.
    let are_all = named.len() == tops.len();
    let shares =
        |top: &Named<'_>| named.iter().any(|other| other.name != top.name && !other.classes.is_disjoint(&top.classes));
    let is_split = |top: &&Named<'_>| are_all || (is_decided && top.is_exact) || shares(top);
    let splits: Vec<&Named<'_>> = named.iter().filter(is_split).collect();
    // Beside `train`, `train_masks` is none.
    let is_second = |top: &&&Named<'_>| {
        is_decided && !top.is_exact && splits.iter().any(|other| other.is_exact && other.split == top.split)
    };
    let splits: Vec<&Named<'_>> = splits.iter().filter(|top| !is_second(top)).copied().collect();
    for top in &splits {
        let same: Vec<&str> = splits.iter().filter(|other| other.split == top.split).map(|other| other.name).collect();
        if same.len() > 1 {
            let split = top.split.name();
            let shown = some_of(same.into_iter());
            return Err(Error::new(format!(
                "the source has the folders {shown}, each of which could be the {split} split"
            ))
            .help(format!("call the right one `{split}`, or put them together")));
        }
    }
    Ok(splits.into_iter().map(|top| (top.name, (top.split, top.at))).collect())
}

/// Stops where folders lie beside `test` or `val` and there is no `train`: somebody cut off a split by hand and left the training
/// images where they were. To take the split for the data set, or its images for nobody's, would train on the wrong ones.
fn check_train(splits: &BTreeMap<&str, (GivenSplit, usize)>, tops: &BTreeSet<&str>) -> Result<(), Error> {
    let beside: Vec<&str> = tops.iter().copied().filter(|top| !splits.contains_key(top)).collect();
    if beside.is_empty() || splits.values().any(|(split, _)| *split == GivenSplit::Train) {
        return Ok(());
    }
    let lie = if beside.len() == 1 { "lies" } else { "lie" };
    let look = if splits.len() == 1 { "looks like a split" } else { "look like splits" };
    let (named, beside) = (some_of(splits.keys().copied()), some_of(beside.into_iter()));
    Err(Error::new(format!("the source has no `train`: {beside} {lie} beside {named}, which {look}"))
        .help(format!("put {beside} into a folder `train`, or set `source` to {named} alone")))
}

/// Whether every class has its splits inside: `cat/train`, `cat/test`, `dog/train`, ….
fn has_splits_inside(files: &[String], depth: usize, tops: &BTreeSet<&str>) -> bool {
    let inner = children(files, depth + 1, |_| true);
    let has_loose = files.iter().any(|path| component(path, depth).is_some() && component(path, depth + 1).is_none());
    tops.len() > 1 && !has_loose && inner.len() > 1 && inner.iter().all(|name| GivenSplit::parse(name).is_some())
}

/// Stops where folders on top hold what looks like the classes.
fn check_classes(files: &[String], depth: usize, tops: &BTreeSet<&str>) -> Result<(), Error> {
    let within = |top: &str| {
        let own = |path: &str| component(path, depth) == Some(top);
        let has_images = files.iter().any(|path| own(path) && component(path, depth + 1).is_none());
        if has_images { BTreeSet::new() } else { children(files, depth + 1, own) }
    };
    let Some((top, inner)) = tops.iter().map(|top| (*top, within(top))).find(|(_, inner)| inner.len() > 1) else {
        return Ok(());
    };
    let prefix: String = files
        .iter()
        .find(|path| component(path, depth) == Some(top))
        .map(|path| path.split('/').take(depth).map(|part| format!("{part}/")).collect())
        .unwrap_or_default();
    let listed = some_of(inner.iter().copied());
    let others: Vec<&str> = tops.iter().copied().filter(|other| *other != top && within(other) == inner).collect();
    Err(if others.is_empty() {
        Error::new(format!(
            "the source has a folder `{prefix}{top}` that would be a class, but has folders of images: {listed}"
        ))
        .help(format!("set `source` to its folder `{prefix}{top}`, or put the images of each class into one folder"))
    } else {
        let tops = some_of(std::iter::once(top).chain(others));
        Error::new(format!("the source has the folders {tops} on top, which hold the same folders again: {listed}")).help(
            "call them `train`, `val` and `test` if they are splits, or set `source` to the one whose folders are the classes",
        )
    })
}

/// At most five names in backticks, and how many more there are.
pub fn some_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let shown: Vec<String> = names.iter().take(5).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(5) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The folder at `depth` of an image's path; its last component is no folder.
fn component(path: &str, depth: usize) -> Option<&str> {
    let mut parts = path.split('/');
    let part = parts.nth(depth)?;
    parts.next().map(|_| part)
}

fn check_count(n: usize, what: &str) -> Result<(), Error> {
    if n <= MAX_CLASSES {
        return Ok(());
    }
    Err(Error::new(format!("the source has more than {MAX_CLASSES} {what}"))
        .help("images are sorted into classes: take what says the class, not what numbers the images"))
}

/// A column of labels as it is read: each name is kept once.
#[derive(Clone, Debug, Default)]
pub struct Column {
    known: BTreeMap<String, u32>,
    rows: Vec<u32>,
}

impl Column {
    /// The label of the next row.
    ///
    /// # Errors
    /// If there are more than [`MAX_CLASSES`].
    pub fn push(&mut self, name: &str) -> Result<(), Error> {
        let next = self.known.len() as u32;
        let index = match self.known.get(name) {
            Some(&index) => index,
            None => {
                check_count(self.known.len() + 1, "labels")?;
                self.known.insert(name.to_owned(), next);
                next
            }
        };
        self.rows.push(index);
        Ok(())
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The classes, whole numbers in their order, else names in the order of their bytes; and the label of each row.
    /// Where all are whole numbers and some are written as `1.0`, as tables with gaps have them, they are written as
    /// `1`.
    pub fn finish(self) -> (Vec<String>, Vec<u32>) {
        let mut classes: Vec<(String, u32)> = self.known.into_iter().collect();
        if let Some(whole) = classes.iter().map(|(name, _)| as_whole(name)).collect::<Option<Vec<i64>>>() {
            if classes.iter().any(|(name, _)| name.contains('.')) {
                classes.iter_mut().zip(&whole).for_each(|((name, _), whole)| *name = whole.to_string());
            }
            classes.sort_by_cached_key(|(name, _)| (as_whole(name), name.clone()));
        }
        let mut label_of = vec![0; classes.len()];
        let mut names: Vec<String> = Vec::with_capacity(classes.len());
        for (name, index) in classes {
            if names.last() != Some(&name) {
                names.push(name);
            }
            label_of[index as usize] = names.len() as u32 - 1;
        }
        let labels = self.rows.iter().map(|&index| label_of[index as usize]).collect();
        (names, labels)
    }
}

/// The number that a name is, also with nothing but zeros behind its point.
fn as_whole(name: &str) -> Option<i64> {
    match name.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => whole.parse().ok(),
        _ => name.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use GivenSplit::{Test, Train, Validation};

    #[test]
    fn a_split_beside_class_folders_needs_a_train() {
        for split in ["test", "val"] {
            let paths = ["cat/1.png", "dog/1.png"].map(str::to_owned).into_iter();
            let cut = ["cat", "dog"].map(|class| format!("{split}/{class}/2.png"));
            let files: Vec<String> = paths.chain(cut).collect();
            let error = by_folder(&files).expect_err("which images are to be trained on is not said").to_string();
            assert!(error.contains("no `train`: `cat`, `dog` lie beside"), "{error}");
            let inside: Vec<String> = files
                .iter()
                .map(|path| if path.starts_with(split) { path.clone() } else { format!("train/{path}") })
                .collect();
            assert_eq!(by_folder(&inside).map(|assigned| assigned.classes), Ok(owned(&["cat", "dog"])));
        }
    }

    type Expected<'a> = &'a [Option<(u32, Option<GivenSplit>)>];

    fn owned(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[track_caller]
    fn case(paths: &[&str], classes: &[&str], files: Expected<'_>) {
        let assigned = by_folder(&owned(paths)).unwrap();
        assert_eq!(assigned.classes, classes);
        assert_eq!(assigned.files.into_iter().map(Result::ok).collect::<Vec<_>>(), files);
    }

    #[test]
    fn folders_name_classes_and_splits() {
        case(&["b/1.png", "a/1.png"], &["a", "b"], &[Some((1, None)), Some((0, None))]);
        case(&["a/x/y/1.png", "b/1.png"], &["a", "b"], &[Some((0, None)), Some((1, None))]);
        case(
            &["train/a/1.png", "val/b/1.png", "Test/a/1.png"],
            &["a", "b"],
            &[Some((0, Some(Train))), Some((1, Some(Validation))), Some((0, Some(Test)))],
        );
        // One split alone sets nothing apart; a class may be called as a split is.
        case(&["train/a/1.png", "train/b/1.png"], &["a", "b"], &[Some((0, None)), Some((1, None))]);
        case(&["test/a/1.png", "test/b/1.png"], &["a", "b"], &[Some((0, None)), Some((1, None))]);
        case(&["train/1.png", "bus/1.png"], &["bus", "train"], &[Some((1, None)), Some((0, None))]);
        case(&["bullet train/1.png", "bus/1.png"], &["bullet train", "bus"], &[Some((0, None)), Some((1, None))]);
        case(&["bus/1.png", "test tube/x/1.png"], &["bus", "test tube"], &[Some((0, None)), Some((1, None))]);
        // A folder around everything, loose files.
        case(&["set/train/a/1.png", "set/test/b/1.png"], &["a", "b"], &[Some((0, Some(Train))), Some((1, Some(Test)))]);
        case(&["1.png", "a/1.png", "b/2.png"], &["a", "b"], &[None, Some((0, None)), Some((1, None))]);
        case(&["a/1.png"], &["a"], &[Some((0, None))]);
        case(&["a/1.png", "a/more/2.png", "a/yet/3.png"], &["a"], &[Some((0, None)); 3]);
    }

    #[test]
    fn splits_are_words_anywhere_in_a_name() {
        // As Intel's images of scenes come.
        case(
            &[
                "seg_train/seg_train/sea/1",
                "seg_test/seg_test/sea/1",
                "seg_pred/seg_pred/1",
                "seg_train/seg_train/ice/1",
            ],
            &["ice", "sea"],
            &[Some((1, Some(Train))), Some((1, Some(Test))), None, Some((0, Some(Train)))],
        );
        case(
            &["train2017/a/1", "val2017/a/1", "ImagesTest/a/1", "ImagesTest/b/1"],
            &["a", "b"],
            &[Some((0, Some(Train))), Some((0, Some(Validation))), Some((0, Some(Test))), Some((1, Some(Test)))],
        );
        // `train`, `val`, `test` decide, whatever lies beside them.
        case(
            &["chest/test/a/1", "chest/train/a/1", "test/a/1", "train/a/1", "train/b/1"],
            &["a", "b"],
            &[None, None, Some((0, Some(Test))), Some((0, Some(Train))), Some((1, Some(Train)))],
        );
        case(&["models/x.png", "train/a/1", "train/b/1"], &["a", "b"], &[None, Some((0, None)), Some((1, None))]);
        // Splits inside the classes.
        case(
            &["cat/train/1", "cat/test/1", "dog/train/1"],
            &["cat", "dog"],
            &[Some((0, Some(Train))), Some((0, Some(Test))), Some((1, Some(Train)))],
        );
        // Images that lie in no class folder are nowhere, and are told.
        case(&["train/a/1", "train/b/1", "test/1"], &["a", "b"], &[Some((0, None)), Some((1, None)), None]);
    }

    #[test]
    fn folders_that_contradict_the_guess_are_an_error() {
        // `train_masks` is no second `train`, `test1` is the test split where there is no `test`.
        case(
            &["test1/a/1", "train/a/1", "train/b/1", "train_masks/a/1", "train_masks/b/1"],
            &["a", "b"],
            &[Some((0, Some(Test))), Some((0, Some(Train))), Some((1, Some(Train))), None, None],
        );
        for (paths, expected, help) in [
            (
                &["images_test/a/1", "images_train/a/1", "masks_test/a/1", "masks_train/a/1"][..],
                "the folders `images_test`, `masks_test`, each of which could be the test split",
                "call the right one `test`",
            ),
            (
                &["train/a/1", "val/a/1", "valid/a/1"],
                "the folders `val`, `valid`, each of which could be the validation split",
                "call the right one `validation`",
            ),
            (
                &["day1/cat/1", "day1/dog/1", "day2/cat/1", "day2/dog/1"],
                "the folders `day1`, `day2` on top, which hold the same folders again: `cat`, `dog`",
                "call them `train`",
            ),
            (
                &["x/images/cat/1", "x/images/dog/1", "x/masks/1"],
                "a folder `x/images` that would be a class, but has folders of images: `cat`, `dog`",
                "set `source` to its folder `x/images`",
            ),
        ] {
            let error = by_folder(&owned(paths)).unwrap_err();
            assert!(error.message.contains(expected), "{error}");
            assert!(error.help.as_deref().is_some_and(|text| text.contains(help)), "{error:?}");
        }
    }

    #[test]
    fn images_without_folders_are_an_error() {
        for paths in [&["1.png"][..], &["train/1.png", "test/1.png"], &["my_train/1.png", "my_test/1.png"]] {
            let error = by_folder(&owned(paths)).unwrap_err();
            assert!(error.message.contains(&format!("`{}` lies in none", paths[0])), "{error}");
        }
        assert!(by_folder(&[]).is_err());
    }

    #[test]
    fn columns_are_ordered_as_numbers_or_as_names() {
        let column = |names: &[&str]| {
            let mut column = Column::default();
            names.iter().for_each(|name| column.push(name).unwrap());
            column.finish()
        };
        assert_eq!(column(&["10", "9", "10"]), (owned(&["9", "10"]), vec![1, 0, 1]));
        assert_eq!(column(&["10", "9", "x"]), (owned(&["10", "9", "x"]), vec![0, 1, 2]));
        // As pandas writes whole numbers once one is missing.
        assert_eq!(column(&["10.0", "9.0", "10"]), (owned(&["9", "10"]), vec![1, 0, 1]));
        assert_eq!(column(&["1.0", "1.5"]), (owned(&["1.0", "1.5"]), vec![0, 1]));
        assert_eq!(column(&["1", "01"]), (owned(&["01", "1"]), vec![1, 0]));
    }

    #[test]
    fn a_column_that_numbers_the_images_is_no_column_of_classes() {
        let mut column = Column::default();
        let error = (0..70_000).find_map(|i| column.push(&i.to_string()).err()).unwrap();
        assert_eq!(error.message, "the source has more than 65535 labels");
    }
}
