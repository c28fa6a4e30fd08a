//! The training: curves, which epoch was kept, what layers look like, searches.

use std::path::{Path, PathBuf};

use super::Pictures;
use crate::report::best::Best;
use crate::report::document::{Block, Column, Table, cell, name, plain};
use crate::report::summary::Report;
use crate::report::text::grouped;

/// The section.
pub(super) fn blocks(report: &Report, pictures: &Pictures<'_>) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (search, rounds) in &report.searches {
        let folder = if report.searches.len() == 1 { PathBuf::new() } else { PathBuf::from(search) };
        blocks.push(Block::Title(vec![plain("Search: "), name(search)]));
        if let Some(best) = rounds.last().and_then(|round| Best::of(search, round)) {
            let about = format!("The best trial is {} ({}); its settings, to paste:", best.trial, best.score());
            blocks.push(Block::Text(cell(about)));
            blocks.push(Block::Code(best.lines()));
        }
        let alts = [
            ("trials-parallel.svg", "every trial as a line across its settings and its score"),
            ("trials-slices.svg", "the score of every trial against each of its settings"),
        ];
        blocks.extend(alts.iter().filter_map(|(file, alt)| pictures.show(&folder.join(file), alt, Vec::new())));
    }
    let mut stages: Vec<&str> = report.trainings.iter().map(|training| training.stage.as_str()).collect();
    stages.dedup();
    for stage in stages {
        blocks.push(Block::Title(vec![plain("Network: "), name(stage)]));
        blocks.extend(networks(report, stage));
        let curves = Path::new("curves").join(format!("{stage}.svg"));
        let alt = format!("learning curves of {stage}: loss, accuracy and sizes of updates by epoch");
        blocks.extend(pictures.show(&curves, &alt, Vec::new()));
        let filters = Path::new("filters").join(format!("{stage}.svg"));
        let alt = format!("filters of the first layer of {stage}, before and after training");
        blocks.extend(pictures.show(&filters, &alt, Vec::new()));
    }
    blocks.extend(components(pictures));
    blocks
}

/// A row a network.
fn networks(report: &Report, stage: &str) -> Vec<Block> {
    let own: Vec<_> = report.trainings.iter().filter(|training| training.stage == stage).collect();
    let Some(first) = own.first() else { return Vec::new() };
    let shape = first.model.input.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    let about = vec![
        plain(format!("{} weights, inputs of {shape}: ", grouped(first.model.n_parameters as u64))),
        crate::report::document::Span::Code(first.model.architecture.clone()),
    ];
    let mut head = vec![
        ("trained on", Column::Left),
        ("images", Column::Right),
        ("epochs", Column::Right),
        ("best epoch", Column::Right),
    ];
    let is_chosen = own.iter().any(|training| training.model.is_selected);
    head.extend(is_chosen.then_some(("", Column::Left)));
    let mut table = Table::new(&head);
    for training in own {
        let chosen = if training.model.is_selected { "validation images chose the epoch or the rate" } else { "" };
        let mut row = vec![
            cell(match training.part.as_str() {
                "all" => "all training images".to_owned(),
                part => format!("all but {part}"),
            }),
            cell(grouped(training.model.n_training as u64)),
            cell(training.model.epochs.to_string()),
            cell(training.model.best_epoch.to_string()),
        ];
        row.extend(is_chosen.then(|| cell(chosen)));
        table.rows.push(row);
    }
    vec![Block::Text(about), Block::Table(table)]
}

/// Components of PCA and projections.
fn components(pictures: &Pictures<'_>) -> Vec<Block> {
    let mut blocks = Vec::new();
    for path in pictures.in_folder("components") {
        let task = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        blocks.extend(pictures.show(&path, &format!("components of {task}"), Vec::new()));
    }
    match blocks.len() {
        0 => blocks,
        // One stands for all folds.
        _ => {
            let others = blocks.split_off(1);
            let mut shown = vec![Block::Title(cell("Components"))];
            shown.extend(blocks);
            if !others.is_empty() {
                shown.push(Block::Folded { title: "Of the other folds".to_owned(), blocks: others });
            }
            shown
        }
    }
}
