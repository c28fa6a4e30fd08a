"""Writes metrics.json: synthetic predictions and what scikit-learn says about them.

And comparisons.json: McNemar's tests by SciPy, Holm's p-values, percentiles by NumPy.

Run with scikit-learn and SciPy installed: python tests/reference/make_metrics.py
Made with scikit-learn 1.9.1. The test that reads them: tests/metrics.rs.
"""

import json
import pathlib
import warnings

import numpy as np
from scipy.stats import binomtest, bootstrap, chi2
from sklearn import metrics

warnings.filterwarnings("ignore")


def predictions(seed, n, n_classes, skill, weights=None, absent=(), sure=False):
    """Labels and single-precision probabilities; `absent` classes have no samples."""
    rng = np.random.default_rng(seed)
    weights = np.ones(n_classes) if weights is None else np.asarray(weights, float)
    weights[list(absent)] = 0
    labels = rng.choice(n_classes, n, p=weights / weights.sum())
    logits = rng.normal(size=(n, n_classes)) + skill * np.eye(n_classes)[labels]
    if sure:
        # Far enough for clipping to show, not so far that probabilities tie at 0.
        logits *= 12
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return labels, (exp / exp.sum(1, keepdims=True)).astype(np.float32)


def calibration_error(labels, probabilities, n_bins=15):
    confidence = probabilities.max(1).astype(float)
    correct = probabilities.argmax(1) == labels
    bins = np.clip(np.ceil(confidence * n_bins).astype(int), 1, n_bins)
    return sum(
        (bins == b).mean() * abs(correct[bins == b].mean() - confidence[bins == b].mean())
        for b in range(1, n_bins + 1)
        if (bins == b).any()
    )


def roc_auc(labels, probabilities):
    areas = [
        metrics.roc_auc_score(labels == c, probabilities[:, c])
        for c in range(probabilities.shape[1])
        if 0 < (labels == c).sum() < len(labels)
    ]
    return np.mean(areas)


def expected(labels, probabilities, top_k):
    n_classes = probabilities.shape[1]
    classes = list(range(n_classes))
    predicted = probabilities.argmax(1)
    eps = np.finfo(np.float32).eps
    clipped = np.clip(probabilities, eps, 1 - eps).astype(float)
    p, r, f, s = metrics.precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    values = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "balanced-accuracy": metrics.balanced_accuracy_score(labels, predicted),
        "log-loss": metrics.log_loss(labels, y_proba=clipped, labels=classes),
        "brier": np.mean(np.sum((probabilities.astype(float) - np.eye(n_classes)[labels]) ** 2, axis=1)),
        "calibration-error": calibration_error(labels, probabilities),
        "top-k": metrics.top_k_accuracy_score(labels, probabilities, k=top_k, labels=classes)
        if n_classes > 2
        else metrics.accuracy_score(labels, predicted),
        "roc-auc": roc_auc(labels, probabilities),
        "matthews": metrics.matthews_corrcoef(labels, predicted),
        "cohen-kappa": metrics.cohen_kappa_score(labels, predicted),
    }
    for average in ["macro", "weighted"]:
        scores = metrics.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        for name, value in zip(["precision", "recall", "f1"], scores):
            values[f"{average}-{name}"] = value
    hits = int((predicted == labels).sum())
    interval = binomtest(hits, len(labels)).proportion_ci(0.95, method="wilson")
    return {
        "values": {name: float(value) for name, value in sorted(values.items())},
        "classes": [[float(a), float(b), float(c), int(d)] for a, b, c, d in zip(p, r, f, s)],
        "confusion": metrics.confusion_matrix(labels, predicted, labels=classes).tolist(),
        "wilson": [float(interval.low), float(interval.high)],
        "report": metrics.classification_report(
            labels,
            predicted,
            labels=classes,
            target_names=[f"class {c}" for c in classes],
            digits=4,
            zero_division=0,
        ),
    }


def bootstrap_intervals(labels, probabilities):
    """Percentile intervals over resampled images, by SciPy."""
    n_classes = probabilities.shape[1]
    losses = -np.log(np.clip(probabilities, np.finfo(np.float32).eps, None).astype(float))
    predicted = probabilities.argmax(1)

    def loss(i):
        return losses[i, labels[i]].mean()

    def accuracy(i):
        return (predicted[i] == labels[i]).mean()

    def macro_f1(i):
        return metrics.f1_score(labels[i], predicted[i], average="macro", zero_division=0)

    found = {}
    # F1 scores take their time.
    statistics = [("log-loss", loss, 9999), ("accuracy", accuracy, 9999), ("macro-f1", macro_f1, 999)]
    for name, statistic, n_resamples in statistics:
        interval = bootstrap(
            (np.arange(len(labels)),),
            statistic,
            n_resamples=n_resamples,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(9),
        ).confidence_interval
        found[name] = [float(interval.low), float(interval.high)]
    return found


def mcnemar(only_a, only_b):
    """statsmodels' and R's definition: exact below 25 discordant pairs, else chi-square with continuity correction."""
    n = only_a + only_b
    if n < 25:
        p = binomtest(min(only_a, only_b), n, 0.5).pvalue if n else 1.0
        return {"exact": True, "statistic": float(min(only_a, only_b)), "p": float(p)}
    statistic = max(abs(only_a - only_b) - 1, 0) ** 2 / n
    return {"exact": False, "statistic": float(statistic), "p": float(chi2.sf(statistic, 1))}


def holm(p):
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate((len(p) - np.arange(len(p))) * np.asarray(p)[order]), 1)
    return adjusted.tolist()


CASES = {
    "even": dict(seed=1, n=120, n_classes=4, skill=2.0),
    "two classes": dict(seed=2, n=80, n_classes=2, skill=1.0),
    "uneven": dict(seed=3, n=150, n_classes=5, skill=1.5, weights=[20, 5, 3, 1, 1]),
    "a class without samples": dict(seed=4, n=60, n_classes=4, skill=1.0, absent=[2]),
    "sure of itself": dict(seed=5, n=50, n_classes=3, skill=1.0, sure=True),
    "perfect": dict(seed=6, n=30, n_classes=3, skill=50.0),
    "chance": dict(seed=7, n=100, n_classes=10, skill=0.0),
}

cases = []
for name, arguments in CASES.items():
    labels, probabilities = predictions(**arguments)
    top_k = 1 if probabilities.shape[1] == 2 else 2
    cases.append(
        {
            "name": name,
            "top_k": top_k,
            "labels": labels.tolist(),
            # The shortest decimals that read back as the same single-precision numbers.
            "probabilities": [[float(str(x)) for x in row] for row in probabilities],
            **expected(labels, probabilities, top_k),
            "bootstrap": bootstrap_intervals(labels, probabilities),
        }
    )
path = pathlib.Path(__file__).with_name("metrics.json")
path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")

pairs = [(0, 0), (1, 0), (3, 9), (12, 12), (2, 22), (10, 15), (5, 30), (40, 40), (100, 140), (3, 300), (0, 2000)]
tests = [{"only_a": a, "only_b": b, **mcnemar(a, b)} for a, b in pairs]
rng = np.random.default_rng(11)
values = [rng.normal(size=n).tolist() for n in [2, 7, 40, 101]]
comparisons = {
    "mcnemar": tests,
    "holm": holm([test["p"] for test in tests]),
    "percentiles": [[of, *np.percentile(of, [2.5, 97.5]).tolist()] for of in values],
}
path = pathlib.Path(__file__).with_name("comparisons.json")
path.write_text(json.dumps(comparisons) + "\n")
