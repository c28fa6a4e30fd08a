//! How what several members say of the same samples becomes one answer.

use std::borrow::Borrow;

use super::super::StageError;
use super::super::calibrate::softmax;
use crate::artifact::ensemble::{Ensemble, Stacking};
use crate::artifact::predictions::Predictions;
use crate::artifact::{Error, Files};
use crate::data::metrics::arg_max;

/// The words of the manifest.
pub(super) const WORDS: [&str; 4] = ["mean-probability", "vote", "weighted", "stacking"];

/// A rule, with all that was fitted.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// The mean of the probabilities.
    MeanProbability,
    /// Each member votes for its most probable class; the class with most votes wins, of equals the one with the
    /// highest mean probability, of equals the first. Probabilities are `(votes + mean probability) / (members + 1)`:
    /// the mean is one more vote, divided, which decides between equals and can never outvote a whole vote.
    Vote,
    /// The mean of the probabilities, each member with its weight; weights sum to 1.
    Weighted(Vec<f64>),
    /// A softmax regression on the members' probabilities (Wolpert, 1992).
    Stacking(Stacking),
}

impl Combine {
    /// The word in the manifest.
    pub fn word(&self) -> &'static str {
        match self {
            Combine::MeanProbability => WORDS[0],
            Combine::Vote => WORDS[1],
            Combine::Weighted(_) => WORDS[2],
            Combine::Stacking(_) => WORDS[3],
        }
    }

    /// The rule of an ensemble's artifact.
    ///
    /// # Errors
    /// If its files are damaged.
    pub fn read(files: &Files) -> Result<Combine, Error> {
        let ensemble = Ensemble::read(files)?;
        let weights: Option<Vec<f64>> = ensemble.members.iter().map(|member| member.weight).collect();
        match (ensemble.combine.as_str(), weights) {
            ("mean-probability", _) => Ok(Combine::MeanProbability),
            ("vote", _) => Ok(Combine::Vote),
            ("weighted", Some(weights)) => Ok(Combine::Weighted(weights)),
            ("stacking", _) => Ok(Combine::Stacking(Stacking::read(files)?)),
            (word, _) => Err(Error {
                file: crate::artifact::ensemble::MEMBERS.to_owned(),
                message: format!("combines its members by `{word}`, which this program does not know"),
            }),
        }
    }

    /// Combines what members say of the same samples.
    ///
    /// # Errors
    /// If they do not speak of the same samples and classes, or are not as many as were fitted.
    ///
    /// # Determinism
    /// Sums run over members in their order, in double precision.
    pub fn apply<P: Borrow<Predictions>>(&self, members: &[P]) -> Result<Predictions, StageError> {
        let members: Vec<&Predictions> = members.iter().map(Borrow::borrow).collect();
        let Some(&first) = members.first() else { return Err(StageError::new("an ensemble has no members")) };
        for other in &members {
            if other.rows() != first.rows() || other.n_classes() != first.n_classes() {
                return Err(StageError::new(format!(
                    "members of an ensemble predict different things: {} samples of {} classes, and {} of {}",
                    first.len(),
                    first.n_classes(),
                    other.len(),
                    other.n_classes()
                )));
            }
        }
        let n_classes = first.n_classes();
        let fitted = match self {
            Combine::Weighted(weights) => (weights.len(), n_classes),
            Combine::Stacking(stacking) => (stacking.n_members, stacking.n_classes),
            Combine::MeanProbability | Combine::Vote => (members.len(), n_classes),
        };
        if fitted != (members.len(), n_classes) {
            return Err(StageError::new(format!(
                "an ensemble fitted for {} members and {} classes cannot combine {} and {n_classes}",
                fitted.0,
                fitted.1,
                members.len()
            )));
        }
        let mut probabilities = Vec::with_capacity(first.len() * n_classes);
        let mut sums = vec![0.0f64; n_classes];
        for i in 0..first.len() {
            match self {
                Combine::MeanProbability => mean(&members, i, &mut sums),
                Combine::Vote => vote(&members, i, &mut sums),
                Combine::Weighted(weights) => mix(&members, weights, i, &mut sums),
                Combine::Stacking(stacking) => stack(&members, stacking, i, &mut sums),
            }
            probabilities.extend(sums.iter().map(|&p| p as f32));
        }
        Ok(Predictions::new(first.rows().to_vec(), n_classes, probabilities))
    }
}

fn mean(members: &[&Predictions], i: usize, out: &mut [f64]) {
    out.fill(0.0);
    for member in members {
        for (sum, &p) in out.iter_mut().zip(member.row(i)) {
            *sum += f64::from(p);
        }
    }
    out.iter_mut().for_each(|sum| *sum /= members.len() as f64);
}

fn vote(members: &[&Predictions], i: usize, out: &mut [f64]) {
    mean(members, i, out);
    for member in members {
        out[arg_max(member.row(i))] += 1.0;
    }
    out.iter_mut().for_each(|sum| *sum /= members.len() as f64 + 1.0);
}

fn mix(members: &[&Predictions], weights: &[f64], i: usize, out: &mut [f64]) {
    out.fill(0.0);
    for (member, weight) in members.iter().zip(weights) {
        for (sum, &p) in out.iter_mut().zip(member.row(i)) {
            *sum += weight * f64::from(p);
        }
    }
}

fn stack(members: &[&Predictions], stacking: &Stacking, i: usize, out: &mut [f64]) {
    out.copy_from_slice(&stacking.intercepts);
    let said = members.iter().flat_map(|member| member.row(i));
    for (&p, coefficients) in said.zip(stacking.coefficients.chunks_exact(stacking.n_classes)) {
        for (score, coefficient) in out.iter_mut().zip(coefficients) {
            *score += coefficient * f64::from(p);
        }
    }
    softmax(out);
}
