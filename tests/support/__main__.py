"""`python -m tests.support`: try every cell on all backends; write the page.

A cell that is not what it has to be on a backend is printed, and nothing is
written. torch is tried where it is installed, with the same Python.
"""

import importlib.util
import json
import os
import subprocess
import sys


def cells_of(backend):
    """All cells and parts on a backend, in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.support", "--cells"],
        env={**os.environ, "KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    cells, parts = json.loads(result.stdout.splitlines()[-1])
    return (
        {tuple(key): tuple(value) for key, value in cells},
        {key: tuple(value) for key, value in parts},
    )


def tried():
    from tests.support.backends import PARTS
    from tests.support.features import FEATURES
    from tests.support.subjects import SUBJECTS
    from tests.support.table import outcome
    from tests.support.table import part_outcome

    def safe(function, *arguments):
        try:
            return function(*arguments)
        except Exception as error:  # shown, and no page is written
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return "WRONG", text[:200]

    keys = [(f, s) for f in FEATURES for s in SUBJECTS]
    return (
        [(key, safe(outcome, *key)) for key in keys],
        [(name, safe(part_outcome, name)) for name in PARTS],
    )


def main():
    if "--cells" in sys.argv:
        print(json.dumps(tried()))
        return 0
    from tests.support.backends import NAMES
    from tests.support.backends import cell
    from tests.support.backends import part
    from tests.support.table import PAGE
    from tests.support.table import written

    here = [name for name in NAMES if importlib.util.find_spec(name)]
    found = {backend: cells_of(backend) for backend in here}
    first = found["tensorflow"][0]
    wrong = []
    for backend, (cells, parts) in found.items():
        for key, value in cells.items():
            if value[0] == "WRONG" or value != cell(first[key], *key, backend):
                wrong.append((backend, *key, value))
        for name, value in parts.items():
            if value != part(name, backend):
                wrong.append((backend, name, value))
    print(*wrong, sep="\n")
    if not wrong:
        PAGE.write_text(written(first), "utf-8")
        print(f"Tried on {', '.join(here)}; written: {PAGE}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
