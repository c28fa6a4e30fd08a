//! What the checks before a training found: one line a check, whether it passed or not.
//!
//! | file | what |
//! |---|---|
//! | `sanity.json` | every finding with its message, and the sums of squares from which L2's share of the loss follows |
//! | `sanity.csv` | the same as a table, for people |

use std::io;

use serde::{Deserialize, Serialize};

use super::table::Table;
use super::{Error, Files, Sink, put_document};

/// The findings' file name.
pub const SANITY: &str = "sanity.json";

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Passed,
    /// Worth a look; training goes on.
    Warned,
    /// Training would be for nothing.
    Failed,
}

impl Status {
    /// The word in tables.
    pub fn word(self) -> &'static str {
        match self {
            Status::Passed => "passed",
            Status::Warned => "warned",
            Status::Failed => "failed",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `labels`, `images`, `values`, `initial_loss`, `memorises`.
    pub check: String,
    /// How it ended.
    pub status: Status,
    /// What was measured; `None` where it is not a number.
    pub value: Option<f64>,
    /// What it is compared with, if anything.
    pub limit: Option<f64>,
    /// One sentence with the numbers in it, lower case, no full stop.
    pub message: String,
    /// The key to blame, dotted, relative to the stage.
    pub key: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// The image that it is about, by its index in the data set: "image 7" in the message. Names are not read here,
    /// since a renamed image is no reason to check anew; who prints it puts in the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<u32>,
}

impl Finding {
    /// Names the image that it is about.
    pub fn image(mut self, image: u32) -> Finding {
        self.image = Some(image);
        self
    }

    /// Adds what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Finding {
        self.help = Some(help.into());
        self
    }

    /// Names the key to blame.
    pub fn key(mut self, key: &str) -> Finding {
        self.key = Some(key.to_owned());
        self
    }
}

/// All findings of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// Version of this file's form.
    pub format: u32,
    /// In the order in which they were made.
    pub findings: Vec<Finding>,
    /// Half the sum of squares of the weights at the start that the stage's `l2` applies to: times `l2`, what it adds
    /// to the loss.
    pub half_squares: f64,
    /// What the layers with an `l2` of their own add to the loss, in nats.
    pub layers_l2_loss: f64,
}

impl Findings {
    /// The first failure.
    pub fn failure(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.status == Status::Failed)
    }

    /// Writes both files.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(&self, sink: &mut dyn Sink) -> io::Result<()> {
        put_document(sink, SANITY, self)?;
        let mut table = Table::new(&["check", "status", "value", "limit", "finding"]);
        for finding in &self.findings {
            table.row(&[
                (&finding.check).into(),
                finding.status.word().into(),
                finding.value.into(),
                finding.limit.into(),
                (&finding.message).into(),
            ]);
        }
        sink.put("sanity.csv", &table.into_bytes())
    }

    /// Reads the findings of an artifact.
    ///
    /// # Errors
    /// If they are missing or of another form.
    pub fn read(files: &Files) -> Result<Findings, Error> {
        files.document(SANITY, Some(1))
    }
}
