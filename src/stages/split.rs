//! `split`: a held-out test split, then folds.

use std::collections::BTreeMap;

use super::{
    Context, Flow, Glance, Kind, Learns, Need, Output, Part, Places, Stage, StageError, Task, Tried, Upstream, lineage,
};
use crate::artifact::Sink;
use crate::artifact::dataset::{NAMES_FILES, Numbers};
use crate::artifact::splits::Splits;
use crate::config::{
    Bounds, Form, Log, Problem, Section, Span, Value, as_number, canonical_float, positive_zero, quote,
};
use crate::data::fit_set::Place;
use crate::data::reader::GivenSplit;
use crate::data::split::{Divisible, Share, SplitPlan, share_warning};
use crate::rng::Stream;

/// The line in the list.
pub const KIND: Kind = Kind {
    name: "split",
    read,
    example: "schema = 1\nname = \"example\"\n\n[stages.ingest]\nsource = \"builtin:digits\"\n\n\
              [stages.split]\ntest = 0.2\nfolds = 5\n",
};

/// Share that is held out where nothing else is said.
const DEFAULT_SHARE: f64 = 0.2;

/// Divides the samples into a test split and folds.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// What is held out: a share of the images from 0 (nothing) up to 1, or "given", the data set's own test split.
    /// Default: "given" where the data set has one, else 0.2.
    test: Option<Share>,
    /// Number of folds of cross-validation; 1 is a single train/validation split. Default 5.
    folds: u32,
    /// With `folds = 1`, what is validated on: a share of the images outside the test split, or "given". Default:
    /// "given" where the data set has one, else 0.2.
    validation: Option<Share>,
    /// Whether each split gets its share of each class. Default true.
    stratify: bool,
    /// Whether images are dealt out in random order; else in the data set's order, the test split from the end. Default
    /// true.
    shuffle: bool,
    /// Keeps images of one group together: the column of the data set's index that names the group, "group".
    group: bool,
    seed: Option<u64>,
}

fn read(section: &mut Section<'_>) -> Box<dyn Stage> {
    let meaning = "Share of the images that is held out, or the data set's own split; absent: that, else 0.2.";
    let test = read_share(section, "test", meaning, Bounds::Rate);
    // Who says what is validated on means one split.
    let default = if section.has("validation") { 1 } else { 5 };
    let folds = section
        .key("folds", "Folds of cross-validation; 1 is a single train/validation split.", "10")
        .whole(1..=1000)
        .or(default) as u32;
    let meaning = "What is validated on, of the images outside the test split, in a single split (`folds = 1`); absent: as `test`.";
    let mut validation = None;
    if folds == 1 || section.is_described() {
        validation = read_share(section, "validation", meaning, Bounds::Open);
    } else if let Some(node) = section.key("validation", meaning, "0.1").form(None, || Form::Anything) {
        let message = format!("`validation` has no meaning with {folds} folds, each of which is validated on in turn");
        section.log().push(Problem::error(node.span, message).help("set `folds = 1`, or leave out `validation`"));
    }
    Box::new(Split {
        test,
        folds,
        validation,
        stratify: section.key("stratify", "Whether each split gets its share of each class.", "false").flag(true),
        shuffle: section
            .key("shuffle", "Whether images are dealt out in random order, else in the data set's.", "false")
            .flag(true),
        group: read_group(section),
        seed: super::read_seed(section),
    })
}

/// A share, "given", or nothing.
fn read_share(section: &mut Section<'_>, key: &'static str, meaning: &'static str, bounds: Bounds) -> Option<Share> {
    let form = || {
        let given = ("given".to_owned(), "The data set's own split.");
        Form::Either(vec![Form::Number(bounds), Form::Words(vec![given])])
    };
    let node = section.key(key, meaning, "0.1").form(None, form)?;
    match (&node.value, as_number(&node.value).map(positive_zero)) {
        (Value::Text { text, .. }, _) if text == "given" => {
            section.record(key, quote("given"), Some(node.span));
            Some(Share::Given)
        }
        (_, Some(x)) if bounds.holds(x) => {
            section.record(key, canonical_float(x), Some(node.span));
            Some(Share::Fraction(x))
        }
        _ => {
            // Nothing may be held out for the test, but validating on nothing would leave nothing to report.
            section.expected_number(key, node, format_args!("{bounds}, or `given`"), &|x| bounds.holds(x));
            section.advise(key, format!("write a share, such as `{key} = {DEFAULT_SHARE}`"));
            None
        }
    }
}

/// Whether a group column is named.
fn read_group(section: &mut Section<'_>) -> bool {
    let column = ("group".to_owned(), "The column of that name.");
    let meaning = "The column of the data set's index whose groups are kept together.";
    let Some(node) = section.key("group", meaning, "\"group\"").form(None, || Form::Words(vec![column])) else {
        return false;
    };
    match &node.value {
        Value::Text { text, .. } if text == "group" => {
            section.record("group", quote(text), Some(node.span));
            true
        }
        _ => {
            section.expected("group", node, "`group`, the column of the data set's index that names groups");
            false
        }
    }
}

impl Stage for Split {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn rooms(&self, _part: Part, _upstream: &Upstream<'_>) -> Vec<&'static str> {
        vec![KIND.name]
    }

    fn accepts(&self) -> &'static [Output] {
        &[Output::Dataset]
    }

    fn check(&self, inputs: &[Flow], span: Span, log: &mut Log) -> Flow {
        let input = &inputs[0];
        if let Some(given) = input.given {
            let missing = |log: &mut Log, key: &str| {
                let message = format!("`{key}` is \"given\", but the data set has no {key} split of its own");
                let problem = Problem::error(log.span_of(key, span), message);
                log.push(problem.help(format!("set `{key}` to a fraction such as {DEFAULT_SHARE}")));
            };
            if self.test == Some(Share::Given) && !given.test {
                missing(log, "test");
            }
            if self.validation == Some(Share::Given) && !given.validation {
                missing(log, "validation");
            }
        }
        if let Some(n) = input.n_samples
            && n < self.folds as usize
        {
            let problem =
                Problem::error(log.span_of("folds", span), format!("cannot make {} folds from {n} images", self.folds));
            log.push(problem.help(format!("set `folds` to at most {n}")));
        }
        // What is known before the rows are: shares of a hundred thousand images stand for any.
        let share = match (self.folds, self.validation) {
            (1, Some(Share::Fraction(x))) => Some(1.0 - x),
            (1, _) => None,
            (folds, _) => Some(1.0 - 1.0 / f64::from(folds)),
        };
        if let Some(share) = share
            && let Some(message) = share_warning((share * 1e5).round() as usize, 100_000)
        {
            let key = if self.folds == 1 { "validation" } else { "folds" };
            let help = if share < 0.5 { "use a larger share for training" } else { "5 folds train on 80 %" };
            log.push(Problem::warning(log.span_of(key, span), message).help(help));
        }
        Flow {
            output: Output::Splits,
            folds: self.folds,
            has_test: self.test != Some(Share::Fraction(0.0)),
            ..input.clone()
        }
    }

    fn try_on(&self, above: Option<&Flow>, glance: Option<&Glance>, seed: u64) -> Result<Tried, StageError> {
        let Some(glance) = glance else {
            // Which splits it has is known of a data set of the catalogue.
            let given = above.and_then(|above| above.given).unwrap_or_default();
            let marked = [given.test.then_some(GivenSplit::Test), given.validation.then_some(GivenSplit::Validation)];
            let unused =
                unused_splits(&self.plan(&marked), [given.test.then_some(None), given.validation.then_some(None)]);
            return Ok(Tried { warnings: unused, n_training: None });
        };
        if self.group && glance.groups.iter().all(Option::is_none) {
            return Err(no_groups());
        }
        let groups = self.group.then_some(&glance.groups[..]);
        let plan = self.plan(&glance.given);
        let data = Divisible { labels: &glance.labels, classes: &glance.classes, groups, marked: &glance.given };
        let division = plan.divide(&data, &Stream::new(self.seed.unwrap_or(seed), "split", &[]))?;
        let places = division.partition.places();
        let training =
            |fold: u32| places.iter().filter(|&&place| place != Place::Test && place != Place::Fold(fold)).count();
        let mut warnings: Vec<StageError> = division.warnings.into_iter().map(StageError::new).collect();
        warnings.extend(unused_splits(&plan, marked_splits(&glance.given)));
        warnings.extend(unused_groups(places, &glance.groups).filter(|_| !self.group));
        Ok(Tried { warnings, n_training: (1..=self.folds).map(training).min() })
    }

    fn parts(&self, _flow: &Flow) -> Vec<Part> {
        vec![Part::Whole]
    }

    fn needs(&self, part: Part, upstream: &Upstream<'_>) -> Vec<Need> {
        debug_assert_eq!(part, Part::Whole);
        lineage::dataset_need(upstream, NAMES_FILES).into_iter().collect()
    }

    fn uses_seed(&self) -> bool {
        self.shuffle
    }

    fn own_seed(&self) -> Option<u64> {
        self.seed
    }

    fn learns(&self, _part: Part) -> Option<Learns> {
        // It looks at all labels before anything is fitted, and hands on no number but rows.
        None
    }

    fn run(&self, task: &Task, _: &Places, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
        let (dataset, names) = (lineage::numbers(task)?, lineage::names(task)?);
        let groups = if self.group { Some(groups(&dataset)?) } else { None };
        let given: Vec<Option<GivenSplit>> = (0..dataset.n_samples()).map(|i| dataset.given(i)).collect();
        let plan = self.plan(&given);
        let divisible =
            Divisible { labels: dataset.labels(), classes: names.classes(), groups: groups.as_deref(), marked: &given };
        let division = plan.divide(&divisible, &Stream::new(task.seed, "split", &[]))?;
        for warning in &division.warnings {
            context.warn(warning);
        }
        let splits = Splits::new(division.partition, &dataset);
        warn_of_share(self, &splits, context);
        warn_of_duplicates(&splits, context);
        warn_of_unused(&plan, &dataset, &given, self.group, &splits, context);
        splits.write(&dataset, &names, sink)?;
        Ok(())
    }
}

impl Split {
    /// The plan for a data set that marks `given` itself.
    fn plan(&self, given: &[Option<GivenSplit>]) -> SplitPlan {
        let automatic = |share: Option<Share>, marked: GivenSplit| match share {
            Some(share) => share,
            None if given.contains(&Some(marked)) => Share::Given,
            None => Share::Fraction(DEFAULT_SHARE),
        };
        SplitPlan {
            test: automatic(self.test, GivenSplit::Test),
            folds: self.folds,
            validation: automatic(self.validation, GivenSplit::Validation),
            stratify: self.stratify,
            shuffle: self.shuffle,
        }
    }
}

/// The group of each sample, numbered in order of first appearance.
fn groups(dataset: &Numbers) -> Result<Vec<Option<u32>>, StageError> {
    if !dataset.has_groups() {
        return Err(no_groups());
    }
    Ok(dataset.groups().to_vec())
}

fn no_groups() -> StageError {
    StageError::new("`group` is set, but the data set's index has no groups")
        .key("group")
        .help("add a column `group` to the data set, or leave out `group`")
}

/// Warns of an unusual share of training rows where `check` could not know it.
fn warn_of_share(split: &Split, splits: &Splits, context: &dyn Context) {
    let summary = splits.summary();
    let is_known = split.folds > 1 || matches!(split.validation, Some(Share::Fraction(_)));
    if !is_known && let Some(warning) = share_warning(summary.n_train, summary.n_samples - summary.n_test) {
        context.warn(&warning);
    }
}

/// Images in a data set's own test split and in its own validation split, where it has them.
fn marked_splits(given: &[Option<GivenSplit>]) -> [Option<Option<usize>>; 2] {
    [GivenSplit::Test, GivenSplit::Validation].map(|split| {
        let n = given.iter().filter(|own| **own == Some(split)).count();
        (n > 0).then_some(Some(n))
    })
}

/// What to say of the data set's own splits (test, validation; each with its number of images, if that is known) that the
/// plan does not use.
fn unused_splits(plan: &SplitPlan, [test, validation]: [Option<Option<usize>>; 2]) -> Vec<StageError> {
    let images = |n: Option<usize>| match n {
        None => String::new(),
        Some(1) => " 1 image,".to_owned(),
        Some(n) => format!(" {n} images,"),
    };
    let mut unused = Vec::new();
    if let Some(n) = test.filter(|_| plan.test != Share::Given) {
        let message = format!("the data set has a test split of its own,{} which `test` overrides", images(n));
        let help = "leave `test` out or write `test = \"given\"`";
        unused.push(StageError::new(message).key("test").help(help));
    }
    if let Some(n) = validation.filter(|_| plan.folds > 1 || plan.validation != Share::Given) {
        let message = format!(
            "the data set has a validation split of its own,{} which is mixed with the training images",
            images(n)
        );
        unused.push(StageError::new(message).help(match plan.folds {
            1 => "leave `validation` out or write `validation = \"given\"`",
            _ => "write `folds = 1`",
        }));
    }
    unused
}

/// Warns of what the data set itself says (splits, groups) and the manifest does not use.
fn warn_of_unused(
    plan: &SplitPlan,
    dataset: &Numbers,
    given: &[Option<GivenSplit>],
    uses_groups: bool,
    splits: &Splits,
    context: &dyn Context,
) {
    for unused in unused_splits(plan, marked_splits(given)) {
        let help = unused.help.map_or(String::new(), |help| format!(": to use it, {help}"));
        context.warn(&format!("{}{help}", unused.message));
    }
    if !uses_groups && let Some(unused) = unused_groups(splits.places(), dataset.groups()) {
        let help = unused.help.map_or(String::new(), |help| format!("; {help}"));
        context.warn(&format!("{}{help}", unused.message));
    }
}

/// What to say of the data set's groups if they cross splits.
fn unused_groups(places: &[Place], groups: &[Option<u32>]) -> Option<StageError> {
    let mut crossing: BTreeMap<u32, (bool, bool, Option<Place>, bool)> = BTreeMap::new();
    for (place, group) in places.iter().zip(groups) {
        let Some(group) = *group else { continue };
        let (in_test, outside, first, across) = crossing.entry(group).or_default();
        match place {
            Place::Test => *in_test = true,
            other => {
                *outside = true;
                *across |= first.get_or_insert(*other) != other;
            }
        }
    }
    let n_test = crossing.values().filter(|(in_test, outside, ..)| *in_test && *outside).count();
    let n_folds = crossing.values().filter(|(.., across)| *across).count();
    (n_test + n_folds > 0).then(|| {
        let message = format!(
            "of {} groups of the data set {n_test} have images inside and outside the test split, and {n_folds} in several \
             folds: scores will be too good",
            crossing.len()
        );
        StageError::new(message).help("set `group = \"group\"`")
    })
}

fn warn_of_duplicates(splits: &Splits, context: &dyn Context) {
    let duplicates = splits.summary().duplicates;
    let images = |n: usize| if n == 1 { "image is".to_owned() } else { "images are".to_owned() };
    if duplicates.test_and_training > 0 {
        let n = duplicates.test_and_training;
        context.warn(&format!(
            "{n} test {} pixel for pixel outside the test split, too: test scores will be too good (see `data.csv`, \
             column `duplicate_of`)",
            images(n)
        ));
    }
    if duplicates.across_folds > 0 {
        let n = duplicates.across_folds;
        context.warn(&format!(
            "{n} {} pixel for pixel in two folds: validation scores will be too good (see `data.csv`, column \
             `duplicate_of`)",
            images(n)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::splits::TABLE;
    use crate::config::{Entry, Node, Table};
    use crate::stages::testing::{self, TestContext};
    use crate::stages::{Delivered, Given};
    use crate::tensor::ImageShape;

    fn table(keys: &[(&str, Value)]) -> Table {
        let entry = |(key, value): &(&str, Value)| Entry {
            key: (*key).to_owned(),
            key_span: Span::default(),
            node: Node { value: value.clone(), span: Span::default() },
        };
        Table { entries: keys.iter().map(entry).collect() }
    }

    fn text(text: &str) -> Value {
        Value::Text { text: text.to_owned(), inner: None }
    }

    fn flow() -> Flow {
        Flow {
            output: Output::Dataset,
            shape: None,
            n_classes: None,
            n_samples: None,
            given: None,
            folds: 0,
            has_test: false,
            refit: false,
            models: 1,
            has_views: false,
            has_temperature: false,
            abstains: false,
        }
    }

    /// What reading and checking these keys says.
    #[track_caller]
    fn check(keys: &[(&str, Value)], input: Flow, expected: &[&str]) -> Flow {
        let (stage, mut log) = testing::read(KIND.read, &table(keys));
        let out = stage.check(&[input], Span::default(), &mut log);
        let said: Vec<&str> = log.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(said, expected);
        out
    }

    #[test]
    fn keys_are_checked() {
        let out = check(&[], flow(), &[]);
        assert_eq!((out.folds, out.has_test), (5, true));
        let out = check(&[("test", Value::Integer(0)), ("folds", Value::Integer(10))], flow(), &[]);
        assert_eq!((out.folds, out.has_test), (10, false));
        let share = ["`test` expects a number from 0 up to, not including, 1, or `given`, got `1`"];
        check(&[("test", Value::Integer(1))], flow(), &share);
        let share = ["`validation` expects a number above 0, below 1, or `given`, got `0.0`"];
        check(&[("folds", Value::Integer(1)), ("validation", Value::Float(0.0))], flow(), &share);
        let folds = ["`validation` has no meaning with 5 folds, each of which is validated on in turn"];
        check(&[("folds", Value::Integer(5)), ("validation", Value::Float(0.1))], flow(), &folds);
        // Who says what is validated on means one split.
        assert_eq!(check(&[("validation", Value::Float(0.1))], flow(), &[]).folds, 1);
        check(
            &[("group", text("patient"))],
            flow(),
            &[
                "`group` expects `group`, the column of the data set's index that names groups, got the string `patient`",
            ],
        );
        let usual = ["50 % of the images outside the test split are trained on, 70 to 90 % is usual"];
        check(&[("folds", Value::Integer(2))], flow(), &usual);
        check(&[("folds", Value::Integer(1)), ("validation", Value::Float(0.5))], flow(), &usual);
    }

    #[test]
    fn what_is_known_of_the_data_set_is_used() {
        let known = Flow { n_samples: Some(5), given: Some(Given::default()), ..flow() };
        check(&[("folds", Value::Integer(7))], known.clone(), &["cannot make 7 folds from 5 images"]);
        let given = ["`test` is \"given\", but the data set has no test split of its own"];
        check(&[("test", text("given"))], known, &given);
    }

    fn run(keys: &[(&str, Value)], labels: &[u32]) -> (Result<Splits, StageError>, Vec<String>, String) {
        let shape = ImageShape { height: 1, width: 1, channels: 1 };
        let pixels: Vec<u8> = (0..labels.len()).map(|i| (i % 250) as u8).collect();
        let (files, _) = testing::dataset(shape, labels, &pixels);
        let (stage, log) = testing::read(KIND.read, &table(keys));
        assert_eq!(log.problems, []);
        let inputs = vec![Delivered {
            from: 0,
            part: Part::Whole,
            stage_name: "ingest".to_owned(),
            output: Output::Dataset,
            files,
        }];
        let context = TestContext::default();
        let files = testing::run(stage.as_ref(), Part::Whole, inputs, &Places::default(), &context);
        let warnings = context.warnings.lock().unwrap().clone();
        match files {
            Ok(files) => {
                let table = String::from_utf8(files.get(TABLE).unwrap().to_vec()).unwrap();
                (Ok(Splits::read(&files).unwrap()), warnings, table)
            }
            Err(error) => (Err(error), warnings, String::new()),
        }
    }

    #[test]
    fn a_split_is_the_same_twice_and_differs_by_seed() {
        let labels: Vec<u32> = (0..100).map(|i| i % 3).collect();
        let (first, warnings, table) = run(&[], &labels);
        let first = first.unwrap();
        assert_eq!((first.summary().n_test, warnings.len()), (20, 0));
        assert_eq!(table.lines().count(), 101);
        assert_eq!(run(&[], &labels).0.unwrap(), first);
        let unshuffled = run(&[("shuffle", Value::Boolean(false))], &labels).0.unwrap();
        assert_ne!(unshuffled.places(), first.places());
        assert_eq!(unshuffled.places()[99], Place::Test);
    }

    #[test]
    fn duplicates_across_splits_are_warned_about() {
        // 300 images of 250 values: 50 of them twice.
        let labels: Vec<u32> = (0..300).map(|i| i % 2).collect();
        let (splits, warnings, _) = run(&[], &labels);
        let duplicates = splits.unwrap().summary().duplicates;
        assert!(duplicates.test_and_training > 0 && duplicates.across_folds > 0, "{duplicates:?}");
        let n = duplicates.test_and_training;
        assert!(warnings[0].starts_with(&format!("{n} test images are pixel for pixel")), "{warnings:?}");
        assert_eq!(warnings.len(), 2);
    }

    #[test]
    fn seven_folds_on_five_images_is_an_error_with_a_remedy() {
        let error = run(&[("folds", Value::Integer(7))], &[0, 1, 0, 1, 0]).0.unwrap_err();
        assert_eq!(error.message, "cannot make 7 folds from 4 images outside the test split");
        assert_eq!(error.key.as_deref(), Some("folds"));
        assert_eq!(error.help.as_deref(), Some("set `folds` to at most 4, or add images"));
        let error = run(&[("test", text("given"))], &[0, 1]).0.unwrap_err();
        assert_eq!(error.key.as_deref(), Some("test"));
        let error = run(&[("group", text("group"))], &[0, 1]).0.unwrap_err();
        assert_eq!(error.key.as_deref(), Some("group"));
    }
}
