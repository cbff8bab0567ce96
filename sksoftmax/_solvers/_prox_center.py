"""The proximal center of the dual solver: its next position, and an estimate of F - F*.

`dual` explains what the center V is, and calls `update_center` after each epoch. With W the coefficients at the end of
the epoch, ``g = kappa (W - V)`` is minus the gradient of F at W, if the dual variables are optimal for this center. V
moves to W, extrapolated by Anderson's method on the last two pairs (change of W, change of g): Walker & Ni (2011), SIAM
J. Numer. Anal. 49(4), 1715-1735.

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
_GREATEST_SHARE = 0.98

#: Contraction factor in the cautious estimate while it is unknown.
_UNKNOWN = 0.995

#: Number of epochs for which it stays unknown after such a measurement.
_FORGET = 5

#: Largest factor on a change in the extrapolation: 1 / (1 - 0.99), for rho = 0.99. Larger factors are due to rounding.
_LONGEST = 100.0

#: Factor of the cautious estimate: the smallest with which no fit of our experiments ended above tol.
_CAUTION = 4.0


class AndersonPair(NamedTuple):
    """Scaled coefficients at the end of an epoch, and g there, or the changes of both from one epoch to the next.

    Both arrays are (n_active + 1, n_lanes), with the intercept last.
    """

    reached: Array
    g: Array


class ProxCenter(NamedTuple):
    """The proximal center, and the memory of its last moves.

    Attributes
    ----------
    at : ndarray of shape (n_active + 1, n_lanes)
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

    at: Array
    target: Array | None = None
    last: AndersonPair | None = None
    pairs: tuple[AndersonPair, ...] = ()
    gains: tuple[float, ...] = ()
    remaining: float = np.inf
    n_unknown: int = 0

    @property
    def cautious_estimate(self) -> float:
        """Estimate of F - F* for the stopping rule: with a safety factor, and pessimistic while rho is unknown."""
        return _CAUTION * (max(self.remaining, self.gains[-1] / (1 - _UNKNOWN)) if self.n_unknown else self.remaining)


def update_center(prox_center: ProxCenter, reached: Array, prox_fraction: Array, *, is_plain: bool) -> ProxCenter:
    """Return the center with its next position and its estimate, after an epoch that ended at ``reached``.

    Parameters
    ----------
    prox_center : ProxCenter
    reached : ndarray of shape (n_active + 1, n_lanes)
        Scaled coefficients at the end of the epoch.
    prox_fraction : ndarray of shape (n_active + 1,)
        kappa in scaled coefficients.
    is_plain : bool
        Whether to drop the pairs and move to ``reached``, because the extrapolation increased F.
    """
    moved = reached - prox_center.at
    g = prox_fraction[:, None].astype(reached.dtype) * moved
    last, pairs = (None, ()) if is_plain else (prox_center.last, prox_center.pairs)
    if last is not None:
        pairs = (*pairs, AndersonPair(reached - last.reached, g - last.g))[-_N_PAIRS:]
    target = _extrapolated(reached, g, pairs)
    gain = 0.5 * float(np.vdot(g, moved))
    gains = (*prox_center.gains, gain)[-_N_EPOCHS - 1 :]
    n = len(gains) - 1
    kept = (gain / max(gains[0], 1e-300)) ** (0.5 / n) if n else _GREATEST_SHARE
    n_unknown = _FORGET if n and kept >= _GREATEST_SHARE else max(0, prox_center.n_unknown - 1)
    estimate = max(gain, 0.5 * float(np.vdot(g, target - prox_center.at)))
    remaining = estimate / (1 - min(kept, _GREATEST_SHARE))
    return ProxCenter(prox_center.at, target, AndersonPair(reached, g), pairs, gains, remaining, n_unknown)


def _extrapolated(reached: Array, g: Array, pairs: tuple[AndersonPair, ...]) -> Array:
    """Return ``reached`` less the combination of its changes that minimises the norm of g.

    Returns ``reached`` itself if there are no pairs, or if a factor is not finite or above ``_LONGEST``.
    """
    if not pairs:
        return reached
    products = np.array([[np.vdot(a.g, b.g) for b in pairs] for a in pairs], dtype=float)
    products += (1e-8 * np.trace(products) + 1e-300) * np.eye(len(pairs))  # changes may be nearly parallel
    slopes = np.array([np.vdot(a.g, g) for a in pairs], dtype=float)
    parts = np.linalg.solve(products, slopes)
    if not np.abs(parts).max() <= _LONGEST:
        return reached
    target = reached.copy()
    for part, pair in zip(parts, pairs, strict=True):
        target -= reached.dtype.type(part) * pair.reached
    return target


def rescale_center(prox_center: ProxCenter, reached: Array, grow: Array, factor: Array) -> ProxCenter:
    """Return the center for kappa times ``factor``, with the same coefficients.

    ``V' = W + (V - W) kappa / kappa'``; then all scaled coefficients are divided by ``grow``.
    """
    grow, factor = (part[:, None].astype(reached.dtype) for part in (grow, factor))
    at = (reached + (prox_center.at - reached) / factor) / grow
    pairs = tuple(AndersonPair(pair.reached / grow, pair.g * grow) for pair in prox_center.pairs)
    last = (
        None if prox_center.last is None else AndersonPair(prox_center.last.reached / grow, prox_center.last.g * grow)
    )
    return prox_center._replace(at=at, target=None, last=last, pairs=pairs, gains=())
