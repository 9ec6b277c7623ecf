"""What a flag is, and the flags of a table.

The rows themselves: `run_options`, `method_options`, `command_options`.
"""

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence

from absl import flags


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a flag has a meaning with.

    Attributes:
        flag: the other flag.
        test: whether a value of the other flag is such a one.
        words: what is needed, for messages.
    """

    flag: str
    test: Callable[[str], bool]
    words: str


@dataclasses.dataclass(frozen=True)
class Option:
    """A flag.

    Attributes:
        name: without the dashes.
        group: its heading in the help.
        kind: `str`, `int`, `float` or `bool`.
        default: its value if it is not given.
        help: what it means.
        choices: all its values, if they can be listed.
        least, most: the limits of a number.
        needs: without which it has no meaning: None is stored for it then.
        short: a name of one letter.
    """

    name: str
    group: str
    kind: type
    default: object
    help: str
    choices: Sequence[str] = ()
    least: float | None = None
    most: float | None = None
    needs: Needs | None = None
    short: str | None = None


_DEFINE: dict[type, Callable] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
}


def define(table: Sequence[Option]) -> flags.FlagValues:
    """The flags of a table with their defaults, apart from all others."""
    values = flags.FlagValues()
    for row in table:
        limits = {}
        if row.kind in (int, float):
            limits = {"lower_bound": row.least, "upper_bound": row.most}
        _DEFINE[row.kind](
            row.name,
            row.default,
            row.help,
            flag_values=values,
            short_name=row.short,
            **limits,
        )
    return values


def groups(table: Sequence[Option]) -> dict[str, list[str]]:
    """Names of flags by the headings of the help."""
    found = {}
    for row in table:
        found.setdefault(row.group, []).append(row.name)
    return found


def one_of(*values: str) -> Callable[[str], bool]:
    """Whether a value is one of these."""
    return values.__contains__


def none_of(*values: str) -> Callable[[str], bool]:
    """Whether a value is none of these."""
    return lambda value: value not in values
