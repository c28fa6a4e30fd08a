//! What a run leaves for the pages of CI: JUnit's XML, a page of Markdown in GitHub's job summary, the log of
//! events. A run that does not begin leaves them, too: they say why.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::arguments::RunArguments;
use super::event_log::EventLog;
use super::git::Git;
use super::terminal::Terminal;
use super::{Exit, page};
use crate::artifact::dataset::{SUMMARY_FILES, Summary as DatasetSummary};
use crate::artifact::evaluation::Evaluation;
use crate::artifact::sanity::{Findings, SANITY};
use crate::files;
use crate::manifest::Manifest;
use crate::report::junit;
use crate::report::outputs::Noted;
use crate::report::summary::{Check, How, Provenance, Report, Summary, TaskRow};
use crate::runner::{Ended, Outcome, Session};
use crate::stages::{Output, Part};

/// The variable that names GitHub's page of a job.
const STEP_SUMMARY: &str = "GITHUB_STEP_SUMMARY";

/// The pages of a run.
pub struct Job<'a> {
    arguments: &'a RunArguments,
    started: Instant,
    step_summary: Option<PathBuf>,
    /// The log of events, where one is asked for.
    pub events: Option<EventLog>,
    /// What the run came to, once that is known.
    pub summary: Option<Summary>,
    /// Tasks, and how many of them were computed.
    pub counts: Option<(usize, usize)>,
    pipeline: String,
    is_finished: bool,
}

impl<'a> Job<'a> {
    /// The pages that are asked for.
    pub fn new(arguments: &'a RunArguments) -> Job<'a> {
        let step_summary = std::env::var_os(STEP_SUMMARY).filter(|path| !path.is_empty()).map(PathBuf::from);
        Job {
            arguments,
            started: Instant::now(),
            step_summary,
            events: None,
            summary: None,
            counts: None,
            pipeline: "convoy".to_owned(),
            is_finished: false,
        }
    }

    /// Whether somebody reads what the run came to, whatever it computed.
    pub fn is_wanted(&self) -> bool {
        self.arguments.junit.is_some() || self.step_summary.is_some()
    }

    /// Begins, for a manifest that can be read.
    ///
    /// # Errors
    /// If the log of events cannot be made.
    pub fn begin(&mut self, manifest: &Manifest) -> Result<(), files::Error> {
        self.pipeline = manifest.name.clone();
        if let Some(path) = &self.arguments.events {
            self.events = Some(EventLog::create(path, manifest).map_err(files::Error::of("write", path))?);
        }
        // Known before the training that it is about.
        if let Some(path) = &self.arguments.junit {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            files::probe(path.parent().unwrap_or(&path))?;
        }
        Ok(())
    }

    /// Writes the pages, once; the exit code, which is another one where that fails.
    pub fn finish(&mut self, exit: Exit, terminal: &Terminal) -> Exit {
        if std::mem::replace(&mut self.is_finished, true) {
            return exit;
        }
        let mut summary = self.summary.take().unwrap_or_else(|| Summary {
            report: Report { pipeline: self.pipeline.clone(), ..Report::default() },
            errors: terminal.errors_since(0),
            provenance: Provenance { convoy: env!("CARGO_PKG_VERSION").to_owned(), ..Provenance::default() },
            ..Summary::default()
        });
        summary.exit_code = exit as u8;
        let mut written = Vec::new();
        if let Some(path) = &self.arguments.junit {
            let text = junit::junit(&summary, self.arguments.junit_times);
            written.push(files::replace(path, text.as_bytes(), false));
        }
        if let Some(path) = &self.step_summary {
            let text = page::markdown(&summary);
            written.push(append(path, &text).map_err(files::Error::of("write", path)));
        }
        let errors: Vec<anyhow::Error> = written.into_iter().filter_map(Result::err).map(Into::into).collect();
        errors.iter().for_each(|error| terminal.error(error));
        if errors.is_empty() || exit != Exit::Done { exit } else { Exit::Failed }
    }

    /// Ends the log of events.
    pub fn end(&mut self, exit: Exit, terminal: &Terminal) -> Exit {
        let Some(log) = &self.events else { return exit };
        log.verdict(exit, self.counts, self.started.elapsed().as_secs_f64());
        match (log.failure(), &self.arguments.events) {
            (Some(cause), Some(path)) => {
                terminal.error(&files::Error::of("write", path)(cause).into());
                if exit == Exit::Done { Exit::Failed } else { exit }
            }
            _ => exit,
        }
    }
}

fn append(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")
}

/// What a run came to; `failure` says why a task failed.
pub fn summary(
    outcome: &Outcome,
    session: &Session<'_>,
    evaluations: &[(String, Evaluation)],
    out_dir: &Path,
    failure: &dyn Fn(usize) -> String,
) -> Summary {
    let manifest = session.manifest;
    let (mut checks, mut datasets, mut tasks) = (Vec::new(), Vec::new(), Vec::new());
    for (i, task) in outcome.tasks.iter().enumerate() {
        let node = &outcome.graph.nodes[task.stage];
        let is_own = outcome.graph.trial(task.stage).is_none();
        let open = |names: &[&str]| {
            let entry = task.entry.as_ref().filter(|_| is_own)?;
            session.store.open_files(entry, &|name| names.contains(&name)).ok()
        };
        if task.part == Part::Sanity
            && let Some(findings) = open(&[SANITY]).and_then(|files| Findings::read(&files).ok())
        {
            checks.extend(Check::all(&node.name, &findings));
        }
        if node.flow.output == Output::Dataset
            && let Some(summary) = open(SUMMARY_FILES).and_then(|files| DatasetSummary::read(&files).ok())
        {
            datasets.push((node.name.clone(), summary));
        }
        let ended = match &task.ended {
            Ended::Computed => How::Computed,
            Ended::Fresh | Ended::Found => How::Cached,
            Ended::Failed(_) => How::Failed(failure(i)),
            Ended::Cancelled | Ended::NotStarted => How::NotRun,
        };
        let is_computed = ended == How::Computed;
        tasks.push(TaskRow {
            stage: node.name.clone(),
            part: task.part.to_string(),
            reasons: task.reasons.iter().filter(|_| is_computed).map(ToString::to_string).collect(),
            seconds: is_computed.then_some(task.seconds),
            ended,
        });
    }
    let noted = Noted::read(out_dir);
    let is_picture = |name: &&String| name.ends_with(".svg") || name.ends_with(".png");
    Summary {
        report: Report {
            pipeline: manifest.name.clone(),
            evaluations: evaluations.to_vec(),
            checks,
            datasets,
            warnings: outcome.warnings().into_iter().map(|(stage, told)| (stage.to_owned(), told.to_owned())).collect(),
            ..Report::default()
        },
        exit_code: 0,
        tasks,
        errors: Vec::new(),
        against: None,
        pictures: noted.files.keys().filter(is_picture).cloned().collect(),
        provenance: Provenance {
            convoy: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: session.graph.manifest.to_string_lossy().replace('\\', "/"),
            profile: manifest.profile.clone(),
            overrides: manifest.sets.clone(),
            git: Git::of(&manifest.dir).and_then(|git| git.state()).map(|state| (state.revision, state.dirty)),
        },
    }
}
