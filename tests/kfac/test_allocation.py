"""How inversions share programs and devices."""

import numpy as np
import pytest

from keras_wd.kfac import allocation

pytestmark = pytest.mark.one_backend


def cubic(size, filled):
    return float(filled) ** 3


def test_filling_up_adds_no_more_than_is_spare():
    rng = np.random.default_rng(0)
    counts = {int(n): int(rng.integers(1, 9)) for n in rng.integers(9, 999, 40)}
    found = allocation.shared_sizes(counts, cubic)
    assert found.keys() == counts.keys()
    assert all(size <= to and to in counts for size, to in found.items())
    alone = sum(n * cubic(k, k) for k, n in counts.items())
    filled = sum(n * cubic(k, found[k]) for k, n in counts.items())
    assert alone < filled <= (1 + allocation.SPARE) * alone
    assert len(set(found.values())) < len(counts) / 2


@pytest.mark.parametrize("count", [1, 2, 5])
def test_devices_have_the_same_to_do(count):
    rng = np.random.default_rng(0)
    costs = rng.uniform(size=60)
    parts = allocation.divided(costs, [{i % 3} for i in range(60)], count)
    assert sorted(sum(parts, [])) == list(range(60))
    loads = [costs[part].sum() for part in parts]
    assert max(loads) <= 1.1 * costs.sum() / count


def test_what_costs_little_goes_where_its_program_is():
    costs = [100.0, 99.0, *[1e-3] * 20]
    programs = [{"a"}, {"b"}, *[{"a"}, {"b"}] * 10]
    first, second = allocation.divided(costs, programs, 2)
    assert first == [*range(0, 22, 2)]
    assert second == [*range(1, 22, 2)]
