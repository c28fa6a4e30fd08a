//! `scale`: divides by the deviation of the training samples, or maps their smallest and largest value to a range.

use super::moments::{Moments, Statistics};
use super::{Affine, Fitted, Kind, Per, Transform, is_constant};
use crate::config::{
    Bounds, Form, Problem, Section, Value, as_number, canonical_float, did_you_mean, positive_zero, quote,
};

/// What values are scaled to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum To {
    /// Deviation 1 (of the training samples, dividing by their number); the mean moves along, so `center` goes first.
    UnitVariance,
    /// The training samples' smallest value becomes the first, their largest the second.
    Range(f64, f64),
}

/// Multiplies so that values have a wanted spread. What is constant on the training samples is not divided at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// "unit-variance" (the default), or a range such as `[-1, 1]`.
    pub to: To,
    /// What shares one factor: "pixel", "channel" (the default) or "global".
    pub per: Per,
}

/// The line in the list.
pub const KIND: Kind = Kind {
    name: "scale",
    meaning: "Divides by the deviation of the training samples, or maps their range.",
    read,
    example: "{ scale = { to = \"unit-variance\" } }",
};

const UNIT_VARIANCE: &str = "unit-variance";

fn read(section: &mut Section<'_>) -> Box<dyn Transform> {
    let to = read_to(section);
    Box::new(Scale { to, per: Per::read(section) })
}

fn read_to(section: &mut Section<'_>) -> To {
    let form = || {
        let word = (UNIT_VARIANCE.to_owned(), "Deviation 1; the mean moves along, so `center` goes first.");
        Form::Either(vec![Form::Words(vec![word]), Form::List(Box::new(Form::Number(Bounds::Finite)), 2..=2)])
    };
    let key = section.key("to", "What values are scaled to: a word, or the range of the training samples.", "[-1, 1]");
    let Some(node) = key.form(Some(&quote(UNIT_VARIANCE)), form) else {
        section.record("to", quote(UNIT_VARIANCE), None);
        return To::UnitVariance;
    };
    match &node.value {
        Value::Text { text, .. } if text == UNIT_VARIANCE => {
            section.record("to", quote(UNIT_VARIANCE), Some(node.span));
            return To::UnitVariance;
        }
        Value::Text { text, .. } => {
            let message = format!("unknown `to`: `{text}`, expected `{UNIT_VARIANCE}` or a range such as [-1, 1]");
            let mut problem = Problem::error(node.span, message);
            problem.help = did_you_mean(text, [UNIT_VARIANCE].into_iter());
            section.log().push(problem);
        }
        Value::List(items) => {
            let numbers: Vec<f64> = items
                .iter()
                .filter_map(|item| as_number(&item.value))
                .map(positive_zero)
                .filter(|x| x.is_finite())
                .collect();
            match numbers[..] {
                [low, high] if items.len() == 2 && low < high => {
                    let text = format!("[{}, {}]", canonical_float(low), canonical_float(high));
                    section.record("to", text, Some(node.span));
                    return To::Range(low, high);
                }
                [low, high] if items.len() == 2 => section.log().push(Problem::error(
                    node.span,
                    format!("the range of `to` starts at {low} and ends at {high}, expected an end above its start"),
                )),
                _ => section.expected("to", node, "a range of two numbers, such as [-1, 1]"),
            }
        }
        _ => section.expected("to", node, format_args!("`{UNIT_VARIANCE}` or a range such as [-1, 1]")),
    }
    To::UnitVariance
}

impl Transform for Scale {
    fn name(&self) -> &'static str {
        KIND.name
    }

    fn fit(&self, statistics: &mut Statistics<'_>) -> Fitted {
        let moments = statistics.moments(self.per);
        let identity = Affine::identity(self.per, moments.len());
        let multiply = |factor: fn(&Scale, &Moments) -> f64| moments.iter().map(|m| factor(self, m)).collect();
        Fitted::Affine(match self.to {
            To::UnitVariance => Affine { multiply: multiply(Scale::unit_variance_factor), ..identity },
            To::Range(low, _) => Affine {
                subtract: moments.iter().map(|m| m.min).collect(),
                multiply: multiply(Scale::range_factor),
                add: vec![low; moments.len()],
                ..identity
            },
        })
    }
}

impl Scale {
    fn unit_variance_factor(&self, moments: &Moments) -> f64 {
        if is_constant(moments) { 1.0 } else { 1.0 / (moments.m2 / moments.n as f64).sqrt() }
    }

    fn range_factor(&self, moments: &Moments) -> f64 {
        match self.to {
            To::Range(low, high) if moments.max > moments.min => (high - low) / (moments.max - moments.min),
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(to: To, moments: Moments, expected: f64) {
        let scale = Scale { to, per: Per::Pixel };
        let factor = match to {
            To::UnitVariance => scale.unit_variance_factor(&moments),
            To::Range(..) => scale.range_factor(&moments),
        };
        assert!((factor - expected).abs() < 1e-15, "{factor}, expected {expected}");
    }

    #[test]
    fn what_is_constant_is_not_divided() {
        let constant = Moments { n: 9, mean: 0.1, m2: 0.0, min: 0.1, max: 0.1 };
        check(To::UnitVariance, constant, 1.0);
        check(To::Range(-1.0, 1.0), constant, 1.0);
        // Nine times 0.1 summed and divided may leave a rounding error as "spread".
        check(To::UnitVariance, Moments { m2: 1e-33, ..constant }, 1.0);
        let spread = Moments { n: 4, mean: 2.0, m2: 16.0, min: 0.0, max: 4.0 };
        check(To::UnitVariance, spread, 0.5);
        check(To::Range(-1.0, 1.0), spread, 0.5);
    }
}
