//! `divide`: divides by a constant, such as 255.

use super::moments::Statistics;
use super::{Affine, Fitted, Kind, Per, Transform};
use crate::config::{Bounds, Section};

/// Divides every value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Divide {
    /// By what: a number above 0.
    pub by: f64,
}

/// The line in the list.
pub const KIND: Kind = Kind { name: "divide", meaning: "Divides by a constant.", read, example: "{ divide = 255 }" };

fn read(section: &mut Section<'_>) -> Box<dyn Transform> {
    Box::new(Divide {
        by: section.key("divide", "By what values are divided.", "255").number(Bounds::Positive).required(),
    })
}

impl Transform for Divide {
    fn name(&self) -> &'static str {
        KIND.name
    }

    fn fit(&self, _: &mut Statistics<'_>) -> Fitted {
        Fitted::Affine(Affine { multiply: vec![1.0 / self.by], ..Affine::identity(Per::Global, 1) })
    }
}
