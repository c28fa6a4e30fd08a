//! What a report says, section by section, and its pictures as files. Formats are not its concern.

mod data;
mod mistakes;
mod plots;
mod provenance;
mod results;
mod suspects;
mod training;
mod trust;
mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::document::{Block, Document, Picture, Section, Text};
use super::summary::Report;
use super::svg::Figure;
use super::{html, markdown};

pub use provenance::Ran;
pub use suspects::line as suspects_line;

/// The report as one file.
pub const HTML: &str = "report.html";
/// The report with its pictures as files beside it.
pub const MARKDOWN: &str = "report.md";
/// The report in short.
pub const SHORT: &str = "summary.md";
/// The folder of the pictures that are drawn for it.
pub const FOLDER: &str = "figures";

/// The largest page, in bytes. Pictures that have no room in it are files beside it.
const MOST: usize = 4_900_000;

/// The files of a report's folder, and those that a report adds.
pub(super) struct Pictures<'a> {
    files: &'a mut BTreeMap<PathBuf, Vec<u8>>,
}

impl Pictures<'_> {
    /// Draws a picture into the folder.
    fn draw(&mut self, file: &str, figure: &Figure, caption: Text) -> Block {
        let path = Path::new(FOLDER).join(file);
        let bytes = figure.to_svg();
        self.files.insert(path.clone(), bytes.clone());
        let alt = match figure.description.is_empty() {
            true => figure.title.clone(),
            false => format!("{}: {}", figure.title, figure.description),
        };
        Block::Picture(Picture { path, alt, caption, bytes })
    }

    /// A picture that is there.
    fn show(&self, path: &Path, alt: &str, caption: Text) -> Option<Block> {
        let bytes = self.files.get(path)?.clone();
        Some(Block::Picture(Picture { path: path.to_owned(), alt: alt.to_owned(), caption, bytes }))
    }

    /// The files of a folder that begin so.
    fn in_folder(&self, folder: &str) -> Vec<PathBuf> {
        self.files.keys().filter(|path| path.parent() == Some(Path::new(folder))).cloned().collect()
    }
}

/// Adds the report, in every format, and its pictures to the files of a folder of reports.
pub fn add(report: &Report, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let document = document(report, files, None);
    let page = fitting(&document);
    let short = Document {
        title: document.title.clone(),
        sections: vec![Section { id: "summary", title: "Summary", blocks: verdict::short(report, files) }],
    };
    files.insert(HTML.into(), page.into_bytes());
    files.insert(MARKDOWN.into(), markdown::markdown(&document).into_bytes());
    files.insert(SHORT.into(), markdown::markdown(&short).into_bytes());
}

/// The report as one file of HTML, with what one run was, if that is asked for.
pub fn page(report: &Report, files: &mut BTreeMap<PathBuf, Vec<u8>>, ran: Option<&Ran>) -> String {
    fitting(&document(report, files, ran))
}

fn document(report: &Report, files: &mut BTreeMap<PathBuf, Vec<u8>>, ran: Option<&Ran>) -> Document {
    let mut pictures = Pictures { files };
    let sections = vec![
        Section { id: "verdict", title: "Verdict", blocks: verdict::blocks(report) },
        Section { id: "data", title: "Data", blocks: data::blocks(report, &mut pictures) },
        Section { id: "results", title: "Results", blocks: results::blocks(report, &mut pictures) },
        Section { id: "mistakes", title: "The worst mistakes", blocks: mistakes::blocks(report, &mut pictures) },
        Section { id: "training", title: "Training", blocks: training::blocks(report, &pictures) },
        Section { id: "provenance", title: "Provenance", blocks: provenance::blocks(report, &pictures, ran) },
    ];
    Document { title: report.pipeline.clone(), sections }
}

/// The page, without its largest pictures where it would be too large.
fn fitting(document: &Document) -> String {
    let mut document = document.clone();
    loop {
        let page = html::html(&document);
        let most = document.sections.iter_mut().flat_map(|section| pictures_in(&mut section.blocks));
        match most.max_by_key(|block| size(block)).filter(|block| size(block) > 0 && page.len() > MOST) {
            Some(largest) => leave_out(largest),
            None => return page,
        }
    }
}

/// The pictures among these blocks, and those folded away.
fn pictures_in(blocks: &mut [Block]) -> Vec<&mut Block> {
    let mut found = Vec::new();
    for block in blocks {
        match block {
            Block::Folded { blocks, .. } => found.extend(pictures_in(blocks)),
            Block::Picture(_) | Block::Cards { .. } => found.push(block),
            _ => {}
        }
    }
    found
}

fn size(block: &Block) -> usize {
    match block {
        Block::Picture(picture) => picture.bytes.len(),
        Block::Cards { cards, .. } => cards.iter().map(|card| card.png.len()).sum(),
        _ => 0,
    }
}

/// Names the file in place of the picture.
fn leave_out(block: &mut Block) {
    let (Block::Picture(picture) | Block::Cards { sheet: picture, .. }) = block else { return };
    let path = picture.path.iter().map(|name| name.to_string_lossy()).collect::<Vec<_>>().join("/");
    let words = format!("{}: too large for this page, see ", picture.alt);
    *block = Block::Text(vec![super::document::plain(words), super::document::name(path)]);
}
