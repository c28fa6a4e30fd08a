//! Tests of the manifest with toy stages: wiring, overrides, order, places.

use std::path::Path;

use super::*;
use crate::artifact::Sink;
use crate::config::{Bounds, Choice, Form, quote};
use crate::stages::{Context, Flow, Kind, Learns, Need, Output, Part, Places, Stage, StageError, Task, Upstream};

#[derive(Debug)]
struct Toy {
    kind: &'static str,
    accepts: &'static [Output],
    output: Output,
    seed: Option<u64>,
    size: u64,
}

impl Stage for Toy {
    fn kind(&self) -> &'static str {
        self.kind
    }
    fn rooms(&self, _: Part, _: &Upstream<'_>) -> Vec<&'static str> {
        Vec::new()
    }
    fn check(&self, inputs: &[Flow], span: Span, log: &mut Log) -> Flow {
        if self.size == 13 {
            log.push(Problem::error(log.span_of("size", span), "13 brings bad luck"));
        }
        if self.size == 7 {
            log.push(Problem::warning(log.span_of("size", span), "7 brings good luck"));
        }
        let above = inputs.first();
        Flow {
            output: self.output,
            shape: None,
            n_classes: above.and_then(|flow| flow.n_classes),
            n_samples: None,
            given: None,
            folds: above.map_or(0, |flow| flow.folds),
            has_test: false,
            refit: false,
            models: 1,
            has_views: false,
            has_temperature: false,
            abstains: false,
        }
    }
    fn accepts(&self) -> &'static [Output] {
        self.accepts
    }
    fn check_graph(&self, upstream: &Upstream<'_>, log: &mut Log) {
        if self.size == 99 {
            let names: Vec<&str> = upstream.nodes.iter().map(|node| node.name.as_str()).collect();
            let span = log.span_of("size", Span::default());
            log.push(Problem::error(span, format!("too large for {}", names.join(", "))));
        }
    }
    fn takes_members(&self) -> bool {
        self.kind == "ensemble"
    }
    fn parts(&self, _flow: &Flow) -> Vec<Part> {
        vec![Part::Whole]
    }
    fn needs(&self, _part: Part, _upstream: &Upstream<'_>) -> Vec<Need> {
        Vec::new()
    }
    fn own_seed(&self) -> Option<u64> {
        self.seed
    }
    fn learns(&self, _part: Part) -> Option<Learns> {
        None
    }

    fn run(
        &self,
        _task: &Task,
        _places: &Places,
        _context: &dyn Context,
        _sink: &mut dyn Sink,
    ) -> Result<(), StageError> {
        Ok(())
    }
}

fn toy(s: &mut Section<'_>, kind: &'static str, accepts: &'static [Output], output: Output) -> Box<dyn Stage> {
    let size = s.key("size", "A number.", "1").whole(1..=100).or(10);
    fn momentum(s: &mut Section<'_>) -> f64 {
        s.key("momentum", "A share.", "0.9").number(Bounds::Rate).or(0.5)
    }
    let choices = ["adam", "sgd"].map(|word| Choice { word, meaning: "A rule.", read: momentum });
    s.key("optimizer", "A choice.", "\"sgd\"").choice(&choices, Some("adam"));
    let note = s.key("note", "A string.", "\"x\"").form(Some("\"\""), || Form::Text);
    let (text, span) = match note {
        Some(Node { value: Value::Text { text, .. }, span }) => (text.as_str(), Some(*span)),
        _ => ("", None),
    };
    s.record("note", quote(text), span);
    let seed = s.key("seed", "A number.", "1").whole(0..=u64::MAX).optional();
    Box::new(Toy { kind, accepts, output, seed, size })
}

const KINDS: &[Kind] = &[
    Kind { name: "ingest", read: |s| toy(s, "ingest", &[], Output::Dataset), example: "" },
    Kind { name: "split", read: |s| toy(s, "split", &[Output::Dataset], Output::Splits), example: "" },
    Kind { name: "train", read: |s| toy(s, "train", &[Output::Splits, Output::Fitted], Output::Model), example: "" },
    Kind { name: "ensemble", read: |s| toy(s, "ensemble", &[Output::Model], Output::Ensemble), example: "" },
];

const HEAD: &str = "schema = 1\nname = \"toy\"\nseed = 42\n";
const LINEAR: &str = "[stages.ingest]\n[stages.split]\n[stages.train]\nsize = 20\n";

fn load(text: &str, sets: &[&str], profile: Option<&str>) -> Result<Manifest, Diagnostics> {
    let overrides =
        Overrides { sets: sets.iter().map(|&set| set.to_owned()).collect(), profile: profile.map(str::to_owned) };
    Manifest::from_bytes(Path::new("m.toml"), text.as_bytes(), &overrides, KINDS)
}

#[track_caller]
fn good(text: &str) -> Manifest {
    load(text, &[], None).unwrap_or_else(|found| panic!("{found}"))
}

#[track_caller]
fn bad(body: &str, expected: &[&str]) {
    bad_with(body, &[], None, expected);
}

#[track_caller]
fn bad_with(body: &str, sets: &[&str], profile: Option<&str>, expected: &[&str]) {
    let found = load(&format!("{HEAD}{body}"), sets, profile).expect_err("the manifest is bad");
    let told: Vec<String> = found
        .problems
        .iter()
        .map(|problem| {
            let place = found.texts.location(problem.span).expect("it has a place");
            let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("{}:{}:{} {}{help}", place.name, place.line, place.column, problem.message)
        })
        .collect();
    assert_eq!(told, expected);
}

#[track_caller]
fn value<'m>(manifest: &'m Manifest, stage: &str, key: &str) -> &'m str {
    let stage = manifest.stage(stage).expect("there is such a stage");
    let resolved = manifest.entries[stage].resolved.iter().find(|resolved| resolved.key == key);
    &resolved.expect("there is such a key").value
}

#[test]
fn stages_are_wired_in_the_order_of_the_file() {
    let manifest = good(&format!(
        "{HEAD}[stages.zebra]\nkind = \"ingest\"\n[stages.split]\n[stages.b]\nkind = \"train\"\n[stages.a]\nkind = \"train\"\ninput = \"split\"\nseed = 7\n[stages.ensemble]\nmembers = [\"a\", \"b\"]\n"
    ));
    let names: Vec<&str> = manifest.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["zebra", "split", "b", "a", "ensemble"]);
    let inputs: Vec<&[usize]> = manifest.nodes.iter().map(|node| node.inputs.as_slice()).collect();
    assert_eq!(inputs, [&[][..], &[0], &[1], &[1], &[3, 2]]);
    let seeds: Vec<u64> = manifest.entries.iter().map(|entry| entry.seed).collect();
    assert_eq!(seeds, [42, 42, 42, 7, 42]);
    assert!(manifest.entries.iter().all(|entry| entry.resolved.iter().all(|resolved| resolved.key != "seed")));
    assert_eq!(manifest.texts.slice(manifest.entries[2].header), "[stages.b]");
}

#[test]
fn headers_out_of_order_and_dotted_keys_keep_their_places() {
    let manifest = good(&format!(
        "{HEAD}[stages.train.optimizer.sgd]\nmomentum = 0.9\n[stages.ingest]\n[stages.split]\n[stages.train]\nsize = 3\n"
    ));
    let names: Vec<&str> = manifest.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["ingest", "split", "train"]);
    assert_eq!(value(&manifest, "train", "optimizer.sgd.momentum"), "0.9");
    let manifest = good(&format!("{HEAD}stages.ingest.size = 3\nstages.split.size = 4\n"));
    assert_eq!(value(&manifest, "split", "size"), "4");
}

#[test]
fn wrong_wiring_is_named_where_it_stands() {
    bad(
        "[stages.train]\n[stages.ingest]\n",
        &[
            "m.toml:4:1 `train` reads another stage, but there is none above it (a stage reads only stages above it; the first one is an `ingest`)",
        ],
    );
    bad(
        "[stages.ingest]\n[stages.train]\n",
        &["m.toml:5:1 `train` reads splits or fitted transforms, but stage `ingest` hands on a data set"],
    );
    bad(
        "[stages.ingest]\n[stages.split]\n[stages.a]\nkind = \"train\"\n[stages.b]\nkind = \"train\"\n",
        &[
            "m.toml:8:1 `train` reads splits or fitted transforms, but stage `a` hands on models (write `input = \"split\"`)",
        ],
    );
    bad(
        "[stages.ingest]\ninput = \"x\"\n[stages.split]\ninput = \"ingets\"\n[stages.train]\ninput = \"train\"\n",
        &[
            "m.toml:5:1 unknown key `input`: `ingest` reads no other stage",
            "m.toml:7:9 there is no stage `ingets` (did you mean `ingest`?)",
            "m.toml:9:9 stage `train` cannot read itself",
        ],
    );
    bad(
        "[stages.ingest]\n[stages.split]\ninput = \"later\"\n[stages.later]\nkind = \"ingest\"\n",
        &["m.toml:6:9 stage `later` stands below, and a stage reads only stages above it (move `[stages.later]` up)"],
    );
    bad(
        &format!("{LINEAR}[stages.ensemble]\nmembers = [\"train\", \"train\", \"split\"]\ninput = \"train\"\n"),
        &[
            "m.toml:9:21 `train` is a member twice",
            "m.toml:9:30 `ensemble` reads models, but stage `split` hands on splits (write `members = [\"train\"]`)",
            "m.toml:10:1 unknown key `input`: `ensemble` reads several stages (write `members = [\"NAME\", …]`)",
        ],
    );
}

#[test]
fn members_come_from_one_split() {
    bad(
        "[stages.ingest]\n[stages.split]\n[stages.a]\nkind = \"train\"\n[stages.other]\nkind = \"split\"\ninput = \"ingest\"\n[stages.b]\nkind = \"train\"\n[stages.ensemble]\nmembers = [\"a\", \"b\"]\n",
        &[
            "m.toml:14:17 the members of `ensemble` must come from one split, but `a` is from `split` and `b` from `other` (let both branches read the same split)",
        ],
    );
}

#[test]
fn a_wrong_stage_does_not_wake_the_ones_below() {
    bad(
        "[stages.ingst]\n[stages.split]\nsize = 0\n[stages.train]\nsiz = 3\noptimizer = { sdg = { momentum = 2 } }\n",
        &[
            "m.toml:4:9 no kind of stage is called `ingst`, and it sets no `kind` (did you mean `ingest`?)",
            "m.toml:6:8 `size` expects a whole number from 1 to 100, got `0`",
            "m.toml:8:1 unknown key `siz` (did you mean `size`?)",
            "m.toml:9:15 unknown `optimizer`: `sdg`, expected `adam` or `sgd` (did you mean `sgd`?)",
        ],
    );
}

#[test]
fn the_top_is_checked() {
    let check = |text: &str, expected: &[&str]| {
        let found = load(text, &[], None).expect_err("the manifest is bad");
        let told: Vec<&str> = found.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(told, expected);
    };
    check("", &["missing key `schema`", "there is no stage"]);
    check(
        "schema = 2\nname = \"a/b\"\nseed = -1\nstages = 3\nmatrix = 1\n",
        &[
            "schema `2` is newer than this program, expected `1`",
            "`name` has the character `/`, expected letters, digits, `-`, `_` and `.`",
            "`seed` expects a whole number, at least 0, got `-1`",
            "`stages` expects tables, got `3`",
            "`matrix` expects a table of keys and lists, got `1`",
        ],
    );
    check(
        "schema = \"1\"\nname = \"nul.x\"\n[stages]\n",
        &[
            "`schema` expects `1`, got the string `1`",
            "`name` is `nul.x`, a name that some systems keep for devices",
            "there is no stage",
        ],
    );
}

#[test]
fn sets_override_by_dotted_key() {
    let text = format!("{HEAD}{LINEAR}");
    let check = |set: &str, key: &str, expected: &str| {
        let manifest = load(&text, &[set], None).unwrap_or_else(|found| panic!("{found}"));
        assert_eq!(value(&manifest, "train", key), expected, "{set}");
        assert!(manifest.has_sets);
    };
    check("stages.train.size=3", "size", "3");
    check("stages.train.size = 3", "size", "3");
    check("stages.\"train\".size=3", "size", "3");
    check("stages.train.optimizer=sgd", "optimizer", "\"sgd\"");
    check("stages.train.optimizer=\"sgd\"", "optimizer", "\"sgd\"");
    check("stages.train.optimizer={ sgd = { momentum = 0.1 } }", "optimizer.sgd.momentum", "0.1");
    check("stages.train.optimizer.sgd.momentum=0.1", "optimizer.sgd.momentum", "0.1");
    check("stages.train.note=INPUT - FC(3)", "note", "\"INPUT - FC(3)\"");
    check("stages.train.note=32x32", "note", "\"32x32\"");
    check("stages.train.note=a=b", "note", "\"a=b\"");
    let manifest = load(&text, &["seed=3"], None).unwrap_or_else(|found| panic!("{found}"));
    assert_eq!((manifest.seed, manifest.entries[0].seed), (3, 3));
    let word = format!("{HEAD}{LINEAR}optimizer = \"sgd\"\n");
    let manifest = load(&word, &["stages.train.optimizer.sgd.momentum=0.25"], None);
    assert_eq!(value(&manifest.unwrap_or_else(|found| panic!("{found}")), "train", "optimizer.sgd.momentum"), "0.25");
}

#[test]
fn wrong_sets_point_into_the_argument() {
    let check = |set: &str, expected: &str| bad_with(LINEAR, &[set], None, &[expected]);
    check("stages.train.size=0", "--set:1:19 `size` expects a whole number from 1 to 100, got `0`");
    check("stages.train.size=no", "--set:1:19 `size` expects a whole number from 1 to 100, got the string `no`");
    check("stages.train.sise=1", "--set:1:14 unknown key `sise` (did you mean `size`?)");
    check("stages.trian.size=1", "--set:1:8 there is no stage `trian` to override (did you mean `train`?)");
    check(
        "train.size=1",
        "--set:1:1 an override cannot set `train`, expected `stages`, `seed`, `repeats` or `name` (the stage's keys begin with `stages.train.`)",
    );
    check("stages.train=1", "--set:1:8 stage `train` is a table (name one of its keys: `stages.train.KEY`)");
    check("stages.train.size", "--set:1:1 expected `key=value` (for example `stages.train.epochs=3`)");
    check("=3", "--set:1:1 expected a dotted key before `=` (for example `stages.train.epochs=3`)");
    check("stages.train.size.x=3", "--set:1:19 `size` is a whole number, it has no key `x` to override");
    check(
        "stages.train.note=\"abc",
        "--set:1:23 the string is not closed, expected `\"` (quote strings inside the argument too: `'key=\"value\"'`)",
    );
    check("stages.train.note=", "--set:1:19 expected a value behind `=` (an empty string is `\"\"`)");
}

#[test]
fn profiles_override_and_sets_override_profiles() {
    let text = format!(
        "{HEAD}{LINEAR}[profile.ci]\nstages.train.size = 2\nstages.train.optimizer = {{ sgd = {{ momentum = 0.125 }} }}\nseed = 1\n[profile.big.stages.train]\nsize = 99\n"
    );
    let manifest = load(&text, &[], Some("ci")).unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(value(&manifest, "train", "size"), "2");
    assert_eq!(value(&manifest, "train", "optimizer.sgd.momentum"), "0.125");
    assert_eq!((manifest.seed, manifest.profile.as_deref()), (1, Some("ci")));
    assert_eq!(manifest.profiles, ["ci", "big"]);
    let manifest = load(&text, &["stages.train.size=5"], Some("big")).unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(value(&manifest, "train", "size"), "5");
    assert_eq!(value(&load(&text, &[], None).expect("it is good"), "train", "size"), "20");
    bad_with(
        &text[HEAD.len()..],
        &[],
        Some("bgi"),
        &["--profile:1:1 the manifest has no profile `bgi` (did you mean `big`?)"],
    );
    bad(
        &format!("{LINEAR}[profile.ci]\nstages.trian.size = 2\n[profile]\nx = 3\n"),
        &[
            "m.toml:9:8 there is no stage `trian` to override (did you mean `train`?)",
            "m.toml:11:5 profile `x` expects a table, got a whole number (write `[profile.x]`)",
        ],
    );
}

#[test]
fn warnings_do_not_stop_and_are_kept() {
    let manifest = good(&format!("{HEAD}[stages.ingest]\nsize = 7\n"));
    assert_eq!(
        manifest.diagnostics().render(false),
        "warning: 7 brings good luck\n --> m.toml:5:8\n  |\n5 | size = 7\n  |        ^\n\n1 warning\n"
    );
    bad("[stages.ingest]\nsize = 13\n", &["m.toml:5:8 13 brings bad luck"]);
}

#[test]
fn the_place_of_a_key_is_found() {
    let manifest = good(&format!("{HEAD}[stages.ingest]\noptimizer = {{ sgd = {{ momentum = 0.5 }} }}\n"));
    let slice = |key: &str| manifest.texts.slice(manifest.span_of(0, key));
    assert_eq!(slice("optimizer.sgd.momentum"), "0.5");
    assert_eq!(slice("optimizer.sgd.nesterov"), "{ sgd = { momentum = 0.5 } }");
    assert_eq!(slice("size"), "[stages.ingest]");
    assert_eq!(slice("seed"), "42");
    // What nobody reads into a fingerprint has a place all the same.
    let manifest = good(&format!("{HEAD}[stages.ingest]\n[stages.split]\ninput = \"ingest\"\n"));
    assert_eq!(manifest.texts.slice(manifest.span_of(1, "input")), "\"ingest\"");
}

#[test]
fn the_graph_is_checked_once_all_stages_are_wired() {
    bad("[stages.ingest]\nsize = 99\n[stages.split]\n", &["m.toml:5:8 too large for ingest, split"]);
    bad(
        "[stages.ingest]\nsize = 99\n[stages.split]\ninput = \"x\"\n",
        &["m.toml:7:9 there is no stage `x` (the stages above are `ingest`)"],
    );
}
