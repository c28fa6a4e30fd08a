//! The checks before a training: is there something to learn, can this network learn it, does it start where it should?
//!
//! They cost little (on the digits 2 % of the whole run, most for deep networks on large images) and spare hours: a
//! network that cannot learn 20 images by heart will not learn 50,000. One task per architecture makes them, on the
//! training rows of fold 1; it reads neither `epochs` nor learning rate, optimizer or schedule, and nothing of what it
//! finds enters the folds, which only wait for its verdict. The advice is that of the CS231n course ("before learning:
//! sanity checks").

use std::sync::Arc;

use super::{Advice, Context, LAST_LAYER_GAIN, Part, StageError, Task, Train, fit, lineage};
use crate::artifact::Sink;
use crate::artifact::dataset::Dataset;
use crate::artifact::sanity::{Finding, Findings, Status};
use crate::data::feed::Feed;
use crate::data::fit_set::{TrainingRow, TrainingRows};
use crate::data::samples::Values;
use crate::elementary::ln;
use crate::engine::{Engine, Isa, Targets};
use crate::nn::init::Initializer;

use crate::nn::optimizer::Adam;
use crate::nn::plan::NetworkPlan;
use crate::nn::seeds::Seeds;
use crate::nn::training::{LayerStatistics, Trainer, Training};

/// An initial loss above `ln(n_classes)` plus this many nats is worth a warning.
///
/// Measured on 22 nets (all shipped ones, one layer to eight deep, with and without batch normalisation, dense, GAP) on
/// digits, MNIST, CIFAR-10 and photos, scaled, `ln(10)` being 2.30: 2.28 to 2.33. Raw pixels gave 3.20 (up to 16) and
/// 59 (up to 255).
const WARN_ABOVE: f64 = 0.5;
/// The same where the layer before the softmax does not start small: the nets above gave 2.34 to 5.69 (He's
/// initialisation gives logits a variance of 2, hence one nat more), raw pixels up to 592.
const WARN_ABOVE_LARGE: f64 = 1.0;
/// Above so many times that, training is stopped.
const STOP_FACTOR: f64 = 3.0;
/// Rows whose loss is looked at before the first update.
const LOSS_ROWS: usize = 256;
/// Images that the network must learn by heart.
const MEMORISED: usize = 20;
/// Updates that it has for that. Nets that can learn needed 1 to 166 on inputs of unit variance and 1 to 278 on inputs
/// in `[0, 1]` (one FC on 8x8 digits is the slowest, CNNs need 1 to 50, 8 CONVs in a row up to 125); those with one
/// filter or unit somewhere were right on 2 to 6 images after 300.
const MOST_STEPS: u64 = 300;
/// Adam's default, whatever the stage's own optimizer is: the check is of the network, not of the optimizer's settings.
const LEARNING_RATE: f64 = 0.001;
/// Rows whose pixels are looked at, evenly spread over the training rows.
const LOOKED_AT: usize = 1_000;
/// More flat images than this share of them are worth a warning.
const FLAT_SHARE: f64 = 0.01;
/// Inputs larger than this are not scaled: transforms give values of about 1, raw pixels go up to 255.
const UNSCALED: f32 = 10.0;

/// Makes all checks and writes what they found. A failed check is a finding, not an error: [`admits`] is the verdict.
pub(super) fn check(stage: &Train, task: &Task, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
    let dataset = Arc::new(lineage::dataset(task)?);
    let splits = lineage::splits(task)?;
    let feed = lineage::feed(task, &dataset)?;
    let fit_set = lineage::fit_set(&splits, Part::Fold(1));
    let rows = fit_set.training();
    let mut findings = Findings { format: 1, findings: Vec::new(), half_squares: 0.0, layers_l2_loss: 0.0 };
    if rows.is_empty() {
        return Err(fit::no_images());
    }
    findings.findings.push(labels(&dataset, rows));
    findings.findings.push(images(&feed, &dataset, rows));
    let (finding, largest) = values(&feed, rows);
    findings.findings.push(finding);
    if findings.failure().is_none() {
        let plan = fit::plan(stage, feed.sample_shape(), dataset.n_classes())?;
        let learner = Learner { stage, task, context, feed: &feed, dataset: &dataset, rows };
        learner.check(&plan, largest, &mut findings)?;
    }
    findings.write(sink)?;
    Ok(())
}

/// What the findings mean for a training: an error where it would be for nothing, else everything worth a warning.
pub(super) fn admits(findings: &Findings) -> Result<Vec<Advice>, StageError> {
    if let Some(Finding { message, key, help, image, .. }) = findings.failure() {
        let error = StageError::new(message.clone());
        return Err(StageError { key: key.clone(), help: help.clone(), image: *image, ..error });
    }
    let warned = findings.findings.iter().filter(|finding| finding.status == Status::Warned);
    Ok(warned.map(|finding| Advice { message: warning(finding), image: finding.image }).collect())
}

/// A finding as one line of advice.
pub(super) fn warning(finding: &Finding) -> String {
    match &finding.help {
        Some(help) => format!("{}: {help}", finding.message),
        None => finding.message.clone(),
    }
}

/// Whether the checks of a network keep a layer of this kind: what is drawn anew at each look is left out.
pub(super) fn keeps(word: &str) -> bool {
    !matches!(word, "dropout" | "noise")
}

fn finding(check: &str, status: Status, value: f64, limit: Option<f64>, message: String) -> Finding {
    let value = value.is_finite().then_some(value);
    Finding { check: check.to_owned(), status, value, limit, message, key: None, help: None, image: None }
}

fn labels(dataset: &Dataset, rows: &TrainingRows) -> Finding {
    let by_class = rows.by_class(dataset.n_classes(), |i| dataset.label(i));
    let n_present = by_class.iter().filter(|rows| !rows.is_empty()).count();
    let of = |status, message| finding("labels", status, n_present as f64, Some(2.0), message);
    if n_present < 2 {
        return of(Status::Failed, format!("all {} training images are of one class", rows.len()))
            .help("check the labels of the data set: there is nothing to tell apart");
    }
    of(Status::Passed, format!("{} training images of {n_present} classes", rows.len()))
}

fn images(feed: &Feed, dataset: &Dataset, rows: &TrainingRows) -> Finding {
    let first = dataset.digest(rows[0].index());
    if rows.len() > 1 && rows.iter().all(|row| dataset.digest(row.index()) == first) {
        let message = format!("all {} training images are the same, pixel by pixel", rows.len());
        return finding("images", Status::Failed, 1.0, None, message)
            .help("check what `ingest` reads: `data.csv` lists it");
    }
    let is_flat = |values: Values<'_>| match values {
        Values::U8(values) => values.iter().all(|x| *x == values[0]),
        Values::U16(values) => values.iter().all(|x| *x == values[0]),
        Values::F32(values) => values.iter().all(|x| *x == values[0]),
    };
    let samples = feed.samples();
    let looked_at = rows.spread(LOOKED_AT);
    let n = looked_at.len();
    let flat: Vec<usize> = looked_at.iter().map(|row| row.index()).filter(|&i| is_flat(samples.values(i))).collect();
    let share = flat.len() as f64 / n as f64;
    let of = |status, message| finding("images", status, share, Some(FLAT_SHARE), message);
    let example = flat.first().map_or(0, |&i| i as u32);
    if samples.shape().len() > 1 && flat.len() == n {
        let message = format!("every training image is of one value throughout, such as image {example}");
        return of(Status::Failed, message).image(example).help("check what `ingest` reads: `data.csv` lists it");
    }
    if samples.shape().len() > 1 && share > FLAT_SHARE {
        let message = format!(
            "{} of {n} training images looked at are of one value throughout, such as image {example}",
            flat.len()
        );
        return of(Status::Warned, message).image(example).help("leave them out, or look at how they were made");
    }
    of(Status::Passed, format!("{n} training images looked at differ, {} of one value throughout", flat.len()))
}

/// Whether what the network reads are numbers; and the largest magnitude of them.
fn values(feed: &Feed, rows: &TrainingRows) -> (Finding, f32) {
    let mut sample = vec![0.0; feed.sample_shape().len()];
    let mut largest = 0.0f32;
    for &row in rows.spread(LOOKED_AT).iter() {
        feed.load(&[row], &mut sample);
        if let Some(at) = sample.iter().position(|x| !x.is_finite()) {
            return (not_a_number(row.index() as u32, sample[at]), f32::NAN);
        }
        largest = sample.iter().fold(largest, |largest, x| largest.max(x.abs()));
    }
    let message = format!("what the network reads goes up to {largest:.3} in magnitude");
    (finding("values", Status::Passed, f64::from(largest), None, message), largest)
}

/// An image with a value that no network can use.
fn not_a_number(image: u32, value: f32) -> Finding {
    let message = format!("image {image} comes to the network with the value {value}");
    finding("values", Status::Failed, f64::NAN, None, message)
        .image(image)
        .help("look at the stages above: a `scale` or a `reduce` made it of the image")
}

/// The checks that need the network.
struct Learner<'a> {
    stage: &'a Train,
    task: &'a Task,
    context: &'a dyn Context,
    feed: &'a Feed,
    dataset: &'a Dataset,
    rows: &'a TrainingRows,
}

impl Learner<'_> {
    fn check(&self, plan: &NetworkPlan, largest: f32, findings: &mut Findings) -> Result<(), StageError> {
        // Dropout and noise off, and L2 with them: what is left must learn.
        let layers: Vec<_> = plan.layers.iter().map(|layer| Arc::clone(&layer.config)).collect();
        let kept: Vec<usize> = (0..layers.len()).filter(|&i| keeps(layers[i].word())).collect();
        let layers: Vec<_> = kept.iter().map(|&i| Arc::clone(&layers[i])).collect();
        let mut plain = NetworkPlan::new(&layers, plan.input, plan.n_classes)
            .map_err(|problems| fit::plan_error(problems).key("architecture"))?;
        let own_l2: Vec<Option<f64>> =
            plain.layers.iter().flat_map(|layer| &layer.tensors).map(|tensor| tensor.spec.l2).collect();
        plain.layers.iter_mut().flat_map(|layer| &mut layer.tensors).for_each(|tensor| tensor.spec.l2 = Some(0.0));

        let loss_rows = self.rows.spread(LOSS_ROWS);
        let memorised = distinct(self.feed, self.dataset, self.rows);
        let engine = Engine::with_isa(self.context.threads(), Isa::detect());
        let mut trainer = self.trainer(&engine, &plain, loss_rows.len().max(memorised.len()));
        for (tensor, l2) in trainer.network().save().iter().zip(own_l2) {
            let is_weights = plain.tensors().any(|planned| planned.name == tensor.name && planned.spec.decays(false));
            if is_weights {
                let half = tensor.values.iter().fold(0.0, |sum, &w| sum + f64::from(w) * f64::from(w)) / 2.0;
                match l2 {
                    Some(l2) => findings.layers_l2_loss += l2 * half,
                    None => findings.half_squares += half,
                }
            }
        }
        let mut loaded = Loaded::default();
        loaded.load(self.feed, self.dataset, &loss_rows);
        let loss = trainer.accumulate_gradients(&loaded.images, Targets::Labels(&loaded.labels)).loss();
        findings.findings.push(self.initial_loss(loss, plan, largest));
        if findings.failure().is_some() {
            return Ok(());
        }
        loaded.load(self.feed, self.dataset, &memorised);
        let finding = self.memorises(&mut trainer, &loaded, &kept)?;
        findings.findings.push(finding);
        Ok(())
    }

    fn trainer(&self, engine: &Engine, plan: &NetworkPlan, batch: usize) -> Trainer {
        let training = Training {
            seeds: Seeds { seed: self.task.seed, indices: vec![("sanity", 1)] },
            initializer: self.stage.initializer,
            last_layer_gain: self.stage.last_layer_gain,
            optimizer: Arc::new(Adam::default()),
            ..Training::default()
        };
        Trainer::new(engine, plan, batch, training)
    }

    fn initial_loss(&self, loss: f64, plan: &NetworkPlan, largest: f32) -> Finding {
        let n_classes = plan.n_classes;
        let guessing = ln(n_classes as f64);
        let has_bn = plan.layers.iter().any(|layer| layer.config.word() == "bn");
        let starts_small = self.stage.last_layer_gain <= LAST_LAYER_GAIN;
        let limit = guessing + if starts_small { WARN_ABOVE } else { WARN_ABOVE_LARGE };
        let of = |status, message| finding("initial_loss", status, loss, Some(limit), message);
        // What is in place already is not advised.
        let advise = |finding: Finding| {
            match self.stage.initializer {
            _ if largest > UNSCALED => finding.help(format!(
                "scale the images, whose values go up to {largest:.0}: `[stages.preprocess]` with `steps = [\"center\", \"scale\"]`"
            )),
            Initializer::Constant(_) => finding.key("initializer").help("use `initializer = \"he-normal\"`"),
            _ if !starts_small => {
                finding.key("last_layer_gain").help(format!("use `last_layer_gain = {LAST_LAYER_GAIN:?}`"))
            }
            _ if !has_bn => finding.key("architecture").help("add `BN` after its layers"),
            _ => finding.key("last_layer_gain").help("lower `last_layer_gain`"),
        }
        };
        let against = format!("guessing among {n_classes} classes has {guessing:.2}");
        if !loss.is_finite() {
            return advise(of(Status::Failed, format!("the loss before the first update is {loss}; {against}")));
        }
        let told = format!("the loss before the first update is {loss:.2} nats; {against}");
        if loss > STOP_FACTOR * limit {
            return advise(of(
                Status::Failed,
                format!("{told}, and above {:.2} training seldom recovers", STOP_FACTOR * limit),
            ));
        }
        if loss > limit {
            return advise(of(Status::Warned, told));
        }
        of(Status::Passed, told)
    }

    /// Trains on a few images until all of them are right.
    fn memorises(&self, trainer: &mut Trainer, loaded: &Loaded, kept: &[usize]) -> Result<Finding, StageError> {
        let n = loaded.labels.len();
        let mut statistics: Vec<LayerStatistics> = Vec::new();
        let (mut n_correct, mut loss) = (0, f64::NAN);
        let of = |status, value, message| finding("memorises", status, value, Some(MOST_STEPS as f64), message);
        for step in 0..=MOST_STEPS {
            if self.context.is_cancelled() {
                return Err(StageError::cancelled());
            }
            self.context.progress(step, MOST_STEPS, "steps", &format!("{n_correct} of {n} images by heart"));
            let is_last = step == MOST_STEPS;
            let stats = trainer.train_step(
                &loaded.images,
                Targets::Labels(&loaded.labels),
                LEARNING_RATE,
                is_last.then_some(&mut statistics),
            );
            (n_correct, loss) = (stats.n_correct, stats.loss());
            if !stats.is_finite() {
                let message = format!("the loss is not finite after {step} updates on {n} images");
                return Ok(of(Status::Failed, step as f64, message)
                    .key("architecture")
                    .help("add `BN` after its layers"));
            }
            if n_correct == n {
                let message = format!("{n} images are learned by heart after {step} updates");
                return Ok(of(Status::Passed, step as f64, message));
            }
        }
        let message = format!(
            "the network cannot learn {n} images by heart: after {MOST_STEPS} updates it is right on {n_correct} of them (loss {loss:.2})"
        );
        let name = |of: &LayerStatistics| format!("{}.{}", kept[of.layer], of.word);
        let still = statistics.iter().find(|of| of.grad_norm.is_some_and(|norm| norm == 0.0));
        let plan = trainer.network().plan();
        let narrowest =
            plan.layers[..plan.layers.len() - 1].iter().enumerate().min_by_key(|(_, layer)| layer.output.len());
        let help = match (still, narrowest) {
            (Some(layer), _) => {
                format!("no gradient reaches layer `{}`: look at `initializer`, or use `LEAKY` for `RELU`", name(layer))
            }
            (None, Some((i, layer))) if layer.output.len() < plan.n_classes.max(8) => format!(
                "layer `{}.{}` lets only {} through: give it more filters or units",
                kept[i],
                layer.config.word(),
                if layer.output.len() == 1 { "1 value".to_owned() } else { format!("{} values", layer.output.len()) }
            ),
            _ => "give it more filters or units, or `BN` after its layers".to_owned(),
        };
        Ok(of(Status::Failed, MOST_STEPS as f64, message).key("architecture").help(help))
    }
}

/// Images and labels of some rows.
#[derive(Default)]
struct Loaded {
    images: Vec<f32>,
    labels: Vec<u32>,
}

impl Loaded {
    fn load(&mut self, feed: &Feed, dataset: &Dataset, rows: &TrainingRows) {
        self.labels.clear();
        self.labels.extend(rows.iter().map(|row| dataset.label(row.index())));
        self.images.resize(rows.len() * feed.sample_shape().len(), 0.0);
        feed.load(rows, &mut self.images);
    }
}

/// Up to [`MEMORISED`] rows that differ in what the network sees, one class after the other: the same image under two
/// labels could not be learned by heart.
fn distinct(feed: &Feed, dataset: &Dataset, rows: &TrainingRows) -> TrainingRows {
    let by_class = rows.by_class(dataset.n_classes(), |i| dataset.label(i));
    let mut queues: Vec<_> = by_class.iter().map(|rows| rows.iter().copied()).collect();
    let mut chosen: Vec<TrainingRow> = Vec::new();
    let mut seen: Vec<Vec<u32>> = Vec::new();
    loop {
        let before = chosen.len();
        for queue in &mut queues {
            if chosen.len() == MEMORISED {
                break;
            }
            let mut sample = vec![0.0; feed.sample_shape().len()];
            for row in queue.by_ref() {
                feed.load(&[row], &mut sample);
                let bits: Vec<u32> = sample.iter().map(|x| x.to_bits()).collect();
                if !seen.contains(&bits) {
                    seen.push(bits);
                    chosen.push(row);
                    break;
                }
            }
        }
        if chosen.len() == before || chosen.len() == MEMORISED {
            return chosen.into_iter().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SHAPE, delivered, run, stage};
    use super::*;
    use crate::artifact::dataset::Names;
    use crate::artifact::sanity::SANITY;
    use crate::artifact::splits::Splits;
    use crate::data::fit_set::{Partition, Place, first_rows};
    use crate::data::samples::Samples;
    use crate::stages::testing::{self, MemorySink, TestContext};
    use crate::stages::{Delivered, Output};
    use crate::tensor::SampleShape;

    const N: usize = 48;

    /// Images of these labels and pixels, in two folds.
    fn inputs(labels: &[u32], pixel: impl Fn(usize, usize) -> u8) -> Vec<Delivered> {
        let len = SHAPE.len();
        let pixels: Vec<u8> = (0..labels.len() * len).map(|i| pixel(i / len, i % len)).collect();
        let (files, dataset) = testing::dataset(SHAPE, labels, &pixels);
        let places = (0..labels.len()).map(|i| Place::Fold(i as u32 / 2 % 2 + 1)).collect();
        let mut sink = MemorySink::default();
        Splits::new(Partition::new(places, 2).unwrap(), &dataset)
            .write(&dataset, &Names::read(&files).unwrap(), &mut sink)
            .unwrap();
        vec![delivered(0, Part::Whole, Output::Dataset, files), delivered(1, Part::Whole, Output::Splits, sink.files())]
    }

    /// Small values that differ from image to image, without any order.
    fn noise(image: usize, i: usize) -> u8 {
        let mixed = (image as u32 * 64 + i as u32).wrapping_mul(0x9e37_79b1);
        ((mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca77) >> 13) as u8 % 5
    }

    fn found(architecture: &str, more: &str, inputs: Vec<Delivered>) -> Findings {
        let stage = stage(&format!("architecture = \"{architecture}\"\n{more}"));
        let files = run(&*stage, Part::Sanity, inputs, &TestContext::default()).unwrap();
        assert!(
            String::from_utf8_lossy(files.get("sanity.csv").unwrap()).starts_with("check,status,value,limit,finding\n")
        );
        Findings::read(&files).unwrap()
    }

    #[track_caller]
    fn fails(findings: &Findings, check: &str, message: &str, help: &str) {
        let failure = findings.failure().expect("a failure");
        assert_eq!(failure.check, check, "{failure:?}");
        assert!(failure.message.contains(message), "{failure:?}");
        assert!(failure.help.as_ref().unwrap().contains(help), "{failure:?}");
        let error = admits(findings).unwrap_err();
        assert_eq!((&error.message, &error.key), (&failure.message, &failure.key));
    }

    const GOOD: &str = "INPUT - CONV(8) - RELU - DROPOUT(0.9) - FC(16) - RELU - FC";

    fn two_classes() -> Vec<u32> {
        (0..N as u32).map(|i| i % 2).collect()
    }

    #[test]
    fn a_network_that_learns_passes_whatever_its_dropout() {
        let findings = found(GOOD, "", inputs(&two_classes(), noise));
        let checks: Vec<(&str, Status)> =
            findings.findings.iter().map(|finding| (&finding.check[..], finding.status)).collect();
        let names = ["labels", "images", "values", "initial_loss", "memorises"];
        assert_eq!(checks.iter().map(|(check, _)| *check).collect::<Vec<_>>(), names);
        assert_eq!(findings.failure(), None, "{findings:?}");
        assert!(admits(&findings).is_ok());
        assert!(findings.half_squares > 0.0 && findings.layers_l2_loss == 0.0);
        let own = found(&GOOD.replace("CONV(8)", "CONV(8, l2=0.5)"), "", inputs(&two_classes(), noise));
        assert!(own.layers_l2_loss > 0.0 && own.half_squares < findings.half_squares);
        // L2 is off while it learns by heart, and the loss is told without it.
        assert_eq!(own.findings, findings.findings);
    }

    #[test]
    fn the_same_findings_on_any_number_of_threads() {
        let stage = stage(&format!("architecture = \"{GOOD}\""));
        let of = |threads| {
            let context = TestContext { threads, ..TestContext::default() };
            run(&*stage, Part::Sanity, inputs(&two_classes(), noise), &context).unwrap().get(SANITY).unwrap().to_vec()
        };
        assert_eq!(of(1), of(3));
    }

    #[test]
    fn labels_and_images_must_vary() {
        // A second class that only fold 1 validates on.
        let mut labels = vec![0; N];
        labels[0] = 1;
        fails(&found(GOOD, "", inputs(&labels, noise)), "labels", "all 24 training images are of one class", "labels");
        fails(
            &found(GOOD, "", inputs(&two_classes(), |_, i| noise(1, i))),
            "images",
            "are the same, pixel by pixel",
            "data.csv",
        );
        fails(
            &found(GOOD, "", inputs(&two_classes(), |image, _| image as u8)),
            "images",
            "of one value throughout",
            "data.csv",
        );
        let mut some =
            found(GOOD, "", inputs(&two_classes(), |image, i| if image < 4 { image as u8 } else { noise(image, i) }));
        assert_eq!(some.findings[1].status, Status::Warned, "{some:?}");
        // Whether such images can be learned by heart is another matter.
        some.findings.truncate(2);
        assert!(
            admits(&some).unwrap()[0].message.contains("2 of 24 training images looked at are of one value"),
            "{some:?}"
        );
    }

    #[test]
    fn pixels_that_are_not_scaled_start_with_too_large_a_loss() {
        let findings = found(GOOD, "", inputs(&two_classes(), |image, i| noise(image, i) * 60));
        fails(
            &findings,
            "initial_loss",
            "guessing among 2 classes has 0.69",
            "scale the images, whose values go up to 240",
        );
        let still = found(GOOD, "initializer = { constant = 40.0 }", inputs(&two_classes(), noise));
        assert_ne!(still.findings.last().unwrap().status, Status::Passed, "{still:?}");
    }

    #[test]
    fn a_network_that_cannot_learn_twenty_images_is_told_where_it_is_too_narrow() {
        let labels: Vec<u32> = (0..N as u32).map(|i| i % 7).collect();
        let findings = found("INPUT - CONV(1) - RELU - GAP - FC", "", inputs(&labels, noise));
        fails(
            &findings,
            "memorises",
            "cannot learn 20 images by heart: after 300 updates",
            "layer `3.gap` lets only 1 value through",
        );
        assert_eq!(findings.failure().unwrap().key.as_deref(), Some("architecture"));
        let constant = "initializer = { constant = 0.0 }";
        let findings = found("INPUT - NOISE(0.1) - CONV(4) - RELU - FC", constant, inputs(&labels, noise));
        fails(&findings, "memorises", "cannot learn", "no gradient reaches layer `2.conv`");
    }

    #[test]
    fn twenty_images_are_distinct_and_of_several_classes() {
        let labels: Vec<u32> = (0..N as u32).map(|i| i % 3).collect();
        // Pairs of the same pixels under other labels.
        let delivered = inputs(&labels, |image, i| noise(image / 2, i));
        let dataset = Arc::new(Dataset::read(&delivered[0].files).unwrap());
        let feed = Feed::new(Arc::<Dataset>::clone(&dataset) as _, Vec::new());
        let chosen = distinct(&feed, &dataset, &first_rows(N));
        let mut digests: Vec<u128> = chosen.iter().map(|row| dataset.digest(row.index())).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!((chosen.len(), digests.len()), (20, 20));
        for class in 0..3 {
            let n = chosen.iter().filter(|row| labels[row.index()] == class).count();
            assert!((5..=9).contains(&n), "{n} of class {class}");
        }
    }

    /// Two features of `N` samples, one of them not a number.
    #[derive(Debug)]
    struct Poisoned(Vec<[u8; 4]>);

    impl Samples for Poisoned {
        fn n_samples(&self) -> usize {
            self.0.len() / 2
        }
        fn shape(&self) -> SampleShape {
            SampleShape::Flat(2)
        }
        fn values(&self, i: usize) -> Values<'_> {
            Values::F32(&self.0[2 * i..2 * i + 2])
        }
    }

    #[test]
    fn a_value_that_is_not_a_number_is_named_with_its_image() {
        let values_of = [1.0, 2.0, 3.0, f32::NAN, 5.0, 6.0].map(f32::to_le_bytes).to_vec();
        let feed = Feed::new(Arc::new(Poisoned(values_of)), Vec::new());
        let rows = first_rows(3);
        let (finding, _) = values(&feed, &rows);
        assert_eq!((finding.status, finding.value), (Status::Failed, None));
        assert_eq!(
            (finding.image, finding.message.as_str()),
            (Some(1), "image 1 comes to the network with the value NaN")
        );
        assert_eq!(values(&feed, &[rows[0], rows[2]].into_iter().collect()).0.status, Status::Passed);
    }

    #[test]
    fn the_checks_read_layers_and_initializer_and_the_folds_do_not_read_the_checks() {
        let stage = stage(&format!("architecture = \"{GOOD}\""));
        for key in ["layers[1].conv.filters", "initializer", "initializer.constant"] {
            assert!(stage.reads_key(Part::Sanity, key), "{key}");
        }
        for key in ["epochs", "learning_rate", "optimizer.adam.beta1", "schedule", "l2", "sanity", "batch_size"] {
            assert!(!stage.reads_key(Part::Sanity, key), "{key}");
        }
        assert!(!stage.reads_key(Part::Fold(1), "sanity") && stage.reads_key(Part::Fold(1), "epochs"));
        assert_eq!(stage.gates(Part::Fold(2)), [Part::Sanity]);
        let off = super::super::tests::stage(&format!("architecture = \"{GOOD}\"\nsanity = false"));
        assert_eq!(off.gates(Part::Fold(2)), []);
    }
}
