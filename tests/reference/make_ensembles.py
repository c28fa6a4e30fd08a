"""Writes ensembles.json: members' predictions, and what scikit-learn and SciPy make of them.

Run with scikit-learn and SciPy installed: python tests/reference/make_ensembles.py
Made with scikit-learn 1.9.1 and SciPy. The test that reads it: tests/ensembles.rs.
"""

import json
import pathlib

import numpy as np
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression


def members(seed, n, n_classes, skills):
    """Labels and single-precision probabilities `[n, n_members, n_classes]`; members share part of their errors."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)])
    shared = rng.normal(size=(n, n_classes))
    said = []
    for skill in skills:
        logits = shared + rng.normal(size=(n, n_classes)) + skill * np.eye(n_classes)[labels]
        exp = np.exp(logits - logits.max(1, keepdims=True))
        said.append((exp / exp.sum(1, keepdims=True)).astype(np.float32))
    return labels, np.stack(said, axis=1)


def weights(labels, said):
    truths = said[np.arange(len(labels)), :, labels].astype(float)
    n_members = truths.shape[1]
    found = minimize(
        lambda w: -np.log(truths @ w).mean(),
        np.full(n_members, 1 / n_members),
        jac=lambda w: -(truths / (truths @ w)[:, None]).mean(0),
        bounds=[(0, 1)] * n_members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(n_members)},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    assert found.success, found
    return found.x, found.fun


def stacking(labels, said, l2):
    x = said.astype(float).reshape(len(labels), -1)
    model = LogisticRegression(C=1 / (l2 * len(labels)), solver="newton-cholesky", tol=1e-12).fit(x, labels)
    return model, model.predict_proba(x)


CASES = {
    "two members": dict(seed=1, n=60, n_classes=4, skills=[2.0, 1.5], l2=1e-3),
    "one is useless": dict(seed=2, n=50, n_classes=3, skills=[2.0, 0.0, 1.5], l2=1e-2),
    "many classes": dict(seed=3, n=80, n_classes=10, skills=[3.0, 2.5], l2=1e-3),
    "hardly shrunk": dict(seed=4, n=80, n_classes=3, skills=[1.0, 1.5], l2=1e-4),
}

cases = []
for name, arguments in CASES.items():
    l2 = arguments.pop("l2")
    labels, said = members(**arguments)
    best, loss = weights(labels, said)
    model, probabilities = stacking(labels, said, l2)
    cases.append(
        {
            "name": name,
            "l2": l2,
            "labels": labels.tolist(),
            # The shortest decimals that read back as the same single-precision numbers.
            "members": [[[float(str(x)) for x in row] for row in of] for of in said.transpose(1, 0, 2)],
            "weights": best.tolist(),
            "weighted_loss": float(loss),
            # By member, class that it speaks of, class that is scored.
            "coefficients": model.coef_.T.ravel().tolist(),
            # Scores matter up to a constant.
            "intercepts": (model.intercept_ - model.intercept_.mean()).tolist(),
            "probabilities": probabilities.tolist(),
        }
    )
path = pathlib.Path(__file__).with_name("ensembles.json")
path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
