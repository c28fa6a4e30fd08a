//! Six toy kinds of stage and a project to run them in: what the tests of the runner stand on.
#![allow(dead_code, reason = "each test file uses its part of it")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use convoy::artifact::Sink;
use convoy::config::{Log, Section, Span};
use convoy::manifest::{Manifest, Overrides};
use convoy::runner::{Events, Options, Outcome, Plan, RunError, Session, Silent};
use convoy::stages::{
    Context, Flow, Kind, Learns, Need, Output, Part, Places, Price, Reads, Source, Stage, StageError, Task, Upstream,
};
use convoy::store::Access;

/// A stage that writes down what it reads.
#[derive(Debug)]
struct Toy {
    kind: &'static str,
    revision: u32,
    /// Goes into the output.
    a: u64,
    /// Goes into the output divided by ten: small changes are cut off.
    coarse: u64,
    /// Milliseconds that a task takes.
    sleep: u64,
    folds: u32,
    is_refit: bool,
    path: Option<PathBuf>,
    fail: Option<u64>,
    panic: Option<u64>,
    /// Bytes that the output is filled up with.
    size: u64,
    seed: Option<u64>,
    /// Memory that a task says that it takes, in MiB.
    takes: u64,
    /// Warns so many times, each fold of something that all say and of something of its own.
    warn: u64,
}

fn read(kind: &'static str, revision: u32, s: &mut Section<'_>) -> Box<dyn Stage> {
    let mut toy = Toy {
        kind,
        revision,
        a: s.key("a", "A number.", "1").whole(0..=1_000_000).or(0),
        coarse: s.key("coarse", "A number.", "1").whole(0..=1_000_000).or(0),
        sleep: s.key("sleep", "A number.", "1").whole(0..=60_000).or(0),
        folds: 0,
        is_refit: false,
        path: None,
        fail: None,
        panic: None,
        size: s.key("size", "A number.", "1").whole(0..=1 << 32).or(0),
        seed: None,
        takes: 0,
        warn: 0,
    };
    match kind {
        "gather" => toy.path = s.key("path", "A place.", "\"x\"").place(false).map(|(path, _)| PathBuf::from(path)),
        "cut" => toy.folds = s.key("folds", "A number.", "1").whole(1..=20).or(2) as u32,
        "learn" => {
            toy.is_refit = s.key("refit", "Yes or no.", "true").flag(false);
            toy.fail = s.key("fail", "A number.", "1").whole(1..=20).optional();
            toy.panic = s.key("panic", "A number.", "1").whole(1..=20).optional();
            toy.takes = s.key("takes", "A number.", "1").whole(0..=1_000_000).optional().unwrap_or(0);
            toy.warn = s.key("warn", "A number.", "1").whole(0..=20).optional().unwrap_or(0);
            toy.seed = s.key("seed", "A number.", "1").whole(0..=1_000_000).optional();
        }
        _ => {}
    }
    Box::new(toy)
}

/// Every toy, in the order of a pipeline.
pub const KINDS: &[Kind] = &[
    Kind { name: "gather", read: |s| read("gather", 1, s), example: "" },
    Kind { name: "cut", read: |s| read("cut", 1, s), example: "" },
    Kind { name: "fit", read: |s| read("fit", 1, s), example: "" },
    Kind { name: "learn", read: |s| read("learn", 1, s), example: "" },
    Kind { name: "join", read: |s| read("join", 1, s), example: "" },
    Kind { name: "score", read: |s| read("score", 1, s), example: "" },
];

/// The same, with a `fit` that computes differently.
pub const NEXT_KINDS: &[Kind] = &[
    Kind { name: "gather", read: |s| read("gather", 1, s), example: "" },
    Kind { name: "cut", read: |s| read("cut", 1, s), example: "" },
    Kind { name: "fit", read: |s| read("fit", 2, s), example: "" },
    Kind { name: "learn", read: |s| read("learn", 1, s), example: "" },
    Kind { name: "join", read: |s| read("join", 1, s), example: "" },
    Kind { name: "score", read: |s| read("score", 1, s), example: "" },
];

impl Stage for Toy {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn rooms(&self, _part: Part, _upstream: &Upstream<'_>) -> Vec<&'static str> {
        Vec::new()
    }

    fn revisions(&self, _part: Part, _upstream: &Upstream<'_>) -> Vec<(String, u32)> {
        vec![(self.kind.to_owned(), self.revision)]
    }

    fn check(&self, inputs: &[Flow], _span: Span, _log: &mut Log) -> Flow {
        let output = match self.kind {
            "gather" => Output::Dataset,
            "cut" => Output::Splits,
            "fit" => Output::Fitted,
            "learn" => Output::Model,
            "join" => Output::Ensemble,
            _ => Output::Evaluation,
        };
        let folds = if self.kind == "cut" { self.folds } else { inputs.first().map_or(0, |flow| flow.folds) };
        Flow {
            output,
            shape: None,
            n_classes: None,
            n_samples: None,
            given: None,
            folds,
            has_test: true,
            refit: self.is_refit,
            models: 1,
        }
    }

    fn accepts(&self) -> &'static [Output] {
        match self.kind {
            "gather" => &[],
            "cut" => &[Output::Dataset],
            "fit" | "learn" => &[Output::Splits, Output::Fitted],
            "join" => &[Output::Model],
            _ => &[Output::Model, Output::Ensemble],
        }
    }

    fn takes_members(&self) -> bool {
        self.kind == "join"
    }

    fn parts(&self, flow: &Flow) -> Vec<Part> {
        match self.kind {
            "fit" => (1..=flow.folds).map(Part::Fold).collect(),
            "learn" => (1..=flow.folds).map(Part::Fold).chain(self.is_refit.then_some(Part::All)).collect(),
            _ => vec![Part::Whole],
        }
    }

    fn needs(&self, part: Part, upstream: &Upstream<'_>) -> Vec<Need> {
        let node = &upstream.nodes[upstream.own];
        let mut needs = Vec::new();
        match self.kind {
            "fit" | "learn" => {
                for stage in upstream.own_lineage() {
                    let is_whole = matches!(upstream.nodes[stage].flow.output, Output::Dataset | Output::Splits);
                    needs.push(Need { stage, part: if is_whole { Part::Whole } else { part }, files: Reads::ALL });
                }
                if self.kind == "learn" && part == Part::All {
                    // A refit asks its folds how long to train.
                    let of_fold = |f| Need { stage: upstream.own, part: Part::Fold(f), files: Reads::ALL };
                    needs.extend((1..=node.flow.folds).map(of_fold));
                }
            }
            _ => {
                for &stage in &node.inputs {
                    let above = &upstream.nodes[stage];
                    let parts = above.stage.parts(&above.flow).into_iter();
                    needs.extend(parts.map(|part| Need { stage, part, files: Reads::ALL }));
                }
            }
        }
        needs
    }

    fn sources(&self, places: &Places) -> Result<Vec<Source>, StageError> {
        let Some(path) = &self.path else { return Ok(Vec::new()) };
        let path = places.resolve(path);
        if path.is_dir() {
            return Ok(vec![Source::Folder { role: "images".into(), path }]);
        }
        if !path.exists() {
            return Err(StageError::new("there is no data").key("path"));
        }
        Ok(vec![Source::File { role: "images".into(), path }])
    }

    fn price(&self, _: Option<&Flow>, _: u64) -> Price {
        Price { bytes: self.takes << 20, per_thread: 0 }
    }

    fn uses_seed(&self) -> bool {
        matches!(self.kind, "cut" | "learn")
    }

    fn reads_names(&self) -> bool {
        self.kind == "score"
    }

    fn own_seed(&self) -> Option<u64> {
        self.seed
    }

    fn learns(&self, _part: Part) -> Option<Learns> {
        None
    }

    fn run(&self, task: &Task, places: &Places, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
        let fold = match task.part {
            Part::Fold(fold) => u64::from(fold),
            Part::Whole | Part::All | Part::Round(_) | Part::Sanity | Part::Pictures | Part::Suspects => 0,
        };
        if self.fail == Some(fold) {
            return Err(StageError::new("loss is not finite").key("a"));
        }
        assert_ne!(self.panic, Some(fold), "a toy panics");
        for i in 0..self.warn {
            context.warn(&format!("odd thing {i}"));
            context.warn("what all say");
        }
        if self.warn > 0 {
            context.warn(&format!("only of fold {fold}"));
        }
        // Work in steps of a millisecond, with checkpoints, as training does.
        let mut done = context.load_checkpoint().map_or(0, |bytes| bytes.len() as u64);
        let resumed_at = done;
        while done < self.sleep {
            if context.is_cancelled() {
                return Err(StageError::cancelled());
            }
            std::thread::sleep(Duration::from_millis(1));
            done += 1;
            context.progress(done, self.sleep, "steps", "");
            if done.is_multiple_of(10) {
                context.save_checkpoint(&vec![0; done as usize]);
                if done < self.sleep && context.is_out_of_time() {
                    return Err(StageError::cancelled());
                }
            }
        }
        if resumed_at > 0 {
            context.warn(&format!("resumed at {resumed_at}"));
        }
        let mut text = format!("{} {} {} {}\n", self.kind, task.part, self.a, self.coarse / 10);
        if self.uses_seed() {
            text += &format!("seed {}\n", task.seed);
        }
        if let Some(path) = &self.path {
            let path = places.resolve(path);
            let path = if path.is_dir() { path.join("1.png") } else { path };
            text += &fs::read_to_string(path)?;
        }
        for input in &task.inputs {
            if self.reads_names() {
                text += &input.stage_name;
            }
            let bytes = input.files.get("out.txt")?;
            text += &format!("{} {}\n", input.part, blake3::hash(bytes));
        }
        sink.put("out.txt", text.as_bytes())?;
        if self.size > 0 {
            let mut file = sink.create("big.bin")?;
            for i in 0..self.size / 1024 {
                file.write_all(&[i as u8; 1024])?;
            }
        }
        Ok(())
    }
}

/// A folder with a manifest and a store.
pub struct Project {
    /// Holds everything; removed with the project.
    pub temp: tempfile::TempDir,
    /// The project's folder.
    pub root: PathBuf,
}

/// Six stages, two members, two folds.
pub const MANIFEST: &str = r#"
schema = 1
name = "toy"
seed = 42

[stages.gather]
path = "data.txt"

[stages.cut]

[stages.fit]

[stages.one]
kind = "learn"

[stages.two]
kind = "learn"
input = "fit"
refit = true

[stages.join]
members = ["one", "two"]

[stages.score]
"#;

/// A run that is not told to stop.
static GO_ON: AtomicBool = AtomicBool::new(false);

impl Project {
    /// A new one, with one line of data.
    pub fn new() -> Project {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("project");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("data.txt"), "data\n").unwrap();
        Project { temp, root }
    }

    /// The manifest that would stand in the project, checked.
    pub fn manifest(&self, text: &str) -> Manifest {
        self.manifest_of(text, KINDS)
    }

    /// The same, of other kinds.
    pub fn manifest_of(&self, text: &str, kinds: &'static [Kind]) -> Manifest {
        load(&self.root, text, kinds)
    }

    /// Runs a manifest.
    pub fn run(&self, text: &str) -> Outcome {
        self.run_with(text, 2, &Silent).unwrap()
    }

    /// Runs a manifest on so many threads.
    pub fn run_with(&self, text: &str, threads: usize, events: &dyn Events) -> Result<Outcome, RunError> {
        let manifest = self.manifest(text);
        let session = Session::open(&manifest, None, None, Access::Write)?;
        session.run(&Options::new(threads, &GO_ON), events)
    }

    /// Plans a manifest.
    pub fn plan(&self, text: &str) -> Plan {
        let manifest = self.manifest(text);
        let session = Session::open(&manifest, None, None, Access::Look).unwrap();
        session.plan(&Options::new(2, &GO_ON)).unwrap()
    }

    /// Every file in `.convoy/cas`.
    pub fn blobs(&self) -> Vec<PathBuf> {
        let mut blobs: Vec<PathBuf> = walkdir::WalkDir::new(self.root.join(".convoy/cas"))
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_type().is_file())
            .map(walkdir::DirEntry::into_path)
            .collect();
        blobs.sort();
        blobs
    }
}

/// A checked manifest that would stand in `root`.
pub fn load(root: &Path, text: &str, kinds: &'static [Kind]) -> Manifest {
    let path = root.join("toy.toml");
    let loaded = Manifest::from_bytes(&path, text.as_bytes(), &Overrides::default(), kinds);
    loaded.unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// The names of the tasks that were computed.
pub fn computed(outcome: &Outcome) -> Vec<String> {
    outcome.computed().map(|task| task.name.clone()).collect()
}

/// The reasons of the computed tasks, as `name: reason`.
pub fn reasons(outcome: &Outcome) -> Vec<String> {
    outcome.computed().flat_map(|task| task.reasons.iter().map(|r| format!("{}: {r}", task.name))).collect()
}
