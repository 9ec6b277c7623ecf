"""`python -m tests.support`: try every cell on both backends; write the page.

A cell that differs between the backends, or is not right, is printed, and
nothing is written.
"""

import json
import os
import subprocess
import sys

BACKENDS = ("tensorflow", "jax")


def cells_of(backend):
    """All cells on a backend, in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.support", "--cells"],
        env={**os.environ, "KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {tuple(key): tuple(value) for key, value in json.loads(
        result.stdout.splitlines()[-1])}  # fmt: skip


def tried():
    from tests.support.features import FEATURES
    from tests.support.subjects import SUBJECTS
    from tests.support.table import outcome

    for feature in FEATURES:
        for subject in SUBJECTS:
            try:
                found = outcome(feature, subject)
            except Exception as error:  # shown, and no page is written
                text = " ".join(f"{type(error).__name__}: {error}".split())
                found = "WRONG", text[:200]
            yield (feature, subject), found


def main():
    if "--cells" in sys.argv:
        print(json.dumps(list(tried())))
        return 0
    found = [cells_of(backend) for backend in BACKENDS]
    wrong = 0
    for key in found[0]:
        outcomes = [cells[key] for cells in found]
        if outcomes[0] != outcomes[1] or outcomes[0][0] == "WRONG":
            print(key, *outcomes, sep="\n  ")
            wrong += 1
    if not wrong:
        from tests.support.table import PAGE
        from tests.support.table import written

        PAGE.write_text(written(found[0]), "utf-8")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
