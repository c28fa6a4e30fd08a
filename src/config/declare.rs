//! What a key is: declared where it is read, and told from there to people and to editors.

use std::ops::RangeInclusive;

use super::Bounds;

/// A key, as its reader declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    /// The key.
    pub key: String,
    /// One sentence, with the unit.
    pub meaning: &'static str,
    /// A value, as TOML.
    pub example: &'static str,
    /// The value in force when it is not set, as canonical TOML.
    pub default: Option<String>,
    /// Whether it must be set.
    pub is_required: bool,
    /// Whether it says where something is, and so is no part of a task's identity.
    pub is_place: bool,
    /// Whether its value may stand alone for the table of a choice that it is in: `{ rotate = 15 }`.
    pub is_short: bool,
    /// What it can be set to.
    pub form: Form,
}

/// What a key can be set to.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// `true` or `false`.
    Flag,
    /// A whole number within a range.
    Whole(RangeInclusive<u64>),
    /// A number, whole or not.
    Number(Bounds),
    /// Any string.
    Text,
    /// One of these strings, each with its meaning.
    Words(Vec<(String, &'static str)>),
    /// A word, or a table with it as the only key, which holds the keys of that choice.
    Choice(Vec<Alternative>),
    /// So many values, each of this form.
    List(Box<Form>, RangeInclusive<usize>),
    /// A table of these keys.
    Table(Vec<Declaration>),
    /// A table of any keys, each of this form.
    Map(Box<Form>),
    /// A value of one of these forms.
    Either(Vec<Form>),
    /// A table of these keys, and of any others of that form.
    Open(Vec<Declaration>, Box<Form>),
    /// A path, or one of these strings, which all begin with `builtin:`.
    Source(Vec<String>),
    /// Dotted keys of stages, as tables within tables, down to ranges: `{ uniform = [0.0, 1.0] }`.
    Space,
    /// A name of files: letters, digits, `-`, `_` and `.`.
    Name,
    /// A time with its unit: `"90s"`, `"30m"`, `"2h"`.
    Duration,
    /// A comparison with a number: `">= 0.97"`.
    Comparison,
    /// Of this form, where any value may be `"{name}"`, a variable.
    Filled(Box<Form>),
    /// What TOML can say.
    Anything,
}

/// One alternative of a choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// The word.
    pub word: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// Its keys. One that is called like the word may also be written as `{ word = value }`.
    pub keys: Vec<Declaration>,
}

impl Form {
    /// A whole number from `least` up.
    pub fn whole_from(least: u64) -> Form {
        Form::Whole(least..=i64::MAX as u64)
    }

    /// What an error or a page calls it.
    pub fn noun(&self) -> String {
        match self {
            Form::Flag => "true or false".to_owned(),
            Form::Whole(range) if *range.end() >= i64::MAX as u64 => {
                format!("a whole number, at least {}", range.start())
            }
            Form::Whole(range) => format!("a whole number from {} to {}", range.start(), range.end()),
            Form::Number(bounds) => bounds.to_string(),
            Form::Text => "a string".to_owned(),
            Form::Words(words) => {
                let words: Vec<String> = words.iter().map(|(word, _)| super::quote(word)).collect();
                words.join(" | ")
            }
            Form::Choice(alternatives) => {
                let words: Vec<String> = alternatives.iter().map(|choice| super::quote(choice.word)).collect();
                words.join(" | ")
            }
            Form::List(item, n) if n.start() == n.end() => format!("[{}]", vec![item.noun(); *n.start()].join(", ")),
            Form::List(item, _) => format!("a list of {}", item.noun()),
            Form::Table(_) => "a table".to_owned(),
            Form::Map(item) => format!("a table, each key {}", item.noun()),
            Form::Either(forms) => forms.iter().map(Form::noun).collect::<Vec<_>>().join(", or "),
            Form::Open(..) => "a table".to_owned(),
            Form::Source(names) => format!("a path, or {}", names.join(", ")),
            Form::Space => "a table of keys and ranges".to_owned(),
            Form::Name => "a name".to_owned(),
            Form::Duration => "a time such as \"90s\", \"30m\" or \"2h\"".to_owned(),
            Form::Comparison => "a comparison with a number".to_owned(),
            Form::Filled(form) => form.noun(),
            Form::Anything => "any value".to_owned(),
        }
    }
}
