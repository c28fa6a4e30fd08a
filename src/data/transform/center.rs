//! `center`: subtracts the mean of the training samples.

use super::moments::Statistics;
use super::{Affine, Fitted, Kind, Per, Transform};
use crate::config::Section;

/// Subtracts the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Center {
    /// What shares one mean: "pixel", "channel" (the default) or "global".
    pub per: Per,
}

/// The line in the list.
pub const KIND: Kind = Kind {
    name: "center",
    meaning: "Subtracts the mean of the training samples.",
    read,
    example: "{ center = { per = \"channel\" } }",
};

fn read(section: &mut Section<'_>) -> Box<dyn Transform> {
    Box::new(Center { per: Per::read(section) })
}

impl Transform for Center {
    fn name(&self) -> &'static str {
        KIND.name
    }

    fn fit(&self, statistics: &mut Statistics<'_>) -> Fitted {
        let means: Vec<f64> = statistics.moments(self.per).iter().map(|moments| moments.mean).collect();
        Fitted::Affine(Affine { subtract: means.clone(), ..Affine::identity(self.per, means.len()) })
    }
}
