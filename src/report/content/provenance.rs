//! Where it is from: the manifest as it was run, the keys of all tasks, how to repeat it, the files.

use super::Pictures;
use crate::artifact::columns;
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
    let files: Vec<Text> = columns::FILES
        .iter()
        .filter(|file| has(file.name))
        .map(|file| vec![Span::Code(file.name.to_owned()), plain(format!(": {}", file.meaning))])
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
