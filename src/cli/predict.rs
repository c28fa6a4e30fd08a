//! `predict`: images in, a row of probabilities each, on stdout as they come.

use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Serialize, Serializer};

use super::Exit;
use super::arguments::{ManifestArguments, PredictArguments};
use super::embed::Embeddings;
use super::export::{self, Model};
use super::manifest::threads;
use super::progress::{Progress, Told};
use super::terminal::{RED, Terminal, document};
use crate::artifact::predictions::Predictions;
use crate::artifact::table::{Cell, Table};
use crate::data::reader::images::Images;
use crate::data::reader::load::{Loaded, Plan, load};
use crate::data::reader::{self, Pick, Reader};
use crate::engine::{Engine, Isa};
use crate::report::text::{counted, grouped};
use crate::stages::StageError;
use crate::stages::predict::Predictor;

/// Why predicting ends early.
enum Stop {
    /// Nobody reads any more.
    Closed,
    /// Stdout cannot be written.
    Output(io::Error),
    /// The model's answers do not fit one another.
    Model(StageError),
    /// The images cannot be read, all of them.
    Images(reader::Error),
}

impl From<reader::Error> for Stop {
    fn from(error: reader::Error) -> Stop {
        Stop::Images(error)
    }
}

/// `predict`.
pub fn predict(arguments: &PredictArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let manifest = ManifestArguments {
        manifest: Some(arguments.model.clone()),
        sets: arguments.sets.clone(),
        profile: arguments.profile.clone(),
    };
    let stage = arguments.stage.as_deref();
    let Model { model, name, .. } = match export::open(&manifest, &arguments.model, &arguments.places, stage, terminal)?
    {
        Ok(model) => model,
        Err(exit) => return Ok(exit),
    };
    let n_threads = threads(&arguments.places);
    let engine = Engine::with_isa(n_threads, Isa::detect());
    let predictor = match Predictor::new(&engine, &model) {
        Ok(predictor) => predictor,
        Err(error) => {
            terminal.fault(&format!("{name}: {error}"), None);
            return Ok(Exit::Failed);
        }
    };
    let embeddings = match &arguments.embeddings {
        None => None,
        Some(file) => match Embeddings::of(file, arguments.network, &predictor, &name, terminal) {
            Some(embeddings) => Some(embeddings),
            None => return Ok(Exit::Usage),
        },
    };
    let images = Images::of(&named(&arguments.files)?);
    let progress = Progress::new(*terminal, arguments.quiet);
    progress.begin(Told { task: PROGRESS, stage: PROGRESS, is_trial: false }, &name);
    let n_images = images.n_samples();
    let mut printer = Printer::new(arguments, predictor, *terminal, n_images, &progress);
    printer.embeddings = embeddings;
    let policy = printer.predictor.decode_policy().clone();
    let plan = Plan { policy: &policy, pick: Pick::new(n_images, None), threads: n_threads, known: None };
    let done = load(&images, &plan, &mut |loaded| printer.take(loaded)).and_then(|()| printer.flush());
    let (n_predicted, n_failed) = (printer.n_predicted, printer.n_failed);
    if let Some(first) = images.left_out().first() {
        let n = images.left_out().len() as u64;
        let files = counted(n, "file that is no image was", "files that are no images were");
        terminal.note(&format!("{files} left out, first `{}`", first));
    }
    let failed = if n_failed > 0 { format!(", {} could not be read", grouped(n_failed)) } else { String::new() };
    let asked = export::networks(if printer.embeddings.is_some() { 1 } else { printer.predictor.n_members() });
    let abstained = printer.predictor.abstain().filter(|_| printer.embeddings.is_none());
    let abstained = abstained.map_or_else(String::new, |_| format!(", {} abstained", grouped(printer.n_abstained)));
    progress.close(
        PROGRESS,
        &format!(
            "{} image{} with {asked}{abstained}{failed},",
            grouped(n_predicted),
            if n_predicted == 1 { "" } else { "s" }
        ),
    );
    match done {
        Ok(()) => {}
        Err(Stop::Closed) => return Ok(Exit::Done),
        Err(Stop::Output(error)) => return Err(error).context("cannot write to stdout"),
        Err(Stop::Model(error)) => {
            terminal.fault(&format!("{name}: {error}"), None);
            return Ok(Exit::Failed);
        }
        Err(Stop::Images(error)) => {
            terminal.fault(&error.message, error.help.as_deref());
            return Ok(Exit::Failed);
        }
    }
    if let Some(embeddings) = printer.embeddings.take() {
        embeddings.write(arguments.json, terminal)?;
    }
    Ok(if n_failed > 0 { Exit::Failed } else { Exit::Done })
}

/// What progress is about.
const PROGRESS: &str = "predict";

/// The paths as given, `-` replaced by those on stdin.
fn named(files: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::with_capacity(files.len());
    for file in files {
        if file == Path::new("-") {
            for line in io::stdin().lock().lines() {
                let line = line.context("cannot read the list of images on stdin")?;
                paths.extend(Some(line.trim_end_matches('\r')).filter(|line| !line.is_empty()).map(PathBuf::from));
            }
        } else {
            paths.push(file.clone());
        }
    }
    Ok(paths)
}

/// Collects images, predicts a chunk at a time, prints.
struct Printer<'a> {
    predictor: Predictor,
    terminal: Terminal,
    progress: &'a Progress,
    chunk_len: usize,
    /// Of the images that wait: their paths.
    paths: Vec<String>,
    /// With `--json`: unreadable images, and before which of the waiting ones they stand.
    failed: Vec<(usize, String, String)>,
    table: Table,
    is_json: bool,
    top: Option<usize>,
    n_images: u64,
    n_predicted: u64,
    n_failed: u64,
    n_abstained: u64,
    /// Instead of predictions.
    embeddings: Option<Embeddings>,
}

impl<'a> Printer<'a> {
    fn new(
        arguments: &PredictArguments,
        predictor: Predictor,
        terminal: Terminal,
        n_images: u64,
        progress: &'a Progress,
    ) -> Printer<'a> {
        let classes = predictor.classes();
        let top = arguments.top.map(|k| usize::from(k).min(classes.len()));
        let mut header = vec!["path".to_owned(), "predicted".to_owned(), "confidence".to_owned()];
        header.extend(predictor.abstain().map(|_| "abstained".to_owned()));
        match top {
            Some(k) => header.extend((2..=k).flat_map(|i| [format!("predicted_{i}"), format!("confidence_{i}")])),
            None => header.extend(classes.iter().map(|class| format!("p_{class}"))),
        }
        Printer {
            chunk_len: predictor.chunk_len(),
            predictor,
            terminal,
            progress,
            paths: Vec::new(),
            failed: Vec::new(),
            table: Table::new(&header),
            is_json: arguments.json,
            top,
            n_images,
            n_predicted: 0,
            n_failed: 0,
            n_abstained: 0,
            embeddings: None,
        }
    }

    fn take(&mut self, loaded: Loaded) -> Result<(), Stop> {
        let Loaded { path, image, .. } = loaded;
        let pushed = match image {
            Ok((image, _)) => self.predictor.push(&image),
            Err(refused) => Err(refused.reason),
        };
        match pushed {
            Ok(()) => self.paths.push(path),
            Err(reason) => {
                self.n_failed += 1;
                self.progress.warn_as("error:", RED, &format!("`{path}` {reason}"));
                if self.is_json {
                    self.failed.push((self.paths.len(), path, reason));
                }
            }
        }
        if self.paths.len() >= self.chunk_len { self.flush() } else { Ok(()) }
    }

    /// Predicts and prints what waits.
    fn flush(&mut self) -> Result<(), Stop> {
        let mut out = Vec::new();
        let paths = std::mem::take(&mut self.paths);
        let failed = std::mem::take(&mut self.failed);
        if let Some(embeddings) = &mut self.embeddings {
            embeddings.take(&mut self.predictor, &paths);
            self.count(paths.len());
            return Ok(());
        }
        let predictions = match paths.is_empty() {
            true => Predictions::new(Vec::new(), self.predictor.classes().len(), Vec::new()),
            false => self.predictor.predict().map_err(Stop::Model)?,
        };
        let mut failed = failed.into_iter().peekable();
        for i in 0..paths.len() {
            let confidence = predictions.row(i)[predictions.class(i)];
            self.n_abstained += u64::from(self.abstains(confidence) == Some(true));
        }
        for (i, path) in paths.iter().enumerate() {
            while let Some((_, path, reason)) = failed.next_if(|(before, ..)| *before <= i) {
                out.extend(document(serde_json::json!({ "path": path, "error": reason })).into_bytes());
            }
            if self.is_json {
                self.write_json(path, &predictions, i, &mut out);
            } else {
                self.write_row(path, predictions.row(i));
            }
        }
        for (_, path, reason) in failed {
            out.extend(document(serde_json::json!({ "path": path, "error": reason })).into_bytes());
        }
        if !self.is_json {
            out = self.table.take();
        }
        self.count(paths.len());
        self.terminal.part(&out).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::Closed,
            _ => Stop::Output(error),
        })
    }

    fn count(&mut self, n: usize) {
        self.n_predicted += n as u64;
        let n_done = self.n_predicted + self.n_failed;
        if n_done < self.n_images {
            self.progress.update(PROGRESS, n_done, self.n_images, "images", "");
        }
    }

    /// Whether the model abstains on an image of this confidence, if it may.
    fn abstains(&self, confidence: f32) -> Option<bool> {
        self.predictor.abstain().map(|abstain| !abstain.answers(confidence))
    }

    fn write_row(&mut self, path: &str, probabilities: &[f32]) {
        let ranked = ranked(probabilities, self.top.unwrap_or(1));
        let classes = self.predictor.classes();
        let mut cells: Vec<Cell<'_>> = vec![path.into()];
        for (rank, class) in ranked.into_iter().enumerate() {
            cells.extend([Cell::from(&classes[class]), probabilities[class].into()]);
            if rank == 0 {
                cells.extend(self.abstains(probabilities[class]).map(Cell::from));
            }
        }
        if self.top.is_none() {
            cells.extend(probabilities.iter().map(|&p| Cell::from(p)));
        }
        self.table.row(&cells);
    }

    fn write_json(&self, path: &str, predictions: &Predictions, i: usize, out: &mut Vec<u8>) {
        let (classes, probabilities) = (self.predictor.classes(), predictions.row(i));
        let shown = match self.top {
            Some(k) => ranked(probabilities, k),
            None => (0..classes.len()).collect(),
        };
        let best = predictions.class(i);
        let line = Line {
            path,
            predicted: &classes[best],
            confidence: probabilities[best],
            abstained: self.abstains(probabilities[best]),
            probabilities: shown.into_iter().map(|class| (classes[class].as_str(), probabilities[class])).collect(),
        };
        out.extend(document(line).into_bytes());
    }
}

/// An image as JSON.
#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    predicted: &'a str,
    confidence: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    abstained: Option<bool>,
    probabilities: Probabilities<'a>,
}

/// Classes and their probabilities, in this order.
struct Probabilities<'a>(Vec<(&'a str, f32)>);

impl<'a> FromIterator<(&'a str, f32)> for Probabilities<'a> {
    fn from_iter<T: IntoIterator<Item = (&'a str, f32)>>(iter: T) -> Probabilities<'a> {
        Probabilities(iter.into_iter().collect())
    }
}

impl Serialize for Probabilities<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// The `k` most probable classes, of equals the first; the first one is what `predictions.csv` calls predicted.
fn ranked(probabilities: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    order.truncate(k);
    order
}
