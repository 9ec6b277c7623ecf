"""`python -m tests.versions`: the core tests, and their counts in the docs.

Arguments are pytest's; `--record` writes the row of these versions and this
backend into docs/versions.md.
"""

import importlib.metadata
import sys

import pytest

from tests import tables

CORE = (
    "tests/decays/test_decay.py",
    "tests/kfac/test_registration.py",
    "tests/optimizers/test_checks.py",
    "tests/optimizers/test_keras_defects.py",
    "tests/optimizers/test_multi_optimizer.py",
    "tests/optimizers/test_named.py",
    "tests/optimizers/test_saved_state.py",
    "tests/optimizers/test_weight_decay.py",
    "tests/test_schedules.py",
    "tests/test_where.py",
)
HEADER = ("Keras", "backend", "passed", "failed", "skipped")


class _Counts:
    """A pytest plugin that keeps the counts of the summary."""

    def __init__(self):
        self.counts = {}

    def pytest_terminal_summary(self, terminalreporter):
        """Where the counts of several processes have come together."""
        stats = terminalreporter.stats
        self.counts = {kind: len(found) for kind, found in stats.items()}


def main(arguments: list[str]) -> int:
    """Run them; pytest's exit code."""
    recorded = "--record" in arguments
    plugin = _Counts()
    given = [a for a in arguments if a != "--record"]
    if recorded:
        given.append("--cases=all")
    code = pytest.main([*given, *CORE], plugins=[plugin])
    import keras

    row = (
        keras.__version__,
        f"{keras.backend.backend()} {_version(keras.backend.backend())}",
        plugin.counts.get("passed", 0),
        plugin.counts.get("failed", 0) + plugin.counts.get("error", 0),
        plugin.counts.get("skipped", 0),
    )
    print(*(f"{name}: {cell}" for name, cell in zip(HEADER, row, strict=True)))
    if recorded:
        tables.record(tables.VERSIONS, HEADER, 2, [row])
    return int(code)


def _version(package):
    return importlib.metadata.version(package)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
