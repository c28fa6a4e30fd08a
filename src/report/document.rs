//! A report before it has a format: sections of texts, tables and pictures. Renderers escape; nothing here does.

use std::path::PathBuf;

/// A report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// What it is called.
    pub title: String,
    /// In order; those without blocks are left out by renderers.
    pub sections: Vec<Section>,
}

/// A chapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// For links: letters and hyphens.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// What it holds.
    pub blocks: Vec<Block>,
}

/// A piece of text, by what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// Our own words.
    Plain(String),
    /// A name that is not ours: of a class, a stage, a file.
    Name(String),
    /// To be typed or pasted.
    Code(String),
    /// What matters.
    Strong(String),
    /// A good verdict.
    Good(String),
    /// A bad one.
    Bad(String),
}

/// Texts in a row.
pub type Text = Vec<Span>;

/// A table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Column headings.
    pub head: Vec<(String, Column)>,
    /// Rows, a text a column.
    pub rows: Vec<Vec<Text>>,
}

/// How a column stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Column {
    /// Text.
    #[default]
    Left,
    /// Numbers.
    Right,
}

/// A picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Its file, relative to the report.
    pub path: PathBuf,
    /// What a reader who does not see it is told.
    pub alt: String,
    /// Below it; may be empty.
    pub caption: Text,
    /// The file's content: SVG or PNG.
    pub bytes: Vec<u8>,
}

/// A small picture with lines below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// PNG.
    pub png: Vec<u8>,
    /// What a reader who does not see it is told.
    pub alt: String,
    /// Below it.
    pub lines: Vec<Text>,
}

/// A number at the top, with what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// The number.
    pub value: String,
    /// Its interval, how many samples; may be empty.
    pub note: String,
}

/// A part of a section.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// A heading within the section.
    Title(Text),
    /// A paragraph.
    Text(Text),
    /// Items.
    List(Vec<Text>),
    /// Numbers that are read first.
    Figures(Vec<Figure>),
    /// A table.
    Table(Table),
    /// A picture.
    Picture(Picture),
    /// Small pictures; where formats have no room for them, the picture of all of them and its rows.
    Cards {
        /// Each with its text.
        cards: Vec<Card>,
        /// All of them as one file.
        sheet: Picture,
    },
    /// Text as it is, to be copied.
    Code(String),
    /// What is there for those who open it.
    Folded {
        /// What it is.
        title: String,
        /// What it holds.
        blocks: Vec<Block>,
    },
}

/// Our own words.
pub fn plain(text: impl Into<String>) -> Span {
    Span::Plain(text.into())
}

/// A name that is not ours.
pub fn name(text: impl Into<String>) -> Span {
    Span::Name(text.into())
}

/// A cell of our own words or of a number.
pub fn cell(text: impl Into<String>) -> Text {
    vec![plain(text)]
}

impl Table {
    /// A table without rows: names of columns, and which of them are numbers.
    pub fn new(head: &[(&str, Column)]) -> Table {
        Table { head: head.iter().map(|(name, column)| ((*name).to_owned(), *column)).collect(), rows: Vec::new() }
    }
}

impl Document {
    /// The sections that say something.
    pub fn sections(&self) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(|section| !section.blocks.is_empty())
    }
}
