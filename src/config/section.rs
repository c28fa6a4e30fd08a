//! One table of a manifest while a config reads it: every key is declared where it is read, and only there.
//!
//! `section.key("epochs", "Passes over the training rows.", "30").whole(1..=1_000_000).or(10)` checks the key, records
//! its resolved value, and, when keys are described ([`describe`]), is what people and editors are told of it. There is
//! no way to a value without a declaration.

use std::fmt;
use std::ops::RangeInclusive;

use super::declare::{Alternative, Declaration, Form};
use super::{
    Bounds, Entry, Log, Node, OneOf, Problem, Resolved, Span, Table, Value, as_number, canonical_float, did_you_mean,
    display, meant, nearest, positive_zero, quote, toml,
};

/// One table of a manifest while a config reads it.
///
/// Every read names its key; [`Section::finish`] then reports the keys that nobody asked for. A read never fails: it
/// reports the problem and returns a stand-in, so that one pass finds everything.
pub struct Section<'a> {
    table: Option<&'a Table>,
    span: Span,
    prefix: String,
    known: Vec<String>,
    /// What was declared so far, when keys are described rather than read.
    declared: Option<Vec<Declaration>>,
    log: &'a mut Log,
}

/// One alternative of a choice, and how its keys are read.
pub struct Choice<T> {
    /// The word.
    pub word: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// Reads its keys.
    pub read: fn(&mut Section<'_>) -> T,
}

impl<T> Clone for Choice<T> {
    fn clone(&self) -> Choice<T> {
        *self
    }
}

impl<T> Copy for Choice<T> {}

/// The keys that `read` reads, with those of every choice that can be made.
pub fn describe<T>(read: impl FnOnce(&mut Section<'_>) -> T) -> Vec<Declaration> {
    let mut log = Log::default();
    let mut section = Section::new(None, Span::default(), "", &mut log);
    section.declared = Some(Vec::new());
    read(&mut section);
    section.declared.unwrap_or_default()
}

impl<'a> Section<'a> {
    /// Reads `table` (`None`: all defaults); `span` is its header, for missing keys; `prefix` is put before every
    /// recorded key ("" or ending in `.`).
    pub fn new(table: Option<&'a Table>, span: Span, prefix: &str, log: &'a mut Log) -> Section<'a> {
        Section { table, span, prefix: prefix.to_owned(), known: Vec::new(), declared: None, log }
    }

    /// Declares `key`: one sentence of what it means (with its unit), and a value as an example, as TOML.
    pub fn key(&mut self, key: &'static str, meaning: &'static str, example: &'static str) -> Key<'_, 'a> {
        self.known.push(key.to_owned());
        Key { section: self, key, meaning, example, is_short: false }
    }

    /// Leaves a key, where it is set, to another reader: it is no unknown one here, and nobody suggests it.
    pub fn leave_set(&mut self, key: &str) {
        if self.has(key) {
            self.known.push(key.to_owned());
        }
    }

    /// Whether a key of this name was declared so far.
    pub fn is_declared(&self, key: &str) -> bool {
        self.known.iter().any(|known| known == key)
    }

    /// Whether the manifest sets `key`, declared or not.
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.get(key).is_some())
    }

    /// The header's span.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The log that problems and resolved keys go to.
    pub fn log(&mut self) -> &mut Log {
        self.log
    }

    /// Whether keys are described rather than read: then all of them are wanted, whatever others say.
    pub fn is_described(&self) -> bool {
        self.declared.is_some()
    }

    /// What a key that is declared above was set to.
    ///
    /// # Panics
    /// If it is not.
    pub fn node(&self, key: &str) -> Option<&'a Node> {
        assert!(self.is_declared(key), "`{key}` is not declared");
        self.table.and_then(|table| table.get(key)).map(|entry| &entry.node)
    }

    /// Records the resolved value of `key`, as canonical TOML.
    pub fn record(&mut self, key: &str, value: impl Into<String>, span: Option<Span>) {
        let key = format!("{}{key}", self.prefix);
        self.log.resolved.push(Resolved { key, value: value.into(), span });
    }

    /// Notes that `key` says where something is.
    pub fn record_place(&mut self, key: &str, place: &str, span: Span) {
        let key = format!("{}{key}", self.prefix);
        self.log.places.push(Resolved { key, value: quote(place), span: Some(span) });
    }

    /// Reports a value of the wrong type or range: `` `key` expected …, got … ``.
    pub fn expected(&mut self, key: &str, node: &Node, expected: impl fmt::Display) {
        let got = display(&node.value);
        self.log.push(Problem::error(node.span, format!("`{key}` expects {expected}, got {got}")));
    }

    /// The same for a number, with the one that is probably meant: without quotes, unit or percent sign.
    pub fn expected_number(&mut self, key: &str, node: &Node, expected: impl fmt::Display, fits: &dyn Fn(f64) -> bool) {
        self.expected(key, node, expected);
        if let Some(x) = meant(&node.value, fits) {
            self.advise(key, format!("write `{key} = {x}`"));
        }
    }

    /// Adds a help line to what was found wrong with the value of `key`, if something was and it has none.
    pub fn advise(&mut self, key: &str, help: impl Into<String>) {
        let Some(span) = self.table.and_then(|table| table.get(key)).map(|entry| entry.node.span) else { return };
        if let Some(problem) = self.log.problems.iter_mut().rev().find(|problem| problem.span == span) {
            problem.help.get_or_insert_with(|| help.into());
        }
    }

    fn missing(&mut self, key: &str, expected: &str) {
        self.log
            .push(Problem::error(self.span, format!("missing key `{key}`")).help(format!("add `{key}`: {expected}")));
    }

    fn unknown_word(&mut self, key: &str, got: &str, span: Span, words: &[&str]) {
        let mut problem = Problem::error(span, format!("unknown `{key}`: `{got}`, expected {}", OneOf(words)));
        problem.help = did_you_mean(got, words.iter().copied());
        self.log.push(problem);
    }

    /// The alternatives of a choice, described.
    pub fn alternatives<T>(choices: &[Choice<T>]) -> Vec<Alternative> {
        let alternative = |choice: &Choice<T>| Alternative {
            word: choice.word,
            meaning: choice.meaning,
            keys: describe(choice.read),
        };
        choices.iter().map(alternative).collect()
    }

    /// The choice that `node` makes; problems name `key`, records are kept under `at`. `None` after a problem.
    pub fn choice_at<T>(&mut self, key: &str, at: &str, node: &Node, choices: &[Choice<T>]) -> Option<T> {
        let names: Vec<&'static str> = choices.iter().map(|choice| choice.word).collect();
        let empty = Table::default();
        let (name, name_span, inner) = match &node.value {
            Value::Text { text, .. } => (text, node.span, Ok(&empty)),
            Value::Table(table) if table.entries.len() == 1 => {
                let entry = &table.entries[0];
                let inner = match &entry.node.value {
                    Value::Table(inner) => Ok(inner),
                    _ => Err(&entry.node),
                };
                (&entry.key, entry.key_span, inner)
            }
            _ => {
                let got = match &node.value {
                    Value::Table(table) => format!("a table with {} keys", table.entries.len()),
                    other => display(other),
                };
                let message = format!(
                    "`{key}` expects {}, or a table with one of them as its only key, got {got}",
                    OneOf(&names)
                );
                let mut problem = Problem::error(node.span, message);
                if let Value::Table(table) = &node.value {
                    problem.help = instead_of(key, key != at, table, &names);
                }
                self.log.push(problem);
                return None;
            }
        };
        let Some(choice) = choices.iter().find(|choice| choice.word == name) else {
            self.unknown_word(key, name, name_span, &names);
            if let (Value::Table(table), Some(problem)) = (&node.value, self.log.problems.last_mut()) {
                problem.help = problem.help.take().or_else(|| instead_of(key, key != at, table, &names));
            }
            return None;
        };
        self.record(at, quote(name), Some(node.span));
        // `{ rotate = 15 }`: an unnamed value is that of the key that may stand alone, or of the one called like the
        // choice.
        let wrapped;
        let table = match inner {
            Ok(table) => table,
            Err(value) => {
                let short = describe(choice.read).into_iter().find(|declared| declared.is_short);
                let key = short.map_or(choice.word.to_owned(), |declared| declared.key);
                wrapped = Table { entries: vec![Entry { key, key_span: name_span, node: value.clone() }] };
                &wrapped
            }
        };
        let mut section = Section::new(Some(table), node.span, &format!("{}{at}.{name}.", self.prefix), self.log);
        let value = (choice.read)(&mut section);
        section.finish();
        Some(value)
    }

    /// A table below this one, whose keys are recorded under `at`.
    pub fn inner<'i>(&'i mut self, table: &'i Table, span: Span, at: &str) -> Section<'i> {
        Section::new(Some(table), span, &format!("{}{at}.", self.prefix), self.log)
    }

    /// Reports every key that was not read, with "did you mean".
    pub fn finish(self) {
        let Some(table) = self.table else { return };
        for entry in &table.entries {
            if !self.known.contains(&entry.key) {
                let mut problem = Problem::error(entry.key_span, format!("unknown key `{}`", entry.key));
                problem.help = did_you_mean(&entry.key, self.known.iter().map(String::as_str)).or_else(|| {
                    let mut known: Vec<&str> = self.known.iter().map(String::as_str).collect();
                    known.sort_unstable();
                    known.dedup();
                    (!known.is_empty()).then(|| format!("the keys here are `{}`", known.join("`, `")))
                });
                self.log.push(problem);
            }
        }
    }
}

/// The choices of a table with several, each as a value of its own: `"center"`, `{ scale = { per = "pixel" } }`. What is nearly
/// one of `names` is written like it.
fn one_choice_each(table: &Table, names: &[&str]) -> Vec<String> {
    let alone = |entry: &Entry| {
        let is_known = names.contains(&entry.key.as_str());
        let near = nearest(&entry.key, names.iter().copied()).filter(|_| !is_known);
        let key = near.map_or_else(|| entry.key.clone(), str::to_owned);
        match &entry.node.value {
            Value::Table(inner) if inner.entries.is_empty() => quote(&key),
            _ => toml(&Value::Table(Table { entries: vec![Entry { key, ..entry.clone() }] })),
        }
    };
    table.entries.iter().map(alone).collect()
}

/// What to write instead of a table that makes no choice of `names`, or several.
fn instead_of(key: &str, is_in_list: bool, table: &Table, names: &[&str]) -> Option<String> {
    let is_choice = |entry: &&Entry| names.contains(&entry.key.as_str());
    let are_tables = table.entries.iter().all(|entry| matches!(entry.node.value, Value::Table(_)));
    if is_in_list && table.entries.len() > 1 && are_tables && table.entries.iter().any(|entry| is_choice(&entry)) {
        return Some(format!("write an item for each, as in `{key} = [{}]`", one_choice_each(table, names).join(", ")));
    }
    // `{ name = "adam", lr = 0.1 }`, as other tools have it.
    let named = table.entries.iter().find_map(|entry| match &entry.node.value {
        Value::Text { text, .. } => {
            let name = names.iter().find(|name| text.eq_ignore_ascii_case(name))?;
            let others = table.entries.iter().filter(|other| other.key != entry.key).cloned().collect();
            Some((*name, Table { entries: others }))
        }
        _ => None,
    });
    let write = |value: &str| if is_in_list { format!("`{key} = [{value}]`") } else { format!("`{key} = {value}`") };
    match named {
        Some((name, keys)) if keys.entries.is_empty() => Some(format!("write {}", write(&quote(name)))),
        Some((name, keys)) => {
            let inner = toml(&Value::Table(keys));
            Some(format!("write {}", write(&format!("{{ {name} = {inner} }}"))))
        }
        None => {
            let name = &table.entries.iter().find(is_choice)?.key;
            Some(format!("write {}, or `{{ {name} = {{ … }} }}` with its keys", write(&quote(name))))
        }
    }
}

/// A key that is declared, on the way to its value.
pub struct Key<'k, 'a> {
    section: &'k mut Section<'a>,
    key: &'static str,
    meaning: &'static str,
    example: &'static str,
    is_short: bool,
}

/// What a value other than a table says where a table is expected.
pub enum Short {
    /// What this table says.
    Table(Table),
    /// What an absent key says.
    Nothing,
    /// Nothing clear; what to write, where that can be told.
    Unclear(Option<String>),
}

impl<'k, 'a> Key<'k, 'a> {
    /// Lets the value stand alone for the table of the choice that the key is in: `{ rotate = 15 }`.
    pub fn short(self) -> Key<'k, 'a> {
        Key { is_short: true, ..self }
    }

    fn node(&self) -> Option<&'a Node> {
        self.section.table.and_then(|table| table.get(self.key)).map(|entry| &entry.node)
    }

    fn declare(&mut self, form: impl FnOnce() -> Form, default: Option<String>, is_required: bool, is_place: bool) {
        let Key { key, meaning, example, is_short, .. } = *self;
        if let Some(declared) = &mut self.section.declared {
            let (key, form) = (key.to_owned(), form());
            declared.push(Declaration { key, meaning, example, default, is_required, is_place, is_short, form });
        }
    }

    /// A whole number.
    pub fn whole(self, range: RangeInclusive<u64>) -> Whole<'k, 'a> {
        Whole { key: self, range }
    }

    /// A number. Whole numbers are numbers.
    pub fn number(self, bounds: Bounds) -> Number<'k, 'a> {
        Number { key: self, bounds }
    }

    /// `true` or `false`.
    pub fn flag(mut self, default: bool) -> bool {
        self.declare(|| Form::Flag, Some(default.to_string()), false, false);
        let Some(node) = self.node() else {
            self.section.record(self.key, default.to_string(), None);
            return default;
        };
        match node.value {
            Value::Boolean(value) => {
                self.section.record(self.key, value.to_string(), Some(node.span));
                value
            }
            _ => {
                self.section.expected(self.key, node, "true or false");
                let flag = match &node.value {
                    Value::Integer(0) => Some(false),
                    Value::Integer(1) => Some(true),
                    Value::Text { text, .. } => match text.to_lowercase().as_str() {
                        "true" | "yes" | "on" => Some(true),
                        "false" | "no" | "off" => Some(false),
                        _ => None,
                    },
                    _ => None,
                };
                if let Some(flag) = flag {
                    self.section.advise(self.key, format!("write `{} = {flag}`", self.key));
                }
                default
            }
        }
    }

    /// A string.
    pub fn text(mut self, default: &'static str) -> String {
        self.declare(|| Form::Text, Some(quote(default)), false, false);
        let Some(node) = self.node() else {
            self.section.record(self.key, quote(default), None);
            return default.to_owned();
        };
        match &node.value {
            Value::Text { text, .. } => {
                self.section.record(self.key, quote(text), Some(node.span));
                text.clone()
            }
            _ => {
                self.section.expected(self.key, node, "a string");
                default.to_owned()
            }
        }
    }

    /// A string that says where something is: no fingerprint may hold it, so it is noted apart ([`Log::places`]).
    pub fn place(self, is_required: bool) -> Option<(String, Span)> {
        self.place_of(is_required, || Form::Text)
    }

    /// The same for a string of this form, which the reader checks.
    pub fn place_of(mut self, is_required: bool, form: impl FnOnce() -> Form) -> Option<(String, Span)> {
        self.declare(form, None, is_required, true);
        let node = self.node()?;
        match &node.value {
            Value::Text { text, .. } => {
                self.section.record_place(self.key, text, node.span);
                Some((text.clone(), node.span))
            }
            _ => {
                self.section.expected(self.key, node, "a string");
                None
            }
        }
    }

    /// One of a closed list of words, each with what it means and what it stands for. The first is the default.
    pub fn word<T: Clone>(self, words: &[(&'static str, &'static str, T)]) -> T {
        self.word_or(words, 0)
    }

    /// The same, where the word at `default` is the default.
    pub fn word_or<T: Clone>(mut self, words: &[(&'static str, &'static str, T)], default: usize) -> T {
        let (default, _, stand_in) = &words[default];
        let form = || Form::Words(words.iter().map(|(word, meaning, _)| ((*word).to_owned(), *meaning)).collect());
        self.declare(form, Some(quote(default)), false, false);
        let Some(node) = self.node() else {
            self.section.record(self.key, quote(default), None);
            return stand_in.clone();
        };
        let names: Vec<&str> = words.iter().map(|(word, ..)| *word).collect();
        match &node.value {
            Value::Text { text, .. } => match words.iter().find(|(word, ..)| word == text) {
                Some((word, _, value)) => {
                    self.section.record(self.key, quote(word), Some(node.span));
                    return value.clone();
                }
                None => self.section.unknown_word(self.key, text, node.span, &names),
            },
            _ => self.section.expected(self.key, node, OneOf(&names)),
        }
        stand_in.clone()
    }

    /// A choice: a bare word or a one-key table (`"adam"`, `{ adam = { beta1 = 0.9 } }`).
    ///
    /// Returns `None` after a problem, or when the key is absent and there is no `default`.
    pub fn choice<T>(mut self, choices: &[Choice<T>], default: Option<&'static str>) -> Option<T> {
        self.declare(|| Form::Choice(Section::alternatives(choices)), default.map(quote), false, false);
        if let Some(node) = self.node() {
            return self.section.choice_at(self.key, self.key, node, choices);
        }
        let choice = choices.iter().find(|choice| Some(choice.word) == default)?;
        self.section.record(self.key, quote(choice.word), None);
        let prefix = format!("{}{}.{}.", self.section.prefix, self.key, choice.word);
        Some((choice.read)(&mut Section::new(None, self.section.span, &prefix, self.section.log)))
    }

    /// A list of choices, in order. An absent key is an empty list.
    pub fn choices<T>(self, choices: &[Choice<T>]) -> Vec<T> {
        self.choices_or(choices, true)
    }

    /// The same, but that an empty list is not recorded.
    pub fn optional_choices<T>(self, choices: &[Choice<T>]) -> Vec<T> {
        self.choices_or(choices, false)
    }

    fn choices_or<T>(mut self, choices: &[Choice<T>], records_empty: bool) -> Vec<T> {
        let form = || Form::List(Box::new(Form::Choice(Section::alternatives(choices))), 0..=usize::MAX);
        self.declare(form, records_empty.then(|| "[]".to_owned()), false, false);
        let Some(node) = self.node() else {
            if records_empty {
                self.section.record(self.key, "[]", None);
            }
            return Vec::new();
        };
        let Value::List(items) = &node.value else {
            self.section.expected(self.key, node, "a list");
            let items = match &node.value {
                Value::Table(table) if table.entries.len() > 1 => {
                    one_choice_each(table, &choices.iter().map(|choice| choice.word).collect::<Vec<_>>())
                }
                value => vec![toml(value)],
            };
            if matches!(node.value, Value::Text { .. } | Value::Table(_)) {
                self.section.advise(self.key, format!("write `{} = [{}]`", self.key, items.join(", ")));
            }
            return Vec::new();
        };
        if items.is_empty() && records_empty {
            self.section.record(self.key, "[]", Some(node.span));
        }
        self.section.log.lists.push((format!("{}{}", self.section.prefix, self.key), node.span));
        let item = |(i, item)| self.section.choice_at(self.key, &format!("{}[{i}]", self.key), item, choices);
        items.iter().enumerate().filter_map(item).collect()
    }

    /// A table of keys, or a value of one of the forms `short`, which `expand` turns into the table that it stands for:
    /// what is recorded is the same.
    pub fn table_or<T>(
        mut self,
        short: Vec<Form>,
        expand: impl FnOnce(&Node) -> Short,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        if self.section.is_described() {
            let mut value = None;
            let table = Form::Table(describe(|section| value = Some(read(section))));
            let form = match short.is_empty() {
                true => table,
                false => Form::Either(std::iter::once(table).chain(short).collect()),
            };
            self.declare(|| form, None, false, false);
            return value;
        }
        let node = self.node()?;
        let expanded;
        let table = match &node.value {
            Value::Table(table) => table,
            _ => match expand(node) {
                Short::Table(table) => {
                    expanded = table;
                    &expanded
                }
                Short::Nothing => return None,
                Short::Unclear(help) => {
                    self.section.expected(self.key, node, "a table");
                    if let Some(help) = help {
                        self.section.advise(self.key, help);
                    }
                    return None;
                }
            },
        };
        let mut inner = self.section.inner(table, node.span, self.key);
        let value = read(&mut inner);
        inner.finish();
        Some(value)
    }

    /// What was set, unchecked and unrecorded: for keys of a form that only their reader knows, which it declares.
    pub fn form(mut self, default: Option<&str>, form: impl FnOnce() -> Form) -> Option<&'a Node> {
        self.declare(form, default.map(str::to_owned), false, false);
        self.node()
    }

    /// The same for a key that must be set; the reader says so where it is not.
    pub fn required_form(mut self, form: impl FnOnce() -> Form) -> Option<&'a Node> {
        self.declare(form, None, true, false);
        self.node()
    }
}

/// A whole number within a range.
pub struct Whole<'k, 'a> {
    key: Key<'k, 'a>,
    range: RangeInclusive<u64>,
}

impl Whole<'_, '_> {
    /// Its value, or `default` where it is not set.
    pub fn or(mut self, default: u64) -> u64 {
        let form = self.form();
        self.key.declare(|| form, Some(default.to_string()), false, false);
        if self.key.node().is_none() {
            self.key.section.record(self.key.key, default.to_string(), None);
        }
        self.read().unwrap_or(default)
    }

    /// Its value, where it is set.
    pub fn optional(mut self) -> Option<u64> {
        let form = self.form();
        self.key.declare(|| form, None, false, false);
        self.read()
    }

    /// Its value; it must be set.
    pub fn required(mut self) -> u64 {
        let form = self.form();
        let noun = form.noun();
        self.key.declare(|| form, None, true, false);
        if self.key.node().is_none() {
            self.key.section.missing(self.key.key, &noun);
        }
        self.read().unwrap_or(*self.range.start())
    }

    fn form(&self) -> Form {
        Form::Whole(self.range.clone())
    }

    fn read(&mut self) -> Option<u64> {
        let node = self.key.node()?;
        match node.value {
            Value::Integer(i) if u64::try_from(i).is_ok_and(|u| self.range.contains(&u)) => {
                self.key.section.record(self.key.key, i.to_string(), Some(node.span));
                Some(i as u64)
            }
            _ => {
                let (noun, range) = (self.form().noun(), &self.range);
                let fits = |x: f64| x >= 0.0 && x.fract() == 0.0 && range.contains(&(x as u64));
                self.key.section.expected_number(self.key.key, node, noun, &fits);
                None
            }
        }
    }
}

/// A number within bounds.
pub struct Number<'k, 'a> {
    key: Key<'k, 'a>,
    bounds: Bounds,
}

impl Number<'_, '_> {
    /// Its value, or `default` where it is not set.
    pub fn or(mut self, default: f64) -> f64 {
        let bounds = self.bounds;
        self.key.declare(|| Form::Number(bounds), Some(canonical_float(default)), false, false);
        if self.key.node().is_none() {
            self.key.section.record(self.key.key, canonical_float(default), None);
        }
        self.read().unwrap_or(default)
    }

    /// Its value, where it is set.
    pub fn optional(mut self) -> Option<f64> {
        let bounds = self.bounds;
        self.key.declare(|| Form::Number(bounds), None, false, false);
        self.read()
    }

    /// Its value; it must be set.
    pub fn required(mut self) -> f64 {
        let bounds = self.bounds;
        self.key.declare(|| Form::Number(bounds), None, true, false);
        if self.key.node().is_none() {
            self.key.section.missing(self.key.key, &bounds.to_string());
        }
        self.read().unwrap_or(0.5)
    }

    fn read(&mut self) -> Option<f64> {
        let node = self.key.node()?;
        match as_number(&node.value).map(positive_zero).filter(|&x| self.bounds.holds(x)) {
            Some(x) => {
                self.key.section.record(self.key.key, canonical_float(x), Some(node.span));
                Some(x)
            }
            None => {
                let bounds = self.bounds;
                self.key.section.expected_number(self.key.key, node, bounds, &|x| bounds.holds(x));
                None
            }
        }
    }
}
