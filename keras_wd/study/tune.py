"""`keras-wd tune`: the weight decay for the length of a run."""

import dataclasses
import math
import os
from collections.abc import Mapping
from collections.abc import Sequence

from absl import flags

from keras_wd import tune
from keras_wd.study import batches
from keras_wd.study import command_line
from keras_wd.study import config
from keras_wd.study import datasets
from keras_wd.study import files
from keras_wd.study import models
from keras_wd.study import recipes
from keras_wd.study.datasets import DataSet
from keras_wd.study.errors import UsageError
from keras_wd.study.errors import require
from keras_wd.study.picture import STYLE

RESULT, PICTURE = "tune.json", "tune.png"
_LAW = "is fixed: the law is that of l2 decay at a constant learning rate"
REFUSED = {
    "decay": _LAW,
    "decay_schedule": _LAW,
    "lr_schedule": _LAW,
    "warmup_epochs": _LAW,
    "p": _LAW,
    "coupling": _LAW,
    "resume": "has no meaning here: a prediction takes short runs only",
    "config": "has no meaning here: give the flags of the run",
    "output_dir": "has another meaning here",
}
DEFAULTS = {"optimizer": "sgd", "decay": "l2", "lr_schedule": "constant"}
_SUMMARY = (
    "Predict which weight decay makes the validation loss least at the end of "
    "a run of --epochs, from short runs at a large decay."
)


def define() -> flags.FlagValues:
    """The flags of `tune` itself."""
    values = flags.FlagValues()
    flags.DEFINE_integer(
        "runs",
        3,
        "Short runs, from --seed, --seed + 1, ...",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_float(
        "probe_weight_decay",
        None,
        "Decay of the short runs. Default: one with which they are half as "
        "long as the run to come.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "output_dir",
        None,
        "New or empty folder for the result. Default: a fresh folder below "
        "runs/.",
        flag_values=values,
    )
    return values


def main(arguments: Sequence[str]) -> int:
    """Predict as the flags say; return the exit status, 1 without a result.

    Raises:
        UsageError: for a mistake in the flags, before anything is written.
    """
    if {"--help", "-h", "-help"} & set(arguments):
        print(_help())
        return 0
    own = define()
    refused = {n: text for n, text in REFUSED.items() if n not in own}
    refused["weight_decay"] = "is what is predicted. Use --probe_weight_decay"
    passed = command_line.split(own, arguments, refused, DEFAULTS, "tune")
    settings = config.from_command_line(passed)
    if settings["optimizer"] == "kfac":
        raise UsageError(
            "--optimizer=kfac has no such law: what decay does under K-FAC "
            "depends on its curvature. Use --optimizer=sgd or momentum"
        )
    if own.probe_weight_decay == 0:
        raise UsageError(
            "--probe_weight_decay must be above 0. Received: "
            "--probe_weight_decay=0"
        )
    require("matplotlib")
    files.check_folder(own.output_dir)
    data = datasets.load(settings["dataset"], settings["data_dir"])
    prediction = _predict(settings, own, data)
    name = os.path.basename(settings["model"]).removesuffix(".keras")
    folder = files.make_folder(own.output_dir, f"tune-{data.name}-{name}")
    files.write_json(os.path.join(folder, RESULT), _document(prediction))
    with files.replacing(os.path.join(folder, PICTURE)) as draft:
        _draw(prediction, draft)
    print(prediction)
    print(f"In {folder}: {PICTURE}, {RESULT}", flush=True)
    return 0 if prediction.weight_decay is not None else 1


def _predict(settings: Mapping, own, data: DataSet) -> tune.Prediction:
    if settings["batch_size"] > len(data.train):
        raise UsageError(
            f"--batch_size must be at most {len(data.train)}, the training "
            f"images of {data.name}. Received: "
            f"--batch_size={settings['batch_size']}"
        )
    per_epoch = batches.steps_per_epoch(data, settings["batch_size"])

    def model_fn(weight_decay):
        run = {**settings, "weight_decay": weight_decay}
        model = models.make(run, data)
        model.compile(
            recipes.optimizer(run, per_epoch, model),
            loss=models.loss(model),
            metrics=["accuracy"],
            jit_compile=models.jit_compile(model, run["jit"]),
        )
        return model

    images, labels, _ = batches.evaluation_arrays(data, data.train)
    validation = batches.evaluation_arrays(data, data.validation)[:2]
    steps = settings["epochs"] * per_epoch
    print(
        f"{data.name}: {own.runs} short runs for a run of {steps} steps",
        flush=True,
    )
    return tune.predict_weight_decay(
        model_fn,
        (images, labels),
        steps,
        validation,
        weight_decay=own.probe_weight_decay,
        runs=own.runs,
        batch_size=settings["batch_size"],
        seed=settings["seed"],
    )


def _document(prediction):
    document = dataclasses.asdict(prediction)
    document["probes"] = [
        {
            name: value.tolist() if hasattr(value, "tolist") else value
            for name, value in probe.items()
        }
        for probe in document["probes"]
    ]
    for probe in document["probes"]:
        for name in ("losses", "smoothed"):
            probe[name] = [x if math.isfinite(x) else None for x in probe[name]]
    return {**document, "holds": prediction.holds}


def _draw(prediction: tune.Prediction, path: str) -> None:
    """The validation losses of the probes, and where they are least."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    pace = prediction.learning_rate * prediction.probe_weight_decay
    with rc_context({**STYLE, "axes.titlepad": 8}):
        figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
        panel = figure.subplots()
        for probe in prediction.probes:
            (line,) = panel.plot(
                pace * probe.steps, probe.smoothed, label=f"seed {probe.seed}"
            )
            panel.plot(
                pace * probe.steps,
                probe.losses,
                color=line.get_color(),
                alpha=0.25,
            )
            if probe.constant is not None:
                panel.plot(
                    probe.constant,
                    probe.smoothed.min(),
                    "o",
                    color=line.get_color(),
                )
        panel.set_yscale("log")
        panel.set_xlabel("learning rate x decay x step")
        panel.set_ylabel("validation loss")
        title = "No decay can be given"
        if prediction.weight_decay is not None:
            title = (
                f"Weight decay for {prediction.steps} steps: "
                f"{prediction.weight_decay:.2g} "
                f"({prediction.low:.2g} to {prediction.high:.2g})"
            )
        panel.set_title(title)
        panel.legend(loc="upper right")
        figure.savefig(path, format="png")


def _help():
    values = define()
    return "\n".join(
        [
            "usage: keras-wd tune [--flag=value ...]",
            "",
            *command_line.wrapped(_SUMMARY),
            *command_line.flag_lines(values, {"The prediction": list(values)}),
            "",
            *command_line.wrapped(
                "The flags of keras-wd train about data, network and training "
                "describe the run to come: --dataset, --model, --optimizer "
                "(here sgd), --learning_rate, --epochs, --batch_size, ..."
            ),
        ]
    )
