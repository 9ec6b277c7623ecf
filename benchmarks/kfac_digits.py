"""Steps and seconds to a training loss of 1e-3 on digits, beside Adam's.

    python -m benchmarks kfac_digits [--network mlp] [--seeds 3]

Trains a network on scikit-learn's digits with K-FAC and Adam at each of the
same number of learning rates and prints, for the best of each (fewest steps
over all seeds), the median steps and seconds until the loss of the whole
training set, looked at every 10 steps, is at most 1e-3.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from digits import images_and_labels
from keras import layers
from training import LOSS

from keras_wd.optimizers.kfac import KFAC

BATCH = 128
TARGET = 1e-3
MOST_STEPS = 3000
RATES = {
    "kfac": (3e-3, 1e-2, 3e-2, 1e-1),
    "adam": (3e-4, 1e-3, 3e-3, 1e-2),
}


def network(name):
    if name == "mlp":
        body = [layers.Flatten()]
        body += [layers.Dense(128, activation="relu") for _ in range(2)]
    else:
        body = [
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
        ]
    return keras.Sequential([keras.Input((8, 8, 1)), *body, layers.Dense(10)])


def run(network_name, kind, rate, seed, data, jit_compile):
    """Steps and seconds to the target, or None if it is not reached."""
    x, y = data
    keras.utils.set_random_seed(seed)
    model = network(network_name)
    optimizer = (
        KFAC(rate, damping=1e-2, kl_clip=None, seed=seed)
        if kind == "kfac"
        else keras.optimizers.Adam(rate)
    )
    model.compile(optimizer, LOSS, jit_compile=jit_compile)
    rng = np.random.default_rng(seed)
    if kind == "kfac":
        optimizer.update_curvature(model, x[:BATCH])
    weights = model.get_weights()
    # Once for nothing, so that compiling is not timed.
    model.train_on_batch(x[:BATCH], y[:BATCH])
    model.test_on_batch(x, y)
    model.set_weights(weights)
    for variable in getattr(optimizer, "velocities", []):
        variable.assign(np.zeros(variable.shape))
    start = time.perf_counter()
    spent = 0.0
    for step in range(MOST_STEPS):
        rows = rng.choice(len(x), BATCH, replace=False)
        if kind == "kfac" and step % 10 == 0:
            optimizer.update_curvature(model, x[rows], invert=step % 50 == 0)
        model.train_on_batch(x[rows], y[rows])
        if step % 10 == 9:
            before = time.perf_counter()
            reached = float(model.test_on_batch(x, y)) <= TARGET
            spent += time.perf_counter() - before
            if reached:
                return step + 1, time.perf_counter() - start - spent
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mlp", choices=("mlp", "cnn"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jit", action="store_true")
    arguments = parser.parse_args()
    x, y = images_and_labels()
    data = x.reshape(-1, 8, 8, 1) - 0.3, y
    for kind, rates in RATES.items():
        found = []
        for rate in rates:
            runs = [
                run(arguments.network, kind, rate, seed, data, arguments.jit)
                for seed in range(arguments.seeds)
            ]
            if None not in runs:
                steps, seconds = zip(*runs, strict=True)
                found.append(
                    (statistics.median(steps), statistics.median(seconds), rate)
                )
        if not found:
            print(f"{kind:5s} did not reach {TARGET} in {MOST_STEPS} steps")
            continue
        steps, seconds, rate = min(found)
        print(f"{kind:5s} {steps:6.0f} steps {seconds:7.2f} s at rate {rate}")


if __name__ == "__main__":
    main()
