//! The JSON Schema of manifests accepts every good manifest, and refuses every bad one whose fault a schema can see.

mod common;

use std::fs;
use std::path::Path;

use convoy::config::{self, Declaration, Form, Value};
use convoy::manifest::schema::{json_schema, stage_keys, to_json_document, top_keys};
use convoy::stages::KINDS;
use serde_json::{Value as Json, json};

use common::manifests_in;

/// The keywords that the schema may use, as the standard has them. Returns where `value` is refused.
fn refused(schema: &Json, value: &Json, at: &str) -> Option<String> {
    let no = |why: String| Some(format!("{at}: {why}"));
    let schema = match schema {
        Json::Bool(true) => return None,
        Json::Bool(false) => return no("nothing is allowed here".to_owned()),
        Json::Object(schema) => schema,
        other => panic!("no schema: {other}"),
    };
    let accepts = |schema: &Json| refused(schema, value, at).is_none();
    let list = |keyword: &Json| keyword.as_array().cloned().expect("a list");
    for (keyword, argument) in schema {
        let why = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "examples" | "then" | "else" => None,
            "type" => {
                let is = match argument.as_str().expect("one type") {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_u64() || value.is_i64() || value.as_f64().is_some_and(|x| x.fract() == 0.0),
                    "number" => value.is_number(),
                    other => panic!("unknown type {other}"),
                };
                if is { None } else { no(format!("is no {argument}")) }
            }
            "const" => {
                if value == argument {
                    None
                } else {
                    no(format!("is not {argument}"))
                }
            }
            "enum" => {
                if list(argument).contains(value) {
                    None
                } else {
                    no(format!("is none of {argument}"))
                }
            }
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.as_f64().and_then(|x| {
                let bound = argument.as_f64().expect("a number");
                let is = match keyword.as_str() {
                    "minimum" => x >= bound,
                    "maximum" => x <= bound,
                    "exclusiveMinimum" => x > bound,
                    _ => x < bound,
                };
                if is { None } else { no(format!("breaks {keyword} {argument}")) }
            }),
            "minItems" | "maxItems" => value.as_array().and_then(|items| {
                let n = argument.as_u64().expect("a number") as usize;
                let is = if keyword == "minItems" { items.len() >= n } else { items.len() <= n };
                if is { None } else { no(format!("breaks {keyword} {argument}")) }
            }),
            "minProperties" => value.as_object().and_then(|object| {
                if object.len() as u64 >= argument.as_u64().expect("a number") {
                    None
                } else {
                    no("is empty".to_owned())
                }
            }),
            "items" => value.as_array().and_then(|items| {
                items.iter().enumerate().find_map(|(i, item)| refused(argument, item, &format!("{at}[{i}]")))
            }),
            "required" => value.as_object().and_then(|object| {
                let missing = list(argument).into_iter().find(|key| !object.contains_key(key.as_str().expect("a key")));
                missing.and_then(|key| no(format!("has no {key}")))
            }),
            "properties" => value.as_object().and_then(|object| {
                let known = argument.as_object().expect("keys");
                object.iter().find_map(|(key, inner)| refused(known.get(key)?, inner, &format!("{at}.{key}")))
            }),
            "additionalProperties" => value.as_object().and_then(|object| {
                let known = schema.get("properties").and_then(Json::as_object);
                let others = object.iter().filter(|(key, _)| known.is_none_or(|known| !known.contains_key(*key)));
                others.into_iter().find_map(|(key, inner)| refused(argument, inner, &format!("{at}.{key}")))
            }),
            "propertyNames" => value.as_object().and_then(|object| {
                object.keys().find_map(|key| refused(argument, &json!(key), &format!("{at}.{key}")))
            }),
            "pattern" => value.as_str().and_then(|text| {
                if matches_pattern(argument.as_str().expect("a pattern"), text) {
                    None
                } else {
                    no(format!("is not {argument}"))
                }
            }),
            "anyOf" => {
                if list(argument).iter().any(accepts) {
                    None
                } else {
                    no("is none of what it may be".to_owned())
                }
            }
            "oneOf" => {
                let n = list(argument).iter().filter(|schema| accepts(schema)).count();
                if n == 1 { None } else { no(format!("is {n} of what it may be once")) }
            }
            "not" => {
                if accepts(argument) {
                    no(format!("is {argument}"))
                } else {
                    None
                }
            }
            "allOf" => list(argument).iter().find_map(|schema| refused(schema, value, at)),
            "if" => {
                let branch = schema.get(if accepts(argument) { "then" } else { "else" });
                branch.and_then(|branch| refused(branch, value, at))
            }
            other => panic!("unknown keyword {other}"),
        };
        if why.is_some() {
            return why;
        }
    }
    None
}

/// The patterns that the schema has, spelled out.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match pattern {
        "^[A-Za-z0-9_-]{1,64}$" => (1..=64).contains(&text.len()) && text.chars().all(is_name),
        "^[A-Za-z0-9_]([A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?$" => {
            (1..=64).contains(&text.len())
                && text.chars().all(|c| is_name(c) || c == '.')
                && !text.starts_with(['.', '-'])
                && !text.ends_with('.')
        }
        "^[0-9]+ *[smh]$" => {
            let number = text.strip_suffix(['s', 'm', 'h']).map(|number| number.trim_end_matches(' '));
            number.is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
        }
        "^ *(>=|<=|>|<) *[-+]?[0-9.]" => {
            let rest = [">=", "<=", ">", "<"].iter().find_map(|word| text.trim_start_matches(' ').strip_prefix(word));
            let rest = rest.map(|rest| rest.trim_start_matches(' '));
            rest.is_some_and(|rest| {
                rest.strip_prefix(['-', '+']).unwrap_or(rest).starts_with(|c: char| c == '.' || c.is_ascii_digit())
            })
        }
        "^builtin:" => text.starts_with("builtin:"),
        "^[{].*[}]$" => text.starts_with('{') && text.ends_with('}'),
        other => panic!("unknown pattern {other}"),
    }
}

fn told(schema: &Json, path: &Path) -> Result<Option<String>, ()> {
    let bytes = fs::read(path).expect("it can be read");
    let document = to_json_document(&String::from_utf8(bytes).map_err(|_| ())?).map_err(|_| ())?;
    Ok(refused(schema, &document, ""))
}

#[test]
fn good_manifests_are_accepted() {
    let schema = json_schema();
    let mut paths = manifests_in("pipelines");
    paths.extend(manifests_in("tests/manifests/good"));
    assert!(paths.len() > 20);
    for path in paths {
        assert_eq!(told(&schema, &path), Ok(None), "{}", path.display());
    }
    for kind in KINDS {
        let document = to_json_document(kind.example).expect("an example is TOML");
        assert_eq!(refused(&schema, &document, ""), None, "{}", kind.name);
    }
}

/// Bad manifests whose fault needs more than one key to be seen, or the command line.
const UNSEEN: &[&str] = &[
    "ensemble-calibrate-folds",
    "ensemble-two-splits",
    "ensemble-weighted-folds",
    "evaluate-baseline-model",
    "evaluate-gate-against-itself",
    "evaluate-gate-model",
    "evaluate-gate-percent",
    "evaluate-gate-without-test",
    "evaluate-reads-split",
    "input-below",
    "input-cycle",
    "input-itself",
    "input-misspelt",
    "input-nothing-above",
    "input-second-branch",
    "input-unknown",
    "input-wrong-output",
    // What a matrix may vary depends on the stages, as with `--set`.
    "matrix-empty-list",
    "matrix-inside-an-architecture",
    "matrix-keys-override-one-another",
    "matrix-no-item",
    "matrix-no-list",
    "matrix-not-a-key",
    "matrix-set-inside",
    "matrix-too-many",
    "matrix-unknown-key",
    "matrix-unknown-stage",
    "matrix-value-refused",
    "matrix-value-twice",
    "matrix-wrong-together",
    "name-of an odd file",
    "no-ingest",
    "profile-architecture",
    "profile-names-files",
    "profile-none",
    "profile-not-in-force",
    "profile-unknown",
    "profile-wrong-value",
    "reduce-components",
    "reduce-conv-after-pca",
    "reduce-conv-after-variance",
    "reduce-lemma",
    "resize-two-sides",
    "search-shapes",
    "search-tune",
    "search-variable-read-elsewhere",
    "set-into-architecture",
    "set-list-items",
    "set-optimizer",
    "set-unclosed",
    "set-unknown-key",
    "set-unknown-stage",
    "set-without-stages",
    "set-wrong-value",
    "split-given-but-none",
    "split-validation-with-folds",
    "train-architecture-arguments",
    "train-architecture-empty",
    "train-architecture-escapes",
    "train-architecture-foreign-layers",
    "train-architecture-key-twice",
    "train-architecture-keys",
    "train-architecture-many-lines",
    "train-architecture-no-dash",
    "train-architecture-repeat",
    "train-architecture-too-many",
    "train-architecture-trailing-dash",
    "train-architecture-unclosed-bracket",
    "train-architecture-unclosed",
    "train-architecture-unknown-layer",
    "train-architecture-variable",
    "train-architecture-without-input",
    "train-augment-features",
    "train-augment-misfits",
    "train-balanced-twice",
    "train-convolution-misfit",
    "train-cycles",
    "train-final-refit-plateau",
    "train-lbfgs",
    "train-predict-features",
    "train-reads-ingest",
    "train-shape-conv-after-fc",
    "train-shape-in-long-form",
    "train-shape-inner-fc",
    "train-shape-input",
    "train-shape-no-fc",
    "train-shape-too-small",
    "train-shape-units",
    "train-shape-unknown-input",
    "train-snapshots-early-stopping",
    "train-snapshots-epochs",
    "train-snapshots",
    "train-two-branches",
];

#[test]
fn bad_manifests_are_refused() {
    let schema = json_schema();
    let mut unseen = Vec::new();
    let mut n_seen = 0;
    for path in manifests_in("tests/manifests") {
        match told(&schema, &path) {
            Ok(None) => unseen.push(path.file_stem().expect("a name").to_string_lossy().into_owned()),
            Ok(Some(_)) => n_seen += 1,
            // What is no TOML, an editor tells by itself.
            Err(()) => {}
        }
    }
    assert_eq!(unseen, UNSEEN);
    assert!(n_seen >= 50, "{n_seen}");
}

#[test]
fn the_schema_stands_alone() {
    let text = json_schema().to_string();
    assert!(!text.contains("$ref"));
    assert!(
        text.starts_with("{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\"") || text.contains("2020-12")
    );
}

/// Calls `check` with every key that is declared under `keys`.
fn each(keys: &[Declaration], check: &mut dyn FnMut(&Declaration)) {
    fn inside(form: &Form, check: &mut dyn FnMut(&Declaration)) {
        match form {
            Form::Choice(alternatives) => alternatives.iter().for_each(|choice| {
                assert!(choice.meaning.ends_with('.'), "{}", choice.word);
                each(&choice.keys, check);
            }),
            Form::List(form, _) | Form::Map(form) | Form::Filled(form) => inside(form, check),
            Form::Table(keys) => each(keys, check),
            Form::Open(keys, others) => {
                each(keys, check);
                inside(others, check);
            }
            Form::Either(forms) => forms.iter().for_each(|form| inside(form, check)),
            _ => {}
        }
    }
    for key in keys {
        check(key);
        inside(&key.form, check);
    }
}

#[test]
fn every_key_has_a_meaning_and_an_example_that_it_accepts() {
    let schema = json_schema();
    let mut n = 0;
    let mut check = |key: &Declaration, read: &dyn Fn(&str) -> Option<String>| {
        n += 1;
        assert!(key.meaning.ends_with('.') && key.meaning.len() > 4, "{}: {}", key.key, key.meaning);
        assert!(config::parse(key.example).is_some(), "{} = {}", key.key, key.example);
        if let Some(default) = &key.default {
            let value = config::parse(default).unwrap_or_else(|| panic!("{} = {default}", key.key));
            assert_eq!(config::toml(&value), *default);
        }
        assert_eq!(read(key.example), None, "{} = {}", key.key, key.example);
    };
    each(&top_keys(), &mut |key| check(key, &|_| None));
    for kind in KINDS {
        for key in stage_keys(kind) {
            let of_stage = |text: &str| {
                let stages = &schema["properties"]["stages"]["allOf"][1]["properties"][kind.name]["else"];
                let document = to_json_document(&format!("value = {text}")).expect("TOML");
                refused(&stages["properties"][&key.key], &document["value"], &key.key)
            };
            check(&key, &of_stage);
        }
        each(&stage_keys(kind), &mut |key| check(key, &|_| None));
    }
    assert!(n > 200, "{n} keys");
    assert!(matches!(config::parse("1"), Some(Value::Integer(1))));
}

#[test]
fn the_committed_schema_is_what_the_program_prints_and_shipped_manifests_name_it() {
    let program = std::process::Command::new(env!("CARGO_BIN_EXE_convoy")).args(["schema", "--json"]).output();
    let printed = program.expect("it runs").stdout;
    let path = "schema/convoy.schema.json";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all("schema").expect("the folder can be made");
        fs::write(path, &printed).expect("the schema can be written");
    }
    let committed = fs::read(path).unwrap_or_default();
    assert!(printed.len() > 10_000 && committed == printed, "write it anew: `convoy schema --json >{path}`");
    for manifest in manifests_in("pipelines") {
        let text = fs::read_to_string(&manifest).expect("a manifest");
        let named = text.lines().next().and_then(|line| line.strip_prefix("#:schema "));
        let named = Path::new("pipelines").join(named.unwrap_or_else(|| panic!("{} names it", manifest.display())));
        assert_eq!(fs::canonicalize(named).ok(), fs::canonicalize(path).ok(), "{}", manifest.display());
    }
}
