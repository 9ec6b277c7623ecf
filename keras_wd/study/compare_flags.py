"""The flags of `keras-wd compare`: its own, and those of every run."""

import os
from collections.abc import Iterable
from collections.abc import Sequence

from absl import flags

from keras_wd.study import command_line
from keras_wd.study import executors
from keras_wd.study import grid
from keras_wd.study.errors import UsageError
from keras_wd.study.errors import unknown
from keras_wd.study.flags import DEVICES

# Flags of `train` that the grid sets, or that belong to a single run.
OF_A_RUN = (
    *("optimizer", "decay", "coupling", "decay_schedule", "seed"),
    *("kernel_constraint", "weight_decay", "resume", "config", "output_dir"),
)
# Another default than in `train`.
DEFAULTS = {"epochs": "20", "batch_size": "64"}
# On digits few images are learned, where weight decay matters.
ON_DIGITS = {"epochs": "20", "batch_size": "20", "train_examples": "300"}
_DECAYS = "--decays"
_IN_PLACE = {
    "optimizer": "--optimizers",
    "seed": "--seeds",
    "weight_decay": "--rates",
}
_SUMMARY = (
    "Train a network with several optimizers, each with several ways of "
    "decaying its weights and from several seeds, and write a report of what "
    "the decays did. A comparison that is started again goes on where it was."
)


def define() -> flags.FlagValues:
    """The flags of the comparison itself."""
    values = flags.FlagValues()

    def text(name, default, help_line):
        flags.DEFINE_string(name, default, help_line, flag_values=values)

    def count(name, default, help_line):
        flags.DEFINE_integer(
            name, default, help_line, lower_bound=1, flag_values=values
        )

    text("optimizers", "sgd,adam,kfac", "Optimizers, separated by commas.")
    text(
        "decays",
        "none,coupled,decoupled",
        f"Ways of decaying, separated by commas: {', '.join(grid.METHODS)}.",
    )
    text(
        "rates",
        None,
        "Rates of the decays, separated by commas: all are tried and the best "
        "in validation is reported. Default: one rate that suits digits for "
        "each optimizer and decay.",
    )
    count("seeds", 5, "Runs of each, from seeds 0, 1, ...")
    count(
        "workers",
        max(1, min(os.cpu_count() or 1, 8)),
        "Runs at the same time, each with the threads of one core.",
    )
    text("executor", "local", "Where to run: local, or ray (a cluster).")
    text(
        "output_dir",
        "comparison",
        "Folder for the report and the runs; runs that are complete in it are "
        "not repeated.",
    )
    return values


def split(arguments: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
    """The comparison's own flags, checked, and those for every run.

    Raises:
        UsageError: naming the flag, in one line.
    """
    refused = {}
    for name in OF_A_RUN:
        other = _IN_PLACE.get(name, _DECAYS)
        refused[name] = f"is what the comparison varies. Use {other}"
    for name in DEVICES:
        refused[name] = (
            "is for a single run: a comparison spreads its runs over cores "
            "(--workers) or a cluster (--executor=ray)"
        )
    own = define()
    other_data = any(
        name == "dataset" and value != "digits"
        for argument in arguments
        for name, _, value in [argument.lstrip("-").partition("=")]
    )
    defaults = DEFAULTS if other_data else ON_DIGITS
    shared = command_line.split(own, arguments, refused, defaults, "compare")
    if own.executor not in executors.EXECUTORS:
        raise unknown("executor", own.executor, executors.EXECUTORS)
    return own, shared


def names(flag: str, text: str, known: Iterable[str]) -> list[str]:
    """A flag's list of names, checked."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    for name in found:
        if name not in known:
            raise unknown(flag, name, known)
    if not found or len(set(found)) < len(found):
        raise UsageError(
            f"--{flag} must be distinct names, separated by commas. "
            f"Received: --{flag}={text}"
        )
    return found


def help_text() -> str:
    """What `keras-wd compare --help` prints."""
    values = define()
    lines = command_line.flag_lines(values, {"The comparison": list(values)})
    return "\n".join(
        [
            "usage: keras-wd compare [--flag=value ...]",
            "",
            *command_line.wrapped(_SUMMARY),
            *lines,
            "",
            *command_line.wrapped(
                "Every other flag of keras-wd train that is not varied here "
                "applies to all runs, such as --dataset, --model, --epochs "
                "(here 20), --batch_size (here 64), --batch_norm. Without "
                "--dataset, 300 of the digits are learned (--train_examples) "
                "in batches of 20, where weight decay matters."
            ),
        ]
    )
