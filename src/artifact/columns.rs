//! What the files of a folder of reports are, and each column of its tables: told by `convoy schema FILE`, listed in reports and in
//! the book. Who writes a table, or a column, adds a line; `tests/book.rs` compares with what runs write.

/// A file of `out/NAME/`.
#[derive(Debug)]
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// What is in it, as the end of a list: no capital, no full stop.
    pub meaning: &'static str,
    /// Its columns in order, each with one sentence; none of what is no table. `<…>` stands for a name of the data or the manifest,
    /// such a column for none or several; one that ends with `?` is not always there.
    pub columns: &'static [(&'static str, &'static str)],
}

const STAGE: (&str, &str) = ("stage", "Name of the stage.");
const TRIAL: (&str, &str) = ("trial", "Trial of a search, as `r1t7`; empty for the manifest's own stages.");
const FOLD: (&str, &str) = ("fold", "Fold that is left out of the training, from 1; empty: trained on all of them.");
const ID: (&str, &str) = ("id", "Number of the image in the data set, from 0.");
const PATH: (&str, &str) = ("path", "Path of the image below the source.");
const MODEL: (&str, &str) = ("model", "Name of the stage that made the predictions.");
const SPLIT: (&str, &str) = ("split", "`test`, `out_of_fold`, `validation` or `validation_selected`.");
const METRIC: (&str, &str) = ("metric", "Name of the metric.");
const VALUE: (&str, &str) = ("value", "Its value.");

/// What a report lists, in its order.
pub const FILES: &[File] = &[
    File {
        name: "metrics.csv",
        meaning: "every metric of every model, split and fold, with intervals",
        columns: &[
            MODEL,
            SPLIT,
            ("fold", "Fold that the row is of; empty: the whole split."),
            ("class", "Class that the row is of; empty: all of them."),
            METRIC,
            VALUE,
            ("ci_low", "Lower end of the 95 % interval: Wilson's of the accuracy, of others by `bootstrap`."),
            ("ci_high", "Upper end of the 95 % interval."),
            ("n", "Images."),
        ],
    },
    File {
        name: "predictions.csv",
        meaning: "every prediction with its probabilities and its loss",
        columns: &[
            ID,
            PATH,
            SPLIT,
            ("fold", "Fold in which the image is validated on; empty for the test split."),
            MODEL,
            ("actual", "Class of the image."),
            ("predicted", "Class with the highest probability."),
            ("correct", "Whether the two are equal."),
            ("confidence", "Probability of the predicted class."),
            ("loss", "-ln(probability of the actual class), in nats."),
            ("p_<class>", "Probability of the class."),
        ],
    },
    File {
        name: "confusion.csv",
        meaning: "how often each class was taken for each",
        columns: &[
            MODEL,
            SPLIT,
            ("actual", "Class of the images."),
            ("predicted", "Class that they were taken for."),
            ("count", "Images."),
        ],
    },
    File {
        name: "gains.csv",
        meaning: "what ensembles gain over their members",
        columns: &[
            ("model", "Name of the ensemble."),
            SPLIT,
            METRIC,
            ("value", "Value of the ensemble."),
            ("n_members", "Members."),
            ("best_member", "The best of them by this metric."),
            ("best_value", "Its value."),
            ("mean_value", "Mean of the members' values."),
            ("gain_over_best", "How much better than the best member; below 0: worse."),
            ("gain_over_mean", "How much better than the members' mean; below 0: worse."),
        ],
    },
    File {
        name: "comparisons.csv",
        meaning: "McNemar's test of every pair of models",
        columns: &[
            SPLIT,
            ("model_a", "One model."),
            ("model_b", "The other."),
            ("n", "Images."),
            ("both_correct", "Images that both recognised."),
            ("only_a_correct", "Images that only the first recognised."),
            ("only_b_correct", "Images that only the second recognised."),
            ("both_wrong", "Images that neither recognised."),
            ("method", "How p was computed."),
            ("statistic", "McNemar's statistic."),
            ("p_value", "How likely such a difference is if both models are equally good."),
            ("p_holm", "The same, corrected for the number of pairs (Holm)."),
        ],
    },
    File {
        name: "temperatures.csv",
        meaning: "what the temperatures of models do",
        columns: &[
            MODEL,
            SPLIT,
            ("temperature", "What logarithms of probabilities are divided by."),
            ("n", "Images."),
            ("log_loss_before", "Mean log loss without it, in nats."),
            ("log_loss_after", "Mean log loss with it, in nats."),
            ("calibration_error_before", "Expected calibration error without it, 0 to 1."),
            ("calibration_error_after", "Expected calibration error with it, 0 to 1."),
        ],
    },
    File {
        name: "calibration.csv",
        meaning: "how often predictions of each confidence are right, before and after a temperature",
        columns: &[
            MODEL,
            SPLIT,
            ("calibrated", "Whether the row is of probabilities with the temperature."),
            ("prob_pred", "Mean confidence of the bin."),
            ("prob_true", "Share of its predictions that are right."),
            ("count", "Images in the bin."),
        ],
    },
    File {
        name: "coverage.csv",
        meaning: "how much is answered at each threshold of confidence, and how much of that wrongly",
        columns: &[
            MODEL,
            SPLIT,
            ("threshold", "Confidence from which on an image is answered."),
            ("chosen", "Whether it is the model's own."),
            ("coverage", "Share of images that are answered."),
            ("error", "Share of the answers that are wrong."),
            ("n_answered", "Images that are answered."),
            ("n_wrong", "Those of them that are wrong."),
        ],
    },
    File {
        name: "curves.csv",
        meaning: "ROC and precision-recall curves",
        columns: &[
            MODEL,
            SPLIT,
            ("class", "Class against the rest; of two classes the second."),
            ("n_positive", "Images of the class."),
            ("n_negative", "Images of the others."),
            ("threshold", "Probability of the class from which on an image is called so."),
            ("true_positives", "Images of the class that are called so."),
            ("false_positives", "Images of others that are called so."),
            ("recall", "Share of the images of the class that are called so."),
            ("precision", "Share of those called so that are of the class."),
            ("false_positive_rate", "Share of the images of others that are called so."),
        ],
    },
    File {
        name: "by.csv",
        meaning: "every metric by the values of a column",
        columns: &[
            ("column", "Column of the source's table that makes the groups."),
            ("group", "What it says of these images."),
            MODEL,
            SPLIT,
            METRIC,
            VALUE,
            ("ci_low", "Lower end of the 95 % interval."),
            ("ci_high", "Upper end of the 95 % interval."),
            ("n", "Images."),
            ("worst", "Whether no other group of the column has a worse value."),
        ],
    },
    File {
        name: "suspects.csv",
        meaning: "images to look at by eye: doubtful labels, near duplicates, images unlike their class",
        columns: &[
            ("reason", "`label`, `duplicate` or `unlike-class`."),
            ("score", "How far it is from ordinary, 0 to 1; the first of each reason have the highest."),
            ID,
            PATH,
            ("split", "Where the image went."),
            ("fold", "Fold in which it is validated on."),
            ("label", "Its class."),
            ("suggested", "Class that held-out predictions give it."),
            ("p_label", "Probability of its class."),
            ("p_suggested", "Probability of the suggested one."),
            ("confident", "Whether another class reaches its threshold (confident learning)."),
            ("other_id", "`id` of the image that it is like."),
            ("other_path", "Path of that one."),
            ("other_split", "Where that one went."),
            ("other_fold", "Fold in which that one is validated on."),
            ("other_label", "Class of that one."),
            ("distance", "Bits in which their perceptual hashes differ, 0 to 7; empty: the same pixels."),
        ],
    },
    File {
        name: "data.csv",
        meaning: "every image as it came in",
        columns: &[
            ID,
            PATH,
            ("class", "Name of its class."),
            ("label", "Number of its class, from 0."),
            ("split", "The data set's own split, where it has one."),
            ("group", "The data set's own group, where it has one."),
            ("format", "Format of the file."),
            ("width", "Width before `resize`, in pixels, turned as EXIF says."),
            ("height", "Height before `resize`, in pixels, turned as EXIF says."),
            ("channels", "Channels as stored."),
            ("depth", "Bits of a value as stored."),
            ("duplicate_of", "`id` of the first image with the same pixels."),
            ("digest", "Digest of the pixels, after all that `ingest` did."),
        ],
    },
    File {
        name: "skipped.csv",
        meaning: "files that were left out, and why",
        columns: &[
            ("path", "Path of the file below the source."),
            ("class", "Its class, where it has one."),
            ("reason", "Why it was left out."),
        ],
    },
    File {
        name: "splits.csv",
        meaning: "where each image went",
        columns: &[
            ID,
            PATH,
            ("label", "Number of its class, from 0."),
            ("class", "Name of its class."),
            ("split", "`test`, `out_of_fold`, `validation` or `train`."),
            ("fold", "Fold in which it is validated on, from 1."),
        ],
    },
    File {
        name: "epochs.csv",
        meaning: "loss and accuracy by epoch",
        columns: &[
            STAGE,
            TRIAL,
            FOLD,
            ("epoch", "From 1."),
            ("step", "Updates done by then."),
            ("learning_rate", "Of the epoch's last update."),
            ("train_loss", "Mean over the epoch's batches, as they were trained on."),
            ("train_accuracy", "The same of the accuracy."),
            ("valid_loss", "Mean over the validation images after the epoch."),
            ("valid_accuracy", "The same of the accuracy."),
        ],
    },
    File {
        name: "layers.csv",
        meaning: "weights, updates and gradients by epoch and layer",
        columns: &[
            STAGE,
            TRIAL,
            FOLD,
            ("epoch", "From 1."),
            ("step", "The epoch's last update of a whole batch, which the row is of."),
            ("layer", "Number and kind of the layer."),
            ("weight_norm", "Euclidean norm of its weights, without biases."),
            ("update_norm", "Euclidean norm of what the update added to them."),
            ("log10_ratio", "Decimal logarithm of update over weights: about -3 where learning goes well."),
            ("grad_norm", "Euclidean norm of their gradient, before clipping and L2."),
            ("dead_fraction", "Share of its channels that its ReLU held at 0 for the whole batch."),
        ],
    },
    File {
        name: "components.csv",
        meaning: "explained variances",
        columns: &[
            STAGE,
            TRIAL,
            FOLD,
            ("component", "Number of the axis, from 1."),
            ("explained_variance", "Variance along it."),
            ("explained_variance_ratio", "Its share of the whole variance."),
            ("cumulative", "Share of it and of all before it."),
        ],
    },
    File {
        name: "sanity.csv",
        meaning: "what was checked before trainings",
        columns: &[
            STAGE,
            TRIAL,
            FOLD,
            ("check", "Name of the check."),
            ("status", "`passed`, `warned` or `failed`."),
            ("value", "What was seen."),
            ("limit", "What it was held against."),
            ("finding", "A sentence."),
        ],
    },
    File {
        name: "trials.csv",
        meaning: "every trial of a search",
        columns: &[
            ("round", "From 1."),
            ("rank", "From 1, the best."),
            ("trial", "`r1t7`: the seventh drawn in round 1; `r2k1`: the best that round 1 kept."),
            ("chosen", "Whether it goes on; after the last round, whether it is handed on."),
            ("status", "`finished`, `exploded` or `invalid`."),
            ("origin", "Trial of an earlier round that it repeats with this round's budget."),
            ("epochs", "Epochs at most."),
            ("data_fraction", "Share of the training images that it learned from."),
            ("folds", "Folds that it was trained on."),
            ("n_valid", "Images that it was validated on."),
            ("n_parameters", "Values that training moved."),
            ("mean_valid_accuracy", "Mean over its folds."),
            ("std_valid_accuracy", "Sample deviation over its folds."),
            ("mean_valid_loss", "Mean over its folds."),
            ("std_valid_loss", "Sample deviation over its folds."),
            ("mean_valid_<metric>", "Mean of the metric that ranks, where it is another one."),
            ("std_valid_<metric>", "Its sample deviation."),
            ("param_<key>", "Value of a searched key."),
        ],
    },
    File {
        name: "weights.csv",
        meaning: "weights of ensembles",
        columns: &[
            STAGE,
            TRIAL,
            ("fold", "Empty: an ensemble is one task."),
            ("without_fold", "Fold whose rows were not fitted on; empty: fitted on all, for new images."),
            ("member", "Name of the member; empty for an intercept."),
            ("said?", "With `stacking`: label whose probability by the member is weighed."),
            ("scored?", "With `stacking`: label whose score it adds to."),
            ("weight", "The weight."),
        ],
    },
    File { name: "metrics.json", meaning: "scores for programs", columns: &[] },
    File { name: "manifest.toml", meaning: "the manifest as it was run", columns: &[] },
];

/// What else there is: the reports themselves, and what tells of a run and not of its results.
pub const ASIDE: &[File] = &[
    File { name: "report.html", meaning: "the report: one file, without script, network or fonts", columns: &[] },
    File { name: "report.md", meaning: "the same as Markdown, its pictures as files", columns: &[] },
    File { name: "summary.md", meaning: "its short form", columns: &[] },
    File {
        name: "matrix.csv",
        meaning: "every metric of every variant, with mean and deviation over what differs in seeds only",
        columns: &[
            ("variant", "Name of the variant."),
            ("<key>", "Value of a key that varies."),
            ("stage", "Name of the stage that evaluates."),
            MODEL,
            SPLIT,
            METRIC,
            VALUE,
            ("n", "Images."),
            ("mean", "Mean over the variants that differ from it in seeds only."),
            ("deviation", "Their sample deviation."),
            ("repeats", "How many they are."),
        ],
    },
    File {
        name: "timings.csv",
        meaning: "what the last run did, and how long it took; no two runs have the same",
        columns: &[
            STAGE,
            ("part", "Which of its tasks."),
            ("outcome", "`computed`, `found`, `fresh`, `failed`, `stopped` or `not-started`."),
            ("seconds", "Time of what was computed."),
        ],
    },
    File { name: "run.json", meaning: "the last run: version, machine, times, memory, keys", columns: &[] },
];

/// The file of this name.
pub fn file(name: &str) -> Option<&'static File> {
    FILES.iter().chain(ASIDE).find(|file| file.name == name)
}

/// Whether a table with these columns may have this header.
pub fn is_header(columns: &[(&str, &str)], header: &[&str]) -> bool {
    let Some(((name, _), rest)) = columns.split_first() else { return header.is_empty() };
    if let Some(name) = name.strip_suffix('?') {
        return is_header(rest, header) || header.first() == Some(&name) && is_header(rest, &header[1..]);
    }
    match name.split_once('<').map(|(start, rest)| (start, rest.split_once('>').map_or("", |(_, end)| end))) {
        None => header.first() == Some(name) && is_header(rest, &header[1..]),
        Some((start, end)) => {
            let is_one = |word: &&str| word.starts_with(start) && word.ends_with(end);
            is_header(rest, header) || header.first().is_some_and(is_one) && is_header(columns, &header[1..])
        }
    }
}
