//! What tests of stages stand on: a sink in temporary files, a context that says nothing, tasks without a runner.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{Context, Part, Places, Stage, StageError, Task};
use crate::artifact::dataset::{Dataset, DatasetWriter, Row};
use crate::artifact::{Bytes, Files, Sink};
use crate::config::{Log, Section, Span, Table};
use crate::data::decode::{DecodePolicy, Seen};
use crate::data::pixels::Depth;
use crate::tensor::ImageShape;

/// A sink whose files nobody else sees.
#[derive(Default)]
pub(crate) struct MemorySink {
    written: BTreeMap<String, File>,
}

impl Sink for MemorySink {
    fn create(&mut self, name: &str) -> io::Result<File> {
        let file = tempfile::tempfile()?;
        self.written.insert(name.to_owned(), file.try_clone()?);
        Ok(file)
    }
}

impl MemorySink {
    /// The artifact that was written.
    pub(crate) fn files(self) -> Files {
        let mut files = Files::default();
        for (name, mut file) in self.written {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_end(&mut bytes).unwrap();
            files.0.insert(name, Bytes::new(bytes));
        }
        files
    }
}

/// A context that remembers warnings and can be told to cancel.
#[derive(Default)]
pub(crate) struct TestContext {
    /// Threads to use; 0 means 1.
    pub(crate) threads: usize,
    /// How often the number of threads was asked for.
    pub(crate) asked: AtomicUsize,
    /// Whether the run is being stopped.
    pub(crate) cancelled: AtomicBool,
    /// Every warning so far.
    pub(crate) warnings: Mutex<Vec<String>>,
    /// The last checkpoint.
    pub(crate) checkpoint: Mutex<Option<Vec<u8>>>,
}

impl Context for TestContext {
    fn threads(&self) -> usize {
        self.threads.max(1)
    }

    fn most_threads(&self) -> usize {
        self.threads() + 2
    }

    /// Another number each time.
    fn threads_now(&self) -> usize {
        1 + self.asked.fetch_add(1, Ordering::Relaxed) % self.most_threads()
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn progress(&self, _done: u64, _total: u64, _unit: &str, _note: &str) {}

    fn warn(&self, message: &str) {
        self.warnings.lock().unwrap().push(message.to_owned());
    }

    fn load_checkpoint(&self) -> Option<Vec<u8>> {
        self.checkpoint.lock().unwrap().clone()
    }

    fn save_checkpoint(&self, bytes: &[u8]) {
        *self.checkpoint.lock().unwrap() = Some(bytes.to_vec());
    }
}

/// Reads a stage from a table of keys, and what was wrong with it.
pub(crate) fn read(read: fn(&mut Section<'_>) -> Box<dyn Stage>, table: &Table) -> (Box<dyn Stage>, Log) {
    let mut log = Log::default();
    let mut section = Section::new(Some(table), Span::default(), "", &mut log);
    let stage = read(&mut section);
    section.finish();
    (stage, log)
}

/// Runs a stage's task on these inputs and returns its artifact.
pub(crate) fn run(
    stage: &dyn Stage,
    part: Part,
    inputs: Vec<super::Delivered>,
    places: &Places,
    context: &dyn Context,
) -> Result<Files, StageError> {
    let mut sink = MemorySink::default();
    let task = Task { part, seed: 42, inputs };
    super::run(stage, &task, places, context, &mut sink)?;
    Ok(sink.files())
}

/// A data set of these pixels: `n_samples` images one after the other, labels `0..n_classes`, classes named `a`, `b`,
/// ….
pub(crate) fn dataset(shape: ImageShape, labels: &[u32], pixels: &[u8]) -> (Files, Dataset) {
    let mut sink = MemorySink::default();
    let mut writer = DatasetWriter::create(&mut sink, shape, Depth::U8).unwrap();
    for (i, (&label, image)) in labels.iter().zip(pixels.chunks_exact(shape.len())).enumerate() {
        writer
            .push(
                Row {
                    path: format!("{i}.png"),
                    label,
                    seen: Seen { format: "png", ..Seen::default() },
                    ..Row::default()
                },
                image,
            )
            .unwrap();
    }
    let n_classes = labels.iter().max().map_or(0, |last| last + 1);
    let classes: Vec<String> = (0..n_classes).map(|i| char::from(b'a' + (i % 26) as u8).to_string()).collect();
    writer.finish(&mut sink, &classes, &DecodePolicy::default(), &[]).unwrap();
    let files = sink.files();
    let dataset = Dataset::read(&files).unwrap();
    (files, dataset)
}
