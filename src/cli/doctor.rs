//! `doctor`: what this machine is and how fast the engine runs on it, to paste into a bug report.

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use super::Exit;
use super::arguments::{DoctorArguments, StoreArguments};
use super::store::locate;
use super::terminal::Terminal;
use crate::engine::{Activation, Caches, Conv, ConvShape, Engine, Isa};
use crate::report::text::bytes;
use crate::runner;
use crate::store::{Access, Store};

/// What is said of a machine: a name, what a person reads, and what a program does.
type Fact = (&'static str, String, serde_json::Value);

/// `doctor`.
pub fn doctor(arguments: &DoctorArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let facts = facts(arguments);
    if arguments.json {
        let mut json = serde_json::Map::new();
        for (name, _, value) in facts {
            match json.get_mut(name) {
                Some(serde_json::Value::Array(known)) => known.extend(value.as_array().cloned().unwrap_or_default()),
                _ => drop(json.insert(name.to_owned(), value)),
            }
        }
        terminal.json(json.into());
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    for (name, said, _) in facts {
        let _ = writeln!(text, "{name:<16} {said}");
    }
    terminal.result(&text);
    Ok(Exit::Done)
}

fn facts(arguments: &DoctorArguments) -> Vec<Fact> {
    let caches = Caches::detect();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let isas: Vec<String> = Isa::available().iter().map(ToString::to_string).collect();
    let names: Vec<&str> = Isa::available().iter().map(|isa| isa.name()).collect();
    let version = env!("CARGO_PKG_VERSION");
    let arch = std::env::consts::ARCH;
    let processor = proc_value("/proc/cpuinfo", "model name");
    let shown = processor.clone().unwrap_or_else(|| "unknown".to_owned());
    let mut facts: Vec<Fact> = vec![
        ("convoy", format!("{version} ({arch})"), format!("{version} ({arch})").into()),
        ("processor", shown, processor.into()),
        ("cores", cores.to_string(), cores.into()),
        (
            "caches",
            format!("L1d {}, L2 {}, L3 {}", bytes(caches.l1 as u64), bytes(caches.l2 as u64), bytes(caches.l3 as u64)),
            serde_json::json!({ "l1d": caches.l1, "l2": caches.l2, "l3": caches.l3 }),
        ),
        memory(),
        (
            "kernels",
            format!("{} (of {})", Isa::detect(), isas.join(", ")),
            serde_json::json!({ "used": Isa::detect().name(), "available": names }),
        ),
    ];
    let all = [1, cores];
    for &threads in &all[..if cores > 1 { 2 } else { 1 }] {
        let engine = Engine::new(threads);
        engine.settle();
        let peak = (0..9).map(|_| engine.measure_peak()).fold(0.0, f64::max) / 1e9;
        let convolution = measure_convolution(&engine);
        let plural = if threads == 1 { "" } else { "s" };
        let share = 100.0 * convolution / peak;
        facts.push((
            "speed",
            format!(
                "{threads} thread{plural}: {convolution:.0} GFLOP/s in a 3x3 convolution of 14x14x64, {share:.0} % of the {peak:.0} that fused multiply-adds reach"
            ),
            serde_json::json!([{ "threads": threads, "convolution_gflops": convolution, "peak_gflops": peak }]),
        ));
    }
    facts.extend(store_facts(&arguments.place));
    facts
}

/// Where the store is and what is in it.
fn store_facts(place: &StoreArguments) -> [Fact; 2] {
    let (dir, root) = locate(place);
    let listed = dir.is_dir().then(|| {
        let store = Store::open(&dir, &root, Access::Look).map_err(|error| format!("cannot be read: {error}"))?;
        runner::cache_list(&store).map_err(|error| format!("cannot be listed: {error}"))
    });
    let (said, json) = match listed {
        None => ("is not there yet".to_owned(), serde_json::Value::Null),
        Some(Ok(listed)) => {
            let size: u64 = listed.iter().map(|listed| listed.entry.size()).sum();
            let json = serde_json::json!({ "tasks": listed.len(), "bytes": size });
            (format!("{} tasks, {}", listed.len(), bytes(size)), json)
        }
        Some(Err(message)) => (message.clone(), serde_json::json!({ "error": message })),
    };
    let shown = dir.display().to_string();
    [("store", shown.clone(), shown.into()), ("stored", said, json)]
}

/// GFLOP/s of a middle layer: 64 images of 14x14x64, 64 filters of 3x3, the best of some runs.
fn measure_convolution(engine: &Engine) -> f64 {
    let shape = ConvShape {
        batch: 64,
        height: 14,
        width: 14,
        channels_in: 64,
        filters: 64,
        kernel_h: 3,
        kernel_w: 3,
        stride_h: 1,
        stride_w: 1,
        pad_top: 1,
        pad_bottom: 1,
        pad_left: 1,
        pad_right: 1,
        dilation_h: 1,
        dilation_w: 1,
        groups: 1,
    };
    let mut conv = Conv::new(engine, shape);
    let input = vec![0.5; 64 * 14 * 14 * 64];
    let weights = vec![0.25; 9 * 64 * 64];
    let mut output = vec![0.0; input.len()];
    let flops = 2.0 * (64 * 14 * 14 * 64) as f64 * (9 * 64) as f64;
    let mut best = f64::INFINITY;
    for _ in 0..12 {
        let started = Instant::now();
        conv.forward(64, &input, &weights, None, Activation::None, &mut output);
        best = best.min(started.elapsed().as_secs_f64());
    }
    flops / best / 1e9
}

fn proc_value(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory() -> Fact {
    let kib =
        |key: &str| -> Option<u64> { proc_value("/proc/meminfo", key)?.split_whitespace().next()?.parse::<u64>().ok() };
    let (said, json) = match (kib("MemTotal"), kib("MemAvailable")) {
        (Some(total), Some(available)) => (
            format!("{}, {} available", bytes(total << 10), bytes(available << 10)),
            serde_json::json!({ "total": total << 10, "available": available << 10 }),
        ),
        _ => ("unknown".to_owned(), serde_json::Value::Null),
    };
    ("memory", said, json)
}
