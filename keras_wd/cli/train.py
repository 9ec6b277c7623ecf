"""`keras-wd train`: one run, from the flags to the report."""

import contextlib
import functools
import math
import os
import sys
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import keras

from keras_wd.callbacks import AutoL2
from keras_wd.callbacks import Curvature
from keras_wd.callbacks import LayerwiseDecay
from keras_wd.cli import batches
from keras_wd.cli import checkpoint
from keras_wd.cli import command_line
from keras_wd.cli import config
from keras_wd.cli import datasets
from keras_wd.cli import distribute
from keras_wd.cli import files
from keras_wd.cli import history
from keras_wd.cli import models
from keras_wd.cli import optimizer_factory
from keras_wd.cli import report
from keras_wd.cli.datasets import DataSet
from keras_wd.cli.logs import EpochLogs
from keras_wd.cli.logs import measure
from keras_wd.cli.options import TRAIN
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line
from keras_wd.cli.usage_errors import require

ABOUT = "Train a network with a weight decay, and report what the decay did."
CURVATURE_BATCH = 256  # images, at most
AUTO_L2_BATCH = 128
INTERRUPTED = 130  # as a shell reports Ctrl-C


def main(arguments: Sequence[str]) -> int:
    """Train as the flags say; return the exit status.

    Raises:
        UsageError: for a mistake in the flags, before anything is written.
    """
    if command_line.asks_for_help(arguments):
        print(command_line.help_text("train [--flag=value ...]", ABOUT, TRAIN))
        return 0
    settings = config.from_command_line(arguments)
    require("matplotlib", "tensorboard")
    if settings["resume"]:
        done = report.read(settings["output_dir"])
        if done is not None:
            if distribute.is_first(settings):
                print("The run is complete.")
                report.show(settings, done, settings["output_dir"])
            return 0
    elif distribute.is_first(settings):
        files.check_folder(settings["output_dir"])
    with distribute.sharing(settings):
        data = datasets.for_run(settings)
        with _dtype_policy(settings["dtype_policy"]):
            return run(settings, data)


def run(
    settings: Mapping,
    data: DataSet,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    picture: bool = True,
    until: int | None = None,
    pause: float = 0.0,
) -> int:
    """Train on a data set, write the results, return the exit status.

    Args:
        settings: of the run.
        data: what to train on.
        callbacks: whose logs go into the history as well.
        picture: draw the course of the run, which takes a second.
        until: the epoch after which to stop, with a checkpoint to go on from.
        pause: seconds between one checkpoint and the next, at least.
    """
    model = compiled_model(settings, data)
    epochs_done, seconds = 0, 0.0
    folder = settings["output_dir"]
    is_first = distribute.is_first(settings)
    if settings["resume"]:
        epochs_done, seconds = checkpoint.restore(model, folder)
    if settings["resume"] and is_first:
        history.truncate(folder, epochs_done)
        print(f"Resuming {folder} after epoch {epochs_done}", flush=True)
    elif is_first:
        folder = files.make_folder(folder, title(settings))
        config.write(settings, folder)
        print(_announcement(settings, data, model, folder), flush=True)
    stored = None
    if is_first:
        stored = checkpoint.Checkpoint(folder, seconds, pause, until)
    last = settings["epochs"] if until is None else until
    epochs = range(epochs_done, last)
    try:
        _fit(model, settings, data, folder, epochs, callbacks, stored)
    except KeyboardInterrupt:
        print(
            f"\nInterrupted. Continue with: keras-wd train "
            f"--output_dir={folder} --resume",
            file=sys.stderr,
        )
        return INTERRUPTED
    if last < settings["epochs"]:
        return 0
    measured = _measured(model, settings, data)
    status = 0 if math.isfinite(measured["test_loss"]) else 1
    if stored is None:
        return status
    summary = report.summary(
        **measured,
        epochs=len(history.read(folder)),
        seconds=stored.seconds,
    )
    distribute.synchronize(model, False)
    with files.replacing(os.path.join(folder, "model.keras")) as draft:
        with distribute.alone():
            model.save(draft)
    if picture:
        report.draw(settings, folder, summary)
    report.write(summary, folder)
    checkpoint.remove(folder)
    report.show(settings, summary, folder)
    return status


def compiled_model(settings: Mapping, data: DataSet) -> keras.Model:
    """The model with its optimizer built, the same for the same seed.

    Raises:
        UsageError: if model, data and decay do not go together.
    """
    keras.utils.set_random_seed(settings["seed"])
    model = models.make(settings, data)
    if settings["distribute"] == "data":
        distribute.synchronize(model, True)
    steps = batches.steps_per_epoch(data, settings["batch_size"])
    jit_compile = models.jit_compile(
        model, settings["jit"], steps * settings["epochs"]
    )
    model.compile(
        optimizer_factory.optimizer(settings, steps, model),
        **models.objective(model, data),
        jit_compile=distribute.jit_compile(settings, jit_compile),
    )
    try:
        models.check_objective(model, settings, data)
        model.optimizer.build(model.trainable_variables)
        curvature = curvature_of(settings, data)
        if curvature is not None:
            # Creates the factors, which a run that is resumed restores.
            curvature.set_model(model)
    except ValueError as error:
        raise UsageError(
            f"--where={settings['where']} with --decay={settings['decay']}: "
            f"{first_line(error)}"
        ) from error
    return model


def curvature_of(settings: Mapping, data: DataSet) -> Curvature | None:
    """What measures the curvature for K-FAC; None for other optimizers."""
    if settings["optimizer"] != "kfac":
        return None
    size = min(CURVATURE_BATCH, len(data.train))
    return Curvature(
        batches.RandomBatches(data, size, settings["seed"]),
        every=settings["curvature_every"],
        invert_every=settings["invert_every"],
    )


def _fit(model, settings, data, folder, epochs, callbacks, stored):
    augment = settings["augment"] == "true" or (
        settings["augment"] == "auto" and data.is_colour
    )
    process = distribute.process(settings)
    validation = batches.evaluation(
        data,
        data.validation,
        settings["batch_size"],
        distribute.count(settings),
        process[1],
    )
    if not epochs:
        return
    steps = batches.steps_per_epoch(data, settings["batch_size"])
    training = functools.partial(
        batches.training_batches,
        data,
        settings["batch_size"],
        settings["seed"],
        epochs,
        augment,
        process,
    )
    verbose, writers = 0, []
    if stored is not None:
        verbose = 1 if sys.stdout.isatty() else 2
        writers = [
            history.writer(folder),
            keras.callbacks.TensorBoard(
                os.path.join(folder, "tensorboard"), write_graph=False
            ),
            stored,
        ]
    model.fit(
        batches.Restartable(training, steps * len(epochs)),
        shuffle=False,  # the batches are shuffled
        steps_per_epoch=steps,
        initial_epoch=epochs.start,
        epochs=epochs.stop,
        validation_data=(validation["x"], validation["y"])
        if "y" in validation
        else validation["x"],
        validation_batch_size=validation.get("batch_size"),
        verbose=verbose,
        callbacks=[
            *_steering(settings, data, steps),
            *callbacks,
            EpochLogs(),
            *writers,
        ],
    )


def _steering(settings, data, steps):
    """The callbacks that belong to the optimizer and its decay."""
    curvature = curvature_of(settings, data)
    found = [] if curvature is None else [curvature]
    if settings["decay_schedule"] == "auto_l2":
        size = min(AUTO_L2_BATCH, len(data.train))
        drawn = batches.RandomBatches(data, size, settings["seed"])
        found.append(AutoL2(drawn, decay="weight_decay"))
    if settings["layerwise"]:
        found.append(LayerwiseDecay(min(steps, 100), decay="weight_decay"))
    return found


def _measured(model, settings, data):
    given = batches.evaluation(
        data,
        data.test,
        settings["batch_size"],
        distribute.count(settings),
        distribute.process(settings)[1],
    )
    scores = model.evaluate(**given, verbose=0, return_dict=True)
    return {
        "test_accuracy": scores.pop("accuracy", None),
        **{f"test_{name}": value for name, value in scores.items()},
        **measure(model),
        "parameters": model.count_params(),
    }


def title(settings: Mapping) -> str:
    """A short name of a run, fit for a folder."""
    parts = [
        datasets.title(settings["dataset"]),
        os.path.basename(settings["model"]).removesuffix(".keras"),
        settings["optimizer"],
        settings["decay"],
    ]
    return "-".join(parts)


def _announcement(settings, data, model, folder):
    line = (
        f"{data.name}: {len(data.train)} training, {len(data.validation)} "
        f"validation and {len(data.test)} test examples"
    )
    if data.carved:
        line += f" ({' and '.join(data.carved)} cut off the training examples)"
    return (
        f"{line}\n{model.name}: {model.count_params()} parameters; "
        f"{settings['optimizer']} with decay {settings['decay']}\n"
        f"Results go to {folder}"
    )


@contextlib.contextmanager
def _dtype_policy(name) -> Iterator[None]:
    """Set the policy new layers get, for this run."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
