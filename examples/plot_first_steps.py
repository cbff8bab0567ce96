"""
First steps
===========

Fit, predict, see how far from the optimum the fit ended; a pipeline, a search, and rows that come in pieces. The
data are the 178 wines that come with scikit-learn, as they are: one column ends at 0.66, another at 1680.
"""

# %%
# Fit and predict
# ---------------
# There is nothing to scale and nothing to tune.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV, train_test_split

from sksoftmax import SoftmaxClassifier

X, y = load_wine(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
clf = SoftmaxClassifier(random_state=0).fit(X_train, y_train)
print(f"accuracy on new rows: {clf.score(X_test, y_test):.3f}")
print("probabilities of the first:", clf.predict_proba(X_test[:1]).round(3))

# %%
# How the fit ended
# -----------------
# ``excess_`` estimates how far the objective F is above its minimum, relative to it; the fit ends when that is at
# most ``tol`` (1e-3). Had it ended sooner for another reason, it would have warned.

print(f"{clf.stop_reason_}: F within {clf.excess_:.0e}, relative, of its minimum, after {clf.n_iter_} epochs")
print("what ran:", clf.solver_info_)

fig, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.plot(np.arange(1, clf.n_iter_ + 1), clf.loss_curve_, "o-", color="#0072B2")
ax.set(xlabel="epoch", ylabel="F after the epoch", yscale="log", title="The way to the minimum")
ax.grid(True, color="0.9")
plt.show()

# %%
# The one hyperparameter
# ----------------------
# ``alpha`` is the strength of the L2 penalty on the mean loss. It is worth a search, as everywhere.

search = GridSearchCV(SoftmaxClassifier(random_state=0), {"alpha": [1e-6, 1e-4, 1e-2, 1]}, scoring="neg_log_loss")
search.fit(X_train, y_train)
print("best:", search.best_params_)
print(f"log loss on new rows: {-search.score(X_test, y_test):.3f}")

# %%
# Rows that come in pieces
# ------------------------
# ``partial_fit`` takes them as they come, and is near the minimum over all of them after one pass.

stream = SoftmaxClassifier(random_state=0)
for rows in np.array_split(np.random.RandomState(0).permutation(len(y_train)), 5):
    stream.partial_fit(X_train[rows], y_train[rows], classes=np.unique(y))
print(f"accuracy on new rows: {stream.score(X_test, y_test):.3f}")
