"""`keras-wd compact`: a saved model without its dead units."""

from collections.abc import Sequence

from absl import flags

from keras_wd import graph
from keras_wd.study import saved_models
from keras_wd.study.errors import UsageError
from keras_wd.study.errors import first_line
from keras_wd.study.files import replacing

_EXTENSION = ".keras"
_USAGE = "usage: keras-wd compact MODEL.keras -o SMALL.keras [--threshold=T]"
_HELP = f"""{_USAGE}

Remove the units that no longer do anything from a saved model, and report
what that saves. The new model has smaller layers and the same outputs; it is
not compiled. Units are dead after training with a decay that ends in zeros,
such as PathProx.

  -o, --output      file to write, replaced if it exists
  --threshold [0]   also remove units whose path product (norm of the incoming
                    times norm of the outgoing weights) is at most this"""


def main(arguments: Sequence[str]) -> int:
    """Compact the model of a file into another; return the exit status.

    Raises:
        UsageError: for a mistake in the command, or a model that cannot be
            read.
    """
    if {"--help", "-h", "-help"} & set(arguments):
        print(_HELP)
        return 0
    source, target, threshold = _parse(arguments)
    model = saved_models.load(source, source)
    try:
        smaller, report = graph.compact(model, threshold, report=True)
    except ValueError as error:
        raise UsageError(f"{source}: {first_line(error)}") from error
    try:
        with replacing(target) as draft:
            smaller.save(draft)
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written: {error.strerror}"
        ) from error
    print(report)
    if smaller is model:
        print(f"No unit of {source} is dead; {target} has the same layers.")
    else:
        print(f"Saved {target}")
    return 0


def _parse(arguments):
    values = flags.FlagValues()
    flags.DEFINE_string("output", None, "", short_name="o", flag_values=values)
    flags.DEFINE_float("threshold", 0.0, "", flag_values=values)
    values.set_gnu_getopt(True)
    try:
        files = values(["keras-wd compact", *arguments])[1:]
    except flags.Error as error:
        raise UsageError(f"{first_line(error)}. {_USAGE}") from error
    if len(files) != 1:
        raise UsageError(
            f"needs one saved model. Received: {' '.join(files) or 'none'}. "
            f"{_USAGE}"
        )
    if values.output is None:
        raise UsageError(f"-o must name the file to write. {_USAGE}")
    for path in (files[0], values.output):
        if not path.endswith(_EXTENSION):
            raise UsageError(
                f"a saved model has a name that ends in {_EXTENSION}. "
                f"Received: {path}"
            )
    if not 0 <= values.threshold < float("inf"):
        raise UsageError(
            "--threshold must be a finite number >= 0. Received: "
            f"--threshold={values.threshold}"
        )
    return files[0], values.output, values.threshold
