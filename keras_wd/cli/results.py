"""The runs of a comparison, read back and summed up over seeds."""

import csv
import dataclasses
import math
import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_wd.cli import history
from keras_wd.cli import report
from keras_wd.cli.files import replacing
from keras_wd.cli.grid import Cell

COLUMNS = (
    "test_accuracy",
    "test_loss",
    "val_accuracy",
    "val_loss",
    "zeros",
    "sparsity",
    "weight_norm",
    "jacobian_norm",
    "relative_rate",
    "effective_damping",
    "seconds",
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run and how it ended.

    Attributes:
        cell: what it was.
        status: "done", "diverged" or "failed".
        problem: what was wrong, in words.
        numbers: by the names of `COLUMNS`, and of the metrics of a model that
            came with its own; those that are known and finite.
        epochs: the logs of the epochs.
    """

    cell: Cell
    status: str
    problem: str
    numbers: Mapping[str, float]
    epochs: Sequence[Mapping[str, float]]


def read(cell: Cell, folder: str, problem: str) -> Run:
    """What a run left in its folder."""
    summary = report.read(folder)
    epochs = history.read(folder)
    numbers: dict[str, Any] = dict(epochs[-1]) if epochs else {}
    numbers.update(summary or {})
    # A schedule may end at zero: the last rate that was above it.
    rates = [rate for rate in map(relative_rate, epochs) if rate > 0]
    numbers["relative_rate"] = rates[-1] if rates else None
    finite = {
        name: float(numbers[name])
        for name in (*COLUMNS, *_own_metrics(summary or {}))
        if numbers.get(name) is not None and math.isfinite(numbers[name])
    }
    if summary is None:
        return Run(cell, "failed", problem or "did not end", finite, epochs)
    if "test_loss" not in finite:
        text = f"the loss was not finite after epoch {len(epochs)}"
        return Run(cell, "diverged", text, finite, epochs)
    return Run(cell, "done", "", finite, epochs)


def _own_metrics(names):
    """Those of the model's own metrics, on validation and test data."""
    of_test = [
        name
        for name in names
        if name.startswith("test_") and name not in COLUMNS
    ]
    of_validation = [f"val_{name.removeprefix('test_')}" for name in of_test]
    return [*of_validation, *of_test]


def own_metrics(runs: Sequence[Run]) -> list[str]:
    """The names of `numbers` that are not of `COLUMNS`."""
    names = dict.fromkeys(name for run in runs for name in run.numbers)
    return [name for name in names if name not in COLUMNS]


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over runs, with its standard error (None for a single run)."""

    value: float
    error: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean":
        """The mean of some numbers."""
        error = None
        if len(values) > 1:
            spread = float(np.std(values, ddof=1))
            error = spread / math.sqrt(len(values))
        return cls(float(np.mean(values)), error)


@dataclasses.dataclass(frozen=True)
class Row:
    """All runs of an optimizer with a method at one rate.

    Attributes:
        optimizer: its name.
        method: its name.
        weight_decay: the rate, or None.
        done: the runs that ended well.
        lost: those that diverged or failed.
        means: of the numbers that all of `done` have, by their names.
    """

    optimizer: str
    method: str
    weight_decay: float | None
    done: Sequence[Run]
    lost: Sequence[Run]
    means: Mapping[str, Mean]

    @property
    def learning_rate(self) -> float | None:
        """The highest; None for what is usual."""
        return [*self.done, *self.lost][0].cell.learning_rate

    def by_seed(self, name: str) -> dict[int, float]:
        """A number by the seed of the run."""
        return {
            run.cell.seed: run.numbers[name]
            for run in self.done
            if name in run.numbers
        }

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Epochs from 1, and the mean of a log over the runs, where known.

        "relative_rate" is `relative_rate`.
        """
        columns = [[_log(row, name) for row in run.epochs] for run in self.done]
        if not columns:
            return None
        length = min(map(len, columns))
        values = np.mean([column[:length] for column in columns], axis=0)
        known = np.isfinite(values)
        if not known.any():
            return None
        return 1 + np.flatnonzero(known), values[known]


def relative_rate(row: Mapping[str, float]) -> float:
    """The effective over the scheduled learning rate after an epoch."""
    scheduled = row.get("learning_rate")
    effective = row.get("effective_learning_rate", math.nan)
    return effective / scheduled if scheduled else math.nan


def _log(row, name):
    if name == "relative_rate":
        return relative_rate(row)
    return row.get(name, math.nan)


def rows(runs: Sequence[Run]) -> list[Row]:
    """Runs by optimizer, method and rate, in the order they come in."""
    groups = {}
    for run in runs:
        cell = run.cell
        key = (cell.optimizer, cell.method, cell.weight_decay)
        groups.setdefault(key, []).append(run)
    return [_row(key, group) for key, group in groups.items()]


def _row(key, runs):
    done = [run for run in runs if run.status == "done"]
    means = {
        name: Mean.of([run.numbers[name] for run in done])
        for name in (done[0].numbers if done else ())
        if all(name in run.numbers for run in done)
    }
    lost = [run for run in runs if run.status != "done"]
    return Row(*key, done, lost, means)


def chosen(found: Sequence[Row]) -> list[Row]:
    """For every optimizer and method the rate best in validation.

    A rate at which runs were lost is taken only if there is no other.
    """
    groups = {}
    for row in found:
        groups.setdefault((row.optimizer, row.method), []).append(row)
    return [best_in_validation(group) or group[0] for group in groups.values()]


def best_in_validation(found: Sequence[Row]) -> Row | None:
    """The row of highest accuracy, or least loss where there is none.

    A row of which runs were lost is taken only if there is no other.
    """
    done = [row for row in found if row.done]
    return max(done, key=_merit, default=None)


class Leader:
    """The row that is ahead while the runs of a comparison end."""

    def __init__(self):
        self._merits = {}

    def add(self, run: Run) -> None:
        """Take note of a run that ended."""
        if run.status != "done":
            return
        accuracy = run.numbers.get("val_accuracy", 0.0)
        merit = (accuracy, -run.numbers["val_loss"])
        key = (run.cell.optimizer, run.cell.method, run.cell.weight_decay)
        count, sums = self._merits.get(key, (0, (0.0, 0.0)))
        sums = tuple(a + b for a, b in zip(sums, merit, strict=True))
        self._merits[key] = (count + 1, sums)

    def __str__(self) -> str:
        means = {
            key: tuple(x / count for x in sums)
            for key, (count, sums) in self._merits.items()
        }
        if not means:
            return "training"
        best = max(means, key=means.__getitem__)
        accuracy, loss = means[best]
        number = f"{accuracy:.1%}" if accuracy else f"loss {-loss:.3g}"
        optimizer, method, rate = best
        rate = "" if rate is None else f" {rate:g}"
        return f"best so far: {optimizer} {method}{rate}, {number}"


def _merit(row):
    accuracy = row.means.get("val_accuracy")
    return (
        -len(row.lost),
        0.0 if accuracy is None else accuracy.value,
        -row.means["val_loss"].value,
    )


def label_of(name: str) -> str:
    """What a number of a split is called: "accuracy", "loss"."""
    return name.removeprefix("test_").removeprefix("val_").replace("_", " ")


def write_table(runs: Sequence[Run], path: str) -> None:
    """A line per run, as CSV."""
    header = [
        "optimizer",
        "method",
        "learning_rate",
        "weight_decay",
        "seed",
        "status",
    ]
    columns = [*COLUMNS, *own_metrics(runs)]
    with replacing(path) as draft:
        with open(draft, "w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow([*header, *columns, "problem"])
            for run in runs:
                cell = run.cell
                lines.writerow(
                    [
                        *(cell.optimizer, cell.method),
                        *(
                            "" if rate is None else rate
                            for rate in (cell.learning_rate, cell.weight_decay)
                        ),
                        *(cell.seed, run.status),
                        *(run.numbers.get(name, "") for name in columns),
                        run.problem,
                    ]
                )


def folder_of(cell: Cell, output_dir: str) -> str:
    """Where a run is."""
    return os.path.join(output_dir, "runs", cell.name)
