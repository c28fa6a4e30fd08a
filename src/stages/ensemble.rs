//! `ensemble`: one model made of the folds of one stage, or of several models.
//!
//! No network runs here: members have written their probabilities, which are combined sample by sample. With several
//! members, each takes part with its final model (all its folds together, or the one that was refitted); fold f out of
//! fold combines what the members' folds f say of it. A stage that hands on several models (snapshots of one training
//! run, the best of a search) is as many members. With a single model, its folds are the members; such an ensemble has
//! no out-of-fold score, since each fold's model was trained on what the others validate.
//!
//! Weights and stacking are fitted on out-of-fold predictions only, and cross-fitted: what is said of fold f is
//! combined by what was fitted on the other folds. The rule for new images is fitted on all of them. With `folds = 1`
//! there is nothing to cross, and what is said of those rows is `validation_selected`.
//!
//! The rules are in `ensemble/combine.rs`, how they are fitted in `ensemble/weights.rs` and `ensemble/stacking.rs`,
//! what was delivered of the members in `ensemble/models.rs`.

mod combine;
mod models;
pub mod stacking;
pub mod weights;

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::calibrate::{self, Calibrate};
use super::{
    Context, Flow, Kind, Learns, Need, Output, Part, Places, Reads, Stage, StageError, Task, Upstream, lineage,
};
use crate::artifact::Sink;
use crate::artifact::calibration::CALIBRATION;
use crate::artifact::dataset::{NUMBERS_FILES, Numbers};
use crate::artifact::ensemble::{Ensemble, MEMBERS, Member, STACKING, Stacking, WEIGHTS, validation_name};
use crate::artifact::predictions::{OutOfFold, TEST};
use crate::artifact::table::{Cell, Table};
use crate::config::{Bounds, Choice, Log, Problem, Section, Span};
pub use combine::Combine;
use combine::WORDS;
pub(super) use models::{Model, models, name_of, prediction_needs};

/// The line in the list.
pub const KIND: Kind = Kind {
    name: "ensemble",
    read,
    example: "schema = 1\nname = \"example\"\n\n[stages.ingest]\nsource = \"builtin:digits\"\n\n[stages.split]\n\n\
              [stages.train]\narchitecture = \"INPUT - FC\"\n\n[stages.ensemble]\ncombine = \"mean-probability\"\n",
};

/// `combine`: how what members say becomes one answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum CombineConfig {
    /// The mean of the probabilities.
    MeanProbability,
    /// Each member has a vote.
    Vote,
    /// The mean with the weights that have the smallest log loss out of fold.
    Weighted,
    /// A softmax regression on the members' probabilities out of fold; `l2 / 2 * |coefficients|^2` is added to its mean
    /// log loss [0.001], which is scikit-learn's own for a thousand images (`C = 1`).
    Stacking { l2: f64 },
}

impl CombineConfig {
    fn word(self) -> &'static str {
        match self {
            CombineConfig::MeanProbability => WORDS[0],
            CombineConfig::Vote => WORDS[1],
            CombineConfig::Weighted => WORDS[2],
            CombineConfig::Stacking { .. } => WORDS[3],
        }
    }

    /// Whether it learns from out-of-fold predictions.
    fn is_fitted(self) -> bool {
        matches!(self, CombineConfig::Weighted | CombineConfig::Stacking { .. })
    }
}

/// Combines models.
#[derive(Clone, Debug, PartialEq)]
pub struct EnsembleStage {
    /// "mean-probability" (the default), "vote", "weighted" or "stacking" (or `{ stacking = { l2 = 0.001 } }`).
    combine: CombineConfig,
    /// What is fitted to the combined probabilities: `calibrate`, `abstain` [nothing].
    calibrate: Calibrate,
}

/// The choices of `combine`.
const CHOICES: &[Choice<CombineConfig>] = &[
    Choice { word: WORDS[0], meaning: "The mean of the probabilities.", read: |_| CombineConfig::MeanProbability },
    Choice { word: WORDS[1], meaning: "Each member has a vote.", read: |_| CombineConfig::Vote },
    Choice {
        word: WORDS[2],
        meaning: "The mean with the weights that have the smallest log loss out of fold.",
        read: |_| CombineConfig::Weighted,
    },
    Choice {
        word: WORDS[3],
        meaning: "A softmax regression on the members' probabilities out of fold.",
        read: |section| {
            let meaning = "Half of it times the squared coefficients is added to the mean log loss.";
            CombineConfig::Stacking { l2: section.key("l2", meaning, "0.1").number(Bounds::Positive).or(0.001) }
        },
    },
];

fn read(section: &mut Section<'_>) -> Box<dyn Stage> {
    let key = section.key("combine", "How what members say becomes one answer.", "\"weighted\"");
    let combine = key.choice(CHOICES, Some(WORDS[0])).unwrap_or(CombineConfig::MeanProbability);
    Box::new(EnsembleStage { combine, calibrate: Calibrate::read(section) })
}

impl Stage for EnsembleStage {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn rooms(&self, _part: Part, upstream: &Upstream<'_>) -> Vec<&'static str> {
        // Several folds of a member are its mean, however members are combined.
        let own = [KIND.name, WORDS[0], self.combine.word()].into_iter().chain(self.calibrate.rooms());
        let members = &upstream.nodes[upstream.own].inputs;
        own.chain(members.iter().flat_map(|&member| calibrate::rooms_of(&upstream.nodes[member].flow))).collect()
    }

    fn accepts(&self) -> &'static [Output] {
        &[Output::Model, Output::Ensemble]
    }

    fn takes_members(&self) -> bool {
        true
    }

    fn reads_names(&self) -> bool {
        true
    }

    fn check(&self, inputs: &[Flow], span: Span, log: &mut Log) -> Flow {
        let first = &inputs[0];
        let n_models = inputs.iter().fold(0, |n, input| n + input.models);
        let voters = if n_models == 1 && first.output == Output::Model { first.folds } else { n_models };
        let word = self.combine.word();
        if self.combine.is_fitted() && n_models == 1 {
            let what = match first.output {
                Output::Model => "the folds of one model, which have none in common",
                _ => "a single ensemble",
            };
            let message = format!("`{word}` is fitted on out-of-fold predictions of several members, not on {what}");
            log.push(
                Problem::error(log.span_of("combine", span), message)
                    .help("name several stages in `members`, or use `combine = \"mean-probability\"`"),
            );
        } else if voters == 1 {
            let what = if first.output == Output::Model { "one model" } else { "one ensemble" };
            let problem = Problem::warning(span, format!("an ensemble of {what} says what its member says"));
            log.push(problem.help("add `members`, or use more `folds`"));
        } else if self.combine.is_fitted() && first.folds == 1 {
            let message = format!(
                "with `folds = 1`, `{word}` is fitted on the validation images, about which it is then \
                 `validation_selected`"
            );
            let problem = Problem::warning(log.span_of("combine", span), message);
            log.push(problem.help("use more `folds`, over which it is cross-fitted"));
        }
        if self.calibrate.is_asked() && n_models == 1 {
            let (key, what) = match first.output {
                Output::Model => (self.calibrate.key(), "the folds of one model have none in common"),
                _ => (self.calibrate.key(), "a single ensemble has its own"),
            };
            let message = format!("`{key}` is fitted on out-of-fold predictions of the ensemble, and {what}");
            let help = format!("put `{key}` into the stage that is its member, or name several `members`");
            log.push(Problem::error(log.span_of(key, span), message).help(help));
        } else if self.calibrate.is_asked() {
            self.calibrate.warn_of_one_fold(first.folds, span, log);
        }
        if voters == 2 && self.combine == CombineConfig::Vote {
            let message = "with two voters every disagreement is a tie, and the mean probability decides";
            let problem = Problem::warning(log.span_of("combine", span), message);
            log.push(problem.help("use `combine = \"mean-probability\"`"));
        }
        if let Some((a, b)) = inputs.iter().find_map(|other| match (first.n_classes, other.n_classes) {
            (Some(a), Some(b)) if a != b => Some((a, b)),
            _ => None,
        }) {
            log.push(Problem::error(span, format!("members have {a} and {b} classes, expected the same")));
        }
        Flow {
            output: Output::Ensemble,
            refit: false,
            models: 1,
            has_views: false,
            has_temperature: self.calibrate.has_temperature(),
            abstains: self.calibrate.abstains(),
            ..first.clone()
        }
    }

    fn parts(&self, _flow: &Flow) -> Vec<Part> {
        vec![Part::Whole]
    }

    fn needs(&self, _part: Part, upstream: &Upstream<'_>) -> Vec<Need> {
        let mut needs = Vec::new();
        if self.is_fitted() {
            // The truth.
            needs.extend(lineage::dataset_need(upstream, NUMBERS_FILES));
        }
        let members = &upstream.nodes[upstream.own].inputs;
        for &member in members {
            let flow = &upstream.nodes[member].flow;
            // Of a single stage the folds are the members, whatever its final model is.
            let flow = if members.len() == 1 { &Flow { refit: false, ..flow.clone() } } else { flow };
            needs.extend(prediction_needs(member, flow));
        }
        needs
    }

    fn learns(&self, _part: Part) -> Option<Learns> {
        // Means and votes have nothing to learn.
        let chosen = if self.combine.is_fitted() { "weighs its members" } else { self.calibrate.chosen() };
        let learns = Learns {
            fitted: Reads(&[MEMBERS, STACKING, WEIGHTS, CALIBRATION]),
            says: Reads(&[TEST]),
            chosen: Some(chosen),
        };
        self.is_fitted().then_some(learns)
    }

    fn run(&self, task: &Task, _: &Places, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
        let models = models(task)?;
        let folds = said_of_folds(&models)?;
        let rules = self.rules(task, &models, &folds, context)?;

        let (members, is_scored_out_of_fold) = match &models[..] {
            [one] => (one.apart(), one.is_scored_out_of_fold()? && one.ensemble().is_some()),
            several => (several.iter().map(Model::as_member).collect(), true),
        };
        let weight = |i: usize| match &rules.last {
            Combine::Weighted(weights) => Some(weights[i]),
            Combine::Stacking(_) => None,
            Combine::MeanProbability | Combine::Vote => Some(1.0 / members.len() as f64),
        };
        let member = |(i, (stage, model, parts)): (usize, &(String, u32, Vec<String>))| Member {
            stage: stage.clone(),
            model: *model,
            parts: parts.clone(),
            weight: weight(i),
        };
        let ensemble = Ensemble {
            format: 2,
            combine: self.combine.word().to_owned(),
            is_scored_out_of_fold,
            members: members.iter().enumerate().map(member).collect(),
        };
        ensemble.write(sink)?;
        if let Combine::Stacking(stacking) = &rules.last {
            stacking.write(sink)?;
        }
        if self.combine.is_fitted() {
            sink.put(WEIGHTS, &weights_table(&rules, &models))?;
        }

        let test = match &models[..] {
            [one] => one.tests()?,
            several => several.iter().map(Model::test).collect::<Result<Option<Vec<_>>, _>>()?.unwrap_or_default(),
        };
        if !test.is_empty() {
            rules.last.apply(&test)?.write(sink, TEST)?;
        }
        let mut out_of_fold = Vec::new();
        for (i, fold) in folds.iter().enumerate() {
            // A single model's fold stays what it is: a vote of one would change its probabilities.
            let rule = match fold.said.len() {
                1 => &Combine::MeanProbability,
                _ => rules.by_fold.get(i).unwrap_or(&rules.last),
            };
            let is_selected = fold.is_selected() || self.combine.is_fitted() && folds.len() == 1;
            let said = rule.apply(&fold.said)?;
            said.write(sink, &validation_name(fold.number, is_selected))?;
            if let (true, Some(first)) = (self.calibrate.is_asked(), fold.said.first()) {
                out_of_fold.push(first.clone().changed(is_selected, |_| said));
            }
            context.progress(i as u64 + 1, folds.len() as u64, "folds", "");
        }
        if self.calibrate.is_asked() {
            let dataset = lineage::numbers(task)?;
            let (calibration, warnings) = self.calibrate.fit(&[out_of_fold], &dataset)?;
            warnings.iter().for_each(|warning| context.warn(warning));
            calibration.write(sink)?;
        }
        Ok(())
    }
}

/// What members say of a fold out of fold.
struct Fold {
    /// From 1.
    number: u32,
    /// By member.
    said: Vec<OutOfFold>,
}

impl Fold {
    /// Whether those rows chose a member.
    fn is_selected(&self) -> bool {
        self.said.iter().any(OutOfFold::is_selected)
    }
}

/// What members say of every fold; nothing of a fold that no member speaks of.
fn said_of_folds(models: &[Model<'_>]) -> Result<Vec<Fold>, StageError> {
    let n_folds = models.iter().filter_map(Model::folds).max().unwrap_or(0);
    let mut folds = Vec::new();
    for number in 1.. {
        let said: Vec<OutOfFold> =
            models.iter().map(|model| model.validation(number)).collect::<Result<Option<_>, _>>()?.unwrap_or_default();
        if said.is_empty() {
            if number <= n_folds {
                return Err(StageError::new(format!("a member of the ensemble has no predictions of fold {number}")));
            }
            break;
        }
        folds.push(Fold { number, said });
    }
    Ok(folds)
}

/// The rules of an ensemble.
struct Rules {
    /// For the test split and new images.
    last: Combine,
    /// For each fold, fitted without it; empty where one rule is for all.
    by_fold: Vec<Combine>,
}

impl EnsembleStage {
    /// Whether anything is learned.
    fn is_fitted(&self) -> bool {
        self.combine.is_fitted() || self.calibrate.is_asked()
    }

    fn rules(
        &self,
        task: &Task,
        models: &[Model<'_>],
        folds: &[Fold],
        context: &dyn Context,
    ) -> Result<Rules, StageError> {
        match self.combine {
            CombineConfig::MeanProbability => return Ok(Rules { last: Combine::MeanProbability, by_fold: Vec::new() }),
            CombineConfig::Vote => return Ok(Rules { last: Combine::Vote, by_fold: Vec::new() }),
            CombineConfig::Weighted | CombineConfig::Stacking { .. } => {}
        }
        if models.len() < 2 || folds.is_empty() {
            let message = format!("`{}` needs out-of-fold predictions of several members", self.combine.word());
            return Err(StageError::new(message).key("combine").help("use `combine = \"mean-probability\"`"));
        }
        let dataset = lineage::numbers(task)?;
        for fold in folds {
            // Rules are fitted on what members say of the same samples: found out here, not in the middle of a fit.
            Combine::MeanProbability.apply(&fold.said)?;
            let n_samples = dataset.n_samples();
            let is_beyond = fold.said[0].rows().last().is_some_and(|&row| row as usize >= n_samples);
            if is_beyond || fold.said[0].n_classes() != dataset.n_classes() {
                return Err(StageError::new("members of the ensemble predict another data set than its own"));
            }
        }
        // Nothing is crossed where there is one fold. All rows first, then all but each fold.
        let n_fits = if folds.len() == 1 { 1 } else { 1 + folds.len() };
        let fits: Vec<(Combine, bool)> = (0..n_fits)
            .into_par_iter()
            .map(|fit| {
                let others = folds.iter().enumerate().filter(|(i, _)| fit == 0 || *i != fit - 1);
                self.fitted(&others.map(|(_, fold)| fold).collect::<Vec<_>>(), &dataset)
            })
            .collect();
        if fits.iter().any(|(_, is_converged)| !is_converged) {
            context.warn("the stacking regression did not converge; a larger `l2` makes it easier");
        }
        let mut rules = fits.into_iter().map(|(rule, _)| rule);
        let last = rules.next().expect("one fit at least");
        Ok(Rules { last, by_fold: rules.collect() })
    }

    /// The rule fitted on these folds, and whether the fit converged.
    fn fitted(&self, folds: &[&Fold], dataset: &Numbers) -> (Combine, bool) {
        let n_members = folds[0].said.len();
        let samples = || folds.iter().flat_map(|fold| (0..fold.said[0].len()).map(move |i| (&fold.said, i)));
        let label = |said: &[OutOfFold], i: usize| dataset.label(said[0].rows()[i] as usize);
        match self.combine {
            CombineConfig::Stacking { l2 } => {
                let labels: Vec<u32> = samples().map(|(said, i)| label(said, i)).collect();
                let probabilities: Vec<f64> = samples()
                    .flat_map(|(said, i)| said.iter().flat_map(move |member| member.row(i)))
                    .map(|&p| f64::from(p))
                    .collect();
                let n_classes = dataset.n_classes();
                let said = stacking::Said { probabilities: &probabilities, labels: &labels, n_members, n_classes };
                let (stacking, is_converged) = stacking::fit(said, l2);
                (Combine::Stacking(stacking), is_converged)
            }
            _ => {
                let truths: Vec<f64> = samples()
                    .flat_map(|(said, i)| {
                        let label = label(said, i) as usize;
                        said.iter().map(move |member| f64::from(member.row(i)[label]))
                    })
                    .collect();
                (Combine::Weighted(weights::fit(n_members, &truths)), true)
            }
        }
    }
}

/// What was fitted, one row a number: first for new images, then cross-fitted. Weights of members; of a stacking
/// regression, coefficients and intercepts ([`crate::artifact::ensemble`] says which is which).
fn weights_table(rules: &Rules, models: &[Model<'_>]) -> Vec<u8> {
    let is_stacked = matches!(rules.last, Combine::Stacking(_));
    let columns: &[&str] = match is_stacked {
        true => &["without_fold", "member", "said", "scored", "weight"],
        false => &["without_fold", "member", "weight"],
    };
    let mut table = Table::new(columns);
    let crossed = (1u32..).zip(&rules.by_fold).map(|(fold, rule)| (Some(fold), rule));
    for (fold, rule) in std::iter::once((None, &rules.last)).chain(crossed) {
        match rule {
            Combine::Weighted(weights) => {
                for (model, weight) in models.iter().zip(weights) {
                    table.row(&[fold.into(), Cell::Text(&model.name), (*weight).into()]);
                }
            }
            Combine::Stacking(Stacking { n_classes, coefficients, intercepts, .. }) => {
                for (at, coefficient) in coefficients.iter().enumerate() {
                    let (said, scored) = (at / n_classes % n_classes, at % n_classes);
                    let member = Cell::Text(&models[at / (n_classes * n_classes)].name);
                    table.row(&[
                        fold.into(),
                        member,
                        Cell::Whole(said as u64),
                        Cell::Whole(scored as u64),
                        (*coefficient).into(),
                    ]);
                }
                for (scored, intercept) in intercepts.iter().enumerate() {
                    table.row(&[
                        fold.into(),
                        Cell::Empty,
                        Cell::Empty,
                        Cell::Whole(scored as u64),
                        (*intercept).into(),
                    ]);
                }
            }
            Combine::MeanProbability | Combine::Vote => {}
        }
    }
    table.into_bytes()
}
