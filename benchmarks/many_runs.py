"""Memory and time of `keras-wd compare` itself while it has 1,000 runs.

One run is trained. In the place of the others its results are copied, which
takes no time, so that what is left is what the command does with a run: hand
it out, take note of it, and at the end read all of them and write the report.

    python -m benchmarks many_runs
    python -m benchmarks many_runs --runs=2000
"""

import functools
import os
import pathlib
import resource
import sys
import tempfile
import time

import markdown_tables
from absl import app
from absl import flags

from keras_wd.cli import compare
from keras_wd.cli import executors

RUNS = flags.DEFINE_integer("runs", 1000, "Runs, a multiple of 10.")
RATES = ("0.1", "0.2", "0.3", "0.4", "0.5")
COPY = """
import json, shutil, sys
for line in sys.stdin:
    shutil.copytree({source!r}, json.loads(line)[1], dirs_exist_ok=True)
    print({answer!r} + '""', flush=True)
"""


def mebibytes():
    """The memory of this process now."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def compared(folder, seeds, rates):
    """Compare Adam, coupled and decoupled, in a folder."""
    return compare.main(
        [
            f"--output_dir={folder}",
            f"--seeds={seeds}",
            f"--rates={','.join(rates)}",
            "--optimizers=adam",
            "--decays=coupled,decoupled",
            "--workers=2",
        ]
    )


def main(_):
    with tempfile.TemporaryDirectory() as scratch:
        trained = os.path.join(scratch, "trained")
        assert compared(trained, 1, RATES[:1]) == 0  # noqa: S101
        (source, *_) = sorted(pathlib.Path(trained, "runs").iterdir())
        program = COPY.format(source=str(source), answer=executors.ANSWER)
        command = (sys.executable, "-S", "-c", program)
        marks = []

        def local(jobs, workers):
            local = functools.partial(executors.local, command=command)
            for number, ended in enumerate(local(jobs, workers), 1):
                yield ended
                if number % (RUNS.value // 10) == 0:
                    marks.append((number, time.perf_counter(), mebibytes()))

        executors.EXECUTORS["local"] = local
        start = time.perf_counter()
        seeds = RUNS.value // (2 * len(RATES))
        assert compared(os.path.join(scratch, "many"), seeds, RATES) == 0  # noqa: S101
        end = time.perf_counter()
        report = os.path.join(scratch, "many", compare.REPORT)
        size = os.path.getsize(report) / 2**20
    print(
        "\n"
        + markdown_tables.header(("runs", "milliseconds a run", "memory, MiB"))
    )
    before, last = 0, start
    for number, now, memory in marks:
        each = 1e3 * (now - last) / (number - before)
        print(markdown_tables.row((number, f"{each:.1f}", f"{memory:.0f}")))
        before, last = number, now
    each = 1e3 * (end - last) / RUNS.value
    cells = (f"the report, {size:.1f} MiB", f"{each:.1f}", f"{mebibytes():.0f}")
    print(markdown_tables.row(cells))


if __name__ == "__main__":
    app.run(main)
