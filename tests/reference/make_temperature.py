"""Writes temperature.json: probabilities, and the temperature and the threshold that SciPy and NumPy find for them.

Run with SciPy installed: python tests/reference/make_temperature.py
Made with SciPy 1.17. The test that reads it: src/stages/calibrate.rs.
"""

import json
import pathlib

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax

LEAST = np.finfo(np.float32).tiny


def drawn(seed, n, n_classes, skill, sharpness):
    """Labels, and single-precision probabilities that are `sharpness` times too sure."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes)) + skill * np.eye(n_classes)[labels]
    return labels, softmax(sharpness * logits, axis=1).astype(np.float32)


def loss(b, logs, labels):
    return (logsumexp(b * logs, axis=1) - b * logs[np.arange(len(labels)), labels]).mean()


def slope(b, logs, labels):
    shares = softmax(b * logs, axis=1)
    return ((shares * logs).sum(1) - logs[np.arange(len(labels)), labels]).mean()


def temperature(logs, labels):
    found = minimize_scalar(loss, bounds=(1e-2, 1e2), args=(logs, labels), method="bounded", options={"xatol": 1e-10})
    assert found.success, found
    # A minimiser of values sees half of the digits; the root of the derivative has them all.
    b = brentq(slope, 1e-2, 1e2, args=(logs, labels), xtol=1e-15, rtol=1e-15)
    assert abs(b / found.x - 1) < 1e-5, (b, found.x)
    return 1 / b


def threshold(said, labels, error):
    """The least confidence from which on the error is at most `error`, of `1 / error` answers or more."""
    confidence, right = said.max(1), said.argmax(1) == labels
    possible = []
    for t in np.unique(confidence):
        answered = confidence >= t
        n, n_wrong = int(answered.sum()), int((answered & ~right).sum())
        if n_wrong <= error * n and error * n >= 1:
            possible.append(float(t))
    return min(possible, default=None)


CASES = {
    "too sure": dict(seed=1, n=120, n_classes=4, skill=2.0, sharpness=3.0),
    "not sure enough": dict(seed=2, n=80, n_classes=10, skill=3.0, sharpness=0.4),
    "two classes": dict(seed=3, n=90, n_classes=2, skill=1.0, sharpness=2.0),
    "rounded to 0": dict(seed=4, n=70, n_classes=3, skill=2.0, sharpness=60.0),
}
ERRORS = [0.01, 0.05, 0.1, 0.3]

cases = []
for name, arguments in CASES.items():
    labels, said = drawn(**arguments)
    logs = np.log(np.maximum(said, LEAST).astype(float))
    t = temperature(logs, labels)
    cases.append(
        {
            "name": name,
            "labels": labels.tolist(),
            "probabilities": [[float(p) for p in row] for row in said],
            "temperature": t,
            "loss": loss(1 / t, logs, labels),
            "tempered": np.exp(log_softmax(logs / t, axis=1)).tolist(),
            "thresholds": [[error, threshold(said, labels, error)] for error in ERRORS],
        }
    )

path = pathlib.Path(__file__).with_name("temperature.json")
path.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
