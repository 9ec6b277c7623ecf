"""`keras-wd prune`: a saved model with fewer units."""

import functools
from collections.abc import Sequence

from keras_wd import graph
from keras_wd.cli.options import IMPORTANCE
from keras_wd.cli.options import PRUNE
from keras_wd.cli.rewriting import rewrite
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import unknown

_BUDGETS = ("ratio", "multiply_adds", "latency")
_USAGE = "prune MODEL.keras -o SMALL.keras --ratio=R [--flag=value ...]"
_ABOUT = (
    "Remove the units that matter least from a saved model, and report what "
    "that saves. The new model has smaller layers and computes what the old "
    "one does with these units masked; it is not compiled, and is usually "
    "trained on."
)
_UNCHANGED = "No unit is removed; {target} has the layers of {source}."


def main(arguments: Sequence[str]) -> int:
    """Prune the model of a file into another; return the exit status.

    Raises:
        UsageError: for a mistake in the command, or a model that cannot be
            read or pruned so far.
    """
    return rewrite(_USAGE, _ABOUT, PRUNE, arguments, _maker, _UNCHANGED)


def _maker(values):
    if values.importance not in IMPORTANCE:
        raise unknown("importance", values.importance, IMPORTANCE)
    budgets = {name: values[name].value for name in _BUDGETS}
    if sum(value is not None for value in budgets.values()) != 1:
        raise UsageError(
            "needs one of --ratio, --multiply_adds and --latency. "
            f"usage: keras-wd {_USAGE}"
        )
    if values.latency is not None and not values.batch_size:
        raise UsageError("--latency needs a --batch_size to measure.")
    return functools.partial(
        graph.prune,
        **budgets,
        importance=values.importance,
        round_to=values.round_to,
        max_ratio=values.max_ratio,
    )
