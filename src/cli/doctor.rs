//! `doctor`: what this machine is and how fast the engine runs on it, to paste into a bug report.

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use super::Exit;
use super::arguments::StoreArguments;
use super::store::locate;
use super::terminal::Terminal;
use crate::engine::{Activation, Caches, Conv, ConvShape, Engine, Isa};
use crate::report::text::bytes;
use crate::runner;
use crate::store::{Access, Store};

/// `doctor`.
pub fn doctor(arguments: &StoreArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let mut text = String::new();
    let isas: Vec<String> = Isa::available().iter().map(ToString::to_string).collect();
    let caches = Caches::detect();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let _ = writeln!(text, "convoy {} ({})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let _ =
        writeln!(text, "processor        {}", proc_value("/proc/cpuinfo", "model name").unwrap_or("unknown".into()));
    let _ = writeln!(text, "cores            {cores}");
    let _ = writeln!(
        text,
        "caches           L1d {}, L2 {}, L3 {}",
        bytes(caches.l1 as u64),
        bytes(caches.l2 as u64),
        bytes(caches.l3 as u64)
    );
    let _ = writeln!(text, "memory           {}", memory());
    let _ = writeln!(text, "kernels          {} (of {})", Isa::detect(), isas.join(", "));
    let mut threads = vec![1];
    if cores > 1 {
        threads.push(cores);
    }
    for threads in threads {
        let engine = Engine::new(threads);
        engine.settle();
        let peak = (0..9).map(|_| engine.measure_peak()).fold(0.0, f64::max) / 1e9;
        let convolution = measure_convolution(&engine);
        let _ = writeln!(
            text,
            "speed            {threads} thread{}: {convolution:.0} GFLOP/s in a 3x3 convolution of 14x14x64, {:.0} % of the {peak:.0} that fused multiply-adds reach",
            if threads == 1 { "" } else { "s" },
            100.0 * convolution / peak
        );
    }
    let (dir, root) = locate(arguments);
    let _ = writeln!(text, "store            {}", dir.display());
    if dir.is_dir() {
        match Store::open(&dir, &root, Access::Look) {
            Ok(store) => match runner::cache_list(&store) {
                Ok(listed) => {
                    let size: u64 = listed.iter().map(|listed| listed.entry.size()).sum();
                    let _ = writeln!(text, "                 {} tasks, {}", listed.len(), bytes(size));
                }
                Err(error) => {
                    let _ = writeln!(text, "                 cannot be listed: {error}");
                }
            },
            Err(error) => {
                let _ = writeln!(text, "                 cannot be read: {error}");
            }
        }
    } else {
        let _ = writeln!(text, "                 is not there yet");
    }
    terminal.result(&text);
    Ok(Exit::Done)
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

fn memory() -> String {
    let kib =
        |key: &str| -> Option<u64> { proc_value("/proc/meminfo", key)?.split_whitespace().next()?.parse::<u64>().ok() };
    match (kib("MemTotal"), kib("MemAvailable")) {
        (Some(total), Some(available)) => format!("{}, {} available", bytes(total << 10), bytes(available << 10)),
        _ => "unknown".to_owned(),
    }
}
