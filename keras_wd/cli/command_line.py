"""Reading the flags of a command line, and their help."""

import math
import re
import shutil
import textwrap
from collections.abc import Mapping
from collections.abc import Sequence

from absl import flags

from keras_wd.cli.options import COMPACT
from keras_wd.cli.options import COMPARE
from keras_wd.cli.options import PRUNE
from keras_wd.cli.options import TRAIN
from keras_wd.cli.options import TUNE
from keras_wd.cli.options import Option
from keras_wd.cli.options import define
from keras_wd.cli.options import groups
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line
from keras_wd.cli.usage_errors import unknown
from keras_wd.errors import did_you_mean

_TABLES = {
    "train": TRAIN,
    "compare": COMPARE,
    "tune": TUNE,
    "compact": COMPACT,
    "prune": PRUNE,
}
_MOST = 2**31 - 1  # of a whole number
_NEEDS_VALUE = "--{0} needs a value, as in --{0}=VALUE"


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether the help is to be shown in place of anything else."""
    return bool({"--help", "-h", "-help"} & set(arguments))


def parse(
    values: flags.FlagValues, arguments: Sequence[str], command: str = "train"
) -> set[str]:
    """Set the flags from a command line; return the names that were given.

    Args:
        values: as `define` makes them of the table of the command.
        arguments: the command line.
        command: its name.

    Raises:
        UsageError: naming the flag, in one line.
    """
    before = {name: values[name].present for name in values}
    try:
        rest = values([f"keras-wd {command}", *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        hint = did_you_mean(f"--{name}", [f"--{known}" for known in values])
        raise UsageError(
            f"--{name} is not a flag of {command}{hint}"
        ) from error
    except flags.IllegalFlagValueError as error:
        raise _illegal(values, error) from error
    except flags.Error as error:
        raise _no_value(error) from error
    if rest:
        raise _no_flag(rest[0])
    _check(values, _TABLES[command])
    return {name for name in values if values[name].present > before[name]}


def split(
    own: flags.FlagValues,
    arguments: Sequence[str],
    refused: Mapping[str, str],
    defaults: Mapping[str, str],
    command: str,
) -> list[str]:
    """Set a command's own flags; return those it passes on to `train`.

    Args:
        own: the flags of the command itself.
        arguments: the command line.
        refused: names of flags of `train`, and what is said of them.
        defaults: of flags of `train` that are not given.
        command: its name.

    Raises:
        UsageError: naming the flag, in one line.
    """
    train = define(TRAIN)
    mine, passed, given = [], [], set()
    for argument in _joined(arguments, (own, train)):
        name = argument.lstrip("-").partition("=")[0]
        plain = name if name in train else name.removeprefix("no")
        if not argument.startswith("-"):
            raise _no_flag(argument)
        if name in own:
            mine.append(argument)
        elif plain in refused:
            raise UsageError(f"--{plain} {refused[plain]}")
        elif plain not in train:
            hint = did_you_mean(f"--{name}", [f"--{f}" for f in (*own, *train)])
            raise UsageError(f"{argument} is not a flag of {command}{hint}")
        elif "=" not in argument and not train[plain].boolean:
            raise UsageError(_NEEDS_VALUE.format(name))
        else:
            passed.append(argument)
            given.add(plain)
    _check_needs(own, parse(own, mine, command), _TABLES[command])
    missing = [name for name in defaults if name not in given]
    return passed + [f"--{name}={defaults[name]}" for name in missing]


def _joined(arguments, tables):
    """The arguments, with `--name value` in one piece."""
    whole = []
    for argument in arguments:
        before = whole[-1] if whole else ""
        name = before.lstrip("-")
        takes_value = before.startswith("-") and any(
            name in flags and not flags[name].boolean for flags in tables
        )
        if takes_value and not argument.startswith("-"):
            whole[-1] = f"{before}={argument}"
        else:
            whole.append(argument)
    return whole


def _no_flag(argument):
    return UsageError(
        f"{argument!r} is not a flag; flags look like --dataset=digits"
    )


def _check_needs(values, given, table):
    """Refuse a flag that is given without the one it has a meaning with."""
    for row in table:
        if row.name in given and row.needs is not None:
            if not row.needs.test(values[row.needs.flag].value):
                raise UsageError(
                    f"--{row.name} applies only with {row.needs.words}"
                )


def _illegal(values, error):
    """The error for a text that is not the kind of number a flag wants."""
    found = re.match(r"flag --(\w+)=(.*?): ", str(error), re.DOTALL)
    if not found:
        return UsageError(first_line(error))
    name, text = found.groups()
    expected = values[name].parser.syntactic_help or "true or false"
    return UsageError(f"--{name} must be {expected}. Received: --{name}={text}")


def _no_value(error):
    found = re.match(r"Missing value for flag --?(\w+)", str(error))
    if not found:
        return UsageError(first_line(error))
    return UsageError(_NEEDS_VALUE.format(found.group(1)))


def _check(values, table):
    for row in table:
        value = values[row.name].value
        if value is None:
            continue
        if row.choices and value not in row.choices:
            raise unknown(row.name, value, row.choices)
        if row.kind is str and not value.strip():
            raise UsageError(
                f"--{row.name} must not be empty. Received: "
                f"--{row.name}={value}"
            )
        if row.kind is int and row.most is None and value > _MOST:
            raise UsageError(
                f"--{row.name} must be at most {_MOST}. Received: "
                f"--{row.name}={value}"
            )
    for name in values:
        value = values[name].value
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(
                f"--{name} must be a finite number. Received: --{name}={value}"
            )
    if "p" in values and values.p <= 0:
        raise UsageError(f"--p must be above 0. Received: --p={values.p}")


def help_text(
    usage: str, about: str, table: Sequence[Option], more: str = ""
) -> str:
    """The help of a command: its flags by subject, with their defaults.

    Args:
        usage: what follows `usage: keras-wd`.
        about: what the command does.
        table: its flags.
        more: a text below them.
    """
    lines = [f"usage: keras-wd {usage}", "", *wrapped(about)]
    rows = {row.name: row for row in table}
    for title, names in groups(table).items():
        lines += ["", f"{title}:"]
        for name in names:
            row = rows[name]
            dashes = f"-{row.short}, --" if row.short else "--"
            lines.append(f"  {dashes}{name}{_default(row)}")
            lines += wrapped(row.help, " " * 6)
    return "\n".join([*lines, *(["", *wrapped(more)] if more else [])])


def _default(row):
    if row.default is None:
        return ""
    text = str(row.default)
    return f" [{text.lower() if row.kind is bool else text}]"


def wrapped(text: str, indent: str = "") -> list[str]:
    """A text in lines that fit the terminal."""
    return textwrap.wrap(
        text,
        min(shutil.get_terminal_size().columns, 80),
        initial_indent=indent,
        subsequent_indent=indent,
    )
