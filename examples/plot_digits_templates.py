"""
Digits: a template for each class
=================================

The coefficients of a class have the shape of a row. Where rows are images so are they: what the model looks for,
blue, and what speaks against the class, red. The 1797 images of 8 x 8 pixels come with scikit-learn.
"""

# %%
# The stronger the penalty, the smoother the templates, and the more they look like the digit; the best prediction
# needs less of it.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sksoftmax import SoftmaxClassifier

X, y = load_digits(return_X_y=True)
X = X / 16  # grey values in [0, 1], so that alpha means the same for other images
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

alphas = [1e-3, 1e-1, 1]
models = [SoftmaxClassifier(alpha, random_state=0).fit(X_train, y_train) for alpha in alphas]
for alpha, model in zip(alphas, models, strict=True):
    print(f"alpha={alpha:<6g} accuracy on new images {model.score(X_test, y_test):.3f}")

fig, axes = plt.subplots(len(models), 10, figsize=(10, 3.6), layout="constrained")
for alpha, model, row in zip(alphas, models, axes, strict=True):
    largest = np.abs(model.coef_).max()
    for coef, ax in zip(model.coef_, row, strict=True):
        ax.imshow(coef.reshape(8, 8), cmap="RdBu", vmin=-largest, vmax=largest)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(f"alpha={alpha:g}")
for label, ax in zip(models[0].classes_, axes[0], strict=True):
    ax.set_title(label)
plt.show()

# %%
# The rows of ``coef_`` sum to 0 over the classes: to add the same image to all templates changes no probability,
# and the penalty takes the shortest.

print(f"largest sum over the classes: {np.abs(models[0].coef_.sum(axis=0)).max():.1e}")

# %%
# Why an image was taken for what it was: pixel by pixel, the difference of two templates times the grey value,
# which with the intercepts makes the logarithm of the odds.

model = models[0]
raw = model.decision_function(X_test)
wrong = np.flatnonzero(model.predict(X_test) != y_test)[0]
said, true = int(raw[wrong].argmax()), int(y_test[wrong])
parts = (model.coef_[said] - model.coef_[true]) * X_test[wrong]
odds = parts.sum() + model.intercept_[said] - model.intercept_[true]
assert np.isclose(odds, raw[wrong, said] - raw[wrong, true])

fig, (left, right) = plt.subplots(1, 2, figsize=(6, 3), layout="constrained")
left.imshow(X_test[wrong].reshape(8, 8), cmap="gray_r")
left.set_title(f"a {true}, taken for a {said}")
largest = np.abs(parts).max()
image = right.imshow(parts.reshape(8, 8), cmap="RdBu", vmin=-largest, vmax=largest)
right.set_title(f"log odds of {said} to {true}: {odds:.1f}")
for ax in (left, right):
    ax.set(xticks=[], yticks=[])
fig.colorbar(image, ax=right)
plt.show()
