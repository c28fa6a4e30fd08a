#!/usr/bin/env python3
"""Plants wrong labels, runs a pipeline, and compares the ranking of suspects.csv with that of cleanlab.

usage: check_suspects.py CONVOY FOLDER [--seed N] [--mnist DIR] [--clothing TAR]

5 % of the labels are flipped at random to another class (the seed is printed): of the built-in digits, given as the IDX files
below datasets/digits; with --mnist of the first 10,000 training images of MNIST; with --clothing of all photos in a tar of
class folders. What the program CONVOY writes in FOLDER is then judged by average precision, beside cleanlab on the same
out-of-fold probabilities: by score over all images (those that suspects.csv does not name have the same score, 1 less the
probability of their label, from predictions.csv), and as the lists that both hand out. Needs cleanlab, scikit-learn, NumPy.
Exit code 1 where our ranking is worse than the best of cleanlab's own.
"""

import argparse
import csv
import glob
import gzip
import os
import pathlib
import struct
import subprocess
import sys
import tarfile
import warnings

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.metrics import average_precision_score

warnings.filterwarnings("ignore")

SHARE = 0.05
HEAD = 'schema = 1\nname = "planted"\nseed = 42\n[stages.ingest]\n'
TAIL = "[stages.split]\ntest = 0\nfolds = 5\n[stages.preprocess]\nsteps = [\"center\", \"scale\"]\n[stages.train]\n"
SGD = 'learning_rate = 0.02\noptimizer = { sgd = { momentum = 0.9 } }\n'
IDX = 'source = "images-idx3-ubyte"\nlabels = "labels-idx1-ubyte"\n'
DIGITS = HEAD + IDX + TAIL + (
    'architecture = "INPUT - [CONV(16) - RELU]*2 - POOL - FC(64) - RELU - FC"\nepochs = 12\n' + SGD + "[stages.evaluate]\n"
)
MNIST = HEAD + IDX + TAIL + (
    'architecture = "INPUT - CONV(16) - RELU - POOL - CONV(32) - RELU - POOL - DROPOUT(0.25) - FC(64) - RELU - FC"\n'
    "epochs = 4\nbatch_size = 64\n" + SGD + "[stages.evaluate]\n"
)
CLOTHING = HEAD + 'source = "table.csv"\nresize = 32\n' + TAIL + (
    'architecture = "INPUT - CONV(24) - BN - RELU - POOL - CONV(48) - BN - RELU - POOL - CONV(96) - BN - RELU - POOL - GAP - FC"\n'
    'epochs = 15\nlearning_rate = 0.002\naugment = ["flip", { shift = 0.1 }]\n[stages.evaluate]\n'
)


def flipped(labels, n_classes, seed):
    """The labels, 5 % of them changed to another class, and which ones."""
    rng = np.random.default_rng(seed)
    labels, is_planted = np.array(labels), np.zeros(len(labels), bool)
    at = rng.choice(len(labels), round(SHARE * len(labels)), replace=False)
    labels[at] = (labels[at] + rng.integers(1, n_classes, len(at))) % n_classes
    is_planted[at] = True
    return labels, is_planted


def idx(folder, images, labels, seed, most=None):
    raw = [gzip.open(path).read() for path in (images, labels)]
    n, height, width = struct.unpack(">III", raw[0][4:16])
    n = min(n, most or n)
    planted, is_planted = flipped(np.frombuffer(raw[1], np.uint8, offset=8)[:n], 10, seed)
    with open(folder / "images-idx3-ubyte", "wb") as file:
        file.write(struct.pack(">IIII", 0x803, n, height, width) + raw[0][16 : 16 + n * height * width])
    with open(folder / "labels-idx1-ubyte", "wb") as file:
        file.write(struct.pack(">II", 0x801, n) + planted.astype(np.uint8).tobytes())
    return is_planted


def photos(folder, tar, seed):
    with tarfile.open(tar) as archive:
        archive.extractall(folder / "photos", filter="data")
    paths = sorted(glob.glob(str(folder / "photos/**/*.jpg"), recursive=True))
    names = [os.path.basename(os.path.dirname(path)) for path in paths]
    classes = sorted(set(names))
    planted, is_planted = flipped([classes.index(name) for name in names], len(classes), seed)
    with open(folder / "table.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows([os.path.relpath(path, folder), classes[label]] for path, label in zip(paths, planted))
    return is_planted


def precision_of_list(listed, is_planted):
    """Average precision of a ranked list; what it does not name is never found."""
    hits = is_planted[listed]
    return (np.cumsum(hits) / (1 + np.arange(len(hits))) * hits).sum() / is_planted.sum()


def judge(name, folder, is_planted):
    rows = [row for row in csv.DictReader(open(folder / "out/planted/predictions.csv")) if row["split"] == "out_of_fold"]
    classes = [column[2:] for column in rows[0] if column.startswith("p_")]
    labels = np.array([classes.index(row["actual"]) for row in rows])
    p = np.array([[float(row["p_" + label]) for label in classes] for row in rows])
    ids = [int(row["id"]) for row in rows]
    is_planted = is_planted[ids]
    found = [row for row in csv.DictReader(open(folder / "out/planted/suspects.csv")) if row["reason"] == "label"]
    place = {id: i for i, id in enumerate(ids)}
    ours = 1 - p[np.arange(len(labels)), labels]
    # The order of the table breaks ties.
    for rank, row in enumerate(found):
        i = place[int(row["id"])]
        assert abs(float(row["score"]) - ours[i]) < 1e-6, "the score of the table is another one"
        ours[i] = float(row["score"]) + 1e-12 * (len(found) - rank)
    best, own = None, average_precision_score(is_planted, ours)
    print(f"{name}: {len(rows)} images, {is_planted.sum()} planted errors, accuracy on these labels {np.mean(p.argmax(1) == labels):.3f}")
    print(f"  average precision over all images: convoy {own:.4f}")
    for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
        score = average_precision_score(is_planted, 1 - get_label_quality_scores(labels, p, method=method))
        best = max(best or 0, score)
        print(f"    cleanlab, {method}: {score:.4f}")
    listed = [place[int(row["id"])] for row in found]
    sure = [place[int(row["id"])] for row in found if row["confident"] == "true"]
    lists = [("convoy, suspects.csv", listed), ("convoy, its confident ones", sure)]
    issues = find_label_issues(labels, p, return_indices_ranked_by="self_confidence", n_jobs=1)
    lists.append(("cleanlab, find_label_issues", issues))
    print("  as lists:")
    for who, these in lists:
        hits = is_planted[these]
        print(
            f"    {who}: {len(these)} images, precision {hits.mean():.3f}, recall {hits.sum() / is_planted.sum():.3f}, "
            f"average precision {precision_of_list(these, is_planted):.4f}"
        )
    return own >= best - 1e-9


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("convoy")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--mnist", type=pathlib.Path)
    parser.add_argument("--clothing", type=pathlib.Path)
    arguments = parser.parse_args()
    convoy, seed = os.path.abspath(arguments.convoy), arguments.seed
    print(f"seed {seed}")
    own = pathlib.Path(__file__).resolve().parents[2] / "datasets/digits"
    cases = [("digits", DIGITS, lambda folder: idx(folder, *named(own, "digits"), seed))]
    if arguments.mnist:
        cases.append(("mnist", MNIST, lambda folder: idx(folder, *named(arguments.mnist, "train"), seed, 10_000)))
    if arguments.clothing:
        cases.append(("clothing", CLOTHING, lambda folder: photos(folder, arguments.clothing, seed)))
    is_good = True
    for name, manifest, plant in cases:
        folder = arguments.folder.resolve() / name
        folder.mkdir(parents=True)
        is_planted = plant(folder)
        (folder / "planted.toml").write_text(manifest)
        subprocess.run([convoy, "run", "-q", "planted.toml"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        is_good &= judge(name, folder, is_planted)
    sys.exit(0 if is_good else "our ranking is worse than cleanlab's")


def named(folder, start):
    return [next(folder.glob(f"{start}-{what}-*.gz")) for what in ("images", "labels")]


main()
