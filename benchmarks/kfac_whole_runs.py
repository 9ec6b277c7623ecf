"""Seconds to the validation loss that tuned AdamW ends at, for K-FAC.

    python -m benchmarks kfac_whole_runs [--tasks digits-mlp ...] [--repeats 3]
        [--only_defaults]

Real data that scikit-learn bundles, networks of `keras-wd train`, `fit` as
users call it. AdamW is tuned over the rates and decays of the task, on the
validation loss at the end of its run; its seconds are those until it first
reaches that loss. K-FAC is there twice: at the one of six settings that needs
the fewest epochs to that loss, and with its defaults and the decay that
`keras-wd train` tries first, which `--only_defaults` leaves alone. Its seconds
are those until it first reaches the same loss, "inf" where it does not.
Settings are chosen with a seed that is not measured. They take turns, every
time with another seed, and the medians are printed, of ratios that of every
turn's ratio. Seconds of validation do not count.
Compiling is the first batch of `fit`, and of K-FAC also finding the layers and
the first run of every other program.
"""

import argparse
import dataclasses
import itertools
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import markdown_tables
import numpy as np
from digits import drawn
from digits import images_and_labels
from sklearn import datasets
from training import LOSS

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import optimizers
from keras_wd.cli import networks

RATES = (1e-3, 3e-3, 1e-2)
DECAYS = (0.03, 1.0)
KFAC_RATES = (0.01, 0.03, 0.1)
KFAC_DECAYS = (0.01, 0.1)
KFAC_DEFAULT = (None, 0.01)


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set, a network for it, how long it is trained, AdamW's grid."""

    data: Callable
    network: str
    outputs: int
    epochs: int
    batch: int = 64
    regression: bool = False
    batch_norm: bool = False
    rates: tuple[float, ...] = RATES
    decays: tuple[float, ...] = DECAYS


def digits():
    x, y = images_and_labels()
    return 2 * x.reshape(-1, 8, 8, 1) - 1, y


def breast_cancer():
    data = datasets.load_breast_cancer()
    x = data.data
    return (x - x.mean(axis=0)) / x.std(axis=0), data.target


def patches():
    """Squares of two photographs with noise, and without it."""
    squares = []
    for image in datasets.load_sample_images().images:
        height, width = (8 * (size // 8) for size in image.shape[:2])
        cut = image[:height, :width].reshape(height // 8, 8, width // 8, 8, 3)
        squares.append(cut.swapaxes(1, 2).reshape(-1, 8, 8, 3))
    clean = np.concatenate(squares) / 64.0 - 2.0
    noise = np.random.default_rng(0).normal(size=clean.shape)
    return clean + 0.5 * noise, clean.reshape(len(clean), -1)


TASKS = {
    "digits-mlp": Task(digits, "mlp", 10, 20),
    "digits-cnn": Task(digits, "cnn", 10, 10),
    "breast-cancer-mlp": Task(breast_cancer, "mlp", 2, 20, 32),
    "photographs-mlp": Task(patches, "mlp", 192, 20, 128, regression=True),
    "digits-resnet32": Task(
        digits, "resnet32", 10, 5, rates=(1e-4, 3e-4, 1e-3), decays=(0.03,)
    ),
    # Without normalization its signal vanishes on images of 8 x 8 pixels.
    "digits-vgg16": Task(
        *(digits, "vgg16", 10, 5),
        batch_norm=True,
        rates=(3e-4, 1e-3, 3e-3),
        decays=(0.03,),
    ),
}
DEFAULT = ("digits-mlp", "digits-cnn", "breast-cancer-mlp", "photographs-mlp")


def split(task):
    """Training and validation examples, four to one."""
    x, y = task.data()
    y = y.astype("float32" if task.regression else "int32")
    held_out, training = drawn(0, len(x) // 5, (x.astype("float32"), y))
    return training, held_out


class Watch(keras.callbacks.Callback):
    """Seconds of training at the end of every epoch, and those of compiling."""

    def __init__(self):
        super().__init__()
        self.compiling = None
        self.ends = []
        self._start = self._began = time.perf_counter()

    def on_train_batch_begin(self, batch, logs=None):
        if self.compiling is None:
            self._began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if self.compiling is None:
            self.compiling = time.perf_counter() - self._began

    def on_test_begin(self, logs=None):
        self.ends.append(time.perf_counter() - self._start)

    def on_test_end(self, logs=None):
        self._start += time.perf_counter() - self._start - self.ends[-1]


@dataclasses.dataclass
class Run:
    """One `fit`: what it reached, and when, by epochs."""

    losses: list[float]
    accuracies: list[float]
    ends: list[float]
    compiling: float

    def seconds_to(self, loss):
        """Until a validation loss, with and without compiling; or None."""
        for now, end in zip(self.losses, self.ends, strict=True):
            if now <= loss:
                return end, end - self.compiling
        return None


def run(task, optimizer, seed, curvature=None):
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    (x, y), held_out = split(task)
    design = networks.Design(batch_norm=task.batch_norm)
    model = networks.build(task.network, x.shape[1:], task.outputs, design)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Keras's 0.99 takes some 400 steps, more than these runs have.
            layer.momentum = 0.9
    model.compile(
        optimizer,
        "mse" if task.regression else LOSS,
        metrics=[] if task.regression else ["accuracy"],
    )
    watch = Watch()
    history = model.fit(
        x,
        y,
        batch_size=task.batch,
        epochs=task.epochs,
        validation_data=held_out,
        verbose=0,
        callbacks=[watch, *([curvature] if curvature else ())],
    ).history
    accuracies = history.get("val_accuracy", [float("nan")])
    compiling = watch.compiling
    if curvature:
        spent = optimizer.inner_optimizer.diagnostics(products=False)
        # The first batch is in there too.
        compiling = spent["compile_seconds"]
    return Run(history["val_loss"], accuracies, watch.ends, compiling)


def adamw(task, seed, rate, decay):
    return run(task, keras.optimizers.AdamW(rate, weight_decay=decay), seed)


def kfac(task, seed, rate, decay):
    (x, _), _ = split(task)
    optimizer = optimizers.WeightDecay(
        optimizers.KFAC(rate, seed=seed), decays.L2(decay)
    )
    return run(task, optimizer, seed, callbacks.Curvature(x))


def tuned(task):
    """The rate and decay of AdamW with the least loss at the end, and it."""
    found = {
        pair: adamw(task, 0, *pair).losses[-1]
        for pair in itertools.product(task.rates, task.decays)
    }
    best = min(found, key=lambda pair: (np.isnan(found[pair]), found[pair]))
    return best, found[best]


def quickest(task, target):
    """The rate and decay of K-FAC that first reach a loss."""

    def epochs(pair):
        losses = kfac(task, 0, *pair).losses
        reached = [i for i, loss in enumerate(losses) if loss <= target]
        return min(reached, default=len(losses)), losses[-1]

    return min(itertools.product(KFAC_RATES, KFAC_DECAYS), key=epochs)


def measured(name, repeats, only_defaults):
    """The rows of a task: K-FAC tuned, and with its defaults."""
    task = TASKS[name]
    pair, target = tuned(task)
    ours = [KFAC_DEFAULT]
    if not only_defaults:
        ours.insert(0, quickest(task, target))
    turns = [
        (adamw(task, seed, *pair), *(kfac(task, seed, *own) for own in ours))
        for seed in range(1, repeats + 1)
    ]
    theirs, *found = zip(*turns, strict=True)
    for own, runs in zip(ours, found, strict=True):
        yield row(task, name, pair, theirs, own, runs)


def row(task, name, pair, theirs, own, runs):
    """Medians over the turns, and over their ratios."""
    targets = [one.losses[-1] for one in theirs]
    before = [one.seconds_to(t) for one, t in zip(theirs, targets, strict=True)]
    nothing = (float("inf"),) * 2
    after = [
        one.seconds_to(t) or nothing
        for one, t in zip(runs, targets, strict=True)
    ]
    ratios = np.median(np.divide(after, before), axis=0)
    seconds = [np.median(values, axis=0) for values in (before, after)]
    ended = statistics.median(one.losses[-1] for one in runs)
    accuracies = [
        100 * statistics.median(max(one.accuracies) for one in each)
        for each in (theirs, runs)
    ]
    rate, decay = own
    cells = [
        name,
        "{:g}, {:g}".format(*pair),
        f"{statistics.median(targets):.3f}",
        f"{rate:g}, {decay:g}" if rate else f"default, {decay:g}",
        *(f"{a:.1f} ({b:.1f})" for a, b in seconds),
        f"{ratios[0]:.2f} ({ratios[1]:.2f})",
        f"{ended:.3f}",
        "" if task.regression else "{:.1f}, {:.1f}".format(*accuracies),
    ]
    return markdown_tables.row(cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=DEFAULT, choices=TASKS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only_defaults", action="store_true")
    arguments = parser.parse_args()
    print(f"on {keras.backend.backend()}; seconds with (without) compiling")
    titles = (
        *("task", "AdamW's rate, decay", "its loss", "K-FAC's rate, decay"),
        *("AdamW's s", "K-FAC's s", "ratio", "K-FAC's loss at the end"),
        "best accuracies, %",
    )
    print(markdown_tables.header(titles), flush=True)
    for name in arguments.tasks:
        for line in measured(name, arguments.repeats, arguments.only_defaults):
            print(line, flush=True)


if __name__ == "__main__":
    main()
