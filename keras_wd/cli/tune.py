"""`keras-wd tune`: the weight decay for the length of a run."""

import dataclasses
import math
import os
from collections.abc import Mapping
from collections.abc import Sequence

from keras_wd import tune
from keras_wd.cli import batches
from keras_wd.cli import command_line
from keras_wd.cli import config
from keras_wd.cli import datasets
from keras_wd.cli import distribute
from keras_wd.cli import files
from keras_wd.cli import models
from keras_wd.cli import optimizer_factory
from keras_wd.cli.datasets import DataSet
from keras_wd.cli.options import TUNE
from keras_wd.cli.options import define
from keras_wd.cli.picture import STYLE
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import require

_SHADES = ("#a9c3de", "#4f8fc4", "#0d3b66")  # from early to late
RESULT, PICTURE = "tune.json", "tune.png"
_LAW = "is fixed: the law is that of l2 decay at a constant learning rate"
REFUSED = {
    "decay": _LAW,
    "decay_schedule": _LAW,
    "lr_schedule": _LAW,
    "lr_steps": _LAW,
    "warmup_epochs": _LAW,
    "p": _LAW,
    "coupling": _LAW,
    "resume": "has no meaning here: a prediction takes short runs only",
    "config": "has no meaning here: give the flags of the run",
    "output_dir": "has another meaning here",
    "distribute": "is for a single run of keras-wd train",
    "devices": "is for a single run of keras-wd train",
    "stream": "has no meaning here: data are held in memory",
}
DEFAULTS = {
    "stream": "false",
    "optimizer": "sgd",
    "decay": "l2",
    "lr_schedule": "constant",
}
_SUMMARY = (
    "Predict which weight decay makes the validation loss least at the end of "
    "a run of --epochs, from shorter runs at several decays."
)


def main(arguments: Sequence[str]) -> int:
    """Predict as the flags say; return the exit status, 1 without a result.

    Raises:
        UsageError: for a mistake in the flags, before anything is written.
    """
    if command_line.asks_for_help(arguments):
        print(_help())
        return 0
    own = define(TUNE)
    refused = {n: text for n, text in REFUSED.items() if n not in own}
    refused["weight_decay"] = "is what is predicted. Use --probe_weight_decays"
    passed = command_line.split(own, arguments, refused, DEFAULTS, "tune")
    settings = config.from_command_line(passed)
    distribute.refuse_processes()
    if settings["optimizer"] == "kfac":
        raise UsageError(
            "--optimizer=kfac has no such law: what decay does under K-FAC "
            "depends on its curvature. Use --optimizer=sgd or momentum"
        )
    decays: list[float] | float | None = _decays(own.probe_weight_decays)
    if decays and own.like is not None:
        raise UsageError(
            "--like cannot be used with --probe_weight_decays: both say where "
            "the short runs start"
        )
    require("matplotlib")
    files.check_folder(own.output_dir)
    data = datasets.for_run(settings)
    models.check(settings["model"], data)
    if own.like is not None:
        decays = _scaled(own.like, settings, data)
    prediction = _predict(settings, own, decays, data)
    name = os.path.basename(settings["model"]).removesuffix(".keras")
    folder = files.make_folder(own.output_dir, f"tune-{data.name}-{name}")
    files.write_json(os.path.join(folder, RESULT), _document(prediction))
    with files.replacing(os.path.join(folder, PICTURE)) as draft:
        _draw(prediction, draft)
    print(prediction)
    print(f"In {folder}: {PICTURE}, {RESULT}", flush=True)
    return 0 if prediction.weight_decay is not None else 1


def _decays(text: str | None) -> list[float] | None:
    """The decays of a flag, three or more above 0."""
    if text is None:
        return None
    try:
        values = sorted(float(part) for part in text.split(","))
    except ValueError:
        values = []
    distinct = len(set(values)) == len(values) >= 3
    if not distinct or not 0 < values[0] <= values[-1] < math.inf:
        raise UsageError(
            "--probe_weight_decays must be three or more numbers above 0, all "
            "different, as in 0.001,0.01,0.1. Received: "
            f"--probe_weight_decays={text}"
        )
    return values


def _scaled(folder: str, settings: Mapping, data: DataSet) -> float:
    """The decay of another run, as this one would have it."""
    other = config.from_command_line(
        [f"--config={os.path.join(folder, config.NAME)}"]
    )
    if other["decay"] != settings["decay"] or other["coupling"] != "decoupled":
        raise UsageError(
            f"--like={folder} must be a run with --decay={settings['decay']} "
            "--coupling=decoupled. Received: "
            f"--decay={other['decay']} --coupling={other['coupling']}"
        )
    examples = len(datasets.for_run(other).train)
    decay = tune.scale_weight_decay(
        other["weight_decay"],
        other["learning_rate"],
        rule="timescale",
        batch_size=(other["batch_size"], settings["batch_size"]),
        examples=(examples, len(data.train)),
        new_learning_rate=settings["learning_rate"],
    ).weight_decay
    print(
        f"{other['weight_decay']:g} for {examples} examples in batches of "
        f"{other['batch_size']} at {other['learning_rate']:g} is {decay:.3g} "
        "here: the short runs start from there",
        flush=True,
    )
    return decay


def _predict(
    settings: Mapping, own, decays: list[float] | float | None, data: DataSet
) -> tune.Prediction:
    per_epoch = batches.steps_per_epoch(data, settings["batch_size"])

    def model_fn(weight_decay):
        run = {**settings, "weight_decay": weight_decay}
        model = models.make(run, data)
        model.compile(
            optimizer_factory.optimizer(run, per_epoch, model),
            **models.objective(model, data),
            jit_compile=models.jit_compile(
                model, run["jit"], per_epoch * run["epochs"]
            ),
        )
        return model

    images, labels, _ = batches.evaluation_arrays(data, data.train)
    validation = batches.evaluation_arrays(data, data.validation)[:2]
    steps = settings["epochs"] * per_epoch
    print(
        f"{data.name}: short runs at several decays for a run of {steps} steps",
        flush=True,
    )
    return tune.predict_weight_decay(
        model_fn,
        (images, labels),
        steps,
        validation,
        weight_decays=decays,
        probe_steps=own.probe_epochs and own.probe_epochs * per_epoch,
        runs=own.runs,
        batch_size=settings["batch_size"],
        seed=settings["seed"],
    )


def _document(prediction):
    document = dataclasses.asdict(prediction)
    document["probes"] = [_plain(probe) for probe in document["probes"]]
    return {**_plain(document), "holds": prediction.holds}


def _plain(values):
    """Arrays as lists, with null for what is not finite."""
    return {
        name: [x if math.isfinite(x) else None for x in value.tolist()]
        if hasattr(value, "tolist")
        else value
        for name, value in values.items()
    }


def _draw(prediction: tune.Prediction, path: str) -> None:
    """The losses by decay, and the best decay by the number of steps."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**STYLE, "axes.titlepad": 8}):
        figure = Figure(figsize=(9, 4.2), dpi=150, layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_losses(prediction, left)
        _draw_best(prediction, right)
        title = "No decay can be given"
        if prediction.weight_decay is not None:
            title = (
                f"Weight decay for {prediction.steps} steps: "
                f"{prediction.weight_decay:.2g} "
                f"({prediction.low:.2g} to {prediction.high:.2g})"
            )
        figure.suptitle(title)
        figure.savefig(path, format="png")


def _draw_losses(prediction, panel):
    """One line per number of steps: a quarter, a half, all of a probe."""
    decays = [probe.weight_decay for probe in prediction.probes]
    count = len(prediction.probes[0].steps)
    ages = (count // 4 - 1, count // 2 - 1, count - 1)
    for index, color in zip(ages, _SHADES, strict=True):
        losses = [probe.smoothed[index] for probe in prediction.probes]
        steps = prediction.probes[0].steps[index]
        panel.plot(
            decays, losses, "o-", color=color, label=f"after {steps} steps"
        )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("weight decay")
    panel.set_ylabel("validation loss")
    panel.legend()


def _draw_best(prediction, panel):
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("training steps")
    panel.set_ylabel("best weight decay")
    if not len(prediction.best_steps):
        panel.set_visible(False)
        return
    panel.plot(
        prediction.best_steps,
        prediction.best_decays,
        "o",
        ms=3,
        label="in the short runs",
    )
    if prediction.weight_decay is None:
        return
    ages = [int(prediction.best_steps[-1]), prediction.steps]
    lawful = prediction.constant / prediction.learning_rate
    panel.plot(ages, [lawful / age for age in ages], ":", label="by the law")
    panel.errorbar(
        [prediction.steps],
        [prediction.weight_decay],
        [
            [prediction.weight_decay - prediction.low],
            [prediction.high - prediction.weight_decay],
        ],
        fmt="s",
        capsize=3,
        label="for the run",
    )
    panel.legend()


def _help():
    return command_line.help_text(
        "tune [--flag=value ...]",
        _SUMMARY,
        TUNE,
        "The flags of keras-wd train about data, network and training "
        "describe the run to come: --dataset, --model, --optimizer (here "
        "sgd), --learning_rate, --epochs, --batch_size, ...",
    )
