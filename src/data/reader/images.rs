//! Images that belong to no class: single files, and everything below folders. What `predict` reads.

use std::path::PathBuf;

use super::folder::list;
use super::{Content, Error, Pick, Reader, Sample};

/// A list of images, in the order given; folders are walked in the order of their names.
#[derive(Debug)]
pub struct Images {
    samples: Vec<Sample>,
}

impl Images {
    /// The images that `paths` name. What cannot be listed is an image that cannot be read.
    pub fn of(paths: &[PathBuf]) -> Images {
        let mut samples = Vec::with_capacity(paths.len());
        let sample = |path: String, content| Sample { path, label: 0, given: None, group: None, content };
        for path in paths {
            let shown = path.display().to_string();
            if !path.is_dir() {
                samples.push(sample(shown, Content::File(path.clone())));
                continue;
            }
            match list(path) {
                Ok(listed) => {
                    let n = samples.len();
                    let files = listed.into_iter().filter(|listed| !listed.is_folder);
                    samples.extend(files.map(|file| sample(file.full.display().to_string(), Content::File(file.full))));
                    if samples.len() == n {
                        samples.push(sample(shown, Content::Bad("is a folder without any file".to_owned())));
                    }
                }
                Err(error) => samples.push(sample(shown, Content::Bad(format!("cannot be listed: {error}")))),
            }
        }
        Images { samples }
    }
}

impl Reader for Images {
    fn classes(&self) -> &[String] {
        &[]
    }

    fn n_samples(&self) -> u64 {
        self.samples.len() as u64
    }

    fn read(&self, pick: &Pick, each: &mut dyn FnMut(Sample) -> Result<(), Error>) -> Result<(), Error> {
        for (i, sample) in self.samples.iter().enumerate() {
            if pick.wants(i as u64) {
                each(sample.clone())?;
            }
        }
        Ok(())
    }
}
