//! The command line: verbs and their options, with the help that people read.

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Args, Command, CommandFactory, Parser, Subcommand};

use super::terminal::Colour;
use crate::manifest::Overrides;

/// Reproducible image-classification pipelines on CPUs.
#[derive(Debug, Parser)]
#[command(name = "convoy", version, about, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// When to colour: auto, always or never [default: auto] [env: CONVOY_COLOR].
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        env = "CONVOY_COLOR",
        hide_env = true,
        hide_possible_values = true
    )]
    pub color: Option<Colour>,
}

/// Blocks with a title each; the manual has them as sections.
pub const EXIT_CODES: &str = "\
Exit codes:
  0 done                               4 the same inputs gave other bytes
  1 a stage failed                     5 the store holds something corrupt (verify)
  2 manifest or usage                  6 a metric gate failed
  3 stale (--locked, --exit-code)    130 interrupted (finished work is kept)

Environment (options win; an empty variable counts as not set):
  CONVOY_CACHE, CONVOY_DATA, CONVOY_OUT, CONVOY_THREADS, CONVOY_COLOR
      as --cache-dir, --data-dir, --out-dir, --threads, --color
  CONVOY_ISA=avx512|avx2|portable      forces the kernels; the bytes are the same
  NO_COLOR, CLICOLOR_FORCE             no colour, colour everywhere
  CI                                   plain lines, no colour

With --json a verb prints an object (predict: one a line) that begins with schema_version.";

/// `500MiB`, `2GiB`, `1000000`.
pub fn parse_size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    let unit: u64 = match text[split..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).filter(|&bytes| bytes > 0);
    bytes.ok_or_else(|| "expected a size such as `400MiB` or `2GiB`".to_owned())
}

fn time(text: &str) -> Result<u64, String> {
    let most = 366 * 24 * 3600;
    let seconds = crate::config::seconds(text).filter(|seconds| (1..=most).contains(seconds));
    seconds.ok_or_else(|| "expected a time such as `90m`, `1h30m` or `3600` (seconds)".to_owned())
}

/// The command line as clap knows it. An environment variable that is empty counts as not set.
pub fn command() -> Command {
    fn without_empty(command: Command) -> Command {
        let is_empty = |arg: &Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        // No variable has an empty name.
        let command = command.mut_args(|arg| if is_empty(&arg) { arg.env("") } else { arg });
        command.mut_subcommands(without_empty)
    }
    without_empty(Arguments::command())
}

/// Which variable of the environment gave the value that clap refused, if one did.
pub fn refused_variable(error: &clap::Error) -> Option<String> {
    let ContextValue::String(refused) = error.get(ContextKind::InvalidValue)? else { return None };
    let ContextValue::String(option) = error.get(ContextKind::InvalidArg)? else { return None };
    let named = |name: &str| format!("CONVOY_{}", name.trim_end_matches("-dir").replace('-', "_").to_uppercase());
    let variable = named(option.strip_prefix("--")?.split([' ', '=']).next()?);
    (std::env::var(&variable).ok()? == *refused).then_some(variable)
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run what is stale, and write the reports.
    Run(RunArguments),
    /// Check a manifest without touching pixels.
    Check(CheckArguments),
    /// Print each network's layers: shapes, parameters, multiply-adds, receptive field, memory.
    Summary(SummaryArguments),
    /// Print which tasks are fresh and which are stale, and why.
    Status(StatusArguments),
    /// Explain why a stage is stale: key, old value, new value, line.
    Why(WhyArguments),
    /// Say what changed: keys, data, metrics, predictions, gates. Between Git revisions, lock files, folders of reports or
    /// runs.
    Diff(DiffArguments),
    /// List what was run: when, with which keys changed, and what came of it.
    Runs(RunsArguments),
    /// Write the reports of finished results anew, or one page to a file; nothing is computed.
    Report(ReportArguments),
    /// Predict the classes of images with a finished model, as CSV on stdout.
    Predict(PredictArguments),
    /// Evaluate a finished model on new labelled images, with the whole report.
    Evaluate(EvaluateArguments),
    /// Write a finished model to one file that needs neither manifest nor store, or its trainings for TensorBoard.
    Export {
        /// In which form.
        #[command(subcommand)]
        form: ExportVerb,
    },
    /// Write a small manifest to start from.
    Init(InitArguments),
    /// Look at the data sets of the catalogue.
    Data(DataArguments),
    /// Look at and clean the store.
    Cache(CacheArguments),
    /// Check the digest of every stored file; or re-execute recorded tasks and compare what they give.
    Verify(VerifyArguments),
    /// Check that this program computes as it should on this machine; or, with `training`, a manifest's networks.
    Selftest(SelftestArguments),
    /// Print processor, kernels, caches, measured speed and store: something to paste into a bug report.
    Doctor(DoctorArguments),
    /// Explain the keys of manifests: meaning, values, default and an example of each; and the columns of reports.
    Schema(SchemaArguments),
    /// Print the manual page, for `man -l`: every verb with its options.
    Man,
    /// Print a completion script for a shell.
    Completions(CompletionsArguments),
}

/// Which manifest, and what to change in it.
#[derive(Args, Clone, Debug)]
pub struct ManifestArguments {
    /// The manifest [default: the only *.toml with a [stages…] table here].
    pub manifest: Option<PathBuf>,
    /// Override a key, e.g. stages.train.learning_rate=0.01 (repeatable).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Apply the overrides of [profile.NAME].
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
}

impl ManifestArguments {
    /// The overrides they ask for.
    pub fn overrides(&self) -> Overrides {
        Overrides { sets: self.sets.clone(), profile: self.profile.clone() }
    }
}

/// Where things are, and how wide to run.
#[derive(Args, Clone, Debug)]
pub struct PlaceArguments {
    /// Where artifacts are kept [default: .convoy at the project's root] [env: CONVOY_CACHE].
    #[arg(long, value_name = "DIR", env = "CONVOY_CACHE", hide_env = true)]
    pub cache_dir: Option<PathBuf>,
    /// Where data sets of the catalogue are looked for first [env: CONVOY_DATA].
    #[arg(long, value_name = "DIR", env = "CONVOY_DATA", hide_env = true)]
    pub data_dir: Option<PathBuf>,
    /// Threads to use [default: one per processor] [env: CONVOY_THREADS]. Never changes a byte.
    #[arg(long, value_name = "N", env = "CONVOY_THREADS", hide_env = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// `run`.
#[derive(Args, Debug)]
pub struct RunArguments {
    /// Which manifest.
    #[command(flatten)]
    pub manifest: ManifestArguments,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// Run everything so often, each time with another seed that follows from the manifest's; the first time with that
    /// itself. The same as `--set repeats=N`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repeats: Option<u16>,
    /// Say what would run, and why, and run nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Where reports are put, each pipeline's in a folder of its name [default: out at the project's root] [env:
    /// CONVOY_OUT].
    #[arg(long, value_name = "DIR", env = "CONVOY_OUT", hide_env = true)]
    pub out_dir: Option<PathBuf>,
    /// Run these stages even if they are fresh (repeatable).
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// Only this stage and what it reads; the lock file is left alone.
    #[arg(long, value_name = "STAGE")]
    pub to: Option<String>,
    /// At most so many tasks side by side [default: as many as there are threads]. Threads are shared by those that run.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// The memory that this process may take, such as 2GiB: fewer tasks run side by side then [default: what control
    /// groups, `ulimit` and the machine leave]. Never changes a byte.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory: Option<u64>,
    /// Begin no more tasks after this time, such as 90m, 1h30m or 3600 (seconds): what runs is finished or kept as a
    /// checkpoint. Exits with 1 then; running again goes on.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub time_limit: Option<u64>,
    /// Use no network. A run never does: a data set that is not here is an error, which `convoy data fetch` mends before.
    #[arg(long)]
    pub offline: bool,
    /// Compare with the lock file and exit with 3 where they differ; never write it. Nothing is computed where the lock
    /// file is stale by a key.
    #[arg(long, conflicts_with = "to")]
    pub locked: bool,
    /// With `--locked`: compute what is stale all the same, and compare the results.
    #[arg(long, requires = "locked")]
    pub recompute: bool,
    /// With `--locked`: name every task that differs, with its digests.
    #[arg(long, requires = "locked")]
    pub verbose: bool,
    /// Write the lock file anew even where it says that the same inputs gave other bytes, or cannot be read.
    #[arg(long, conflicts_with = "locked")]
    pub relock: bool,
    /// Write a case per gate, check and task as JUnit's XML, for the page of a CI job. The bytes depend on no time.
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub junit: Option<PathBuf>,
    /// With `--junit`: the seconds that tasks took.
    #[arg(long, requires = "junit")]
    pub junit_times: bool,
    /// Write what goes on as JSON lines: the plan with its reasons, tasks, gates, the verdict.
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub events: Option<PathBuf>,
    /// Compute again what is known by its record only, as it came out of `cache unpack`: every file is here then.
    #[arg(long)]
    pub all_files: bool,
    /// Print the results as JSON.
    #[arg(long)]
    pub json: bool,
    /// No progress.
    #[arg(long, short)]
    pub quiet: bool,
}

/// `check`.
#[derive(Args, Debug)]
pub struct CheckArguments {
    /// Which manifest.
    #[command(flatten)]
    pub manifest: ManifestArguments,
    /// Compare with the lock file, from the manifest, the lock file and the records in the store alone; exit with 3 where
    /// a run would come to something else.
    #[arg(long)]
    pub locked: bool,
    /// Look at the data, too: that it is there, its classes, sizes, channels and own splits, whether folds can be made.
    #[arg(long, conflicts_with = "locked")]
    pub data: bool,
    /// With `--locked`: read the sources, too.
    #[arg(long, requires = "locked")]
    pub inputs: bool,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// Write what is wrong as GitLab's code-quality report.
    #[arg(long, value_name = "FILE")]
    pub code_quality: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `summary`.
#[derive(Args, Debug)]
pub struct SummaryArguments {
    /// Which manifest.
    #[command(flatten)]
    pub manifest: ManifestArguments,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// Print each architecture in its other spelling (shorthand or long form), to paste into a manifest.
    #[arg(long)]
    pub toml: bool,
    /// Print the tables as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `status`.
#[derive(Args, Debug)]
pub struct StatusArguments {
    /// Which manifest.
    #[command(flatten)]
    pub manifest: ManifestArguments,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// Exit with 3 if anything is stale.
    #[arg(long)]
    pub exit_code: bool,
    /// Print the plan as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `report`.
#[derive(Args, Debug)]
pub struct ReportArguments {
    /// Which manifest.
    #[command(flatten)]
    pub manifest: ManifestArguments,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// Where reports are put, each pipeline's in a folder of its name [default: out at the project's root] [env:
    /// CONVOY_OUT].
    #[arg(long, value_name = "DIR", env = "CONVOY_OUT", hide_env = true)]
    pub out_dir: Option<PathBuf>,
    /// Write the page, one file of HTML, here and nothing else.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// With `--output`: what the last run took, on how many threads. The bytes are then not the same for every run.
    #[arg(long, requires = "output")]
    pub times: bool,
    /// Print what was written as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `why`.
#[derive(Args, Debug)]
pub struct WhyArguments {
    /// The stage.
    pub stage: String,
    /// Which manifest.
    #[command(flatten)]
    pub manifest: ManifestArguments,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// Print the reasons as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `diff`.
#[derive(Args, Debug)]
pub struct DiffArguments {
    /// Before: a Git revision, a lock file, a folder of reports (out/NAME), a `metrics.csv`, or a run as `convoy runs`
    /// lists it [default: the merge base of HEAD and the main branch].
    pub a: Option<PathBuf>,
    /// After [default: the manifest and the lock file here].
    pub b: Option<PathBuf>,
    /// The manifest [default: the only *.toml with a [stages…] table here].
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// The profile whose lock files are compared.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Exit with 6 if this metric [default: accuracy] of what was evaluated is worse beyond noise: McNemar's p below 0.05,
    /// or 0 outside the 95 % interval of the difference. Where noise cannot be told, worse is enough; where nothing is known
    /// of a side, it fails. On the test split where there is one.
    #[arg(long, value_name = "METRIC", num_args = 0..=1, require_equals = true, default_missing_value = "accuracy")]
    pub fail_on_worse: Option<String>,
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArguments,
    /// Print Markdown, for a comment on a pull request.
    #[arg(long, conflicts_with = "json")]
    pub md: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `runs`.
#[derive(Args, Debug)]
pub struct RunsArguments {
    /// Only this pipeline.
    #[arg(value_name = "NAME")]
    pub pipeline: Option<String>,
    /// How many [default: 20].
    #[arg(long, short, value_name = "N")]
    pub number: Option<u32>,
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArguments,
    /// Print the list as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `predict`.
#[derive(Args, Debug)]
pub struct PredictArguments {
    /// A manifest that has been run (its last ensemble, else its last model, or --stage), or a file that `convoy export`
    /// wrote.
    pub model: PathBuf,
    /// Images, and folders of images (walked, hidden files left out); `-` reads one path a line from stdin.
    #[arg(required = true, value_name = "FILES")]
    pub files: Vec<PathBuf>,
    /// Predict with this stage of the manifest.
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<String>,
    /// Print the K most probable classes of each image instead of every class's probability.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..))]
    pub top: Option<u16>,
    /// Instead of predictions, write what one network makes of each image before its last layer: an array of single
    /// precision, a row an image, and beside it an index of the images' paths (`FILE.csv`).
    #[arg(long, value_name = "FILE.npy", conflicts_with = "top")]
    pub embeddings: Option<PathBuf>,
    /// Which of the model's networks `--embeddings` is about, from 1.
    #[arg(long, value_name = "N", requires = "embeddings", value_parser = clap::value_parser!(u16).range(1..))]
    pub network: Option<u16>,
    /// Override a key of the manifest, as `run` was told to (repeatable).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Apply the overrides of [profile.NAME], as `run` was told to.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// Print one JSON object per image, a line each.
    #[arg(long)]
    pub json: bool,
    /// No progress and no summary; unreadable images are still named.
    #[arg(long, short)]
    pub quiet: bool,
}

/// `evaluate`.
#[derive(Args, Debug)]
pub struct EvaluateArguments {
    /// A manifest that has been run (its last ensemble, else its last model, or --stage), or a file that `convoy export`
    /// wrote.
    pub model: PathBuf,
    /// Labelled images, as `source` of `ingest` takes them: a folder with a folder a class, a table, an archive, a name of the
    /// catalogue. Classes are matched with the model's by name. Nothing can tell whether the model has learned from them.
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// Write the whole report into this folder: report.html, tables, pictures.
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Evaluate only images that the source puts into this split: train, validation or test.
    #[arg(long, value_name = "SPLIT")]
    pub split: Option<String>,
    /// A metric to report (repeatable) [default: as `metrics` of `evaluate`].
    #[arg(long = "metric", value_name = "METRIC")]
    pub metrics: Vec<String>,
    /// What a metric must reach, as 'accuracy>=0.9' (repeatable); exit code 6 where one is missed.
    #[arg(long = "gate", value_name = "GATE")]
    pub gates: Vec<String>,
    /// Report also by the values of this column of the table (repeatable).
    #[arg(long = "by", value_name = "COLUMN")]
    pub by: Vec<String>,
    /// Data sets drawn for the 95 % interval of every metric [default: only the accuracy has one].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub bootstrap: Option<u32>,
    /// The file of labels, where the source has them apart.
    #[arg(long, value_name = "FILE")]
    pub labels: Option<String>,
    /// The folder that a table's paths are relative to.
    #[arg(long, value_name = "DIR")]
    pub root: Option<String>,
    /// Evaluate this stage of the manifest.
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<String>,
    /// Override a key of the manifest, as `run` was told to (repeatable).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Apply the overrides of [profile.NAME], as `run` was told to.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// Print the results as JSON.
    #[arg(long)]
    pub json: bool,
    /// No progress and no notes.
    #[arg(long, short)]
    pub quiet: bool,
}

/// The forms of `export`.
#[derive(Debug, Subcommand)]
pub enum ExportVerb {
    /// One safetensors file: the networks' weights, the preprocessing before them, the classes. `convoy predict` reads it.
    Safetensors(ExportArguments),
    /// One ONNX file: from the bytes of decoded images to probabilities and a label, preprocessing and ensemble included.
    Onnx(ModelExportArguments),
    /// One NPZ file: every number of the networks and of the preprocessing before them, for NumPy.
    Npz(ModelExportArguments),
    /// A folder of event files: loss, accuracy, learning rate and norms of layers by epoch, for TensorBoard.
    Tensorboard(TensorboardArguments),
}

/// `export onnx`, `export npz`.
#[derive(Args, Debug)]
pub struct ModelExportArguments {
    /// A manifest that has been run (its last ensemble, else its last model, or --stage), or a file that `convoy export
    /// safetensors` wrote [default: the only *.toml with a [stages…] table here].
    pub model: Option<PathBuf>,
    /// Export this stage of the manifest.
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<String>,
    /// Where to write it [default: out/NAME/STAGE.onnx or .npz; beside MODEL, if that is a file].
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Override a key of the manifest, as `run` was told to (repeatable).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Apply the overrides of [profile.NAME], as `run` was told to.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Where `out` is, as `run` was told [env: CONVOY_OUT].
    #[arg(long, value_name = "DIR", env = "CONVOY_OUT", hide_env = true)]
    pub out_dir: Option<PathBuf>,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// Print what was written as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `export tensorboard`.
#[derive(Args, Debug)]
pub struct TensorboardArguments {
    /// Which manifest.
    #[command(flatten)]
    pub manifest: ManifestArguments,
    /// Only the trainings of this stage.
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<String>,
    /// The log directory to write to [default: out/NAME/tensorboard].
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Where `out` is, as `run` was told [env: CONVOY_OUT].
    #[arg(long, value_name = "DIR", env = "CONVOY_OUT", hide_env = true)]
    pub out_dir: Option<PathBuf>,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// Print what was written as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `export`.
#[derive(Args, Debug)]
pub struct ExportArguments {
    /// Which manifest.
    #[command(flatten)]
    pub manifest: ManifestArguments,
    /// The model [default: the last ensemble, else the last model].
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<String>,
    /// Where to write it [default: out/NAME/STAGE.safetensors].
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Where `out` is, as `run` was told [env: CONVOY_OUT].
    #[arg(long, value_name = "DIR", env = "CONVOY_OUT", hide_env = true)]
    pub out_dir: Option<PathBuf>,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// Print what was written as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `init`.
#[derive(Args, Debug)]
pub struct InitArguments {
    /// What to start from, and where to write it, a folder or a file: `photos`, `photos work`, `work/first.toml` [default: digits,
    /// pipeline.toml]. There are digits (built in), folder (small images, a folder a class), photos (larger ones), csv (a table of
    /// paths), search (settings by chance) and pca.
    #[arg(num_args = 0..=2, value_names = ["TEMPLATE", "DIR"])]
    pub what: Vec<PathBuf>,
    /// Look at this data (a folder, a table, an archive) and write a manifest that fits it.
    #[arg(long, value_name = "DATA")]
    pub from: Option<PathBuf>,
    /// Print the file's name and what was found as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `data`.
#[derive(Args, Debug)]
pub struct DataArguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: DataVerb,
}

/// The verbs of `data`.
#[derive(Debug, Subcommand)]
pub enum DataVerb {
    /// List the catalogue, with the project's own entries in datasets/.
    List {
        /// Print the list as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what a data set holds: classes with counts, sizes, own splits.
    Show {
        /// A data set of the catalogue, or a folder or file.
        data: String,
        /// Draw a sheet of samples, a row for each class, as PNG.
        #[arg(long, value_name = "FILE")]
        sheet: Option<PathBuf>,
        /// Where data sets of the catalogue are looked for first [env: CONVOY_DATA].
        #[arg(long, value_name = "DIR", env = "CONVOY_DATA", hide_env = true)]
        data_dir: Option<PathBuf>,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Load a data set's files, or one file, over HTTP: resumed, checked by size and SHA-256, from one mirror after another.
    Fetch {
        /// A data set of the catalogue, or an address of a file.
        data: String,
        /// Of a file from an address: its SHA-256. Without it the file is not checked, and its SHA-256 is told.
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
        /// Of a file from an address: what to call it [default: the end of the address].
        #[arg(long = "name", value_name = "FILE")]
        called: Option<String>,
        /// Where data sets are put, and looked for first [default: datasets at the project's root] [env: CONVOY_DATA].
        #[arg(long, value_name = "DIR", env = "CONVOY_DATA", hide_env = true)]
        data_dir: Option<PathBuf>,
        /// Ask nobody: check what is here, and fail if something is not.
        #[arg(long)]
        offline: bool,
        /// After so many seconds of silence the next mirror is asked.
        #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
        timeout: u64,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
        /// No progress.
        #[arg(long, short)]
        quiet: bool,
    },
    /// Check a data set's files against their SHA-256.
    Verify {
        /// The data set.
        name: String,
        /// Where data sets of the catalogue are looked for first [env: CONVOY_DATA].
        #[arg(long, value_name = "DIR", env = "CONVOY_DATA", hide_env = true)]
        data_dir: Option<PathBuf>,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write an entry for your own data, with the SHA-256 of every file: `source = "NAME"` then reads these files and no
    /// others.
    Add {
        /// A folder or a file below the project's root, or the folder NAME in --data-dir.
        dir: PathBuf,
        /// What to call it [default: the folder's name].
        #[arg(long = "name", value_name = "NAME")]
        called: Option<String>,
        /// Write the entry anew where there is another one.
        #[arg(long)]
        replace: bool,
        /// Where data sets of the catalogue are looked for first [env: CONVOY_DATA].
        #[arg(long, value_name = "DIR", env = "CONVOY_DATA", hide_env = true)]
        data_dir: Option<PathBuf>,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Where the store is.
#[derive(Args, Clone, Debug)]
pub struct StoreArguments {
    /// Where artifacts are kept [default: .convoy at the project's root] [env: CONVOY_CACHE].
    #[arg(long, value_name = "DIR", env = "CONVOY_CACHE", hide_env = true)]
    pub cache_dir: Option<PathBuf>,
}

/// `verify`.
#[derive(Args, Debug)]
#[command(
    after_help = "Without a stage, --sample and --all every stored file is read and compared with its digest (--store)."
)]
pub struct VerifyArguments {
    /// Which manifest.
    #[command(flatten)]
    pub manifest: ManifestArguments,
    /// Re-execute the recorded tasks of this stage, on one thread and on --threads, and compare what they give.
    pub stage: Option<String>,
    /// Re-execute every recorded task of the manifest.
    #[arg(long, conflicts_with_all = ["sample", "stage"])]
    pub all: bool,
    /// Re-execute N recorded tasks, picked by their fingerprints: the same ones each time.
    #[arg(long, value_name = "N", conflicts_with = "stage", value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: Option<u32>,
    /// Re-execute with the kernels of every instruction set that this processor has.
    #[arg(long)]
    pub isa: bool,
    /// Read and hash all that is stored.
    #[arg(long = "store", conflicts_with_all = ["all", "sample", "stage", "isa"])]
    pub is_store: bool,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    /// No progress.
    #[arg(long, short)]
    pub quiet: bool,
}

/// `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArguments {
    /// Where the store is.
    #[command(flatten)]
    pub place: StoreArguments,
    /// Print what was found as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `cache`.
#[derive(Args, Debug)]
pub struct CacheArguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: CacheVerb,
}

/// The verbs of `cache`.
#[derive(Debug, Subcommand)]
pub enum CacheVerb {
    /// List what is stored, the pipeline that was used last first.
    List {
        /// Where the store is.
        #[command(flatten)]
        store: StoreArguments,
        /// Print the list as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the records of tasks: keys, inputs, outputs with sizes, and who names them.
    Show {
        /// A fingerprint (its first 8 digits are enough), or the beginning of what `cache list` calls tasks.
        task: String,
        /// Where the store is.
        #[command(flatten)]
        store: StoreArguments,
        /// Print the records as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print where a task's record lies, or a file of it.
    Path {
        /// The task, as for `cache show`.
        task: String,
        /// A file of it, as `cache show` names it.
        file: Option<String>,
        /// Where the store is.
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Copy the files of a task into a folder, under their names.
    Export {
        /// The task, as for `cache show`.
        task: String,
        /// A folder that is not there yet, or is empty.
        dir: PathBuf,
        /// Where the store is.
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Remove what no lock file and no recent run names, the longest unused first, until the rest has --max-size.
    #[command(after_help = GC_HELP)]
    Gc {
        /// Where the store is.
        #[command(flatten)]
        store: StoreArguments,
        /// Keep at most this much, e.g. 500MiB, 2GiB; what is held stays all the same.
        #[arg(long, value_name = "SIZE", default_value = "10GiB")]
        max_size: String,
        /// Hold these tasks as well: a fingerprint (its first 8 digits are enough) or the beginning of what `cache
        /// list` calls them, e.g. a pipeline's name.
        #[arg(long, value_name = "TASK")]
        keep: Vec<String>,
        /// Let go of an experiment: its runs hold nothing, and its tasks go whatever room there is, but for those that
        /// somebody else names (repeatable).
        #[arg(long, value_name = "PIPELINE")]
        drop: Vec<String>,
        /// Say what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print what a CI's cache of the store should be keyed by: lines for `$GITHUB_OUTPUT`, the same on every machine.
    Key {
        /// Which manifest.
        #[command(flatten)]
        manifest: ManifestArguments,
        /// Print the keys as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write what lock files name into one small archive: the records, and the files that reports are made from.
    Pack {
        /// The archive, a tar file: the same bytes for the same content.
        file: PathBuf,
        /// Whose lock files [default: every lock file of the project].
        manifests: Vec<PathBuf>,
        /// Leave files out: tasks that read one, and reports, have it computed again.
        #[arg(long)]
        records: bool,
        /// Where the store is.
        #[command(flatten)]
        store: StoreArguments,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Bring what `cache pack` wrote into the store: all of it, or nothing if anything about it is wrong.
    Unpack {
        /// The archive.
        file: PathBuf,
        /// Where the store is.
        #[command(flatten)]
        store: StoreArguments,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
}

const GC_HELP: &str = "\
Held, whatever room it takes: what the lock files of every project that uses the store name, the
last run of each pipeline for 30 days, and --keep. Runs with --set are held by nothing: they stay
as long as there is room.";

/// `selftest`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SelftestArguments {
    /// What to check instead.
    #[command(subcommand)]
    pub verb: Option<SelftestVerb>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What else `selftest` can check.
#[derive(Debug, Subcommand)]
pub enum SelftestVerb {
    /// Make the checks before a training, for every train stage: labels and images, initial loss, learning 20 images by
    /// heart. Exits with 1 if one fails.
    Training(TrainingArguments),
    /// Show that no held-out row reaches what is learned: for every fitted task (statistics, axes, weights of each fold,
    /// ensembles, rankings) test and validation rows are given other pixels and labels, and the task is performed once more
    /// in scratch. Where validation rows choose (an epoch, a trial, an ensemble's weights) only test rows are. Which rows are
    /// held out stays as it is. Exits with 4 if a byte of what was learned moved.
    Leakage(LeakageArguments),
    /// Find a learning rate (Smith 2017): train a new network of a stage while the rate grows from update to update, until the
    /// loss explodes. Draws loss against rate as SVG and says what to write.
    Rate(RateArguments),
}

/// `selftest rate`.
#[derive(Args, Debug)]
pub struct RateArguments {
    /// Which manifest.
    #[command(flatten)]
    pub manifest: ManifestArguments,
    /// Which train stage [default: the only one].
    pub stage: Option<String>,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// The rate of the first update.
    #[arg(long, value_name = "RATE", default_value_t = 1e-6)]
    pub from: f64,
    /// The rate of the last update.
    #[arg(long, value_name = "RATE", default_value_t = 10.0)]
    pub to: f64,
    /// Updates.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(2..=100_000))]
    pub steps: u64,
    /// Where the picture is written [default: STAGE-rate.svg].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Show no progress.
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `selftest leakage`.
#[derive(Args, Debug)]
pub struct LeakageArguments {
    /// Which manifest.
    #[command(flatten)]
    pub manifest: ManifestArguments,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// Show no progress.
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `selftest training`.
#[derive(Args, Debug)]
pub struct TrainingArguments {
    /// Which manifest.
    #[command(flatten)]
    pub manifest: ManifestArguments,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArguments,
    /// Print the findings as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `schema`.
#[derive(Args, Debug)]
pub struct SchemaArguments {
    /// Stages, layers, choices, keys and files of reports, e.g. `train`, `conv`, `train.optimizer.sgd`, `metrics.csv` [default: every
    /// stage].
    pub what: Vec<String>,
    /// Print the whole format as JSON Schema (draft 2020-12), for editors.
    #[arg(long, conflicts_with = "what")]
    pub json: bool,
}

/// `completions`.
#[derive(Args, Debug)]
pub struct CompletionsArguments {
    /// The shell.
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// clap would add the variable's value to the help: it is named in the text instead.
    #[test]
    fn variables_are_named_in_the_help_and_their_values_are_not() {
        fn check(command: &Command) {
            for arg in command.get_arguments().filter(|arg| arg.get_env().is_some()) {
                let name = arg.get_env().unwrap_or_default().to_string_lossy();
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(arg.is_hide_env_set(), "{} {arg}", command.get_name());
                assert!(help.contains(&format!("[env: {name}]")), "{} {arg}: {help}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&command());
    }
}
