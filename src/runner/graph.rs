//! What the planner sees of a manifest, and the digests of what its stages read from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::RunError;
use crate::config::Span;
use crate::manifest::{Combination, Manifest, StageEntry, Variants, stage_name};
use crate::stages::{Node, Output, Part, Places, Source, StageError};
use crate::store::fingerprint::SourceDigest;
use crate::store::{Digest, Place, Store};

/// A checked manifest as the planner sees it.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The pipeline's name, with `@` and the profile or the overrides.
    pub name: String,
    /// The manifest, relative to the project's root where it is inside.
    pub manifest: PathBuf,
    /// Tells pipelines of one name apart: the manifest's place in its project.
    pub id: String,
    /// The lock file, beside the manifest.
    pub lock_path: PathBuf,
    /// The stages of the manifest, then those of the trials that are known.
    pub nodes: Vec<Node>,
    /// Their keys, by the same index.
    pub entries: Vec<Arc<StageEntry>>,
    /// Whose a node is that stands behind those of the manifest, by index less their number.
    pub trials: Vec<TrialNode>,
    /// Number of the manifest's own nodes.
    pub n_own: usize,
    /// The variants of the manifest: which nodes are theirs, and what makes the trials of their searches.
    pub combinations: Arc<Vec<Combination>>,
    /// What makes the trials of the first of them.
    pub(super) variants: Variants,
    /// Where relative sources are looked for.
    pub places: Places,
}

/// A node of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialNode {
    /// The search, by index.
    pub search: usize,
    /// Its round, from 1.
    pub round: u32,
    /// The trial's name, as `r1t7`.
    pub trial: String,
    /// The node that it is a variant of, by index.
    pub of: usize,
    /// Whether it was drawn in this round: no more of those are begun after a time limit.
    pub is_drawn: bool,
}

/// The digests of every stage's sources, by the stage's index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceDigests(pub Vec<Vec<SourceDigest>>);

/// The name that lock file and output folder have: `digits`, `digits@ci`, `digits@set-1a2b3c4d`.
pub fn variant_name(manifest: &Manifest) -> String {
    match (&manifest.profile, manifest.has_sets) {
        (None, false) => manifest.name.clone(),
        (Some(profile), false) => format!("{}@{profile}", manifest.name),
        (profile, true) => {
            // A `--set` holds no line feed that is not quoted, a profile's name no `=`: no two lists give one text.
            let mut what = profile.clone().unwrap_or_default();
            manifest.sets.iter().for_each(|set| what.extend(["\n", &set.escape_default().to_string()]));
            format!("{}@set-{}", manifest.name, Digest::of(what.as_bytes()).short())
        }
    }
}

/// The lock file that a run of `manifest` is compared with: the one of its profile, since overrides have none.
pub fn compared_lock(manifest: &Manifest) -> PathBuf {
    let name = match &manifest.profile {
        None => manifest.name.clone(),
        Some(profile) => format!("{}@{profile}", manifest.name),
    };
    manifest.dir.join(format!("{name}.lock"))
}

impl Graph {
    /// The graph of `manifest`.
    pub fn of(manifest: &Manifest, places: Places) -> Graph {
        let name = variant_name(manifest);
        let absolute = std::path::absolute(&manifest.path).unwrap_or_else(|_| manifest.path.clone());
        let place = absolute.strip_prefix(&places.project_root).unwrap_or(&absolute);
        Graph {
            id: Digest::of(place.as_os_str().as_encoded_bytes()).short(),
            manifest: place.to_owned(),
            lock_path: manifest.dir.join(format!("{name}.lock")),
            name,
            nodes: manifest.nodes.clone(),
            entries: manifest.entries.clone(),
            trials: Vec::new(),
            n_own: manifest.nodes.len(),
            combinations: Arc::clone(&manifest.combinations),
            variants: manifest.variants.clone(),
            places,
        }
    }

    /// Whose trial a node is of, if it is one's.
    pub fn trial(&self, stage: usize) -> Option<&TrialNode> {
        self.trials.get(stage.checked_sub(self.n_own)?)
    }

    /// What a node is called within its variant of the manifest: what a manifest of that variant alone would call it.
    pub fn plain_name(&self, stage: usize) -> String {
        let own = |stage: usize| stage_name(&self.nodes[stage].name);
        match self.trial(stage) {
            Some(trial) => format!("{} {} {}", own(trial.search), trial.trial, own(trial.of)),
            None => own(stage).to_owned(),
        }
    }

    /// What tables call the trial of a node: `r1t7`, with the search's name before it where there are several searches.
    pub fn trial_name(&self, stage: usize) -> Option<String> {
        let trial = self.trial(stage)?;
        let searches =
            self.nodes[..self.n_own].iter().filter(|node| node.stage.search().is_some_and(|s| s.rank() == 1));
        let searches: BTreeSet<&str> = searches.map(|node| stage_name(&node.name)).collect();
        Some(if searches.len() > 1 {
            format!("{} {}", stage_name(&self.nodes[trial.search].name), trial.trial)
        } else {
            trial.trial.clone()
        })
    }

    /// Whether a node is there for a search only: the stage that it tunes, and what nothing else reads of the stages
    /// above that. Such a node has no tasks of its own; the trials ask for those that they share.
    pub(super) fn is_template(&self, stage: usize) -> bool {
        let node = &self.nodes[stage];
        let is_read_otherwise = |(reader, other): (usize, &Node)| {
            other.inputs.contains(&stage) && other.stage.search().is_none() && !self.is_template(reader)
        };
        let own = &self.nodes[..self.n_own];
        matches!(node.flow.output, Output::Fitted | Output::Model)
            && node.stage.search().is_none()
            && own.iter().any(|other| other.inputs.contains(&stage))
            && !own.iter().enumerate().any(is_read_otherwise)
    }

    /// Where `key` of a stage was set: the key itself, else the nearest one above it; `None` where the default is in
    /// force.
    pub fn span_of(&self, stage: usize, key: &str) -> Option<Span> {
        self.entries[stage].span_of(key)
    }
}

/// Hears of a stage whose files are read, and how many bytes of them by now.
pub(super) type Reading<'r> = dyn Fn(&str, u64) + Sync + 'r;

/// Digests the sources of the `needed` stages, on `threads` threads; those of the manifest's own stages are remembered
/// in `known`.
pub(super) fn digest_sources(
    graph: &Graph,
    store: &Store,
    mut needed: BTreeSet<usize>,
    threads: usize,
    reading: &Reading<'_>,
    known: &mut BTreeMap<usize, Vec<SourceDigest>>,
) -> Result<SourceDigests, RunError> {
    let mut digests = SourceDigests(vec![Vec::new(); graph.nodes.len()]);
    for (&stage, sources) in &*known {
        needed.remove(&stage);
        digests.0[stage].clone_from(sources);
    }
    let mut pool = None;
    for stage in needed {
        let node = &graph.nodes[stage];
        let read_bytes = AtomicU64::new(0);
        let told = |n: u64| {
            let bytes = read_bytes.fetch_add(n, Ordering::Relaxed) + n;
            reading(&node.name, bytes);
        };
        let sources = sources_of(graph, stage)?;
        if pool.is_none() && sources.iter().any(|source| place(source).is_some()) {
            pool = super::pool(threads, "read");
        }
        digests.0[stage] = match &pool {
            Some(pool) => pool.install(|| digest_of(graph, store, stage, &sources, &told)),
            None => digest_of(graph, store, stage, &sources, &told),
        }?;
        if stage < graph.n_own {
            known.insert(stage, digests.0[stage].clone());
        }
    }
    Ok(digests)
}

fn failed(graph: &Graph, stage: usize) -> impl Fn(StageError) -> RunError {
    let stage = graph.nodes[stage].name.clone();
    move |error| RunError::Stage { stage: stage.clone(), error }
}

fn sources_of(graph: &Graph, stage: usize) -> Result<Vec<Source>, RunError> {
    graph.nodes[stage].stage.sources(&graph.places).map_err(failed(graph, stage))
}

/// The digests of a stage's sources, by role, on the current pool.
fn digest_of(
    graph: &Graph,
    store: &Store,
    stage: usize,
    sources: &[Source],
    told: &(dyn Fn(u64) + Sync),
) -> Result<Vec<SourceDigest>, RunError> {
    let places: Vec<Place> = sources.iter().filter_map(place).collect();
    let read = store
        .digest_sources(&places, told)
        .map_err(|error| failed(graph, stage)(StageError::new(error.to_string())))?;
    let mut read = read.into_iter();
    let mut by_role: BTreeMap<String, Vec<Digest>> = BTreeMap::new();
    for source in sources {
        let (role, digest) = match source {
            Source::Builtin { name, digest } => {
                let digest = digest.parse().unwrap_or_else(|_| Digest::of(digest.as_bytes()));
                (format!("builtin {name}"), Some(digest))
            }
            Source::File { role, .. } | Source::Folder { role, .. } => (role.clone(), read.next()),
        };
        by_role.entry(role).or_default().extend(digest);
    }
    // Ten thousand files of one role are one line in records and lock files.
    Ok(by_role.into_iter().map(|(role, all)| SourceDigest { role, digest: joined(&all) }).collect())
}

/// What a stage reads from outside, as it is now: what it holds, and a witness of when that was written.
pub(super) fn look(graph: &Graph, store: &Store, stage: usize) -> Result<(Vec<SourceDigest>, Digest), RunError> {
    let sources = sources_of(graph, stage)?;
    let places: Vec<Place> = sources.iter().filter_map(place).collect();
    // In this order: what is written after the look at stamps changes the next one.
    let witness = store.witness(&places).map_err(|error| failed(graph, stage)(StageError::new(error.to_string())))?;
    Ok((digest_of(graph, store, stage, &sources, &|_| ())?, witness))
}

/// One digest for the sources of one role, in order; a single one is its own.
fn joined(all: &[Digest]) -> Digest {
    match all {
        [one] => *one,
        all => Digest::of(&all.iter().flat_map(|digest| digest.0).collect::<Vec<u8>>()),
    }
}

fn place(source: &Source) -> Option<Place> {
    match source {
        Source::Builtin { .. } => None,
        Source::File { path, .. } => Some(Place::File(path.clone())),
        Source::Folder { path, .. } => Some(Place::Folder(path.clone())),
    }
}

/// What a task is called: `cnn`, `cnn, fold 3`.
pub fn task_name(stage: &str, part: Part) -> String {
    match part {
        Part::Whole => stage.to_owned(),
        part => format!("{stage}, {part}"),
    }
}

/// Whether a node of this name, as it stands in lock files, is a trial's: `search r1t7 cnn`, `search lr=0.1 r1t7 cnn`.
pub fn is_of_trial(node: &str) -> bool {
    node.split(' ').count() > 2
}
