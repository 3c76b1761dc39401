"""p values in print."""

import numpy as np
import pytest

from cclnet.metrics.resampling import holm
from studies.reporting.p_values import PValue, adjusted


def test_a_p_at_the_floor_is_at_most_so_large():
    assert str(PValue(0.0123, False)) == "= 0.012"
    assert str(PValue(0.0001, True)) == "≤ 0.0001"
    assert str(PValue(0.00049, False)) == "= 0.0005"
    assert str(PValue(1.0, False)) == "= 1.000"


def test_adjusted_values_are_holm_s_and_gaps_stay():
    values = [PValue(0.02, False), None, PValue(0.01, False), PValue(0.5, False)]
    found = adjusted(values)
    assert found[1] is None
    assert [each.value for each in found if each] == pytest.approx(holm([0.02, 0.01, 0.5]).tolist())
    assert not any(each.at_most for each in found if each)


def test_what_hangs_on_a_p_at_the_floor_is_at_most_so_large_too():
    """The second value is adjusted up to the first one's 3 × 0.001, which may be smaller; the third is its own."""
    found = adjusted([PValue(0.001, True), PValue(0.0012, False), PValue(0.4, False)])
    assert found == [PValue(0.003, True), PValue(0.003, True), PValue(0.4, False)]


def test_random_values_lie_between_those_with_the_floor_at_0_and_at_itself():
    random = np.random.default_rng(0)
    for _ in range(200):
        values = [PValue(float(p), bool(p < 0.05)) for p in random.random(6) ** 3]
        truth = [value.value * random.random() if value.at_most else value.value for value in values]
        for each, exact in zip(adjusted(values), holm(truth).tolist(), strict=True):
            assert each and exact <= each.value + 1e-12
            assert each.at_most or exact == pytest.approx(each.value)
