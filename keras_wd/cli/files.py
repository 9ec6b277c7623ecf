"""Folders of runs, and files that are there whole or not at all."""

import contextlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterator
from collections.abc import Mapping

from keras_wd.cli.usage_errors import UsageError


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yield a path to write to; it takes the name `path` when all is well.

    The new file is complete before it replaces the old one, also if the
    process is killed. The extension stays, since libraries read it.
    """
    folder, name = os.path.split(path)
    draft = os.path.join(folder, f".draft.{os.getpid()}.{name}")
    try:
        yield draft
        with open(draft, "rb") as file:
            # Or the new name may outlive a loss of power, and the data not.
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(draft)


def write_json(path: str, document: Mapping) -> None:
    """Write a document as indented JSON."""
    with replacing(path) as draft:
        text = json.dumps(document, indent=2, allow_nan=False)
        pathlib.Path(draft).write_text(text + "\n", encoding="utf-8")


def check_folder(path: str | None) -> None:
    """Refuse an output folder in which something is already.

    Raises:
        UsageError: naming the flag.
    """
    if path is None or not os.path.lexists(path):
        return
    if not os.path.isdir(path):
        raise UsageError(f"--output_dir={path} is a file, not a folder")
    if _entries(path):
        raise UsageError(
            f"--output_dir={path} is not empty. Choose another folder, or "
            "continue the run in it with --resume"
        )


def _entries(path):
    try:
        return os.listdir(path)
    except OSError as error:
        raise _unusable(path, error) from error


def make_folder(path: str | None, name: str) -> str:
    """Create the output folder: `path`, or a fresh one named `runs/name-N`.

    Raises:
        UsageError: if it cannot be created or written to.
    """
    try:
        if path is None:
            return _fresh(name)
        os.makedirs(path, exist_ok=True)
        probe = os.path.join(path, f".draft.{os.getpid()}.probe")
        pathlib.Path(probe).touch()
        os.remove(probe)
    except OSError as error:
        raise _unusable(path or "runs", error) from error
    return path


def _fresh(name):
    for number in itertools.count(1):
        path = os.path.join("runs", f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            os.makedirs(path)
            return path


def _unusable(path, error):
    return UsageError(
        f"--output_dir={path} cannot be written to: {error.strerror}"
    )
