"""The flags of `keras-wd compare`: its own, and those of every run."""

from collections.abc import Iterable
from collections.abc import Sequence

from absl import flags

from keras_wd.cli import command_line
from keras_wd.cli.grid import METHODS
from keras_wd.cli.options import COMPARE
from keras_wd.cli.options import DEVICES
from keras_wd.cli.options import TRAIN
from keras_wd.cli.options import define
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import unknown

# Flags of `train` that the grid sets, or that belong to a single run.
OF_A_RUN = (
    *("optimizer", "decay", "coupling", "decay_schedule", "seed"),
    *("kernel_constraint", "weight_decay", "resume", "config", "output_dir"),
)
# Another default than in `train`.
DEFAULTS = {"epochs": "20", "batch_size": "64"}
# On digits few images are learned, where weight decay matters. K-FAC has the
# factors and the clip with which docs/laws.md measures what decay does for it.
ON_DIGITS = {
    "epochs": "15",
    "batch_size": "20",
    "train_examples": "300",
    "estimator": "gauss_newton",
    "kl_clip": "0.001",
}
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


def split(arguments: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
    """The comparison's own flags, checked, and those for every run.

    Raises:
        UsageError: naming the flag, in one line.
    """
    refused = {}
    for name in OF_A_RUN:
        other = _IN_PLACE.get(name, _DECAYS)
        refused[name] = f"is what the comparison varies. Use {other}"
    given = {f"--{a.lstrip('-')}" for a in arguments}
    if "--executor=ray" not in given:
        for name in DEVICES:
            refused[name] = (
                "needs --executor=ray, which gives every run devices of its "
                "own; here the runs share the cores of this machine (--workers)"
            )
    own = define(COMPARE)
    if "--search=asha" in given:
        refused["learning_rate"] = (
            "is what the search varies. Use --learning_rates=LOWEST,HIGHEST"
        )
    other_data = any(
        name == "dataset" and value != "digits"
        for argument in arguments
        for name, _, value in [argument.lstrip("-").partition("=")]
    )
    defaults = DEFAULTS if other_data else ON_DIGITS
    shared = command_line.split(own, arguments, refused, defaults, "compare")
    return own, shared


def with_meaning(
    shared: Sequence[str], optimizer: str, method: str
) -> list[str]:
    """The flags for every run that have a meaning with this optimizer and rule.

    Args:
        shared: all flags for every run.
        optimizer: of the run.
        method: a key of `grid.METHODS`.
    """
    (decay,) = {
        flag.partition("=")[2]
        for flag in METHODS[method]
        if flag.startswith("--decay=")
    }
    values = {"decay": decay, "optimizer": optimizer}
    needs = _needs()
    return [
        flag
        for flag in shared
        if (need := needs.get(_name(flag))) is None
        or need.test(values[need.flag])
    ]


def check_used(shared: Sequence[str], pairs: Iterable[tuple[str, str]]) -> None:
    """Refuse a flag that no run has a use for, unless it is a default.

    Args:
        shared: the flags for every run.
        pairs: optimizer and method of each.
    """
    used = {flag for pair in pairs for flag in with_meaning(shared, *pair)}
    used |= {f"--{name}={value}" for name, value in ON_DIGITS.items()}
    for flag in shared:
        if flag not in used:
            need = _needs()[_name(flag)]
            varied = {
                "decay": f"a method of {_DECAYS}",
                "optimizer": "one of --optimizers",
            }[need.flag]
            raise UsageError(
                f"--{_name(flag)} applies only with {varied} whose run has "
                f"{need.words}"
            )


def _needs():
    """What flags need that have a meaning with certain runs, by name."""
    return {
        row.name: row.needs
        for row in TRAIN
        if row.needs is not None and row.needs.flag in ("decay", "optimizer")
    }


def _name(flag):
    name = flag.lstrip("-").partition("=")[0]
    known = {row.name for row in TRAIN}
    return name if name in known else name.removeprefix("no")


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
    return command_line.help_text(
        "compare [--flag=value ...]",
        _SUMMARY,
        COMPARE,
        "Every other flag of keras-wd train that is not varied here applies "
        "to all runs, such as --dataset, --model, --epochs (here 20), "
        "--batch_size (here 64), --batch_norm. Without --dataset, 300 of the "
        "digits are learned (--train_examples) in 15 epochs and batches of 20, "
        "where weight decay matters, and K-FAC has --estimator=gauss_newton "
        "and --kl_clip=0.001.",
    )
