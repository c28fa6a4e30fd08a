//! The data: what came in, how it is divided, what was left out and why.

use super::{Pictures, suspects};
use crate::artifact::dataset::Summary;
use crate::report::dataset;
use crate::report::document::{Block, Column, Table, cell, name, plain};
use crate::report::summary::Report;
use crate::report::svg::{Axis, Bar, Bars, Chart, Figure, Images, Panel, categorical};
use crate::report::text::grouped;

/// So many classes have a bar: the largest and the smallest.
const MOST_BARS: usize = 60;
/// So many files that were left out are named.
const MOST_NAMED: usize = 20;

/// The section.
pub(super) fn blocks(report: &Report, pictures: &mut Pictures<'_>) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (stage, data) in &report.datasets {
        blocks.push(Block::Text(vec![name(stage), plain(": "), name(dataset::line(data)), plain(".")]));
        blocks.extend(sizes(data).map(|told| Block::Text(cell(told))));
        blocks.extend(classes(data).map(|figure| pictures.draw(&format!("classes-{stage}.svg"), &figure, Vec::new())));
        blocks.extend(left_out(data));
    }
    blocks.extend(samples(report, pictures));
    for (stage, split) in &report.splits {
        let mut table = Table::new(&[("part", Column::Left), ("images", Column::Right)]);
        let mut row = |part: String, n: usize| table.rows.push(vec![cell(part), cell(grouped(n as u64))]);
        if split.n_test > 0 {
            row("test (looked at once, by evaluation)".to_owned(), split.n_test);
        }
        if split.n_train > 0 {
            row("training only".to_owned(), split.n_train);
        }
        for (i, n) in split.n_validation.iter().enumerate() {
            row(if split.folds == 1 { "validation".to_owned() } else { format!("fold {}", i + 1) }, *n);
        }
        blocks.push(Block::Title(vec![plain("How it is divided: "), name(stage)]));
        blocks.push(Block::Table(table));
        let duplicates = split.duplicates;
        let mut told = Vec::new();
        if duplicates.test_and_training > 0 {
            told.push(format!(
                "{} test images are outside the test split, too, pixel for pixel",
                duplicates.test_and_training
            ));
        }
        if duplicates.across_folds > 0 {
            told.push(format!("{} other images are in another part, too, pixel for pixel", duplicates.across_folds));
        }
        let told =
            if told.is_empty() { "No image is in two parts, pixel for pixel".to_owned() } else { told.join("; ") };
        blocks.push(Block::Text(cell(format!("{told}."))));
    }
    blocks.extend(suspects::blocks(report, pictures));
    blocks
}

/// How large images were, where they were not all alike.
fn sizes(data: &Summary) -> Option<String> {
    let range = |side: fn(&(u32, u32)) -> u32| {
        let sides = || data.sizes.iter().map(side);
        Some((sides().min()?, sides().max()?))
    };
    let (wide, tall) = (range(|size| size.0)?, range(|size| size.1)?);
    let shown = |(least, most): (u32, u32)| match least == most {
        true => format!("{least}"),
        false => format!("{least} to {most}"),
    };
    let told = format!("In the source images are {} pixels wide and {} high.", shown(wide), shown(tall));
    (data.sizes.len() > 1).then_some(told)
}

/// Sheets of samples: of trainings that change images, else one of what there is.
fn samples(report: &Report, pictures: &mut Pictures<'_>) -> Vec<Block> {
    let sheets = report
        .galleries
        .iter()
        .filter_map(|(stage, sheets)| Some((stage, sheets.gallery.samples.as_ref()?, sheets.samples.as_ref()?)));
    let mut sheets: Vec<_> = sheets.collect();
    match sheets.iter().any(|(_, samples, _)| samples.rows > 1) {
        true => sheets.retain(|(_, samples, _)| samples.rows > 1),
        false => sheets.truncate(1),
    }
    let Some((_, data)) = report.datasets.first() else { return Vec::new() };
    let mut blocks = Vec::new();
    for (stage, samples, sheet) in sheets {
        let Ok(bands) = samples.tiles.bands(sheet, samples.rows, samples.classes.len()) else { continue };
        let class =
            |label: &u32| data.classes.get(*label as usize).map_or_else(String::new, |(class, _)| class.clone());
        let mut figure = Figure::new("Samples as the network sees them", "");
        if samples.rows > 1 {
            figure.title = format!("Samples as {stage} sees them");
            figure.subtitle = "first row: as they are; second row: as the first epoch changes them".to_owned();
        }
        if samples.classes.len() < samples.n_classes {
            let cut = format!("{} of {} classes", samples.classes.len(), samples.n_classes);
            figure.subtitle = if figure.subtitle.is_empty() { cut } else { format!("{cut}; {}", figure.subtitle) };
        }
        figure.description = "small pictures of images of every class".to_owned();
        let images = samples.classes.iter().map(class).zip(bands).collect();
        figure.charts.push(Chart::Images(Images { images }));
        blocks.push(pictures.draw(&format!("samples-{stage}.svg"), &figure, Vec::new()));
    }
    blocks
}

/// Images by class.
fn classes(data: &Summary) -> Option<Figure> {
    let mut classes: Vec<&(String, u64)> = data.classes.iter().collect();
    if classes.len() < 2 {
        return None;
    }
    classes.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let n = classes.len();
    if n > MOST_BARS {
        classes.drain(MOST_BARS / 2..n - MOST_BARS / 2);
    }
    let most = classes.first().map_or(1, |(_, n)| *n).max(1) as f64;
    let cut = if n > MOST_BARS {
        format!("the {0} largest and the {0} smallest of {n} classes", MOST_BARS / 2)
    } else {
        String::new()
    };
    let mut figure = Figure::new("Images by class", cut);
    figure.description = "number of images of every class as bars".to_owned();
    let values = classes.iter().map(|(_, n)| {
        let text = format!("{} · {:.1} %", grouped(*n), 100.0 * *n as f64 / data.n_samples().max(1) as f64);
        Some(Bar { value: *n as f64, interval: None, text })
    });
    let axis = Axis::whole("images").within(0.0, 1.05 * most);
    let panel = Panel { axis, colour: categorical(0), values: values.collect() };
    let names = classes.iter().map(|(class, _)| class.clone()).collect();
    figure.charts.push(Chart::Bars(Bars { title: String::new(), names, panels: vec![panel] }));
    Some(figure)
}

fn left_out(data: &Summary) -> Vec<Block> {
    if data.n_left_out == 0 {
        return Vec::new();
    }
    let mut table = Table::new(&[("left out", Column::Left), ("why", Column::Left)]);
    for (path, reason) in data.left_out.iter().take(MOST_NAMED) {
        table.rows.push(vec![vec![name(path)], vec![name(reason)]]);
    }
    let mut blocks = vec![Block::Table(table)];
    if data.n_left_out > MOST_NAMED as u64 {
        let n = data.n_left_out - MOST_NAMED as u64;
        blocks.push(Block::Text(vec![
            plain(format!("and {} more, see ", grouped(n))),
            name("skipped.csv"),
            plain("."),
        ]));
    }
    blocks
}
