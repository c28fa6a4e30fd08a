//! Images to look at by eye: labels that predictions contradict, near duplicates, images unlike their class.

use super::Pictures;
use super::verdict::split_in_words;
use crate::artifact::suspects::{About, Sheet, Suspect, Suspects};
use crate::report::document::{Block, Card, Picture, Span, Text, cell, name, plain};
use crate::report::summary::Report;
use crate::report::svg::{Chart, Figure, Images};
use crate::report::text::{counted, grouped};

/// `3 labels that … contradict, 1 near duplicate …`: what there is to look at, in one line; nothing where there is nothing.
pub fn line(found: &Suspects) -> Option<String> {
    let mut told = Vec::new();
    if let Some(judged) = found.judged.as_ref().filter(|judged| judged.n_confident > 0) {
        let labels = counted(judged.n_confident as u64, "label is doubtful", "labels are doubtful");
        told.push(format!("{labels} by what {} says {}", judged.model, on(&judged.split)));
    }
    let mut add = |n: usize, one: &str, more: &str| {
        if n > 0 {
            told.push(counted(n as u64, one, more));
        }
    };
    add(
        found.n_duplicates_of_labels,
        "image has a double with another label",
        "images have a double with another label",
    );
    add(found.n_duplicates_of_splits, "image has a double in another split", "images have a double in another split");
    add(found.n_unlike, "image is unlike its class", "images are unlike their class");
    (!told.is_empty()).then(|| told.join(", "))
}

/// The end of the section about the data.
pub(super) fn blocks(report: &Report, pictures: &mut Pictures<'_>) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (stage, sheets) in &report.suspects {
        let found = &sheets.suspects;
        if found.is_empty() {
            continue;
        }
        blocks.push(Block::Title(vec![plain("Suspects: images to look at by eye")]));
        if let Some(judged) = found.judged.as_ref().filter(|judged| judged.n_confident > 0) {
            let share = 100.0 * judged.n_confident as f64 / judged.n.max(1) as f64;
            blocks.push(Block::Text(vec![
                name(&judged.model),
                plain(format!(
                    ", which did not learn from the image itself, takes {} of {} images {} confidently for another class \
                     ({share:.1} %; confident learning): either their labels are wrong, or they are hard. ",
                    grouped(judged.n_confident as u64),
                    grouped(judged.n as u64),
                    on(&judged.split),
                )),
                plain("The test split is not judged by the model that it tests."),
            ]));
        }
        if found.n_unlike > 0 {
            let images = counted(found.n_unlike as u64, "image is", "images are");
            blocks
                .push(Block::Text(cell(format!("{images} far out of the class by brightness and composition alone."))));
        }
        if let (Some(sheet), Some(png)) = (&found.singles, &sheets.singles) {
            let of = (
                format!("suspects-{stage}.svg"),
                "Suspects",
                "the most doubtful labels first, then images unlike their class",
            );
            blocks.extend(cards(sheet, png, of, pictures));
        }
        if let (Some(sheet), Some(png)) = (&found.pairs, &sheets.pairs) {
            let mut text = Vec::new();
            let of = |n: usize| counted(n as u64, "image is", "images are");
            if found.n_duplicates_of_labels > 0 {
                let n = of(found.n_duplicates_of_labels);
                text.push(plain(format!(
                    "{n} nearly the same as an earlier one that has another label: one of the two is wrong. "
                )));
            }
            if found.n_duplicates_of_splits > 0 {
                let n = of(found.n_duplicates_of_splits);
                text.push(plain(format!(
                    "{n} nearly the same as an earlier one in another split or fold: what is learned and tested on at once \
                     makes scores too good. "
                )));
                text.extend([
                    Span::Code("group".to_owned()),
                    plain(" of the split keeps images that belong together in one place."),
                ]);
            }
            blocks.push(Block::Text(text));
            let of = (format!("duplicates-{stage}.svg"), "Near duplicates", "pairs, those with two labels first");
            blocks.extend(cards(sheet, png, of, pictures));
        }
        blocks.push(Block::Text(vec![plain("All of them are in "), name("suspects.csv"), plain(".")]));
    }
    blocks
}

fn on(split: &str) -> String {
    match split {
        "out_of_fold" => "out of fold".to_owned(),
        other => format!("on {}", split_in_words(other)),
    }
}

fn cards(
    sheet: &Sheet,
    png: &[u8],
    (file, title, subtitle): (String, &str, &str),
    pictures: &mut Pictures<'_>,
) -> Option<Block> {
    let tiles = sheet.tiles.cut(png, sheet.suspects.len()).ok()?;
    let mut figure = Figure::new(title, format!("row by row, {subtitle}"));
    figure.description = "small pictures of images to look at".to_owned();
    figure.charts.push(Chart::Images(Images { images: vec![(String::new(), png.to_vec())] }));
    let Block::Picture(whole) = pictures.draw(&file, &figure, Vec::new()) else { return None };
    let cards = sheet.suspects.iter().zip(tiles).map(|(suspect, png)| card(suspect, png)).collect();
    Some(Block::Cards { cards, sheet: Picture { caption: Vec::new(), ..whole } })
}

fn card(Suspect { image, score, about }: &Suspect, png: Vec<u8>) -> Card {
    let percent = |p: f32| format!("{:.1} %", 100.0 * f64::from(p));
    let (path, label) = (&image.path, &image.label);
    let labelled = || -> Text { vec![plain("label "), name(label)] };
    let (alt, lines) = match about {
        About::Label { suggested, p_label, p_suggested, .. } => (
            format!("{path}: labelled {label}, more likely {suggested}"),
            vec![
                labelled(),
                vec![plain("rather "), Span::Bad(suggested.clone())],
                cell(format!("{} against {}", percent(*p_suggested), percent(*p_label))),
                vec![name(path)],
            ],
        ),
        About::Duplicate { other, distance } => {
            let same =
                if distance.is_none() { "pixel for pixel".to_owned() } else { format!("correlation {score:.3}") };
            let label_of =
                |label: &String| if image.label == other.label { name(label) } else { Span::Bad(label.clone()) };
            let split = |image: &crate::artifact::suspects::Named| match image.fold {
                Some(fold) => format!(" (fold {fold})"),
                None => format!(" ({})", image.split),
            };
            (
                format!("{path} and {}: nearly the same", other.path),
                vec![
                    vec![
                        label_of(label),
                        plain(split(image)),
                        plain(" and "),
                        label_of(&other.label),
                        plain(split(other)),
                    ],
                    cell(same),
                    vec![name(path)],
                    vec![name(&other.path)],
                ],
            )
        }
        About::UnlikeClass => {
            (format!("{path}: unlike its class {label}"), vec![labelled(), cell("unlike its class"), vec![name(path)]])
        }
    };
    Card { png, alt, lines }
}
