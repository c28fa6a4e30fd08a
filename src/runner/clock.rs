//! How long searches may go on: the only clock that decides anything, and only for `time_limit`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::graph::Graph;
use crate::stages::search::Search;

/// When searches began their first trial in this run.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<BTreeMap<usize, Instant>>);

impl Clock {
    /// A trial of the search at this index begins.
    pub fn start(&self, search: usize) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).entry(search).or_insert_with(Instant::now);
    }

    /// Whether its time is over.
    pub fn is_over(&self, at: usize, search: &Search) -> bool {
        let started = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&at).copied();
        match (started, search.time_limit()) {
            (Some(started), Some(limit)) => started.elapsed() >= Duration::from_secs(limit),
            _ => false,
        }
    }

    /// Whether a node is a drawn trial's of a search whose time is over.
    pub fn ends(&self, graph: &Graph, stage: usize) -> bool {
        let Some(trial) = graph.trial(stage).filter(|trial| trial.is_drawn) else { return false };
        graph.nodes[trial.search].stage.search().is_some_and(|search| self.is_over(trial.search, search))
    }
}
