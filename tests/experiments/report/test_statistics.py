"""Differences: intervals over seeds, and differences beside their standard errors."""

import math

import numpy as np
import pytest

from experiments.report.statistics import differs, interval, ratio_if_different, shown_sign, spreads_needed


def test_an_interval_is_students():
    # t(0.975, 2) = 4.303, t(0.995, 2) = 9.925 and t(0.995, 1) = 63.657 in printed tables.
    assert interval([1.0, 2.0, 3.0]) == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert spreads_needed(3, 5) == pytest.approx(9.925 / math.sqrt(3), rel=1e-3)
    assert interval([1.0]) is None
    assert interval([1.0, None, 3.0], comparisons=5) == pytest.approx(
        63.657 * math.sqrt(2) / math.sqrt(2), rel=1e-3
    )


def test_chance_shows_no_more_than_the_level():
    """Beyond the spread with signs alike happens in a fifth of comparisons of nothing; intervals in 5 %."""
    draws = np.random.default_rng(0).normal(size=(2000, 3))
    spread = np.abs(draws.mean(1)) > draws.std(1, ddof=1)
    alike = (np.sign(draws) == np.sign(draws[:, :1])).all(1)
    assert 0.18 < (spread & alike).mean() < 0.24
    shown = np.mean([shown_sign(list(row), 1) != 0 for row in draws[:1000]])
    assert 0.03 < shown < 0.07


def test_the_sign_is_that_of_the_mean():
    assert shown_sign([1.0, 1.1, 0.9], 1) == 1
    assert shown_sign([-1.0, -1.1, None, -0.9], 1) == -1
    assert shown_sign([1.0, 1.1, 0.9], 100) == 0
    assert shown_sign([1.0], 1) == shown_sign([None], 1) == 0


def test_no_difference_is_called_none():
    # An accuracy of 0.0168 beside 0.0140 of its control would read as 1.2 times as often.
    assert not differs(0.0028, 0.0027)
    assert ratio_if_different(0.0168, 0.0140, 0.0027) is None
    assert ratio_if_different(0.0280, 0.0140, 0.0027) == pytest.approx(2.0)
    assert differs(-0.0056, 0.0027)
    assert not differs(-0.0056, 0.0027, comparisons=10)
    assert not differs(1.0, float("nan"))
    assert ratio_if_different(0.5, 0.0, 0.0) is None
