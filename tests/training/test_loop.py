"""Test the detection of an F without minimum in the training loop."""

import numpy as np
import pytest

from sksoftmax._training.loop import is_separable
from sksoftmax._types import Batch
from tests.problems import problem, random_data, random_problem


@pytest.mark.parametrize(("value", "want"), [(np.log(2) / 4 * 0.99, True), (np.log(2) / 4 * 1.01, False), (0.0, True)])
def test_four_rows_of_which_none_loses_log_2_are_separated(value, want):
    case = problem(np.zeros((4, 1)), [0, 1, 0, 1], alpha=0.0)
    assert is_separable(case, value) == want


def test_the_lightest_row_decides():
    case = problem(np.zeros((4, 1)), [0, 1, 0, 1], alpha=0.0, weight=[1.0, 1.0, 1.0, 0.1])
    assert is_separable(case, np.log(2) * 0.1 / 3.1 * 0.99)
    assert not is_separable(case, np.log(2) * 0.1 / 3.1 * 1.01)  # the lightest row may be predicted wrong


def test_a_penalty_or_soft_targets_give_f_a_minimum():
    assert not is_separable(random_problem(3, alpha=1e-12), 0.0)
    case = random_problem(3, alpha=0.0)
    assert is_separable(case, 0.0)
    assert not is_separable(case._replace(label_smoothing=0.1), 0.0)
    X, y = random_data()
    soft = case._replace(data=Batch(X, np.eye(3)[y], np.ones(len(y))))
    assert not is_separable(soft, 0.0)
