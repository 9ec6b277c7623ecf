"""Trying a cell, and the table as a page."""

import pathlib
import tempfile

import keras

from tests.support.features import FEATURES
from tests.support.features import Impossible
from tests.support.subjects import SUBJECTS

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "support.md"
YES = "yes"
INTRODUCTION = """\
# What works with what

Every optimizer and decay with what Keras offers, tried on a small network:
`{yes}` where the numbers are right, `no` where it is refused with the reason
below, `-` where there is nothing to combine. What "right" means in a row is a
function in `tests/support/features.py`; `tests/support/test_support.py` tries
every cell on TensorFlow and on JAX and fails where the page says something
else. `python -m tests.support` writes it.
"""


def outcome(feature: str, subject: str) -> tuple[str, str]:
    """`("yes", "")`, or "no" or "-" and the reason."""
    keras.utils.clear_session(free_memory=False)
    with tempfile.TemporaryDirectory() as folder:
        try:
            FEATURES[feature](SUBJECTS[subject], pathlib.Path(folder))
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
    reasons = list(dict.fromkeys(reason for _, reason in cells.values()))
    numbers = {reason: n for n, reason in enumerate(filter(None, reasons), 1)}

    def cell(feature, subject):
        kind, reason = cells[feature, subject]
        return f"{kind} ({numbers[reason]})" if reason else kind

    lines = [["", *SUBJECTS], ["---"] * (len(SUBJECTS) + 1)]
    lines += [
        [feature, *(cell(feature, subject) for subject in SUBJECTS)]
        for feature in FEATURES
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "\n".join(f"{n}. {reason}." for reason, n in numbers.items())
    return f"{INTRODUCTION.format(yes=YES)}\n{table}\n\n{notes}\n"


def read() -> dict[tuple[str, str], tuple[str, str]]:
    """The cells of the page."""
    text = PAGE.read_text("utf-8")
    rows = [
        [part.strip() for part in line.strip("|").split("|")]
        for line in text.splitlines()
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
