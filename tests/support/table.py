"""Trying a cell, and the table as a page."""

import pathlib
import tempfile

import keras

from tests.support.backends import DECAYS
from tests.support.backends import NAMES
from tests.support.backends import PARTS
from tests.support.backends import part
from tests.support.features import FEATURES
from tests.support.features import NOT_ON_TORCH
from tests.support.features import Impossible
from tests.support.subjects import SUBJECTS

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "support.md"
YES = "yes"
INTRODUCTION = """\
---
hide:
  - navigation
  - toc
---

# What works with what

Every optimizer and decay with what Keras offers, tried on a small network:
`{yes}` where the numbers are right, `no` where it is refused with the reason
below, `-` where there is nothing to combine. What "right" means in a row is a
function in `tests/support/features.py`; `tests/support/test_support.py` tries
every cell on TensorFlow and on JAX and fails where the page says something
else. `python -m tests.support` writes it.
"""
BACKENDS = """\
## Backends

On torch the same cells are tried where it is installed, by the command that
writes this page. There `jit_compile=True` has no meaning, as torch has no XLA,
and Keras refuses `steps_per_execution`.
"""


def outcome(feature: str, subject: str) -> tuple[str, str]:
    """`("yes", "")`, or "no" or "-" and the reason."""
    if keras.backend.backend() == "torch" and feature in NOT_ON_TORCH:
        return "-", NOT_ON_TORCH[feature]
    return _tried(lambda folder: FEATURES[feature](SUBJECTS[subject], folder))


def part_outcome(name: str) -> tuple[str, str]:
    """The same of a row of the second table."""
    return _tried(lambda folder: PARTS[name][0]())


def _tried(function):
    keras.utils.clear_session(free_memory=False)
    with tempfile.TemporaryDirectory() as folder:
        try:
            function(pathlib.Path(folder))
        except Impossible as reason:
            return "-", str(reason)
        except ValueError as error:
            return "no", _first_sentence(error)
    return YES, ""


def _first_sentence(error):
    text = " ".join(str(error).split())
    return text.split(". Received")[0].rstrip(".")


def written(cells: dict[tuple[str, str], tuple[str, str]]) -> str:
    """The page of all cells, by feature and subject."""
    parts = {
        (row, backend): part(row, backend)
        for row in (DECAYS, *PARTS)
        for backend in NAMES
    }
    every = [*cells.values(), *parts.values()]
    reasons = dict.fromkeys(reason for _, reason in every if reason)
    numbers = {reason: n for n, reason in enumerate(reasons, 1)}

    def shown(outcome):
        kind, reason = outcome
        return f"{kind} ({numbers[reason]})" if reason else kind

    def table(rows, columns, found, names=None):
        lines = [["", *(names or columns)], ["---"] * (len(columns) + 1)]
        lines += [
            [row, *(shown(found[row, column]) for column in columns)]
            for row in rows
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    notes = "\n".join(f"{n}. {reason}." for reason, n in numbers.items())
    return "\n".join(
        [
            INTRODUCTION.format(yes=YES),
            table(FEATURES, SUBJECTS, cells) + "\n",
            BACKENDS,
            table((DECAYS, *PARTS), NAMES, parts, NAMES.values()) + "\n",
            notes + "\n",
        ]
    )


def read() -> dict[tuple[str, str], tuple[str, str]]:
    """The cells of the first table of the page."""
    text = PAGE.read_text("utf-8")
    rows = [
        [column.strip() for column in line.strip("|").split("|")]
        for line in text.partition("## Backends")[0].splitlines()
        if line.startswith("|") and "---" not in line
    ]
    notes = {}
    for line in text.splitlines():
        number, found, reason = line.partition(". ")
        if found and number.isdigit():
            notes[number] = reason.rstrip(".")
    cells = {}
    for feature, *row in rows[1:]:
        for subject, value in zip(rows[0][1:], row, strict=True):
            kind, _, number = value.rstrip(")").partition(" (")
            cells[feature, subject] = kind, notes[number] if number else ""
    return cells
