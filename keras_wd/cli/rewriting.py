"""Commands that read a saved model and write what they make of it."""

from collections.abc import Callable
from collections.abc import Sequence

from absl import flags

from keras_wd.cli import command_line
from keras_wd.cli import saved_models
from keras_wd.cli.files import replacing
from keras_wd.cli.option import Option
from keras_wd.cli.option import define
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line

_EXTENSION = ".keras"


def rewrite(
    usage: str,
    about: str,
    table: Sequence[Option],
    arguments: Sequence[str],
    maker: Callable,
    unchanged: str,
) -> int:
    """Run such a command; return the exit status.

    Args:
        usage: how it is called, from its name on.
        about: what it does, for the help.
        table: its flags.
        arguments: what it was given.
        maker: takes the flags; returns a function of a model that makes the
            new one and a report, with keyword arguments for the report.
        unchanged: what to say if that is the same model, of `source` and
            `target`.

    Raises:
        UsageError: for a mistake in the command, or a model that cannot be
            read, made or written.
    """
    if command_line.asks_for_help(arguments):
        print(command_line.help_text(usage, about, table))
        return 0
    values = define(table)
    source, target = _parsed(usage, arguments, values)
    make = maker(values)
    model = saved_models.load(source, source)
    _say_cost(values)
    try:
        smaller, report = make(
            model,
            report=True,
            batch_size=values.batch_size or None,
            litert=values.litert,
        )
    except ValueError as error:
        raise UsageError(f"{source}: {first_line(error)}") from error
    if report.unreadable:
        print(report)
        raise UsageError(
            f"{target} is not written, as it could not be loaded. "
            f"{report.unreadable[0]}. In Python, keras_wd.graph."
            f"{usage.split()[0]} returns the model, to be exported."
        )
    try:
        with replacing(target) as draft:
            smaller.save(draft)
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written: {error.strerror}"
        ) from error
    print(report)
    if smaller is model:
        print(unchanged.format(source=source, target=target))
    else:
        print(f"Saved {target}")
    return 0


def _say_cost(values):
    if values.batch_size:
        print(
            f"Timing both models on {values.batch_size} random examples, at "
            "most 17 predictions of each (--batch_size=0: none).",
            flush=True,
        )
    if values.litert:
        what = "compared and timed" if values.batch_size else "compared"
        print(f"Both are exported to LiteRT and {what} there.", flush=True)


def _parsed(usage, arguments, values):
    """Read the flags of a command; return the model to read and to write."""
    command = usage.split()[0]
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
