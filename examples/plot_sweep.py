"""
The sweep: how much penalty?
============================

The strength of the penalty is the one thing to search. Each point of the grid is a fit to the end, so the curve
shows what ``alpha`` does, and not where an optimiser gave up.
"""

# %%
# Ten strengths, five folds, by the log loss, which judges probabilities and not their largest alone.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sksoftmax import SoftmaxClassifierCV

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

sweep = SoftmaxClassifierCV(np.logspace(-5, 1, 10), scoring="neg_log_loss", random_state=0).fit(X_train, y_train)
print(f"best alpha {sweep.alpha_:.2g}")
print(f"new rows: log loss {-sweep.score(X_test, y_test):.3f}")
print(f"accuracy {np.mean(sweep.predict(X_test) == y_test):.3f}")

# %%
# Mean over the folds, and its standard error; and how the coefficients of a class grow as the penalty falls.

scores = sweep.scores_[:, 0]
mean, error = -scores.mean(axis=0), scores.std(axis=0, ddof=1) / np.sqrt(len(scores))
size = np.linalg.norm(sweep.coefs_paths_[:, 0, :, :, :-1], axis=-1).mean(axis=0)  # over the folds

fig, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
axes[0].errorbar(sweep.alphas_, mean, error, fmt="o-", color="#0072B2", capsize=3)
axes[0].set(ylabel="log loss of the folds")
axes[1].plot(sweep.alphas_, size, color="0.4", linewidth=1)
axes[1].set(yscale="log", ylabel="length of each class's coefficients")
for ax in axes:
    ax.axvline(sweep.alpha_, color="0.6", linestyle=":")
    ax.set(xscale="log", xlabel="alpha")
    ax.grid(True, color="0.9")
plt.show()

# %%
# ``alpha`` multiplies the penalty on the *mean* loss: what is best for a fold is best for all rows, of which
# there are more. In terms of ``LogisticRegression`` it is

print(f"C = {1 / (sweep.alpha_ * len(y_train)):.2g}")
