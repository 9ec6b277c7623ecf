"""`keras-wd prune`: a saved model with fewer units."""

from collections.abc import Sequence

from absl import flags

from keras_wd import graph
from keras_wd.study.compact import parsed
from keras_wd.study.compact import rewritten
from keras_wd.study.errors import UsageError

_BUDGETS = ("ratio", "multiply_adds", "latency")
_IMPORTANCE = ("path", "magnitude", "batch_norm")
_USAGE = "usage: keras-wd prune MODEL.keras -o SMALL.keras --ratio=R"
_HELP = f"""{_USAGE}

Remove the units that matter least from a saved model, and report what that
saves. The new model has smaller layers and computes what the old one does
with these units masked; it is not compiled, and is usually trained on.

  -o, --output       file to write, replaced if it exists
  --ratio            the share of the units to remove; or
  --multiply_adds    what may remain, a share or a number; or
  --latency          the share of the time that may remain, measured
  --importance [path] what units are ordered by: {", ".join(_IMPORTANCE)}
  --round_to [8]     layers keep a multiple of this many units
  --batch_size [256] examples of the batch that both models are timed on; 0
                     for no timing"""


def main(arguments: Sequence[str]) -> int:
    """Prune the model of a file into another; return the exit status.

    Raises:
        UsageError: for a mistake in the command, or a model that cannot be
            read or pruned so far.
    """
    if {"--help", "-h", "-help"} & set(arguments):
        print(_HELP)
        return 0
    values = flags.FlagValues()
    for name in _BUDGETS:
        flags.DEFINE_float(name, None, "", flag_values=values)
    flags.DEFINE_enum("importance", "path", _IMPORTANCE, "", flag_values=values)
    flags.DEFINE_integer("round_to", 8, "", flag_values=values)
    source, target = parsed("prune", _USAGE, arguments, values)
    budgets = {name: values[name].value for name in _BUDGETS}
    if sum(value is not None for value in budgets.values()) != 1:
        raise UsageError(
            f"needs one of --ratio, --multiply_adds and --latency. {_USAGE}"
        )
    if values.latency is not None and not values.batch_size:
        raise UsageError("--latency needs a --batch_size to measure.")

    def make(model, batch_size):
        return graph.prune(
            model,
            **budgets,
            importance=values.importance,
            round_to=values.round_to,
            report=True,
            batch_size=batch_size,
        )

    if not rewritten(source, target, values.batch_size, make):
        print(f"No unit is removed; {target} has the layers of {source}.")
    return 0
