//! Images to look at by eye, of an evaluation: labels that held-out predictions contradict, near duplicates across splits and
//! labels, images unlike their class. Nothing is learned from them.
//!
//! | file | what |
//! |---|---|
//! | `suspects.csv` | a row per suspect and reason |
//! | `suspects.json` | how many there are, and what is on the sheets |
//! | `suspects.png` | the first of those that stand alone, row by row |
//! | `duplicates.png` | the first pairs, side by side, row by row |

use std::io;

use serde::{Deserialize, Serialize};

use super::sheet::Tiles;
use super::table::{Cell, Table};
use super::{Error, Files, Sink, put_document};

/// The table.
pub const TABLE: &str = "suspects.csv";
/// What is on the sheets.
pub const SUSPECTS: &str = "suspects.json";
/// The sheet of single images.
pub const SINGLES: &str = "suspects.png";
/// The sheet of pairs.
pub const PAIRS: &str = "duplicates.png";
/// What a report reads, beside the table.
pub const SUSPECTS_FILES: &[&str] = &[SUSPECTS, SINGLES, PAIRS];
/// The version of the document's form.
const FORMAT: u32 = 1;

/// Why an image is suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Held-out predictions contradict its label.
    Label,
    /// It is nearly, or exactly, another one with another label or in another split.
    Duplicate,
    /// It is far from all others of its class.
    UnlikeClass,
}

impl Reason {
    /// The word of the table.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Label => "label",
            Reason::Duplicate => "duplicate",
            Reason::UnlikeClass => "unlike-class",
        }
    }
}

/// An image as the table names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// Its number in the data set.
    pub id: u32,
    /// Where it is from.
    pub path: String,
    /// `test`, `out_of_fold`, `validation` or `train`.
    pub split: String,
    /// Its fold, where there are several.
    pub fold: Option<u32>,
    /// The name of its label.
    pub label: String,
}

/// What there is to say of a suspect, by its reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// The class that is more likely.
    Label {
        /// Its name.
        suggested: String,
        /// The probability of the label.
        p_label: f32,
        /// That of the suggested class.
        p_suggested: f32,
        /// Whether confident learning counts it as an error.
        is_confident: bool,
    },
    /// The other image.
    Duplicate {
        /// It.
        other: Named,
        /// Bits of the perceptual hash that differ; none where the pixels are the same.
        distance: Option<u32>,
    },
    /// Nothing more.
    UnlikeClass,
}

/// An image to look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    /// Which.
    pub image: Named,
    /// How suspect it is among those of its reason, from 0 to 1.
    pub score: f64,
    /// Why.
    pub about: About,
}

impl Suspect {
    /// Why it is suspect.
    pub fn reason(&self) -> Reason {
        match self.about {
            About::Label { .. } => Reason::Label,
            About::Duplicate { .. } => Reason::Duplicate,
            About::UnlikeClass => Reason::UnlikeClass,
        }
    }
}

/// A sheet of pictures and what is on it, in its order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sheet {
    /// How it is divided.
    pub tiles: Tiles,
    /// What is shown.
    pub suspects: Vec<Suspect>,
}

/// How many suspects there are, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Suspects {
    format: u32,
    /// Whose predictions contradict labels, and of which split these are; `None`: of nobody.
    pub judged: Option<Judged>,
    /// Images with a double that has another label.
    pub n_duplicates_of_labels: usize,
    /// Other images with a double in another split or fold.
    pub n_duplicates_of_splits: usize,
    /// Images unlike their class.
    pub n_unlike: usize,
    /// Of `suspects.png`.
    pub singles: Option<Sheet>,
    /// Of `duplicates.png`.
    pub pairs: Option<Sheet>,
}

/// Labels beside what a model says of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The model.
    pub model: String,
    /// `out_of_fold`, `validation` or `validation_selected`.
    pub split: String,
    /// Images of the split.
    pub n: usize,
    /// Images that are taken for another class.
    pub n_contradicted: usize,
    /// Those of them that confident learning counts as errors.
    pub n_confident: usize,
}

impl Suspects {
    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        self.n_confident() + self.n_duplicates_of_labels + self.n_duplicates_of_splits + self.n_unlike == 0
    }

    /// Labels that confident learning counts as errors.
    pub fn n_confident(&self) -> usize {
        self.judged.as_ref().map_or(0, |judged| judged.n_confident)
    }

    /// Writes the document.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(self, sink: &mut dyn Sink) -> io::Result<()> {
        put_document(sink, SUSPECTS, &Suspects { format: FORMAT, ..self })
    }

    /// Reads the document.
    ///
    /// # Errors
    /// If it is missing or of another form.
    pub fn read(files: &Files) -> Result<Suspects, Error> {
        files.document(SUSPECTS, Some(FORMAT))
    }
}

/// `reason,score,id,path,split,fold,label,suggested,p_label,p_suggested,confident,other_id,other_path,other_split,other_fold,`
/// `other_label,distance`: a row per suspect, in this order.
pub fn table(suspects: &[Suspect]) -> Vec<u8> {
    let mut table = Table::new(&[
        "reason",
        "score",
        "id",
        "path",
        "split",
        "fold",
        "label",
        "suggested",
        "p_label",
        "p_suggested",
        "confident",
        "other_id",
        "other_path",
        "other_split",
        "other_fold",
        "other_label",
        "distance",
    ]);
    for suspect in suspects {
        let Named { id, path, split, fold, label } = &suspect.image;
        let mut row: Vec<Cell<'_>> = vec![
            suspect.reason().word().into(),
            suspect.score.into(),
            (*id).into(),
            path.into(),
            split.into(),
            (*fold).into(),
            label.into(),
        ];
        let more: Vec<Cell<'_>> = match &suspect.about {
            About::Label { suggested, p_label, p_suggested, is_confident } => {
                vec![suggested.into(), (*p_label).into(), (*p_suggested).into(), (*is_confident).into()]
            }
            About::Duplicate { other, distance } => {
                let none = vec![Cell::Empty; 4];
                let other: Vec<Cell<'_>> = vec![
                    other.id.into(),
                    (&other.path).into(),
                    (&other.split).into(),
                    other.fold.into(),
                    (&other.label).into(),
                    (*distance).into(),
                ];
                [none, other].concat()
            }
            About::UnlikeClass => Vec::new(),
        };
        row.extend(more);
        row.resize_with(17, || Cell::Empty);
        table.row(&row);
    }
    table.into_bytes()
}
