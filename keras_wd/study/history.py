"""The logs of all epochs, as `history.csv`."""

import csv
import os

import keras

from keras_wd.study.files import replacing

NAME = "history.csv"


def writer(folder: str) -> keras.callbacks.Callback:
    """A callback that adds one row per epoch."""
    return keras.callbacks.CSVLogger(os.path.join(folder, NAME), append=True)


def read(folder: str) -> list[dict[str, float]]:
    """The rows of all epochs so far."""
    path = os.path.join(folder, NAME)
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
            if None not in row.values()
        ]


def truncate(folder: str, epochs: int) -> None:
    """Drop the rows after a checkpoint: those epochs will be run again."""
    path = os.path.join(folder, NAME)
    if not os.path.exists(path):
        return
    with open(path, newline="", encoding="utf-8") as file:
        lines = file.read().splitlines(keepends=True)
    if not epochs:
        os.remove(path)
        return
    with replacing(path) as draft, open(draft, "w", newline="") as file:
        file.writelines(lines[: epochs + 1])
