//! Predicting images that are in no data set, with a finished model: not a stage, but what `predict` stands on.
//!
//! [`assemble`] gathers what a model stage's artifacts hold into a [`Portable`] model; a [`Predictor`] repeats on new
//! images what the stages did to those of the data set, step by step with the same code: transforms, projections,
//! networks, and the ensemble's rule. An image of the test split gets the bits that `predictions.csv` has.

mod assemble;
mod labelled;
pub mod onnx;

use std::sync::Arc;

use super::StageError;
use super::calibrate::tempered;
use super::ensemble::Combine;
use crate::artifact::features::read_projection;
use crate::artifact::model::{Description, read_weights};
use crate::artifact::portable::{Abstain, Answer, Member, Portable};
use crate::artifact::predictions::Predictions;
use crate::artifact::transform;
use crate::data::augment::Views;
use crate::data::decode::{DecodePolicy, Decoded};
use crate::data::feed::Feed;
use crate::data::pixels::Depth;
use crate::data::reduce::Projection;
use crate::data::samples::{Samples, Values};
use crate::data::transform::Fitted;
use crate::engine::Engine;
use crate::memory;
use crate::nn::architecture;
use crate::nn::network::{NamedTensor, Network};
use crate::nn::plan::NetworkPlan;
use crate::tensor::{ImageShape, SampleShape};

pub use assemble::assemble;
pub use labelled::{Evaluated, Labelled, evaluate};

/// Samples that a network takes at once: its values stay in a cache, and its panels are full.
const BATCH: usize = 64;
/// Values of transformed samples that are in memory at once, of all members' inputs the largest: 16 MiB.
const CHUNK_VALUES: usize = 4 << 20;
/// Samples in memory at once, however small.
const CHUNK_LEN: usize = 1024;

/// A model in memory, ready for images.
pub struct Predictor {
    engine: Engine,
    classes: Vec<String>,
    shape: ImageShape,
    depth: Depth,
    decode: DecodePolicy,
    members: Vec<Loaded>,
    answer: Answering,
    abstain: Option<Abstain>,
    images: Images,
}

/// A member, ready to run.
#[derive(Debug)]
struct Loaded {
    steps: Vec<Step>,
    network: Network,
    views: Views,
}

/// What images go through before a network.
#[derive(Debug)]
enum Step {
    /// Applied while loading.
    Transforms(Vec<Fitted>),
    /// Computed once.
    Projection(Projection),
}

/// Images one after the other, as they were decoded.
#[derive(Clone, Debug)]
struct Images {
    shape: SampleShape,
    depth: Depth,
    pixels: Vec<u8>,
}

/// Features one after the other.
#[derive(Debug)]
struct Rows {
    shape: SampleShape,
    values: Vec<[u8; 4]>,
}

impl Samples for Images {
    fn n_samples(&self) -> usize {
        self.pixels.len() / (self.shape.len() * self.depth.bytes())
    }

    fn shape(&self) -> SampleShape {
        self.shape
    }

    fn values(&self, i: usize) -> Values<'_> {
        let len = self.shape.len() * self.depth.bytes();
        let pixels = &self.pixels[i * len..(i + 1) * len];
        match self.depth {
            Depth::U8 => Values::U8(pixels),
            Depth::U16 => Values::U16(pixels.as_chunks().0),
        }
    }
}

impl Samples for Rows {
    fn n_samples(&self) -> usize {
        self.values.len() / self.shape.len()
    }

    fn shape(&self) -> SampleShape {
        self.shape
    }

    fn values(&self, i: usize) -> Values<'_> {
        Values::F32(&self.values[i * self.shape.len()..(i + 1) * self.shape.len()])
    }
}

impl Predictor {
    /// Loads a model.
    ///
    /// # Errors
    /// If its parts are damaged or do not fit one another.
    pub fn new(engine: &Engine, model: &Portable) -> Result<Predictor, StageError> {
        let answer = Answering::new(&model.answer, model.members.len())?;
        let load = |(i, member): (usize, &Member)| {
            load(engine, member, model).map_err(|e| StageError::new(format!("member {}: {e}", i + 1)))
        };
        let members = model.members.iter().enumerate().map(load).collect::<Result<_, _>>()?;
        Ok(Predictor {
            engine: engine.clone(),
            classes: model.classes.clone(),
            shape: model.shape,
            depth: model.depth,
            decode: model.decode.clone(),
            members,
            answer,
            abstain: model.abstain,
            images: Images { shape: SampleShape::Image(model.shape), depth: model.depth, pixels: Vec::new() },
        })
    }

    /// The classes' names, by label.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// How images are to be decoded for it.
    pub fn decode_policy(&self) -> &DecodePolicy {
        &self.decode
    }

    /// Networks that it asks.
    pub fn n_members(&self) -> usize {
        self.members.len()
    }

    /// Which images it does not answer; `None`: it answers all.
    pub fn abstain(&self) -> Option<Abstain> {
        self.abstain
    }

    /// How many images [`Predictor::predict`] wants at a time.
    pub fn chunk_len(&self) -> usize {
        let widest = self.members.iter().map(|member| member.network.plan().input.len()).max().unwrap_or(1);
        (CHUNK_VALUES / widest.max(self.shape.len()).max(1)).clamp(1, CHUNK_LEN)
    }

    /// Takes an image, to be predicted with the next [`Predictor::predict`].
    ///
    /// # Errors
    /// If it has not the shape of the model's images: the reason, to follow the image's name.
    pub fn push(&mut self, image: &Decoded) -> Result<(), String> {
        if (image.shape, image.depth) == (self.shape, self.depth) {
            self.images.pixels.extend_from_slice(&image.pixels);
            return Ok(());
        }
        let (got, own) = (image.shape, self.shape);
        Err(if (got.width, got.height) != (own.width, own.height) {
            format!(
                "is {}x{} pixels, the model takes {}x{} (it was trained without `resize`)",
                got.width, got.height, own.width, own.height
            )
        } else {
            format!("has {} channels, the model takes {}", got.channels, own.channels)
        })
    }

    /// Predicts the images that were pushed, in their order, and forgets them.
    ///
    /// # Errors
    /// If the members' answers cannot be combined.
    ///
    /// # Determinism
    /// The same bits for any number of threads, any instruction set, and however images are cut into chunks.
    pub fn predict(&mut self) -> Result<Predictions, StageError> {
        let pixels = std::mem::take(&mut self.images.pixels);
        let images: Arc<dyn Samples> = Arc::new(Images { pixels, ..self.images });
        let said = self.members.iter_mut().map(|member| member.predict(&self.engine, Arc::clone(&images)));
        self.answer.of(&said.collect::<Result<Vec<_>, _>>()?)
    }

    /// The activations before the last layer of the network at `member`, for the images that were pushed, in their order,
    /// which it forgets: of each the image itself, whatever views it is predicted over.
    ///
    /// # Shapes
    /// - returns `[n, n_activations]`, and `n_activations`
    ///
    /// # Panics
    /// If there is no such member.
    pub fn embed(&mut self, member: usize) -> (Vec<f32>, usize) {
        let pixels = std::mem::take(&mut self.images.pixels);
        let images: Arc<dyn Samples> = Arc::new(Images { pixels, ..self.images });
        let member = &mut self.members[member];
        let (feed, rows) = member.feed(&self.engine, images);
        let mut inputs = vec![0.0; rows.len() * feed.sample_shape().len()];
        feed.load_on(&self.engine, &rows, &mut inputs);
        member.network.embed(&inputs)
    }
}

impl Loaded {
    /// These samples as its network takes them, and their rows.
    fn feed(&self, engine: &Engine, mut samples: Arc<dyn Samples>) -> (Feed, Vec<u32>) {
        let rows: Vec<u32> = (0..samples.n_samples() as u32).collect();
        let mut fitted: Vec<Fitted> = Vec::new();
        for step in &self.steps {
            match step {
                Step::Transforms(steps) => fitted.extend(steps.iter().cloned()),
                Step::Projection(projection) => {
                    let feed = Feed::new(samples, std::mem::take(&mut fitted));
                    let mut out = vec![0.0; rows.len() * projection.output.len()];
                    projection.projector(engine, &feed).project(&rows, &mut out);
                    let values = out.into_iter().map(f32::to_le_bytes).collect();
                    samples = Arc::new(Rows { shape: projection.output, values });
                }
            }
        }
        (Feed::new(samples, fitted), rows)
    }

    fn predict(&mut self, engine: &Engine, samples: Arc<dyn Samples>) -> Result<Predictions, StageError> {
        let (feed, rows) = self.feed(engine, samples);
        let n_classes = self.network.plan().n_classes;
        let mut inputs = vec![0.0; rows.len() * feed.sample_shape().len()];
        let mut said = Vec::with_capacity(self.views.n());
        for view in 0..self.views.n() {
            self.views.load_on(engine, view, &feed, &rows, &mut inputs);
            let mut probabilities = vec![0.0; rows.len() * n_classes];
            self.network.predict(&inputs, &mut probabilities);
            said.push(Predictions::new(rows.clone(), n_classes, probabilities));
        }
        match (said.pop(), said.is_empty()) {
            (Some(one), true) => Ok(one),
            (last, _) => {
                said.extend(last);
                Combine::MeanProbability.apply(&said)
            }
        }
    }
}

fn load(engine: &Engine, member: &Member, model: &Portable) -> Result<Loaded, StageError> {
    let Described { steps, plan, weights } = describe(member, model)?;
    memory::check("its network", plan.prediction_bytes(BATCH)).map_err(StageError::new)?;
    let mut network = Network::new(engine, &plan, BATCH);
    network.load(&weights).map_err(|error| StageError::new(error.to_string()))?;
    Ok(Loaded { steps, network, views: member.views.clone() })
}

/// What a member is made of; it may be far larger in memory.
struct Described {
    steps: Vec<Step>,
    plan: NetworkPlan,
    weights: Vec<NamedTensor>,
}

fn describe(member: &Member, model: &Portable) -> Result<Described, StageError> {
    let misfit = |what: &str, got: SampleShape, expected: SampleShape| {
        StageError::new(format!("{what} takes samples of {got}, what stands before gives {expected}"))
    };
    let mut shape = SampleShape::Image(model.shape);
    let mut steps = Vec::with_capacity(member.chain.len());
    for files in &member.chain {
        if files.0.contains_key(transform::STEPS) {
            let (fitted, input) = transform::read(files)?;
            if input != shape {
                return Err(misfit("a transform", input, shape));
            }
            steps.push(Step::Transforms(fitted));
        } else {
            let projection = read_projection(files)?;
            if projection.input != shape {
                return Err(misfit("a projection", projection.input, shape));
            }
            shape = projection.output;
            steps.push(Step::Projection(projection));
        }
    }
    let description = Description::read(&member.network)?;
    if description.n_classes != model.classes.len() {
        return Err(StageError::new(format!(
            "its network has {} classes, the model {}",
            description.n_classes,
            model.classes.len()
        )));
    }
    if description.shape() != Some(shape) {
        return Err(StageError::new(format!(
            "its network takes samples of {:?}, what stands before gives {shape}",
            description.input
        )));
    }
    let architecture = architecture::parse(&description.architecture)
        .map_err(|message| StageError::new(format!("its architecture is not readable: {message}")))?;
    let plan = NetworkPlan::new(&architecture.layers, shape, description.n_classes).map_err(|problems| {
        let message = problems.into_iter().next().map_or_else(String::new, |problem| problem.message);
        StageError::new(format!("its architecture does not fit its input: {message}"))
    })?;
    if let Some(misfit) = member.views.misfits(Some(shape)).into_iter().next() {
        return Err(StageError::new(misfit.message));
    }
    Ok(Described { steps, plan, weights: read_weights(&member.network)? })
}

/// An answer whose rules are known and whose members are there.
#[derive(Debug)]
enum Answering {
    Member(usize),
    Combined(Combine, Vec<Answering>),
    Tempered(f64, Box<Answering>),
}

impl Answering {
    fn new(answer: &Answer, n_members: usize) -> Result<Answering, StageError> {
        match answer {
            Answer::Member(i) if *i < n_members => Ok(Answering::Member(*i)),
            Answer::Member(i) => Err(StageError::new(format!("it names member {}, and has {n_members}", i + 1))),
            Answer::Combined { combine, of } => {
                let rule = serde_json::from_value(combine.clone()).map_err(|cause| {
                    StageError::new(format!("it combines its members by a rule that is not readable ({cause})"))
                })?;
                let of = of.iter().map(|answer| Answering::new(answer, n_members)).collect::<Result<_, _>>()?;
                Ok(Answering::Combined(rule, of))
            }
            Answer::Tempered { temperature, of } if temperature.is_finite() && *temperature > 0.0 => {
                Ok(Answering::Tempered(*temperature, Box::new(Answering::new(of, n_members)?)))
            }
            Answer::Tempered { temperature, .. } => {
                Err(StageError::new(format!("it has the temperature {temperature}, expected a number above 0")))
            }
        }
    }

    /// The answer, of what members said.
    fn of(&self, said: &[Predictions]) -> Result<Predictions, StageError> {
        match self {
            Answering::Member(i) => Ok(said[*i].clone()),
            Answering::Combined(rule, of) => {
                rule.apply(&of.iter().map(|answer| answer.of(said)).collect::<Result<Vec<_>, _>>()?)
            }
            Answering::Tempered(temperature, of) => Ok(tempered(&of.of(said)?, *temperature)),
        }
    }
}
