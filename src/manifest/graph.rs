//! The stages of a manifest as a graph: kinds, wiring, and every stage's own check, from the top down.
//!
//! A stage that is wrong still hands on a stand-in, about which nothing is known, so that the stages below it are
//! checked too and do not complain about what is not their fault.

use std::sync::Arc;

use crate::config::{Entry, Form, Log, Node, OneOf, Problem, Section, Span, Value, did_you_mean};
use crate::stages::{self, Flow, Kind, Output};

use super::{StageEntry, as_table, foreign};

/// What a person calls it.
fn noun(output: Output) -> &'static str {
    match output {
        Output::Dataset => "a data set",
        Output::Splits => "splits",
        Output::Fitted => "fitted transforms",
        Output::Model => "models",
        Output::Ensemble => "an ensemble",
        Output::Evaluation => "an evaluation",
    }
}

/// A stage on the way into the graph.
#[derive(Clone)]
pub(super) struct Read {
    name: String,
    /// What it hands on; `None` if not even its kind is known.
    flow: Option<Flow>,
    /// Whether all of its inputs are there and fit.
    is_wired: bool,
    inputs: Vec<usize>,
    stage: Option<Arc<dyn stages::Stage>>,
    entry: Arc<StageEntry>,
    /// Whether it is a search's second best model, or its third, …: a node without a table of its own.
    is_further: bool,
}

/// Where a stage is looked for that is not above: the tables of all stages.
type IsStage<'s> = &'s dyn Fn(&str) -> bool;

/// Reads and checks all stages; what comes back is complete only if `problems` has no error then.
pub(super) fn read(
    node: Option<&Node>,
    seed: (u64, Option<Span>),
    kinds: &[Kind],
    problems: &mut Vec<Problem>,
) -> (Vec<stages::Node>, Vec<Arc<StageEntry>>) {
    let table = match node.map(|node| (&node.value, node.span)) {
        Some((Value::Table(table), _)) if !table.entries.is_empty() => Some(table),
        Some((Value::Table(_), span)) => {
            problems.push(Problem::error(span, "there is no stage").help("add a table `[stages.ingest]`"));
            None
        }
        Some((other, span)) => {
            let message = format!("`stages` expects tables, got {}", crate::config::display(other));
            problems.push(Problem::error(span, message).help("write `[stages.NAME]`"));
            None
        }
        None => {
            problems.push(Problem::error(Span::default(), "there is no stage").help("add a table `[stages.ingest]`"));
            None
        }
    };
    let tables = table.map_or(&[][..], |table| &table.entries);
    let above =
        read_below(Vec::new(), tables, &|name| tables.iter().any(|entry| entry.key == name), seed, kinds, problems);
    finish(above, problems)
}

/// Reads `tables` below the stages that are read already.
pub(super) fn read_below<'t>(
    mut above: Vec<Read>,
    tables: impl IntoIterator<Item = &'t Entry>,
    is_stage: IsStage<'_>,
    seed: (u64, Option<Span>),
    kinds: &[Kind],
    problems: &mut Vec<Problem>,
) -> Vec<Read> {
    for entry in tables {
        let read = read_stage(entry, is_stage, &above, seed, kinds, problems);
        let further = further_models(&read);
        above.push(read);
        above.extend(further);
    }
    above
}

/// The stages as nodes, each checked within the graph: some look at what stands below them, too.
pub(super) fn finish(above: Vec<Read>, problems: &mut Vec<Problem>) -> (Vec<stages::Node>, Vec<Arc<StageEntry>>) {
    let is_whole = above.iter().all(|read| read.is_wired && read.stage.is_some());
    let mut nodes: Vec<stages::Node> = Vec::with_capacity(above.len());
    let mut entries: Vec<Arc<StageEntry>> = Vec::with_capacity(above.len());
    for read in above {
        if let (Some(flow), Some(stage)) = (read.flow, read.stage) {
            nodes.push(stages::Node { name: read.name, flow, inputs: read.inputs, stage });
            entries.push(read.entry);
        }
    }
    if is_whole {
        for (own, entry) in entries.iter().enumerate() {
            let mut log = Log { resolved: entry.resolved.clone(), ..Log::default() };
            nodes[own].stage.check_graph(&stages::Upstream { own, nodes: &nodes }, &mut log);
            problems.extend(log.problems.into_iter().map(|problem| entry.locate(problem)));
        }
    }
    (nodes, entries)
}

fn read_stage(
    entry: &Entry,
    is_stage: IsStage<'_>,
    above: &[Read],
    seed: (u64, Option<Span>),
    kinds: &[Kind],
    problems: &mut Vec<Problem>,
) -> Read {
    let name = &entry.key;
    let header = entry.node.span;
    let mut said = StageEntry {
        resolved: Vec::new(),
        places: Vec::new(),
        values: Vec::new(),
        header,
        seed: seed.0,
        seed_span: seed.1,
    };
    let unread = |said: StageEntry| Read {
        name: name.clone(),
        flow: None,
        is_wired: false,
        inputs: Vec::new(),
        stage: None,
        entry: Arc::new(said),
        is_further: false,
    };
    if name.is_empty() || name.len() > 64 || name.chars().any(|c| !(c.is_ascii_alphanumeric() || "-_".contains(c))) {
        let message = "a stage's name expects 1 to 64 letters, digits, `-` and `_`";
        problems.push(Problem::error(entry.key_span, message));
    }
    let Some(table) = as_table(entry, &format!("stage `{name}`"), problems) else { return unread(said) };

    said.values = table.entries.iter().map(|entry| (entry.key.clone(), entry.node.span)).collect();
    let mut log = Log::default();
    let mut section = Section::new(Some(table), header, "", &mut log);
    let kind = find_kind(&mut section, entry, kinds);
    let Some(kind) = kind else {
        // Its keys mean nothing without a kind, but its wiring does.
        problems.append(&mut log.problems);
        return unread(said);
    };
    let stage: Arc<dyn stages::Stage> = Arc::from((kind.read)(&mut section));
    declare_inputs(&mut section, &*stage);
    let input = if stage.takes_members() { "input" } else { stage.input_key() };
    let wiring = Wiring { input: table.get(input), members: table.get("members") };
    // What is there all the same gets a message of its own.
    [input, "members"].into_iter().for_each(|key| section.leave_set(key));
    section.finish();
    foreign::explain(&mut log.problems, table, Some(kind.name), kinds);
    let own_seed = log.resolved.iter().find(|resolved| resolved.key == "seed").and_then(|resolved| resolved.span);
    log.resolved.retain(|resolved| resolved.key != "seed");
    if let Some(own) = stage.own_seed() {
        said.seed = own;
        said.seed_span = own_seed;
    }

    let (mut inputs, is_wired) = wire(stage.as_ref(), &wiring, entry, is_stage, above, &mut log);
    if stage.takes_members() && is_wired {
        check_one_split(stage.as_ref(), &wiring, header, &inputs, above, &mut log);
        inputs = with_further_models(&inputs, above);
    }
    let flows: Vec<Flow> = inputs
        .iter()
        .map(|input| match above.get(input.unwrap_or(usize::MAX)).and_then(|read| read.flow.clone()) {
            Some(flow) if stage.accepts().contains(&flow.output) => flow,
            _ => unknown(stage.accepts()),
        })
        .collect();
    let flow = stage.check(&flows, header, &mut log);
    said.resolved = log.resolved;
    said.places = log.places;
    problems.append(&mut log.problems);
    let inputs = inputs.into_iter().flatten().collect();
    Read { flow: Some(flow), is_wired, inputs, stage: Some(stage), ..unread(said) }
}

/// The nodes of a search's second best model, its third, and so on.
fn further_models(read: &Read) -> Vec<Read> {
    let search = read.stage.as_ref().and_then(|stage| stage.search());
    let ranks = search.map_or(2..2, |search| 2..search.keep() + 1);
    let further = |rank: u32| -> Option<Read> {
        Some(Read {
            name: format!("{}.{rank}", read.name),
            flow: read.flow.clone(),
            is_wired: read.is_wired,
            inputs: read.inputs.clone(),
            stage: Some(Arc::new(search?.of_rank(rank))),
            entry: read.entry.clone(),
            is_further: true,
        })
    };
    ranks.filter_map(further).collect()
}

/// The members of an ensemble: a search that is one stands for all of its models.
fn with_further_models(inputs: &[Option<usize>], above: &[Read]) -> Vec<Option<usize>> {
    let mut all = Vec::with_capacity(inputs.len());
    for &input in inputs {
        all.push(input);
        let Some(at) = input.filter(|&at| !above[at].is_further) else { continue };
        let behind = above[at + 1..].iter().take_while(|read| read.is_further).count();
        let further = (at + 1..at + 1 + behind).map(Some);
        all.extend(further.filter(|further| !inputs.contains(further)));
    }
    all
}

/// A stand-in for an input that is wrong: the kind of thing that is read, and nothing known about it.
fn unknown(accepts: &[Output]) -> Flow {
    let output = accepts.first().copied().unwrap_or(Output::Dataset);
    Flow {
        output,
        shape: None,
        n_classes: None,
        n_samples: None,
        given: None,
        // The defaults of a split: complaints that follow from these would be complaints about nothing.
        folds: if output == Output::Dataset { 0 } else { 5 },
        has_test: output != Output::Dataset,
        refit: false,
        models: 1,
        has_views: false,
        has_temperature: false,
        abstains: false,
    }
}

/// Declares `kind`, whose default is the name of the stage's table, and returns what it was set to.
pub(super) fn declare_kind<'a>(section: &mut Section<'a>, kinds: &[Kind], default: Option<&str>) -> Option<&'a Node> {
    let meaning = "The kind of the stage, where its table is not called by it.";
    let form = || Form::Words(kinds.iter().map(|kind| (kind.name.to_owned(), "This kind.")).collect());
    let default = default.map(crate::config::quote);
    section.key("kind", meaning, "\"train\"").form(default.as_deref(), form)
}

/// Declares the key that names what a stage reads, unless its own reader has.
pub(super) fn declare_inputs(section: &mut Section<'_>, stage: &dyn stages::Stage) {
    if stage.takes_members() {
        let form = || Form::List(Box::new(Form::Text), 1..=usize::MAX);
        let meaning = "The stages that it reads, by name; absent: the stage above.";
        section.key("members", meaning, "[\"cnn\", \"mlp\"]").form(None, form);
    } else if !stage.accepts().is_empty() && !section.is_declared(stage.input_key()) {
        let meaning = "The stage that it reads, by name; absent: the stage above.";
        section.key(stage.input_key(), meaning, "\"preprocess\"").form(None, || Form::Text);
    }
}

fn find_kind<'k>(section: &mut Section<'_>, entry: &Entry, kinds: &'k [Kind]) -> Option<&'k Kind> {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    let Some(node) = declare_kind(section, kinds, None) else {
        let kind = kinds.iter().find(|kind| kind.name == entry.key);
        if kind.is_none() {
            let mut problem = Problem::error(
                entry.key_span,
                format!("no kind of stage is called `{}`, and it sets no `kind`", entry.key),
            );
            problem.help = did_you_mean(&entry.key, names.iter().copied())
                .or_else(|| Some(format!("add `kind`, one of {}", OneOf(&names))));
            section.log().push(problem);
        }
        return kind;
    };
    let Value::Text { text, .. } = &node.value else {
        section.expected("kind", node, OneOf(&names));
        return None;
    };
    let kind = kinds.iter().find(|kind| kind.name == text);
    if kind.is_none() {
        let mut problem = Problem::error(node.span, format!("unknown `kind`: `{text}`, expected {}", OneOf(&names)));
        problem.help = did_you_mean(text, names.iter().copied());
        section.log().push(problem);
    }
    kind
}

/// What a stage's table says about its inputs.
struct Wiring<'t> {
    input: Option<&'t Entry>,
    members: Option<&'t Entry>,
}

/// The stages that `stage` reads, `None` for each that is wrong, and whether all is well.
fn wire(
    stage: &dyn stages::Stage,
    wiring: &Wiring<'_>,
    entry: &Entry,
    is_stage: IsStage<'_>,
    above: &[Read],
    log: &mut Log,
) -> (Vec<Option<usize>>, bool) {
    let kind = stage.kind();
    if stage.accepts().is_empty() {
        for entry in [wiring.input, wiring.members].into_iter().flatten() {
            let message = format!("unknown key `{}`: `{kind}` reads no other stage", entry.key);
            log.push(Problem::error(entry.key_span, message));
        }
        return (Vec::new(), true);
    }
    let mut is_wired = true;
    let mut fail = |log: &mut Log, problem: Problem| {
        log.push(problem);
        is_wired = false;
        None
    };
    let named = if stage.takes_members() {
        if let Some(entry) = wiring.input {
            let problem = Problem::error(entry.key_span, format!("unknown key `input`: `{kind}` reads several stages"));
            fail(log, problem.help("write `members = [\"NAME\", …]`"));
        }
        match wiring.members.map(|entry| (&entry.node.value, &entry.node)) {
            Some((Value::List(items), _)) if !items.is_empty() => Some(items.as_slice()),
            Some((Value::Text { .. }, node)) => Some(std::slice::from_ref(node)),
            Some((Value::List(_), node)) => {
                fail(log, Problem::error(node.span, "`members` is empty, expected the names of stages above"));
                return (vec![None], false);
            }
            Some((other, node)) => {
                let got = crate::config::display(other);
                fail(log, Problem::error(node.span, format!("`members` expects a list of stages, got {got}")));
                return (vec![None], false);
            }
            None => None,
        }
    } else {
        if let Some(entry) = wiring.members {
            let problem = Problem::error(entry.key_span, format!("unknown key `members`: `{kind}` reads one stage"));
            fail(log, problem.help(format!("write `{} = \"NAME\"`", stage.input_key())));
        }
        wiring.input.map(|entry| std::slice::from_ref(&entry.node))
    };
    let key = stage.input_key();

    let mut inputs: Vec<Option<usize>> = Vec::new();
    match named {
        None => {
            let input = match above.iter().rposition(|read| !read.is_further) {
                Some(last) => match mismatch(stage, &above[last]) {
                    None => Some(last),
                    Some(problem) => fail(log, suggest(Problem::error(entry.node.span, problem), key, stage, above)),
                },
                None => fail(
                    log,
                    Problem::error(
                        entry.node.span,
                        format!("`{kind}` reads another stage, but there is none above it"),
                    )
                    .help("a stage reads only stages above it; the first one is an `ingest`"),
                ),
            };
            inputs.push(input);
        }
        Some(nodes) => {
            for node in nodes {
                let found = match find_input(node, key, entry, is_stage, above) {
                    Ok(found) if inputs.contains(&Some(found)) => {
                        fail(log, Problem::error(node.span, format!("`{}` is a member twice", above[found].name)))
                    }
                    Ok(found) => match mismatch(stage, &above[found]) {
                        None => Some(found),
                        Some(problem) => fail(log, suggest(Problem::error(node.span, problem), key, stage, above)),
                    },
                    Err(problem) => fail(log, problem),
                };
                inputs.push(found);
            }
        }
    }
    (inputs, is_wired)
}

/// The stage that `node` names.
fn find_input(node: &Node, key: &str, entry: &Entry, is_stage: IsStage<'_>, above: &[Read]) -> Result<usize, Problem> {
    let Value::Text { text, .. } = &node.value else {
        let got = crate::config::display(&node.value);
        let problem = Problem::error(node.span, format!("`{key}` expects the name of a stage above, got {got}"));
        return Err(match &node.value {
            Value::List(_) => problem.help(format!("one stage is read: write `{key} = \"NAME\"`")),
            _ => problem,
        });
    };
    if let Some(found) = above.iter().position(|read| read.name == *text) {
        return Ok(found);
    }
    if *text == entry.key {
        return Err(Problem::error(node.span, format!("stage `{text}` cannot read itself")));
    }
    if is_stage(text) {
        return Err(Problem::error(
            node.span,
            format!("stage `{text}` stands below, and a stage reads only stages above it"),
        )
        .help(format!("move `[stages.{text}]` up")));
    }
    let mut problem = Problem::error(node.span, format!("there is no stage `{text}`"));
    let names: Vec<&str> = above.iter().filter(|read| !read.is_further).map(|read| read.name.as_str()).collect();
    problem.help = did_you_mean(text, names.iter().copied())
        .or_else(|| (!names.is_empty()).then(|| format!("the stages above are `{}`", names.join("`, `"))));
    Err(problem)
}

/// What is wrong with reading `above`, if anything. A stage of unknown kind may be anything.
fn mismatch(stage: &dyn stages::Stage, above: &Read) -> Option<String> {
    let output = above.flow.as_ref()?.output;
    if stage.accepts().contains(&output) {
        return None;
    }
    let wanted: Vec<&str> = stage.accepts().iter().map(|&output| noun(output)).collect();
    let wanted = match wanted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => wanted.concat(),
    };
    Some(format!("`{}` reads {wanted}, but stage `{}` hands on {}", stage.kind(), above.name, noun(output)))
}

/// Names the nearest stage above that would fit.
fn suggest(problem: Problem, key: &str, stage: &dyn stages::Stage, above: &[Read]) -> Problem {
    let fits = |read: &&Read| read.flow.as_ref().is_some_and(|flow| stage.accepts().contains(&flow.output));
    match above.iter().rev().find(fits) {
        Some(read) if key == "members" => problem.help(format!("write `members = [\"{}\"]`", read.name)),
        Some(read) => problem.help(format!("write `{key} = \"{}\"`", read.name)),
        None => problem,
    }
}

/// Members are combined sample by sample, so all of them must descend from the same split.
fn check_one_split(
    stage: &dyn stages::Stage,
    wiring: &Wiring<'_>,
    header: Span,
    inputs: &[Option<usize>],
    above: &[Read],
    log: &mut Log,
) {
    let split_of = |mut at: usize| loop {
        match above[at].flow.as_ref().map(|flow| flow.output) {
            Some(Output::Splits) => return Some(at),
            _ => at = *above[at].inputs.first()?,
        }
    };
    let spans: Vec<Span> = match wiring.members.map(|entry| &entry.node.value) {
        Some(Value::List(items)) => items.iter().map(|item| item.span).collect(),
        _ => vec![header],
    };
    let Some(first) = inputs.first().copied().flatten() else { return };
    let Some(split) = split_of(first) else { return };
    for (&input, &span) in inputs.iter().zip(&spans).skip(1) {
        let Some(input) = input else { continue };
        let Some(other) = split_of(input).filter(|&other| other != split) else { continue };
        log.push(
            Problem::error(
                span,
                format!(
                    "the members of `{}` must come from one split, but `{}` is from `{}` and `{}` from `{}`",
                    stage.kind(),
                    above[first].name,
                    above[split].name,
                    above[input].name,
                    above[other].name
                ),
            )
            .help("let both branches read the same split"),
        );
    }
}
