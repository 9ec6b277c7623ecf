"""What everything costs: a table of ratios, and of distances from the floor.

    pip install '.[bench]'
    python -m benchmarks speed [--write] [--only steps] [--rounds 9]
    KERAS_BACKEND=jax python -m benchmarks speed --write

Measured on the device that the backend finds, in alternating rounds. `--write`
puts the tables of this device and backend into docs/speed.md, beside those of
others; on a GPU, take more weights (`--parameters 200000000`).

The floor of a step is the time in which the memory moves what must be moved:
weights and slots read and written, gradients read; the bandwidth is that of
plain SGD's step in the same run. The floor of a measurement is that of its
products of matrices, at the rate of one large product in the same run, or of
reading the weights.
"""

import argparse
import os
import pathlib
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import speed_growth
import speed_measurements
import speed_steps
from markdown_tables import table
from stepping import device_name

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "speed.md"
INTRODUCTION = """\
# Speed table

Written by `python -m benchmarks speed --write`, which says how every number is
found: medians of ratios taken within one round, as the machines are shared.
Compare ratios; the milliseconds only say how large the work was.

*x floor* is how far a step is from the time in which the memory moves what a
step must move (at the rate of plain SGD's step), and a measurement from the
time of its products of matrices (at the rate of one large product). Below 1
the floor is beaten where the work stays in the cache.

On a CPU the rules are compared with `L2` in processor time, summed over the
cores. A pass reads or writes one number per weight; a step with `L2` makes
seven. *More passes than L2* are those that a rule cannot do without: a norm has
to be known before anything is scaled by it. *x L2, by passes* is what the rule
would cost if only memory traffic counted; a pass that sums may take longer than
one that writes. `Hyperball` needs the weights from before and after the step at
once: new memory at every step, which some systems hand out slowly. `Lp` and
`ProximalLp` read no more than `L2` but compute more: `ProximalLp` some 80
operations per weight at p = 0.7 and 250 at p = 0.9, where two Newton steps
follow.

Rows of peers that were not installed are from an earlier run.
"""


PLAIN = "`benchmarks/plain_steps.py`, written for one model"


def sections(arguments):
    """By name: what it is about, its columns, and its rows."""
    size, rounds = arguments.parameters, arguments.rounds
    width, batch = arguments.width, arguments.batch
    return {
        "steps": (
            f"One compiled step on {size:,} float32 weights",
            ("step", "ms", "x Keras", "x floor", "bytes of slots per weight"),
            lambda: speed_steps.steps(size, rounds),
        ),
        "rules": (
            "One compiled step of Adam with each rule, beside `L2`, on "
            f"{speed_steps.MATRICES} matrices of {size // 5:,} weights",
            ("rule", "ms", "x L2", "more passes than L2", "x L2, by passes"),
            lambda: speed_steps.rules(size, rounds),
        ),
        "plain": (
            f"The same steps beside {PLAIN}",
            ("rule", "ms", "x written plainly"),
            lambda: speed_steps.beside_plain(size, rounds),
        ),
        "around": (
            "`WeightDecay` with `L2` around any Keras optimizer, beside the "
            f"decay of its own, on {size // 4:,} weights",
            ("optimizer", "ms, its own decay", "x its own decay"),
            lambda: speed_steps.around_any(size // 4, rounds),
        ),
        "measurements": (
            f"On an MLP 784-{width}-{width}-10 and {batch} examples",
            ("what", "ms", "x a training step with SGD", "x floor"),
            lambda: speed_measurements.measurements(width, batch, rounds),
        ),
        "callbacks": (
            "`fit` of an MLP 784-256-256-10, ten epochs of twenty batches of "
            f"{batch}, the callbacks with 128 examples",
            ("callback", "ms", "x none"),
            lambda: speed_measurements.logging(batch, rounds),
        ),
        "compaction": (
            f"`predict` of an MLP 784-{width}-{width}-{width}-10 for batches "
            f"of {batch}",
            ("model", "ms", "x whole", "x its share of the multiplications"),
            lambda: speed_measurements.compaction(width, batch, rounds),
        ),
        "growth": (
            "How it grows",
            ("with what", "number", "ms", "x as many", "x as long"),
            lambda: speed_growth.growth(size, batch, rounds),
        ),
    }


def write(title, found):
    """Put tables into the page, in place of older ones of the same title."""
    page = PAGE.read_text("utf-8") if PAGE.exists() else ""
    devices = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", page, re.M))
    old = re.findall(
        r"^### (.+)\n((?:(?!### ).*\n?)*)", devices.get(title, ""), re.M
    )
    old = {name: text.strip() for name, text in old}
    merged = old | {
        name: _with_rows_of(old.get(name, ""), text)
        for name, text in found.items()
    }
    devices[title] = "\n\n".join(
        f"### {about}\n\n{text.strip()}" for about, text in merged.items()
    )
    parts = [f"## {name}\n\n{text.strip()}\n" for name, text in devices.items()]
    PAGE.write_text("\n".join([INTRODUCTION, *parts]), "utf-8")


def _with_rows_of(old, new):
    """A table with the rows of an older one that were not measured again.

    Such are those of peers that are not installed.
    """
    old, new = old.splitlines(), new.splitlines()
    if old[:1] != new[:1]:
        return "\n".join(new)
    measured = {line.split(" | ")[0] for line in new}
    kept = [line for line in old if line.split(" | ")[0] not in measured]
    return "\n".join(new + kept)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=int, default=20_000_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=[*sections(parser.parse_args([]))])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    title = f"{device_name()}, {keras.backend.backend()}"
    print(title)
    found = {}
    for name, (about, columns, rows_of) in sections(arguments).items():
        if arguments.only in (None, name):
            found[about] = table(columns, rows_of())
            print(f"\n{about}\n{found[about]}", flush=True)
            keras.backend.clear_session()
    if arguments.write:
        write(title, found)


if __name__ == "__main__":
    main()
