"""The comparison with a peer's suite tells what differs, and how."""

import sys

import keras
import pytest

from tests import tables
from tests import versions
from tests.peers import comparison

pytestmark = pytest.mark.one_backend
SUITE = """
import keras
from keras.optimizers import SGD
from keras.optimizers import get


def variable():
    return keras.Variable([2.0, 4.0], name="kernel")


def test_step():
    one = variable()
    SGD(0.5).apply([keras.ops.ones(2)], [one])
    assert one.numpy().tolist() == [1.5, 3.5]


def test_decay():
    one = variable()
    SGD(0.5, weight_decay=0.5).apply([keras.ops.zeros(2)], [one])
    assert one.numpy().tolist() == [1.5, 3.0]


def test_by_name():
    assert isinstance(get("sgd"), SGD)


def test_subclass():
    class Own(SGD):
        pass

    assert type(Own()).__name__ == "Own"


def test_private_attribute():
    optimizer = keras.optimizers.Adam()
    optimizer.build([variable()])
    assert len(optimizer._momentums) == 1


def test_difference():
    assert type(SGD()).__name__ == "SGD"


def test_known_difference():
    assert type(get("adam")).__name__ == "Adam"


def test_that_keras_fails():
    assert False
"""
KNOWN = {"optimizers/made_up_test.py::test_known*": "The class is ours."}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    checkout = tmp_path_factory.mktemp("checkout")
    folder = checkout / "keras" / "src" / "optimizers"
    folder.mkdir(parents=True)
    (folder / "made_up_test.py").write_text(f'"""An optimizer."""\n{SUITE}')
    path = list(sys.path)
    yield comparison.compare(checkout, KNOWN)
    sys.path[:] = path
    sys.modules.pop("made_up_test", None)


@pytest.mark.parametrize(
    "test, kind, wrapped",
    [
        ("step", "passed", 1),
        ("decay", "passed", 1),
        ("by_name", "passed", 1),
        ("subclass", "passed", 0),
        ("private_attribute", "private", 1),
        ("difference", "failed", 1),
        ("known_difference", "known", 1),
    ],
)
def test_every_test_that_keras_passes_has_a_kind(outcomes, test, kind, wrapped):
    (outcome,) = [one for one in outcomes if one.test.endswith(f"test_{test}")]
    assert (outcome.kind, outcome.wrapped) == (kind, wrapped)


def test_a_test_that_keras_fails_does_not_count(outcomes):
    assert len(outcomes) == 7


def test_the_report_counts_and_explains(outcomes):
    text = comparison.report(outcomes, "jax")
    assert "| optimizers and callbacks | jax | 7 | 6 | 4 | 1 | 1 | 1 |" in text
    assert "The class is ours." in text
    assert "trainer" not in text


def test_keras_has_its_optimizers_back(outcomes):
    assert isinstance(keras.optimizers.SGD, type)
    assert type(keras.optimizers.get("sgd")) is keras.optimizers.SGD


def test_a_row_of_the_page_is_replaced_by_one_of_its_name():
    page = (
        "Text.\n\n| a | b | c |\n| --- | --- | --- |\n| x | y | 1 |\n\nEnd.\n"
    )
    found = tables.with_rows(page, "abc", 2, [("x", "y", 2), ("x", "w", 3)])
    assert found == page.replace(
        "| x | y | 1 |", "| x | w | 3 |\n| x | y | 2 |"
    )


def test_the_page_has_the_tables_that_commands_fill():
    text = tables.VERSIONS.read_text("utf-8")
    for header in (comparison.HEADER, versions.HEADER):
        assert tables.with_rows(text, header, 2, []) == text
