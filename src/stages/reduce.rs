//! `reduce`: fewer features, by PCA or a random projection, fitted for each fit set on its training rows only.
//!
//! Unlike the transforms of `preprocess`, which are applied while loading, a projection costs as much as a layer: its
//! features are computed once, for all rows of the data set, and mapped by the stages below.

use std::sync::Arc;

use super::{
    Context, Flow, Kind, Learns, Need, Output, Part, Places, Price, Reads, Stage, StageError, Task, Upstream, lineage,
};
use crate::artifact::Sink;
use crate::artifact::features::{self, FeaturesWriter};
use crate::config::{Log, Problem, Section, Span};
use crate::data::feed::TrainingSamples;
use crate::data::reduce::{FitError, Fitting, Misfit, Reduction, read_method};
use crate::engine::{Engine, Isa};
use crate::rng::Stream;
use crate::tensor::SampleShape;

/// The line in the list.
pub const KIND: Kind = Kind {
    name: "reduce",
    read,
    example: "schema = 1\nname = \"example\"\n\n[stages.ingest]\nsource = \"builtin:digits\"\n\n[stages.split]\n\n\
              [stages.reduce]\nmethod = { pca = { components = 20, whiten = true, epsilon = 1e-3 } }\n",
};

/// Projects samples on fewer axes.
#[derive(Debug)]
pub struct Reduce {
    /// `pca`, `gaussian-projection`, `sparse-projection` ["pca"]; `None` after a problem.
    method: Option<Box<dyn Reduction>>,
    /// The stage's own seed; absent: the manifest's.
    seed: Option<u64>,
}

fn read(section: &mut Section<'_>) -> Box<dyn Stage> {
    let method = read_method(section);
    let seed = super::read_seed(section);
    Box::new(Reduce { method, seed })
}

impl Reduce {
    fn method(&self) -> &dyn Reduction {
        self.method.as_deref().expect("a checked stage has its method")
    }

    /// The dotted key that a misfit is about.
    fn key(&self, misfit: &Misfit) -> String {
        match misfit.at {
            "" => "method".to_owned(),
            key => format!("method.{}.{key}", self.method().name()),
        }
    }

    /// Complains about networks below whose layers need an image.
    fn check_network(&self, own: &Flow, below: &super::Node, log: &mut Log) {
        let Some(network) = below.stage.network() else { return };
        let layers = network.architecture.layers.iter().zip(&network.architecture.spans);
        let method = self.method().name();
        if self.method().keeps_shape() {
            if let Some((layer, _)) = layers.clone().find(|(layer, _)| matches!(layer.word(), "conv" | "local")) {
                let key = format!("method.{method}.zca");
                let message = format!(
                    "PCA and whitening are not typically used with ConvNets: `{}` has a `{}` layer",
                    below.name,
                    layer.word()
                );
                let problem = Problem::warning(log.span_of(&key, Span::default()), message);
                log.push(problem.help("centring the images is usually enough"));
            }
        } else if own.shape.is_none() {
            // How many features there are is not known, but that they have no height and width is.
            let flat = SampleShape::Flat(64);
            let before_fc = layers.take_while(|(layer, _)| layer.word() != "fc");
            for (layer, &span) in before_fc.filter(|(layer, _)| layer.word() != "input") {
                if layer.output_shape(flat).is_err() {
                    let word = layer.word();
                    let message = format!(
                        "`{word}` needs an image with a height and a width, got the flat features of `{method}`"
                    );
                    let help = format!("leave out `{word}`, or feed it images, not components");
                    return log.push(Problem::error(span, message).help(help));
                }
            }
        }
    }
}

impl Stage for Reduce {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn rooms(&self, _part: Part, upstream: &Upstream<'_>) -> Vec<&'static str> {
        let mut rooms = lineage::rooms(upstream);
        rooms.push(KIND.name);
        if let Some(method) = &self.method {
            rooms.push(method.name());
            rooms.extend(method.keeps_shape().then_some("zca"));
        }
        rooms
    }

    fn feed(&self, rooms: &mut Vec<&'static str>) {
        // All that came before is in the features.
        rooms.clear();
    }

    fn accepts(&self) -> &'static [Output] {
        &[Output::Splits, Output::Fitted]
    }

    fn check(&self, inputs: &[Flow], span: Span, log: &mut Log) -> Flow {
        let flow = &inputs[0];
        let mut shape = None;
        if let Some(method) = &self.method {
            match method.output_shape(flow.shape, flow.n_samples) {
                Ok(output) => shape = output,
                Err(misfit) => {
                    let at = log.span_of(&self.key(&misfit), log.span_of("method", span));
                    log.push(misfit.error(at));
                }
            }
        }
        Flow { output: Output::Fitted, shape, ..flow.clone() }
    }

    fn check_graph(&self, upstream: &Upstream<'_>, log: &mut Log) {
        if self.method.is_none() {
            return;
        }
        let own = &upstream.nodes[upstream.own].flow;
        for (at, below) in upstream.nodes.iter().enumerate() {
            // Only the nearest `reduce` above a network says what it gets.
            let lineage = upstream.lineage(at);
            let nearest = lineage.iter().rev().find(|&&stage| upstream.nodes[stage].stage.kind() == KIND.name);
            if nearest == Some(&upstream.own) {
                self.check_network(own, below, log);
                let between = lineage.iter().skip_while(|&&stage| stage != upstream.own).skip(1);
                let is_scaled = between.into_iter().any(|&stage| upstream.nodes[stage].flow.output == Output::Fitted);
                if self.method().leaves_scales() && below.stage.network().is_some() && !is_scaled {
                    let method = self.method().name();
                    let message = format!(
                        "`{method}` hands features of very different variances to the network of `{}`, which learns slowly \
                         from them",
                        below.name
                    );
                    let at = log.span_of("method", Span::default());
                    let help = format!("add `whiten = true` to the keys of `{method}`");
                    log.push(Problem::warning(at, message).help(help));
                }
            }
        }
    }

    fn price(&self, above: Option<&Flow>, read_bytes: u64) -> Price {
        let n_values = above.and_then(|above| above.shape).map_or(0, |shape| shape.len() as u64);
        let n_samples = above.and_then(|above| above.n_samples).map_or(u64::MAX, |n| n as u64);
        let fitted = self.method.as_ref().map_or(0, |method| method.fit_bytes(n_values, n_samples));
        Price { bytes: fitted + 4 * read_bytes, per_thread: n_values * 4 * 64 }
    }

    fn parts(&self, flow: &Flow) -> Vec<Part> {
        (1..=flow.folds).map(Part::Fold).collect()
    }

    fn needs(&self, part: Part, upstream: &Upstream<'_>) -> Vec<Need> {
        lineage::needs(part, upstream)
    }

    fn uses_seed(&self) -> bool {
        self.method.as_ref().is_some_and(|method| method.is_random())
    }

    fn own_seed(&self) -> Option<u64> {
        self.seed
    }

    fn learns(&self, _part: Part) -> Option<Learns> {
        let fitted = Reads(&[features::DESCRIPTION, features::NUMBERS, features::COMPONENTS, features::PICTURE]);
        Some(Learns { fitted, says: Reads(&[features::FEATURES]), chosen: None })
    }

    fn run(&self, task: &Task, _: &Places, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
        let dataset = Arc::new(lineage::dataset(task)?);
        let fit_set = lineage::fit_set(&lineage::splits(task)?, task.part);
        let feed = lineage::feed(task, &dataset)?;
        if fit_set.training().is_empty() {
            return Err(StageError::new("there is no image to fit on").help("give `split` more images, or fewer folds"));
        }
        let engine = Engine::with_isa(context.threads(), Isa::detect());
        let number = match task.part {
            Part::Fold(fold) => u64::from(fold),
            Part::All | Part::Whole | Part::Round(_) | Part::Sanity | Part::Pictures | Part::Suspects => 0,
        };
        let fitting = Fitting {
            samples: TrainingSamples::new(&feed, fit_set.training()),
            engine: &engine,
            stream: &Stream::new(task.seed, self.method().name(), &[("fit set", number)]),
            is_stopped: &|| context.is_cancelled(),
        };
        let n_samples = feed.n_samples();
        context.progress(0, n_samples as u64, "images", "fitting");
        let projection = self.method().fit(&fitting).map_err(|error| match error {
            FitError::Stopped => StageError::cancelled(),
            FitError::Misfit(misfit) => {
                let key = self.key(&misfit);
                StageError::from(misfit.of(key))
            }
        })?;
        features::write(&projection, n_samples, sink)?;
        let mut writer = FeaturesWriter::create(sink, n_samples, projection.output)?;
        let projector = projection.projector(&engine, &feed);
        let all: Vec<u32> = (0..n_samples as u32).collect();
        let at_once = projector.at_once();
        let mut out = vec![0.0; at_once.min(n_samples) * projection.output.len()];
        for (i, rows) in all.chunks(at_once).enumerate() {
            if context.is_cancelled() {
                return Err(StageError::cancelled());
            }
            context.progress((i * at_once) as u64, n_samples as u64, "images", "projecting");
            let out = &mut out[..rows.len() * projection.output.len()];
            projector.project(rows, out);
            writer.push(out)?;
        }
        writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
