"""The proximal center of the dual solver: its next position, and an estimate of F - F*.

`dual` explains what the center V is, and calls `update_center` after each epoch. Let W be the coefficients at the end
of the epoch. If the dual variables are optimal for this center, ``g = kappa (W - V)`` is minus the gradient of F at W.
V moves to W, extrapolated by Anderson's method on the last two pairs (change of W, change of g): Walker & Ni (2011),
SIAM J. Numer. Anal. 49(4), 1715-1735.

Along a direction in which a move contracts the distance by a factor rho, further moves of the center decrease F by
``F - F* = 1/2 <g, W - V> rho / (1 - rho)``. We measure rho over three epochs. Fast directions hide slow ones, and
extrapolation hides some more, so that the cautious estimate is four times that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sksoftmax._types import Array

#: Number of pairs of Anderson's method: 2, 5 and 10 performed equally.
_N_PAIRS = 2

#: Number of epochs over which the contraction factor rho is averaged.
_N_EPOCHS = 3

#: Maximum of the contraction factor. A measured value above it may be anything up to 1, and counts as unknown.
_MAX_CONTRACTION = 0.98

#: Contraction factor in the cautious estimate while it is unknown.
_UNKNOWN_CONTRACTION = 0.995

#: Number of epochs for which it stays unknown after such a measurement.
_N_UNKNOWN = 5

#: Largest factor on a change in the extrapolation: 1 / (1 - 0.99), for rho = 0.99. Larger factors are due to rounding.
_MAX_FACTOR = 100.0

#: Factor of the cautious estimate: the smallest with which no fit of our experiments ended above tol.
_SAFETY = 4.0


class AndersonPair(NamedTuple):
    """Scaled coefficients at the end of an epoch, and g there, or the changes of both from one epoch to the next.

    Both arrays are (n_active + 1, n_lanes), with the intercept last.
    """

    coef: Array
    g: Array


class ProxCenter(NamedTuple):
    """The proximal center, and the memory of its last moves.

    Attributes
    ----------
    position : ndarray of shape (n_active + 1, n_lanes)
        The center V, in scaled coefficients, with the intercept last.
    target : ndarray of shape (n_active + 1, n_lanes) or None
        Next position; None before the first epoch and after a move.
    last : AndersonPair or None
        The end of the last epoch.
    pairs : tuple of AndersonPair
        Changes from epoch to epoch, at most ``_N_PAIRS``.
    gains : tuple of float
        ``1/2 <g, W - V>`` of the last epochs since kappa changed, at most ``_N_EPOCHS + 1``.
    remaining : float
        Estimate of the decrease of F by further moves, if no direction is slower than the measured rho.
    n_unknown : int
        Number of epochs for which rho still counts as unknown.
    """

    position: Array
    target: Array | None = None
    last: AndersonPair | None = None
    pairs: tuple[AndersonPair, ...] = ()
    gains: tuple[float, ...] = ()
    remaining: float = np.inf
    n_unknown: int = 0

    @property
    def cautious_estimate(self) -> float:
        """Estimate of F - F* for the stopping rule: with a safety factor, and pessimistic while rho is unknown."""
        return _SAFETY * (
            max(self.remaining, self.gains[-1] / (1 - _UNKNOWN_CONTRACTION)) if self.n_unknown else self.remaining
        )


def update_center(prox_center: ProxCenter, coef: Array, prox_fraction: Array, *, is_plain: bool) -> ProxCenter:
    """Return the center with its next position and its estimate, after an epoch that ended at ``coef``.

    Parameters
    ----------
    prox_center : ProxCenter
    coef : ndarray of shape (n_active + 1, n_lanes)
        Scaled coefficients at the end of the epoch.
    prox_fraction : ndarray of shape (n_active + 1,)
        kappa in scaled coefficients.
    is_plain : bool
        Whether to drop the pairs and move to ``coef``, because the extrapolation increased F.
    """
    move = coef - prox_center.position
    g = prox_fraction[:, None].astype(coef.dtype) * move
    last, pairs = (None, ()) if is_plain else (prox_center.last, prox_center.pairs)
    if last is not None:
        pairs = (*pairs, AndersonPair(coef - last.coef, g - last.g))[-_N_PAIRS:]
    target = _extrapolate(coef, g, pairs)
    gain = 0.5 * float(np.vdot(g, move))
    gains = (*prox_center.gains, gain)[-_N_EPOCHS - 1 :]
    n = len(gains) - 1
    contraction = (gain / max(gains[0], 1e-300)) ** (0.5 / n) if n else _MAX_CONTRACTION
    n_unknown = _N_UNKNOWN if n and contraction >= _MAX_CONTRACTION else max(0, prox_center.n_unknown - 1)
    estimate = max(gain, 0.5 * float(np.vdot(g, target - prox_center.position)))
    remaining = estimate / (1 - min(contraction, _MAX_CONTRACTION))
    return ProxCenter(prox_center.position, target, AndersonPair(coef, g), pairs, gains, remaining, n_unknown)


def _extrapolate(coef: Array, g: Array, pairs: tuple[AndersonPair, ...]) -> Array:
    """Return ``coef`` less the combination of its changes that minimises the norm of g.

    Returns ``coef`` itself if there are no pairs, or if a factor is not finite or above ``_MAX_FACTOR``.
    """
    if not pairs:
        return coef
    products = np.array([[np.vdot(a.g, b.g) for b in pairs] for a in pairs], dtype=float)
    products += (1e-8 * np.trace(products) + 1e-300) * np.eye(len(pairs))  # changes may be nearly parallel
    slopes = np.array([np.vdot(a.g, g) for a in pairs], dtype=float)
    weights = np.linalg.solve(products, slopes)
    if not np.abs(weights).max() <= _MAX_FACTOR:
        return coef
    target = coef.copy()
    for weight, pair in zip(weights, pairs, strict=True):
        target -= coef.dtype.type(weight) * pair.coef
    return target


def rescale_center(prox_center: ProxCenter, coef: Array, growth: Array, factor: Array) -> ProxCenter:
    """Return the center for kappa times ``factor``, with the same coefficients.

    ``V' = W + (V - W) kappa / kappa'``; then all scaled coefficients are divided by ``growth``.
    """
    growth, factor = (array[:, None].astype(coef.dtype) for array in (growth, factor))
    position = (coef + (prox_center.position - coef) / factor) / growth
    pairs = tuple(AndersonPair(pair.coef / growth, pair.g * growth) for pair in prox_center.pairs)
    last = (
        None if prox_center.last is None else AndersonPair(prox_center.last.coef / growth, prox_center.last.g * growth)
    )
    return prox_center._replace(position=position, target=None, last=last, pairs=pairs, gains=())
