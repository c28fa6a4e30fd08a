//! The rounds of searches as nodes of the graph: what is a trial's is put behind the manifest's own stages, and planned
//! like those.
//!
//! A round's settings depend on what the round before found, so the graph grows with what the store has: the planner is
//! called, the results of rounds that are fresh are read, the graph is expanded by the next round, and the planner is
//! called again. [`expand`] itself is a pure function of the manifest's graph and those results.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::graph::{Graph, TrialNode};
use super::plan::{Plan, State};
use crate::artifact::search::Round;
use crate::config::Resolved;
use crate::manifest::{Combination, StageEntry};
use crate::stages::search::{PlacedRound, Placement, Search, Trial};
use crate::stages::{Node, Part, Upstream};
use crate::store::{self, Digest, Entry};

/// What searches have found so far: the results of each one's rounds, by its index, from the first round.
pub(super) type Results = BTreeMap<usize, Vec<Round>>;

/// How many drawn trials of a round are left after a time limit, by search and round.
pub(super) type Cuts = BTreeMap<(usize, u32), usize>;

/// The manifest's graph with the trials of every round that `results` let know.
pub(super) fn expand(own: &Graph, results: &Results, cuts: &Cuts) -> Graph {
    let mut graph = own.clone();
    for at in 0..own.n_own {
        let node = &own.nodes[at];
        let Some(search) = node.stage.search().filter(|search| search.rank() == 1) else { continue };
        let (search, Some(&tuned)) = (search.clone(), node.inputs.first()) else { continue };
        let found = results.get(&at).map_or(&[][..], Vec::as_slice);
        let n_known = (found.len() + 1).min(search.rounds().len());
        let of_search = |combination: &&Combination| combination.nodes.contains(&at);
        let Some(combination) = own.combinations.iter().find(of_search) else { continue };
        let mut placement = Placement { tuned: own.plain_name(tuned), ..Placement::default() };
        for round in 0..n_known {
            let before = &found[..round];
            let mut trials = search.trials(own.entries[at].seed, before);
            if let Some(&n_left) = cuts.get(&(at, round as u32 + 1)) {
                let mut n_drawn = 0;
                trials.retain(|trial| {
                    n_drawn += usize::from(trial.origin.is_none());
                    trial.origin.is_some() || n_drawn <= n_left
                });
            }
            let mut placed = PlacedRound { ranges: search.ranges(before), trials: Vec::new(), epochs: 0 };
            for trial in trials {
                let place = Place { search: at, tuned, trial: &trial, stage: &search, combination };
                let node = graph.add_trial(&place, &mut placed.epochs);
                placed.trials.push((trial, node));
            }
            placement.rounds.push(placed);
        }
        if let (Some(last), true) = (found.last(), found.len() == search.rounds().len()) {
            let placed = &placement.rounds[found.len() - 1];
            let node_of = |id: &String| placed.trials.iter().find(|(trial, _)| trial.id() == *id)?.1;
            placement.winners = last.trials.iter().filter(|t| t.chosen).filter_map(|t| node_of(&t.trial)).collect();
        }
        let records =
            placement.rounds.iter().flat_map(|round| search.records(round, &placement.tuned, node.flow.folds));
        let records: Vec<Resolved> = records.map(|(key, value)| Resolved { key, value, span: None }).collect();
        Arc::make_mut(&mut graph.entries[at]).resolved.extend(records);
        for rank in 1..=search.keep() {
            let node = &mut graph.nodes[at + rank as usize - 1];
            node.stage = Arc::new(search.of_rank(rank).placed(placement.clone()));
        }
    }
    graph
}

/// A trial that is to be put into the graph.
struct Place<'p> {
    search: usize,
    tuned: usize,
    trial: &'p Trial,
    stage: &'p Search,
    /// The variant of the manifest that is varied further.
    combination: &'p Combination,
}

impl Graph {
    /// Adds the stages of a trial that differ from the manifest's; returns the index of the one that is tuned, and its
    /// epochs. `None` if nothing can be trained with these settings.
    fn add_trial(&mut self, place: &Place<'_>, epochs: &mut u32) -> Option<usize> {
        let tuned = &self.plain_name(place.tuned);
        let overrides = place.stage.overrides(tuned, place.trial);
        let variant = place.combination.trials.make(tuned, &overrides).ok()?;
        // A variant has its stages in the order of the manifest; where they are in the graph, the combination knows.
        let own_nodes = &place.combination.nodes;
        let own_tuned = own_nodes.iter().position(|&node| node == place.tuned)?;
        let mut chain = Upstream { own: own_tuned, nodes: &variant.nodes }.own_lineage();
        chain.push(own_tuned);
        let mut places: BTreeMap<usize, usize> = BTreeMap::new();
        for at in chain {
            let (node, entry) = (&variant.nodes[at], &variant.entries[at]);
            let inputs: Vec<usize> = node.inputs.iter().filter_map(|input| places.get(input).copied()).collect();
            let of = own_nodes[at];
            if inputs == self.nodes[of].inputs && is_same(entry, &self.entries[of]) {
                places.insert(at, of);
                continue;
            }
            let name = format!("{} {} {}", self.nodes[place.search].name, place.trial.id(), node.name);
            places.insert(at, self.nodes.len());
            self.nodes.push(Node { name, inputs, ..node.clone() });
            self.entries.push(entry.clone());
            self.trials.push(TrialNode {
                search: place.search,
                round: place.trial.round,
                trial: place.trial.id(),
                of,
                is_drawn: place.trial.origin.is_none(),
            });
        }
        let resolved = &variant.entries[own_tuned].resolved;
        let own_epochs = resolved.iter().find(|resolved| resolved.key == "epochs");
        *epochs = own_epochs.and_then(|resolved| resolved.value.parse().ok()).unwrap_or(0);
        places.get(&own_tuned).copied()
    }
}

/// Whether two stages of one place read the same keys with the same values.
fn is_same(a: &Arc<StageEntry>, b: &Arc<StageEntry>) -> bool {
    fn keys(entry: &StageEntry) -> impl Iterator<Item = (&str, &str)> {
        entry.resolved.iter().map(|resolved| (resolved.key.as_str(), resolved.value.as_str()))
    }
    Arc::ptr_eq(a, b) || a.seed == b.seed && keys(a).eq(keys(b))
}

/// Reads the results of rounds that are there and not read yet, one round of each search; whether there were any.
///
/// # Errors
/// If the result of a round cannot be read: its fingerprint, and why.
pub(super) fn read_results(
    plan: &Plan,
    open: &dyn Fn(&Entry) -> Result<Round, store::Error>,
    results: &mut Results,
) -> Result<bool, (Digest, store::Error)> {
    let graph = &plan.graph;
    let mut is_more = false;
    for (at, node) in graph.nodes[..graph.n_own].iter().enumerate() {
        let Some(search) = node.stage.search().filter(|search| search.rank() == 1) else { continue };
        let found = results.entry(at).or_default();
        if found.len() >= search.rounds().len() {
            continue;
        }
        let Some(task) = plan.find(at, Part::Round(found.len() as u32 + 1)).map(|i| &plan.tasks[i]) else { continue };
        if let (State::Fresh, Some(entry)) = (&task.state, &task.entry) {
            found.push(open(entry).map_err(|error| (entry.fingerprint, error))?);
            is_more = true;
        }
    }
    Ok(is_more)
}
