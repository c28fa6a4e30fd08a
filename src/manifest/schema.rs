//! What a manifest may say, from the declarations of its readers: as a tree for people, as JSON Schema for editors.

use serde_json::{Map, Value as Json, json};

use super::graph::{declare_inputs, declare_kind};
use super::{read_name, read_rest, read_schema};
use crate::config::{Bounds, Declaration, Form, Problem, Section, describe};
use crate::stages::{self, Kind};

/// The keys of the manifest itself.
pub fn top_keys() -> Vec<Declaration> {
    describe(|section: &mut Section<'_>| {
        read_schema(section);
        read_name(section, std::path::Path::new(""));
        read_rest(section)
    })
}

/// The keys of a stage of this kind, with `kind` and what names its inputs.
pub fn stage_keys(kind: &Kind) -> Vec<Declaration> {
    describe(|section| {
        declare_kind(section, stages::KINDS, Some(kind.name));
        let stage = (kind.read)(section);
        declare_inputs(section, &*stage);
    })
}

/// The manifest's format as JSON Schema, draft 2020-12, without `$ref`.
///
/// A value that only the whole manifest can judge (that a stage is there, that shapes fit, that a network can be read
/// from its shorthand) passes.
pub fn json_schema() -> Json {
    let mut schema = object(&top_keys(), false);
    let names: Vec<&str> = stages::KINDS.iter().map(|kind| kind.name).collect();
    // By `kind` where that is set, else by the table's name.
    let by_kind = stages::KINDS.iter().map(|kind| {
        json!({
            "if": { "properties": { "kind": { "const": kind.name } }, "required": ["kind"] },
            "then": object(&stage_keys(kind), false),
        })
    });
    let by_kind: Vec<Json> = by_kind.collect();
    let by_name: Map<String, Json> = stages::KINDS
        .iter()
        .map(|kind| {
            let named = json!({ "if": { "required": ["kind"] }, "else": object(&stage_keys(kind), false) });
            (kind.name.to_owned(), named)
        })
        .collect();
    schema["properties"]["stages"] = json!({
        "description": "The stages, in order.",
        "type": "object",
        "minProperties": 1,
        "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,64}$" },
        "allOf": [
            {
                "additionalProperties": {
                    "type": "object",
                    "properties": { "kind": { "enum": names } },
                    "allOf": by_kind,
                }
            },
            { "properties": by_name, "additionalProperties": { "required": ["kind"] } },
        ],
    });
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Convoy manifest");
    schema
}

/// A table of `keys` and no others. `is_filled`: any value may be a variable.
fn object(keys: &[Declaration], is_filled: bool) -> Json {
    let properties: Map<String, Json> = keys
        .iter()
        .map(|key| {
            let mut schema = value(&key.form, is_filled);
            schema["description"] = json!(key.meaning);
            let parsed = |text: &str| crate::config::parse(text).map(|value| to_json(&value));
            if let Some(default) = key.default.as_deref().and_then(parsed) {
                schema["default"] = default;
            }
            if let Some(example) = parsed(key.example) {
                schema["examples"] = json!([example]);
            }
            (key.key.clone(), schema)
        })
        .collect();
    let required: Vec<&str> = keys.iter().filter(|key| key.is_required).map(|key| key.key.as_str()).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    // A network is described in one of two ways.
    if ["architecture", "layers"].iter().all(|one| keys.iter().any(|key| key.key == *one)) {
        schema["oneOf"] = json!([{ "required": ["architecture"] }, { "required": ["layers"] }]);
    }
    schema
}

fn value(form: &Form, is_filled: bool) -> Json {
    let inner = |form: &Form| value(form, is_filled);
    let any = |forms: Vec<Json>| json!({ "anyOf": forms });
    let schema = match form {
        Form::Flag => json!({ "type": "boolean" }),
        Form::Whole(range) => json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() }),
        Form::Number(bounds) => number(*bounds),
        Form::Text => json!({ "type": "string" }),
        Form::Name => json!({ "type": "string", "pattern": "^[A-Za-z0-9_]([A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?$" }),
        Form::Source(names) => any(vec![
            json!({ "type": "string", "enum": names }),
            json!({ "type": "string", "not": { "pattern": "^builtin:" } }),
        ]),
        Form::Space => (0..MOST_SEGMENTS).fold(range(), |below, _| {
            any(vec![range(), json!({ "type": "object", "minProperties": 1, "additionalProperties": below })])
        }),
        Form::Duration => json!({ "type": "string", "pattern": "^[0-9]+ *[smh]$" }),
        Form::Comparison => json!({ "type": "string", "pattern": "^ *(>=|<=|>|<) *[-+]?[0-9.]" }),
        Form::Words(words) => json!({ "enum": words.iter().map(|(word, _)| word).collect::<Vec<_>>() }),
        Form::Choice(alternatives) => {
            let mut forms = vec![json!({ "enum": alternatives.iter().map(|choice| choice.word).collect::<Vec<_>>() })];
            forms.extend(alternatives.iter().map(|choice| {
                let mut keys = object(&choice.keys, is_filled);
                if let Some(own) = choice.keys.iter().find(|key| key.is_short || key.key == choice.word) {
                    keys = any(vec![keys, inner(&own.form)]);
                }
                let properties = Map::from_iter([(choice.word.to_owned(), keys)]);
                let required = [choice.word];
                json!({
                    "description": choice.meaning,
                    "type": "object",
                    "properties": properties,
                    "required": required,
                    "additionalProperties": false,
                })
            }));
            any(forms)
        }
        Form::List(item, n) => {
            let mut list = json!({ "type": "array", "items": inner(item) });
            if *n.start() > 0 {
                list["minItems"] = json!(n.start());
            }
            if *n.end() < usize::MAX {
                list["maxItems"] = json!(n.end());
            }
            list
        }
        Form::Table(keys) => object(keys, is_filled),
        Form::Map(item) => json!({ "type": "object", "additionalProperties": inner(item) }),
        Form::Open(keys, others) => {
            let mut schema = object(keys, is_filled);
            schema["additionalProperties"] = inner(others);
            schema
        }
        Form::Either(forms) => any(forms.iter().map(inner).collect()),
        Form::Filled(form) => return value(form, true),
        Form::Anything => json!({}),
    };
    match (is_filled, form) {
        (true, Form::List(..) | Form::Flag | Form::Whole(_) | Form::Number(_) | Form::Words(_) | Form::Choice(_)) => {
            any(vec![schema, json!({ "type": "string", "pattern": "^[{].*[}]$" })])
        }
        _ => schema,
    }
}

/// Segments of a searched key at most, as far as editors are told.
const MOST_SEGMENTS: usize = 8;

/// A range of a search.
fn range() -> Json {
    let one = |word: &str, items: Json, n: usize| {
        let mut list = json!({ "type": "array", "items": items, "minItems": n });
        if n == 2 {
            list["maxItems"] = json!(n);
        }
        let properties = Map::from_iter([(word.to_owned(), list)]);
        json!({ "type": "object", "properties": properties, "required": [word], "additionalProperties": false })
    };
    json!({
        "anyOf": [
            one("uniform", json!({ "type": "number" }), 2),
            one("log-uniform", json!({ "type": "number", "exclusiveMinimum": 0 }), 2),
            one("integer", json!({ "type": "integer" }), 2),
            one("choice", json!({}), 1),
        ]
    })
}

fn number(bounds: Bounds) -> Json {
    match bounds {
        Bounds::Positive => json!({ "type": "number", "exclusiveMinimum": 0 }),
        Bounds::NonNegative => json!({ "type": "number", "minimum": 0 }),
        Bounds::Rate => json!({ "type": "number", "minimum": 0, "exclusiveMaximum": 1 }),
        Bounds::Fraction => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Bounds::Share | Bounds::Density => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 }),
        Bounds::Open => json!({ "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 }),
        Bounds::UpTo(most) => json!({ "type": "number", "minimum": 0, "maximum": most }),
        Bounds::Finite => json!({ "type": "number" }),
    }
}

/// A value as JSON, as editors have it.
fn to_json(value: &crate::config::Value) -> Json {
    use crate::config::Value;
    match value {
        Value::Boolean(flag) => json!(flag),
        Value::Integer(i) => json!(i),
        Value::Float(x) => json!(x),
        Value::Text { text, .. } | Value::Datetime(text) => json!(text),
        Value::List(items) => Json::Array(items.iter().map(|item| to_json(&item.value)).collect()),
        Value::Table(table) => {
            Json::Object(table.entries.iter().map(|entry| (entry.key.clone(), to_json(&entry.node.value))).collect())
        }
    }
}

/// The manifest in `text` as JSON, whatever it says.
///
/// # Errors
/// What is wrong with it as TOML.
pub fn to_json_document(text: &str) -> Result<Json, Vec<Problem>> {
    let parsed = super::source::parse_document(text.trim_start_matches('\u{FEFF}'), 0);
    if parsed.problems.is_empty() {
        Ok(to_json(&crate::config::Value::Table(parsed.table)))
    } else {
        Err(parsed.problems)
    }
}
