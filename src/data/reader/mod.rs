//! Readers: one file per data set format.

/// The split that a source itself puts an image in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GivenSplit {
    /// To learn from.
    Train,
    /// To choose with.
    Validation,
    /// To report on.
    Test,
}

impl GivenSplit {
    /// The word in every CSV.
    pub fn name(self) -> &'static str {
        match self {
            GivenSplit::Train => "train",
            GivenSplit::Validation => "validation",
            GivenSplit::Test => "test",
        }
    }

    /// The split that a folder's name or a CSV cell means: `train`/`training`, `valid`/`validation`/`val`, `test`/`testing`, in any
    /// case.
    pub fn parse(word: &str) -> Option<GivenSplit> {
        match word.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(GivenSplit::Train),
            "valid" | "validation" | "val" => Some(GivenSplit::Validation),
            "test" | "testing" => Some(GivenSplit::Test),
            _ => None,
        }
    }
}
