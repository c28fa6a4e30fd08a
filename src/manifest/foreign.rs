//! Keys that a person knows from other tools, or put into another stage's table: what to write here instead.

use crate::config::{Entry, Problem, Table, Value, describe, display, quote, segment, toml};
use crate::stages::Kind;

/// What to do about a key of another tool.
enum Advice {
    /// Write this, in which `{}` is the value; it stands between backticks, of which it may close the first one itself.
    Write(&'static str),
    /// It is done elsewhere, or not at all.
    Say(&'static str),
}

use Advice::{Say, Write};

/// By kind: keys of Keras, PyTorch, scikit-learn and of habit, in lower case with `_`, and what stands for them.
const KEYS: &[(&str, &[&str], Advice)] = &[
    (
        "ingest",
        &[
            "path",
            "paths",
            "data",
            "data_dir",
            "data_path",
            "dir",
            "directory",
            "folder",
            "dataset",
            "images",
            "url",
            "train_dir",
        ],
        Write("source = {}"),
    ),
    (
        "ingest",
        &["image_size", "img_size", "target_size", "input_shape", "input_size", "size", "shape", "width", "height"],
        Say("write `resize = 64`, or `resize = { width = 64, height = 48 }`"),
    ),
    (
        "ingest",
        &["color_mode", "colour_mode", "color", "colour", "grayscale", "greyscale", "mode"],
        Say("write `channels = \"gray\"` or `channels = \"rgb\"`"),
    ),
    ("ingest", &["max_samples", "n_samples", "subset", "max_images", "num_samples"], Write("limit = {}")),
    (
        "ingest",
        &["test_dir", "val_dir", "valid_dir"],
        Say("name the folder above as `source`: its folders `train`, `val` and `test` are its own splits"),
    ),
    (
        "ingest",
        &["rescale", "normalize", "normalise", "mean", "std", "steps"],
        Say("add `[stages.preprocess]` with `steps = [\"center\", \"scale\"]` below `[stages.split]`"),
    ),
    ("split", &["test_size", "test_split", "test_fraction", "holdout"], Write("test = {}")),
    (
        "split",
        &["train", "train_size", "train_fraction", "train_split"],
        Say("write what is held out: `test = 0.2`; all else is trained on"),
    ),
    (
        "split",
        &[
            "val",
            "valid",
            "val_size",
            "val_split",
            "valid_split",
            "validation_split",
            "validation_size",
            "validation_fraction",
        ],
        Write("validation = {}"),
    ),
    (
        "split",
        &["k", "n_folds", "n_splits", "num_folds", "cv", "kfold", "k_fold", "k_folds", "splits", "fold"],
        Write("folds = {}"),
    ),
    ("split", &["random_state", "random_seed"], Write("seed = {}")),
    ("split", &["stratified"], Write("stratify = {}")),
    (
        "split",
        &["groups", "group_by", "group_column"],
        Say("write `group = \"group\"`, and name the table's column `group`"),
    ),
    (
        "preprocess",
        &["normalize", "normalise", "standardize", "standardise", "center", "scale", "mean", "std", "transforms"],
        Say("write `steps = [\"center\", \"scale\"]`"),
    ),
    ("preprocess", &["rescale", "divide"], Say("write `steps = [{ divide = 255 }]`")),
    (
        "preprocess",
        &["augment", "augmentation", "flip", "rotate"],
        Say("write `augment = [\"flip\"]` in the `train` stage: it is of training images only"),
    ),
    ("preprocess", &["resize", "image_size", "grayscale"], Say("write `resize = 64` in `[stages.ingest]`")),
    ("reduce", &["n_components", "components", "dim", "dims", "k"], Write("method = { pca = { components = {} } }")),
    ("reduce", &["pca"], Write("method = { pca = {} }")),
    ("reduce", &["whiten", "svd_solver"], Say("write `method = { pca = { components = 50, whiten = true } }`")),
    (
        "train",
        &["batch", "minibatch", "mini_batch", "mini_batch_size", "batches", "train_batch_size"],
        Write("batch_size = {}"),
    ),
    (
        "train",
        &["num_epochs", "n_epochs", "max_epochs", "nb_epoch", "nb_epochs", "max_iter", "iterations", "n_iter"],
        Write("epochs = {}"),
    ),
    (
        "train",
        &["eta", "alpha", "step_size", "base_lr", "initial_learning_rate", "learning_rate_init"],
        Write("learning_rate = {}"),
    ),
    ("train", &["opt"], Write("optimizer = {}")),
    (
        "train",
        &["loss", "loss_fn", "loss_function", "criterion", "objective"],
        Say("remove it: the loss is cross-entropy, with `label_smoothing` and `class_weights`"),
    ),
    ("train", &["metrics", "metric"], Say("write `metrics = [\"accuracy\"]` in `[stages.evaluate]`")),
    (
        "train",
        &["device", "gpu", "gpus", "cuda", "accelerator", "mps"],
        Say("remove it: everything is computed on the processor"),
    ),
    (
        "train",
        &["num_workers", "workers", "n_jobs", "threads", "n_threads", "num_threads"],
        Say("remove it: `convoy run --threads N` sets the threads, and no result depends on them"),
    ),
    (
        "train",
        &["amp", "fp16", "bf16", "precision", "mixed_precision", "dtype"],
        Say("remove it: networks are trained in 32-bit numbers"),
    ),
    (
        "train",
        &["activation", "activations", "act"],
        Say("activations are layers: write `RELU` behind `CONV(32)` or `FC(128)` in `architecture`"),
    ),
    ("train", &["dropout", "dropout_rate", "drop_rate"], Write("DROPOUT({})` in `architecture")),
    ("train", &["noise"], Write("NOISE({})` in `architecture")),
    (
        "train",
        &["batch_norm", "batchnorm", "batch_normalization", "batch_normalisation", "use_bn", "bn"],
        Say("write `BN` in `architecture`: `CONV(32) - BN - RELU`"),
    ),
    (
        "train",
        &["filters", "n_filters", "kernel_size", "conv", "convs"],
        Say("write `CONV(32)`, or `CONV(32, 5)` for a kernel of 5x5, in `architecture`"),
    ),
    (
        "train",
        &["hidden", "hidden_size", "hidden_units", "hidden_layers", "hidden_layer_sizes", "units", "dense", "fc"],
        Say("write `FC(128) - RELU` in `architecture`"),
    ),
    (
        "train",
        &["model", "network", "net", "arch", "backbone", "encoder", "base_model"],
        Say("write the layers: `architecture = \"INPUT - [CONV(32) - RELU - POOL]*2 - FC(128) - RELU - FC\"`"),
    ),
    (
        "train",
        &[
            "pretrained",
            "weights",
            "imagenet",
            "transfer",
            "transfer_learning",
            "finetune",
            "fine_tune",
            "freeze",
            "init_weights",
            "resume",
            "resume_from",
            "load_weights",
        ],
        Say("remove it: pretrained weights are not supported, networks start from `initializer`"),
    ),
    (
        "train",
        &["num_classes", "n_classes", "nb_classes", "classes", "n_outputs"],
        Say("remove it: the last `FC` has as many units as the data set has classes"),
    ),
    (
        "train",
        &["input_shape", "input_size", "image_size", "img_size", "resize"],
        Say("write `resize = 64` in `[stages.ingest]`"),
    ),
    ("train", &["momentum"], Write("optimizer = { sgd = { momentum = {} } }")),
    ("train", &["nesterov"], Write("optimizer = { sgd = { momentum = 0.9, nesterov = {} } }")),
    ("train", &["beta1", "beta_1"], Write("optimizer = { adam = { beta1 = {} } }")),
    ("train", &["beta2", "beta_2"], Write("optimizer = { adam = { beta2 = {} } }")),
    ("train", &["betas"], Say("write `optimizer = { adam = { beta1 = 0.9, beta2 = 0.999 } }`")),
    (
        "train",
        &["adam", "sgd", "adamw", "rmsprop", "adagrad", "lbfgs"],
        Say("write `optimizer = \"adam\"`, or `optimizer = { sgd = { momentum = 0.9 } }`"),
    ),
    (
        "train",
        &["patience", "early_stop", "earlystopping", "early_stopping_patience"],
        Write("early_stopping = { patience = {} }"),
    ),
    (
        "train",
        &[
            "scheduler",
            "lr_scheduler",
            "lr_schedule",
            "learning_rate_schedule",
            "lr_decay",
            "decay",
            "gamma",
            "warmup",
            "warm_up",
            "warmup_epochs",
            "cosine",
            "step",
        ],
        Say("write `schedule = \"cosine\"`, or `schedule = { step = { factor = 0.5, every = 10 } }`"),
    ),
    (
        "train",
        &[
            "augmentation",
            "augmentations",
            "data_augmentation",
            "transforms",
            "transform",
            "flip",
            "rotate",
            "rotation_range",
            "horizontal_flip",
            "mixup",
            "cutout",
            "crop",
        ],
        Say("write `augment = [\"flip\", { rotate = 15 }]`"),
    ),
    (
        "train",
        &[
            "regularization",
            "regularisation",
            "regularizer",
            "kernel_regularizer",
            "l2_reg",
            "l2_regularization",
            "lambda",
        ],
        Write("l2 = {}"),
    ),
    ("train", &["l1", "l1_reg"], Say("remove it: L1 is not supported, `l2 = 1e-4` is")),
    (
        "train",
        &[
            "grad_clip",
            "gradient_clip",
            "gradient_clipping",
            "clipnorm",
            "clip_norm",
            "max_norm",
            "max_grad_norm",
            "clip_grad_norm",
        ],
        Write("clip = {}"),
    ),
    ("train", &["kernel_initializer", "weight_init", "init"], Write("initializer = {}")),
    ("train", &["random_state", "random_seed"], Write("seed = {}")),
    ("train", &["shuffle"], Say("remove it: training images come in another order in each epoch")),
    ("train", &["smoothing"], Write("label_smoothing = {}")),
    (
        "train",
        &["sampler", "balanced", "balance", "weighted"],
        Say("write `class_weights = \"balanced\"`, or `oversample = true`"),
    ),
    (
        "train",
        &["verbose", "callbacks", "checkpoint", "checkpoints", "save_best_only", "save", "log_interval", "logging"],
        Say("remove it: every epoch is in `epochs.csv`, and an interrupted training goes on where it stopped"),
    ),
    (
        "train",
        &["val_split", "validation_split", "validation_data", "val", "valid"],
        Say("write `validation = 0.2` in `[stages.split]`"),
    ),
    ("ensemble", &["models", "model", "stages"], Write("members = {}")),
    (
        "ensemble",
        &["method", "voting", "mode", "strategy", "weights"],
        Say("write `combine = \"mean-probability\"`; `convoy schema ensemble.combine` lists the others"),
    ),
    ("evaluate", &["metric", "scoring"], Say("write `metrics = [\"accuracy\"]`")),
    (
        "evaluate",
        &["gate", "threshold", "thresholds", "min_accuracy", "accuracy"],
        Say("write `gates = { accuracy = \">= 0.9\" }`"),
    ),
    (
        "search",
        &["n_trials", "num_trials", "n_iter", "trials", "max_trials", "budget"],
        Say("write `rounds = [{ trials = 20 }]`"),
    ),
    (
        "search",
        &["params", "param_grid", "param_distributions", "grid", "ranges", "parameters"],
        Say("write `space = { stages.train.learning_rate = { log-uniform = [1e-4, 1e-1] } }`"),
    ),
];

/// Completes the problems of unknown keys in `table`, the keys of a stage of kind `own` or, without, the manifest's.
pub(super) fn explain(problems: &mut [Problem], table: &Table, own: Option<&str>, kinds: &[Kind]) {
    for entry in &table.entries {
        let message = format!("unknown key `{}`", entry.key);
        let is_about = |problem: &&mut Problem| problem.span == entry.key_span && problem.message == message;
        if let Some(problem) = problems.iter_mut().find(is_about)
            && let Some(help) = help(&entry.key, &entry.node.value, own, kinds)
        {
            let tuned = table.get("tune").map(|tune| &tune.node.value);
            problem.help = Some(match (own, tuned) {
                (Some("search"), Some(Value::Text { text, .. })) if help.contains("stages.train.") => {
                    space_of(&entry.node.value, text)
                }
                _ => help,
            });
        }
    }
}

fn help(key: &str, value: &Value, own: Option<&str>, kinds: &[Kind]) -> Option<String> {
    let plain = key.to_lowercase().replace('-', "_");
    let Some(own) = own else {
        return match plain.as_str() {
            "version" | "format" => Some("write `schema = 1`".to_owned()),
            "title" | "pipeline" | "project" | "experiment" => Some(format!("write `name = {}`", shown(value))),
            "random_state" | "random_seed" => Some(format!("write `seed = {}`", shown(value))),
            _ if kinds.iter().any(|kind| kind.name == plain) && matches!(value, Value::Table(_)) => {
                Some(format!("write `[stages.{key}]`"))
            }
            _ => of_kind(&plain, None, kinds)
                .map(|kind| format!("`{plain}` is a key of `{kind}` stages: write it below `[stages.{kind}]`")),
        };
    };
    if ["schema", "name"].contains(&key) {
        return Some(format!("the manifest's own `{key}` stands above the first table"));
    }
    if matches!(value, Value::Table(_)) && kinds.iter().any(|kind| kind.name == plain) {
        return Some(format!("write `[stages.{plain}]`: stages stand beside each other"));
    }
    let known = KEYS.iter().find(|(kind, words, _)| *kind == own && words.contains(&plain.as_str()));
    if let Some((.., advice)) = known {
        return Some(match advice {
            Write(pattern) => format!("write `{}`", pattern.replacen("{}", &shown(value), 1)),
            Say(text) => (*text).to_owned(),
        });
    }
    let kind = of_kind(&plain, Some(own), kinds)?;
    Some(format!("`{plain}` is a key of `{kind}` stages, and this is one of the kind `{own}`"))
}

/// How a grid of other tools is written for the stage that is tuned.
fn space_of(grid: &Value, tuned: &str) -> String {
    let stage = segment(tuned);
    let range = |entry: &Entry| {
        let key = entry.key.strip_prefix(&format!("stages.{tuned}.")).unwrap_or(&entry.key).to_owned();
        match &entry.node.value {
            Value::List(_) => format!("stages.{stage}.{} = {{ choice = {} }}", segment(&key), toml(&entry.node.value)),
            other => format!("stages.{stage}.{} = {}", segment(&key), toml(other)),
        }
    };
    let ranges: Vec<String> = match grid {
        Value::Table(table) => table.entries.iter().map(range).collect(),
        _ => Vec::new(),
    };
    let ranges = ranges.join(", ");
    let example = format!("stages.{stage}.learning_rate = {{ log-uniform = [1e-4, 1e-1] }}");
    let ranges = if ranges.is_empty() || ranges.len() > 100 { &example } else { &ranges };
    format!("write `space = {{ {ranges} }}`")
}

/// The kind of stage that has this key, where `own` has not.
fn of_kind(key: &str, own: Option<&str>, kinds: &[Kind]) -> Option<&'static str> {
    let has = |kind: &Kind| describe(|section| (kind.read)(section)).iter().any(|declared| declared.key == key);
    if kinds.iter().filter(|kind| Some(kind.name) == own).any(&has) {
        return None;
    }
    kinds.iter().find(|kind| has(kind)).map(|kind| kind.name)
}

/// A value as it stands in a manifest, if that is short.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Text { text, .. } => quote(text),
        other => toml(other),
    };
    if text.len() <= 40 && !text.contains('\n') { text } else { display(value) }
}
