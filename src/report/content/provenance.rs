//! Where it is from: the manifest as it was run, the keys of all tasks, how to repeat it, the files.

use super::Pictures;
use crate::report::document::{Block, Column, Span, Table, Text, cell, name, plain};
use crate::report::summary::Report;
use crate::report::text::seconds;

/// What one run was: only where a reader asks for it, since no two runs are equal in it.
#[derive(Clone, Debug, Default)]
pub struct Ran {
    /// Threads.
    pub threads: Option<u64>,
    /// The instruction set.
    pub isa: Option<String>,
    /// How long it took in all, in seconds.
    pub seconds: Option<f64>,
    /// Tasks that were computed, and how long each took.
    pub tasks: Vec<(String, String, f64)>,
}

/// What files of a folder of reports are, by name.
const FILES: &[(&str, &str)] = &[
    ("metrics.csv", "every metric of every model, split and fold, with intervals"),
    ("predictions.csv", "every prediction with its probabilities and its loss"),
    ("confusion.csv", "how often each class was taken for each"),
    ("gains.csv", "what ensembles gain over their members"),
    ("comparisons.csv", "McNemar's test of every pair of models"),
    ("by.csv", "every metric by the values of a column"),
    ("curves.csv", "ROC and precision-recall curves"),
    ("suspects.csv", "images to look at by eye: doubtful labels, near duplicates, images unlike their class"),
    ("data.csv", "every image as it came in"),
    ("skipped.csv", "files that were left out, and why"),
    ("splits.csv", "where each image went"),
    ("epochs.csv", "loss and accuracy by epoch"),
    ("layers.csv", "weights, updates and gradients by epoch and layer"),
    ("components.csv", "explained variances"),
    ("sanity.csv", "what was checked before trainings"),
    ("trials.csv", "every trial of a search"),
    ("weights.csv", "weights of ensembles"),
    ("metrics.json", "scores for programs"),
    ("manifest.toml", "the manifest as it was run"),
];

/// The section.
pub(super) fn blocks(report: &Report, pictures: &Pictures<'_>, ran: Option<&Ran>) -> Vec<Block> {
    let made = format!("Made by Convoy {}. ", env!("CARGO_PKG_VERSION"));
    let mut blocks = match &report.origin.command {
        Some(command) => vec![
            Block::Text(vec![plain(made), plain("The same model and images give the same bytes:")]),
            Block::Code(command.clone()),
        ],
        None => vec![
            Block::Text(vec![
                plain(format!("{made}The same manifest and data give the same bytes: ")),
                Span::Code("convoy run manifest.toml".to_owned()),
                plain(", in this folder, repeats it."),
            ]),
            Block::Title(cell("The manifest as it was run")),
            Block::Code(report.origin.manifest.clone()),
        ],
    };
    let mut table = Table::new(&[("stage", Column::Left), ("task", Column::Left), ("key", Column::Left)]);
    for key in &report.origin.keys {
        let shown = key.key.clone().map_or_else(|| plain("no result yet"), Span::Code);
        table.rows.push(vec![vec![name(&key.stage)], cell(&key.part), vec![shown]]);
    }
    if !table.rows.is_empty() {
        let about = "A key is the digest of everything that a task's result depends on: its settings, the program's revisions, \
                     the content that it reads.";
        let title = "Keys of all tasks".to_owned();
        blocks.push(Block::Folded { title, blocks: vec![Block::Text(cell(about)), Block::Table(table)] });
    }
    blocks.extend(ran.map(times));
    let has = |file: &str| pictures.files.keys().any(|path| path.file_name().is_some_and(|name| name == file));
    let files: Vec<Text> = FILES
        .iter()
        .filter(|(file, _)| has(file))
        .map(|(file, what)| vec![Span::Code((*file).to_owned()), plain(format!(": {what}"))])
        .collect();
    if !files.is_empty() {
        blocks.push(Block::Title(cell("Files beside this one")));
        blocks.push(Block::List(files));
    }
    blocks
}

fn times(ran: &Ran) -> Block {
    let mut table = Table::new(&[("stage", Column::Left), ("task", Column::Left), ("time", Column::Right)]);
    for (stage, part, time) in &ran.tasks {
        table.rows.push(vec![vec![name(stage)], cell(part), cell(seconds(*time))]);
    }
    let mut about = Vec::new();
    about.extend(ran.seconds.map(|time| format!("the run took {}", seconds(time))));
    about.extend(ran.threads.map(|n| format!("threads: {n}")));
    about.extend(ran.isa.as_ref().map(|isa| format!("instruction set: {isa}")));
    let title = "The last run that computed something".to_owned();
    Block::Folded { title, blocks: vec![Block::Text(cell(about.join(", "))), Block::Table(table)] }
}
