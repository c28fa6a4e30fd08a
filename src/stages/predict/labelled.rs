//! A finished model on labelled images that it was not trained on: they become a data set that is all test split, and the stage
//! `evaluate` says of it what it says of any.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use super::Predictor;
use crate::artifact::dataset::{DatasetWriter, IMAGES, Names, Numbers, Row, Skipped};
use crate::artifact::predictions::{Predictions, TEST};
use crate::artifact::splits::Splits;
use crate::artifact::{Bytes, Files, Sink};
use crate::config::did_you_mean;
use crate::data::fit_set::Partition;
use crate::data::reader::classes::some_of;
use crate::data::reader::load::{Loaded, Plan, load};
use crate::data::reader::{GivenSplit, Pick};
use crate::stages::ingest::Ingest;
use crate::stages::{Context, Delivered, Output, Part, Places, Stage, StageError, Task};

/// What is evaluated on what.
pub struct Labelled<'a> {
    /// What tables call the model.
    pub name: &'a str,
    /// Where the images are from; how they are decoded is the model's to say.
    pub source: &'a Ingest,
    /// Columns of its table that are kept.
    pub columns: &'a [String],
    /// Only images that the source puts into this split.
    pub split: Option<GivenSplit>,
    /// The stage that evaluates.
    pub stage: &'a dyn Stage,
    /// Where relative sources are looked for.
    pub places: &'a Places,
}

/// What came of it, as a run would have it.
pub struct Evaluated {
    /// Kind of stage, part and artifact: the data set, its splits, what was found.
    pub artifacts: Vec<(&'static str, Part, Files)>,
    /// Images that were evaluated.
    pub n_images: usize,
    /// Images that could not be read.
    pub n_failed: usize,
}

/// Predicts the images of a labelled source and evaluates what was said of them.
///
/// # Errors
/// If the source cannot be read, names classes that the model does not know, or has images that the model does not take.
pub fn evaluate(predictor: &mut Predictor, of: &Labelled<'_>, context: &dyn Context) -> Result<Evaluated, StageError> {
    let (reader, named) = of.source.open(of.places).map_err(without_manifest)?;
    let classes = predictor.classes().to_vec();
    let labels = labels(&named, &classes)?;
    let policy = predictor.decode_policy().clone();
    let n_all = reader.n_samples();
    let plan = Plan { policy: &policy, pick: Pick::new(n_all, None), threads: context.threads(), known: None };
    let mut sink = Scratch::default();
    let mut images = Some(sink.create(IMAGES)?);
    let mut writer: Option<DatasetWriter> = None;
    let (mut said, mut waiting) = (Vec::<f32>::new(), 0);
    let mut skipped = Vec::new();
    let mut is_divided = false;
    let chunk_len = predictor.chunk_len();
    let mut n_done = 0;
    load(&*reader, &plan, &mut |loaded: Loaded| {
        if context.is_cancelled() {
            return Err(StageError::cancelled());
        }
        n_done += 1;
        let Loaded { path, label, given, group, cells, image } = loaded;
        is_divided |= given.is_some();
        if of.split.is_some() && given != of.split {
            return Ok(());
        }
        let (image, digest) = match image {
            Ok(image) => image,
            Err(refused) => {
                let class = named[label as usize].clone();
                skipped.push(Skipped { path, class, reason: refused.reason });
                return Ok(());
            }
        };
        let Some(label) = labels[label as usize] else { return Err(unknown(&named[label as usize], &classes)) };
        predictor.push(&image).map_err(|reason| StageError::new(format!("`{path}` {reason}")))?;
        if let Some(file) = images.take() {
            let mut own = DatasetWriter::new(file, image.shape, image.depth)?;
            own.keep_columns(of.columns);
            writer = Some(own);
        }
        if let Some(writer) = &mut writer {
            let row = Row { path, label, group, given, cells, seen: image.seen };
            writer.push_digested(row, &image.pixels, digest)?;
        }
        waiting += 1;
        if waiting == chunk_len {
            waiting = 0;
            said.extend(predictor.predict()?.probabilities().iter());
            context.progress(n_done, n_all, "images", "");
        }
        Ok(())
    })?;
    if waiting > 0 {
        said.extend(predictor.predict()?.probabilities().iter());
    }
    let Some(writer) = writer else {
        return Err(match of.split {
            Some(split) if skipped.is_empty() => {
                let message = format!("the source puts no image into the split `{}`", split.name());
                StageError::new(message).help("leave `--split` out: all images are evaluated")
            }
            _ => StageError::new("the source has no image that can be read"),
        });
    };
    if is_divided && of.split.is_none() {
        context.warn(
            "the source divides its images itself, and all of them are evaluated: those that the model learned from make it \
             look too good (`--split test` takes those of its test split alone)",
        );
    }
    let n_failed = skipped.len();
    if let Some(first) = skipped.first() {
        let n = if n_failed == 1 { "1 image was".to_owned() } else { format!("{n_failed} images were") };
        context.warn(&format!("{n} left out, first `{}`, which {}", first.path, first.reason));
    }
    writer.finish(&mut sink, &classes, &policy, &skipped)?;
    let dataset = sink.files()?;
    let numbers = Numbers::read(&dataset)?;
    let n_images = numbers.n_samples();
    let mut sink = Scratch::default();
    Splits::new(Partition::held_out(n_images), &numbers).write(&numbers, &Names::read(&dataset)?, &mut sink)?;
    let splits = sink.files()?;
    let mut sink = Scratch::default();
    Predictions::new((0..n_images as u32).collect(), classes.len(), said).write(&mut sink, TEST)?;
    let model = sink.files()?;

    let delivered = |from: usize, part: Part, output: Output, files: &Files| {
        let stage_name = if output == Output::Model { of.name } else { "" }.to_owned();
        Delivered { from, part, stage_name, output, files: files.clone() }
    };
    let mut artifacts = Vec::new();
    for part in [Part::Whole, Part::Pictures, Part::Suspects] {
        let inputs = vec![
            delivered(0, Part::Whole, Output::Dataset, &dataset),
            delivered(1, Part::Whole, Output::Splits, &splits),
            delivered(2, Part::All, Output::Model, &model),
        ];
        let task = Task { part, seed: of.stage.own_seed().unwrap_or(0), inputs };
        let mut sink = Scratch::default();
        crate::stages::run(of.stage, &task, of.places, context, &mut sink)?;
        artifacts.push(("evaluate", part, sink.files()?));
    }
    artifacts.insert(0, ("split", Part::Whole, splits));
    artifacts.insert(0, ("ingest", Part::Whole, dataset));
    Ok(Evaluated { artifacts, n_images, n_failed })
}

/// What `ingest` says of a source, where no manifest names it.
fn without_manifest(error: StageError) -> StageError {
    if error.message.starts_with("`columns` are") {
        let message = "`--by` names a column of a table of images, and this source is none";
        return StageError::new(message)
            .help("list the images in a table of paths with this column, or leave `--by` out");
    }
    match error.help.as_deref() {
        Some(help) if help.starts_with("paths are relative to the manifest's folder") => {
            error.help("name a folder with a folder a class, a table, an archive, or a data set of the catalogue")
        }
        _ => error,
    }
}

/// The model's label of each class of the source, by name; `None` of one that it does not know.
///
/// # Errors
/// If it knows none of them.
fn labels(named: &[String], classes: &[String]) -> Result<Vec<Option<u32>>, StageError> {
    let label = |name: &String| classes.iter().position(|class| class == name).map(|at| at as u32);
    let labels: Vec<Option<u32>> = named.iter().map(label).collect();
    match labels.iter().all(Option::is_none) {
        true => Err(unknown(named.first().map_or("", String::as_str), classes)),
        false => Ok(labels),
    }
}

fn unknown(name: &str, classes: &[String]) -> StageError {
    let error = StageError::new(format!("the model has no class `{name}`"));
    let known = || classes.iter().map(String::as_str);
    let near = did_you_mean(name, known());
    error.help(near.map_or_else(
        || {
            format!(
                "its classes are {}: name the images' class as one of them, or leave these images out",
                some_of(known())
            )
        },
        |near| format!("{near} Classes are matched by name"),
    ))
}

/// A sink in temporary files that nobody else sees.
#[derive(Default)]
struct Scratch {
    written: BTreeMap<String, File>,
}

impl Sink for Scratch {
    fn create(&mut self, name: &str) -> io::Result<File> {
        let file = tempfile::tempfile()?;
        self.written.insert(name.to_owned(), file.try_clone()?);
        Ok(file)
    }
}

impl Scratch {
    /// What was written.
    fn files(self) -> io::Result<Files> {
        let mut files = Files::default();
        for (name, mut file) in self.written {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0))?;
            file.read_to_end(&mut bytes)?;
            files.0.insert(name, Bytes::new(bytes));
        }
        Ok(files)
    }
}
