//! `selftest`: whether the program computes as it should on this machine, and whether a manifest's networks can learn.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::arguments::{SelftestArguments, SelftestVerb, TrainingArguments};
use super::manifest::{self, run_error, threads};
use super::progress::Progress;
use super::run::{Watcher, report_failures, stop_on_signals};
use super::terminal::{GREEN, RED, Terminal, YELLOW};
use super::{Exit, leakage, rate};
use crate::artifact::sanity::{Findings, Status};
use crate::engine::{Engine, Isa, Targets};
use crate::manifest::Manifest;
use crate::nn::architecture;
use crate::nn::init::Initializer;
use crate::nn::plan::NetworkPlan;
use crate::nn::seeds::Seeds;
use crate::nn::training::{Trainer, Training};
use crate::report::text::{Align, aligned};
use crate::runner::{Options, Outcome, Session};
use crate::stages::Part;
use crate::store::Access;
use crate::tensor::{ImageShape, SampleShape};

/// `selftest`.
pub fn selftest(arguments: &SelftestArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    match &arguments.verb {
        Some(SelftestVerb::Training(training)) => self::training(training, terminal),
        Some(SelftestVerb::Leakage(leakage)) => leakage::leakage(leakage, terminal),
        Some(SelftestVerb::Rate(rate)) => rate::rate(rate, terminal),
        None => Ok(program(arguments.json, terminal)),
    }
}

/// A small network of most kinds of layers.
const NETWORK: &str = "INPUT - CONV(5) - BN - RELU - CONV(5) - RELU - POOL - CONV(6, kernel_size=5) - LEAKY - AVGPOOL - LOCAL(3) - ELU \
                       - DROPOUT(0.2) - FC(7) - RELU - FC";
/// Its updates.
const STEPS: u64 = 4;
/// First bytes of the digest of its weights afterwards, whatever the machine: a change of the program's arithmetic.
const GOLDEN: &str = "3576a0a65257c6c5";

/// Trains a small network under every instruction set, on one thread and on three: the bytes must be those of every
/// other machine.
fn program(is_json: bool, terminal: &Terminal) -> Exit {
    let mut rows = Vec::new();
    let mut json = Vec::new();
    let mut is_well = true;
    for isa in Isa::available() {
        for n_threads in [1, 3] {
            let digest = digest(isa, n_threads);
            let is_same = digest.starts_with(GOLDEN);
            is_well &= is_same;
            let verdict =
                if is_same { terminal.paint_result("passed", GREEN) } else { terminal.paint_result("failed", RED) };
            rows.push(vec![verdict, isa.to_string(), n_threads.to_string(), digest[..16].to_owned()]);
            json.push(
                serde_json::json!({ "isa": isa.name(), "threads": n_threads, "digest": digest, "passed": is_same }),
            );
        }
    }
    if is_json {
        terminal.json(serde_json::json!({ "passed": is_well, "expected": GOLDEN, "runs": json }));
    } else {
        let aligns = [Align::Left, Align::Left, Align::Right, Align::Left];
        let mut text = aligned(&["", "kernels", "threads", "digest of the weights"], &aligns, &rows);
        let _ = if is_well {
            writeln!(text, "{STEPS} updates of a small network give the same bytes here as everywhere")
        } else {
            writeln!(
                text,
                "expected {GOLDEN}: this machine computes other bytes; please report it with `convoy doctor`"
            )
        };
        terminal.result(&text);
    }
    if is_well { Exit::Done } else { Exit::NonDeterministic }
}

/// The digest of the small network's weights after some updates.
fn digest(isa: Isa, n_threads: usize) -> String {
    const SHAPE: ImageShape = ImageShape { height: 9, width: 8, channels: 2 };
    const N: usize = 16;
    let engine = Engine::with_isa(n_threads, isa);
    // Written above, and tested: it fits.
    let layers = architecture::from_shorthand(NETWORK).map(|architecture| architecture.layers).unwrap_or_default();
    let Ok(plan) = NetworkPlan::new(&layers, SampleShape::Image(SHAPE), 3) else { return "0".repeat(64) };
    let seeds = Seeds { seed: 1, indices: vec![("selftest", 1)] };
    let training = Training {
        seeds: seeds.clone(),
        l2: 1e-3,
        weight_decay: Some(1e-2),
        clip: Some(1.0),
        label_smoothing: 0.1,
        ..Training::default()
    };
    let mut trainer = Trainer::new(&engine, &plan, N, training);
    let mut images = vec![0.0; N * SHAPE.len()];
    Initializer::HeNormal.fill(1.0, 2, 2, &seeds.stream("images", &[]), &mut images);
    let labels: Vec<u32> = (0..N as u32).map(|i| i % 3).collect();
    for _ in 0..STEPS {
        trainer.train_step(&images, Targets::Labels(&labels), 0.01, None);
    }
    let mut hasher = blake3::Hasher::new();
    for tensor in trainer.network().save() {
        hasher.update(tensor.name.as_bytes());
        tensor.values.iter().for_each(|value| {
            hasher.update(&value.to_le_bytes());
        });
    }
    hasher.finalize().to_string()
}

/// `selftest training`.
fn training(arguments: &TrainingArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some(manifest) = manifest::load(&arguments.manifest, terminal)? else { return Ok(Exit::Usage) };
    let stages: Vec<usize> =
        (0..manifest.nodes.len()).filter(|&stage| manifest.nodes[stage].stage.kind() == "train").collect();
    if stages.is_empty() {
        if arguments.json {
            terminal.json(serde_json::json!({ "passed": true, "stages": [] }));
        } else {
            terminal.result("no stage trains a network\n");
        }
        return Ok(Exit::Done);
    }
    let places = &arguments.places;
    let session = match Session::open(&manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), Access::Write)
    {
        Ok(session) => session,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    let cancel = Arc::new(AtomicBool::new(false));
    stop_on_signals(&cancel)?;
    let options =
        Options { targets: Some(stages.clone()), part: Some(Part::Sanity), ..Options::new(threads(places), &cancel) };
    let progress = Progress::new(*terminal, true);
    let outcome = match session.run(&options, &Watcher { progress: &progress }) {
        Ok(outcome) => outcome,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    report_failures(&outcome, &manifest, terminal);
    if !outcome.is_complete() {
        if arguments.json {
            terminal.json(serde_json::json!({ "passed": false, "stages": [], "interrupted": outcome.is_interrupted }));
        }
        return Ok(if outcome.is_interrupted { Exit::Interrupted } else { Exit::Failed });
    }
    let mut text = String::new();
    let mut json = Vec::new();
    let mut is_well = true;
    for stage in stages {
        let findings = findings(&outcome, &session, stage)?;
        is_well &= findings.as_ref().is_none_or(|findings| findings.failure().is_none());
        if arguments.json {
            json.push(as_json(&manifest, stage, findings.as_ref()));
        } else {
            text.push_str(&as_text(&manifest, stage, findings.as_ref(), terminal));
        }
    }
    if arguments.json {
        terminal.json(serde_json::json!({ "passed": is_well, "stages": json }));
    } else {
        terminal.result(&text);
    }
    Ok(if is_well { Exit::Done } else { Exit::Failed })
}

/// What a stage's checks found; `None` if it makes none.
fn findings(outcome: &Outcome, session: &Session<'_>, stage: usize) -> anyhow::Result<Option<Findings>> {
    match outcome.files(&session.store, stage, Part::Sanity) {
        None => Ok(None),
        Some(files) => Ok(Some(Findings::read(&files?)?)),
    }
}

/// What L2 adds to the loss before the first update, in nats.
fn l2_loss(manifest: &Manifest, stage: usize, findings: &Findings) -> f64 {
    let resolved = &manifest.entries[stage].resolved;
    let l2 = resolved.iter().find(|resolved| resolved.key == "l2").and_then(|l2| l2.value.parse::<f64>().ok());
    l2.unwrap_or(0.0) * findings.half_squares + findings.layers_l2_loss
}

fn as_text(manifest: &Manifest, stage: usize, findings: Option<&Findings>, terminal: &Terminal) -> String {
    let name = &manifest.nodes[stage].name;
    let Some(findings) = findings else { return format!("{name}: `sanity = false`, nothing is checked\n") };
    let mut rows = Vec::new();
    for finding in &findings.findings {
        let colour = match finding.status {
            Status::Passed => GREEN,
            Status::Warned => YELLOW,
            Status::Failed => RED,
        };
        let mut message = finding.message.clone();
        let l2 = l2_loss(manifest, stage, findings);
        if finding.check == "initial_loss" && l2 > 0.0 {
            let _ = write!(message, "; L2 adds {l2:.3} to it");
        }
        rows.push(vec![
            format!("  {}", terminal.paint_result(finding.status.word(), colour)),
            finding.check.clone(),
            message,
        ]);
        if let Some(help) = &finding.help {
            rows.push(vec![String::new(), String::new(), format!("help: {help}")]);
        }
    }
    aligned(&[&format!("{name}:"), "", ""], &[Align::Left, Align::Left, Align::Left], &rows)
}

fn as_json(manifest: &Manifest, stage: usize, findings: Option<&Findings>) -> serde_json::Value {
    let name = &manifest.nodes[stage].name;
    match findings {
        None => serde_json::json!({ "stage": name, "passed": null, "findings": [] }),
        Some(findings) => serde_json::json!({
            "stage": name,
            "passed": findings.failure().is_none(),
            "l2_loss": l2_loss(manifest, stage, findings),
            "findings": findings.findings,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_gives_the_bytes_of_every_other_machine() {
        for isa in Isa::available() {
            for n_threads in [1, 2, 7] {
                let digest = digest(isa, n_threads);
                assert!(digest.starts_with(GOLDEN), "{isa}, {n_threads} threads: {digest}");
            }
        }
    }
}
