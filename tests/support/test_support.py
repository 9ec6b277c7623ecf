"""The page says of every cell what is found."""

import keras
import pytest

from tests.support.backends import PARTS
from tests.support.backends import cell
from tests.support.backends import part
from tests.support.features import FEATURES
from tests.support.subjects import SUBJECTS
from tests.support.table import PAGE
from tests.support.table import outcome
from tests.support.table import part_outcome
from tests.support.table import read
from tests.support.table import written

BACKEND = keras.backend.backend()
EACH_FEATURE = pytest.mark.slow(reason="every third feature is quick")
EACH_CELL = pytest.mark.weekly(reason="each feature and subject is tried once")


def cells():
    """Every feature is tried with one subject, every subject with one."""
    for i, feature in enumerate(FEATURES):
        for j, subject in enumerate(SUBJECTS):
            marks = pytest.mark.every_case if i % 3 == 0 else EACH_FEATURE
            if (j - i) % len(SUBJECTS):
                marks = EACH_CELL
            yield pytest.param(
                feature, subject, marks=marks, id=f"{feature} {subject}"
            )


def test_the_page_has_every_cell():
    cells = read()
    assert set(cells) == {(f, s) for f in FEATURES for s in SUBJECTS}
    assert written(cells) == PAGE.read_text("utf-8")


@pytest.mark.parametrize("feature, subject", list(cells()))
def test_a_cell(feature, subject):
    expected = cell(read()[feature, subject], feature, subject, BACKEND)
    assert outcome(feature, subject) == expected


@pytest.mark.few_cases(3)
@pytest.mark.parametrize("name", PARTS)
def test_a_part(name):
    assert part_outcome(name) == part(name, BACKEND)
