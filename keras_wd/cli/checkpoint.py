"""Checkpoints at epoch boundaries, from which a run continues exactly.

Keras's `BackupAndRestore` overwrites its files in place, so that a kill while
it writes leaves nothing to continue from, and does not store the state of
random layers. Here everything that a step reads is in one file, replaced
whole, and the file before it is kept for the case that this one is damaged.
"""

import contextlib
import os
import sys
import time

import keras
import numpy as np

from keras_wd.cli.files import replacing
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line

NAME = "checkpoint.npz"
PREVIOUS = "previous.npz"


class Checkpoint(keras.callbacks.Callback):
    """Stores model, optimizer and random state after epochs.

    Put it after the callbacks that write logs, so that what it stores has
    been logged.

    Args:
        folder: where `checkpoint.npz` goes.
        seconds: what the run has taken so far.
        pause: seconds between one checkpoint and the next, at least. Those
            that an interruption loses are trained again.
        needed: an epoch after which a checkpoint is stored in any case.
    """

    def __init__(
        self,
        folder: str,
        seconds: float = 0.0,
        pause: float = 0.0,
        needed: int | None = None,
    ):
        super().__init__()
        self.path = os.path.join(folder, NAME)
        self._previous = os.path.join(folder, PREVIOUS)
        self.seconds = seconds
        self._pause = pause
        self._needed = needed
        self._stored = seconds

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._began = time.monotonic() - self.seconds

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.seconds = time.monotonic() - self._began
        waited = self.seconds - self._stored >= self._pause
        if not waited and epoch + 1 != self._needed:
            return
        self._stored = self.seconds
        arrays = {
            f"variable_{index}": _as_array(variable)
            for index, variable in enumerate(state(self.model))
        }
        with replacing(self.path) as draft:
            with open(draft, "wb") as file:
                np.savez(
                    file,
                    epochs=np.int64(epoch + 1),
                    seconds=np.float64(self.seconds),
                    **arrays,
                )
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.path, self._previous)


def state(model: keras.Model) -> list[keras.Variable]:
    """Every variable that a training step reads, in a fixed order."""
    counted = {id(variable) for variable in model.metrics_variables}
    kept = [v for v in model.variables if id(v) not in counted]
    return kept + list(model.optimizer.variables)


def restore(model: keras.Model, folder: str) -> tuple[int, float]:
    """Put a checkpoint's values into a compiled model, its optimizer built.

    Where the newest checkpoint cannot be used, the one before it is.

    Returns:
        The epochs done and the seconds they took; `(0, 0.0)` if the run was
        interrupted before its first checkpoint.

    Raises:
        UsageError: if there are checkpoints, and all are damaged or of
            another model.
    """
    problems = []
    for name in (NAME, PREVIOUS):
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            continue
        try:
            epochs, seconds, values = _read(path, model)
        except Exception as error:
            problems.append(f"{path} cannot be used: {first_line(error)}")
            continue
        if problems:
            print(
                f"{problems[0]}. Going on from the checkpoint before it, "
                f"after epoch {epochs}",
                file=sys.stderr,
            )
        for variable, value in zip(state(model), values, strict=True):
            variable.assign(value)
        return epochs, seconds
    if problems:
        raise UsageError(
            f"--resume: {'; '.join(problems)}. Remove it to train from the "
            "start"
        )
    return 0, 0.0


def _read(path, model):
    # NumPy leaves a damaged file open that it opened itself.
    with open(path, "rb") as file, np.load(file) as arrays:
        stored = dict(arrays)
    epochs = int(stored.pop("epochs"))
    seconds = float(stored.pop("seconds"))
    shapes = [tuple(variable.shape) for variable in state(model)]
    values = [stored[f"variable_{i}"] for i in range(len(stored))]
    if [value.shape for value in values] != shapes:
        raise ValueError("its variables are not those of this model")
    return epochs, seconds, values


def remove(folder: str) -> None:
    """Remove the checkpoints of a run that is complete."""
    for name in (NAME, PREVIOUS):
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, name))


def _as_array(variable):
    value = np.asarray(variable)
    # NumPy files do not know bfloat16; float32 holds it exactly.
    return value.astype("float32") if value.dtype == "bfloat16" else value
