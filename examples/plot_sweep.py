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
from sklearn.model_selection import GridSearchCV, train_test_split

from sksoftmax import SoftmaxClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

alphas = np.logspace(-5, 1, 10)
search = GridSearchCV(
    SoftmaxClassifier(random_state=0),
    {"alpha": alphas},
    scoring=["neg_log_loss", "accuracy"],
    refit="neg_log_loss",
).fit(X_train, y_train)
print(f"best alpha {search.best_params_['alpha']:.2g}")
print(f"new rows: log loss {-search.score(X_test, y_test):.3f}")
print(f"accuracy {search.best_estimator_.score(X_test, y_test):.3f}")

# %%
# Mean over the folds, and its standard error.

fig, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for ax, name, sign, label in zip(axes, ("neg_log_loss", "accuracy"), (-1, 1), ("log loss", "accuracy"), strict=True):
    mean = sign * search.cv_results_[f"mean_test_{name}"]
    error = search.cv_results_[f"std_test_{name}"] / np.sqrt(search.n_splits_)
    ax.errorbar(alphas, mean, error, fmt="o-", color="#0072B2", capsize=3)
    ax.axvline(search.best_params_["alpha"], color="0.6", linestyle=":")
    ax.set(xscale="log", xlabel="alpha", ylabel=f"{label} of the folds")
    ax.grid(True, color="0.9")
plt.show()

# %%
# ``alpha`` multiplies the penalty on the *mean* loss: what is best for a fold is best for all rows, of which
# there are more. In terms of ``LogisticRegression`` it is

print(f"C = {1 / (search.best_params_['alpha'] * len(y_train)):.2g}")
