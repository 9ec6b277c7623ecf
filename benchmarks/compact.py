"""Smaller networks from PathProx: an MLP and a CNN on digits, compacted.

    python -m benchmarks compact [--network mlp] [--steps 4000] [--seed 0]

Trains each network twice on scikit-learn's digits, with SGD and weight decay
(the plain network) and with PathProx, compacts the latter, and prints the
test accuracies, multiply-adds, parameters, file sizes, and the latency of
batches of 256, measured in alternating rounds in this run.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import training
from digits import digits
from keras import layers

from keras_wd import decays
from keras_wd import graph
from keras_wd import optimizers

BATCH = 128
CHUNK = 500


def mlp():
    """Dense layers 64-1024-1024-1024-10."""
    return keras.Sequential(
        [
            keras.Input((64,)),
            *(layers.Dense(1024, "relu") for _ in range(3)),
            layers.Dense(10),
        ],
        name="mlp",
    )


def cnn():
    """Two pairs of convolutions (48, 96 channels) and two dense layers."""
    stack = [keras.Input((64,)), layers.Reshape((8, 8, 1))]
    for channels in (48, 96):
        for _ in range(2):
            stack.append(
                layers.Conv2D(channels, 3, padding="same", activation="relu")
            )
        stack.append(layers.MaxPooling2D(2))
    return keras.Sequential(
        [
            *stack,
            layers.Flatten(),
            layers.Dense(128, "relu"),
            layers.Dense(10),
        ],
        name="cnn",
    )


# Learning rate, rate of the decay, steps.
NETWORKS = {"mlp": (mlp, 0.1, 0.007, 6000), "cnn": (cnn, 0.1, 0.01, 4000)}


def trained(make, optimizer_of, steps, seed, lr):
    """A trained network and its test accuracy."""
    keras.utils.set_random_seed(seed)
    data, test = digits()
    model = make()
    schedule = keras.optimizers.schedules.CosineDecay(lr, steps, alpha=0.1)
    jit_compile = True if make is mlp else "auto"
    optimizer = optimizer_of(model, schedule)
    training.compiled(model, optimizer, 50, jit_compile)
    generator = np.random.default_rng(seed)
    for _ in range(0, steps, CHUNK):
        rows = generator.integers(0, len(data[0]), CHUNK * BATCH)
        training.fit_in_order(model, data, rows, BATCH)
    return model, accuracy(model, test)


def accuracy(model, test):
    """Share of the test images that a model, compiled or not, gets right."""
    images, labels = test
    logits = model.predict(images, batch_size=len(images), verbose=0)
    return float(np.mean(logits.argmax(axis=1) == labels))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", choices=NETWORKS)
    given = parser.parse_args()
    _, test = digits()
    for name in [given.network] if given.network else NETWORKS:
        make, lr, rate, steps = NETWORKS[name]
        steps = (given.steps or steps) // CHUNK * CHUNK
        _, plain = trained(
            make,
            lambda model, schedule, rate=rate: optimizers.WeightDecay(
                keras.optimizers.SGD(schedule),
                decays.L2(rate / 10, coupling="coupled"),
            ),
            steps,
            given.seed,
            lr,
        )
        model, sparse = trained(
            make,
            lambda model, schedule, rate=rate: optimizers.PathProx(
                model, schedule, rate, absorb=True
            ),
            steps,
            given.seed,
            lr,
        )
        smaller, report = graph.compact(model, report=True)
        before, after = report.before, report.after
        print(f"\n{name}, {steps} steps, backend {keras.backend.backend()}")
        print(report)
        print(
            f"test accuracy: weight decay {plain:.1%}, PathProx {sparse:.1%}, "
            f"compacted {accuracy(smaller, test):.1%}\n"
            f"multiply-adds {before.multiply_adds / after.multiply_adds:.1f} "
            "times fewer, latency "
            f"{report.milliseconds_before / report.milliseconds_after:.1f} "
            "times lower on batches of 256",
            flush=True,
        )


if __name__ == "__main__":
    main()
