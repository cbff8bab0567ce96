"""
A linear probe on embeddings
============================

A linear probe is a softmax classifier on the outputs of a network that stays as it is: how much of the classes
can a linear model read off them? No trained network comes with scikit-learn, so a random one stands in: a layer
of ReLU units with random weights, on the digits. Its outputs are like embeddings in what matters to the fit: many
correlated columns, float32, unscaled.
"""

# %%
# The network, of any width.

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sksoftmax import SoftmaxClassifier


def embedding(X, width, rng):
    """Outputs of a random layer of ReLU units, float32."""
    weights = rng.standard_normal((X.shape[1], width)) / np.sqrt(X.shape[1])
    offsets = rng.standard_normal(width) / 4
    return np.maximum(X @ weights + offsets, 0).astype(np.float32)


X, y = load_digits(return_X_y=True)
X = X / 16
train, test = train_test_split(np.arange(len(y)), test_size=0.4, stratify=y, random_state=0)

# %%
# Probes of wider and wider networks, of the pixels first. Each is one fit with default settings; ``excess_`` says
# that it is at its optimum, so that differences are the embeddings', not the optimiser's.

accuracies = {"pixels": []}
for seed in range(3):
    for width in (None, 64, 256, 512):
        Z = X.astype(np.float32) if width is None else embedding(X, width, np.random.default_rng(seed))
        start = time.perf_counter()
        probe = SoftmaxClassifier(alpha=1e-4, random_state=0).fit(Z[train], y[train])
        seconds = time.perf_counter() - start
        accuracies.setdefault(width or "pixels", []).append(probe.score(Z[test], y[test]))
        if seed == 0:
            print(
                f"{width or 'pixels':>6}: accuracy {accuracies[width or 'pixels'][0]:.3f}, {seconds:.2f} s, "
                f"ended by {probe.stop_reason_} at an excess of {probe.excess_:.0e}"
            )

# %%
# A random layer helps a little once it is much wider than the image: a linear model of its outputs is no linear
# model of the pixels. (On 719 images half a percent is chance.) A trained network would do better with fewer
# columns; the probe is the same.

fig, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
names = [str(name) for name in accuracies]
ax.plot(names, [np.mean(found) for found in accuracies.values()], "o-", color="#0072B2", label="mean of 3 networks")
for name, found in zip(names, accuracies.values(), strict=True):
    ax.plot([name] * len(found), found, ".", color="0.5", zorder=1)
ax.set(xlabel="units of the random layer", ylabel="accuracy on new images")
ax.legend(frameon=False)
ax.grid(True, color="0.9")
plt.show()

# %%
# Which rows does the probe find hard? Its probabilities are a softmax's, so they can be asked.

Z = embedding(X, 512, np.random.default_rng(0))
probe = SoftmaxClassifier(alpha=1e-4, random_state=0).fit(Z[train], y[train])
proba = probe.predict_proba(Z[test])
hardest = proba[np.arange(len(test)), y[test]].argsort()[:8]
fig, axes = plt.subplots(1, 8, figsize=(10, 1.9), layout="constrained")
for i, ax in zip(hardest, axes, strict=True):
    ax.imshow(X[test[i]].reshape(8, 8), cmap="gray_r")
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{y[test[i]]}: {proba[i, y[test[i]]]:.2f}\n{proba[i].argmax()}: {proba[i].max():.2f}", fontsize=9)
plt.show()
