//! What a person sees: results on stdout, everything else on stderr, colour only where it is wanted.
//!
//! A closed pipe ends quietly (`| head`). A result that cannot be written for another reason (a full disk behind a redirect)
//! makes the command fail at its end ([`Terminal::failure`]); what stderr does not take is dropped. What is written goes through
//! [`escape`](crate::escape): names of files and classes are foreign.
//!
//! With `--json` a verb prints its document on stdout whatever happens, errors and warnings in it; the text of these is on stderr.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use anstream::{AutoStream, ColorChoice};
use clap::ValueEnum;

use super::Exit;
use crate::escape::{on_line, on_lines};
use crate::report::text::{COLUMNS, width, wrapped};

/// Why results could not be written: the first error of stdout that was not a closed pipe.
static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

/// What a verb has told so far.
static TOLD: Mutex<Told> = Mutex::new(Told { diagnostics: Vec::new(), has_document: false });

struct Told {
    /// Errors and warnings, for its document of JSON.
    diagnostics: Vec<serde_json::Value>,
    /// Whether a document was printed.
    has_document: bool,
}

fn told() -> std::sync::MutexGuard<'static, Told> {
    TOLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` or `CI` is set; everywhere with `CLICOLOR_FORCE`.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// Says when to colour, to everything that prints, from the arguments as they stand: clap's own pages come before any
/// option has been read.
pub fn choose_colour(arguments: &[OsString]) {
    let from_environment = std::env::var_os("CONVOY_COLOR");
    let words = || arguments.iter().take_while(|word| *word != "--");
    let asked = words().zip(words().skip(1)).filter(|(option, _)| *option == "--color").map(|(_, value)| value.clone());
    let joined = words().filter_map(|word| Some(OsString::from(word.to_str()?.strip_prefix("--color=")?)));
    let choice = match asked.chain(joined).next().or(from_environment).as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        // A log of CI is read as text, whatever it was written through.
        _ if is_set("CI") && !is_set("CLICOLOR_FORCE") => ColorChoice::Never,
        _ => ColorChoice::Auto,
    };
    choice.write_global();
}

/// Whether an environment variable has a value other than `0` and `false`, as CI systems set it.
fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0" && value != "false")
}

/// The two streams and what they can show.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// Whether stderr may be coloured.
    pub has_colour: bool,
    /// Whether stdout may be coloured.
    pub has_coloured_results: bool,
    /// Whether stderr is a terminal that bars can be drawn on.
    pub is_interactive: bool,
    /// Whether what stderr is told is broken into lines of at most [`COLUMNS`]: on a terminal, and where `COLUMNS` says that
    /// somebody counts them. In a file of a log each message stays on one line, where it can be searched for.
    pub has_columns: bool,
}

impl Terminal {
    /// Looks at the streams, at what [`choose_colour`] was told, and at `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE`, `CI` and
    /// `TERM`.
    pub fn new() -> Terminal {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Terminal {
            has_colour: AutoStream::choice(&io::stderr()) != ColorChoice::Never,
            has_coloured_results: AutoStream::choice(&io::stdout()) != ColorChoice::Never,
            is_interactive: io::stderr().is_terminal() && !is_dumb && !is_set("CI"),
            has_columns: io::stderr().is_terminal() || is_set("COLUMNS"),
        }
    }

    /// A result: one or more lines on stdout, with their line feeds.
    pub fn result(&self, text: &str) {
        let mut out = io::stdout().lock();
        self.keep(out.write_all(on_lines(text, self.has_coloured_results).as_bytes()).and_then(|()| out.flush()));
    }

    /// Keeps an error of writing results until the command ends; a closed pipe is none.
    pub fn keep(&self, written: io::Result<()>) {
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            FAILURE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    /// Why results could not be written, if they could not: the command has failed then, whatever else it came to.
    pub fn failure(&self) -> Option<io::Error> {
        FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A result in sentences, with their line feeds: wide lines are broken.
    pub fn prose(&self, text: &str) {
        self.result(&fitted(text));
    }

    /// A result for programs: an object of JSON on a line of its own, the version of its form first, with what was told so
    /// far as `diagnostics`.
    pub fn json(&self, mut value: serde_json::Value) {
        if let Some(fields) = value.as_object_mut() {
            fields.insert("diagnostics".to_owned(), told().diagnostics.clone().into());
        }
        self.result(&document(value));
    }

    /// Ends a verb that was asked for JSON: one that failed before its document has one all the same.
    pub fn end_json(&self, exit: Exit) {
        if told().has_document || exit == Exit::Done {
            return;
        }
        let all = told().diagnostics.clone();
        let first = all.iter().find(|told| told["severity"] == "error").map(|told| {
            let span = &told["span"];
            let at = span["file"].as_str().map(|file| match span["line"].as_u64() {
                Some(line) => format!("{file}:{line}:{}", span["column"]),
                None => file.to_owned(),
            });
            serde_json::json!({ "task": null, "message": told["reason"], "help": told["help"], "at": at })
        });
        let (errors, warnings) = self.n_told();
        self.json(serde_json::json!({
            "ok": false, "exit_code": exit as u8, "errors": errors, "warnings": warnings, "error": first,
        }));
    }

    /// Everything told so far: errors and warnings with their places, as documents of JSON have them.
    pub fn diagnostics(&self) -> Vec<serde_json::Value> {
        told().diagnostics.clone()
    }

    /// The errors among what was told from the `n`-th thing on.
    pub fn errors_since(&self, n: usize) -> Vec<String> {
        let told = told();
        let errors = told.diagnostics.iter().skip(n).filter(|told| told["severity"] == "error");
        errors.map(|told| told["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// A line for the system that runs this, on stderr as it is.
    pub fn command(&self, line: &str) {
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    /// Errors and warnings so far.
    pub fn n_told(&self) -> (usize, usize) {
        let told = told();
        let n = |severity: &str| told.diagnostics.iter().filter(|told| told["severity"] == severity).count();
        (n("error"), n("warning"))
    }

    /// Keeps an error or a warning for a document of JSON; `span` is its place in a manifest, if it has one.
    pub fn keep_told(&self, severity: &str, reason: &str, help: Option<&str>, span: serde_json::Value) {
        let problem = serde_json::json!({ "severity": severity, "reason": reason, "help": help, "span": span });
        told().diagnostics.push(problem);
    }

    /// Part of a result that is long in coming, or that a program will read, on stdout: the bytes as they are, unless
    /// stdout is a terminal, which would obey them.
    ///
    /// # Errors
    /// Those of stdout: whoever computes for it can stop then.
    pub fn part(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if out.is_terminal() {
            out.write_all(on_lines(&String::from_utf8_lossy(bytes), false).as_bytes())?;
        } else {
            out.write_all(bytes)?;
        }
        out.flush()
    }

    /// A line on stderr, or a few.
    pub fn note(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{}", self.broken(&on_lines(text, self.has_colour)));
    }

    /// A rendered page of diagnostics on stderr.
    pub fn page(&self, text: &str) {
        let _ = io::stderr().lock().write_all(self.broken(&on_lines(text, self.has_colour)).as_bytes());
    }

    fn broken<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.has_columns { fitted(text) } else { Cow::Borrowed(text) }
    }

    /// `error: …`, with the action that helps on a line of its own.
    pub fn fault(&self, message: &str, help: Option<&str>) {
        self.keep_told("error", message, help, serde_json::Value::Null);
        self.note(&format!("{} {}", self.paint("error:", RED), on_line(message)));
        if let Some(help) = help {
            self.note(&format!("  help: {}", on_line(help)));
        }
    }

    /// `error: …`, with its chain of causes, one line each.
    pub fn error(&self, error: &anyhow::Error) {
        self.keep_told("error", &format!("{error:#}"), None, serde_json::Value::Null);
        let mut chain = error.chain();
        if let Some(first) = chain.next() {
            self.note(&format!("{} {}", self.paint("error:", RED), on_line(&first.to_string())));
        }
        for cause in chain {
            self.note(&format!("  caused by: {}", on_line(&cause.to_string())));
        }
    }

    /// `warning: …`.
    pub fn warning(&self, text: &str) {
        self.keep_told("warning", text, None, serde_json::Value::Null);
        self.note(&format!("{} {}", self.paint("warning:", YELLOW), on_line(text)));
    }

    /// `text` in a style, where colour is wanted on stderr.
    pub fn paint(&self, text: &str, style: &str) -> String {
        paint(text, style, self.has_colour)
    }

    /// `text` in a style, where colour is wanted on stdout.
    pub fn paint_result(&self, text: &str, style: &str) -> String {
        paint(text, style, self.has_coloured_results)
    }
}

fn paint(text: &str, style: &str, has_colour: bool) -> String {
    if has_colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

/// `text` with lines of at most [`COLUMNS`] columns, broken between words; what goes on is indented. Lines of a manifest, which
/// are shown behind a bar, stay as they are.
fn fitted(text: &str) -> Cow<'_, str> {
    let is_shown = |line: &str| line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(" |");
    if text.lines().all(|line| width(line) <= COLUMNS || is_shown(line)) {
        return Cow::Borrowed(text);
    }
    let fit = |line: &str| {
        if width(line) <= COLUMNS || is_shown(line) {
            return line.to_owned();
        }
        let rest = line.trim_start_matches(' ');
        let indent = " ".repeat(line.len() - rest.len());
        let broken = wrapped(rest, COLUMNS.saturating_sub(indent.len()), "    ");
        format!("{indent}{}", broken.replace('\n', &format!("\n{indent}")))
    };
    Cow::Owned(text.split('\n').map(fit).collect::<Vec<_>>().join("\n"))
}

/// The version of the form of every document of JSON that a verb prints; it is raised when a field changes or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// An object of JSON with the version of its form before its own fields.
#[derive(serde::Serialize)]
pub struct Document<T> {
    schema_version: u32,
    #[serde(flatten)]
    value: T,
}

impl<T> Document<T> {
    /// The document of an object.
    pub fn of(value: T) -> Document<T> {
        Document { schema_version: SCHEMA_VERSION, value }
    }
}

/// A document on a line.
pub fn document(value: impl serde::Serialize) -> String {
    told().has_document = true;
    // Maps of text and numbers: there is nothing that JSON could refuse.
    serde_json::to_string(&Document::of(value)).unwrap_or_default() + "\n"
}

/// Errors.
pub const RED: &str = "1;31";
/// Warnings.
pub const YELLOW: &str = "1;33";
/// Good news.
pub const GREEN: &str = "32";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_begin_with_the_version_of_their_form() {
        let text = document(serde_json::json!({ "a": 1, "Z": null }));
        assert_eq!(text, "{\"schema_version\":1,\"Z\":null,\"a\":1}\n");
    }
}
