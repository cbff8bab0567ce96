"""
Why one-vs-rest probabilities mislead
=====================================

``SGDClassifier`` and ``OneVsRestClassifier`` fit a model for each class against all others, and divide their
probabilities by their sum. Where a class lies between two others, no linear model tells it from the rest, so its
probability is wrong however many rows there are. A softmax has no such trouble: it is linear in the log odds of
*pairs* of classes. The iris flowers by the length of their petals are such a case: versicolor lies between setosa
and virginica.
"""

# %%
# Three models of one column.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sksoftmax import SoftmaxClassifier

iris = load_iris()
X, y = iris.data[:, 2:3], iris.target
alpha = 1e-3
models = {
    "softmax": SoftmaxClassifier(alpha, random_state=0),
    "one-vs-rest": OneVsRestClassifier(LogisticRegression(C=1 / (alpha * len(y)), max_iter=1000)),
    "SGDClassifier": make_pipeline(StandardScaler(), SGDClassifier("log_loss", alpha=alpha, random_state=0)),
}
for model in models.values():
    model.fit(X, y)

# %%
# The curves are the models' probabilities of versicolor; the bars the share of versicolor among the flowers of
# that length. At both ends one-vs-rest gives versicolor a share where there is none: a sixth at the short one, a
# third at the long one, whatever else is certain there.

grid = np.linspace(0.5, 7.5, 200)[:, None]
styles = {"softmax": ("#0072B2", "-"), "one-vs-rest": ("#D55E00", "--"), "SGDClassifier": ("#009E73", ":")}
edges = np.arange(0.5, 7.6, 0.5)
counts = np.histogram(X[:, 0], edges)[0]
shares = np.histogram(X[y == 1, 0], edges)[0] / np.maximum(counts, 1)
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.bar(edges[:-1], shares, width=0.48, align="edge", color="0.88", label="share among the flowers")
for name, model in models.items():
    colour, line = styles[name]
    ax.plot(grid, model.predict_proba(grid)[:, 1], line, color=colour, linewidth=2, label=name)
ax.set(xlabel="petal length (cm)", ylabel="probability of versicolor", ylim=(0, 1.02))
ax.legend(frameon=False, loc="upper left")
plt.show()

# %%
# Figures: the log loss and the accuracy on flowers that a model has not seen, and the mean probability of
# versicolor given to virginica flowers.

for name, model in models.items():
    proba = cross_val_predict(model, X, y, cv=10, method="predict_proba")
    print(
        f"{name:<14} log loss {log_loss(y, proba):.3f}  accuracy {np.mean(proba.argmax(axis=1) == y):.3f}  "
        f"virginica taken for versicolor with {proba[y == 2, 1].mean():.2f}"
    )

# %%
# It is not the optimiser: all that one-vs-rest can say of versicolor by itself is a curve that rises or falls.
# Its best rises slowly, through the class's share of a third, and dividing by the sum does not repair it.

alone = models["one-vs-rest"].estimators_[1].predict_proba(np.array([[1.0], [4.0], [7.0]]))[:, 1]
print("versicolor against the rest at 1, 4 and 7 cm:", alone.round(2))
