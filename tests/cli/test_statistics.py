"""Paired differences, their correction, and the seeds they ask for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from keras_wd.cli import statistics
from keras_wd.cli.statistics import Difference

numbers = st.floats(-10, 10).map(lambda x: round(x, 3))


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=9))
def test_p_is_that_of_scipy(pairs):
    one, other = (dict(enumerate(side)) for side in zip(*pairs, strict=True))
    found = statistics.paired(one, other)
    differences = np.subtract(*np.transpose(pairs))
    assert found.value == pytest.approx(differences.mean())
    if np.ptp(differences) > 1e-6:
        expected = stats.ttest_1samp(differences, 0)
        assert found.p == pytest.approx(expected.pvalue, abs=1e-12)


def test_only_seeds_of_both_are_compared():
    found = statistics.paired(
        {0: 1.0, 1: 2.0, 5: 9.0}, {0: 0.5, 1: 1.0, 2: 0.0}
    )
    assert (found.seeds, found.value) == (2, 0.75)
    assert statistics.paired({0: 1.0}, {1: 1.0}) is None


def test_differences_without_spread_prove_nothing():
    same = statistics.paired({0: 0.9, 1: 0.8}, {0: 0.8, 1: 0.7})
    assert same.p is None
    assert statistics.paired({0: 0.9, 1: 0.8}, {0: 0.9, 1: 0.8}).p == 1.0
    assert statistics.paired({0: 0.9}, {0: 0.8}).p is None


def test_by_chance_something_is_certain_at_most_at_the_level():
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        noise = rng.normal(size=(6, 5))
        p = [
            statistics.paired(
                dict(enumerate(x)), dict.fromkeys(range(5), 0.0)
            ).p
            for x in noise
        ]
        wrong += min(statistics.corrected(p)) < statistics.LEVEL
    assert wrong / 400 < 0.08


def test_the_seeds_asked_for_resolve_it():
    one = Difference(value=1.0, error=1.0 / 4**0.5, seeds=4, p=0.1)
    needed = statistics.seeds_needed(one, comparisons=4)
    rng = np.random.default_rng(0)
    drawn = rng.normal(1.0, 1.0, size=(2000, needed))
    p = stats.ttest_1samp(drawn, 0, axis=1).pvalue
    share = np.mean(p < statistics.LEVEL / 4)
    assert 0.76 < share < 0.85
    assert statistics.seeds_needed(Difference(1e-6, 1.0, 4, 0.9), 4) is None
