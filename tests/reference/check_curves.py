#!/usr/bin/env python3
"""Compares curves.csv and by.csv with scikit-learn on the same predictions.

usage: check_curves.py REPORTS [TABLE COLUMN]

REPORTS is a folder of reports (out/NAME). Every point of curves.csv must be one of roc_curve's and of precision_recall_curve's, and
the area through the points that are written must be near roc_auc_score's. With the TABLE that the images are from and a COLUMN,
the accuracy and the log loss of by.csv are computed anew by group. Needs scikit-learn and NumPy.
"""

import csv
import pathlib
import sys

import numpy as np
from sklearn.metrics import accuracy_score, log_loss, precision_recall_curve, roc_auc_score, roc_curve


def table(path):
    return list(csv.DictReader(open(path)))


def curves(folder, predictions):
    rows = table(folder / "curves.csv")
    classes = [column[2:] for column in predictions[0] if column.startswith("p_")]
    n_points, worst, n_curves = 0, 0.0, 0
    for key in sorted({(row["model"], row["split"], row["class"]) for row in rows}):
        model, split, label = key
        own = [row for row in rows if (row["model"], row["split"], row["class"]) == key]
        said = [row for row in predictions if row["model"] == model and row["split"] == split]
        is_label = np.array([row["actual"] == label for row in said])
        p = np.array([np.float32(row["p_" + label]) for row in said])
        fpr, tpr, thresholds = roc_curve(is_label, p, drop_intermediate=False)
        precision, recall, cuts = precision_recall_curve(is_label, p)
        roc = {np.float32(t): (x, y) for t, x, y in zip(thresholds, fpr, tpr)}
        by_cut = {np.float32(t): (a, b) for t, a, b in zip(cuts, precision, recall)}
        for row in own:
            number = lambda name: float(row[name])
            x, y = roc[np.float32(row["threshold"])]
            a, b = by_cut[np.float32(row["threshold"])]
            gaps = [number("false_positive_rate") - x, number("recall") - y, number("precision") - a, number("recall") - b]
            assert max(map(abs, gaps)) < 1e-9, (key, row, gaps)
            n_points += 1
        points = sorted((float(row["false_positive_rate"]), float(row["recall"])) for row in own)
        area = np.trapezoid(*reversed(list(zip((0.0, 0.0), *points))))
        worst = max(worst, abs(area - roc_auc_score(is_label, p)))
        n_curves += 1
        assert label in classes
    assert n_curves and worst < 0.005, worst
    print(f"{n_points} points of {n_curves} curves are scikit-learn's; areas differ by at most {worst:.1e}")


def groups(folder, predictions, source, column):
    of_path = {row["path"]: row[column] for row in table(source)}
    classes = [name[2:] for name in predictions[0] if name.startswith("p_")]
    n = 0
    for row in table(folder / "by.csv"):
        if row["column"] != column or row["metric"] not in ("accuracy", "log-loss"):
            continue
        own = [
            p for p in predictions
            if (p["model"], p["split"]) == (row["model"], row["split"]) and of_path[p["path"]] == row["group"]
        ]
        actual = [p["actual"] for p in own]
        if row["metric"] == "accuracy":
            value = accuracy_score(actual, [p["predicted"] for p in own])
        else:
            value = log_loss(actual, np.array([[float(p["p_" + name]) for name in classes] for p in own]), labels=classes)
        assert len(own) == int(row["n"]) and abs(value - float(row["value"])) < 1e-6, (row, value)
        n += 1
    assert n
    print(f"{n} scores of groups are scikit-learn's")


folder = pathlib.Path(sys.argv[1])
predictions = table(folder / "predictions.csv")
curves(folder, predictions)
if len(sys.argv) > 3:
    groups(folder, predictions, *sys.argv[2:4])
