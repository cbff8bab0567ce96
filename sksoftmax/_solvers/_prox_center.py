"""Where the centre of the dual's proximal steps goes, and how far F then is from its minimum.

See ``dual`` for what the centre V is. With W the coefficients that an epoch ended with, ``g = kappa (W - V)`` is minus
F's gradient at W, as far as the rows agree. V moves to W, extrapolated by Anderson's method on the last two pairs of
(change of W, change of g): Walker & Ni (2011), SIAM J. Numer. Anal. 49(4), 1715-1735.

What moving the centre can still bring: along a direction in which a step keeps the share rho of the distance,
``F - F* = 1/2 <g, W - V> rho / (1 - rho)``. The share is measured, over three epochs; slow directions hide behind
fast ones, and extrapolation hides some more of them, so the estimate is four times that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sksoftmax._types import Array

#: Pairs that Anderson's method extrapolates from: 2, 5 and 10 did the same.
_N_PAIRS = 2

#: The share is that of this many epochs, and counts as at most this: where that much is measured, it may be any, and
#: counts as another for some epochs.
_N_EPOCHS, _GREATEST_SHARE, _UNKNOWN, _FORGET = 3, 0.98, 0.995, 5

#: Largest factor on a change by which to extrapolate: what a share of 0.99 takes. Beyond it is rounding.
_LONGEST = 100.0

#: Factor on the estimate of what the centre can bring: the least found by which no fit ended above tol.
_CAUTION = 4.0


class AndersonPair(NamedTuple):
    """An epoch's end as the centre sees it, in scaled coefficients: (n_active + 1, n_lanes), the intercept last."""

    reached: Array
    g: Array


class ProxCenter(NamedTuple):
    """The centre, and what it remembers.

    Attributes
    ----------
    at : ndarray of shape (n_active + 1, n_lanes)
    target : ndarray or None
        Where it goes next.
    last : Move or None
    pairs : tuple of Move
        Changes from epoch to epoch.
    gains : tuple of float
        ``1/2 <g, W - V>`` of the epochs since the metric last changed.
    remaining : float
        Estimate of what moving it can still bring, in units of F, should there be no direction slower than most.
    n_unknown : int
        Epochs for which the estimate counts as unknown.
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
        """The estimate that a fit may end by: with caution, and that of a share near 1 where that is all we know."""
        return _CAUTION * (max(self.remaining, self.gains[-1] / (1 - _UNKNOWN)) if self.n_unknown else self.remaining)


def update_center(prox_center: ProxCenter, reached: Array, prox_fraction: Array, *, is_plain: bool) -> ProxCenter:
    """The centre after an epoch that ended at ``reached``, with where to go, and what that can bring.

    Parameters
    ----------
    prox_center : Centre
    reached : ndarray of shape (n_active + 1, n_lanes)
    prox_fraction : ndarray of shape (n_active + 1,)
        kappa of each scaled coefficient.
    is_plain : bool
        Whether to forget the pairs and to go where the epoch ended: the extrapolation has gone wrong.
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
    """``reached`` less the combination of its changes along which g is nearest to 0."""
    if not pairs:
        return reached
    products = np.array([[np.vdot(a.g, b.g) for b in pairs] for a in pairs], dtype=float)
    products += (1e-8 * np.trace(products) + 1e-300) * np.eye(len(pairs))  # nearly parallel changes
    slopes = np.array([np.vdot(a.g, g) for a in pairs], dtype=float)
    parts = np.linalg.solve(products, slopes)
    if not np.abs(parts).max() <= _LONGEST:
        return reached
    target = reached.copy()
    for part, pair in zip(parts, pairs, strict=True):
        target -= reached.dtype.type(part) * pair.reached
    return target


def rescale_center(prox_center: ProxCenter, reached: Array, grow: Array, factor: Array) -> ProxCenter:
    """The centre where kappa is ``factor`` times what it was, and the coefficients are as they were.

    ``V' = W + (V - W) kappa / kappa'``, and all scaled coefficients are divided by ``grow``.
    """
    grow, factor = (part[:, None].astype(reached.dtype) for part in (grow, factor))
    at = (reached + (prox_center.at - reached) / factor) / grow
    pairs = tuple(AndersonPair(pair.reached / grow, pair.g * grow) for pair in prox_center.pairs)
    last = (
        None if prox_center.last is None else AndersonPair(prox_center.last.reached / grow, prox_center.last.g * grow)
    )
    return prox_center._replace(at=at, target=None, last=last, pairs=pairs, gains=())
