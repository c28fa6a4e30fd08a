//! The space of a search: which keys are varied, over which ranges; drawing from ranges, and narrowing them.

use crate::config::{
    self, Entry, Form, Node, OneOf, Problem, Section, Span, Table, Value, as_number, canonical_float, did_you_mean,
    positive_zero, segment, toml,
};
use crate::elementary::{exp, ln};
use crate::rng::Stream;

/// The values that a key may take.
#[derive(Clone, Debug, PartialEq)]
pub enum Range {
    /// Any number from the first to the second, all alike.
    Uniform(f64, f64),
    /// Any number from the first to the second, all orders of magnitude alike; both above 0.
    LogUniform(f64, f64),
    /// Any whole number from the first to the second, both included.
    Integer(i64, i64),
    /// One of these values.
    Choice(Vec<Node>),
}

const WORDS: [&str; 4] = ["uniform", "log-uniform", "integer", "choice"];

/// One key that a search varies.
#[derive(Clone, Debug, PartialEq)]
pub struct Dimension {
    /// The dotted key, as `stages.cnn.learning_rate`.
    pub key: String,
    /// Its segments from the root down, each with its place in the manifest.
    pub path: Vec<(String, Span)>,
    /// What it may be.
    pub range: Range,
    /// Where the range stands.
    pub span: Span,
    /// Where its lower and its upper end stand.
    pub ends: [Span; 2],
}

/// The value that a trial gives to a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Setting {
    /// Of a uniform or log-uniform range.
    Number(f64),
    /// Of an integer range.
    Integer(i64),
    /// The item of a choice.
    Choice(usize),
}

impl Range {
    /// The word in the manifest.
    pub fn word(&self) -> &'static str {
        match self {
            Range::Uniform(..) => WORDS[0],
            Range::LogUniform(..) => WORDS[1],
            Range::Integer(..) => WORDS[2],
            Range::Choice(_) => WORDS[3],
        }
    }

    /// As canonical TOML: `{ log-uniform = [0.0001, 0.1] }`.
    pub fn toml(&self) -> String {
        let inside = match self {
            Range::Uniform(low, high) | Range::LogUniform(low, high) => {
                format!("{}, {}", canonical_float(*low), canonical_float(*high))
            }
            Range::Integer(low, high) => format!("{low}, {high}"),
            Range::Choice(items) => items.iter().map(|item| toml(&item.value)).collect::<Vec<_>>().join(", "),
        };
        format!("{{ {} = [{inside}] }}", self.word())
    }

    /// The range of which [`Range::toml`] made `text`.
    pub fn parse(text: &str) -> Option<Range> {
        let Value::Table(table) = config::parse(text)? else { return None };
        let [Entry { key, node: Node { value: Value::List(items), .. }, .. }] = &table.entries[..] else { return None };
        let number = |i: usize| items.get(i).and_then(|item| as_number(&item.value));
        let whole = |i: usize| match items.get(i)?.value {
            Value::Integer(i) => Some(i),
            _ => None,
        };
        match (*WORDS.iter().find(|word| *word == key)?, items.len()) {
            ("uniform", 2) => Some(Range::Uniform(number(0)?, number(1)?)),
            ("log-uniform", 2) => Some(Range::LogUniform(number(0)?, number(1)?)),
            ("integer", 2) => Some(Range::Integer(whole(0)?, whole(1)?)),
            ("choice", _) => Some(Range::Choice(items.clone())),
            _ => None,
        }
    }

    /// The value at `u`, in `[0, 1)`. Numbers are rounded to four digits, so that they can be read and pasted.
    pub fn at(&self, u: f64) -> Setting {
        match *self {
            Range::Uniform(low, high) => Setting::Number(readable(low + u * (high - low)).clamp(low, high)),
            Range::LogUniform(low, high) => {
                Setting::Number(readable(exp(ln(low) + u * (ln(high) - ln(low)))).clamp(low, high))
            }
            Range::Integer(low, high) => {
                let n = (high - low) as f64 + 1.0;
                Setting::Integer((low + (u * n) as i64).min(high))
            }
            Range::Choice(ref items) => Setting::Choice(((u * items.len() as f64) as usize).min(items.len() - 1)),
        }
    }

    /// Where `setting` lies in the range, from 0 (the lower end) to 1, on the range's own scale.
    pub fn position(&self, setting: Setting) -> f64 {
        let share = |low: f64, high: f64, x: f64| if high > low { (x - low) / (high - low) } else { 0.5 };
        match (self, setting) {
            (Range::Uniform(low, high), Setting::Number(x)) => share(*low, *high, x),
            (Range::LogUniform(low, high), Setting::Number(x)) => share(ln(*low), ln(*high), ln(x)),
            (Range::Integer(low, high), Setting::Integer(x)) => share(*low as f64, *high as f64, x as f64),
            (Range::Choice(items), Setting::Choice(i)) => share(0.0, items.len() as f64 - 1.0, i as f64),
            _ => 0.5,
        }
    }

    /// The range around the `kept` values: from the least to the largest of them, and an eighth of this range more on
    /// either side, on its own scale, within this range. Of a choice, the items that were kept.
    ///
    /// An eighth: with one value kept a quarter of the range is left, as when one goes on by hand from a coarse round.
    pub fn narrowed(&self, kept: &[Setting]) -> Range {
        const MARGIN: f64 = 0.125;
        if let Range::Choice(items) = self {
            let is_kept = |i: usize| kept.contains(&Setting::Choice(i));
            return Range::Choice(
                items.iter().enumerate().filter(|(i, _)| is_kept(*i)).map(|(_, item)| item.clone()).collect(),
            );
        }
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for &setting in kept {
            let at = self.position(setting);
            low = low.min(at);
            high = high.max(at);
        }
        if low > high {
            return self.clone();
        }
        let (low, high) = ((low - MARGIN).max(0.0), (high + MARGIN).min(1.0));
        match *self {
            Range::Uniform(a, b) => {
                let at = |share: f64| readable(a + share * (b - a)).clamp(a, b);
                Range::Uniform(at(low), at(high))
            }
            Range::LogUniform(a, b) => {
                let at = |share: f64| readable(exp(ln(a) + share * (ln(b) - ln(a)))).clamp(a, b);
                Range::LogUniform(at(low), at(high))
            }
            Range::Integer(a, b) => {
                let n = (b - a) as f64;
                // Outwards, so that no kept value is lost.
                let (low, up) = ((low * n) as i64, (high * n) as i64);
                let up = if (up as f64) < high * n { up + 1 } else { up };
                Range::Integer(a + low, (a + up).min(b))
            }
            Range::Choice(_) => self.clone(),
        }
    }

    /// This range with the end widened at which `setting` lies, if it lies at one that can be widened: the last
    /// twentieth of the range counts as its end.
    pub fn widened(&self, setting: Setting) -> Option<(&'static str, Range)> {
        const EDGE: f64 = 0.05;
        let at = self.position(setting);
        let (is_low, is_high) = (at <= EDGE, at >= 1.0 - EDGE);
        if is_low == is_high {
            return None;
        }
        let side = if is_low { "lower" } else { "upper" };
        let wider = match *self {
            // Shares and rates end at 0 and 1; so does what is widened towards them.
            Range::Uniform(low, high) if is_low && low > 0.0 => {
                Range::Uniform(readable((low - (high - low) / 2.0).max(0.0)), high)
            }
            Range::Uniform(low, high) if is_low && low < 0.0 => {
                Range::Uniform(readable(low - (high - low) / 2.0), high)
            }
            Range::Uniform(low, high) if !is_low && high < 1.0 => {
                Range::Uniform(low, readable((high + (high - low) / 2.0).min(high + (1.0 - high) / 2.0)))
            }
            Range::Uniform(low, high) if !is_low && high > 1.0 => {
                Range::Uniform(low, readable(high + (high - low) / 2.0))
            }
            Range::LogUniform(low, high) if is_low => Range::LogUniform(readable(low / 10.0), high),
            Range::LogUniform(low, high) if !is_low => Range::LogUniform(low, readable(high * 10.0)),
            Range::Integer(low, high) if is_low && low > 1 => Range::Integer((low / 2).max(1), high),
            Range::Integer(low, high) if !is_low => Range::Integer(low, high.saturating_mul(2)),
            _ => return None,
        };
        Some((side, wider))
    }
}

impl Dimension {
    /// The value as a manifest has it.
    pub fn node(&self, setting: Setting) -> Node {
        let node = |value| Node { value, span: self.span };
        match (setting, &self.range) {
            (Setting::Choice(i), Range::Choice(items)) => items[i].clone(),
            (Setting::Number(x), _) => node(Value::Float(x)),
            (Setting::Integer(i), _) => node(Value::Integer(i)),
            (Setting::Choice(i), _) => node(Value::Integer(i as i64)),
        }
    }

    /// The key as records have it: segments in quotes where TOML asks for them.
    pub fn recorded_key(&self) -> String {
        self.path.iter().map(|(name, _)| segment(name)).collect::<Vec<_>>().join(".")
    }

    /// The value as canonical TOML.
    pub fn text(&self, setting: Setting) -> String {
        toml(&self.node(setting).value)
    }

    /// The setting of which [`Dimension::text`] made `text`.
    pub fn parse(&self, text: &str) -> Option<Setting> {
        match &self.range {
            Range::Uniform(..) | Range::LogUniform(..) => as_number(&config::parse(text)?).map(Setting::Number),
            Range::Integer(..) => match config::parse(text)? {
                Value::Integer(i) => Some(Setting::Integer(i)),
                _ => None,
            },
            Range::Choice(items) => items.iter().position(|item| toml(&item.value) == text).map(Setting::Choice),
        }
    }

    /// The key without what all of the tuned stage's keys begin with, as a column is called: `learning_rate`,
    /// `pca.components`.
    pub fn short_name(&self, tuned: &str) -> String {
        let key = self.key.strip_prefix("stages.").unwrap_or(&self.key);
        let key = key.strip_prefix(tuned).and_then(|rest| rest.strip_prefix('.')).unwrap_or(key);
        key.strip_prefix("vars.").unwrap_or(key).to_owned()
    }

    /// Every value at an end of the range, with where it stands: both ends, or every item of a choice.
    pub fn corners(&self) -> Vec<(Node, Span)> {
        let at = |value, end: usize| (Node { value, span: self.ends[end] }, self.ends[end]);
        match &self.range {
            Range::Uniform(low, high) | Range::LogUniform(low, high) => {
                vec![at(Value::Float(*low), 0), at(Value::Float(*high), 1)]
            }
            Range::Integer(low, high) => vec![at(Value::Integer(*low), 0), at(Value::Integer(*high), 1)],
            Range::Choice(items) => items.iter().map(|item| (item.clone(), item.span)).collect(),
        }
    }
}

/// `x` to four digits: deterministic, since it goes through text.
fn readable(x: f64) -> f64 {
    format!("{x:.3e}").parse().unwrap_or(x)
}

/// The settings of a trial: each key has a stream of its own, so that a key more or less leaves the others' values
/// alone.
pub fn draw<'d>(
    dimensions: impl Iterator<Item = (&'d str, &'d Range)>,
    seed: u64,
    round: u32,
    trial: u32,
) -> Vec<Setting> {
    let address = [("round", round.into()), ("trial", trial.into())];
    let draw =
        |(key, range): (&str, &Range)| range.at(Stream::new(seed, &format!("search {key}"), &address).uniform(0));
    dimensions.map(draw).collect()
}

/// Reads the key `space`.
pub(super) fn read(section: &mut Section<'_>) -> Vec<Dimension> {
    let header = section.span();
    let meaning = "Keys of the tuned stage and of those it reads, and ranges: uniform, log-uniform, integer, choice.";
    let example = "{ \"stages.train.learning_rate\" = { log-uniform = [1e-4, 1e-1] } }";
    let Some(node) = section.key("space", meaning, example).required_form(|| Form::Space).cloned() else {
        let problem = Problem::error(header, "missing key `space`: which keys are searched, over which ranges");
        let help = "add `space = { \"stages.train.learning_rate\" = { log-uniform = [1e-4, 1e-1] } }`";
        section.log().push(problem.help(help));
        return Vec::new();
    };
    let Value::Table(table) = &node.value else {
        section.expected("space", &node, "a table of keys and ranges");
        return Vec::new();
    };
    if table.entries.is_empty() {
        section.log().push(Problem::error(node.span, "`space` is empty, expected keys and their ranges"));
        return Vec::new();
    }
    let mut dimensions = Vec::new();
    walk(table, &mut Vec::new(), &mut dimensions, section);
    for dimension in &dimensions {
        let key = format!("space.{}", dimension.recorded_key());
        section.record(&key, dimension.range.toml(), Some(dimension.span));
    }
    check_distinct(&dimensions, section);
    dimensions
}

/// No key may be a part of another one: one of them would override the other.
fn check_distinct(dimensions: &[Dimension], section: &mut Section<'_>) {
    for (i, one) in dimensions.iter().enumerate() {
        for other in &dimensions[..i] {
            let (short, long) = if one.path.len() < other.path.len() { (one, other) } else { (other, one) };
            if short.path.iter().zip(&long.path).all(|((a, _), (b, _))| a == b) {
                let span = one.path.first().map_or(one.span, |(_, span)| *span);
                let message = if one.key == other.key {
                    format!("`{}` is searched twice", one.key)
                } else {
                    format!("`{}` and `{}` override one another", short.key, long.key)
                };
                section.log().push(Problem::error(span, message));
            }
        }
    }
}

fn walk(table: &Table, path: &mut Vec<(String, Span)>, out: &mut Vec<Dimension>, section: &mut Section<'_>) {
    for entry in &table.entries {
        let depth = path.len();
        path.extend(entry.key.split('.').map(|segment| (segment.trim().to_owned(), entry.key_span)));
        let key = path.iter().map(|(segment, _)| segment.as_str()).collect::<Vec<_>>().join(".");
        match &entry.node.value {
            Value::Table(inner) => match range_in(inner) {
                Some(range) => {
                    if let Some((range, ends)) = read_range(&key, range, section) {
                        out.push(Dimension { key, path: path.clone(), range, span: entry.node.span, ends });
                    }
                }
                None if inner.entries.is_empty() => {
                    let message = format!("`{key}` has no range, expected {}", OneOf(&WORDS));
                    section.log().push(Problem::error(entry.node.span, message));
                }
                None => walk(inner, path, out, section),
            },
            other => {
                let last = entry.key.as_str();
                let (problem, help) = match other {
                    Value::List(_) if depth > 0 && did_you_mean(last, WORDS.into_iter()).is_some() => (
                        Problem::error(entry.key_span, format!("unknown range `{last}`, expected {}", OneOf(&WORDS))),
                        did_you_mean(last, WORDS.into_iter()),
                    ),
                    _ => {
                        let got = crate::config::display(other);
                        let message = format!("`{key}` expects a range, a table with {}, got {got}", OneOf(&WORDS));
                        let help = "for example `{ uniform = [0.0, 0.5] }` or `{ choice = [32, 64] }`";
                        (Problem::error(entry.node.span, message), Some(help.to_owned()))
                    }
                };
                section.log().push(Problem { help, ..problem });
            }
        }
        path.truncate(depth);
    }
}

/// The one entry of a table that is a range: `{ uniform = [0, 1] }`.
fn range_in(table: &Table) -> Option<&Entry> {
    match table.entries.as_slice() {
        [one] if WORDS.contains(&one.key.as_str()) => Some(one),
        _ => None,
    }
}

fn read_range(key: &str, entry: &Entry, section: &mut Section<'_>) -> Option<(Range, [Span; 2])> {
    let word = entry.key.as_str();
    let mut fail = |span, message: String, help: Option<&str>| {
        section.log().push(Problem { help: help.map(str::to_owned), ..Problem::error(span, message) });
        None
    };
    let span = entry.node.span;
    let items = match &entry.node.value {
        Value::List(items) => items.as_slice(),
        other => {
            let got = crate::config::display(other);
            return fail(span, format!("`{word}` expects a list, got {got}"), None);
        }
    };
    if word == "choice" {
        return match items {
            [] => fail(span, format!("the choice of `{key}` is empty"), None),
            [first, ..] => {
                let last = items.last().unwrap_or(first);
                for (i, item) in items.iter().enumerate() {
                    if items[..i].iter().any(|other| toml(&other.value) == toml(&item.value)) {
                        return fail(
                            item.span,
                            format!("{} is a choice twice", crate::config::display(&item.value)),
                            None,
                        );
                    }
                }
                Some((Range::Choice(items.to_vec()), [first.span, last.span]))
            }
        };
    }
    let [low, high] = items else {
        return fail(span, format!("`{word}` expects two ends, `[low, high]`, got {} values", items.len()), None);
    };
    let ends = [low.span, high.span];
    if word == "integer" {
        return match (&low.value, &high.value) {
            (&Value::Integer(a), &Value::Integer(b)) if a < b => Some((Range::Integer(a, b), ends)),
            (&Value::Integer(a), &Value::Integer(b)) => fail(
                low.span,
                format!("the lower end of a range expects less than the upper end, got {a} and {b}"),
                None,
            ),
            (Value::Integer(_), other) => {
                fail(high.span, format!("`integer` expects whole numbers, got {}", crate::config::display(other)), None)
            }
            (other, _) => {
                fail(low.span, format!("`integer` expects whole numbers, got {}", crate::config::display(other)), None)
            }
        };
    }
    for end in [low, high] {
        if as_number(&end.value).is_none_or(|x| !x.is_finite()) {
            let got = crate::config::display(&end.value);
            return fail(end.span, format!("`{word}` expects finite numbers, got {got}"), None);
        }
    }
    let [a, b] = [low, high].map(|end| as_number(&end.value).map(positive_zero));
    let (a, b) = (a?, b?);
    if a >= b {
        let message = format!("the lower end of a range expects less than the upper end, got {a} and {b}");
        return fail(low.span, message, None);
    }
    match word {
        "log-uniform" if a <= 0.0 => fail(
            low.span,
            format!("`log-uniform` expects numbers above 0, got {}", crate::config::display(&low.value)),
            Some("a range that reaches 0 has no orders of magnitude: use `uniform`, or a small number"),
        ),
        "log-uniform" => Some((Range::LogUniform(a, b), ends)),
        _ => Some((Range::Uniform(a, b), ends)),
    }
}
