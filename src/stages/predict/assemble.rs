//! From the artifacts of a model stage to a model that needs nothing else.

use crate::artifact::calibration::{Calibration, Fit};
use crate::artifact::dataset::{Names, Numbers, read_decode_policy};
use crate::artifact::ensemble::Ensemble;
use crate::artifact::features::Features;
use crate::artifact::model::{MODEL, WEIGHTS};
use crate::artifact::portable::{Abstain, Answer, Member, Portable};
use crate::artifact::predictions::file_of;
use crate::artifact::{Files, features, views};
use crate::data::augment::Views;
use crate::data::decode::{Channels, DecodePolicy, DepthPolicy};
use crate::data::pixels::Depth;
use crate::stages::ensemble::Combine;
use crate::stages::{Need, Node, Output, Part, StageError, Upstream};

/// Where artifacts come from: the stage's index and the task's part, as in `fold 1`.
pub type Deliver<'a, E> = &'a mut dyn FnMut(usize, &str) -> Result<Files, E>;

/// Gathers the final model of `stage`: of an ensemble its members, of any other model the network that was refitted on
/// all rows, else its folds' together.
///
/// # Errors
/// Those of `deliver`, and damaged artifacts.
///
/// # Panics
/// If the stage is no model.
pub fn assemble<E: From<StageError>>(nodes: &[Node], stage: usize, deliver: Deliver<'_, E>) -> Result<Portable, E> {
    let mut members = Vec::new();
    let answer = answer_of_stage(nodes, stage, deliver, &mut members)?;
    let above = Upstream { own: stage, nodes }.own_lineage();
    let source = above.iter().copied().find(|&above| nodes[above].flow.output == Output::Dataset);
    let source = source.expect("every model stage stands below a data set");
    let files = deliver(source, &Part::Whole.to_string())?;
    let dataset = Numbers::read(&files).map_err(StageError::from)?;
    let policy = read_decode_policy(&files).map_err(StageError::from)?;
    Ok(Portable {
        classes: Names::classes_in(&files).map_err(StageError::from)?,
        shape: dataset.shape(),
        depth: dataset.depth(),
        decode: effective(&policy, &dataset),
        members,
        answer,
        abstain: abstain(nodes, stage, deliver)?,
    })
}

/// Where the final model of `stage` abstains.
fn abstain<E: From<StageError>>(nodes: &[Node], stage: usize, deliver: Deliver<'_, E>) -> Result<Option<Abstain>, E> {
    if !nodes[stage].flow.abstains {
        return Ok(None);
    }
    let Some((calibration, fit)) = fitted(nodes, stage, 1, deliver)? else { return Ok(None) };
    Ok(calibration.error.map(|error| Abstain { error, threshold: fit.threshold }))
}

/// What was fitted to the probabilities of the `model`-th (from 1) of the final models of `stage`.
fn fitted<E: From<StageError>>(
    nodes: &[Node],
    stage: usize,
    model: u32,
    deliver: Deliver<'_, E>,
) -> Result<Option<(Calibration, Fit)>, E> {
    let flow = &nodes[stage].flow;
    if !flow.is_calibrated() {
        return Ok(None);
    }
    let part = if flow.output == Output::Ensemble { Part::Whole } else { Part::Calibration };
    let calibration = Calibration::read_optional(&deliver(stage, &part.to_string())?).map_err(StageError::from)?;
    Ok(calibration.and_then(|found| {
        let fit = found.models.get(model as usize - 1)?.of(None);
        Some((found, fit))
    }))
}

/// The answer at the temperature that was fitted, if one was.
fn tempered(answer: Answer, fitted: Option<(Calibration, Fit)>) -> Answer {
    match fitted.and_then(|(_, fit)| fit.temperature) {
        Some(temperature) => Answer::Tempered { temperature, of: Box::new(answer) },
        None => answer,
    }
}

/// The policy with what the data set settled: where all its images were grey, say, `keep` would refuse one in colour,
/// and `gray` does to every image of the data set what `keep` does.
fn effective(policy: &DecodePolicy, dataset: &Numbers) -> DecodePolicy {
    let mut policy = policy.clone();
    match dataset.shape().channels {
        1 => policy.channels = Channels::Gray,
        3 => policy.channels = Channels::Rgb,
        _ => {}
    }
    policy.depth = match dataset.depth() {
        Depth::U8 => DepthPolicy::To8,
        Depth::U16 => DepthPolicy::To16,
    };
    policy
}

fn answer_of_stage<E: From<StageError>>(
    nodes: &[Node],
    stage: usize,
    deliver: Deliver<'_, E>,
    members: &mut Vec<Member>,
) -> Result<Answer, E> {
    let flow = &nodes[stage].flow;
    if flow.output != Output::Ensemble {
        if flow.refit {
            return answer_of_part(nodes, stage, (&Part::All.to_string(), 1), deliver, members);
        }
        let folds: Vec<String> = (1..=flow.folds).map(|fold| Part::Fold(fold).to_string()).collect();
        return answer_of_parts(nodes, stage, (&folds, 1), deliver, members);
    }
    let files = deliver(stage, &Part::Whole.to_string())?;
    let ensemble = Ensemble::read(&files).map_err(StageError::from)?;
    let combine = Combine::read(&files).map_err(StageError::from)?;
    let mut of = Vec::with_capacity(ensemble.members.len());
    for member in &ensemble.members {
        let Some(above) = nodes.iter().position(|node| node.name == member.stage) else {
            let message =
                format!("`{}` has a member `{}` that is not in the manifest", nodes[stage].name, member.stage);
            return Err(StageError::new(message).into());
        };
        of.push(answer_of_parts(nodes, above, (&member.parts, member.model), deliver, members)?);
    }
    let answer = Answer::Combined { combine: rule(&combine)?, of };
    Ok(tempered(answer, fitted(nodes, stage, 1, deliver)?))
}

/// A rule as a portable model holds it.
fn rule(combine: &Combine) -> Result<serde_json::Value, StageError> {
    serde_json::to_value(combine).map_err(|cause| StageError::new(format!("a rule cannot be written ({cause})")))
}

/// The mean of several parts of a stage, as their probabilities are averaged where its final model is evaluated; of
/// each the model of this number.
fn answer_of_parts<E: From<StageError>>(
    nodes: &[Node],
    stage: usize,
    (parts, model): (&[String], u32),
    deliver: Deliver<'_, E>,
    members: &mut Vec<Member>,
) -> Result<Answer, E> {
    if let [part] = parts {
        return answer_of_part(nodes, stage, (part, model), deliver, members);
    }
    let each = parts.iter().map(|part| answer_of_part(nodes, stage, (part, model), deliver, members));
    let of = each.collect::<Result<_, _>>()?;
    Ok(Answer::Combined { combine: rule(&Combine::MeanProbability)?, of })
}

fn answer_of_part<E: From<StageError>>(
    nodes: &[Node],
    stage: usize,
    (part, model): (&str, u32),
    deliver: Deliver<'_, E>,
    members: &mut Vec<Member>,
) -> Result<Answer, E> {
    if nodes[stage].flow.output == Output::Ensemble {
        return answer_of_stage(nodes, stage, deliver, members);
    }
    let upstream = Upstream { own: stage, nodes };
    if let (Some(_), Some(own)) = (
        nodes[stage].stage.search(),
        nodes[stage].stage.parts(&nodes[stage].flow).into_iter().find(|own| own.to_string() == part),
    ) {
        // A search hands on what a trial is, and that has a chain of its own.
        let is_model = |need: &&Need| nodes[need.stage].flow.output == Output::Model;
        let needs = nodes[stage].stage.needs(own, &upstream);
        if let Some(trial) = needs.iter().find(is_model) {
            return answer_of_part(nodes, trial.stage, (&trial.part.to_string(), model), deliver, members);
        }
    }
    let mut chain = Vec::new();
    for above in upstream.own_lineage() {
        if nodes[above].flow.output == Output::Fitted {
            let mut files = deliver(above, part)?;
            if Features::are_in(&files) {
                // What the data set's own images came to.
                files.0.remove(features::FEATURES);
            }
            chain.push(files);
        }
    }
    let views = match part.parse::<Part>().map(Part::predicting) {
        Ok(predicting) if nodes[stage].flow.has_views => {
            views::read(&deliver(stage, &predicting.to_string())?).map_err(StageError::from)?
        }
        _ => Views::default(),
    };
    members.push(Member { chain, network: network(&deliver(stage, part)?, model)?, views });
    Ok(tempered(Answer::Member(members.len() - 1), fitted(nodes, stage, model, deliver)?))
}

/// The files of the `model`-th (from 1) of the networks that a task hands on, under the names of the first.
fn network(files: &Files, model: u32) -> Result<Files, StageError> {
    // Snapshots of one training run have one description.
    let description = files.get(&file_of(MODEL, model)).or_else(|_| files.get(MODEL))?;
    let weights = files.get(&file_of(WEIGHTS, model))?;
    Ok(Files([(MODEL.to_owned(), description.clone()), (WEIGHTS.to_owned(), weights.clone())].into()))
}
