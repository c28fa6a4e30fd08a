//! The shorthand's parser: a string in, the nodes of the long form out, with spans that point into the string.

use std::ops::Range;

use super::{MAX_LAYERS, Vars};
use crate::config::{self, Entry, Log, Node, Problem, Span, Table, Value, did_you_mean};
use crate::nn::layer::{self, LayerKind};

/// So deep may brackets be nested.
const MAX_DEPTH: usize = 32;

/// The long form of a shorthand string; `None` after a problem.
pub(super) fn parse(node: &Node, vars: &mut Vars, log: &mut Log) -> Option<Vec<Node>> {
    let Value::Text { text, inner } = &node.value else {
        let mut problem = format!("`architecture` expects a string, got {}", config::display(&node.value));
        if let Value::List(_) = node.value {
            problem.push_str(" (a list goes under `layers`)");
        }
        log.push(Problem::error(node.span, problem));
        return None;
    };
    let mut parser = Parser { text, at: 0, inner: *inner, whole: node.span, vars, log, is_well: true };
    match parser.document() {
        Ok(nodes) => parser.is_well.then_some(nodes),
        Err(problem) => {
            log.push(problem);
            None
        }
    }
}

struct Parser<'p> {
    text: &'p str,
    at: usize,
    inner: Option<u32>,
    whole: Span,
    vars: &'p mut Vars,
    log: &'p mut Log,
    is_well: bool,
}

/// Arrows and dashes that text processors make of `-`.
const SEPARATORS: [char; 5] = ['-', '–', '—', '→', '−'];

/// Layers of other notations, and what becomes of them here.
const FOREIGN: &[(&str, &str)] = &[
    ("SOFTMAX", "leave it out: softmax follows the last layer by itself"),
    ("OUTPUT", "leave it out: the last `FC` has as many units as there are classes"),
    ("MAXPOOL", "write `POOL`"),
    ("DENSE", "write `FC`"),
    ("LINEAR", "write `FC`"),
    ("BATCHNORM", "write `BN`"),
    ("CONV2D", "write `CONV`"),
];

impl Parser<'_> {
    /// Where bytes `range` of the content stand in the manifest.
    fn span(&self, range: Range<usize>) -> Span {
        match self.inner {
            Some(inner) => {
                Span { source: self.whole.source, start: inner + range.start as u32, end: inner + range.end as u32 }
            }
            None => self.whole,
        }
    }

    fn error(&self, range: Range<usize>, message: impl Into<String>) -> Problem {
        Problem::error(self.span(range), message)
    }

    fn skip_space(&mut self) {
        self.at += self.text[self.at..].len() - self.text[self.at..].trim_start().len();
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        if is_there {
            self.at += wanted.len_utf8();
        }
        is_there
    }

    /// The next character's range, or an empty one at the end.
    fn here(&mut self) -> Range<usize> {
        let length = self.peek().map_or(0, char::len_utf8);
        self.at..self.at + length
    }

    fn separator(&mut self) -> Option<Range<usize>> {
        let c = self.peek().filter(|c| SEPARATORS.contains(c))?;
        let start = self.at;
        self.at += c.len_utf8();
        if c == '-' && self.text[self.at..].starts_with('>') {
            self.at += 1;
        }
        Some(start..self.at)
    }

    fn document(&mut self) -> Result<Vec<Node>, Problem> {
        if self.peek().is_none() {
            return Err(Problem::error(self.whole, "the architecture is empty").help("write `INPUT - FC`, for a start"));
        }
        let nodes = self.arch(0)?;
        match self.peek() {
            None => Ok(nodes),
            Some(']') => {
                let here = self.here();
                Err(self.error(here, "`]` without `[`"))
            }
            Some(_) => Err(self.expected_separator()),
        }
    }

    fn expected_separator(&mut self) -> Problem {
        let here = self.here();
        match self.text[here.start..].chars().next() {
            Some('*') => self.error(here, "`*` repeats brackets only").help("put what is repeated between `[` and `]`"),
            Some('(') => self.error(here, "expected a layer's name before `(`"),
            _ => {
                let rest = &self.text[here.start..];
                let end = rest.find(|c: char| c.is_whitespace() || "-[](),".contains(c)).unwrap_or(rest.len());
                let token = if end > 0 { here.start..here.start + end } else { here };
                let message = format!("expected `-` before `{}`", &self.text[token.clone()]);
                self.error(token, message)
            }
        }
    }

    fn arch(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut nodes = self.item(depth)?;
        while let Some(separator) = self.separator() {
            if let None | Some(']') = self.peek() {
                return Err(self.error(separator, "expected a layer behind `-`"));
            }
            nodes.extend(self.item(depth)?);
            if nodes.len() > MAX_LAYERS {
                let message = format!("the network has more than {MAX_LAYERS} layers");
                return Err(self.error(0..self.text.len(), message));
            }
        }
        Ok(nodes)
    }

    fn item(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let open = self.here();
        if !self.eat('[') {
            return Ok(self.layer()?.into_iter().collect());
        }
        if depth == MAX_DEPTH {
            return Err(self.error(open, format!("brackets are nested more than {MAX_DEPTH} deep")));
        }
        if self.peek() == Some(']') {
            return Err(self.error(open.start..self.at + 1, "expected a layer between `[` and `]`"));
        }
        let nodes = self.arch(depth + 1)?;
        if !self.eat(']') {
            return Err(match self.peek() {
                None => self.error(open, "`[` is not closed, expected `]`"),
                Some(_) => self.expected_separator(),
            });
        }
        if !self.eat('*') {
            return Ok(nodes);
        }
        let n = self.count()?;
        if nodes.len().saturating_mul(n) > MAX_LAYERS {
            let message = format!("{n} times {} layers are more than {MAX_LAYERS}", nodes.len());
            return Err(self.error(open.start..self.at, message));
        }
        let mut all = Vec::with_capacity(nodes.len() * n);
        for _ in 0..n {
            all.extend(nodes.iter().cloned());
        }
        Ok(all)
    }

    /// How often brackets are repeated.
    fn count(&mut self) -> Result<usize, Problem> {
        let here = self.here();
        let node = if self.text[here.start..].starts_with('{') {
            self.variable()?
        } else {
            let digits = self.text[here.start..].bytes().take_while(u8::is_ascii_digit).count();
            self.at += digits;
            let range = here.start..if digits > 0 { self.at } else { here.end };
            match self.text[range.clone()].parse() {
                Ok(n) => Node { value: Value::Integer(n), span: self.span(range) },
                Err(_) => {
                    let message = format!("expected a whole number behind `*`, from 1 to {MAX_LAYERS}");
                    return Err(self.error(range, message));
                }
            }
        };
        match node.value {
            Value::Integer(n) if (1..=MAX_LAYERS as i64).contains(&n) => Ok(n as usize),
            other => {
                let got = config::display(&other);
                let message = format!("a repeat expects a whole number from 1 to {MAX_LAYERS}, got {got}");
                Err(Problem::error(node.span, message))
            }
        }
    }

    /// `{name}`, filled.
    fn variable(&mut self) -> Result<Node, Problem> {
        let start = self.at;
        let Some(length) = self.text[start..].find('}') else {
            return Err(self.error(start..start + 1, "`{` is not closed, expected `}`"));
        };
        self.at = start + length + 1;
        let name = self.text[start + 1..self.at - 1].trim();
        let span = self.span(start..self.at);
        self.vars.take(name, span)
    }

    /// One layer; `None` if there is no such layer (then parsing can go on).
    fn layer(&mut self) -> Result<Option<Node>, Problem> {
        let start = self.here().start;
        let rest = &self.text[start..];
        let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if length == 0 {
            let here = self.here();
            let message = match &self.text[here.clone()] {
                "" => "expected a layer".to_owned(),
                other => format!("expected a layer, got `{other}`"),
            };
            return Err(self.error(here, message));
        }
        let name = &rest[..length];
        let name_range = start..start + length;
        self.at += length;
        let kind = layer::KINDS.iter().find(|kind| kind.shorthand.eq_ignore_ascii_case(name));
        if kind.is_none() {
            let mut problem = self.error(name_range.clone(), format!("unknown layer `{name}`"));
            let foreign = FOREIGN.iter().find(|(word, _)| word.eq_ignore_ascii_case(name));
            problem.help = foreign
                .map(|(_, help)| (*help).to_owned())
                .or_else(|| did_you_mean(&name.to_uppercase(), layer::KINDS.iter().map(|kind| kind.shorthand)))
                .or_else(|| {
                    let names: Vec<&str> = layer::KINDS.iter().map(|kind| kind.shorthand).collect();
                    Some(format!("the layers are {}", names.join(", ")))
                });
            self.log.push(problem);
            self.is_well = false;
        }
        let name_span = self.span(name_range.clone());
        let table = if self.text[self.at..].starts_with('(') || self.peek() == Some('(') {
            self.arguments(kind, &self.text[name_range])?
        } else {
            None
        };
        let Some(kind) = kind else { return Ok(None) };
        let Some(table) = table else {
            let value = Value::Text { text: kind.word.to_owned(), inner: None };
            return Ok(Some(Node { value, span: name_span }));
        };
        let span = self.span(start..self.at);
        let entry =
            Entry { key: kind.word.to_owned(), key_span: name_span, node: Node { value: Value::Table(table), span } };
        Ok(Some(Node { value: Value::Table(Table { entries: vec![entry] }), span }))
    }

    /// `(…)` behind a layer's name, as the table of the long form; `None` for `()`.
    fn arguments(&mut self, kind: Option<&LayerKind>, name: &str) -> Result<Option<Table>, Problem> {
        let open = self.here();
        self.eat('(');
        let mut table = Table::default();
        let mut n_unnamed = 0;
        if self.eat(')') {
            return Ok(None);
        }
        loop {
            let start = self.here().start;
            let named = self.argument_key();
            let key = match &named {
                Some(range) => self.text[range.clone()].to_owned(),
                None if table.entries.len() > n_unnamed => {
                    let end = self.value("").map_or(start, |_| self.at);
                    return Err(self
                        .error(start..end, "a value without a key stands behind one with a key")
                        .help("put values without keys first"));
                }
                None => {
                    n_unnamed += 1;
                    kind.and_then(|kind| kind.positional.get(n_unnamed - 1)).copied().unwrap_or_default().to_owned()
                }
            };
            let node = self.value(&key)?;
            let key_span = self.span(named.unwrap_or(start..self.at));
            if let Some(kind) = kind {
                if key.is_empty() {
                    // One too many makes the next one too many as well.
                    if n_unnamed == kind.positional.len() + 1 {
                        self.too_many(kind, name, start);
                    }
                } else if table.get(&key).is_some() {
                    let problem = self.error(start..self.at, format!("`{key}` of `{name}` is given twice"));
                    self.log.push(problem);
                    self.is_well = false;
                }
                table.entries.push(Entry { key, key_span, node });
            }
            if self.eat(',') {
                continue;
            }
            if self.eat(')') {
                return Ok(Some(table));
            }
            let written = self.text[open.start..self.at].trim_end();
            let help = format!("write `{name}{written})`");
            return Err(match self.peek() {
                Some(c) if !SEPARATORS.contains(&c) && c != ']' => {
                    let here = self.here();
                    self.error(here, format!("expected `,` or `)`, got `{c}`"))
                }
                _ => self.error(open, "`(` is not closed, expected `)`").help(help),
            });
        }
    }

    fn too_many(&mut self, kind: &LayerKind, name: &str, start: usize) {
        let problem = match kind.positional {
            [] => self.error(start..self.at, format!("`{name}` takes no value without a key")),
            keys => {
                let order = keys.join(", ");
                self.error(start..self.at, format!("`{name}` takes at most {} values without a key", keys.len()))
                    .help(format!("they are `{name}({order})`; others are written `key=value`"))
            }
        };
        self.log.push(problem);
        self.is_well = false;
    }

    /// `key` of `key = value`, and steps behind the `=`; stays where it is if there is none.
    fn argument_key(&mut self) -> Option<Range<usize>> {
        let start = self.here().start;
        let rest = &self.text[start..];
        let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let behind = rest[length..].trim_start();
        if length == 0 || !behind.starts_with('=') {
            return None;
        }
        self.at = self.text.len() - behind.len() + 1;
        Some(start..start + length)
    }

    /// A number, a word, a quoted string, a list or a variable.
    fn value(&mut self, key: &str) -> Result<Node, Problem> {
        let start = self.here().start;
        match self.text[start..].chars().next() {
            Some('{') => self.variable(),
            Some(quote @ ('"' | '\'')) => match self.text[start + 1..].find(quote) {
                Some(length) => {
                    self.at = start + length + 2;
                    let text = self.text[start + 1..self.at - 1].to_owned();
                    Ok(Node { value: Value::Text { text, inner: None }, span: self.span(start..self.at) })
                }
                None => Err(self.error(start..start + 1, format!("the string is not closed, expected `{quote}`"))),
            },
            Some('[') => {
                self.at += 1;
                let mut items = Vec::new();
                while !self.eat(']') {
                    if let Some('[') | None = self.peek() {
                        return Err(self.error(start..start + 1, "`[` is not closed, expected `]`"));
                    }
                    items.push(self.value(key)?);
                    if !self.eat(',') && self.peek() != Some(']') {
                        return Err(self.error(start..start + 1, "`[` is not closed, expected `]`"));
                    }
                }
                Ok(Node { value: Value::List(items), span: self.span(start..self.at) })
            }
            _ => self.scalar(key, start),
        }
    }

    fn scalar(&mut self, key: &str, start: usize) -> Result<Node, Problem> {
        let rest = &self.text[start..];
        let is_number = rest.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '.' || c == '-');
        let mut previous = ' ';
        let length = rest
            .char_indices()
            .find(|&(i, c)| {
                let is_sign = (c == '-' || c == '+') && (i == 0 || !is_number || matches!(previous, 'e' | 'E'));
                previous = c;
                !(c.is_alphanumeric() || c == '_' || c == '.' || c == '×' || is_sign)
            })
            .map_or(rest.len(), |(i, _)| i);
        let token = &rest[..length];
        let range = start..start + length;
        if token.is_empty() || token == "-" || token == "+" {
            let here = self.here();
            return Err(match &self.text[here.clone()] {
                "" => self.error(here, "expected a value, then `)`"),
                other => self.error(here.clone(), format!("expected a value, got `{other}`")),
            });
        }
        self.at += length;
        let span = self.span(range);
        let node = |value| Node { value, span };
        let plain = token.replace('_', "");
        let axes: Vec<&str> = token.split(['x', 'X', '×']).collect();
        Ok(node(match token {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            _ => {
                if let Ok(i) = plain.parse() {
                    Value::Integer(i)
                } else if is_number && let Ok(x) = plain.parse() {
                    Value::Float(x)
                } else if let ([width, height], true) = (&axes[..], key != "shape")
                    && let (Ok(width), Ok(height)) = (width.parse(), height.parse())
                {
                    // `3x5` is width x height, the course's order; keys take [height, width].
                    Value::List(vec![node(Value::Integer(height)), node(Value::Integer(width))])
                } else {
                    Value::Text { text: token.to_owned(), inner: None }
                }
            }
        }))
    }
}
