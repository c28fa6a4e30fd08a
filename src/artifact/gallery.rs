//! Pictures of images for a report: samples of every class, the worst mistakes. Nothing is learned from them.
//!
//! | file | what |
//! |---|---|
//! | `gallery.json` | what is on the sheets |
//! | `samples.png` | rows of samples, class by class; where training changes images, a second row of each class shows how |
//! | `mistakes.png` | the worst mistakes, row by row |

use std::io;

use serde::{Deserialize, Serialize};

use super::sheet::Tiles;
use super::{Error, Files, Sink, put_document};

/// The file that says what is on the sheets.
pub const GALLERY: &str = "gallery.json";
/// The sheet of samples.
pub const SAMPLES: &str = "samples.png";
/// The sheet of mistakes.
pub const MISTAKES: &str = "mistakes.png";
/// All of them.
pub const GALLERY_FILES: &[&str] = &[GALLERY, SAMPLES, MISTAKES];
/// The version of the document's form.
const FORMAT: u32 = 1;

/// What is on the sheets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gallery {
    format: u32,
    /// Of `samples.png`.
    pub samples: Option<Samples>,
    /// Of `mistakes.png`.
    pub mistakes: Option<Mistakes>,
}

/// Samples, class by class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// How the sheet is divided.
    pub tiles: Tiles,
    /// Labels of the classes, in the order of the sheet.
    pub classes: Vec<u32>,
    /// Classes of the data set, of which the sheet may show only the first.
    pub n_classes: usize,
    /// Rows of a class: one, or a second one of the same images as training changes them.
    pub rows: usize,
}

/// The worst mistakes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mistakes {
    /// How the sheet is divided.
    pub tiles: Tiles,
    /// Whose.
    pub model: String,
    /// On which split.
    pub split: String,
    /// Images of the split.
    pub n: usize,
    /// Images that were taken for another class.
    pub n_wrong: usize,
    /// The worst first.
    pub worst: Vec<Mistake>,
}

/// An image that was taken for another class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mistake {
    /// Where it is from.
    pub path: String,
    /// Its class.
    pub actual: String,
    /// What it was taken for.
    pub predicted: String,
    /// The probability of that.
    pub confidence: f32,
    /// The log loss, in nats.
    pub loss: f64,
}

impl Gallery {
    /// Of these sheets.
    pub fn new(samples: Option<Samples>, mistakes: Option<Mistakes>) -> Gallery {
        Gallery { format: FORMAT, samples, mistakes }
    }

    /// Writes the document.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(&self, sink: &mut dyn Sink) -> io::Result<()> {
        put_document(sink, GALLERY, self)
    }

    /// Reads the document.
    ///
    /// # Errors
    /// If it is missing or of another form.
    pub fn read(files: &Files) -> Result<Gallery, Error> {
        files.document(GALLERY, Some(FORMAT))
    }
}
