//! `summary`: the layers of each network, before anything is trained.

use std::fmt::Write as _;

use super::arguments::SummaryArguments;
use super::terminal::Terminal;
use super::{Exit, check, manifest};
use crate::config::Log;
use crate::manifest::Diagnostics;
use crate::nn::plan::NetworkPlan;
use crate::report::text::{Align, aligned, bytes, grouped};
use crate::runner;
use crate::stages::{Flow, Trained};

/// `summary`.
pub fn summary(arguments: &SummaryArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some(manifest) = manifest::load(&arguments.manifest, terminal)? else { return Ok(Exit::Usage) };
    let mut text = String::new();
    let mut json = Vec::new();
    let mut flows: Vec<Flow> = manifest.nodes.iter().map(|node| node.flow.clone()).collect();
    let is_known = |flow: &Flow| flow.shape.is_some() && flow.n_classes.is_some();
    let networks = manifest.nodes.iter().filter(|node| node.stage.network().is_some());
    let mut absent = None;
    if !arguments.toml && networks.clone().any(|node| !is_known(&flows[node.inputs[0]])) {
        // Nobody has said what the images are like; a look at them does.
        let places = runner::places(&manifest, arguments.places.data_dir.as_deref());
        absent = manifest.absent_sources(&places).into_iter().next();
        let stored = check::Stored::open(&manifest, &arguments.places, terminal);
        let looked = manifest.look(&|stage| match stored.see(stage) {
            None if absent.is_none() => check::glance(&manifest, stage, &places),
            seen => Ok(seen),
        });
        let found = Diagnostics::new(looked.problems, manifest.texts.clone());
        if found.n_errors() > 0 {
            manifest::print(&found, terminal);
            return Ok(Exit::Usage);
        }
        flows = looked.flows;
    }
    for node in &manifest.nodes {
        let Some(network) = node.stage.network() else { continue };
        if arguments.toml {
            let long = manifest_spells_layers(&manifest, &node.name);
            let _ = writeln!(text, "# [stages.{}]", node.name);
            text.push_str(&if long {
                format!("architecture = \"{}\"\n", network.architecture.shorthand())
            } else {
                network.architecture.long_form()
            });
            continue;
        }
        let above = &flows[node.inputs[0]];
        // The manifest was checked, so that nothing new is reported here.
        let plan = network.architecture.check(above.shape, above.n_classes, &mut Log::default());
        let Some(plan) = plan else {
            let why = match &absent {
                Some(problem) => problem.message.clone(),
                None => "what it is fed is known once the stages above have run".to_owned(),
            };
            let _ = writeln!(text, "{}: shapes are not known: {why}\n", node.name);
            continue;
        };
        if arguments.json {
            json.push(as_json(&node.name, &network, &plan));
        } else {
            let _ = write!(text, "{}", table(&node.name, &network, &plan));
        }
    }
    if arguments.json {
        terminal.json(serde_json::json!({ "networks": json }));
        return Ok(Exit::Done);
    }
    if text.is_empty() {
        text = "no stage trains a network\n".to_owned();
    }
    terminal.result(&text);
    Ok(Exit::Done)
}

/// Whether the stage's network is written as `layers`.
fn manifest_spells_layers(manifest: &crate::manifest::Manifest, stage: &str) -> bool {
    let Some(index) = manifest.stage(stage) else { return false };
    let Some(network) = manifest.nodes[index].stage.network() else { return false };
    let Some(&first) = network.architecture.spans.first() else { return false };
    // A layer of the shorthand stands inside a string; one of the long form is a value of its own.
    manifest.texts.slice(first).starts_with(['"', '\'', '{'])
}

fn table(name: &str, network: &Trained<'_>, plan: &NetworkPlan) -> String {
    let rows: Vec<Vec<String>> = network
        .architecture
        .layer_names()
        .into_iter()
        .zip(&plan.layers)
        .map(|(name, layer)| {
            vec![
                name,
                layer.output.to_string(),
                grouped(layer.n_parameters as u64),
                grouped(layer.multiply_adds),
                layer.receptive_field.map_or_else(|| "all".to_owned(), |(height, width)| format!("{width}x{height}")),
            ]
        })
        .collect();
    let aligns = [Align::Left, Align::Right, Align::Right, Align::Right, Align::Right];
    let table = aligned(&["layer", "output", "parameters", "multiply-adds", "receptive field"], &aligns, &rows);
    let batch = network.batch_size;
    format!(
        "{name}: input {}, {} classes\n\n{table}\n{} parameters, {} multiply-adds an image (forward)\n\
         training takes {} at batch size {batch}, predicting {}\n\n",
        plan.input,
        plan.n_classes,
        grouped(plan.n_parameters() as u64),
        grouped(plan.multiply_adds()),
        bytes(plan.training_bytes(batch, network.n_moments)),
        bytes(plan.prediction_bytes(batch)),
    )
}

fn as_json(name: &str, network: &Trained<'_>, plan: &NetworkPlan) -> serde_json::Value {
    let layers: Vec<serde_json::Value> = network
        .architecture
        .layer_names()
        .into_iter()
        .zip(&plan.layers)
        .map(|(name, layer)| {
            serde_json::json!({
                "layer": name,
                "output": crate::artifact::model::axes(layer.output),
                "parameters": layer.n_parameters,
                "multiply_adds": layer.multiply_adds,
                "receptive_field": layer.receptive_field,
            })
        })
        .collect();
    serde_json::json!({
        "stage": name,
        "input": crate::artifact::model::axes(plan.input),
        "classes": plan.n_classes,
        "layers": layers,
        "parameters": plan.n_parameters(),
        "multiply_adds": plan.multiply_adds(),
        "batch_size": network.batch_size,
        "training_bytes": plan.training_bytes(network.batch_size, network.n_moments),
        "prediction_bytes": plan.prediction_bytes(network.batch_size),
    })
}
