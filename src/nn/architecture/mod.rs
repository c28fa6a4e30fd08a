//! The architecture of a network as a manifest writes it: the shorthand of the CS231n course, or a list of layers.
//!
//! ```text
//! arch  = item { "-" item }            item  = layer | "[" arch "]" [ "*" count ]
//! layer = NAME [ "(" arg {"," arg} ")" ]     arg = value | key "=" value      value may be {name}, from `vars`
//! ```
//!
//! The shorthand is rewritten to the long form (`"relu"`, `{ conv = { filters = 32 } }`), whose spans point into the
//! string, and both are read by the same code: what one can say the other can, an error points at the layer, and the
//! resolved keys (hence the fingerprint) are those of the long form either way. Start at [`read`].

mod print;
mod shorthand;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::layer::{self, LayerConfig};
use super::plan::NetworkPlan;
use crate::config::{self, Bounds, Entry, Form, Log, Node, Problem, Section, Span, Table, Value, did_you_mean};
use crate::engine::Algorithm;
use crate::tensor::{ImageShape, SampleShape};

/// More layers than this are a mistake (or an attack): `[[[…]*1000]*1000]*1000`.
pub const MAX_LAYERS: usize = 1_000;

/// The layers of a network, each with its place in the manifest.
#[derive(Clone, Default)]
pub struct Architecture {
    /// From the input to the last layer, repeats written out.
    pub layers: Vec<Arc<dyn LayerConfig>>,
    /// Where each layer stands (all turns of a repeat stand in the same place).
    pub spans: Vec<Span>,
    /// The long form: one node a layer, as it was written, variables filled in.
    pub nodes: Vec<Node>,
}

/// The layers, wherever they stand and however they are written.
impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.layers).finish()
    }
}

/// Reads a network from the shorthand alone, without a manifest around it.
///
/// # Errors
/// Everything that is wrong with it; spans point into `text`.
pub fn from_shorthand(text: &str) -> Result<Architecture, Vec<Problem>> {
    let span = Span { source: 0, start: 0, end: text.len() as u32 };
    let node = Node { value: Value::Text { text: text.to_owned(), inner: Some(0) }, span };
    let table = Table { entries: vec![Entry { key: "architecture".to_owned(), key_span: span, node }] };
    let mut log = Log::default();
    read(&mut Section::new(Some(&table), span, "", &mut log)).ok_or(log.problems)
}

/// Reads `architecture` (the shorthand) or `layers` (the long form), `vars`, which fills `{name}` in either, and
/// `convolution`, which says how convolutions are computed that do not say it themselves.
///
/// Returns `None` after a problem, which is then in the section's log, and points at the layer.
pub fn read(section: &mut Section<'_>) -> Option<Architecture> {
    let meaning = "The network in shorthand, from its input to its last layer; this or `layers` must be set.";
    let example = "\"INPUT - [CONV(32) - RELU]*2 - POOL - FC\"";
    let shorthand = section.key("architecture", meaning, example).form(None, || Form::Text).cloned();
    let layers = || {
        let layer = Form::Choice(Section::alternatives(&layer::choices()));
        Form::Filled(Box::new(Form::List(Box::new(layer), 1..=MAX_LAYERS)))
    };
    let meaning = "The network in the long form, one item a layer; this or `architecture` must be set.";
    let example = "[\"input\", { conv = { filters = 32 } }, \"relu\", \"fc\"]";
    let list = section.key("layers", meaning, example).form(None, layers).cloned();
    let vars = read_vars(section);
    let meaning = "How convolutions are computed that do not say it themselves.";
    let algorithm = section.key(layer::CONVOLUTION, meaning, "\"winograd\"").word(layer::ALGORITHMS);
    let convolution = section.node(layer::CONVOLUTION).map_or(section.span(), |node| node.span);
    let mut vars = vars?;
    let mut nodes = match (shorthand, list) {
        (Some(shorthand), None) => shorthand::parse(&shorthand, &mut vars, section.log())?,
        (None, Some(list)) => match list.value {
            Value::List(items) if !items.is_empty() => {
                let mut nodes = items;
                let mut is_filled = true;
                for node in &mut nodes {
                    is_filled &= fill(node, &mut vars, section.log());
                }
                if !is_filled {
                    return None;
                }
                nodes
            }
            Value::List(_) => {
                section.log().push(Problem::error(list.span, "`layers` is empty").help("begin with `\"input\"`"));
                return None;
            }
            _ => {
                let problem = format!("`layers` expects a list, got {}", config::display(&list.value));
                let mut problem = Problem::error(list.span, problem);
                if let Value::Text { .. } = list.value {
                    problem = problem.help("the shorthand goes under `architecture`");
                }
                section.log().push(problem);
                return None;
            }
        },
        (Some(_), Some(list)) => {
            let message = "`architecture` and `layers` both describe the network, expected one of them";
            section.log().push(Problem::error(list.span, message));
            return None;
        }
        (None, None) => {
            let header = section.span();
            section.log().push(
                Problem::error(header, "missing key `architecture`")
                    .help("add `architecture = \"INPUT - CONV - RELU - POOL - FC\"`, or `layers`"),
            );
            return None;
        }
    };
    if nodes.len() > MAX_LAYERS {
        let message = format!("the network has {} layers, expected at most {MAX_LAYERS}", nodes.len());
        section.log().push(Problem::error(nodes[MAX_LAYERS].span, message));
        return None;
    }
    vars.warn_unused(section.log());
    if algorithm != Algorithm::Winograd {
        nodes.iter_mut().for_each(|node| layer::ask_for_direct(node, convolution));
    }

    let choices = layer::choices();
    let read: Vec<Option<Arc<dyn LayerConfig>>> = nodes
        .iter()
        .enumerate()
        .map(|(i, node)| {
            let n_problems = section.log().problems.len();
            let config = section.choice_at("layers", &format!("layers[{i}]"), node, &choices);
            // A value that was not accepted has a stand-in; shapes that follow from it would be news to nobody.
            config.filter(|_| section.log().problems.len() == n_problems)
        })
        .collect();
    let mut is_well = read.iter().all(Option::is_some);
    for (i, layer) in read.iter().enumerate() {
        let Some(layer) = layer else { continue };
        let is_input = layer.word() == "input";
        if is_input && i > 0 {
            let problem = Problem::error(nodes[i].span, "`input` is the first layer only, it cannot stand here");
            section.log().push(problem);
            is_well = false;
        } else if !is_input && i == 0 {
            let problem =
                Problem::error(nodes[i].span, format!("a network begins with `INPUT`, got `{}`", layer.word()));
            section.log().push(problem.help("put `INPUT - ` in front"));
            is_well = false;
        }
    }
    is_well.then(|| Architecture {
        layers: read.into_iter().flatten().collect(),
        spans: nodes.iter().map(|node| node.span).collect(),
        nodes,
    })
}

/// Reads the shorthand that [`Architecture::shorthand`] prints, where it stands outside of a manifest.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(shorthand: &str) -> Result<Architecture, String> {
    let span = Span::default();
    let value = Value::Text { text: shorthand.to_owned(), inner: None };
    let entry = Entry { key: "architecture".to_owned(), key_span: span, node: Node { value, span } };
    let table = config::Table { entries: vec![entry] };
    let mut log = Log::default();
    let architecture = read(&mut Section::new(Some(&table), span, "", &mut log));
    let first = log.problems.into_iter().find(|problem| problem.severity == config::Severity::Error);
    match (architecture, first) {
        (Some(architecture), None) => Ok(architecture),
        (_, first) => Err(first.map_or_else(|| "is not a network".to_owned(), |problem| problem.message)),
    }
}

impl Architecture {
    /// Plans the network for samples of shape `input`, where that and the number of classes are known.
    ///
    /// What does not fit is reported to `log` at its layer. Before `input` is known, shapes begin at `INPUT(32x32x3)`,
    /// or behind the first `fc`, whose output does not depend on its input; before the number of classes is, all but
    /// the end is checked. `None` if anything is wrong or not known.
    pub fn check(&self, input: Option<SampleShape>, n_classes: Option<usize>, log: &mut Log) -> Option<NetworkPlan> {
        let known = input.or_else(|| self.asserted());
        if let (Some(shape), Some(n_classes)) = (known, n_classes) {
            return match NetworkPlan::new(&self.layers, shape, n_classes) {
                Ok(plan) => {
                    self.warn_of_its_end(log);
                    Some(plan).filter(|_| input.is_some())
                }
                Err(problems) => {
                    for problem in problems {
                        let span = self.spans.get(problem.at).copied().unwrap_or_default();
                        log.push(problem.error(span));
                    }
                    None
                }
            };
        }
        let last_fc = self.layers.iter().rposition(|layer| layer.word() == "fc");
        let mut shape = known;
        for (i, (layer, &span)) in self.layers.iter().zip(&self.spans).enumerate() {
            // Any width will do where it is the number of classes, to check what stands below.
            let filled = if Some(i) == last_fc { layer.with_classes(n_classes.unwrap_or(2)) } else { None };
            let layer = filled.as_ref().unwrap_or(layer);
            let given = match shape {
                Some(shape) => shape,
                None if layer.word() == "fc" => SampleShape::Flat(1),
                None => continue,
            };
            match layer.output_shape(given) {
                Ok(output) => shape = Some(output),
                Err(error) => {
                    // One misfit makes the next; only the first is told.
                    log.push(error.error(span));
                    return None;
                }
            }
        }
        self.warn_of_its_end(log);
        None
    }

    /// Warns of a last layer that the softmax should not read: without negative scores, or with noise, little is
    /// learned.
    fn warn_of_its_end(&self, log: &mut Log) {
        let (Some(last), Some(&span)) = (self.layers.last(), self.spans.last()) else { return };
        let what = match last.word() {
            "relu" | "leaky" | "elu" => "cuts off",
            "dropout" | "noise" => "disturbs",
            _ => return,
        };
        let message =
            format!("the network ends with `{}`, which {what} the scores that the softmax reads", last.word());
        log.push(Problem::warning(span, message).help("end with `FC`"));
    }

    /// The shape that `INPUT(32x32x3)` asserts.
    fn asserted(&self) -> Option<SampleShape> {
        let Value::Table(layer) = &self.nodes.first()?.value else { return None };
        let Value::Table(keys) = &layer.entries.first()?.node.value else { return None };
        let shape = match &keys.get("shape")?.node.value {
            Value::Integer(n) => SampleShape::Flat(usize::try_from(*n).ok()?),
            Value::Text { text, .. } => {
                let axes: Option<Vec<usize>> =
                    text.split(['x', 'X', '×']).map(|axis| axis.trim().parse().ok()).collect();
                match axes?[..] {
                    [n] => SampleShape::Flat(n),
                    [width, height] => SampleShape::Image(ImageShape { height, width, channels: 1 }),
                    [width, height, channels] => SampleShape::Image(ImageShape { height, width, channels }),
                    _ => return None,
                }
            }
            _ => return None,
        };
        self.layers.first()?.output_shape(shape).is_ok().then_some(shape)
    }
}

/// The values that `{name}` stands for.
struct Vars {
    by_name: BTreeMap<String, Variable>,
}

struct Variable {
    node: Node,
    key_span: Span,
    is_used: bool,
}

fn read_vars(section: &mut Section<'_>) -> Option<Vars> {
    let mut vars = Vars { by_name: BTreeMap::new() };
    let meaning = "Values that `{name}` stands for in the network.";
    let form = || {
        let value = vec![
            Form::Text,
            Form::Number(Bounds::Finite),
            Form::Flag,
            Form::List(Box::new(Form::Anything), 0..=usize::MAX),
        ];
        Form::Map(Box::new(Form::Either(value)))
    };
    let key = section.key("vars", meaning, "{ filters = 32 }");
    let Some(node) = key.form(None, form).cloned() else { return Some(vars) };
    let Value::Table(table) = node.value else {
        section.expected("vars", &node, "a table");
        return None;
    };
    for Entry { key, key_span, node } in table.entries {
        if let Value::Table(_) | Value::Datetime(_) = node.value {
            let message = format!("variable `{key}` expects a number, a string or a list, got {}", node.value.noun());
            section.log().push(Problem::error(node.span, message));
            return None;
        }
        vars.by_name.insert(key, Variable { node, key_span, is_used: false });
    }
    Some(vars)
}

impl Vars {
    /// The value of `name`, or what is wrong with asking for it.
    fn take(&mut self, name: &str, span: Span) -> Result<Node, Problem> {
        if let Some(variable) = self.by_name.get_mut(name) {
            variable.is_used = true;
            return Ok(variable.node.clone());
        }
        let known = self.by_name.keys().map(String::as_str);
        let help = did_you_mean(name, known).unwrap_or_else(|| format!("add `vars = {{ {name} = … }}`"));
        Err(Problem::error(span, format!("unknown variable `{name}`")).help(help))
    }

    fn warn_unused(&self, log: &mut Log) {
        for (name, variable) in &self.by_name {
            if !variable.is_used {
                let message = format!("variable `{name}` is not used by the network");
                log.push(Problem::warning(variable.key_span, message));
            }
        }
    }
}

/// Fills `"{name}"` in the long form.
fn fill(node: &mut Node, vars: &mut Vars, log: &mut Log) -> bool {
    match &mut node.value {
        Value::Text { text, .. } => {
            let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else { return true };
            match vars.take(name.trim(), node.span) {
                Ok(value) => *node = value,
                Err(problem) => {
                    log.push(problem);
                    return false;
                }
            }
            true
        }
        // No short cut: every unknown variable is told.
        Value::List(items) => items.iter_mut().map(|item| fill(item, vars, log)).fold(true, |all, one| all & one),
        Value::Table(table) => {
            table.entries.iter_mut().map(|entry| fill(&mut entry.node, vars, log)).fold(true, |all, one| all & one)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Table;

    fn text_node(text: &str) -> Node {
        // As if the string stood at byte 100, behind its quote.
        Node {
            value: Value::Text { text: text.to_owned(), inner: Some(101) },
            span: Span { source: 0, start: 100, end: 102 + text.len() as u32 },
        }
    }

    fn entry(key: &str, node: Node) -> Entry {
        Entry { key: key.to_owned(), key_span: Span::default(), node }
    }

    fn integer(i: i64) -> Node {
        Node { value: Value::Integer(i), span: Span { source: 0, start: 50, end: 51 } }
    }

    fn read_table(entries: Vec<Entry>) -> (Option<Architecture>, Log) {
        let table = Table { entries };
        let mut log = Log::default();
        let mut section = Section::new(Some(&table), Span::default(), "", &mut log);
        let architecture = read(&mut section);
        section.finish();
        (architecture, log)
    }

    fn read_text(text: &str) -> (Option<Architecture>, Log) {
        let vars = Table { entries: vec![entry("f", integer(7)), entry("n", integer(2))] };
        let vars = Node { value: Value::Table(vars), span: Span::default() };
        let (architecture, mut log) = read_table(vec![entry("architecture", text_node(text)), entry("vars", vars)]);
        log.problems.retain(|problem| problem.severity == config::Severity::Error);
        (architecture, log)
    }

    #[track_caller]
    fn good(text: &str) -> Architecture {
        let (architecture, log) = read_text(text);
        assert_eq!(log.problems, [], "{text}");
        architecture.expect("no problem, so an architecture")
    }

    #[track_caller]
    fn bad(text: &str, expected: &[(&str, &str)]) {
        let (_, log) = read_text(text);
        let told: Vec<(&str, String)> = log
            .problems
            .iter()
            .map(|problem| {
                let (start, end) = (problem.span.start as usize, problem.span.end as usize);
                // Byte 101 is the first of the text; other places are those of variables, or the whole string.
                let slice = if start > 100 { &text[start - 101..end - 101] } else { "elsewhere" };
                let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
                (slice, format!("{}{help}", problem.message))
            })
            .collect();
        let told: Vec<(&str, &str)> = told.iter().map(|(slice, message)| (*slice, message.as_str())).collect();
        assert_eq!(told, expected, "{text}");
    }

    #[track_caller]
    fn shapes(text: &str, input: [usize; 3], n_classes: usize) -> Vec<String> {
        let [width, height, channels] = input;
        let shape = SampleShape::Image(ImageShape { height, width, channels });
        let mut log = Log::default();
        let plan = good(text).check(Some(shape), Some(n_classes), &mut log);
        assert_eq!(log.problems, [], "{text}");
        plan.expect("all is known").layers.iter().map(|layer| layer.output.to_string()).collect()
    }

    #[test]
    fn both_of_the_courses_architectures_are_read_as_they_stand() {
        assert_eq!(
            shapes("[INPUT - CONV - RELU - POOL - FC]", [9, 6, 3], 10),
            ["9x6x3", "9x6x32", "9x6x32", "4x3x32", "10"]
        );
        assert_eq!(
            shapes("[INPUT - CONV - RELU - CONV - RELU - POOL - RELU - CONV - RELU - POOL - FC]", [9, 6, 1], 4)
                .last()
                .map(String::as_str),
            Some("4")
        );
        assert_eq!(good("INPUT -> [[CONV -> RELU]*2 -> POOL]*3 -> [FC(5) → RELU]*2 – FC").layers.len(), 1 + 15 + 4 + 1);
    }

    #[test]
    fn a_network_asks_for_the_direct_way_where_a_layer_does_not_say_and_has_another() {
        let text = "INPUT - CONV - CONV(8) - CONV(8, 3, 1) - CONV(9, 5) - CONV(8, stride=[1, 2]) - CONV(groups=2) - \
            CONV(8, convolution=winograd) - LOCAL - CONV(8, [3, 3], dilation=1) - FC";
        let entries = |word: &str| vec![entry("architecture", text_node(text)), entry("convolution", text_node(word))];
        let (asked, log) = read_table(entries("direct"));
        assert_eq!(log.problems, []);
        let asked = asked.expect("no problem");
        let expected = "INPUT - CONV(convolution=direct) - [CONV(8, convolution=direct)]*2 - CONV(9, 5) - \
            CONV(8, stride=[1, 2]) - CONV(groups=2) - CONV(8) - LOCAL - CONV(8, convolution=direct) - FC";
        assert_eq!(asked.shorthand(), expected);
        // That is what a model says of itself.
        assert_eq!(parse(expected).expect("it reads").shorthand(), expected);
        // Whoever does not ask has the keys of whoever asks for what there is anyway.
        let keys = |log: Log| log.resolved.into_iter().map(|r| (r.key, r.value)).collect::<Vec<_>>();
        let (plain, spelled) =
            (read_table(vec![entry("architecture", text_node(text))]).1, read_table(entries("winograd")).1);
        let plain = keys(plain);
        assert_eq!(keys(spelled), plain);
    }

    #[test]
    fn shorthand_and_long_form_are_the_same() {
        #[track_caller]
        fn case(text: &str, shorthand: &str, long: &str) {
            let architecture = good(text);
            assert_eq!(architecture.shorthand(), shorthand);
            let lines: Vec<String> = architecture.nodes.iter().map(|node| config::toml(&node.value)).collect();
            assert_eq!(lines.join("; "), long);
            // The long form records what the shorthand records, and the printed shorthand reads as it was written.
            let list = Node { value: Value::List(architecture.nodes.clone()), span: Span::default() };
            let (again, log) = read_table(vec![entry("layers", list)]);
            assert_eq!(again.expect("it reads").shorthand(), shorthand);
            let keys = |log: &Log| -> Vec<(String, String)> {
                let pairs = log.resolved.iter().map(|resolved| (resolved.key.clone(), resolved.value.clone()));
                pairs.collect()
            };
            assert_eq!(keys(&log), keys(&read_text(text).1));
            assert_eq!(keys(&log), keys(&read_text(shorthand).1));
        }
        case("input-conv-relu-pool-fc", "INPUT - CONV - RELU - POOL - FC", r#""input"; "conv"; "relu"; "pool"; "fc""#);
        case(
            "INPUT(32x32x3) - [CONV(16, 3x5, padding=valid) - RELU]*2 - DROPOUT( rate = 0.25 ) - FC()",
            "INPUT('32x32x3') - [CONV(16, [5, 3], padding=valid) - RELU]*2 - DROPOUT(0.25) - FC",
            r#"{ input = { shape = "32x32x3" } }; { conv = { filters = 16, kernel_size = [5, 3], padding = "valid" } }; "relu"; { conv = { filters = 16, kernel_size = [5, 3], padding = "valid" } }; "relu"; { dropout = { rate = 0.25 } }; "fc""#,
        );
        case(
            "INPUT - [CONV({f}, stride=[2, 1], padding=0)]*{n} - FC(1_0, bias=false, l2=1e-4)",
            "INPUT - [CONV(7, stride=[2, 1], padding=0)]*2 - FC(10, bias=false, l2=0.0001)",
            r#""input"; { conv = { filters = 7, stride = [2, 1], padding = 0 } }; { conv = { filters = 7, stride = [2, 1], padding = 0 } }; { fc = { units = 10, bias = false, l2 = 0.0001 } }"#,
        );
    }

    #[test]
    fn errors_point_into_the_string() {
        bad(
            "INPUT - CONF(3) - RELU - MAXPOOL - FC - SOFTMAX",
            &[
                ("CONF", "unknown layer `CONF` (did you mean `CONV`?)"),
                ("MAXPOOL", "unknown layer `MAXPOOL` (write `POOL`)"),
                ("SOFTMAX", "unknown layer `SOFTMAX` (leave it out: softmax follows the last layer by itself)"),
            ],
        );
        bad("INPUT - CONV(32 - RELU", &[("(", "`(` is not closed, expected `)` (write `CONV(32)`)")]);
        bad("INPUT - CONV(32, 3", &[("(", "`(` is not closed, expected `)` (write `CONV(32, 3)`)")]);
        bad("INPUT - CONV(", &[("", "expected a value, then `)`")]);
        bad("INPUT - CONV(32 3)", &[("3", "expected `,` or `)`, got `3`")]);
        bad("INPUT - CONV(32, )", &[(")", "expected a value, got `)`")]);
        bad(
            "INPUT - CONV(1, 2, 3, 4, 5, 6)",
            &[(
                "5",
                "`CONV` takes at most 4 values without a key (they are `CONV(filters, kernel_size, stride, padding)`; others are written `key=value`)",
            )],
        );
        bad("INPUT - RELU(3)", &[("3", "`RELU` takes no value without a key")]);
        bad("INPUT - CONV(3, filters=4)", &[("filters=4", "`filters` of `CONV` is given twice")]);
        bad(
            "INPUT - CONV(filters=4, 3)",
            &[("3", "a value without a key stands behind one with a key (put values without keys first)")],
        );
        bad("INPUT - CONV(fliters=4)", &[("fliters", "unknown key `fliters` (did you mean `filters`?)")]);
        bad("INPUT - CONV(0)", &[("0", "`filters` expects a whole number from 1 to 65536, got `0`")]);
        bad(
            "INPUT - FC({f}, units=3) - FC({units})",
            &[
                ("units=3", "`units` of `FC` is given twice"),
                ("{units}", "unknown variable `units` (add `vars = { units = … }`)"),
            ],
        );
        bad("INPUT CONV", &[("CONV", "expected `-` before `CONV`")]);
        bad("INPUT - - CONV", &[("-", "expected a layer, got `-`")]);
        bad("INPUT - CONV -", &[("-", "expected a layer behind `-`")]);
        bad("[INPUT - CONV", &[("[", "`[` is not closed, expected `]`")]);
        bad("INPUT - CONV]", &[("]", "`]` without `[`")]);
        bad("INPUT - []*2 - FC", &[("[]", "expected a layer between `[` and `]`")]);
        bad("INPUT - RELU*2", &[("*", "`*` repeats brackets only (put what is repeated between `[` and `]`)")]);
        bad("INPUT - [RELU]*0", &[("0", "a repeat expects a whole number from 1 to 1000, got `0`")]);
        bad("INPUT - [RELU]*x", &[("x", "expected a whole number behind `*`, from 1 to 1000")]);
        bad("INPUT - [[RELU]*40]*40", &[("[[RELU]*40]*40", "40 times 40 layers are more than 1000")]);
        bad("CONV - FC", &[("CONV", "a network begins with `INPUT`, got `conv` (put `INPUT - ` in front)")]);
        bad("INPUT - INPUT - FC", &[("INPUT", "`input` is the first layer only, it cannot stand here")]);
        bad(" ", &[("elsewhere", "the architecture is empty (write `INPUT - FC`, for a start)")]);
        bad(&"[".repeat(100_000), &[("[", "brackets are nested more than 32 deep")]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_told_at_their_layer() {
        #[track_caller]
        fn case(text: &str, input: Option<SampleShape>, expected: &[(&str, &str)]) {
            let mut log = Log::default();
            good(text).check(input, Some(10), &mut log);
            let told: Vec<(&str, &str)> = log
                .problems
                .iter()
                .map(|p| (&text[p.span.start as usize - 101..p.span.end as usize - 101], p.message.as_str()))
                .collect();
            assert_eq!(told, expected);
        }
        let image = Some(SampleShape::Image(ImageShape { height: 8, width: 6, channels: 1 }));
        case(
            "INPUT - FC(16) - CONV(8) - FC",
            image,
            &[("CONV(8)", "`conv` needs an image with a height and a width, got 16 flat features")],
        );
        case(
            "INPUT - FC(16) - CONV(8) - FC",
            None,
            &[("CONV(8)", "`conv` needs an image with a height and a width, got 16 flat features")],
        );
        case(
            "INPUT - [POOL]*3 - FC",
            image,
            &[("POOL", "the 2×2 window of `pool` is larger than its 1×2 input (width × height)")],
        );
        case(
            "INPUT(6x8x3) - FC",
            image,
            &[("INPUT(6x8x3)", "the samples are 6x8x1 (width x height x depth), `input` says 6x8x3")],
        );
        case(
            "INPUT - FC - RELU - FC(10)",
            image,
            &[("FC", "this `fc` needs `units`; only the last `fc` takes the number of classes")],
        );
        case("INPUT - FC(12)", image, &[("FC(12)", "the network ends with 12 values, but there are 10 classes")]);
        case(
            "INPUT - CONV(10)",
            image,
            &[("CONV(10)", "the network ends with images of 6x8x10, but there are 10 classes")],
        );
        case(
            "INPUT(6x2x3) - POOL - POOL - FC",
            None,
            &[("POOL", "the 2×2 window of `pool` is larger than its 3×1 input (width × height)")],
        );
        case("INPUT - FC", None, &[]);
    }

    #[test]
    fn spans_fall_back_to_the_whole_string() {
        let node = Node {
            value: Value::Text { text: "INPUT - FOO".to_owned(), inner: None },
            span: Span { source: 1, start: 3, end: 30 },
        };
        let (_, log) = read_table(vec![entry("architecture", node.clone())]);
        assert_eq!(log.problems[0].span, node.span);
    }

    #[test]
    fn one_description_is_enough_and_needed() {
        let messages = |entries| -> Vec<String> {
            let problems = read_table(entries).1.problems;
            problems.into_iter().map(|problem| problem.message).collect()
        };
        assert_eq!(messages(vec![]), ["missing key `architecture`"]);
        let list = |items| Node { value: Value::List(items), span: Span::default() };
        assert_eq!(messages(vec![entry("layers", list(vec![]))]), ["`layers` is empty"]);
        assert_eq!(
            messages(vec![entry("layers", list(vec![])), entry("architecture", text_node("INPUT - FC"))]),
            ["`architecture` and `layers` both describe the network, expected one of them"]
        );
        assert_eq!(
            messages(vec![entry("layers", text_node("INPUT - FC"))]),
            ["`layers` expects a list, got the string `INPUT - FC`"]
        );
        let vars = Table { entries: vec![entry("unused", integer(1))] };
        let vars = Node { value: Value::Table(vars), span: Span::default() };
        assert_eq!(
            messages(vec![entry("architecture", text_node("INPUT - FC")), entry("vars", vars)]),
            ["variable `unused` is not used by the network"]
        );
    }

    #[test]
    fn repeats_are_folded() {
        let case = |text: &str, expected: &str| assert_eq!(good(text).shorthand(), expected);
        case("INPUT - RELU - RELU - FC", "INPUT - [RELU]*2 - FC");
        case("INPUT - [[CONV - RELU]*2 - POOL]*3 - FC", "INPUT - [[CONV - RELU]*2 - POOL]*3 - FC");
        case("INPUT - CONV(1) - CONV(2) - FC", "INPUT - CONV(1) - CONV(2) - FC");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[A-Z(){}\\[\\]*,=x0-9. é→'-]{0,40}") {
            let (architecture, log) = read_text(&text);
            proptest::prop_assert!(architecture.is_some() || !log.problems.is_empty());
            for problem in &log.problems {
                let range = problem.span.start as usize..problem.span.end as usize;
                proptest::prop_assert!(range.start <= range.end && range.end <= 102 + text.len());
                if range.start > 100 && range.end <= 101 + text.len() {
                    proptest::prop_assert!(text.get(range.start - 101..range.end - 101).is_some());
                }
            }
        }
    }
}
