//! Why nothing could be planned or run.

use std::path::PathBuf;

use crate::stages::StageError;
use crate::store;

/// Why nothing could be planned or run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A stage's sources are not there, say.
    #[error("stage `{stage}`: {error}")]
    Stage {
        /// The stage's name.
        stage: String,
        /// What is wrong, with the key that caused it.
        error: StageError,
    },
    /// Two manifests of a project would write the same lock file and reports.
    #[error("the name `{name}` is taken by the manifest `{other}`", other = other.display())]
    NameTaken {
        /// The name.
        name: String,
        /// The other manifest.
        other: PathBuf,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
}
