"""`keras-wd compact`: a saved model without its dead units."""

from collections.abc import Callable
from collections.abc import Sequence

from absl import flags

from keras_wd import graph
from keras_wd.cli import command_line
from keras_wd.cli import saved_models
from keras_wd.cli.errors import UsageError
from keras_wd.cli.errors import first_line
from keras_wd.cli.files import replacing
from keras_wd.cli.options import COMPACT
from keras_wd.cli.options import define

_EXTENSION = ".keras"
_USAGE = "compact MODEL.keras -o SMALL.keras [--flag=value ...]"
_ABOUT = (
    "Remove the units that no longer do anything from a saved model, and "
    "report what that saves. The new model has smaller layers and the same "
    "outputs, which is verified; it is not compiled. Units are dead after "
    "training with a decay that ends in zeros, such as PathProx."
)


def main(arguments: Sequence[str]) -> int:
    """Compact the model of a file into another; return the exit status.

    Raises:
        UsageError: for a mistake in the command, or a model that cannot be
            read.
    """
    if command_line.asks_for_help(arguments):
        print(command_line.help_text(_USAGE, _ABOUT, COMPACT))
        return 0
    values = define(COMPACT)
    source, target = parsed("compact", _USAGE, arguments, values)
    if not 0 <= values.threshold < float("inf"):
        raise UsageError(
            "--threshold must be a finite number >= 0. Received: "
            f"--threshold={values.threshold}"
        )

    def make(model, batch_size):
        return graph.compact(
            model, values.threshold, report=True, batch_size=batch_size
        )

    if not rewritten(source, target, values.batch_size, make):
        print(f"No unit of {source} is dead; {target} has the same layers.")
    return 0


def rewritten(
    source: str, target: str, batch_size: int, make: Callable
) -> bool:
    """Write what is made of a saved model; whether it is another model."""
    model = saved_models.load(source, source)
    if batch_size:
        print(
            f"Timing both models on {batch_size} random examples: at most 17 "
            "predictions of each, --batch_size=0 for none.",
            flush=True,
        )
    try:
        smaller, report = make(model, batch_size or None)
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
    if smaller is not model:
        print(f"Saved {target}")
    return smaller is not model


def parsed(
    command: str,
    usage: str,
    arguments: Sequence[str],
    values: flags.FlagValues,
) -> tuple[str, str]:
    """Read the flags of a command; return the model to read and to write."""
    usage = f"usage: keras-wd {usage}"
    values.set_gnu_getopt(True)
    try:
        files = values([f"keras-wd {command}", *arguments])[1:]
    except flags.Error as error:
        raise UsageError(f"{first_line(error)}. {usage}") from error
    if len(files) != 1:
        raise UsageError(
            f"needs one saved model. Received: {' '.join(files) or 'none'}. "
            f"{usage}"
        )
    if values.output is None:
        raise UsageError(f"-o must name the file to write. {usage}")
    for path in (files[0], values.output):
        if not path.endswith(_EXTENSION):
            raise UsageError(
                f"a saved model has a name that ends in {_EXTENSION}. "
                f"Received: {path}"
            )
    if values.batch_size < 0:
        raise UsageError(
            "--batch_size must be a whole number >= 0. Received: "
            f"--batch_size={values.batch_size}"
        )
    return files[0], values.output
