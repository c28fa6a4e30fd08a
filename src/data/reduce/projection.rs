//! Random projections: distances survive, nothing is learned (Johnson and Lindenstrauss, 1984).
//!
//! `gaussian-projection` draws every weight from a normal distribution of variance `1 / components`.
//! `sparse-projection` draws most of them as 0 and the others as `±1 / sqrt(density * components)` (Achlioptas 2003
//! with a density of 1/3; Li, Hastie and Church 2006 with `1 / sqrt(features)`, the default).

use super::{FitError, Fitting, Kind, Misfit, Projection, Reduction, counted};
use crate::config::{Bounds, Form, Section, Value, quote};
use crate::elementary::ln;
use crate::tensor::SampleShape;

/// The line in the list.
pub const GAUSSIAN: Kind = Kind {
    name: "gaussian-projection",
    meaning: "A random projection with normal weights.",
    read: |section| Box::new(Random { components: Components::read(section), kind: Draw::Gaussian }),
    example: "{ gaussian-projection = { components = 20 } }",
};

/// The line in the list.
pub const SPARSE: Kind = Kind {
    name: "sparse-projection",
    meaning: "A random projection most of whose weights are 0.",
    read: |section| {
        let components = Components::read(section);
        Box::new(Random { components, kind: Draw::Sparse { density: read_density(section) } })
    },
    example: "{ sparse-projection = { components = 20, density = 0.25 } }",
};

/// The value of `components` that computes their number.
const LEMMA: &str = "johnson-lindenstrauss";

/// A random projection.
#[derive(Clone, Debug, PartialEq)]
struct Random {
    /// How many axes.
    components: Components,
    kind: Draw,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Draw {
    Gaussian,
    Sparse {
        /// Share of the weights that are not 0, above 0 and at most 1 [1 / sqrt(features)].
        density: Option<f64>,
    },
}

/// `components`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Components {
    /// So many.
    Count(usize),
    /// As few as keep all squared distances within a factor of `1 ± eps` by the lemma, `0 < eps < 1` [0.1].
    Lemma { eps: f64 },
}

impl Components {
    fn read(section: &mut Section<'_>) -> Components {
        let form = || {
            let word = (LEMMA.to_owned(), "As few as keep all distances within a factor of 1 ± eps.");
            Form::Either(vec![Form::Whole(1..=1_000_000), Form::Words(vec![word])])
        };
        let key = section.key("components", "How many axes there are.", "20").short();
        let node = key.form(Some(&quote(LEMMA)), form);
        let components = match node.map(|node| &node.value) {
            None => {
                section.record("components", quote(LEMMA), None);
                None
            }
            Some(Value::Text { text, .. }) if text == LEMMA => {
                section.record("components", quote(LEMMA), node.map(|node| node.span));
                None
            }
            Some(Value::Integer(n @ 1..=1_000_000)) => {
                section.record("components", n.to_string(), node.map(|node| node.span));
                Some(*n as usize)
            }
            Some(_) => {
                if let Some(node) = node {
                    let expected = format!("a whole number from 1 to 1000000, or `{LEMMA}`");
                    section.expected("components", node, expected);
                }
                Some(1)
            }
        };
        match components {
            Some(n) if !section.is_described() => Components::Count(n),
            _ => {
                let meaning = "How much squared distances may change, with `johnson-lindenstrauss` components.";
                Components::Lemma { eps: section.key("eps", meaning, "0.2").number(Bounds::Open).or(0.1) }
            }
        }
    }
}

fn read_density(section: &mut Section<'_>) -> Option<f64> {
    let meaning = "Share of the weights that are not 0; absent: 1 / sqrt(features).";
    section.key("density", meaning, "0.25").number(Bounds::Density).optional()
}

/// The fewest components for which the lemma keeps the squared distances of `n_samples` within a factor of `1 ± eps`
/// (Dasgupta and Gupta 1999): `4 ln(n_samples) / (eps² / 2 - eps³ / 3)`, rounded down as scikit-learn's
/// `johnson_lindenstrauss_min_dim` does.
pub fn johnson_lindenstrauss(n_samples: usize, eps: f64) -> usize {
    let rate = eps * eps / 2.0 - eps * eps * eps / 3.0;
    (4.0 * ln(n_samples.max(1) as f64) / rate) as usize
}

impl Random {
    fn n_components(&self, n_samples: usize) -> usize {
        match self.components {
            Components::Count(n) => n,
            Components::Lemma { eps } => johnson_lindenstrauss(n_samples, eps).max(1),
        }
    }
}

impl Reduction for Random {
    fn fit_bytes(&self, features: u64, n_samples: u64) -> u64 {
        // Of an unknown number of samples it is not known how many axes they need.
        let n_samples = usize::try_from(n_samples).unwrap_or(usize::MAX).min(1 << 32);
        2 * 4 * features * self.n_components(n_samples) as u64
    }

    fn name(&self) -> &'static str {
        match self.kind {
            Draw::Gaussian => GAUSSIAN.name,
            Draw::Sparse { .. } => SPARSE.name,
        }
    }

    fn is_random(&self) -> bool {
        true
    }

    fn output_shape(
        &self,
        input: Option<SampleShape>,
        n_samples: Option<usize>,
    ) -> Result<Option<SampleShape>, Misfit> {
        let components = match (self.components, n_samples) {
            (Components::Count(n), _) => n,
            (Components::Lemma { .. }, Some(n_samples)) => self.n_components(n_samples),
            (Components::Lemma { .. }, None) => return Ok(None),
        };
        let Some(features) = input.map(SampleShape::len).filter(|&features| features < components) else {
            return Ok(Some(SampleShape::Flat(components)));
        };
        let (wanted, features) = (counted(components, "component"), counted(features, "feature"));
        Err(match (self.components, n_samples) {
            (Components::Lemma { eps }, Some(n)) => Misfit::about(
                "components",
                format!(
                    "the Johnson-Lindenstrauss minimum for {} at `eps = {eps:?}` is {wanted}, more than the {features}",
                    counted(n, "image")
                ),
            )
            .help("set `components` to a number; the minimum is for the worst case, and far fewer often do"),
            _ => Misfit::about("components", format!("{wanted} are more than the {features}: nothing is reduced"))
                .help(lemma_help(n_samples)),
        })
    }

    fn fit(&self, fitting: &Fitting<'_>) -> Result<Projection, FitError> {
        let feed = fitting.samples.feed();
        // All samples that will be projected count for the lemma; nothing but their number is looked at.
        self.output_shape(Some(feed.sample_shape()), Some(feed.n_samples()))?;
        let (features, components) = (feed.sample_shape().len(), self.n_components(feed.n_samples()));
        let mut weights = vec![0.0f32; features * components];
        match self.kind {
            Draw::Gaussian => {
                let scale = (1.0 / (components as f64).sqrt()) as f32;
                fitting.fill(&mut weights, |first, piece| {
                    fitting.stream.fill_normal32(first, piece);
                    piece.iter_mut().for_each(|x| *x *= scale);
                })?;
            }
            Draw::Sparse { density } => {
                let density = density.unwrap_or(1.0 / (features as f64).sqrt());
                let weight = (1.0 / (density * components as f64).sqrt()) as f32;
                let mut draws = Vec::new();
                fitting.fill(&mut weights, |first, piece| {
                    draws.resize(piece.len(), 0.0);
                    fitting.stream.fill_uniform(first, &mut draws);
                    for (x, &draw) in piece.iter_mut().zip(&draws) {
                        *x = match draw {
                            draw if draw < 0.5 * density => weight,
                            draw if draw < density => -weight,
                            _ => 0.0,
                        };
                    }
                })?;
            }
        }
        Ok(Projection {
            method: self.name().to_owned(),
            input: feed.sample_shape(),
            output: SampleShape::Flat(components),
            mean: Vec::new(),
            weights,
            spectrum: None,
        })
    }
}

fn lemma_help(n_samples: Option<usize>) -> String {
    let advice = "set fewer `components`";
    match n_samples {
        Some(n) => format!(
            "{advice}; the Johnson-Lindenstrauss minimum for {} is {} at `eps = 0.5`",
            counted(n, "image"),
            johnson_lindenstrauss(n, 0.5)
        ),
        None => advice.to_owned(),
    }
}
