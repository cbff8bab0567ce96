"""The loop that people write in PyTorch, with everything that helps it."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, embedding_bag

from benchmarks import N_THREADS
from sksoftmax._types import Array

#: Updates in a unit of ``max_iter``: few enough that large data need no whole epoch.
UPDATES = 64


class TorchSoftmax:
    """Minimise F by minibatches, or by torch's L-BFGS over all rows; of tensors on their device.

    Parameters
    ----------
    alpha : float
    optimizer : {"adam", "sgd", "lbfgs"}
        "sgd" has Nesterov's momentum of 0.9.
    rate : float
        Step length, which falls along a line to 0 at the end; for "sgd" in units of 1 / (a bound of the mean
        curvature of a row).
    batch_size : int
        Rows.
    is_standardised : bool
        Train on standardised columns with the penalty that is F's in theirs: alpha / std**2 on each squared
        coefficient.
    max_iter : int
        Times 64 updates; for "lbfgs" iterations.
    """

    def __init__(
        self,
        alpha: float,
        *,
        optimizer: str,
        rate: float = 1.0,
        batch_size: int = 128,
        is_standardised: bool = False,
        max_iter: int = 1,
    ) -> None:
        self.alpha = alpha
        self.optimizer = optimizer
        self.rate = rate
        self.batch_size = batch_size
        self.is_standardised = is_standardised
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any) -> TorchSoftmax:
        torch.set_num_threads(N_THREADS)
        torch.manual_seed(0)
        n_classes = int(y.max()) + 1
        rows: Any = _SparseRows(X) if sp.issparse(X) else _DenseRows(torch.as_tensor(X))
        mean, std = rows.standardise() if self.is_standardised else (0.0, 1.0)
        place: dict[str, Any] = {"dtype": rows.dtype, "device": rows.device}
        coef = torch.zeros((X.shape[1], 1 if n_classes == 2 else n_classes), requires_grad=True, **place)
        intercept = torch.zeros(coef.shape[1], requires_grad=True, **place)
        strength = torch.as_tensor(self.alpha / np.square(std), **place).reshape(-1, 1)
        target = torch.as_tensor(y, device=rows.device)
        target = target if n_classes > 2 else target.to(rows.dtype)

        def loss(idx: Any) -> Any:
            z, truth = rows.times(coef, idx) + intercept, target if idx is None else target[idx]
            data = cross_entropy(z, truth) if n_classes > 2 else binary_cross_entropy_with_logits(z[:, 0], truth)
            return data + 0.5 * (strength * coef.square()).sum()

        if self.optimizer == "lbfgs":
            self._full_passes(loss, [coef, intercept])
        else:
            curvature = 0.5 * rows.mean_square() + float(strength.max())
            self._minibatches(loss, [coef, intercept], len(y), curvature)
        scaled = coef.detach().cpu().numpy().T / std
        self.coef_ = scaled
        self.intercept_ = intercept.detach().cpu().numpy() - scaled @ np.broadcast_to(mean, scaled.shape[1])
        return self

    def _full_passes(self, loss: Any, weights: list[Any]) -> None:
        # tolerances off; max_eval's default, 1.25 max_iter, would end a fit early
        search = torch.optim.LBFGS(
            weights,
            max_iter=self.max_iter,
            max_eval=100 * self.max_iter,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Any:
            search.zero_grad()
            value = loss(None)
            value.backward()
            return value

        search.step(closure)

    def _minibatches(self, loss: Any, weights: list[Any], n_samples: int, curvature: float) -> None:
        optimizer: Any
        if self.optimizer == "adam":
            optimizer = torch.optim.Adam(weights, lr=self.rate, fused=True)
        else:
            optimizer = torch.optim.SGD(weights, lr=self.rate / curvature, momentum=0.9, nesterov=True, fused=True)
        n_updates = UPDATES * self.max_iter
        largest = optimizer.param_groups[0]["lr"]
        batches: list[Any] = []
        for update in range(n_updates):
            optimizer.param_groups[0]["lr"] = largest * (1 - update / n_updates)
            if not batches:
                batches = list(torch.randperm(n_samples, device=weights[0].device).split(self.batch_size))
            optimizer.zero_grad()
            loss(batches.pop()).backward()
            optimizer.step()


class _DenseRows:
    def __init__(self, X: Any) -> None:
        self.X, self.dtype, self.device = X, X.dtype, X.device

    def standardise(self) -> tuple[Array, Array]:
        std, mean = torch.std_mean(self.X, dim=0, correction=0)
        std[std == 0] = 1
        self.X = (self.X - mean) / std
        return mean.cpu().numpy(), std.cpu().numpy()

    def mean_square(self) -> float:
        return float(self.X.square().sum(dim=1).mean())

    def times(self, coef: Any, idx: Any) -> Any:
        return (self.X if idx is None else self.X[idx]) @ coef


class _SparseRows:
    """CSR rows as bags of columns, torch's quick way to multiply a few of them."""

    device = "cpu"

    def __init__(self, X: Any) -> None:
        self.X, self.dtype = X, torch.float32 if X.dtype == np.float32 else torch.float64

    def standardise(self) -> tuple[Array, Array]:
        raise ValueError("Standardised columns would not be sparse.")

    def mean_square(self) -> float:
        return float(self.X.multiply(self.X).sum() / self.X.shape[0])

    def times(self, coef: Any, idx: Any) -> Any:
        rows = self.X if idx is None else self.X[idx.numpy()]
        columns, starts, values = (torch.from_numpy(a) for a in (rows.indices, rows.indptr[:-1], rows.data))
        return embedding_bag(columns, coef, starts, mode="sum", per_sample_weights=values)
