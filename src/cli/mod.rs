//! Verbs; the only place for stdout, stderr, colour, signals, environment variables and exit codes.
//!
//! One file per verb (or family of verbs). A verb returns its exit code, or an error that is printed once, here.

mod annotations;
mod arguments;
mod cache;
mod changes;
mod check;
mod complete;
mod data;
mod dataset;
mod diff;
mod doctor;
mod embed;
mod evaluate;
mod event_log;
mod export;
mod gates;
mod git;
mod history;
mod init;
mod job;
mod leakage;
mod locked;
mod man;
mod manifest;
mod page;
mod predict;
mod progress;
mod rate;
mod report;
mod results;
mod run;
mod runs;
mod schema;
mod selftest;
mod status;
mod store;
mod summary;
mod terminal;
mod verify;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::ErrorKind;

use arguments::{Arguments, CacheVerb, DataVerb, ExportVerb, Verb};
use terminal::Terminal;

use crate::engine::Isa;

/// How the program ends. The numbers are part of the interface; `--help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// A stage failed.
    Failed = 1,
    /// The manifest or the command line is wrong.
    Usage = 2,
    /// Something is stale (`run --locked`, `check --locked`, `status --exit-code`).
    Stale = 3,
    /// The same inputs gave other bytes.
    NonDeterministic = 4,
    /// The store holds something corrupt (`verify`).
    Corrupt = 5,
    /// A metric gate failed.
    Gate = 6,
    /// Interrupted; what was finished is kept.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Runs the program with these arguments, the program's name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let is_json = arguments.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    terminal::choose_colour(&arguments);
    let terminal = Terminal::new();
    match complete::answer(&arguments) {
        Ok(true) => return Exit::Done.into(),
        Ok(false) => {}
        Err(error) => {
            terminal.fault(error.to_string().trim().trim_start_matches("error: "), None);
            return Exit::Usage.into();
        }
    }
    keep_decoders_quiet();
    run::fail_instead_of_dying();
    let matches = arguments::command().try_get_matches_from(&arguments);
    let arguments = match matches.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap's own errors and help pages: help goes to stdout with 0, errors to stderr with 2.
            let printed = error.print();
            if !error.use_stderr() {
                terminal.keep(printed);
            }
            if error.kind() == ErrorKind::InvalidSubcommand && arguments.get(1).is_some_and(|word| word == "export") {
                let rest = arguments[2..].iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
                terminal.note(&format!("  help: name the form first: `convoy export safetensors {rest}`"));
            }
            if let Some(variable) = arguments::refused_variable(&error) {
                terminal.note(&format!("  help: this is the value of the environment variable `{variable}`"));
            }
            if is_json && error.use_stderr() {
                let text = error.render().to_string();
                let reason = text.lines().next().unwrap_or_default();
                let reason = reason.strip_prefix("error: ").unwrap_or(reason);
                terminal.keep_told("error", reason, None, serde_json::Value::Null);
                terminal.end_json(Exit::Usage);
            }
            let exit = ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
            return if has_failed(&terminal) { Exit::Failed.into() } else { exit };
        }
    };
    if let Some(name) = std::env::var_os("CONVOY_ISA").filter(|name| !name.is_empty()) {
        match name.to_string_lossy().parse::<Isa>() {
            Ok(isa) => isa.force(),
            Err(message) => {
                terminal.fault(&format!("CONVOY_ISA: {message}"), None);
                if is_json {
                    terminal.end_json(Exit::Usage);
                }
                return Exit::Usage.into();
            }
        }
    }
    let exit = dispatch(arguments, &terminal).unwrap_or_else(|error| {
        terminal.error(&error);
        Exit::Failed
    });
    if is_json {
        terminal.end_json(exit);
    }
    if has_failed(&terminal) { Exit::Failed.into() } else { exit.into() }
}

/// Whether results could not be written; says why.
fn has_failed(terminal: &Terminal) -> bool {
    let failure = terminal.failure();
    if let Some(error) = &failure {
        terminal.fault(&format!("cannot write to stdout: {}", crate::files::reason(error)), None);
    }
    failure.is_some()
}

/// A decoder that panics on a hostile image is caught and named by ingest: its own message would only confuse.
fn keep_decoders_quiet() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !crate::data::decode::is_decoding() {
            hook(info);
        }
    }));
}

/// The files that a verb was told to write.
fn named_outputs(verb: &Verb) -> Vec<&Path> {
    let named = match verb {
        Verb::Run(run) => vec![&run.junit, &run.events],
        Verb::Check(check) => vec![&check.code_quality],
        Verb::Export { form } => vec![match form {
            ExportVerb::Safetensors(export) => &export.output,
            ExportVerb::Onnx(export) | ExportVerb::Npz(export) => &export.output,
            ExportVerb::Tensorboard(export) => &export.output,
        }],
        Verb::Data(data) => match &data.verb {
            DataVerb::Show { sheet, .. } => vec![sheet],
            _ => Vec::new(),
        },
        Verb::Cache(cache) => match &cache.verb {
            CacheVerb::Pack { file, .. } => return vec![file],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    named.into_iter().flatten().map(PathBuf::as_path).collect()
}

/// A manifest or a lock file is what a slip of the hand must not cost.
fn is_precious(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "toml" || end == "lock") && path.exists()
}

fn dispatch(arguments: Arguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    if let Some(path) = named_outputs(&arguments.verb).into_iter().find(|path| is_precious(path)) {
        let message = format!("`{}` is there already, and looks like a manifest or a lock file", path.display());
        terminal.fault(&message, Some("name another file to write to, or remove this one first"));
        return Ok(Exit::Usage);
    }
    match arguments.verb {
        Verb::Check(arguments) => check::check(&arguments, terminal),
        Verb::Predict(arguments) => predict::predict(&arguments, terminal),
        Verb::Evaluate(arguments) => evaluate::evaluate(&arguments, terminal),
        Verb::Export { form } => export::export(&form, terminal),
        Verb::Init(arguments) => init::init(&arguments, terminal),
        Verb::Completions(arguments) => {
            terminal.keep(terminal.part(&complete::script(arguments.shell)?));
            Ok(Exit::Done)
        }
        Verb::Man => {
            terminal.keep(terminal.part(man::page().as_bytes()));
            Ok(Exit::Done)
        }
        Verb::Run(arguments) => run::run(&arguments, terminal),
        Verb::Status(arguments) => status::status(&arguments, terminal),
        Verb::Why(arguments) => status::why(&arguments, terminal),
        Verb::Data(arguments) => data::data(&arguments.verb, terminal),
        Verb::Cache(arguments) => cache::cache(&arguments.verb, terminal),
        Verb::Verify(arguments) => verify::verify(arguments, terminal),
        Verb::Diff(arguments) => diff::diff(&arguments, terminal),
        Verb::Report(arguments) => report::report(&arguments, terminal),
        Verb::Runs(arguments) => runs::runs(&arguments, terminal),
        Verb::Summary(arguments) => summary::summary(&arguments, terminal),
        Verb::Schema(arguments) => schema::schema(&arguments, terminal),
        Verb::Selftest(arguments) => selftest::selftest(&arguments, terminal),
        Verb::Doctor(arguments) => doctor::doctor(&arguments, terminal),
    }
}
