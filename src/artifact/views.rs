//! Over which views of each image a model's probabilities are means: `views.json`, beside its predictions.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Error, Files, Sink, put_document};
use crate::data::augment::Views;

/// The file.
const VIEWS: &str = "views.json";
/// The version of its form.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    views: Views,
}

/// Writes the file.
///
/// # Errors
/// Those of the sink.
pub fn write(views: &Views, sink: &mut dyn Sink) -> io::Result<()> {
    put_document(sink, VIEWS, &Document { format: FORMAT, views: views.clone() })
}

/// Reads the file.
///
/// # Errors
/// If it is missing or of another form.
pub fn read(files: &Files) -> Result<Views, Error> {
    Ok(files.document::<Document>(VIEWS, Some(FORMAT))?.views)
}
