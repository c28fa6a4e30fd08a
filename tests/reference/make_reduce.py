"""Writes reduce.json: small grey images and what scikit-learn makes of them.

Run with scikit-learn installed: python tests/reference/make_reduce.py
Made with scikit-learn 1.9.1. The test that reads it: src/stages/reduce/tests.rs.
"""

import json
import pathlib

import numpy as np
from sklearn.decomposition import PCA
from sklearn.random_projection import SparseRandomProjection, johnson_lindenstrauss_min_dim

HEIGHT, WIDTH, N, N_TRAINING = 5, 6, 160, 130
EPSILON = 0.5


def images():
    """Bytes that vary along few directions, some of them strongly; one pixel is always the same."""
    rng = np.random.default_rng(5)
    axes = rng.normal(size=(12, HEIGHT * WIDTH))
    weights = rng.normal(size=(N, 12)) * (40 * 0.7 ** np.arange(12))
    pixels = 120 + weights @ axes + rng.normal(size=(N, HEIGHT * WIDTH)) * 2
    pixels[:, 7] = 33
    return np.clip(np.round(pixels), 0, 255).astype(int)


def shown(array):
    return np.asarray(array, float).round(7).tolist()


x = images().astype(float)
training = x[:N_TRAINING]
pca = PCA(8, svd_solver="full").fit(training)
whitening = PCA(8, svd_solver="full", whiten=True).fit(training)
kept = {str(v): int(PCA(v, svd_solver="full").fit(training).n_components_) for v in (0.3, 0.5, 0.8, 0.9, 0.95, 0.999)}
covariance = np.cov(training.T)
values, vectors = np.linalg.eigh(covariance)
zca = vectors @ np.diag(1 / np.sqrt(values + EPSILON)) @ vectors.T
sparse = SparseRandomProjection(9, random_state=0).fit(training)
lemma = [[n, eps, int(johnson_lindenstrauss_min_dim(n, eps=eps))] for n in (2, 10, 1797, 60000) for eps in (0.05, 0.1, 0.5, 0.9)]
out = {
    # Of every fourth image where there is a row for each image.
    "height": HEIGHT,
    "width": WIDTH,
    "n_training": N_TRAINING,
    "epsilon": EPSILON,
    "images": x.astype(int).tolist(),
    "components": shown(pca.components_),
    "explained_variance": shown(pca.explained_variance_),
    "explained_variance_ratio": shown(pca.explained_variance_ratio_),
    "features": shown(pca.transform(x[::4])),
    "whitened": shown(whitening.transform(x[::4])),
    "zca": shown((x[::4] - training.mean(0)) @ zca),
    "kept": kept,
    "sparse_density": float(sparse.density_),
    "sparse_weight": float(np.abs(sparse.components_.data).max()),
    "johnson_lindenstrauss": lemma,
}
path = pathlib.Path(__file__).with_name("reduce.json")
path.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in out.items()) + "\n}\n")
