//! Gates: what a metric must reach for a run to count as good.

use crate::artifact::evaluation::{GateResult, Score};
use crate::config::{Problem, Section, Span, Table, Value, canonical_float, quote};
use crate::data::metrics::{Metric, find, suggest};

/// How a value is compared with a bound. In an order in which `>=` is tried before `>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    AtMost,
    Above,
    Below,
}

const COMPARISONS: [(&str, Comparison); 4] =
    [(">=", Comparison::AtLeast), ("<=", Comparison::AtMost), (">", Comparison::Above), ("<", Comparison::Below)];

/// One gate.
#[derive(Clone)]
pub(super) struct Gate {
    /// Which model; `None`: the test split of the input.
    pub model: Option<String>,
    /// Where the model is named.
    pub model_span: Span,
    /// Which metric.
    pub metric: &'static Metric,
    /// As written.
    pub text: String,
    /// Where it is written.
    pub span: Span,
    comparison: Comparison,
    bound: f64,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}.{} {}", self.model, self.metric.name, self.text)
    }
}

/// Reads the key `gates`: metrics, or models with metrics.
pub(super) fn read(section: &mut Section<'_>) -> Vec<Gate> {
    let mut gates = Vec::new();
    let Some(node) = section.raw("gates") else {
        section.record("gates", "none", None);
        return gates;
    };
    let Value::Table(table) = &node.value else {
        section.expected("gates", node, "a table such as { accuracy = \">= 0.97\" }");
        return gates;
    };
    for entry in &table.entries {
        match &entry.node.value {
            Value::Table(inner) => read_table(section, inner, Some((&entry.key, entry.key_span)), &mut gates),
            _ => {
                let one = Table { entries: vec![entry.clone()] };
                read_table(section, &one, None, &mut gates);
            }
        }
    }
    gates
}

fn read_table(section: &mut Section<'_>, table: &Table, model: Option<(&String, Span)>, gates: &mut Vec<Gate>) {
    for entry in &table.entries {
        let key = match model {
            Some((model, _)) => format!("gates.{model}.{}", entry.key),
            None => format!("gates.{}", entry.key),
        };
        let Some(metric) = find(&entry.key) else {
            let problem = Problem::error(entry.key_span, format!("unknown metric `{}`", entry.key));
            section.log().push(problem.help(suggest(&entry.key)));
            continue;
        };
        let parsed = match &entry.node.value {
            Value::Text { text, .. } => parse(text).map(|(comparison, bound)| (text, comparison, bound)),
            _ => None,
        };
        let Some((text, comparison, bound)) = parsed else {
            section.expected(&key, &entry.node, "a comparison with a number, such as \">= 0.97\"");
            continue;
        };
        let points_up = matches!(comparison, Comparison::AtLeast | Comparison::Above);
        if points_up != metric.is_higher_better {
            let better = if metric.is_higher_better { "higher" } else { "lower" };
            let message = format!("the gate `{text}` on `{}` asks for worse: {better} is better", entry.key);
            section.log().push(Problem::warning(entry.node.span, message));
        }
        let words = COMPARISONS.iter().find(|(_, other)| *other == comparison).map_or("", |(word, _)| word);
        section.record(&key, quote(&format!("{words} {}", canonical_float(bound))), Some(entry.node.span));
        gates.push(Gate {
            model: model.map(|(model, _)| model.clone()),
            model_span: model.map_or(entry.key_span, |(_, span)| span),
            metric,
            text: text.clone(),
            span: entry.key_span,
            comparison,
            bound,
        });
    }
}

fn parse(text: &str) -> Option<(Comparison, f64)> {
    let text = text.trim();
    let (word, comparison) = COMPARISONS.iter().find(|(word, _)| text.starts_with(word))?;
    let bound: f64 = text[word.len()..].trim().parse().ok()?;
    bound.is_finite().then_some((*comparison, bound))
}

impl Gate {
    /// Whether the gate is passed, given the scores of whole splits; `input` is the model that a bare gate means.
    pub(super) fn result(&self, input: &str, scores: &[Score]) -> GateResult {
        let model = self.model.as_deref().unwrap_or(input);
        // The test split comes first where there is one; a bare gate means nothing else.
        let score = scores.iter().find(|score| score.model == model && (self.model.is_some() || score.split == "test"));
        let value = score.and_then(|score| score.metrics.get(self.metric.name).copied().flatten());
        let holds = |value: f64| match self.comparison {
            Comparison::AtLeast => value >= self.bound,
            Comparison::AtMost => value <= self.bound,
            Comparison::Above => value > self.bound,
            Comparison::Below => value < self.bound,
        };
        GateResult {
            model: model.to_owned(),
            split: score.map_or("test", |score| &score.split).to_owned(),
            metric: self.metric.name.to_owned(),
            expected: self.text.clone(),
            value,
            is_passed: value.is_some_and(holds),
        }
    }
}
