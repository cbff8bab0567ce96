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

from sksoftmax._engines import compiled
from sksoftmax._solvers._dual_data import map_columns
from sksoftmax._types import Array

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
        Changes from epoch to epoch: those of the last two (with 5 and 10 the fits of our experiments took as long).
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

    The arrays of ``prox_center.last`` become those of the last pair.

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
    last, pairs = (None, ()) if is_plain else (prox_center.last, prox_center.pairs)
    older = pairs[-1] if pairs else None
    fraction, g, nothing = prox_fraction.astype(coef.dtype), np.empty_like(coef), np.empty((0, 0), coef.dtype)

    def moves(span: slice) -> Array:
        sums = np.zeros(6)
        compiled.kernels.center_moves(
            *(coef[span], prox_center.position[span], fraction[span], g[span]),
            *((nothing, nothing) if last is None else (last.coef[span], last.g[span])),
            *(nothing if older is None else older.g[span], sums),
        )
        return sums

    sums = sum(map_columns(moves, coef), np.zeros(6))
    gain = 0.5 * float(sums[0])
    if last is not None:  # its arrays are the changes now
        pairs = (last,) if older is None else (older, last)
    factors = _factors(sums, len(pairs))
    if factors is None:
        target, slope = coef.copy(), 2 * gain
    else:
        target, slope = _extrapolate(prox_center.position, AndersonPair(coef, g), pairs, factors)
    gains = (*prox_center.gains, gain)[-_N_EPOCHS - 1 :]
    n = len(gains) - 1
    contraction = (gain / max(gains[0], 1e-300)) ** (0.5 / n) if n else _MAX_CONTRACTION
    n_unknown = _N_UNKNOWN if n and contraction >= _MAX_CONTRACTION else max(0, prox_center.n_unknown - 1)
    estimate = max(gain, 0.5 * slope)
    remaining = estimate / (1 - min(contraction, _MAX_CONTRACTION))
    return ProxCenter(prox_center.position, target, AndersonPair(coef, g), pairs, gains, remaining, n_unknown)


def _extrapolate(
    position: Array, end: AndersonPair, pairs: tuple[AndersonPair, ...], factors: list[float]
) -> tuple[Array, float]:
    """Return ``W - sum_m factor_m (change of W)_m``, the target, and ``<g, target - V>``; ``end`` has W and g."""
    target, nothing = np.empty_like(end.coef), np.empty((0, 0), end.coef.dtype)

    def extrapolate(span: slice) -> float:
        terms = [value for factor, pair in zip(factors, pairs, strict=True) for value in (pair.coef[span], factor)]
        arguments = terms if len(pairs) == 2 else [*terms, nothing, 0.0]
        slope: float = compiled.kernels.extrapolate_rows(
            end.coef[span], position[span], end.g[span], *arguments, target[span]
        )
        return slope

    return target, sum(map_columns(extrapolate, target))


def _factors(sums: Array, n_pairs: int) -> list[float] | None:
    """Return the factors of the pairs in the combination of g and its changes that has the least norm, oldest first.

    ``sums`` are those of ``center_moves`` in center.hpp. Returns None if there are no pairs, or if a factor is not
    finite or above ``_MAX_FACTOR``.
    """
    _, d_d, d_g, d_e, e_g, e_e = sums
    if not n_pairs:
        return None
    products, slopes = np.array([[e_e, d_e], [d_e, d_d]])[-n_pairs:, -n_pairs:], np.array([e_g, d_g])[-n_pairs:]
    products += (1e-8 * np.trace(products) + 1e-300) * np.eye(n_pairs)  # changes may be nearly parallel
    factors = np.linalg.solve(products, slopes)
    return factors.tolist() if np.abs(factors).max() <= _MAX_FACTOR else None


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
