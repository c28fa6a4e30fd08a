//! A run as JUnit's XML, in the flavour that Jenkins reads: a case per gate, per check before a training and per task (folds are
//! tasks).
//!
//! Without times the bytes are the same on every machine and for every number of threads, whether tasks were computed or found.

use std::fmt::Write as _;

use super::summary::{How, Summary};
use crate::artifact::sanity::Status;
use crate::escape::on_line;

/// A case of a suite.
struct Case {
    class: String,
    name: String,
    outcome: Outcome,
    seconds: Option<f64>,
}

enum Outcome {
    Passed,
    /// Passed, with something to read.
    Told(String),
    /// The kind of failure and what was wrong.
    Failed(&'static str, String),
    Skipped(&'static str),
}

/// The document; `has_times` puts the seconds of computed tasks into it.
pub fn junit(summary: &Summary, has_times: bool) -> String {
    let pipeline = &summary.report.pipeline;
    let case = |suite: &str, name: String, outcome: Outcome| Case {
        class: format!("{pipeline}.{suite}"),
        name,
        outcome,
        seconds: None,
    };
    let mut suites: Vec<(String, Vec<Case>)> = Vec::new();
    let gates = summary.report.gates().map(|gate| {
        let name = format!("{} {} on {} of {}", gate.measured(), gate.expected, gate.split, gate.model);
        let value = gate.shown_value();
        let outcome = match gate.is_passed {
            true => Outcome::Told(value),
            false => Outcome::Failed("gate", format!("{value}, expected {}", gate.expected)),
        };
        case("gates", name, outcome)
    });
    suites.push(("gates".to_owned(), gates.collect()));
    let checks = summary.report.checks.iter().map(|check| {
        let outcome = match check.status {
            Status::Passed => Outcome::Passed,
            Status::Warned => Outcome::Told(format!("warning: {}", check.message)),
            Status::Failed => Outcome::Failed("sanity", check.message.clone()),
        };
        case("sanity", format!("{} {}", check.stage, check.check), outcome)
    });
    suites.push(("sanity".to_owned(), checks.collect()));
    for task in &summary.tasks {
        let outcome = match &task.ended {
            How::Computed | How::Cached => Outcome::Passed,
            How::Failed(why) => Outcome::Failed("task", why.clone()),
            How::NotRun => Outcome::Skipped("not run: something before it failed, or the run was stopped"),
        };
        let seconds = task.seconds.filter(|_| has_times);
        let case = Case { seconds, ..case(&task.stage, task.part.clone(), outcome) };
        match suites.iter_mut().skip(2).find(|(name, _)| *name == task.stage) {
            Some((_, cases)) => cases.push(case),
            None => suites.push((task.stage.clone(), vec![case])),
        }
    }
    if !summary.errors.is_empty() {
        let errors = summary.errors.iter().enumerate();
        let failed = |(i, error): (usize, &String)| {
            case("run", format!("error {}", i + 1), Outcome::Failed("run", error.clone()))
        };
        suites.push(("run".to_owned(), errors.map(failed).collect()));
    }
    suites.retain(|(_, cases)| !cases.is_empty());
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let all: Vec<&Case> = suites.iter().flat_map(|(_, cases)| cases).collect();
    let _ = writeln!(text, "<testsuites name=\"{}\"{}>", xml(pipeline), counts(&all, has_times));
    for (name, cases) in &suites {
        let name = format!("{pipeline}.{name}");
        let counts = counts(&cases.iter().collect::<Vec<_>>(), has_times);
        let _ = writeln!(text, "  <testsuite name=\"{}\"{counts}>", xml(&name));
        for case in cases {
            let time = case.seconds.map(|seconds| format!(" time=\"{seconds:.3}\"")).unwrap_or_default();
            let _ = write!(text, "    <testcase classname=\"{}\" name=\"{}\"{time}", xml(&case.class), xml(&case.name));
            let _ = match &case.outcome {
                Outcome::Passed => writeln!(text, "/>"),
                Outcome::Told(told) => {
                    writeln!(text, ">\n      <system-out>{}</system-out>\n    </testcase>", xml(told))
                }
                Outcome::Failed(kind, why) => {
                    let why = xml(why);
                    writeln!(
                        text,
                        ">\n      <failure type=\"{kind}\" message=\"{why}\">{why}</failure>\n    </testcase>"
                    )
                }
                Outcome::Skipped(why) => {
                    writeln!(text, ">\n      <skipped message=\"{}\"/>\n    </testcase>", xml(why))
                }
            };
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

/// The attributes that count cases.
fn counts(cases: &[&Case], has_times: bool) -> String {
    let n = |is: &dyn Fn(&Outcome) -> bool| cases.iter().filter(|case| is(&case.outcome)).count();
    let failures = n(&|outcome| matches!(outcome, Outcome::Failed(..)));
    let skipped = n(&|outcome| matches!(outcome, Outcome::Skipped(_)));
    let seconds: f64 = cases.iter().filter_map(|case| case.seconds).fold(0.0, |sum, seconds| sum + seconds);
    let time = if has_times { format!(" time=\"{seconds:.3}\"") } else { String::new() };
    format!(" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\"{time}", cases.len())
}

/// Text for an attribute or between tags. What XML 1.0 cannot hold, and what a terminal would obey, is written as an escape.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in on_line(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::summary::{Check, Report, TaskRow};
    use super::*;
    use crate::artifact::evaluation::{Evaluation, GateResult};

    /// Whether a document is well-formed, as far as this writer could break it: characters that XML holds, tags that match,
    /// attributes in quotes, entities that are known.
    fn is_well_formed(text: &str) -> bool {
        let holds =
            |c: char| matches!(c, '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}');
        let mut open: Vec<&str> = Vec::new();
        let Some(mut rest) = text.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n") else { return false };
        let entities = ["amp;", "lt;", "gt;", "quot;", "apos;"];
        let is_text = |text: &str| {
            !text.contains(['<', '>', '"'])
                && text.split('&').skip(1).all(|e| entities.iter().any(|known| e.starts_with(known)))
        };
        while let Some(at) = rest.find('<') {
            let Some(len) = rest[at..].find('>') else { return false };
            let (before, tag) = (&rest[..at], &rest[at + 1..at + len]);
            if !is_text(before) {
                return false;
            }
            rest = &rest[at + len + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name) {
                    return false;
                }
                continue;
            }
            let inner = tag.strip_suffix('/').unwrap_or(tag);
            let (name, attributes) = inner.split_once(' ').unwrap_or((inner, ""));
            let parts: Vec<&str> = attributes.split('"').collect();
            let are_named = parts.iter().step_by(2).all(|name| name.trim().is_empty() || name.trim().ends_with('='));
            if parts.len().is_multiple_of(2)
                || !are_named
                || !parts.iter().skip(1).step_by(2).all(|value| is_text(value))
            {
                return false;
            }
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        open.is_empty() && rest == "\n" && text.chars().all(holds)
    }

    fn summary(name: &str) -> Summary {
        let gate = GateResult {
            model: name.to_owned(),
            split: "test".to_owned(),
            metric: "recall".to_owned(),
            expected: ">= 0.9".to_owned(),
            class: Some(name.to_owned()),
            ..GateResult::default()
        };
        let task = |part: &str, ended: How| TaskRow {
            stage: "cnn".to_owned(),
            part: part.to_owned(),
            ended,
            reasons: Vec::new(),
            seconds: Some(1.5),
        };
        let passed = GateResult { value: Some(0.95), is_passed: true, ..gate.clone() };
        Summary {
            report: Report {
                pipeline: "digits".to_owned(),
                evaluations: vec![(
                    "evaluate".to_owned(),
                    Evaluation {
                        format: 2,
                        model: name.to_owned(),
                        scores: Vec::new(),
                        report: None,
                        gains: Vec::new(),
                        comparisons: Vec::new(),
                        gates: vec![gate, passed],
                        calibrated: Vec::new(),
                        abstained: Vec::new(),
                        by: Vec::new(),
                    },
                )],
                checks: vec![Check {
                    stage: "cnn".to_owned(),
                    check: "memorises".to_owned(),
                    status: Status::Failed,
                    message: format!("`{name}` is not learned"),
                }],
                ..Report::default()
            },
            tasks: vec![
                task("fold 1", How::Computed),
                task("fold 2", How::Cached),
                task("fold 3", How::Failed(format!("cannot read `{name}`"))),
                task("all", How::NotRun),
            ],
            ..Summary::default()
        }
    }

    #[test]
    fn every_gate_check_and_task_is_a_case() {
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="digits" tests="7" failures="3" errors="0" skipped="1">
  <testsuite name="digits.gates" tests="2" failures="1" errors="0" skipped="0">
    <testcase classname="digits.gates" name="recall of class a&lt;b &gt;= 0.9 on test of a&lt;b">
      <failure type="gate" message="no value, expected &gt;= 0.9">no value, expected &gt;= 0.9</failure>
    </testcase>
    <testcase classname="digits.gates" name="recall of class a&lt;b &gt;= 0.9 on test of a&lt;b">
      <system-out>0.9500</system-out>
    </testcase>
  </testsuite>
  <testsuite name="digits.sanity" tests="1" failures="1" errors="0" skipped="0">
    <testcase classname="digits.sanity" name="cnn memorises">
      <failure type="sanity" message="`a&lt;b` is not learned">`a&lt;b` is not learned</failure>
    </testcase>
  </testsuite>
  <testsuite name="digits.cnn" tests="4" failures="1" errors="0" skipped="1">
    <testcase classname="digits.cnn" name="fold 1"/>
    <testcase classname="digits.cnn" name="fold 2"/>
    <testcase classname="digits.cnn" name="fold 3">
      <failure type="task" message="cannot read `a&lt;b`">cannot read `a&lt;b`</failure>
    </testcase>
    <testcase classname="digits.cnn" name="all">
      <skipped message="not run: something before it failed, or the run was stopped"/>
    </testcase>
  </testsuite>
</testsuites>
"#;
        assert_eq!(junit(&summary("a<b"), false), expected);
        let timed = junit(&summary("x"), true);
        assert!(
            timed.contains("name=\"fold 1\" time=\"1.500\"/>") && timed.contains("skipped=\"1\" time=\"6.000\""),
            "{timed}"
        );
    }

    #[test]
    fn no_name_breaks_the_document() {
        for c in (0..=0x10_ffff)
            .filter_map(char::from_u32)
            .filter(|&c| c < '\u{300}' || ('\u{fff0}'..'\u{10010}').contains(&c))
        {
            let text = junit(&summary(&format!("a{c}b")), false);
            assert!(is_well_formed(&text), "U+{:04X}", u32::from(c));
        }
        let name = "]]></failure><x y=\"&amp;#0;\">\u{0}\u{1b}[31m\u{202e}\r\n\t'";
        assert!(is_well_formed(&junit(&summary(name), true)), "{}", junit(&summary(name), true));
        assert!(!is_well_formed("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a b=\"&x;\"></a>\n"));
        assert!(!is_well_formed("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a>\u{1}</a>\n"));
    }
}
