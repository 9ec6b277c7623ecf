"""`keras-wd compact`: a saved model without its dead units."""

import functools
from collections.abc import Sequence

from keras_wd import graph
from keras_wd.cli.options import COMPACT
from keras_wd.cli.rewriting import rewrite
from keras_wd.cli.usage_errors import UsageError

_USAGE = "compact MODEL.keras -o SMALL.keras [--flag=value ...]"
_ABOUT = (
    "Remove the units that no longer do anything from a saved model, and "
    "report what that saves. The new model has smaller layers and the same "
    "outputs, which is verified; it is not compiled. Units are dead after "
    "training with a decay that ends in zeros, such as PathProx."
)
_UNCHANGED = "No unit of {source} is dead; {target} has the same layers."


def main(arguments: Sequence[str]) -> int:
    """Compact the model of a file into another; return the exit status.

    Raises:
        UsageError: for a mistake in the command, or a model that cannot be
            read.
    """
    return rewrite(_USAGE, _ABOUT, COMPACT, arguments, _maker, _UNCHANGED)


def _maker(values):
    if not 0 <= values.threshold < float("inf"):
        raise UsageError(
            "--threshold must be a finite number >= 0. Received: "
            f"--threshold={values.threshold}"
        )
    return functools.partial(graph.compact, threshold=values.threshold)
