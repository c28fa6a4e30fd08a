//! What a run was: `run.json` in its folder of reports, and a copy in the store, which `runs` lists and `diff` compares.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::git::{Git, GitState};
use crate::artifact::evaluation::GateResult;
use crate::runner::{LockFile, Outcome, Session, is_of_trial, variant_name};
use crate::store::Store;

/// The store's folder of runs.
const FOLDER: &str = "history";
/// More runs than this are not kept.
const MOST: usize = 500;
/// What the name of a run begins with: no Git revision is called so.
pub const RUN: &str = "run-";

/// A run that did something.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct RunRecord {
    /// The version of the program.
    pub convoy: String,
    /// The project, where several share the store: a digest of its path.
    pub project: String,
    /// The pipeline.
    pub pipeline: String,
    /// The name of its lock file and its folder of reports: with the profile or a digest of the overrides.
    pub variant: String,
    /// The manifest, relative to the project's root where it is inside.
    pub manifest: String,
    /// The `--set` arguments in force.
    pub overrides: Vec<String>,
    /// The profile in force.
    pub profile: Option<String>,
    /// What Git had checked out; `None` outside a checkout.
    pub git: Option<GitState>,
    /// When it ended, in seconds since 1970.
    pub finished_unix_seconds: u64,
    /// The same in milliseconds: runs are sorted by it.
    pub finished_unix_milliseconds: u64,
    /// How long it took.
    pub seconds: f64,
    /// Whether every task is there.
    pub complete: bool,
    /// Tasks that were computed.
    pub computed: usize,
    /// Keys, revisions, sources, metrics and tasks as in a lock file, without the trials of searches; without tasks if they
    /// are not all there.
    pub lock: LockFile,
    /// Every gate.
    pub gates: Vec<GateResult>,
}

impl RunRecord {
    /// What a run came to, that ends now.
    pub fn of(
        outcome: &Outcome,
        session: &Session<'_>,
        seconds: f64,
        metrics: BTreeMap<String, String>,
        gates: Vec<GateResult>,
    ) -> RunRecord {
        let manifest = session.manifest;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut lock = outcome.lock_file().unwrap_or_else(|| LockFile::of_graph(&session.graph));
        lock.tasks.retain(|name, _| is_own(name));
        lock.metrics = metrics;
        RunRecord {
            convoy: env!("CARGO_PKG_VERSION").to_owned(),
            project: session.store.project(),
            pipeline: manifest.name.clone(),
            variant: variant_name(manifest),
            manifest: session.graph.manifest.to_string_lossy().replace('\\', "/"),
            overrides: manifest.sets.clone(),
            profile: manifest.profile.clone(),
            git: Git::of(&manifest.dir).and_then(|git| git.state()),
            finished_unix_seconds: now.as_secs(),
            finished_unix_milliseconds: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            seconds,
            complete: outcome.is_complete(),
            computed: outcome.computed().count(),
            lock,
            gates,
        }
    }

    /// Its name: from its content.
    pub fn id(&self) -> String {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        format!("{RUN}{}", &blake3::hash(&bytes).to_hex()[..8])
    }

    /// Keeps it in the store, and forgets the oldest beyond what is kept. Best effort: nothing is computed from it.
    pub fn keep(&self, store: &Store) {
        let Ok(mut bytes) = serde_json::to_vec_pretty(self) else { return };
        bytes.push(b'\n');
        let _ = store.write_note(FOLDER, &file_name(self), &bytes);
        let notes = store.notes(FOLDER).unwrap_or_default();
        for (name, _) in notes.iter().take(notes.len().saturating_sub(MOST)) {
            store.remove_note(FOLDER, name);
        }
    }

    /// Reads `run.json` in a folder of reports; `None` if it is not there, or of an earlier version.
    pub fn read(out_dir: &Path) -> Option<RunRecord> {
        let bytes = crate::files::read_regular(&out_dir.join(crate::files::RUN), 64 << 20).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// Whether a task, by its name in a lock file, is none of a trial.
fn is_own(name: &str) -> bool {
    name.split('/').next().is_some_and(|stage| !is_of_trial(stage))
}

/// In the order of time.
fn file_name(run: &RunRecord) -> String {
    format!("{:015}-{}.json", run.finished_unix_milliseconds, &run.id()[RUN.len()..])
}

/// The runs of this project that the store remembers, the latest first.
///
/// # Errors
/// If they are there and cannot be read. What is damaged is left out.
pub fn runs(store: &Store) -> Result<Vec<RunRecord>, crate::store::Error> {
    let mut runs = Vec::new();
    for (name, _) in store.notes(FOLDER)?.into_iter().rev() {
        let bytes = store.read_note(FOLDER, &name)?;
        let run = bytes.and_then(|bytes| serde_json::from_slice::<RunRecord>(&bytes).ok());
        runs.extend(run.filter(|run| run.project == store.project()));
    }
    Ok(runs)
}
