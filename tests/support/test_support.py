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
IN_FULL = pytest.mark.slow(reason="half of the features are tried without it")


def cells():
    """One of every second row is quick, so that each column has one."""
    for i, feature in enumerate(FEATURES):
        for j, subject in enumerate(SUBJECTS):
            quick = i % 2 == 0 and (j - i) % len(SUBJECTS) == 0
            yield pytest.param(
                feature,
                subject,
                marks=() if quick else IN_FULL,
                id=f"{feature} {subject}",
            )


def test_the_page_has_every_cell():
    cells = read()
    assert set(cells) == {(f, s) for f in FEATURES for s in SUBJECTS}
    assert written(cells) == PAGE.read_text("utf-8")


@pytest.mark.parametrize("feature, subject", list(cells()))
def test_a_cell(feature, subject):
    expected = cell(read()[feature, subject], feature, subject, BACKEND)
    assert outcome(feature, subject) == expected


@pytest.mark.parametrize("name", PARTS)
def test_a_part(name):
    assert part_outcome(name) == part(name, BACKEND)
