"""Mistakes of the user at the command line, each reported in one line."""

import importlib.util
from collections.abc import Iterable

from keras_wd.errors import did_you_mean


class UsageError(Exception):
    """Something the user typed or named cannot be used; exit status 2."""


def unknown(flag: str, value: str, choices: Iterable[str]) -> UsageError:
    """The error for a value that is none of the choices."""
    choices = list(choices)
    return UsageError(
        f"--{flag} must be one of {', '.join(choices)}. "
        f"Received: --{flag}={value}{did_you_mean(value, choices)}"
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type if it has none."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next(filter(None, lines), type(error).__name__)


def require(*modules: str, extra: str = "study") -> None:
    """Raise if a library of an extra is not installed."""
    missing = [name for name in modules if not importlib.util.find_spec(name)]
    if missing:
        raise UsageError(
            f"this command needs {' and '.join(missing)}, not installed "
            f"here. Run: pip install 'keras_wd[{extra}]'"
        )
