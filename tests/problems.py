"""Small problems that the tests share; every one is made from a seed."""

import numpy as np
import scipy.sparse as sp

from sksoftmax._engines import registry, vectorized
from sksoftmax._types import Batch, Params, Problem

#: The engines; the compiled one only if its kernels are installed.
KERNELS = registry.KERNELS

#: What X may come in.
CONTAINERS = {"dense": np.asarray, "csr": sp.csr_array}


def random_params(n_outputs, n_features, seed=0):
    rng = np.random.RandomState(seed)
    return Params(rng.standard_normal((n_outputs, n_features)), rng.standard_normal(n_outputs))


def random_data(n_samples=12, n_features=4, n_classes=3, seed=0, dtype=np.float64):
    """Rows drawn from a softmax model, with zeros among the entries; every class is there."""
    rng = np.random.RandomState(seed)
    X = rng.standard_normal((n_samples, n_features)) * (rng.uniform(size=(n_samples, n_features)) < 0.8)
    truth = X @ rng.standard_normal((n_features, n_classes))
    y = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    return X.astype(dtype), y


def problem(X, y, *, alpha=1e-3, weight=None, fit_intercept=True, kernel=vectorized):
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=float)
    data = Batch(X, np.asarray(y, dtype=np.intp), weight)
    return Problem(data, int(max(y)) + 1, alpha, fit_intercept, kernel, float(weight.mean()))


def random_problem(n_classes=3, seed=0, container=np.asarray, dtype=np.float64, **kwargs):
    X, y = random_data(n_classes=n_classes, seed=seed, dtype=dtype)
    weight = np.random.RandomState(seed).uniform(0.5, 2.0, len(y))
    return problem(container(X), y, weight=weight, **kwargs)
