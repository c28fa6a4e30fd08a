//! Images that belong to no class: single files, and everything below folders. What `predict` reads.

use std::path::PathBuf;

use super::folder::{is_image, list};
use super::{Content, Error, Pick, Reader, Sample};

/// A list of images, in the order given; folders are walked in the order of their names.
#[derive(Debug)]
pub struct Images {
    samples: Vec<Sample>,
    /// Files within folders that are no images.
    left_out: Vec<String>,
}

impl Images {
    /// The images that `paths` name. What cannot be listed is an image that cannot be read; within a folder, what is no image is
    /// left out.
    pub fn of(paths: &[PathBuf]) -> Images {
        let (mut samples, mut left_out) = (Vec::with_capacity(paths.len()), Vec::new());
        let sample =
            |path: String, content| Sample { path, label: 0, given: None, group: None, cells: Vec::new(), content };
        for path in paths {
            let shown = path.display().to_string();
            if !path.is_dir() {
                samples.push(sample(shown, Content::File(path.clone())));
                continue;
            }
            match list(path) {
                Ok(listed) => {
                    let (n, n_left_out) = (samples.len(), left_out.len());
                    for file in listed.into_iter().filter(|listed| !listed.is_folder) {
                        let name = file.full.display().to_string();
                        // One that cannot be read now says so when it is decoded.
                        match is_image(&file).unwrap_or(true) {
                            true => samples.push(sample(name, Content::File(file.full))),
                            false => left_out.push(name),
                        }
                    }
                    if samples.len() == n {
                        let what = if left_out.len() == n_left_out { "file" } else { "image" };
                        samples.push(sample(shown, Content::Bad(format!("is a folder without any {what}").into())));
                    }
                }
                Err(error) => samples.push(sample(shown, Content::Bad(format!("cannot be listed: {error}").into()))),
            }
        }
        Images { samples, left_out }
    }

    /// Files within the folders that are no images, as they are found.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
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
