"""Exact zeros and the regularized objective: PathProx beside weight decay.

    python -m benchmarks path_prox_digits [--steps 20000] [--seeds 3]
        [--learning_rate 0.1] [--weight_decay 1e-3] [--cosine]

Trains six linear layers of width 100 with ReLU after the first, third and
fifth (three pairs, nothing unpaired) on scikit-learn's digits, batch 200, SGD
without momentum, once with weight decay (coupled), once with PathProx and
once with its absorbing variant, and prints at half time and at the end the
share of active units (path product not exactly zero), the objective
`loss + rate * sum of path norms` (for weight decay `loss + rate / 2 * sum of
squares`, which bounds it from above) on the training images, and the test
accuracy; means over the seeds with the standard error of the objective. Runs
whose loss is not finite are counted and left out.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import training
from digits import digits

from keras_wd import decays
from keras_wd import graph
from keras_wd import optimizers
from keras_wd.metrics import weight_norm

BATCH = 200
CHUNK = 500  # steps in one call of `fit`
WIDTH = 100
HIDDEN = ("relu", None, "relu", None, "relu")


def network():
    """Six linear layers with three ReLUs, each ReLU inside a pair."""
    hidden = [keras.layers.Dense(WIDTH, activation) for activation in HIDDEN]
    return keras.Sequential(
        [keras.Input((64,)), *hidden, keras.layers.Dense(10)]
    )


METHODS = {
    "weight decay": lambda model, lr, rate: optimizers.WeightDecay(
        keras.optimizers.SGD(lr), decays.L2(rate, coupling="coupled")
    ),
    "PathProx": lambda model, lr, rate: optimizers.PathProx(model, lr, rate),
    "PathProx, absorb": lambda model, lr, rate: optimizers.PathProx(
        model, lr, rate, absorb=True
    ),
}


def active_units(model):
    """Share of the paired units whose weights are not exactly zero."""
    alive = []
    for source, target in zip(
        model.layers[0::2], model.layers[1::2], strict=True
    ):
        incoming = np.abs(np.asarray(source.kernel)).sum(axis=0)
        outgoing = np.abs(np.asarray(target.kernel)).sum(axis=1)
        alive.append(incoming * outgoing > 0)
    return float(np.mean(alive))


def measured(model, name, rate, data, test):
    """Active units, objective on the training images, test accuracy."""
    loss, _ = training.evaluated(model, data)
    _, accuracy = training.evaluated(model, test)
    if name == "weight decay":
        penalty = weight_norm(model) ** 2 / 2
    else:
        rule = decays.PathNorm(0.0, graph.homogeneous_units(model))
        penalty = rule.value(model)
    return active_units(model), loss + rate * penalty, accuracy


def run(name, steps, seed, lr, rate):
    """What is measured at half time and at the end."""
    keras.utils.set_random_seed(seed)
    data, test = digits()
    model = network()
    training.compiled(model, METHODS[name](model, lr, rate), CHUNK // 5)
    generator = np.random.default_rng(seed)
    marks = []
    for done in range(0, steps, CHUNK):
        rows = generator.integers(0, len(data[0]), CHUNK * BATCH)
        training.fit_in_order(model, data, rows, BATCH)
        if done + CHUNK in (steps // 2, steps):
            marks.append(measured(model, name, rate, data, test))
    return marks


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--learning_rate", type=float, default=0.1)
    parser.add_argument("--weight_decay", type=float, default=1e-3)
    parser.add_argument(
        "--cosine",
        action="store_true",
        help="lower the learning rate to zero, and with it the noise",
    )
    given = parser.parse_args()
    if given.steps % (2 * CHUNK):
        parser.error(f"--steps must be a multiple of {2 * CHUNK}")
    print(
        f"learning rate {given.learning_rate:g}"
        f"{' (cosine)' if given.cosine else ''}, rate {given.weight_decay:g}, "
        f"{given.seeds} seeds, backend {keras.backend.backend()}"
    )
    print(
        f"{'method':18s}{'steps':>8s}{'active':>9s}{'objective':>11s}"
        f"{'+-':>9s}{'accuracy':>10s}{'diverged':>10s}"
    )
    rates = given.learning_rate
    if given.cosine:
        rates = keras.optimizers.schedules.CosineDecay(rates, given.steps)
    for name in METHODS:
        results = np.array(
            [
                run(name, given.steps, seed, rates, given.weight_decay)
                for seed in range(given.seeds)
            ]
        )
        finite = np.all(np.isfinite(results), axis=(1, 2))
        results = results[finite]
        means = results.mean(axis=0)
        errors = results.std(axis=0, ddof=1) / np.sqrt(max(1, len(results)))
        for mark, steps in enumerate((given.steps // 2, given.steps)):
            active, objective, accuracy = means[mark]
            print(
                f"{name:18s}{steps:8d}{active:9.1%}{objective:11.4f}"
                f"{errors[mark][1]:9.4f}{accuracy:10.1%}"
                f"{np.sum(~finite):10d}",
                flush=True,
            )


if __name__ == "__main__":
    main()
