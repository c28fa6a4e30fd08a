//! What a manifest's sources tell about its stages before anything has run.

use std::sync::Arc;

use super::{Manifest, stage_name};
use crate::config::{Log, Problem, Severity, Span};
use crate::stages::{Flow, Glance, Node, Places, StageError, Upstream};

/// What a look at the sources found.
#[derive(Debug, Default)]
pub struct Looked {
    /// What is wrong, or worth a warning, and was not known from the manifest alone.
    pub problems: Vec<Problem>,
    /// What each stage hands on, by index.
    pub flows: Vec<Flow>,
    /// Stages with sources, and what those hold, in a sentence without its subject.
    pub told: Vec<(String, String)>,
}

/// What is known of what a stage reads from outside, and a sentence about it without its subject.
pub type Seen = (Glance, String);

impl Manifest {
    /// What is wrong with the sources without looking into them: that they are not there, say. Nothing of it stops
    /// whoever checks a manifest apart from its data, but what its gates are compared with belongs to it.
    pub fn absent_sources(&self, places: &Places) -> Vec<Problem> {
        let nodes = self.nodes.iter().enumerate();
        let mut problems: Vec<Problem> = nodes
            .filter_map(|(at, node)| {
                let error = node.stage.sources(places).err()?;
                let is_gate = error.key.as_ref().is_some_and(|key| key.starts_with("gates"));
                let severity = if is_gate { Severity::Error } else { Severity::Warning };
                Some(Problem { severity, ..self.problem(at, error) })
            })
            .collect();
        problems.dedup();
        problems
    }

    /// Checks every stage again with what `see` tells of what a stage (by index) reads from outside.
    pub fn look(&self, see: &dyn Fn(usize) -> Result<Option<Seen>, StageError>) -> Looked {
        let mut looked = Looked::default();
        let mut nodes: Vec<Node> = self.nodes.clone();
        // Stages name one another as the manifest does, in whichever variant.
        nodes.iter_mut().for_each(|node| node.name = stage_name(&node.name).to_owned());
        let mut glances: Vec<Option<Arc<Glance>>> = Vec::with_capacity(nodes.len());
        for at in 0..nodes.len() {
            let entry = &self.entries[at];
            let stage = Arc::clone(&nodes[at].stage);
            let flows: Vec<Flow> = nodes[at].inputs.iter().map(|&input| nodes[input].flow.clone()).collect();
            let mut log = Log { resolved: entry.resolved.clone(), ..Log::default() };
            let mut flow = stage.check(&flows, entry.header, &mut log);
            looked.problems.append(&mut log.problems);
            let mut glance = nodes[at].inputs.first().and_then(|&input| glances[input].clone());
            match see(at) {
                Ok(Some((own, told))) => {
                    own.tell(&mut flow);
                    let warned = own.warnings.iter().map(|text| StageError::new(text.clone()).key("source"));
                    let warned = warned.map(|error| self.problem(at, error));
                    looked.problems.extend(warned.map(|problem| Problem { severity: Severity::Warning, ..problem }));
                    looked.told.push((self.nodes[at].name.clone(), told));
                    glance = Some(Arc::new(own));
                }
                Ok(None) => {}
                Err(error) => looked.problems.push(self.problem(at, error)),
            }
            match stage.try_on(flows.first(), glance.as_deref(), entry.seed) {
                Ok(tried) => {
                    flow.n_samples = tried.n_training.or(flow.n_samples);
                    let warnings = tried.warnings.into_iter().map(|warning| self.problem(at, warning));
                    let warnings = warnings.map(|problem| Problem { severity: Severity::Warning, ..problem });
                    looked.problems.extend(warnings);
                }
                Err(error) => looked.problems.push(self.problem(at, error)),
            }
            nodes[at].flow = flow;
            glances.push(glance);
        }
        for (own, entry) in self.entries.iter().enumerate() {
            let mut log = Log { resolved: entry.resolved.clone(), ..Log::default() };
            nodes[own].stage.check_graph(&Upstream { own, nodes: &nodes }, &mut log);
            looked.problems.extend(log.problems.into_iter().map(|problem| entry.locate(problem)));
        }
        let mut problems: Vec<Problem> = Vec::new();
        for problem in looked.problems {
            if !self.warnings.contains(&problem) && !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        Looked { problems, flows: nodes.into_iter().map(|node| node.flow).collect(), told: looked.told }
    }

    /// Gates that name a class or a group which the data set of the stage `dataset` has not.
    pub fn refused_gates(&self, dataset: usize, glance: &Glance) -> Vec<Problem> {
        let upstream = |own: usize| Upstream { own, nodes: &self.nodes }.own_lineage();
        let nodes = self.nodes.iter().enumerate();
        let judges =
            nodes.filter(|(at, node)| !node.stage.listed_gates().is_empty() && upstream(*at).contains(&dataset));
        let tried = judges.map(|(at, node)| (at, node.stage.try_on(None, Some(glance), self.entries[at].seed)));
        tried.filter_map(|(at, tried)| Some(self.problem(at, tried.err()?))).collect()
    }

    /// An error of a stage, at the key that caused it.
    fn problem(&self, stage: usize, error: StageError) -> Problem {
        let span = error.key.as_ref().map(|key| self.span_of(stage, key)).filter(|span| *span != Span::default());
        let message = format!("stage `{}`: {}", self.nodes[stage].name, error.message);
        Problem { help: error.help, ..Problem::error(span.unwrap_or(self.entries[stage].header), message) }
    }
}
