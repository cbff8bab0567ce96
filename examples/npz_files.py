"""
A list of .npz files
====================

One of them is in memory at a time: ``fit_batches`` calls a function that reads them, anew for each pass.
"""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from sksoftmax import SoftmaxClassifier


def batches():
    """A pass over the files; ``fit_batches`` calls it for each pass anew."""
    for path in paths:
        with np.load(path) as file:
            yield file["X"], file["y"], file["sample_weight"]


with tempfile.TemporaryDirectory() as folder:
    # for the example: the digits, in files of 300 rows, with weights
    X, y = load_digits(return_X_y=True)
    weight = np.linspace(0.5, 1.5, len(y))
    paths = []
    for start in range(0, len(y), 300):
        rows = slice(start, start + 300)
        paths.append(Path(folder) / f"{start}.npz")
        np.savez(paths[-1], X=X[rows], y=y[rows], sample_weight=weight[rows])

    clf = SoftmaxClassifier(alpha=1e-3, random_state=0).fit_batches(batches)
    print(f"accuracy {clf.score(X, y):.3f}, {clf.stop_reason_}")
