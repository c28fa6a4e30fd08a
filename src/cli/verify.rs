//! `verify`: re-executes recorded tasks in scratch, on one thread and on several, with one set of kernels or all of them.
//!
//! Which kernels run is chosen once in a process: for each other set the program starts itself, and reads what that prints.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::arguments::VerifyArguments;
use super::manifest::{run_error, threads, unknown_stage};
use super::progress::{Progress, Told};
use super::run::stop_on_signals;
use super::terminal::{GREEN, RED, Terminal};
use super::{Exit, manifest, store};
use crate::engine::Isa;
use crate::report::text;
use crate::runner::{FileDifference, Options, Plan, Recorded, RepeatError, Session};
use crate::store::Access;

/// `verify`.
pub fn verify(mut arguments: VerifyArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let is_asked = arguments.all || arguments.sample.is_some() || arguments.stage.is_some();
    // `verify train`: a word that is no file is a stage of the only manifest here.
    let word = arguments.manifest.manifest.as_ref().and_then(|path| path.to_str());
    let stage = word.filter(|word| !word.ends_with(".toml") && !std::path::Path::new(word).exists());
    if let Some(stage) = stage.map(str::to_owned) {
        if arguments.all || arguments.sample.is_some() {
            let other = if arguments.all { "--all" } else { "--sample" };
            let help = format!("leave out one of the two; a manifest is named by its file, `{stage}.toml`");
            terminal.fault(&format!("`{stage}` names one stage and `{other}` asks for tasks of all"), Some(&help));
            return Ok(Exit::Usage);
        }
        arguments.stage = Some(stage);
        arguments.manifest.manifest = None;
    } else if !is_asked && (arguments.manifest.manifest.is_some() || arguments.isa) {
        let help = "name a stage, or `--sample N`, or `--all`; without a manifest the stored files are hashed";
        terminal.fault("it is not said what to re-execute", Some(help));
        return Ok(Exit::Usage);
    } else if !is_asked {
        return store::verify(&arguments, terminal);
    }
    if arguments.isa { every_isa(&arguments, terminal) } else { this_isa(&arguments, terminal) }
}

/// What became of a task.
struct Verdict<'t> {
    task: &'t Recorded,
    threads: usize,
    differences: Vec<FileDifference>,
}

/// Re-executes with the kernels of this process.
fn this_isa(arguments: &VerifyArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let loaded = manifest::load_without_warnings(&arguments.manifest, terminal)?;
    let Some(manifest) = loaded else { return Ok(Exit::Usage) };
    let places = &arguments.places;
    let stages = match &arguments.stage {
        None => None,
        Some(name) => {
            let called = manifest.stages_called(name);
            if called.is_empty() {
                unknown_stage(&manifest, name, terminal);
                return Ok(Exit::Usage);
            }
            Some(called)
        }
    };
    let cancel = Arc::new(AtomicBool::new(false));
    let n_threads = threads(places).max(2);
    let opened = Session::open(&manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), Access::Write);
    let planned = opened.and_then(|session| {
        let plan = session.plan(&Options::new(n_threads, &cancel))?;
        Ok((session, plan))
    });
    let (session, plan) = match planned {
        Ok(planned) => planned,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    stop_on_signals(&cancel)?;
    let (mut tasks, n_absent) = plan.recorded(stages.as_deref());
    let n_recorded = tasks.len();
    if let Some(n) = arguments.sample {
        // Digests are as good as chance, and the same ones are picked each time.
        let mut fingerprints: Vec<_> = tasks.iter().map(|task| task.fingerprint).collect();
        fingerprints.sort_unstable();
        fingerprints.truncate(n as usize);
        tasks.retain(|task| fingerprints.contains(&task.fingerprint));
        let n = tasks.len();
        terminal.note(&format!("{n} of {n_recorded} recorded tasks, those with the smallest fingerprints"));
    }
    let mut found = Vec::new();
    let mut failures: Vec<(&Recorded, RepeatError)> = Vec::new();
    let progress = Progress::new(*terminal, arguments.quiet);
    let mut n_done = 0;
    for task in &tasks {
        progress.begin(Told { task: &task.name, stage: &task.stage, is_trial: false }, "");
        let before = found.len();
        let failed = reexecute(&session, &plan, task, n_threads, &cancel, &progress, &mut found);
        let outcome = match &failed {
            Err(RepeatError::Cancelled) => "stopped",
            Err(_) => "failed",
            Ok(()) if found.len() > before => "other bytes",
            Ok(()) => "same bytes",
        };
        progress.end(&task.name, outcome);
        match failed {
            Ok(()) => n_done += 1,
            Err(RepeatError::Cancelled) => break,
            Err(error) => failures.push((task, error)),
        }
    }
    progress.finish();
    drop(progress);
    for warning in session.store.take_warnings() {
        terminal.warning(&warning);
    }
    let is_interrupted = cancel.load(Ordering::Relaxed);
    let isa = Isa::detect().name();
    for verdict in &found {
        for difference in &verdict.differences {
            let (task, file) = (&verdict.task.name, &difference.file);
            let s = if verdict.threads == 1 { "" } else { "s" };
            let on = format!("on {} thread{s}, {isa}", verdict.threads);
            terminal.fault(&format!("{task}: `{file}` came out otherwise ({on}): {}", difference.first), None);
        }
    }
    for (task, error) in &failures {
        terminal.fault(&format!("{}: cannot be re-executed: {error}", task.name), None);
    }
    if n_absent > 0 && arguments.sample.is_none() || n_recorded == 0 {
        let message = format!("{n_absent} tasks are not recorded: they are stale, and were not verified");
        terminal.fault(&message, Some("`convoy run` computes and records them"));
    }
    let is_damaged = failures.iter().any(|(_, error)| matches!(error, RepeatError::Store(_) | RepeatError::Unknown));
    let exit = if is_interrupted {
        Exit::Interrupted
    } else if is_damaged {
        Exit::Corrupt
    } else if !found.is_empty() {
        Exit::NonDeterministic
    } else if !failures.is_empty() {
        Exit::Failed
    } else if n_recorded == 0 || n_absent > 0 && arguments.sample.is_none() {
        Exit::Stale
    } else {
        Exit::Done
    };
    let seconds = started.elapsed().as_secs_f64();
    if arguments.json {
        let differences = found.iter().flat_map(|verdict| {
            verdict.differences.iter().map(|difference| {
                json!({
                    "task": verdict.task.name, "threads": verdict.threads, "isa": isa, "file": difference.file,
                    "recorded": difference.recorded, "computed": difference.computed, "first": difference.first,
                })
            })
        });
        let failed = failures.iter().map(|(task, error)| json!({ "task": task.name, "message": error.to_string() }));
        terminal.json(json!({
            "pipeline": manifest.name, "equal": exit == Exit::Done, "exit_code": exit as u8, "isa": [isa],
            "threads": [1, n_threads], "recorded": n_recorded, "not_recorded": n_absent, "reexecuted": n_done,
            "tasks": tasks.iter().map(|task| {
                json!({ "task": task.name, "fingerprint": task.fingerprint })
            }).collect::<Vec<_>>(),
            "differences": differences.collect::<Vec<_>>(), "failures": failed.collect::<Vec<_>>(),
        }));
    } else {
        let line = line(isa, n_done, n_threads, found.len(), seconds, terminal);
        terminal.result(&format!("{}: {line}\n", manifest.name));
    }
    Ok(exit)
}

/// `13 tasks re-executed on 1 and 2 threads, avx512: the same bytes (1.2 s)`.
fn line(isa: &str, n_done: usize, threads: usize, n_other: usize, seconds: f64, terminal: &Terminal) -> String {
    let s = if n_done == 1 { "" } else { "s" };
    let verdict = match n_other {
        0 if n_done == 0 => terminal.paint_result("nothing was verified", RED),
        0 => terminal.paint_result("the same bytes", GREEN),
        _ => terminal.paint_result("other bytes", RED),
    };
    let seconds = text::seconds(seconds);
    format!("{n_done} task{s} re-executed on 1 and {threads} threads, {isa}: {verdict} ({seconds})")
}

/// Re-executes a task on one thread and on so many.
fn reexecute<'t>(
    session: &Session<'_>,
    plan: &Plan,
    task: &'t Recorded,
    n_threads: usize,
    cancel: &AtomicBool,
    progress: &Progress,
    found: &mut Vec<Verdict<'t>>,
) -> Result<(), RepeatError> {
    let told = |done: u64, total: u64, unit: &str, note: &str| progress.update(&task.name, done, total, unit, note);
    for threads in [1, n_threads] {
        let differences = session.reexecute(plan, task, threads, cancel, &told)?;
        if !differences.is_empty() {
            found.push(Verdict { task, threads, differences });
        }
    }
    Ok(())
}

/// Starts the program once for each instruction set, and says what all of them came to.
fn every_isa(arguments: &VerifyArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let cancel = Arc::new(AtomicBool::new(false));
    stop_on_signals(&cancel)?;
    let mut documents: Vec<Value> = Vec::new();
    let mut worst = Exit::Done;
    for isa in Isa::available() {
        let started = Instant::now();
        if !arguments.quiet {
            terminal.note(&format!("kernels {isa}:"));
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.args(child_arguments(arguments)).env("CONVOY_ISA", isa.name());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            output.map(|mut output| std::io::Read::read_to_string(&mut output, &mut text));
            text
        });
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if cancel.load(Ordering::Relaxed) {
                // A signal to this process alone does not reach it.
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let text = reader.join().unwrap_or_default();
        let document: Option<Value> = serde_json::from_str(&text).ok().filter(|json: &Value| json["isa"].is_array());
        let exit = if cancel.load(Ordering::Relaxed) { Exit::Interrupted } else { exit_of(status.code()) };
        let Some(document) = document else {
            // It has said why on stderr.
            if arguments.json && !text.is_empty() {
                terminal.result(&text);
            }
            return Ok(if exit == Exit::Done { Exit::Failed } else { exit });
        };
        if !arguments.json {
            let number = |name: &str| document[name].as_u64().unwrap_or_default() as usize;
            let n_other = document["differences"].as_array().map_or(0, Vec::len);
            let threads = document["threads"][1].as_u64().unwrap_or_default() as usize;
            let seconds = started.elapsed().as_secs_f64();
            let line = line(isa.name(), number("reexecuted"), threads, n_other, seconds, terminal);
            terminal.result(&format!("{}: {line}\n", document["pipeline"].as_str().unwrap_or_default()));
        }
        documents.push(document);
        worst = worse(worst, exit);
        if exit == Exit::Interrupted {
            break;
        }
    }
    if arguments.json {
        let lists = |name: &str| -> Vec<Value> {
            documents.iter().flat_map(|document| document[name].as_array().cloned().unwrap_or_default()).collect()
        };
        let mut json = documents.first().cloned().unwrap_or_default();
        if let Some(json) = json.as_object_mut() {
            json.remove("schema_version");
            json.insert("equal".to_owned(), (worst == Exit::Done).into());
            json.insert("exit_code".to_owned(), (worst as u8).into());
            for name in ["isa", "differences", "failures"] {
                json.insert(name.to_owned(), lists(name).into());
            }
        }
        terminal.json(json);
    }
    Ok(worst)
}

/// The arguments of a child: the same, for one set of kernels and as JSON.
fn child_arguments(arguments: &VerifyArguments) -> Vec<std::ffi::OsString> {
    let mut out: Vec<std::ffi::OsString> = vec!["verify".into(), "--json".into()];
    let mut option = |name: &str, value: std::ffi::OsString| out.extend([name.into(), value]);
    for set in &arguments.manifest.sets {
        option("--set", set.into());
    }
    if let Some(profile) = &arguments.manifest.profile {
        option("--profile", profile.into());
    }
    if let Some(dir) = &arguments.places.cache_dir {
        option("--cache-dir", dir.into());
    }
    if let Some(dir) = &arguments.places.data_dir {
        option("--data-dir", dir.into());
    }
    if let Some(threads) = arguments.places.threads {
        option("--threads", threads.to_string().into());
    }
    if let Some(n) = arguments.sample {
        option("--sample", n.to_string().into());
    }
    out.extend(arguments.all.then(|| "--all".into()));
    out.extend(arguments.quiet.then(|| "--quiet".into()));
    // Behind `--` nothing is an option; a stage alone stands for one of the only manifest.
    out.push("--".into());
    out.extend(arguments.manifest.manifest.iter().map(|path| path.clone().into_os_string()));
    out.extend(arguments.stage.iter().map(|stage| stage.into()));
    out
}

fn exit_of(code: Option<i32>) -> Exit {
    let all =
        [Exit::Done, Exit::Usage, Exit::Stale, Exit::NonDeterministic, Exit::Corrupt, Exit::Gate, Exit::Interrupted];
    all.into_iter().find(|exit| code == Some(*exit as i32)).unwrap_or(Exit::Failed)
}

/// The graver one of two: what was interrupted, then what is corrupt, then other bytes, then failures.
fn worse(a: Exit, b: Exit) -> Exit {
    let rank = |exit: Exit| match exit {
        Exit::Done => 0,
        Exit::Gate => 1,
        Exit::Stale => 2,
        Exit::Failed => 3,
        Exit::Usage => 4,
        Exit::NonDeterministic => 5,
        Exit::Corrupt => 6,
        Exit::Interrupted => 7,
    };
    if rank(b) > rank(a) { b } else { a }
}
