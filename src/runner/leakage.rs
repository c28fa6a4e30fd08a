//! Performs what learns once more, from its records, on a data set whose held-out rows are other ones: whatever was learned
//! must not have moved by a byte. All in scratch: no record, no blob and no lock file is touched.
//!
//! A task is performed with all tasks above it, up to the data set, down from the same rewritten rows. The division of the
//! rows is kept: `split` looks at every label before anything is fitted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use super::Session;
use super::graph::task_name;
use super::perform::{Alone, Job, RepeatError};
use super::plan::{Plan, PlannedTask, State};
use super::reexecute::{FileDifference, difference};
use crate::artifact::{self, Bytes, Files};
use crate::stages::{HeldOut, HeldOutRows, Learns, Output};
use crate::store::fingerprint::Input;
use crate::store::{self, Draft};

/// A task that learns, and which rows are rewritten for it.
#[derive(Clone, Debug)]
pub struct Learner {
    /// What it is called: `cnn, fold 3`.
    pub name: String,
    /// The stage, by name.
    pub stage: String,
    /// Whether it is of a trial of a search.
    pub is_trial: bool,
    /// How many test rows are other ones.
    pub n_test: usize,
    /// How many validation rows of its fold are other ones.
    pub n_validation: usize,
    /// What validation rows do to it ("chooses its epoch"): these stay as they are then.
    pub chosen: Option<&'static str>,
    learns: Learns,
    /// Its place in the plan.
    index: usize,
    rows: Rewriting,
}

/// What became of what a task learned when rows that are held out of it were others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unmoved {
    /// The files that hold what it learned.
    pub fitted: Vec<String>,
    /// Those of them that came out otherwise: what it learned depends on those rows.
    pub moved: Vec<FileDifference>,
    /// The files with what it says of those rows.
    pub says: Vec<String>,
    /// Those of them that stayed what they were: the other rows did not come to it, and nothing is shown.
    pub unreached: Vec<String>,
}

/// Which rows are rewritten: those held out of something, by the `split` tasks above it (by place in the plan).
type Rewriting = (HeldOut, BTreeSet<usize>);

/// The tasks of a plan that learn, performed once more.
pub struct LeakTest<'s, 'p> {
    session: &'s Session<'s>,
    plan: &'p Plan,
    /// By task, the first that is the same, to the last byte that it reads.
    same: Vec<usize>,
    learners: Vec<Learner>,
    other: Option<Other>,
}

/// What was made of rewritten rows.
struct Other {
    rows: Rewriting,
    datasets: BTreeMap<usize, Files>,
    performed: BTreeMap<usize, Draft>,
}

impl Learner {
    /// Where it stands in the plan.
    pub fn place(&self) -> usize {
        self.index
    }
}

impl Session<'_> {
    /// The stages that learn, and which tasks the plan of a leak test has therefore.
    pub fn learning_stages(&self) -> Vec<usize> {
        let nodes = self.graph.nodes.iter().enumerate();
        let learning = nodes.filter(|(stage, node)| {
            matches!(node.flow.output, Output::Fitted | Output::Model | Output::Ensemble)
                && !self.graph.is_template(*stage)
        });
        learning.map(|(stage, _)| stage).collect()
    }

    /// The tasks of `plan` that learn, each fingerprint once.
    ///
    /// # Errors
    /// If a task of the plan is not recorded, or files of a data set or a split are gone or damaged.
    pub fn leak_test<'p>(&self, plan: &'p Plan) -> Result<LeakTest<'_, 'p>, RepeatError> {
        let mut first = BTreeMap::new();
        let mut same = Vec::with_capacity(plan.tasks.len());
        for (index, task) in plan.tasks.iter().enumerate() {
            let fingerprint = task.fingerprint.filter(|_| task.state == State::Fresh).ok_or(RepeatError::Unknown)?;
            same.push(*first.entry(fingerprint).or_insert(index));
        }
        let mut test = LeakTest { session: self, plan, same, learners: Vec::new(), other: None };
        let mut counted: BTreeMap<Rewriting, (usize, usize)> = BTreeMap::new();
        for (index, task) in plan.tasks.iter().enumerate() {
            let node = &plan.graph.nodes[task.stage];
            let Some(learns) = node.stage.learns(task.part).filter(|_| test.same[index] == index) else { continue };
            let rows = (learns.held_out(task.part), test.splits_above(index));
            let (n_test, n_validation) = match counted.get(&rows) {
                Some(&counted) => counted,
                None => {
                    let of_datasets = test.held_out(&rows)?;
                    let sum = |of: &dyn Fn(&HeldOutRows) -> usize| of_datasets.values().map(of).sum::<usize>();
                    let both = (sum(&|rows| rows.test.len()), sum(&|rows| rows.validation.len()));
                    counted.insert(rows.clone(), both);
                    both
                }
            };
            let (name, stage) = (task_name(&node.name, task.part), node.name.clone());
            let is_trial = plan.graph.trial(task.stage).is_some();
            let chosen = learns.chosen;
            test.learners.push(Learner { name, stage, is_trial, n_test, n_validation, chosen, learns, index, rows });
        }
        // Those of the same rows one after the other, each after those above it.
        test.learners.sort_by(|a, b| (&a.rows, a.index).cmp(&(&b.rows, b.index)));
        Ok(test)
    }
}

impl LeakTest<'_, '_> {
    /// The tasks that learn, in the order in which they share most of the work.
    pub fn learners(&self) -> &[Learner] {
        &self.learners
    }

    /// Performs one of the [`learners`](LeakTest::learners), by its place among them, on so many threads; `told` hears how
    /// far it is: so many, of how many, of what, a note. `None`: no row is held out of it.
    ///
    /// # Errors
    /// If a record or an input is gone or damaged, or a task fails, or was told to stop.
    pub fn check(
        &mut self,
        learner: usize,
        threads: usize,
        cancel: &AtomicBool,
        told: &(dyn Fn(u64, u64, &str, &str) + Sync),
    ) -> Result<Option<Unmoved>, RepeatError> {
        let Learner { index, learns, rows, n_test, n_validation, .. } = self.learners[learner].clone();
        if n_test + n_validation == 0 {
            return Ok(None);
        }
        if self.other.as_ref().is_none_or(|other| other.rows != rows) {
            // What was made of other rows is let go first.
            self.other = None;
            self.other = Some(Other { datasets: self.rewritten(&rows)?, rows, performed: BTreeMap::new() });
        }
        let context = Alone { threads, cancel, told };
        for task in self.wanted(index) {
            let draft = self.perform(task, &context)?;
            if let Some(other) = &mut self.other {
                other.performed.insert(task, draft);
            }
        }
        let planned = &self.plan.tasks[index];
        let draft = self.other.as_ref().and_then(|other| other.performed.get(&index)).ok_or(RepeatError::Unknown)?;
        let entry = planned.entry.as_ref().ok_or(RepeatError::Unknown)?;
        let computed = draft.contents()?;
        let names: BTreeSet<&String> = entry.outputs.iter().chain(&computed).map(|output| &output.name).collect();
        let differing: BTreeSet<String> = entry.differing(&computed).into_iter().collect();
        let mut found = Unmoved::default();
        for name in names {
            if learns.fitted.covers(name) {
                found.fitted.push(name.clone());
                if differing.contains(name) {
                    let difference = difference(&self.session.store, entry, draft, &computed, name.clone())?;
                    found.moved.push(difference);
                }
            } else if learns.says.covers(name) {
                found.says.push(name.clone());
                if !differing.contains(name) {
                    found.unreached.push(name.clone());
                }
            }
        }
        Ok(Some(found))
    }

    fn task(&self, index: usize) -> &PlannedTask {
        &self.plan.tasks[index]
    }

    fn output(&self, index: usize) -> Output {
        self.plan.graph.nodes[self.task(index).stage].flow.output
    }

    /// The tasks that a task reads.
    fn above(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        self.task(index).above.iter().map(|&above| self.same[above])
    }

    /// The `split` tasks that a task depends on.
    fn splits_above(&self, index: usize) -> BTreeSet<usize> {
        let (mut seen, mut open) = (BTreeSet::from([index]), vec![index]);
        while let Some(task) = open.pop() {
            open.extend(self.above(task).filter(|&above| seen.insert(above)));
        }
        seen.into_iter().filter(|&task| self.output(task) == Output::Splits).collect()
    }

    /// The rows that are rewritten, by the task that made the data set: those that all of the splits hold out.
    fn held_out(&self, (held_out, splits): &Rewriting) -> Result<BTreeMap<usize, HeldOutRows>, RepeatError> {
        let mut of_datasets: BTreeMap<usize, HeldOutRows> = BTreeMap::new();
        for &split in splits {
            let entry = self.task(split).entry.as_ref().ok_or(RepeatError::Unknown)?;
            let rows = HeldOutRows::of(&self.session.store.open_artifact(entry)?, *held_out).map_err(unreadable)?;
            for dataset in self.above(split).filter(|&above| self.output(above) == Output::Dataset) {
                let both = of_datasets.get(&dataset).map_or_else(|| rows.clone(), |known| known.and(&rows));
                of_datasets.insert(dataset, both);
            }
        }
        Ok(of_datasets)
    }

    fn rewritten(&self, rows: &Rewriting) -> Result<BTreeMap<usize, Files>, RepeatError> {
        let rewrite = |(dataset, rows): (usize, HeldOutRows)| {
            let entry = self.task(dataset).entry.as_ref().ok_or(RepeatError::Unknown)?;
            let files = self.session.store.open_artifact(entry)?;
            Ok((dataset, rows.rewrite(&files).map_err(unreadable)?))
        };
        self.held_out(rows)?.into_iter().map(rewrite).collect()
    }

    /// What has to be performed for a task, itself included, in an order in which it can be.
    fn wanted(&self, index: usize) -> BTreeSet<usize> {
        let Some(other) = &self.other else { return BTreeSet::new() };
        let is_wanted = |task: &usize| {
            !matches!(self.output(*task), Output::Dataset | Output::Splits) && !other.performed.contains_key(task)
        };
        let mut wanted: BTreeSet<usize> = [index].into_iter().filter(&is_wanted).collect();
        let mut open: Vec<usize> = wanted.iter().copied().collect();
        while let Some(task) = open.pop() {
            open.extend(self.above(task).filter(&is_wanted).filter(|&above| wanted.insert(above)));
        }
        wanted
    }

    /// Performs a task on what was made of the rewritten rows.
    fn perform(&self, index: usize, context: &Alone<'_>) -> Result<Draft, RepeatError> {
        let (graph, store) = (&self.plan.graph, &self.session.store);
        let planned = self.task(index);
        let record = planned.fingerprint.and_then(|known| store.task(&known)).ok_or(RepeatError::Unknown)?;
        let mut open = |i: usize, input: &Input| self.open(planned, i, input);
        let job = Job::of(graph.variants.kinds(), &record, &[], &planned.read_names(graph), &mut open)?;
        let mut draft = store.draft()?;
        job.run(&graph.places, context, &mut draft)?;
        Ok(draft)
    }

    /// What a task reads, by its place in the record: as it was made of the rewritten rows, else as it is recorded.
    fn open(&self, planned: &PlannedTask, i: usize, input: &Input) -> Result<Files, store::Error> {
        let (Some(&above), Some(need)) = (planned.above.get(i), planned.needs.get(i)) else {
            return self.session.store.open_named(&input.files);
        };
        let above = self.same[above];
        let other = self.other.as_ref();
        if let Some(draft) = other.and_then(|other| other.performed.get(&above)) {
            let read = draft.names().filter(|name| need.files.covers(name));
            let read = read.map(|name| Ok((name.to_owned(), Bytes::new(draft.read(name)?.unwrap_or_default()))));
            return Ok(Files(read.collect::<Result<_, store::Error>>()?));
        }
        let mut files = self.session.store.open_named(&input.files)?;
        if let Some(dataset) = other.and_then(|other| other.datasets.get(&above)) {
            for (name, bytes) in &mut files.0 {
                if let Some(rewritten) = dataset.0.get(name) {
                    *bytes = rewritten.clone();
                }
            }
        }
        Ok(files)
    }
}

fn unreadable(error: artifact::Error) -> RepeatError {
    RepeatError::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Sink;
    use crate::artifact::dataset::{Names, Numbers};
    use crate::artifact::splits::Splits;
    use crate::config::{Log, Section, Span};
    use crate::data::fit_set::{Partition, Place};
    use crate::manifest::{Manifest, Overrides};
    use crate::runner::{Options, Silent};
    use crate::stages::testing::{self, MemorySink};
    use crate::stages::{self, Context, Flow, Kind, Need, Part, Places, Reads, Stage, StageError, Task, Upstream};
    use crate::store::Access;
    use crate::tensor::ImageShape;

    /// Which rows a stage learns from that it may not.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Leak {
        Test,
        Validation,
        /// What was said of test rows is taken for what was said out of fold.
        Said,
    }

    /// A stage that takes every other one of those rows for training rows.
    #[derive(Debug)]
    struct Leaking {
        inner: Box<dyn Stage>,
        leak: Leak,
    }

    impl Stage for Leaking {
        fn kind(&self) -> &'static str {
            self.inner.kind()
        }

        fn rooms(&self, part: Part, upstream: &Upstream<'_>) -> Vec<&'static str> {
            self.inner.rooms(part, upstream)
        }

        fn feed(&self, rooms: &mut Vec<&'static str>) {
            self.inner.feed(rooms);
        }

        fn check(&self, inputs: &[Flow], span: Span, log: &mut Log) -> Flow {
            self.inner.check(inputs, span, log)
        }

        fn accepts(&self) -> &'static [Output] {
            self.inner.accepts()
        }

        fn takes_members(&self) -> bool {
            self.inner.takes_members()
        }

        fn reads_names(&self) -> bool {
            self.inner.reads_names()
        }

        fn parts(&self, flow: &Flow) -> Vec<Part> {
            self.inner.parts(flow)
        }

        fn needs(&self, part: Part, upstream: &Upstream<'_>) -> Vec<Need> {
            let mut needs = self.inner.needs(part, upstream);
            if self.leak == Leak::Said && part == Part::Calibration {
                needs.iter_mut().filter(|need| need.part != Part::Whole).for_each(|need| need.files = Reads::ALL);
            }
            needs
        }

        fn uses_seed(&self) -> bool {
            self.inner.uses_seed()
        }

        fn reads_key(&self, part: Part, key: &str) -> bool {
            self.inner.reads_key(part, key)
        }

        fn learns(&self, part: Part) -> Option<Learns> {
            self.inner.learns(part)
        }

        fn run(
            &self,
            task: &Task,
            places: &Places,
            context: &dyn Context,
            sink: &mut dyn Sink,
        ) -> Result<(), StageError> {
            let mut inputs = task.inputs.clone();
            if self.leak == Leak::Said {
                for files in
                    inputs.iter_mut().filter(|input| input.output == Output::Model).map(|input| &mut input.files)
                {
                    if let Some(said) = files.0.get("test.safetensors").cloned() {
                        files.0.retain(|name, _| !name.starts_with("validation"));
                        files.0.insert("validation.safetensors".to_owned(), said);
                    }
                }
                return self.inner.run(&Task { part: task.part, seed: task.seed, inputs }, places, context, sink);
            }
            let numbers = Numbers::read(task.input(Output::Dataset))?;
            let own = match task.part {
                Part::Fold(fold) => Place::Fold(fold),
                _ => Place::Fold(1),
            };
            for input in inputs.iter_mut().filter(|input| input.output == Output::Splits) {
                let splits = Splits::read(&input.files)?;
                let mut n = 0;
                let place = |place: &Place| {
                    let leaks = match self.leak {
                        Leak::Test => *place == Place::Test,
                        Leak::Validation => *place == own,
                        Leak::Said => false,
                    };
                    n += usize::from(leaks);
                    if leaks && n % 2 == 1 { Place::Train } else { *place }
                };
                let places = splits.places().iter().map(place).collect();
                let partition = Partition::new(places, splits.folds()).unwrap();
                let mut sink = MemorySink::default();
                let shape = ImageShape { height: 1, width: 1, channels: 1 };
                let (named, _) = testing::dataset(shape, numbers.labels(), &vec![0; numbers.n_samples()]);
                let names = Names::read(&named)?;
                Splits::new(partition, &numbers).write(&numbers, &names, &mut sink).unwrap();
                input.files = sink.files();
            }
            self.inner.run(&Task { part: task.part, seed: task.seed, inputs }, places, context, sink)
        }
    }

    /// The kinds with one that leaks.
    fn kinds(leaking: fn(&mut Section<'_>) -> Box<dyn Stage>, name: &str) -> &'static [Kind] {
        let kinds = stages::KINDS.iter().map(|kind| Kind {
            name: kind.name,
            read: if kind.name == name { leaking } else { kind.read },
            example: kind.example,
        });
        Vec::leak(kinds.collect())
    }

    fn read(kind: &str, section: &mut Section<'_>) -> Box<dyn Stage> {
        (stages::KINDS.iter().find(|known| known.name == kind).unwrap().read)(section)
    }

    const MANIFEST: &str = r#"
schema = 1
seed = 5

[stages.ingest]
source = "builtin:digits"
limit = 120

[stages.split]
test = 0.2
folds = 2

[stages.preprocess]
steps = ["center", "scale"]

[stages.reduce]
method = { pca = { components = 12, whiten = true } }

[stages.train]
architecture = "INPUT - FC(16) - RELU - FC"
epochs = 1

[stages.early]
kind = "train"
input = "reduce"
architecture = "INPUT - FC(16) - RELU - FC"
epochs = 2
final = "refit"
early_stopping = { patience = 1 }

[stages.stacked]
kind = "ensemble"
members = ["train", "early"]
combine = "stacking"
"#;

    /// The fitted files that moved, with their tasks, and how many tasks some rows are held out of.
    fn moved(text: &str, kinds: &'static [Kind]) -> (Vec<(String, String)>, usize) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("leak.toml");
        let manifest = Manifest::from_bytes(&path, text.as_bytes(), &Overrides::default(), kinds);
        let manifest = manifest.unwrap_or_else(|problems| panic!("{problems}"));
        let session = Session::open(&manifest, None, Some(&temp.path().join("store")), Access::Write).unwrap();
        let cancel = AtomicBool::new(false);
        let options = Options { targets: Some(session.learning_stages()), ..Options::new(2, &cancel) };
        let outcome = session.run(&options, &Silent).unwrap();
        let failures: Vec<_> = outcome.failures().map(|(task, failure)| (&task.name, failure)).collect();
        assert!(outcome.is_complete() && failures.is_empty(), "{failures:?}");
        let plan = session.plan(&options).unwrap();
        let mut test = session.leak_test(&plan).unwrap();
        let (mut moved, mut n) = (Vec::new(), 0);
        for i in 0..test.learners().len() {
            let learner = test.learners()[i].clone();
            let Some(found) = test.check(i, 2, &cancel, &|_, _, _, _| ()).unwrap() else { continue };
            assert!(!found.fitted.is_empty(), "{}", learner.name);
            assert_eq!(found.unreached, [""; 0], "{}", learner.name);
            n += 1;
            moved.extend(found.moved.iter().map(|moved| (learner.name.clone(), moved.file.clone())));
        }
        (moved, n)
    }

    #[test]
    fn what_does_not_leak_does_not_move() {
        let (moved, n) = moved(MANIFEST, stages::KINDS);
        assert_eq!(moved, []);
        // Two folds and all of `preprocess` and of `reduce`; two folds of `train`, with its checks, which are those of
        // `early`; two folds and all of that; the weights.
        assert_eq!(n, 3 + 3 + 3 + 3 + 1);
    }

    const CALIBRATED: &str = r#"
schema = 1
seed = 5

[stages.ingest]
source = "builtin:digits"
limit = 120

[stages.split]
test = 0.2
folds = 2

[stages.train]
architecture = "INPUT - FC"
sanity = false
epochs = 1
calibrate = "temperature"
abstain = { error = 0.5 }

[stages.viewed]
kind = "train"
input = "split"
architecture = "INPUT - FC"
sanity = false
epochs = 1
final = "refit"
predict = [{ shift = 1 }]
calibrate = "temperature"

[stages.both]
kind = "ensemble"
members = ["train", "viewed"]
calibrate = "temperature"
abstain = { error = 0.5 }
"#;

    #[test]
    fn temperatures_and_thresholds_are_moved_by_no_test_row_and_a_planted_leak_is_found() {
        let (found, n) = moved(CALIBRATED, stages::KINDS);
        // The folds of the first, which the second has as well, all rows, two calibrations, and the ensemble.
        assert_eq!((found, n), (Vec::new(), 2 + 1 + 2 + 1));
        let file = || "calibration.json".to_owned();
        let train =
            |s: &mut Section<'_>| -> Box<dyn Stage> { Box::new(Leaking { inner: read("train", s), leak: Leak::Said }) };
        let (found, _) = moved(CALIBRATED, kinds(train, "train"));
        let expected = ["train, calibration", "viewed, calibration", "both"].map(|task| (task.to_owned(), file()));
        let found: BTreeSet<(String, String)> = found.into_iter().collect();
        assert!(found.is_superset(&expected[..1].iter().cloned().collect()), "{found:?}");
        assert!(found.contains(&expected[1]), "{found:?}");
        let ensemble = |s: &mut Section<'_>| -> Box<dyn Stage> {
            Box::new(Leaking { inner: read("ensemble", s), leak: Leak::Said })
        };
        let (found, _) = moved(CALIBRATED, kinds(ensemble, "ensemble"));
        assert_eq!(found, [expected[2].clone()]);
    }

    #[test]
    fn a_planted_leak_is_found_by_task_and_file() {
        let leaking =
            |kind: &'static str, leak: fn(&mut Section<'_>) -> Box<dyn Stage>| moved(MANIFEST, kinds(leak, kind)).0;
        let has = |moved: &[(String, String)], task: &str, file: &str| {
            assert!(moved.iter().any(|(name, of)| name == task && of == file), "no `{file}` of {task} in {moved:?}");
        };
        for (leak, of_all) in [
            (leaking("preprocess", |s| Box::new(Leaking { inner: read("preprocess", s), leak: Leak::Test })), true),
            (
                leaking("preprocess", |s| Box::new(Leaking { inner: read("preprocess", s), leak: Leak::Validation })),
                false,
            ),
        ] {
            has(&leak, "preprocess, fold 1", "transform.safetensors");
            has(&leak, "preprocess, fold 2", "transform.safetensors");
            // It goes on below.
            has(&leak, "train, fold 2", "weights.safetensors");
            assert_eq!(leak.iter().any(|(name, _)| name == "preprocess, all"), of_all, "{leak:?}");
        }
        let moved = leaking("reduce", |s| Box::new(Leaking { inner: read("reduce", s), leak: Leak::Test }));
        has(&moved, "reduce, fold 1", "projection.safetensors");
        assert!(moved.iter().all(|(name, _)| !name.starts_with("preprocess")), "{moved:?}");
        let moved = leaking("train", |s| Box::new(Leaking { inner: read("train", s), leak: Leak::Validation }));
        has(&moved, "train, fold 1", "weights.safetensors");
        // Where they choose the epoch they are not held out.
        assert!(moved.iter().all(|(name, _)| !name.starts_with("early")), "{moved:?}");
        let moved = leaking("train", |s| Box::new(Leaking { inner: read("train", s), leak: Leak::Test }));
        has(&moved, "early, fold 2", "weights.safetensors");
        has(&moved, "early, all", "weights.safetensors");
        has(&moved, "stacked", "stacking.safetensors");
    }
}
