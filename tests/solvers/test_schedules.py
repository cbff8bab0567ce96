import pytest

from sksoftmax._data.validation import PARAMETER_CONSTRAINTS
from sksoftmax._solvers.schedules import schedule

#: At the start, half way and at the end.
FACTORS = {
    "constant": [1.0, 1.0, 1.0],
    "linear": [1.0, 0.5, 0.0],
    "cosine": [1.0, 0.5, 0.0],
    "inverse_scaling": [1.0, 6**-0.5, 11**-0.5],
}


@pytest.mark.parametrize("name", FACTORS)
def test_factors_at_the_start_half_way_and_at_the_end(name):
    assert [schedule(name, 0.5)(step, 10) for step in (0, 5, 10)] == pytest.approx(FACTORS[name], abs=1e-15)


def test_every_schedule_that_users_may_ask_for_is_tested():
    assert PARAMETER_CONSTRAINTS["schedule"][0].options == set(FACTORS)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_without_a_horizon_the_rate_is_kept_and_past_it_is_0(name):
    assert schedule(name, 0.5)(1000, None) == 1.0
    assert schedule(name, 0.5)(11, 10) == pytest.approx(0.0, abs=1e-15)
