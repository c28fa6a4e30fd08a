//! `init`: a small manifest to start from.

use std::fs::OpenOptions;
use std::io::Write;

use anyhow::Context;

use super::Exit;
use super::arguments::InitArguments;
use super::terminal::Terminal;

/// What `init` writes: it runs as it stands, offline, and says what to change first.
pub const TEMPLATE: &str = r#"# A pipeline for Convoy. Run it:      convoy run pipeline.toml
# See what it would do:             convoy run --dry-run pipeline.toml
schema = 1
name   = "pipeline"
seed   = 1

[stages.ingest]
# A folder with one folder of images per class, a .tar.gz of such, IDX, NPY, NPZ, CSV or CIFAR files, or a name from datasets/.
source = "builtin:digits"

[stages.split]
# The test split is the data set's own where it has one (a folder `test/`, say), else a fifth; `test = 0.1` is a tenth.
folds = 5

[stages.preprocess]
steps = ["center", "scale"]

[stages.train]
architecture  = "INPUT - CONV(16) - RELU - POOL - FC(64) - RELU - FC"
epochs        = 10
learning_rate = 0.002

[stages.ensemble]

[stages.evaluate]
"#;

/// Writes the template; never over a file.
pub fn init(arguments: &InitArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let path = &arguments.path;
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            terminal.fault(&format!("`{}` exists already", path.display()), Some("name another file"));
            return Ok(Exit::Usage);
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write `{}`", path.display())),
    };
    file.write_all(TEMPLATE.as_bytes()).with_context(|| format!("cannot write `{}`", path.display()))?;
    terminal.note(&format!("wrote {}; next: convoy run {}", path.display(), path.display()));
    if arguments.json {
        terminal.json(serde_json::json!({ "path": path.display().to_string() }));
    }
    Ok(Exit::Done)
}
