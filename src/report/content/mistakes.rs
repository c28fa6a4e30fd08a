//! The worst mistakes: images by their loss, with what they are and what they were taken for.

use super::Pictures;
use super::verdict::split_in_words;
use crate::artifact::gallery::{Mistake, Mistakes};
use crate::report::document::{Block, Card, Picture, Span, cell, name, plain};
use crate::report::summary::Report;
use crate::report::svg::{Chart, Figure, Images};

/// The section.
pub(super) fn blocks(report: &Report, pictures: &mut Pictures<'_>) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (stage, sheets) in &report.galleries {
        let (Some(mistakes), Some(sheet)) = (&sheets.gallery.mistakes, &sheets.mistakes) else { continue };
        let on = split_in_words(&mistakes.split);
        blocks.push(Block::Text(vec![
            name(&mistakes.model),
            plain(format!(" took {} of {} {on} for another class. ", mistakes.n_wrong, mistakes.n)),
            plain("Those with the largest loss are either hard, or wrong themselves: look at their labels first."),
        ]));
        blocks.extend(cards(stage, mistakes, sheet, on, pictures));
    }
    blocks
}

fn cards(stage: &str, mistakes: &Mistakes, sheet: &[u8], on: &str, pictures: &mut Pictures<'_>) -> Option<Block> {
    let tiles = mistakes.tiles.cut(sheet, mistakes.worst.len()).ok()?;
    let mut figure =
        Figure::new(format!("{}: the worst mistakes on {on}", mistakes.model), "row by row, the largest loss first");
    figure.description = "small pictures of images that were taken for another class".to_owned();
    figure.charts.push(Chart::Images(Images { images: vec![(String::new(), sheet.to_vec())] }));
    let Block::Picture(sheet) = pictures.draw(&format!("mistakes-{stage}.svg"), &figure, Vec::new()) else {
        return None;
    };
    let cards = mistakes.worst.iter().zip(tiles).map(|(mistake, png)| card(mistake, png)).collect();
    Some(Block::Cards { cards, sheet: Picture { caption: Vec::new(), ..sheet } })
}

fn card(mistake: &Mistake, png: Vec<u8>) -> Card {
    let Mistake { path, actual, predicted, confidence, loss } = mistake;
    Card {
        png,
        alt: format!("{path}: {actual}, taken for {predicted}"),
        lines: vec![
            vec![plain("actual "), name(actual)],
            vec![plain("predicted "), Span::Bad(predicted.clone())],
            cell(format!("confidence {:.1} %, loss {loss:.2}", 100.0 * f64::from(*confidence))),
            vec![name(path)],
        ],
    }
}
