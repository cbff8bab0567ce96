"""
The gradient, derived and checked
=================================

Every claim of :doc:`the derivation </derivation>` against numbers: the gradient of the softmax layer, one neuron
at a time, all at once, and against finite differences.
"""

# %%
# The layer: X W, and the two functions that give its loss and gradient, by loops and by matrix products.

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import softmax
from sklearn.datasets import load_digits

from sksoftmax import check_gradient, softmax_loss_naive, softmax_loss_vectorized

rng = np.random.RandomState(0)
X, y = load_digits(return_X_y=True)
X, y = X[:50] / 16, y[:50]
W = 0.1 * rng.standard_normal((X.shape[1], 10))
reg = 0.1
loss, grad = softmax_loss_vectorized(W, X, y, reg)
loss_naive, grad_naive = softmax_loss_naive(W, X, y, reg)
print("1. the gradient has W's shape:", grad.shape == W.shape)
print(
    f"   loops and products agree to {np.abs(grad - grad_naive).max():.0e}, the losses to {abs(loss - loss_naive):.0e}"
)

# %%
# Claims 2 to 5: a neuron's update is the input times one number; over inputs the updates superpose; the number is
# p - t; with the penalty the whole is ``X^T (p - t) / n + reg W``.

p, t = softmax(X @ W, axis=1), np.eye(10)[y]
one_input = softmax_loss_vectorized(W, X[:1], y[:1], 0.0)[1]
lit = X[0] > 0
numbers = one_input[lit] / X[0, lit, None]  # a row a pixel, a column a neuron
print("2. a neuron's update is the input times one number:", np.allclose(numbers, numbers[0]))
each = [softmax_loss_vectorized(W, X[i : i + 1], y[i : i + 1], 0.0)[1] for i in range(len(y))]
print("3. over inputs the updates superpose:", np.allclose(np.mean(each, axis=0), X.T @ (p - t) / len(y)))
print("4. the number is p - t:", np.allclose(numbers[0], (p - t)[0]))
print("5. together:", np.allclose(grad, X.T @ (p - t) / len(y) + reg * W))

# %%
# Finite differences
# ------------------
# A slope along a random direction, by differences of the loss: one-sided ones are wrong by a multiple of the step
# h, central ones of h squared, until the rounding of the loss, divided by h, takes over.

direction = rng.standard_normal(W.shape)
direction /= np.linalg.norm(direction)
exact = np.vdot(grad, direction)


def loss_at(step):
    return softmax_loss_vectorized(W + step * direction, X, y, reg)[0]


steps = np.logspace(-13, 0, 40)
one_sided = [abs((loss_at(h) - loss) / h - exact) / abs(exact) for h in steps]
central = [abs((loss_at(h) - loss_at(-h)) / (2 * h) - exact) / abs(exact) for h in steps]
fig, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
ax.loglog(steps, one_sided, "o-", color="#D55E00", markersize=3, label="one-sided")
ax.loglog(steps, central, "s-", color="#0072B2", markersize=3, label="central")
ax.set(xlabel="step h", ylabel="relative error of the slope")
ax.legend(frameon=False)
ax.grid(True, color="0.9")
plt.show()

# %%
# ``check_gradient`` does this for the classifier's own objective, intercept and penalty included, for each
# engine, by ``scipy.optimize.check_grad``: below 1e-4 for a right gradient.

for engine in ("vectorized", "naive"):
    print(f"{engine:<11} {check_gradient(X, y, alpha=0.1, engine=engine, max_checks=30):.1e}")
