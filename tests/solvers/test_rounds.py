"""Rounds of CSR rows: their length by closed forms, their ranges of columns, and the minimum of a fit with them."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal

from sksoftmax import SoftmaxClassifier
from sksoftmax._engines import registry
from sksoftmax._solvers import _dual_data, _rounds
from sksoftmax._solvers._dual_data import make_dual_data
from sksoftmax._types import Batch, Problem
from tests.solvers.test_dual import needs_kernels

pytestmark = needs_kernels


def dual_rows(X, y):
    X = sp.csr_array(X)
    kernel = registry.get_kernel("compiled")
    problem = Problem(Batch(X, np.asarray(y, np.intp), np.ones(len(y))), int(max(y)) + 1, 1.0, True, kernel, 1.0)
    return make_dual_data(problem)


@pytest.fixture
def any_epoch(monkeypatch):
    """Rounds however short an epoch is."""
    monkeypatch.setattr(_rounds, "_MIN_EPOCH_WORK", 0)


def test_short_epochs_have_no_rounds():
    rows = dual_rows(np.eye(50), np.arange(50) % 3)
    assert rows.round_size == 1
    assert _rounds.count_rows(rows, np.ones(50), 0.0) == 1
    assert_array_equal(rows.splits, rows.X.indptr)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_equal_rows_have_rounds_of_the_length_that_their_eigenvalue_says(n_classes, any_epoch):
    n, q = 512, 3.0
    y = np.arange(n) % n_classes
    rows = dual_rows(np.full((n, 1), np.sqrt(q * n)), y)  # norm_weight is 1 / n, so that the squared norm is q
    h = 1 / 4  # f (1 - f), and f
    a = q * h / (1 + q * h)  # M is a everywhere: of m rows without the diagonal, the eigenvalue is a (m - 1)
    assert _rounds.count_rows(rows, np.full(n, q), 0.0) == int(1 + 2 / a)


def test_rows_without_a_column_in_common_have_rounds_as_long_as_their_cost_allows(any_epoch):
    n = 512
    rows = dual_rows(np.sqrt(n) * np.eye(n), np.arange(n) % 3)
    work = _rounds.row_work(rows.X, 8)
    assert work == 8 * 101
    assert _rounds.count_rows(rows, np.ones(n), 0.0) == _rounds._MAX_ROUND_WORK // work
    # the intercept is a column that all rows have in common
    h = 171 / 512
    assert _rounds.count_rows(rows, np.full(n, 1.1), 0.1 * n) == int(1 + 2 / (0.1 * h / (1 + 1.1 * h)))


def test_ranges_have_as_many_entries_each(any_epoch):
    X = sp.random(2000, 3000, 0.02, "csr", random_state=0, dtype=np.float32)
    rows = dual_rows(X, np.arange(2000) % 12)
    n_ranges = (len(rows.splits) - 1) // 2000
    assert n_ranges == 2  # 60 entries, 16 lanes: a row takes 2560 multiplications
    counts = np.diff(rows.splits).reshape(2000, n_ranges).sum(axis=0)
    assert counts.sum() == X.nnz
    assert counts.max() < 1.05 * X.nnz / n_ranges


def test_a_rise_of_F_halves_the_rounds(any_epoch):
    rows = dual_rows(np.eye(50), np.arange(50) % 3)._replace(round_size=5)
    assert rows.shorten_rounds().round_size == 2
    assert rows.shorten_rounds().shorten_rounds().shorten_rounds().round_size == 1


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_a_fit_with_rounds_ends_at_the_same_minimum(n_classes, l1_ratio, any_epoch, monkeypatch):
    rng = np.random.default_rng(0)
    X = sp.csr_array(sp.random(1500, 400, 0.05, "csr", random_state=0))
    y = np.argmax(X @ rng.standard_normal((400, n_classes)) + rng.gumbel(size=(1500, n_classes)), axis=1)
    sizes = []
    run_epoch = _dual_data.SparseRows.run_epoch

    def watched(self, *args):
        sizes.append(self.round_size)
        return run_epoch(self, *args)

    monkeypatch.setattr(_dual_data.SparseRows, "run_epoch", watched)
    clf = SoftmaxClassifier(1e-3, l1_ratio=l1_ratio, solver="dual", tol=1e-6, random_state=0).fit(X, y)
    assert max(sizes) > 4
    monkeypatch.setattr(_rounds, "_MIN_EPOCH_WORK", np.inf)
    alone = SoftmaxClassifier(1e-3, l1_ratio=l1_ratio, solver="dual", tol=1e-6, random_state=0).fit(X, y)
    assert sizes[-1] == 1
    assert clf.excess_ <= 1e-6
    assert clf.loss_curve_[-1] == pytest.approx(alone.loss_curve_[-1], rel=2e-6)
    assert clf.n_iter_ <= 1.5 * alone.n_iter_ + 3
