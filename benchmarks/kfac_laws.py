"""Weight decay under K-FAC: the laws of Zhang et al., 2019, on digits.

    python -m benchmarks kfac_laws [--seeds 16] [--tuning_seeds 3]
        [--write docs/laws.md]

Trains an MLP 64-128-128-10 (ReLU, no normalization) on 500 of scikit-learn's
digits, 400 steps of batch 100, with K-FAC by the Fisher and by Gauss-Newton,
without decay of the kernels, with a coupled and with a decoupled one; damping
1e-2, KL clip 1e-3, learning rate a tenth after 60 % of the steps. Each of the
six is tuned over 18 settings in one range of learning rates (18 without
decay, 6 by 3 decays with it), for the accuracy and for the loss on 399
images, with seeds of its own. The choice is trained with other seeds (of
weights, training images and their order) and measured on 898 images that
tuning has not seen. A * marks a choice at an end of its grid.

Differences are between runs of one seed, +- is the standard error over seeds.
A law holds, or is contradicted, if the 95 % interval (Student's t) of the
mean is on one side of the bound; otherwise it is not resolved.

The trace of the first layer's factor S is measured on the training images, in
expectation over the labels, under the estimator that trains, at one learning
rate for both. Gauss-Newton's is made of the weights of the later layers and
grows with them; the paper's about doubles, measured at weights of norm one.

Source: Zhang, Wang, Xu and Grosse, 2019, "Three Mechanisms of Weight Decay
Regularization".
"""

import argparse
import functools
import itertools
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Where steps this small take a quarter of the time.
os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
import training
from digits import drawn
from digits import images_and_labels
from laws_page import summary
from laws_page import verdict
from laws_page import write
from sklearn.model_selection import train_test_split

from keras_wd import decays
from keras_wd.callbacks import Curvature
from keras_wd.optimizers import KFAC
from keras_wd.optimizers import WeightDecay

BATCH, TRAIN = 100, 500
EVERY = 20  # steps between two measurements and inversions
PARTS, DROP = 5, 3  # the learning rate falls after 3 of 5 parts
ESTIMATORS = ("fisher", "gauss_newton")
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
GRIDS = {
    "none": (np.geomspace(RATES[0], RATES[-1], 18).tolist(), (0.0,)),
    "coupled": (RATES, (1e-4, 1e-3, 1e-2)),
    "decoupled": (RATES, (0.01, 0.1, 1.0)),
}
# Whether more is better, and how it is printed.
METRICS = {"accuracy": (1, ".2%"), "loss": (-1, ".4f")}
ABOUT = """\
An MLP without normalization on 500 of scikit-learn's digits; each decay at
the learning rate and strength that were best on images of their own, in a
grid of 18. Differences are of runs of one seed."""
# Learning rates and decoupled decays under which S is watched.
WATCHED = ((3e-2, 0.0), (1e-2, 0.0), (3e-2, 0.1))


@functools.cache
def split(seed):
    """Images and labels for training, for validation, and for the test."""
    x, y = images_and_labels()
    x, test_x, y, test_y = train_test_split(
        x, y, test_size=898, stratify=y, random_state=0
    )
    return *drawn(seed, TRAIN, (x, y)), (test_x, test_y)


def network():
    widths = (128, "relu"), (128, "relu"), (10,)
    stack = [keras.layers.Dense(*arguments) for arguments in widths]
    return keras.Sequential([keras.Input((64,)), *stack])


class Trainer(training.Trainer):
    """One model for all runs of an estimator and a coupling."""

    def __init__(self, estimator, coupling, steps):
        self.steps = steps
        self.kfac = KFAC(
            0.1, damping=1e-2, kl_clip=1e-3, estimator=estimator, seed=0
        )
        optimizer = WeightDecay(self.kfac, decays.L2(0.0, coupling=coupling))
        super().__init__(network, optimizer, BATCH, EVERY)

    def prepare(self):
        """Registered before the optimizer is built, which makes its state."""
        self.kfac.register(self.model, split(0)[0][0][:BATCH])

    def run(self, seed, lr, decay, *callbacks):
        """Train; for validation and for the test, {metric: value}."""
        (x, y), *others = split(seed)
        self.start(seed, lr, decay=decay)
        self.kfac.update_curvature(self.model, x[:BATCH])
        rng = np.random.default_rng(seed)
        rows = training.epochs_of(rng, TRAIN, self.steps // PARTS, BATCH)
        schedule = keras.callbacks.LearningRateScheduler(
            lambda part: lr if part < DROP else lr / 10
        )
        curvature = Curvature(x, EVERY, EVERY, BATCH, seed=seed)
        callbacks = [curvature, schedule, *callbacks]
        self.model.fit(
            x[rows], y[rows], BATCH, PARTS, 0, callbacks, shuffle=False
        )
        return [self.model.test_on_batch(*d, return_dict=True) for d in others]


trainer_of = functools.cache(Trainer)


class Watch(keras.callbacks.Callback):
    """The trace of the first layer's S, at the start and after every part."""

    def __init__(self, estimator):
        super().__init__()
        self.meter = KFAC(0.1, estimator=estimator, curvature_decay=0.0)

    def on_train_begin(self, logs=None):
        self.traces = []
        self.on_epoch_end(-1)

    def on_epoch_end(self, epoch, logs=None):
        model = self.model
        self.meter.update_curvature(model, self.images, invert=False)
        block = self.meter.block_diagnostics()[model.layers[0].kernel.path]
        self.traces.append(block["trace_output_factor"])


def tuned(trainer, kind, seeds):
    """The best learning rate and decay by each metric."""
    found = {metric: [] for metric in METRICS}
    for setting in itertools.product(*GRIDS[kind]):
        runs = [trainer.run(seed, *setting)[0] for seed in seeds]
        accuracy, loss = (np.mean([r[m] for r in runs]) for m in METRICS)
        loss = loss if np.isfinite(loss) else np.inf
        found["accuracy"].append((accuracy, -loss, setting))
        found["loss"].append((-loss, accuracy, setting))
    return {metric: max(tried)[-1] for metric, tried in found.items()}


def compare(given):
    """Print what was chosen; give rows of the table of laws."""
    print("estimator     decay      tuned for     rate      decay    test")
    final = {}
    seeds = range(1000, 1000 + given.tuning_seeds)
    for estimator, kind in itertools.product(ESTIMATORS, GRIDS):
        coupling = "coupled" if kind == "coupled" else "decoupled"
        trainer = trainer_of(estimator, coupling, given.steps)
        for metric, setting in tuned(trainer, kind, seeds).items():
            runs = [trainer.run(s, *setting)[1] for s in range(given.seeds)]
            values = np.array([run[metric] for run in runs])
            final[estimator, kind, metric] = values
            print(f"{estimator:14s}{kind:11s}{metric:9s}", end="")
            for value, row in zip(setting, GRIDS[kind], strict=True):
                end = len(row) > 1 and value in (row[0], row[-1])
                print(f"{value:10.2g}{'*' if end else ' '}", end="")
            print("  ", summary(values, METRICS[metric][1]), flush=True)
    for estimator, other, metric in itertools.product(
        ESTIMATORS, ("none", "coupled"), METRICS
    ):
        sign, form = METRICS[metric]
        best = final[estimator, "decoupled", metric]
        gains = best - final[estimator, other, metric]
        yield (
            f"{estimator}: {metric}, decoupled - {other}",
            "> 0" if sign > 0 else "< 0",
            summary(gains, form, "+"),
            verdict(sign * gains, 0),
        )


def collapse(given):
    """Print the traces of S over time; give rows of the table of laws."""
    marks = [part * given.steps // PARTS for part in range(1, PARTS + 1)]
    print("\nlog10 of the trace of S, first layer, over that at the start")
    steps = "".join(f"{mark:>8d} steps " for mark in marks)
    print("estimator         rate  decay", steps)
    for estimator in ESTIMATORS:
        watch = Watch(f"{estimator}_exact")
        trainer = trainer_of(estimator, "decoupled", given.steps)
        ends = []
        for lr, decay in WATCHED:
            traces = []
            for seed in range(given.seeds):
                watch.images = split(seed)[0][0]
                trainer.run(seed, lr, decay, watch)
                traces.append(watch.traces)
            falls = np.log10(np.array(traces).T / np.array(traces)[:, 0])
            ends.append(falls[-1])
            row = "   ".join(summary(fall, ".2f", "+") for fall in falls[1:])
            print(f"{estimator:14s}{lr:8.2g}{decay:7.2g}     {row}", flush=True)
        # Two orders of magnitude; half of what it was.
        bound, sign = (-2, -1) if estimator == "fisher" else (-0.3, 1)
        name = f"{estimator}: log10 of tr S, end / start"
        expected = f"< {bound}" if sign < 0 else f"> {bound}"
        measured = summary(ends[0], ".2f", "+")
        yield name, expected, measured, verdict(sign * ends[0], sign * bound)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--tuning_seeds", type=int, default=3)
    parser.add_argument("--write", type=pathlib.Path, help="the page of laws")
    given = parser.parse_args()
    if given.seeds < 2 or given.steps % (PARTS * EVERY):
        parser.error("--seeds from 2, --steps a multiple of 100")
    rows = [*compare(given), *collapse(given)]
    print(f"\n{'law':44s}{'expected':10s}{'measured':22s}verdict")
    for law, expected, measured, found in rows:
        print(f"{law:44s}{expected:10s}{measured:22s}{found}")
    if given.write:
        source = "Zhang et al., 2019"
        rows = [(law, source, *rest) for law, *rest in rows]
        command = f"python {' '.join(sys.argv)}"
        write(given.write, "Under K-FAC", command, ABOUT, rows)


if __name__ == "__main__":
    main()
