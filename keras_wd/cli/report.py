"""The result of a run: on the terminal, as JSON and as a picture."""

import json
import math
import os
from collections.abc import Mapping

from keras_wd.cli import history
from keras_wd.cli import picture
from keras_wd.cli.files import replacing
from keras_wd.cli.files import write_json
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line

NAME = "summary.json"
PICTURE = "picture.png"
NUMBERS = (
    *("test_accuracy", "test_loss", "zeros", "sparsity"),
    *("weight_norm", "seconds", "epochs"),
)


def summary(**values: float | None) -> dict:
    """The numbers of a run; None for those that are not finite or not there."""
    return {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in values.items()
    }


def write(values: Mapping, folder: str) -> None:
    """Store a summary as `summary.json`, which marks a run as complete."""
    write_json(os.path.join(folder, NAME), values)


def read(folder: str) -> dict | None:
    """The summary of a run, or None if the run is not complete.

    Raises:
        UsageError: if the file is damaged.
    """
    path = os.path.join(folder, NAME)
    if not os.path.exists(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        missing = [name for name in NUMBERS if name not in values]
        if not isinstance(values, dict) or missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{path} is damaged: {first_line(error)}. Remove it to train "
            "that run again"
        ) from error
    return values


def describe(settings: Mapping) -> str:
    """What was trained, in a line."""
    parts = [
        os.path.basename(settings["dataset"]),
        os.path.basename(settings["model"]),
        f"{settings['optimizer']} {settings['learning_rate']:g}",
    ]
    if settings["decay"] == "none":
        return ", ".join([*parts, "no decay"])
    rule = f"{settings['decay']} {settings['weight_decay']:g}"
    if settings["p"] is not None:
        rule += f" with p = {settings['p']:g}"
    if settings["coupling"] != "decoupled":
        rule += f" ({settings['coupling']})"
    return ", ".join([*parts, rule])


def show(settings: Mapping, values: Mapping, folder: str) -> None:
    """Print a summary."""
    rows = {
        "test accuracy": _number(values["test_accuracy"], ".4f"),
        "test loss": _number(values["test_loss"], ".4f"),
        "exact zeros": _number(values["zeros"], ".1%"),
        "below 1e-13": _number(values["sparsity"], ".1%"),
        "weight norm": _number(values["weight_norm"], ".2f"),
        "seconds": _number(values["seconds"], ".1f"),
    }
    others = [n for n in values if n.startswith("test_") and n not in NUMBERS]
    if others:
        del rows["test accuracy"]
    for name in others:
        rows[name.replace("_", " ")] = _number(values[name], ".4f")
    width = max(map(len, rows))
    print(f"\n{describe(settings)}: {values['epochs']} epochs")
    for name, text in rows.items():
        print(f"  {name:<{width}}{text:>9}")
    print(
        f"  (zeros, magnitudes and norm are those of the kernels)\n"
        f"In {folder}: {PICTURE}, model.keras, {history.NAME}, {NAME}, "
        f"config.json, tensorboard/",
        flush=True,
    )


def _number(value, form):
    return "not finite" if value is None else format(value, form)


def draw(settings: Mapping, folder: str, values: Mapping) -> None:
    """Store the course of the run as `picture.png`."""
    rows = history.read(folder)
    with replacing(os.path.join(folder, PICTURE)) as draft:
        picture.draw(rows, draft, describe(settings), values["test_accuracy"])
