//! `predict --embeddings`: what a network makes of each image before its last layer, as an array with an index beside it.

use std::path::{Path, PathBuf};

use super::export::networks;
use super::terminal::Terminal;
use crate::artifact::npy;
use crate::artifact::table::{Cell, Table};
use crate::files;
use crate::manifest::shown_path;
use crate::stages::predict::Predictor;

/// Activations of the images so far.
pub struct Embeddings {
    /// The network that is asked, from 0.
    member: usize,
    file: PathBuf,
    values: Vec<u8>,
    /// Of one image.
    n_values: usize,
    index: Table,
    n: u64,
}

impl Embeddings {
    /// For the `network`-th (from 1) of the networks of the model called `name`; `None`, and what is wrong is said, if it
    /// has several and none is named, or not so many, or the file is not to end in `.npy`.
    pub fn of(
        file: &Path,
        network: Option<u16>,
        predictor: &Predictor,
        name: &str,
        terminal: &Terminal,
    ) -> Option<Embeddings> {
        let n = predictor.n_members();
        if file.extension().is_none_or(|ending| ending != "npy") {
            let message =
                format!("`--embeddings` writes an NPY file, but `{}` does not end in `.npy`", shown_path(file));
            terminal.fault(&message, Some("its index is written beside it, as `.csv`"));
            return None;
        }
        let member = match network {
            Some(network) if usize::from(network) <= n => usize::from(network) - 1,
            Some(network) => {
                terminal.fault(&format!("{name} has {}, and none is number {network}", networks(n)), None);
                return None;
            }
            None if n == 1 => 0,
            None => {
                let message =
                    format!("embeddings are those of one network, and {name} has {}, each with its own", networks(n));
                let help = "name one, as `--network 1`, or train one on all images with `final = \"refit\"`";
                terminal.fault(&message, Some(help));
                return None;
            }
        };
        let index = Table::new(&["row", "path"]);
        Some(Embeddings { member, file: file.to_owned(), values: Vec::new(), n_values: 0, index, n: 0 })
    }

    /// Takes the images that were pushed, which have these paths.
    pub fn take(&mut self, predictor: &mut Predictor, paths: &[String]) {
        if paths.is_empty() {
            return;
        }
        let (values, n_values) = predictor.embed(self.member);
        self.n_values = n_values;
        self.values.extend(values.into_iter().flat_map(f32::to_le_bytes));
        for path in paths {
            self.index.row(&[self.n.into(), Cell::from(path.as_str())]);
            self.n += 1;
        }
    }

    /// Writes both files and says where they are.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(mut self, is_json: bool, terminal: &Terminal) -> anyhow::Result<()> {
        let index = self.file.with_extension("csv");
        let mut bytes = npy::header(npy::Kind::F32, &[self.n as usize, self.n_values]);
        bytes.append(&mut self.values);
        files::replace(&self.file, &bytes, false)?;
        files::replace(&index, &self.index.into_bytes(), false)?;
        let (array, index) = (shown_path(&self.file), shown_path(&index));
        if is_json {
            terminal.json(serde_json::json!({
                "embeddings": array, "index": index, "shape": [self.n, self.n_values as u64], "network": self.member + 1,
            }));
        } else {
            terminal.result(&format!("{array}\n{index}\n"));
        }
        Ok(())
    }
}
