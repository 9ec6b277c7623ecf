"""The logs of all epochs, as `history.csv`."""

import contextlib
import csv
import os

import keras

from keras_wd.cli.files import replacing
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line

NAME = "history.csv"


class _Writer(keras.callbacks.Callback):
    # Unlike Keras's `CSVLogger` it holds no open file when it is interrupted,
    # and what an epoch did not measure is an empty field.
    def __init__(self, path):
        super().__init__()
        self._path = path

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch, **dict(sorted((logs or {}).items()))}
        header = self._header(row)
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, header).writerow(row)

    def _header(self, row):
        """The columns of the file, with those of the row added to it."""
        lines, known = [], []
        if os.path.exists(self._path):
            lines = list(csv.reader(_lines(self._path)))
            known = lines[0] if lines else []
        header = known + [name for name in row if name not in known]
        if header != known:
            rows = [dict(zip(known, line, strict=True)) for line in lines[1:]]
            with replacing(self._path) as draft:
                with open(draft, "w", newline="", encoding="utf-8") as file:
                    table = csv.DictWriter(file, header)
                    table.writeheader()
                    table.writerows(rows)
        return header


def writer(folder: str) -> keras.callbacks.Callback:
    """A callback that adds one row per epoch."""
    return _Writer(os.path.join(folder, NAME))


def read(folder: str) -> list[dict[str, float]]:
    """The rows of all epochs so far; each has what its epoch measured.

    Raises:
        UsageError: if the file is damaged.
    """
    path = os.path.join(folder, NAME)
    if not os.path.exists(path):
        return []
    try:
        return [
            {name: float(v) for name, v in row.items() if v != ""}
            for row in csv.DictReader(_lines(path), strict=True)
        ]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UsageError(f"{path} is damaged: {first_line(error)}") from error


def truncate(folder: str, epochs: int) -> None:
    """Drop the rows after a checkpoint: those epochs will be run again.

    Raises:
        UsageError: if rows before the checkpoint are missing or damaged.
    """
    path = os.path.join(folder, NAME)
    if not epochs:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
        return
    known = [row.get("epoch") for row in read(folder)[:epochs]]
    if known != list(range(epochs)):
        raise UsageError(
            f"--resume: {path} must have the {epochs} epochs before the "
            f"checkpoint, and has {len(known)}. Remove the checkpoint to "
            "train from the start"
        )
    lines = _lines(path)
    with replacing(path) as draft, open(draft, "w", newline="") as file:
        file.writelines(lines[: epochs + 1])


def _lines(path):
    """The complete lines; a kill may leave half a line at the end."""
    with open(path, newline="", encoding="utf-8") as file:
        lines = file.read().splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]
