//! `preprocess`: transforms in order, fitted for each fit set on its training rows only.
//!
//! Only what was learned is written, never transformed images: a [`Feed`](crate::data::feed::Feed) applies it while
//! loading.

use std::sync::Arc;

use super::{
    Context, Flow, Kind, Learns, Need, Output, Part, Places, Price, Reads, Stage, StageError, Task, Upstream, lineage,
};
use crate::artifact::Sink;
use crate::artifact::transform;
use crate::config::{Log, Problem, Section, Span};
use crate::data::feed::TrainingSamples;
use crate::data::transform::{Transform, fit, read_steps, standardize_image};

/// The line in the list.
pub const KIND: Kind = Kind {
    name: "preprocess",
    read,
    example: "schema = 1\nname = \"example\"\n\n[stages.ingest]\nsource = \"builtin:digits\"\n\n[stages.split]\n\n\
              [stages.preprocess]\nsteps = [\"center\", { scale = { to = \"unit-variance\" } }]\n",
};

/// Fits transforms and hands them on.
#[derive(Debug)]
pub struct Preprocess {
    /// What is done to each image, in order: `center`, `scale`, `divide`, `standardize-image`.
    steps: Vec<Box<dyn Transform>>,
}

fn read(section: &mut Section<'_>) -> Box<dyn Stage> {
    Box::new(Preprocess { steps: read_steps(section) })
}

impl Stage for Preprocess {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn rooms(&self, _part: Part, upstream: &Upstream<'_>) -> Vec<&'static str> {
        let mut rooms = lineage::rooms(upstream);
        // A step is fitted on what the steps before it make of the samples.
        self.feed(&mut rooms);
        rooms.push(KIND.name);
        rooms.extend(self.steps.iter().map(|step| step.name()));
        rooms
    }

    fn feed(&self, rooms: &mut Vec<&'static str>) {
        let room = |name| if name == standardize_image::KIND.name { name } else { "affine" };
        rooms.extend(self.steps.iter().map(|step| room(step.name())));
    }

    fn accepts(&self) -> &'static [Output] {
        &[Output::Splits, Output::Fitted]
    }

    fn check(&self, inputs: &[Flow], span: Span, log: &mut Log) -> Flow {
        // A step that could not be read has been complained about.
        if self.steps.is_empty() && log.problems.is_empty() {
            let problem = Problem::warning(log.span_of("steps", span), "`steps` is empty: nothing is done");
            log.push(problem.help("add `steps = [\"center\"]`, or leave out the stage"));
        }
        Flow { output: Output::Fitted, ..inputs[0].clone() }
    }

    fn price(&self, above: Option<&Flow>, read_bytes: u64) -> Price {
        // A chunk of samples and their moments, on each thread.
        let n_values = above.and_then(|above| above.shape).map_or(0, |shape| shape.len() as u64);
        let per_thread = n_values * 4 * 1024;
        Price { bytes: per_thread + 4 * read_bytes, per_thread }
    }

    fn parts(&self, flow: &Flow) -> Vec<Part> {
        (1..=flow.folds).map(Part::Fold).collect()
    }

    fn needs(&self, part: Part, upstream: &Upstream<'_>) -> Vec<Need> {
        lineage::needs(part, upstream)
    }

    fn learns(&self, _part: Part) -> Option<Learns> {
        Some(Learns { fitted: Reads::ALL, says: Reads(&[]), chosen: None })
    }

    fn run(&self, task: &Task, _: &Places, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
        let dataset = Arc::new(lineage::dataset(task)?);
        let fit_set = lineage::fit_set(&lineage::splits(task)?, task.part);
        let feed = lineage::feed(task, &dataset)?;
        let samples = TrainingSamples::new(&feed, fit_set.training());
        let fitted = fit(&self.steps, samples, context.threads());
        transform::write(&fitted, feed.sample_shape(), sink)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Files;
    use crate::artifact::dataset::Names;
    use crate::artifact::splits::Splits;
    use crate::config::{Entry, Node, Table, Value};
    use crate::data::fit_set::{Partition, Place};
    use crate::data::transform::{Fitted, Per};
    use crate::stages::Delivered;
    use crate::stages::testing::{self, MemorySink, TestContext};
    use crate::tensor::ImageShape;

    const SHAPE: ImageShape = ImageShape { height: 3, width: 5, channels: 2 };

    fn text(text: &str) -> Value {
        Value::Text { text: text.to_owned(), inner: None }
    }

    fn keyed(key: &str, value: Value) -> Value {
        let node = Node { value, span: Span::default() };
        Value::Table(Table { entries: vec![Entry { key: key.to_owned(), key_span: Span::default(), node }] })
    }

    fn stage(steps: &[Value]) -> (Box<dyn Stage>, Log) {
        let items = steps.iter().map(|value| Node { value: value.clone(), span: Span::default() }).collect();
        let Value::Table(table) = keyed("steps", Value::List(items)) else { unreachable!() };
        testing::read(KIND.read, &table)
    }

    fn every_step() -> Vec<Value> {
        let range = Value::List([-1, 1].map(|x| Node { value: Value::Integer(x), span: Span::default() }).to_vec());
        vec![
            keyed("center", keyed("per", text("pixel"))),
            keyed("divide", Value::Integer(3)),
            keyed("scale", keyed("per", text("global"))),
            text("standardize-image"),
            text("scale"),
            keyed("scale", keyed("to", range)),
        ]
    }

    /// 40 images; those that fold 2 does not train on hold `poison`.
    fn inputs(poison: u8) -> Vec<Delivered> {
        let labels: Vec<u32> = (0..40).map(|i| i % 2).collect();
        let place = |i: u32| if i.is_multiple_of(7) { Place::Test } else { Place::Fold(i % 3 + 1) };
        let places: Vec<Place> = (0..40).map(place).collect();
        let mut pixels: Vec<u8> = (0..40 * SHAPE.len()).map(|i| (i * i % 251) as u8).collect();
        for (image, place) in pixels.chunks_exact_mut(SHAPE.len()).zip(&places) {
            // One value is the same everywhere.
            image[4] = 9;
            if matches!(place, Place::Test | Place::Fold(2)) {
                image.fill(poison);
            }
        }
        let (files, dataset) = testing::dataset(SHAPE, &labels, &pixels);
        let mut sink = MemorySink::default();
        Splits::new(Partition::new(places, 3).unwrap(), &dataset)
            .write(&dataset, &Names::read(&files).unwrap(), &mut sink)
            .unwrap();
        let delivered = |stage: usize, output, files: Files| Delivered {
            from: stage,
            part: Part::Whole,
            stage_name: format!("s{stage}"),
            output,
            files,
        };
        vec![delivered(0, Output::Dataset, files), delivered(1, Output::Splits, sink.files())]
    }

    fn run(stage: &dyn Stage, poison: u8, threads: usize) -> Files {
        let context = TestContext { threads, ..TestContext::default() };
        testing::run(stage, Part::Fold(2), inputs(poison), &Places::default(), &context).unwrap()
    }

    fn bytes(files: &Files) -> Vec<Vec<u8>> {
        files.0.values().map(|bytes| bytes.to_vec()).collect()
    }

    #[test]
    fn poisoned_rows_and_threads_change_no_byte_of_a_fit() {
        let (stage, log) = stage(&every_step());
        assert_eq!(log.problems, []);
        let expected = bytes(&run(stage.as_ref(), 0, 1));
        assert_eq!(bytes(&run(stage.as_ref(), 255, 1)), expected);
        for threads in [2, 3, 7] {
            assert_eq!(bytes(&run(stage.as_ref(), 0, threads)), expected, "{threads} threads");
        }
        let whole = testing::run(stage.as_ref(), Part::All, inputs(0), &Places::default(), &TestContext::default());
        assert_ne!(bytes(&whole.unwrap()), expected, "the fit set `all` has other rows");
    }

    #[test]
    fn two_stages_do_what_one_does() {
        let (both, _) = stage(&every_step());
        let (first, second) = (stage(&every_step()[..3]).0, stage(&every_step()[3..]).0);
        let (together, _) = transform::read(&run(both.as_ref(), 7, 1)).unwrap();
        let mut inputs = inputs(7);
        let files = run(first.as_ref(), 7, 1);
        let (mut apart, _) = transform::read(&files).unwrap();
        let part = Part::Fold(2);
        inputs.push(Delivered { from: 2, part, stage_name: "first".to_owned(), output: Output::Fitted, files });
        let context = TestContext::default();
        let files = testing::run(second.as_ref(), Part::Fold(2), inputs, &Places::default(), &context).unwrap();
        apart.extend(transform::read(&files).unwrap().0);
        assert_eq!(apart, together);
        let Fitted::Affine(last) = &apart[5] else { panic!("{apart:?}") };
        assert_eq!(last.per, Per::Channel);
    }

    #[test]
    fn wrong_steps_are_named() {
        let check = |step: Value, expected: &str| {
            let (_, log) = stage(&[step]);
            assert_eq!(log.problems.iter().map(|problem| &problem.message).collect::<Vec<_>>(), [expected]);
        };
        let names = "expected `center`, `scale`, `divide` or `standardize-image`";
        check(text("centre"), &format!("unknown `steps`: `centre`, {names}"));
        check(keyed("divide", Value::Integer(0)), "`divide` expects a number above 0, got `0`");
        let per = "unknown `per`: `row`, expected `pixel`, `channel` or `global`";
        check(keyed("center", keyed("per", text("row"))), per);
        let to = "unknown `to`: `unit`, expected `unit-variance` or a range such as [-1, 1]";
        check(keyed("scale", keyed("to", text("unit"))), to);
        let (empty, mut log) = stage(&[]);
        let flow = Flow {
            output: Output::Splits,
            shape: None,
            n_classes: None,
            n_samples: None,
            given: None,
            folds: 3,
            has_test: true,
            refit: false,
            models: 1,
            has_views: false,
            has_temperature: false,
            abstains: false,
        };
        let out = empty.check(&[flow], Span::default(), &mut log);
        assert_eq!(empty.parts(&out), [Part::Fold(1), Part::Fold(2), Part::Fold(3)]);
        assert_eq!(log.problems[0].message, "`steps` is empty: nothing is done");
    }
}
