//! What a look at a source tells before anything is read: the list, and a few images.

use std::collections::BTreeMap;

use super::{Ingest, Places, SIZES_DIFFER, StageError, check_classes};
use crate::artifact::dataset::Skipped;
use crate::data::decode::{Decoded, Fault, Refused};
use crate::data::pixels::Depth;
use crate::data::reader::classes::some_of;
use crate::data::reader::load::{Plan, decoded};
use crate::data::reader::{Content, Error, Pick, Reader};
use crate::stages::Glance;
use crate::tensor::{ImageShape, SampleShape};

/// Images that are decoded to see what they are like, evenly spread over the source.
const LOOKED_AT: u64 = 64;

/// The side, in pixels, that large images are usually brought to for a net on processors.
const USUAL_SIDE: usize = 64;

/// An image that others are compared with.
struct First {
    path: String,
    shape: ImageShape,
    depth: Depth,
}

impl Ingest {
    /// Lists the source and decodes a few of its images.
    pub(super) fn look(&self, places: &Places) -> Result<Glance, StageError> {
        let resolved = self.resolve(places)?;
        let reader = resolved.found().open(&self.policy.limits)?;
        let pick = Pick::new(reader.n_samples(), self.limit);
        let looked = Pick::new(pick.len(), Some(LOOKED_AT));
        let plan = Plan { policy: &self.policy, pick, threads: 1, known: None };
        let mut glance = Glance { classes: reader.classes().to_vec(), ..Glance::default() };
        let mut counts = vec![0; glance.classes.len()];
        let mut groups: BTreeMap<String, u32> = BTreeMap::new();
        let mut first: Option<First> = None;
        let mut unlike = None;
        let (mut skipped, mut refused) = (Vec::new(), None);
        let mut n = 0;
        reader.read(&pick, &mut |mut sample| {
            glance.labels.push(sample.label);
            glance.given.push(sample.given);
            let next = groups.len() as u32;
            glance.groups.push(sample.group.take().map(|group| *groups.entry(group).or_insert(next)));
            counts[sample.label as usize] += 1;
            n += 1;
            let is_absent = matches!(&sample.content, Content::Bad(Refused { fault: Fault::Absent, .. }));
            if is_absent || (looked.wants(n - 1) && unlike.is_none()) {
                let loaded = decoded(sample, &plan);
                match loaded.image {
                    Ok((image, _)) => match &first {
                        None => first = Some(First { path: loaded.path, shape: image.shape, depth: image.depth }),
                        Some(first) => unlike = self.unlike(first, &loaded.path, &image),
                    },
                    // What this machine cannot read now says nothing of the source.
                    Err(Refused { fault: Fault::Machine, .. }) => {}
                    Err(Refused { fault, reason }) if refused.is_none() => {
                        let image = Skipped { path: loaded.path, class: String::new(), reason };
                        refused = self.skip(image, fault, &mut skipped).err();
                    }
                    Err(_) => {}
                }
            }
            Ok::<(), Error>(())
        })?;
        if let Some(refused) = refused {
            return Err(refused);
        }
        if n == 0 {
            return Err(StageError::new("the source has no image").key("source"));
        }
        if let Some(error) = unlike {
            return Err(self.advise_size(error, &*reader));
        }
        check_classes(self, &glance.classes, &counts, &[])?;
        self.name_classes(&mut glance.classes, &resolved)?;
        if let Some(aside) = reader.aside() {
            glance.n_left_out = aside.images.len() + aside.others.len();
            glance.warnings.clone_from(&aside.warnings);
            if !aside.empty.is_empty() {
                let folders = if aside.empty.len() == 1 { "the folder" } else { "the folders" };
                let named = some_of(aside.empty.iter().map(String::as_str));
                let have = if aside.empty.len() == 1 {
                    "has no image and is no class"
                } else {
                    "have no image and are no classes"
                };
                glance.warnings.push(format!("{folders} {named} {have}"));
            }
        }
        if let Some((first, _)) = skipped.first() {
            let images = if skipped.len() == 1 { "1 image".to_owned() } else { format!("{} images", skipped.len()) };
            let what = "cannot be read and will be left out";
            glance.warnings.push(format!("at least {images} {what}, first `{}`, which {}", first.path, first.reason));
        }
        glance.warnings.extend(super::twins(&glance.classes));
        glance.shape = first.map(|first| SampleShape::Image(first.shape));
        Ok(glance)
    }

    /// Adds to an error about sizes that differ one that would do, from the median of a few images.
    pub(super) fn advise_size(&self, error: StageError, reader: &dyn Reader) -> StageError {
        if !error.message.starts_with(SIZES_DIFFER) {
            return error;
        }
        let pick = Pick::new(reader.n_samples(), self.limit);
        let looked = Pick::new(pick.len(), Some(LOOKED_AT));
        let plan = Plan { policy: &self.policy, pick, threads: 1, known: None };
        let (mut widths, mut heights) = (Vec::new(), Vec::new());
        let mut n = 0;
        let read = reader.read(&pick, &mut |sample| {
            n += 1;
            if looked.wants(n - 1)
                && let Ok((image, _)) = decoded(sample, &plan).image
            {
                widths.push(image.shape.width);
                heights.push(image.shape.height);
            }
            Ok::<(), Error>(())
        });
        widths.sort_unstable();
        heights.sort_unstable();
        match (read, widths.get(widths.len() / 2), heights.get(heights.len() / 2)) {
            (Ok(()), Some(&width), Some(&height)) => {
                let side = width.min(height).min(USUAL_SIDE);
                error.help(format!("add `resize = {side}`, say: their median size is {width}x{height}"))
            }
            _ => error,
        }
    }

    /// What is wrong with two images of one source, if they are not alike after the policy.
    fn unlike(&self, first: &First, path: &str, image: &Decoded) -> Option<StageError> {
        super::check_alike((first.shape, first.depth), &first.path, path, image).err()
    }
}
